import type { CircuitSize } from "@bursar/prover";

import { countsOf, planBatches, type Workload } from "./workload.ts";

/** Gas of a settlement by its parts. */
export interface BatchCosts {
  readonly batch: number;
  readonly row: number;
  readonly credit: number;
}

/** From three batches that differ in one thing: one row and one credit, `more` rows, `more` credits. */
export function batchCosts(gas: Record<"one" | "rows" | "credits", bigint>, more: number): BatchCosts {
  const row = Number(gas.rows - gas.one) / (more - 1);
  const credit = Number(gas.credits - gas.one) / (more - 1);
  return { batch: Number(gas.one) - row - credit, row, credit };
}

/** Gas to settle `count` payments of a workload, every agent at the beginning of a page and every payee known. */
export function predictBatches(
  workload: Pick<Workload, "agents" | "payees">,
  count: number,
  sizes: readonly CircuitSize[],
  { batch, row, credit }: BatchCosts,
): number {
  const { payees } = workload;
  return planBatches(countsOf(workload, count), sizes)
    .map(({ parts }) => {
      const paid = new Set<number>();
      for (const { agent, from, count: payments } of parts) {
        for (let turn = from; turn < from + Math.min(payments, payees); ++turn) paid.add((agent + turn) % payees);
      }
      return batch + row * parts.length + credit * paid.size;
    })
    .reduce((sum, gas) => sum + gas, 0);
}

/** Gas at a count between measured ones: on the straight line through its neighbours, or through the last two beyond them. */
export function interpolate(
  points: readonly { readonly payments: number; readonly gas: number }[],
  count: number,
): number {
  const at = points.findIndex(({ payments }) => payments >= count);
  const right = Math.max(1, at === -1 ? points.length - 1 : at);
  const [a, b] = [points[right - 1]!, points[right]!];
  return a.gas + ((b.gas - a.gas) * (count - a.payments)) / (b.payments - a.payments);
}

/** Every count to 3,000 and from there in steps of 1 % to a million. */
export function countsToCompare(): number[] {
  const counts = Array.from({ length: 3_000 }, (_, i) => i + 1);
  while (counts.at(-1)! < 1_000_000) counts.push(Math.ceil(counts.at(-1)! * 1.01));
  return counts;
}

/**
 * Where `ours` is cheaper than `theirs`: the longest run of neighbouring counts, or null if there is none.
 * @returns its first and last count.
 */
export function cheaperRange(
  counts: readonly number[],
  ours: (count: number) => number,
  theirs: (count: number) => number,
): { from: number; to: number } | null {
  let longest: number[] = [];
  let run: number[] = [];
  for (const count of counts) {
    run = ours(count) < theirs(count) ? [...run, count] : [];
    if (run.length > longest.length) longest = run;
  }
  return longest.length > 0 ? { from: longest[0]!, to: longest.at(-1)! } : null;
}

/** Assumed prices of a network. */
export interface Network {
  readonly name: string;
  /** Gwei for a unit of gas. */
  readonly gasPrice: number;
  /** Gwei for each byte that it keeps on Ethereum; 0 where it is Ethereum. */
  readonly bytePrice: number;
}

/** Of a signed transaction besides its calldata: signature, addresses, numbers. */
const ENVELOPE_BYTES = 110;

/** Bytes of a transaction that no compression saves: its envelope and the calldata without zeros. */
export function bytesOf(data: string): number {
  const zeros =
    data
      .slice(2)
      .match(/../g)
      ?.filter((byte) => byte === "00").length ?? 0;
  return ENVELOPE_BYTES + (data.length - 2) / 2 - zeros;
}

/** Dollars of so much gas and so many bytes. */
export function dollars(
  { gasPrice, bytePrice }: Pick<Network, "gasPrice" | "bytePrice">,
  etherPrice: number,
  gas: number,
  bytes: number,
): number {
  return ((gas * gasPrice + bytes * bytePrice) * etherPrice) / 1e9;
}
