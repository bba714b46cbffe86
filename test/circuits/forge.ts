import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

import { FIELD } from "@bursar/protocol";
import { readR1cs, ROOT, type CircuitInput, type LinearCombination, type R1cs } from "@bursar/prover";
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
  readonly #r1cs: R1cs;
  /** Wire of each signal in the true circuit; −1 where the compiler eliminated it. */
  readonly #wires: ReadonlyMap<string, number>;
  /** Wire of each signal in the circuit without assertions. */
  readonly #free: ReadonlyMap<string, number>;

  private constructor(folder: string, r1cs: R1cs, wires: Map<string, number>, free: Map<string, number>) {
    this.#folder = folder;
    this.#r1cs = r1cs;
    this.#wires = wires;
    this.#free = free;
  }

  static async create(segments: number, pages: number): Promise<Forger> {
    mkdirSync(join(ROOT, "build"), { recursive: true });
    const folder = mkdtempSync(join(ROOT, "build", "forger."));
    await compile(folder, "true", segments, pages, "--O2", (source) => source);
    await compile(folder, "free", segments, pages, "--O0", withoutAssertions);
    const r1cs = readR1cs(readFileSync(join(folder, "true", "main.r1cs")));
    return new Forger(
      folder,
      r1cs,
      readSymbols(join(folder, "true", "main.sym")),
      readSymbols(join(folder, "free", "main.sym")),
    );
  }

  close(): void {
    rmSync(this.#folder, { recursive: true });
  }

  get constraints(): number {
    return this.#r1cs.constraints.length;
  }

  /**
   * Whether the true circuit accepts what follows from `input`, with `forged` signals (by name, `main.` left out) in the
   * place of the computed ones.
   */
  async attempt(input: CircuitInput & { z: bigint }, forged: Readonly<Record<string, bigint>> = {}): Promise<Attempt> {
    const path = join(this.#folder, "free", "witness.wtns");
    await wtns.calculate(input, join(this.#folder, "free", "main_js", "main.wasm"), path);
    const values = await wtns.exportJson(path);
    const valueOf = (name: string): bigint => {
      const wire = this.#free.get(`main.${name}`);
      if (wire === undefined) throw new Error(`no signal ${name}`);
      return forged[name] ?? values[wire]!;
    };
    const witness = Array<bigint>(this.#r1cs.wires).fill(0n);
    witness[0] = 1n;
    for (const [name, wire] of this.#wires) if (wire > 0) witness[wire] = modulo(valueOf(name.slice("main.".length)));
    const value = (combination: LinearCombination): bigint =>
      combination.reduce((sum, [wire, coefficient]) => (sum + coefficient * witness[wire]!) % FIELD, 0n);
    const violated = this.#r1cs.constraints.filter(({ a, b, c }) => (value(a) * value(b)) % FIELD !== value(c)).length;
    return { accepted: violated === 0, violated, T: valueOf("T"), C: valueOf("C"), signal: valueOf };
  }
}

export interface Attempt {
  readonly accepted: boolean;
  /** Constraints that do not hold. */
  readonly violated: number;
  readonly T: bigint;
  readonly C: bigint;
  readonly signal: (name: string) => bigint;
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
  segments: number,
  pages: number,
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
  const main = `pragma circom 2.2.3;\ninclude "batch.circom";\ncomponent main {public [z]} = Batch(${segments}, ${pages});\n`;
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
