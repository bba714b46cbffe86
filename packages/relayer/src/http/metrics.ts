import { readFileSync } from "node:fs";
import { hostname } from "node:os";

import { BursarError, type ErrorCode } from "@bursar/protocol";
import fastify, { type FastifyInstance } from "fastify";
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";

import type { AlarmCode } from "../alarms.ts";
import type { ProcessorEvents } from "../events.ts";
import type { ProofQueue } from "../proof-queue.ts";
import type { BatchRecord, PaymentRail } from "../records.ts";
import type { Store } from "../store.ts";

export interface MetricsOptions {
  readonly store: Pick<Store, "backlog" | "database">;
  /** Unix seconds. */
  readonly now: () => bigint;
  /** Whether this process is the one that sends. */
  readonly isSender: () => boolean;
  /** The jobs of proving. */
  readonly queue?: Pick<ProofQueue, "counts"> | undefined;
  /** Shared by the chains of a process. */
  readonly registry?: Registry;
  /** Labels everything, where a process has several. */
  readonly chain?: string | undefined;
}

/** Seconds that payments have waited. */
const AGES = [60, 300, 900, 1_800, 3_600];
/** Milliseconds for which what was read from the books is told again. */
const FRESH = 1_000;
/** Milliseconds after which books that do not answer count as gone. */
const PATIENCE = 3_000;

const FAST = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1];

/** What an operator watches, in the text format of Prometheus. It names no account and no amount of anybody. */
export class Metrics implements ProcessorEvents {
  readonly #options: MetricsOptions;
  readonly #registry: Registry;
  /** On everything that is told. */
  readonly #common: Readonly<Record<string, string>>;
  #reading: Promise<void> = Promise.resolve();
  #readAt = -Infinity;

  readonly #requests;
  readonly #accepted;
  readonly #refused;
  readonly #failures;
  readonly #alarms;
  readonly #latency;
  readonly #groups;
  readonly #commits;
  readonly #database;
  readonly #databaseErrors;
  readonly #proofs;
  readonly #settledPayments;
  readonly #gas;
  readonly #fees;
  readonly #unsettled;
  readonly #units;
  readonly #age;
  readonly #due;
  readonly #waited;
  readonly #directs;
  readonly #batches;
  readonly #jobs;
  readonly #settledAt;
  readonly #chain;
  readonly #books;
  readonly #sender;

  constructor(options: MetricsOptions) {
    this.#options = options;
    this.#registry = options.registry ?? createRegistry();
    this.#common = options.chain === undefined ? {} : { chain: options.chain };

    this.#requests = this.#counter("bursar_http_requests_total", "Requests answered", ["route", "status"]);
    this.#accepted = this.#counter("bursar_payments_accepted_total", "Payments accepted", ["rail"]);
    this.#refused = this.#counter("bursar_payments_refused_total", "Payments refused", ["rail", "code"]);
    this.#failures = this.#counter("bursar_chore_failures_total", "Rounds that failed, such as settling", ["chore"]);
    this.#alarms = this.#gauge("bursar_chain_alarms", "Alarms that are not over", ["code"]);
    const http = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30];
    this.#latency = this.#histogram("bursar_http_duration_seconds", "From request to answer", http, ["route"]);
    const groups = [1, 2, 4, 8, 16, 32, 64];
    this.#groups = this.#histogram("bursar_commit_requests", "Requests that shared a commit", groups);
    this.#commits = this.#histogram("bursar_commit_seconds", "Duration of a commit, fsync included", FAST);
    const database = "Transactions of the database, and statements outside of one";
    this.#database = this.#histogram("bursar_database_seconds", database, FAST, ["kind"]);
    this.#databaseErrors = this.#counter("bursar_database_errors_total", "What the database refused", ["code"]);
    const proofs = [0.5, 1, 2, 5, 10, 20, 60, 120, 300, 900];
    this.#proofs = this.#histogram("bursar_proof_seconds", "Proofs of batches that ended", proofs, ["circuit"]);
    this.#settledPayments = this.#counter("bursar_settled_payments_total", "Payments in batches that settled");
    this.#gas = this.#counter("bursar_settlement_gas_total", "Gas of batches that settled");
    const fees = "Paid for transactions that are final, a rollup's fee for its data included";
    this.#fees = this.#counter("bursar_fees_eth_total", fees, ["job"]);
    this.#unsettled = this.#gauge("bursar_unsettled_payments", "Accepted and not settled");
    this.#units = this.#gauge("bursar_unsettled_units", "Their sum");
    this.#age = this.#gauge("bursar_oldest_unsettled_seconds", "Age of the oldest of them");
    this.#due = this.#gauge("bursar_settle_by_seconds", "Until the first of them is promised to be settled");
    this.#waited = this.#gauge("bursar_unsettled_payments_waited", "Those that waited so many seconds", ["seconds"]);
    this.#directs = this.#gauge("bursar_unsettled_direct_payments", "The same of the direct rail");
    this.#batches = this.#gauge("bursar_batches", "Batches by state", ["state"]);
    this.#jobs = this.#gauge("bursar_proof_jobs", "Batches that wait for their proof, by state of the job", ["state"]);
    const settledAt = "When this process last settled; 0: never";
    this.#settledAt = this.#gauge("bursar_last_settlement_timestamp_seconds", settledAt);
    this.#chain = reachable(this.#registry, "chain", options.chain);
    this.#books = reachable(this.#registry, "database", options.chain);
    this.#sender = this.#gauge("bursar_lease_held", "Whether this process is the one that sends and settles");

    this.#settledAt.set(this.#common, 0);
    this.#chain.set(this.#common, 0);
    for (const counter of [this.#settledPayments, this.#gas]) counter.inc(this.#common, 0);
    options.store.database.watch((kind, milliseconds, failure) => {
      this.#database.observe({ ...this.#common, kind }, milliseconds / 1_000);
      const code = failure === undefined ? undefined : databaseCode(failure);
      if (code !== undefined) this.#databaseErrors.inc({ ...this.#common, code });
    });
  }

  accepted(rail: PaymentRail): void {
    this.#accepted.inc({ ...this.#common, rail });
  }

  refused(rail: PaymentRail, code: ErrorCode): void {
    this.#refused.inc({ ...this.#common, rail, code });
  }

  committed(requests: number, milliseconds: number): void {
    this.#groups.observe(this.#common, requests);
    this.#commits.observe(this.#common, milliseconds / 1_000);
  }

  failed(chore: string): void {
    this.#failures.inc({ ...this.#common, chore });
  }

  /** A batch is final on chain, or failed. */
  ended({ state, circuit, payments, provedInMs, gasUsed }: BatchRecord): void {
    if (provedInMs !== null) this.#proofs.observe({ ...this.#common, circuit }, provedInMs / 1_000);
    if (state !== "settled") return;
    this.#settledAt.set(this.#common, Number(this.#options.now()));
    this.#settledPayments.inc(this.#common, payments);
    this.#gas.inc(this.#common, Number(gasUsed ?? 0n));
  }

  /** A transaction is final. @param job - such as `batch:7`: its kind is told. @param cost - wei. */
  paid(job: string, cost: bigint): void {
    this.#fees.inc({ ...this.#common, job: job.split(":", 1)[0]! }, Number(cost) / 1e18);
  }

  /** An alarm began, or is over. */
  alarmed(code: AlarmCode, over: boolean): void {
    this.#alarms.inc({ ...this.#common, code }, over ? -1 : 1);
  }

  chainAnswers(reachable: boolean): void {
    this.#chain.set(this.#common, Number(reachable));
  }

  /** Counts what a server answers, by route and not by URL. */
  watch(server: FastifyInstance): void {
    server.addHook("onResponse", (request, reply, done) => {
      const route = request.routeOptions.url ?? "none";
      this.#requests.inc({ ...this.#common, route, status: reply.statusCode });
      this.#latency.observe({ ...this.#common, route }, reply.elapsedTime / 1_000);
      done();
    });
  }

  /** A server of its own: what it tells is not for the public. */
  server(): FastifyInstance {
    return metricsServer(this.#registry, () => [this]);
  }

  /** Reads the books, unless that was done just now: they are read once for all gauges and for all who ask. */
  async refresh(): Promise<void> {
    this.#sender.set(this.#common, Number(this.#options.isSender()));
    if (performance.now() - this.#readAt < FRESH) return this.#reading;
    this.#readAt = performance.now();
    this.#reading = this.#readBooks();
    return this.#reading;
  }

  /** Of books that do not answer the gauges tell nothing, rather than what was true before. */
  async #readBooks(): Promise<void> {
    const backlog = await this.#backlog();
    this.#books.set(this.#common, Number(backlog !== null));
    const since = (time: bigint | null | undefined): number => Number(this.#options.now() - (time ?? 0n));
    this.#unsettled.set(this.#common, backlog?.payments ?? NaN);
    this.#units.set(this.#common, Number(backlog?.units ?? NaN));
    this.#age.set(this.#common, backlog === null ? NaN : backlog.oldest === null ? 0 : since(backlog.oldest));
    this.#due.set(this.#common, backlog === null || backlog.due === null ? NaN : -since(backlog.due));
    this.#directs.set(this.#common, backlog?.directs ?? NaN);
    for (const [i, seconds] of AGES.entries()) {
      this.#waited.set({ ...this.#common, seconds }, backlog?.older[i] ?? NaN);
    }
    for (const state of STATES) this.#batches.set({ ...this.#common, state }, backlog?.batches[state] ?? NaN);
    const jobs = await this.#options.queue?.counts().catch(() => null);
    for (const [state, count] of Object.entries(jobs ?? {})) this.#jobs.set({ ...this.#common, state }, count);
  }

  async #backlog(): Promise<Awaited<ReturnType<Store["backlog"]>> | null> {
    const late = new Promise<null>((resolve) => setTimeout(resolve, PATIENCE, null).unref());
    return Promise.race([late, this.#options.store.backlog(AGES).catch(() => null)]);
  }

  #counter(name: string, help: string, labels: string[] = []): Counter {
    const options = { name, help, labelNames: this.#labels(labels), registers: [this.#registry] };
    return this.#shared(name, () => new Counter(options));
  }

  #gauge(name: string, help: string, labels: string[] = []): Gauge {
    const options = { name, help, labelNames: this.#labels(labels), registers: [this.#registry] };
    return this.#shared(name, () => new Gauge(options));
  }

  #histogram(name: string, help: string, buckets: number[], labels: string[] = []): Histogram {
    const options = { name, help, buckets, labelNames: this.#labels(labels), registers: [this.#registry] };
    return this.#shared(name, () => new Histogram(options));
  }

  /** What another chain of this process has made, or what is made now. */
  #shared<T>(name: string, make: () => T): T {
    return (this.#registry.getSingleMetric(name) as T | undefined) ?? make();
  }

  #labels(own: readonly string[]): string[] {
    return [...Object.keys(this.#common), ...own];
  }
}

const REACHABLE = {
  chain: ["bursar_chain_reachable", "Whether the chain answered when it was last asked"],
  database: ["bursar_database_reachable", "Whether the books answered when they were last read"],
} as const;

/** What is told of a chain and its books also before its service stands. */
export function reachable(registry: Registry, what: keyof typeof REACHABLE, chain?: string): Gauge {
  const [name, help] = REACHABLE[what];
  const labelNames = chain === undefined ? [] : ["chain"];
  return (
    (registry.getSingleMetric(name) as Gauge | undefined) ??
    new Gauge<string>({ name, help, labelNames, registers: [registry] })
  );
}

const STATES = ["planned", "proving", "proved", "submitted", "settled", "failed"] as const;

/** Names this process among the replicas. */
export const REPLICA = `${hostname()}/${process.pid}`;

/** What a process tells of itself: what runs, and how Node.js fares. */
export function createRegistry(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  new Gauge({
    name: "bursar_build_info",
    help: "What runs, and which of the replicas this is",
    labelNames: ["version", "replica"],
    registers: [registry],
  }).set({ version, replica: REPLICA }, 1);
  return registry;
}

/** Serves what the chains of a process tell. */
export function metricsServer(registry: Registry, chains: () => readonly Pick<Metrics, "refresh">[]): FastifyInstance {
  const server = fastify();
  server.get("/metrics", async (_request, reply) => {
    await Promise.all(chains().map((metrics) => metrics.refresh()));
    return reply.type(registry.contentType).send(await registry.metrics());
  });
  return server;
}

/** What a database calls its failure; a refusal that ended a transaction is none. */
function databaseCode(failure: unknown): string | undefined {
  const { code } = failure as { code?: unknown };
  if (failure instanceof BursarError) return failure.code === "store-unavailable" ? failure.code : undefined;
  return typeof code === "string" && /^\w{1,32}$/.test(code) ? code : undefined;
}
