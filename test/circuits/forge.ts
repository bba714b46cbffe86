import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

import { FIELD } from "@bursar/protocol";
import {
  readR1cs,
  ROOT,
  type CircuitInput,
  type InclusionInput,
  type LinearCombination,
  type R1cs,
} from "@bursar/prover";
import { wtns } from "snarkjs";

const require = createRequire(import.meta.url);
const CIRCOMLIB = dirname(require.resolve("circomlib/circuits/poseidon.circom"));

/**
 * A malicious prover for one instance of the circuit. It fills in every signal with a witness generator from which all
 * assertions have been removed, so that any input, flag and forged value is possible; what it makes is then held against
 * the constraints of the true circuit.
 */
export class Forger {
  readonly #folder: string;
  /** The true circuit, as it is proved. */
  readonly #true: Compiled;
  /** The true circuit before the compiler simplifies it: each signal has its wire. */
  readonly #plain: Compiled;
  /** Wire of each signal in the circuit without assertions. */
  readonly #free: ReadonlyMap<string, number>;

  private constructor(folder: string, circuits: { true: Compiled; plain: Compiled; free: Compiled }) {
    this.#folder = folder;
    this.#true = circuits.true;
    this.#plain = circuits.plain;
    this.#free = circuits.free.wires;
  }

  static create(segments: number, pages: number): Promise<Forger> {
    return Forger.#of("batch", `{public [z]} = Batch(${segments}, ${pages})`);
  }

  static createInclusion(pages: number): Promise<Forger> {
    return Forger.#of("inclusion", `{public [base, head, line, index]} = Inclusion(${pages})`);
  }

  static async #of(file: string, main: string): Promise<Forger> {
    mkdirSync(join(ROOT, "build"), { recursive: true });
    const folder = mkdtempSync(join(ROOT, "build", "forger."));
    const source = `pragma circom 2.2.3;\ninclude "${file}.circom";\ncomponent main ${main};\n`;
    await compile(folder, "true", source, "--O2", (text) => text);
    await compile(folder, "plain", source, "--O0", (text) => text);
    await compile(folder, "free", source, "--O0", withoutAssertions);
    return new Forger(folder, { true: read(folder, "true"), plain: read(folder, "plain"), free: read(folder, "free") });
  }

  close(): void {
    rmSync(this.#folder, { recursive: true });
  }

  get constraints(): number {
    return this.#true.r1cs.constraints.length;
  }

  /**
   * Whether the true circuit accepts what follows from `input`, with `forged` signals (by name, `main.` left out) in the
   * place of the computed ones.
   */
  async attempt(
    input: (CircuitInput & { z: bigint }) | InclusionInput,
    forged: Readonly<Record<string, bigint>> = {},
  ): Promise<Attempt> {
    const path = join(this.#folder, "free", "witness.wtns");
    await wtns.calculate(input, join(this.#folder, "free", "main_js", "main.wasm"), path);
    const values = await wtns.exportJson(path);
    const valueOf = (name: string): bigint => {
      const wire = this.#free.get(`main.${name}`);
      if (wire === undefined) throw new Error(`no signal ${name}`);
      return forged[name] ?? values[wire]!;
    };
    const violated = broken(this.#true, valuation(this.#true, valueOf));
    return {
      accepted: violated === 0,
      violated,
      rules: () => broken(this.#plain, valuation(this.#plain, valueOf)),
      get T() {
        return valueOf("T");
      },
      get C() {
        return valueOf("C");
      },
      signal: valueOf,
      undetermined: () => undetermined(this.#plain, Object.keys(input), valuation(this.#plain, valueOf)),
    };
  }
}

/** A constraint system whose signals have names. */
interface Compiled {
  readonly r1cs: R1cs;
  /** Wire of each signal, `main.` included; −1 where the compiler eliminated it. */
  readonly wires: ReadonlyMap<string, number>;
}

function read(folder: string, name: string): Compiled {
  return {
    r1cs: readR1cs(readFileSync(join(folder, name, "main.r1cs"))),
    wires: readSymbols(join(folder, name, "main.sym")),
  };
}

type Valuation = (combination: LinearCombination) => bigint;

function valuation({ r1cs, wires }: Compiled, valueOf: (name: string) => bigint): Valuation {
  const witness = Array<bigint>(r1cs.wires).fill(0n);
  witness[0] = 1n;
  for (const [name, wire] of wires) if (wire > 0) witness[wire] = modulo(valueOf(name.slice("main.".length)));
  return (combination) =>
    combination.reduce((sum, [wire, coefficient]) => (sum + coefficient * witness[wire]!) % FIELD, 0n);
}

function broken({ r1cs }: Compiled, value: Valuation): number {
  return r1cs.constraints.filter(({ a, b, c }) => (value(a) * value(b)) % FIELD !== value(c)).length;
}

/**
 * Signals that could have another value while the inputs stay. A constraint fixes the one signal that is left open in it,
 * or several bits at once if it sums them up by distinct powers of two; and so on, until no more are fixed. That a signal
 * is a bit does not fix it.
 */
function undetermined({ r1cs, wires }: Compiled, inputs: readonly string[], value: Valuation): string[] {
  const open = new Map<number, string>();
  for (const [path, wire] of wires) {
    const name = path.slice("main.".length);
    if (!inputs.includes(name.replace(/\[.*/, ""))) open.set(wire, name);
  }
  const bits = new Set(r1cs.constraints.flatMap((constraint) => bitOf(constraint) ?? []));
  const constraintsOf = new Map<number, Map<number, bigint>[]>([...open.keys()].map((wire) => [wire, []]));
  const slopes = r1cs.constraints.map((constraint) => {
    const slope = bitOf(constraint) === undefined ? slopeOf(constraint, value) : new Map<number, bigint>();
    for (const [wire, steepness] of slope) if (!open.has(wire) || steepness === 0n) slope.delete(wire);
    for (const wire of slope.keys()) constraintsOf.get(wire)!.push(slope);
    return slope;
  });
  const isFixing = (slope: ReadonlyMap<number, bigint>): boolean =>
    slope.size === 1 || (slope.size > 1 && [...slope.keys()].every((wire) => bits.has(wire)) && isBinary(slope));
  const fixing = slopes.filter(isFixing);
  for (let fixed = fixing.pop(); fixed; fixed = fixing.pop()) {
    for (const wire of [...fixed.keys()]) {
      open.delete(wire);
      for (const slope of constraintsOf.get(wire)!) {
        slope.delete(wire);
        if (isFixing(slope)) fixing.push(slope);
      }
    }
  }
  return [...open.values()];
}

/** The wire that a constraint x·(x − 1) = 0 makes a bit. */
function bitOf({ a, b, c }: R1cs["constraints"][number]): number | undefined {
  const [[wire] = [0], ...more] = [...a, ...b].filter(([candidate]) => candidate !== 0);
  return c.length === 0 && a.length > 0 && b.length > 0 && more.length === 1 && more[0]![0] === wire ? wire : undefined;
}

/** How fast each wire changes a·b − c. */
function slopeOf({ a, b, c }: R1cs["constraints"][number], value: Valuation): Map<number, bigint> {
  const slope = new Map<number, bigint>();
  for (const [combination, factor] of [
    [a, value(b)],
    [b, value(a)],
    [c, FIELD - 1n],
  ] as const) {
    for (const [wire, coefficient] of combination) {
      slope.set(wire, ((slope.get(wire) ?? 0n) + coefficient * factor) % FIELD);
    }
  }
  return slope;
}

/** Whether the slopes are distinct powers of two of one sign, so that a sum has one binary form. */
function isBinary(slope: ReadonlyMap<number, bigint>): boolean {
  const powers = Array.from({ length: 253 }, (_, i) => 1n << BigInt(i));
  const distinct = new Set(slope.values());
  if (distinct.size !== slope.size) return false;
  return [1n, FIELD - 1n].some((sign) =>
    [...distinct].every((steepness) => powers.includes((steepness * sign) % FIELD)),
  );
}

export interface Attempt {
  readonly accepted: boolean;
  /** Constraints that do not hold. */
  readonly violated: number;
  /** The same of the source's constraints, before the compiler solves linear ones for a signal. */
  readonly rules: () => number;
  readonly T: bigint;
  readonly C: bigint;
  readonly signal: (name: string) => bigint;
  /** Signals that the constraints leave open once the inputs are given. */
  readonly undetermined: () => string[];
}

const modulo = (value: bigint): bigint => ((value % FIELD) + FIELD) % FIELD;

/** Every `… === …;` goes, over several lines or not; `<==` and `<--` stay and compute. */
function withoutAssertions(source: string): string {
  const code = source.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
  return code.replace(/^[^\n;{}]*===[^;]*;/gm, "");
}

async function compile(
  folder: string,
  name: string,
  main: string,
  optimization: string,
  transform: (source: string) => string,
): Promise<void> {
  const to = join(folder, name);
  cpSync(join(ROOT, "circuits"), join(to, "circuits"), { recursive: true });
  cpSync(CIRCOMLIB, join(to, "circomlib"), { recursive: true, dereference: true });
  for (const path of readdirSync(to, { recursive: true, encoding: "utf8" }).filter((file) =>
    file.endsWith(".circom"),
  )) {
    writeFileSync(join(to, path), transform(readFileSync(join(to, path), "utf8")));
  }
  writeFileSync(join(to, "main.circom"), main);
  const flags = ["main.circom", optimization, "--r1cs", "--wasm", "--sym", "-l", "circuits", "-l", "circomlib"];
  await promisify(execFile)(process.execPath, [require.resolve("circom2/cli.js"), ...flags], {
    cwd: to,
    maxBuffer: 1 << 24,
  });
}

/** Lines of a .sym file: label, wire, component, name. */
function readSymbols(path: string): Map<string, number> {
  const lines = readFileSync(path, "utf8").trim().split("\n");
  return new Map(lines.map((line) => line.split(",")).map(([, wire, , name]) => [name!, Number(wire)]));
}
