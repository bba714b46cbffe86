import { BursarError, formatAmount, type ErrorCode } from "@bursar/protocol";

import { PaidNotServed } from "./paid-fetch.ts";

const MONEY: readonly ErrorCode[] = [
  "above-payment-cap",
  "above-budget",
  "above-price",
  "above-daily-limit",
  "above-allowance",
  "price-above-limit",
  "exposure-exceeded",
];
/** The same call may succeed later, unchanged. */
const LATER: readonly ErrorCode[] = [
  "above-rate",
  "above-daily-limit",
  "above-allowance",
  "not-started",
  "processor-unavailable",
  "chain-unavailable",
  "too-many-requests",
  "settlement-pending",
  "exposure-exceeded",
  "shutting-down",
  "books-behind",
];

/**
 * An error as a language model is told it: the code, what happened, the limit, what is left, whether money moved, and
 * what to do. A few short lines without markup.
 */
export function explain(error: unknown): string {
  if (!(error instanceof BursarError)) {
    const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return `error: ${reason}\nadvice: This is not about the mandate. Nothing is known about a payment.`;
  }
  const { code, message, details, advice } = error;
  const shown = (value: string): string =>
    MONEY.includes(code) && /^\d+$/.test(value) ? formatAmount(BigInt(value)) : value;
  const { limit, remaining } = details;
  return [
    `error: ${code}`,
    `what: ${message}`,
    ...(limit === undefined || limit === "" ? [] : [`limit: ${shown(limit)}`]),
    ...(remaining === undefined ? [] : [`left: ${shown(remaining)}`]),
    ...(error instanceof PaidNotServed
      ? [
          `paid: yes, payment ${error.paid.payment.payment.seq} of ${formatAmount(error.paid.payment.payment.line.amount)}`,
        ]
      : []),
    ...(LATER.includes(code) ? ["later: the same may work later"] : []),
    ...(advice === undefined ? [] : [`advice: ${advice}`]),
  ].join("\n");
}
