import { setTimeout as pause } from "node:timers/promises";

import { BursarError, type Address, type Credit, type Domain, type Hex, type Row } from "@bursar/protocol";
import { circuitSize, type BatchRow, type CircuitSize, type Proof, type Statement } from "@bursar/prover";
import type { Span } from "@opentelemetry/api";

import { aboutBatch, BatchProofs, isUnproved } from "./batch-proofs.ts";
import type { Outbox } from "./outbox.ts";
import { plan, replay, type BatchPolicy } from "./planner.ts";
import type { ProofQueue } from "./proof-queue.ts";
import type { BatchRecord, BatchState } from "./records.ts";
import type { Store } from "./store.ts";
import { contextOf, isTracing, MOST_LINKS, traced, tracedFrom } from "./trace.ts";

/** A circuit that the settlement contract accepts proofs of. */
export interface Circuit {
  readonly size: CircuitSize;
  /** Names the verification key on chain. */
  readonly circuitId: Hex;
}

/** Arguments of `BatchSettlement.settle`. */
export interface SettleCall {
  readonly circuitId: Hex;
  /** Each row with the agent's last signed payment in it. */
  readonly rows: readonly (Row & { readonly lineHash: Hex; readonly signature: Hex })[];
  readonly credits: readonly Credit[];
  readonly commitment: bigint;
  readonly evaluation: bigint;
  readonly proof: Proof["proof"];
}

/** The settlement contract, as far as settling needs it. */
export interface SettlementGateway {
  readonly settlement: Address;
  /** What the registry says to rows and credits, without a proof: null, or the reason why it would refuse them. */
  checkRows(rows: SettleCall["rows"], credits: SettleCall["credits"], from: Address): Promise<string | null>;
  encode(call: SettleCall): Hex;
  /** Runs the call without sending it. @throws BursarError `transaction-failed` with the contract's own error. */
  simulate(to: Address, calldata: Hex, from: Address): Promise<void>;
}

/** A batch as it was proved. */
export interface SettledBatch {
  readonly circuit: Circuit;
  readonly parts: readonly BatchRow[];
  readonly statement: Statement;
}

export interface BatchProver {
  prove(size: CircuitSize, statement: Statement, challenge: bigint): Promise<Proof>;
}

export interface SettlerOptions {
  domain: Domain;
  store: Store;
  circuits: readonly Circuit[];
  gateway: SettlementGateway;
  prover: BatchProver;
  /** Where workers take batches to prove from; they are proved here, one after another, unless given. */
  queue?: ProofQueue | undefined;
  outbox: Outbox;
  /** Account that sends settlements: the mandates' processor. */
  sender: Address;
  /** Which batches are due, asked before each plan; without it, whatever waits is. */
  policy?: (() => Promise<BatchPolicy>) | undefined;
  /** Unix seconds. */
  now: () => bigint;
}

export interface SettleOptions {
  /** Whether proofs that workers will bring are waited for. */
  readonly untilProved?: boolean;
  /** Told of each batch when it ends. */
  readonly ended?: (batch: BatchRecord) => void;
}

/**
 * Takes accepted payments to the chain: plan, prove, submit, follow to the end. Each step is recorded before the next
 * begins, so that {@link finish} continues wherever the last run stopped.
 */
export class Settler {
  readonly #options: SettlerOptions;
  readonly #proofs: BatchProofs;

  constructor(options: SettlerOptions) {
    this.#options = options;
    this.#proofs = new BatchProofs(options);
  }

  /**
   * Finishes what is under way, then plans and settles until no batch is due. A batch that fails is planned again
   * without the mandates that the contract refuses; if it refuses none of them, this ends. Where workers prove, batches
   * are planned and settled side by side, and one that they gave up stays as it is.
   */
  async run(): Promise<BatchRecord[]> {
    if (this.#options.queue) {
      await this.begin();
      return this.settle({ untilProved: true });
    }
    const ended: BatchRecord[] = [];
    for (const { id } of await this.#options.store.batches(UNFINISHED)) ended.push(await this.finish(id));
    for (let next = await this.plan(); next; next = await this.plan()) {
      const batch = await this.finish(next.id);
      ended.push(batch);
      if (batch.state === "failed" && !(await this.#lessOne(batch))) break;
    }
    return ended;
  }

  /** Plans batches until no payment waits, and asks for the proofs of all that have none. */
  async begin(): Promise<void> {
    const { store, queue } = this.#options;
    for (const batch of await store.batches(UNPROVED)) {
      // Unless another program planned it, it was sent with its plan.
      const job = await this.#proofs.job(batch);
      await store.transact(() => queue!.send(job));
    }
    for (let next = await this.plan(); next; next = await this.plan()) await this.#withoutOffenders(next);
  }

  /**
   * Settles batches that are proved, each by itself, as long as there are any; one whose proof takes long is left to a
   * later call, or waited for.
   * @throws the first error, once nothing is under way: what it stopped can be resumed.
   */
  async settle({ untilProved = false, ended }: SettleOptions = {}): Promise<BatchRecord[]> {
    const { store } = this.#options;
    const under = new Map<number, Promise<BatchRecord>>();
    let open = 0;
    for (;;) {
      for (const { id } of await store.batches(PROVED)) {
        if (under.has(id)) continue;
        ++open;
        const ending = this.finish(id).finally(() => --open);
        ending.then(ended, () => undefined);
        under.set(id, ending);
      }
      if (open === 0 && !(untilProved && (await this.#mayFollow(under)))) return Promise.all(under.values());
      await pause(LOOK);
    }
  }

  /** Whether a batch that is not under way yet will be proved. */
  async #mayFollow(under: ReadonlyMap<number, unknown>): Promise<boolean> {
    const { store, queue } = this.#options;
    const dead = new Set((await queue!.dead()).map(({ batch }) => batch));
    return (await store.batches(UNFINISHED)).some(({ id }) => !under.has(id) && !dead.has(id));
  }

  /** Whether a mandate of the batch is left out of further ones. */
  async #lessOne({ rows }: BatchRecord): Promise<boolean> {
    for (const { agent } of rows) if ((await this.#options.store.excluded(agent)) !== null) return true;
    return false;
  }

  /** Records the next batch, or returns undefined when none is due. */
  async plan(): Promise<BatchRecord | undefined> {
    const { store, circuits, queue, now } = this.#options;
    const sizes = circuits.map(({ size }) => size);
    const policy = await this.#options.policy?.();
    const began = performance.now();
    return store.transact(async () => {
      const planned = await plan(store, sizes, now(), policy);
      if (!planned) return undefined;
      const { circuit, token, payments } = planned;
      const { rows } = this.#proofs.layOut(circuit, planned.rows);
      const id = await store.addBatch({
        circuit,
        token,
        payments,
        rows: await Promise.all(
          rows.map(async (row) => ({ ...row, spent: (await store.mandateOf(row.agent)).settled.spent })),
        ),
        total: rows.reduce((sum, { debit }) => sum + debit, 0n),
        createdAt: now(),
      });
      if (isTracing()) await this.#trace({ id, circuit, payments, rows }, began);
      const batch = await this.#proofs.batch(id);
      await queue?.send(await this.#proofs.job(batch));
      return batch;
    });
  }

  /** A batch goes on with the trace of its first payment that is traced, and is linked to those of some others. */
  async #trace(
    { id, circuit, payments, rows }: Pick<BatchRecord, "id" | "circuit" | "payments"> & { rows: readonly Row[] },
    began: number,
  ): Promise<void> {
    const { store } = this.#options;
    const attributes = { ...aboutBatch(id, circuit), "bursar.payments": payments, "bursar.mandates": rows.length };
    await store.setTrace(id, tracedFrom("batch", began, attributes, await store.tracesOf(id, 1 + MOST_LINKS)));
  }

  /** Proves a planned batch here and records the call that settles it. */
  async prove(id: number): Promise<BatchRecord> {
    await this.#proofs.record(await this.#proofs.make(id, this.#options.prover));
    return this.#proofs.batch(id);
  }

  /**
   * Brings a batch to its end: settled, or failed with the contract's reason and its payments free for the next batch.
   * @throws {@link BursarError} `chain-unavailable`, `key-*`: the batch stays where it is and can be resumed.
   */
  async finish(id: number): Promise<BatchRecord> {
    const { store } = this.#options;
    const batch = await this.#proofs.batch(id);
    if (batch.state === "settled" || batch.state === "failed") return batch;
    const unproved = isUnproved(batch);
    if (unproved && (await this.#withoutOffenders(batch))) return this.#proofs.batch(id);
    const { calldata } = unproved ? await this.prove(id) : batch;
    if (!calldata) throw new Error(`batch ${id} is ${batch.state} without calldata`);
    try {
      const attributes = aboutBatch(id, batch.circuit);
      await traced("settlement", { attributes }, (span) => this.#settle(batch, calldata, span), contextOf(batch.trace));
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "transaction-failed") throw error;
      await store.markFailed(id, error.message);
    }
    return this.#proofs.batch(id);
  }

  async #settle(batch: BatchRecord, calldata: Hex, span: Span): Promise<void> {
    const { store, gateway, outbox, sender } = this.#options;
    const job = `batch:${batch.id}`;
    if (!(await outbox.begun(job))) await gateway.simulate(gateway.settlement, calldata, sender);
    await store.markSubmitted(batch.id);
    const { hash, blockNumber, gasUsed } = await outbox.deliver(
      job,
      { to: gateway.settlement, data: calldata },
      await this.#mayWaitUntil(batch),
    );
    await store.markSettled(batch.id, { transaction: hash as Hex, block: blockNumber, gasUsed });
    span.setAttributes({
      "bursar.transaction": hash,
      "bursar.block": blockNumber,
      "bursar.gas": Number(gasUsed),
      "bursar.gas_per_payment": Number(gasUsed) / batch.payments,
    });
  }

  /**
   * Asks the registry about a batch before anything is spent on its proof. Mandates that it refuses are left out of all
   * further batches, and the batch ends, so that one bad mandate blocks no other.
   * @returns whether there were any.
   */
  async #withoutOffenders(batch: BatchRecord): Promise<boolean> {
    const { store, gateway, queue, sender } = this.#options;
    const { id, circuit } = batch;
    const { rows, credits } = this.#proofs.layOut(circuit, await replay(store, batch));
    const signed = await this.#proofs.signed(rows);
    if ((await gateway.checkRows(signed, credits, sender)) === null) return false;
    const refused: string[] = [];
    for (const row of signed) {
      const reason = await gateway.checkRows([row], [{ payee: sender, amount: row.debit }], sender);
      if (reason === null) continue;
      await store.exclude(row.agent, reason);
      refused.push(`${row.agent}: ${reason}`);
    }
    if (refused.length === 0) return false;
    return store.transact(async () => {
      await queue?.cancel({ batch: id, circuit });
      // A worker may have been faster: what is proved is on its way, and the contract will say.
      return store.markFailed(id, `The contract refuses ${refused.join("; ")}`, UNPROVED);
    });
  }

  /** A batch waits for cheaper days until its first receipt falls due, less what mining and finality may take. */
  async #mayWaitUntil(batch: BatchRecord): Promise<bigint> {
    return (await this.#proofs.due(batch)) - URGENT;
  }

  /** What a recorded batch proved, laid out again from the payments. */
  settled(id: number): Promise<SettledBatch> {
    return this.#proofs.settled(id);
  }
}

/** Seconds before the first settle-by from which on a batch waits for nothing. */
const URGENT = 1_800n;

const UNPROVED: readonly BatchState[] = ["planned", "proving"];
const PROVED: readonly BatchState[] = ["proved", "submitted"];
const UNFINISHED = [...UNPROVED, ...PROVED];
/** Milliseconds between looks for batches that were proved. */
const LOOK = 500;

/** The circuits whose key identifiers a deployment names. */
export function availableCircuits(circuits: Readonly<Record<string, Hex>>): Circuit[] {
  return Object.entries(circuits).map(([name, circuitId]) => ({ size: circuitSize(name), circuitId }));
}
