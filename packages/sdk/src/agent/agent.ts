import {
  AgentLedger,
  bytes32Schema,
  BursarError,
  DELIVERY_HEADER,
  hashPayment,
  holdOf,
  offsetOf,
  parseAddress,
  parseWire,
  requestRef,
  signedReceiptSchema,
  toWire,
  verifyDelivery,
  verifyPaid,
  verifySignature,
  type Address,
  type Domain,
  type Draft,
  type ErrorCode,
  type Hex,
  type Line,
  type Mandate,
  type PaidRequest,
  type PaidRequestTarget,
  type PaymentTerms,
  type SignedDelivery,
  type SignedPayment,
  type SignedQuote,
  type SignedReceipt,
  type Terms,
} from "@bursar/protocol";

import { memoryBook, type Extras, type LedgerBook } from "./book.ts";
import { units, type Money } from "./draft-intent.ts";
import { assertExpected, assertMandate, type Expected } from "./expectation.ts";
import { addressOf, newAccess, signPayment, type AgentKey } from "./key.ts";
import { KeptLedger } from "./kept-ledger.ts";
import { assertAllowed, assertOffer, assertTakesHolds, fits, fitting, isFor } from "./limits.ts";
import { askedAt, asksOf, deliver, prepare, refOf, type Prepared } from "./paid-fetch.ts";
import {
  ProcessorClient,
  type LedgerEntry,
  type LedgerFilter,
  type MandateStatus,
  type Outcome,
  type PaymentStatus,
} from "./processor-client.ts";
import { provenTail } from "./proven-tail.ts";
import { memoryReceipts, type ReceiptBook } from "./receipt-book.ts";
import { PATIENCE, surroundings, type Patience, type Surroundings } from "./surroundings.ts";
import { lineKey, Unclaimed } from "./unclaimed.ts";

/** What is told of an agent's spending. */
export interface AgentHooks {
  /** A payment has its receipt. */
  readonly onPayment?: (paid: PaidRequest) => void;
  /** A payment was refused, by the processor or before it was signed. */
  readonly onRefusal?: (refusal: BursarError) => void;
  /** What is left of the budget, in units, has come to `lowAt` or below; told once. */
  readonly onLow?: (remaining: bigint) => void;
  /** A payment that waits in a hold was answered without the payee's signed delivery: it may be disputed. */
  readonly onUndelivered?: (paid: PaidRequest, reason: BursarError) => void;
}

/** What a paid answer was bought with. */
export interface Bought {
  readonly paid: PaidRequest;
  /** The payee's signed word that it served it; only payees that take holds give one. */
  readonly delivery: SignedDelivery | null;
}

/** How an agent works; what is not given has a default. */
export interface AgentSettings extends AgentHooks {
  /** Where the ledger is kept: memory unless given, see {@link LedgerBook}. */
  readonly book?: LedgerBook;
  /** Where receipts are kept until they are settled: memory unless given, see {@link ReceiptBook}. */
  readonly receipts?: ReceiptBook;
  /** What counts as low, see `onLow`. */
  readonly lowAt?: Money;
  /** Bytes of a request's body that are kept in memory; 4 MiB unless given. */
  readonly maxBody?: number;
  readonly patience?: Partial<Patience>;
  readonly surroundings?: Partial<Surroundings>;
}

export interface AgentOptions extends AgentSettings {
  readonly key: AgentKey;
  /** URL of the processor. */
  readonly processor: string;
  readonly domain: Domain;
  readonly mandate: Mandate;
  readonly terms: Terms;
}

/** What to pay. */
export interface Purchase {
  readonly payee: string;
  /** `"0.25"`, or units. */
  readonly amount: Money;
  /** What is bought, as 32 bytes: the hash of an invoice, say. */
  readonly ref?: string;
  /** What is bought, as an HTTP request, in place of `ref`. */
  readonly request?: PaidRequestTarget;
  /** The payee's signed offer. */
  readonly quote?: SignedQuote;
  readonly signal?: AbortSignal;
}

export interface FetchOptions {
  /** The most that this call may cost. */
  readonly maxPrice?: Money;
  /** The payee's signed offer for this call. */
  readonly quote?: SignedQuote;
  /** The payee's quote id, which then is part of the reference. */
  readonly quoteId?: string;
}

/** What a call would cost, and whether the mandate allows it. Amounts in units. */
export interface Estimate {
  /** 0 when the service asks for no payment in scheme `bursar`. */
  readonly price: bigint;
  /** What is asked, or null. */
  readonly asked: PaymentTerms | null;
  readonly allowed: boolean;
  /** Why it is not allowed. */
  readonly refusal: BursarError | null;
  /** What would be left of the budget. */
  readonly remaining: bigint | null;
}

export interface Recovery {
  /**
   * Go on from a tail that does not carry the agent's own signature, on the processor's receipt alone. A processor that
   * lies could then have the next payment stand for lines that the agent never signed.
   */
  readonly trustProcessor?: boolean;
  readonly signal?: AbortSignal;
}

const MAX_BODY = 4 * 1_048_576;
const PAGE = 100;
/** The processor's and the agent's ledgers have come apart. */
const OUT_OF_STEP: readonly ErrorCode[] = ["sequence-gap", "sequence-taken", "spent-mismatch", "head-mismatch"];

/** What a processor says whose books were put back to an earlier time. */
const BEHIND: readonly ErrorCode[] = ["books-behind", "mandate-unknown"];

/** Nobody knows yet whether the payment counts. */
const UNDECIDED: readonly ErrorCode[] = [
  "processor-unavailable",
  "receipt-invalid",
  "receipt-mismatch",
  "receipt-too-long",
  "books-behind",
];

/**
 * One mandate, spent: it pays, in order and each thing once, and calls paid services.
 *
 * A payment is on its book before it leaves, is sent again with the same bytes until the processor has answered, and
 * counts when a valid receipt is there. As long as one has no answer no other is signed.
 */
export class Agent {
  readonly address: Address;
  readonly domain: Domain;
  readonly mandate: Mandate;
  readonly terms: Terms;
  readonly #key: AgentKey;
  readonly #client: ProcessorClient;
  readonly #ledger: KeptLedger;
  readonly #receipts: ReceiptBook;
  readonly #hooks: AgentHooks;
  readonly #lowAt: bigint | null;
  readonly #maxBody: number;
  readonly #patience: Patience;
  readonly #around: Surroundings;
  readonly #unclaimed = new Unclaimed();
  readonly #bought = new WeakMap<Response, Bought>();
  #access: { readonly header: string; readonly expiresAt: bigint } | null = null;
  #reserved = 0n;
  #toldLow = false;

  /**
   * @throws BursarError `policy-mismatch`, `terms-mismatch`, `mandate-conflict` when the mandate does not hang together
   * or is not the key's; `malformed-input` for a wrong URL.
   */
  constructor(options: AgentOptions) {
    const { key, processor, domain, mandate, terms, book, lowAt, maxBody } = options;
    this.address = addressOf(key);
    assertMandate(mandate, terms, this.address);
    this.domain = domain;
    this.mandate = mandate;
    this.terms = terms;
    this.#key = key;
    this.#ledger = new KeptLedger(domain, this.address, key, book ?? memoryBook());
    this.#receipts = options.receipts ?? memoryReceipts();
    this.#hooks = options;
    this.#lowAt = lowAt === undefined ? null : units("lowAt", lowAt);
    this.#maxBody = maxBody ?? MAX_BODY;
    this.#patience = { ...PATIENCE, ...options.patience };
    this.#around = surroundings(options.surroundings);
    this.#client = new ProcessorClient(processor, this.#patience, this.#around);
  }

  /**
   * The agent of a key whose mandate is open, as its processor tells it.
   *
   * @param options.expected - what is known from elsewhere; what is not given is taken on the processor's word.
   * @throws BursarError `wrong-chain`, `wrong-contract`, `wrong-processor`, `mandate-unknown`, and as the constructor.
   */
  static async connect(
    options: AgentSettings & { key: AgentKey; processor: string; expected?: Expected; signal?: AbortSignal },
  ): Promise<Agent> {
    const around = surroundings(options.surroundings);
    const client = new ProcessorClient(options.processor, { ...PATIENCE, ...options.patience }, around);
    const info = await client.info(options.signal);
    const domain = assertExpected(info, options.expected ?? {});
    const { header } = await newAccess(options.key, domain, around.now());
    const { mandate, terms } = await client.mandate(addressOf(options.key), header, options.signal);
    assertMandate(mandate, terms, addressOf(options.key), info.processor);
    return new Agent({ ...options, domain, mandate, terms });
  }

  /**
   * Pays. Calls that run at once are paid one after the other.
   *
   * @returns payment and receipt; those of an earlier attempt at the same purchase, if that ended without an answer.
   * @throws BursarError a refusal, with nothing paid; `processor-unavailable`, `receipt-invalid` or `receipt-mismatch`
   * while nobody knows, in which case the same payment is sent again before any other; the signal's reason.
   */
  async pay({ payee, amount, ref, request, quote, signal }: Purchase): Promise<PaidRequest> {
    const line = {
      payee: parseAddress(payee),
      amount: units("amount", amount),
      ref: refOfPurchase(ref, request),
    };
    return this.#pay(line, quote, signal);
  }

  /**
   * `fetch` that pays. A 402 answer is paid if it asks for what the mandate and `maxPrice` allow, once, and the request
   * is repeated with the payment. The body is kept in memory for that.
   *
   * @returns the service's answer; a 402 that does not ask in scheme `bursar` as it is.
   * @throws BursarError before anything is signed: `price-above-limit`, `above-payment-cap`, `above-budget`,
   * `payee-not-allowed`, `mandate-expired`, `wrong-chain`, `wrong-contract`, `wrong-token`, `processor-not-accepted`,
   * `payment-mismatch`, `quote-mismatch`, `not-held`, `redirected`, `body-too-large`; then as {@link pay}; `PaidNotServed` when the
   * payment was made and not answered. What `fetch` throws.
   */
  async fetch(input: RequestInfo | URL, init?: RequestInit, options: FetchOptions = {}): Promise<Response> {
    const prepared = await prepare(input, init, this.#maxBody);
    const response = await this.#around.fetch(prepared.request());
    const asks = asksOf(response);
    if (asks.length === 0) return response;
    await response.body?.cancel();
    const { url, line, offer } = await this.#noted(() => this.#lineOf(prepared, response, asks, options));
    const paid = await this.#pay(line, offer, prepared.signal);
    const answer = await deliver(prepared, url, paid, {
      patience: this.#patience,
      around: this.#around,
      unserved: (unserved) => this.#unclaimed.add(unserved),
    });
    this.#bought.set(answer, { paid, delivery: this.#deliveryIn(answer, paid) });
    return answer;
  }

  /** What an answer of {@link fetch} was bought with: evidence, should it be disputed. Null for one that was free. */
  boughtBy(answer: Response): Bought | null {
    return this.#bought.get(answer) ?? null;
  }

  /**
   * What a call would cost and whether it would be allowed: the request is sent without a payment, and a payment is
   * signed and shown to the processor for a dry run, then thrown away. A service that asks for no payment serves it.
   *
   * @throws BursarError `processor-unavailable`, `body-too-large`; what `fetch` throws.
   */
  async estimate(input: RequestInfo | URL, init?: RequestInit, options: FetchOptions = {}): Promise<Estimate> {
    const prepared = await prepare(input, init, this.#maxBody);
    const response = await this.#around.fetch(prepared.request());
    await response.body?.cancel();
    const asks = asksOf(response);
    const free = { price: 0n, asked: null, allowed: true, refusal: null, remaining: null };
    if (asks.length === 0) return free;
    const asked = asks.find((ask) => fits(ask, this.domain, this.mandate)) ?? asks[0]!;
    const found = { price: asked.amount, asked };
    try {
      const { line, offer } = this.#lineOf(prepared, response, asks, options);
      const held = this.#held(line, offer);
      const remaining = await this.#ledger.run(
        (ledger) => this.#check(ledger, held.line, held.extras, prepared.signal),
        prepared.signal,
      );
      return { ...found, allowed: true, refusal: null, remaining };
    } catch (error) {
      if (!(error instanceof BursarError) || error.code === "processor-unavailable") throw error;
      return { ...found, allowed: false, refusal: error, remaining: null };
    }
  }

  /** Units left of the budget by this agent's own ledger, a payment without an answer counted as spent. */
  async remaining(): Promise<bigint> {
    const { seen } = this.#ledger;
    return seen === null ? this.#ledger.run((ledger) => Promise.resolve(this.#left(ledger))) : this.#left(seen);
  }

  /**
   * How the mandate stands at its processor; what is reserved there is counted by {@link remaining} from then on, and
   * receipts of settled pages are kept no more.
   *
   * @throws BursarError `mandate-unknown`, `unauthorised`, `processor-unavailable`
   */
  async sync(signal?: AbortSignal): Promise<MandateStatus> {
    const status = await this.#client.mandate(this.address, await this.#accessHeader(), signal);
    this.#reserved = status.reserved;
    const { seq } = status.settled;
    await this.#receipts.forget(seq - offsetOf(seq) + 1n);
    return status;
  }

  /** How far a payment has come; null for one that the processor does not know. */
  async status(seq: bigint, signal?: AbortSignal): Promise<PaymentStatus | null> {
    return this.#client.payment(this.address, seq, await this.#accessHeader(), signal);
  }

  /** The processor's ledger of this mandate, payments and refusals, newest first. */
  async *ledger(filter: LedgerFilter = {}, signal?: AbortSignal): AsyncGenerator<LedgerEntry, void> {
    const query = { ...filter, agent: this.address, limit: PAGE };
    let page = await this.#client.ledger(query, await this.#accessHeader(), signal);
    while (page.length > 0) {
      yield* page;
      if (page.length < PAGE) return;
      const before = page.at(-1)!.position;
      page = await this.#client.ledger({ ...query, before }, await this.#accessHeader(), signal);
    }
  }

  /**
   * Sends a payment that had no answer before a crash, if there is one. The next payment does it too.
   *
   * @returns its payment and receipt, or null when there was none or it was refused.
   * @throws as {@link pay}
   */
  resume(signal?: AbortSignal): Promise<PaidRequest | null> {
    return this.#ledger.run((ledger) => this.#resume(ledger, signal), signal);
  }

  /**
   * Reads the ledger back from the processor after its book was lost, and keeps it once it is verified: the head is
   * computed again from the processor's lines with the agent's own salts, and the agent's own signature must be on it. A
   * processor whose books were put back to an earlier time gets back what the agent has receipts for.
   *
   * @throws BursarError `head-mismatch`, `signature-*`, `receipt-*` when the tail is not proven; `books-behind` when the
   * processor knows less than the agent has receipts for.
   */
  recover(recovery: Recovery = {}): Promise<void> {
    return this.#ledger.run(async (ledger) => {
      await this.#recover(ledger, recovery);
    }, recovery.signal);
  }

  async #pay(bought: Line, quote: SignedQuote | undefined, signal: AbortSignal | undefined): Promise<PaidRequest> {
    const { line, extras } = this.#held(bought, quote);
    const attempt = (ledger: AgentLedger): Promise<PaidRequest> => {
      assertAllowed(line, this.mandate, this.#left(ledger), this.#around.now());
      return this.#transmit(ledger, ledger.draft(line), extras, signal);
    };
    const pay = async (opened: AgentLedger): Promise<PaidRequest> => {
      await this.#resume(opened, signal, line, extras);
      const claimed = this.#unclaimed.take(line);
      if (claimed !== undefined) return claimed;
      try {
        return await attempt(opened);
      } catch (error) {
        if (!(error instanceof BursarError) || !OUT_OF_STEP.includes(error.code)) throw error;
        return attempt(await this.#recover(opened, signal === undefined ? {} : { signal }));
      }
    };
    return this.#noted(() => this.#ledger.run(pay, signal));
  }

  /** Sends what the ledger handed out earlier and has no answer for. @returns null when there is no such payment. */
  async #resume(
    ledger: AgentLedger,
    signal: AbortSignal | undefined,
    wanted?: Line,
    extras?: Extras,
  ): Promise<PaidRequest | null> {
    const { pending } = ledger;
    if (pending === null) return null;
    const same = wanted !== undefined && lineKey(wanted) === lineKey(pending.payment.line);
    const known = { ...this.#ledger.pendingExtras, ...(same ? extras : {}) };
    try {
      const paid = await this.#transmit(ledger, pending, known, signal);
      this.#unclaimed.add(paid);
      return paid;
    } catch (error) {
      if (ledger.pending !== null) throw error;
      this.#tellRefusal(error);
      return null;
    }
  }

  /** Keeps a draft, signs it, and sends it until there is an answer. The draft is gone from the ledger when it returns or was refused. */
  async #transmit(
    ledger: AgentLedger,
    draft: Draft,
    extras: Extras,
    signal: AbortSignal | undefined,
  ): Promise<PaidRequest> {
    const payment = await this.#sign(draft, extras);
    await this.#ledger.keep(ledger, extras);
    let outcome = await this.#client.pay(payment, signal);
    if (isBehind(outcome) && (await this.#handBack(signal))) outcome = await this.#client.pay(payment, signal);
    if ("refusal" in outcome) {
      // Books that were put back may have known this very payment: it stays, and is sent again before any other.
      if (outcome.refusal.code === "books-behind") throw outcome.refusal;
      ledger.discard();
      await this.#ledger.keep(ledger);
      throw outcome.refusal;
    }
    const paid = { domain: this.domain, payment, receipt: this.#verified(payment, outcome.answer) };
    await this.#receipts.add(paid);
    ledger.commit();
    await this.#ledger.keep(ledger);
    this.#tellPaid(paid, this.#left(ledger));
    return paid;
  }

  /** The payment's signature, checked before anything leaves. */
  async #sign({ payment, salt }: Draft, extras: Extras): Promise<SignedPayment> {
    const signature = await signPayment(this.#key, this.domain, payment);
    verifySignature(hashPayment(this.domain, payment), signature, this.address);
    return { agent: this.address, payment, signature, salt, ...extras };
  }

  /** The line that is signed: under terms with a dispute module it pays the payee's hold. */
  #held(line: Line, quote: SignedQuote | undefined): { line: Line; extras: Extras } {
    const { dispute } = this.terms;
    const offer = quote === undefined ? {} : { quote };
    if (dispute === undefined) return { line, extras: offer };
    const hold = { payee: line.payee, holdback: BigInt(dispute.holdback) };
    const payee = holdOf(dispute.module, this.address, hold.payee, hold.holdback);
    return { line: { ...line, payee }, extras: { ...offer, hold } };
  }

  /** The payee's delivery, kept with the answer; a missing or wrong one is told. */
  #deliveryIn(answer: Response, paid: PaidRequest): SignedDelivery | null {
    if (paid.payment.hold === undefined) return null;
    try {
      return verifyDelivery(answer.headers.get(DELIVERY_HEADER) ?? "", paid);
    } catch (error) {
      if (!(error instanceof BursarError)) throw error;
      this.#tell(() => this.#hooks.onUndelivered?.(paid, error));
      return null;
    }
  }

  /** The receipt in an answer, if it is the mandate's processor's for this very payment. */
  #verified(payment: SignedPayment, answer: unknown): SignedReceipt {
    try {
      const receipt = parseWire(signedReceiptSchema, answer);
      const now = this.#around.now();
      const { settleBy } = receipt.receipt;
      verifyPaid(
        { domain: this.domain, payment, receipt },
        {
          domain: this.domain,
          ...payment.payment.line,
          processor: this.mandate.processor,
          now: settleBy <= now ? settleBy - 1n : now,
        },
      );
      return receipt;
    } catch (error) {
      if (!(error instanceof BursarError)) throw error;
      const { seq } = payment.payment;
      throw new BursarError(
        error.code === "malformed-input" ? "receipt-invalid" : error.code,
        `The processor's receipt for payment ${seq} is not good: ${error.message}`,
        { ...error.details, seq },
        "Nobody knows whether this payment counts: do not buy the same elsewhere. It is sent again before any other.",
      );
    }
  }

  async #check(ledger: AgentLedger, line: Line, extras: Extras, signal: AbortSignal): Promise<bigint | null> {
    await this.#resume(ledger, signal);
    assertAllowed(line, this.mandate, this.#left(ledger), this.#around.now());
    const left = this.#left(ledger) - line.amount;
    try {
      const outcome = await this.#client.check(await this.#sign(ledger.draft(line), extras), signal);
      if ("refusal" in outcome) throw outcome.refusal;
      return outcome.remaining ?? left;
    } finally {
      ledger.discard();
    }
  }

  /**
   * Hands back to a processor whose books were put back to an earlier time what it has forgotten of this mandate, and the
   * mandate itself if need be.
   * @returns whether there was anything.
   */
  async #handBack(signal: AbortSignal | undefined): Promise<boolean> {
    const kept = await this.#receipts.all();
    if (kept.length === 0) return false;
    await this.#client.register(this.mandate, this.terms, signal);
    const { settled, accepted } = await this.#client.mandate(this.address, await this.#accessHeader(), signal);
    const known = settled.seq > accepted.seq ? settled.seq - offsetOf(settled.seq) : accepted.seq;
    const lost = kept.filter(({ payment }) => payment.payment.seq > known);
    await this.#client.handBack(lost, signal);
    return lost.length > 0;
  }

  async #recover(ledger: AgentLedger, recovery: Recovery): Promise<AgentLedger> {
    try {
      return await this.#readBack(ledger, recovery);
    } catch (error) {
      const behind = error instanceof BursarError && BEHIND.includes(error.code);
      if (!behind || !(await this.#handBack(recovery.signal))) throw error;
      return this.#readBack(ledger, recovery);
    }
  }

  async #readBack(ledger: AgentLedger, { trustProcessor = false, signal }: Recovery): Promise<AgentLedger> {
    const access = await this.#accessHeader();
    const tail = await this.#client.tail(this.address, access, signal);
    const receiptHead = async (seq: bigint): Promise<Hex | null> => {
      const told = await this.#client.payment(this.address, seq, access, signal);
      return told?.receipt.receipt.head ?? null;
    };
    const state = await provenTail(tail, {
      domain: this.domain,
      agent: this.address,
      budget: this.mandate.budget,
      secret: await this.#ledger.secret(),
      own: ledger.state,
      receiptHead: trustProcessor ? receiptHead : null,
    });
    if (state === null) return ledger;
    const recovered = await this.#ledger.from(state);
    await this.#keepPendingReceipt(ledger, access, signal);
    await this.#ledger.keep(recovered);
    return recovered;
  }

  /** Was the payment that had no answer accepted? Then whoever buys the same takes it. */
  async #keepPendingReceipt({ pending }: AgentLedger, access: string, signal: AbortSignal | undefined): Promise<void> {
    if (pending === null) return;
    const told = await this.#client.payment(this.address, pending.payment.seq, access, signal);
    if (told?.receipt.receipt.head !== pending.payment.head) return;
    const payment = await this.#sign(pending, this.#ledger.pendingExtras);
    const paid = { domain: this.domain, payment, receipt: this.#verified(payment, toWire(told.receipt)) };
    this.#unclaimed.add(paid);
  }

  /** Who is paid for a 402 answer, and for what; refused here if the mandate or the caller would not have it. */
  #lineOf(
    prepared: Prepared,
    response: Response,
    asks: readonly PaymentTerms[],
    { maxPrice, quote, quoteId }: FetchOptions,
  ): { url: string; line: Line; offer: SignedQuote | undefined } {
    const url = askedAt(prepared, response);
    const asked = fitting(asks, this.domain, this.mandate);
    assertTakesHolds(asked, this.terms);
    const { payee, amount } = asked;
    const most = maxPrice === undefined ? null : units("maxPrice", maxPrice);
    if (most !== null && amount > most) {
      throw new BursarError(
        "price-above-limit",
        `${url} asks ${amount} units; the caller allows ${most}.`,
        { value: amount, limit: most },
        "Raise maxPrice if it is worth it, or choose a cheaper service.",
      );
    }
    const line = { payee, amount, ref: refOf(prepared, url, asked, quoteId) };
    if (quote !== undefined) assertOffer(quote, line);
    const offered = asked.quote !== undefined && isFor(asked.quote, line) ? asked.quote : undefined;
    return { url, line, offer: quote ?? offered };
  }

  #left({ state: { spent, pending } }: AgentLedger): bigint {
    return this.mandate.budget - spent - (pending?.amount ?? 0n) - this.#reserved;
  }

  async #accessHeader(): Promise<string> {
    const now = this.#around.now();
    if (this.#access === null || this.#access.expiresAt < now + 60n) {
      this.#access = await newAccess(this.#key, this.domain, now);
    }
    return this.#access.header;
  }

  /** Tells the hook of a refusal that `act` ends with. */
  async #noted<T>(act: () => T | Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (error) {
      this.#tellRefusal(error);
      throw error;
    }
  }

  #tellRefusal(error: unknown): void {
    if (error instanceof BursarError && !UNDECIDED.includes(error.code))
      this.#tell(() => this.#hooks.onRefusal?.(error));
  }

  #tellPaid(paid: PaidRequest, left: bigint): void {
    this.#tell(() => this.#hooks.onPayment?.(paid));
    if (this.#lowAt === null || left > this.#lowAt || this.#toldLow) return;
    this.#toldLow = true;
    this.#tell(() => this.#hooks.onLow?.(left));
  }

  /** Apart from the payment: a hook that throws must not look like a payment that failed. */
  #tell(hook: () => void): void {
    queueMicrotask(hook);
  }
}

function isBehind(outcome: Outcome): boolean {
  return "refusal" in outcome && BEHIND.includes(outcome.refusal.code);
}

function refOfPurchase(ref: string | undefined, request: PaidRequestTarget | undefined): Hex {
  if ((ref === undefined) === (request === undefined)) {
    throw new BursarError("malformed-input", "A purchase has either a ref or a request.", {});
  }
  return request === undefined ? parseWire(bytes32Schema, ref) : requestRef(request);
}
