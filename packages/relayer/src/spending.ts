import type { Terms } from "@bursar/protocol";

const MINUTE = 60n;
const DAY = 86_400n;

/** Something that was paid: when, in Unix seconds, and how many units. */
export interface Spend {
  readonly at: bigint;
  readonly amount: bigint;
}

/** What the limits of the terms leave at a moment; null where the terms set none. */
export interface Headroom {
  /** Units in this 24 hours. */
  readonly day: bigint | null;
  /** Payments in this minute. */
  readonly minute: bigint | null;
  /** Units in this period of a recurring mandate; null too before the first. */
  readonly period: bigint | null;
  /** Whether the first period has begun. */
  readonly started: boolean;
}

/**
 * What one mandate spent lately, as far as its terms limit it: at most 1,441 minutes and 60 seconds are kept. A day is
 * counted in whole minutes, so a payment may count up to a minute longer than 24 hours, never shorter.
 */
export class Spending {
  readonly #limits: NonNullable<Terms["limits"]>;
  readonly #recurring: Terms["recurring"];
  readonly #unitsByMinute = new Map<bigint, bigint>();
  readonly #paymentsBySecond = new Map<bigint, bigint>();
  #period = { index: -1n, units: 0n };

  constructor(terms: Terms) {
    this.#limits = terms.limits ?? {};
    this.#recurring = terms.recurring;
  }

  /** From when on past payments count at `now`; null when none does. */
  static since({ limits, recurring }: Terms, now: bigint): bigint | null {
    const starts = [
      ...(limits?.unitsPerDay === undefined ? [] : [now - DAY - MINUTE]),
      ...(limits?.paymentsPerMinute === undefined ? [] : [now - MINUTE]),
      ...(recurring === undefined ? [] : [periodStart(recurring, now)]),
    ];
    return starts.length === 0 ? null : starts.reduce((least, start) => (start < least ? start : least));
  }

  /** Counts a payment; they come in the order of their times. */
  add({ at, amount }: Spend): void {
    if (this.#limits.unitsPerDay !== undefined) {
      const minute = at / MINUTE;
      this.#unitsByMinute.set(minute, (this.#unitsByMinute.get(minute) ?? 0n) + amount);
    }
    if (this.#limits.paymentsPerMinute !== undefined) {
      this.#paymentsBySecond.set(at, (this.#paymentsBySecond.get(at) ?? 0n) + 1n);
    }
    if (this.#recurring !== undefined) {
      const index = periodOf(this.#recurring, at);
      if (index !== this.#period.index) this.#period = { index, units: 0n };
      this.#period.units += amount;
    }
    this.#forget(at);
  }

  headroom(now: bigint): Headroom {
    const { unitsPerDay, paymentsPerMinute } = this.#limits;
    const recurring = this.#recurring;
    return {
      day: unitsPerDay === undefined ? null : BigInt(unitsPerDay) - sumAfter(this.#unitsByMinute, oldestMinute(now)),
      minute:
        paymentsPerMinute === undefined
          ? null
          : BigInt(paymentsPerMinute) - sumAfter(this.#paymentsBySecond, now - MINUTE),
      period: recurring === undefined ? null : BigInt(recurring.units) - this.#spentIn(periodOf(recurring, now)),
      started: recurring === undefined || now >= BigInt(recurring.startsAt),
    };
  }

  /** A period that has passed, or has not come, holds nothing. */
  #spentIn(index: bigint): bigint {
    return index === this.#period.index ? this.#period.units : 0n;
  }

  /** Entries are in the order of time, so the old ones come first. */
  #forget(now: bigint): void {
    for (const minute of this.#unitsByMinute.keys()) {
      if (minute > oldestMinute(now)) break;
      this.#unitsByMinute.delete(minute);
    }
    for (const second of this.#paymentsBySecond.keys()) {
      if (second > now - MINUTE) break;
      this.#paymentsBySecond.delete(second);
    }
  }
}

type Recurring = NonNullable<Terms["recurring"]>;

/** The latest minute that lies wholly more than a day back. */
function oldestMinute(now: bigint): bigint {
  return (now - DAY) / MINUTE - 1n;
}

function periodOf({ startsAt, seconds }: Recurring, at: bigint): bigint {
  const since = at - BigInt(startsAt);
  return since < 0n ? -1n : since / BigInt(seconds);
}

function periodStart(recurring: Recurring, at: bigint): bigint {
  const index = periodOf(recurring, at);
  return BigInt(recurring.startsAt) + (index < 0n ? 0n : index) * BigInt(recurring.seconds);
}

function sumAfter(counts: ReadonlyMap<bigint, bigint>, last: bigint): bigint {
  let sum = 0n;
  for (const [at, count] of counts) if (at > last) sum += count;
  return sum;
}
