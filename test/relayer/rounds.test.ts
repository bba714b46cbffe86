import { setTimeout } from "node:timers/promises";

import { Rounds, type Chore } from "@bursar/relayer";
import { expect } from "chai";

const sleep = (milliseconds: number, signal: AbortSignal): Promise<unknown> =>
  setTimeout(milliseconds, undefined, { signal }).catch(() => undefined);

function rounds(chores: readonly Chore[]): { running: Rounds; failures: string[] } {
  const failures: string[] = [];
  const failed = (name: string, error: unknown): void => {
    failures.push(`${name}: ${(error as Error).message}`);
  };
  return { running: new Rounds({ chores, failed, sleep }), failures };
}

describe("rounds", () => {
  it("repeats each chore, and one that hangs holds up no other", async () => {
    let quick = 0;
    let slow = 0;
    const hang = (): Promise<never> =>
      new Promise(() => {
        ++slow;
      });
    const { running } = rounds([
      { name: "quick", every: 1, run: () => Promise.resolve(++quick) },
      { name: "hangs", every: 1, run: hang },
    ]);
    running.start();
    while (quick < 5) await setTimeout(2);
    expect(slow).to.equal(1);
    await running.stop(10);
    const then = quick;
    await setTimeout(20);
    expect(quick).to.equal(then);
  });

  it("tells what failed and does it again", async () => {
    let times = 0;
    const { running, failures } = rounds([
      { name: "fails", every: 1, run: () => (++times === 1 ? Promise.reject(new Error("once")) : Promise.resolve()) },
    ]);
    running.start();
    while (times < 3) await setTimeout(2);
    await running.stop(1_000);
    expect(failures).to.deep.equal(["fails: once"]);
  });

  it("stops at once between two times, and waits for what is being done", async () => {
    let ended = false;
    const { running } = rounds([
      { name: "rests", every: 3_600_000, run: () => Promise.resolve() },
      { name: "works", every: 1, run: () => setTimeout(50).then(() => (ended = true)) },
    ]);
    running.start();
    await setTimeout(5);
    await running.stop(10_000);
    expect(ended).to.equal(true);
  });
});
