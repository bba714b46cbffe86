import canonicalize from "canonicalize";
import { keccak256, toUtf8Bytes } from "ethers";
import { z } from "zod";
import { BursarError } from "./errors.ts";
import { addressSchema, parseWire } from "./schemas.ts";
import type { Hex } from "./types.ts";
import { DECIMAL, MAX_HOLDBACK } from "./units.ts";

const LIST_LENGTH = 32;
const CATEGORY = /^[a-z0-9]+(?:[-.][a-z0-9]+)*$/;

const decimalSchema = z
  .string()
  .regex(DECIMAL, "not a canonical decimal string")
  .refine((text) => text !== "0", { error: "zero" });
const textSchema = z.string().refine((text) => text.isWellFormed(), { error: "not well-formed Unicode" });
const distinct = (list: readonly string[]) => new Set(list).size === list.length;

/** Limits that the processor counts. */
export const limitsSchema = z.strictObject({
  /** Units a payment, the highest price of one call. */
  unitsPerCall: decimalSchema.optional(),
  /** Units in any 24 hours. */
  unitsPerDay: decimalSchema.optional(),
  /** Payments in any 60 seconds. */
  paymentsPerMinute: decimalSchema.optional(),
});

/** An allowance that renews. */
export const recurringSchema = z.strictObject({
  /** Length of a period. */
  seconds: decimalSchema,
  /** Units in each period; what is left of one is not carried over. */
  units: decimalSchema,
});

/** Lower-case words such as `weather` or `data.market`. */
export const categorySchema = z.string().max(64).regex(CATEGORY, "not a category");
/** A host or `*.` and a name, in normal form, see {@link hostMatches}. */
export const hostGlobSchema = z
  .string()
  .max(253)
  .refine((glob) => normalGlob(glob) === glob, { error: "not a host or *.host in normal form" });

/** Where payments are made disputable, and for how many seconds: the agent pays holds of the module, see `holdOf`. */
export const disputeTermsSchema = z.strictObject({
  module: addressSchema,
  /** 0 … 604800, seven days. */
  holdback: z.string().refine((text) => /^(?:0|[1-9][0-9]{0,5})$/.test(text) && BigInt(text) <= MAX_HOLDBACK, {
    error: `not a canonical decimal string between 0 and ${MAX_HOLDBACK}`,
  }),
});

/**
 * What only the processor enforces: purpose, categories, hosts, rates. The owner signs its hash in the mandate. An
 * empty list means any. Kept in wire form, since its canonical JSON is what is hashed.
 */
export const termsSchema = z.strictObject({
  version: z.literal(1),
  /** Why the agent may spend, for people and logs. */
  purpose: textSchema.min(1).max(500),
  /** What may be bought: lower-case words such as `weather` or `data.market`. */
  categories: z.array(categorySchema).max(LIST_LENGTH).refine(distinct, { error: "repeated" }),
  /** Where it may be bought, see {@link hostMatches}. */
  hosts: z.array(hostGlobSchema).max(LIST_LENGTH).refine(distinct, { error: "repeated" }),
  limits: limitsSchema.optional(),
  /** A mandate that renews: what may be spent in each period, counted from `startsAt`. Absent for a one-off. */
  recurring: recurringSchema.extend({ startsAt: decimalSchema }).optional(),
  /** The agent of an earlier mandate of the same owner that this one takes the place of. */
  replaces: addressSchema.optional(),
  dispute: disputeTermsSchema.optional(),
});

/** Terms in wire form, see {@link termsSchema}. */
export type Terms = z.output<typeof termsSchema>;

/** The RFC 8785 canonical JSON of terms. @throws malformed-input */
export function canonicalTerms(terms: Terms): string {
  const text = canonicalize(parseWire(termsSchema, terms));
  if (text === undefined) throw new BursarError("malformed-input", "The terms have no JSON form");
  return text;
}

/** keccak256 of the UTF-8 bytes of {@link canonicalTerms}. @throws malformed-input */
export function termsHash(terms: Terms): Hex {
  return keccak256(toUtf8Bytes(canonicalTerms(terms))) as Hex;
}

/**
 * A host as it is compared: lower case, IDN in Punycode, no port, no trailing dot; IPv4 dotted, IPv6 in brackets.
 *
 * @returns null for what is not a host.
 */
export function normalHost(host: string): string | null {
  if (/[/?#@\\\s%*]/.test(host)) return null;
  try {
    const { hostname } = new URL(`http://${host}`);
    const name = hostname.endsWith(".") ? hostname.slice(0, -1) : hostname;
    return name === "" || name.endsWith(".") ? null : name;
  } catch {
    return null;
  }
}

/**
 * Whether a host is covered by a glob, as names in certificates are: a glob is a host, or `*.` and a name of two
 * labels or more, where `*` stands for exactly one label. `*.example.com` covers `api.example.com`, not `example.com`
 * and not `a.b.example.com`. The host's case, port and trailing dot do not matter.
 */
export function hostMatches(glob: string, host: string): boolean {
  const pattern = normalGlob(glob);
  const name = normalHost(host);
  if (pattern === null || name === null) return false;
  if (!pattern.startsWith("*.")) return pattern === name;
  const dot = name.indexOf(".");
  return dot > 0 && name.slice(dot) === pattern.slice(1);
}

/** A glob in normal form; null for what is not a glob. */
function normalGlob(glob: string): string | null {
  if (!glob.startsWith("*.")) return normalHost(glob);
  const name = normalHost(glob.slice(2));
  return name?.includes(".") ? `*.${name}` : null;
}

/** Whether a category is `wide` itself or a part of it: `data` covers `data.weather`. */
export function categoryCovers(wide: string, category: string): boolean {
  return category === wide || category.startsWith(`${wide}.`);
}
