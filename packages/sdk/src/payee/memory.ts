import { BursarError, type Address, type Domain } from "@bursar/protocol";

import {
  keyOf,
  railName,
  rememberUntil,
  seqText,
  writeRecord,
  type ExposureLimits,
  type Marked,
  type ReceiptKey,
  type ReceiptRecord,
  type ReceiptStore,
  type RefundRecord,
  type UsedReceipt,
} from "./receipts.ts";

/** Receipts between two sweeps. */
const SWEEP_EVERY = 1_000;

/**
 * Receipts in memory, for tests and development: a restart forgets them, and with them the evidence. Settled receipts
 * are dropped once nobody would take them any more; unsettled ones stay, and the exposure limit bounds their number.
 */
export class MemoryReceipts implements ReceiptStore {
  readonly #records = new Map<string, ReceiptRecord>();
  readonly #unsettled = new Map<string, Map<Address, bigint>>();
  readonly #most: number;
  readonly #now: () => bigint;
  #sinceSweep = 0;

  /** @param options - `most` receipts at a time, a million unless given; `now` in Unix seconds. */
  constructor(options: { most?: number; now?: () => bigint } = {}) {
    this.#most = options.most ?? 1_000_000;
    this.#now = options.now ?? (() => BigInt(Math.floor(Date.now() / 1_000)));
  }

  /** Receipts in memory. */
  get size(): number {
    return this.#records.size;
  }

  /** @throws BursarError `store-unavailable` when it is full. */
  mark(used: UsedReceipt, limits: ExposureLimits): Promise<Marked> {
    return settle(() => this.#mark(used, limits));
  }

  release(key: ReceiptKey): Promise<void> {
    this.#change(key, { released: true });
    return Promise.resolve();
  }

  exposure(domain: Domain, processor: Address): Promise<bigint> {
    return Promise.resolve(total(this.#open(domain, processor)));
  }

  unsettled(domain: Domain, processor: Address, limit: number): Promise<readonly Address[]> {
    return Promise.resolve([...this.#open(domain, processor).keys()].slice(0, limit));
  }

  settled(domain: Domain, agent: Address, seq: bigint): Promise<void> {
    for (const record of this.#records.values()) {
      const key = keyOf(record.paid);
      const same = key.agent === agent && railName(key.domain) === railName(domain);
      if (!same || record.settled || key.seq > seq) continue;
      const open = this.#open(domain, record.processor);
      const left = (open.get(agent) ?? 0n) - record.paid.payment.payment.line.amount;
      if (left > 0n) open.set(agent, left);
      else open.delete(agent);
      this.#change(key, { settled: true });
    }
    return Promise.resolve();
  }

  find(key: ReceiptKey): Promise<ReceiptRecord | null> {
    return Promise.resolve(this.#records.get(text(key)) ?? null);
  }

  beginRefund(key: ReceiptKey, refund: RefundRecord): Promise<RefundRecord | null> {
    return settle(() => {
      const record = this.#records.get(text(key));
      if (record === undefined) throw unknownPayment(key);
      if (record.refund === null) this.#change(key, { refund });
      return record.refund;
    });
  }

  endRefund(key: ReceiptKey, refund: RefundRecord | null): Promise<void> {
    this.#change(key, { refund });
    return Promise.resolve();
  }

  async *export(): AsyncGenerator<string, void> {
    for (const record of this.#records.values()) yield await Promise.resolve(`${writeRecord(record)}\n`);
  }

  #mark(used: UsedReceipt, limits: ExposureLimits): Marked {
    const { paid, processor } = used;
    const { domain, agent } = keyOf(paid);
    const name = text(keyOf(paid));
    const before = this.#records.get(name);
    const open = this.#open(domain, processor);
    if (before !== undefined) {
      if (!before.released || before.paid.payment.signature !== paid.payment.signature) return { kind: "used" };
      this.#change(keyOf(paid), { released: false });
      return { kind: "marked", exposure: total(open) };
    }
    this.#makeRoom();
    const { amount } = paid.payment.payment.line;
    if (!used.settled) {
      const all = total(open) + amount;
      const own = (open.get(agent) ?? 0n) + amount;
      if (own > limits.mandate) return { kind: "exceeded", scope: "mandate", value: own, limit: limits.mandate };
      if (all > limits.processor) return { kind: "exceeded", scope: "processor", value: all, limit: limits.processor };
      open.set(agent, own);
    }
    this.#records.set(name, { ...used, released: false, refund: null });
    return { kind: "marked", exposure: total(open) };
  }

  #open(domain: Domain, processor: Address): Map<Address, bigint> {
    const name = `${railName(domain)}:${processor}`;
    const open = this.#unsettled.get(name) ?? new Map<Address, bigint>();
    this.#unsettled.set(name, open);
    return open;
  }

  #change(key: ReceiptKey, changes: Partial<ReceiptRecord>): void {
    const record = this.#records.get(text(key));
    if (record !== undefined) this.#records.set(text(key), { ...record, ...changes });
  }

  #makeRoom(): void {
    this.#sinceSweep += 1;
    if (this.#sinceSweep < SWEEP_EVERY && this.#records.size < this.#most) return;
    this.#sinceSweep = 0;
    const now = this.#now();
    for (const [name, record] of this.#records) {
      if (record.settled && rememberUntil(record.paid) <= now) this.#records.delete(name);
    }
    if (this.#records.size < this.#most) return;
    throw new BursarError(
      "store-unavailable",
      `The memory holds ${this.#records.size} receipts that may not be forgotten yet.`,
      { value: this.#records.size, limit: this.#most },
      "Use the SQLite or the Redis store.",
    );
  }
}

/** The refusal of a refund for a payment that was never used here. */
export function unknownPayment({ agent, seq }: ReceiptKey): BursarError {
  return new BursarError(
    "not-found",
    `Payment ${seq} of ${agent} is not in the store.`,
    { value: seq },
    "Only what was paid here can be refunded.",
  );
}

const text = ({ domain, agent, seq }: ReceiptKey): string => `${railName(domain)}:${agent}:${seqText(seq)}`;

const total = (open: ReadonlyMap<Address, bigint>): bigint => {
  let sum = 0n;
  for (const units of open.values()) sum += units;
  return sum;
};

/** What `work` gives or throws, as a promise. */
function settle<T>(work: () => T): Promise<T> {
  return new Promise((resolve) => resolve(work()));
}
