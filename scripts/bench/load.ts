import {
  AgentLedger,
  hashPayment,
  headHex,
  policyRoot,
  signWithKey,
  startOf,
  termsHash,
  type Address,
  type Domain,
  type Hex,
  type PageHash,
  type SignedPayment,
  type Terms,
} from "@bursar/protocol";
import { Processor, receiptKey, type MandateRecord, type ProcessorOptions } from "@bursar/relayer";
import { id, Wallet, ZeroHash } from "ethers";

export const DOMAIN: Domain = { chainId: 31_337n, registry: "0x00000000000000000000000000000000000000C3" };
export const PROCESSOR = new Wallet(id("bench.processor"));
export const PAYEE = "0x0000000000000000000000000000000000000051";
export const AMOUNT = 5n;

const TERMS: Terms = { version: 1, purpose: "benchmark", categories: [], hosts: [] };
const CAP = 1_000n;

export const walletOf = (agent: number): Wallet => new Wallet(id(`bench.agent.${agent}`));

/** The mandate of a numbered agent, as it stands in the books after its registration. */
export function recordOf(agent: number): MandateRecord {
  const address = walletOf(agent).address as Address;
  const mandate = {
    owner: address,
    agent: address,
    token: "0x00000000000000000000000000000000000000E5" as Address,
    budget: 2n ** 60n,
    paymentCap: CAP,
    validUntil: 2n ** 40n,
    processor: PROCESSOR.address as Address,
    payees: [],
    policyRoot: headHex(policyRoot([], CAP)),
    termsHash: termsHash(TERMS),
  };
  const settled = { base: BigInt(startOf(DOMAIN, address).base), seq: 0n, spent: 0n };
  return { mandate, terms: TERMS, unitScale: 1n, settled, revokedAt: null, closesAt: 2n ** 41n };
}

/** Signs the payments of a numbered agent, one after the other. */
export function* paymentsOf(agent: number, hashPage: PageHash): Generator<SignedPayment, never> {
  const { address, privateKey } = walletOf(agent);
  const secret = id(address) as Hex;
  const ledger = new AgentLedger({ domain: DOMAIN, agent: address as Address, secret, hashPage });
  const line = { payee: PAYEE as Address, amount: AMOUNT, ref: ZeroHash as Hex };
  for (;;) {
    const { payment, salt } = ledger.append(line);
    const signature = signWithKey(hashPayment(DOMAIN, payment), privateKey as Hex);
    yield { agent: address as Address, payment, signature, salt };
  }
}

/** The first payments of so many agents, each agent's in its order. */
export function signAll(agents: number, each: number, hashPage: PageHash): SignedPayment[][] {
  return Array.from({ length: agents }, (_, agent) => {
    const signer = paymentsOf(agent, hashPage);
    return Array.from({ length: each }, () => signer.next().value);
  });
}

/** A processor on books in which its mandates stand: accepting asks no chain. */
export function processorOn({ store, ...options }: Pick<ProcessorOptions, "store" | "hashPage" | "events">): Processor {
  const nothing = (): Promise<never> => Promise.reject(new Error("the benchmark asks no chain"));
  return new Processor({
    domain: DOMAIN,
    store,
    chain: { mandate: nothing, revocations: nothing },
    key: receiptKey(PROCESSOR),
    settleWithin: 3_600n,
    now: () => BigInt(Math.floor(Date.now() / 1_000)),
    ...options,
  });
}
