import type { Address, Hex } from "@bursar/protocol";

import { list, type Book, type Columns, type Database } from "./database.ts";
import {
  LONGEST_BACKOFF,
  QUEUE_DEFAULTS,
  UNHEARD,
  type DeadJob,
  type HeldJob,
  type ProofJob,
  type ProofJobState,
  type ProofQueue,
  type ProofQueueOptions,
} from "./proof-queue.ts";

/** `until` is the end of an active job's lease, or when one that waits may be tried. The attempt is the lease's token. */
const FIRST = `
CREATE TABLE proof_job (
  batch INTEGER PRIMARY KEY,
  circuit TEXT NOT NULL,
  circuit_id TEXT NOT NULL,
  chain_id INTEGER NOT NULL,
  settlement TEXT NOT NULL,
  settle_by INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'active', 'dead')),
  attempt INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0,
  until INTEGER NOT NULL DEFAULT 0,
  reason TEXT
) STRICT;
CREATE INDEX proof_job_waiting ON proof_job (settle_by) WHERE state = 'waiting';
`;

export const PROOF_JOBS_BOOK: Book = { name: "proof jobs", versions: [FIRST] };

/** The queue of one machine: a table of jobs, each leased by the database's clock. */
export class TableQueue implements ProofQueue {
  readonly #database: Database;
  readonly #options: Required<ProofQueueOptions>;

  private constructor(database: Database, options: ProofQueueOptions) {
    this.#database = database;
    this.#options = { ...QUEUE_DEFAULTS, ...options };
  }

  static async open(database: Database, options: ProofQueueOptions = {}): Promise<TableQueue> {
    await database.open([PROOF_JOBS_BOOK]);
    return new TableQueue(database, options);
  }

  get term(): number {
    return this.#options.term;
  }

  async send({ batch, circuit, circuitId, chainId, settlement, settleBy }: ProofJob): Promise<void> {
    await this.#database.run(
      `INSERT INTO proof_job (batch, circuit, circuit_id, chain_id, settlement, settle_by) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (batch) DO NOTHING`,
      ...[batch, circuit, circuitId, chainId, settlement, settleBy],
    );
  }

  async cancel({ batch }: Pick<ProofJob, "batch">): Promise<void> {
    await this.#database.run("DELETE FROM proof_job WHERE batch = ?", batch);
  }

  async take(circuits: readonly string[]): Promise<HeldJob | undefined> {
    const { clock } = this.#database;
    const row = await this.#database.transact(async () => {
      await this.#expire();
      return this.#database.get(
        `UPDATE proof_job SET state = 'active', attempt = attempt + 1, until = ${clock} + ?
         WHERE batch = (SELECT batch FROM proof_job WHERE state = 'waiting' AND until <= ${clock}
           AND circuit IN ${list(circuits.length)} ORDER BY settle_by, batch LIMIT 1) RETURNING *`,
        this.term,
        ...circuits,
      );
    });
    return row && this.#held(row);
  }

  async counts(): Promise<Record<ProofJobState, number>> {
    const counts = { waiting: 0, active: 0, dead: 0 };
    for (const row of await this.#database.all("SELECT state, COUNT(*) AS jobs FROM proof_job GROUP BY state"))
      counts[row["state"] as ProofJobState] = Number(row["jobs"]);
    return counts;
  }

  async dead(): Promise<DeadJob[]> {
    const rows = await this.#database.all(
      "SELECT batch, circuit, reason FROM proof_job WHERE state = 'dead' ORDER BY batch",
    );
    return rows.map((row) => ({
      batch: Number(row["batch"]),
      circuit: String(row["circuit"]),
      reason: String(row["reason"]),
    }));
  }

  async retry(batch: number): Promise<boolean> {
    const row = await this.#database.get(
      "UPDATE proof_job SET state = 'waiting', failures = 0, until = 0 WHERE batch = ? AND state = 'dead' RETURNING batch",
      batch,
    );
    return row !== undefined;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** A worker that is not heard of has failed. */
  async #expire(): Promise<void> {
    const late = `state = 'active' AND until <= ${this.#database.clock}`;
    for (const { batch, attempt } of await this.#database.all(`SELECT batch, attempt FROM proof_job WHERE ${late}`))
      await this.#fail(Number(batch), Number(attempt), UNHEARD, false);
  }

  async #fail(batch: number, attempt: number, reason: string, forGood: boolean): Promise<void> {
    const { attempts, backoff } = this.#options;
    const { clock } = this.#database;
    const row = await this.#database.get(`SELECT failures FROM proof_job WHERE ${MINE}`, batch, attempt);
    if (row === undefined) return;
    const failures = Number(row["failures"]) + 1;
    const wait = Math.min(LONGEST_BACKOFF, backoff * 2 ** (failures - 1));
    await this.#database.run(
      `UPDATE proof_job SET state = ?, failures = ?, reason = ?, until = ${clock} + ? WHERE ${MINE}`,
      ...[forGood || failures >= attempts ? "dead" : "waiting", failures, reason, wait, batch, attempt],
    );
  }

  #held(row: Columns): HeldJob {
    const { batch, attempt } = { batch: Number(row["batch"]), attempt: Number(row["attempt"]) };
    const database = this.#database;
    return {
      batch,
      circuit: String(row["circuit"]),
      circuitId: row["circuit_id"] as Hex,
      chainId: Number(row["chain_id"]),
      settlement: row["settlement"] as Address,
      settleBy: Number(row["settle_by"]),
      attempt: Number(row["failures"]) + 1,
      renew: async () => {
        const kept = `UPDATE proof_job SET until = ${database.clock} + ? WHERE ${MINE} RETURNING batch`;
        return (await database.get(kept, this.term, batch, attempt)) !== undefined;
      },
      complete: () => database.run(`DELETE FROM proof_job WHERE ${MINE}`, batch, attempt),
      fail: (reason, forGood) => database.transact(() => this.#fail(batch, attempt, reason, forGood)),
      release: () => database.run(`UPDATE proof_job SET state = 'waiting', until = 0 WHERE ${MINE}`, batch, attempt),
    };
  }
}

/** The job as this attempt has it: whoever was taken for dead has another one. */
const MINE = "batch = ? AND attempt = ? AND state = 'active'";
