import {
  accessHeader,
  BursarError,
  headHex,
  policyRoot,
  signAccess,
  signPayment,
  startOf,
  termsHash,
  toWire,
  type Address,
  type Domain,
  type Mandate,
  type Payment,
  type SignedPayment,
  type Terms,
} from "@bursar/protocol";
import {
  Processor,
  receiptKey,
  Store,
  type MandateReader,
  type ProcessorOptions,
  type StoreOptions,
} from "@bursar/relayer";
import { id, Wallet, type Signer } from "ethers";

import { PayingAgent } from "../integration/rail.ts";
import { storeUrl } from "./databases.ts";

export const ANYTHING: Terms = { version: 1, purpose: "whatever a test buys", categories: [], hosts: [] };

/** A key that every process derives alike from its name. */
export const keyOf = (name: string): Wallet => new Wallet(id(`bursar test ${name}`));
export const addressOf = (name: string): Address => keyOf(name).address as Address;

export const DOMAIN: Domain = { chainId: 31_337n, registry: addressOf("registry") };
export const NOW = 1_800_000_000n;

/** Accepting a payment asks the chain nothing; what does ask has the real one in its test. */
const nothing = (): Promise<never> => Promise.reject(new Error("this office has no chain"));
const unreachable: MandateReader = { mandate: nothing, revocations: nothing };

export function draftMandate(agent: Address, overrides: Partial<Mandate> = {}, terms: Terms = ANYTHING): Mandate {
  const { payees = [], paymentCap = 1_000n } = overrides;
  return {
    owner: addressOf("owner"),
    agent,
    token: addressOf("token"),
    budget: 100_000n,
    validUntil: NOW + 86_400n,
    processor: addressOf("processor"),
    policyRoot: headHex(policyRoot(payees, paymentCap)),
    termsHash: termsHash(terms),
    ...overrides,
    payees,
    paymentCap,
  };
}

/** A processor and its store, without a chain; opened again on the same path it goes on where it stopped. */
export class Office {
  readonly domain = DOMAIN;
  readonly store: Store;
  readonly processor: Processor;
  /** Unix seconds. */
  clock = NOW;

  private constructor(store: Store, overrides: Partial<ProcessorOptions>) {
    this.store = store;
    this.processor = new Processor({
      domain: DOMAIN,
      store,
      chain: unreachable,
      key: receiptKey(keyOf("processor")),
      settleWithin: 3_600n,
      now: () => this.clock,
      ...overrides,
    });
  }

  static async open(path = ":memory:", overrides: Partial<ProcessorOptions> = {}): Promise<Office> {
    return Office.at(await storeUrl(path), overrides);
  }

  /** On a database of the caller's choice. */
  static async at(
    url: string,
    overrides: Partial<ProcessorOptions> = {},
    options: Pick<StoreOptions, "patience" | "connections"> = {},
  ): Promise<Office> {
    const store = await Store.open(url, { now: () => office.clock, ...options });
    const office: Office = new Office(store, overrides);
    return office;
  }

  /** An agent whose mandate stands in the books, as after its registration. */
  async agent(name: string, overrides: Partial<Mandate> = {}, terms: Terms = ANYTHING): Promise<PayingAgent> {
    const agent = new PayingAgent(this, keyOf(name));
    const base = BigInt(startOf(DOMAIN, agent.address).base);
    await this.store.transact(() =>
      this.store.addMandate({
        mandate: draftMandate(agent.address, overrides, terms),
        terms,
        unitScale: 1n,
        settled: { base, seq: 0n, spent: 0n },
        revokedAt: null,
        closesAt: NOW + 1_000_000n,
      }),
    );
    return agent;
  }

  /** Everything that the books say, as text: equal texts, equal books. */
  async snapshot(): Promise<string> {
    const { store } = this;
    const mandates = await store.mandates();
    const refusals = await Promise.all(mandates.map(({ mandate }) => store.refusals(mandate.agent)));
    return JSON.stringify(toWire([await store.counts(), mandates, await store.ledger({ limit: 10_000 }), refusals]));
  }
}

/** `payment`, signed by `agent` whatever it says. */
export async function signAs(
  { wallet, address }: Pick<PayingAgent, "wallet" | "address">,
  payment: Payment,
  salt: bigint,
  domain: Domain = DOMAIN,
): Promise<SignedPayment> {
  return { agent: address, payment, salt, signature: await signPayment(wallet, domain, payment) };
}

/** An `Authorization` header of `reader`, for an hour. */
export async function accessOf(reader: Signer & { address: string }, domain: Domain, now: bigint): Promise<string> {
  const access = { account: reader.address as Address, expiresAt: now + 3_600n };
  return accessHeader(access, await signAccess(reader, domain, access));
}

/** The refusal that `attempt` ends with. */
export async function refusalOf(attempt: () => unknown): Promise<BursarError> {
  try {
    await attempt();
  } catch (error) {
    if (error instanceof BursarError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}
