import { BursarError, type Address, type Hex, type Profile } from "@bursar/protocol";

import type { Book, Database } from "./database.ts";
import type { PayeeProfile } from "./records.ts";

/** A profile that a payee signed, before the operator has vouched for it. */
export interface Application extends Profile {
  readonly signature: Hex;
}

const FIRST = `
CREATE TABLE application (
  payee TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  host TEXT NOT NULL,
  category TEXT NOT NULL,
  issued_at INTEGER NOT NULL,
  signature TEXT NOT NULL,
  approved INTEGER NOT NULL DEFAULT 0
) STRICT;
`;

export const APPLICATIONS_BOOK: Book = { name: "applications", versions: [FIRST] };

/** The profiles that payees applied with. They count for nothing until they are approved. */
export class Profiles {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Takes down an application in place of an earlier one. @throws BursarError `profile-stale` */
  async apply(application: Application): Promise<void> {
    const { payee, name, host, category, issuedAt, signature } = application;
    await this.#database.exclusively("applications", async () => {
      const known = await this.#database.get("SELECT issued_at, signature FROM application WHERE payee = ?", payee);
      if (known?.["signature"] === signature) return;
      if (known && BigInt(known["issued_at"]!) >= issuedAt) {
        throw new BursarError(
          "profile-stale",
          `A profile of ${known["issued_at"]} is known.`,
          { value: issuedAt, limit: known["issued_at"]! },
          "Sign the profile with the present time.",
        );
      }
      await this.#database.run(
        `INSERT INTO application (payee, name, host, category, issued_at, signature) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (payee) DO UPDATE SET name = excluded.name, host = excluded.host, category = excluded.category,
           issued_at = excluded.issued_at, signature = excluded.signature, approved = 0`,
        payee,
        name,
        host,
        category,
        Number(issuedAt),
        signature,
      );
    });
  }

  /** What waits for the operator. */
  async waiting(): Promise<PayeeProfile[]> {
    return (
      await this.#database.all(
        "SELECT payee AS address, name, host, category FROM application WHERE approved = 0 ORDER BY issued_at",
      )
    ).map((row) => ({ ...row }) as unknown as PayeeProfile);
  }

  /** Vouches for what a payee applied with. @returns the profile, to be put into the books. @throws `not-found` */
  async approve(payee: Address): Promise<PayeeProfile> {
    const profile = (await this.waiting()).find(({ address }) => address === payee);
    if (!profile) {
      throw new BursarError(
        "not-found",
        `No application of ${payee} waits.`,
        { value: payee },
        "See `bursar payee list`.",
      );
    }
    await this.#database.run("UPDATE application SET approved = 1 WHERE payee = ?", payee);
    return profile;
  }
}
