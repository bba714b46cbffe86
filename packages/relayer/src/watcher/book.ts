import { BursarError, toWire, type Address, type Hex } from "@bursar/protocol";
import { DatabaseSync } from "node:sqlite";

import type { Columns, Queries } from "../database.ts";
import {
  addTransaction,
  OUTBOX_SCHEMA,
  transactionsAt,
  transactionsOf,
  transactionsSince,
  type OutboxBook,
} from "../outbox-book.ts";
import type { OutboxEntry } from "../records.ts";
import type { Alert } from "./alerts.ts";
import type { ReceiptState } from "./follow.ts";
import { SqliteEngine } from "../sqlite.ts";
import { SqliteFile } from "../sqlite-file.ts";
import { readReceipted, type Watched } from "./receipt.ts";

const SCHEMA = `
CREATE TABLE IF NOT EXISTS receipt (
  id TEXT PRIMARY KEY,
  agent TEXT NOT NULL,
  seq TEXT NOT NULL,
  processor TEXT NOT NULL,
  token TEXT NOT NULL,
  units INTEGER NOT NULL,
  payment TEXT NOT NULL,
  at INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting',
  until INTEGER,
  note TEXT,
  done INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS receipt_open ON receipt (agent) WHERE done = 0;
CREATE INDEX IF NOT EXISTS receipt_number ON receipt (agent, seq);
CREATE INDEX IF NOT EXISTS receipt_bond ON receipt (processor, token);
CREATE TABLE IF NOT EXISTS action (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  subjects TEXT NOT NULL,
  target TEXT NOT NULL,
  data TEXT NOT NULL,
  gas TEXT NOT NULL,
  at INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'failed')),
  ended_at INTEGER,
  result TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS action_state ON action (state, kind);
CREATE TABLE IF NOT EXISTS mandate (
  agent TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  processor TEXT NOT NULL,
  token TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'open',
  budget TEXT NOT NULL,
  remaining TEXT NOT NULL,
  closes_at INTEGER NOT NULL DEFAULT 0,
  done INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS alert (
  position INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  body TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_at INTEGER NOT NULL DEFAULT 0,
  delivered_at INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS alert_due ON alert (next_at) WHERE delivered_at IS NULL;
CREATE TABLE IF NOT EXISTS place (
  name TEXT PRIMARY KEY,
  position INTEGER NOT NULL,
  mark TEXT NOT NULL
) STRICT;
${OUTBOX_SCHEMA.replace(/^CREATE (TABLE|INDEX)/gm, "CREATE $1 IF NOT EXISTS")}`;

/** A receipt and where it stands. */
export interface WatchedRecord extends Watched {
  readonly state: ReceiptState;
  /** Unix seconds of the next thing that can happen to it, or null. */
  readonly until: bigint | null;
  /** Why what should be done for it could not be. */
  readonly note: string | null;
  /** Nothing is left to do for it. */
  readonly done: boolean;
}

export type ActionKind =
  "file" | "resolve" | "report" | "approve" | "challenge" | "uphold" | "share" | "finish" | "close" | "sweep";

/** A transaction that was decided on. */
export interface Action {
  readonly id: number;
  readonly kind: ActionKind;
  /** What it is about: receipts by id, mandates by agent. While it is pending no other of its kind is about them. */
  readonly subjects: readonly string[];
  readonly target: Address;
  readonly data: Hex;
  /** What it is expected to take. */
  readonly gas: bigint;
}

/** An owner's mandate as it was last seen. Amounts in units. */
export interface OwnedMandate {
  readonly agent: Address;
  readonly owner: Address;
  readonly processor: Address;
  readonly token: Address;
  readonly state: string;
  readonly budget: bigint;
  readonly remaining: bigint;
  readonly closesAt: bigint;
  readonly done: boolean;
}

/** How far something was read, and what stood there. */
export interface Place {
  readonly position: number;
  readonly mark: string;
}

/** What a watcher knows and has decided. Every change is on disk when its call, or the transaction around it, returns. */
export class WatchBook implements OutboxBook {
  readonly database: SqliteFile;
  readonly #statements: Queries;
  readonly #path: string;
  readonly #now: () => bigint;
  #lock: DatabaseSync | undefined;

  /** @param path - file of the database, created if missing. @param now - Unix seconds. */
  constructor(path: string, now: () => bigint) {
    this.#path = path;
    this.#now = now;
    this.database = new SqliteFile(path);
    this.database.exec(SCHEMA);
    this.#statements = new SqliteEngine(this.database);
  }

  close(): void {
    this.#lock?.close();
    this.database.close();
  }

  /**
   * Makes this process the only one that acts by the book, until it closes it or dies.
   * @throws BursarError `store-unavailable` when another one is.
   */
  lock(): void {
    this.#lock ??= new DatabaseSync(`${this.#path}.lock`);
    try {
      this.#lock.exec("PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE");
    } catch {
      throw new BursarError(
        "store-unavailable",
        "Another watcher acts by this book.",
        { value: this.#path },
        "Stop it, or give this one another --home.",
      );
    }
  }

  transact<T>(work: () => T): T {
    return this.database.transact(work);
  }

  /** Keeps a receipt. @returns false if it was kept before. */
  keep({ id, processor, token, payment }: Watched): boolean {
    const kept = this.database.get(
      `INSERT INTO receipt (id, agent, seq, processor, token, units, payment, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT DO NOTHING RETURNING id`,
      id,
      payment.agent,
      payment.seq.toString(),
      processor,
      token,
      Number(payment.line.amount),
      JSON.stringify(toWire(payment)),
      Number(this.#now()),
    );
    return kept !== undefined;
  }

  has(id: Hex): boolean {
    return this.database.get("SELECT 1 FROM receipt WHERE id = ?", id) !== undefined;
  }

  receipt(id: Hex): WatchedRecord | undefined {
    const row = this.database.get("SELECT * FROM receipt WHERE id = ?", id);
    return row && recordOf(row);
  }

  /** Agents of receipts that are not done. */
  openAgents(): Address[] {
    return this.database.all("SELECT DISTINCT agent FROM receipt WHERE done = 0").map((row) => row["agent"] as Address);
  }

  /** Receipts that are not done, the oldest first. */
  open(agent?: Address): WatchedRecord[] {
    const rows =
      agent === undefined
        ? this.database.all("SELECT * FROM receipt WHERE done = 0 ORDER BY rowid")
        : this.database.all("SELECT * FROM receipt WHERE done = 0 AND agent = ? ORDER BY rowid", agent);
    return rows.map(recordOf);
  }

  /** How many receipts are in each state, and their units. */
  totals(): { state: ReceiptState; receipts: number; units: bigint }[] {
    return this.database
      .all(
        "SELECT state, COUNT(*) AS receipts, CAST(SUM(units) AS TEXT) AS units FROM receipt GROUP BY state ORDER BY state",
      )
      .map((row) => ({
        state: row["state"] as ReceiptState,
        receipts: Number(row["receipts"]),
        units: BigInt(row["units"]!),
      }));
  }

  /** Payment numbers of which two different payments have receipts: the first two of each. */
  contradictions(): [WatchedRecord, WatchedRecord][] {
    const numbers = this.database.all("SELECT agent, seq FROM receipt GROUP BY agent, seq HAVING COUNT(*) > 1");
    return numbers.map((row) => {
      const [first, second] = this.database
        .all(
          "SELECT * FROM receipt WHERE agent = ? AND seq = ? ORDER BY rowid LIMIT 2",
          String(row["agent"]),
          String(row["seq"]),
        )
        .map(recordOf);
      return [first!, second!];
    });
  }

  /** Every processor and token behind a receipt, those that are done included. */
  bonds(): { processor: Address; token: Address }[] {
    return this.database.all("SELECT DISTINCT processor, token FROM receipt").map((row) => ({
      processor: row["processor"] as Address,
      token: row["token"] as Address,
    }));
  }

  setState(id: Hex, state: ReceiptState, until: bigint | null, done: boolean): void {
    this.database.run(
      "UPDATE receipt SET state = ?, until = ?, done = ? WHERE id = ?",
      state,
      until === null ? null : Number(until),
      done ? 1 : 0,
      id,
    );
  }

  note(id: string, note: string | null): void {
    this.database.run("UPDATE receipt SET note = ? WHERE id = ?", note, id);
  }

  /** Records a transaction before anything of it exists. */
  decide(action: Omit<Action, "id">): Action {
    const { kind, subjects, target, data, gas } = action;
    const row = this.database.get(
      "INSERT INTO action (kind, subjects, target, data, gas, at) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
      kind,
      JSON.stringify(subjects),
      target,
      data,
      gas.toString(),
      Number(this.#now()),
    );
    return { id: Number(row!["id"]), ...action };
  }

  pending(): Action[] {
    return this.database.all("SELECT * FROM action WHERE state = 'pending' ORDER BY id").map((row) => ({
      id: Number(row["id"]),
      kind: row["kind"] as ActionKind,
      subjects: JSON.parse(String(row["subjects"])) as string[],
      target: row["target"] as Address,
      data: row["data"] as Hex,
      gas: BigInt(row["gas"]!),
    }));
  }

  /** @param result - the transaction's hash, or why it failed. */
  end(id: number, state: "done" | "failed", result: string): void {
    const now = Number(this.#now());
    this.database.run("UPDATE action SET state = ?, ended_at = ?, result = ? WHERE id = ?", state, now, result, id);
  }

  /** Whether an action of this kind about the subject ended well. */
  did(kind: ActionKind, subject: string): boolean {
    return this.#ended(kind, subject, "done").count > 0;
  }

  /** How often an action of this kind about the subject has failed, and when last. */
  failures(kind: ActionKind, subject: string): { count: number; last: bigint } {
    return this.#ended(kind, subject, "failed");
  }

  #ended(kind: ActionKind, subject: string, state: string): { count: number; last: bigint } {
    const row = this.database.get(
      `SELECT COUNT(*) AS count, MAX(ended_at) AS last FROM action, json_each(action.subjects) AS subject
       WHERE state = ? AND kind = ? AND subject.value = ?`,
      state,
      kind,
      subject,
    );
    return { count: Number(row?.["count"] ?? 0), last: BigInt(row?.["last"] ?? 0) };
  }

  addTransaction(entry: Omit<OutboxEntry, "id">): Promise<void> {
    return addTransaction(this.#statements, entry);
  }

  transactions(job: string): Promise<OutboxEntry[]> {
    return transactionsOf(this.#statements, job);
  }

  transactionsAt(nonce: number): Promise<OutboxEntry[]> {
    return transactionsAt(this.#statements, nonce);
  }

  transactionsSince(time: bigint): Promise<OutboxEntry[]> {
    return transactionsSince(this.#statements, time);
  }

  /** Takes an owner's mandate into the book. @returns false if it stands there already. */
  addMandate({
    agent,
    owner,
    processor,
    token,
    budget,
  }: Omit<OwnedMandate, "state" | "remaining" | "closesAt" | "done">) {
    const added = this.database.get(
      `INSERT INTO mandate (agent, owner, processor, token, budget, remaining) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT DO NOTHING RETURNING agent`,
      agent,
      owner,
      processor,
      token,
      budget.toString(),
      budget.toString(),
    );
    return added !== undefined;
  }

  mandates(): OwnedMandate[] {
    return this.database.all("SELECT * FROM mandate ORDER BY agent").map((row) => ({
      agent: row["agent"] as Address,
      owner: row["owner"] as Address,
      processor: row["processor"] as Address,
      token: row["token"] as Address,
      state: String(row["state"]),
      budget: BigInt(row["budget"]!),
      remaining: BigInt(row["remaining"]!),
      closesAt: BigInt(row["closes_at"]!),
      done: row["done"] === 1,
    }));
  }

  setMandate(
    agent: Address,
    { state, remaining, closesAt, done }: Pick<OwnedMandate, "state" | "remaining" | "closesAt" | "done">,
  ) {
    this.database.run(
      "UPDATE mandate SET state = ?, remaining = ?, closes_at = ?, done = ? WHERE agent = ?",
      state,
      remaining.toString(),
      Number(closesAt),
      done ? 1 : 0,
      agent,
    );
  }

  /** Keeps an alert to be delivered. @returns false if one of this id was kept before. */
  addAlert(alert: Alert): boolean {
    const added = this.database.get(
      "INSERT INTO alert (id, body) VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING id",
      alert.id,
      JSON.stringify(toWire(alert)),
    );
    return added !== undefined;
  }

  /** Alerts that are to be delivered now, the oldest first. */
  dueAlerts(limit: number): { id: string; body: string; attempts: number }[] {
    return this.database
      .all(
        "SELECT id, body, attempts FROM alert WHERE delivered_at IS NULL AND next_at <= ? ORDER BY position LIMIT ?",
        Number(this.#now()),
        limit,
      )
      .map((row) => ({ id: String(row["id"]), body: String(row["body"]), attempts: Number(row["attempts"]) }));
  }

  undelivered(): number {
    return Number(this.database.get("SELECT COUNT(*) AS count FROM alert WHERE delivered_at IS NULL")?.["count"]);
  }

  delivered(id: string): void {
    this.database.run(
      "UPDATE alert SET delivered_at = ?, attempts = attempts + 1 WHERE id = ?",
      Number(this.#now()),
      id,
    );
  }

  postpone(id: string, seconds: number): void {
    this.database.run(
      "UPDATE alert SET attempts = attempts + 1, next_at = ? WHERE id = ?",
      Number(this.#now()) + seconds,
      id,
    );
  }

  place(name: string): Place | null {
    const row = this.database.get("SELECT position, mark FROM place WHERE name = ?", name);
    return row === undefined ? null : { position: Number(row["position"]), mark: String(row["mark"]) };
  }

  setPlace(name: string, { position, mark }: Place): void {
    this.database.run(
      `INSERT INTO place (name, position, mark) VALUES (?, ?, ?)
       ON CONFLICT DO UPDATE SET position = excluded.position, mark = excluded.mark`,
      name,
      position,
      mark,
    );
  }
}

function recordOf(row: Columns): WatchedRecord {
  return {
    id: row["id"] as Hex,
    processor: row["processor"] as Address,
    token: row["token"] as Address,
    payment: readReceipted(String(row["payment"])),
    state: row["state"] as ReceiptState,
    until: row["until"] === null ? null : BigInt(row["until"]!),
    note: row["note"] === null ? null : String(row["note"]),
    done: row["done"] === 1,
  };
}
