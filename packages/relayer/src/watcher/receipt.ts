import {
  addressSchema,
  amountSchema,
  bytes32Schema,
  decodePaymentHeader,
  domainSchema,
  fieldSchema,
  parseWire,
  receiptSchema,
  signatureSchema,
  signedPaymentSchema,
  signedReceiptSchema,
  uint64Schema,
  type Address,
  type Hex,
  type Line,
  type PaidRequest,
} from "@bursar/protocol";
import { z } from "zod";

/** A payment with both signatures, as the claims and challenges contracts read it. */
export interface ReceiptedPayment {
  readonly agent: Address;
  readonly seq: bigint;
  readonly spent: bigint;
  readonly head: Hex;
  readonly line: Line;
  readonly settleBy: bigint;
  readonly logIndex: bigint;
  readonly agentSignature: Hex;
  readonly processorSignature: Hex;
  /** The mandate's, as its owner signed them. */
  readonly payees: readonly Address[];
}

/** A receipt that is watched, and who stands behind it. */
export interface Watched {
  /** Names it in claims and challenges. */
  readonly id: Hex;
  readonly processor: Address;
  readonly token: Address;
  readonly payment: ReceiptedPayment;
}

export function receiptedPayment({ payment, receipt }: PaidRequest, payees: readonly Address[]): ReceiptedPayment {
  const { seq, spent, head, line } = payment.payment;
  const { settleBy, logIndex } = receipt.receipt;
  return {
    agent: payment.agent,
    seq,
    spent,
    head,
    line,
    settleBy,
    logIndex,
    agentSignature: payment.signature,
    processorSignature: receipt.signature,
    payees,
  };
}

/** The receipt in it, as the contracts' `Receipt` struct. */
export const receiptIn = ({ agent, seq, line, head, settleBy, logIndex }: ReceiptedPayment) => ({
  agent,
  seq,
  ...line,
  head,
  settleBy,
  logIndex,
});

const receiptedSchema = z.strictObject({
  ...receiptSchema.pick({ agent: true, seq: true, settleBy: true, logIndex: true }).shape,
  spent: uint64Schema,
  head: fieldSchema,
  line: z.strictObject({ payee: addressSchema, amount: amountSchema, ref: bytes32Schema }),
  agentSignature: signatureSchema,
  processorSignature: signatureSchema,
  payees: z.array(addressSchema),
});

/** What {@link toWire} wrote. */
export function readReceipted(json: string): ReceiptedPayment {
  return parseWire(receiptedSchema, JSON.parse(json));
}

const paidSchema = z.strictObject({
  domain: domainSchema,
  payment: signedPaymentSchema,
  receipt: signedReceiptSchema,
});

const entrySchema = z.union([paidSchema, z.object({ paid: paidSchema }).transform(({ paid }) => paid)]);

/**
 * What a payee has in its hands: a payment with its receipt, a line of the payee SDK's export with them in `paid`, or the
 * request header that brought them.
 * @throws BursarError `malformed-input`
 */
export function readPaid(entry: unknown): PaidRequest {
  if (typeof entry === "string") return decodePaymentHeader(entry);
  return parseWire(entrySchema, entry);
}
