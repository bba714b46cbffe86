import { headHex, policyRoot, startOf, termsHash, type Address, type Domain, type Hex } from "@bursar/protocol";
import { id, Wallet } from "ethers";

import { Processor, receiptKey } from "../../packages/relayer/src/processor.ts";
import { Store } from "../../packages/relayer/src/store.ts";
import { storeUrl } from "./databases.ts";

const now = (): bigint => 1_800_000_000n;

/** A processor and its books, and nothing else: what starts in a few milliseconds can be killed a thousand times. */
export class Books {
  readonly domain: Domain = { chainId: 31_337n, registry: "0x00000000000000000000000000000000000000C3" };
  readonly store: Store;
  readonly processor: Processor;

  private constructor(store: Store) {
    const nothing = (): Promise<never> => Promise.reject(new Error("there is no chain"));
    const { domain } = this;
    this.store = store;
    this.processor = new Processor({
      domain,
      store,
      chain: { mandate: nothing, revocations: nothing },
      key: receiptKey(new Wallet(id("books"))),
      settleWithin: 3_600n,
      now,
    });
  }

  static async open(path: string): Promise<Books> {
    return Books.at(await storeUrl(path));
  }

  /** On an engine of the caller's choice. */
  static async at(url: string): Promise<Books> {
    return new Books(await Store.open(url, { now }));
  }

  /** The key of an agent that may pay anyone one unit at a time; its mandate is in the books. */
  readonly open = async (name: string): Promise<{ address: Address; privateKey: Hex; wallet: Wallet }> => {
    const wallet = new Wallet(id(name));
    const { address, privateKey } = wallet;
    const agent = address as Address;
    const terms = { version: 1 as const, purpose: "to be killed", categories: [], hosts: [] };
    const mandate = {
      owner: this.processor.address,
      agent,
      token: "0x00000000000000000000000000000000000000E5" as Address,
      budget: 10_000_000n,
      paymentCap: 1n,
      validUntil: 1_900_000_000n,
      processor: this.processor.address,
      payees: [],
      policyRoot: headHex(policyRoot([], 1n)),
      termsHash: termsHash(terms),
    };
    const settled = { base: BigInt(startOf(this.domain, agent).base), seq: 0n, spent: 0n };
    await this.store.addMandate({ mandate, terms, unitScale: 1n, settled, revokedAt: null, closesAt: 1_900_100_000n });
    return { address: agent, privateKey: privateKey as Hex, wallet };
  };
}
