import { offsetOf, PAGE_LINES, allowList, BursarError, type Address } from "@bursar/protocol";
import type { BatchRow, CircuitSize } from "@bursar/prover";

import type { MandateRecord, Store } from "./store.ts";

/** A mandate's part of a batch, with the number of payments that it settles. */
export interface PlannedRow extends BatchRow {
  count: number;
}

export interface Plan {
  circuit: string;
  token: Address;
  rows: PlannedRow[];
  /** Payments that the plan settles. */
  payments: number;
}

/**
 * Chooses what the next batch settles: mandates of one token, the most urgent first, each from where the chain stands,
 * in the smallest circuit that holds them all, else as many as the largest holds. A mandate whose last batch is still
 * under way waits, since its base is about to move.
 *
 * @param sizes - circuits with keys and a verifier on chain.
 * @returns The plan, or undefined when nothing waits.
 */
export function plan(store: Store, sizes: readonly CircuitSize[]): Plan | undefined {
  const waiting = candidates(store);
  const [first] = waiting;
  if (!first) return undefined;
  const { token } = first.record.mandate;
  const ofToken = waiting.filter(({ record }) => record.mandate.token === token);
  const ascending = [...sizes].sort((a, b) => a.segments * a.pages - b.segments * b.pages);
  const largest = ascending.at(-1);
  if (!largest) throw new BursarError("key-missing", "No circuit has a verifier on chain.", {}, "Run `bursar deploy`.");
  const size = ascending.find((candidate) => neededSegments(ofToken, candidate) <= candidate.segments) ?? largest;
  const rows = pack(store, ofToken, size);
  return { circuit: size.name, token, rows, payments: rows.reduce((sum, { count }) => sum + count, 0) };
}

interface Candidate {
  record: MandateRecord;
  /** Last accepted seq. */
  to: bigint;
}

function candidates(store: Store): Candidate[] {
  return store.unbatched().map(({ agent, to }) => ({ record: store.mandateOf(agent), to }));
}

/** Line slots from the start of the mandate's current page to its last accepted payment. */
function slotsOf({ record: { settled }, to }: Candidate): number {
  return Number(offsetOf(settled.seq) + to - settled.seq);
}

function neededSegments(waiting: readonly Candidate[], { pages }: CircuitSize): number {
  return waiting.reduce((sum, candidate) => sum + Math.ceil(slotsOf(candidate) / (pages * PAGE_LINES)), 0);
}

function pack(store: Store, waiting: readonly Candidate[], { segments, pages }: CircuitSize): PlannedRow[] {
  const rows: PlannedRow[] = [];
  let free = segments;
  for (const candidate of waiting) {
    if (free === 0) break;
    const slots = Math.min(slotsOf(candidate), free * pages * PAGE_LINES);
    free -= Math.ceil(slots / (pages * PAGE_LINES));
    rows.push(rowOf(store, candidate, slots));
  }
  return rows.sort((a, b) => (BigInt(a.agent) < BigInt(b.agent) ? -1 : 1));
}

/** The first `slots` line slots of the mandate's pages, counted from the start of its current page. */
function rowOf(store: Store, { record: { mandate, settled } }: Candidate, slots: number): PlannedRow {
  const offset = offsetOf(settled.seq);
  const start = settled.seq - offset;
  const payments = store.payments(mandate.agent, start + 1n, start + BigInt(slots));
  return {
    agent: mandate.agent,
    base: settled.base,
    seq: settled.seq,
    allow: allowList(mandate.payees),
    paymentCap: mandate.paymentCap,
    salts: payments.filter((_, index) => index % PAGE_LINES === 0).map(({ salt }) => salt),
    lines: payments.map(({ payment }) => payment.line),
    count: slots - Number(offset),
  };
}
