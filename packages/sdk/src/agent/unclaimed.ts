import type { Line, PaidRequest } from "@bursar/protocol";

/** Purchases that are kept in mind. */
const MOST = 1_000;

/** Payments with a receipt that nobody has had the good of: the same purchase takes them before it pays again. */
export class Unclaimed {
  readonly #paid = new Map<string, readonly PaidRequest[]>();

  add(paid: PaidRequest): void {
    const key = lineKey(paid.payment.payment.line);
    this.#paid.set(key, [...(this.#paid.get(key) ?? []), paid]);
    const [oldest] = this.#paid.keys();
    if (this.#paid.size > MOST && oldest !== undefined) this.#paid.delete(oldest);
  }

  take(line: Line): PaidRequest | undefined {
    const key = lineKey(line);
    const [first, ...others] = this.#paid.get(key) ?? [];
    if (others.length === 0) this.#paid.delete(key);
    else this.#paid.set(key, others);
    return first;
  }
}

/** Equal for equal purchases. */
export function lineKey({ payee, amount, ref }: Line): string {
  return `${amount} to ${payee} for ${ref}`.toLowerCase();
}
