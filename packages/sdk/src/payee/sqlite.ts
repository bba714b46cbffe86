import { BursarError, type Address, type Domain } from "@bursar/protocol";
import { DatabaseSync, type StatementSync } from "node:sqlite";

import { unknownPayment } from "./memory.ts";
import {
  keyOf,
  railName,
  readRecord,
  readRefund,
  rememberUntil,
  seqText,
  writeRecord,
  writeRefund,
  type ExposureLimits,
  type Marked,
  type ReceiptKey,
  type ReceiptRecord,
  type ReceiptStore,
  type RefundRecord,
  type UsedReceipt,
} from "./receipts.ts";

/** `seq` is text of fixed width: it may be above what SQLite holds as a number. An empty agent stands for all. */
const SCHEMA = `
CREATE TABLE IF NOT EXISTS receipts (
  rail TEXT NOT NULL,
  agent TEXT NOT NULL,
  seq TEXT NOT NULL,
  processor TEXT NOT NULL,
  amount INTEGER NOT NULL,
  signature TEXT NOT NULL,
  forget_at INTEGER NOT NULL,
  settled INTEGER NOT NULL,
  released INTEGER NOT NULL DEFAULT 0,
  refund TEXT NOT NULL DEFAULT 'null',
  record TEXT NOT NULL,
  PRIMARY KEY (rail, agent, seq)
) STRICT;
CREATE INDEX IF NOT EXISTS receipts_unsettled ON receipts (rail, processor, agent, seq) WHERE settled = 0;
CREATE TABLE IF NOT EXISTS exposure (
  rail TEXT NOT NULL,
  processor TEXT NOT NULL,
  agent TEXT NOT NULL,
  units INTEGER NOT NULL,
  PRIMARY KEY (rail, processor, agent)
) STRICT, WITHOUT ROWID;
`;

const EXPORT_PAGE = 500;
const EVERYBODY = "";

type Value = string | number | bigint;
type Row = Record<string, string | bigint>;

interface Waiting {
  readonly work: () => unknown;
  readonly resolve: (value: never) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * Receipts in an SQLite file with a write-ahead log, synced to disk at each commit: what was marked survives a power
 * cut, and the whole payment and receipt with it. Processes on one machine may share the file. Writes that arrive
 * together share a commit.
 */
export class SqliteReceipts implements ReceiptStore {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #waiting: Waiting[] = [];

  /** @param path - file of the database, created if missing. */
  constructor(path: string) {
    this.#db = new DatabaseSync(path, { readBigInts: true });
    this.#db.exec("PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    this.#db.exec(SCHEMA);
  }

  /** Writes what is waiting, and closes the file. */
  close(): void {
    this.#flush();
    this.#statements.clear();
    this.#db.close();
  }

  /** @throws BursarError `store-unavailable` */
  mark(used: UsedReceipt, limits: ExposureLimits): Promise<Marked> {
    return this.#write(() => this.#mark(used, limits));
  }

  release(key: ReceiptKey): Promise<void> {
    return this.#write(() =>
      this.#run("UPDATE receipts SET released = 1 WHERE rail = ? AND agent = ? AND seq = ?", key),
    );
  }

  exposure(domain: Domain, processor: Address): Promise<bigint> {
    return this.#read(() => this.#units(railName(domain), processor, EVERYBODY));
  }

  unsettled(domain: Domain, processor: Address, limit: number): Promise<readonly Address[]> {
    return this.#read(() =>
      this.#all(
        "SELECT agent FROM exposure WHERE rail = ? AND processor = ? AND agent <> '' AND units > 0 ORDER BY units DESC LIMIT ?",
        railName(domain),
        processor,
        limit,
      ).map((row) => row["agent"] as Address),
    );
  }

  settled(domain: Domain, agent: Address, seq: bigint): Promise<void> {
    const rail = railName(domain);
    const upTo = [rail, agent, seqText(seq)] as const;
    const which = "WHERE rail = ? AND agent = ? AND seq <= ? AND settled = 0";
    return this.#write(() => {
      const freed = this.#all(
        `SELECT processor, SUM(amount) AS units FROM receipts ${which} GROUP BY processor`,
        ...upTo,
      );
      for (const { processor, units } of freed) this.#expose(rail, processor as string, agent, -(units as bigint));
      if (freed.length > 0) this.#prepare(`UPDATE receipts SET settled = 1 ${which}`).run(...upTo);
    });
  }

  find(key: ReceiptKey): Promise<ReceiptRecord | null> {
    return this.#read(() => {
      const row = this.#row(key);
      return row === undefined ? null : recordOf(row);
    });
  }

  beginRefund(key: ReceiptKey, refund: RefundRecord): Promise<RefundRecord | null> {
    return this.#write(() => {
      const row = this.#row(key);
      if (row === undefined) throw unknownPayment(key);
      const before = readRefund(row["refund"] as string);
      if (before === null) this.#setRefund(key, refund);
      return before;
    });
  }

  endRefund(key: ReceiptKey, refund: RefundRecord | null): Promise<void> {
    return this.#write(() => this.#setRefund(key, refund));
  }

  async *export(): AsyncGenerator<string, void> {
    let after: readonly [string, string, string] = ["", "", ""];
    for (;;) {
      const from = after;
      const rows = await this.#read(() =>
        this.#all(
          `SELECT * FROM receipts WHERE (rail, agent, seq) > (?, ?, ?) ORDER BY rail, agent, seq LIMIT ${EXPORT_PAGE}`,
          ...from,
        ),
      );
      for (const row of rows) yield `${writeRecord(recordOf(row))}\n`;
      const last = rows.at(-1);
      if (last === undefined) return;
      after = [last["rail"] as string, last["agent"] as string, last["seq"] as string];
    }
  }

  /**
   * Deletes settled receipts that nobody takes any more and that are due before `before` (Unix seconds). Export them
   * first if they have to be kept.
   *
   * @returns how many.
   */
  prune(before: bigint, now = BigInt(Math.floor(Date.now() / 1_000))): Promise<number> {
    const limit = before < now ? before : now;
    return this.#write(() =>
      Number(this.#prepare("DELETE FROM receipts WHERE settled = 1 AND forget_at <= ?").run(limit).changes),
    );
  }

  #mark({ paid, processor, method, url, usedAt, settled }: UsedReceipt, limits: ExposureLimits): Marked {
    const key = keyOf(paid);
    const rail = railName(key.domain);
    const { signature, payment } = paid.payment;
    const row = this.#row(key);
    const before = this.#units(rail, processor, EVERYBODY);
    if (row !== undefined) {
      if (row["released"] === 0n || row["signature"] !== signature) return { kind: "used" };
      this.#run("UPDATE receipts SET released = 0 WHERE rail = ? AND agent = ? AND seq = ?", key);
      return { kind: "marked", exposure: before };
    }
    const { amount } = payment.line;
    if (!settled) {
      const own = this.#units(rail, processor, key.agent) + amount;
      if (own > limits.mandate) return { kind: "exceeded", scope: "mandate", value: own, limit: limits.mandate };
      const all = before + amount;
      if (all > limits.processor) return { kind: "exceeded", scope: "processor", value: all, limit: limits.processor };
      this.#expose(rail, processor, key.agent, amount);
    }
    const record = writeRecord({ paid, processor, method, url, usedAt, settled, released: false, refund: null });
    this.#prepare(
      "INSERT INTO receipts (rail, agent, seq, processor, amount, signature, forget_at, settled, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ).run(
      rail,
      key.agent,
      seqText(key.seq),
      processor,
      amount,
      signature,
      rememberUntil(paid),
      settled ? 1 : 0,
      record,
    );
    return { kind: "marked", exposure: settled ? before : before + amount };
  }

  #units(rail: string, processor: Address, agent: string): bigint {
    const sql = "SELECT units FROM exposure WHERE rail = ? AND processor = ? AND agent = ?";
    return (this.#prepare(sql).get(rail, processor, agent)?.["units"] as bigint | undefined) ?? 0n;
  }

  #expose(rail: string, processor: string, agent: Address, units: bigint): void {
    const statement = this.#prepare(
      "INSERT INTO exposure (rail, processor, agent, units) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET units = units + excluded.units",
    );
    statement.run(rail, processor, EVERYBODY, units);
    statement.run(rail, processor, agent, units);
    this.#prepare("DELETE FROM exposure WHERE rail = ? AND processor = ? AND agent = ? AND units = 0").run(
      rail,
      processor,
      agent,
    );
  }

  #row(key: ReceiptKey): Row | undefined {
    return this.#all(
      "SELECT * FROM receipts WHERE rail = ? AND agent = ? AND seq = ?",
      railName(key.domain),
      key.agent,
      seqText(key.seq),
    )[0];
  }

  #setRefund(key: ReceiptKey, refund: RefundRecord | null): void {
    this.#prepare("UPDATE receipts SET refund = ? WHERE rail = ? AND agent = ? AND seq = ?").run(
      writeRefund(refund),
      railName(key.domain),
      key.agent,
      seqText(key.seq),
    );
  }

  #run(sql: string, key: ReceiptKey): void {
    this.#prepare(sql).run(railName(key.domain), key.agent, seqText(key.seq));
  }

  #all(sql: string, ...values: Value[]): Row[] {
    return this.#prepare(sql).all(...values) as Row[];
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) this.#statements.set(sql, (statement = this.#db.prepare(sql)));
    return statement;
  }

  #read<T>(work: () => T): Promise<T> {
    return new Promise((resolve) => resolve(reach(work)));
  }

  #write<T>(work: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ work, resolve, reject });
      if (this.#waiting.length === 1) setImmediate(() => this.#flush());
    });
  }

  /** Does everything that waits in one transaction; answers once it is on disk. */
  #flush(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length === 0) return;
    try {
      const answers = reach(() => this.#transact(waiting));
      for (const answer of answers) answer();
    } catch (error) {
      for (const { reject } of waiting) reject(error);
    }
  }

  #transact(waiting: readonly Waiting[]): (() => void)[] {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      const answers = waiting.map(({ work, resolve, reject }) => {
        try {
          const value = work() as never;
          return () => resolve(value);
        } catch (error) {
          if (!(error instanceof BursarError)) throw error;
          return () => reject(error);
        }
      });
      this.#db.exec("COMMIT");
      return answers;
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      throw error;
    }
  }
}

function recordOf(row: Row): ReceiptRecord {
  return {
    ...readRecord(row["record"] as string),
    settled: row["settled"] === 1n,
    released: row["released"] === 1n,
    refund: readRefund(row["refund"] as string),
  };
}

/** @throws BursarError `store-unavailable` for what SQLite throws. */
function reach<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof BursarError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new BursarError(
      "store-unavailable",
      "The payee's receipt store cannot be used.",
      { reason },
      "Repeat the request with the same payment later; nothing was used.",
    );
  }
}
