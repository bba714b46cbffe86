import {
  domainSchema,
  parseWire,
  signedPaymentSchema,
  signedReceiptSchema,
  toWire,
  type PaidRequest,
} from "@bursar/protocol";
import { z } from "zod";

/**
 * Where an agent keeps what it paid and the receipts for it, until it is settled: evidence, and what a processor asks back
 * whose books were lost. One book for each agent, in the order of its ledger.
 */
export interface ReceiptBook {
  add(paid: PaidRequest): Promise<void>;
  all(): Promise<PaidRequest[]>;
  /** What came before payment `seq` is needed no more. */
  forget(seq: bigint): Promise<void>;
}

/** Payments that are kept in memory. */
const MOST = 10_000;

/** A book that is gone with the process. */
export function memoryReceipts(): ReceiptBook {
  let kept: PaidRequest[] = [];
  return {
    add: (paid) => {
      if (kept.length >= MOST) kept.shift();
      kept.push(paid);
      return Promise.resolve();
    },
    all: () => Promise.resolve([...kept]),
    forget: (seq) => {
      kept = kept.filter(({ payment }) => payment.payment.seq >= seq);
      return Promise.resolve();
    },
  };
}

const paidSchema = z.strictObject({
  domain: domainSchema,
  payment: signedPaymentSchema,
  receipt: signedReceiptSchema,
});

/** One line of JSON. */
export const writePaid = (paid: PaidRequest): string => `${JSON.stringify(toWire(paid))}\n`;

/** Reads lines of JSON; a last line that was cut off is left out. @throws BursarError `malformed-input` */
export function readPaid(text: string): PaidRequest[] {
  const lines = text.split("\n").slice(0, -1);
  return lines.map((line) => parseWire(paidSchema, JSON.parse(line)));
}
