import { BursarError, type Address } from "@bursar/protocol";
import type { JsonRpcApiProvider } from "ethers";

import type { Alarms } from "./alarms.ts";
import { reach } from "./chain.ts";
import type { OutboxBook } from "./outbox-book.ts";
import type { Outbox } from "./outbox.ts";
import type { BatchRecord } from "./records.ts";

/** The batches of a processor's books. */
export interface SettledBook extends Pick<OutboxBook, "transactions"> {
  /** The batches that settled last, the oldest of them first. */
  lastSettled(most: number): Promise<Pick<BatchRecord, "id" | "calldata" | "block">[]>;
}

export interface SettledCheckOptions {
  readonly store: SettledBook;
  readonly provider: JsonRpcApiProvider;
  readonly outbox: Outbox;
  /** The contract that settles. */
  readonly settlement: Address;
  readonly alarms: Alarms;
  /** Batches that are looked for, the newest; 20 unless given. */
  readonly most?: number | undefined;
}

/**
 * Looks whether the batches that settled last are still on chain, at the start and now and then. The chain may break its own
 * rule of finality, or the rule was chosen too short: then payments count as settled that are not. Each such batch is told of
 * and sent again, the oldest first: the same bytes, so it settles once whatever the chain remembers.
 */
export class SettledCheck {
  readonly #options: SettledCheckOptions;

  constructor(options: SettledCheckOptions) {
    this.#options = options;
  }

  /**
   * @returns the batches that were gone; each is on chain again, or its alarm stays.
   * @throws {@link BursarError} `chain-unavailable`, `insufficient-funds`: run it again later.
   */
  async run(): Promise<number[]> {
    const { store, most = 20 } = this.#options;
    const gone: number[] = [];
    for (const batch of await store.lastSettled(most)) {
      if (await this.#isOnChain(batch.id)) continue;
      gone.push(batch.id);
      await this.#sendAgain(batch);
    }
    return gone;
  }

  async #isOnChain(id: number): Promise<boolean> {
    const { store, provider, alarms } = this.#options;
    for (const { hash } of await store.transactions(jobOf(id))) {
      const receipt = await reach(() => provider.getTransactionReceipt(hash));
      if (receipt?.status !== 1) continue;
      alarms.clear("settlement-vanished", jobOf(id));
      return true;
    }
    return false;
  }

  async #sendAgain({ id, block, calldata }: Pick<BatchRecord, "id" | "block" | "calldata">): Promise<void> {
    const { outbox, settlement, alarms } = this.#options;
    const job = jobOf(id);
    const alarm = { code: "settlement-vanished", about: job, value: block ?? 0 } as const;
    const message = `Batch ${id} was final in block ${block}, and the chain does not know it any more`;
    alarms.raise({ ...alarm, message: `${message}: it is sent again.` });
    try {
      await outbox.deliver(job, { to: settlement, data: calldata });
      alarms.clear("settlement-vanished", job);
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "transaction-failed") throw error;
      alarms.raise({ ...alarm, message: `${message}, nor takes it again: ${error.message}` });
    }
  }
}

const jobOf = (id: number): string => `batch:${id}`;
