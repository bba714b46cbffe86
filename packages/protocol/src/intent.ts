import { z } from "zod";
import { headHex } from "./ledger.ts";
import { policyRoot } from "./policy.ts";
import { addressSchema, amountSchema, parseWire, uintSchema } from "./schemas.ts";
import { limitsSchema, recurringSchema, termsHash, termsSchema, type Terms } from "./terms.ts";
import type { Address, Mandate } from "./types.ts";
import { formatAmount, MAX_TOTAL } from "./units.ts";

/** The longest life of a mandate, in seconds: the contract's 90 days. */
export const MAX_DURATION = 7_776_000n;

const { purpose, categories, hosts, replaces } = termsSchema.shape;

/** What an agent asks its owner for, before anybody has signed. Amounts in units, on the wire as decimal strings. */
export const intentSchema = z
  .strictObject({
    purpose,
    /** In all. */
    budget: uintSchema(MAX_TOTAL, 1n),
    /** For one payment. */
    paymentCap: amountSchema,
    /** Seconds from the signature's drafting to the end, at most 90 days. */
    duration: uintSchema(MAX_DURATION, 60n),
    categories: categories.default([]),
    hosts: hosts.default([]),
    /** At most eight; none means anyone. */
    payees: z.array(addressSchema).max(8).default([]),
    limits: limitsSchema.optional(),
    recurring: recurringSchema.optional(),
    replaces,
  })
  .refine(({ budget, paymentCap }) => paymentCap <= budget, { path: ["paymentCap"], error: "above the budget" });

/** An intent as it is written down, with defaults left out. */
export type IntentDraft = z.input<typeof intentSchema>;
/** A complete intent. */
export type Intent = z.output<typeof intentSchema>;

/** @throws malformed-input with one detail a wrong field. */
export function parseIntent(value: unknown): Intent {
  return parseWire(intentSchema, value);
}

/** What an intent leaves open until it becomes a mandate. */
export interface Parties {
  readonly owner: Address;
  /** A fresh session key. */
  readonly agent: Address;
  readonly token: Address;
  readonly processor: Address;
  /** Unix seconds. */
  readonly now: bigint;
}

/** The mandate and the terms that say what an intent says: what the owner signs. */
export function composeMandate(intent: Intent, parties: Parties): { mandate: Mandate; terms: Terms } {
  const { owner, agent, token, processor, now } = parties;
  const { budget, paymentCap, payees, duration } = intent;
  const terms: Terms = {
    version: 1,
    purpose: intent.purpose,
    categories: intent.categories,
    hosts: intent.hosts,
    ...(intent.limits === undefined ? {} : { limits: intent.limits }),
    ...(intent.recurring === undefined ? {} : { recurring: { ...intent.recurring, startsAt: now.toString() } }),
    ...(intent.replaces === undefined ? {} : { replaces: intent.replaces }),
  };
  const mandate: Mandate = {
    owner,
    agent,
    token,
    budget,
    paymentCap,
    validUntil: now + duration,
    processor,
    payees,
    policyRoot: headHex(policyRoot(payees, paymentCap)),
    termsHash: termsHash(terms),
  };
  return { mandate, terms };
}

/** One thing that a mandate allows or forbids, and who sees to it. */
export interface Clause {
  readonly subject: string;
  readonly words: string;
  readonly enforcedBy: "contract and proof" | "processor" | "nobody";
}

/**
 * A mandate in plain words, for the person who is about to sign it.
 *
 * @param symbol of the token, such as `USDC`.
 */
export function describeMandate(mandate: Mandate, terms: Terms, symbol = ""): Clause[] {
  const money = (units: bigint | string): string => `${formatAmount(BigInt(units))} ${symbol}`.trim();
  const any = (list: readonly string[], none: string): string => (list.length === 0 ? none : list.join(", "));
  const { limits, recurring } = terms;
  const contract = (subject: string, words: string): Clause => ({ subject, words, enforcedBy: "contract and proof" });
  const processor = (subject: string, words: string): Clause => ({ subject, words, enforcedBy: "processor" });
  return [
    { subject: "purpose", words: terms.purpose, enforcedBy: "nobody" },
    contract("budget", `at most ${money(mandate.budget)} in all`),
    contract("payment cap", `at most ${money(mandate.paymentCap)} in one payment`),
    contract("payees", any(mandate.payees, "anyone")),
    processor("end", `no payment after ${isoTime(mandate.validUntil)}`),
    processor("hosts", any(terms.hosts, "any host")),
    processor("categories", any(terms.categories, "any category")),
    ...(limits?.unitsPerCall === undefined ? [] : [processor("price", `at most ${money(limits.unitsPerCall)} a call`)]),
    ...(limits?.unitsPerDay === undefined
      ? []
      : [processor("day", `at most ${money(limits.unitsPerDay)} in any 24 hours`)]),
    ...(limits?.paymentsPerMinute === undefined
      ? []
      : [processor("rate", `at most ${limits.paymentsPerMinute} payments in any 60 seconds`)]),
    recurring === undefined
      ? processor("kind", "one-off")
      : processor("kind", `recurring: at most ${money(recurring.units)} in each ${period(recurring.seconds)}`),
    ...(terms.replaces === undefined
      ? []
      : [processor("replaces", `stops the mandate of ${terms.replaces} at once, when this one opens`)]),
    ...disputeClauses(terms),
  ];
}

/** A payee list of holds makes contract and proof enforce it too. */
function disputeClauses({ dispute }: Terms): Clause[] {
  if (dispute === undefined) return [];
  const { module, holdback } = dispute;
  const words =
    holdback === "0"
      ? `payments go through ${module} without a wait: no time to dispute`
      : `payments wait ${duration(holdback)} at ${module}, where they can be disputed`;
  return [{ subject: "disputes", words, enforcedBy: "processor" }];
}

function isoTime(seconds: bigint): string {
  return `${new Date(Number(seconds) * 1_000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** A time span with its number: "1 day", "90 minutes". */
function duration(seconds: string): string {
  const words = period(seconds);
  return /^[0-9]/.test(words) ? words : `1 ${words}`;
}

function period(seconds: string): string {
  const units = [
    ["day", 86_400n],
    ["hour", 3_600n],
    ["minute", 60n],
  ] as const;
  for (const [name, length] of units) {
    const count = BigInt(seconds) / length;
    if (BigInt(seconds) % length === 0n) return count === 1n ? name : `${count} ${name}s`;
  }
  return `${seconds} seconds`;
}
