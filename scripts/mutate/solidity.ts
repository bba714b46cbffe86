import { fork, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { ROOT } from "@bursar/prover";

import { sourceOf, treeOf } from "./compile.ts";
import { editsOf, type Edit } from "./operators.ts";
import { TARGETS, type Target } from "./targets.ts";
import type { Order, Outcome } from "./worker.ts";

export interface SolidityOptions {
  /** Names of targets; all unless given. */
  readonly contracts: readonly string[];
  /** Mutants of each, drawn by the seed; all unless given. */
  readonly sample: number | undefined;
  readonly seed: number;
  readonly jobs: number;
  /** Whether those that survived before are judged again. */
  readonly again: boolean;
}

/** A mutant as it is kept: what it changes, by its line, and what became of it. */
interface Judged {
  readonly line: number;
  readonly operator: string;
  readonly before: string;
  readonly after: string;
  readonly outcome: Outcome | { result: "endless" };
}

type Results = Record<string, Judged>;

/** A mutant that survives because it does the same, or that no test of this project can tell, and why. */
interface Excused {
  readonly file: string;
  readonly before: string;
  readonly after: string;
  readonly reason: string;
}

const FOLDER = join(ROOT, "build", "mutants", "solidity");
const EXCUSES = join(ROOT, "test", "mutants", "survivors.json");
/** A mutant that runs longer than a machine under load takes has lost its way. */
const TIMEOUT = 900_000;

/** Judges mutants, each once, and keeps what it finds, so that a run which was ended goes on. Prints the rates. */
export async function mutateSolidity(options: SolidityOptions): Promise<void> {
  const unknown = options.contracts.filter((name) => !TARGETS.some((target) => target.name === name));
  if (unknown.length > 0) {
    throw new Error(`no such contract: ${unknown.join(", ")}; there are ${TARGETS.map(({ name }) => name).join(", ")}`);
  }
  const wanted = TARGETS.filter(({ name }) => options.contracts.length === 0 || options.contracts.includes(name));
  for (const target of wanted) await mutate(target, options);
  for (const target of wanted) report(target);
}

async function mutate(target: Target, { sample, seed, jobs, again }: SolidityOptions): Promise<void> {
  const source = sourceOf(target.file);
  const edits = shuffled(editsOf(treeOf(target.file), source), `${seed}`);
  const kept = results(target);
  const left = edits.slice(0, sample).filter((edit) => {
    const judged = kept[keyOf(edit)];
    return !judged || (again && judged.outcome.result === "survived");
  });
  if (left.length === 0) return;
  let done = 0;
  const total = left.length;
  const judgeAll = async (): Promise<void> => {
    const bench = new Bench(target);
    const unchanged = await bench.judge(undefined);
    if (unchanged.result !== "survived") {
      throw new Error(`the tests of ${target.name} fail on the contract as it is: ${JSON.stringify(unchanged)}`);
    }
    for (let edit = left.pop(); edit; edit = left.pop()) {
      const began = performance.now();
      const outcome = await bench.judge(edit);
      kept[keyOf(edit)] = { ...shown(source, edit), outcome };
      write(target, kept);
      const seconds = ((performance.now() - began) / 1_000).toFixed(1);
      console.error(`${target.name} ${++done}/${total} ${seconds} s ${describe(target, kept[keyOf(edit)]!)}`);
    }
    bench.close();
  };
  await Promise.all(Array.from({ length: Math.min(jobs, total) }, judgeAll));
}

/** A worker process, which starts again when a mutant does not end. */
class Bench {
  readonly #target: Target;
  #worker: ChildProcess | undefined;

  constructor(target: Target) {
    this.#target = target;
  }

  async judge(edit: Edit | undefined): Promise<Outcome | { result: "endless" }> {
    this.#worker ??= await this.#start();
    const answer = await this.#ask(this.#worker, { edit });
    if (answer) return answer as Outcome;
    this.close();
    return { result: "endless" };
  }

  close(): void {
    this.#worker?.kill("SIGKILL");
    this.#worker = undefined;
  }

  async #start(): Promise<ChildProcess> {
    const worker = fork(fileURLToPath(new URL("worker.ts", import.meta.url)), {
      env: { ...process.env, HARDHAT_CONFIG: fileURLToPath(new URL("hardhat.config.ts", import.meta.url)) },
    });
    await this.#ask(worker, { target: this.#target });
    return worker;
  }

  /** Nothing if there is no answer in time. */
  #ask(worker: ChildProcess, order: Order): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const settle = (answer?: unknown): void => {
        clearTimeout(timer);
        worker.off("message", settle).off("exit", gone);
        resolve(answer);
      };
      const gone = (code: number | null): void => {
        clearTimeout(timer);
        reject(new Error(`the worker for ${this.#target.name} ended by itself (${code ?? "killed"})`));
      };
      const timer = setTimeout(settle, TIMEOUT);
      worker.on("message", settle).on("exit", gone);
      worker.send(order);
    });
  }
}

function report(target: Target): void {
  const judged = Object.values(results(target));
  const valid = judged.filter(({ outcome }) => outcome.result !== "invalid");
  const excused = excuses().filter(({ file }) => file === target.file);
  const survivors = valid.filter(({ outcome }) => outcome.result === "survived");
  const isExcused = (one: Judged): boolean =>
    excused.some(({ before, after }) => before === one.before && after === one.after);
  const open = survivors.filter((one) => !isExcused(one));
  const same = survivors.length - open.length;
  const killed = valid.length - survivors.length;
  const rate = valid.length === same ? 100 : (100 * killed) / (valid.length - same);
  const possible = editsOf(treeOf(target.file), sourceOf(target.file)).length;
  console.log(
    `${target.name}: ${killed} of ${valid.length - same} killed (${rate.toFixed(1)} %), ${same} excused, ` +
      `${judged.length} of ${possible} tried, ${judged.length - valid.length} do not compile`,
  );
  for (const one of open) console.log(`  ${describe(target, one)}`);
}

const describe = ({ file }: Target, { line, operator, before, after, outcome }: Judged): string => {
  const by = outcome.result === "killed" ? ` by ${outcome.by}` : "";
  return `${outcome.result} ${file}:${line} ${operator}: ${before} ⇒ ${after}${by}`;
};

/** The lines that an edit changes, before and after. */
function shown(source: string, edit: Edit): Omit<Judged, "outcome"> {
  const bytes = Buffer.from(source);
  const head = bytes.subarray(0, edit.start).toString();
  const cut = bytes.subarray(edit.start, edit.start + edit.length).toString();
  const rest = bytes.subarray(edit.start + edit.length).toString();
  const [lead, tail] = [head.slice(head.lastIndexOf("\n") + 1), rest.slice(0, Math.max(rest.indexOf("\n"), 0))];
  const flat = (text: string): string => text.replace(/\s+/g, " ").trim();
  return {
    line: head.split("\n").length,
    operator: edit.operator,
    before: flat(lead + cut + tail),
    after: flat(lead + edit.replacement + tail),
  };
}

const keyOf = ({ operator, start, length, replacement }: Edit): string =>
  `${start}+${length} ${operator} ${createHash("sha256").update(replacement).digest("hex").slice(0, 8)}`;

/** Results are of one state of the source: another one starts anew. */
const fileOf = ({ name, file }: Target): string =>
  join(FOLDER, `${name}-${createHash("sha256").update(sourceOf(file)).digest("hex").slice(0, 12)}.json`);

function results(target: Target): Results {
  const path = fileOf(target);
  return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as Results) : {};
}

function write(target: Target, kept: Results): void {
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(fileOf(target), JSON.stringify(kept, null, 1));
}

const excuses = (): Excused[] => JSON.parse(readFileSync(EXCUSES, "utf8")) as Excused[];

/** By the hash of each one and the seed: the same seed draws the same, and a larger sample holds the smaller. */
function shuffled(edits: readonly Edit[], seed: string): Edit[] {
  const rank = (edit: Edit): string =>
    createHash("sha256")
      .update(`${seed} ${keyOf(edit)}`)
      .digest("hex");
  return edits
    .map((edit) => ({ edit, at: rank(edit) }))
    .sort((a, b) => (a.at < b.at ? -1 : 1))
    .map(({ edit }) => edit);
}
