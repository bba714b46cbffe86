import {
  addressSchema,
  bytes32Schema,
  BursarError,
  domainSchema,
  hashReceipt,
  PAYMENT_SCHEME,
  parseWire,
  recoverStrict,
  requestRef,
  signedPaymentSchema,
  signedReceiptSchema,
  unitScale,
  unitsOf,
  verifyPaid,
  type Address,
  type Domain,
  type Hex,
  type PaidRequest,
} from "@bursar/protocol";
import type { HTTPRequestContext } from "@x402/core/server";
import type {
  AssetAmount,
  DeepReadonly,
  Network,
  PaymentPayload,
  PaymentRequirements,
  Price,
  SchemeNetworkServer,
  SchemePaymentRequiredContext,
  SchemeServerHooks,
  SupportedKind,
} from "@x402/core/types";
import { convertToTokenAmount, parseMoney } from "@x402/core/utils";
import { z } from "zod";

import { memoryReceipts, type UsedReceipts } from "./used-receipts.ts";

export interface BursarServerOptions {
  readonly domain: Domain;
  /** What the service is paid in; prices such as `"$0.01"` are in it. */
  readonly token: { readonly address: Address; readonly decimals: number };
  /** Processors whose receipts the service takes; those that the facilitator names, unless given. */
  readonly processors?: readonly Address[];
  /** Memory unless given: enough for one process that need not remember a restart. */
  readonly used?: UsedReceipts;
  /**
   * The bytes of a request's body, which the payment is bound to; unless given, what the framework's body parser left:
   * raw bytes or text as they are, anything else as JSON.
   */
  readonly body?: (request: HTTPRequestContext) => Uint8Array | string | undefined;
  /** Unix seconds. */
  readonly now?: () => bigint;
}

const paidSchema = z.strictObject({
  domain: domainSchema,
  payment: signedPaymentSchema,
  receipt: signedReceiptSchema,
});

const supportSchema = z.object({ registry: addressSchema, processors: z.array(addressSchema).min(1) });

const askedSchema = z.object({
  amount: z.string().transform(BigInt),
  payTo: addressSchema,
  extra: z.object({ ref: bytes32Schema, processors: z.array(addressSchema).min(1) }),
});

/**
 * The scheme `bursar` for a stock x402 resource server: `resourceServer.register(network, new BursarServerScheme(…))`.
 * Each request is asked for a payment with a reference of its own ({@link requestRef}), and each receipt serves once.
 * Besides the facilitator's word the payment is checked here, offline.
 */
export class BursarServerScheme implements SchemeNetworkServer {
  readonly scheme = PAYMENT_SCHEME;
  readonly defaultAssetTransferMethod = "default";
  readonly paymentFlows = { default: { supported: ["authorization"], default: "authorization" } } as const;
  readonly schemeHooks: SchemeServerHooks;
  readonly #options: BursarServerOptions;
  readonly #scale: bigint;

  constructor(options: BursarServerOptions) {
    const { now = () => BigInt(Math.floor(Date.now() / 1_000)) } = options;
    const used = options.used ?? memoryReceipts(now);
    this.#options = options;
    this.#scale = unitScale(options.token.decimals);
    this.schemeHooks = {
      // The stock server goes on when a hook throws: every failure here must be an answer.
      onAfterVerify: async ({ paymentPayload, requirements, result }) => {
        if (!result.isValid) return;
        try {
          const { digest, until } = this.#check(paymentPayload, requirements, now());
          if (await used.use(digest, until)) return;
          throw new BursarError("receipt-used", "The receipt already paid for a request.", { value: digest });
        } catch (error) {
          const known = error instanceof BursarError;
          return { abort: true, reason: known ? error.code.replaceAll("-", "_") : "internal_error" };
        }
      },
      onVerifiedPaymentCanceled: async ({ paymentPayload, requirements, reason }) => {
        if (reason === "after_verify_aborted") return;
        await used.release(this.#check(paymentPayload, requirements, now()).digest);
      },
    };
  }

  /** @throws BursarError `fractional-units`, `amount-zero`, `amount-too-large`, `wrong-token` */
  parsePrice(price: Price, network: Network): Promise<AssetAmount> {
    const { token } = this.#options;
    this.#expectNetwork(network);
    const asked =
      typeof price === "object"
        ? { ...price, asset: parseWire(addressSchema, price.asset) }
        : { asset: token.address, amount: convertToTokenAmount(parseMoney(price).amount, token.decimals) };
    if (asked.asset !== token.address) {
      throw new BursarError("wrong-token", `The price is in ${asked.asset}, not in ${token.address}.`, {
        value: asked.asset,
        limit: token.address,
      });
    }
    unitsOf(BigInt(asked.amount), this.#scale);
    return Promise.resolve(asked);
  }

  getAssetDecimals(asset: string): number | undefined {
    const { address, decimals } = this.#options.token;
    return asset.toLowerCase() === address.toLowerCase() ? decimals : undefined;
  }

  enhancePaymentRequirements(requirements: PaymentRequirements, kind: SupportedKind): Promise<PaymentRequirements> {
    const { domain, processors = parseWire(supportSchema, kind.extra).processors } = this.#options;
    const extra = { registry: domain.registry, unitScale: this.#scale.toString(), processors: [...processors] };
    return Promise.resolve({ ...requirements, extra: { ...requirements.extra, ...extra } });
  }

  /** Binds what is asked to the request: the answer without a payment and the check of the payment compute the same. */
  enrichPaymentRequiredResponse = (context: SchemePaymentRequiredContext): Promise<PaymentRequirements[]> => {
    const ref = this.#refOf(context);
    return Promise.resolve(
      context.requirements.map((one) =>
        one.scheme === PAYMENT_SCHEME && one.network === this.#network ? { ...one, extra: { ...one.extra, ref } } : one,
      ),
    );
  };

  validateFacilitatorSupport(_network: Network, kind: SupportedKind): string | undefined {
    const support = supportSchema.safeParse(kind.extra);
    const { registry } = this.#options.domain;
    if (!support.success) return "the facilitator names no registry and no processors";
    return support.data.registry === registry ? undefined : `the facilitator serves registry ${support.data.registry}`;
  }

  get #network(): Network {
    return `eip155:${this.#options.domain.chainId}`;
  }

  #expectNetwork(network: Network): void {
    if (network === this.#network) return;
    throw new BursarError("wrong-chain", `The network is ${network}, not ${this.#network}.`, {
      value: network,
      limit: this.#network,
    });
  }

  #refOf({ transportContext, resourceInfo }: SchemePaymentRequiredContext): Hex {
    const request = (transportContext as { request?: HTTPRequestContext } | undefined)?.request;
    if (request === undefined) return requestRef({ method: "GET", url: resourceInfo.url });
    const { adapter } = request;
    const body = (this.#options.body ?? parsedBody)(request);
    return requestRef({
      method: adapter.getMethod(),
      url: adapter.getUrl(),
      ...(body === undefined ? {} : { body }),
    });
  }

  /** @throws BursarError unless payment and receipt are good, by a processor that is taken, and for these terms. */
  #check(
    payload: DeepReadonly<PaymentPayload>,
    requirements: DeepReadonly<PaymentRequirements>,
    now: bigint,
  ): { digest: Hex; until: bigint } {
    const { domain } = this.#options;
    const paid: PaidRequest = parseWire(paidSchema, payload.payload);
    const { amount, payTo, extra } = parseWire(askedSchema, requirements);
    const digest = hashReceipt(domain, paid.receipt.receipt);
    const signer = recoverStrict(digest, paid.receipt.signature);
    const processor = extra.processors.find((taken) => taken === signer) ?? extra.processors[0]!;
    verifyPaid(paid, { domain, payee: payTo, amount: unitsOf(amount, this.#scale), ref: extra.ref, processor, now });
    return { digest, until: paid.receipt.receipt.settleBy };
  }
}

function parsedBody({ adapter }: HTTPRequestContext): Uint8Array | string | undefined {
  const body = adapter.getBody?.();
  if (body === undefined || typeof body === "string" || body instanceof Uint8Array) return body;
  return JSON.stringify(body);
}
