import type { Database } from "./database.ts";
import { PgBossQueue } from "./pg-boss-queue.ts";
import type { ProofQueue, ProofQueueOptions } from "./proof-queue.ts";
import { TableQueue } from "./table-queue.ts";

/** The queue of the books' own database: pg-boss in PostgreSQL, a table in SQLite. */
export function openProofQueue(database: Database, options: ProofQueueOptions = {}): Promise<ProofQueue> {
  return database.engine === "postgres" ? PgBossQueue.open(database, options) : TableQueue.open(database, options);
}
