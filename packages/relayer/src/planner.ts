import { allowList, BursarError, offsetOf, PAGE_LINES, type Address, type Mandate } from "@bursar/protocol";
import type { BatchRow, CircuitSize } from "@bursar/prover";

import { draftBatches, paced, type Draft, type Situation } from "./batching.ts";
import { TRANSACTION, withinLimits } from "./cost.ts";
import type { BatchRecord } from "./records.ts";
import type { Store } from "./store.ts";

export interface Plan {
  circuit: string;
  token: Address;
  rows: BatchRow[];
  /** Payments that the plan settles. */
  payments: number;
}

/** When a batch is made without being asked for. */
export interface BatchPolicy {
  /** Seconds that a payment waits for a fuller batch. */
  readonly maxWait: number;
  /** Whether gas is cheap enough for a batch that can wait. */
  readonly isCheap: boolean;
}

/** Seconds that a payment waits for a fuller batch, unless the operator says otherwise. */
export const MAX_WAIT = 300;

/**
 * What the next batch settles: of one token, each mandate from where the chain stands. A mandate whose last batch is still
 * under way waits, since its base is about to move.
 *
 * @param sizes - circuits with a verifier on chain.
 * @param now - Unix seconds.
 * @param policy - without one, whatever waits is settled now.
 * @returns The plan, or undefined when nothing waits that should be settled now.
 * @throws BursarError `key-missing` when there are no sizes.
 */
export async function plan(
  store: Store,
  sizes: readonly CircuitSize[],
  now: bigint,
  policy?: BatchPolicy,
): Promise<Plan | undefined> {
  const situation = await situationOf(store, sizes, now, policy?.maxWait);
  const drafts = draftBatches(await store.unbatched(), situation);
  const draft = policy === undefined ? drafts[0] : drafts.find((one) => isDue(one, policy));
  if (!draft) return undefined;
  const rows = await rowsOf(store, draft);
  const payments = rows.reduce((sum, { lines, seq }) => sum + lines.length - Number(offsetOf(seq)), 0);
  return { circuit: draft.size.name, token: draft.token, rows, payments };
}

/** A promise is kept at any price of gas. */
export function isDue({ reason }: Pick<Draft, "reason">, { isCheap }: Pick<BatchPolicy, "isCheap">): boolean {
  return reason === "deadline" || (reason !== null && isCheap);
}

/** @throws BursarError `key-missing` when there are no sizes. */
export async function situationOf(
  store: Store,
  sizes: readonly CircuitSize[],
  now: bigint,
  maxWait = MAX_WAIT,
): Promise<Situation> {
  if (sizes.length > 0) return { sizes: paced(sizes, await store.provingTimes()), now: Number(now), maxWait };
  throw new BursarError("key-missing", "No circuit has a verifier on chain.", {}, "Run `bursar deploy`.");
}

/** The rows of a draft, as many of the most urgent as one transaction takes, ordered as the contract wants them. */
export async function rowsOf(store: Store, { parts }: Draft): Promise<BatchRow[]> {
  const rows: BatchRow[] = [];
  for (const { agent, slots } of parts) {
    const { mandate, settled } = await store.mandateOf(agent);
    rows.push(await rowOf(store, mandate, settled, slots));
  }
  return withinLimits(rows, TRANSACTION).sort((a, b) => (BigInt(a.agent) < BigInt(b.agent) ? -1 : 1));
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
