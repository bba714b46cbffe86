import { offsetOf, PAGE_LINES, type Address } from "@bursar/protocol";
import type { BatchRow } from "@bursar/prover";

/** What of a batch its gas depends on; its payments and its circuit do not matter besides. */
export interface Shape {
  /** Mandates of which a page becomes full, so that their base moves. */
  readonly turning: number;
  /** Mandates of which none does. */
  readonly staying: number;
  /** Payees that were credited with the token before. */
  readonly known: number;
  /** Payees that were not. */
  readonly fresh: number;
}

/** Gas by differences between real settlements; test/relayer/cost.test.ts takes them again and holds these against them. */
export const SETTLE_GAS = {
  /** Transaction, proof, transcript, event: once. */
  batch: 285_003n,
  turning: 26_832n,
  staying: 24_000n,
  known: 6_590n,
  fresh: 23_690n,
} as const;

/** Gas of an ERC-20 transfer to a payee that holds the token: what a payment costs alone, at the least. */
export const TRANSFER_GAS = 40_873n;

/** What a chain takes in one transaction. */
export interface TransactionLimits {
  /** Of a settlement's gas. */
  readonly gas: bigint;
  /** Of its calldata. */
  readonly bytes: number;
}

/**
 * Ethereum's limits: 2^24 gas a transaction (EIP-7825), of which the outbox asks a quarter more than it estimates, and the
 * 128 KiB that nodes pass on, without the transaction's other fields.
 */
export const TRANSACTION: TransactionLimits = { gas: (2n ** 24n * 4n) / 5n, bytes: 130_000 };

/** Gas of `BatchSettlement.settle`. */
export function settlementGas(shape: Shape): bigint {
  const parts = Object.entries(shape) as [keyof Shape, number][];
  return parts.reduce<bigint>((sum, [part, count]) => sum + SETTLE_GAS[part] * BigInt(count), SETTLE_GAS.batch);
}

/** Payments from which on a batch of this shape takes less gas than a transfer for each. */
export function breakEven(shape: Shape): bigint {
  return settlementGas(shape) / TRANSFER_GAS + 1n;
}

/** @param credited - payees that hold credits of the token, or did. */
export function shapeOf(rows: readonly BatchRow[], credited: ReadonlySet<Address>): Shape {
  const payees = [...new Set(rows.flatMap(paid))];
  const turning = rows.filter(({ lines }) => lines.length >= PAGE_LINES).length;
  const known = payees.filter((payee) => credited.has(payee)).length;
  return { turning, staying: rows.length - turning, known, fresh: payees.length - known };
}

/** The payees of a row's new lines. */
const paid = ({ seq, lines }: BatchRow): Address[] => lines.slice(Number(offsetOf(seq))).map(({ payee }) => payee);

/** Rows, each as long as the transaction stays within its limits if all payees are new; earlier rows first. */
export function withinLimits(rows: readonly BatchRow[], limits: TransactionLimits): BatchRow[] {
  const payees = new Set<Address>();
  const within: BatchRow[] = [];
  for (const row of rows) {
    const offset = Number(offsetOf(row.seq));
    let end = offset;
    for (const { payee } of row.lines.slice(offset)) {
      if (!fits(within.length + 1, payees.has(payee) ? payees.size : payees.size + 1, limits)) break;
      payees.add(payee);
      ++end;
    }
    if (end > offset) within.push(cut(row, end));
  }
  return within;
}

function fits(rows: number, credits: number, limits: TransactionLimits): boolean {
  const gas = settlementGas({ turning: rows, staying: 0, known: 0, fresh: credits });
  return gas <= limits.gas && CALL_BYTES + rows * ROW_BYTES + credits * CREDIT_BYTES <= limits.bytes;
}

/** Selector, 13 words of arguments, two lengths. */
const CALL_BYTES = 4 + 32 * 15;
const ROW_BYTES = 32 * 9;
const CREDIT_BYTES = 32 * 2;

function cut(row: BatchRow, end: number): BatchRow {
  if (end === row.lines.length) return row;
  return { ...row, lines: row.lines.slice(0, end), salts: row.salts.slice(0, Math.ceil(end / PAGE_LINES)) };
}
