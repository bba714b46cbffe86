import { BursarError, canonicalEvidence, type Address, type Hex } from "@bursar/protocol";

import type { Book, Columns, Database } from "./database.ts";
import type { CheckedEvidence } from "./disputes.ts";

/** Files of one payment that are kept for one account: neither side can take the other's place. */
const MOST = 8;

const FIRST = `
CREATE TABLE evidence (
  hash TEXT PRIMARY KEY,
  agent TEXT NOT NULL,
  seq TEXT NOT NULL,
  owner TEXT NOT NULL,
  payee TEXT NOT NULL,
  file TEXT NOT NULL,
  sender TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX evidence_payment ON evidence (agent, seq);
`;

export const EVIDENCE_BOOK: Book = { name: "evidence", versions: [FIRST] };

/** A file of evidence, and whom it concerns. */
export interface KeptEvidence {
  readonly hash: Hex;
  readonly agent: Address;
  readonly seq: bigint;
  readonly owner: Address;
  readonly payee: Address;
  /** Canonical JSON: its keccak256 is the hash. */
  readonly file: string;
  /** Unix seconds. */
  readonly at: bigint;
}

/** Evidence that the parties of disputes exchange. What {@link keep} returned from is on disk. */
export class EvidenceBook {
  readonly #db: Database;

  constructor(database: Database) {
    this.#db = database;
  }

  /**
   * Keeps a file that was checked; the same file again changes nothing.
   * @param sender - who left it, `operator` for the operator.
   * @param at - Unix seconds.
   * @throws BursarError `too-many-requests` when so many of the payment are kept for the sender.
   */
  async keep({ hash, agent, seq, owner, payee, evidence }: CheckedEvidence, sender: string, at: bigint): Promise<void> {
    const file = canonicalEvidence(evidence);
    await this.#db.exclusively("evidence", async () => {
      if ((await this.get(hash)) !== undefined) return;
      const kept = await this.#count(agent, seq, sender);
      if (kept >= MOST) {
        throw new BursarError(
          "too-many-requests",
          `${kept} files of payment ${seq} are kept for ${sender}.`,
          { value: kept, limit: MOST },
          "Send this file to the other side by another way.",
        );
      }
      await this.#db.run(
        "INSERT INTO evidence (hash, agent, seq, owner, payee, file, sender, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ...[hash, agent, String(seq), owner, payee, file, sender],
        Number(at),
      );
    });
  }

  async #count(agent: Address, seq: bigint, sender: string): Promise<number> {
    const row = await this.#db.get(
      "SELECT count(*) AS kept FROM evidence WHERE agent = ? AND seq = ? AND sender = ?",
      ...[agent, String(seq), sender],
    );
    return Number(row?.["kept"]);
  }

  async get(hash: Hex): Promise<KeptEvidence | undefined> {
    const row = await this.#db.get("SELECT * FROM evidence WHERE hash = ?", hash);
    return row && readKept(row);
  }
}

function readKept(row: Columns): KeptEvidence {
  const text = (column: string): string => String(row[column]);
  return {
    hash: text("hash") as Hex,
    agent: text("agent") as Address,
    seq: BigInt(text("seq")),
    owner: text("owner") as Address,
    payee: text("payee") as Address,
    file: text("file"),
    at: BigInt(text("at")),
  };
}
