import { AbiCoder, concat, id, keccak256, toBeHex } from "ethers";
import { BursarError } from "./errors.ts";
import { FIELD, inverse, poseidon, toField } from "./field.ts";
import type { Address, Hex } from "./types.ts";

/** What a row changes: units, payments, and the lines of its first page that were settled before. */
export interface RowCounts {
  /** Units, below 2^96. */
  readonly debit: bigint;
  /** Newly settled payments, 1 … 2^32−1. */
  readonly count: bigint;
  /** `seq mod 7` of the stored seq. */
  readonly offset: bigint;
}

/** One mandate's part of a batch. */
export interface Row extends RowCounts {
  readonly agent: Address;
  /** The stored seq that the row starts from. */
  readonly seq: bigint;
  readonly base: bigint;
  readonly head: bigint;
  readonly newBase: bigint;
  readonly policyRoot: bigint;
}

/** One payee's part of a batch, in units. */
export interface Credit {
  readonly payee: Address;
  readonly amount: bigint;
}

/** Amounts in one element of the commitment stream. */
const AMOUNTS_PER_ELEMENT = 6;
const AMOUNT_BITS = 40n;
const FIRST_INPUTS = 16;
const NEXT_INPUTS = 15;
const BATCH_TAG = id("bursar.batch");

/** debit + count·2^96 + offset·2^128. @throws RangeError for a value that is too wide. */
export function packRow({ debit, count, offset }: RowCounts): bigint {
  if (debit < 0n || debit >= 1n << 96n) throw new RangeError(`a debit of ${debit} units does not fit in 96 bits`);
  if (count < 0n || count >= 1n << 32n) throw new RangeError(`a count of ${count} does not fit in 32 bits`);
  if (offset < 0n || offset > 6n) throw new RangeError(`an offset is 0 to 6, not ${offset}`);
  return debit + (count << 96n) + (offset << 128n);
}

/** A row as the circuit evaluates it: base, head, newBase, policyRoot, packed. */
export function rowValues(row: Row): [bigint, bigint, bigint, bigint, bigint] {
  return [row.base, row.head, row.newBase, row.policyRoot, packRow(row)];
}

/** Amounts six to an element, the first lowest; the last element filled with zeros. */
export function packAmounts(amounts: readonly bigint[]): bigint[] {
  const elements = Array<bigint>(Math.ceil(amounts.length / AMOUNTS_PER_ELEMENT)).fill(0n);
  amounts.forEach((amount, index) => {
    if (amount < 0n || amount >= 1n << AMOUNT_BITS)
      throw new RangeError(`an amount of ${amount} does not fit in 40 bits`);
    const element = Math.floor(index / AMOUNTS_PER_ELEMENT);
    elements[element]! += amount << (AMOUNT_BITS * BigInt(index % AMOUNTS_PER_ELEMENT));
  });
  return elements;
}

/** The commitment C to a stream: Poseidon over its first 16 elements, then over C and 15 more at a time. */
export function commit(stream: readonly bigint[]): bigint {
  let commitment = poseidon(stream.slice(0, FIRST_INPUTS));
  for (let next = FIRST_INPUTS; next < stream.length; next += NEXT_INPUTS) {
    commitment = poseidon([commitment, ...stream.slice(next, next + NEXT_INPUTS)]);
  }
  return commitment;
}

/** All that a batch's challenge depends on. */
export interface BatchStatement {
  readonly chainId: bigint;
  /** The BatchSettlement contract. */
  readonly settlement: Address;
  /** keccak256 of the verification key. */
  readonly circuitId: Hex;
  /** C, see {@link commit}. */
  readonly commitment: bigint;
  readonly rows: readonly Row[];
  readonly credits: readonly Credit[];
}

/** Seven words a row: agent, seq, and the values that the proof speaks about. */
export function rowWords(rows: readonly Row[]): bigint[] {
  return rows.flatMap((row) => [BigInt(row.agent), row.seq, ...rowValues(row)]);
}

/** keccak256 of two words a credit. */
export function hashCredits(credits: readonly Credit[]): Hex {
  return hashWords(credits.flatMap(({ payee, amount }) => [BigInt(payee), amount]));
}

/** The hash that binds a batch: the contract keeps it under the batch's number. */
export function transcript(statement: BatchStatement): Hex {
  const encoded = AbiCoder.defaultAbiCoder().encode(
    ["bytes32", "uint256", "address", "bytes32", "uint256", "bytes32", "bytes32"],
    [
      BATCH_TAG,
      statement.chainId,
      statement.settlement,
      statement.circuitId,
      statement.commitment,
      hashWords(rowWords(statement.rows)),
      hashCredits(statement.credits),
    ],
  );
  return keccak256(encoded) as Hex;
}

/** The challenge z: the transcript mod r. */
export function challenge(transcriptHash: Hex): bigint {
  return BigInt(transcriptHash) % FIELD;
}

/** E(z): Horner over all row values, from 1 so that the number of rows is bound. */
export function evaluateRows(z: bigint, rows: readonly Row[]): bigint {
  return rows.flatMap(rowValues).reduce((sum, value) => toField(sum * z + value), 1n);
}

/** Σ amount/(z + payee) as the contract accumulates it, and as the circuit knows it. */
export interface RationalSum {
  readonly num: bigint;
  readonly den: bigint;
  /** num/den in the field. */
  readonly sum: bigint;
}

/**
 * Σ amount/(z + payee) over the credits.
 *
 * @throws batch-unbalanced when z + payee is zero for a payee; a batch with another order of payments has another z.
 */
export function rationalSum(z: bigint, credits: readonly Credit[]): RationalSum {
  let [num, den] = [0n, 1n];
  for (const { payee, amount } of credits) {
    const factor = toField(z + BigInt(payee));
    num = toField(num * factor + amount * den);
    den = toField(den * factor);
  }
  if (den === 0n) throw new BursarError("batch-unbalanced", "The challenge hits a payee", { value: z });
  return { num, den, sum: toField(num * inverse(den)) };
}

/** T = E(z) + Σ amount/(z + payee): the first public signal. */
export function evaluate(z: bigint, rows: readonly Row[], credits: readonly Credit[]): bigint {
  return toField(evaluateRows(z, rows) + rationalSum(z, credits).sum);
}

function hashWords(words: readonly bigint[]): Hex {
  return keccak256(concat(words.map((word) => toBeHex(word, 32)))) as Hex;
}
