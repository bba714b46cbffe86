import { createRequire } from "node:module";
import { dirname, join } from "node:path";

/** Order of BN254's scalar field. */
export const FIELD = 21888242871839275222246405745257275088548364400416034343698204186575808495617n;

/** Elements of the permutation's state: nine inputs and a capacity of one. */
export const WIDTH = 10;
/** Rounds with an S-box on every element, half of them before and half behind the partial ones. */
export const FULL_ROUNDS = 8;
/** Rounds with an S-box on the first element alone. */
export const PARTIAL_ROUNDS = 60;

type Row = readonly bigint[];
type Matrix = readonly Row[];

/** circomlib's parameters for one width. */
export interface PlainConstants {
  /** `WIDTH` constants for each round, added before its S-boxes. */
  readonly rounds: Matrix;
  /** The linear layer, `out[i] = Σ matrix[i][j] · in[j]`. */
  readonly matrix: Matrix;
}

/** An affine map: `out[i] = offset[i] + Σ matrix[i][j] · in[j]`. */
export interface Affine {
  readonly matrix: Matrix;
  readonly offset: Row;
}

/**
 * The permutation, rearranged so that a partial round costs one dot product of 19 terms.
 *
 * Let `w` be the state as it enters the S-box of partial round `k`, `u[k]` its first element and `x[k] = u[k]^5`. The
 * other nine elements `s` pass the S-box untouched, so over all partial rounds they are a linear system of dimension
 * nine that is driven by the numbers `x[k]` and seen through the numbers `u[k]`:
 *
 *     s[k+1] = A·s[k] + b·x[k] + …        u[k+1] = c·s[k] + d·x[k] + …        ([d c; b A] is the matrix)
 *
 * What such a system shows obeys a linear recurrence of its order. Nine successive `u` tell `s` at the first of them
 * (the matrix with rows `c, cA, … cA^8` is invertible, checked here), hence the next `u` and every later state. So the
 * state needs not be carried along: `u[k]` is a fixed combination of `u[k-9] … u[k-1]` and `x[k-10] … x[k-1]`, the same
 * for all `k` but for an added constant.
 */
export interface FastConstants {
  /** Added to the inputs before their first S-box; the capacity's own is part of `first`. */
  readonly input: Row;
  /** From the nine S-boxes of the inputs to the S-box inputs of round 1. */
  readonly first: Affine;
  /** The plain linear layer, for the rounds that the maps here do not name. */
  readonly matrix: Matrix;
  /** Behind `matrix`: the constants of rounds 2, 3, 65, 66 and 67. */
  readonly offsets: Matrix;
  /** `u[k]` for `k < 10`, from the ten S-boxes of round 3 and `x[0] … x[k-1]`; row `k` has `10 + k` terms. */
  readonly entry: Affine;
  /** `u[k]` for `k ≥ 10`, from `x[k-10], u[k-9], x[k-9], … u[k-1], x[k-1]`. */
  readonly recurrence: Row;
  /** Added to the recurrence, for `k = 10 … 59`. */
  readonly recurrenceOffsets: Row;
  /** The S-box inputs of round 64, from `x[50], u[51], x[51], … u[59], x[59]`. */
  readonly exit: Affine;
  /** The hash, from the ten S-boxes of the last round. */
  readonly last: Row;
}

/** Reads circomlib's parameters for nine inputs out of poseidon-lite, which holds them but does not export them. */
export function plainConstants(): PlainConstants {
  const require = createRequire(import.meta.url);
  const file = join(dirname(require.resolve("poseidon-lite")), "constants", "9.js");
  const { C, M } = (require(file) as { default: { C: string[]; M: string[][] } }).default;
  const decode = (text: string): bigint => BigInt(`0x${Buffer.from(text, "base64").toString("hex")}`);
  const flat = C.map(decode);
  const rounds = Array.from({ length: FULL_ROUNDS + PARTIAL_ROUNDS }, (_, round) =>
    flat.slice(round * WIDTH, (round + 1) * WIDTH),
  );
  return { rounds, matrix: M.map((row) => row.map(decode)) };
}

/** Derives the rearranged permutation. @throws Error if the parameters do not allow it. */
export function fastConstants({ rounds, matrix }: PlainConstants): FastConstants {
  const half = FULL_ROUNDS / 2;
  const rest = WIDTH - 1;
  const at = (round: number): Row => rounds[round]!;

  // The blocks of the matrix.
  const feedthrough = matrix[0]![0]!;
  const seen = matrix[0]!.slice(1);
  const driven = matrix.slice(1).map((row) => row[0]!);
  const system = matrix.slice(1).map((row) => row.slice(1));

  // observability[i] = c·A^i, and pulse[i] is what one unit of x[k] adds to u[k + 1 + i].
  const observability: Row[] = [seen];
  while (observability.length < rest) observability.push(rowTimes(observability.at(-1)!, system));
  const pulse = [feedthrough, ...observability.map((row) => dot(row, driven))];

  // What the round constants alone add to the state of each partial round; its first round's come with `entry`.
  const drift: Row[] = [Array<bigint>(WIDTH).fill(0n)];
  for (let k = 1; k <= PARTIAL_ROUNDS; k++) {
    const untouched = [0n, ...drift[k - 1]!.slice(1)];
    drift.push(add(timesColumn(matrix, untouched), at(half + k)));
  }

  // Entry: the state before the first partial S-box is matrix·v + its round constants.
  const unit = (length: number, index: number): Row =>
    Array.from({ length }, (_, position) => (position === index ? 1n : 0n));
  const views = [unit(WIDTH, 0), ...observability.map((row) => [0n, ...row])];
  const entry: Affine = {
    matrix: views.map((view, k) => [
      ...rowTimes(view, matrix),
      ...Array.from({ length: k }, (_, i) => pulse[k - 1 - i]!),
    ]),
    offset: views.map((view, k) => reduce(dot(view, at(half)) + drift[k]![0]!)),
  };

  // With y the u without drift and the window's first round as 0: y[1 … 9] = observability·s[0] + pulses·x[0 … 8],
  // solved for s[0], then run to round 10. Columns: x[0], y[1], x[1], … y[9], x[9].
  const window = 2 * WIDTH - 1;
  const inverse = invert(observability);
  const start = inverse.map((row) => {
    const terms = Array<bigint>(window).fill(0n);
    row.forEach((factor, i) => {
      terms[2 * i + 1] = factor;
      for (let j = 0; j <= i; j++) terms[2 * j] = reduce(terms[2 * j]! - factor * pulse[i - j]!);
    });
    return terms;
  });
  let state: Matrix = [Array<bigint>(window).fill(0n), ...start];
  for (let k = 0; k < WIDTH; k++) {
    const inputs: Matrix = [unit(window, 2 * k), ...state.slice(1)];
    state = matrix.map((row) => rowTimes(row, inputs));
  }
  const recurrence = state[0]!;

  // A window of drifted u in place of y: take the drift out of the offset.
  const driftOf = (row: Row, k: number): bigint =>
    reduce(Array.from({ length: rest }, (_, i) => row[2 * i + 1]! * drift[k - rest + i]![0]!).reduce((a, b) => a + b));
  const recurrenceOffsets = Array.from({ length: PARTIAL_ROUNDS - WIDTH }, (_, i) =>
    reduce(drift[WIDTH + i]![0]! - driftOf(recurrence, WIDTH + i)),
  );
  const exit: Affine = {
    matrix: state,
    offset: state.map((row, i) => reduce(drift[PARTIAL_ROUNDS]![i]! - driftOf(row, PARTIAL_ROUNDS))),
  };

  const capacity = power5(at(0)[0]!);
  return {
    input: at(0).slice(1),
    first: {
      matrix: matrix.map((row) => row.slice(1)),
      offset: matrix.map((row, i) => reduce(row[0]! * capacity + at(1)[i]!)),
    },
    matrix,
    offsets: [2, 3, 65, 66, 67].map(at),
    entry,
    recurrence,
    recurrenceOffsets,
    exit,
    last: matrix[0]!,
  };
}

/** The hash of nine field elements by the definition: what the fast form has to equal. */
export function plainHash({ rounds, matrix }: PlainConstants, inputs: Row): bigint {
  let state: Row = [0n, ...inputs];
  rounds.forEach((constants, round) => {
    const full = round < FULL_ROUNDS / 2 || round >= FULL_ROUNDS / 2 + PARTIAL_ROUNDS;
    const boxed = add(state, constants).map((value, i) => (full || i === 0 ? power5(value) : value));
    state = timesColumn(matrix, boxed);
  });
  return state[0]!;
}

/** The hash by the rearranged permutation, step by step as the WebAssembly computes it, in plain field arithmetic. */
export function fastHash(fast: FastConstants, inputs: Row): bigint {
  const apply = ({ matrix, offset }: Affine, vector: Row): Row => add(timesColumn(matrix, vector), offset);
  const boxes = (values: Row): Row => values.map(power5);
  const round = (values: Row, index: number): Row =>
    apply({ matrix: fast.matrix, offset: fast.offsets[index]! }, boxes(values));

  const boxed = boxes(round(round(apply(fast.first, boxes(add(inputs, fast.input))), 0), 1));
  const u: bigint[] = [];
  const x: bigint[] = [];
  const window = (k: number): Row =>
    x.slice(k - WIDTH, k).flatMap((value, i) => (i ? [u[k - WIDTH + i]!, value] : value));
  for (let k = 0; k < PARTIAL_ROUNDS; k++) {
    const next =
      k < WIDTH
        ? dot(fast.entry.matrix[k]!, [...boxed, ...x]) + fast.entry.offset[k]!
        : dot(fast.recurrence, window(k)) + fast.recurrenceOffsets[k - WIDTH]!;
    u.push(reduce(next));
    x.push(power5(next));
  }
  const left = [2, 3, 4].reduce(round, apply(fast.exit, window(PARTIAL_ROUNDS)));
  return dot(fast.last, boxes(left));
}

/** `value mod FIELD`, in 0 … FIELD−1 for negative values too. */
export function reduce(value: bigint): bigint {
  const rest = value % FIELD;
  return rest < 0n ? rest + FIELD : rest;
}

function power5(value: bigint): bigint {
  const square = reduce(value * value);
  return reduce(square * square * value);
}

function dot(a: Row, b: Row): bigint {
  return reduce(a.reduce((sum, value, i) => sum + value * b[i]!, 0n));
}

function add(a: Row, b: Row): Row {
  return a.map((value, i) => reduce(value + b[i]!));
}

function timesColumn(matrix: Matrix, column: Row): Row {
  return matrix.map((row) => dot(row, column));
}

function rowTimes(row: Row, matrix: Matrix): Row {
  return matrix[0]!.map((_, j) => reduce(row.reduce((sum, value, i) => sum + value * matrix[i]![j]!, 0n)));
}

/** Gauss and Jordan. */
function invert(matrix: Matrix): Matrix {
  const size = matrix.length;
  const rows = matrix.map((row, i) => [...row, ...row.map((_, j) => (i === j ? 1n : 0n))]);
  for (let column = 0; column < size; column++) {
    const pivot = rows.findIndex((row, i) => i >= column && row[column] !== 0n);
    if (pivot < 0) throw new Error("the partial rounds cannot be observed through their S-box: no recurrence");
    [rows[column], rows[pivot]] = [rows[pivot]!, rows[column]!];
    const scale = inverse(rows[column]![column]!);
    const own = (rows[column] = rows[column]!.map((value) => reduce(value * scale)));
    for (let i = 0; i < size; i++) {
      const factor = rows[i]![column]!;
      if (i !== column) rows[i] = rows[i]!.map((value, j) => reduce(value - factor * own[j]!));
    }
  }
  return rows.map((row) => row.slice(size));
}

/** `value^(FIELD−2)`, the inverse by Fermat. */
function inverse(value: bigint): bigint {
  let result = 1n;
  for (const bit of (FIELD - 2n).toString(2)) {
    result = reduce(result * result);
    if (bit === "1") result = reduce(result * value);
  }
  return result;
}
