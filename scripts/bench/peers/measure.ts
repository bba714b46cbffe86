import { existsSync } from "node:fs";

import type { Address } from "@bursar/protocol";
import { capacity, circuitFolder, circuitSizes, segmentSlots, type CircuitSize, type Prover } from "@bursar/prover";

import { BenchRail, mined, type Sent } from "../rail.ts";
import { batchCosts, bytesOf, type BatchCosts } from "./arithmetic.ts";
import { payeesOf, PeerStage, SINGLES, sum, type Scheme } from "./schemes.ts";
import { countsOf, planBatches, spread, warmUpCount, type Workload } from "./workload.ts";

/** What settling so many payments of a workload took. */
export interface Point {
  readonly payments: number;
  readonly gas: number;
  readonly bytes: number;
  readonly transactions: number;
  /** Ours only: the circuit of each batch. */
  readonly circuits: readonly string[];
}

export interface PeerReport {
  readonly name: string;
  /** A single payment. */
  readonly one: Point;
  readonly points: readonly Point[];
  readonly setUp: bigint;
  /** Gas of the first settlement of one payment a pair. */
  readonly first: bigint | undefined;
  /** Gas to pay one payee out, where settling only credits. */
  readonly payOut: number | undefined;
}

export interface OurReport {
  readonly points: readonly Point[];
  readonly setUp: bigint;
  readonly payOut: number;
}

export interface WorkloadReport {
  readonly workload: Workload;
  readonly ours: OurReport;
  readonly peers: readonly PeerReport[];
}

/** Batches one after the other, without putting anything back: totals after each. */
export interface Run {
  readonly mandates: number;
  readonly payments: number;
  readonly gas: number;
}

/** The circuits that can prove here: compiled, with a key and a verifier on this rail. */
export const builtSizes = (rail: BenchRail): CircuitSize[] =>
  circuitSizes().filter((size) => size.name in rail.chain.rail.circuits && existsSync(circuitFolder(size)));

/** Settles workloads by every scheme on one rail. */
export class PeerBench {
  readonly #rail: BenchRail;
  readonly #prover: Prover;
  readonly #sizes: readonly CircuitSize[];
  readonly #say: (text: string) => void;

  constructor(rail: BenchRail, prover: Prover, sizes: readonly CircuitSize[], say: (text: string) => void) {
    this.#rail = rail;
    this.#prover = prover;
    this.#sizes = sizes;
    this.#say = say;
  }

  /** Gas to settle one payment a pair of a workload that nobody settled anything of yet. */
  async firstTime(workload: Workload): Promise<bigint> {
    this.#say("the first time");
    const settled = this.#rail.rehearse(() => this.#settle(workload, workload.agents * workload.payees));
    return sum((await settled).sent);
  }

  async measure(workload: Workload): Promise<WorkloadReport> {
    this.#say(`${workload.name}: ours`);
    const ours = await this.#measureOurs(workload);
    this.#say(`${workload.name}: peers set up`);
    const stage = await PeerStage.start(this.#rail, workload);
    const first = await stage.warmUp(workload);
    const peers: PeerReport[] = [];
    for (const scheme of stage.schemes) {
      this.#say(`${workload.name}: ${scheme.name}`);
      peers.push(await this.#measurePeer(workload, scheme, first.get(scheme.name)));
    }
    return { workload, ours, peers };
  }

  /** Gas of a settlement by its parts, from three small batches. */
  async unitCosts(workload: Workload): Promise<BatchCosts> {
    this.#say("unit costs");
    const more = Math.min(5, this.largest.segments);
    const size = this.#sizes.find(({ segments }) => segments >= more)!;
    const payees = payeesOf(workload);
    const settle = (rows: number, credits: number): Promise<bigint> =>
      this.#rail.rehearse(() => this.#rail.settle(this.#prover, size, rows, 7, payees.slice(0, credits)));
    const gas = { one: await settle(1, 1), rows: await settle(more, 1), credits: await settle(1, more) };
    return batchCosts(gas, more);
  }

  /** Full batches of the workload's agents in a row, until so many payments are settled. */
  runOfPayments(workload: Workload, payments: number): Promise<Run[]> {
    const each = capacity(this.largest);
    return this.#run(Array.from({ length: Math.ceil(payments / each) }, () => ({ workload, count: each, from: 0 })));
  }

  /** Mandates that each fill a segment: a batch of `least`, then full batches in a row, until there were `most`. */
  async runOfMandates(workload: Workload, least: number, most: number): Promise<Run[]> {
    const { segments } = this.largest;
    const batch = (agents: number, from: number) => {
      return { workload: { ...workload, agents }, count: agents * segmentSlots(this.largest), from };
    };
    const full = Array.from({ length: Math.ceil(most / segments) }, (_, i) =>
      batch(Math.min(segments, most - i * segments), i * segments),
    );
    return [...(await this.#run([batch(least, 0)])), ...(await this.#run(full))];
  }

  get largest(): CircuitSize {
    return this.#sizes.reduce((a, b) => (capacity(b) > capacity(a) ? b : a));
  }

  async #run(batches: readonly { workload: Workload; count: number; from: number }[]): Promise<Run[]> {
    return this.#rail.rehearse(async () => {
      const runs: Run[] = [];
      const seen = new Set<number>();
      for (const [i, { workload, count, from }] of batches.entries()) {
        this.#say(`batch ${i + 1} of ${batches.length} in a row`);
        const { sent } = await this.#settle(workload, count, from);
        for (let mandate = from; mandate < from + workload.agents; ++mandate) seen.add(mandate);
        const last = runs.at(-1) ?? { payments: 0, gas: 0 };
        runs.push({ mandates: seen.size, payments: last.payments + count, gas: last.gas + Number(sum(sent)) });
      }
      return runs;
    });
  }

  async #measureOurs(workload: Workload): Promise<OurReport> {
    const rail = this.#rail;
    await this.#settle(workload, warmUpCount(workload));
    const points: Point[] = [];
    for (const count of workload.counts) {
      this.#say(`${workload.name}: ours, ${count} payments`);
      const { sent, circuits } = await rail.rehearse(() => this.#settle(workload, count));
      points.push(pointOf(count, sent, circuits));
    }
    const payOut = await rail.rehearse(async () => {
      let gas = 0n;
      for (const payee of payeesOf(workload)) {
        await mined(rail.dollar.mint(payee, 1n));
        gas += (await mined(rail.chain.escrow.connect(rail.owner).sweepCredit(rail.token, payee))).gasUsed;
      }
      return Number(gas) / workload.payees;
    });
    const setUp = rail.depositGas + rail.openGas * BigInt(workload.agents);
    return { points, setUp, payOut };
  }

  /** Settles for real what is planned. @param from - the mandate of the workload's first agent. */
  async #settle(workload: Workload, count: number, from = 0): Promise<{ sent: Sent[]; circuits: string[] }> {
    const payees: readonly Address[] = payeesOf(workload);
    const byAgent = Map.groupBy(spread(workload, count), ({ agent }) => agent);
    const sent: Sent[] = [];
    const circuits: string[] = [];
    for (const { size, parts } of planBatches(countsOf(workload, count), this.#sizes)) {
      const spendings = parts.map((part) => ({
        mandate: from + part.agent,
        payments: byAgent
          .get(part.agent)!
          .slice(part.from, part.from + part.count)
          .map(({ payee, amount }) => ({ payee: payees[payee]!, amount })),
      }));
      sent.push(await this.#rail.settlePayments(this.#prover, size, spendings));
      circuits.push(size.name);
    }
    return { sent, circuits };
  }

  async #measurePeer(workload: Workload, scheme: Scheme, first: bigint | undefined): Promise<PeerReport> {
    const { name, most, setUp } = scheme;
    const settle = (count: number): Promise<Sent[]> => scheme.settle(spread(workload, count));
    const some = most === 1 ? pointOf(SINGLES, await settle(SINGLES)) : undefined;
    const measured = async (count: number): Promise<Point> =>
      some ? scaled(some, count) : pointOf(count, await settle(count));
    const points: Point[] = [];
    for (const count of workload.counts) points.push(await measured(count));
    return { name, one: await measured(1), points, setUp, first, payOut: await payOutAll(workload, scheme) };
  }
}

const scaled = (point: Point, payments: number): Point => ({
  payments,
  gas: (point.gas * payments) / point.payments,
  bytes: (point.bytes * payments) / point.payments,
  transactions: payments,
  circuits: [],
});

function pointOf(payments: number, sent: readonly Sent[], circuits: readonly string[] = []): Point {
  const bytes = sent.reduce((total, { data }) => total + bytesOf(data), 0);
  return { payments, gas: Number(sum(sent)), bytes, transactions: sent.length, circuits };
}

async function payOutAll({ payees }: Workload, { payOut }: Scheme): Promise<number | undefined> {
  if (!payOut) return undefined;
  let gas = 0n;
  for (let payee = 0; payee < payees; ++payee) gas += (await payOut(payee)).gas;
  return Number(gas) / payees;
}
