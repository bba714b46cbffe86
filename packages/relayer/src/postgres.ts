import { BursarError } from "@bursar/protocol";
import pg from "pg";

import type { Columns, Engine, NativeQueries, Queries, Transaction, Value } from "./database.ts";

/** PostgreSQL's bigint is read as a number: all that are kept are below 2^53. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (id, format) =>
    id === pg.types.builtins.INT8 ? Number : (pg.types.getTypeParser(id, format) as (text: string) => unknown),
};

export interface PostgresOptions {
  /** Connections at once; 8 unless given. */
  readonly connections?: number;
  /** Milliseconds until a connection that is not answered counts as lost; 5,000 unless given. */
  readonly patience?: number;
}

/** The engine that several processes share. */
export class PostgresEngine implements Engine {
  readonly name = "postgres";
  readonly clock = "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)";
  readonly #pool: pg.Pool;

  /** @param url - `postgres://user:password@host:port/database`. */
  constructor(url: string, { connections = 8, patience = 5_000 }: PostgresOptions = {}) {
    this.#pool = new pg.Pool({
      connectionString: url,
      max: connections,
      connectionTimeoutMillis: patience,
      keepAlive: true,
      application_name: "bursar",
      types,
    });
    // An idle connection that ends is replaced at its next use.
    this.#pool.on("error", () => undefined);
  }

  async begin(): Promise<Transaction> {
    const client = await this.#reach(() => this.#pool.connect());
    const lost = (): void => undefined;
    client.on("error", lost);
    let open = true;
    const end = (broken?: Error): void => {
      open = false;
      client.off("error", lost);
      client.release(broken);
    };
    const statements = this.#statements(client);
    try {
      await statements.run("BEGIN");
    } catch (error) {
      end(error as Error);
      throw error;
    }
    return {
      ...statements,
      commit: async () => {
        await statements.run("COMMIT");
        end();
      },
      rollback: async () => {
        if (!open) return;
        await client.query("ROLLBACK").then(
          () => end(),
          (error: unknown) => end(error as Error),
        );
      },
    };
  }

  async lock(transaction: Queries, name: string): Promise<void> {
    await transaction.get("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", name);
  }

  async create(transaction: Queries, schema: string): Promise<void> {
    for (const statement of schema.split(";")) if (statement.trim() !== "") await transaction.run(statement);
  }

  run(sql: string, ...values: Value[]): Promise<void> {
    return this.#statements(this.#pool).run(sql, ...values);
  }

  get(sql: string, ...values: Value[]): Promise<Columns | undefined> {
    return this.#statements(this.#pool).get(sql, ...values);
  }

  all(sql: string, ...values: Value[]): Promise<Columns[]> {
    return this.#statements(this.#pool).all(sql, ...values);
  }

  native(sql: string, values: readonly unknown[]): Promise<{ rows: Columns[] }> {
    return this.#statements(this.#pool).native(sql, values);
  }

  close(): Promise<void> {
    return this.#pool.end();
  }

  #statements(on: pg.Pool | pg.PoolClient): Queries & NativeQueries {
    const ask = async (sql: string, values: Value[]): Promise<Columns[]> => {
      const { name, text } = prepared(sql);
      const { rows } = await this.#reach(() => on.query<Columns>({ name, text, values }));
      return rows;
    };
    return {
      run: async (sql, ...values) => {
        await ask(sql, values);
      },
      get: async (sql, ...values) => (await ask(sql, values))[0],
      all: (sql, ...values) => ask(sql, values),
      native: (sql, values) => this.#reach(() => on.query<Columns>(sql, values.length === 0 ? undefined : [...values])),
    };
  }

  /** @throws BursarError `store-unavailable` when no answer comes; what was not committed did not happen. */
  async #reach<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isLost(error)) throw error;
      throw new BursarError(
        "store-unavailable",
        `The database does not answer: ${(error as Error).message}`,
        {},
        "Try again later: the same request gets the same answer.",
      );
    }
  }
}

/** Classes of SQLSTATE: connection exception, insufficient resources, operator intervention. */
const LOST_CLASSES = ["08", "53", "57"];
/** Codes of sockets. */
const LOST_CODES = [
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ENETUNREACH",
  "EHOSTUNREACH",
];

function isLost(error: unknown): boolean {
  const { code, message } = error as { code?: unknown; message?: string };
  if (typeof code === "string")
    return LOST_CODES.includes(code) || (code.length === 5 && LOST_CLASSES.includes(code.slice(0, 2)));
  return /connection terminated|timeout exceeded when trying to connect|not queryable/i.test(message ?? "");
}

const PREPARED = new Map<string, { name: string; text: string }>();

/** A statement in PostgreSQL's words; the server keeps its plan under the name. */
function prepared(sql: string): { name: string; text: string } {
  let statement = PREPARED.get(sql);
  if (!statement) {
    statement = { name: `bursar_${PREPARED.size}`, text: spoken(sql) };
    PREPARED.set(sql, statement);
  }
  return statement;
}

/** SQLite's STRICT tables know one whole number, INTEGER of 64 bits, which counts up by itself as a primary key. */
function spoken(sql: string): string {
  let next = 0;
  return sql
    .replace(/\?(\d*)/g, (_mark, number: string) => `$${number === "" ? ++next : number}`)
    .replace(/\bINTEGER PRIMARY KEY\b/g, "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
    .replace(/\bINTEGER\b/g, "BIGINT")
    .replace(/\) STRICT(, WITHOUT ROWID)?/g, ")");
}
