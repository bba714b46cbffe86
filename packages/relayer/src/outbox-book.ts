import type { Hex } from "@bursar/protocol";

import type { Columns, Queries } from "./database.ts";
import type { OutboxEntry } from "./records.ts";

/** The table of signed transactions. */
export const OUTBOX_SCHEMA = `
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY,
  job TEXT NOT NULL,
  nonce INTEGER NOT NULL,
  max_fee TEXT NOT NULL,
  max_priority_fee TEXT NOT NULL,
  raw TEXT NOT NULL,
  hash TEXT NOT NULL,
  sent_at INTEGER NOT NULL,
  UNIQUE (job, hash)
) STRICT;
CREATE INDEX outbox_job ON outbox (job);
CREATE INDEX outbox_sent ON outbox (sent_at);
`;

/** Where an outbox keeps what it signed. */
export interface OutboxBook {
  /** Records a signed transaction before it is broadcast. */
  addTransaction(entry: Omit<OutboxEntry, "id">): Promise<void>;
  /** Every signed transaction of a job, the newest first: replacements share a nonce. */
  transactions(job: string): Promise<OutboxEntry[]>;
  /** Every signed transaction with a nonce, of any job, the newest first. */
  transactionsAt(nonce: number): Promise<OutboxEntry[]>;
  /** Every transaction that was signed at or after a time (Unix seconds), the newest first. */
  transactionsSince(time: bigint): Promise<OutboxEntry[]>;
}

export async function addTransaction(database: Queries, entry: Omit<OutboxEntry, "id">): Promise<void> {
  await database.run(
    `INSERT INTO outbox (job, nonce, max_fee, max_priority_fee, raw, hash, sent_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
    entry.job,
    entry.nonce,
    entry.maxFeePerGas.toString(),
    entry.maxPriorityFeePerGas.toString(),
    entry.raw,
    entry.hash,
    Number(entry.sentAt),
  );
}

export async function transactionsOf(database: Queries, job: string): Promise<OutboxEntry[]> {
  return (await database.all("SELECT * FROM outbox WHERE job = ? ORDER BY id DESC", job)).map(entryOf);
}

export async function transactionsAt(database: Queries, nonce: number): Promise<OutboxEntry[]> {
  return (await database.all("SELECT * FROM outbox WHERE nonce = ? ORDER BY id DESC", nonce)).map(entryOf);
}

export async function transactionsSince(database: Queries, time: bigint): Promise<OutboxEntry[]> {
  const since = await database.all("SELECT * FROM outbox WHERE sent_at >= ? ORDER BY id DESC", Number(time));
  return since.map(entryOf);
}

function entryOf(row: Columns): OutboxEntry {
  return {
    id: Number(row["id"]),
    job: String(row["job"]),
    nonce: Number(row["nonce"]),
    maxFeePerGas: BigInt(row["max_fee"]!),
    maxPriorityFeePerGas: BigInt(row["max_priority_fee"]!),
    raw: String(row["raw"]) as Hex,
    hash: String(row["hash"]) as Hex,
    sentAt: BigInt(row["sent_at"]!),
  };
}
