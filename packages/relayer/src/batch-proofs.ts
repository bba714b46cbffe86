import { BursarError, challenge, hashLine, transcript, type Domain, type Hex, type Row } from "@bursar/protocol";
import { layOut, type BatchRow, type Statement } from "@bursar/prover";

import { replay } from "./planner.ts";
import type { ProofJob } from "./proof-queue.ts";
import type { BatchRecord } from "./records.ts";
import type { BatchProver, Circuit, SettleCall, SettledBatch, SettlementGateway } from "./settler.ts";
import type { Store } from "./store.ts";
import { contextOf, traced } from "./trace.ts";

export interface BatchProofsOptions {
  readonly domain: Domain;
  readonly store: Store;
  readonly circuits: readonly Circuit[];
  readonly gateway: Pick<SettlementGateway, "settlement" | "encode">;
}

/** A proof as it is recorded. */
export interface MadeProof {
  readonly id: number;
  /** The call that settles the batch. */
  readonly calldata: Hex;
  readonly milliseconds: number;
}

/** The proofs of recorded batches: made from the books alone, wherever these can be read, and without the processor's key. */
export class BatchProofs {
  readonly #options: BatchProofsOptions;

  constructor(options: BatchProofsOptions) {
    this.#options = options;
  }

  /**
   * Proves a batch that has no proof yet.
   * @throws BursarError `key-corrupt` where the prover has another key than the deployment, and what the prover throws.
   */
  async make(id: number, prover: BatchProver): Promise<MadeProof> {
    const { store, domain, gateway } = this.#options;
    await store.transact(() => store.markProving(id));
    const { circuit, statement } = await this.settled(id);
    const { circuitId, size } = circuit;
    const { rows, credits, commitment } = statement;
    const { settlement } = gateway;
    const bound = transcript({ chainId: domain.chainId, settlement, circuitId, commitment, rows, credits });
    const began = performance.now();
    const { trace } = await this.batch(id);
    const {
      circuitId: proved,
      proof,
      signals,
    } = await traced(
      "proof",
      { attributes: aboutBatch(id, size.name) },
      () => prover.prove(size, statement, challenge(bound)),
      contextOf(trace),
    );
    if (proved !== circuitId) throw wrongKey(size.name, proved, circuitId);
    const signed = await this.signed(rows);
    const calldata = gateway.encode({ circuitId, rows: signed, credits, commitment, evaluation: signals.T, proof });
    return { id, calldata, milliseconds: Math.round(performance.now() - began) };
  }

  /**
   * Records a proof, with whatever else `also` writes: the first that is made of a batch counts, and none of one that has
   * ended meanwhile.
   * @returns whether it was this one.
   */
  record({ id, calldata, milliseconds }: MadeProof, also?: () => Promise<void>): Promise<boolean> {
    const { store } = this.#options;
    return store.transact(async () => {
      const first = await store.markProved(id, calldata, milliseconds);
      await also?.();
      return first;
    });
  }

  /** The job that asks for the proof of a batch. */
  async job({ id, circuit, rows }: Pick<BatchRecord, "id" | "circuit" | "rows">): Promise<ProofJob> {
    const { domain, gateway } = this.#options;
    return {
      batch: id,
      circuit,
      circuitId: this.circuit(circuit).circuitId,
      chainId: Number(domain.chainId),
      settlement: gateway.settlement,
      settleBy: Number(await this.due({ rows })),
    };
  }

  /** Unix seconds of the first receipt of a batch that falls due. */
  async due({ rows }: Pick<BatchRecord, "rows">): Promise<bigint> {
    const firsts = await Promise.all(rows.map(({ agent, seq }) => this.#options.store.payment(agent, seq + 1n)));
    const due = firsts.map((first) => first?.settleBy ?? 0n);
    return due.reduce((first, settleBy) => (settleBy < first ? settleBy : first));
  }

  /** What a recorded batch proved, laid out again from the payments. */
  async settled(id: number): Promise<SettledBatch> {
    const batch = await this.batch(id);
    if (batch.rows.length === 0) throw unknownRows(id);
    const rows = await replay(this.#options.store, batch);
    return { circuit: this.circuit(batch.circuit), parts: rows, statement: this.layOut(batch.circuit, rows) };
  }

  layOut(circuit: string, rows: readonly BatchRow[]): Statement {
    return layOut(this.circuit(circuit).size, rows);
  }

  /** @throws BursarError `key-missing` */
  circuit(name: string): Circuit {
    const circuit = this.#options.circuits.find(({ size }) => size.name === name);
    if (!circuit)
      throw new BursarError("key-missing", `No verifier of circuit ${name} stands on chain.`, { value: name });
    return circuit;
  }

  /** @throws BursarError `malformed-input` for a number that no batch has. */
  async batch(id: number): Promise<BatchRecord> {
    const batch = await this.#options.store.batch(id);
    if (!batch) throw new BursarError("malformed-input", `There is no batch ${id}.`, { value: id });
    return batch;
  }

  /** The agent's signature over the last payment of a row stands for all before it. */
  signed(rows: readonly Row[]): Promise<SettleCall["rows"]> {
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

/** What a trace says of a batch. */
export const aboutBatch = (id: number, circuit: string) => ({ "bursar.batch": id, "bursar.circuit": circuit });

/** Of a batch that other books have settled: see `Store.takeOver`. */
function unknownRows(id: number): BursarError {
  return new BursarError(
    "books-behind",
    `Batch ${id} was settled by books that were lost: what else was in it is not known.`,
    { value: id },
    "Bring back the books that settled it.",
  );
}

/** Whether the proof of a batch is still wanted. */
export const isUnproved = ({ state }: Pick<BatchRecord, "state">): boolean =>
  state === "planned" || state === "proving";

/** What a prover says that has the keys of another deployment. */
export function wrongKey(circuit: string, value: Hex, limit: Hex): BursarError {
  return new BursarError(
    "key-corrupt",
    `The key of circuit ${circuit} here is not the deployment's.`,
    { value, limit },
    "Bring the keys whose verifier is on chain, and name their folder in BURSAR_KEYS.",
  );
}
