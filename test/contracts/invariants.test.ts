import { expect } from "chai";
import fc from "fast-check";

import { networkHelpers } from "./fixture.ts";
import { Checker } from "./invariants/check.ts";
import { Ghost } from "./invariants/ghost.ts";
import { holdSteps, seatArbiters } from "./invariants/holds.ts";
import { leave } from "./invariants/leave.ts";
import { money, opening } from "./invariants/money.ts";
import { tally, type Play } from "./invariants/play.ts";
import { registerProcessors, trust } from "./invariants/trust.ts";
import { Clock, deployWorld } from "./invariants/world.ts";

/** `npm run test:deep` draws more and longer lives; BURSAR_SEED plays those of a failure again. */
const IS_DEEP = process.env["BURSAR_DEEP"] === "1";
const [RUNS, DEPTH] = IS_DEEP ? [1_000, 100] : [100, 50];
const SEED = process.env["BURSAR_SEED"];
const BOND = 12_000_000_000n;
/** What goes through so often that a run without it would be a run of something else. */
const OFTEN = [
  ...["I9 open", "I5 settle", "revoke by owner", "together", "P4 close", "file", "resolve", "challenge", "uphold"],
  ...["dispute", "answer dispute", "I13 resolve dispute", "pay victim", "finish slash", "P16 take bond", "release"],
];

/**
 * Random calls by owners, agents, two processors, payees, arbiters and strangers, honest or not, to the contracts as they
 * are deployed. Two verifiers believe the test, and what the proof guards is taken as given: everything that must hold
 * whatever a proof says is checked after each step. The ghost foretells of every call whether it goes through, and what
 * it moves. I14 (job pots) has no contract yet.
 */
describe("Stateful invariants of all contracts together", function () {
  this.timeout(0);

  const step = fc.oneof(...[...money, ...trust, ...holdSteps]);
  const life = fc
    .tuple(
      fc.array(fc.oneof(...opening), { minLength: 3, maxLength: 3 }),
      fc.array(step, { minLength: DEPTH - 3, maxLength: DEPTH - 3, size: "max" }),
    )
    .map((parts) => parts.flat());

  it("P1, P3, P4, P5, P7, P9, P16, P17; I1 to I13, I15, I16 after every step of every life", async () => {
    await fc.assert(
      fc.asyncProperty(life, async (steps) => {
        const play: Play = {
          world: await networkHelpers.loadFixture(deployWorld),
          ghost: new Ghost(),
          clock: new Clock(),
        };
        const checker = new Checker();
        await play.clock.start();
        await registerProcessors(play, BOND);
        await seatArbiters(play);
        for (const one of steps) {
          await one.run(play);
          await checker.check(play, one.name);
        }
        await leave(play, checker);
      }),
      { numRuns: RUNS, endOnFailure: true, ...(SEED === undefined ? {} : { seed: Number(SEED) }) },
    );
    for (const name of OFTEN) expect(tally.get(name)?.[0] ?? 0, `${name} went through`).to.be.greaterThan(0);
  });
});
