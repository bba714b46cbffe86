/** A payee's stand: keys, agents that pay, a processor that signs, and mandates as a chain would tell them. */
import {
  AgentLedger,
  decodePaymentRequired,
  encodePaymentHeader,
  hashPayment,
  hashReceipt,
  headHex,
  PAYMENT_HEADER,
  PAYMENT_REQUIRED_HEADER,
  policyRoot,
  requestRef,
  signWithKey,
  type Address,
  type Domain,
  type Hex,
  type Line,
  type Mandate,
  type PaidRequest,
  type PaymentTerms,
  type Problem,
  type Receipt,
  type SignedQuote,
} from "@bursar/protocol";
import {
  MemoryReceipts,
  Paywall,
  type MandateSnapshot,
  type MandateSource,
  type PaywallOptions,
} from "@bursar/sdk/payee";
import { expect } from "chai";
import { hexlify, randomBytes, Wallet } from "ethers";

import { addressOf, word } from "../../protocol/reference.ts";

export const DOMAIN: Domain = { chainId: 31_337n, registry: addressOf("registry") };
export const TOKEN = addressOf("token");
export const PAYEE = new Wallet(word("payee"));
export const PROCESSOR = new Wallet(word("processor"));
export const OTHER_PROCESSOR = new Wallet(word("other processor"));
export const STRANGER = new Wallet(word("stranger"));
export const OWNER = addressOf("owner");

export const addressIn = (wallet: Wallet): Address => wallet.address as Address;

export function now(): bigint {
  return BigInt(Math.floor(Date.now() / 1_000));
}

/** Mandates that a test writes itself; the chain's own are read in mandates.test.ts. */
export class Ledger implements MandateSource {
  readonly snapshots = new Map<Address, MandateSnapshot>();
  /** Questions in all, and the ages that were accepted. */
  readonly asked: number[] = [];
  fault: Error | null = null;

  mandate(agent: Address, maxAge: number): Promise<MandateSnapshot | null> {
    this.asked.push(maxAge);
    if (this.fault !== null) return Promise.reject(this.fault);
    return Promise.resolve(this.snapshots.get(agent) ?? null);
  }

  open(agent: Address, overrides: Partial<Mandate> = {}): void {
    const { payees = [], paymentCap = 1_000_000_000n } = overrides;
    const mandate: Mandate = {
      owner: OWNER,
      agent,
      token: TOKEN,
      budget: 10_000_000_000n,
      validUntil: now() + 86_400n,
      processor: addressIn(PROCESSOR),
      policyRoot: headHex(policyRoot(payees, paymentCap)),
      termsHash: word("terms"),
      ...overrides,
      payees,
      paymentCap,
    };
    this.snapshots.set(agent, { domain: DOMAIN, mandate, state: "open", seq: 0n, remaining: mandate.budget });
  }

  change(agent: Address, changes: Partial<MandateSnapshot>): void {
    this.snapshots.set(agent, { ...this.snapshots.get(agent)!, ...changes });
  }
}

/** What is wrong with a payment. */
export interface Forgery {
  readonly domain?: Domain;
  readonly line?: Partial<Line>;
  readonly receipt?: Partial<Receipt>;
  readonly agentKey?: Hex;
  readonly processorKey?: Hex;
  readonly quote?: SignedQuote;
}

/** An agent that pays at the tiny processor. */
export class Buyer {
  readonly wallet: Wallet;
  readonly #ledger: AgentLedger;

  constructor(mandates?: Ledger, overrides: Partial<Mandate> = {}, wallet = new Wallet(hexlify(randomBytes(32)))) {
    this.wallet = wallet;
    this.#ledger = new AgentLedger({ domain: DOMAIN, agent: this.address, secret: word("secret") });
    mandates?.open(this.address, overrides);
  }

  /** The same agent, which has forgotten every payment. */
  twin(): Buyer {
    return new Buyer(undefined, {}, this.wallet);
  }

  get address(): Address {
    return addressIn(this.wallet);
  }

  /** The next payment of `line` and its receipt, right unless something is forged. */
  pay(line: Line, forged: Forgery = {}): PaidRequest {
    const { payment, salt } = this.#ledger.append({ ...line, ...forged.line });
    const domain = forged.domain ?? DOMAIN;
    const { amount, payee, ref } = payment.line;
    const receipt: Receipt = {
      agent: this.address,
      seq: payment.seq,
      payee,
      amount,
      ref,
      head: payment.head,
      settleBy: now() + 3_600n,
      logIndex: payment.seq - 1n,
      ...forged.receipt,
    };
    const agentKey = forged.agentKey ?? (this.wallet.privateKey as Hex);
    const processorKey = forged.processorKey ?? (PROCESSOR.privateKey as Hex);
    return {
      domain,
      payment: {
        agent: this.address,
        payment,
        signature: signWithKey(hashPayment(domain, payment), agentKey),
        salt,
        ...(forged.quote === undefined ? {} : { quote: forged.quote }),
      },
      receipt: { receipt, signature: signWithKey(hashReceipt(domain, receipt), processorKey) },
    };
  }

  /** Payment header for one request. */
  header(request: { method?: string; url: string; body?: string; amount: bigint }, forged: Forgery = {}): string {
    const { method = "GET", url, body = "", amount } = request;
    const line = { payee: addressIn(PAYEE), amount, ref: requestRef({ method, url, body }) };
    return encodePaymentHeader(this.pay(line, forged));
  }
}

export function stall(mandates: Ledger, options: Partial<PaywallOptions> = {}): Paywall {
  return new Paywall({
    payee: PAYEE.address,
    domain: DOMAIN,
    token: TOKEN,
    processors: [PROCESSOR.address, OTHER_PROCESSOR.address],
    receipts: new MemoryReceipts(),
    mandates,
    ...options,
  });
}

export const paidWith = (header: string): { headers: Record<string, string> } => ({
  headers: { [PAYMENT_HEADER]: header },
});

/** Asserts that an answer is a refusal with all that it has to carry, and gives its problem. */
export async function refused(response: Response, code: string, status = 402): Promise<Problem> {
  const text = await response.text();
  expect(response.status, text).to.equal(status);
  expect(response.headers.get("content-type")).to.match(/^application\/problem\+json/);
  expect(response.headers.get("payment-response")).to.equal(null);
  const body = JSON.parse(text) as Problem;
  expect(body).to.include({ code, status });
  if (status === 402) {
    expect(body.advice).to.be.a("string");
    expect(termsIn(response).payee).to.equal(PAYEE.address);
  } else {
    expect(response.headers.get(PAYMENT_REQUIRED_HEADER)).to.equal(null);
  }
  if (status === 503) expect(Number(response.headers.get("retry-after"))).to.be.above(0);
  return body;
}

/** What a 402 answer asks for. */
export function termsIn(response: Response): PaymentTerms {
  return decodePaymentRequired(response.headers.get(PAYMENT_REQUIRED_HEADER) ?? "");
}
