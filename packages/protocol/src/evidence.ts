import canonicalize from "canonicalize";
import { keccak256, toUtf8Bytes } from "ethers";
import { z } from "zod";
import { holdOf } from "./dispute.ts";
import { BursarError, type ErrorCode } from "./errors.ts";
import {
  addressSchema,
  domainSchema,
  parseWire,
  paymentSchema,
  receiptSchema,
  signatureSchema,
  signedDeliverySchema,
  signedQuoteSchema,
} from "./schemas.ts";
import { recoverStrict, verifySignature } from "./signature.ts";
import { disputeTermsSchema } from "./terms.ts";
import { hashDelivery, hashPayment, hashQuote, hashReceipt } from "./typed-data.ts";
import type { Address, Hex } from "./types.ts";

const MAX_STATEMENT = 10_000;

/** A payment with both its signatures, and nothing that only its processor needs. */
const purchaseSchema = z.strictObject({
  payment: paymentSchema,
  signature: signatureSchema,
  receipt: receiptSchema,
  receiptSignature: signatureSchema,
});

/**
 * What one side of a dispute shows: a JSON file whose hash stands on chain. The file itself goes to the other side and,
 * if the dispute is escalated, to the arbitrator, over any channel.
 */
export const evidenceSchema = z.strictObject({
  version: z.literal(1),
  domain: domainSchema,
  agent: addressSchema,
  /** The payee's own account, not the hold. */
  payee: addressSchema,
  /** Which hold the receipt pays: without it, the payee's own account. */
  hold: disputeTermsSchema.optional(),
  purchase: purchaseSchema,
  /** For a double charge: the payment that came before. */
  earlier: purchaseSchema.optional(),
  quote: signedQuoteSchema.optional(),
  delivery: signedDeliverySchema.optional(),
  /** In plain words, for the arbitrator. */
  statement: z
    .string()
    .max(MAX_STATEMENT)
    .refine((text) => text.isWellFormed(), { error: "not well-formed Unicode" })
    .optional(),
});

/** Evidence as it goes over the wire, amounts as decimal strings. */
export type Evidence = z.input<typeof evidenceSchema>;

/** The RFC 8785 canonical JSON of evidence, exactly as given. @throws malformed-input */
export function canonicalEvidence(evidence: Evidence): string {
  parseWire(evidenceSchema, evidence);
  const text = canonicalize(evidence);
  if (text === undefined) throw new BursarError("malformed-input", "The evidence has no JSON form");
  return text;
}

/** keccak256 of the UTF-8 bytes of {@link canonicalEvidence}: the `evidenceHash` of a dispute. @throws malformed-input */
export function hashEvidence(evidence: Evidence): Hex {
  return keccak256(toUtf8Bytes(canonicalEvidence(evidence))) as Hex;
}

/** What signatures and numbers say of evidence. */
export interface VerifiedEvidence {
  /** See {@link hashEvidence}. */
  readonly hash: Hex;
  readonly agent: Address;
  readonly payee: Address;
  /** What the receipt pays: a hold of the payee, or its own account. */
  readonly account: Address;
  readonly seq: bigint;
  readonly settleBy: bigint;
  /** Who signed the receipts: whether it signs the processor's, the chain knows. */
  readonly receiptKeys: readonly Address[];
}

/**
 * Checks what can be checked of evidence without a chain: every signature, and that all of it is about one purchase. That
 * it was settled, and that the receipt's key is the processor's, the chain knows.
 *
 * @throws malformed-input, payment-mismatch, receipt-mismatch, receipt-invalid, quote-mismatch, signature-*
 */
export function verifyEvidence(evidence: Evidence): VerifiedEvidence {
  const read = parseWire(evidenceSchema, evidence);
  const { agent, payee, hold, purchase, earlier } = read;
  const { seq, settleBy, ref } = purchase.receipt;
  const account = hold === undefined ? payee : holdOf(hold.module, agent, payee, BigInt(hold.holdback));
  const receiptKeys = [purchase, ...(earlier === undefined ? [] : [earlier])].map((one) =>
    verifyPurchase(one, read, account),
  );
  if (earlier !== undefined) {
    same("payment-mismatch", "ref of the earlier payment", earlier.receipt.ref, ref);
    const before = earlier.receipt.seq < seq;
    if (!before) throw differs("payment-mismatch", "number of the earlier payment", earlier.receipt.seq, seq - 1n);
  }
  verifyOffers(read, account);
  return { hash: hashEvidence(evidence), agent, payee, account, seq, settleBy, receiptKeys };
}

type ReadEvidence = z.output<typeof evidenceSchema>;

/** @returns who signed the receipt. */
function verifyPurchase(one: z.output<typeof purchaseSchema>, of: ReadEvidence, account: Address): Address {
  const { payment, receipt } = one;
  same("payment-mismatch", "payee", payment.line.payee, account);
  same("receipt-mismatch", "agent", receipt.agent, of.agent);
  same("receipt-mismatch", "seq", receipt.seq, payment.seq);
  same("receipt-mismatch", "payee", receipt.payee, payment.line.payee);
  same("receipt-mismatch", "amount", receipt.amount, payment.line.amount);
  same("receipt-mismatch", "ref", receipt.ref, payment.line.ref);
  same("receipt-mismatch", "head", receipt.head, payment.head);
  verifySignature(hashPayment(of.domain, payment), one.signature, of.agent);
  try {
    return recoverStrict(hashReceipt(of.domain, receipt), one.receiptSignature);
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    throw new BursarError("receipt-invalid", error.message, { ...error.details, reason: error.code });
  }
}

/** What the payee signed, before and after. */
function verifyOffers({ domain, agent, payee, purchase, quote, delivery }: ReadEvidence, account: Address): void {
  const { seq, ref } = purchase.receipt;
  if (quote !== undefined) {
    const offered = quote.quote.payee;
    if (offered !== payee) same("quote-mismatch", "payee of the quote", offered, account);
    same("quote-mismatch", "ref of the quote", quote.quote.ref, ref);
    verifySignature(hashQuote(domain, quote.quote), quote.signature, payee);
  }
  if (delivery !== undefined) {
    same("payment-mismatch", "agent of the delivery", delivery.delivery.agent, agent);
    same("payment-mismatch", "seq of the delivery", delivery.delivery.seq, seq);
    same("payment-mismatch", "ref of the delivery", delivery.delivery.ref, ref);
    verifySignature(hashDelivery(domain, delivery.delivery), delivery.signature, payee);
  }
}

function same(code: ErrorCode, field: string, value: string | bigint, limit: string | bigint): void {
  if (BigInt(value) !== BigInt(limit)) throw differs(code, field, value, limit);
}

function differs(code: ErrorCode, field: string, value: string | bigint, limit: string | bigint): BursarError {
  return new BursarError(code, `The ${field} is ${value}, not ${limit}`, { field, value, limit });
}
