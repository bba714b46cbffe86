import { FIELD, inverse, toField } from "@bursar/protocol";
import { readR1cs, type Constraint } from "@bursar/prover";

/** What a prover can make of some signals. */
export interface Completion {
  /** Every constraint holds. */
  readonly accepted: boolean;
  /** Constraints that hold for no value of what is still open in them: nothing completes these signals. */
  readonly contradictions: readonly number[];
  readonly signal: (name: string) => bigint;
}

/**
 * A constraint system before the compiler simplifies it, so that every signal has its wire, and a prover that starts from
 * some signals and follows the constraints. Whatever it finds by a constraint has no other value there, so a contradiction
 * means that nothing completes these signals.
 */
export class System {
  readonly constraints: readonly Constraint[];
  /** Wire of each signal, `main.` left out. */
  readonly #wires: ReadonlyMap<string, number>;
  readonly #constraintsOf: number[][];
  readonly #unknowns: number[][];
  /** Wires that some constraint makes 0 or 1. */
  readonly #bits: ReadonlySet<number>;

  constructor(r1cs: Buffer, symbols: string) {
    const { constraints, wires } = readR1cs(r1cs);
    this.constraints = constraints;
    this.#wires = readSymbols(symbols);
    this.#unknowns = constraints.map(({ a, b, c }) => [
      ...new Set([...a, ...b, ...c].map(([wire]) => wire).filter((wire) => wire !== 0)),
    ]);
    this.#constraintsOf = Array.from({ length: wires }, () => []);
    for (const [index, unknowns] of this.#unknowns.entries())
      for (const wire of unknowns) this.#constraintsOf[wire]!.push(index);
    this.#bits = new Set(constraints.flatMap((constraint) => bitOf(constraint) ?? []));
  }

  /** Completes inputs and forged signals. */
  complete(inputs: Signals, forged: Signals = new Map()): Completion {
    return this.completeWithout(new Set(), inputs, forged);
  }

  /**
   * The same without some constraints. What those would have computed, and is not forged, is as an honest prover computes
   * it.
   */
  completeWithout(removed: ReadonlySet<number>, inputs: Signals, forged: Signals): Completion {
    const run = new Run(this.constraints, this.#constraintsOf, this.#unknowns, this.#bits, removed);
    for (const [name, value] of [...inputs, ...forged]) run.learn(this.#wireOf(name), toField(value));
    const standing = [...this.constraints.keys()].filter((index) => !removed.has(index));
    run.follow(standing);
    const set = new Set([...forged.keys()].map((name) => this.#wireOf(name)));
    run.hint([...removed].filter((index) => this.#unknowns[index]!.every((wire) => !set.has(wire))));
    return {
      accepted: standing.every((index) => run.holds(index)),
      contradictions: standing.filter((index) => run.contradicts(index)),
      signal: (name) => run.values[this.#wireOf(name)] ?? 0n,
    };
  }

  #wireOf(name: string): number {
    const wire = this.#wires.get(name);
    if (wire === undefined) throw new Error(`no signal ${name}`);
    return wire;
  }
}

type Signals = ReadonlyMap<string, bigint>;

/** One completion in progress. */
class Run {
  readonly values: (bigint | undefined)[] = [1n];
  /** Unknown wires in each constraint. */
  readonly #left: number[];
  /** Sums of bits that no bits have. */
  readonly #impossible = new Set<number>();
  readonly #queue: number[] = [];
  readonly #constraints: readonly Constraint[];
  readonly #constraintsOf: readonly (readonly number[])[];
  readonly #bits: ReadonlySet<number>;
  readonly #removed: ReadonlySet<number>;

  constructor(
    constraints: readonly Constraint[],
    constraintsOf: readonly (readonly number[])[],
    unknowns: readonly (readonly number[])[],
    bits: ReadonlySet<number>,
    removed: ReadonlySet<number>,
  ) {
    this.#constraints = constraints;
    this.#constraintsOf = constraintsOf;
    this.#bits = bits;
    this.#removed = removed;
    this.#left = unknowns.map(({ length }) => length);
  }

  learn(wire: number, value: bigint): void {
    if (this.values[wire] !== undefined) return;
    this.values[wire] = value;
    for (const index of this.#constraintsOf[wire]!) {
      this.#left[index]!--;
      if (!this.#removed.has(index)) this.#queue.push(index);
    }
  }

  /** Learns all that follows from what is known. */
  follow(indices: readonly number[] = []): void {
    this.#queue.push(...indices);
    for (let index = this.#queue.pop(); index !== undefined; index = this.#queue.pop()) this.#solve(index);
  }

  /** Lets removed constraints say what an honest prover would have put, one at a time, where nothing else does. */
  hint(indices: readonly number[]): void {
    let waiting = indices;
    for (;;) {
      const next = waiting.find((index) => this.#solve(index));
      if (next === undefined) return;
      this.follow();
      waiting = waiting.filter((index) => this.#left[index]! > 0);
    }
  }

  holds(index: number): boolean {
    const { a, b, c } = this.#constraints[index]!;
    return (this.#sum(a) * this.#sum(b)) % FIELD === this.#sum(c);
  }

  contradicts(index: number): boolean {
    return this.#impossible.has(index) || (this.#left[index] === 0 && !this.holds(index));
  }

  #sum(combination: Constraint["a"]): bigint {
    let sum = 0n;
    for (const [wire, coefficient] of combination) sum += coefficient * (this.values[wire] ?? 0n);
    return sum % FIELD;
  }

  #solve(index: number): boolean {
    const constraint = this.#constraints[index]!;
    const left = this.#left[index]!;
    const isProduct = constraint.a.length > 0 && constraint.b.length > 0;
    if (left === 0 || (left > (isProduct ? 2 : 1) && !this.#isBits(constraint))) return false;
    const slope = this.#slopeOf(constraint);
    if (!slope || slope.size === 0) return false;
    const { a, b, c } = constraint;
    const rest = toField(this.#sum(c) - this.#sum(a) * this.#sum(b));
    if (slope.size === 1) {
      const [[wire, steepness]] = [...slope] as [[number, bigint]];
      this.learn(wire, (rest * inverse(steepness)) % FIELD);
      return true;
    }
    return [...slope.keys()].every((wire) => this.#bits.has(wire)) && this.#learnBits(index, slope, rest);
  }

  #isBits({ a, b, c }: Constraint): boolean {
    return [a, b, c].every((combination) =>
      combination.every(([wire]) => this.values[wire] !== undefined || this.#bits.has(wire)),
    );
  }

  /** How fast each unknown wire changes a·b − c; nothing where two of them are multiplied. */
  #slopeOf({ a, b, c }: Constraint): Map<number, bigint> | undefined {
    const isOpen = (combination: Constraint["a"]): boolean =>
      combination.some(([wire]) => this.values[wire] === undefined);
    if (isOpen(a) && isOpen(b)) return undefined;
    const slope = new Map<number, bigint>();
    for (const [combination, factor] of [
      [a, isOpen(a) ? this.#sum(b) : 0n],
      [b, isOpen(b) ? this.#sum(a) : 0n],
      [c, FIELD - 1n],
    ] as const) {
      for (const [wire, coefficient] of combination) {
        if (this.values[wire] !== undefined) continue;
        slope.set(wire, ((slope.get(wire) ?? 0n) + coefficient * factor) % FIELD);
      }
    }
    for (const [wire, steepness] of slope) if (steepness === 0n) slope.delete(wire);
    return slope;
  }

  /** A sum of distinct powers of two times bits has one binary form, if any. */
  #learnBits(index: number, slope: ReadonlyMap<number, bigint>, rest: bigint): boolean {
    for (const sign of [1n, FIELD - 1n]) {
      const powers = [...slope].map(([wire, steepness]) => [wire, (steepness * sign) % FIELD] as const);
      const total = powers.reduce((sum, [, power]) => sum + power, 0n);
      if (new Set(slope.values()).size !== slope.size || !powers.every(([, power]) => isPowerOfTwo(power))) continue;
      const value = (rest * sign) % FIELD;
      if (total >= FIELD) return false;
      if ((value & ~total) !== 0n) {
        this.#impossible.add(index);
        return false;
      }
      for (const [wire, power] of powers) this.learn(wire, (value & power) === 0n ? 0n : 1n);
      return true;
    }
    return false;
  }
}

const isPowerOfTwo = (value: bigint): boolean => (value & (value - 1n)) === 0n;

/** The wire that a constraint x·(x − 1) = 0 makes a bit. */
function bitOf({ a, b, c }: Constraint): number | undefined {
  const [[wire] = [0], ...more] = [...a, ...b].filter(([candidate]) => candidate !== 0);
  return c.length === 0 && a.length > 0 && b.length > 0 && more.length === 1 && more[0]![0] === wire ? wire : undefined;
}

/** Lines of a .sym file: label, wire, component, name. */
function readSymbols(symbols: string): Map<string, number> {
  const lines = symbols.trim().split("\n");
  return new Map(
    lines.map((line) => line.split(",")).map(([, wire, , name]) => [name!.slice("main.".length), Number(wire)]),
  );
}
