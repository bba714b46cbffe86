import { globSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { fileURLToPath } from "node:url";

import { expect } from "chai";

import { ethers, networkHelpers } from "../contracts/fixture.ts";
import { Ghost } from "../contracts/invariants/ghost.ts";
import { holdSteps, seatArbiters } from "../contracts/invariants/holds.ts";
import { money } from "../contracts/invariants/money.ts";
import { tally, type Kind, type Play } from "../contracts/invariants/play.ts";
import { registerProcessors, trust } from "../contracts/invariants/trust.ts";
import { Clock, deployWorld } from "../contracts/invariants/world.ts";

const HOUR = 3_600n;
const DAY = 24n * HOUR;
const BOND = 20_000_000_000n;
/** Every key, time and nonce is fixed, so that gas is too. */
const START = 2_000_000_000n;
const SNAPSHOT = fileURLToPath(new URL("gas.json", import.meta.url));
const IS_WRITING = process.env["BURSAR_GAS"] === "write";

type Numbers = Record<string, number>;
type Snapshot = Record<"gas" | "bytes", Numbers>;
const kept = JSON.parse(readFileSync(SNAPSHOT, "utf8")) as Snapshot;

/** Holds what was measured against the file, or writes it there. */
function keep(part: keyof Snapshot, measured: Numbers): void {
  if (!IS_WRITING) {
    expect(differences(kept[part], measured), "run npm run gas, and say in the review why").to.deep.equal([]);
    return;
  }
  kept[part] = measured;
  writeFileSync(SNAPSHOT, `${JSON.stringify(kept, null, 2)}\n`);
}

/** What is measured: its name, the step of the stateful suite that does it, and what that step draws. */
type Measured = readonly [label: string | null, step: string, args: unknown];

const open = (operator: number, listed = 1): Measured[] => [
  [null, "open", { by: 0, operator, budget: 5_000n, listed, days: 1n, funded: 1 }],
];
const settle = (label: string | null, index: number, also: number, count: number, to: number): Measured => [
  label,
  "settle",
  {
    index,
    also,
    isAlone: index === also,
    amounts: Array.from({ length: count }, () => 20n),
    to,
    isHonest: true,
    wrong: "nothing",
  },
];
const promise = (index: number, to: number, ahead = 0n, isFork = 1): Measured => [
  null,
  "promise",
  { index, ahead, amount: 20n, to, settleIn: 600n, isFork },
];
const wait = (seconds: bigint): Measured => [null, "wait", { seconds }];

/** One life, in which each operation happens for the first time, or again where that costs another sum. */
const LIFE: readonly Measured[] = [
  ["deposit", "deposit", { by: 0, amount: 100_000n }],
  ["deposit again", "deposit", { by: 0, amount: 100_000n }],
  ["open", "open", { by: 0, operator: 0, budget: 5_000n, listed: 1, days: 1n, funded: 0 }],
  ["open with two payees", "open", { by: 0, operator: 0, budget: 5_000n, listed: 0, days: 1n, funded: 0 }],
  ...open(0),
  ...open(0),
  ...open(1),
  ...open(1),
  settle("settle 1 row, 1 payment, a new payee", 0, 0, 1, 0),
  settle("settle 1 row, 1 payment, a known payee", 0, 0, 1, 0),
  settle("settle 1 row, 3 payments", 0, 0, 3, 0),
  settle("settle 2 rows, 2 payments", 0, 2, 1, 0),
  ["pay directly, x402", "direct", { index: 0, amount: 10n, form: "transfer", nonce: 1n, to: 0 }],
  ["pay directly, AEP2", "direct", { index: 0, amount: 10n, form: "debit", nonce: 1n, to: 0 }],
  ["sweep a credit", "sweep", { index: 3, by: 0 }],
  ["withdraw", "withdraw", { by: 0, amount: 10n }],

  // Holds and disputes of the fourth mandate.
  promise(3, 2),
  settle(null, 3, 3, 1, 2),
  promise(3, 2),
  settle(null, 3, 3, 1, 2),
  ["collect a hold", "collect", { index: 3, by: 0 }],
  ["dispute", "dispute", { index: 0, by: "owner", kind: "other" }],
  ["answer a dispute", "answer dispute", { index: 0, isEvidence: true, by: 1 }],
  ["escalate", "escalate", { index: 0, by: "owner", fee: 1_000n }],
  ["rule", "rule", { index: 0, ruling: 2n, isOther: 1 }],
  [null, "dispute", { index: 1, by: "owner", kind: "not-delivered" }],
  ["give in", "give in", { index: 1, isPayee: true }],
  ["take an arbiter's fee", "take fees", { by: 6 }],

  // A claim that is paid, from the third mandate, and one of its successor.
  promise(2, 0),
  promise(2, 1, 1n),
  wait(4n * HOUR),
  ["file 1 claim", "file", { indices: [1], by: 8 }],
  ["rotate a key", "rotate", { operator: 1, isOld: 1 }],
  wait(25n * HOUR),
  ["resolve a claim", "resolve", { index: 0, by: 8 }],

  // A settled fork, answered and upheld, against the second processor.
  ...open(1),
  promise(6, 0, 0n, 0),
  promise(6, 1, 1n, 0),
  settle(null, 6, 6, 2, 0),
  ["challenge", "challenge", { index: 5, by: 0 }],
  ["answer a challenge, without its proof", "answer", { index: 0, by: 0, wrong: "nothing" }],
  ["revoke", "revoke", { index: 6, by: "owner" }],
  ["acknowledge", "acknowledge", { index: 6, ahead: 1n, direct: 5n, honest: true }],
  ...open(0),
  ["revoke with a signature", "revoke", { index: 7, by: "signed" }],
  ["close together", "together", { index: 7, ahead: 0n }],
  wait(2n * HOUR),
  ["close", "close", { index: 7 }],

  promise(6, 0, 3n, 0),
  ["challenge again", "challenge", { index: 7, by: 0 }],
  wait(25n * HOUR),
  ["uphold a challenge", "uphold", { index: 1, by: 8 }],
  wait(8n * DAY),
  ["pay a victim", "pay victim", { operator: 1, index: 0, by: 8 }],
  ["finish a slash", "finish slash", { operator: 1, by: 8 }],
  ["request unbonding", "unbond", { operator: 0 }],
  ["release a hold", "release hold", { index: 3, by: 0, parts: 2 }],
  wait(60n * DAY),
  ["withdraw a bond", "take bond", { operator: 0 }],
];

/**
 * What each operation costs, with real signatures; proofs are believed here, and a real one costs what
 * docs/benchmarks.md measures. `npm run gas` writes the file anew: its difference belongs in the review.
 */
describe("Gas", function () {
  this.timeout(300_000);

  it("is what gas.json says, to the unit", async () => {
    await networkHelpers.time.increaseTo(START);
    const world = await deployWorld();
    const play: Play = { world, ghost: new Ghost(), clock: new Clock() };
    await play.clock.start();
    play.clock.time = START + 10_000n;
    await registerProcessors(play, BOND);
    await seatArbiters(play);
    const measured: Numbers = {};
    for (const [label, step, args] of LIFE) {
      const gas = await perform(play, step, args);
      if (label !== null) measured[label] = gas;
    }
    keep("gas", measured);
  });
});

describe("Sizes", () => {
  const [CODE_LIMIT, CREATION_LIMIT] = [24_576, 49_152];
  const contracts = globSync("artifacts/contracts/{,modules/}*.sol/*.json")
    .filter((path) => dirname(path).endsWith(`/${basename(path, ".json")}.sol`))
    .sort()
    .map((path) => {
      const { bytecode, deployedBytecode } = JSON.parse(readFileSync(path, "utf8")) as Record<string, string>;
      const bytesOf = (code: string): number => (code.length - 2) / 2;
      return { name: basename(path, ".json"), code: bytesOf(deployedBytecode!), creation: bytesOf(bytecode!) };
    });

  it("of all contracts are below what a chain takes, each with its margin", () => {
    expect(contracts.length).to.be.greaterThan(10);
    for (const { name, code, creation } of contracts) {
      expect(code, `${name} leaves ${CODE_LIMIT - code} bytes`).to.be.lessThan(CODE_LIMIT);
      expect(creation, `${name} leaves ${CREATION_LIMIT - creation} bytes of creation code`).to.be.lessThan(
        CREATION_LIMIT,
      );
    }
  });

  it("are what gas.json says", () => {
    const bytes = contracts.flatMap(({ name, code, creation }) => [
      [name, code],
      ...(creation > CODE_LIMIT ? [[`${name}, to create it`, creation]] : []),
    ]);
    keep("bytes", Object.fromEntries(bytes) as Numbers);
  });
});

/** @returns what the step's one call used. A step that is refused, or does nothing, measures nothing. */
async function perform(play: Play, name: string, args: unknown): Promise<number> {
  const steps: readonly Kind[] = [...money, ...trust, ...holdSteps];
  const before = play.clock.last;
  const refused = (): number => [...tally.values()].reduce((sum, [, count]) => sum + count, 0);
  const refusals = refused();
  await steps.find((one) => one.name === name)!.perform(play, args as never);
  expect(refused(), `${name} was refused: ${play.clock.failure}`).to.equal(refusals);
  if (play.clock.last === before) {
    expect(name, "nothing was called").to.be.oneOf(["promise", "wait"]);
    return 0;
  }
  const receipt = await ethers.provider.getTransactionReceipt(play.clock.last);
  return Number(receipt!.gasUsed);
}

function differences(before: Numbers, now: Numbers): string[] {
  const labels = [...new Set([...Object.keys(before), ...Object.keys(now)])];
  return labels
    .filter((label) => before[label] !== now[label])
    .map((label) => {
      const [was, is] = [before[label], now[label]];
      if (was === undefined || is === undefined) return `${label}: ${was ?? "none"} → ${is ?? "none"}`;
      return `${label}: ${was} → ${is} (${is > was ? "+" : ""}${is - was})`;
    });
}
