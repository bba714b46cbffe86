import { challenge, transcript, type Address, type Credit, type Domain, type Hex, type Row } from "@bursar/protocol";
import { layOut, type CircuitSize, type Proof, type Statement } from "@bursar/prover";

import type { Outbox } from "./outbox.ts";
import { plan, type Plan } from "./planner.ts";
import type { BatchRecord, Store } from "./store.ts";

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
  encode(call: SettleCall): Hex;
  /** Runs the call without sending it. @throws BursarError `transaction-failed` with the contract's own error. */
  simulate(calldata: Hex, from: Address): Promise<void>;
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
  /** Unix seconds. */
  now: () => bigint;
}

/**
 * Takes accepted payments to the chain: plan, prove, submit, follow to the end. Each step is recorded before the next
 * begins, so that {@link resume} continues wherever the last run stopped.
 */
export class Settler {
  readonly #options: SettlerOptions;

  constructor(options: SettlerOptions) {
    this.#options = options;
  }

  /** Records the next batch, or returns undefined when no payment waits. */
  plan(): BatchRecord | undefined {
    const { store, circuits, now } = this.#options;
    return store.transact(() => {
      const planned = plan(store, circuits.map(({ size }) => size));
      if (!planned) return undefined;
      const { rows } = this.#layOut(planned);
      const id = store.addBatch({
        circuit: planned.circuit,
        token: planned.token,
        rows: rows.map((row, index) => ({ ...row, spent: store.mandateOf(row.agent).settled.spent, count: planned.rows[index]!.count })),
        payments: planned.payments,
        total: rows.reduce((sum, { debit }) => sum + debit, 0n),
        createdAt: now(),
      });
      return store.batch(id);
    });
  }
}
