import { randomUUID } from "node:crypto";
import { hostname } from "node:os";

import { BursarError } from "@bursar/protocol";

import type { Book, Database } from "./database.ts";

const FIRST = `
CREATE TABLE lease (
  name TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  token INTEGER NOT NULL,
  until INTEGER NOT NULL
) STRICT;
`;

export const LEASES_BOOK: Book = { name: "leases", versions: [FIRST] };

/** Seconds after which a lease that is not renewed is free. */
const TERM = 15;

export interface LeaseOptions {
  readonly database: Database;
  /** What the holder alone may do. */
  readonly name: string;
  /** Seconds; 15 unless given. */
  readonly term?: number;
  /** Names this process among all others; made of host, process id and a random part unless given. */
  readonly holder?: string;
}

/**
 * What one process at a time does, among all that share a database. The holder's token is looked at in every transaction
 * of its work: whoever was taken for dead and goes on can write nothing more, since the next holder has another token.
 */
export class Lease {
  readonly #options: Required<LeaseOptions>;
  /** By this process's own clock, counted from before the database was asked. */
  #until = -Infinity;
  #token = 0;

  constructor(options: LeaseOptions) {
    this.#options = { term: TERM, holder: `${hostname()}/${process.pid}/${randomUUID()}`, ...options };
  }

  /**
   * Does `work` if the lease is free or this process's own, and keeps it meanwhile.
   * @returns undefined if another process holds it.
   * @throws BursarError `lease-lost` where `work` writes after another process has taken the lease.
   */
  async run<T>(work: () => Promise<T>): Promise<T | undefined> {
    if (!(await this.#take())) return undefined;
    const renewal = setInterval(() => void this.#renew().catch(() => undefined), (this.#options.term * 1_000) / 3);
    const token = this.#token;
    try {
      return await this.#options.database.guarded((statements) => this.#expect(statements, token), work);
    } finally {
      clearInterval(renewal);
    }
  }

  /** Whether this process has it, as far as it knows without asking, until the database would give it to another. */
  get held(): boolean {
    return performance.now() < this.#until + (this.#options.term * 1_000) / 3;
  }

  /** Gives the lease back, so that the next process need not wait for its end. */
  async release(): Promise<void> {
    const { database, name, holder } = this.#options;
    this.#until = -Infinity;
    await database.run("UPDATE lease SET until = 0 WHERE name = ? AND holder = ?", name, holder);
  }

  async #take(): Promise<boolean> {
    if (performance.now() < this.#until) return true;
    return (await this.#renew()) || ((await this.#isAbandoned()) && this.#renew());
  }

  /** Takes the lease, or keeps it for another term. A new holder has a new token. */
  async #renew(): Promise<boolean> {
    const { database, name, holder, term } = this.#options;
    const asked = performance.now();
    const row = await database.get(
      `INSERT INTO lease (name, holder, token, until) VALUES (?1, ?2, 1, ${database.clock} + ?3)
       ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until,
         token = CASE WHEN lease.holder = excluded.holder THEN lease.token ELSE lease.token + 1 END
       WHERE lease.holder = excluded.holder OR lease.until <= ${database.clock} RETURNING token`,
      name,
      holder,
      term,
    );
    if (row === undefined) return false;
    this.#token = Number(row["token"]);
    // A third early: the database counts in whole seconds.
    this.#until = asked + (term * 2_000) / 3;
    return true;
  }

  /** A holder on this machine whose process is gone need not be waited for. */
  async #isAbandoned(): Promise<boolean> {
    const { database, name } = this.#options;
    const row = await database.get("SELECT holder FROM lease WHERE name = ?", name);
    const [host, pid] = String(row?.["holder"]).split("/");
    if (host !== hostname() || isAlive(Number(pid))) return false;
    await database.run("UPDATE lease SET until = 0 WHERE name = ? AND holder = ?", name, String(row?.["holder"]));
    return true;
  }

  /** The row stays locked until the transaction ends: nobody takes the lease in between. */
  async #expect(statements: Pick<Database, "get">, token: number): Promise<void> {
    const { name, holder } = this.#options;
    const row = await statements.get("SELECT holder, token FROM lease WHERE name = ? FOR SHARE", name);
    if (row?.["holder"] === holder && Number(row["token"]) === token) return;
    this.#until = -Infinity;
    throw new BursarError(
      "lease-lost",
      `Another process has taken over ${name}.`,
      { value: token, limit: Number(row?.["token"] ?? 0) },
      "Nothing is lost: it goes on from what is recorded.",
    );
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code !== "ESRCH";
  }
}

/** What a process does that shares its books with no other. */
export const ALONE: Pick<Lease, "run"> = { run: (work) => work() };
