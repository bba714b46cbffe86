import { readFileSync } from "node:fs";
import { join } from "node:path";

import { ROOT } from "@bursar/prover";
import { ContractFactory } from "ethers";
import { network } from "hardhat";
import Mocha from "mocha";

import { creationCodes, DoesNotCompile, sourceOf } from "./compile.ts";
import { applied, type Edit } from "./operators.ts";
import type { Target } from "./targets.ts";

/** What a worker is told first, and then once for each mutant; nothing to edit means the code as it is. */
export type Order = { target: Target } | { edit: Edit | undefined };

export type Outcome = { result: "killed"; by: string } | { result: "survived" } | { result: "invalid"; why: string };

/** What a test says that holds for optimized code alone, or takes long to burn all of it. */
const ABOUT_GAS = /\bgas\b/;

/**
 * Runs the suites of a target against one mutant after the other, on a chain that starts again for each. The contracts
 * are deployed from the mutant's code in the place of the built ones.
 */
class Worker {
  readonly #target: Target;
  readonly #mocha: Mocha;
  readonly #chains: Awaited<ReturnType<typeof network.create>>[] = [];
  /** Mutated creation code by the built one. */
  readonly #codes = new Map<string, string>();

  constructor(target: Target) {
    this.#target = target;
    this.#mocha = new Mocha({ bail: true, timeout: 120_000, reporter: Mocha.reporters.Base });
    this.#mocha.grep(ABOUT_GAS).invert().cleanReferencesAfterRun(false);
  }

  async load(): Promise<void> {
    const create = network.create.bind(network);
    network.create = (async (...args: Parameters<typeof create>) => {
      const chain = await create(...args);
      this.#chains.push(chain);
      return chain;
    }) as typeof network.create;
    deployFrom(this.#codes);
    for (const suite of this.#target.suites) this.#mocha.addFile(join(ROOT, "test", "contracts", `${suite}.test.ts`));
    await this.#mocha.loadFilesAsync();
    // Chains that a test makes for itself, it also closes.
    network.create = create;
  }

  async judge(edit: Edit | undefined): Promise<Outcome> {
    const { file, builds } = this.#target;
    const source = sourceOf(file);
    try {
      const codes = creationCodes(builds, edit ? { [file]: applied(source, edit) } : {});
      for (const build of builds) this.#codes.set(builtCode(build), codes.get(build.split(":")[1]!)!);
    } catch (error) {
      if (error instanceof DoesNotCompile) return { result: "invalid", why: error.message };
      throw error;
    }
    const starts = await Promise.all(this.#chains.map(({ networkHelpers }) => networkHelpers.takeSnapshot()));
    const by = await this.#firstFailure();
    for (const { networkHelpers } of this.#chains) networkHelpers.clearSnapshots();
    for (const start of starts) await start.restore();
    return by === undefined ? { result: "survived" } : { result: "killed", by };
  }

  #firstFailure(): Promise<string | undefined> {
    return new Promise((resolve) => {
      let first: string | undefined;
      this.#mocha
        .run(() => {
          resolve(first);
        })
        .on("fail", (test: Mocha.Runnable, error: Error) => {
          first ??= `${test.fullTitle()} (${error.message.split("\n")[0]!.slice(0, 160)})`;
        });
    });
  }
}

/** Every factory whose code is in `codes` deploys what stands for it there. */
function deployFrom(codes: ReadonlyMap<string, string>): void {
  const prototype = ContractFactory.prototype;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- it is called on a factory below
  const original = prototype.getDeployTransaction;
  prototype.getDeployTransaction = function (this: ContractFactory, ...args) {
    const code = codes.get(this.bytecode);
    return original.apply(code ? new ContractFactory(this.interface, code, this.runner) : this, args);
  };
}

function builtCode(build: string): string {
  const [file, name] = build.split(":") as [string, string];
  const artifact = JSON.parse(readFileSync(join(ROOT, "artifacts", file, `${name}.json`), "utf8")) as {
    bytecode: string;
  };
  return artifact.bytecode;
}

let worker: Worker | undefined;
process.on("message", (order: Order) => void answer(order));
process.on("disconnect", () => process.exit());

async function answer(order: Order): Promise<void> {
  if ("target" in order) {
    worker = new Worker(order.target);
    await worker.load();
    process.send!({ ready: true });
  } else {
    process.send!(await worker!.judge(order.edit));
  }
}
