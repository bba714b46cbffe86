import {
  addressSchema,
  bytes32Schema,
  BursarError,
  ERRORS,
  fieldSchema,
  lineSchema,
  mandateSchema,
  parseWire,
  paymentSchema,
  signatureSchema,
  signedReceiptSchema,
  termsSchema,
  toWire,
  uint256Schema,
  uint64Schema,
  type Address,
  type ErrorCode,
  type Hex,
  type Intent,
  type Mandate,
  type PaidRequest,
  type SignedPayment,
  type Terms,
} from "@bursar/protocol";
import { z } from "zod";

import { pauseAfter, within, type Patience, type Surroundings } from "./surroundings.ts";

const infoSchema = z.object({
  chainId: uint256Schema,
  registry: addressSchema,
  processor: addressSchema,
  tokens: z.record(z.string(), z.object({ address: addressSchema, unitScale: uint256Schema })),
  settleWithin: uint64Schema.optional(),
});

const intentViewSchema = z.object({
  agent: addressSchema,
  state: z.string(),
  mandate: mandateSchema.optional(),
  signUrl: z.string().optional(),
  failure: z.string().nullish(),
});

const mandateStatusSchema = z.object({
  mandate: mandateSchema,
  terms: termsSchema,
  state: z.string(),
  accepted: z.object({ seq: uint64Schema, spent: uint64Schema }),
  settled: z.object({ seq: uint64Schema, spent: uint64Schema }),
  reserved: uint64Schema,
  remaining: z
    .string()
    .regex(/^-?\d+$/)
    .transform(BigInt),
  revokedAt: uint64Schema.nullable(),
});

const tailSchema = z.object({
  seq: uint64Schema,
  spent: uint64Schema,
  base: fieldSchema,
  lines: z.array(lineSchema),
  /** The agent's own last payment: its signature proves the rest. */
  last: z.object({ payment: paymentSchema, signature: signatureSchema }).nullish(),
});

const paymentStatusSchema = z.object({
  status: z.enum(["accepted", "batched", "proving", "submitted", "settled", "claimable", "failed"]),
  seq: uint64Schema,
  payee: addressSchema,
  amount: uint64Schema,
  ref: bytes32Schema,
  settleBy: uint64Schema,
  receipt: signedReceiptSchema,
  batch: z.number().nullish(),
  transaction: bytes32Schema.nullish(),
});

const entrySchema = z.object({
  position: z.number(),
  kind: z.enum(["accepted", "refused"]),
  rail: z.string(),
  agent: addressSchema,
  /** Null on the direct rail. */
  seq: uint64Schema.nullable(),
  payee: addressSchema,
  amount: uint64Schema,
  ref: bytes32Schema,
  /** Unix seconds. */
  at: uint64Schema,
  status: z.string(),
  code: z.string().nullish(),
  reason: z.string().nullish(),
  advice: z.string().nullish(),
  transaction: bytes32Schema.nullish(),
});
const entriesSchema = z.union([z.array(entrySchema), z.object({ entries: z.array(entrySchema) })]);

const checkSchema = z.object({ remaining: uint64Schema.optional() });

const problemSchema = z.object({
  code: z.string(),
  detail: z.string().optional(),
  title: z.string().optional(),
  details: z.record(z.string(), z.string()).optional(),
  advice: z.string().optional(),
});

/** What a processor says of itself. */
export type ProcessorInfo = z.output<typeof infoSchema>;
/** An intent at its processor. */
export type IntentView = z.output<typeof intentViewSchema>;
/** A mandate at its processor; amounts in units, times in Unix seconds. */
export type MandateStatus = z.output<typeof mandateStatusSchema>;
/** How far a payment has come. */
export type PaymentStatus = z.output<typeof paymentStatusSchema>;
/** One line of the processor's readable ledger: a payment accepted or refused. */
export type LedgerEntry = z.output<typeof entrySchema>;
export type Tail = z.output<typeof tailSchema>;

/** Which lines of the ledger; see the processor's `GET /ledger`. */
export interface LedgerFilter {
  readonly payee?: Address;
  readonly kind?: "accepted" | "refused";
  readonly status?: string;
  readonly rail?: string;
  /** Unix seconds, inclusive. */
  readonly since?: bigint;
  readonly until?: bigint;
}

/** What became of something that was sent: an answer, or a refusal that the processor decided on. */
export type Outcome = { readonly answer: unknown } | { readonly refusal: BursarError };

interface Sent {
  readonly body?: unknown;
  readonly access?: string;
  readonly signal?: AbortSignal | undefined;
}

/** Receipts in one request. */
const HANDED_BACK = 25;

/** Answers that say nothing about what was sent. */
const UNDECIDED: readonly number[] = [408, 425];
const UNDECIDED_CODES: readonly ErrorCode[] = ["too-many-requests", "shutting-down"];
/** It comes with 503, and the agent itself can help. */
const BEHIND: ErrorCode = "books-behind";

/** A processor's HTTP API. What is not an answer is asked again with the same bytes. */
export class ProcessorClient {
  readonly url: string;
  readonly #patience: Patience;
  readonly #around: Surroundings;

  /** @throws BursarError `malformed-input` for a URL that is not absolute http or https. */
  constructor(url: string, patience: Patience, around: Surroundings) {
    if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
      throw new BursarError("malformed-input", `«${url}» is not the http or https URL of a processor.`, { value: url });
    }
    this.url = url.replace(/\/+$/, "");
    this.#patience = patience;
    this.#around = around;
  }

  async info(signal?: AbortSignal): Promise<ProcessorInfo> {
    return parseWire(infoSchema, await this.#ask("GET", "/info", { signal }));
  }

  async postIntent(
    body: { intent: Intent; mandate: Mandate; agentSignature: Hex },
    signal?: AbortSignal,
  ): Promise<IntentView> {
    return parseWire(intentViewSchema, await this.#ask("POST", "/intents", { body, signal }));
  }

  async intent(agent: Address, access: string, signal?: AbortSignal): Promise<IntentView> {
    return parseWire(intentViewSchema, await this.#ask("GET", `/intents/${agent}`, { access, signal }));
  }

  async signIntent(agent: Address, ownerSignature: Hex, signal?: AbortSignal): Promise<void> {
    await this.#ask("POST", `/intents/${agent}/signature`, { body: { ownerSignature }, signal });
  }

  async mandate(agent: Address, access: string, signal?: AbortSignal): Promise<MandateStatus> {
    return parseWire(mandateStatusSchema, await this.#ask("GET", `/mandates/${agent}`, { access, signal }));
  }

  async tail(agent: Address, access: string, signal?: AbortSignal): Promise<Tail> {
    return parseWire(tailSchema, await this.#ask("GET", `/mandates/${agent}/tail`, { access, signal }));
  }

  /** Null when the processor knows no such payment. */
  async payment(agent: Address, seq: bigint, access: string, signal?: AbortSignal): Promise<PaymentStatus | null> {
    const outcome = await this.send("GET", `/payments/${agent}/${seq}`, { access, signal });
    if ("refusal" in outcome && outcome.refusal.code === "not-found") return null;
    return parseWire(paymentStatusSchema, answerOf(outcome));
  }

  async ledger(
    query: LedgerFilter & { agent: Address; before?: number; limit: number },
    access: string,
    signal?: AbortSignal,
  ): Promise<LedgerEntry[]> {
    const given = Object.entries(query).filter(([, value]) => value !== undefined);
    const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
    const page = parseWire(entriesSchema, await this.#ask("GET", `/ledger?${search}`, { access, signal }));
    return Array.isArray(page) ? page : page.entries;
  }

  async check(signed: SignedPayment, signal?: AbortSignal): Promise<Outcome & { remaining?: bigint | undefined }> {
    const outcome = await this.send("POST", "/payments/check", { body: signed, signal });
    return "refusal" in outcome ? outcome : { ...outcome, ...parseWire(checkSchema, outcome.answer) };
  }

  /** Takes up the mandate, which stands open on chain. */
  async register(mandate: Mandate, terms: Terms, signal?: AbortSignal): Promise<void> {
    await this.#ask("POST", "/mandates", { body: { mandate, terms }, signal });
  }

  /** Hands back payments with their receipts, in the order of the ledger. */
  async handBack(paid: readonly PaidRequest[], signal?: AbortSignal): Promise<void> {
    for (let from = 0; from < paid.length; from += HANDED_BACK) {
      const receipts = paid.slice(from, from + HANDED_BACK).map(({ payment, receipt }) => ({ payment, receipt }));
      await this.#ask("POST", "/receipts", { body: { receipts }, signal });
    }
  }

  pay(signed: SignedPayment, signal?: AbortSignal): Promise<Outcome> {
    return this.send("POST", "/payments", { body: signed, signal });
  }

  /**
   * Sends until there is an answer or a refusal. No answer, an unreadable one, 5xx and «later» are tried again.
   *
   * @throws BursarError `processor-unavailable`; the signal's reason.
   */
  async send(method: string, path: string, { body, access, signal }: Sent): Promise<Outcome> {
    const headers = {
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...(access === undefined ? {} : { authorization: access }),
    };
    const text = body === undefined ? null : JSON.stringify(toWire(body));
    const { attempts, timeout } = this.#patience;
    for (let attempt = 1; ; attempt++) {
      signal?.throwIfAborted();
      let retryAfter: string | null = null;
      let failure: string;
      try {
        const ended = within(timeout, signal);
        const answer = await this.#around.fetch(this.url + path, { method, headers, body: text, signal: ended });
        retryAfter = answer.headers.get("retry-after");
        const outcome = outcomeOf(answer.status, await answer.text());
        if (typeof outcome !== "string") return outcome;
        failure = outcome;
      } catch (error) {
        signal?.throwIfAborted();
        failure = error instanceof Error ? error.message : String(error);
      }
      if (attempt >= attempts) throw unavailable(this.url, attempt, failure);
      await this.#around.sleep(pauseAfter(attempt, this.#patience, this.#around, retryAfter), signal);
    }
  }

  async #ask(method: string, path: string, sent: Sent): Promise<unknown> {
    return answerOf(await this.send(method, path, sent));
  }
}

function answerOf(outcome: Outcome): unknown {
  if ("refusal" in outcome) throw outcome.refusal;
  return outcome.answer;
}

/** The outcome that an answer tells; a text that says what is wrong when it tells none. */
function outcomeOf(status: number, text: string): Outcome | string {
  const body = jsonOf(text);
  if (status >= 200 && status < 300) return body === undefined ? `${status} without JSON` : { answer: body };
  const problem = problemSchema.safeParse(body).data;
  const silent = status < 400 || (status >= 500 && problem?.code !== BEHIND) || UNDECIDED.includes(status);
  if (problem === undefined || silent) {
    return `${status} ${problem?.detail ?? ""}`.trim();
  }
  const known = Object.hasOwn(ERRORS, problem.code) ? (problem.code as ErrorCode) : null;
  if (known !== null && UNDECIDED_CODES.includes(known)) return `${status} ${problem.detail ?? known}`;
  const { detail = problem.title ?? problem.code, advice } = problem;
  const details = { ...problem.details, ...(known === null ? { code: problem.code } : {}) };
  return { refusal: new BursarError(known ?? "forbidden", detail, details, advice) };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function unavailable(url: string, attempts: number, failure: string): BursarError {
  return new BursarError(
    "processor-unavailable",
    `${url} gave no usable answer in ${attempts} tries; the last: ${failure}.`,
    { attempts, failure },
    "Try again later. A payment that was underway is kept and is sent again before any other; do not replace it by another.",
  );
}
