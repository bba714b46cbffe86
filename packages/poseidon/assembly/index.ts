// Poseidon of nine inputs over BN254, in AssemblyScript. See src/constants.ts for how the permutation is rearranged.
//
// NUMBERS. A field element is nine limbs of 28 bits, the top one of up to 31. The order r of the field begins, in these
// limbs, with 1: r = 1 (mod 2^28). Hence the factor of a Montgomery step is the negated limb itself and costs no
// multiplication. Ten steps are made, not nine: with R = 2^280 = 2^26.4 · r, even a sum of 19 products comes out of the
// reduction below r · (1 + 2^-22), so no result is ever larger than one and a bit r and none is corrected but the last.
//
// DOT PRODUCTS. A product of two elements is the product of two polynomials with nine coefficients. Karatsuba's identity
// for three parts, used twice (nine is three by three), makes it 36 products of sums of limbs in place of 81 products:
// each element is «spread» once into its 36 sums, and a dot product of n terms is 36 sums of n products, two at a time
// by SIMD. Columns and reduction come once, after the sum.
//
// BOUNDS, in units of 2^56, all for unsigned 64-bit accumulators that hold up to 256 units:
//  - the first numbers, inputs plus constants, are below 2r, with a top limb below 6.05 · 2^28. They meet single products
//    only, whose columns are below 40 units, and 4r² / 2^280 is small against r too;
//  - limbs 0 … 7 are below 2^28 and the top limb, of a number below r · (1 + 2^-22), is below 3.03 · 2^28;
//  - column k of a product sums a[i] · b[k - i]. Columns 0 … 7 have at most 8 products of 1 unit. Column 8 has 7 of 1
//    unit and two with one top limb: 13.06. Column 9 has 6 and two: 12.06, columns beyond less, column 16 one of
//    3.03²: 9.2. Times 19 terms: columns up to 7 at most 152, column 8 at most 249, column 9 at most 230;
//  - the reduction adds to a column at most 7 products of 1 unit and one with the top limb of r: 10.03, a carry of less
//    than 2^37 and an added constant of less than 2^30. Column 7: at most 152 + 7 + 1. Column 9: at most 230 + 11 = 241.
//    Only column 8, 249 + 11, might pass 256, so `dot` carries it into column 9 before the reduction; that makes column
//    9 larger by less than 2^36;
//  - the 36 sums of products may be larger than 2^64 and wrap. That is exact: columns are sums and differences of them,
//    computed modulo 2^64, and the true columns are below 2^64;
//  - a spread sum has at most four limbs, one of them the top one: below 6.03 · 2^28 < 2^31, as 32-bit operands need.

import { COEFFICIENTS, COUNT, OFFSETS } from "./constants";

/** Bytes of a spread element. Its limbs are words 0 1 2, 6 7 8 and 12 13 14 of its 36. */
const SPREAD: usize = 144;
/** Bytes of a plain element: nine words. */
const PLAIN: usize = 36;

// Where things are in memory, above the data segment.
const WORK: usize = 0x10000;
/** Sums of products of limbs on their way to columns. */
const SUMS: usize = WORK;
/** Two elements inside an S-box. */
const SQUARE: usize = WORK + 0x300;
const FOURTH: usize = WORK + 0x400;
/** Nine inputs of 32 bytes, big-endian, then one output. */
export const INPUT: usize = WORK + 0x500;
export const OUTPUT: usize = INPUT + 9 * 32;
/** Ten elements before their S-boxes. */
const STATE: usize = WORK + 0x800;
/** Ten elements behind their S-boxes, then nine of the partial rounds. */
const BOXED: usize = WORK + 0x1000;
/** u[0] x[0] u[1] x[1] … of the partial rounds. */
const TRAIL: usize = WORK + 0x2000;
/** The coefficients, spread. */
const SPREADS: usize = WORK + 0x8000;

// Order of the coefficients, each a number of elements from SPREADS on.
const FIRST: usize = SPREADS;
const MATRIX: usize = FIRST + 90 * SPREAD;
const ENTRY: usize = MATRIX + 100 * SPREAD;
const RECURRENCE: usize = ENTRY + 145 * SPREAD;
const EXIT: usize = RECURRENCE + 19 * SPREAD;
const LAST: usize = EXIT + 190 * SPREAD;
/** Above it memory is free. */
export const FREE: usize = LAST + 10 * SPREAD;

// Order of the added constants, from OFFSETS on.
const INPUT_OFFSETS: usize = OFFSETS;
const FIRST_OFFSETS: usize = INPUT_OFFSETS + 9 * PLAIN;
const ROUND_OFFSETS: usize = FIRST_OFFSETS + 10 * PLAIN;
const ENTRY_OFFSETS: usize = ROUND_OFFSETS + 50 * PLAIN;
const RECURRENCE_OFFSETS: usize = ENTRY_OFFSETS + 10 * PLAIN;
const EXIT_OFFSETS: usize = RECURRENCE_OFFSETS + 50 * PLAIN;
const NO_OFFSET: usize = EXIT_OFFSETS + 10 * PLAIN;

const MASK: u64 = 0xfffffff;

// r in limbs, of which limb 0 is 1.
const R1: u64 = 0xe1f593f;
const R2: u64 = 0x9709143;
const R3: u64 = 0xe84879b;
const R4: u64 = 0x85d2833;
const R5: u64 = 0xb681815;
const R6: u64 = 0x9b85045;
const R7: u64 = 0xe131a02;
const R8: u64 = 0x30644e72;

/** Writes an element; `spread` with its 36 sums, else its limbs alone. Sums are below 2^31, so two share a word. */
function write(
  out: usize,
  spread: bool,
  l0: u64,
  l1: u64,
  l2: u64,
  l3: u64,
  l4: u64,
  l5: u64,
  l6: u64,
  l7: u64,
  l8: u64,
): void {
  const p0 = l0 | (l1 << 32);
  const q0 = l3 | (l4 << 32);
  const r0 = l6 | (l7 << 32);
  store<u64>(out, p0, 0);
  store<u64>(out, q0, 24);
  store<u64>(out, r0, 48);
  if (!spread) {
    store<u32>(out, <u32>l2, 8);
    store<u32>(out, <u32>l5, 32);
    store<u32>(out, <u32>l8, 56);
    return;
  }
  const p1 = l2 | ((l0 + l1) << 32);
  const p2 = l0 + l2 + ((l1 + l2) << 32);
  const q1 = l5 | ((l3 + l4) << 32);
  const q2 = l3 + l5 + ((l4 + l5) << 32);
  const r1 = l8 | ((l6 + l7) << 32);
  const r2 = l6 + l8 + ((l7 + l8) << 32);
  store<u64>(out, p1, 8);
  store<u64>(out, p2, 16);
  store<u64>(out, q1, 32);
  store<u64>(out, q2, 40);
  store<u64>(out, r1, 56);
  store<u64>(out, r2, 64);
  store<u64>(out, p0 + q0, 72);
  store<u64>(out, p1 + q1, 80);
  store<u64>(out, p2 + q2, 88);
  store<u64>(out, p0 + r0, 96);
  store<u64>(out, p1 + r1, 104);
  store<u64>(out, p2 + r2, 112);
  store<u64>(out, q0 + r0, 120);
  store<u64>(out, q1 + r1, 128);
  store<u64>(out, q2 + r2, 136);
}

/** Montgomery's reduction of a product's 17 columns: writes their value divided by 2^280 modulo r. */
function settle(
  out: usize,
  spread: bool,
  c0: u64,
  c1: u64,
  c2: u64,
  c3: u64,
  c4: u64,
  c5: u64,
  c6: u64,
  c7: u64,
  c8: u64,
  c9: u64,
  c10: u64,
  c11: u64,
  c12: u64,
  c13: u64,
  c14: u64,
  c15: u64,
  c16: u64,
): void {
  let sum = c0;
  const m0 = (0 - sum) & MASK;
  let carry = (sum + m0) >> 28;
  sum = carry + c1 + m0 * R1;
  const m1 = (0 - sum) & MASK;
  carry = (sum + m1) >> 28;
  sum = carry + c2 + m0 * R2 + m1 * R1;
  const m2 = (0 - sum) & MASK;
  carry = (sum + m2) >> 28;
  sum = carry + c3 + m0 * R3 + m1 * R2 + m2 * R1;
  const m3 = (0 - sum) & MASK;
  carry = (sum + m3) >> 28;
  sum = carry + c4 + m0 * R4 + m1 * R3 + m2 * R2 + m3 * R1;
  const m4 = (0 - sum) & MASK;
  carry = (sum + m4) >> 28;
  sum = carry + c5 + m0 * R5 + m1 * R4 + m2 * R3 + m3 * R2 + m4 * R1;
  const m5 = (0 - sum) & MASK;
  carry = (sum + m5) >> 28;
  sum = carry + c6 + m0 * R6 + m1 * R5 + m2 * R4 + m3 * R3 + m4 * R2 + m5 * R1;
  const m6 = (0 - sum) & MASK;
  carry = (sum + m6) >> 28;
  sum = carry + c7 + m0 * R7 + m1 * R6 + m2 * R5 + m3 * R4 + m4 * R3 + m5 * R2 + m6 * R1;
  const m7 = (0 - sum) & MASK;
  carry = (sum + m7) >> 28;
  sum = carry + c8 + m0 * R8 + m1 * R7 + m2 * R6 + m3 * R5 + m4 * R4 + m5 * R3 + m6 * R2 + m7 * R1;
  const m8 = (0 - sum) & MASK;
  carry = (sum + m8) >> 28;
  sum = carry + c9 + m1 * R8 + m2 * R7 + m3 * R6 + m4 * R5 + m5 * R4 + m6 * R3 + m7 * R2 + m8 * R1;
  const m9 = (0 - sum) & MASK;
  carry = (sum + m9) >> 28;
  sum = carry + c10 + m2 * R8 + m3 * R7 + m4 * R6 + m5 * R5 + m6 * R4 + m7 * R3 + m8 * R2 + m9 * R1;
  const l0 = sum & MASK;
  carry = sum >> 28;
  sum = carry + c11 + m3 * R8 + m4 * R7 + m5 * R6 + m6 * R5 + m7 * R4 + m8 * R3 + m9 * R2;
  const l1 = sum & MASK;
  carry = sum >> 28;
  sum = carry + c12 + m4 * R8 + m5 * R7 + m6 * R6 + m7 * R5 + m8 * R4 + m9 * R3;
  const l2 = sum & MASK;
  carry = sum >> 28;
  sum = carry + c13 + m5 * R8 + m6 * R7 + m7 * R6 + m8 * R5 + m9 * R4;
  const l3 = sum & MASK;
  carry = sum >> 28;
  sum = carry + c14 + m6 * R8 + m7 * R7 + m8 * R6 + m9 * R5;
  const l4 = sum & MASK;
  carry = sum >> 28;
  sum = carry + c15 + m7 * R8 + m8 * R7 + m9 * R6;
  const l5 = sum & MASK;
  carry = sum >> 28;
  sum = carry + c16 + m8 * R8 + m9 * R7;
  const l6 = sum & MASK;
  carry = sum >> 28;
  sum = carry + m9 * R8;
  const l7 = sum & MASK;
  carry = sum >> 28;
  write(out, spread, l0, l1, l2, l3, l4, l5, l6, l7, carry);
}

/** The square of an element, its limbs alone. */
function square(a: usize, out: usize): void {
  const a0: u64 = load<u32>(a, 0);
  const a1: u64 = load<u32>(a, 4);
  const a2: u64 = load<u32>(a, 8);
  const a3: u64 = load<u32>(a, 24);
  const a4: u64 = load<u32>(a, 28);
  const a5: u64 = load<u32>(a, 32);
  const a6: u64 = load<u32>(a, 48);
  const a7: u64 = load<u32>(a, 52);
  const a8: u64 = load<u32>(a, 56);
  const d0 = a0 << 1;
  const d1 = a1 << 1;
  const d2 = a2 << 1;
  const d3 = a3 << 1;
  const d4 = a4 << 1;
  const d5 = a5 << 1;
  const d6 = a6 << 1;
  const d7 = a7 << 1;
  settle(
    out,
    false,
    a0 * a0,
    d0 * a1,
    d0 * a2 + a1 * a1,
    d0 * a3 + d1 * a2,
    d0 * a4 + d1 * a3 + a2 * a2,
    d0 * a5 + d1 * a4 + d2 * a3,
    d0 * a6 + d1 * a5 + d2 * a4 + a3 * a3,
    d0 * a7 + d1 * a6 + d2 * a5 + d3 * a4,
    d0 * a8 + d1 * a7 + d2 * a6 + d3 * a5 + a4 * a4,
    d1 * a8 + d2 * a7 + d3 * a6 + d4 * a5,
    d2 * a8 + d3 * a7 + d4 * a6 + a5 * a5,
    d3 * a8 + d4 * a7 + d5 * a6,
    d4 * a8 + d5 * a7 + a6 * a6,
    d5 * a8 + d6 * a7,
    d6 * a8 + a7 * a7,
    d7 * a8,
    a8 * a8,
  );
}

/** The product of two elements, spread. */
function multiply(a: usize, b: usize, out: usize): void {
  const a0: u64 = load<u32>(a, 0);
  const a1: u64 = load<u32>(a, 4);
  const a2: u64 = load<u32>(a, 8);
  const a3: u64 = load<u32>(a, 24);
  const a4: u64 = load<u32>(a, 28);
  const a5: u64 = load<u32>(a, 32);
  const a6: u64 = load<u32>(a, 48);
  const a7: u64 = load<u32>(a, 52);
  const a8: u64 = load<u32>(a, 56);
  const b0: u64 = load<u32>(b, 0);
  const b1: u64 = load<u32>(b, 4);
  const b2: u64 = load<u32>(b, 8);
  const b3: u64 = load<u32>(b, 24);
  const b4: u64 = load<u32>(b, 28);
  const b5: u64 = load<u32>(b, 32);
  const b6: u64 = load<u32>(b, 48);
  const b7: u64 = load<u32>(b, 52);
  const b8: u64 = load<u32>(b, 56);
  settle(
    out,
    true,
    a0 * b0,
    a0 * b1 + a1 * b0,
    a0 * b2 + a1 * b1 + a2 * b0,
    a0 * b3 + a1 * b2 + a2 * b1 + a3 * b0,
    a0 * b4 + a1 * b3 + a2 * b2 + a3 * b1 + a4 * b0,
    a0 * b5 + a1 * b4 + a2 * b3 + a3 * b2 + a4 * b1 + a5 * b0,
    a0 * b6 + a1 * b5 + a2 * b4 + a3 * b3 + a4 * b2 + a5 * b1 + a6 * b0,
    a0 * b7 + a1 * b6 + a2 * b5 + a3 * b4 + a4 * b3 + a5 * b2 + a6 * b1 + a7 * b0,
    a0 * b8 + a1 * b7 + a2 * b6 + a3 * b5 + a4 * b4 + a5 * b3 + a6 * b2 + a7 * b1 + a8 * b0,
    a1 * b8 + a2 * b7 + a3 * b6 + a4 * b5 + a5 * b4 + a6 * b3 + a7 * b2 + a8 * b1,
    a2 * b8 + a3 * b7 + a4 * b6 + a5 * b5 + a6 * b4 + a7 * b3 + a8 * b2,
    a3 * b8 + a4 * b7 + a5 * b6 + a6 * b5 + a7 * b4 + a8 * b3,
    a4 * b8 + a5 * b7 + a6 * b6 + a7 * b5 + a8 * b4,
    a5 * b8 + a6 * b7 + a7 * b6 + a8 * b5,
    a6 * b8 + a7 * b7 + a8 * b6,
    a7 * b8 + a8 * b7,
    a8 * b8,
  );
}

/** The S-box: the fifth power, spread. */
export function box(a: usize, out: usize): void {
  square(a, SQUARE);
  square(SQUARE, FOURTH);
  multiply(FOURTH, a, out);
}

/** Adds the products of the first two of four sums of limbs to a pair of accumulators. */
function low(sum: v128, a: v128, b: v128): v128 {
  return i64x2.add(sum, i64x2.extmul_low_i32x4_u(a, b));
}

/** The same of the last two. */
function high(sum: v128, a: v128, b: v128): v128 {
  return i64x2.add(sum, i64x2.extmul_high_i32x4_u(a, b));
}

/**
 * `Σ coefficients[i] · elements[i] + offset` of `terms` spread pairs, at most 19, divided by 2^280; spread.
 * Exported, as `box` and `spread` are, for tests of numbers that no known input leads to.
 */
export function dot(coefficients: usize, elements: usize, terms: i32, offset: usize, out: usize): void {
  const end = coefficients + <usize>terms * SPREAD;
  let s0 = i64x2.splat(0);
  let s1 = i64x2.splat(0);
  let s2 = i64x2.splat(0);
  let s3 = i64x2.splat(0);
  let s4 = i64x2.splat(0);
  let s5 = i64x2.splat(0);
  let a = coefficients,
    b = elements;
  do {
    const a0 = v128.load(a, 0);
    const b0 = v128.load(b, 0);
    s0 = low(s0, a0, b0);
    s1 = high(s1, a0, b0);
    const a1 = v128.load(a, 16);
    const b1 = v128.load(b, 16);
    s2 = low(s2, a1, b1);
    s3 = high(s3, a1, b1);
    const a2 = v128.load(a, 32);
    const b2 = v128.load(b, 32);
    s4 = low(s4, a2, b2);
    s5 = high(s5, a2, b2);
    a += SPREAD;
    b += SPREAD;
  } while (a != end);
  let s6 = i64x2.splat(0);
  let s7 = i64x2.splat(0);
  let s8 = i64x2.splat(0);
  let s9 = i64x2.splat(0);
  let s10 = i64x2.splat(0);
  let s11 = i64x2.splat(0);
  a = coefficients;
  b = elements;
  do {
    const a3 = v128.load(a, 48);
    const b3 = v128.load(b, 48);
    s6 = low(s6, a3, b3);
    s7 = high(s7, a3, b3);
    const a4 = v128.load(a, 64);
    const b4 = v128.load(b, 64);
    s8 = low(s8, a4, b4);
    s9 = high(s9, a4, b4);
    const a5 = v128.load(a, 80);
    const b5 = v128.load(b, 80);
    s10 = low(s10, a5, b5);
    s11 = high(s11, a5, b5);
    a += SPREAD;
    b += SPREAD;
  } while (a != end);
  let s12 = i64x2.splat(0);
  let s13 = i64x2.splat(0);
  let s14 = i64x2.splat(0);
  let s15 = i64x2.splat(0);
  let s16 = i64x2.splat(0);
  let s17 = i64x2.splat(0);
  a = coefficients;
  b = elements;
  do {
    const a6 = v128.load(a, 96);
    const b6 = v128.load(b, 96);
    s12 = low(s12, a6, b6);
    s13 = high(s13, a6, b6);
    const a7 = v128.load(a, 112);
    const b7 = v128.load(b, 112);
    s14 = low(s14, a7, b7);
    s15 = high(s15, a7, b7);
    const a8 = v128.load(a, 128);
    const b8 = v128.load(b, 128);
    s16 = low(s16, a8, b8);
    s17 = high(s17, a8, b8);
    a += SPREAD;
    b += SPREAD;
  } while (a != end);

  // Karatsuba for the parts of three limbs: five polynomials, each as six sums of products.
  v128.store(SUMS, s0, 0);
  v128.store(SUMS, i64x2.sub(s9, i64x2.add(s0, s3)), 48);
  v128.store(SUMS, i64x2.sub(i64x2.add(s12, s3), i64x2.add(s0, s6)), 96);
  v128.store(SUMS, i64x2.sub(s15, i64x2.add(s3, s6)), 144);
  v128.store(SUMS, s6, 192);
  v128.store(SUMS, s1, 16);
  v128.store(SUMS, i64x2.sub(s10, i64x2.add(s1, s4)), 64);
  v128.store(SUMS, i64x2.sub(i64x2.add(s13, s4), i64x2.add(s1, s7)), 112);
  v128.store(SUMS, i64x2.sub(s16, i64x2.add(s4, s7)), 160);
  v128.store(SUMS, s7, 208);
  v128.store(SUMS, s2, 32);
  v128.store(SUMS, i64x2.sub(s11, i64x2.add(s2, s5)), 80);
  v128.store(SUMS, i64x2.sub(i64x2.add(s14, s5), i64x2.add(s2, s8)), 128);
  v128.store(SUMS, i64x2.sub(s17, i64x2.add(s5, s8)), 176);
  v128.store(SUMS, s8, 224);

  // Karatsuba for the limbs of each part.
  const e0 = load<u64>(SUMS, 0);
  const e1 = load<u64>(SUMS, 8);
  const e2 = load<u64>(SUMS, 16);
  const e3 = load<u64>(SUMS, 24);
  const e4 = load<u64>(SUMS, 32);
  const e5 = load<u64>(SUMS, 40);
  const f0 = load<u64>(SUMS, 48);
  const f1 = load<u64>(SUMS, 56);
  const f2 = load<u64>(SUMS, 64);
  const f3 = load<u64>(SUMS, 72);
  const f4 = load<u64>(SUMS, 80);
  const f5 = load<u64>(SUMS, 88);
  const g0 = load<u64>(SUMS, 96);
  const g1 = load<u64>(SUMS, 104);
  const g2 = load<u64>(SUMS, 112);
  const g3 = load<u64>(SUMS, 120);
  const g4 = load<u64>(SUMS, 128);
  const g5 = load<u64>(SUMS, 136);
  const h0 = load<u64>(SUMS, 144);
  const h1 = load<u64>(SUMS, 152);
  const h2 = load<u64>(SUMS, 160);
  const h3 = load<u64>(SUMS, 168);
  const h4 = load<u64>(SUMS, 176);
  const h5 = load<u64>(SUMS, 184);
  const i0 = load<u64>(SUMS, 192);
  const i1 = load<u64>(SUMS, 200);
  const i2 = load<u64>(SUMS, 208);
  const i3 = load<u64>(SUMS, 216);
  const i4 = load<u64>(SUMS, 224);
  const i5 = load<u64>(SUMS, 232);
  const c8 = g4 - g0 - g2 + g1 + load<u32>(offset, 32);
  settle(
    out,
    true,
    e0 + load<u32>(offset, 0),
    e3 - e0 - e1 + load<u32>(offset, 4),
    e4 - e0 - e2 + e1 + load<u32>(offset, 8),
    e5 - e1 - e2 + f0 + load<u32>(offset, 12),
    e2 + (f3 - f0 - f1) + load<u32>(offset, 16),
    f4 - f0 - f2 + f1 + load<u32>(offset, 20),
    f5 - f1 - f2 + g0 + load<u32>(offset, 24),
    f2 + (g3 - g0 - g1) + load<u32>(offset, 28),
    c8 & MASK,
    (c8 >> 28) + (g5 - g1 - g2) + h0,
    g2 + (h3 - h0 - h1),
    h4 - h0 - h2 + h1,
    h5 - h1 - h2 + i0,
    h2 + (i3 - i0 - i1),
    i4 - i0 - i2 + i1,
    i5 - i1 - i2,
    i2,
  );
}

/** Ten S-boxes, then one dot product for each row. */
function round(coefficients: usize, terms: i32, offsets: usize): void {
  for (let i: usize = 0; i < 10; i++) box(STATE + i * SPREAD, BOXED + i * SPREAD);
  rows(coefficients, BOXED, terms, offsets);
}

/** Ten rows of a matrix times `elements`, to the state. */
function rows(coefficients: usize, elements: usize, terms: i32, offsets: usize): void {
  for (let i: usize = 0; i < 10; i++) {
    dot(coefficients + i * <usize>terms * SPREAD, elements, terms, offsets + i * PLAIN, STATE + i * SPREAD);
  }
}

/** The partial rounds: from the ten S-boxes of round 3 to the state before those of round 64. */
function partialRounds(): void {
  let row = ENTRY;
  for (let k: usize = 0; k < 10; k++) {
    const u = TRAIL + 2 * k * SPREAD;
    dot(row, BOXED, 10 + <i32>k, ENTRY_OFFSETS + k * PLAIN, u);
    box(u, u + SPREAD);
    row += (10 + k) * SPREAD;
    memory.copy(BOXED + (10 + k) * SPREAD, u + SPREAD, SPREAD);
  }
  for (let k: usize = 10; k < 60; k++) {
    const u = TRAIL + 2 * k * SPREAD;
    dot(RECURRENCE, u - 19 * SPREAD, 19, RECURRENCE_OFFSETS + (k - 10) * PLAIN, u);
    box(u, u + SPREAD);
  }
  rows(EXIT, TRAIL + 101 * SPREAD, 19, EXIT_OFFSETS);
}

/** Reads an input and adds its constant: below 2r, so the top limb is below 2^31. False if it is r or more. */
function read(bytes: usize, offset: usize, out: usize): bool {
  const w3 = bswap(load<u64>(bytes, 0));
  const w2 = bswap(load<u64>(bytes, 8));
  const w1 = bswap(load<u64>(bytes, 16));
  const w0 = bswap(load<u64>(bytes, 24));
  if (!isBelowOrder(w3, w2, w1, w0)) return false;
  let sum = (w0 & MASK) + load<u32>(offset, 0);
  const l0 = sum & MASK;
  sum = (sum >> 28) + ((w0 >> 28) & MASK) + load<u32>(offset, 4);
  const l1 = sum & MASK;
  sum = (sum >> 28) + (((w0 >> 56) | (w1 << 8)) & MASK) + load<u32>(offset, 8);
  const l2 = sum & MASK;
  sum = (sum >> 28) + ((w1 >> 20) & MASK) + load<u32>(offset, 12);
  const l3 = sum & MASK;
  sum = (sum >> 28) + (((w1 >> 48) | (w2 << 16)) & MASK) + load<u32>(offset, 16);
  const l4 = sum & MASK;
  sum = (sum >> 28) + ((w2 >> 12) & MASK) + load<u32>(offset, 20);
  const l5 = sum & MASK;
  sum = (sum >> 28) + (((w2 >> 40) | (w3 << 24)) & MASK) + load<u32>(offset, 24);
  const l6 = sum & MASK;
  sum = (sum >> 28) + ((w3 >> 4) & MASK) + load<u32>(offset, 28);
  const l7 = sum & MASK;
  const l8 = (sum >> 28) + (w3 >> 32) + load<u32>(offset, 32);
  write(out, false, l0, l1, l2, l3, l4, l5, l6, l7, l8);
  return true;
}

// r in words of 64 bits.
const W0: u64 = 0x43e1f593f0000001;
const W1: u64 = 0x2833e84879b97091;
const W2: u64 = 0xb85045b68181585d;
const W3: u64 = 0x30644e72e131a029;

function isBelowOrder(w3: u64, w2: u64, w1: u64, w0: u64): bool {
  if (w3 != W3) return w3 < W3;
  if (w2 != W2) return w2 < W2;
  if (w1 != W1) return w1 < W1;
  return w0 < W0;
}

/** Writes an element, which is below 2r, as 32 bytes. */
function writeBytes(a: usize, bytes: usize): void {
  const a0: u64 = load<u32>(a, 0);
  const a1: u64 = load<u32>(a, 4);
  const a2: u64 = load<u32>(a, 8);
  const a3: u64 = load<u32>(a, 24);
  const a4: u64 = load<u32>(a, 28);
  const a5: u64 = load<u32>(a, 32);
  const a6: u64 = load<u32>(a, 48);
  const a7: u64 = load<u32>(a, 52);
  const a8: u64 = load<u32>(a, 56);
  let w0 = a0 | (a1 << 28) | (a2 << 56);
  let w1 = (a2 >> 8) | (a3 << 20) | (a4 << 48);
  let w2 = (a4 >> 16) | (a5 << 12) | (a6 << 40);
  let w3 = (a6 >> 24) | (a7 << 4) | (a8 << 32);
  if (!isBelowOrder(w3, w2, w1, w0)) {
    let borrow: u64 = w0 < W0 ? 1 : 0;
    w0 -= W0;
    const b1: u64 = w1 < W1 || (w1 == W1 && borrow != 0) ? 1 : 0;
    w1 -= W1 + borrow;
    borrow = w2 < W2 || (w2 == W2 && b1 != 0) ? 1 : 0;
    w2 -= W2 + b1;
    w3 -= W3 + borrow;
  }
  store<u64>(bytes, bswap(w3), 0);
  store<u64>(bytes, bswap(w2), 8);
  store<u64>(bytes, bswap(w1), 16);
  store<u64>(bytes, bswap(w0), 24);
}

/** Hashes what stands at INPUT to OUTPUT. Returns -1, or the index of the first input that is r or more. */
export function hash(): i32 {
  for (let i: usize = 0; i < 9; i++) {
    if (!read(INPUT + i * 32, INPUT_OFFSETS + i * PLAIN, STATE + i * SPREAD)) return <i32>i;
  }
  for (let i: usize = 0; i < 9; i++) box(STATE + i * SPREAD, BOXED + i * SPREAD);
  rows(FIRST, BOXED, 9, FIRST_OFFSETS);
  round(MATRIX, 10, ROUND_OFFSETS);
  round(MATRIX, 10, ROUND_OFFSETS + 10 * PLAIN);
  for (let i: usize = 0; i < 10; i++) box(STATE + i * SPREAD, BOXED + i * SPREAD);
  partialRounds();
  round(MATRIX, 10, ROUND_OFFSETS + 20 * PLAIN);
  round(MATRIX, 10, ROUND_OFFSETS + 30 * PLAIN);
  round(MATRIX, 10, ROUND_OFFSETS + 40 * PLAIN);
  for (let i: usize = 0; i < 10; i++) box(STATE + i * SPREAD, BOXED + i * SPREAD);
  dot(LAST, BOXED, 10, NO_OFFSET, STATE);
  writeBytes(STATE, OUTPUT);
  return -1;
}

/** Spreads a plain element. */
export function spread(from: usize, out: usize): void {
  write(
    out,
    true,
    load<u32>(from, 0),
    load<u32>(from, 4),
    load<u32>(from, 8),
    load<u32>(from, 12),
    load<u32>(from, 16),
    load<u32>(from, 20),
    load<u32>(from, 24),
    load<u32>(from, 28),
    load<u32>(from, 32),
  );
}

for (let i: usize = 0; i < COUNT; i++) spread(COEFFICIENTS + i * PLAIN, SPREADS + i * SPREAD);
