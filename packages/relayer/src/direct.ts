import { setTimeout } from "node:timers/promises";

import { BursarError, type Address, type DirectPayment, type Hex } from "@bursar/protocol";

import { ALONE, type Lease } from "./lease.ts";
import type { Outbox } from "./outbox.ts";
import type { DirectKind, DirectRecord } from "./records.ts";
import type { Store } from "./store.ts";

/** A direct payment as the contract takes it. */
export interface DirectCall extends DirectPayment {
  /** The mandate's clear payee list: the contract keeps its hash alone. */
  readonly payees: readonly Address[];
  /** Base units of the token in one unit. */
  readonly unitScale: bigint;
}

/** The direct settlement contract, as far as settling needs it. */
export interface DirectGateway {
  readonly direct: Address;
  encodeDirect(kind: DirectKind, calls: readonly DirectCall[]): Hex;
  /** Runs the call without sending it. @throws BursarError `transaction-failed` with the contract's own error. */
  simulate(to: Address, calldata: Hex, from: Address): Promise<void>;
}

export interface DirectSettlerOptions {
  store: Store;
  gateway: DirectGateway;
  outbox: Outbox;
  /** Account that sends settlements: the mandates' processor. */
  sender: Address;
  /** Of whoever sends with that account, where several processes share the books. */
  lease?: Pick<Lease, "run">;
}

/** Payments that go into one transaction: each takes about 100,000 gas. */
const GROUP = 50;
/** Milliseconds between looks at a payment that is awaited: any process may bring it to its end. */
const LOOK = 50;

/**
 * Settles payments of the direct rail: whatever waits while one transaction is under way goes into the next. What was
 * begun is recorded first, so that {@link run} after a crash follows the same transaction to its end.
 */
export class DirectSettler {
  readonly #options: DirectSettlerOptions;
  #running: Promise<void> | null = null;

  constructor(options: DirectSettlerOptions) {
    this.#options = options;
  }

  /**
   * Brings every direct payment to its end, unless another process does.
   * @throws {@link BursarError} `chain-unavailable`, `lease-lost`: run it again later.
   */
  run(): Promise<void> {
    const { lease = ALONE } = this.#options;
    this.#running ??= lease
      .run(() => this.#settleAll())
      .then(() => undefined)
      .finally(() => (this.#running = null));
    return this.#running;
  }

  /**
   * The payment once it has an end, or as it stands after `timeout` milliseconds.
   */
  async settled(record: DirectRecord, { timeout }: { timeout: number }): Promise<DirectRecord> {
    const late = performance.now() + timeout;
    // What it cannot do now it does at its next run: the record stays.
    void this.run().catch(() => undefined);
    for (;;) {
      const now = await this.#now(record);
      if (isEnded(now) || performance.now() >= late) return now;
      await setTimeout(LOOK);
    }
  }

  async #now({ kind, agent, nonce }: DirectRecord): Promise<DirectRecord> {
    const record = await this.#options.store.direct(kind, agent, nonce);
    if (!record) throw new Error(`direct payment ${nonce} of ${agent} is missing from the store`);
    return record;
  }

  async #settleAll(): Promise<void> {
    const { store } = this.#options;
    for (const job of await store.directJobs()) await this.#finish(job, await store.openDirects(job));
    for (;;) {
      const waiting = (await store.openDirects()).filter(({ status }) => status === "accepted");
      const [first] = waiting;
      if (!first) return;
      // The contract computes a token's signing domain once for each run of payments in it.
      const group = waiting.filter(({ kind, token }) => kind === first.kind && token === first.token).slice(0, GROUP);
      const sound = await this.#sound(group);
      if (sound.length === 0) continue;
      const positions = sound.map(({ position }) => position);
      const job = await store.transact(() => store.submitDirects(positions));
      await this.#finish(job, await store.openDirects(job));
    }
  }

  /** Those that the contract takes; the others end here, with its reason. */
  async #sound(group: readonly DirectRecord[]): Promise<readonly DirectRecord[]> {
    if ((await this.#refusal(group)) === null) return group;
    const sound: DirectRecord[] = [];
    for (const record of group) {
      const refusal = await this.#refusal([record]);
      if (refusal === null) sound.push(record);
      else await this.#end([record], { status: "failed", transaction: null, error: refusal });
    }
    // Each alone may be sound and all together above a budget: then one at a time.
    return (await this.#refusal(sound)) === null ? sound : sound.slice(0, 1);
  }

  async #refusal(records: readonly DirectRecord[]): Promise<string | null> {
    const { gateway, sender } = this.#options;
    if (records.length === 0) return null;
    try {
      await gateway.simulate(gateway.direct, await this.#encode(records), sender);
      return null;
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "transaction-failed") throw error;
      return error.message;
    }
  }

  async #finish(job: string, records: readonly DirectRecord[]): Promise<void> {
    const { gateway, outbox, store } = this.#options;
    try {
      const { hash } = await outbox.deliver(job, { to: gateway.direct, data: await this.#encode(records) });
      await this.#end(records, { status: "settled", transaction: hash as Hex, error: null });
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "transaction-failed") throw error;
      await store.transact(() => store.releaseDirects(job));
    }
  }

  async #end(records: readonly DirectRecord[], end: Parameters<Store["endDirect"]>[1]): Promise<void> {
    const { store } = this.#options;
    await store.transact(async () => {
      for (const { position } of records) await store.endDirect(position, end);
    });
  }

  async #encode(records: readonly DirectRecord[]): Promise<Hex> {
    const { store, gateway } = this.#options;
    const calls = await Promise.all(
      records.map(async (record) => {
        const { mandate, unitScale } = await store.signed(record.agent);
        return { ...record, payees: mandate.payees, unitScale };
      }),
    );
    return gateway.encodeDirect(records[0]!.kind, calls);
  }
}

function isEnded({ status }: DirectRecord): boolean {
  return status === "settled" || status === "failed";
}
