import canonicalize from "canonicalize";
import { keccak256, toUtf8Bytes } from "ethers";
import { z } from "zod";
import { BursarError } from "./errors.ts";
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
import type { Hex } from "./types.ts";

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
