import { BursarError } from "@bursar/protocol";

import type { Database } from "./database.ts";
import type { Witnessed } from "./witness.ts";

/** How many receipts were given, and how many of them the books and the chain know. */
export interface Completeness {
  readonly promised: number;
  readonly missing: number;
}

/**
 * Receipts are numbered without a gap, and each is of one payment of one ledger: so many must be known, in the books or
 * settled on chain, as were ever given. Books that were put back to an earlier time know fewer; until the others are
 * handed back or given up, no number is taken.
 */
export class ReceiptLog {
  readonly #db: Database;

  constructor(database: Database) {
    this.#db = database;
  }

  /**
   * Whether the books hold a receipt that was told.
   * @throws BursarError `books-conflict` when they hold another one under its number.
   */
  async holds({ logIndex, digest }: Witnessed): Promise<boolean> {
    const row = await this.#db.get("SELECT digest FROM payment WHERE log_index = ?", Number(logIndex));
    if (row === undefined || row["digest"] === digest) return row !== undefined;
    throw new BursarError(
      "books-conflict",
      `Receipt ${logIndex} was given for payment ${digest}; these books hold ${String(row["digest"])} under that number.`,
      { value: String(row["digest"]), limit: digest },
      "Two histories were signed: run only the books that hold every receipt that was given.",
    );
  }

  /** So many receipts were given, whatever these books say. */
  async promise(receipts: bigint): Promise<void> {
    await this.#db.run("UPDATE counter SET promised = ?1 WHERE promised < ?1 AND log_index < ?1", Number(receipts));
  }

  /** The next positions of lines and numbers of receipts; inside a transaction, they are nobody else's until its end. */
  async take(lines: number, receipts: number): Promise<{ position: number; logIndex: number }> {
    const row = await this.#db.get(
      `UPDATE counter SET position = position + ?, log_index = log_index + ? WHERE promised <= log_index
       RETURNING position, log_index`,
      lines,
      receipts,
    );
    if (row === undefined) throw behind(await this.completeness());
    return { position: Number(row["position"]) - lines, logIndex: Number(row["log_index"]) - receipts };
  }

  /** The place of one line whose receipt has a number; inside a transaction. @returns whether the number was given up. */
  async takeBack(logIndex: bigint): Promise<{ position: number; givenUp: boolean }> {
    await this.promise(logIndex + 1n);
    const row = await this.#db.get("UPDATE counter SET position = position + 1 RETURNING position, log_index");
    return { position: Number(row!["position"]) - 1, givenUp: Number(row!["log_index"]) > Number(logIndex) };
  }

  /** @throws BursarError `books-behind` */
  async expectWhole(): Promise<void> {
    if (!(await this.isWhole())) throw behind(await this.completeness());
  }

  async isWhole(): Promise<boolean> {
    return (await this.#db.get("SELECT 1 AS behind FROM counter WHERE promised > log_index")) === undefined;
  }

  async completeness(): Promise<Completeness> {
    const counter = await this.#db.get("SELECT promised, log_index FROM counter");
    const [promised, next] = [Number(counter!["promised"]), Number(counter!["log_index"])];
    if (promised <= next) return { promised: next, missing: 0 };
    const row = await this.#db.get(`SELECT (${KNOWN}) AS known, (${GIVEN_UP}) AS lost`);
    return { promised, missing: Math.max(0, promised - Number(row!["known"]) - Number(row!["lost"])) };
  }

  /** Goes on after the last receipt if none is missing. */
  async seal(): Promise<Completeness> {
    if (await this.isWhole()) return this.completeness();
    return this.#db.transact(async () => {
      await this.#db.get("SELECT position FROM counter FOR UPDATE");
      const completeness = await this.completeness();
      if (completeness.missing === 0) {
        await this.#db.run("UPDATE counter SET log_index = promised WHERE promised > log_index");
      }
      return completeness;
    });
  }

  /**
   * Gives up what is missing, for good; it stays on record.
   * @param at - Unix seconds.
   * @returns how many receipts.
   */
  async giveUp(at: bigint): Promise<number> {
    return this.#db.transact(async () => {
      await this.#db.get("SELECT position FROM counter FOR UPDATE");
      if (await this.isWhole()) return 0;
      const { missing } = await this.completeness();
      if (missing > 0) await this.lose(at, missing);
      await this.seal();
      return missing;
    });
  }

  /** Receipts that were given up; one that comes back after all counts −1. */
  async lose(at: bigint, receipts: number): Promise<void> {
    await this.#db.run("INSERT INTO loss (at, receipts) VALUES (?, ?)", Number(at), receipts);
  }
}

/** Receipts by the ledgers that they are of: a mandate has as many as its last payment's number. */
const KNOWN = `SELECT COALESCE(SUM(CASE WHEN last > seq THEN last ELSE seq END), 0) FROM (
  SELECT seq, COALESCE((SELECT MAX(p.seq) FROM payment AS p WHERE p.agent = mandate.agent), 0) AS last FROM mandate
) AS ledger`;
const GIVEN_UP = "SELECT COALESCE(SUM(receipts), 0) FROM loss";

function behind({ promised, missing }: Completeness): BursarError {
  return new BursarError(
    "books-behind",
    `The processor's books were put back to an earlier time: ${missing} of ${promised} receipts that it gave are missing.`,
    { value: promised - missing, limit: promised },
    "Hand back the receipts that you hold (POST /receipts) and send the same request again later.",
  );
}
