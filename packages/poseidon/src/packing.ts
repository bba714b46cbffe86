import { reduce, type FastConstants } from "./constants.ts";

/** Numbers as `assembly/index.ts` keeps them: limbs of 28 bits, the top one of nine takes the rest. */
export const LIMB_BITS = 28;
export const LIMBS = 9;

/** A number `x` stands in Montgomery's form as `x · FACTOR`; a dot product divides by the factor. */
export const FACTOR = 1n << 280n;

/** The constants in the order that `assembly/index.ts` reads. */
export interface PackedConstants {
  readonly coefficients: readonly bigint[];
  readonly offsets: readonly bigint[];
}

/**
 * Brings the constants into order and form. A dot product of numbers in Montgomery's form comes out in it again if its
 * coefficients stand as `c · F` and its offset as `c · F²`. The inputs come as they are: the fifth power of one, made by
 * three products, is `x^5 · F^-4`, so the coefficients behind them stand as `c · F^6`. The last ones stand as they are
 * and so leave Montgomery's form.
 */
export function packConstants(fast: FastConstants): PackedConstants {
  const scaled = (values: readonly bigint[], power: bigint): bigint[] =>
    values.map((value) => reduce(value * FACTOR ** power));
  return {
    coefficients: [
      ...scaled(fast.first.matrix.flat(), 6n),
      ...scaled(fast.matrix.flat(), 1n),
      ...scaled(fast.entry.matrix.flat(), 1n),
      ...scaled(fast.recurrence, 1n),
      ...scaled(fast.exit.matrix.flat(), 1n),
      ...fast.last,
    ],
    offsets: [
      ...fast.input,
      ...scaled(fast.first.offset, 2n),
      ...scaled(fast.offsets.flat(), 2n),
      ...scaled(fast.entry.offset, 2n),
      ...scaled(fast.recurrenceOffsets, 2n),
      ...scaled(fast.exit.offset, 2n),
      0n,
    ],
  };
}

/** The limbs of a number, lowest first. */
export function limbsOf(value: bigint): bigint[] {
  return Array.from({ length: LIMBS }, (_, i) => {
    const rest = value >> BigInt(LIMB_BITS * i);
    return i === LIMBS - 1 ? rest : BigInt.asUintN(LIMB_BITS, rest);
  });
}
