import { DatabaseSync, type StatementSync } from "node:sqlite";

import type { Columns, Value } from "./database.ts";

/**
 * One SQLite file with a write-ahead log, synced to disk at each commit: what {@link transact} returned from survives
 * a crash and a power cut.
 */
export class SqliteFile {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  /** @param path - file of the database, created if missing; `:memory:` for one that is not kept. */
  constructor(path: string) {
    this.#db = new DatabaseSync(path);
    this.#db.exec(
      "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
    );
  }

  /** Runs statements that take no values. */
  exec(sql: string): void {
    this.#db.exec(sql);
  }

  close(): void {
    this.#statements.clear();
    this.#db.close();
  }

  /** Runs `work` in one immediate transaction: all of it is on disk when this returns, or none. */
  transact<T>(work: () => T): T {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      this.#db.exec("COMMIT");
      return result;
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  run(sql: string, ...values: Value[]): void {
    this.#prepare(sql).run(...values);
  }

  get(sql: string, ...values: Value[]): Columns | undefined {
    return this.#prepare(sql).get(...values) as Columns | undefined;
  }

  all(sql: string, ...values: Value[]): Columns[] {
    return this.#prepare(sql).all(...values) as Columns[];
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}
