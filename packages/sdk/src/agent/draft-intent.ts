import {
  BursarError,
  formatAmount,
  MAX_DURATION,
  parseAmount,
  parseIntent,
  toWire,
  type Intent,
} from "@bursar/protocol";

/** Money as people write it (`"5.00"`), or units as a bigint. */
export type Money = string | bigint;
/** A length of time as people write it (`"90s"`, `"15m"`, `"12h"`, `"7d"`, `"2w"`), or seconds as a bigint. */
export type Duration = string | bigint;

/** What an agent wants to be allowed. */
export interface IntentInput {
  /** Why, in a sentence that the owner reads before signing; at most 500 characters. */
  readonly purpose: string;
  /** In all. */
  readonly budget: Money;
  /** For one payment; the whole budget unless given. */
  readonly paymentCap?: Money;
  /** From a minute to 90 days. */
  readonly duration: Duration;
  /** Hosts where it may be spent (`api.example.com`, `*.example.com`); none means any. */
  readonly hosts?: readonly string[];
  /** What may be bought (`weather`, `data.market`); none means anything. */
  readonly categories?: readonly string[];
  /** Who may be paid, at most eight addresses; none means anyone. */
  readonly payees?: readonly string[];
  readonly limits?: { readonly perCall?: Money; readonly perDay?: Money; readonly paymentsPerMinute?: number };
  /** A budget that is freed period by period. */
  readonly recurring?: { readonly amount: Money; readonly every: Duration };
  /** The agent of an earlier mandate that this one takes the place of. */
  readonly replaces?: string;
}

const SECONDS = { s: 1n, m: 60n, h: 3_600n, d: 86_400n, w: 604_800n };
const DURATION = /^([1-9][0-9]{0,8})\s?([smhdw])$/;

/**
 * A complete intent from what a person or a model writes.
 *
 * @throws BursarError `malformed-input` that names each wrong field, with an example of the right form.
 */
export function draftIntent(input: IntentInput): Intent {
  const budget = units("budget", input.budget);
  const paymentCap = units("paymentCap", input.paymentCap ?? budget);
  const duration = secondsOf("duration", input.duration);
  if (paymentCap > budget) {
    throw wrong("paymentCap", formatAmount(paymentCap), `at most the budget of ${formatAmount(budget)}`);
  }
  if (duration < 60n || duration > MAX_DURATION) {
    throw wrong("duration", `${duration} seconds`, "between a minute and 90 days");
  }
  const { limits, recurring, purpose, hosts = [], categories = [], payees = [], replaces } = input;
  return parseIntent(
    toWire({
      purpose,
      budget,
      paymentCap,
      duration,
      hosts,
      categories,
      payees,
      ...(limits === undefined ? {} : { limits: limitsOf(limits) }),
      ...(recurring === undefined
        ? {}
        : {
            recurring: {
              units: units("recurring.amount", recurring.amount),
              seconds: secondsOf("recurring.every", recurring.every),
            },
          }),
      ...(replaces === undefined ? {} : { replaces }),
    }),
  );
}

/** Units in money as people write it. @throws BursarError `malformed-input` */
export function units(field: string, money: Money): bigint {
  if (typeof money === "bigint") return money;
  try {
    return parseAmount(money);
  } catch {
    throw wrong(field, money, 'an amount such as "5.00", or units as a bigint');
  }
}

function limitsOf({ perCall, perDay, paymentsPerMinute }: NonNullable<IntentInput["limits"]>): object {
  return {
    ...(perCall === undefined ? {} : { unitsPerCall: units("limits.perCall", perCall) }),
    ...(perDay === undefined ? {} : { unitsPerDay: units("limits.perDay", perDay) }),
    ...(paymentsPerMinute === undefined ? {} : { paymentsPerMinute: String(paymentsPerMinute) }),
  };
}

function secondsOf(field: string, duration: Duration): bigint {
  if (typeof duration === "bigint") return duration;
  const match = DURATION.exec(duration);
  if (match === null) throw wrong(field, duration, 'a duration such as "90s", "12h" or "7d"');
  return BigInt(match[1]!) * SECONDS[match[2] as keyof typeof SECONDS];
}

function wrong(field: string, value: string, limit: string): BursarError {
  return new BursarError("malformed-input", `${field}: ${value} is not ${limit}.`, { field, value, limit });
}
