import { BursarError } from "@bursar/protocol";

export interface RateOptions {
  /** Requests a second in the long run. */
  readonly perSecond: number;
  /** Requests at once. */
  readonly burst: number;
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
}

/** Those that are kept in mind. */
const KEPT = 10_000;

/** A token bucket for each caller, of whom the longest idle are forgotten. */
export class Rate {
  readonly #options: RateOptions;
  readonly #buckets = new Map<string, { tokens: number; at: number }>();

  constructor(options: RateOptions) {
    this.#options = options;
  }

  /** Counts a request. @throws BursarError `too-many-requests` */
  admit(caller: string): void {
    const { perSecond, burst, clock } = this.#options;
    const now = clock();
    const { tokens, at } = this.#buckets.get(caller) ?? { tokens: burst, at: now };
    const left = Math.min(burst, tokens + ((now - at) * perSecond) / 1_000) - 1;
    if (left < 0) {
      throw new BursarError(
        "too-many-requests",
        `More than ${perSecond} requests a second.`,
        { limit: perSecond },
        "Wait a second, then go on more slowly.",
      );
    }
    this.#buckets.delete(caller);
    if (this.#buckets.size >= KEPT) this.#buckets.delete(this.#buckets.keys().next().value!);
    this.#buckets.set(caller, { tokens: left, at: now });
  }
}
