import type { Hex } from "@bursar/protocol";

/** What callers were told of one direct payment since this process began. */
export interface Serving {
  /** Times that a payee asked whether it is good, before it served. */
  verified: number;
  /** This process saw it before its end: a payee may still wait for the outcome. */
  owed: boolean;
  /** A payee was told that it is paid. */
  told: boolean;
}

/** Payments that are kept at hand. One that is forgotten counts as told. */
const KEPT = 100_000;

/**
 * Keeps one payment from paying for two servings. The same request gets the same answer, but a payee that serves for it
 * twice asks twice whether it is good, and an x402 payee keeps no list of its own: only one of its servings is told that
 * it is paid.
 */
export class Servings {
  readonly #known = new Map<Hex, Serving>();

  /** @param open - whether the payment has no end yet. */
  of(digest: Hex, open: boolean): Serving {
    const serving = this.#known.get(digest) ?? { verified: 0, owed: false, told: false };
    serving.owed ||= open;
    if (!this.#known.has(digest)) {
      if (this.#known.size >= KEPT) this.#known.delete(this.#known.keys().next().value!);
      this.#known.set(digest, serving);
    }
    return serving;
  }
}

/** Whether somebody was, or may have been, told that the payment is paid. */
export function isTold({ told, owed }: Serving): boolean {
  return told || !owed;
}
