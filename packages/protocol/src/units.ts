import { BursarError } from "./errors.ts";

/** The largest amount of one payment: 2^40 − 1 units, about 1.1 million USDC. */
export const MAX_AMOUNT = 2n ** 40n - 1n;
/** The largest budget and running total: 2^64 − 1 units. */
export const MAX_TOTAL = 2n ** 64n - 1n;

/** Decimals of a unit: one unit is 0.000001 of a token with six decimals or more. */
const UNIT_DECIMALS = 6;
const UNITS_PER_WHOLE = 10n ** BigInt(UNIT_DECIMALS);
const MAX_TOKEN_DECIMALS = 24;

/** The longest holdback of a dispute module, in seconds: seven days. */
export const MAX_HOLDBACK = 604_800n;

/** A canonical decimal number: `0`, or ASCII digits without leading zero, sign, space, point or exponent. */
export const DECIMAL = /^(?:0|[1-9][0-9]{0,77})$/;
const HUMAN_AMOUNT = /^(0|[1-9][0-9]{0,13})(?:\.([0-9]{1,6}))?$/;

/** Base units of the token in one unit: 10^max(0, decimals − 6). @throws malformed-input above 24 decimals. */
export function unitScale(decimals: number): bigint {
  if (!Number.isInteger(decimals) || decimals < 0 || decimals > MAX_TOKEN_DECIMALS) {
    throw new BursarError("malformed-input", `A token has 0 to ${MAX_TOKEN_DECIMALS} decimals, not ${decimals}`, {
      value: decimals,
      limit: MAX_TOKEN_DECIMALS,
    });
  }
  return 10n ** BigInt(Math.max(0, decimals - UNIT_DECIMALS));
}

/**
 * Units in an amount as people write it, for a token with six decimals or more: `"0.0025"` is 2500 units.
 *
 * @throws malformed-input unless `text` is digits with at most six decimals and at most 2^64 − 1 units.
 */
export function parseAmount(text: string): bigint {
  const match = HUMAN_AMOUNT.exec(text);
  const units = match && BigInt(match[1]! + (match[2] ?? "").padEnd(UNIT_DECIMALS, "0"));
  if (units === null || units > MAX_TOTAL) {
    throw new BursarError("malformed-input", `"${text}" is not an amount with at most ${UNIT_DECIMALS} decimals`, {
      value: text,
      limit: formatAmount(MAX_TOTAL),
    });
  }
  return units;
}

/** An amount as people write it, the inverse of {@link parseAmount}: 2500 units are `"0.0025"`. */
export function formatAmount(units: bigint): string {
  const sign = units < 0n ? "-" : "";
  const size = units < 0n ? -units : units;
  const decimals = (size % UNITS_PER_WHOLE).toString().padStart(UNIT_DECIMALS, "0").replace(/0+$/, "");
  return `${sign}${size / UNITS_PER_WHOLE}${decimals && "."}${decimals}`;
}

/**
 * A number from the wire, where it is a canonical decimal string: one number has one form.
 *
 * @param max the largest value accepted.
 * @throws malformed-input for any other form (hex, sign, exponent, leading zero, space, other digits) or above `max`.
 */
export function decimalString(value: unknown, max: bigint = 2n ** 256n - 1n): bigint {
  if (typeof value !== "string" || !DECIMAL.test(value) || BigInt(value) > max) {
    const shown = typeof value === "string" ? value.slice(0, 100) : `a ${typeof value}`;
    throw new BursarError("malformed-input", `"${shown}" is not a decimal string of at most ${max}`, {
      value: shown,
      limit: max,
    });
  }
  return BigInt(value);
}

/** @throws amount-zero, amount-too-large unless 1 <= amount <= 2^40 − 1. */
export function assertAmount(amount: bigint): void {
  if (amount < 1n)
    throw new BursarError("amount-zero", `An amount of ${amount} units is below one unit`, {
      value: amount,
      limit: 1n,
    });
  if (amount > MAX_AMOUNT) {
    throw new BursarError("amount-too-large", `${amount} units are above the limit of ${MAX_AMOUNT}`, {
      value: amount,
      limit: MAX_AMOUNT,
    });
  }
}
