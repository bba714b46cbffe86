/** A promise of docs/security.md that did not hold. */
export class PromiseBroken extends Error {
  /** Number and name, as in `P7 receipt_paid_or_sp_slashed`. */
  readonly promise: string;

  constructor(promise: string, what: string) {
    super(`${promise}: ${what}`);
    this.name = "PromiseBroken";
    this.promise = promise;
  }
}

/** @throws PromiseBroken unless it holds. */
export function hold(promise: string, holds: boolean, what: () => string): asserts holds {
  if (!holds) throw new PromiseBroken(promise, what());
}

/** @throws PromiseBroken unless both are the same. */
export function same(promise: string, what: string, found: unknown, expected: unknown): void {
  hold(promise, found === expected, () => `${what} is ${String(found)}, not ${String(expected)}`);
}
