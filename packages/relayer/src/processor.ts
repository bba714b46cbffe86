import {
  assertPolicyAgrees,
  BursarError,
  hashMandate,
  hashPayment,
  hashReceipt,
  hashRevocation,
  headHex,
  holdOf,
  offsetOf,
  payeesHash,
  signWithKey,
  startOf,
  termsHash,
  verifyPaid,
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
  type Payment,
  type Position,
  type Receipt,
  type Revocation,
  type SignedPayment,
  type SignedReceipt,
  type Terms,
} from "@bursar/protocol";
import type { Context } from "@opentelemetry/api";

import { decide, decideDirect, followLedger, narrow, type Circumstances, type LedgerTail } from "./decide.ts";
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
import type { Completeness } from "./receipt-log.ts";
import { Spending } from "./spending.ts";
import type { Decisions, LockedMandate, Store } from "./store.ts";
import { activeContext, activeTraceparent, inContext, isTracing, traced, tracedSince, tracedWithin } from "./trace.ts";
import type { Witness } from "./witness.ts";

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

/** What is handed back to books that have lost it. */
export interface HandedBack {
  readonly payment: SignedPayment;
  readonly receipt: SignedReceipt;
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
  /** Remembers apart from the books which receipts were told; without it nobody notices books that were put back. */
  witness?: Pick<Witness, "last" | "note"> | undefined;
  /** Seconds that this clock may be behind the chain's, 60 unless given; null on a local chain, whose clock runs ahead. */
  maxSkew?: bigint | null;
  /** Asked for each authenticated payment before it is decided; throws `too-many-requests` to hold an agent back. */
  admit?: (agent: Address) => void;
  /** Unix seconds. */
  now: () => bigint;
}

/** What the next payment of an agent is decided on. */
interface Account {
  readonly record: MandateRecord;
  tail: LedgerTail;
  reserved: bigint;
  readonly spending: Spending;
}

/** An account as it stood when the mandate's version was this. */
type KeptAccount = Omit<Account, "record"> & { readonly version: number };

/** A commit while it is decided: what it will write, and the accounts as they will stand then. */
interface Draft extends Decisions {
  readonly accounts: ReadonlyMap<Address, Account>;
}

/** What was recorded, in the order of the draft. */
type Recorded = Awaited<ReturnType<Store["record"]>>;

/** A request that waits for the next commit: it is decided inside it, and answered after it. */
interface Pending {
  readonly agent: Address;
  /** What is traced around it. */
  readonly context: Context;
  /** @returns what answers it once the draft is on disk. */
  readonly take: (draft: Draft) => Promise<(recorded: Recorded) => void>;
  readonly refused: (draft: Draft, refusal: BursarError) => void;
  readonly reject: (reason: unknown) => void;
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
  readonly #accounts = new Map<Address, KeptAccount>();
  /** Connections to the database when the books were last held against the witness. */
  #held = 0;
  /** Seconds by which the chain's last final block is ahead of this machine's clock. */
  #behind = 0n;
  #pending: Pending[] = [];
  #committing = false;

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
  async ledger(filter: LedgerFilter): Promise<LedgerEntry[]> {
    return this.#options.store.ledger(filter);
  }

  /**
   * Takes up a mandate that stands open on chain and whose signed terms are `terms`. Repeating it changes nothing.
   * @throws {@link BursarError} `mandate-not-open`, `wrong-processor`, `terms-mismatch`, `policy-mismatch`,
   * `mandate-conflict` when another mandate of the same agent is known or stands on chain; `books-behind` when the
   * chain has seen payments that these books do not know. Books that were put back and are being completed take up those
   * too, and what is over, for the receipts that belong to it. With `replaces` what {@link replace} throws.
   */
  async register(mandate: Mandate, terms: Terms): Promise<MandateRecord> {
    const { store, chain, key, domain, now } = this.#options;
    assertPolicyAgrees(mandate);
    expectEqual(
      "terms-mismatch",
      "The terms are not the ones that the owner signed.",
      termsHash(terms),
      mandate.termsHash,
    );
    expectEqual("wrong-processor", "The mandate names another processor.", mandate.processor, key.address);
    const known = await store.mandate(mandate.agent);
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
    const whole = await store.receipts.isWhole();
    if (onChain.state !== "open" && (whole || onChain.state === "none")) {
      throw new BursarError(
        "mandate-not-open",
        `The mandate of ${mandate.agent} is ${onChain.state} on chain.`,
        { value: onChain.state, limit: "open" },
        "Open the mandate on chain first, then register it again.",
      );
    }
    expectSameMandate(mandate, onChain);
    const fresh = onChain.seq === 0n && onChain.directSpent === 0n;
    if (!fresh && whole) throw booksBehind(mandate.agent, onChain.seq, 0n);
    const record: MandateRecord = {
      mandate,
      terms,
      unitScale: onChain.unitScale,
      settled: { base: onChain.base, seq: onChain.seq, spent: onChain.spent },
      revokedAt: onChain.state === "open" ? null : (onChain.revokedAt ?? now()),
      closesAt: onChain.closesAt,
    };
    await store.transact(async () => {
      await store.addMandate(record);
      if (onChain.directSpent > 0n) await store.setUnknownDirect(mandate.agent, onChain.directSpent);
      if (terms.replaces !== undefined) await this.replace(terms.replaces, mandate.agent);
    });
    return record;
  }

  /**
   * Stops a mandate at once, on the owner's signed word; the chain may follow.
   * @throws {@link BursarError} `signature-*` unless the owner's own key signed. A contract owner revokes on chain.
   */
  async revoke(revocation: Revocation, signature: Hex): Promise<void> {
    const { store, now, domain } = this.#options;
    const { mandate } = await store.mandateOf(revocation.agent);
    verifySignature(hashRevocation(domain, revocation), signature, mandate.owner);
    await store.transact(() => store.markRevoked(revocation.agent, now()));
  }

  /**
   * Stops a mandate in whose place another one of the same owner has come: the owner said so in the terms that it signed.
   * @throws {@link BursarError} `mandate-unknown`, `forbidden` when the owners differ.
   */
  async replace(old: Address, agent: Address): Promise<void> {
    const { store, now } = this.#options;
    const before = (await store.mandateOf(old)).mandate;
    const after = (await store.mandateOf(agent)).mandate;
    if (before.owner !== after.owner) {
      throw new BursarError("forbidden", "A mandate can only take the place of one of the same owner.", {
        value: after.owner,
        limit: before.owner,
      });
    }
    await store.markRevoked(old, now());
  }

  /**
   * Stops mandates that the chain has seen revoked or fallen to claims, and looks at its clock: with one that is far behind, mandates would
   * be spent after their end, so nothing is accepted then.
   */
  async refresh(): Promise<void> {
    const { store, chain, now } = this.#options;
    if (!(await store.receipts.isWhole())) await this.reconcile();
    const { upTo, time, revoked } = await chain.revocations((await store.cursor(REVOCATIONS)) ?? 0);
    this.#behind = time - now();
    const mine = await Promise.all(revoked.map(({ agent }) => store.mandate(agent)));
    const known = revoked.filter((_, i) => mine[i] !== undefined);
    if (known.length === 0 && upTo === (await store.cursor(REVOCATIONS))) return;
    await store.transact(async () => {
      for (const { agent, at, closesAt } of known) await store.markRevoked(agent, at, closesAt);
      await store.setCursor(REVOCATIONS, upTo);
    });
  }

  /**
   * Holds the books against what this process has told and against the chain, at start. What the chain has settled
   * without them, as before a restore from a backup, is taken over. As long as receipts are missing nothing is signed for
   * anybody: it could contradict one of them.
   * @throws BursarError `books-conflict` when the books hold another history than was told.
   */
  async reconcile(): Promise<void> {
    const { store, chain, now } = this.#options;
    await this.#holdAgainstWitness();
    const whole = await store.receipts.isWhole();
    for (const { mandate, settled, closesAt } of await store.mandates()) {
      if (whole && closesAt <= now()) continue;
      const { agent } = mandate;
      const onChain = await chain.mandate(agent);
      if (onChain.seq > settled.seq) await store.takeOver(agent, onChain);
      const unknown = onChain.directSpent - (await store.sentDirect(agent));
      await store.setUnknownDirect(agent, unknown > 0n ? unknown : 0n);
    }
    if (!whole) await store.receipts.seal();
  }

  /**
   * Takes back payments with the receipts that were given for them, of books that have lost them: as they were, in the order
   * of each ledger. What the books hold already changes nothing.
   * @returns how many receipts are still missing.
   * @throws {@link BursarError} `mandate-unknown`, `receipt-*`, `signature-*`; `sequence-gap`, `spent-mismatch` or
   * `head-mismatch` for a payment that does not follow; `sequence-taken` or `books-conflict` for one in whose place the books
   * hold another. Then nothing of all is taken.
   */
  async takeBack(handed: readonly HandedBack[]): Promise<Completeness> {
    const { store, domain, key } = this.#options;
    for (const { payment, receipt } of handed) {
      await store.signed(payment.agent);
      const { settleBy } = receipt.receipt;
      const expected = { domain, ...payment.payment.line, processor: key.address, now: settleBy - 1n };
      verifyPaid({ domain, payment, receipt }, expected);
    }
    const agents = [...new Set(handed.map(({ payment }) => payment.agent))].sort();
    await store.transact(async () => {
      await store.lockMandates(agents);
      for (const one of handed) await this.#takeBack(one);
    });
    return store.receipts.seal();
  }

  async #takeBack({ payment: request, receipt: { receipt } }: HandedBack): Promise<void> {
    const { store, domain, hashPage, settleWithin } = this.#options;
    const { agent, payment, signature, salt, hold } = request;
    const { logIndex, settleBy } = receipt;
    const digest = hashPayment(domain, payment);
    const earlier = await store.payment(agent, payment.seq);
    if (earlier?.digest === digest && earlier.logIndex === logIndex) return;
    if (earlier?.digest === digest) throw numberedTwice(agent, receipt, earlier);
    if (earlier) throw sequenceTaken(payment.seq, digest, earlier);
    const record = await store.mandateOf(agent);
    if (hold !== undefined) {
      expectHeld(record, payment.line.payee, hold);
      await store.addHold(payment.line.payee, hold.payee);
    }
    followLedger({ payment, salt }, pageStartIn(record, payment) ?? (await this.tail(agent)), hashPage);
    const { settled } = record;
    if (payment.seq === settled.seq && payment.spent !== settled.spent) throw otherSettled(agent, payment, settled);
    const acceptedAt = settleBy - settleWithin;
    await store.recordAgain({ agent, payment, signature, digest, salt, logIndex, settleBy, acceptedAt });
  }

  /** Gives up the receipts that are missing; see `bursar books accept-loss`. @returns how many there were. */
  async acceptLoss(): Promise<number> {
    return this.#options.store.receipts.giveUp(this.#options.now());
  }

  /** How many receipts were given, and how many of them are missing. */
  async completeness(): Promise<Completeness> {
    return this.#options.store.receipts.completeness();
  }

  /**
   * To be asked before anything is signed that says how far a mandate's ledger goes.
   * @throws BursarError `books-behind`
   */
  async expectWhole(agent: Address): Promise<void> {
    await this.#options.store.receipts.expectWhole();
    const { record, tail } = await this.#account(agent);
    expectUpToChain(record, tail);
  }

  /** Whether the books know every payment of a mandate, see {@link expectWhole}. */
  async isWhole(agent: Address): Promise<boolean> {
    const { record, tail } = await this.#account(agent);
    return record.settled.seq <= tail.position.seq && (await this.#options.store.receipts.isWhole());
  }

  /**
   * Accepts one signed payment.
   * @returns The processor's receipt, byte for byte the same whenever the same payment is sent again.
   * @throws {@link BursarError} A typed refusal; it is recorded too, and nothing else changes.
   */
  accept(request: SignedPayment): Promise<SignedReceipt> {
    return traced("accept", {}, () => this.#accept(request));
  }

  async #accept(request: SignedPayment): Promise<SignedReceipt> {
    const trace = activeTraceparent();
    const digest = await this.#authenticate(request);
    this.#options.admit?.(request.agent);
    const outside = await this.#outside(request.agent, { payee: request.hold?.payee ?? request.payment.line.payee });
    const accepted = await this.#recorded(
      request.agent,
      (draft) => this.#take(draft, request, digest, outside, trace),
      (draft, refusal) => this.#keepRefusal(draft, "proved", request, digest, refusal),
    );
    return this.#receipt(accepted);
  }

  /**
   * Decides like {@link accept}, without any effect.
   * @returns the units of the budget that would be left.
   */
  async check(request: SignedPayment): Promise<{ remaining: bigint }> {
    const { agent, payment } = request;
    const digest = await this.#authenticate(request);
    const outside = await this.#outside(agent, { payee: request.hold?.payee ?? payment.line.payee });
    await this.#options.store.receipts.expectWhole();
    const account = await this.#account(agent);
    (await this.#earlier(account, request, digest)) ?? (await this.#decide(account, request, outside));
    return { remaining: account.record.mandate.budget - payment.spent - account.reserved };
  }

  /**
   * Accepts one payment of the direct rail and reserves its units.
   * @returns what stands in the books, the same whenever the same payment is sent again.
   * @throws {@link BursarError} A typed refusal; it is recorded too, and nothing else changes. `nonce-used` for another
   * payment with a nonce that is taken.
   */
  async acceptDirect(direct: DirectPayment): Promise<DirectRecord> {
    const { agent, digest, payee, amount, ref } = direct;
    await this.#authenticateDirect(direct);
    this.#options.admit?.(agent);
    const request = { agent, payment: { seq: null, spent: null, head: null, line: { payee, amount, ref } } };
    const outside = await this.#outside(agent, direct);
    return this.#recorded(
      agent,
      (draft) => this.#takeDirect(draft, direct, outside),
      (draft, refusal) => {
        this.#keepRefusal(draft, direct.kind, { ...request, signature: direct.signature }, digest, refusal);
      },
    );
  }

  /** Decides like {@link acceptDirect}, without any effect. */
  async checkDirect(direct: DirectPayment): Promise<void> {
    await this.#authenticateDirect(direct);
    const outside = await this.#outside(direct.agent, direct);
    await this.#options.store.receipts.expectWhole();
    (await this.#earlierDirect(direct)) ??
      (await this.#decideDirect(await this.#account(direct.agent), direct, outside));
  }

  /** A payment of the direct rail, as it stands in the books. */
  async direct(kind: DirectKind, agent: Address, nonce: Hex): Promise<DirectRecord | undefined> {
    return this.#options.store.direct(kind, agent, nonce);
  }

  /** What is accepted, settled and left of a mandate. */
  async status(agent: Address): Promise<MandateStatus> {
    const { now } = this.#options;
    const { record, tail, reserved } = await this.#account(agent);
    const { mandate, terms, settled, revokedAt, closesAt } = record;
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

  async knows(agent: Address): Promise<boolean> {
    return (await this.#options.store.mandate(agent)) !== undefined;
  }

  /** Where the ledger of `agent` stands, for an agent that resumes. */
  async tail(agent: Address): Promise<LedgerTail> {
    return (await this.#account(agent)).tail;
  }

  /** The agent's own last payment and its signature: they prove the {@link tail}. */
  async last(agent: Address): Promise<Pick<SignedPayment, "payment" | "signature"> | null> {
    const { settled } = await this.#options.store.mandateOf(agent);
    const last = await this.#options.store.lastPayment(agent);
    if (last === undefined || last.payment.seq < settled.seq) return null;
    return { payment: last.payment, signature: last.signature };
  }

  /** The receipt of a payment accepted before, if there is one. */
  async receipt(agent: Address, seq: bigint): Promise<SignedReceipt | undefined> {
    const accepted = await this.#options.store.payment(agent, seq);
    return accepted && this.#receipt(accepted);
  }

  /** The payee whose hold an account is, or else the account itself. */
  async holderOf(account: Address): Promise<Address> {
    return this.#options.store.holderOf(account);
  }

  /** A payment accepted before, and how far it has come. */
  async payment(agent: Address, seq: bigint): Promise<PaymentView | undefined> {
    const { store } = this.#options;
    const accepted = await store.payment(agent, seq);
    const status = await store.paymentStatus(agent, seq);
    if (!accepted || !status) return undefined;
    const signed = this.#receipt(accepted);
    const batch = accepted.batch === null ? undefined : await store.batch(accepted.batch);
    return {
      ...signed.receipt,
      status,
      receipt: signed,
      batch: accepted.batch,
      transaction: batch?.transaction ?? null,
    };
  }

  /** An unknown agent is told so before its signature costs anything. */
  async #authenticate({ agent, payment, signature }: SignedPayment): Promise<Hex> {
    await this.#options.store.signed(agent);
    const digest = hashPayment(this.#options.domain, payment);
    verifySignature(digest, signature, agent);
    return digest;
  }

  async #authenticateDirect({ agent, digest, signature }: DirectPayment): Promise<void> {
    await this.#options.store.signed(agent);
    verifySignature(digest, signature, agent);
  }

  /** Decides a request in the next commit, and answers once that is on disk. */
  #recorded<T>(
    agent: Address,
    take: (draft: Draft) => Promise<(recorded: Recorded) => T>,
    refused: Pending["refused"],
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#pending.push({
        agent,
        context: activeContext(),
        take: async (draft) => {
          const read = await take(draft);
          return (recorded) => resolve(read(recorded));
        },
        refused,
        reject,
      });
      if (this.#committing) return;
      this.#committing = true;
      setImmediate(() => void this.#commitAll());
    });
  }

  /** Requests that came while one commit was under way share the next. */
  async #commitAll(): Promise<void> {
    while (this.#pending.length > 0) {
      await this.#commit(this.#pending.splice(0, GROUP));
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    this.#committing = false;
  }

  async #commit(group: readonly Pending[]): Promise<void> {
    const began = performance.now();
    try {
      const { answers, recorded, kept } = await this.#decided(group);
      const last = recorded.payments.at(-1);
      if (last !== undefined) this.#options.witness?.note(last);
      this.#keep(kept);
      this.#events.committed(group.length, performance.now() - began);
      if (isTracing()) {
        for (const { context } of group) tracedSince("commit", began, { "bursar.requests": group.length }, context);
      }
      for (const answer of answers) answer(recorded);
    } catch (failure) {
      for (const { reject } of group) reject(failure);
      // Where the database does not answer, nobody waits for the next to try in vain.
      if (failure instanceof BursarError && failure.code === "store-unavailable") {
        for (const { reject } of this.#pending.splice(0)) reject(failure);
      }
    }
  }

  /** Each new connection may lead to books that were put back: they are held against the witness before they are written. */
  async #decided(group: readonly Pending[]) {
    const { store } = this.#options;
    for (;;) {
      if (store.database.connections !== this.#held) await this.#holdAgainstWitness();
      const decided = await store.transact(async () =>
        store.database.connections === this.#held ? this.#decideAll(group) : null,
      );
      if (decided !== null) return decided;
    }
  }

  async #holdAgainstWitness(): Promise<void> {
    const { store, witness } = this.#options;
    const { connections } = store.database;
    const last = witness?.last ?? null;
    if (last !== null && !(await store.receipts.holds(last))) await store.receipts.promise(last.logIndex + 1n);
    this.#held = connections;
  }

  /** Decides one request after the other, each on what the ones before it leave, and records all of them. */
  async #decideAll(group: readonly Pending[]) {
    const { store } = this.#options;
    const locked = await store.lockMandates([...new Set(group.map(({ agent }) => agent))].sort());
    const accounts = await this.#accountsOf([...locked.values()]);
    const draft: Draft = { accounts, holds: [], payments: [], directs: [], refusals: [] };
    const answers: ((recorded: Recorded) => void)[] = [];
    for (const { context, take, refused, reject } of group) {
      try {
        answers.push(await inContext(context, () => tracedWithin("decide", {}, () => take(draft))));
      } catch (refusal) {
        if (!(refusal instanceof BursarError) || refusal.code === "store-unavailable") throw refusal;
        refused(draft, refusal);
        answers.push(() => reject(refusal));
      }
    }
    const recorded = await store.record(draft);
    const changed = new Set(
      [...draft.payments, ...draft.directs.map(({ direct }) => direct)].map(({ agent }) => agent),
    );
    const kept = [...accounts].map(([agent, { tail, reserved, spending }]) => {
      const version = locked.get(agent)!.version + Number(changed.has(agent));
      return [agent, { tail, reserved, spending, version }] as const;
    });
    return { answers, recorded, kept };
  }

  /** Accounts that are kept were taken out for the commit: they come back if that succeeds. */
  async #accountsOf(records: readonly LockedMandate[]): Promise<Map<Address, Account>> {
    const accounts = new Map<Address, Account>();
    const changed: MandateRecord[] = [];
    for (const record of records) {
      const { agent } = record.mandate;
      const kept = this.#accounts.get(agent);
      this.#accounts.delete(agent);
      if (kept?.version === record.version) accounts.set(agent, { ...kept, record });
      else changed.push(record);
    }
    for (const account of await this.#load(changed)) accounts.set(account.record.mandate.agent, account);
    return accounts;
  }

  #keep(accounts: readonly (readonly [Address, KeptAccount])[]): void {
    for (const [agent, account] of accounts) {
      if (this.#accounts.size >= KEPT) this.#accounts.delete(this.#accounts.keys().next().value!);
      this.#accounts.set(agent, account);
    }
  }

  /** Payments of a draft have no number yet: their receipts are read when it is recorded. */
  async #take(
    draft: Draft,
    request: SignedPayment,
    digest: Hex,
    outside: BursarError | null,
    trace: string | null,
  ): Promise<(recorded: Recorded) => AcceptedPayment> {
    const { now, settleWithin } = this.#options;
    const { agent, payment, signature, salt, hold } = request;
    const same = draft.payments.findIndex((other) => other.agent === agent && other.digest === digest);
    if (same >= 0) return ({ payments }) => payments[same]!;
    const account = accountIn(draft, agent);
    const earlier = await this.#earlier(account, request, digest, draft);
    if (earlier) return () => earlier;
    account.tail = await this.#decide(account, request, outside);
    const acceptedAt = now();
    account.spending.add({ at: acceptedAt, amount: payment.line.amount });
    if (hold !== undefined) draft.holds.push({ account: payment.line.payee, payee: hold.payee });
    const settleBy = acceptedAt + settleWithin;
    const accepted = { agent, payment, signature, digest, salt, acceptedAt, settleBy, trace };
    const index = draft.payments.push(accepted) - 1;
    return ({ payments }) => {
      this.#events.accepted("proved");
      return payments[index]!;
    };
  }

  /** @returns The same payment, if it was accepted before. */
  async #earlier(
    { tail }: Account,
    { agent, payment }: SignedPayment,
    digest: Hex,
    draft?: Draft,
  ): Promise<AcceptedPayment | undefined> {
    if (payment.seq > tail.position.seq) return undefined;
    const drafted = draft?.payments.find((other) => other.agent === agent && other.payment.seq === payment.seq);
    const earlier = drafted === undefined ? await this.#options.store.payment(agent, payment.seq) : undefined;
    const taken = drafted ?? earlier;
    if (!taken || taken.digest === digest) return earlier;
    throw sequenceTaken(payment.seq, digest, taken);
  }

  async #decide(
    account: Account,
    { payment, salt, quote, hold }: SignedPayment,
    outside: BursarError | null,
  ): Promise<LedgerTail> {
    const { domain, hashPage, now } = this.#options;
    const circumstances = await this.#circumstances(account, payment.line, hold);
    const { profile } = circumstances;
    const line = { ...payment.line, payee: hold?.payee ?? payment.line.payee };
    const narrowed =
      quote === undefined || profile === undefined ? profile : narrow(line, quote, { domain, profile, now: now() });
    const tail = decide({ payment, salt }, { ...circumstances, profile: narrowed }, hashPage);
    if (outside !== null) throw outside;
    return tail;
  }

  /** Why the identity gate leaves a payee out, or null. Where there is no gate to ask, nothing waits. */
  async #outside(agent: Address, { payee }: Pick<Line, "payee">): Promise<BursarError | null> {
    const { gate, store } = this.#options;
    return gate === undefined ? null : gate.refusal(payee, (await store.signed(agent)).mandate.token);
  }

  async #takeDirect(
    draft: Draft,
    direct: DirectPayment,
    outside: BursarError | null,
  ): Promise<(recorded: Recorded) => DirectRecord> {
    const { agent, kind, nonce, digest, amount } = direct;
    const same = draft.directs.findIndex(
      (other) => other.direct.kind === kind && other.direct.agent === agent && other.direct.nonce === nonce,
    );
    const drafted = draft.directs[same]?.direct;
    if (drafted !== undefined) {
      if (drafted.digest !== digest) throw nonceUsed(direct, drafted);
      return ({ directs }) => directs[same]!;
    }
    const earlier = await this.#earlierDirect(direct);
    if (earlier) return () => earlier;
    const account = accountIn(draft, agent);
    await this.#decideDirect(account, direct, outside);
    const acceptedAt = this.#options.now();
    account.reserved += amount;
    account.spending.add({ at: acceptedAt, amount });
    const index = draft.directs.push({ direct, acceptedAt }) - 1;
    return ({ directs }) => {
      this.#events.accepted(kind);
      return directs[index]!;
    };
  }

  async #earlierDirect(direct: DirectPayment): Promise<DirectRecord | undefined> {
    const { kind, agent, nonce, digest } = direct;
    const earlier = await this.#options.store.direct(kind, agent, nonce);
    if (!earlier || earlier.digest === digest) return earlier;
    throw nonceUsed(direct, earlier);
  }

  async #decideDirect(account: Account, direct: DirectPayment, outside: BursarError | null): Promise<void> {
    const { token, validAfter, validBefore } = direct;
    const { mandate } = account.record;
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
    decideDirect(direct, await this.#circumstances(account, direct));
    if (outside !== null) throw outside;
  }

  async #circumstances(
    { record, tail, reserved, spending }: Account,
    { payee }: Pick<Line, "payee">,
    hold?: HoldFor,
  ): Promise<Circumstances & { profile: PayeeProfile | undefined }> {
    const { store, now, impossible = [], maxSkew = 60n } = this.#options;
    const { token } = record.mandate;
    const limited = record.terms.hosts.length + record.terms.categories.length > 0;
    if (maxSkew !== null && this.#behind > maxSkew) {
      throw new BursarError(
        "clock-behind",
        `The processor's clock is ${this.#behind} s behind the chain's.`,
        { value: this.#behind, limit: maxSkew },
        "Try again later; the operator has to set the clock.",
      );
    }
    expectUpToChain(record, tail);
    expectHeld(record, payee, hold);
    if (hold !== undefined) expectCollects(hold.payee, [token, ...impossible]);
    return {
      record,
      tail,
      reserved,
      spending,
      profile: limited ? await store.payee(hold?.payee ?? payee) : undefined,
      impossible,
      now: now(),
    };
  }

  /** The account as it stands on disk. @throws BursarError `mandate-unknown` */
  async #account(agent: Address): Promise<Account> {
    return (await this.#load([await this.#options.store.mandateOf(agent)]))[0]!;
  }

  /** Accounts that another replica may have changed: all of a commit in two questions, and one for each with a limit by time. */
  async #load(records: readonly MandateRecord[]): Promise<Account[]> {
    if (records.length === 0) return [];
    const { store, domain, now } = this.#options;
    const agents = records.map(({ mandate: { agent } }) => agent);
    const [tails, reserved] = [await store.tails(agents), await store.reservedOf(agents)];
    const accounts: Account[] = [];
    for (const record of records) {
      const { agent } = record.mandate;
      const spending = new Spending(record.terms);
      const since = Spending.since(record.terms, now());
      if (since !== null) for (const spend of await store.spends(agent, since)) spending.add(spend);
      const tail = tailOf(startOf(domain, agent), record, tails.get(agent) ?? []);
      accounts.push({ record, tail, reserved: reserved.get(agent) ?? 0n, spending });
    }
    return accounts;
  }

  /** A refusal that carries the agent's own signature is kept: people read it, and a conflict is evidence. */
  #keepRefusal(
    draft: Draft,
    rail: PaymentRail,
    { agent, payment, signature }: Pick<SignedPayment, "agent" | "signature"> & { payment: Refused },
    digest: Hex,
    refusal: BursarError,
  ): void {
    const { code, message, details, advice = null } = refusal;
    const at = this.#options.now();
    draft.refusals.push({ rail, agent, payment, signature, digest, code, message, details, advice, at });
    this.#events.refused(rail, code);
  }

  /** Signatures are deterministic (RFC 6979), so the receipt need not be stored to be the same for ever. */
  #receipt({ agent, payment, digest, settleBy, logIndex }: AcceptedPayment): SignedReceipt {
    const { key, domain, witness } = this.#options;
    witness?.note({ logIndex, digest });
    const { seq, head, line } = payment;
    const receipt: Receipt = { agent, seq, ...line, head, settleBy, logIndex };
    return { receipt, signature: key.sign(hashReceipt(domain, receipt)) };
  }
}

type Refused = Refusal["payment"];

function accountIn({ accounts }: Draft, agent: Address): Account {
  const account = accounts.get(agent);
  if (!account) throw new Error(`the mandate of ${agent} is missing from the store`);
  return account;
}

function nonceUsed({ digest, nonce }: DirectPayment, earlier: DirectPayment): BursarError {
  return new BursarError(
    "nonce-used",
    `The nonce ${nonce} was already signed for ${earlier.amount} to ${earlier.payee}.`,
    { value: digest, limit: earlier.digest },
    "Never sign two payments with one nonce: take a fresh random one.",
  );
}

const REVOCATIONS = "revocations";

/**
 * The tail of a ledger, from its last payments: the last full page ends among them, if there is one. Where the chain has
 * settled whole pages that the books do not know, it is the chain's.
 */
function tailOf(start: Position, { settled }: MandateRecord, payments: readonly AcceptedPayment[]): LedgerTail {
  const last = payments.at(-1);
  const isBehind = settled.seq > (last?.payment.seq ?? 0n);
  if (isBehind && offsetOf(settled.seq) === 0n) return { position: pageStart(settled), salt: null };
  if (!last) return { position: start, salt: null };
  const { seq, spent } = last.payment;
  const open = Number(offsetOf(seq));
  const page = open === 0 ? [] : payments.slice(-open);
  const isSettledPage = seq - offsetOf(seq) === settled.seq - offsetOf(settled.seq);
  const base = isSettledPage ? headHex(settled.base) : (payments.at(-1 - open)?.payment.head ?? start.base);
  const lines = page.map(({ payment }) => payment.line);
  return { position: { seq, spent, base, lines }, salt: open === 0 ? null : last.salt };
}

const pageStart = ({ base, seq, spent }: MandateRecord["settled"]): LedgerTail["position"] => ({
  ...{ seq, spent, base: headHex(base), lines: [] },
});

/**
 * Where a ledger goes on of which the chain has settled more than the books know: at the page in which the chain stands. The
 * total before it is the payment's own word, which the chain's total confirms where it stands.
 */
function pageStartIn({ settled }: MandateRecord, { seq, spent, line }: Payment): LedgerTail | null {
  const before = settled.seq - offsetOf(settled.seq);
  if (before === 0n || before === settled.seq || seq !== before + 1n) return null;
  return { position: pageStart({ base: settled.base, seq: before, spent: spent - line.amount }), salt: null };
}

/** @throws BursarError `books-behind` where the chain has settled payments that the books do not know. */
function expectUpToChain({ mandate, settled }: MandateRecord, { position }: LedgerTail): void {
  if (settled.seq > position.seq) throw booksBehind(mandate.agent, settled.seq, position.seq);
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

function sequenceTaken(seq: bigint, digest: Hex, taken: Pick<AcceptedPayment, "payment" | "digest">): BursarError {
  const { amount, payee } = taken.payment.line;
  return new BursarError(
    "sequence-taken",
    `Payment ${seq} was already signed for ${amount} to ${payee}.`,
    { value: digest, limit: taken.digest },
    "Never sign two payments with one number: read the ledger's tail and use the next one.",
  );
}

function numberedTwice(agent: Address, { seq, logIndex }: Receipt, earlier: AcceptedPayment): BursarError {
  return new BursarError(
    "books-conflict",
    `Payment ${seq} of ${agent} was given receipt ${logIndex}, and receipt ${earlier.logIndex} after that was given up.`,
    { value: earlier.logIndex, limit: logIndex },
  );
}

function otherSettled(agent: Address, { seq, spent }: Payment, settled: MandateRecord["settled"]): BursarError {
  return new BursarError(
    "books-conflict",
    `The chain has settled ${settled.spent} units up to payment ${seq} of ${agent}; this one says ${spent}.`,
    { value: spent, limit: settled.spent },
  );
}

function booksBehind(agent: Address, onChain: bigint, known: bigint): BursarError {
  return new BursarError(
    "books-behind",
    `The chain knows payments of ${agent} that this processor's books do not.`,
    { value: known, limit: onChain },
    "Hand back its receipts (POST /receipts), or ask the owner for a new mandate.",
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
