/** The arithmetic of the WebAssembly by itself, for numbers that no known input of the hash leads to. */
import { readFile } from "node:fs/promises";
import { expect } from "chai";
import fc from "fast-check";
import { FACTOR, FIELD, LIMBS, limbsOf, reduce } from "@bursar/poseidon";

/** Runs of equal bits, each up to three limbs long. */
const runs = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 84 }), fc.boolean()), { minLength: 1, maxLength: 12 })
  .map((parts) => parts.reduce((bits, [length, ones]) => bits + (ones ? "1" : "0").repeat(length), "0b"))
  .map((bits) => BigInt.asUintN(254, BigInt(bits)) % FIELD);

/** Limbs that are each empty, full or next to it. */
const boundaries = fc
  .array(fc.constantFrom(0n, 1n, 0xffffffen, 0xfffffffn, 0x8000000n), { minLength: LIMBS, maxLength: LIMBS })
  .map((limbs) => limbs.reduce<bigint>((sum, limb, i) => sum + (limb << BigInt(28 * i)), 0n) % FIELD);

/** Field elements, many with runs of equal bits or limbs at their bounds, many near 0 and r. */
export const element: fc.Arbitrary<bigint> = fc.oneof(
  fc.bigInt({ min: 0n, max: FIELD - 1n }),
  fc.bigInt({ min: 0n, max: 3n }),
  fc.bigInt({ min: FIELD - 3n, max: FIELD - 1n }),
  fc.bigInt({ min: FIELD - (1n << 30n), max: FIELD - 1n }),
  runs,
  runs.map((value) => (FIELD - value) % FIELD),
  boundaries,
);

/** `count` of them. */
export function elements(count: number): fc.Arbitrary<bigint[]> {
  return fc.array(element, { minLength: count, maxLength: count });
}

/** No result of a reduction is larger: r · (1 + 2^-22). */
const BOUND = FIELD + (FIELD >> 22n);

/** What is compared with arithmetic on bigints; each asserts value, bound and form of a result. */
export interface Kernel {
  /** Numbers with the largest limbs that a result may have, and others at bounds. The first has all of them. */
  readonly extremes: readonly bigint[];
  expectBox(value: bigint): void;
  expectDot(terms: readonly (readonly [bigint, bigint])[], offset: bigint): void;
}

interface Exports {
  readonly memory: WebAssembly.Memory;
  readonly FREE: WebAssembly.Global;
  readonly spread: (from: number, out: number) => void;
  readonly box: (a: number, out: number) => void;
  readonly dot: (coefficients: number, elements: number, terms: number, offset: number, out: number) => void;
}

/** Opens a compiled hash by its inner functions. */
export async function openKernel(file: string): Promise<Kernel> {
  const { instance } = await WebAssembly.instantiate(await readFile(file));
  const { memory, FREE, spread, box, dot } = instance.exports as unknown as Exports;
  const words = new Uint32Array(memory.buffer);
  const [plain, left, right, out] = [0, 0x100, 0x100 + 19 * 144, 0x100 + 38 * 144].map(
    (offset) => (FREE.value as number) + offset,
  ) as [number, number, number, number];

  const writePlain = (value: bigint): void => words.set(limbsOf(value).map(Number), plain / 4);
  const writeSpread = (value: bigint, to: number): void => {
    writePlain(value);
    spread(plain, to);
  };
  /** The 36 sums by their definition: Karatsuba's for three parts of three limbs. */
  const sumsOf = (value: bigint): number[] => {
    const six = <T>([a, b, c]: readonly T[], add: (x: T, y: T) => T): T[] => [
      a!,
      b!,
      c!,
      add(a!, b!),
      add(a!, c!),
      add(b!, c!),
    ];
    const limbs = limbsOf(value).map(Number);
    const parts = [limbs.slice(0, 3), limbs.slice(3, 6), limbs.slice(6)];
    return six(parts, (x, y) => x.map((limb, i) => limb + y[i]!)).flatMap((part) => six(part, (x, y) => x + y));
  };
  const expectResult = (expected: bigint): void => {
    const sums = [...words.subarray(out / 4, out / 4 + 36)];
    const limbs = [0, 1, 2, 6, 7, 8, 12, 13, 14].map((index) => BigInt(sums[index]!));
    const value = limbs.reduce((sum, limb, i) => sum + (limb << BigInt(28 * i)), 0n);
    expect(reduce(value - expected)).to.equal(0n);
    expect(value <= BOUND).to.equal(true);
    expect(sums).to.deep.equal(sumsOf(value));
  };

  const full = (1n << 224n) - 1n;
  const top = FIELD >> 224n;
  return {
    extremes: [
      (top << 224n) | full,
      BOUND,
      FIELD,
      FIELD - 1n,
      FIELD + 1n,
      ((top - 1n) << 224n) | full,
      full,
      top << 224n,
      ((1n << 252n) - 1n) ^ full,
      1n,
      0n,
    ],
    expectBox(value) {
      writeSpread(value, left);
      box(left, out);
      expectResult(reduce(value ** 5n * over(4)));
    },
    expectDot(terms, offset) {
      terms.forEach(([a, b], i) => {
        writeSpread(a, left + i * 144);
        writeSpread(b, right + i * 144);
      });
      writePlain(offset);
      dot(left, right, terms.length, plain, out);
      expectResult(reduce(terms.reduce((sum, [a, b]) => sum + a * b, offset) * over(1)));
    },
  };
}

/** `FACTOR^-power` in the field. */
function over(power: number): bigint {
  return INVERSE ** BigInt(power) % FIELD;
}

// FACTOR is a power of two, and (r + 1) / 2 is the inverse of two.
const INVERSE = Array.from({ length: FACTOR.toString(2).length - 1 }).reduce<bigint>(
  (value) => (value * ((FIELD + 1n) / 2n)) % FIELD,
  1n,
);
