import {
  advance,
  allowsPayee,
  BursarError,
  formatAmount,
  hostMatches,
  type Line,
  type Payment,
  type Position,
} from "@bursar/protocol";

import type { MandateRecord, PayeeProfile } from "./store.ts";

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

export interface Circumstances {
  record: MandateRecord;
  tail: LedgerTail;
  /** Who the payee is, as the operator registered it. */
  profile: PayeeProfile | undefined;
  /** Unix seconds. */
  now: bigint;
}

/**
 * The decision on one payment whose signature is already verified, and the only place where it is taken: returns if
 * the payment is on mission and the contract will accept it, throws the refusal otherwise. It reads nothing but its
 * arguments and changes nothing, so a dry run and the real thing cannot differ.
 *
 * @throws {@link BursarError} with the value, the limit and advice that the agent can act on.
 */
export function decide(proposal: Proposal, circumstances: Circumstances): void {
  checkLife(circumstances);
  checkOrder(proposal, circumstances.tail);
  checkLimits(proposal.payment, circumstances);
  checkMission(proposal.payment.line, circumstances);
}

function checkLife({ record: { mandate, revokedAt }, now }: Circumstances): void {
  if (revokedAt !== null) {
    throw new BursarError("mandate-revoked", "The owner revoked this mandate.", { revokedAt }, ASK_OWNER);
  }
  if (now > mandate.validUntil) {
    throw new BursarError(
      "mandate-expired",
      `The mandate ended at ${mandate.validUntil}; it is ${now}.`,
      { value: now, limit: mandate.validUntil },
      ASK_OWNER,
    );
  }
}

/** The head must be the one that the circuit will compute, else the payment could never settle. */
function checkOrder({ payment, salt }: Proposal, tail: LedgerTail): void {
  const { seq, spent } = tail.position;
  if (payment.seq !== seq + 1n) {
    throw new BursarError(
      "sequence-gap",
      `Payment ${payment.seq} does not follow ${seq}.`,
      { value: payment.seq, limit: seq + 1n },
      `Sign payment number ${seq + 1n} next.`,
    );
  }
  const { payment: expected } = advance(tail.position, payment.line, tail.salt ?? salt);
  if (payment.spent !== expected.spent) {
    throw new BursarError(
      "spent-mismatch",
      `The running total is ${payment.spent}, but ${spent} + ${payment.line.amount} = ${expected.spent}.`,
      { value: payment.spent, limit: expected.spent },
      "Take the running total from the last receipt and add this amount.",
    );
  }
  if (payment.head !== expected.head || salt !== (tail.salt ?? salt)) {
    throw new BursarError(
      "head-mismatch",
      `The head after payment ${payment.seq} is ${expected.head}, with one salt for all lines of a page.`,
      { value: payment.head, limit: expected.head },
      "Rebuild the ledger from the accepted payments and sign again.",
    );
  }
}

function checkLimits({ spent, line: { payee, amount } }: Payment, { record: { mandate } }: Circumstances): void {
  if (amount > mandate.paymentCap) {
    throw new BursarError(
      "above-payment-cap",
      `${formatAmount(amount)} is above the cap of ${formatAmount(mandate.paymentCap)} per payment.`,
      { value: amount, limit: mandate.paymentCap },
      "Buy less in one call or choose a cheaper payee; do not split one purchase into several payments.",
    );
  }
  if (spent > mandate.budget) {
    const left = mandate.budget - (spent - amount);
    throw new BursarError(
      "above-budget",
      `${formatAmount(amount)} does not fit: ${formatAmount(left)} of ${formatAmount(mandate.budget)} are left.`,
      { value: spent, limit: mandate.budget, remaining: left },
      ASK_OWNER,
    );
  }
  if (!allowsPayee(mandate.payees, payee)) {
    throw new BursarError(
      "payee-not-allowed",
      `${payee} is not among the payees that the owner named.`,
      { value: payee, limit: mandate.payees.join(" ") },
      "Pay one of the named payees; do not retry this one.",
    );
  }
}

function checkMission({ payee }: Line, { record: { terms }, profile }: Circumstances): void {
  const { hosts, categories, purpose } = terms;
  if (hosts.length === 0 && categories.length === 0) return;
  const advice = `Stay with the purpose «${purpose}»; do not retry this payee under this mandate.`;
  if (!profile) {
    throw new BursarError(
      "payee-unknown",
      `${payee} is not registered with this processor, and the mandate is limited to certain hosts or categories.`,
      { value: payee },
      advice,
    );
  }
  if (hosts.length > 0 && !hosts.some((glob) => hostMatches(glob, profile.host))) {
    throw new BursarError(
      "off-mission-host",
      `${profile.host} is outside the hosts of this mandate (${hosts.join(", ")}).`,
      { value: profile.host, limit: hosts.join(" ") },
      advice,
    );
  }
  if (categories.length > 0 && !categories.includes(profile.category)) {
    throw new BursarError(
      "off-mission-category",
      `«${profile.category}» is outside the categories of this mandate (${categories.join(", ")}).`,
      { value: profile.category, limit: categories.join(" ") },
      advice,
    );
  }
}

const ASK_OWNER = "Stop spending and ask the owner for a new mandate.";
