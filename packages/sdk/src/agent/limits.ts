import {
  allowsPayee,
  BursarError,
  type Domain,
  type Line,
  type Mandate,
  type PaymentTerms,
  type SignedQuote,
  type Terms,
} from "@bursar/protocol";

import { lineKey } from "./unclaimed.ts";

const ASK_OWNER = "Stop spending and ask the owner for a new mandate.";

/**
 * What the contract would refuse is refused before it is signed.
 *
 * @param left - units of the budget.
 * @throws BursarError `mandate-expired`, `above-payment-cap`, `above-budget`, `payee-not-allowed`
 */
export function assertAllowed({ payee, amount }: Line, mandate: Mandate, left: bigint, now: bigint): void {
  const { paymentCap, payees, validUntil } = mandate;
  if (now > validUntil) {
    throw new BursarError(
      "mandate-expired",
      `The mandate ended at ${validUntil}; it is ${now}.`,
      { value: now, limit: validUntil },
      ASK_OWNER,
    );
  }
  if (amount > paymentCap) {
    throw new BursarError(
      "above-payment-cap",
      `${amount} units are above the cap of ${paymentCap} for one payment.`,
      { value: amount, limit: paymentCap },
      "Buy less in one call or choose a cheaper payee; do not split one purchase into several payments.",
    );
  }
  if (amount > left) {
    throw new BursarError(
      "above-budget",
      `${amount} units do not fit: ${left} of the budget are left.`,
      { value: amount, limit: left, remaining: left },
      ASK_OWNER,
    );
  }
  if (!allowsPayee(payees, payee)) {
    throw new BursarError(
      "payee-not-allowed",
      `${payee} is not among the payees that the owner named.`,
      { value: payee, limit: payees.join(" ") },
      "Pay one of the named payees; do not retry this one.",
    );
  }
}

/**
 * The way of paying that fits the mandate, of those that a payee offers.
 *
 * @throws BursarError `wrong-chain`, `wrong-contract`, `wrong-token`, `processor-not-accepted` when none does.
 */
export function fitting(asks: readonly PaymentTerms[], domain: Domain, mandate: Mandate): PaymentTerms {
  const found = asks.find((asked) => fits(asked, domain, mandate));
  if (found !== undefined) return found;
  throw misfit(asks[0]!, domain, mandate)!;
}

/** Whether what a payee asks can be paid under the mandate at all. */
export function fits(asked: PaymentTerms, domain: Domain, mandate: Mandate): boolean {
  return misfit(asked, domain, mandate) === null;
}

/** @throws BursarError `not-held` when the payee does not take the holds that the terms name. */
export function assertTakesHolds({ payee, dispute }: PaymentTerms, terms: Terms): void {
  const own = terms.dispute;
  if (own === undefined) return;
  const taken = dispute?.module === own.module && BigInt(own.holdback) <= dispute.maxHoldback;
  if (taken) return;
  throw new BursarError(
    "not-held",
    `${payee} takes no payments that wait ${own.holdback} seconds in holds of ${own.module}.`,
    {
      value: `${own.module} ${own.holdback}`,
      limit: dispute ? `${dispute.module} ${dispute.maxHoldback}` : "no holds",
    },
    "Choose another service, or ask the owner for a mandate that this one takes.",
  );
}

/** Whether an offer is for this very line. */
export function isFor({ quote }: SignedQuote, line: Line): boolean {
  return lineKey(quote) === lineKey(line);
}

/** @throws BursarError `quote-mismatch` unless the offer is for this very line. */
export function assertOffer(offer: SignedQuote, line: Line): void {
  if (isFor(offer, line)) return;
  throw new BursarError(
    "quote-mismatch",
    "The quote is for another payee, amount or request.",
    { value: lineKey(offer.quote), limit: lineKey(line) },
    "Nothing was paid. Ask the payee for a quote of this very request.",
  );
}

function misfit({ domain, token, processors, payee }: PaymentTerms, own: Domain, mandate: Mandate): BursarError | null {
  const expected = [
    ["wrong-chain", domain.chainId, own.chainId],
    ["wrong-contract", domain.registry, own.registry],
    ["wrong-token", token, mandate.token],
  ] as const;
  for (const [code, value, limit] of expected) {
    if (BigInt(value) === BigInt(limit)) continue;
    return new BursarError(
      code,
      `${payee} asks for payment under ${value}; the mandate is for ${limit}.`,
      { value, limit },
      "Choose another service, or ask the owner for a mandate that fits.",
    );
  }
  if (processors.some((accepted) => BigInt(accepted) === BigInt(mandate.processor))) return null;
  return new BursarError(
    "processor-not-accepted",
    `${payee} does not take receipts of ${mandate.processor}.`,
    { value: mandate.processor, limit: processors.join(" ") },
    "Choose another service, or ask the owner for a mandate with one of its processors.",
  );
}
