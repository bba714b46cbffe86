import { AsyncLocalStorage } from "node:async_hooks";

import { BursarError } from "@bursar/protocol";

/** A row as an engine gives it. Whole numbers are numbers below 2^53; what can be larger is text. */
export type Columns = Record<string, string | number | bigint | null>;
export type Value = string | number | null;

/** Statements in the SQL that SQLite and PostgreSQL share, with `?` or `?1` for values. */
export interface Queries {
  run(sql: string, ...values: Value[]): Promise<void>;
  get(sql: string, ...values: Value[]): Promise<Columns | undefined>;
  all(sql: string, ...values: Value[]): Promise<Columns[]>;
}

/** Statements in an engine's own words, for what knows no other engine. */
export interface NativeQueries {
  native(sql: string, values: readonly unknown[]): Promise<{ rows: Columns[] }>;
}

/** A connection on which a transaction is open. */
export interface Transaction extends Queries, Partial<NativeQueries> {
  commit(): Promise<void>;
  rollback(): Promise<void>;
}

/** What an engine gives: single statements, transactions, and its own form of a schema. */
export interface Engine extends Queries, Partial<NativeQueries> {
  readonly name: "sqlite" | "postgres";
  /** The present in Unix seconds, as an expression. */
  readonly clock: string;
  /** Connections made so far: each may have led to another server, or to books that were put back. */
  readonly connections: number;
  begin(): Promise<Transaction>;
  /** Within a transaction: waits until no other one holds the same name. */
  lock(transaction: Queries, name: string): Promise<void>;
  create(transaction: Queries, schema: string): Promise<void>;
  close(): Promise<void>;
}

/** Told of each transaction and each statement outside of one: how long it took, and what it failed with, if it did. */
export type DatabaseObserver = (kind: "transaction" | "statement", milliseconds: number, failure?: unknown) => void;

/** Looks, at the beginning of a transaction, whether its writer may still write; throws if not. */
export type Guard = (transaction: Queries) => Promise<void>;

/** Changes of one book's tables, the oldest first: the first creates them, and none is ever edited. */
export interface Book {
  readonly name: string;
  readonly versions: readonly string[];
}

interface Scope {
  readonly transaction: Transaction | null;
  readonly guard: Guard | null;
}

const NONE: Scope = { transaction: null, guard: null };

/**
 * A database of several books (payments, intents, API keys), each with tables of its own. Whatever runs inside
 * {@link transact} shares its transaction; what it returned from is on disk, and survives a crash and a power cut.
 */
export class Database implements Queries {
  readonly #engine: Engine;
  readonly #scopes = new AsyncLocalStorage<Scope & { open: boolean }>();
  #observe: DatabaseObserver = () => undefined;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  get engine(): Engine["name"] {
    return this.#engine.name;
  }

  /** The present in Unix seconds by the database's own clock, as an expression. */
  get clock(): string {
    return this.#engine.clock;
  }

  /** Connections made so far, see {@link Engine.connections}. */
  get connections(): number {
    return this.#engine.connections;
  }

  /** There is one observer: the last that was given. */
  watch(observe: DatabaseObserver): void {
    this.#observe = observe;
  }

  /** Runs `work` in one transaction, or in the one that is open around it: all of it is on disk afterwards, or none. */
  async transact<T>(work: () => Promise<T>): Promise<T> {
    const scope = this.#scope();
    if (scope.transaction !== null) return work();
    return this.#timed("transaction", () => this.#transact(scope, work));
  }

  async #transact<T>(scope: Scope, work: () => Promise<T>): Promise<T> {
    const transaction = await this.#engine.begin();
    const inside = { transaction, guard: scope.guard, open: true };
    try {
      await scope.guard?.(transaction);
      const result = await this.#scopes.run(inside, work);
      inside.open = false;
      await transaction.commit();
      return result;
    } catch (error) {
      inside.open = false;
      await transaction.rollback();
      throw error;
    }
  }

  /** Whatever `work` writes, in however many transactions, is written only while `guard` allows it. */
  async guarded<T>(guard: Guard, work: () => Promise<T>): Promise<T> {
    const inside = { transaction: this.#scope().transaction, guard, open: true };
    try {
      return await this.#scopes.run(inside, work);
    } finally {
      inside.open = false;
    }
  }

  /** Like {@link transact}, and while it lasts no other process is in a transaction of this name. */
  exclusively<T>(name: string, work: () => Promise<T>): Promise<T> {
    return this.transact(async () => {
      await this.#engine.lock(this.#scope().transaction!, name);
      return work();
    });
  }

  /**
   * Brings the tables of books to their newest version, or changes nothing; to be called before they are used.
   * @throws BursarError `store-unavailable` when a later program has changed them, or tables that are not Bursar's are in
   * the way.
   */
  async open(books: readonly Book[]): Promise<void> {
    try {
      await this.exclusively("migration", async () => {
        const { transaction } = this.#scope();
        await this.#engine.create(transaction!, VERSIONS);
        for (const book of books) await this.#migrate(book, transaction!);
      });
    } catch (error) {
      throw error instanceof BursarError ? error : unfit(error as Error);
    }
  }

  async #migrate({ name, versions }: Book, transaction: Queries): Promise<void> {
    const row = await this.get("SELECT version FROM book WHERE name = ?", name);
    const version = Number(row?.["version"] ?? 0);
    if (version > versions.length) throw tooNew(name, version, versions.length);
    if (version === versions.length) return;
    for (const change of versions.slice(version)) await this.#engine.create(transaction, change);
    await this.run(
      "INSERT INTO book (name, version) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET version = excluded.version",
      name,
      versions.length,
    );
  }

  async run(sql: string, ...values: Value[]): Promise<void> {
    const { transaction, guard } = this.#scope();
    if (transaction === null && guard !== null) return this.transact(() => this.run(sql, ...values));
    return this.#ask(transaction, (queries) => queries.run(sql, ...values));
  }

  get(sql: string, ...values: Value[]): Promise<Columns | undefined> {
    return this.#ask(this.#scope().transaction, (queries) => queries.get(sql, ...values));
  }

  all(sql: string, ...values: Value[]): Promise<Columns[]> {
    return this.#ask(this.#scope().transaction, (queries) => queries.all(sql, ...values));
  }

  #ask<T>(transaction: Transaction | null, statement: (queries: Queries) => Promise<T>): Promise<T> {
    return transaction === null ? this.#timed("statement", () => statement(this.#engine)) : statement(transaction);
  }

  async #timed<T>(kind: "transaction" | "statement", work: () => Promise<T>): Promise<T> {
    const began = performance.now();
    try {
      const result = await work();
      this.#observe(kind, performance.now() - began);
      return result;
    } catch (failure) {
      this.#observe(kind, performance.now() - began, failure);
      throw failure;
    }
  }

  /** Like {@link run}, in the engine's own words, which SQLite has none of. */
  async native(sql: string, values: readonly unknown[]): Promise<{ rows: Columns[] }> {
    const { transaction, guard } = this.#scope();
    if (transaction === null && guard !== null) return this.transact(() => this.native(sql, values));
    const on = transaction ?? this.#engine;
    if (!on.native) throw new Error(`${this.engine} takes no statements in its own words`);
    return on.native(sql, values);
  }

  /** Runs `work` outside of the transaction and the guard that are around this. */
  apart<T>(work: () => Promise<T>): Promise<T> {
    return this.#scopes.exit(work);
  }

  close(): Promise<void> {
    return this.#engine.close();
  }

  /** What was begun in a scope that has ended since runs outside of it. */
  #scope(): Scope {
    const scope = this.#scopes.getStore();
    return scope?.open ? scope : NONE;
  }
}

const VERSIONS = "CREATE TABLE IF NOT EXISTS book (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;";

/** `(?, ?, ?)` for as many values. */
export const list = (count: number): string => `(${Array.from({ length: count }, () => "?").join(", ")})`;

function unfit({ message }: Error): BursarError {
  return new BursarError(
    "store-unavailable",
    `The database cannot be brought to this version, and nothing was changed: ${message}`,
    {},
    "Give Bursar a database of its own, empty or written by it.",
  );
}

function tooNew(name: string, version: number, known: number): BursarError {
  return new BursarError(
    "store-unavailable",
    `The tables of «${name}» are of version ${version}; this program knows ${known}.`,
    { value: version, limit: known },
    "Start the version of Bursar that wrote them, or a later one.",
  );
}
