import {
  mandateSchema,
  parseWire,
  termsSchema,
  toWire,
  type Address,
  type Hex,
  type Mandate,
  type Terms,
} from "@bursar/protocol";

import type { Book, Columns, Database } from "./database.ts";

/** The owner's word that the mandate which the new one replaces ends on chain too. */
export interface SignedRevocation {
  readonly afterSeq: bigint;
  readonly signature: Hex;
}

/** An intent as it stands in the book. Whether its mandate is open is not written here: the chain knows. */
export interface IntentRecord {
  readonly mandate: Mandate;
  readonly terms: Terms;
  /** EIP-712 digest of the mandate, which says everything: two intents of one digest are the same. */
  readonly digest: Hex;
  readonly agentSignature: Hex | null;
  /** Once it stands here, the mandate is to be opened. */
  readonly ownerSignature: Hex | null;
  readonly revocation: SignedRevocation | null;
  /** Counts the owner's signatures: each is sent under a name of its own. */
  readonly attempt: number;
  /** Nothing is left to do for a recorded signature. */
  readonly finished: boolean;
  /** Why the last thing that was tried did not succeed. */
  readonly failure: string | null;
  /** Unix seconds of the last change before the owner's signature. */
  readonly at: bigint;
}

const FIRST = `
CREATE TABLE intent (
  id INTEGER PRIMARY KEY,
  agent TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  mandate TEXT NOT NULL,
  terms TEXT NOT NULL,
  digest TEXT NOT NULL,
  agent_signature TEXT,
  owner_signature TEXT,
  after_seq TEXT,
  revocation_signature TEXT,
  attempt INTEGER NOT NULL DEFAULT 1,
  finished INTEGER NOT NULL DEFAULT 0,
  failure TEXT,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX intent_unfinished ON intent (owner) WHERE finished = 0;
CREATE INDEX intent_unsigned ON intent (at) WHERE owner_signature IS NULL;
`;

export const INTENTS_BOOK: Book = { name: "intents", versions: [FIRST] };

/** What agents have asked for and owners have signed. Every change is on disk when its call returns. */
export class IntentBook {
  readonly #db: Database;

  constructor(database: Database) {
    this.#db = database;
  }

  async get(agent: Address): Promise<IntentRecord | undefined> {
    const row = await this.#db.get("SELECT * FROM intent WHERE agent = ?", agent);
    return row && readIntent(row);
  }

  /** All of them, newest first. */
  async list(limit = 1_000): Promise<IntentRecord[]> {
    return (await this.#db.all("SELECT * FROM intent ORDER BY at DESC, id DESC LIMIT ?", limit)).map(readIntent);
  }

  /** Those whose signature is recorded and whose way is not at its end, oldest first. */
  async unfinished(): Promise<IntentRecord[]> {
    return (
      await this.#db.all("SELECT * FROM intent WHERE finished = 0 AND owner_signature IS NOT NULL ORDER BY id")
    ).map(readIntent);
  }

  /** How many wait for something: of one owner, or of all. */
  async waiting(owner?: Address): Promise<number> {
    const row = owner
      ? await this.#db.get("SELECT count(*) AS n FROM intent WHERE finished = 0 AND owner = ?", owner)
      : await this.#db.get("SELECT count(*) AS n FROM intent WHERE finished = 0");
    return Number(row?.["n"]);
  }

  /** Nobody else drafts meanwhile. */
  drafting<T>(work: () => Promise<T>): Promise<T> {
    return this.#db.exclusively("drafting", work);
  }

  async add(intent: Pick<IntentRecord, "mandate" | "terms" | "digest" | "agentSignature" | "at">): Promise<void> {
    const { mandate, terms, digest, agentSignature, at } = intent;
    await this.#change(
      "INSERT INTO intent (agent, owner, mandate, terms, digest, agent_signature, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
      ...[mandate.agent, mandate.owner, JSON.stringify(toWire(mandate)), JSON.stringify(terms)],
      ...[digest, agentSignature, Number(at)],
    );
  }

  async addAgentSignature(agent: Address, signature: Hex, at: bigint): Promise<void> {
    await this.#change("UPDATE intent SET agent_signature = ?, at = ? WHERE agent = ?", signature, Number(at), agent);
  }

  /**
   * Records the owner's signature unless one stands there already, and a revocation unless one does. What failed before
   * is to be tried again.
   */
  async sign(agent: Address, ownerSignature: Hex, revocation: SignedRevocation | null): Promise<void> {
    await this.#change(
      `UPDATE intent SET owner_signature = COALESCE(owner_signature, ?),
       finished = CASE WHEN failure IS NULL THEN finished ELSE 0 END, failure = NULL WHERE agent = ?`,
      ownerSignature,
      agent,
    );
    if (revocation === null) return;
    await this.#change(
      `UPDATE intent SET after_seq = ?, revocation_signature = ?, finished = 0
       WHERE agent = ? AND revocation_signature IS NULL`,
      ...[revocation.afterSeq.toString(), revocation.signature, agent],
    );
  }

  /** Takes a signature back that led nowhere: the owner has to sign again. */
  async unsign(agent: Address, failure: string, at: bigint): Promise<void> {
    await this.#change(
      `UPDATE intent SET owner_signature = NULL, after_seq = NULL, revocation_signature = NULL,
       attempt = attempt + 1, failure = ?, at = ? WHERE agent = ?`,
      ...[failure, Number(at), agent],
    );
  }

  async finish(agent: Address, failure: string | null): Promise<void> {
    await this.#change("UPDATE intent SET finished = 1, failure = ? WHERE agent = ?", failure, agent);
  }

  /** Forgets what nobody has signed since `before`, in Unix seconds. */
  async prune(before: bigint): Promise<void> {
    await this.#change("DELETE FROM intent WHERE owner_signature IS NULL AND at <= ?", Number(before));
  }

  async #change(sql: string, ...values: (string | number | null)[]): Promise<void> {
    await this.#db.transact(() => this.#db.run(sql, ...values));
  }
}

function readIntent(row: Columns): IntentRecord {
  const hex = (column: string): Hex | null => (row[column] === null ? null : (String(row[column]) as Hex));
  const signature = hex("revocation_signature");
  return {
    mandate: parseWire(mandateSchema, JSON.parse(String(row["mandate"]))),
    terms: parseWire(termsSchema, JSON.parse(String(row["terms"]))),
    digest: hex("digest")!,
    agentSignature: hex("agent_signature"),
    ownerSignature: hex("owner_signature"),
    revocation: signature === null ? null : { afterSeq: BigInt(String(row["after_seq"])), signature },
    attempt: Number(row["attempt"]),
    finished: row["finished"] === 1,
    failure: row["failure"] === null ? null : String(row["failure"]),
    at: BigInt(Number(row["at"])),
  };
}
