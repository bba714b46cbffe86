import { Prover } from "@bursar/prover";
import { loadPageHash } from "@bursar/relayer";
import { Command, InvalidArgumentError } from "commander";

import { SimulatedChain } from "../test/simulator/chain.ts";
import { simulate, SimulationFailed } from "../test/simulator/simulate.ts";
import { Unproved } from "../test/simulator/unproved.ts";

interface Options {
  seed: number;
  seeds?: readonly [first: number, last: number];
  steps?: number;
  verbose?: true;
  json?: true;
  unproved?: true;
}

const options = new Command("simulate")
  .description("Plays owners, agents, payees and processors by chance, and checks every promise after every step.")
  .option("--seed <number>", "what to draw from", seedOf, 1)
  .option("--seeds <first..last>", "one simulation for each", rangeOf)
  .option("--steps <number>", "steps to draw, 40 unless given", seedOf)
  .option("--verbose", "print each step as it is taken")
  .option("--unproved", "make no proofs, with verifiers that accept everything: many seeds in little time")
  .option("--json", "print a line of JSON for each simulation")
  .parse()
  .opts<Options>();

const chain = await SimulatedChain.start();
const prover = new Prover();
const { unproved = false } = options;
const proving = { prover: unproved ? new Unproved(chain) : prover, unproved };
const hashPage = await loadPageHash();
const [first, last] = options.seeds ?? [options.seed, options.seed];
const broken: number[] = [];
for (let seed = first; seed <= last; ++seed) {
  if (!(await play(seed))) broken.push(seed);
}
if (!options.json) console.log(broken.length === 0 ? "Every promise held." : `Broken by seed ${broken.join(", ")}.`);
prover.close();
process.exit(broken.length === 0 ? 0 : 1);

/** @returns whether every promise held. */
async function play(seed: number): Promise<boolean> {
  const began = performance.now();
  const hear = options.verbose && !options.json ? { hear: (line: string): void => console.log(line) } : {};
  const steps = options.steps === undefined ? {} : { steps: options.steps };
  try {
    const outcome = await simulate(seed, { chain, hashPage, ...proving, ...steps, ...hear });
    const seconds = ((performance.now() - began) / 1_000).toFixed(1);
    if (options.json) console.log(JSON.stringify({ held: true, ...outcome }));
    else {
      const { cast, checks, payments, proofs } = outcome;
      console.log(
        `seed ${seed}: ${cast.join(", ")}; ${payments} receipts, ${proofs} proofs, ${checks} checks, ${seconds} s`,
      );
    }
    return true;
  } catch (error) {
    if (!(error instanceof SimulationFailed)) throw error;
    if (options.json) console.log(JSON.stringify({ held: false, seed, broken: error.message, log: error.log }));
    else {
      if (!options.verbose) console.log(error.log.join("\n"));
      console.error(error.message);
      console.error((error.cause as Error).stack);
      console.error(`Again: npm run simulate -- --seed ${seed} --verbose`);
    }
    return false;
  }
}

function seedOf(value: string): number {
  const seed = Number(value);
  if (!/^\d+$/.test(value) || seed > 2 ** 32 - 1) throw new InvalidArgumentError("Not a whole number below 2^32.");
  return seed;
}

function rangeOf(value: string): readonly [number, number] {
  const [from = "", to = ""] = value.split("..");
  return [seedOf(from), seedOf(to)];
}
