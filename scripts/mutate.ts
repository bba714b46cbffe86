import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";

import { ROOT } from "@bursar/prover";

import { mutateSolidity } from "./mutate/solidity.ts";

const USAGE = `usage: npm run mutate -- circuits
       npm run mutate -- solidity [--contract <name>] ... [--sample <number>] [--seed <number>] [--jobs <number>] [--again]

Breaks the code in one place after another and tells which breaks the tests notice. See docs/mutation.md.
circuits   each constraint weakened, against its forged witness; exits with 1 if one is not noticed.
solidity   mutants of each contract, or those named; needs a build. A run that was ended goes on where it was.
  --sample   so many of each contract, drawn by --seed (1 unless given); all unless given
  --jobs     workers, 1 unless given
  --again    judges those that survived before once more

Exit codes: 0 done, 1 failed, 2 wrong usage.`;

const { values, positionals } = readArguments();
const [what] = positionals;

if (values.help) console.log(USAGE);
else if (what === "circuits") {
  const args = ["--import=tsx", "test/circuits/mutation.test.ts"];
  process.exitCode = spawnSync("mocha", args, { cwd: ROOT, stdio: "inherit" }).status ?? 1;
} else if (what === "solidity") {
  await mutateSolidity({
    contracts: values.contract ?? [],
    sample: values.sample === undefined ? undefined : Number(values.sample),
    seed: Number(values.seed),
    jobs: Number(values.jobs),
    again: values.again ?? false,
  });
} else misused("Say what to mutate: circuits or solidity.");

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        contract: { type: "string", multiple: true },
        sample: { type: "string" },
        seed: { type: "string", default: "1" },
        jobs: { type: "string", default: "1" },
        again: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    return misused((error as Error).message);
  }
}

function misused(why: string): never {
  console.error(`${why}\n\n${USAGE}`);
  process.exit(2);
}
