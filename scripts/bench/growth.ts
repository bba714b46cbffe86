import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import {
  AgentLedger,
  hashPayment,
  signWithKey,
  type Address,
  type Hex,
  type PageHash,
  type SignedPayment,
} from "@bursar/protocol";
import { circuitSize } from "@bursar/prover";
import { loadPageHash, plan, silent, Store, type Processor } from "@bursar/relayer";
import { id } from "ethers";

import { createDatabase, startPostgres, type LocalPostgres } from "../load/postgres.ts";
import { usageOf } from "../load/processes.ts";
import { AMOUNT, DOMAIN, PAYEE, processorOn, recordOf, walletOf } from "./load.ts";

export type EngineName = "sqlite" | "postgres";

/** What one payment costs in books of some size. */
export interface GrowthPoint {
  /** Payments that were in the books before, all settled. */
  readonly payments: number;
  readonly mandates: number;
  /** Microseconds of CPU for one more: of the processor, and of the database where that is another process. */
  readonly cpu: number;
  readonly database: number;
  /** Milliseconds of a commit of up to 64. */
  readonly commit: number;
  /** Milliseconds to choose the next batch of what was accepted since, and to tell the backlog. */
  readonly planning: number;
  readonly backlog: number;
  /** Bytes of the books for each payment in them. */
  readonly disk: number;
  /** Resident MiB. */
  readonly memory: number;
}

export interface GrowthReport {
  readonly engine: EngineName;
  /** Over the payments in the books, with {@link MANDATES}. */
  readonly payments: readonly GrowthPoint[];
  /** Over the mandates, with {@link PAYMENTS}. */
  readonly mandates: readonly GrowthPoint[];
}

/** Mandates while the payments grow, and payments while the mandates do. */
const MANDATES = 100;
const PAYMENTS = 70_000;
/** Payments that are accepted at each point, by as many agents at once. */
const SAMPLE = 2_000;
const ABREAST = 64;

const powers = (from: number, to: number): number[] =>
  Array.from({ length: Math.round(Math.log10(to / from)) + 1 }, (_, i) => from * 10 ** i);

/** @param most - payments that the books grow to. */
export async function measureGrowth(
  engine: EngineName,
  most: { payments: number; mandates: number },
  say: (text: string) => void,
): Promise<GrowthReport> {
  const postgres = engine === "postgres" ? await startPostgres() : undefined;
  const hashPage = await loadPageHash();
  const measure = async (payments: number, mandates: number): Promise<GrowthPoint> => {
    say(`${engine}: ${payments} payments of ${mandates} mandates`);
    const books = await Books.fill(postgres, payments, mandates);
    try {
      return await books.measure(hashPage);
    } finally {
      await books.close();
    }
  };
  try {
    await measure(1_000, 10);
    const [payments, mandates]: GrowthPoint[][] = [[], []];
    for (const count of powers(1_000, most.payments)) payments!.push(await measure(count, MANDATES));
    for (const count of powers(10, most.mandates)) mandates!.push(await measure(PAYMENTS, count));
    return { engine, payments: payments!, mandates: mandates! };
  } finally {
    await postgres?.stop();
  }
}

let databases = 0;

/** Books of a given size, of which the payments are settled. */
class Books {
  readonly #store: Store;
  readonly #postgres: LocalPostgres | undefined;
  readonly #folder: string;
  readonly #payments: number;
  readonly #mandates: number;

  private constructor(
    store: Store,
    postgres: LocalPostgres | undefined,
    folder: string,
    payments: number,
    mandates: number,
  ) {
    this.#store = store;
    this.#postgres = postgres;
    this.#folder = folder;
    this.#payments = payments;
    this.#mandates = mandates;
  }

  /** Each mandate has as many full pages of the ledger, so that its agent can go on where they end. */
  static async fill(postgres: LocalPostgres | undefined, wanted: number, mandates: number): Promise<Books> {
    const folder = mkdtempSync(join(tmpdir(), "bursar-growth-"));
    const url = postgres ? await createDatabase(postgres.url, `growth_${++databases}`) : join(folder, "processor.db");
    const store = await Store.open(url);
    const each = Math.max(1, Math.round(wanted / mandates / 7)) * 7;
    const payments = each * mandates;
    await store.transact(async () => {
      for (let agent = 0; agent < mandates; ++agent) await store.addMandate(recordOf(agent));
      await store.database.run(BATCH, payments, (AMOUNT * BigInt(payments)).toString());
      const step = 100_000;
      for (let first = 1; first <= payments; first += step) {
        await store.database.run(FILL, first, Math.min(first + step - 1, payments), mandates, Number(AMOUNT), PAYEE);
      }
      await store.database.run("UPDATE counter SET position = ?, log_index = ?", payments + 1, payments);
      await store.database.run("UPDATE mandate SET seq = ?, spent = ?", each, (AMOUNT * BigInt(each)).toString());
    });
    // A server does so by itself, some time after its tables have grown.
    if (postgres) for (const statement of ["VACUUM ANALYZE", "CHECKPOINT"]) await store.database.run(statement);
    return new Books(store, postgres, folder, payments, mandates);
  }

  async measure(hashPage: PageHash): Promise<GrowthPoint> {
    const [store, disk] = [this.#store, await this.#bytes()];
    let [commits, committing] = [0, 0];
    const processor = processorOn({
      store,
      hashPage,
      events: { ...silent, committed: (_requests, took) => [++commits, (committing += took)] },
    });
    const queues = await this.#sign(processor, hashPage);
    const serve = async (share: number): Promise<void> => {
      const some = queues.map((queue) => queue.splice(0, Math.ceil(queue.length * share)));
      await Promise.all(
        some.map(async (queue) => {
          for (const signed of queue) await processor.accept(signed);
        }),
      );
    };
    await serve(0.2);
    [commits, committing] = [0, 0];
    const count = queues.reduce((sum, { length }) => sum + length, 0);
    const [before, database] = [process.cpuUsage(), this.#databaseCpu()];
    await serve(1);
    const { user, system } = process.cpuUsage(before);
    const used = this.#databaseCpu() - database;
    const planning = await took(() => plan(store, [circuitSize("large")], BigInt(Math.floor(Date.now() / 1_000))));
    const backlog = await took(() => store.backlog());
    return {
      payments: this.#payments,
      mandates: this.#mandates,
      cpu: (user + system) / count,
      database: (used * 1e6) / count,
      commit: committing / commits,
      ...{ planning, backlog, disk: disk / this.#payments, memory: process.memoryUsage().rss / 2 ** 20 },
    };
  }

  async close(): Promise<void> {
    await this.#store.close();
    rmSync(this.#folder, { recursive: true });
  }

  /** What follows on the books, signed: of as many agents as are served at once, each in its order. */
  async #sign(processor: Processor, hashPage: PageHash): Promise<SignedPayment[][]> {
    const queues: SignedPayment[][] = Array.from({ length: ABREAST }, () => []);
    const each = Math.max(1, Math.round(SAMPLE / this.#mandates));
    for (let number = 0; number < Math.min(this.#mandates, SAMPLE); ++number) {
      const { address, privateKey } = walletOf(number);
      const agent = address as Address;
      const { position } = await processor.tail(agent);
      const state = { ...position, pending: null };
      const ledger = new AgentLedger({ domain: DOMAIN, agent, secret: id(agent) as Hex, state, hashPage });
      for (let i = 0; i < each; ++i) {
        const line = { payee: PAYEE as Address, amount: AMOUNT, ref: id(`${i}`) as Hex };
        const { payment, salt } = ledger.append(line);
        const signature = signWithKey(hashPayment(DOMAIN, payment), privateKey as Hex);
        queues[number % ABREAST]!.push({ agent, payment, signature, salt });
      }
    }
    return queues;
  }

  #databaseCpu(): number {
    const usage = this.#postgres && usageOf(this.#postgres.pid);
    return usage === undefined ? 0 : usage.own + usage.started;
  }

  async #bytes(): Promise<number> {
    if (this.#postgres === undefined) {
      const files = ["processor.db", "processor.db-wal"].map((name) => statSync(join(this.#folder, name)).size);
      return files.reduce((sum, size) => sum + size);
    }
    const row = await this.#store.database.get("SELECT pg_database_size(current_database()) AS bytes");
    return Number(row!["bytes"]);
  }
}

/** The shortest of five times, milliseconds. */
async function took(work: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 5; ++i) {
    const began = performance.now();
    await work();
    times.push(performance.now() - began);
  }
  return Math.min(...times);
}

const BATCH = `INSERT INTO batch (id, state, circuit, token, rows, payments, total, created_at)
  VALUES (1, 'settled', 'large', '', '[]', ?, ?, 0)`;

const ZEROS = "0".repeat(130);

/** A value of so many hex digits that is another one for each payment. */
const hex = (digits: number): string => `'0x' || substr(CAST(1000000000 + i AS TEXT) || '${ZEROS}', 1, ${digits})`;

/** Payments ?1 to ?2 of ?3 mandates in turn, of ?4 units to ?5: as long as real ones, without signatures that hold. */
const FILL = `INSERT INTO payment (position, at, log_index, agent, seq, spent, payee, amount, ref, head, salt, digest,
    signature, settle_by, batch)
  WITH RECURSIVE n(i) AS (SELECT CAST(?1 AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i < CAST(?2 AS INTEGER))
  SELECT i, 0, i - 1, m.agent, (i - 1) / CAST(?3 AS INTEGER) + 1,
    CAST(CAST(?4 AS INTEGER) * ((i - 1) / CAST(?3 AS INTEGER) + 1) AS TEXT), CAST(?5 AS TEXT), CAST(CAST(?4 AS INTEGER) AS TEXT),
    ${hex(64)}, ${hex(64)}, substr(CAST(1000000000 + i AS TEXT) || '${ZEROS}', 1, 75), ${hex(64)}, ${hex(130)}, 3600, 1
  FROM n JOIN mandate AS m ON m.id = (i - 1) % CAST(?3 AS INTEGER) + 1`;
