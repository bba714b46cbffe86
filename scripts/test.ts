import { spawn } from "node:child_process";

interface Stage {
  name: string;
  command: string;
}

/** Suites of the books, which run once more on the second engine. */
const ON_POSTGRES = [
  ...["store", "processor", "decide", "mission", "direct", "ledger-api", "lease", "intents", "closings", "service"],
].map((name) => `test/relayer/${name}.test.ts`);

/**
 * Runs every check and suite and ends with one line that sums them up. A check that prints no count counts as one. Arguments
 * name the stages to run; none means all. Steps come one after the other; the lanes of a step run side by side, where what
 * is in them bears it, and print what they have to say when a stage ends.
 */
const STEPS: readonly (readonly (readonly Stage[])[])[] = [
  [
    [
      { name: "build", command: "npm run --silent build" },
      { name: "types", command: "tsc -p ." },
      { name: "eslint", command: "eslint . --max-warnings 0" },
      { name: "solhint", command: "solhint --max-warnings 0 'contracts/**/*.sol'" },
      { name: "prettier", command: "prettier --check --log-level warn ." },
      { name: "vectors", command: "node --import tsx scripts/vectors.ts --check" },
      { name: "docs", command: "mocha --import=tsx 'test/docs/**/*.test.ts'" },
      { name: "protocol", command: "mocha --import=tsx 'test/protocol/**/*.test.ts'" },
      { name: "poseidon", command: "mocha --import=tsx 'test/poseidon/**/*.test.ts'" },
    ],
  ],
  [
    [
      { name: "circuits", command: "mocha --import=tsx 'test/circuits/**/*.test.ts'" },
      { name: "simulator", command: "mocha --import=tsx 'test/simulator/**/*.test.ts'" },
    ],
    [
      { name: "solidity", command: "hardhat test solidity" },
      { name: "contracts", command: "hardhat test mocha" },
      { name: "gas", command: "hardhat test mocha test/gas/gas.test.ts" },
    ],
  ],
  [
    [{ name: "relayer", command: "mocha --import=tsx 'test/relayer/**/*.test.ts'" }],
    [
      { name: "sdk", command: "mocha --import=tsx 'test/sdk/**/*.test.ts'" },
      { name: "integration", command: "mocha --import=tsx 'test/integration/**/*.test.ts'" },
      { name: "deploy", command: "mocha --import=tsx 'test/deploy/**/*.test.ts'" },
      { name: "postgres", command: `BURSAR_TEST_STORE=postgres mocha --import=tsx ${ON_POSTGRES.join(" ")}` },
      { name: "bench", command: "mocha --import=tsx 'test/bench/**/*.test.ts'" },
    ],
  ],
];
const STAGES = STEPS.flat(2);

interface Result {
  name: string;
  passed: number;
  failed: number;
  seconds: number;
}

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !STAGES.some((stage) => stage.name === name));
if (unknown.length > 0) {
  console.error(`no such stage: ${unknown.join(", ")}; there are ${STAGES.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}

const results: Result[] = [];
for (const lanes of STEPS) await Promise.all(lanes.map((lane) => runLane(lane, lanes.length > 1)));
results.sort((a, b) => placeOf(a) - placeOf(b));

console.log();
for (const { name, passed, failed, seconds } of results) {
  console.log(
    `${name.padEnd(12)} ${String(passed).padStart(5)} passed ${String(failed).padStart(4)} failed ${seconds.toFixed(0).padStart(5)} s`,
  );
}
const sum = (count: "passed" | "failed"): number => results.reduce((total, result) => total + result[count], 0);
console.log(`${sum("passed")} passed, ${sum("failed")} failed`);
process.exitCode = sum("failed") > 0 ? 1 : 0;

function placeOf({ name }: Result): number {
  return STAGES.findIndex((stage) => stage.name === name);
}

async function runLane(lane: readonly Stage[], beside: boolean): Promise<void> {
  for (const stage of lane) {
    if (wanted.length === 0 || wanted.includes(stage.name)) results.push(await run(stage, beside));
  }
}

/** A suite that fails without saying how often, or runs no test, has failed once. */
async function run({ name, command }: Stage, beside: boolean): Promise<Result> {
  const title = `\n── ${name}: ${command}`;
  if (!beside) console.log(title);
  const began = performance.now();
  const { code, output } = await shell(command, !beside);
  if (beside) console.log(`${title}\n${output}`);
  const seconds = (performance.now() - began) / 1_000;
  const isSuite = /^(BURSAR_TEST_STORE=\w+ )?(mocha|hardhat test)/.test(command);
  const passed = isSuite ? total(output, "passing") : Number(code === 0);
  const failing = isSuite ? total(output, "failing") : 0;
  const broken = code !== 0 || (isSuite && passed === 0);
  return { name, passed, failed: broken ? Math.max(failing, 1) : failing, seconds };
}

function total(output: string, word: string): number {
  const counts = output.matchAll(new RegExp(`^\\s*(\\d+) ${word}\\b`, "gm"));
  return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
}

function shell(command: string, aloud: boolean): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, {
      shell: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, FORCE_COLOR: "0" },
    });
    let output = "";
    const tee = (stream: NodeJS.WriteStream) => (chunk: Buffer) => {
      output += String(chunk);
      if (aloud) stream.write(chunk);
    };
    child.stdout.on("data", tee(process.stdout));
    child.stderr.on("data", tee(process.stderr));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? 1, output }));
  });
}
