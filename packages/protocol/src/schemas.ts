import { getAddress, ZeroAddress } from "ethers";
import { z } from "zod";
import { BursarError } from "./errors.ts";
import { isField } from "./field.ts";
import type { Address, Hex } from "./types.ts";
import { DECIMAL, MAX_AMOUNT, MAX_HOLDBACK, MAX_TOTAL } from "./units.ts";

/** A canonical decimal string between `min` and `max`, as a bigint. */
export function uintSchema(max: bigint, min = 0n) {
  return z
    .string()
    .regex(DECIMAL, "not a canonical decimal string")
    .transform(BigInt)
    .refine((value) => value >= min && value <= max, { error: `not between ${min} and ${max}` });
}

export const uint64Schema = uintSchema(MAX_TOTAL);
export const uint256Schema = uintSchema(2n ** 256n - 1n);
/** The amount of a payment: 1 … 2^40−1 units. */
export const amountSchema = uintSchema(MAX_AMOUNT, 1n);

/**
 * An address but zero: all lower case, all upper case (`0X` included) or EIP-55, read into EIP-55. Mixed case with a
 * wrong checksum is refused.
 */
export const addressSchema = z
  .string()
  .regex(/^(?:0x[0-9a-fA-F]{40}|0X[0-9A-F]{40})$/, "not an address")
  .transform((text, context): Address => {
    const digits = text.slice(2);
    const checksummed = checksum(digits.toLowerCase());
    const oneCase = digits === digits.toLowerCase() || digits === digits.toUpperCase();
    if (!oneCase && `0x${digits}` !== checksummed) context.addIssue("wrong EIP-55 checksum");
    if (checksummed === ZeroAddress) context.addIssue("the zero address");
    return checksummed;
  });

/** EIP-55 costs a hash, and the same few addresses come again and again. */
const checksums = new Map<string, Address>();

function checksum(digits: string): Address {
  let address = checksums.get(digits);
  if (address === undefined) {
    address = getAddress(`0x${digits}`) as Address;
    if (checksums.size >= 10_000) checksums.clear();
    checksums.set(digits, address);
  }
  return address;
}

/** Hexadecimal data of a fixed length, read into lower case. */
function bytesSchema(length: number) {
  return z
    .string()
    .regex(new RegExp(`^0x[0-9a-fA-F]{${2 * length}}$`), `not ${length} bytes in hexadecimal`)
    .transform((text) => text.toLowerCase() as Hex);
}

export const bytes32Schema = bytesSchema(32);
/** A bytes32 that is a field element: heads and policy roots. */
export const fieldSchema = bytes32Schema.refine((text) => isField(BigInt(text)), {
  error: "not below the field order",
});
/** The form of a signature; {@link recoverStrict} tells whether it is a good one, with a reason of its own. */
export const signatureSchema = z
  .string()
  .max(1000)
  .regex(/^0x(?:[0-9a-fA-F]{2})*$/, "not hexadecimal data")
  .transform((text) => text.toLowerCase() as Hex);

export const domainSchema = z.strictObject({ chainId: uint256Schema, registry: addressSchema });

export const mandateSchema = z.strictObject({
  owner: addressSchema,
  agent: addressSchema,
  token: addressSchema,
  budget: uintSchema(MAX_TOTAL, 1n),
  paymentCap: amountSchema,
  validUntil: uint64Schema,
  processor: addressSchema,
  payees: z.array(addressSchema).max(8),
  policyRoot: fieldSchema,
  termsHash: bytes32Schema,
});

export const lineSchema = z.strictObject({ payee: addressSchema, amount: amountSchema, ref: bytes32Schema });

export const paymentSchema = z.strictObject({
  seq: uintSchema(MAX_TOTAL, 1n),
  spent: uintSchema(MAX_TOTAL, 1n),
  head: fieldSchema,
  line: lineSchema,
});

const nameSchema = z.string().min(1).max(253);

export const quoteSchema = z.strictObject({
  payee: addressSchema,
  amount: amountSchema,
  ref: bytes32Schema,
  host: nameSchema,
  category: nameSchema,
  expiresAt: uint64Schema,
});

export const deliverySchema = z.strictObject({
  agent: addressSchema,
  seq: uintSchema(MAX_TOTAL, 1n),
  ref: bytes32Schema,
  bodyHash: bytes32Schema,
  deliveredAt: uint64Schema,
});

export const signedDeliverySchema = z.strictObject({ delivery: deliverySchema, signature: signatureSchema });

export const signedQuoteSchema = z.strictObject({ quote: quoteSchema, signature: signatureSchema });

export const signedPaymentSchema = z.strictObject({
  agent: addressSchema,
  payment: paymentSchema,
  signature: signatureSchema,
  salt: uintSchema(2n ** 248n - 1n),
  quote: signedQuoteSchema.optional(),
  hold: z.strictObject({ payee: addressSchema, holdback: uintSchema(MAX_HOLDBACK) }).optional(),
});

export const receiptSchema = z.strictObject({
  agent: addressSchema,
  seq: uintSchema(MAX_TOTAL, 1n),
  payee: addressSchema,
  amount: amountSchema,
  ref: bytes32Schema,
  head: fieldSchema,
  settleBy: uint64Schema,
  logIndex: uint64Schema,
});

export const signedReceiptSchema = z.strictObject({ receipt: receiptSchema, signature: signatureSchema });

export const revocationSchema = z.strictObject({ agent: addressSchema, afterSeq: uint64Schema });

export const closeSchema = z.strictObject({ agent: addressSchema, seq: uint64Schema });

/**
 * What came over a wire, in the form of `schema`.
 *
 * @throws malformed-input with one detail a wrong field: its path and what is wrong with it.
 */
export function parseWire<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const details = Object.fromEntries(
    result.error.issues.map((issue) => [issue.path.join(".") || "input", issue.message]),
  );
  const summary = Object.entries(details).map(([path, message]) => `${path}: ${message}`);
  throw new BursarError("malformed-input", summary.join("; "), details);
}

/** An address in any accepted form, as EIP-55. @throws malformed-input */
export function parseAddress(text: string): Address {
  return parseWire(addressSchema, text);
}

/** `T` as it goes over the wire: each bigint a decimal string. */
export type Wire<T> = T extends bigint
  ? string
  : T extends string | number | boolean | null | undefined
    ? T
    : { [K in keyof T]: Wire<T[K]> };

/** A value as it goes over the wire: each bigint in it a canonical decimal string, the rest as it is. */
export function toWire<T>(value: T): Wire<T> {
  return wireOf(value) as Wire<T>;
}

function wireOf(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return value.map(wireOf);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, wireOf(item)]));
  }
  return value;
}
