import { setTimeout as pause } from "node:timers/promises";

import { BursarError, type Hex } from "@bursar/protocol";
import type { CircuitSize } from "@bursar/prover";

import { isUnproved, wrongKey, type BatchProofs, type MadeProof } from "./batch-proofs.ts";
import type { HeldJob, ProofJob, ProofQueue } from "./proof-queue.ts";
import type { BatchProver, Circuit } from "./settler.ts";

/** What proves batches, and says by which key. */
export interface KeyedProver extends BatchProver {
  /** @throws BursarError `key-missing`, `key-corrupt`, `prover-missing` */
  ready(size: CircuitSize): Promise<Hex>;
}

/** What a worker tells of its jobs. */
export type ProofNews =
  | { readonly kind: "begun"; readonly batch: number; readonly circuit: string; readonly attempt: number }
  | { readonly kind: "proved"; readonly batch: number; readonly milliseconds: number }
  /** The batch ended without this proof, or has another one. */
  | { readonly kind: "dropped"; readonly batch: number }
  | { readonly kind: "failed"; readonly batch: number; readonly error: Error }
  | { readonly kind: "returned"; readonly batch: number }
  /** Batches of this circuit are left to others. */
  | { readonly kind: "keyless"; readonly circuit: string; readonly error: Error }
  /** The database is not reached; it is asked again. */
  | { readonly kind: "unreached"; readonly error: Error };

export interface ProofWorkerOptions {
  readonly queue: ProofQueue;
  readonly proofs: BatchProofs;
  readonly prover: KeyedProver;
  /** Those whose batches it proves, as the deployment names them. */
  readonly circuits: readonly Circuit[];
  readonly told: (news: ProofNews) => void;
  /** Milliseconds between looks for a job; 1,000 unless given. */
  readonly every?: number;
}

/** Takes jobs, one at a time, as long as it runs: proves, records the proof and ends the job in one transaction. */
export class ProofWorker {
  readonly #options: ProofWorkerOptions;
  readonly #stopping = new AbortController();
  /** When the key of a circuit is looked at again, by performance.now(); those that are as they should be, never. */
  readonly #looks = new Map<string, number>();
  #held: HeldJob | undefined;
  #running: Promise<void> | undefined;

  constructor(options: ProofWorkerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Takes nothing more. What it does not prove within `patience` milliseconds goes back, to be proved by another. */
  async stop(patience: number): Promise<void> {
    this.#stopping.abort();
    const over = new AbortController();
    const late = pause(patience, undefined, over).catch(() => undefined);
    await Promise.race([this.#running, late]);
    over.abort();
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    await held.release().catch(() => undefined);
    this.#options.told({ kind: "returned", batch: held.batch });
  }

  /** Does the most urgent job. @returns whether there was one. @throws BursarError `store-unavailable` */
  async next(): Promise<boolean> {
    const circuits = await this.#able();
    const held = circuits.length === 0 ? undefined : await this.#options.queue.take(circuits);
    if (held === undefined) return false;
    this.#held = held;
    const renew = (): void => void (this.#held === held && held.renew().catch(() => undefined));
    const renewal = setInterval(renew, (this.#options.queue.term * 1_000) / 3);
    try {
      await this.#work(held);
    } finally {
      clearInterval(renewal);
      this.#held = undefined;
    }
    return true;
  }

  async #run(): Promise<void> {
    const { every = 1_000, told } = this.#options;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const found = await this.next().catch((error: unknown) => {
        told({ kind: "unreached", error: error as Error });
        return false;
      });
      if (!found) await pause(every, undefined, { signal }).catch(() => undefined);
    }
  }

  async #work(held: HeldJob): Promise<void> {
    const { proofs, prover, told } = this.#options;
    const { batch, circuit, attempt } = held;
    told({ kind: "begun", batch, circuit, attempt });
    try {
      const record = await proofs.batch(batch);
      if (!isUnproved(record)) {
        await held.complete();
        told({ kind: "dropped", batch });
        return;
      }
      expectSame(held, await proofs.job(record));
      const made = await proofs.make(batch, prover);
      const first = await this.#record(made, held);
      told(first ? { kind: "proved", batch, milliseconds: made.milliseconds } : { kind: "dropped", batch });
    } catch (error) {
      // It was given back meanwhile: what becomes of it is another worker's.
      if (this.#held !== held) return;
      // Where the database is gone the lease ends by itself.
      await held
        .fail((error as Error).message, (error as { code?: unknown }).code === "proof-invalid")
        .catch(() => undefined);
      told({ kind: "failed", batch, error: error as Error });
    }
  }

  /** A proof that was made outlives a database that is gone for a while. */
  async #record(made: MadeProof, held: HeldJob): Promise<boolean> {
    for (let attempt = 1; ; ++attempt) {
      try {
        return await this.#options.proofs.record(made, () => held.complete());
      } catch (error) {
        const lost = error instanceof BursarError && error.code === "store-unavailable";
        if (!lost || attempt === RECORDINGS) throw error;
        this.#options.told({ kind: "unreached", error });
        await pause(AGAIN);
      }
    }
  }

  /** The circuits whose keys are here and are the deployment's. */
  async #able(): Promise<string[]> {
    const able: string[] = [];
    for (const { size, circuitId } of this.#options.circuits) {
      if (performance.now() < (this.#looks.get(size.name) ?? 0)) continue;
      try {
        const found = await this.#options.prover.ready(size);
        if (found !== circuitId) throw wrongKey(size.name, found, circuitId);
        able.push(size.name);
      } catch (error) {
        if (!this.#looks.has(size.name))
          this.#options.told({ kind: "keyless", circuit: size.name, error: error as Error });
        this.#looks.set(size.name, performance.now() + KEYLESS);
      }
    }
    return able;
  }
}

/** A worker and a service that share books may have been told of different deployments. */
function expectSame(asked: ProofJob, known: ProofJob): void {
  const of = ({ circuitId, chainId, settlement }: ProofJob): string => `${chainId} ${settlement} ${circuitId}`;
  if (of(asked) === of(known)) return;
  throw new BursarError(
    "wrong-chain",
    `Batch ${asked.batch} is of another deployment than this worker's.`,
    { value: of(known), limit: of(asked) },
    "Give the worker the service's deployment record.",
  );
}

/** Times that a proof is brought to the database, and milliseconds between them. */
const RECORDINGS = 60;
const AGAIN = 1_000;
/** Milliseconds until a key that is missing or wrong is looked for again. */
const KEYLESS = 60_000;
