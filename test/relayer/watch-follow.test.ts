import type { Hex } from "@bursar/protocol";
import { expect } from "chai";
import fc from "fast-check";

import { follow, type ChallengePolicy, type Facts } from "../../packages/relayer/src/watcher/follow.ts";

const HEAD: Hex = `0x${"11".repeat(32)}`;
const OTHER: Hex = `0x${"22".repeat(32)}`;
/** A receipt on payment 5, to be settled by 1,000. */
const RECEIPT = { seq: 5n, head: HEAD, settleBy: 1_000n };

/** Nothing is settled, and nothing has happened. */
const FACTS: Facts = {
  time: 0n,
  grace: 100n,
  cure: 200n,
  settled: 4n,
  claimsUntil: 2_000n,
  abandoned: false,
  claim: { status: "none", resolvableAt: 0n },
  challenge: { status: "none", answerableUntil: 0n },
  victimsUntil: 0n,
  settledHead: null,
};
const filed = { status: "filed", resolvableAt: 1_500n } as const;
const open = { status: "open", answerableUntil: 1_500n } as const;

const CASES: readonly (readonly [
  what: string,
  facts: Partial<Facts>,
  expected: readonly [state: string, until: bigint | null, action: string | null],
  policy?: ChallengePolicy,
])[] = [
  ["before settle-by and grace are over", { time: 1_100n }, ["waiting", 1_100n, null]],
  ["a second later", { time: 1_101n }, ["missed", 2_000n, "file"]],
  ["at once when the processor settles no more", { abandoned: true }, ["missed", 2_000n, "file"]],
  ["in the last second of the claim window", { time: 2_000n }, ["missed", 2_000n, "file"]],
  ["after it", { time: 2_001n }, ["lost", null, null]],
  ["filed, its cure window running", { time: 1_499n, claim: filed }, ["claimed", 1_500n, null]],
  ["filed, the window over", { time: 1_500n, claim: filed }, ["claimed", 1_500n, "resolve"]],
  ["filed in time, looked at late", { time: 9_000n, claim: filed }, ["claimed", 1_500n, "resolve"]],
  ["paid from the lock", { claim: { ...filed, status: "paid" } }, ["paid", null, null]],
  ["cured", { settled: 5n, claim: { ...filed, status: "cured" } }, ["settled", null, null]],
  [
    "cured by a fork",
    { settled: 5n, settledHead: OTHER, claim: { ...filed, status: "cured" } },
    ["contradicted", 2_200n, "challenge"],
  ],
  [
    "left to the bond, victims being counted",
    { time: 3_000n, victimsUntil: 3_001n, claim: { ...filed, status: "bonded" } },
    ["victim", 3_001n, null],
  ],
  [
    "left to the bond, victims counted",
    { time: 3_001n, victimsUntil: 3_001n, claim: { ...filed, status: "bonded" } },
    ["victim", 3_001n, "share"],
  ],
  ["settled somewhere in a batch", { settled: 9n }, ["settled", null, null]],
  ["settled with its own head", { settled: 5n, settledHead: HEAD }, ["settled", null, null]],
  ["settled with another head", { settled: 5n, settledHead: OTHER }, ["contradicted", 2_200n, "challenge"]],
  ["the same, left alone", { settled: 5n, settledHead: OTHER }, ["contradicted", 2_200n, null], "never"],
  ["the same, too late", { time: 2_201n, settled: 5n, settledHead: OTHER }, ["lost", null, null]],
  ["settled somewhere, always challenged", { settled: 9n }, ["settled", 2_200n, "challenge"], "always"],
  ["its own head, never challenged", { settled: 5n, settledHead: HEAD }, ["settled", null, null], "always"],
  ["settled somewhere, too late to challenge", { time: 2_201n, settled: 9n }, ["settled", null, null], "always"],
  ["challenged", { time: 1_500n, settled: 5n, challenge: open }, ["challenged", 1_500n, null]],
  ["unanswered", { time: 1_501n, settled: 5n, challenge: open }, ["challenged", 1_500n, "uphold"]],
  ["answered", { settled: 5n, challenge: { ...open, status: "answered" } }, ["answered", null, null]],
  [
    "upheld",
    { time: 2_000n, settled: 5n, victimsUntil: 2_000n, challenge: { ...open, status: "upheld" } },
    ["victim", 2_000n, "share"],
  ],
];

describe("what a watcher does next for a receipt", () => {
  for (const [what, facts, expected, policy = "certain"] of CASES) {
    it(`${what}: ${expected[0]}${expected[2] === null ? "" : `, ${expected[2]}`}`, () => {
      const { state, until, action } = follow(RECEIPT, { ...FACTS, ...facts }, policy);
      expect([state, until, action]).to.deep.equal(expected);
    });
  }

  it("ends nothing that still has a window, and does nothing for what is ended, whatever the chain says", () => {
    const second = fc.bigInt(0n, 3_000n);
    const facts = fc.record({
      time: second,
      grace: fc.constant(100n),
      cure: fc.constant(200n),
      settled: fc.bigInt(0n, 9n),
      claimsUntil: second,
      abandoned: fc.boolean(),
      claim: fc.record({
        status: fc.constantFrom("none", "filed", "cured", "paid", "bonded"),
        resolvableAt: second,
      }),
      challenge: fc.record({ status: fc.constantFrom("none", "open", "answered", "upheld"), answerableUntil: second }),
      victimsUntil: second,
      settledHead: fc.constantFrom(null, HEAD, OTHER),
    });
    const policies = fc.constantFrom("certain" as const, "always" as const, "never" as const);
    fc.assert(
      fc.property(facts, policies, (known, policy) => {
        const step = follow(RECEIPT, known, policy);
        expect(step.done).to.equal(step.until === null);
        if (step.done) expect(step.action).to.equal(null);
        if (step.state === "lost") expect(known.time > known.claimsUntil).to.equal(true);
        if (step.action === "file")
          expect(known.settled < RECEIPT.seq && known.claim.status !== "filed").to.equal(true);
        if (step.action === "challenge") expect(known.settled >= RECEIPT.seq).to.equal(true);
        if (policy === "never") expect(step.action).to.not.equal("challenge");
      }),
      { numRuns: 5_000 },
    );
  });
});
