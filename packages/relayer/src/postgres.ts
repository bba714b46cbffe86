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
  /** Milliseconds for a connection or a statement, after which the database counts as lost; 5,000 unless given. */
  readonly patience?: number;
}

/** The engine that several processes share. */
export class PostgresEngine implements Engine {
  readonly name = "postgres";
  readonly clock = "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)";
  connections = 0;
  readonly #pool: pg.Pool;
  /** Transactions that take their time, such as changes of tables. */
  readonly #patient = new WeakSet<Queries>();

  /** @param url - `postgres://user:password@host:port/database`. */
  constructor(url: string, { connections = 8, patience = 5_000 }: PostgresOptions = {}) {
    this.#pool = new pg.Pool({
      connectionString: url,
      max: connections,
      connectionTimeoutMillis: patience,
      statement_timeout: patience,
      // A server that lives says so itself, and first.
      query_timeout: patience + ANSWER,
      // Whoever stops in the middle of a transaction does not stop all others.
      idle_in_transaction_session_timeout: 2 * patience,
      // What is committed is on disk, whatever the server's own setting.
      options: "-c synchronous_commit=on",
      keepAlive: true,
      application_name: "bursar",
      types,
    });
    // An idle connection that ends is replaced at its next use.
    this.#pool.on("error", () => undefined);
    this.#pool.on("connect", () => ++this.connections);
  }

  async begin(): Promise<Transaction> {
    const client = await reach(() => this.#pool.connect());
    let broken: Error | undefined;
    const onError = (error: Error): void => {
      broken ??= error;
    };
    client.on("error", onError);
    let open = true;
    const end = (): void => {
      open = false;
      client.off("error", onError);
      client.release(broken);
    };
    const statements = this.#statements(client, onError);
    try {
      await statements.run("BEGIN");
    } catch (error) {
      broken ??= error as Error;
      end();
      throw error;
    }
    return Object.assign(statements, {
      commit: async () => {
        const { command } = await reach(() => client.query("COMMIT"), onError);
        end();
        if (command !== "COMMIT") throw new Error(`the transaction was ended by ${command}`);
      },
      // A connection that does not answer is dropped, and its transaction with it.
      rollback: async () => {
        if (!open) return;
        if (broken === undefined) await client.query("ROLLBACK").catch(onError);
        end();
      },
    });
  }

  async lock(transaction: Queries, name: string): Promise<void> {
    this.#patient.add(transaction);
    await transaction.run("SET LOCAL statement_timeout = 0");
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

  #statements(on: pg.Pool | pg.PoolClient, lost?: (error: Error) => void): Queries & NativeQueries {
    const ask = async (sql: string, values: Value[]): Promise<Columns[]> => {
      const query = { ...prepared(sql), values, ...(this.#patient.has(statements) ? { query_timeout: HOURS } : {}) };
      return (await reach(() => on.query<Columns>(query), lost)).rows;
    };
    const statements: Queries & NativeQueries = {
      run: async (sql, ...values) => {
        await ask(sql, values);
      },
      get: async (sql, ...values) => (await ask(sql, values))[0],
      all: (sql, ...values) => ask(sql, values),
      native: (sql, values) => reach(() => on.query<Columns>(sql, values.length === 0 ? undefined : [...values]), lost),
    };
    return statements;
  }
}

/** Milliseconds that an answer takes to come. */
const ANSWER = 1_000;
const HOURS = 2 ** 31 - 1;

/**
 * @param lost - told when the connection is good for nothing more.
 * @throws BursarError `store-unavailable` when no answer comes, or another transaction is in the way. A commit without an
 * answer may have happened: whoever asks again finds out.
 */
async function reach<T>(work: () => Promise<T>, lost?: (error: Error) => void): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const isLostNow = isLost(error);
    if (isLostNow) lost?.(error as Error);
    if (!isLostNow && !isInTheWay(error)) throw error;
    throw new BursarError(
      "store-unavailable",
      `The database does not answer: ${(error as Error).message}`,
      {},
      "Try again later: the same request gets the same answer.",
    );
  }
}

/**
 * Classes of SQLSTATE and codes of sockets: connection exception, insufficient resources, operator intervention; a server
 * that became a read-only standby, a session that idled in its transaction.
 */
const LOST = [
  ...["08", "53", "57P", "58", "25006", "25P03"],
  ...["ECONNREFUSED", "ECONNRESET", "EPIPE", "ETIMEDOUT", "ENOTFOUND", "EAI_AGAIN", "ENETUNREACH", "EHOSTUNREACH"],
];
/** Statements that were prepared before the tables changed, or by somebody else on a shared connection. */
const LOST_MESSAGES =
  /connection terminated|timeout exceeded when trying to connect|read timeout|not queryable|cached plan must not change|prepared statement "[^"]*" (does not|already) exist/i;
/** Serialisation failure, deadlock, a lock or a statement that took too long: the connection is good. */
const IN_THE_WAY = ["40001", "40P01", "55P03", "57014"];

function isLost(error: unknown): boolean {
  const { code, message } = error as { code?: unknown; message?: string };
  return LOST.some((start) => String(code).startsWith(start)) || LOST_MESSAGES.test(message ?? "");
}

function isInTheWay(error: unknown): boolean {
  return IN_THE_WAY.includes(String((error as { code?: unknown }).code));
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
