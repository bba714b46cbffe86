import { BursarError, type Address } from "@bursar/protocol";

export interface PayeeGateOptions {
  readonly address: Address;
  /** Asks the gate itself. @throws {@link BursarError} `chain-unavailable` */
  readonly mayBePaid: (payee: Address, token: Address) => Promise<boolean>;
  /** Unix seconds. */
  readonly now: () => bigint;
}

/** Seconds that an answer is believed. A no is short, so that a payee that was just attested need not wait. */
const YES = 60n;
const NO = 5n;
/** Answers that are kept at hand. */
const KEPT = 10_000;

interface Answer {
  readonly refusal: Promise<BursarError | null>;
  until: bigint;
}

/**
 * The identity gate of a deployment, asked before a payment for a payee is taken. Answers are kept for a while, and
 * questions that come together are asked once. What was accepted before is not asked about again.
 */
export class PayeeGate {
  readonly #options: PayeeGateOptions;
  readonly #answers = new Map<string, Answer>();

  constructor(options: PayeeGateOptions) {
    this.#options = options;
  }

  /**
   * Why a payment of `token` to `payee` is not taken: `payee-not-admitted`, or `chain-unavailable` if the gate cannot be
   * asked; null if it may be taken.
   */
  refusal(payee: Address, token: Address): Promise<BursarError | null> {
    const name = `${payee} ${token}`;
    const kept = this.#answers.get(name);
    if (kept && this.#options.now() <= kept.until) return kept.refusal;
    this.#answers.delete(name);
    if (this.#answers.size >= KEPT) this.#answers.delete(this.#answers.keys().next().value!);
    // Until the answer is there, whoever asks the same waits for it.
    const answer: Answer = { refusal: this.#ask(payee, token), until: this.#options.now() + YES };
    this.#answers.set(name, answer);
    const forget = (): void => {
      if (this.#answers.get(name) === answer) this.#answers.delete(name);
    };
    void answer.refusal.then((refusal) => {
      if (refusal?.code === "payee-not-admitted") answer.until = this.#options.now() + NO;
      else if (refusal !== null) forget();
    }, forget);
    return answer.refusal;
  }

  async #ask(payee: Address, token: Address): Promise<BursarError | null> {
    const { address, mayBePaid } = this.#options;
    try {
      if (await mayBePaid(payee, token)) return null;
    } catch (error) {
      if (error instanceof BursarError) return error;
      throw error;
    }
    return new BursarError(
      "payee-not-admitted",
      `The identity gate ${address} does not let ${payee} be paid.`,
      { value: payee, limit: address },
      "Pay another payee, or come back when this one is admitted at the gate; do not retry before.",
    );
  }
}
