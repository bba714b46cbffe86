import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

import type { Order, Outcome, Progress } from "./generator.ts";

const PROGRAM = fileURLToPath(new URL("generator.ts", import.meta.url));

/** Generators as processes of their own, so that what they use is not counted as the service's. */
export class Generators {
  readonly #children: readonly ChildProcess[];

  private constructor(children: readonly ChildProcess[]) {
    this.#children = children;
  }

  /** Starts a generator for each order, and waits until all have signed what they sign ahead. */
  static async prepare(orders: readonly Order[], command: readonly string[] = []): Promise<Generators> {
    const execPath = command[0] ?? process.execPath;
    const before = command.length === 0 ? [] : [...command.slice(1), process.execPath];
    const children = orders.map(() =>
      fork(PROGRAM, [], {
        execPath,
        execArgv: [...before, "--import", "tsx"],
        serialization: "advanced",
      }),
    );
    await Promise.all(children.map((child) => once(child, "message")));
    const ready = children.map((child) => once(child, "message"));
    children.forEach((child, i) => child.send(orders[i]!));
    await Promise.all(ready);
    return new Generators(children);
  }

  get pids(): number[] {
    return this.#children.map(({ pid }) => pid!);
  }

  /** Sends all payments. @returns what each has seen. */
  run(progress: (sum: Progress) => void = () => undefined): Promise<Outcome[]> {
    const last = this.#children.map((): Progress => ({ sent: 0, answered: 0 }));
    return Promise.all(
      this.#children.map(async (child, i) => {
        const ended = once(child, "exit");
        let outcome: Outcome | undefined;
        child.on("message", (message: { progress?: Progress; outcome?: Outcome }) => {
          outcome = message.outcome ?? outcome;
          if (message.progress === undefined) return;
          last[i] = message.progress;
          if (i === 0) progress(last.reduce((a, b) => ({ sent: a.sent + b.sent, answered: a.answered + b.answered })));
        });
        child.send({});
        await ended;
        if (outcome === undefined) throw new Error("a generator ended before its payments were sent");
        return outcome;
      }),
    );
  }
}
