import { PgBoss, type SendOptions } from "pg-boss";

import type { Database } from "./database.ts";
import {
  LONGEST_BACKOFF,
  QUEUE_DEFAULTS,
  type DeadJob,
  type HeldJob,
  type ProofJob,
  type ProofJobState,
  type ProofQueue,
  type ProofQueueOptions,
} from "./proof-queue.ts";

/** Of pg-boss's own tables, which it creates and changes itself. */
export const JOBS_SCHEMA = "bursar_jobs";

const queueOf = (circuit: string): string => `prove-${circuit}`;
const DEAD = "prove-dead";

/** What a dead letter says besides its job where it was sent by hand. */
type Letter = ProofJob & { readonly reason?: string };

/**
 * The queue of several machines, in pg-boss on the books' own PostgreSQL: what runs inside {@link Database.transact}
 * shares its transaction, this too. A queue for each circuit, since pg-boss takes jobs by queue; what changes is changed
 * by pg-boss, and its tables are only read here.
 */
export class PgBossQueue implements ProofQueue {
  readonly #database: Database;
  readonly #boss: PgBoss;
  readonly #options: Required<ProofQueueOptions>;
  /** Queues that are known to exist. */
  readonly #queues = new Set<string>();

  private constructor(database: Database, boss: PgBoss, options: Required<ProofQueueOptions>) {
    this.#database = database;
    this.#boss = boss;
    this.#options = options;
  }

  static async open(database: Database, options: ProofQueueOptions = {}): Promise<PgBossQueue> {
    const complete = { ...QUEUE_DEFAULTS, ...options };
    const boss = new PgBoss({
      db: { executeSql: (text, values = []) => database.native(text, values) },
      schema: JOBS_SCHEMA,
      schedule: false,
      supervise: complete.watch,
      superviseIntervalSeconds: LOOK,
      monitorIntervalSeconds: LOOK,
    });
    // What fails in the background is done again; what fails in a call is thrown there.
    boss.on("error", () => undefined);
    // Of several that start at once, one creates the tables; the others come again.
    await boss.start({ attempts: STARTS });
    const queue = new PgBossQueue(database, boss, complete);
    await queue.#ensure(DEAD);
    return queue;
  }

  get term(): number {
    return this.#options.term;
  }

  async send(job: ProofJob): Promise<void> {
    await this.#ensure(queueOf(job.circuit));
    await this.#boss.send(queueOf(job.circuit), job, this.#sending(job));
  }

  async cancel({ batch, circuit }: Pick<ProofJob, "batch" | "circuit">): Promise<void> {
    await this.#ensure(queueOf(circuit));
    await this.#database.transact(async () => {
      await this.#boss.deleteJob(queueOf(circuit), idOf(batch));
      await this.#bury(batch);
    });
  }

  async take(circuits: readonly string[]): Promise<HeldJob | undefined> {
    for (;;) {
      const queue = await this.#mostUrgent(circuits.map(queueOf));
      if (queue === undefined) return undefined;
      await this.#ensure(queue);
      const [job] = await this.#boss.fetch<ProofJob>(queue);
      if (job) return this.#held(queue, job);
    }
  }

  async counts(): Promise<Record<ProofJobState, number>> {
    const { rows } = await this.#database.native(
      `SELECT CASE WHEN name = $1 THEN 'dead' WHEN state = 'active' THEN 'active' ELSE 'waiting' END AS state,
              COUNT(*) AS jobs
       FROM ${JOBS_SCHEMA}.job WHERE name LIKE 'prove-%' AND state IN ('created', 'retry', 'active') GROUP BY 1`,
      [DEAD],
    );
    const counts = { waiting: 0, active: 0, dead: 0 };
    for (const row of rows) counts[row["state"] as ProofJobState] = Number(row["jobs"]);
    return counts;
  }

  async dead(): Promise<DeadJob[]> {
    const letters = await this.#boss.findJobs<Letter>(DEAD, { queued: true });
    return letters
      .map(({ data: { batch, circuit, reason }, sourceOutput }) => ({
        batch,
        circuit,
        reason: reason ?? reasonOf(sourceOutput),
      }))
      .sort((a, b) => a.batch - b.batch);
  }

  retry(batch: number): Promise<boolean> {
    return this.#database.transact(async () => {
      const job = await this.#bury(batch);
      if (!job) return false;
      await this.#ensure(queueOf(job.circuit));
      await this.#boss.deleteJob(queueOf(job.circuit), idOf(batch));
      await this.send(job);
      return true;
    });
  }

  close(): Promise<void> {
    return this.#boss.stop({ graceful: false });
  }

  /** A queue is made once, outside of any transaction. */
  async #ensure(queue: string): Promise<void> {
    if (this.#queues.has(queue)) return;
    await this.#database.apart(() => this.#boss.createQueue(queue));
    this.#queues.add(queue);
  }

  #sending({ batch, settleBy }: ProofJob): SendOptions {
    const { attempts, term, backoff } = this.#options;
    return {
      id: idOf(batch),
      priority: PRIORITY_AT - settleBy,
      retryLimit: attempts - 1,
      retryDelay: backoff,
      retryBackoff: true,
      retryDelayMax: LONGEST_BACKOFF,
      heartbeatSeconds: term,
      expireInSeconds: LONGEST,
      deadLetter: DEAD,
    };
  }

  /** The queue of the most urgent job that may be taken now. */
  async #mostUrgent(queues: readonly string[]): Promise<string | undefined> {
    const { rows } = await this.#database.native(
      `SELECT name FROM ${JOBS_SCHEMA}.job
       WHERE name = ANY($1) AND state IN ('created', 'retry') AND start_after <= now() ORDER BY priority DESC, created_on LIMIT 1`,
      [queues],
    );
    return rows[0] && String(rows[0]["name"]);
  }

  /** Takes a dead letter away. @returns the job that it was of. */
  async #bury(batch: number): Promise<ProofJob | undefined> {
    const [letter] = await this.#boss.findJobs<Letter>(DEAD, { data: { batch }, queued: true });
    if (!letter) return undefined;
    await this.#boss.deleteJob(DEAD, letter.id);
    return jobOf(letter.data);
  }

  #held(queue: string, { id, data, retryCount }: { id: string; data: ProofJob; retryCount: number }): HeldJob {
    const boss = this.#boss;
    const database = this.#database;
    const mine = { id, retryCount };
    return {
      ...data,
      attempt: retryCount + 1,
      renew: async () => affected(await boss.touch(queue, mine)),
      complete: async () => {
        await boss.complete(queue, mine);
      },
      fail: async (reason, forGood) => {
        await database.transact(async () => {
          if (!forGood) await boss.fail(queue, mine, { message: reason });
          else if (affected(await boss.cancel(queue, mine))) await boss.send(DEAD, { ...data, reason }, { id });
        });
      },
      release: () =>
        database.transact(async () => {
          if (affected(await boss.deleteJob(queue, mine))) await this.send(data);
        }),
    };
  }
}

function jobOf({ batch, circuit, circuitId, chainId, settlement, settleBy }: Letter): ProofJob {
  return { batch, circuit, circuitId, chainId, settlement, settleBy };
}

/** Every batch has one job, whose name is its number. */
const idOf = (batch: number): string => `00000000-0000-8000-8000-${batch.toString(16).padStart(12, "0")}`;

/** pg-boss tells how many jobs a call has changed, which its types keep to themselves. */
const affected = (response: object): boolean => (response as { affected: number }).affected > 0;

function reasonOf(output: object | null): string {
  const { message, value } = (output ?? {}) as { message?: string; value?: { message?: string } };
  return message ?? value?.message ?? "no reason was told";
}

/** Seconds between looks for workers that are not heard of, by whichever process is first. */
const LOOK = 5;
/** Times that pg-boss tries to start. */
const STARTS = 6;
/** Priorities are whole numbers of 32 bits: so they last until the year 2095. */
const PRIORITY_AT = 1_800_000_000;
/** Seconds after which a proof is given up though its worker is heard of: pg-boss wants less than a day. */
const LONGEST = 82_800;
