import {
  assertCovered,
  BursarError,
  decodePaymentHeader,
  DELIVERY_HEADER,
  encodeDeliveryHeader,
  hashDelivery,
  holdOf,
  MAX_HOLDBACK,
  parseAddress,
  requestRef,
  signDelivery,
  verifyPaid,
  verifySignature,
  type AcceptedHolds,
  type Address,
  type Domain,
  type Hex,
  type PaidRequest,
  type PaymentTerms,
  type SignedDelivery,
  type SignedPayment,
  type SignedQuote,
} from "@bursar/protocol";
import { keccak256, toUtf8Bytes, ZeroHash, type Signer } from "ethers";

import { encodePaymentResponse, noContent, PAYMENT_RESPONSE_HEADER, refusal, type Ask } from "./ask.ts";
import { Exposure } from "./exposure.ts";
import type { MandateSnapshot, MandateSource } from "./mandates.ts";
import { unitsOf, type Amount } from "./price.ts";
import { assertOwnQuote, offer, type QuoteOptions } from "./quote.ts";
import { keyOf, LATE_WINDOW, type ExposureLimits, type Marked, type ReceiptStore } from "./receipts.ts";
import { payRefund, type Refund, type RefundOptions, type RefundPayer } from "./refund.ts";
import { parseOrigin } from "./target.ts";

/** When content goes out: on the processor's promise, or once the chain shows the payment settled. */
export type Serving = "at-once" | "after-settlement";

export interface PaywallOptions {
  /** Who is paid. */
  readonly payee: string;
  /** The chain and the MandateRegistry. */
  readonly domain: Domain;
  /** The only token that is taken. */
  readonly token: string;
  /** Base units of the token in one unit, see `unitScale`; 1, as for USDC, unless given. */
  readonly unitScale?: bigint;
  /** Processors whose receipts are taken, at most 32. */
  readonly processors: readonly string[];
  /** Where receipts are kept; replicas share one store. */
  readonly receipts: ReceiptStore;
  /** Where mandates are read. */
  readonly mandates: MandateSource;
  /** The public base URL of the service. Without it the request's own protocol and host count. */
  readonly origin?: string;
  /** The most that may be unsettled with one processor; 100 unless given. */
  readonly maxUnsettled?: Amount;
  /** A processor's bond in units, of which at most 1 % may be unsettled; as `mandates` reads it unless given. Read once a minute. */
  readonly bond?: (processor: Address) => Promise<bigint>;
  /** Payments above it are served after settlement; 10 unless given. */
  readonly waitAbove?: Amount;
  /** `at-once` unless given. A route may say otherwise. */
  readonly serving?: Serving;
  /** Whether a receipt can be used again when the handler failed (threw, or answered 5xx): `release` unless given. */
  readonly afterFailure?: "release" | "keep";
  /** Sign an offer into each 402 answer. */
  readonly quotes?: QuoteOptions;
  /** Takes payments that wait in holds, where they can be disputed; none unless given. */
  readonly holds?: HoldOptions;
  /** Seconds until settlement that a receipt may promise at most; 24 h, the contract's maximum, unless given. */
  readonly maxSettleIn?: bigint;
  /** Seconds between two looks at the chain for settlements, and the `Retry-After` of who waits; 3 unless given. */
  readonly refreshEvery?: number;
  /** Characters of the payment header, 8,192 unless given; never more than 16,384. */
  readonly maxHeader?: number;
  /** Unix seconds. */
  readonly now?: () => bigint;
}

/** Which holds a payee takes in place of payments to itself. */
export interface HoldOptions {
  /** The dispute module: whoever can rule there can give the money back. */
  readonly module: string;
  /** Seconds that money may wait at most; 7 days, the contract's maximum, unless given. */
  readonly maxHoldback?: bigint;
  /** The payee's key: with it each answer that a hold paid for carries a signed delivery. */
  readonly signer?: Signer;
}

/** A request, whatever the framework. */
export interface PaidCall {
  readonly method: string;
  /** Absolute, as the agent called it. */
  readonly url: string;
  /** The body's exact bytes; absent for none; null when there is a body and its bytes are gone. */
  readonly body?: Uint8Array | string | null | undefined;
  /** Value of the PAYMENT-SIGNATURE header. */
  readonly header?: string | undefined;
  /** null and 0 are free. */
  readonly price: Amount | null;
  /** For who pays. */
  readonly description?: string | undefined;
  readonly serving?: Serving | undefined;
}

/** What a route may say for itself. */
export interface RouteOptions {
  /** What is sold, for who pays. */
  readonly description?: string;
  readonly serving?: Serving;
  /** Bytes of a body that are kept in memory, where the framework sets no limit; 1 MiB unless given. */
  readonly maxBody?: number;
}

/** A payment that bought a request. */
export interface Paid extends PaidRequest {
  readonly processor: Address;
}

/** The content may go out. */
export interface Serve {
  readonly kind: "serve";
  /** null when the request is free. */
  readonly paid: Paid | null;
  /** For the answer. */
  readonly headers: Readonly<Record<string, string>>;
  /**
   * Headers for an answer that is no failure, made of its body: the payee's signed delivery. Null when there is nothing to
   * sign. A body that is not at hand, such as a stream, is not named.
   */
  readonly delivered: ((body?: Uint8Array | string) => Promise<Readonly<Record<string, string>>>) | null;
  /** To be called, and awaited, before an answer that is a failure of the handler goes out. */
  readonly failed: () => Promise<void>;
}

/** What {@link Paywall.quote} offers. */
export interface QuoteRequest {
  readonly method: string;
  readonly url: string;
  readonly body?: Uint8Array | string | undefined;
  readonly amount: Amount;
  readonly host?: string | undefined;
  readonly category?: string | undefined;
  /** Unix seconds. */
  readonly expiresAt?: bigint | undefined;
}

/** Seconds that a snapshot may be old, see the rule on revocations. */
const SNAPSHOT_AGE = 60;
const QUOTE_LIFE = 300n;

const free: Serve = { kind: "serve", paid: null, headers: {}, delivered: null, failed: () => Promise.resolve() };

/**
 * The payee's side of a payment, independent of any framework. {@link Paywall.admit} decides on one request: it answers
 * with what is asked, or marks the receipt as used, durably, and lets the handler run. Nothing is written before
 * everything is checked, so a refused payment can be shown again.
 */
export class Paywall {
  readonly payee: Address;
  readonly domain: Domain;
  readonly token: Address;
  readonly processors: readonly Address[];
  readonly receipts: ReceiptStore;
  /** See {@link PaywallOptions.origin}. */
  readonly origin: string | null;
  readonly #options: PaywallOptions;
  readonly #holds: AcceptedHolds | null;
  readonly #exposure: Exposure;
  readonly #waitAbove: bigint;
  readonly #refreshEvery: number;
  readonly #maxHeader: number;
  readonly #now: () => bigint;

  /** @throws BursarError `malformed-input` */
  constructor(options: PaywallOptions) {
    const { domain, receipts, mandates, refreshEvery = 3 } = options;
    this.#options = options;
    this.payee = parseAddress(options.payee);
    this.domain = { chainId: domain.chainId, registry: parseAddress(domain.registry) };
    this.token = parseAddress(options.token);
    this.processors = options.processors.map(parseAddress);
    if (this.processors.length < 1 || this.processors.length > 32) {
      throw new BursarError("malformed-input", `A paywall takes receipts of 1 to 32 processors.`, {
        value: this.processors.length,
        limit: 32,
      });
    }
    this.#holds = acceptedHolds(options.holds);
    this.receipts = receipts;
    this.origin = options.origin === undefined ? null : parseOrigin(options.origin);
    this.#waitAbove = unitsOf(options.waitAbove ?? "10");
    this.#refreshEvery = refreshEvery;
    this.#maxHeader = options.maxHeader ?? 8_192;
    this.#now = options.now ?? (() => BigInt(Math.floor(Date.now() / 1_000)));
    this.#exposure = new Exposure({
      domain: this.domain,
      receipts,
      mandates,
      maxUnsettled: unitsOf(options.maxUnsettled ?? "100"),
      bond: options.bond ?? (mandates.bond && ((processor) => mandates.bond!(processor, this.token))),
      refreshEvery,
      now: this.#now,
    });
  }

  /**
   * Decides on one request. `serve` means: the receipt is used, for good and on disk. Every refusal is an answer.
   *
   * OPTIONS buys nothing and is answered 204. HEAD is answered 402 with the terms of GET and takes no payment.
   *
   * @throws what is not the caller's doing: a price that is no amount, a store or a source that breaks its contract.
   */
  async admit(call: PaidCall): Promise<Ask | Serve> {
    const price = call.price === null ? 0n : unitsOf(call.price);
    if (price === 0n) return free;
    const method = call.method.toUpperCase();
    if (method === "OPTIONS") return noContent;
    const head = method === "HEAD";
    const asked = { ...call, method: head ? "GET" : method };
    const terms = (): Promise<PaymentTerms> => this.#terms(asked, price);
    try {
      bytesOf(call);
      if (head || call.header === undefined || call.header === "") throw missing();
      return await this.#serve(asked, price, call.header);
    } catch (error) {
      return refusal(error, { head, retryAfter: Math.max(1, this.#refreshEvery), terms });
    }
  }

  /**
   * The payee's signed offer for one request, to be sent along with the payment. A price that an offer names is taken
   * until the offer ends, whatever the price is by then.
   *
   * @throws BursarError `malformed-input` without a signer, `signature-signer` for one that is not the payee.
   */
  async quote({ method, url, body = "", amount, ...given }: QuoteRequest): Promise<SignedQuote> {
    const { quotes } = this.#options;
    if (quotes === undefined) {
      throw new BursarError("malformed-input", "The paywall has no key to sign quotes with.", {}, "Set `quotes`.");
    }
    const { signer, category, host, validFor = QUOTE_LIFE } = quotes;
    return offer(signer, this.domain, {
      payee: this.payee,
      amount: unitsOf(amount),
      ref: requestRef({ method, url, body }),
      host: given.host ?? host ?? new URL(url).hostname,
      category: given.category ?? category,
      expiresAt: given.expiresAt ?? this.#now() + validFor,
    });
  }

  /**
   * The payee's signed word that it served a payment: it answers a dispute. Only for what was served.
   *
   * @param body what was delivered; its hash is zero without.
   * @throws BursarError `malformed-input` without a signer, `signature-signer` for one that is not the payee.
   */
  async delivery({ payment: { agent, payment } }: PaidRequest, body?: Uint8Array | string): Promise<SignedDelivery> {
    const signer = this.#options.holds?.signer;
    if (signer === undefined) {
      throw new BursarError("malformed-input", "The paywall has no key to sign deliveries with.", {}, "Set `holds`.");
    }
    const bytes = typeof body === "string" ? toUtf8Bytes(body) : body;
    const bodyHash = (bytes === undefined ? ZeroHash : keccak256(bytes)) as Hex;
    const { seq, line } = payment;
    const delivery = { agent, seq, ref: line.ref, bodyHash, deliveredAt: this.#now() };
    const signature = await signDelivery(signer, this.domain, delivery);
    verifySignature(hashDelivery(this.domain, delivery), signature, this.payee);
    return { delivery, signature };
  }

  /**
   * Asks the chain which payments through a processor have settled, which frees exposure. The paywall does it by itself
   * near the limit, and at most every few seconds.
   *
   * @throws BursarError `chain-unavailable`, `store-unavailable`
   */
  async refresh(processor?: string): Promise<void> {
    const which = processor === undefined ? this.processors : [parseAddress(processor)];
    await Promise.all(which.map((one) => this.#exposure.refresh(one)));
  }

  /** Units that a processor owes the payee: receipts that were served and are not settled. */
  exposure(processor: string): Promise<bigint> {
    return this.receipts.exposure(this.domain, parseAddress(processor));
  }

  /**
   * Pays a payment back to the owner of the mandate that made it, once: the same refund again gives the same answer.
   *
   * @param payer anything with `pay(line)`, such as the agent SDK's `Agent` with a mandate of the payee's own.
   * @param amount the whole payment unless given.
   * @throws BursarError `malformed-input`, `not-found`, `refund-uncertain`; what the payer throws.
   */
  async refund(payer: RefundPayer, paid: PaidRequest, amount?: Amount, options?: RefundOptions): Promise<Refund> {
    const { receipts, mandates } = this.#options;
    return payRefund({ receipts, mandates }, payer, paid, amount === undefined ? undefined : unitsOf(amount), options);
  }

  async #terms(call: PaidCall, amount: bigint): Promise<PaymentTerms> {
    const { method, url, description } = call;
    const body = bytesOf(call);
    const { unitScale, quotes } = this.#options;
    return {
      domain: this.domain,
      token: this.token,
      payee: this.payee,
      amount,
      ...(unitScale === undefined ? {} : { unitScale }),
      ref: requestRef({ method, url, body }),
      url,
      ...(description === undefined ? {} : { description }),
      processors: this.processors,
      ...(quotes === undefined ? {} : { quote: await this.quote({ method, url, body, amount }) }),
      ...(this.#holds === null ? {} : { dispute: this.#holds }),
    };
  }

  /** @throws BursarError every refusal. */
  async #serve(call: PaidCall, price: bigint, header: string): Promise<Serve> {
    if (header.length > this.#maxHeader) {
      throw new BursarError("malformed-input", `The payment header has ${header.length} characters.`, {
        value: header.length,
        limit: this.#maxHeader,
      });
    }
    const { method, url } = call;
    const ref = requestRef({ method, url, body: bytesOf(call) });
    const shown = decodePaymentHeader(header);
    const now = this.#now();
    const { settleBy } = shown.receipt.receipt;
    const late = settleBy <= now && now < settleBy + LATE_WINDOW;
    const serving = call.serving ?? this.#options.serving ?? "at-once";
    const waits = late || serving === "after-settlement" || shown.payment.payment.line.amount > this.#waitAbove;
    const paid = this.#verified(shown, { price, ref, now, late, waits });
    const snapshot = await this.#snapshot(paid, waits);
    const settled = snapshot.seq >= paid.payment.payment.seq;
    this.#assertCovered(paid, snapshot, settled, now);
    if (late && !settled) throw expired(settleBy, now);
    if (waits && !settled) throw this.#pending(paid);
    await this.#mark(paid, snapshot, { method, url, usedAt: now, settled });
    return this.#served(paid);
  }

  /** Everything that needs no look at the chain. */
  #verified(
    shown: PaidRequest,
    { price, ref, now, late, waits }: { price: bigint; ref: Hex; now: bigint; late: boolean; waits: boolean },
  ): Paid {
    const { payment, quote } = shown.payment;
    const { maxSettleIn } = this.#options;
    const offered = quote !== undefined && payment.line.amount !== price;
    const processor = verifyPaid(shown, {
      domain: this.domain,
      payee: this.#accountOf(shown.payment),
      amount: offered ? quote.quote.amount : price,
      ref,
      processor: this.processors,
      now: late ? shown.receipt.receipt.settleBy - 1n : now,
      ...(maxSettleIn === undefined ? {} : { maxSettleIn }),
    });
    if (quote !== undefined) assertOwnQuote(quote, this.domain, this.payee, payment.line);
    const until = offered ? quote.quote.expiresAt + (waits ? LATE_WINDOW : 0n) : now;
    if (until < now) {
      throw new BursarError("quote-expired", `The offer of ${payment.line.amount} units has ended.`, {
        value: now,
        limit: until,
      });
    }
    return { ...shown, processor };
  }

  /** What is paid for the payee: itself, or its hold if it takes it. @throws BursarError `not-held` */
  #accountOf({ agent, hold }: SignedPayment): Address {
    if (hold === undefined) return this.payee;
    const { payee, holdback } = hold;
    if (this.#holds !== null && payee === this.payee && holdback <= this.#holds.maxHoldback) {
      return holdOf(this.#holds.module, agent, payee, holdback);
    }
    throw new BursarError(
      "not-held",
      `The payment waits ${holdback} seconds for ${payee}, which this payee does not take.`,
      { value: holdback, limit: this.#holds?.maxHoldback ?? "no holds" },
      "The PAYMENT-REQUIRED header says which holds are taken.",
    );
  }

  /** @throws BursarError `mandate-unknown`, `wrong-chain`, `opening-pending`, `chain-unavailable` */
  async #snapshot(paid: Paid, waits: boolean): Promise<MandateSnapshot> {
    const { agent, payment } = paid.payment;
    const { mandates } = this.#options;
    let snapshot = await mandates.mandate(agent, SNAPSHOT_AGE);
    if (snapshot !== null && waits && snapshot.seq < payment.seq) {
      snapshot = await mandates.mandate(agent, this.#refreshEvery);
    }
    if (snapshot === null) {
      throw new BursarError("mandate-unknown", `The chain knows no mandate of ${agent}.`, { value: agent });
    }
    const { chainId, registry } = snapshot.domain;
    if (chainId !== this.domain.chainId || BigInt(registry) !== BigInt(this.domain.registry)) {
      throw new BursarError(
        "chain-unavailable",
        "The payee reads mandates from another chain or contract than it is paid on.",
        { value: `${chainId}:${registry}`, limit: `${this.domain.chainId}:${this.domain.registry}` },
        "The service has to be configured anew.",
      );
    }
    await this.#exposure.learn(snapshot);
    return snapshot;
  }

  /** What is settled is paid, whatever became of its mandate since. */
  #assertCovered({ payment, processor }: Paid, snapshot: MandateSnapshot, settled: boolean, now: bigint): void {
    const { mandate, state } = snapshot;
    assertCovered(payment, { mandate, token: this.token }, processor, settled ? 0n : now);
    if (settled || state === "open") return;
    const code = state === "none" ? "mandate-unknown" : (`mandate-${state}` as const);
    throw new BursarError(
      code,
      `The mandate of ${mandate.agent} is ${state}.`,
      { value: state, limit: "open" },
      "Once the chain shows this payment settled, the same request is served.",
    );
  }

  /** @throws BursarError `receipt-used`, `exposure-exceeded`, `above-budget`, `store-unavailable` */
  async #mark(
    paid: Paid,
    { remaining }: MandateSnapshot,
    use: { method: string; url: string; usedAt: bigint; settled: boolean },
  ): Promise<void> {
    const { processor, ...shown } = paid;
    const used = { paid: shown, processor, ...use };
    const limits: ExposureLimits = { processor: await this.#exposure.limitOf(processor), mandate: remaining };
    let marked = await this.receipts.mark(used, limits);
    if (marked.kind === "exceeded") {
      await this.#exposure.refresh(processor);
      marked = await this.receipts.mark(used, limits);
    }
    if (marked.kind !== "marked") throw notMarked(marked, paid);
    this.#exposure.watch(processor, marked.exposure, limits.processor);
  }

  #served(paid: Paid): Serve {
    const { afterFailure = "release" } = this.#options;
    const key = keyOf(paid);
    return {
      kind: "serve",
      paid,
      headers: { [PAYMENT_RESPONSE_HEADER]: encodePaymentResponse(paid) },
      delivered: this.#signsFor(paid)
        ? async (body) => ({ [DELIVERY_HEADER]: encodeDeliveryHeader(await this.delivery(paid, body)) })
        : null,
      failed: () => (afterFailure === "release" ? this.receipts.release(key) : Promise.resolve()),
    };
  }

  #signsFor({ payment }: Paid): boolean {
    return payment.hold !== undefined && this.#options.holds?.signer !== undefined;
  }

  #pending({ payment: { payment } }: Paid): BursarError {
    return new BursarError(
      "settlement-pending",
      `Payment ${payment.seq} is good, and is served once the chain shows it settled.`,
      { value: payment.seq, amount: payment.line.amount },
      "Repeat the request with the same payment after the time in Retry-After. Do not pay again.",
    );
  }
}

/** @throws BursarError `malformed-input` */
function acceptedHolds(options: HoldOptions | undefined): AcceptedHolds | null {
  if (options === undefined) return null;
  const { module, maxHoldback = MAX_HOLDBACK } = options;
  if (maxHoldback >= 0n && maxHoldback <= MAX_HOLDBACK) return { module: parseAddress(module), maxHoldback };
  throw new BursarError("malformed-input", `A holdback is 0 to ${MAX_HOLDBACK} seconds.`, {
    value: maxHoldback,
    limit: MAX_HOLDBACK,
  });
}

function bytesOf({ body }: PaidCall): Uint8Array | string {
  if (body !== null) return body ?? "";
  throw new BursarError(
    "body-unavailable",
    "The service has parsed the request's body and not kept its bytes, which the payment is bound to.",
    {},
    "Nothing is to be paid. The service has to keep the raw body: see docs/payee.md, «Bodies».",
  );
}

function missing(): BursarError {
  return new BursarError(
    "payment-missing",
    "This request is paid for.",
    {},
    "Pay what the PAYMENT-REQUIRED header asks and repeat the request with payment and receipt in PAYMENT-SIGNATURE.",
  );
}

function expired(settleBy: bigint, now: bigint): BursarError {
  return new BursarError(
    "receipt-expired",
    "The receipt's settle-by time is past, and the chain does not show the payment settled.",
    { value: settleBy, limit: now },
    "Once the chain shows it settled, the same request is served, for a day. Complain to the processor.",
  );
}

function notMarked(marked: Exclude<Marked, { kind: "marked" }>, { payment, processor }: Paid): BursarError {
  if (marked.kind === "used") {
    return new BursarError(
      "receipt-used",
      `Payment ${payment.payment.seq} of ${payment.agent} already paid for a request.`,
      { value: payment.payment.seq },
      "Each request needs a payment of its own.",
    );
  }
  const { value, limit } = marked;
  if (marked.scope === "mandate") {
    return new BursarError("above-budget", `The mandate has ${limit} units left for ${value} unsettled ones.`, {
      value,
      limit,
    });
  }
  return new BursarError(
    "exposure-exceeded",
    `${value} units through ${processor} would be unsettled; the payee waits at ${limit}.`,
    { value, limit },
    "Repeat the request with the same payment after the time in Retry-After: it is served once enough has settled.",
  );
}
