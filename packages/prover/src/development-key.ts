import { createHash } from "node:crypto";
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";

import { curves, type Curve, type Group } from "snarkjs";

import { readR1cs, type LinearCombination, type R1cs } from "./r1cs.ts";

const R = 21888242871839275222246405745257275088548364400416034343698204186575808495617n;
const Q = 21888242871839275222246405745257275088696311157297823662689037894645226208583n;
const FIELD_BYTES = 32;
const G1_BYTES = 64;
const G2_BYTES = 128;
/** Matrix, row, wire, value. */
const COEFFICIENT_BYTES = 3 * 4 + FIELD_BYTES;
/** 2^512 mod r: coefficients stand in the key multiplied by it. */
const MONTGOMERY_SQUARED = (1n << 512n) % R;
/** Public on purpose: the development keys of all checkouts are the same. */
export const DEVELOPMENT_SEED = "bursar development key 1";
/** Points that are made at a time. */
const CHUNK = 2_048;
/** Of 64 KB: the table of G2 takes 1 MB, a chunk of its points 0.4 MB. */
const MEMORY_PAGES = 64;
/** What a point of each group costs, for progress. */
const WORK = { G1: 1, G2: 3 } as const;

/**
 * Writes a Groth16 key whose trapdoor follows from `seed`: for development only, since whoever reads this can forge
 * proofs. The same circuit and seed give the same bytes. Instead of transforming powers of tau, the Lagrange polynomials
 * are evaluated at the known tau, so each point is one multiple of a generator.
 *
 * @param r1csPath - constraint system as circom writes it.
 * @param zkeyPath - where the key goes, in snarkjs' format.
 * @param seed - public text; other seeds give other keys.
 * @see Groth, "On the Size of Pairing-based Non-interactive Arguments", EUROCRYPT 2016, section 3.2.
 */
export async function writeDevelopmentKey(
  r1csPath: string,
  zkeyPath: string,
  seed: string,
  progress: (fraction: number) => void = () => undefined,
): Promise<void> {
  const r1cs = readR1cs(readFileSync(r1csPath));
  const trapdoor = deriveTrapdoor(seed);
  const power = Math.ceil(Math.log2(r1cs.constraints.length + r1cs.publicWires + 1));
  const curve = await curves.getCurveFromName("bn128", { singleThread: true });
  const scalars = evaluate(curve, r1cs, power, trapdoor);
  const generators = { G1: await Generator.create(curve, "G1"), G2: await Generator.create(curve, "G2") };
  const total = scalars.reduce((sum, { values, group }) => sum + values.length * WORK[group], 0);
  let done = 0;
  const points = new Map<number, Uint8Array>();
  for (const { section, group, values } of scalars) {
    const chunks: Uint8Array[] = [];
    for (let start = 0; start < values.length; start += CHUNK) {
      const chunk = values.slice(start, start + CHUNK);
      chunks.push(generators[group].times(chunk));
      progress((done += chunk.length * WORK[group]) / total);
    }
    points.set(section, Buffer.concat(chunks));
  }
  const header = keyHeader(r1cs, power, trapdoor, generators);
  const coefficients = coefficientSection(r1cs);
  const hash = createHash("blake2b512").update(header).update(coefficients);
  for (const bytes of points.values()) hash.update(bytes);
  const sections: [number, Uint8Array][] = [
    [1, uint32(1)],
    [2, header],
    [3, points.get(3)!],
    [4, coefficients],
    [5, points.get(5)!],
    [6, points.get(6)!],
    [7, points.get(7)!],
    [8, points.get(8)!],
    [9, points.get(9)!],
    [10, Buffer.concat([hash.digest(), uint32(0)])],
  ];
  writeBinary(zkeyPath, sections);
}

interface Trapdoor {
  tau: bigint;
  alpha: bigint;
  beta: bigint;
  gamma: bigint;
  delta: bigint;
}

function deriveTrapdoor(seed: string): Trapdoor {
  const draw = (name: string): bigint => {
    const digest = createHash("sha512").update(`bursar.development-key/${name}/${seed}`).digest("hex");
    return (BigInt(`0x${digest}`) % (R - 2n)) + 2n;
  };
  return { tau: draw("tau"), alpha: draw("alpha"), beta: draw("beta"), gamma: draw("gamma"), delta: draw("delta") };
}

interface Section {
  section: number;
  group: "G1" | "G2";
  values: bigint[];
}

/** Discrete logarithms of all points of the key, in the order of its sections. */
function evaluate(
  curve: Curve,
  { constraints, wires, publicWires }: R1cs,
  power: number,
  trapdoor: Trapdoor,
): Section[] {
  const { tau, alpha, beta, gamma, delta } = trapdoor;
  const root = (bits: number): bigint => curve.Fr.toObject(curve.Fr.w[bits]!);
  const lagrange = lagrangeAt(tau, root(power), 2 ** power);
  const [a, b, c] = [0, 1, 2].map(() => Array<bigint>(wires).fill(0n)) as [bigint[], bigint[], bigint[]];
  const add = (into: bigint[], combination: LinearCombination, at: bigint): void => {
    for (const [wire, coefficient] of combination) into[wire] = (into[wire]! + coefficient * at) % R;
  };
  constraints.forEach((constraint, index) => {
    add(a, constraint.a, lagrange[index]!);
    add(b, constraint.b, lagrange[index]!);
    add(c, constraint.c, lagrange[index]!);
  });
  for (let wire = 0; wire <= publicWires; ++wire) add(a, [[wire, 1n]], lagrange[constraints.length + wire]!);
  const inverseGamma = invert(gamma);
  const inverseDelta = invert(delta);
  const combined = a.map((value, wire) => (beta * value + alpha * b[wire]! + c[wire]!) % R);
  const odd = lagrangeAt(tau, root(power + 1), 2 ** (power + 1)).filter((_, index) => index % 2 === 1);
  return [
    { section: 3, group: "G1", values: combined.slice(0, publicWires + 1).map((value) => (value * inverseGamma) % R) },
    { section: 5, group: "G1", values: a },
    { section: 6, group: "G1", values: b },
    { section: 7, group: "G2", values: b },
    { section: 8, group: "G1", values: combined.slice(publicWires + 1).map((value) => (value * inverseDelta) % R) },
    { section: 9, group: "G1", values: odd.map((value) => (value * inverseDelta) % R) },
  ];
}

/** L_0(x) … L_{n−1}(x) over the n-th roots of unity: L_i(x) = (x^n − 1)/n · w^i / (x − w^i). */
function lagrangeAt(x: bigint, root: bigint, n: number): bigint[] {
  const roots = Array<bigint>(n);
  let w = 1n;
  for (let i = 0; i < n; ++i, w = (w * root) % R) roots[i] = w;
  const inverses = invertAll(roots.map((value) => (x - value + R) % R));
  const factor = ((power(x, BigInt(n)) - 1n + R) * invert(BigInt(n))) % R;
  return roots.map((value, i) => (((factor * value) % R) * inverses[i]!) % R);
}

/** All inverses with one inversion (Montgomery's trick). */
function invertAll(values: readonly bigint[]): bigint[] {
  const prefix = Array<bigint>(values.length);
  let product = 1n;
  values.forEach((value, i) => {
    prefix[i] = product;
    product = (product * value) % R;
  });
  let inverse = invert(product);
  const inverses = Array<bigint>(values.length);
  for (let i = values.length - 1; i >= 0; --i) {
    inverses[i] = (inverse * prefix[i]!) % R;
    inverse = (inverse * values[i]!) % R;
  }
  return inverses;
}

const invert = (value: bigint): bigint => power(value, R - 2n);

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let square = base % R, rest = exponent; rest > 0n; rest >>= 1n, square = (square * square) % R) {
    if (rest & 1n) result = (result * square) % R;
  }
  return result;
}

/**
 * Multiples of a group's generator, as affine points in Montgomery form. A table holds 1 … 255 times the generator at each
 * byte of a scalar, so that a multiple costs at most 32 additions. Pointers are offsets in the memory of a WebAssembly
 * instance, whose first word points to what is free.
 */
class Generator {
  readonly #prefix: "g1m" | "g2m";
  readonly #exports: WebAssembly.Exports;
  readonly #memory: Uint8Array;
  readonly #affine: number;
  readonly #jacobian: number;
  /** For each byte of a scalar, 256 affine points of which the first is not used. */
  readonly #table: number;
  readonly #points: number;

  static async create(curve: Curve, group: "G1" | "G2"): Promise<Generator> {
    const memory = new WebAssembly.Memory({ initial: MEMORY_PAGES });
    const { instance } = await WebAssembly.instantiate(curve.tm.code, { env: { memory } });
    return new Generator(curve, group, instance, memory);
  }

  private constructor(curve: Curve, group: "G1" | "G2", { exports }: WebAssembly.Instance, memory: WebAssembly.Memory) {
    this.#prefix = group === "G1" ? "g1m" : "g2m";
    this.#exports = exports;
    this.#memory = new Uint8Array(memory.buffer);
    this.#affine = group === "G1" ? G1_BYTES : G2_BYTES;
    this.#jacobian = (this.#affine / 2) * 3;
    const free = new Uint32Array(memory.buffer, 0, 1);
    const take = (bytes: number): number => (free[0]! += bytes) - bytes;
    take(-free[0]! & 7);
    this.#table = take(FIELD_BYTES * 256 * this.#affine);
    this.#points = take(CHUNK * this.#jacobian);
    this.#fillTable(curve[group]);
  }

  #fillTable(group: Group): void {
    const row = this.#points;
    const base = row + 257 * this.#jacobian;
    group.toRprLEM(this.#memory, base, group.g);
    for (let byte = 0; byte < FIELD_BYTES; ++byte) {
      this.#call("zero", row);
      for (let k = 0; k < 256; ++k) {
        this.#call("addMixed", row + k * this.#jacobian, base, row + (k + 1) * this.#jacobian);
      }
      this.#call("batchToAffine", row, 257, row);
      const next = row + 256 * this.#affine;
      this.#memory.copyWithin(this.#table + byte * 256 * this.#affine, row, next);
      this.#memory.copyWithin(base, next, next + this.#affine);
    }
  }

  /** value·G for each value, at most CHUNK of them; 0 gives the point at infinity. */
  times(values: readonly bigint[]): Uint8Array {
    values.forEach((value, i) => {
      const point = this.#points + i * this.#jacobian;
      this.#call("zero", point);
      littleEndian(value).forEach((digit, byte) => {
        if (digit > 0) this.#call("addMixed", point, this.#table + (byte * 256 + digit) * this.#affine, point);
      });
    });
    this.#call("batchToAffine", this.#points, values.length, this.#points);
    return this.#memory.slice(this.#points, this.#points + values.length * this.#affine);
  }

  #call(name: string, ...parameters: number[]): void {
    (this.#exports[`${this.#prefix}_${name}`] as (...parameters: number[]) => void)(...parameters);
  }
}

function keyHeader(
  r1cs: R1cs,
  power: number,
  { alpha, beta, gamma, delta }: Trapdoor,
  { G1, G2 }: Record<"G1" | "G2", Generator>,
): Uint8Array {
  return Buffer.concat([
    uint32(FIELD_BYTES),
    littleEndian(Q),
    uint32(FIELD_BYTES),
    littleEndian(R),
    uint32(r1cs.wires),
    uint32(r1cs.publicWires),
    uint32(2 ** power),
    G1.times([alpha, beta]),
    G2.times([beta, gamma]),
    G1.times([delta]),
    G2.times([delta]),
  ]);
}

function coefficientSection({ constraints, publicWires }: R1cs): Uint8Array {
  const count = constraints.reduce((sum, { a, b }) => sum + a.length + b.length, publicWires + 1);
  const bytes = Buffer.alloc(4 + count * COEFFICIENT_BYTES);
  let at = bytes.writeUInt32LE(count);
  const push = (matrix: number, row: number, wire: number, value: bigint): void => {
    for (const word of [matrix, row, wire]) at = bytes.writeUInt32LE(word, at);
    at += littleEndian((value * MONTGOMERY_SQUARED) % R).copy(bytes, at);
  };
  constraints.forEach(({ a, b }, row) => {
    for (const [wire, value] of a) push(0, row, wire, value);
    for (const [wire, value] of b) push(1, row, wire, value);
  });
  for (let wire = 0; wire <= publicWires; ++wire) push(0, constraints.length + wire, wire, 1n);
  return bytes;
}

function writeBinary(path: string, sections: readonly [number, Uint8Array][]): void {
  const file = openSync(path, "w");
  try {
    writeSync(file, Buffer.concat([Buffer.from("zkey"), uint32(1), uint32(sections.length)]));
    for (const [id, bytes] of sections) {
      writeSync(file, Buffer.concat([uint32(id), uint64(bytes.length)]));
      writeSync(file, bytes);
    }
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function littleEndian(value: bigint): Buffer {
  return Buffer.from(value.toString(16).padStart(2 * FIELD_BYTES, "0"), "hex").reverse();
}
