import { BursarError, hashClose, type Address, type Close, type Hex } from "@bursar/protocol";

import { MANDATE_STATES, reach, type Chain } from "./chain.ts";
import type { Book, Columns, Database } from "./database.ts";
import type { Outbox } from "./outbox.ts";
import { ownerSigned } from "./owner-signature.ts";
import type { Processor, ReceiptKey } from "./processor.ts";
import type { Store } from "./store.ts";

/**
 * `settling`: the agent is stopped, what it paid goes to the chain. `noticed`: the chain has both signatures. `closed`: the
 * rest is the owner's. `failed`: the contract refuses, see `failure`; the windows of a revocation run instead.
 */
export type ClosingState = "settling" | "noticed" | "closed" | "failed";

/** How far a mandate is that its owner ends together with the processor. */
export interface Closing extends Close {
  readonly state: ClosingState;
  /** Unix seconds from which on it can be closed; null until the chain has both signatures. */
  readonly closesAt: bigint | null;
  readonly failure: string | null;
}

export interface ClosingsOptions {
  readonly store: Store;
  readonly processor: Processor;
  readonly chain: Chain;
  readonly outbox: Outbox;
  /** The processor's. */
  readonly key: ReceiptKey;
  /** Sends the transactions. */
  readonly sender: Address;
  /** Told of an end that the contract refuses. */
  readonly failed: (agent: Address, error: BursarError) => void;
  /** Unix seconds. */
  readonly now: () => bigint;
}

const FIRST = `
CREATE TABLE closing (
  agent TEXT PRIMARY KEY,
  seq INTEGER NOT NULL,
  owner_signature TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('settling', 'noticed', 'closed', 'failed')),
  closes_at INTEGER,
  failure TEXT
) STRICT;
`;

export const CLOSINGS_BOOK: Book = { name: "closings", versions: [FIRST] };

/**
 * Ends mandates by one signature each of owner and processor: the agent is stopped at once, what it paid is settled, the
 * chain gets both signatures, and an hour later the rest goes back to the owner.
 */
export class Closings {
  readonly #options: ClosingsOptions;
  readonly #db: Database;

  constructor(options: ClosingsOptions) {
    this.#options = options;
    this.#db = options.store.database;
  }

  async get(agent: Address): Promise<Closing | undefined> {
    const row = await this.#db.get("SELECT * FROM closing WHERE agent = ?", agent);
    return row && readClosing(row);
  }

  /**
   * Takes the owner's word and stops the agent. Repeating it changes nothing and tells how far it has come.
   * @throws {@link BursarError} `mandate-unknown`, `signature-*`, `chain-unavailable`; `books-behind`; `mandate-closed`; `close-mismatch`
   * unless it names the last payment that was accepted.
   */
  async request(close: Close, signature: Hex): Promise<Closing> {
    const { store, processor, chain } = this.#options;
    const { agent, seq } = close;
    const { mandate } = await store.mandateOf(agent);
    await processor.expectWhole(agent);
    const ownerSignature = await ownerSigned(
      chain.provider,
      mandate.owner,
      hashClose(processor.domain, close),
      signature,
    );
    await store.transact(async () => {
      await store.lockMandates([agent]);
      const { state, accepted } = await processor.status(agent);
      if (accepted.seq !== seq) throw mismatch(agent, seq, accepted.seq);
      if (await this.get(agent)) return;
      if (state === "closed") {
        throw new BursarError("mandate-closed", `The mandate of ${agent} is closed.`, { value: agent });
      }
      await this.#db.run(
        "INSERT INTO closing (agent, seq, owner_signature, state) VALUES (?, ?, ?, 'settling')",
        agent,
        Number(seq),
        ownerSignature,
      );
      await store.markRevoked(agent, this.#options.now());
    });
    return (await this.get(agent))!;
  }

  /** Takes each one as far as it goes now. @throws {@link BursarError} `chain-unavailable`: run it again later. */
  async run(): Promise<void> {
    const rows = await this.#db.all("SELECT * FROM closing WHERE state IN ('settling', 'noticed')");
    for (const row of rows) {
      const { agent, state, seq } = readClosing(row);
      if (state === "settling") await this.#notice(agent, seq, row["owner_signature"] as Hex);
      else await this.#close(agent);
    }
  }

  async #notice(agent: Address, seq: bigint, ownerSignature: Hex): Promise<void> {
    const { store, processor, chain, key } = this.#options;
    const onChain = await chain.mandate(agent);
    if (onChain.state === "closed") {
      await this.#move(agent, "closed", { closesAt: onChain.closesAt });
      return;
    }
    if (onChain.seq < seq || onChain.directSpent < (await store.reserved(agent))) return;
    if (!(await processor.isWhole(agent))) return;
    const processorSignature = key.sign(hashClose(processor.domain, { agent, seq }));
    const data = chain.registry.interface.encodeFunctionData("closeTogether", [
      agent,
      seq,
      ownerSignature,
      processorSignature,
    ]) as Hex;
    await this.#deliver(agent, `close-together:${agent}`, data, "noticed");
  }

  async #close(agent: Address): Promise<void> {
    const { chain, outbox } = this.#options;
    const job = `close:${agent}`;
    const { state, closesAt } = await reach(() => chain.registry.mandateOf(agent));
    if (MANDATE_STATES[Number(state)] === "closed" && !(await outbox.begun(job))) {
      await this.#move(agent, "closed", { closesAt });
      return;
    }
    // A claim may have brought the windows back meanwhile.
    const time = BigInt((await reach(() => chain.provider.getBlock("latest")))?.timestamp ?? 0);
    if (!(await outbox.begun(job)) && time < closesAt) {
      await this.#move(agent, "noticed", { closesAt });
      return;
    }
    const data = chain.registry.interface.encodeFunctionData("close", [agent]) as Hex;
    await this.#deliver(agent, job, data, "closed");
  }

  /** Sends both signatures, or the end; a refusal of the contract is recorded, and said. */
  async #deliver(agent: Address, job: string, data: Hex, reached: ClosingState): Promise<void> {
    const { chain, outbox, sender, failed } = this.#options;
    const to = chain.rail.registry;
    try {
      if (!(await outbox.begun(job))) await chain.simulate(to, data, sender);
      await outbox.deliver(job, { to, data });
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "transaction-failed") throw error;
      await this.#move(agent, "failed", { failure: error.message });
      failed(agent, error);
      return;
    }
    const { closesAt } = await reach(() => chain.registry.mandateOf(agent));
    await this.#move(agent, reached, { closesAt });
  }

  async #move(
    agent: Address,
    state: ClosingState,
    { closesAt, failure }: { closesAt?: bigint; failure?: string },
  ): Promise<void> {
    const { store, now } = this.#options;
    await store.transact(async () => {
      await this.#db.run(
        "UPDATE closing SET state = ?, closes_at = COALESCE(?, closes_at), failure = ? WHERE agent = ?",
        state,
        closesAt === undefined ? null : Number(closesAt),
        failure ?? null,
        agent,
      );
      if (closesAt !== undefined) await store.markRevoked(agent, now(), closesAt);
    });
  }
}

function readClosing(row: Columns): Closing {
  const closesAt = row["closes_at"] ?? null;
  return {
    agent: row["agent"] as Address,
    seq: BigInt(row["seq"]!),
    state: row["state"] as ClosingState,
    closesAt: closesAt === null ? null : BigInt(closesAt),
    failure: row["failure"] as string | null,
  };
}

function mismatch(agent: Address, seq: bigint, accepted: bigint): BursarError {
  return new BursarError(
    "close-mismatch",
    `The close of ${agent} names payment ${seq}; ${accepted} is the last one that was accepted.`,
    { value: seq, limit: accepted },
    `Sign a close at payment ${accepted}.`,
  );
}
