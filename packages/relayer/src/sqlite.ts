import type { Columns, Engine, Queries, Transaction, Value } from "./database.ts";
import { SqliteFile } from "./sqlite-file.ts";

/** The embedded engine: one file, one connection, one transaction at a time. */
export class SqliteEngine implements Engine {
  readonly name = "sqlite";
  readonly clock = "unixepoch()";
  readonly connections = 1;
  readonly #file: SqliteFile;
  /** The end of the last transaction that was begun. */
  #last: Promise<void> = Promise.resolve();
  #open = false;

  /** @param file - path of the database, created if missing, or `:memory:` for one that is not kept; or a file that is open. */
  constructor(file: string | SqliteFile) {
    this.#file = typeof file === "string" ? new SqliteFile(file) : file;
  }

  async begin(): Promise<Transaction> {
    const before = this.#last;
    let ended!: () => void;
    this.#last = new Promise((resolve) => (ended = resolve));
    await before;
    let open = true;
    const end = (): void => {
      open = this.#open = false;
      ended();
    };
    try {
      this.#file.exec("BEGIN IMMEDIATE");
      this.#open = true;
    } catch (error) {
      end();
      throw error;
    }
    return {
      ...this.#statements,
      commit: () =>
        done(() => {
          this.#file.exec("COMMIT");
          end();
        }),
      rollback: () =>
        done(() => {
          if (!open) return;
          try {
            this.#file.exec("ROLLBACK");
          } finally {
            end();
          }
        }),
    };
  }

  /** There is one transaction at a time. */
  lock(): Promise<void> {
    return Promise.resolve();
  }

  create(_transaction: Queries, schema: string): Promise<void> {
    return done(() => this.#file.exec(schema));
  }

  async run(sql: string, ...values: Value[]): Promise<void> {
    await this.#idle();
    return this.#statements.run(sql, ...values);
  }

  async get(sql: string, ...values: Value[]): Promise<Columns | undefined> {
    await this.#idle();
    return this.#statements.get(sql, ...values);
  }

  async all(sql: string, ...values: Value[]): Promise<Columns[]> {
    await this.#idle();
    return this.#statements.all(sql, ...values);
  }

  async close(): Promise<void> {
    await this.#idle();
    this.#file.close();
  }

  /** A statement that belongs to no transaction waits for the one that is open. */
  async #idle(): Promise<void> {
    while (this.#open) await this.#last;
  }

  readonly #statements: Queries = {
    run: (sql, ...values) => done(() => this.#file.run(plain(sql), ...values)),
    get: (sql, ...values) => done(() => this.#file.get(plain(sql), ...values)),
    all: (sql, ...values) => done(() => this.#file.all(plain(sql), ...values)),
  };
}

/** What is done at once, as a promise that rejects where it throws. */
const done = <T>(work: () => T): Promise<T> => new Promise((resolve) => resolve(work()));

/** SQLite locks the whole file: it has no words for locking a row. */
const plain = (sql: string): string => sql.replace(/ FOR (UPDATE|SHARE)\b/, "");
