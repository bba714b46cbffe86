import {
  assertPolicyAgrees,
  BursarError,
  hashMandate,
  hashPayment,
  hashReceipt,
  hashRevocation,
  holdOf,
  offsetOf,
  payeesHash,
  signWithKey,
  startOf,
  termsHash,
  verifySignature,
  type Address,
  type DirectPayment,
  type Domain,
  type ErrorCode,
  type Hex,
  type HoldFor,
  type Line,
  type Mandate,
  type PageHash,
  type Receipt,
  type Revocation,
  type SignedPayment,
  type SignedReceipt,
  type Terms,
} from "@bursar/protocol";

import { decide, decideDirect, narrow, type Circumstances, type LedgerTail } from "./decide.ts";
import { silent, type ProcessorEvents } from "./events.ts";
import type {
  AcceptedPayment,
  DirectKind,
  DirectRecord,
  LedgerEntry,
  LedgerFilter,
  MandateRecord,
  PayeeProfile,
  PaymentRail,
  PaymentStatus,
  Refusal,
} from "./records.ts";
import type { PayeeGate } from "./payee-gate.ts";
import { Spending } from "./spending.ts";
import type { Store } from "./store.ts";

/** What the chain says of a mandate. */
export interface MandateOnChain extends Omit<Mandate, "agent" | "payees"> {
  readonly state: "none" | "open" | "revoked" | "expired" | "closed" | "fallback";
  readonly payeesHash: Hex;
  /** Base units of the token in one unit. */
  readonly unitScale: bigint;
  readonly base: bigint;
  readonly seq: bigint;
  readonly spent: bigint;
  /** Units settled on the direct rail. */
  readonly directSpent: bigint;
  /** Unix seconds, or null. */
  readonly revokedAt: bigint | null;
  /** Unix seconds from which on it can no longer be settled. */
  readonly closesAt: bigint;
}

/** A mandate that the chain has seen end early, revoked or fallen to its payees; times in Unix seconds. */
export interface RevocationOnChain {
  readonly agent: Address;
  readonly at: bigint;
  readonly closesAt: bigint;
}

/** The processor's view of the chain, as far as accepting needs it: final state only. */
export interface MandateReader {
  mandate(agent: Address): Promise<MandateOnChain>;
  /** The mandates revoked or fallen to claims from a block on, the block up to which that is all, and its time in Unix seconds. */
  revocations(fromBlock: number): Promise<{ upTo: number; time: bigint; revoked: RevocationOnChain[] }>;
}

/** What an agent or owner may ask of a mandate; amounts in units. */
export interface MandateStatus {
  mandate: Mandate;
  terms: Terms;
  state: "open" | "revoked" | "expired" | "closed";
  accepted: { seq: bigint; spent: bigint };
  settled: { base: bigint; seq: bigint; spent: bigint };
  /** Accepted on the direct rail, settled or not. */
  reserved: bigint;
  remaining: bigint;
  /** Unix seconds, or null. */
  revokedAt: bigint | null;
  /** Unix seconds from which on what is left can go back to the owner. */
  closesAt: bigint;
}

/** One payment and how far it has come. */
export interface PaymentView extends Receipt {
  status: PaymentStatus;
  receipt: SignedReceipt;
  batch: number | null;
  transaction: Hex | null;
}

/** The key behind receipts. It must sign deterministically (RFC 6979), since a receipt is signed again and not stored. */
export interface ReceiptKey {
  readonly address: Address;
  sign(digest: Hex): Hex;
}

/** The receipt key of a local private key, such as an ethers Wallet's. */
export function receiptKey({ address, privateKey }: { address: string; privateKey: string }): ReceiptKey {
  return { address: address as Address, sign: (digest) => signWithKey(digest, privateKey as Hex) };
}

export interface ProcessorOptions {
  domain: Domain;
  store: Store;
  chain: MandateReader;
  /** Its address is the mandates' `processor`. */
  key: ReceiptKey;
  /** Seconds from acceptance to settlement, 600 to 86,400 (protocol.md 6). */
  settleWithin: bigint;
  /** Contracts that could never collect a credit: paying them is refused. */
  impossible?: readonly Address[];
  /** Asked before the first payment to a payee is taken; nothing where everyone is let in. */
  gate?: Pick<PayeeGate, "refusal"> | undefined;
  /** Computes page hashes; the protocol's own unless a faster one is at hand. */
  hashPage?: PageHash;
  events?: ProcessorEvents;
  /** Seconds that this clock may be behind the chain's, 60 unless given; null on a local chain, whose clock runs ahead. */
  maxSkew?: bigint | null;
  /** Asked for each authenticated payment before it is decided; throws `too-many-requests` to hold an agent back. */
  admit?: (agent: Address) => void;
  /** Unix seconds. */
  now: () => bigint;
}

/** What the next payment of an agent is decided on, besides its mandate. */
interface Account {
  tail: LedgerTail;
  reserved: bigint;
  readonly spending: Spending;
}

/** A request that waits for the next commit: `take` runs inside it, `answer` after it, or `refuse`. */
interface Pending {
  take: () => () => void;
  /** Keeps the refusal, inside the commit. */
  refused: (refusal: BursarError) => void;
  reject: (reason: unknown) => void;
}

/** Requests that share one commit: beyond about 64 the wait grows faster than the throughput. */
const GROUP = 64;
/** Accounts that are kept at hand. */
const KEPT = 10_000;
/** Seconds that a direct payment needs to reach the chain before its authorisation ends. */
const MARGIN = 6n;

/**
 * Accepts payments: verifies, decides, records durably and only then answers. Requests that arrive together share one
 * commit. A payment seen before gets the receipt that it got before.
 */
export class Processor {
  readonly #options: ProcessorOptions;
  readonly #events: ProcessorEvents;
  readonly #accounts = new Map<Address, Account>();
  /** Mandates whose chain knows more than these books: nothing is signed for them. */
  readonly #fenced = new Set<Address>();
  #generation = -1;
  /** Seconds by which the chain's last final block is ahead of this machine's clock. */
  #behind = 0n;
  #pending: Pending[] = [];

  constructor(options: ProcessorOptions) {
    this.#options = options;
    this.#events = options.events ?? silent;
  }

  get address(): Address {
    return this.#options.key.address;
  }

  get domain(): Domain {
    return this.#options.domain;
  }

  /** Seconds from acceptance to settlement that receipts promise. */
  get settleWithin(): bigint {
    return this.#options.settleWithin;
  }

  /** Unix seconds. */
  now(): bigint {
    return this.#options.now();
  }

  /** The readable ledger, newest first, see `Store.ledger`. */
  ledger(filter: LedgerFilter): LedgerEntry[] {
    return this.#options.store.ledger(filter);
  }

  /**
   * Takes up a mandate that stands open on chain and whose signed terms are `terms`. Repeating it changes nothing.
   * @throws {@link BursarError} `mandate-not-open`, `wrong-processor`, `terms-mismatch`, `policy-mismatch`,
   * `mandate-conflict` when another mandate of the same agent is known or stands on chain; `books-behind` when the
   * chain has seen payments that these books do not know; with `replaces` what {@link replace} throws.
   */
  async register(mandate: Mandate, terms: Terms): Promise<MandateRecord> {
    const { store, chain, key, domain } = this.#options;
    assertPolicyAgrees(mandate);
    expectEqual(
      "terms-mismatch",
      "The terms are not the ones that the owner signed.",
      termsHash(terms),
      mandate.termsHash,
    );
    expectEqual("wrong-processor", "The mandate names another processor.", mandate.processor, key.address);
    const known = store.mandate(mandate.agent);
    if (known) {
      expectEqual(
        "mandate-conflict",
        "Another mandate of this agent is known.",
        hashMandate(domain, mandate),
        hashMandate(domain, known.mandate),
      );
      return known;
    }
    const onChain = await chain.mandate(mandate.agent);
    if (onChain.state !== "open") {
      throw new BursarError(
        "mandate-not-open",
        `The mandate of ${mandate.agent} is ${onChain.state} on chain.`,
        { value: onChain.state, limit: "open" },
        "Open the mandate on chain first, then register it again.",
      );
    }
    expectSameMandate(mandate, onChain);
    if (onChain.seq > 0n || onChain.directSpent > 0n) throw booksBehind(mandate.agent, onChain.seq, 0n);
    const record: MandateRecord = {
      mandate,
      terms,
      unitScale: onChain.unitScale,
      settled: { base: onChain.base, seq: onChain.seq, spent: onChain.spent },
      revokedAt: null,
      closesAt: onChain.closesAt,
    };
    store.transact(() => {
      store.addMandate(record);
      if (terms.replaces !== undefined) this.replace(terms.replaces, mandate.agent);
    });
    return record;
  }

  /**
   * Stops a mandate at once, on the owner's signed word; the chain may follow.
   * @throws {@link BursarError} `signature-*` unless the owner's own key signed. A contract owner revokes on chain.
   */
  revoke(revocation: Revocation, signature: Hex): void {
    const { store, now, domain } = this.#options;
    const { mandate } = store.mandateOf(revocation.agent);
    verifySignature(hashRevocation(domain, revocation), signature, mandate.owner);
    store.transact(() => store.markRevoked(revocation.agent, now()));
  }

  /**
   * Stops a mandate in whose place another one of the same owner has come: the owner said so in the terms that it signed.
   * @throws {@link BursarError} `mandate-unknown`, `forbidden` when the owners differ.
   */
  replace(old: Address, agent: Address): void {
    const { store, now } = this.#options;
    const before = store.mandateOf(old).mandate;
    const after = store.mandateOf(agent).mandate;
    if (before.owner !== after.owner) {
      throw new BursarError("forbidden", "A mandate can only take the place of one of the same owner.", {
        value: after.owner,
        limit: before.owner,
      });
    }
    store.markRevoked(old, now());
  }

  /**
   * Stops mandates that the chain has seen revoked or fallen to claims, and looks at its clock: with one that is far behind, mandates would
   * be spent after their end, so nothing is accepted then.
   */
  async refresh(): Promise<void> {
    const { store, chain, now } = this.#options;
    const { upTo, time, revoked } = await chain.revocations(store.cursor(REVOCATIONS) ?? 0);
    this.#behind = time - now();
    const known = revoked.filter(({ agent }) => store.mandate(agent) !== undefined);
    if (known.length === 0 && upTo === store.cursor(REVOCATIONS)) return;
    store.transact(() => {
      for (const { agent, at, closesAt } of known) store.markRevoked(agent, at, closesAt);
      store.setCursor(REVOCATIONS, upTo);
    });
  }

  /**
   * Holds the books against the chain, at start. Where the chain has settled more than the books know, as after a restore
   * from an old backup, nothing more is signed for that mandate: it could contradict a receipt that was given before.
   */
  async reconcile(): Promise<void> {
    const { store, chain, now } = this.#options;
    for (const { mandate, closesAt } of store.mandates()) {
      if (closesAt <= now()) continue;
      const onChain = await chain.mandate(mandate.agent);
      if (onChain.seq > this.tail(mandate.agent).position.seq) this.#fenced.add(mandate.agent);
    }
  }

  /**
   * Accepts one signed payment.
   * @returns The processor's receipt, byte for byte the same whenever the same payment is sent again.
   * @throws {@link BursarError} A typed refusal; it is recorded too, and nothing else changes.
   */
  async accept(request: SignedPayment): Promise<SignedReceipt> {
    const digest = this.#authenticate(request);
    this.#options.admit?.(request.agent);
    const outside = await this.#outside(request.agent, { payee: request.hold?.payee ?? request.payment.line.payee });
    const accepted = await this.#recorded(
      () => this.#take(request, digest, outside),
      (refusal) => this.#keepRefusal("proved", request, digest, refusal),
    );
    return this.#receipt(accepted);
  }

  /**
   * Decides like {@link accept}, without any effect.
   * @returns the units of the budget that would be left.
   */
  async check(request: SignedPayment): Promise<{ remaining: bigint }> {
    const { agent, payment } = request;
    const digest = this.#authenticate(request);
    const { mandate } = this.#options.store.mandateOf(agent);
    const outside = await this.#outside(agent, { payee: request.hold?.payee ?? payment.line.payee });
    this.#earlier(request, digest) ?? this.#decide(request, outside);
    return { remaining: mandate.budget - payment.spent - this.#account(agent).reserved };
  }

  /**
   * Accepts one payment of the direct rail and reserves its units.
   * @returns what stands in the books, the same whenever the same payment is sent again.
   * @throws {@link BursarError} A typed refusal; it is recorded too, and nothing else changes. `nonce-used` for another
   * payment with a nonce that is taken.
   */
  async acceptDirect(direct: DirectPayment): Promise<DirectRecord> {
    const { agent, digest, payee, amount, ref } = direct;
    this.#authenticateDirect(direct);
    this.#options.admit?.(agent);
    const request = { agent, payment: { seq: null, spent: null, head: null, line: { payee, amount, ref } } };
    const outside = await this.#outside(agent, direct);
    return this.#recorded(
      () => this.#takeDirect(direct, outside),
      (refusal) => this.#keepRefusal(direct.kind, { ...request, signature: direct.signature }, digest, refusal),
    );
  }

  /** Decides like {@link acceptDirect}, without any effect. */
  async checkDirect(direct: DirectPayment): Promise<void> {
    this.#authenticateDirect(direct);
    const outside = await this.#outside(direct.agent, direct);
    this.#earlierDirect(direct) ?? this.#decideDirect(direct, outside);
  }

  /** A payment of the direct rail, as it stands in the books. */
  direct(kind: DirectKind, agent: Address, nonce: Hex): DirectRecord | undefined {
    return this.#options.store.direct(kind, agent, nonce);
  }

  /** What is accepted, settled and left of a mandate. */
  status(agent: Address): MandateStatus {
    const { store, now } = this.#options;
    const { mandate, terms, settled, revokedAt, closesAt } = store.mandateOf(agent);
    const { tail, reserved } = this.#account(agent);
    const { seq, spent } = tail.position;
    const expired = now() > mandate.validUntil ? "expired" : "open";
    return {
      mandate,
      terms,
      state: closesAt <= now() ? "closed" : revokedAt === null ? expired : "revoked",
      accepted: { seq, spent },
      settled,
      reserved,
      remaining: mandate.budget - spent - reserved,
      revokedAt,
      closesAt,
    };
  }

  knows(agent: Address): boolean {
    return this.#options.store.mandate(agent) !== undefined;
  }

  /** Where the ledger of `agent` stands, for an agent that resumes. */
  tail(agent: Address): LedgerTail {
    this.#options.store.mandateOf(agent);
    return this.#account(agent).tail;
  }

  /** The agent's own last payment and its signature: they prove the {@link tail}. */
  last(agent: Address): Pick<SignedPayment, "payment" | "signature"> | null {
    const last = this.#options.store.lastPayment(agent);
    return last === undefined ? null : { payment: last.payment, signature: last.signature };
  }

  /** The receipt of a payment accepted before, if there is one. */
  receipt(agent: Address, seq: bigint): SignedReceipt | undefined {
    const accepted = this.#options.store.payment(agent, seq);
    return accepted && this.#receipt(accepted);
  }

  /** The payee whose hold an account is, or else the account itself. */
  holderOf(account: Address): Address {
    return this.#options.store.holderOf(account);
  }

  /** A payment accepted before, and how far it has come. */
  payment(agent: Address, seq: bigint): PaymentView | undefined {
    const { store } = this.#options;
    const accepted = store.payment(agent, seq);
    const status = store.paymentStatus(agent, seq);
    if (!accepted || !status) return undefined;
    const signed = this.#receipt(accepted);
    const batch = accepted.batch === null ? undefined : store.batch(accepted.batch);
    return {
      ...signed.receipt,
      status,
      receipt: signed,
      batch: accepted.batch,
      transaction: batch?.transaction ?? null,
    };
  }

  /** An unknown agent is told so before its signature costs anything. */
  #authenticate({ agent, payment, signature }: SignedPayment): Hex {
    this.#options.store.mandateOf(agent);
    const digest = hashPayment(this.#options.domain, payment);
    verifySignature(digest, signature, agent);
    return digest;
  }

  #authenticateDirect({ agent, digest, signature }: DirectPayment): void {
    this.#options.store.mandateOf(agent);
    verifySignature(digest, signature, agent);
  }

  /** Runs `take` in the next commit, and answers once that is on disk. */
  #recorded<T>(take: () => T, refused: (refusal: BursarError) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#pending.length === 0) setImmediate(() => this.#commit());
      this.#pending.push({
        take: () => {
          const result = take();
          return () => resolve(result);
        },
        refused,
        reject,
      });
    });
  }

  #commit(): void {
    const group = this.#pending.splice(0, GROUP);
    if (this.#pending.length > 0) setImmediate(() => this.#commit());
    const answers: (() => void)[] = [];
    const began = performance.now();
    try {
      this.#options.store.transact(() => {
        for (const { take, refused, reject } of group) {
          try {
            answers.push(take());
          } catch (refusal) {
            if (!(refusal instanceof BursarError)) throw refusal;
            refused(refusal);
            answers.push(() => reject(refusal));
          }
        }
      });
    } catch (failure) {
      this.#accounts.clear();
      for (const { reject } of group) reject(failure);
      return;
    }
    this.#events.committed(group.length, performance.now() - began);
    for (const answer of answers) answer();
  }

  #take(request: SignedPayment, digest: Hex, outside: BursarError | null): AcceptedPayment {
    const earlier = this.#earlier(request, digest);
    if (earlier) return earlier;
    const { store, now, settleWithin } = this.#options;
    const { agent, payment, signature, salt } = request;
    const tail = this.#decide(request, outside);
    const acceptedAt = now();
    const settleBy = acceptedAt + settleWithin;
    if (request.hold !== undefined) store.addHold(payment.line.payee, request.hold.payee);
    const accepted = store.addPayment({ agent, payment, signature, digest, salt, acceptedAt, settleBy });
    const account = this.#account(agent);
    account.tail = tail;
    account.spending.add({ at: acceptedAt, amount: payment.line.amount });
    this.#events.accepted("proved");
    return accepted;
  }

  /** @returns The same payment, if it was accepted before. */
  #earlier({ agent, payment }: SignedPayment, digest: Hex): AcceptedPayment | undefined {
    if (payment.seq > this.#account(agent).tail.position.seq) return undefined;
    const earlier = this.#options.store.payment(agent, payment.seq);
    if (!earlier || earlier.digest === digest) return earlier;
    throw new BursarError(
      "sequence-taken",
      `Payment ${payment.seq} was already signed for ${earlier.payment.line.amount} to ${earlier.payment.line.payee}.`,
      { value: digest, limit: earlier.digest },
      "Never sign two payments with one number: read the ledger's tail and use the next one.",
    );
  }

  #decide({ agent, payment, salt, quote, hold }: SignedPayment, outside: BursarError | null): LedgerTail {
    const { domain, hashPage, now } = this.#options;
    const circumstances = this.#circumstances(agent, payment.line, hold);
    const { profile } = circumstances;
    const line = { ...payment.line, payee: hold?.payee ?? payment.line.payee };
    const narrowed =
      quote === undefined || profile === undefined ? profile : narrow(line, quote, { domain, profile, now: now() });
    const tail = decide({ payment, salt }, { ...circumstances, profile: narrowed }, hashPage);
    if (outside !== null) throw outside;
    return tail;
  }

  /** Why the identity gate leaves a payee out, or null. Where there is no gate to ask, nothing waits. */
  #outside(agent: Address, { payee }: Pick<Line, "payee">): Promise<BursarError | null> | null {
    const { gate, store } = this.#options;
    return gate === undefined ? null : gate.refusal(payee, store.mandateOf(agent).mandate.token);
  }

  #takeDirect(direct: DirectPayment, outside: BursarError | null): DirectRecord {
    const earlier = this.#earlierDirect(direct);
    if (earlier) return earlier;
    this.#decideDirect(direct, outside);
    const { store, now } = this.#options;
    const record = store.addDirect(direct, now());
    const account = this.#account(direct.agent);
    account.reserved += direct.amount;
    account.spending.add({ at: record.acceptedAt, amount: direct.amount });
    this.#events.accepted(direct.kind);
    return record;
  }

  #earlierDirect({ kind, agent, nonce, digest }: DirectPayment): DirectRecord | undefined {
    const earlier = this.#options.store.direct(kind, agent, nonce);
    if (!earlier || earlier.digest === digest) return earlier;
    throw new BursarError(
      "nonce-used",
      `The nonce ${nonce} was already signed for ${earlier.amount} to ${earlier.payee}.`,
      { value: digest, limit: earlier.digest },
      "Never sign two payments with one nonce: take a fresh random one.",
    );
  }

  #decideDirect(direct: DirectPayment, outside: BursarError | null): void {
    const { agent, token, validAfter, validBefore } = direct;
    const { mandate } = this.#options.store.mandateOf(agent);
    const now = this.#options.now();
    expectEqual("wrong-token", "The payment is in another token than the mandate.", token, mandate.token);
    if (now <= validAfter) {
      throw new BursarError("authorization-early", `The authorisation begins after ${validAfter}; it is ${now}.`, {
        value: now,
        limit: validAfter,
      });
    }
    if (now + MARGIN >= validBefore) {
      throw new BursarError(
        "authorization-expired",
        `The authorisation ends before ${validBefore}; it is ${now}, and settling takes up to ${MARGIN} s.`,
        { value: now, limit: validBefore },
        "Sign it again with a later end.",
      );
    }
    decideDirect(direct, this.#circumstances(agent, direct));
    if (outside !== null) throw outside;
  }

  #circumstances(
    agent: Address,
    { payee }: Pick<Line, "payee">,
    hold?: HoldFor,
  ): Circumstances & { profile: PayeeProfile | undefined } {
    const { store, now, impossible = [], maxSkew = 60n } = this.#options;
    const record = store.mandateOf(agent);
    const { tail, reserved, spending } = this.#account(agent);
    const limited = record.terms.hosts.length + record.terms.categories.length > 0;
    if (maxSkew !== null && this.#behind > maxSkew) {
      throw new BursarError(
        "clock-behind",
        `The processor's clock is ${this.#behind} s behind the chain's.`,
        { value: this.#behind, limit: maxSkew },
        "Try again later; the operator has to set the clock.",
      );
    }
    if (this.#fenced.has(agent)) throw booksBehind(agent, null, tail.position.seq);
    expectHeld(record, payee, hold);
    if (hold !== undefined) expectCollects(hold.payee, [record.mandate.token, ...impossible]);
    return {
      record,
      tail,
      reserved,
      spending,
      profile: limited ? store.payee(hold?.payee ?? payee) : undefined,
      impossible,
      now: now(),
    };
  }

  #account(agent: Address): Account {
    const generation = this.#options.store.generation();
    if (generation !== this.#generation) this.#accounts.clear();
    this.#generation = generation;
    const kept = this.#accounts.get(agent);
    if (kept) return kept;
    const account = this.#load(agent);
    if (this.#accounts.size >= KEPT) this.#accounts.delete(this.#accounts.keys().next().value!);
    this.#accounts.set(agent, account);
    return account;
  }

  #load(agent: Address): Account {
    const { store, domain, now } = this.#options;
    const { terms } = store.mandateOf(agent);
    const spending = new Spending(terms);
    const since = Spending.since(terms, now());
    if (since !== null) for (const spend of store.spends(agent, since)) spending.add(spend);
    return { tail: tailOf(store, domain, agent), reserved: store.reserved(agent), spending };
  }

  /** A refusal that carries the agent's own signature is kept: people read it, and a conflict is evidence. */
  #keepRefusal(
    rail: PaymentRail,
    { agent, payment, signature }: Pick<SignedPayment, "agent" | "signature"> & { payment: Refused },
    digest: Hex,
    refusal: BursarError,
  ): void {
    const { store, now } = this.#options;
    const { code, message, details, advice = null } = refusal;
    store.addRefusal({ rail, agent, payment, signature, digest, code, message, details, advice, at: now() });
    this.#events.refused(rail, code);
  }

  /** Signatures are deterministic (RFC 6979), so the receipt need not be stored to be the same for ever. */
  #receipt({ agent, payment, settleBy, logIndex }: AcceptedPayment): SignedReceipt {
    const { key, domain } = this.#options;
    const { seq, head, line } = payment;
    const receipt: Receipt = { agent, seq, ...line, head, settleBy, logIndex };
    return { receipt, signature: key.sign(hashReceipt(domain, receipt)) };
  }
}

type Refused = Refusal["payment"];

const REVOCATIONS = "revocations";

/** The tail of a ledger, from the payments in the books. */
function tailOf(store: Store, domain: Domain, agent: Address): LedgerTail {
  const start = startOf(domain, agent);
  const last = store.lastPayment(agent);
  if (!last) return { position: start, salt: null };
  const { seq, spent } = last.payment;
  const full = seq - offsetOf(seq);
  const base = full === 0n ? start.base : store.headAt(agent, full);
  const lines = store.payments(agent, full + 1n, seq).map(({ payment }) => payment.line);
  return { position: { seq, spent, base, lines }, salt: full === seq ? null : last.salt };
}

/** @throws BursarError `payee-impossible` for a hold that could never pay anyone. */
function expectCollects(payee: Address, impossible: readonly Address[]): void {
  if (!impossible.includes(payee)) return;
  throw new BursarError(
    "payee-impossible",
    `${payee} is the token or one of Bursar's contracts: its hold would be lost.`,
    { value: payee },
    "The payee's address is wrong: do not pay it.",
  );
}

/**
 * Under terms with a dispute module a payment goes to the hold of a payee, and to nothing else; without, to no hold.
 * @throws BursarError `not-held`
 */
function expectHeld({ mandate, terms }: MandateRecord, account: Address, hold: HoldFor | undefined): void {
  const { dispute } = terms;
  if (dispute === undefined && hold === undefined) return;
  if (dispute === undefined) {
    throw new BursarError(
      "not-held",
      "The mandate's terms name no dispute module: nothing is paid to holds.",
      { value: account },
      "Pay the payee itself.",
    );
  }
  const holdback = BigInt(dispute.holdback);
  const expected =
    hold?.holdback === holdback ? holdOf(dispute.module, mandate.agent, hold.payee, holdback) : "a hold of its payee";
  if (expected === account) return;
  throw new BursarError(
    "not-held",
    `Payments of this mandate wait ${holdback} seconds in holds of ${dispute.module}; ${account} is none.`,
    { value: account, limit: expected },
    "Pay the payee's hold and say whose it is; a payee that takes no holds cannot be paid.",
  );
}

function booksBehind(agent: Address, onChain: bigint | null, known: bigint): BursarError {
  return new BursarError(
    "books-behind",
    `The chain knows payments of ${agent} that this processor's books do not.`,
    { value: onChain ?? "more", limit: known },
    "The operator has to restore the books; until then ask the owner for a new mandate.",
  );
}

function expectEqual(code: ErrorCode, message: string, value: string, limit: string): void {
  if (value !== limit) throw new BursarError(code, message, { value, limit });
}

function expectSameMandate(mandate: Mandate, onChain: MandateOnChain): void {
  const signed = { ...mandate, payeesHash: payeesHash(mandate.payees) };
  const fields = [
    "owner",
    "token",
    "budget",
    "paymentCap",
    "validUntil",
    "processor",
    "payeesHash",
    "policyRoot",
    "termsHash",
  ] as const;
  for (const field of fields) {
    expectEqual(
      "mandate-conflict",
      `Another ${field} stands on chain for this agent.`,
      String(signed[field]),
      String(onChain[field]),
    );
  }
}
