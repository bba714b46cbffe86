import {
  addressSchema,
  bytes32Schema,
  BursarError,
  directDomainName,
  DIRECT_VERSION,
  domainSchema,
  ERRORS,
  hashReceipt,
  parseWire,
  PAYMENT_SCHEME,
  signedPaymentSchema,
  signedReceiptSchema,
  signedTransferSchema,
  transferPayment,
  uint256Schema,
  unitsOf,
  verifyPaid,
  type Address,
  type DirectDomain,
  type Domain,
  type ErrorCode,
  type Hex,
} from "@bursar/protocol";
import type { FastifyRequest } from "fastify";
import { z } from "zod";

import type { DirectSettler } from "../direct.ts";
import type { Processor } from "../processor.ts";
import type { DirectRecord } from "../records.ts";
import type { Store } from "../store.ts";
import { routeSchema, type Routes } from "./route.ts";
import { isTold, Servings, type Serving } from "./servings.ts";

export interface X402RoutesOptions {
  readonly processor: Pick<Processor, "checkDirect" | "acceptDirect" | "direct" | "receipt" | "payment">;
  readonly settler: Pick<DirectSettler, "settled">;
  readonly store: Pick<Store, "mandateOf">;
  readonly domain: Domain;
  /** Address of DirectSettlement: the `asset` of `exact` payments. */
  readonly direct: Address;
  /** Tokens to advertise, by symbol. */
  readonly tokens: Readonly<Record<string, Address>>;
  /** The mandates' processor: who signs receipts and sends settlements. */
  readonly address: Address;
  /** Milliseconds that `settle` waits for the chain; 45,000 unless given: stock payees wait 90,000. */
  readonly timeout?: number;
  /** Unix seconds. */
  readonly now: () => bigint;
}

const VERSION = 2;
const TIMEOUT = 45_000;

const requirementsSchema = z.object({
  scheme: z.string(),
  network: z.string(),
  asset: addressSchema,
  /** Base units of the token. */
  amount: uint256Schema,
  payTo: addressSchema,
  maxTimeoutSeconds: z.number().positive(),
  extra: z.record(z.string(), z.unknown()).nullish(),
});

const requestSchema = z.object({
  x402Version: z.literal(VERSION),
  paymentPayload: z.object({
    x402Version: z.literal(VERSION),
    accepted: requirementsSchema,
    payload: z.record(z.string(), z.unknown()),
  }),
  paymentRequirements: requirementsSchema,
});

type Requirements = z.output<typeof requirementsSchema>;
type PaymentRequest = z.output<typeof requestSchema>;

const paidSchema = z.strictObject({
  domain: domainSchema,
  payment: signedPaymentSchema,
  receipt: signedReceiptSchema,
});

const reasonExtraSchema = z.object({
  code: z.string(),
  details: z.record(z.string(), z.string()),
  advice: z.string().optional(),
});

const verifyAnswerSchema = z.object({
  isValid: z.boolean(),
  invalidReason: z.string().optional(),
  invalidMessage: z.string().optional(),
  payer: z.string().optional(),
  extra: reasonExtraSchema.optional(),
});

const settleAnswerSchema = z.object({
  success: z.boolean(),
  errorReason: z.string().optional(),
  errorMessage: z.string().optional(),
  payer: z.string().optional(),
  transaction: z.string(),
  network: z.string(),
  extra: reasonExtraSchema.optional(),
});

type VerifyAnswer = z.output<typeof verifyAnswerSchema>;
type SettleAnswer = z.output<typeof settleAnswerSchema>;

const supportedSchema = z.object({
  kinds: z.array(
    z.object({
      x402Version: z.number(),
      scheme: z.string(),
      network: z.string(),
      extra: z.record(z.string(), z.unknown()),
    }),
  ),
  extensions: z.array(z.string()),
  signers: z.record(z.string(), z.array(z.string())),
});

/** How one scheme decides and settles. */
interface Scheme {
  /** @throws the refusal. No effect on the books. */
  verify(request: PaymentRequest): void | Promise<void>;
  /** @throws the refusal. The same request again has no further effect. */
  settle(request: PaymentRequest): Promise<Outcome>;
}

type Outcome =
  | { status: "paid"; transaction: Hex | null; serving: Serving }
  | { status: "pending"; transaction: Hex | null; error: string }
  | { status: "failed"; transaction: Hex | null; error: string };

/**
 * An x402 v2 facilitator of the schemes `exact` and `bursar`, see docs/x402.md. The payee's name for itself (`resource`)
 * counts for nothing: hosts and categories are those of its registered profile.
 */
export function x402Routes(options: X402RoutesOptions): Routes {
  const { domain, address } = options;
  const network = `eip155:${domain.chainId}`;
  const servings = new Servings();
  const schemes: Readonly<Record<string, Scheme>> = {
    exact: exactScheme(options, network, servings),
    [PAYMENT_SCHEME]: bursarScheme(options, network, servings),
  };

  function schemeOf({ scheme }: Requirements): Scheme {
    const found = Object.hasOwn(schemes, scheme) ? schemes[scheme] : undefined;
    if (found) return found;
    throw mismatch("scheme", scheme, Object.keys(schemes).join(" or "));
  }

  return (server) => {
    server.get(
      "/x402/supported",
      {
        schema: routeSchema({ summary: "What this facilitator settles", tags: ["x402"], answer: supportedSchema }),
      },
      () => ({
        kinds: [
          { x402Version: VERSION, scheme: "exact", network, extra: exactExtra(options) },
          {
            x402Version: VERSION,
            scheme: PAYMENT_SCHEME,
            network,
            extra: { registry: domain.registry, processors: [address] },
          },
        ],
        extensions: [],
        signers: { "eip155:*": [address] },
      }),
    );

    server.post(
      "/x402/verify",
      {
        schema: routeSchema({
          summary: "Whether a payment would be accepted; nothing is recorded",
          tags: ["x402"],
          body: requestSchema,
          answer: verifyAnswerSchema,
        }),
      },
      async (request, reply) => {
        const payer = payerOf(request.body);
        try {
          const asked = parseWire(requestSchema, request.body);
          await schemeOf(asked.paymentRequirements).verify(asked);
          return await reply.send({ isValid: true, payer } satisfies VerifyAnswer);
        } catch (error) {
          const refusal = refusalOf(error);
          return reply.status(statusOf(refusal)).send({
            isValid: false,
            invalidReason: reasonOf(refusal),
            invalidMessage: refusal.message,
            payer,
            extra: extraOf(refusal),
          } satisfies VerifyAnswer);
        }
      },
    );

    server.post(
      "/x402/settle",
      {
        schema: routeSchema({
          summary: "Accept a payment and settle it; the same request again never pays twice",
          tags: ["x402"],
          body: requestSchema,
          answer: settleAnswerSchema,
        }),
      },
      async (request, reply) => {
        const payer = payerOf(request.body);
        const failure = (errorReason: string, errorMessage: string, transaction = ""): SettleAnswer => ({
          success: false,
          errorReason,
          errorMessage,
          payer,
          transaction,
          network,
        });
        try {
          const asked = parseWire(requestSchema, request.body);
          const outcome = await schemeOf(asked.paymentRequirements).settle(asked);
          const transaction = outcome.transaction ?? "";
          if (outcome.status === "pending") return failure("settlement_pending", outcome.error, transaction);
          if (outcome.status === "failed") {
            return failure("invalid_exact_evm_transaction_failed", outcome.error, transaction);
          }
          if (isSecondServing(asked.paymentRequirements, outcome.serving)) {
            return failure("duplicate_settlement", "Another request was served for this payment.", transaction);
          }
          outcome.serving.told ||= isListening(request);
          return { success: true, payer, transaction, network } satisfies SettleAnswer;
        } catch (error) {
          const refusal = refusalOf(error);
          return reply
            .status(statusOf(refusal))
            .send({ ...failure(reasonOf(refusal), refusal.message), extra: extraOf(refusal) } satisfies SettleAnswer);
        }
      },
    );
  };
}

function exactExtra({ direct, tokens }: X402RoutesOptions): Record<string, unknown> {
  return {
    asset: direct,
    assetTransferMethod: "eip3009",
    tokens: Object.entries(tokens).map(([symbol, token]) => ({
      symbol,
      token,
      name: directDomainName(token),
      version: DIRECT_VERSION,
    })),
  };
}

/** `exact` over EIP-3009: each payment is settled alone, before the payee is told that it is paid. */
function exactScheme(options: X402RoutesOptions, network: string, servings: Servings): Scheme {
  const { processor, settler, store, domain, direct, timeout = TIMEOUT } = options;
  const chain: DirectDomain = { chainId: domain.chainId, direct };

  async function read(request: PaymentRequest) {
    const { accepted, payload } = request.paymentPayload;
    const required = request.paymentRequirements;
    expectSame(accepted, required, network);
    same("wrong-contract", "asset", required.asset, direct);
    const signed = parseWire(signedTransferSchema, payload);
    const { from, to, value } = signed.authorization;
    same("payment-mismatch", "payTo", to, required.payTo);
    same("payment-mismatch", "amount", value, required.amount);
    const { mandate, unitScale } = await store.mandateOf(from);
    expectSigningDomain(accepted, mandate.token);
    expectSigningDomain(required, mandate.token);
    return transferPayment(chain, { token: mandate.token, unitScale }, signed);
  }

  return {
    async verify(request) {
      const payment = await read(request);
      await processor.checkDirect(payment);
      const record = await processor.direct(payment.kind, payment.agent, payment.nonce);
      if (record?.status === "failed") throw new BursarError("transaction-failed", failureOf(record));
      const serving = servings.of(payment.digest, isOpen(record));
      if (isTold(serving)) {
        throw new BursarError("nonce-used", `The nonce ${payment.nonce} has paid already.`, { value: payment.nonce });
      }
      serving.verified += 1;
    },
    async settle(request) {
      const payment = await read(request);
      const before = await processor.direct(payment.kind, payment.agent, payment.nonce);
      const accepted = await processor.acceptDirect(payment);
      const serving = servings.of(payment.digest, isOpen(before));
      const record = await settler.settled(accepted, { timeout });
      const { status, transaction } = record;
      if (status === "settled") return { status: "paid", transaction, serving };
      if (status === "failed") return { status, transaction, error: failureOf(record) };
      const error = "The chain has not settled it yet: ask again with the same request.";
      return { status: "pending", transaction, error };
    },
  };
}

/** `bursar`: the agent paid before, and shows payment and receipt. The books say whether they are good. */
function bursarScheme(options: X402RoutesOptions, network: string, servings: Servings): Scheme {
  const { processor, store, domain, address, now } = options;

  async function read(request: PaymentRequest) {
    const { accepted, payload } = request.paymentPayload;
    const required = request.paymentRequirements;
    expectSame(accepted, required, network);
    const extra = parseWire(z.object({ registry: addressSchema, ref: bytes32Schema }), required.extra ?? {});
    same("wrong-contract", "registry", extra.registry, domain.registry);
    const paid = parseWire(paidSchema, payload);
    const { agent, payment } = paid.payment;
    const { mandate, unitScale } = await store.mandateOf(agent);
    same("wrong-token", "asset", required.asset, mandate.token);
    verifyPaid(paid, {
      domain,
      payee: required.payTo,
      amount: unitsOf(required.amount, unitScale),
      ref: extra.ref,
      processor: address,
      now: now(),
    });
    const digest = hashReceipt(domain, paid.receipt.receipt);
    const booked = await processor.receipt(agent, payment.seq);
    if (booked === undefined || hashReceipt(domain, booked.receipt) !== digest) {
      throw new BursarError("receipt-invalid", "The books hold another payment at this number, or none.", {
        value: digest,
      });
    }
    return { agent, seq: payment.seq, serving: servings.of(digest, true) };
  }

  return {
    async verify(request) {
      const { serving } = await read(request);
      if (serving.told) throw new BursarError("receipt-used", "The receipt has paid for a request already.");
      serving.verified += 1;
    },
    async settle(request) {
      const { agent, seq, serving } = await read(request);
      const transaction = (await processor.payment(agent, seq))?.transaction ?? null;
      return Promise.resolve({ status: "paid", transaction, serving });
    },
  };
}

/**
 * Whether telling «paid» would let a payee serve twice. One that verifies before it serves has verified twice then; one
 * that settles before it serves never verifies, so that a repeated settlement may be a second serving.
 */
function isSecondServing({ extra }: Requirements, serving: Serving): boolean {
  const verifiesFirst = (extra?.["paymentFlow"] ?? "authorization") === "authorization";
  return isTold(serving) && (serving.verified > 1 || !verifiesFirst);
}

/** Whether the answer can still reach who asked: a payee that hung up was not told. */
function isListening({ raw }: FastifyRequest): boolean {
  return !raw.socket.destroyed;
}

function isOpen(record: DirectRecord | undefined): boolean {
  return record === undefined || record.status === "accepted" || record.status === "submitted";
}

function failureOf({ error }: DirectRecord): string {
  return error ?? "The contract refused the payment.";
}

/** What the client accepted must be what the payee requires, and both for this chain. */
function expectSame(accepted: Requirements, required: Requirements, network: string): void {
  same("payment-mismatch", "scheme", accepted.scheme, required.scheme);
  same("wrong-chain", "network", required.network, network);
  same("wrong-chain", "network", accepted.network, network);
  same("payment-mismatch", "asset", accepted.asset, required.asset);
  same("payment-mismatch", "payTo", accepted.payTo, required.payTo);
  same("payment-mismatch", "amount", accepted.amount, required.amount);
}

function expectSigningDomain({ extra }: Requirements, token: Address): void {
  const { name, version } = extra ?? {};
  if (name !== directDomainName(token)) {
    throw new BursarError(
      "wrong-token",
      `The signing domain is named ${JSON.stringify(name)}, not "${directDomainName(token)}".`,
      { field: "name", value: String(name), limit: directDomainName(token) },
      "Ask for payments with extra.name and extra.version as /x402/supported tells them; they are not the token's own.",
    );
  }
  same("payment-mismatch", "version", String(version), DIRECT_VERSION);
}

function same(code: ErrorCode, field: string, value: string | bigint, limit: string | bigint): void {
  if (value !== limit) throw mismatch(field, value, limit, code);
}

function mismatch(
  field: string,
  value: string | bigint,
  limit: string | bigint,
  code: ErrorCode = "payment-mismatch",
): BursarError {
  return new BursarError(code, `The ${field} is ${value}, not ${limit}.`, { field, value, limit });
}

/** A refusal, told in x402's words; what is no refusal goes to the server's error handler. */
function refusalOf(error: unknown): BursarError {
  if (!(error instanceof BursarError)) throw error;
  if (ERRORS[error.code].status >= 500 && error.code !== "transaction-failed") throw error;
  return error;
}

/** Stock clients read a refusal from an answer of 200; what is not in the documented form is their own fault. */
function statusOf({ code }: BursarError): number {
  return code === "malformed-input" ? ERRORS[code].status : 200;
}

function extraOf({ code, details, advice }: BursarError): z.output<typeof reasonExtraSchema> {
  return { code, details, ...(advice === undefined ? {} : { advice }) };
}

/** x402's own words where it has one; the error's code otherwise. */
const REASONS: Partial<Record<ErrorCode, string>> = {
  "malformed-input": "invalid_payload",
  "wrong-chain": "invalid_exact_evm_network_mismatch",
  "wrong-contract": "invalid_payment_requirements",
  "wrong-token": "invalid_exact_evm_token_name_mismatch",
  "authorization-expired": "invalid_exact_evm_payload_authorization_valid_before",
  "authorization-early": "invalid_exact_evm_payload_authorization_valid_after",
  "nonce-used": "invalid_exact_evm_nonce_already_used",
  "above-budget": "invalid_exact_evm_insufficient_balance",
  "amount-zero": "invalid_exact_evm_authorization_value",
  "amount-too-large": "invalid_exact_evm_authorization_value",
  "fractional-units": "invalid_exact_evm_authorization_value",
  "transaction-failed": "invalid_exact_evm_transaction_failed",
};

/** x402's words for the field in which payload and requirements differ. */
const MISMATCHES: Readonly<Record<string, string>> = {
  scheme: "unsupported_scheme",
  payTo: "invalid_exact_evm_recipient_mismatch",
  amount: "invalid_exact_evm_payload_authorization_value_mismatch",
  version: "invalid_exact_evm_token_version_mismatch",
  asset: "invalid_payment_requirements",
};

function reasonOf({ code, details }: BursarError): string {
  if (code.startsWith("signature-")) return "invalid_exact_evm_signature";
  const field = code === "payment-mismatch" ? MISMATCHES[details["field"] ?? ""] : undefined;
  return field ?? REASONS[code] ?? code.replaceAll("-", "_");
}

/** Who pays, as far as the request says it at all. */
function payerOf(body: unknown): string | undefined {
  type Loose = Record<string, unknown> | null | undefined;
  const payload = ((body as Loose)?.["paymentPayload"] as Loose)?.["payload"] as Loose;
  const payer = (payload?.["authorization"] as Loose)?.["from"] ?? (payload?.["payment"] as Loose)?.["agent"];
  return typeof payer === "string" ? payer : undefined;
}
