import {
  BursarError,
  challenge,
  hashLine,
  transcript,
  type Address,
  type Credit,
  type Domain,
  type Hex,
  type Row,
} from "@bursar/protocol";
import { circuitSize, layOut, type BatchRow, type CircuitSize, type Proof, type Statement } from "@bursar/prover";
import type { Span } from "@opentelemetry/api";

import type { Outbox } from "./outbox.ts";
import { plan, replay, type BatchPolicy } from "./planner.ts";
import type { BatchRecord } from "./records.ts";
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
  outbox: Outbox;
  /** Account that sends settlements: the mandates' processor. */
  sender: Address;
  /** Which batches are due, asked before each plan; without it, whatever waits is. */
  policy?: (() => Promise<BatchPolicy>) | undefined;
  /** Unix seconds. */
  now: () => bigint;
}

/**
 * Takes accepted payments to the chain: plan, prove, submit, follow to the end. Each step is recorded before the next
 * begins, so that {@link finish} continues wherever the last run stopped.
 */
export class Settler {
  readonly #options: SettlerOptions;

  constructor(options: SettlerOptions) {
    this.#options = options;
  }

  /**
   * Finishes what is under way, then plans and settles until no batch is due. A batch that fails is planned again
   * without the mandates that the contract refuses; if it refuses none of them, this ends.
   */
  async run(): Promise<BatchRecord[]> {
    const ended: BatchRecord[] = [];
    for (const { id } of await this.#options.store.batches(UNFINISHED)) ended.push(await this.finish(id));
    for (let next = await this.plan(); next; next = await this.plan()) {
      const batch = await this.finish(next.id);
      ended.push(batch);
      if (batch.state === "failed" && !(await this.#lessOne(batch))) break;
    }
    return ended;
  }

  /** Whether a mandate of the batch is left out of further ones. */
  async #lessOne({ rows }: BatchRecord): Promise<boolean> {
    for (const { agent } of rows) if ((await this.#options.store.excluded(agent)) !== null) return true;
    return false;
  }

  /** Records the next batch, or returns undefined when none is due. */
  async plan(): Promise<BatchRecord | undefined> {
    const { store, circuits, now } = this.#options;
    const sizes = circuits.map(({ size }) => size);
    const policy = await this.#options.policy?.();
    const began = performance.now();
    return store.transact(async () => {
      const planned = await plan(store, sizes, now(), policy);
      if (!planned) return undefined;
      const { circuit, token, payments } = planned;
      const { rows } = this.#layOut(circuit, planned.rows);
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
      if (isTracing()) await this.#trace(await this.#batch(id), began);
      return this.#batch(id);
    });
  }

  /** A batch goes on with the trace of its first payment that is traced, and is linked to those of some others. */
  async #trace({ id, circuit, payments, rows }: BatchRecord, began: number): Promise<void> {
    const { store } = this.#options;
    const attributes = { ...about(id, circuit), "bursar.payments": payments, "bursar.mandates": rows.length };
    await store.setTrace(id, tracedFrom("batch", began, attributes, await store.tracesOf(id, 1 + MOST_LINKS)));
  }

  /** Proves a planned batch and records the call that settles it. */
  async prove(id: number): Promise<BatchRecord> {
    const { store, domain, gateway, prover } = this.#options;
    const batch = await this.#batch(id);
    const { circuitId, size } = this.#circuit(batch.circuit);
    const statement = this.#layOut(batch.circuit, await replay(store, batch));
    const { rows, credits, commitment } = statement;
    const bound = transcript({
      chainId: domain.chainId,
      settlement: gateway.settlement,
      circuitId,
      commitment,
      rows,
      credits,
    });
    await store.transact(() => store.markProving(id));
    const began = performance.now();
    const { proof, signals } = await traced(
      "proof",
      { attributes: about(id, batch.circuit) },
      () => prover.prove(size, statement, challenge(bound)),
      contextOf(batch.trace),
    );
    const calldata = gateway.encode({
      circuitId,
      rows: await this.#signed(rows),
      credits,
      commitment,
      evaluation: signals.T,
      proof,
    });
    await store.transact(() => store.markProved(id, calldata, Math.round(performance.now() - began)));
    return this.#batch(id);
  }

  /**
   * Brings a batch to its end: settled, or failed with the contract's reason and its payments free for the next batch.
   * @throws {@link BursarError} `chain-unavailable`, `key-*`: the batch stays where it is and can be resumed.
   */
  async finish(id: number): Promise<BatchRecord> {
    const { store } = this.#options;
    const batch = await this.#batch(id);
    if (batch.state === "settled" || batch.state === "failed") return batch;
    const unproved = batch.state === "planned" || batch.state === "proving";
    if (unproved && (await this.#withoutOffenders(batch))) return this.#batch(id);
    const { calldata } = unproved ? await this.prove(id) : batch;
    if (!calldata) throw new Error(`batch ${id} is ${batch.state} without calldata`);
    try {
      const attributes = about(id, batch.circuit);
      await traced("settlement", { attributes }, (span) => this.#settle(batch, calldata, span), contextOf(batch.trace));
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "transaction-failed") throw error;
      await store.markFailed(id, error.message);
    }
    return this.#batch(id);
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
  async #withoutOffenders({ id, circuit, rows: planned, ...batch }: BatchRecord): Promise<boolean> {
    const { store, gateway, sender } = this.#options;
    const { rows, credits } = this.#layOut(circuit, await replay(store, { id, circuit, rows: planned, ...batch }));
    const signed = await this.#signed(rows);
    if ((await gateway.checkRows(signed, credits, sender)) === null) return false;
    const refused: string[] = [];
    for (const row of signed) {
      const reason = await gateway.checkRows([row], [{ payee: sender, amount: row.debit }], sender);
      if (reason === null) continue;
      await store.exclude(row.agent, reason);
      refused.push(`${row.agent}: ${reason}`);
    }
    if (refused.length > 0) await store.markFailed(id, `The contract refuses ${refused.join("; ")}`);
    return refused.length > 0;
  }

  /** A batch waits for cheaper days until its first receipt falls due, less what mining and finality may take. */
  async #mayWaitUntil({ rows }: BatchRecord): Promise<bigint> {
    const firsts = await Promise.all(rows.map(({ agent, seq }) => this.#options.store.payment(agent, seq + 1n)));
    const due = firsts.map((first) => first?.settleBy ?? 0n);
    return due.reduce((first, settleBy) => (settleBy < first ? settleBy : first)) - URGENT;
  }

  /** What a recorded batch proved, laid out again from the payments. */
  async settled(id: number): Promise<SettledBatch> {
    const { store } = this.#options;
    const batch = await this.#batch(id);
    if (batch.rows.length === 0) throw unknownRows(id);
    const rows = await replay(store, batch);
    return { circuit: this.#circuit(batch.circuit), parts: rows, statement: this.#layOut(batch.circuit, rows) };
  }

  #layOut(circuit: string, rows: readonly BatchRow[]): Statement {
    return layOut(this.#circuit(circuit).size, rows);
  }

  #circuit(name: string): Circuit {
    const circuit = this.#options.circuits.find(({ size }) => size.name === name);
    if (!circuit)
      throw new BursarError("key-missing", `No verifier of circuit ${name} stands on chain.`, { value: name });
    return circuit;
  }

  async #batch(id: number): Promise<BatchRecord> {
    const batch = await this.#options.store.batch(id);
    if (!batch) throw new BursarError("malformed-input", `There is no batch ${id}.`, { value: id });
    return batch;
  }

  /** The agent's signature over the last payment of a row stands for all before it. */
  #signed(rows: readonly Row[]): Promise<SettleCall["rows"]> {
    return Promise.all(
      rows.map(async (row) => {
        const { agent, seq, count } = row;
        const last = await this.#options.store.payment(agent, seq + count);
        if (!last) throw new Error(`payment ${seq + count} of ${agent} is missing from the store`);
        return { ...row, lineHash: hashLine(last.payment.line), signature: last.signature };
      }),
    );
  }
}

/** What every span of a batch says. */
const about = (id: number, circuit: string) => ({ "bursar.batch": id, "bursar.circuit": circuit });

/** Seconds before the first settle-by from which on a batch waits for nothing. */
const URGENT = 1_800n;

/** Of a batch that other books have settled: see `Store.takeOver`. */
function unknownRows(id: number): BursarError {
  return new BursarError(
    "books-behind",
    `Batch ${id} was settled by books that were lost: what else was in it is not known.`,
    { value: id },
    "Bring back the books that settled it.",
  );
}

const UNFINISHED = ["planned", "proving", "proved", "submitted"] as const;

/** The circuits whose key identifiers a deployment names. */
export function availableCircuits(circuits: Readonly<Record<string, Hex>>): Circuit[] {
  return Object.entries(circuits).map(([name, circuitId]) => ({ size: circuitSize(name), circuitId }));
}
