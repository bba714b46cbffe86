import { BursarError, headHex, type Address, type Hex } from "@bursar/protocol";

import type { Chain } from "./chain.ts";
import type { Outbox } from "./outbox.ts";
import type { Processor } from "./processor.ts";
import type { Store } from "./store.ts";

export interface AcknowledgementsOptions {
  readonly store: Store;
  readonly processor: Processor;
  readonly chain: Chain;
  readonly outbox: Outbox;
  /** Told of an answer that the contract refused: the mandate falls to claims. */
  readonly failed: (agent: Address, error: BursarError) => void;
  /** Unix seconds. */
  readonly now: () => bigint;
}

/**
 * Answers revocations on chain: up to which payment, head and direct total receipts were given. Unanswered within the
 * deployment's window, a mandate can be settled no more.
 */
export class Acknowledgements {
  readonly #options: AcknowledgementsOptions;
  readonly #done = new Set<Address>();

  constructor(options: AcknowledgementsOptions) {
    this.#options = options;
  }

  /**
   * Answers each revocation that is final and unanswered.
   * @throws {@link BursarError} `chain-unavailable`; `books-behind` after all others, when books that were put back cannot
   * tell one of them its last payment.
   */
  async run(): Promise<void> {
    const { store, now } = this.#options;
    let behind: BursarError | null = null;
    for (const { mandate, revokedAt, closesAt } of await store.mandates()) {
      if (revokedAt === null || closesAt <= now() || this.#done.has(mandate.agent)) continue;
      try {
        if (await this.#answer(mandate.agent)) this.#done.add(mandate.agent);
      } catch (error) {
        if (!(error instanceof BursarError) || error.code !== "books-behind") throw error;
        behind = error;
      }
    }
    if (behind !== null) throw behind;
  }

  async #answer(agent: Address): Promise<boolean> {
    const { chain, outbox, processor, failed } = this.#options;
    const job = `acknowledge:${agent}`;
    // Revoked by the owner's word alone: the books stopped it, and the chain may never hear of it.
    const { state, base } = await chain.mandate(agent);
    if (state !== "revoked") return state === "closed" || state === "fallback";
    if (!(await outbox.begun(job)) && (await chain.registry.acknowledgementOf(agent)).acknowledged) return true;
    await processor.expectWhole(agent);
    const { accepted, reserved } = await processor.status(agent);
    const head: Hex = (await processor.last(agent))?.payment.head ?? headHex(base);
    const data = chain.registry.interface.encodeFunctionData("acknowledge", [agent, accepted.seq, head, reserved]);
    try {
      await outbox.deliver(job, { to: chain.rail.registry, data });
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "transaction-failed") throw error;
      failed(agent, error);
    }
    return true;
  }
}
