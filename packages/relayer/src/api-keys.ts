import { createHash, randomBytes } from "node:crypto";

import { BursarError, type Address } from "@bursar/protocol";

import type { Book, Database } from "./database.ts";

/** What a key may read: what concerns one account, or everything. */
export type KeyScope = Address | "operator";

export interface ApiKey {
  readonly id: number;
  readonly name: string;
  readonly scope: KeyScope;
  /** Unix seconds. */
  readonly createdAt: bigint;
  readonly revokedAt: bigint | null;
}

const PREFIX = "bk_";

const FIRST = `
CREATE TABLE api_key (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  scope TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT;
`;

export const API_KEYS_BOOK: Book = { name: "keys", versions: [FIRST] };

/** Keys that let a program read. A key is shown once; the books keep its SHA-256 alone. */
export class ApiKeys {
  readonly #database: Database;
  readonly #now: () => bigint;

  constructor(database: Database, now: () => bigint) {
    this.#database = database;
    this.#now = now;
  }

  /** @returns the key itself, for the only time. */
  async create(name: string, scope: KeyScope): Promise<{ id: number; key: string }> {
    const key = PREFIX + randomBytes(32).toString("base64url");
    const row = await this.#database.get(
      "INSERT INTO api_key (name, scope, hash, created_at) VALUES (?, ?, ?, ?) RETURNING id",
      name,
      scope,
      hashOf(key),
      Number(this.#now()),
    );
    return { id: Number(row!["id"]), key };
  }

  async list(): Promise<ApiKey[]> {
    return (await this.#database.all("SELECT * FROM api_key ORDER BY id")).map((row) => ({
      id: Number(row["id"]),
      name: String(row["name"]),
      scope: row["scope"] as KeyScope,
      createdAt: BigInt(row["created_at"]!),
      revokedAt: row["revoked_at"] === null ? null : BigInt(row["revoked_at"]!),
    }));
  }

  /** Ends a key at once; repeating it changes nothing. @throws BursarError `not-found` */
  async revoke(id: number): Promise<void> {
    if (!(await this.list()).some((key) => key.id === id)) {
      throw new BursarError("not-found", `There is no key ${id}.`, { value: id }, "See `bursar key list`.");
    }
    await this.#database.run(
      "UPDATE api_key SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
      Number(this.#now()),
      id,
    );
  }

  /** What a key may read. @throws BursarError `unauthorised` for one that is unknown or revoked. */
  async scopeOf(key: string): Promise<KeyScope> {
    const row = await this.#database.get(
      "SELECT scope FROM api_key WHERE hash = ? AND revoked_at IS NULL",
      hashOf(key),
    );
    if (row) return row["scope"] as KeyScope;
    throw new BursarError("unauthorised", "The API key is unknown or revoked.", {}, "Ask the operator for a key.");
  }
}

function hashOf(key: string): string {
  return createHash("sha256").update(key).digest("hex");
}
