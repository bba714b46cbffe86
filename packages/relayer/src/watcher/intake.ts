import {
  BursarError,
  hashReceipt,
  recoverStrict,
  assertCovered,
  verifyPaid,
  type Address,
  type Domain,
  type Hex,
  type PaidRequest,
} from "@bursar/protocol";
import type { MandateSnapshot, MandateSource } from "@bursar/sdk/payee";

import { claimId } from "../answers.ts";
import { reach } from "../chain.ts";
import type { WatchBook } from "./book.ts";
import type { Lookout } from "./lookout.ts";
import { readPaid, receiptedPayment } from "./receipt.ts";

export interface IntakeOptions {
  readonly domain: Domain;
  readonly book: WatchBook;
  readonly lookout: Lookout;
  readonly mandates: MandateSource;
}

/** What became of a receipt that was handed in. */
export interface Taken {
  readonly id: Hex;
  readonly agent: Address;
  readonly seq: bigint;
  /** False if it was in the book already. */
  readonly kept: boolean;
}

/** Seconds that a mandate may have been read ago: what a receipt is checked against never changes. */
const MANDATE_AGE = 3_600;

/** Takes receipts into the book: those that the contracts would take, each once. */
export class Intake {
  readonly #options: IntakeOptions;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  /**
   * Checks a payment with its receipt as the contracts would, and keeps it.
   *
   * @param entry - see {@link readPaid}.
   * @throws BursarError `malformed-input`, `wrong-chain`, `wrong-contract`, `receipt-mismatch`, `receipt-invalid`,
   * `receipt-too-long`, `receipt-expired` when its windows are over, `signature-*`, `mandate-unknown`, `above-payment-cap`,
   * `above-budget`, `payee-not-allowed`, `payee-impossible`; `opening-pending` and `chain-unavailable` are worth another
   * try.
   */
  async take(entry: unknown): Promise<Taken> {
    const { book } = this.#options;
    const paid = readPaid(entry);
    const { agent, payment } = paid.payment;
    const { seq } = payment;
    const id = claimId(agent, payment);
    const key = this.#signatures(paid);
    if (book.has(id)) return { id, agent, seq, kept: false };
    const { mandate } = await this.#mandate(paid, key);
    await this.#windows(paid);
    const { processor, token, payees } = mandate;
    return { id, agent, seq, kept: book.keep({ id, processor, token, payment: receiptedPayment(paid, payees) }) };
  }

  /** @returns the key that signed the receipt. */
  #signatures(paid: PaidRequest): Address {
    const { domain } = this.#options;
    const { payee, amount, ref } = paid.payment.payment.line;
    const { receipt, signature } = paid.receipt;
    const processor = recovered(hashReceipt(domain, receipt), signature);
    // Whether it is due is not asked here: before its settle-by it is not.
    verifyPaid(paid, { domain, payee, amount, ref, processor, now: receipt.settleBy - 1n });
    return processor;
  }

  async #mandate({ payment, receipt }: PaidRequest, key: Address): Promise<MandateSnapshot> {
    const { chain } = this.#options.lookout;
    const { agent } = payment;
    const snapshot = await this.#options.mandates.mandate(agent, MANDATE_AGE);
    if (snapshot === null)
      throw new BursarError("mandate-unknown", `No mandate of ${agent} is open.`, { value: agent });
    const { mandate } = snapshot;
    const { processor, token } = mandate;
    const { settleBy } = receipt.receipt;
    if (!(await reach(() => chain.processors.isReceiptKey(processor, key, settleBy)))) {
      throw new BursarError("receipt-invalid", `${key} signs no such receipts of ${processor}`, {
        value: key,
        limit: processor,
      });
    }
    // When it was paid is not known here: the receipt's promise tells enough, see #windows.
    assertCovered(payment, { mandate, token }, processor, 0n);
    const { payee } = payment.payment.line;
    if ([token, ...chain.contracts].some((contract) => BigInt(contract) === BigInt(payee))) {
      throw new BursarError("payee-impossible", `${payee} is a contract that collects nothing`, { value: payee });
    }
    return snapshot;
  }

  /** @throws BursarError `receipt-too-long`, `receipt-expired` */
  async #windows({ payment, receipt }: PaidRequest): Promise<void> {
    const { lookout } = this.#options;
    const [moment, windows] = await Promise.all([lookout.moment(), lookout.windows()]);
    const { endedAt, claimsUntil } = await lookout.mandate(payment.agent, moment.block);
    const { settleBy } = receipt.receipt;
    const latest = endedAt + windows.settleBy;
    if (settleBy > latest) {
      throw new BursarError("receipt-too-long", "The receipt promises settlement too long after the mandate's end", {
        value: settleBy,
        limit: latest,
      });
    }
    const until = claimsUntil + windows.cure;
    if (moment.time > until) {
      throw new BursarError("receipt-expired", "The windows to claim or challenge it are over", {
        value: moment.time,
        limit: until,
      });
    }
  }
}

function recovered(digest: Hex, signature: Hex): Address {
  try {
    return recoverStrict(digest, signature);
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    throw new BursarError("receipt-invalid", error.message, { ...error.details, reason: error.code });
  }
}
