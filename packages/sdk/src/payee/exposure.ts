import { BursarError, type Address, type Domain } from "@bursar/protocol";

import type { MandateSnapshot, MandateSource } from "./mandates.ts";
import type { ReceiptStore } from "./receipts.ts";

/** Part of a bond that may be unsettled. */
const BOND_PART = 100n;
/** Seconds for which a bond is taken as read. */
const BOND_AGE = 60n;
/** Above this part of the limit, in percent, the chain is asked what has settled meanwhile. */
const NEAR = 80n;
/** Mandates that one refresh asks for, and how many at a time. */
const REFRESH_MOST = 1_000;
const REFRESH_AT_ONCE = 8;
const LEARNED_MOST = 10_000;

export interface ExposureOptions {
  readonly domain: Domain;
  readonly receipts: ReceiptStore;
  readonly mandates: MandateSource;
  /** Units. */
  readonly maxUnsettled: bigint;
  readonly bond?: ((processor: Address) => Promise<bigint>) | undefined;
  /** Seconds between refreshes of one processor. */
  readonly refreshEvery: number;
  readonly now: () => bigint;
}

/** How much a payee lets a processor owe, and what the chain has freed of it. The sums are the store's. */
export class Exposure {
  readonly #options: ExposureOptions;
  readonly #bonds = new Map<Address, { readonly units: bigint; readonly readAt: bigint }>();
  readonly #refreshed = new Map<Address, bigint>();
  readonly #refreshing = new Map<Address, Promise<void>>();
  /** The last number of each agent that the store was told to be settled. */
  readonly #learned = new Map<Address, bigint>();

  constructor(options: ExposureOptions) {
    this.#options = options;
  }

  /**
   * The most that may be unsettled with a processor, in units: 1 % of its bond, and `maxUnsettled`.
   *
   * @throws BursarError `chain-unavailable` when the bond cannot be read.
   */
  async limitOf(processor: Address): Promise<bigint> {
    const { bond, maxUnsettled, now } = this.#options;
    if (bond === undefined) return maxUnsettled;
    let known = this.#bonds.get(processor);
    if (known === undefined || now() - known.readAt >= BOND_AGE) {
      known = { units: await readBond(bond, processor), readAt: now() };
      this.#bonds.set(processor, known);
    }
    const part = known.units / BOND_PART;
    return part < maxUnsettled ? part : maxUnsettled;
  }

  /** Frees what a snapshot shows to be settled, if it is news. */
  async learn(snapshot: MandateSnapshot): Promise<void> {
    if (snapshot.seq > (this.#learned.get(snapshot.mandate.agent) ?? 0n)) await this.#tell(snapshot);
  }

  /** Begins a refresh, without waiting for it, when `units` are near the limit. */
  watch(processor: Address, units: bigint, limit: bigint): void {
    if (units * 100n >= limit * NEAR) void this.refresh(processor).catch(() => undefined);
  }

  /**
   * Asks the chain which payments through a processor have settled. At most once in `refreshEvery` seconds; calls in
   * between wait for the one under way, or do nothing.
   *
   * @throws BursarError `chain-unavailable`, `store-unavailable`
   */
  refresh(processor: Address): Promise<void> {
    const under = this.#refreshing.get(processor);
    if (under !== undefined) return under;
    const { now, refreshEvery } = this.#options;
    const last = this.#refreshed.get(processor);
    if (last !== undefined && now() - last < BigInt(refreshEvery)) return Promise.resolve();
    this.#refreshed.set(processor, now());
    const work = this.#refresh(processor).finally(() => this.#refreshing.delete(processor));
    this.#refreshing.set(processor, work);
    return work;
  }

  async #refresh(processor: Address): Promise<void> {
    const { receipts, mandates, domain, refreshEvery } = this.#options;
    const agents = [...(await receipts.unsettled(domain, processor, REFRESH_MOST))];
    const worker = async (): Promise<void> => {
      for (let agent = agents.pop(); agent !== undefined; agent = agents.pop()) {
        const snapshot = await mandates.mandate(agent, refreshEvery);
        if (snapshot !== null) await this.#tell(snapshot);
      }
    };
    await Promise.all(Array.from({ length: REFRESH_AT_ONCE }, worker));
  }

  async #tell({ mandate: { agent }, seq }: MandateSnapshot): Promise<void> {
    await this.#options.receipts.settled(this.#options.domain, agent, seq);
    if (this.#learned.size >= LEARNED_MOST) this.#learned.clear();
    this.#learned.set(agent, seq);
  }
}

async function readBond(bond: (processor: Address) => Promise<bigint>, processor: Address): Promise<bigint> {
  try {
    return await bond(processor);
  } catch (error) {
    if (error instanceof BursarError) throw error;
    throw new BursarError(
      "chain-unavailable",
      "The payee cannot read the processor's bond.",
      { value: processor },
      "Repeat the request with the same payment later; nothing was used.",
    );
  }
}
