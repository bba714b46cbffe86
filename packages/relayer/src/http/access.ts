import { BursarError, verifyAccess, type Address, type Domain, type Mandate } from "@bursar/protocol";
import type { FastifyRequest } from "fastify";

import type { ApiKeys, KeyScope } from "../api-keys.ts";

export interface ReadersOptions {
  readonly domain: Domain;
  /** None: readers are accounts with a signed access. */
  readonly keys?: Pick<ApiKeys, "scopeOf"> | undefined;
  /** Unix seconds. */
  readonly now: () => bigint;
}

const BEARER = "Bearer ";

/** Who asks, and what they may read: an owner and an agent their mandates, a payee what it was paid, an operator all. */
export class Readers {
  readonly #options: ReadersOptions;

  constructor(options: ReadersOptions) {
    this.#options = options;
  }

  /** @throws BursarError `unauthorised` */
  async who(request: FastifyRequest): Promise<KeyScope> {
    const { domain, keys, now } = this.#options;
    const header = request.headers.authorization;
    if (header === undefined) {
      throw new BursarError(
        "unauthorised",
        "This is shown to those whom it concerns alone.",
        {},
        "Send «Authorization: Bursar <signed access>» or «Authorization: Bearer <API key>».",
      );
    }
    if (keys !== undefined && header.startsWith(BEARER)) return keys.scopeOf(header.slice(BEARER.length));
    return verifyAccess(domain, header, now());
  }

  /** Whether who asks may read a mandate. @throws BursarError `unauthorised` */
  async mayRead(request: FastifyRequest, { owner, agent }: Pick<Mandate, "owner" | "agent">): Promise<boolean> {
    return concerns(await this.who(request), owner, agent);
  }
}

/** Whether something of these accounts may be read. */
export function concerns(who: KeyScope, ...accounts: readonly Address[]): boolean {
  return who === "operator" || accounts.includes(who);
}

/** What is unknown and what is another's look alike to whom it does not concern. */
export function forbidden(): BursarError {
  return new BursarError("forbidden", "There is nothing here that this account may read.");
}
