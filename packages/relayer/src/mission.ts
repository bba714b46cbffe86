import { BursarError, formatAmount, hostMatches, type Address, type ErrorCode } from "@bursar/protocol";
import { Environment, type ParseResult } from "@marcbachmann/cel-js";

/**
 * What one payment is decided on. Every limit stands as what is left of it, so that a rule is one comparison. CEL's
 * integers have 64 bits: what is left is capped far above the largest amount, which changes no answer.
 */
export interface Facts {
  readonly mandate: {
    /** Unix seconds, or null. */
    readonly revokedAt: bigint | null;
    readonly validUntil: bigint;
    readonly payees: readonly Address[];
  };
  /** Unix seconds. */
  readonly now: bigint;
  readonly terms: {
    readonly purpose: string;
    readonly hosts: readonly string[];
    readonly categories: readonly string[];
    readonly started: boolean;
  };
  readonly payment: { readonly amount: bigint };
  readonly payee: {
    readonly address: Address;
    /** Whether the operator vouches for a profile of the payee. */
    readonly known: boolean;
    /** Whether it could ever collect what it is paid. */
    readonly collects: boolean;
    readonly host: string;
    /** The globs of the terms that cover the host. */
    readonly coveredBy: readonly string[];
    readonly category: string;
  };
  /** Units, or payments for `minute`. */
  readonly left: {
    readonly cap: bigint;
    readonly budget: bigint;
    readonly call: bigint;
    readonly minute: bigint;
    readonly day: bigint;
    readonly period: bigint;
  };
}

export interface Rule {
  /** What a payment that breaks the rule is refused with. */
  readonly code: ErrorCode;
  /** The condition, in CEL (Common Expression Language). */
  readonly rule: string;
}

interface Refusing extends Rule {
  readonly message: (facts: Facts) => string;
  readonly details: (facts: Facts) => Record<string, string | bigint>;
  readonly advice: (facts: Facts) => string;
}

const ASK_OWNER = "Stop spending and ask the owner for a new mandate.";
const money = formatAmount;
const onMission = ({ terms }: Facts): string =>
  `Stay with the purpose «${terms.purpose}»; do not retry this payee under this mandate.`;

/** A limit of the terms that is counted, and so frees itself. */
function counted(code: ErrorCode, left: "day" | "period", span: string): Refusing {
  return {
    code,
    rule: `payment.amount <= left.${left}`,
    message: (facts) => `${money(facts.payment.amount)} does not fit: ${money(facts.left[left])} are left ${span}.`,
    details: (facts) => ({ value: facts.payment.amount, limit: facts.left[left], remaining: facts.left[left] }),
    advice: () => `Wait, or buy for at most what is left ${span}; do not split one purchase into several payments.`,
  };
}

const POLICY: readonly Refusing[] = [
  {
    code: "mandate-revoked",
    rule: "mandate.revokedAt == null",
    message: () => "The owner revoked this mandate.",
    details: ({ mandate }) => ({ revokedAt: mandate.revokedAt ?? 0n }),
    advice: () => ASK_OWNER,
  },
  {
    code: "mandate-expired",
    rule: "now <= mandate.validUntil",
    message: ({ mandate, now }) => `The mandate ended at ${mandate.validUntil}; it is ${now}.`,
    details: ({ mandate, now }) => ({ value: now, limit: mandate.validUntil }),
    advice: () => ASK_OWNER,
  },
  {
    code: "above-payment-cap",
    rule: "payment.amount <= left.cap",
    message: ({ payment, left }) => `${money(payment.amount)} is above the cap of ${money(left.cap)} per payment.`,
    details: ({ payment, left }) => ({ value: payment.amount, limit: left.cap }),
    advice: () => "Buy less in one call or choose a cheaper payee; do not split one purchase into several payments.",
  },
  {
    code: "above-budget",
    rule: "payment.amount <= left.budget",
    message: ({ payment, left }) =>
      `${money(payment.amount)} does not fit: ${money(left.budget)} of the budget are left.`,
    details: ({ payment, left }) => ({ value: payment.amount, limit: left.budget, remaining: left.budget }),
    advice: () => ASK_OWNER,
  },
  {
    code: "payee-not-allowed",
    rule: "size(mandate.payees) == 0 || payee.address in mandate.payees",
    message: ({ payee }) => `${payee.address} is not among the payees that the owner named.`,
    details: ({ payee, mandate }) => ({ value: payee.address, limit: mandate.payees.join(" ") }),
    advice: () => "Pay one of the named payees; do not retry this one.",
  },
  {
    code: "payee-impossible",
    rule: "payee.collects",
    message: ({ payee }) => `${payee.address} is the token or one of Bursar's contracts: its credit would be lost.`,
    details: ({ payee }) => ({ value: payee.address }),
    advice: () => "The payee's address is wrong: do not pay it.",
  },
  {
    code: "payee-unknown",
    rule: "payee.known || (size(terms.hosts) == 0 && size(terms.categories) == 0)",
    message: ({ payee }) =>
      `${payee.address} is not registered with this processor, and the mandate is limited to certain hosts or categories.`,
    details: ({ payee }) => ({ value: payee.address }),
    advice: onMission,
  },
  {
    code: "off-mission-host",
    rule: "size(terms.hosts) == 0 || size(payee.coveredBy) > 0",
    message: ({ payee, terms }) => `${payee.host} is outside the hosts of this mandate (${terms.hosts.join(", ")}).`,
    details: ({ payee, terms }) => ({ value: payee.host, limit: terms.hosts.join(" ") }),
    advice: onMission,
  },
  {
    code: "off-mission-category",
    rule: "size(terms.categories) == 0 || payee.category in terms.categories",
    message: ({ payee, terms }) =>
      `«${payee.category}» is outside the categories of this mandate (${terms.categories.join(", ")}).`,
    details: ({ payee, terms }) => ({ value: payee.category, limit: terms.categories.join(" ") }),
    advice: onMission,
  },
  {
    code: "above-price",
    rule: "payment.amount <= left.call",
    message: ({ payment, left }) =>
      `${money(payment.amount)} is above the highest price of a call, ${money(left.call)}.`,
    details: ({ payment, left }) => ({ value: payment.amount, limit: left.call }),
    advice: () => "Choose a cheaper call or payee; do not retry at this price.",
  },
  {
    code: "not-started",
    rule: "terms.started",
    message: () => "The first period of this mandate has not begun.",
    details: () => ({}),
    advice: () => "Wait for the first period.",
  },
  {
    code: "above-rate",
    rule: "left.minute >= 1",
    message: () => "The mandate's payments of this minute are used up.",
    details: ({ left }) => ({ value: 1n, limit: left.minute, remaining: left.minute }),
    advice: () => "Wait a minute, then go on more slowly.",
  },
  counted("above-daily-limit", "day", "in this 24 hours"),
  counted("above-allowance", "period", "in this period"),
];

const environment = new Environment({ limits: { maxAstNodes: 100 } });
for (const name of ["mandate", "terms", "payment", "payee", "left"]) environment.registerVariable(name, "map");
environment.registerVariable("now", "int");
const conditions: readonly (readonly [Refusing, ParseResult])[] = POLICY.map((refusing) => [
  refusing,
  environment.parse(refusing.rule),
]);

/** The policy of this processor, in the order in which it is applied. A payment must keep every rule. */
export const RULES: readonly Rule[] = POLICY.map(({ code, rule }) => ({ code, rule }));

/**
 * Refuses a payment that breaks a rule. A rule has to come out as `true`: one that gives anything else, or cannot be
 * evaluated, refuses too.
 *
 * @throws {@link BursarError} of the first broken rule, with the value, the limit, what is left and advice.
 */
export function judge(facts: Facts): void {
  for (const [refusing, condition] of conditions) {
    if (holds(condition, facts)) continue;
    throw new BursarError(refusing.code, refusing.message(facts), refusing.details(facts), refusing.advice(facts));
  }
}

function holds(condition: ParseResult, facts: Facts): boolean {
  try {
    return condition(facts) === true;
  } catch {
    return false;
  }
}

/** Far above any amount (2^40) and inside CEL's integers. */
const PLENTY = 1n << 62n;

/** What is left of a limit, as a rule compares it: null is no limit. */
export function headroom(left: bigint | null): bigint {
  if (left === null || left > PLENTY) return PLENTY;
  return left < 0n ? 0n : left;
}

/** The globs that cover a host; a host that is itself a glob is covered by an equal one alone. */
export function covering(globs: readonly string[], host: string): string[] {
  return globs.filter((glob) => glob === host || (!host.startsWith("*") && hostMatches(glob, host)));
}
