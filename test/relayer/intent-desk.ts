import {
  composeMandate,
  parseIntent,
  problem,
  signMandate,
  toWire,
  type Address,
  type Hex,
  type Intent,
  type Mandate,
  type Terms,
} from "@bursar/protocol";
import fastify, { type FastifyInstance } from "fastify";
import { hexlify, randomBytes, Wallet } from "ethers";

import { intentRoutes } from "../../packages/relayer/src/http/intents.ts";
import { IntentBook, Intents, type IntentsOptions, type IntentState } from "../../packages/relayer/src/intents.ts";
import type { TestRail } from "../integration/rail.ts";

export interface Answer {
  status: number;
  body: {
    state: IntentState;
    code: string;
    detail: string;
    advice?: string;
    details: Record<string, string>;
    signUrl: string;
    mandate?: unknown;
    clauses: { subject: string; words: string; enforcedBy: string }[];
    missing: { agentSignature: boolean; ownerSignature: boolean; funds: string };
    free: string;
    failure: string | null;
    replaces: { agent: string; revocation: { agent: Address; afterSeq: string }; revocationSigned: boolean } | null;
  };
}

/** What an agent brings: its key, and what it asks for. */
export interface Asked {
  readonly wallet: Wallet;
  readonly agent: Address;
  readonly intent: Intent;
  readonly mandate: Mandate;
  readonly terms: Terms;
  readonly agentSignature: Hex;
}

export const PLAIN = { purpose: "weather data for a route", budget: "5000", paymentCap: "100", duration: "86400" };

/** The processor's counter for intents on a test rail, over HTTP. */
export class Desk {
  readonly rail: TestRail;
  readonly intents: Intents;
  readonly book: IntentBook;
  readonly server: FastifyInstance;
  url = "";

  constructor(rail: TestRail, overrides: Partial<IntentsOptions> = {}) {
    const { domain, processor, chain, store, outbox } = rail;
    const now = (): bigint => rail.now();
    this.rail = rail;
    this.book = overrides.book ?? new IntentBook(store.database);
    const deliver: IntentsOptions["deliver"] = (job, request) => outbox.deliver(job, request);
    this.intents = new Intents({ domain, book: this.book, processor, chain, deliver, now, ...overrides });
    this.server = answerProblems(fastify());
    intentRoutes({ intents: this.intents, domain, now })(this.server);
  }

  static async open(rail: TestRail, overrides: Partial<IntentsOptions> = {}): Promise<Desk> {
    const desk = new Desk(rail, overrides);
    desk.url = await desk.server.listen({ host: "127.0.0.1", port: 0 });
    return desk;
  }

  /** An intent of a fresh agent, composed and signed by it. */
  async ask(changes: Record<string, unknown> = {}, owner: Address = this.rail.ownerAddress): Promise<Asked> {
    const { rail } = this;
    const wallet = new Wallet(hexlify(randomBytes(32)));
    const intent = parseIntent({ ...PLAIN, ...changes });
    const agent = wallet.address as Address;
    const processor = rail.processorKey.address as Address;
    const { mandate, terms } = composeMandate(intent, { owner, agent, token: rail.token, processor, now: rail.now() });
    return { wallet, agent, intent, mandate, terms, agentSignature: await signMandate(wallet, rail.domain, mandate) };
  }

  async http(
    method: "GET" | "POST",
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(toWire(body)) }),
    });
    return { status: response.status, body: (await response.json()) as Answer["body"] };
  }

  draft({ intent, mandate, agentSignature }: Asked, changes: object = {}): Promise<Answer> {
    return this.http("POST", "/intents", { intent, mandate, agentSignature, ...changes });
  }

  show(agent: Address, headers: Record<string, string> = {}): Promise<Answer> {
    return this.http("GET", `/intents/${agent}`, undefined, headers);
  }

  sign(agent: Address, answer: object): Promise<Answer> {
    return this.http("POST", `/intents/${agent}/signature`, answer);
  }

  /** The signature of the rail's owner. */
  ownerSigns({ mandate }: Pick<Asked, "mandate">): Promise<Hex> {
    return signMandate(this.rail.owner, this.rail.domain, mandate);
  }

  /** Drafts an intent that only waits for the owner. */
  async asked(changes: Record<string, unknown> = {}, owner?: Address): Promise<Asked> {
    const asked = await this.ask(changes, owner);
    const { status, body } = await this.draft(asked);
    if (status !== 201) throw new Error(JSON.stringify(body));
    return asked;
  }
}

/** A server that answers errors as Problem Details, and leaves parsing to its handlers. */
export function answerProblems(server: FastifyInstance): FastifyInstance {
  server.setValidatorCompiler(() => () => true);
  server.setErrorHandler((error, _request, reply) => {
    const body = problem(error);
    if (body.code === "internal-error") console.error(error);
    return reply.status(body.status).send(body);
  });
  return server;
}
