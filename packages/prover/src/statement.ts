import {
  BursarError,
  commit,
  lineToField,
  offsetOf,
  packAmounts,
  packRow,
  PAGE_LINES,
  pageHash,
  poseidon,
  type Address,
  type AllowList,
  type Credit,
  type Line,
  type Row,
} from "@bursar/protocol";

import { segmentSlots, type CircuitSize } from "./circuits.ts";

/** One mandate's part of a batch, with all that the proof needs to know. */
export interface BatchRow {
  readonly agent: Address;
  /** Where the chain stands: hash before the current page, and payments settled. */
  readonly base: bigint;
  readonly seq: bigint;
  readonly allow: AllowList;
  readonly paymentCap: bigint;
  /** One for each page that `lines` touches. */
  readonly salts: readonly bigint[];
  /** All lines from the start of the current page: first the `seq mod 7` that were settled before. */
  readonly lines: readonly Pick<Line, "payee" | "amount">[];
}

/** What a batch claims, and the circuit's private inputs but for the challenge. */
export interface Statement {
  readonly rows: readonly Row[];
  /** One a payee, by address. */
  readonly credits: readonly Credit[];
  /** C. */
  readonly commitment: bigint;
  readonly input: CircuitInput;
}

/** The private inputs of circuits/batch.circom, by name. */
export interface CircuitInput {
  readonly base: bigint[];
  readonly cap: bigint[];
  readonly allow: bigint[][];
  readonly continues: bigint[];
  readonly last: bigint[][];
  readonly skip: bigint[][];
  readonly salt: bigint[][];
  readonly payee: bigint[][];
  readonly amount: bigint[][];
}

/** A part of a row that fits one segment. */
interface Segment {
  row: BatchRow;
  lines: BatchRow["lines"];
  salts: readonly bigint[];
  /** Lines of the first page that were settled before. */
  offset: number;
  continues: boolean;
  head: bigint;
  newBase: bigint;
  /** The row's packed counts up to and with this segment. */
  packed: bigint;
}

/** Segments that a row with so many line slots takes. */
export function segmentsOf(size: CircuitSize, slots: number): number {
  return Math.ceil(slots / segmentSlots(size));
}

/**
 * Lays rows out over the circuit's segments and computes what the circuit will claim of them.
 * @throws BursarError `batch-does-not-fit`, `malformed-input` for salts that do not match the pages, `amount-zero`,
 * `amount-too-large`, `above-payment-cap`, `payee-not-allowed`.
 */
export function layOut(size: CircuitSize, rows: readonly BatchRow[]): Statement {
  for (const row of rows) validate(row);
  const segments = rows.flatMap((row) => split(size, row));
  if (rows.length === 0 || segments.length > size.segments) {
    throw new BursarError(
      "batch-does-not-fit",
      `The batch takes ${segments.length} segments; circuit ${size.name} has ${size.segments}.`,
      {
        value: segments.length,
        limit: size.segments,
      },
    );
  }
  const input = circuitInput(size, segments);
  return {
    rows: segments.filter(({ continues }) => !continues).map(claimOf),
    credits: creditsOf(rows),
    commitment: commitmentOf(size, segments, input),
    input,
  };
}

function validate({ agent, seq, lines, salts, paymentCap, allow }: BatchRow): void {
  const offset = Number(offsetOf(seq));
  if (lines.length <= offset) {
    throw new BursarError("batch-does-not-fit", `The row of ${agent} settles no payment.`, {
      value: lines.length - offset,
      limit: 1,
    });
  }
  const pages = Math.ceil(lines.length / PAGE_LINES);
  if (salts.length !== pages) {
    throw new BursarError("malformed-input", `The row of ${agent} touches ${pages} pages, each with its salt.`, {
      value: salts.length,
      limit: pages,
    });
  }
  for (const { payee, amount } of lines) {
    lineToField({ payee, amount });
    if (amount > paymentCap) {
      throw new BursarError("above-payment-cap", `${amount} units are above the cap of ${paymentCap}.`, {
        value: amount,
        limit: paymentCap,
      });
    }
    if (allow[0] !== 0n && !allow.includes(BigInt(payee))) {
      throw new BursarError("payee-not-allowed", `${payee} is not in the list.`, { value: payee });
    }
  }
}

function split(size: CircuitSize, row: BatchRow): Segment[] {
  const slots = segmentSlots(size);
  const segments: Segment[] = [];
  let start = row.base;
  let packed = 0n;
  for (let from = 0; from < row.lines.length; from += slots) {
    const lines = row.lines.slice(from, from + slots);
    const salts = row.salts.slice(from / PAGE_LINES, (from + slots) / PAGE_LINES);
    const offset = from === 0 ? Number(offsetOf(row.seq)) : 0;
    const settled = lines.slice(offset);
    const debit = settled.reduce((sum, { amount }) => sum + amount, 0n);
    packed += packRow({ debit, count: BigInt(settled.length), offset: BigInt(offset) });
    const { head, newBase } = turn(start, lines, salts);
    segments.push({ row, lines, salts, offset, continues: from + slots < row.lines.length, head, newBase, packed });
    start = head;
  }
  return segments;
}

/** Hashes pages from `start`. */
function turn(start: bigint, lines: BatchRow["lines"], salts: readonly bigint[]): { head: bigint; newBase: bigint } {
  let [head, newBase] = [start, start];
  salts.forEach((salt, page) => {
    const onPage = lines.slice(page * PAGE_LINES, (page + 1) * PAGE_LINES);
    head = pageHash(head, onPage.map(lineToField), salt);
    if (onPage.length === PAGE_LINES) newBase = head;
  });
  return { head, newBase };
}

const policyRootOf = ({ allow, paymentCap }: Pick<BatchRow, "allow" | "paymentCap">): bigint =>
  poseidon([...allow, paymentCap]);

const MASK_96 = (1n << 96n) - 1n;
const MASK_32 = (1n << 32n) - 1n;

function claimOf({ row, head, newBase, packed }: Segment): Row {
  const { agent, seq, base } = row;
  const counts = { debit: packed & MASK_96, count: (packed >> 96n) & MASK_32, offset: packed >> 128n };
  return { agent, seq, base, head, newBase, policyRoot: policyRootOf(row), ...counts };
}

function creditsOf(rows: readonly BatchRow[]): Credit[] {
  const credits = new Map<bigint, Credit>();
  for (const { seq, lines } of rows) {
    for (const { payee, amount } of lines.slice(Number(offsetOf(seq)))) {
      const credit = credits.get(BigInt(payee));
      credits.set(BigInt(payee), { payee, amount: (credit?.amount ?? 0n) + amount });
    }
  }
  return [...credits.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, credit]) => credit);
}

/** C over the values of every segment, an idle one with an open policy of cap 0, then all amounts. */
function commitmentOf(
  { segments: count }: CircuitSize,
  segments: readonly Segment[],
  { amount }: CircuitInput,
): bigint {
  const idlePolicy = poseidon(Array<bigint>(9).fill(0n));
  const values = Array.from({ length: count }, (_, index) => {
    const segment = segments[index];
    if (!segment) return [0n, 0n, 0n, idlePolicy, 0n];
    return [segment.row.base, segment.head, segment.newBase, policyRootOf(segment.row), segment.packed];
  });
  return commit([...values.flat(), ...packAmounts(amount.flat())]);
}

function circuitInput(size: CircuitSize, segments: readonly Segment[]): CircuitInput {
  const slots = segmentSlots(size);
  const fill = <T>(make: (segment: Segment | undefined) => T): T[] =>
    Array.from({ length: size.segments }, (_, index) => make(segments[index]));
  const padded = (values: readonly bigint[], length: number, padding = 0n): bigint[] =>
    Array.from({ length }, (_, index) => values[index] ?? padding);
  const flag = (length: number, at: number): bigint[] => Array.from({ length }, (_, index) => (index === at ? 1n : 0n));
  return {
    base: fill((segment) => segment?.row.base ?? 0n),
    cap: fill((segment) => segment?.row.paymentCap ?? 0n),
    allow: fill((segment) => [...(segment?.row.allow ?? Array<bigint>(8).fill(0n))]),
    continues: fill((segment) => (segment?.continues ? 1n : 0n)),
    last: fill((segment) => flag(slots, segment ? segment.lines.length - 1 : -1)),
    skip: fill((segment) => flag(PAGE_LINES - 1, (segment?.offset ?? 0) - 1)),
    salt: fill((segment) => padded(segment?.salts ?? [], size.pages)),
    payee: fill((segment) =>
      padded(segment?.lines.map(({ payee }) => BigInt(payee)) ?? [], slots, segment?.row.allow[0] ?? 0n),
    ),
    amount: fill((segment) => padded(segment?.lines.map(({ amount }) => amount) ?? [], slots)),
  };
}
