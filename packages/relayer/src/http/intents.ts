import {
  addressSchema,
  BursarError,
  ERRORS,
  intentSchema,
  mandateSchema,
  parseWire,
  signatureSchema,
  termsSchema,
  toWire,
  uint256Schema,
  uint64Schema,
  verifyAccess,
  type Address,
  type Domain,
  type Mandate,
} from "@bursar/protocol";
import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";

import type { Intents, IntentView } from "../intents.ts";
import { withoutPlaces } from "./problems.ts";
import { routeSchema, type Routes } from "./route.ts";
import { errorPage, signPage, statePage, type Page } from "./sign-page.ts";

export interface IntentRoutesOptions {
  readonly intents: Intents;
  readonly domain: Domain;
  /**
   * Whether who asks may read what a signed mandate says. Its owner and its agent may, by a signed access, unless this
   * says otherwise.
   */
  readonly mayRead?: (request: FastifyRequest, mandate: Mandate) => boolean | Promise<boolean>;
  /** Unix seconds. */
  readonly now: () => bigint;
}

type IntentOutline = Pick<IntentView, "agent" | "state">;

const draftSchema = z.strictObject({
  intent: intentSchema,
  mandate: mandateSchema,
  agentSignature: signatureSchema.optional(),
});
const answerSchema = z.strictObject({
  ownerSignature: signatureSchema,
  revocationSignature: signatureSchema.optional(),
  afterSeq: uint64Schema.optional(),
});
const agentSchema = z.strictObject({ agent: addressSchema });

const LIFE = ["open", "revoked", "expired", "closed"] as const;
const STATES = ["drafted", "awaiting-signature", "opening", ...LIFE] as const;
/** An `IntentView` on the wire; of a signed intent strangers are given agent and state alone. */
export const intentViewSchema = z.object({
  agent: addressSchema,
  state: z.enum(STATES),
  mandate: mandateSchema.optional(),
  terms: termsSchema.optional(),
  clauses: z
    .array(
      z.object({
        subject: z.string(),
        words: z.string(),
        enforcedBy: z.enum(["contract and proof", "processor", "nobody"]),
      }),
    )
    .optional(),
  symbol: z.string().optional(),
  signUrl: z.string().optional(),
  expiresAt: uint64Schema.nullish(),
  missing: z
    .object({ agentSignature: z.boolean(), ownerSignature: z.boolean(), funds: uint64Schema })
    .describe("what must still happen; funds in units of the owner's free balance")
    .optional(),
  free: uint256Schema.nullish(),
  replaces: z
    .object({
      agent: addressSchema,
      state: z.enum(LIFE),
      remaining: uint64Schema,
      revocation: z.object({ agent: addressSchema, afterSeq: uint64Schema }),
      revocationSigned: z.boolean(),
    })
    .nullish(),
  failure: z.string().nullish(),
});

/**
 * From an agent's draft to the owner's one signature.
 *
 * What is not signed yet is read by whoever knows the agent's address, which nobody else does. Once the mandate is on
 * chain everybody knows it: from then on strangers are told its state alone.
 */
export function intentRoutes({ intents, domain, now, mayRead }: IntentRoutesOptions): Routes {
  const reads = mayRead ?? ((request, mandate) => isParty(request, mandate, domain, now()));

  /** What an intent says, for those who may read it; its state for all. */
  async function shown(request: FastifyRequest, agent: Address): Promise<IntentView | IntentOutline> {
    const view = await intents.view(agent);
    const readable = view.expiresAt !== null || (await reads(request, view.mandate));
    return readable ? view : { agent, state: view.state };
  }

  return (server) => {
    server.post(
      "/intents",
      {
        schema: routeSchema({
          summary: "An agent asks its owner for a mandate; the same again changes nothing",
          tags: ["intents"],
          body: draftSchema,
          answer: intentViewSchema,
          status: 201,
          errors: [
            "intent-mismatch",
            "policy-mismatch",
            "terms-mismatch",
            "wrong-processor",
            "wrong-token",
            "intent-conflict",
            "mandate-conflict",
            "mandate-unknown",
            "forbidden",
            "too-many-requests",
          ],
        }),
      },
      async (request, reply) =>
        reply.status(201).send(toWire(await intents.draft(parseWire(draftSchema, request.body)))),
    );

    server.get(
      "/intents/:agent",
      {
        schema: routeSchema({
          summary: "What an intent says and what must still happen; of a signed one its state, to strangers",
          tags: ["intents"],
          params: agentSchema,
          answer: intentViewSchema,
          errors: ["not-found", "mandate-conflict", "chain-unavailable"],
        }),
      },
      async (request) => {
        const { agent } = parseWire(agentSchema, request.params);
        return toWire(await shown(request, agent));
      },
    );

    server.get(
      "/intents/:agent/sign",
      {
        schema: routeSchema({
          summary: "The page on which the owner reads an intent and signs it",
          tags: ["intents"],
          params: agentSchema,
        }),
      },
      async (request, reply) => {
        const { agent } = parseWire(agentSchema, request.params);
        try {
          const view = await shown(request, agent);
          return await sendPage(reply, "mandate" in view ? signPage(view, domain) : statePage(view));
        } catch (error) {
          if (!(error instanceof BursarError)) throw error;
          const { code, message, advice } = withoutPlaces(error);
          return sendPage(reply.status(ERRORS[code].status), errorPage(message, advice));
        }
      },
    );

    server.post(
      "/intents/:agent/signature",
      {
        schema: routeSchema({
          summary: "The owner signs: the mandate is opened on chain and taken up; the same again changes nothing",
          tags: ["intents"],
          params: agentSchema,
          body: answerSchema,
          answer: intentViewSchema,
          errors: [
            "not-found",
            "intent-not-signable",
            "signature-signer",
            "funds-missing",
            "transaction-failed",
            "chain-unavailable",
            "opening-pending",
          ],
        }),
      },
      async (request) => {
        const { agent } = parseWire(agentSchema, request.params);
        return toWire(await intents.sign(agent, parseWire(answerSchema, request.body)));
      },
    );
  };
}

function sendPage(reply: FastifyReply, { html, headers }: Page): FastifyReply {
  return reply.headers({ ...headers }).send(html);
}

function isParty(request: FastifyRequest, { owner, agent }: Mandate, domain: Domain, now: bigint): boolean {
  const { authorization } = request.headers;
  if (authorization === undefined) return false;
  const account = verifyAccess(domain, authorization, now);
  return account === owner || account === agent;
}
