import { PAGE_LINES } from "@bursar/protocol";
import { capacity, segmentsOf, segmentSlots, type CircuitSize } from "@bursar/prover";

/** So many agents that pay so many payees, measured at some counts of payments between two settlements. */
export interface Workload {
  readonly name: string;
  readonly agents: number;
  readonly payees: number;
  readonly counts: readonly number[];
}

/** Agent and payee by their places. */
export interface PairPayment {
  readonly agent: number;
  readonly payee: number;
  readonly amount: bigint;
}

/** `count` payments, spread evenly: agents take turns, and each takes its payees in turn, so no pair comes again before all came. */
export function spread({ agents, payees }: Pick<Workload, "agents" | "payees">, count: number): PairPayment[] {
  return Array.from({ length: count }, (_, i) => {
    const agent = i % agents;
    const turn = Math.floor(i / agents);
    return { agent, payee: (agent + turn) % payees, amount: BigInt(100 + ((i * 37) % 900)) };
  });
}

/** Payments `from` to `from + count` of an agent. */
export interface Part {
  readonly agent: number;
  readonly from: number;
  readonly count: number;
}

export interface PlannedBatch {
  readonly size: CircuitSize;
  readonly parts: readonly Part[];
}

/**
 * Packs the agents' payments into batches: the smallest circuit that holds what is left, else the largest, filled agent by
 * agent in whole segments. Every agent stands at the beginning of a page.
 * @param counts - payments of each agent.
 */
export function planBatches(counts: readonly number[], sizes: readonly CircuitSize[]): PlannedBatch[] {
  const rising = [...sizes].sort((a, b) => capacity(a) - capacity(b));
  const left = counts.map((count, agent) => ({ agent, from: 0, count })).filter(({ count }) => count > 0);
  const batches: PlannedBatch[] = [];
  while (left.length > 0) {
    const fits = (size: CircuitSize): boolean =>
      left.reduce((sum, { count }) => sum + segmentsOf(size, count), 0) <= size.segments;
    const size = rising.find(fits) ?? rising.at(-1)!;
    const parts: Part[] = [];
    for (let free = size.segments; free > 0 && left.length > 0;) {
      const next = left.shift()!;
      const count = Math.min(next.count, free * segmentSlots(size));
      parts.push({ ...next, count });
      free -= segmentsOf(size, count);
      if (count < next.count) left.unshift({ agent: next.agent, from: next.from + count, count: next.count - count });
    }
    batches.push({ size, parts });
  }
  return batches;
}

/** Payments of each agent when `count` are spread. */
export function countsOf({ agents }: Pick<Workload, "agents">, count: number): number[] {
  return Array.from({ length: agents }, (_, agent) => Math.ceil((count - agent) / agents));
}

/** A whole page of payments for each agent, so that the next batch begins on a new one. */
export const warmUpCount = ({ agents }: Pick<Workload, "agents">): number => agents * PAGE_LINES;
