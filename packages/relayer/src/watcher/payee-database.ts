import { BursarError, type Domain } from "@bursar/protocol";
import { DatabaseSync } from "node:sqlite";

import type { Alerts } from "./alerts.ts";
import type { WatchBook } from "./book.ts";
import type { Intake } from "./intake.ts";

const PAGE = 500;

export interface PayeeDatabaseOptions {
  /** A file of the payee SDK's `SqliteReceipts`, which may be in use. */
  readonly path: string;
  readonly domain: Domain;
  readonly book: WatchBook;
  readonly intake: Intake;
  readonly alerts: Alerts;
}

interface Row {
  readonly rowid: number;
  readonly signature: string;
  readonly record: string;
}

/**
 * Takes the receipts of a payee's database as they come. Rows are read in the order of their numbers; where the last one
 * read is not there any more, numbers may have been given anew, and all rows are read again.
 */
export class PayeeDatabase {
  readonly #options: PayeeDatabaseOptions;

  constructor(options: PayeeDatabaseOptions) {
    this.#options = options;
  }

  /** Takes what is new. @throws BursarError `store-unavailable`, `chain-unavailable` */
  async read(): Promise<void> {
    const db = this.#open();
    try {
      for (let rows = this.#next(db); rows.length > 0; rows = this.#next(db)) {
        for (const row of rows) if (!(await this.#take(row))) return;
      }
    } finally {
      db.close();
    }
  }

  #next(db: DatabaseSync): Row[] {
    const { book, domain, path } = this.#options;
    const place = book.place(nameOf(path));
    const last = place && db.prepare("SELECT signature FROM receipts WHERE rowid = ?").get(place.position);
    const after = last?.["signature"] === place?.mark ? (place?.position ?? 0) : 0;
    return db
      .prepare(
        "SELECT rowid AS rowid, signature, record FROM receipts WHERE rowid > ? AND rail = ? ORDER BY rowid LIMIT ?",
      )
      .all(after, `${domain.chainId}:${domain.registry.toLowerCase()}`, PAGE) as unknown as Row[];
  }

  /** @returns false if it has to be tried again before any later one. */
  async #take({ rowid, signature, record }: Row): Promise<boolean> {
    const { book, intake, alerts, path } = this.#options;
    try {
      await intake.take(JSON.parse(record));
    } catch (error) {
      if (!(error instanceof BursarError)) throw error;
      if (error.code === "chain-unavailable") throw error;
      if (error.code === "opening-pending") return false;
      alerts.raise({
        id: `receipt-refused:${signature}`,
        kind: "receipt-refused",
        level: "warning",
        message: `A receipt of the payee's database is not watched: ${error.message}`,
        details: { code: error.code, ...error.details, file: path, row: rowid },
      });
      // The payee's own node knew it: this one may be behind.
      if (error.code === "mandate-unknown") return false;
    }
    book.setPlace(nameOf(path), { position: rowid, mark: signature });
    return true;
  }

  #open(): DatabaseSync {
    const { path } = this.#options;
    try {
      const db = new DatabaseSync(path, { readOnly: true });
      db.exec("PRAGMA busy_timeout = 5000");
      db.prepare("SELECT signature FROM receipts LIMIT 1").get();
      return db;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new BursarError("store-unavailable", `The receipts in ${path} cannot be read: ${reason}`, { value: path });
    }
  }
}

const nameOf = (path: string): string => `receipts:${path}`;
