import {
  addressSchema,
  amountSchema,
  bytes32Schema,
  domainSchema,
  parseWire,
  signedPaymentSchema,
  signedReceiptSchema,
  toWire,
  uint64Schema,
  type Address,
  type Domain,
  type Hex,
  type PaidRequest,
} from "@bursar/protocol";
import { z } from "zod";

/** Seconds after a receipt's settle-by in which it still buys, if the chain shows its payment settled. */
export const LATE_WINDOW = 86_400n;

/** A payment and its receipt that paid for a request. */
export interface UsedReceipt {
  readonly paid: PaidRequest;
  readonly processor: Address;
  readonly method: string;
  readonly url: string;
  /** Unix seconds. */
  readonly usedAt: bigint;
  /** Whether the chain showed the payment settled when it was used. */
  readonly settled: boolean;
}

/** What names a payment: no two receipts on one number buy twice, whatever they say. */
export interface ReceiptKey {
  readonly domain: Domain;
  readonly agent: Address;
  readonly seq: bigint;
}

/** The most that may be unsettled once the receipt is used, in units. */
export interface ExposureLimits {
  readonly processor: bigint;
  readonly mandate: bigint;
}

/** What became of an attempt to use a receipt. */
export type Marked =
  | { readonly kind: "marked"; /** Units unsettled with the processor, this one included. */ readonly exposure: bigint }
  | { readonly kind: "used" }
  | {
      readonly kind: "exceeded";
      readonly scope: keyof ExposureLimits;
      /** Units that would be unsettled. */
      readonly value: bigint;
      readonly limit: bigint;
    };

/** A payment back to the owner of the mandate that paid. */
export interface RefundRecord {
  readonly payee: Address;
  readonly amount: bigint;
  /** See {@link refundRef}. */
  readonly ref: Hex;
  /** Number of the refund in the ledger of who pays it; null while its outcome is not known. */
  readonly seq: bigint | null;
}

/** All that a store keeps of a payment: the payee's evidence. */
export interface ReceiptRecord extends UsedReceipt {
  /** The handler failed and the receipt may be used again. */
  readonly released: boolean;
  readonly refund: RefundRecord | null;
}

/**
 * Where a payee keeps its receipts. Replicas of a service share one store. {@link ReceiptStore.mark} is the one place
 * where a receipt becomes used: atomic over all replicas, and durable before it answers.
 */
export interface ReceiptStore {
  /**
   * Uses a receipt, unless a receipt with the same {@link ReceiptKey} is used or a limit would be exceeded; a settled
   * one counts against no limit. A receipt that was released can be used again, with the same payment only.
   */
  mark(used: UsedReceipt, limits: ExposureLimits): Promise<Marked>;
  /** Gives a used receipt back: the handler failed, and sent nothing. It still counts as unsettled. */
  release(key: ReceiptKey): Promise<void>;
  /** Units unsettled with a processor. */
  exposure(domain: Domain, processor: Address): Promise<bigint>;
  /** Agents with unsettled payments through a processor, at most `limit`. */
  unsettled(domain: Domain, processor: Address, limit: number): Promise<readonly Address[]>;
  /** The chain shows the agent's payments settled up to and with number `seq`. */
  settled(domain: Domain, agent: Address, seq: bigint): Promise<void>;
  /** The record of a payment, or null. */
  find(key: ReceiptKey): Promise<ReceiptRecord | null>;
  /**
   * Writes a refund down, atomically, if its payment has none.
   *
   * @returns the refund that is written down already, or null.
   * @throws BursarError `not-found` for a payment that is not in the store.
   */
  beginRefund(key: ReceiptKey, refund: RefundRecord): Promise<RefundRecord | null>;
  /** Completes a refund, or with null forgets it: it was not paid. */
  endRefund(key: ReceiptKey, refund: RefundRecord | null): Promise<void>;
  /** Every record, as lines of JSON, each with its newline. */
  export(): AsyncIterable<string>;
}

export const keyOf = ({ domain, payment: { agent, payment } }: PaidRequest): ReceiptKey => ({
  domain,
  agent,
  seq: payment.seq,
});

/** Where units count together: one contract on one chain. */
export const railName = ({ chainId, registry }: Domain): string => `${chainId}:${registry.toLowerCase()}`;

/** A number at a fixed width, so that text sorts as numbers do. */
export const seqText = (seq: bigint): string => seq.toString().padStart(20, "0");

/** Until when a receipt has to be remembered, in Unix seconds. */
export const rememberUntil = ({ receipt }: PaidRequest): bigint => receipt.receipt.settleBy + LATE_WINDOW;

const refundSchema = z.strictObject({
  payee: addressSchema,
  amount: amountSchema,
  ref: bytes32Schema,
  seq: uint64Schema.nullable(),
});

const recordSchema = z.strictObject({
  paid: z.strictObject({ domain: domainSchema, payment: signedPaymentSchema, receipt: signedReceiptSchema }),
  processor: addressSchema,
  method: z.string(),
  url: z.string(),
  usedAt: uint64Schema,
  settled: z.boolean(),
  released: z.boolean(),
  refund: refundSchema.nullable(),
});

/** A record as a line of JSON without newline. */
export function writeRecord(record: ReceiptRecord): string {
  return JSON.stringify(toWire(record));
}

/** A line of {@link ReceiptStore.export}. @throws BursarError `malformed-input` */
export function readRecord(line: string): ReceiptRecord {
  return parseWire(recordSchema, JSON.parse(line));
}

/** A refund as JSON. */
export function writeRefund(refund: RefundRecord | null): string {
  return JSON.stringify(toWire(refund));
}

export function readRefund(text: string): RefundRecord | null {
  return parseWire(refundSchema.nullable(), JSON.parse(text));
}
