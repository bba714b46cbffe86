import { decodeBase64, encodeBase64, id, toUtf8Bytes, toUtf8String } from "ethers";
import { z } from "zod";
import { bytesToHex, keccak } from "#curve";
import { BursarError } from "./errors.ts";
import { hexToBytes, Words } from "./packing.ts";
import { allowsPayee } from "./policy.ts";
import {
  addressSchema,
  bytes32Schema,
  domainSchema,
  parseWire,
  signedDeliverySchema,
  signedPaymentSchema,
  signedQuoteSchema,
  signedReceiptSchema,
  toWire,
  uint256Schema,
  uintSchema,
} from "./schemas.ts";
import { recoverStrict, verifySignature } from "./signature.ts";
import { hashDelivery, hashPayment, hashReceipt } from "./typed-data.ts";
import type {
  Address,
  Domain,
  Hex,
  Mandate,
  SignedDelivery,
  SignedPayment,
  SignedQuote,
  SignedReceipt,
} from "./types.ts";
import { MAX_HOLDBACK } from "./units.ts";

/** Request header with the payment (x402 v2, HTTP transport). */
export const PAYMENT_HEADER = "PAYMENT-SIGNATURE";
/** Header of a 402 answer with what is asked (x402 v2, HTTP transport). */
export const PAYMENT_REQUIRED_HEADER = "PAYMENT-REQUIRED";
/** Header of an answer with the payee's signed word that it served the payment. */
export const DELIVERY_HEADER = "BURSAR-DELIVERY";
/** The scheme under which Bursar payments stand in x402's `accepts`. */
export const PAYMENT_SCHEME = "bursar";

const REQUEST_TAG = hexToBytes(id("bursar.request") as Hex);
const MAX_HEADER = 16_384;
const MAX_SETTLE_BY = 86_400n;

/** What is bought: one HTTP request, and the quote for it if the payee gave one. */
export interface PaidRequestTarget {
  readonly method: string;
  /** Absolute, http or https; the fragment does not count. */
  readonly url: string;
  /** The body's bytes, or text in UTF-8; absent is empty. */
  readonly body?: Uint8Array | string;
  /** The payee's quote id; absent is empty. */
  readonly quote?: string;
}

/**
 * The `ref` that binds a payment to a request:
 * keccak256(abi.encode(keccak256("bursar.request"), string method, string url, keccak256(body), string quote)), the
 * method in upper case and the URL as WHATWG serialises it, without fragment.
 *
 * @throws malformed-input for a URL that is not absolute http(s) or holds credentials.
 */
export function requestRef({ method, url, body = "", quote = "" }: PaidRequestTarget): Hex {
  const target = URL.canParse(url) ? new URL(url) : null;
  if (target === null || !/^https?:$/.test(target.protocol) || target.username !== "" || target.password !== "") {
    throw new BursarError("malformed-input", "The URL is not an absolute http or https URL without credentials", {
      value: url,
    });
  }
  target.hash = "";
  const bytes = typeof body === "string" ? toUtf8Bytes(body) : body;
  const texts = [method.toUpperCase(), target.href, quote].map((text) => toUtf8Bytes(text));
  return bytesToHex(keccak(encodeRequest(texts, keccak(bytes))));
}

/** abi.encode(tag, method, url, bodyHash, quote), by hand: every payment is bound by it. */
function encodeRequest(texts: readonly Uint8Array[], bodyHash: Uint8Array): Uint8Array {
  let words = 5;
  const offsets = texts.map(({ length }) => {
    const offset = BigInt(32 * words);
    words += 1 + Math.ceil(length / 32);
    return offset;
  });
  const encoded = new Words(words).word(REQUEST_TAG).uint(offsets[0]!, 64).uint(offsets[1]!, 64);
  encoded.word(bodyHash).uint(offsets[2]!, 64);
  for (const text of texts) {
    encoded.uint(BigInt(text.length), 64);
    for (let start = 0; start < text.length; start += 32) encoded.word(text.subarray(start, start + 32));
  }
  return encoded.bytes;
}

/** A payment and its receipt, as an agent shows them to a payee. */
export interface PaidRequest {
  readonly domain: Domain;
  readonly payment: SignedPayment;
  readonly receipt: SignedReceipt;
}

/** What a payee asks for one request. */
export interface PaymentTerms {
  readonly domain: Domain;
  readonly token: Address;
  readonly payee: Address;
  /** Units. */
  readonly amount: bigint;
  /** Base units of the token in one unit, see `unitScale`; 1, as for USDC, unless given. */
  readonly unitScale?: bigint;
  readonly ref: Hex;
  readonly url: string;
  readonly description?: string;
  /** Processors whose receipts the payee takes. */
  readonly processors: readonly Address[];
  /** The payee's signed offer for this very purchase, to be sent along with the payment. */
  readonly quote?: SignedQuote;
  /** Where payments may wait for the payee, and how many seconds at most; absent, it is paid at once. */
  readonly dispute?: AcceptedHolds;
}

/** The holds that a payee takes in place of payments to itself. */
export interface AcceptedHolds {
  readonly module: Address;
  /** 0 … 604,800 seconds. */
  readonly maxHoldback: bigint;
}

const networkSchema = z
  .string()
  .regex(/^eip155:[1-9][0-9]*$/)
  .transform((network) => network.slice("eip155:".length))
  .pipe(uint256Schema);

const requirementsSchema = z.object({
  scheme: z.literal(PAYMENT_SCHEME),
  network: networkSchema,
  amount: uint256Schema,
  asset: addressSchema,
  payTo: addressSchema,
  maxTimeoutSeconds: z.number().int().positive(),
  extra: z.object({
    registry: addressSchema,
    unitScale: uintSchema(10n ** 18n, 1n),
    ref: bytes32Schema,
    processors: z.array(addressSchema).min(1).max(32),
    quote: signedQuoteSchema.optional(),
    dispute: z.object({ module: addressSchema, maxHoldback: uintSchema(MAX_HOLDBACK) }).optional(),
  }),
});

const requiredSchema = z.object({
  x402Version: z.literal(2),
  resource: z.object({ url: z.string(), description: z.string().optional() }),
  accepts: z.array(z.unknown()),
});

const paidRequestSchema = z.object({
  x402Version: z.literal(2),
  accepted: z.object({ scheme: z.literal(PAYMENT_SCHEME) }),
  payload: z.strictObject({ domain: domainSchema, payment: signedPaymentSchema, receipt: signedReceiptSchema }),
});

/**
 * Value of {@link PAYMENT_REQUIRED_HEADER}: base64 of x402 v2's `PaymentRequired`, with one entry in `accepts`. As
 * everywhere in x402 its `amount` is in base units of the token.
 */
export function encodePaymentRequired(terms: PaymentTerms): string {
  const { unitScale = 1n } = terms;
  return encodeJson({
    x402Version: 2,
    error: `${PAYMENT_HEADER} header is required`,
    resource: { url: terms.url, ...(terms.description === undefined ? {} : { description: terms.description }) },
    accepts: [
      {
        scheme: PAYMENT_SCHEME,
        network: `eip155:${terms.domain.chainId}`,
        amount: terms.amount * unitScale,
        asset: terms.token,
        payTo: terms.payee,
        maxTimeoutSeconds: 60,
        extra: {
          registry: terms.domain.registry,
          unitScale,
          ref: terms.ref,
          processors: terms.processors,
          ...(terms.quote === undefined ? {} : { quote: terms.quote }),
          ...(terms.dispute === undefined ? {} : { dispute: terms.dispute }),
        },
      },
    ],
  });
}

/**
 * What a payee asks, from {@link PAYMENT_REQUIRED_HEADER}: the first `accepts` entry with the scheme `bursar`.
 *
 * @throws malformed-input
 */
export function decodePaymentRequired(header: string): PaymentTerms {
  const required = parseWire(requiredSchema, decodeJson(header));
  const entry = required.accepts.find((accept) => (accept as { scheme?: unknown } | null)?.scheme === PAYMENT_SCHEME);
  const asked = parseWire(requirementsSchema, entry);
  const { url, description } = required.resource;
  const { registry, unitScale, ref, quote, dispute } = asked.extra;
  if (asked.amount % unitScale !== 0n) {
    throw new BursarError("malformed-input", `${asked.amount} base units are not whole units`, {
      value: asked.amount,
      limit: unitScale,
    });
  }
  return {
    domain: { chainId: asked.network, registry },
    token: asked.asset,
    payee: asked.payTo,
    amount: asked.amount / unitScale,
    unitScale,
    ref,
    url,
    ...(description === undefined ? {} : { description }),
    processors: asked.extra.processors,
    ...(quote === undefined ? {} : { quote }),
    ...(dispute === undefined ? {} : { dispute }),
  };
}

/** Value of {@link PAYMENT_HEADER}: base64 of an x402 v2 `PaymentPayload` with the payment and its receipt. */
export function encodePaymentHeader(paid: PaidRequest): string {
  return encodeJson({ x402Version: 2, accepted: { scheme: PAYMENT_SCHEME }, payload: paid });
}

/** The payment and receipt in {@link PAYMENT_HEADER}. @throws malformed-input */
export function decodePaymentHeader(header: string): PaidRequest {
  return parseWire(paidRequestSchema, decodeJson(header)).payload;
}

/** Value of {@link DELIVERY_HEADER}: base64 of the signed delivery as JSON. */
export function encodeDeliveryHeader(delivery: SignedDelivery): string {
  return encodeJson(delivery);
}

/**
 * The payee's signed word in {@link DELIVERY_HEADER}, if it is about this payment.
 *
 * @throws malformed-input, payment-mismatch, signature-*
 */
export function verifyDelivery(header: string, { domain, payment }: PaidRequest): SignedDelivery {
  const signed = parseWire(signedDeliverySchema, decodeJson(header));
  const { agent, seq, ref } = signed.delivery;
  same("payment-mismatch", "agent", agent, payment.agent);
  same("payment-mismatch", "seq", seq, payment.payment.seq);
  same("payment-mismatch", "ref", ref, payment.payment.line.ref);
  const payee = payment.hold?.payee ?? payment.payment.line.payee;
  verifySignature(hashDelivery(domain, signed.delivery), signed.signature, payee);
  return signed;
}

/** What a payee knows for itself when it checks a {@link PaidRequest}. */
export interface PaidExpectation {
  readonly domain: Domain;
  readonly payee: Address;
  /** The price in units; the payment must be exactly this. */
  readonly amount: bigint;
  /** The reference of this very request, see {@link requestRef}. */
  readonly ref: Hex;
  /** The processor whose receipts the payee takes, or each of them. */
  readonly processor: Address | readonly Address[];
  /** Unix seconds. */
  readonly now: bigint;
  /** The latest settle-by that is acceptable, in seconds from now; 24 h, the contract's maximum, unless given. */
  readonly maxSettleIn?: bigint;
  readonly onChain?: KnownMandate;
}

/** An agent's mandate as a payee last read it from the chain, and the token that the payee takes. */
export interface KnownMandate {
  readonly mandate: Mandate;
  readonly token: Address;
}

/**
 * A payee's offline check, without a round trip: both signatures, and that payment and receipt are for this payee,
 * amount and request; with `onChain`, that the mandate covers the payment. Neither signature names the token: a payee
 * that does not pass `onChain` trusts the processor for it. That a receipt serves once, and the exposure to one
 * processor, are the caller's.
 *
 * @returns the processor that signed the receipt.
 * @throws wrong-chain, wrong-contract, payment-mismatch, receipt-mismatch, receipt-expired, receipt-too-long,
 * receipt-invalid, processor-not-accepted when there are several, signature-*, and with `onChain` what
 * {@link assertCovered} throws; the error names the value and what was expected.
 */
export function verifyPaid(paid: PaidRequest, expected: PaidExpectation): Address {
  const { agent, payment, signature } = paid.payment;
  const { receipt } = paid.receipt;
  same("wrong-chain", "chainId", paid.domain.chainId, expected.domain.chainId);
  same("wrong-contract", "registry", paid.domain.registry, expected.domain.registry);
  same("payment-mismatch", "payee", payment.line.payee, expected.payee);
  same("payment-mismatch", "amount", payment.line.amount, expected.amount);
  same("payment-mismatch", "ref", payment.line.ref, expected.ref);
  same("receipt-mismatch", "agent", receipt.agent, agent);
  same("receipt-mismatch", "seq", receipt.seq, payment.seq);
  same("receipt-mismatch", "payee", receipt.payee, payment.line.payee);
  same("receipt-mismatch", "amount", receipt.amount, payment.line.amount);
  same("receipt-mismatch", "ref", receipt.ref, payment.line.ref);
  same("receipt-mismatch", "head", receipt.head, payment.head);
  const latest = expected.now + (expected.maxSettleIn ?? MAX_SETTLE_BY);
  if (receipt.settleBy <= expected.now) {
    throw new BursarError("receipt-expired", "The receipt's settle-by time is past", {
      value: receipt.settleBy,
      limit: expected.now,
    });
  }
  if (receipt.settleBy > latest) {
    throw new BursarError("receipt-too-long", "The receipt promises settlement too late", {
      value: receipt.settleBy,
      limit: latest,
    });
  }
  verifySignature(hashPayment(expected.domain, payment), signature, agent);
  const processor = verifyReceipt(paid.receipt, expected.domain, expected.processor);
  if (expected.onChain !== undefined) assertCovered(paid.payment, expected.onChain, processor, expected.now);
  return processor;
}

/**
 * Refuses a payment that the agent's mandate does not cover.
 *
 * @param processor who signed the receipt.
 * @param now Unix seconds.
 * @throws payment-mismatch, wrong-processor, mandate-expired, above-payment-cap, above-budget, payee-not-allowed
 */
export function assertCovered(
  { agent, payment }: SignedPayment,
  { mandate, token }: KnownMandate,
  processor: Address,
  now: bigint,
): void {
  same("payment-mismatch", "agent", agent, mandate.agent);
  same("payment-mismatch", "token", mandate.token, token);
  same("wrong-processor", "processor", mandate.processor, processor);
  const { payee, amount } = payment.line;
  if (mandate.validUntil < now) {
    throw new BursarError("mandate-expired", "The mandate has expired", {
      value: now,
      limit: mandate.validUntil,
    });
  }
  if (amount > mandate.paymentCap) {
    throw new BursarError("above-payment-cap", `${amount} units are above the cap of ${mandate.paymentCap}`, {
      value: amount,
      limit: mandate.paymentCap,
    });
  }
  if (payment.spent > mandate.budget) {
    throw new BursarError("above-budget", `A total of ${payment.spent} units is above the budget`, {
      value: payment.spent,
      limit: mandate.budget,
    });
  }
  if (!allowsPayee(mandate.payees, payee)) {
    throw new BursarError("payee-not-allowed", `The mandate does not allow ${payee}`, {
      value: payee,
      limit: mandate.payees.join(" "),
    });
  }
}

function verifyReceipt(
  { receipt, signature }: SignedReceipt,
  domain: Domain,
  accepted: Address | readonly Address[],
): Address {
  const digest = hashReceipt(domain, receipt);
  try {
    if (typeof accepted === "string") {
      verifySignature(digest, signature, accepted);
      return accepted;
    }
    const signer = recoverStrict(digest, signature);
    const processor = accepted.find((one) => BigInt(one) === BigInt(signer));
    if (processor !== undefined) return processor;
    throw new BursarError(
      "processor-not-accepted",
      `The receipt is by ${signer}, whose receipts are not taken`,
      { value: signer, limit: accepted.join(" ") },
      "Pay through a mandate that names one of the accepted processors.",
    );
  } catch (error) {
    if (!(error instanceof BursarError) || error.code === "processor-not-accepted") throw error;
    throw new BursarError("receipt-invalid", error.message, { ...error.details, reason: error.code });
  }
}

function same(
  code: "wrong-chain" | "wrong-contract" | "wrong-processor" | "payment-mismatch" | "receipt-mismatch",
  field: string,
  value: string | bigint,
  limit: string | bigint,
): void {
  if (BigInt(value) === BigInt(limit)) return;
  throw new BursarError(code, `The ${field} is ${value}, not ${limit}`, { field, value, limit });
}

function encodeJson(value: unknown): string {
  return encodeBase64(toUtf8Bytes(JSON.stringify(toWire(value))));
}

function decodeJson(header: string): unknown {
  if (header.length > MAX_HEADER) {
    throw new BursarError("malformed-input", `The header has ${header.length} characters`, {
      value: header.length,
      limit: MAX_HEADER,
    });
  }
  try {
    const bytes = decodeBase64(header);
    if (encodeBase64(bytes) !== header) throw new Error("not canonical base64");
    return JSON.parse(toUtf8String(bytes));
  } catch {
    throw new BursarError("malformed-input", "The header is not base64 of JSON", { value: header.slice(0, 80) });
  }
}
