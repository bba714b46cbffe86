import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

import { ROOT } from "@bursar/prover";

import { System } from "./completion.ts";

const require = createRequire(import.meta.url);
const CIRCOMLIB = dirname(require.resolve("circomlib/circuits/poseidon.circom"));
const CACHE = join(ROOT, "build", "mutants", "circuits");

/** The instances that mutants are compiled as: small, and between them every line of the circuits runs. */
export const INSTANCES = {
  /** Two pages to a segment. */
  paged: `pragma circom 2.2.3;\ninclude "batch.circom";\ncomponent main {public [z]} = Batch(2, 2);\n`,
  /** A commitment of more than one hash. */
  long: `pragma circom 2.2.3;\ninclude "batch.circom";\ncomponent main {public [z]} = Batch(3, 1);\n`,
  inclusion: `pragma circom 2.2.3;\ninclude "inclusion.circom";\ncomponent main {public [base, head, line, index]} = Inclusion(2);\n`,
} as const;

export type Instance = keyof typeof INSTANCES;

/** A statement of a circuit that makes a constraint. */
export interface ConstraintStatement {
  readonly file: string;
  readonly line: number;
  /** Its source, from the first to the last character. */
  readonly text: string;
  /** Where it stands in the file. */
  readonly at: number;
}

/** Every `… === …;` and `… <== …;` of this project's circuits. */
export function constraintStatements(): ConstraintStatement[] {
  return circuitFiles().flatMap((file) => {
    const code = withoutComments(readFileSync(join(ROOT, "circuits", file), "utf8"));
    return [...code.matchAll(/[^;{}]*(?:===|<==)[^;]*;/g)]
      .filter(([statement]) => !statement.includes("for (") && !/\bsignal\b/.test(statement))
      .map(({ 0: statement, index }) => {
        const at = index + statement.length - statement.trimStart().length;
        return { file, line: code.slice(0, at).split("\n").length, text: statement.trim(), at };
      });
  });
}

/** What is left when an assertion is removed, or an assignment no longer asserts. */
function weakened(statement: string): string {
  return statement.includes("===") ? "" : statement.replace("<==", "<--");
}

/** The circuit as it is, with a wire for each signal. */
export async function trueSystem(instance: Instance): Promise<System> {
  const { r1cs, symbols } = await compile(instance, undefined);
  return new System(r1cs, symbols);
}

/**
 * The constraints of `system` that go with a statement. Nothing else of the circuit may change with it.
 */
export async function removedBy(
  system: System,
  instance: Instance,
  statement: ConstraintStatement,
): Promise<ReadonlySet<number>> {
  const cached = join(CACHE, `${keyOf(instance, statement)}.json`);
  if (!existsSync(cached)) {
    const { r1cs, symbols } = await compile(instance, statement);
    const mutant = new System(r1cs, symbols);
    writeFileSync(cached, JSON.stringify(difference(system, mutant)));
  }
  return new Set(JSON.parse(readFileSync(cached, "utf8")) as number[]);
}

function difference(system: System, mutant: System): number[] {
  const left = new Map<string, number>();
  for (const constraint of mutant.constraints) {
    const key = serialize(constraint);
    left.set(key, (left.get(key) ?? 0) + 1);
  }
  const removed = [...system.constraints.entries()].flatMap(([index, constraint]) => {
    const key = serialize(constraint);
    const count = left.get(key) ?? 0;
    if (count > 0) left.set(key, count - 1);
    return count > 0 ? [] : [index];
  });
  if ([...left.values()].some((count) => count > 0)) throw new Error("the mutant has constraints of its own");
  return removed;
}

const serialize = ({ a, b, c }: System["constraints"][number]): string => [a, b, c].join("|");

async function compile(
  instance: Instance,
  mutated: ConstraintStatement | undefined,
): Promise<{ r1cs: Buffer; symbols: string }> {
  mkdirSync(CACHE, { recursive: true });
  const folder = mkdtempSync(join(CACHE, "compiling."));
  try {
    cpSync(CIRCOMLIB, join(folder, "circomlib"), { recursive: true, dereference: true });
    for (const [file, source] of sources(mutated)) {
      mkdirSync(dirname(join(folder, "circuits", file)), { recursive: true });
      writeFileSync(join(folder, "circuits", file), source);
    }
    writeFileSync(join(folder, "main.circom"), INSTANCES[instance]);
    const flags = ["main.circom", "--O0", "--r1cs", "--sym", "-l", "circuits", "-l", "circomlib"];
    await promisify(execFile)(process.execPath, [require.resolve("circom2/cli.js"), ...flags], {
      cwd: folder,
      maxBuffer: 1 << 24,
    });
    return {
      r1cs: readFileSync(join(folder, "main.r1cs")),
      symbols: readFileSync(join(folder, "main.sym"), "utf8"),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function keyOf(instance: Instance, mutated: ConstraintStatement): string {
  const hash = createHash("sha256").update(INSTANCES[instance]);
  for (const tool of ["circom2/package.json", "circomlib/package.json"])
    hash.update(readFileSync(require.resolve(tool)));
  for (const [file, source] of sources(undefined)) hash.update(file).update(source);
  return hash.update(`${mutated.file}:${mutated.at}`).digest("hex").slice(0, 32);
}

/** The circuits without comments, with one statement weakened. */
function sources(mutated: ConstraintStatement | undefined): [file: string, source: string][] {
  return circuitFiles().map((file) => {
    const code = withoutComments(readFileSync(join(ROOT, "circuits", file), "utf8"));
    if (file !== mutated?.file) return [file, code];
    const { at, text } = mutated;
    return [file, code.slice(0, at) + weakened(text) + code.slice(at + text.length)];
  });
}

const circuitFiles = (): string[] =>
  readdirSync(join(ROOT, "circuits"), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".circom"))
    .sort();

/** Comments become spaces, so that every place keeps its number. */
const withoutComments = (source: string): string =>
  source.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, (comment) => comment.replace(/[^\n]/g, " "));
