import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

import type { Address } from "@bursar/protocol";
import { Store } from "@bursar/relayer";
import { id, Wallet } from "ethers";

import type { Order, Outcome } from "./generator.ts";
import { Generators } from "./generators.ts";
import { Meter } from "./processes.ts";
import { reconcile, type Reconciliation } from "./reconcile.ts";
import { Stage, type Replica } from "./stage.ts";

export interface LoadOptions {
  readonly agents: number;
  readonly payees: number;
  /** Payments a second, of all agents together. */
  readonly rate: number;
  readonly seconds: number;
  /** Processes of the service. */
  readonly replicas: number;
  /** Processes that send payments. */
  readonly generators: number;
  /** Seconds between batches; 0 settles none, and nothing is held against the chain but that. */
  readonly settleEvery: number;
  /** Send each payment of an agent to another process of the service. */
  readonly roam: boolean;
  /** Kill a process of the service now and then. */
  readonly kill: boolean;
  readonly database?: string | undefined;
}

export const LOAD_DEFAULTS: LoadOptions = {
  agents: 20,
  payees: 20,
  rate: 100,
  seconds: 15,
  replicas: 1,
  generators: 1,
  settleEvery: 5,
  roam: false,
  kill: false,
};

export interface LoadReport {
  readonly options: LoadOptions;
  /** Payments that were sent, and receipts that came back. */
  readonly sent: number;
  readonly accepted: number;
  /** Receipts a second, from the first payment's time to the last answer. */
  readonly rate: number;
  /** Milliseconds from when a payment was due to its receipt. */
  readonly latency: Readonly<Record<"p50" | "p99" | "p999" | "most", number>>;
  readonly refused: Readonly<Record<string, number>>;
  /** Requests that were sent again, since none answered. */
  readonly repeated: number;
  readonly kills: number;
  /** Microseconds of CPU a payment while the load lasted; undefined where the system does not tell. */
  readonly cpu: Readonly<Record<"service" | "database" | "generator", number | undefined>>;
  /** Seconds of CPU that proofs took, in all. */
  readonly proving: number | undefined;
  /** MiB that one process of the service had at most. */
  readonly memory: number | undefined;
  /** Bytes that the books grew by, for each payment. */
  readonly disk: number;
  /** Payments that were accepted and not settled, when the load ended. */
  readonly backlog: number;
  /** Seconds from then until all were settled. */
  readonly settling: number;
  readonly reconciliation: Reconciliation;
}

/** Payments that one generator signs before it starts; each takes a kilobyte. */
const AHEAD = 100_000;
/** Milliseconds without any payment settled, after which what is left counts as lost. */
const PATIENCE = 180_000;

/** Puts a service under load, waits until it has settled everything, and holds every receipt against the chain. */
export async function runLoad(options: LoadOptions, say: (text: string) => void): Promise<LoadReport> {
  const payments = Math.round(options.rate * options.seconds);
  const each = Math.ceil(payments / options.agents);
  const stage = await Stage.set({ ...options, budget: BigInt(each) * 100n }, say);
  const store = await Store.open(stage.books);
  try {
    return await load(options, stage, store, say);
  } finally {
    await store.close();
    await stage.strike();
  }
}

async function load(
  options: LoadOptions,
  stage: Stage,
  store: Store,
  say: (text: string) => void,
): Promise<LoadReport> {
  const payees = Array.from({ length: options.payees }, (_, i) => new Wallet(id(`load.payee.${i}`)).address as Address);
  const orders = ordersOf(options, stage, payees);
  say("signing");
  const generators = await Generators.prepare(orders);
  const meters = { service: new Meter(), database: new Meter(), generator: new Meter() };
  const watch = (): void => {
    meters.service.watch(stage.replicas.map(({ pid }) => pid));
    if (stage.postgres !== undefined) meters.database.watch([stage.postgres.pid]);
    meters.generator.watch(generators.pids);
  };
  watch();
  const before = sums(meters);
  const empty = await bytesOf(store, stage);
  const watching = setInterval(watch, 500);
  const killer = new Killer(stage, options.kill, say);
  const outcomes = await generators.run(({ sent, answered }) => say(`${sent} sent, ${answered} receipts`));
  watch();
  const after = sums(meters);
  await killer.stop();
  const backlog = (await store.backlog()).payments;
  const settling = options.settleEvery > 0 ? await settled(store, say) : 0;
  watch();
  clearInterval(watching);
  say("holding receipts, books and chain against each other");
  const { domain, processor, token, chain } = stage;
  const reconciliation = await reconcile({
    ...{ domain, processor, token, chain },
    store,
    agents: stage.keys.map((key) => new Wallet(key).address as Address),
    payees,
    told: orders.map(({ told }) => told!),
    settling: options.settleEvery > 0,
  });
  const accepted = outcomes.reduce((sum, { receipts }) => sum + receipts, 0);
  const known = process.platform === "linux";
  const cpu = (use: keyof typeof meters): number | undefined =>
    known ? ((after[use] - before[use]) * 1e6) / accepted : undefined;
  return {
    options,
    sent: outcomes.reduce((sum, { sent }) => sum + sent, 0),
    accepted,
    rate: (accepted * 1_000) / Math.max(...outcomes.map(({ lasted }) => lasted)),
    latency: latencyOf(outcomes),
    refused: refusedIn(outcomes),
    repeated: outcomes.reduce((sum, { repeated }) => sum + repeated, 0),
    kills: killer.kills,
    cpu: {
      service: cpu("service"),
      database: stage.postgres === undefined ? undefined : cpu("database"),
      generator: cpu("generator"),
    },
    proving: known ? meters.service.started : undefined,
    memory: known ? meters.service.peak : undefined,
    disk: ((await bytesOf(store, stage)) - empty) / accepted,
    backlog,
    settling,
    reconciliation,
  };
}

/** Whatever a PostgreSQL does is done by processes that it starts; the service starts only provers. */
function sums({ service, database, generator }: Record<"service" | "database" | "generator", Meter>) {
  return { service: service.own, database: database.own + database.started, generator: generator.own };
}

/** Agents, rate and payments shared out among generators. */
function ordersOf(
  { rate, seconds, generators, roam }: LoadOptions,
  { domain, keys, replicas, folder }: Stage,
  payees: readonly Address[],
): Order[] {
  const urls = replicas.map(({ url }: Replica) => url);
  const payments = Math.round(rate * seconds);
  return Array.from({ length: Math.min(generators, keys.length) }, (_, i) => {
    const mine = keys.filter((_key, place) => place % generators === i);
    const share = mine.length / keys.length;
    return {
      ...{ domain, payees, urls, roam, keys: mine, ahead: AHEAD, rate: rate * share },
      payments: Math.round(payments * share),
      told: join(folder, `receipts-${i}`),
    };
  });
}

/** Kills a process of the service every few seconds, while the load lasts. */
class Killer {
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  kills = 0;

  constructor(stage: Stage, armed: boolean, say: (text: string) => void) {
    this.#done = armed ? this.#run(stage, say) : Promise.resolve();
  }

  /** Resolves when the last one that was killed is there again. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(stage: Stage, say: (text: string) => void): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      const pause = setTimeout(1_000 + Math.random() * 4_000, true, { signal });
      if (!(await pause.catch(() => false))) return;
      const victim = Math.floor(Math.random() * stage.replicas.length);
      say(`killing ${stage.replicas.length === 1 ? "the service" : `replica ${victim + 1}`}`);
      ++this.kills;
      await stage.kill(victim);
    }
  }
}

/** Waits until nothing is left to settle, or nothing moves any more. @returns seconds. */
async function settled(store: Store, say: (text: string) => void): Promise<number> {
  const began = performance.now();
  let [left, moved] = [Infinity, began];
  for (;;) {
    const { payments } = await store.backlog();
    if (payments === 0 || performance.now() - moved > PATIENCE) return (performance.now() - began) / 1_000;
    if (payments < left) {
      [left, moved] = [payments, performance.now()];
      say(`${left} to settle`);
    }
    await setTimeout(500);
  }
}

function latencyOf(outcomes: readonly Outcome[]): LoadReport["latency"] {
  const all = Float64Array.from(outcomes.flatMap(({ latencies }) => [...latencies])).sort();
  const at = (share: number): number => all[Math.min(all.length - 1, Math.floor(all.length * share))] ?? 0;
  return { p50: at(0.5), p99: at(0.99), p999: at(0.999), most: at(1) };
}

function refusedIn(outcomes: readonly Outcome[]): Record<string, number> {
  const refused: Record<string, number> = {};
  for (const [code, count] of outcomes.flatMap((outcome) => Object.entries(outcome.refused))) {
    refused[code] = (refused[code] ?? 0) + count;
  }
  return refused;
}

async function bytesOf({ database }: Store, { bytes }: Stage): Promise<number> {
  if (bytes !== undefined) return bytes;
  return Number((await database.get("SELECT pg_database_size(current_database()) AS bytes"))!["bytes"]);
}
