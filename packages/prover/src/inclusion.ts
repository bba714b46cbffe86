import { BursarError, lineToField, PAGE_LINES, pageHash, type Line } from "@bursar/protocol";

import { capacity, type CircuitSize } from "./circuits.ts";

/** A part of a mandate's ledger that one batch settled. */
export interface SettledPart {
  /** Hash of the page before the first line's. */
  readonly base: bigint;
  /** All lines from the start of that page to the head, those that were settled before included. */
  readonly lines: readonly Pick<Line, "payee" | "amount">[];
  /** One for each page that `lines` touches. */
  readonly salts: readonly bigint[];
}

/** The inputs of circuits/inclusion.circom, by name. */
export interface InclusionInput {
  readonly base: bigint;
  readonly head: bigint;
  readonly line: bigint;
  readonly index: bigint;
  readonly lines: bigint[];
  readonly salt: bigint[];
  readonly last: bigint[];
  readonly chosen: bigint[];
}

/** What an inclusion proof claims, and how. */
export interface InclusionStatement {
  readonly input: InclusionInput;
}

/**
 * That line number `index`, from 0, stands in the part.
 * @throws BursarError `batch-does-not-fit`, `malformed-input` for salts that do not match the pages or an index that is not
 * in it.
 */
export function showLine(size: CircuitSize, { base, lines, salts }: SettledPart, index: number): InclusionStatement {
  const slots = capacity(size);
  const pages = Math.ceil(lines.length / PAGE_LINES);
  if (lines.length > slots) {
    throw new BursarError("batch-does-not-fit", `The part has ${lines.length} lines.`, {
      value: lines.length,
      limit: slots,
    });
  }
  if (salts.length !== pages) {
    throw new BursarError("malformed-input", `${pages} pages need as many salts.`, {
      value: salts.length,
      limit: pages,
    });
  }
  const line = lines[index];
  if (!line) {
    throw new BursarError("malformed-input", `The part has no line ${index}.`, { value: index, limit: lines.length });
  }
  const fields = Array.from({ length: slots }, (_, i) => (lines[i] ? lineToField(lines[i]) : 0n));
  const head = salts.reduce(
    (prev, salt, page) => pageHash(prev, fields.slice(page * PAGE_LINES, (page + 1) * PAGE_LINES), salt),
    base,
  );
  const flags = (length: number, at: number): bigint[] => Array.from({ length }, (_, i) => (i === at ? 1n : 0n));
  return {
    input: {
      base,
      head,
      line: lineToField(line),
      index: BigInt(index),
      lines: fields,
      salt: Array.from({ length: slots / PAGE_LINES }, (_, page) => salts[page] ?? 0n),
      last: flags(slots / PAGE_LINES, pages - 1),
      chosen: flags(slots, index),
    },
  };
}
