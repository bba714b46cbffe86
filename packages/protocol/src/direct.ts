import {
  decodeBase64,
  encodeBase64,
  getAddress,
  hashMessage,
  id,
  solidityPackedKeccak256,
  toUtf8Bytes,
  toUtf8String,
  TypedDataEncoder,
  type Signer,
  type TypedDataDomain,
  type TypedDataField,
} from "ethers";
import { z } from "zod";
import { bytesToHex, keccak } from "#curve";
import { BursarError } from "./errors.ts";
import { hexToBytes, Words } from "./packing.ts";
import { addressSchema, bytes32Schema, parseWire, signatureSchema, toWire, uint256Schema } from "./schemas.ts";
import { verifySignature } from "./signature.ts";
import type { Address, Hex } from "./types.ts";
import { assertAmount } from "./units.ts";

/** Where direct payments are verified on chain: the DirectSettlement contract. */
export interface DirectDomain {
  readonly chainId: bigint;
  /** Address of DirectSettlement. */
  readonly direct: Address;
}

/** What an x402 `exact` client signs (EIP-3009). */
export interface TransferAuthorization {
  /** The mandate's agent: the session key that signs. */
  readonly from: Address;
  readonly to: Address;
  /** Base units of the mandate's token. */
  readonly value: bigint;
  /** Unix seconds, both exclusive. */
  readonly validAfter: bigint;
  readonly validBefore: bigint;
  readonly nonce: Hex;
}

export interface SignedTransfer {
  readonly authorization: TransferAuthorization;
  readonly signature: Hex;
}

/** What an AEP2 v1 client signs: its one-time `Mandate`, called debit here because a mandate is the owner's. */
export interface Debit {
  /** The mandate's agent: the session key that signs. */
  readonly owner: Address;
  readonly token: Address;
  readonly payee: Address;
  /** Base units of the token. */
  readonly amount: bigint;
  readonly nonce: bigint;
  /** Unix seconds, inclusive. */
  readonly deadline: bigint;
  readonly ref: Hex;
}

export interface SignedDebit {
  readonly mandate: Debit;
  readonly payerSig: Hex;
}

/** A payment without a proof, as the processor and the contract take it. */
export interface DirectPayment {
  kind: "exact" | "aep2";
  agent: Address;
  token: Address;
  payee: Address;
  /** Units. */
  amount: bigint;
  nonce: Hex;
  /** Unix seconds, both exclusive. */
  validAfter: bigint;
  validBefore: bigint;
  /** What is bought; zero where the form has no place for it. */
  ref: Hex;
  /** EIP-712 digest that the agent signed. */
  digest: Hex;
  signature: Hex;
}

/** The processor's promise for a debit, in the form of AEP2 v1. */
export interface DebitReceipt {
  /** The processor. */
  readonly sp: Address;
  readonly mandateDigest: Hex;
  /** Unix seconds: settled by then. */
  readonly enqueueDeadline: number;
  /** EIP-191 signature of {@link debitReceiptDigest}. */
  readonly spEnqueueSig: Hex;
}

/** Request header of AEP2 v1 with a signed debit. */
export const DEBIT_HEADER = "X-Payment-Mandate";

/** EIP-712 types of an x402 `exact` payment. */
export const TRANSFER_TYPES = {
  TransferWithAuthorization: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "validAfter", type: "uint256" },
    { name: "validBefore", type: "uint256" },
    { name: "nonce", type: "bytes32" },
  ],
} satisfies Record<string, TypedDataField[]>;

/** EIP-712 types of an AEP2 v1 debit. */
export const DEBIT_TYPES = {
  Mandate: [
    { name: "owner", type: "address" },
    { name: "token", type: "address" },
    { name: "payee", type: "address" },
    { name: "amount", type: "uint256" },
    { name: "nonce", type: "uint256" },
    { name: "deadline", type: "uint256" },
    { name: "ref", type: "bytes32" },
  ],
} satisfies Record<string, TypedDataField[]>;

/** Version of both EIP-712 domains. */
export const DIRECT_VERSION = "1";
const DEBIT_NAME = "AEP2DebitWallet";
const ZERO: Hex = `0x${"00".repeat(32)}`;
const MAX_HEADER = 16_384;

/** The EIP-712 name under which transfers of a token are signed: it binds the token, and is no token's own name. */
export function directDomainName(token: Address): string {
  return `Bursar ${getAddress(token)}`;
}

/** The EIP-712 domain of x402 `exact` payments in one token. */
export function transferDomain(domain: DirectDomain, token: Address): TypedDataDomain {
  return eip712(domain, directDomainName(token));
}

/** The EIP-712 domain of AEP2 v1 debits. */
export function debitDomain(domain: DirectDomain): TypedDataDomain {
  return eip712(domain, DEBIT_NAME);
}

function eip712({ chainId, direct }: DirectDomain, name: string): TypedDataDomain {
  return { name, version: DIRECT_VERSION, chainId, verifyingContract: direct };
}

const TRANSFER_TYPE = typeHash(TRANSFER_TYPES);
const DEBIT_TYPE = typeHash(DEBIT_TYPES);

function typeHash(types: Record<string, TypedDataField[]>): Uint8Array {
  return hexToBytes(id(TypedDataEncoder.from(types).encodeType(Object.keys(types)[0]!)) as Hex);
}

/** EIP-712 digest of an x402 `exact` payment in `token`. @throws RangeError for a value that is not of its type. */
export function hashTransfer(domain: DirectDomain, token: Address, transfer: TransferAuthorization): Hex {
  const words = new Words(7)
    .word(TRANSFER_TYPE)
    .hex(transfer.from, 20)
    .hex(transfer.to, 20)
    .hex(uint256(transfer.value), 32)
    .hex(uint256(transfer.validAfter), 32)
    .hex(uint256(transfer.validBefore), 32)
    .hex(transfer.nonce, 32);
  return digestOf(domain, directDomainName(token), keccak(words.bytes));
}

/** EIP-712 digest of an AEP2 v1 debit. @throws RangeError for a value that is not of its type. */
export function hashDebit(domain: DirectDomain, debit: Debit): Hex {
  const words = new Words(8)
    .word(DEBIT_TYPE)
    .hex(debit.owner, 20)
    .hex(debit.token, 20)
    .hex(debit.payee, 20)
    .hex(uint256(debit.amount), 32)
    .hex(uint256(debit.nonce), 32)
    .hex(uint256(debit.deadline), 32)
    .hex(debit.ref, 32);
  return digestOf(domain, DEBIT_NAME, keccak(words.bytes));
}

function uint256(value: bigint): Hex {
  if (value < 0n || value >= 2n ** 256n) throw new RangeError(`${value} is not a uint256`);
  return `0x${value.toString(16).padStart(64, "0")}`;
}

/** Domain separators cost several hashes, and a processor has one contract and few tokens. */
const separators = new Map<string, Uint8Array>();

function digestOf(domain: DirectDomain, name: string, structHash: Uint8Array): Hex {
  const key = `${domain.chainId} ${domain.direct} ${name}`;
  let separator = separators.get(key);
  if (separator === undefined) {
    separator = hexToBytes(TypedDataEncoder.hashDomain(eip712(domain, name)) as Hex);
    if (separators.size >= 1_000) separators.clear();
    separators.set(key, separator);
  }
  const bytes = new Uint8Array(66);
  bytes[0] = 0x19;
  bytes[1] = 0x01;
  bytes.set(separator, 2);
  bytes.set(structHash, 34);
  return bytesToHex(keccak(bytes));
}

/** The agent's signature of an x402 `exact` payment. */
export async function signTransfer(
  signer: Signer,
  domain: DirectDomain,
  token: Address,
  transfer: TransferAuthorization,
): Promise<Hex> {
  return (await signer.signTypedData(transferDomain(domain, token), TRANSFER_TYPES, transfer)) as Hex;
}

/** The agent's signature of an AEP2 v1 debit. */
export async function signDebit(signer: Signer, domain: DirectDomain, debit: Debit): Promise<Hex> {
  return (await signer.signTypedData(debitDomain(domain), DEBIT_TYPES, debit)) as Hex;
}

/**
 * `payload` of an x402 `exact` payment with EIP-3009, as the stock client sends it: numbers are decimal strings, the
 * nonce is 32 bytes in hexadecimal.
 */
export const signedTransferSchema = z.strictObject({
  signature: signatureSchema,
  authorization: z.strictObject({
    from: addressSchema,
    to: addressSchema,
    value: uint256Schema,
    validAfter: uint256Schema,
    validBefore: uint256Schema,
    nonce: bytes32Schema,
  }),
});

/** AEP2 clients send the deadline as a JSON number, and all other numbers as decimal strings. */
const deadlineSchema = z.union([
  z
    .int()
    .nonnegative()
    .transform((seconds) => BigInt(seconds)),
  uint256Schema,
]);

/** Body of AEP2's `POST /enqueue` and content of {@link DEBIT_HEADER}. One number has one form, the deadline two. */
export const signedDebitSchema = z.strictObject({
  mandate: z.strictObject({
    owner: addressSchema,
    token: addressSchema,
    payee: addressSchema,
    amount: uint256Schema,
    nonce: uint256Schema,
    deadline: deadlineSchema,
    ref: bytes32Schema,
  }),
  payerSig: signatureSchema,
});

/** AEP2's receipt: the deadline is a JSON number of Unix seconds. */
export const debitReceiptSchema = z.strictObject({
  sp: addressSchema,
  mandateDigest: bytes32Schema,
  enqueueDeadline: z.int().nonnegative(),
  spEnqueueSig: signatureSchema,
});

/**
 * Units in base units of a token.
 *
 * @param scale - base units in one unit.
 * @throws fractional-units, and amount-zero or amount-too-large unless 1 <= units <= 2^40 − 1.
 */
export function unitsOf(baseUnits: bigint, scale: bigint): bigint {
  if (baseUnits % scale !== 0n) {
    throw new BursarError(
      "fractional-units",
      `${baseUnits} base units are not a multiple of ${scale}, one unit`,
      { value: baseUnits, limit: scale },
      `Ask for a multiple of ${scale} base units.`,
    );
  }
  assertAmount(baseUnits / scale);
  return baseUnits / scale;
}

/** The token of a mandate. */
export interface DirectToken {
  readonly token: Address;
  /** Base units in one unit. */
  readonly unitScale: bigint;
}

/**
 * An x402 `exact` payment as the processor takes it. That the signature is the agent's, the processor checks.
 *
 * @throws fractional-units, amount-zero, amount-too-large
 */
export function transferPayment(
  domain: DirectDomain,
  { token, unitScale }: DirectToken,
  { authorization, signature }: SignedTransfer,
): DirectPayment {
  const { from, to, value, validAfter, validBefore, nonce } = authorization;
  return {
    kind: "exact",
    agent: from,
    token,
    payee: to,
    amount: unitsOf(value, unitScale),
    nonce,
    validAfter,
    validBefore,
    ref: ZERO,
    digest: hashTransfer(domain, token, authorization),
    signature,
  };
}

/**
 * An AEP2 v1 debit as the processor takes it. That the token is the mandate's and the signature the agent's, the
 * processor checks.
 *
 * @throws fractional-units, amount-zero, amount-too-large
 */
export function debitPayment(
  domain: DirectDomain,
  unitScale: bigint,
  { mandate, payerSig }: SignedDebit,
): DirectPayment {
  const { owner, token, payee, amount, nonce, deadline, ref } = mandate;
  return {
    kind: "aep2",
    agent: owner,
    token,
    payee,
    amount: unitsOf(amount, unitScale),
    nonce: uint256(nonce),
    validAfter: 0n,
    validBefore: deadline + 1n,
    ref,
    digest: hashDebit(domain, mandate),
    signature: payerSig,
  };
}

/**
 * What AEP2's processor signs for a receipt: the EIP-191 digest of the 32 bytes
 * keccak256(abi.encodePacked(bytes32 mandateDigest, uint256 enqueueDeadline)).
 */
export function debitReceiptDigest(mandateDigest: Hex, enqueueDeadline: bigint): Hex {
  const message = solidityPackedKeccak256(["bytes32", "uint256"], [mandateDigest, enqueueDeadline]) as Hex;
  return hashMessage(hexToBytes(message)) as Hex;
}

/** Value of {@link DEBIT_HEADER}: base64 of `{mandate, payerSig}`. @throws RangeError for a deadline above 2^53 − 1. */
export function encodeDebitHeader({ mandate, payerSig }: SignedDebit): string {
  const deadline = Number(mandate.deadline);
  if (!Number.isSafeInteger(deadline)) throw new RangeError(`${mandate.deadline} is not a safe integer`);
  const wire = { mandate: { ...toWire(mandate), deadline }, payerSig };
  return encodeBase64(toUtf8Bytes(JSON.stringify(wire)));
}

/** The signed debit in {@link DEBIT_HEADER}. @throws malformed-input */
export function decodeDebitHeader(header: string): SignedDebit {
  let decoded: unknown;
  try {
    if (header.length > MAX_HEADER) throw new RangeError("too long");
    decoded = JSON.parse(toUtf8String(decodeBase64(header)));
  } catch {
    throw new BursarError("malformed-input", `${DEBIT_HEADER} is not base64 of JSON`, { value: header.slice(0, 80) });
  }
  return parseWire(signedDebitSchema, decoded);
}

/** What a payee knows for itself when it checks a {@link SignedDebit}. */
export interface DebitExpectation {
  readonly domain: DirectDomain;
  readonly token: Address;
  readonly payee: Address;
  /** The price in base units; the debit must be exactly this. */
  readonly amount: bigint;
  /** What is bought, if the payee gave its caller a reference. */
  readonly ref?: Hex;
  /** Unix seconds. */
  readonly now: bigint;
}

/**
 * A payee's check of a debit before it is enqueued: that it is for this payee, token and price, still valid, and signed
 * by its agent. It says nothing of the agent's budget: only the processor's receipt does, see {@link verifyDebitReceipt}.
 *
 * @returns the digest that the receipt will name.
 * @throws wrong-token, payment-mismatch, authorization-expired, signature-*
 */
export function verifyDebitMandate({ mandate, payerSig }: SignedDebit, expected: DebitExpectation): Hex {
  same("wrong-token", "token", mandate.token, expected.token);
  same("payment-mismatch", "payee", mandate.payee, expected.payee);
  same("payment-mismatch", "amount", mandate.amount, expected.amount);
  if (expected.ref !== undefined) same("payment-mismatch", "ref", mandate.ref, expected.ref);
  if (mandate.deadline < expected.now) {
    throw new BursarError("authorization-expired", `The debit ended at ${mandate.deadline}`, {
      value: expected.now,
      limit: mandate.deadline,
    });
  }
  const digest = hashDebit(expected.domain, mandate);
  verifySignature(digest, payerSig, mandate.owner);
  return digest;
}

/** What a payee expects of a {@link DebitReceipt}. */
export interface DebitReceiptExpectation {
  /** The processor whose receipts the payee takes. */
  readonly processor: Address;
  readonly mandateDigest: Hex;
  /** Unix seconds. */
  readonly now: bigint;
  /** The latest deadline that is acceptable, in seconds from now; 24 h unless given. */
  readonly maxSettleIn?: bigint;
}

/**
 * A payee's check of the processor's receipt for a debit: nothing is served without it.
 *
 * @throws receipt-invalid, receipt-mismatch, receipt-expired, receipt-too-long
 */
export function verifyDebitReceipt(receipt: DebitReceipt, expected: DebitReceiptExpectation): void {
  same("receipt-mismatch", "mandateDigest", receipt.mandateDigest, expected.mandateDigest);
  same("receipt-invalid", "sp", receipt.sp, expected.processor);
  const deadline = BigInt(receipt.enqueueDeadline);
  const latest = expected.now + (expected.maxSettleIn ?? 86_400n);
  if (deadline <= expected.now) {
    throw new BursarError("receipt-expired", "The receipt's deadline is past", {
      value: deadline,
      limit: expected.now,
    });
  }
  if (deadline > latest) {
    throw new BursarError("receipt-too-long", "The receipt promises settlement too late", {
      value: deadline,
      limit: latest,
    });
  }
  try {
    verifySignature(debitReceiptDigest(receipt.mandateDigest, deadline), receipt.spEnqueueSig, expected.processor);
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    throw new BursarError("receipt-invalid", error.message, { ...error.details, reason: error.code });
  }
}

function same(
  code: "wrong-token" | "payment-mismatch" | "receipt-mismatch" | "receipt-invalid",
  field: string,
  value: string | bigint,
  limit: string | bigint,
): void {
  if (BigInt(value) === BigInt(limit)) return;
  throw new BursarError(code, `The ${field} is ${value}, not ${limit}`, { field, value, limit });
}
