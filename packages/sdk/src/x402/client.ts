import {
  addressSchema,
  bytes32Schema,
  BursarError,
  PAYMENT_SCHEME,
  parseWire,
  toWire,
  uint256Schema,
  uintSchema,
  unitsOf,
  type Domain,
  type ErrorCode,
  type Line,
  type Mandate,
  type SignedPayment,
  type SignedReceipt,
} from "@bursar/protocol";
import type {
  DefaultAsset,
  PaymentPayloadContext,
  PaymentPayloadResult,
  PaymentRequirements,
  SchemeNetworkClient,
} from "@x402/core/types";
import { z } from "zod";

/** Who pays: an agent, or anything that keeps its ledger. */
export interface Payer {
  readonly domain: Domain;
  readonly mandate: Pick<Mandate, "token" | "processor">;
  /** Pays one line and gives the processor's receipt. @throws BursarError The refusal. */
  pay(line: Line): Promise<{ readonly payment: SignedPayment; readonly receipt: SignedReceipt }>;
}

export interface BursarClientOptions {
  /**
   * What the mandate's token is worth: one of it is one US dollar. With it the stock client's caps in dollars hold for
   * payments from the mandate; without it the stock client wants an entry in `spendControls.allowedAssets`.
   */
  readonly dollar?: { readonly symbol: string; readonly decimals: number };
}

const requirementsSchema = z.object({
  scheme: z.literal(PAYMENT_SCHEME),
  network: z.string(),
  asset: addressSchema,
  /** Base units of the token. */
  amount: uint256Schema,
  payTo: addressSchema,
  extra: z.object({
    registry: addressSchema,
    unitScale: uintSchema(10n ** 18n, 1n),
    ref: bytes32Schema,
    processors: z.array(addressSchema).min(1).max(32),
  }),
});

/**
 * The scheme `bursar` for the stock x402 client: `client.register("eip155:8453", new BursarClientScheme(agent))`. It pays
 * from the mandate at the agent's processor, and shows payment and receipt to the payee.
 */
export class BursarClientScheme implements SchemeNetworkClient {
  readonly scheme = PAYMENT_SCHEME;
  readonly #payer: Payer;
  readonly #dollar: BursarClientOptions["dollar"];

  constructor(payer: Payer, { dollar }: BursarClientOptions = {}) {
    this.#payer = payer;
    this.#dollar = dollar;
  }

  /** The mandate's token, if it is a dollar. */
  findDefaultAsset = (asset: string, network: string): DefaultAsset | undefined => {
    const { domain, mandate } = this.#payer;
    if (network !== networkOf(domain) || asset.toLowerCase() !== mandate.token.toLowerCase()) return undefined;
    return this.#dollar && { asset: mandate.token, ...this.#dollar };
  };

  /**
   * Pays what is asked.
   *
   * @throws {@link BursarError} `malformed-input`, `wrong-chain`, `wrong-contract`, `wrong-token`,
   * `processor-not-accepted`, `price-above-limit`, `fractional-units` before anything is paid; the processor's refusal.
   */
  async createPaymentPayload(
    x402Version: number,
    paymentRequirements: PaymentRequirements,
    context?: PaymentPayloadContext,
  ): Promise<PaymentPayloadResult> {
    const asked = parseWire(requirementsSchema, paymentRequirements);
    const { registry, unitScale, ref, processors } = asked.extra;
    const { domain, mandate } = this.#payer;
    same("wrong-chain", "network", asked.network, networkOf(domain));
    same("wrong-contract", "registry", registry, domain.registry);
    same("wrong-token", "token", asked.asset, mandate.token);
    if (!processors.some((processor) => processor === mandate.processor)) {
      throw new BursarError("processor-not-accepted", `The payee does not take receipts of ${mandate.processor}.`, {
        value: mandate.processor,
        limit: processors.join(" "),
      });
    }
    const limit = context?.maxAmountPerPayment;
    if (limit !== undefined && asked.amount > BigInt(limit)) {
      throw new BursarError("price-above-limit", `${asked.amount} base units are above the limit of ${limit}.`, {
        value: asked.amount,
        limit,
      });
    }
    const amount = unitsOf(asked.amount, unitScale);
    const { payment, receipt } = await this.#payer.pay({ payee: asked.payTo, amount, ref });
    return { x402Version, payload: toWire({ domain, payment, receipt }) };
  }
}

function networkOf({ chainId }: Domain): string {
  return `eip155:${chainId}`;
}

function same(code: ErrorCode, field: string, value: string, limit: string): void {
  if (value === limit) return;
  throw new BursarError(code, `The payee's ${field} is ${value}, not ${limit}.`, { field, value, limit });
}
