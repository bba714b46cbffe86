import { allowList, BursarError, offsetOf, PAGE_LINES, type Address, type Mandate } from "@bursar/protocol";
import { capacity, segmentSlots, segmentsOf, type BatchRow, type CircuitSize } from "@bursar/prover";

import type { BatchRecord, MandateRecord } from "./records.ts";
import type { Store } from "./store.ts";

export interface Plan {
  circuit: string;
  token: Address;
  rows: BatchRow[];
  /** Payments that the plan settles. */
  payments: number;
}

/**
 * Chooses what the next batch settles: mandates of one token, the most urgent first, each from where the chain stands,
 * in the smallest circuit that holds them all, else as many as the largest holds. A mandate whose last batch is still
 * under way waits, since its base is about to move.
 *
 * @param sizes - circuits with a verifier on chain.
 * @returns The plan, or undefined when nothing waits.
 */
export async function plan(store: Store, sizes: readonly CircuitSize[]): Promise<Plan | undefined> {
  const waiting = await Promise.all(
    (await store.unbatched()).map(async ({ agent, to }) => ({ record: await store.mandateOf(agent), to })),
  );
  const token = waiting[0]?.record.mandate.token;
  if (!token) return undefined;
  const ofToken = waiting.filter(({ record }) => record.mandate.token === token);
  const ascending = [...sizes].sort((a, b) => capacity(a) - capacity(b));
  const size =
    ascending.find((candidate) => neededSegments(candidate, ofToken) <= candidate.segments) ?? ascending.at(-1);
  if (!size) throw new BursarError("key-missing", "No circuit has a verifier on chain.", {}, "Run `bursar deploy`.");
  const rows = await pack(store, size, ofToken);
  const payments = rows.reduce((sum, { lines, seq }) => sum + lines.length - Number(offsetOf(seq)), 0);
  return { circuit: size.name, token, rows, payments };
}

/** The rows of a recorded batch, as they were planned: their payments never change. */
export function replay(store: Store, batch: BatchRecord): Promise<BatchRow[]> {
  return Promise.all(
    batch.rows.map(async (row) => {
      const { mandate } = await store.signed(row.agent);
      return rowOf(store, mandate, row, Number(row.offset + row.count));
    }),
  );
}

interface Candidate {
  record: MandateRecord;
  /** Last accepted seq. */
  to: bigint;
}

/** Line slots from the start of the mandate's current page to its last accepted payment. */
function slotsOf({ record: { settled }, to }: Candidate): number {
  return Number(offsetOf(settled.seq) + to - settled.seq);
}

function neededSegments(size: CircuitSize, waiting: readonly Candidate[]): number {
  return waiting.reduce((sum, candidate) => sum + segmentsOf(size, slotsOf(candidate)), 0);
}

async function pack(store: Store, size: CircuitSize, waiting: readonly Candidate[]): Promise<BatchRow[]> {
  const rows: BatchRow[] = [];
  let free = size.segments;
  for (const candidate of waiting) {
    if (free === 0) break;
    const slots = Math.min(slotsOf(candidate), free * segmentSlots(size));
    free -= segmentsOf(size, slots);
    const { mandate, settled } = candidate.record;
    rows.push(await rowOf(store, mandate, settled, slots));
  }
  return rows.sort((a, b) => (BigInt(a.agent) < BigInt(b.agent) ? -1 : 1));
}

/** The first `slots` line slots of the mandate's pages, counted from the start of its current page. */
async function rowOf(
  store: Store,
  mandate: Mandate,
  from: { base: bigint; seq: bigint },
  slots: number,
): Promise<BatchRow> {
  const { agent, payees, paymentCap } = mandate;
  const { base, seq } = from;
  const start = seq - offsetOf(seq);
  const payments = await store.payments(agent, start + 1n, start + BigInt(slots));
  const salts = payments.filter((_, index) => index % PAGE_LINES === 0).map(({ salt }) => salt);
  return {
    agent,
    base,
    seq,
    allow: allowList(payees),
    paymentCap,
    salts,
    lines: payments.map(({ payment }) => payment.line),
  };
}
