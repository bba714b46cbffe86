import { API_KEYS_BOOK } from "./api-keys.ts";
import { CLOSINGS_BOOK } from "./closings.ts";
import type { Book } from "./database.ts";
import { EVIDENCE_BOOK } from "./evidence-book.ts";
import { INTENTS_BOOK } from "./intent-book.ts";
import { LEASES_BOOK } from "./lease.ts";
import { APPLICATIONS_BOOK } from "./profiles.ts";
import { PAYMENTS_BOOK } from "./schema.ts";

/** All books of a processor. */
export const BOOKS: readonly Book[] = [
  PAYMENTS_BOOK,
  INTENTS_BOOK,
  CLOSINGS_BOOK,
  EVIDENCE_BOOK,
  APPLICATIONS_BOOK,
  API_KEYS_BOOK,
  LEASES_BOOK,
];
