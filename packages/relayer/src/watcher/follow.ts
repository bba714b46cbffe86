import type { Hex } from "@bursar/protocol";

import type { ActionKind } from "./book.ts";

/**
 * Where a receipt stands: `waiting` for its settlement; `missed`, to be claimed; `claimed`, its cure window running;
 * `contradicted` by the settled ledger; `challenged`; a `victim` whose bond is being counted. Ended well: `settled`,
 * `answered` (the processor showed the line), `paid` from the lock, `shared` from the bond. Ended badly: `lost`, its
 * windows over.
 */
export type ReceiptState =
  | "waiting"
  | "missed"
  | "claimed"
  | "contradicted"
  | "challenged"
  | "victim"
  | "settled"
  | "answered"
  | "paid"
  | "shared"
  | "lost";

/** When to challenge a settled ledger, which costs a deposit of one token if the processor can answer. */
export const CHALLENGE_POLICIES = ["certain", "always", "never"] as const;
/** `certain`: a batch ended exactly at the payment, with another head than it has. */
export type ChallengePolicy = (typeof CHALLENGE_POLICIES)[number];

/** `IClaims.Status`. */
export type ClaimStatus = "none" | "filed" | "cured" | "paid" | "bonded";
/** `IChallenges.Status`. */
export type ChallengeStatus = "none" | "open" | "answered" | "upheld";

/** What the chain says about a receipt; times in Unix seconds. */
export interface Facts {
  /** Of the newest block: the contracts know no other clock. */
  readonly time: bigint;
  readonly grace: bigint;
  readonly cure: bigint;
  /** Payments of its mandate that are settled. */
  readonly settled: bigint;
  /** The last second in which a claim may be filed. */
  readonly claimsUntil: bigint;
  /** Whether the processor settles the mandate no more. */
  readonly abandoned: boolean;
  readonly claim: { readonly status: ClaimStatus; readonly resolvableAt: bigint };
  readonly challenge: { readonly status: ChallengeStatus; readonly answerableUntil: bigint };
  /** When victims of the processor's bond are counted, 0 if it was not slashed. */
  readonly victimsUntil: bigint;
  /** The head of a batch that ended exactly at the payment, or null if none did. */
  readonly settledHead: Hex | null;
}

/** What is known of a receipt, and what to do about it. */
export interface Step {
  readonly state: ReceiptState;
  readonly until: bigint | null;
  readonly action: ActionKind | null;
  readonly done: boolean;
}

const at = (state: ReceiptState, until: bigint, action: ActionKind | null = null): Step => ({
  state,
  until,
  action,
  done: false,
});
const ended = (state: ReceiptState): Step => ({ state, until: null, action: null, done: true });

/** Whether claims and challenges have to be looked up for it, or time and settlement say all. */
export function isDue({ settleBy, seq }: { settleBy: bigint; seq: bigint }, facts: Omit<Facts, "claim" | "challenge">) {
  return facts.settled >= seq || facts.abandoned || facts.time > settleBy + facts.grace;
}

/** The next step for a receipt. */
export function follow(
  { seq, head, settleBy }: { seq: bigint; head: Hex; settleBy: bigint },
  facts: Facts,
  policy: ChallengePolicy,
): Step {
  const { time, claim, challenge } = facts;
  if (claim.status === "filed") {
    return at("claimed", claim.resolvableAt, time >= claim.resolvableAt ? "resolve" : null);
  }
  if (claim.status === "paid") return ended("paid");
  if (claim.status === "bonded" || challenge.status === "upheld") {
    return at("victim", facts.victimsUntil, time >= facts.victimsUntil ? "share" : null);
  }
  if (challenge.status === "answered") return ended("answered");
  if (challenge.status === "open") {
    const { answerableUntil } = challenge;
    return at("challenged", answerableUntil, time > answerableUntil ? "uphold" : null);
  }
  if (facts.settled >= seq) return settled(head, facts, policy);
  if (time > facts.claimsUntil) return ended("lost");
  if (facts.abandoned || time > settleBy + facts.grace) return at("missed", facts.claimsUntil, "file");
  return at("waiting", settleBy + facts.grace);
}

/** Its number is settled: whether its line is, only a head at that very number tells. */
function settled(head: Hex, { time, claimsUntil, cure, settledHead }: Facts, policy: ChallengePolicy): Step {
  const contradicted = settledHead !== null && BigInt(settledHead) !== BigInt(head);
  const proved = settledHead !== null && !contradicted;
  const until = claimsUntil + cure;
  if (time > until) return ended(contradicted ? "lost" : "settled");
  if (contradicted) return at("contradicted", until, policy === "never" ? null : "challenge");
  if (policy === "always" && !proved) return at("settled", until, "challenge");
  return ended("settled");
}
