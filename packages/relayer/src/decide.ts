import {
  advance,
  assertAmount,
  BursarError,
  categoryCovers,
  hashQuote,
  hostMatches,
  verifySignature,
  type Address,
  type Domain,
  type Line,
  type PageHash,
  type Payment,
  type Position,
  type SignedQuote,
} from "@bursar/protocol";

import { covering, headroom, judge, type Facts } from "./mission.ts";
import type { Spending } from "./spending.ts";
import type { MandateRecord, PayeeProfile } from "./records.ts";

/** Where a mandate's ledger stands: everything that the next payment is checked against. */
export interface LedgerTail {
  readonly position: Position;
  /** Salt of the open page, null when the next payment begins a page. */
  readonly salt: bigint | null;
}

/** A payment and the salt of its page. */
export interface Proposal {
  readonly payment: Payment;
  readonly salt: bigint;
}

/** What a decision reads. */
export interface Circumstances {
  readonly record: MandateRecord;
  readonly tail: LedgerTail;
  /** Units accepted on the direct rail, settled or not. */
  readonly reserved: bigint;
  /** What was spent lately, on both rails. */
  readonly spending: Pick<Spending, "headroom">;
  /** Who the payee is, as the operator vouches for it, narrowed by its quote: see {@link narrow}. */
  readonly profile: Pick<PayeeProfile, "host" | "category"> | undefined;
  /** Contracts that could never collect a credit. */
  readonly impossible: readonly Address[];
  /** Unix seconds. */
  readonly now: bigint;
}

/**
 * The decision on one payment whose signature is already verified: returns where the ledger stands after it if the
 * payment is on mission and the contract will accept it, throws the refusal otherwise. It reads nothing but its
 * arguments and changes nothing, so a dry run and the real thing cannot differ.
 *
 * @param hashPage - computes page hashes; the protocol's own unless a faster one is at hand.
 * @throws {@link BursarError} with the value, the limit and advice that the agent can act on.
 */
export function decide(proposal: Proposal, circumstances: Circumstances, hashPage?: PageHash): LedgerTail {
  assertAmount(proposal.payment.line.amount);
  judge(factsOf(proposal.payment.line, circumstances));
  return followLedger(proposal, circumstances.tail, hashPage);
}

/**
 * The decision on one payment of the direct rail, whose signature is already verified: the same mission and the same
 * budget, no ledger.
 *
 * @throws {@link BursarError} as {@link decide}.
 */
export function decideDirect(line: Pick<Line, "payee" | "amount">, circumstances: Circumstances): void {
  assertAmount(line.amount);
  judge(factsOf(line, circumstances));
}

/** What the policy is asked about. Nothing of it is the agent's word but payee and amount, which it signed. */
function factsOf({ payee, amount }: Pick<Line, "payee" | "amount">, circumstances: Circumstances): Facts {
  const { record, tail, reserved, spending, profile, impossible, now } = circumstances;
  const { mandate, terms, revokedAt } = record;
  const { day, minute, period, started } = spending.headroom(now);
  const callLimit = terms.limits?.unitsPerCall;
  return {
    mandate: { revokedAt, validUntil: mandate.validUntil, payees: mandate.payees },
    now,
    terms: { purpose: terms.purpose, hosts: terms.hosts, categories: terms.categories, started },
    payment: { amount },
    payee: {
      address: payee,
      known: profile !== undefined,
      collects: payee !== mandate.token && !impossible.includes(payee),
      host: profile?.host ?? "",
      coveredBy: profile === undefined ? [] : covering(terms.hosts, profile.host),
      category: profile?.category ?? "",
    },
    left: {
      cap: mandate.paymentCap,
      budget: headroom(mandate.budget - tail.position.spent - reserved),
      call: headroom(callLimit === undefined ? null : BigInt(callLimit)),
      minute: headroom(minute),
      day: headroom(day),
      period: headroom(period),
    },
  };
}

/**
 * The head must be the one that the circuit will compute, else the payment could never settle.
 * @throws BursarError `sequence-gap`, `spent-mismatch`, `head-mismatch`
 */
export function followLedger({ payment, salt }: Proposal, tail: LedgerTail, hashPage?: PageHash): LedgerTail {
  const { seq, spent } = tail.position;
  if (payment.seq !== seq + 1n) {
    throw new BursarError(
      "sequence-gap",
      `Payment ${payment.seq} does not follow ${seq}.`,
      { value: payment.seq, limit: seq + 1n },
      `Sign payment number ${seq + 1n} next.`,
    );
  }
  const pageSalt = tail.salt ?? salt;
  const { payment: expected, position } = advance(tail.position, payment.line, pageSalt, hashPage);
  if (payment.spent !== expected.spent) {
    throw new BursarError(
      "spent-mismatch",
      `The running total is ${payment.spent}, but ${spent} + ${payment.line.amount} = ${expected.spent}.`,
      { value: payment.spent, limit: expected.spent },
      "Take the running total from the last receipt and add this amount.",
    );
  }
  if (payment.head !== expected.head || salt !== pageSalt) {
    throw new BursarError(
      "head-mismatch",
      `The head after payment ${payment.seq} is ${expected.head}, with one salt for all lines of a page.`,
      { value: payment.head, limit: expected.head },
      "Rebuild the ledger from the accepted payments and sign again.",
    );
  }
  return { position, salt: position.lines.length === 0 ? null : pageSalt };
}

/**
 * Who a payee is for one payment: its profile, narrowed by the quote that it signed for this very purchase. A quote
 * may pick one host of many and a part of the category; it cannot claim more than the operator vouches for.
 *
 * @throws {@link BursarError} `quote-mismatch`, `quote-expired`, `quote-too-wide`, `signature-*`.
 */
export function narrow(
  { payee, amount, ref }: Line,
  { quote, signature }: SignedQuote,
  { domain, profile, now }: { domain: Domain; profile: PayeeProfile; now: bigint },
): Pick<PayeeProfile, "host" | "category"> {
  if (quote.payee !== payee || quote.amount !== amount || quote.ref !== ref) {
    throw new BursarError("quote-mismatch", "The quote is for another payee, amount or reference.", {
      value: `${quote.amount} to ${quote.payee} for ${quote.ref}`,
      limit: `${amount} to ${payee} for ${ref}`,
    });
  }
  verifySignature(hashQuote(domain, quote), signature, payee);
  if (now > quote.expiresAt) {
    throw new BursarError(
      "quote-expired",
      `The quote ended at ${quote.expiresAt}; it is ${now}.`,
      { value: now, limit: quote.expiresAt },
      "Ask the payee for a new quote.",
    );
  }
  const within = quote.host === profile.host || hostMatches(profile.host, quote.host);
  if (!within || !categoryCovers(profile.category, quote.category)) {
    throw new BursarError(
      "quote-too-wide",
      `The quote says ${quote.host}, ${quote.category}; the payee is known as ${profile.host}, ${profile.category}.`,
      { value: `${quote.host} ${quote.category}`, limit: `${profile.host} ${profile.category}` },
      "The payee has to register what it quotes; do not retry with this quote.",
    );
  }
  return { host: quote.host, category: quote.category };
}
