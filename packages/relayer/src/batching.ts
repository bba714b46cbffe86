import { offsetOf, type Address } from "@bursar/protocol";
import { capacity, segmentSlots, segmentsOf, type CircuitSize } from "@bursar/prover";

import type { Waiting } from "./records.ts";

/** A circuit, and how long a batch of it takes. */
export interface PacedSize {
  readonly size: CircuitSize;
  /** From its plan until it is mined. */
  readonly seconds: number;
}

/** What a plan depends on besides what waits. */
export interface Situation {
  /** Circuits with a verifier on chain, at least one. */
  readonly sizes: readonly PacedSize[];
  /** Unix seconds. */
  readonly now: number;
  /** Seconds after which a payment has waited long enough for a fuller batch. */
  readonly maxWait: number;
}

/** A mandate's share of a batch. */
export interface Part {
  readonly agent: Address;
  /** Line slots from the start of its current page. */
  readonly slots: number;
}

/** Why a batch should be made now: a promise ends soon, it fills the largest circuit, a payment has waited long enough. */
export type Reason = "deadline" | "full" | "age";

/** What one batch of a token would be. */
export interface Draft {
  readonly token: Address;
  readonly size: CircuitSize;
  /** The most urgent first. */
  readonly parts: readonly Part[];
  /** Null while it can wait for more payments. */
  readonly reason: Reason | null;
  /** When its token's batches have to begin, in Unix seconds, so that each promise is kept. */
  readonly startBy: number;
}

/** Seconds between a batch's estimated end and the promises in it: for a transaction that is replaced, or a slower proof. */
export const MARGIN = 300;

/** Seconds of a plan that no proof accounts for: the chain includes the transaction. */
const INCLUSION = 30;

/**
 * How long batches take.
 * @param measured - milliseconds of recent proofs, by circuit; the others are estimated, at about half the pace of
 * docs/benchmarks.md.
 */
export function paced(sizes: readonly CircuitSize[], measured: ReadonlyMap<string, number>): PacedSize[] {
  return sizes.map((size) => {
    const milliseconds = measured.get(size.name) ?? 2 ** size.power / 5;
    return { size, seconds: INCLUSION + milliseconds / 1_000 };
  });
}

/**
 * The next batch of each token, the token with the most urgent promise first. A batch takes, until its circuit is full:
 * 1. what has to be in it, since all promises up to some moment could not be kept by the batches after it;
 * 2. mandates that have waited `maxWait`, the longest first;
 * 3. full segments, the most urgent first, then the others, the fullest first.
 */
export function draftBatches(waiting: readonly Waiting[], situation: Situation): Draft[] {
  const urgent = [...waiting].sort(bySettleBy);
  const tokens = [...new Set(urgent.map(({ token }) => token))];
  return tokens.map((token) => draftOf(token, urgent, situation));
}

/** All batches that can be made beside each other: a mandate is in one of them at most. */
export function draftAll(waiting: readonly Waiting[], situation: Situation): Draft[] {
  const drafts: Draft[] = [];
  for (let rest = waiting; rest.length > 0;) {
    const next = draftBatches(rest, situation);
    const taken = new Set(next.flatMap(({ parts }) => parts.map(({ agent }) => agent)));
    rest = rest.filter(({ agent }) => !taken.has(agent));
    drafts.push(...next);
  }
  return drafts;
}

/** Line slots from the start of the mandate's current page to its last accepted payment. */
const slotsOf = ({ from, to }: Waiting): number => Number(offsetOf(from) + to - from);

const bySettleBy = (a: Waiting, b: Waiting): number => Number(a.settleBy - b.settleBy) || byAgent(a, b);
const byAge = (a: Waiting, b: Waiting): number => Number(a.acceptedAt - b.acceptedAt) || byAgent(a, b);
const byAgent = (a: Waiting, b: Waiting): number => (BigInt(a.agent) < BigInt(b.agent) ? -1 : 1);

function draftOf(token: Address, urgent: readonly Waiting[], situation: Situation): Draft {
  const ofToken = urgent.filter((one) => one.token === token);
  const { size, seconds } = chooseSize(ofToken, situation);
  const { startBy, must } = pressureOn(token, urgent, { size, seconds }, situation.now);
  const parts = pack(ofToken, size, must, situation);
  return { token, size, parts, startBy, reason: reasonOf(ofToken, startBy, situation) };
}

/** The smallest circuit that holds all, else the largest, of those that are fast enough for the most urgent promise. */
function chooseSize(ofToken: readonly Waiting[], { sizes, now }: Situation): PacedSize {
  const ascending = [...sizes].sort((a, b) => capacity(a.size) - capacity(b.size));
  const inTime = ascending.filter(({ seconds }) => now + seconds <= Number(ofToken[0]!.settleBy));
  const candidates = inTime.length > 0 ? inTime : ascending;
  return candidates.find(({ size }) => needed(size, ofToken) <= size.segments) ?? candidates.at(-1)!;
}

function needed(size: CircuitSize, waiting: readonly Waiting[]): number {
  return waiting.reduce((sum, one) => sum + segmentsOf(size, slotsOf(one)), 0);
}

function reasonOf(ofToken: readonly Waiting[], startBy: number, { sizes, now, maxWait }: Situation): Reason | null {
  if (now >= startBy) return "deadline";
  const largest = sizes.reduce((a, b) => (capacity(a.size) < capacity(b.size) ? b : a)).size;
  if (needed(largest, ofToken) >= largest.segments) return "full";
  return ofToken.some(({ acceptedAt }) => Number(acceptedAt) + maxWait <= now) ? "age" : null;
}

/**
 * What promises ask of a token's next batch, if batches follow each other. Up to each promise, in their order, the segments
 * of each token add up to batches; those of this token that do not fit into the later ones have to be in the next.
 */
function pressureOn(
  token: Address,
  urgent: readonly Waiting[],
  { size, seconds }: PacedSize,
  now: number,
): { must: number; startBy: number } {
  const segments = new Map<Address, number>();
  let [others, must, startBy] = [0, 0, Infinity];
  for (const one of urgent) {
    const before = segments.get(one.token) ?? 0;
    const after = before + segmentsOf(size, slotsOf(one));
    segments.set(one.token, after);
    if (one.token !== token) others += batchesOf(size, after) - batchesOf(size, before);
    const own = segments.get(token) ?? 0;
    if (own === 0) continue;
    const end = Number(one.settleBy) - MARGIN;
    const batches = Math.floor((end - now) / seconds);
    must = Math.max(must, own - size.segments * (batches - 1 - others));
    startBy = Math.min(startBy, end - (batchesOf(size, own) + 1 + others) * seconds);
  }
  return { must: Math.min(must, size.segments), startBy };
}

const batchesOf = (size: CircuitSize, segments: number): number => Math.ceil(segments / size.segments);

function pack(ofToken: readonly Waiting[], size: CircuitSize, must: number, { now, maxWait }: Situation): Part[] {
  const taken = new Map<Waiting, number>();
  let free = size.segments;
  const take = (one: Waiting, upTo: number, most = free): number => {
    const before = taken.get(one) ?? 0;
    const more = Math.min(upTo - before, most, free);
    if (more <= 0) return 0;
    taken.set(one, before + more);
    free -= more;
    return more;
  };
  const all = (one: Waiting): number => segmentsOf(size, slotsOf(one));
  const full = (one: Waiting): number => Math.floor(slotsOf(one) / segmentSlots(size));

  let pressing = must;
  for (const one of ofToken) pressing -= take(one, all(one), pressing);
  const aged = ofToken.filter(({ acceptedAt }) => Number(acceptedAt) + maxWait <= now);
  for (const one of aged.sort(byAge)) take(one, all(one));
  for (const one of ofToken) take(one, full(one));
  const rest = (one: Waiting): number => slotsOf(one) % segmentSlots(size);
  for (const one of [...ofToken].sort((a, b) => rest(b) - rest(a))) take(one, all(one));

  return [...taken].map(([one, segments]) => ({
    agent: one.agent,
    slots: Math.min(slotsOf(one), segments * segmentSlots(size)),
  }));
}
