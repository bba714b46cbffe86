import {
  decodePaymentHeader,
  encodePaymentRequired,
  PAYMENT_HEADER,
  PAYMENT_REQUIRED_HEADER,
  problem,
  requestRef,
  verifyPaid,
  type Address,
  type Hex,
  type LedgerState,
  type Mandate,
  type PaymentTerms,
  type Terms,
  type Wire,
} from "@bursar/protocol";
import { createServer } from "@bursar/relayer";
import { Agent, memoryBook, type AgentOptions, type AgentSettings } from "@bursar/sdk/agent";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { createServer as createHttpServer, request as httpRequest, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";

import { addressOf, ANYTHING, DOMAIN, draftMandate, keyOf, Office } from "../../relayer/office.ts";

export const PAYEE = addressOf("payee");

/** What happens to one request on its way to the processor. */
export type Fault =
  | "pass"
  /** The connection ends before the processor hears of it. */
  | "lost"
  /** The processor has done its work, and the connection ends before the answer. */
  | "unanswered"
  /** An answer in place of the processor's, which hears nothing. */
  | Answer
  /** The processor has done its work, and another answer is made of its own. */
  | ((body: string) => Answer | Promise<Answer>);

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers?: Record<string, string>;
}

/** The line to the processor, with a fault for each of the next payments. */
export class Line {
  readonly faults: Fault[] = [];
  /** Bodies of the payments that were sent, in order. */
  readonly sent: string[] = [];
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async to(target: string): Promise<Line> {
    const server = createHttpServer();
    const line = new Line(server);
    server.on("request", (incoming, outgoing) => {
      void (async () => {
        const body = await textOf(incoming);
        const payment = incoming.method === "POST" && incoming.url === "/payments";
        const fault = payment ? (line.faults.shift() ?? "pass") : "pass";
        if (payment) line.sent.push(body);
        if (fault === "lost") return void incoming.socket.destroy();
        const answer: Answer = typeof fault === "object" ? fault : await forward(target, incoming, body);
        if (fault === "unanswered") return void incoming.socket.destroy();
        const other = typeof fault === "function" ? await fault(answer.body) : answer;
        outgoing.writeHead(other.status, { ...answer.headers, ...other.headers }).end(other.body);
      })();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return line;
  }

  get url(): string {
    return urlOf(this.#server);
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

/** A processor without a chain behind its HTTP interface and a faulty line, and services that sell. */
export class Market {
  readonly office: Office;
  readonly server: FastifyInstance;
  readonly line: Line;
  readonly #closing: (() => unknown)[] = [];
  /** Whether the ledger's tail carries the agent's own last payment. */
  provesTail = true;

  private constructor(office: Office, server: FastifyInstance, line: Line) {
    this.office = office;
    this.server = server;
    this.line = line;
  }

  /** @param origins - whose pages may call. */
  static async open(given?: Office, origins: readonly string[] = []): Promise<Market> {
    const office = given ?? (await Office.open());
    const contract = addressOf("a contract");
    const tokens = { tUSD: { address: addressOf("token"), unitScale: 1n } };
    const place = { escrow: contract, settlement: contract, direct: contract, tokens };
    const server = createServer(office.processor, { place, origins });
    const late: { market?: Market } = {};
    server.addHook("preSerialization", (request, _reply, answer, done) => {
      const withheld = request.routeOptions.url === "/mandates/:agent/tail" && late.market?.provesTail === false;
      done(null, withheld ? { ...(answer as object), last: null } : answer);
    });
    await server.listen({ host: "127.0.0.1", port: 0 });
    const market = new Market(office, server, await Line.to(urlOf(server.server)));
    late.market = market;
    return market;
  }

  /** An agent whose mandate stands in the books. */
  async agent(
    name: string,
    settings: AgentSettings & { overrides?: Partial<Mandate>; terms?: Terms; key?: AgentOptions["key"] } = {},
  ): Promise<Agent> {
    const { overrides = {}, terms = ANYTHING, key = keyOf(name), ...rest } = settings;
    const address = key.address as Address;
    if ((await this.office.store.mandate(address)) === undefined) await this.office.agent(name, overrides, terms);
    return new Agent({
      key,
      processor: this.line.url,
      domain: DOMAIN,
      mandate: draftMandate(address, overrides, terms),
      terms,
      book: memoryBook(),
      patience: { attempts: 4, pause: 1, longest: 5 },
      ...rest,
      surroundings: { now: () => this.office.clock, ...rest.surroundings },
    });
  }

  /** A service of its own port that sells every path for `price` units. */
  async shop(options: Partial<ShopOptions> = {}): Promise<Shop> {
    const shop = await Shop.open({ now: () => this.office.clock, ...options });
    this.#closing.push(() => shop.close());
    return shop;
  }

  /** Lines of the processor's books: each is money that moves. */
  async paid(agent: Agent): Promise<{ seq: bigint; amount: bigint; ref: Hex; payee: Address }[]> {
    return (await this.office.store.payments(agent.address, 1n, 10_000n)).map(({ payment: { seq, line } }) => ({
      seq,
      ...line,
    }));
  }

  async close(): Promise<void> {
    for (const close of this.#closing) await close();
    this.line.close();
    await this.server.close();
    await this.office.store.close();
  }
}

export interface ShopOptions {
  readonly price: bigint;
  /** Changes what the 402 answer asks. */
  readonly asks: (terms: PaymentTerms) => PaymentTerms;
  /** Answers in place of the shop, unless it gives back nothing. */
  readonly instead: (paid: boolean, request: FastifyRequest, reply: FastifyReply) => FastifyReply | undefined;
  readonly now: () => bigint;
  /** The origin of pages that may call. */
  readonly cors: string;
}

/** A paid service: it asks, verifies offline, takes each receipt once and gives back what it was sent. */
export class Shop {
  readonly #server: FastifyInstance;
  readonly #options: Partial<ShopOptions>;
  /** PAYMENT-SIGNATURE headers that came, in order. */
  readonly headers: string[] = [];
  /** What was served: the payment's number and the body. */
  readonly served: { seq: bigint; url: string; body: string }[] = [];
  readonly #used = new Set<string>();

  private constructor(server: FastifyInstance, options: Partial<ShopOptions>) {
    this.#server = server;
    this.#options = options;
    server.removeAllContentTypeParsers();
    server.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
    const { cors } = options;
    if (cors !== undefined) server.addHook("onRequest", (request, reply) => allowed(request, reply, cors));
    server.all("/*", (request, reply) => this.#sell(request, reply));
  }

  static async open(options: Partial<ShopOptions>): Promise<Shop> {
    const shop = new Shop(fastify({ bodyLimit: 16_000_000 }), options);
    await shop.#server.listen({ host: "127.0.0.1", port: 0 });
    return shop;
  }

  get url(): string {
    return urlOf(this.#server.server);
  }

  async close(): Promise<void> {
    this.#server.server.closeAllConnections();
    await this.#server.close();
  }

  #sell(request: FastifyRequest, reply: FastifyReply): unknown {
    const { price = 100n, asks, now = () => 0n, instead } = this.#options;
    const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
    const url = this.url + request.url;
    const ref = requestRef({ method: request.method, url, body });
    const header = request.headers[PAYMENT_HEADER.toLowerCase()];
    if (typeof header === "string") this.headers.push(header);
    const other = instead?.(header !== undefined, request, reply);
    if (other !== undefined) return other;
    if (typeof header !== "string") {
      const terms = termsFor(url, ref, price);
      return ask(reply, encodePaymentRequired(asks?.(terms) ?? terms));
    }
    try {
      const paid = decodePaymentHeader(header);
      verifyPaid(paid, {
        domain: DOMAIN,
        payee: PAYEE,
        amount: price,
        ref,
        processor: addressOf("processor"),
        now: now(),
      });
      const { agent, payment } = paid.payment;
      const use = `${agent} ${payment.seq}`;
      if (this.#used.has(use)) return reply.status(409).send({ code: "receipt-used" });
      this.#used.add(use);
      this.served.push({ seq: payment.seq, url: request.url, body: body.toString() });
      return reply.send({ bought: request.url, body: body.toString() });
    } catch (error) {
      return reply.status(402).send(problem(error));
    }
  }
}

/** What a page of another origin needs to be told, see docs/agent.md. */
async function allowed(request: FastifyRequest, reply: FastifyReply, origin: string): Promise<void> {
  void reply.headers({
    "access-control-allow-origin": origin,
    "access-control-allow-headers": `content-type, ${PAYMENT_HEADER}`,
    "access-control-expose-headers": `${PAYMENT_REQUIRED_HEADER}, retry-after`,
  });
  if (request.method === "OPTIONS") await reply.status(204).send();
}

/** What a shop asks. */
export function termsFor(url: string, ref: Hex, amount = 100n): PaymentTerms {
  return {
    domain: DOMAIN,
    token: addressOf("token"),
    payee: PAYEE,
    amount,
    ref,
    url,
    processors: [addressOf("processor")],
  };
}

/** Answers 402 with a PAYMENT-REQUIRED header. */
export function ask(reply: FastifyReply, required: string): FastifyReply {
  return reply.status(402).header(PAYMENT_REQUIRED_HEADER, required).send({});
}

/** Ends the connection in place of an answer. */
export function cut(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  request.raw.socket.destroy();
  return reply.hijack();
}

export async function stateOf(book: { read(): Promise<string | null> }): Promise<Wire<LedgerState>> {
  return (JSON.parse((await book.read()) ?? "null") as { state: Wire<LedgerState> }).state;
}

function urlOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function textOf(message: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

function forward(target: string, incoming: IncomingMessage, body: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { method = "GET", url = "/", headers } = incoming;
    const outgoing = httpRequest(target + url, { method, headers }, (answer) => {
      const kept = [
        "content-type",
        "retry-after",
        ...Object.keys(answer.headers).filter((name) => name.startsWith("access-")),
      ];
      const told = Object.fromEntries(
        kept.flatMap((name) => (answer.headers[name] ? [[name, String(answer.headers[name])]] : [])),
      );
      textOf(answer).then((text) => resolve({ status: answer.statusCode ?? 500, body: text, headers: told }), reject);
    });
    outgoing.on("error", reject).end(body);
  });
}
