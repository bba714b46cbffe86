import type { ErrorCode } from "@bursar/protocol";
import fastify, { type FastifyInstance } from "fastify";
import { Counter, Gauge, Histogram, Registry } from "prom-client";

import type { AlarmCode } from "../alarms.ts";
import type { ProcessorEvents } from "../events.ts";
import type { ProofQueue } from "../proof-queue.ts";
import type { PaymentRail } from "../records.ts";
import type { Store } from "../store.ts";

/** What an operator watches, in the text format of Prometheus. It names no account and no amount of anybody. */
export class Metrics implements ProcessorEvents {
  readonly #registry = new Registry();
  readonly #requests = this.#counter("bursar_http_requests_total", "Requests answered", ["route", "status"]);
  readonly #accepted = this.#counter("bursar_payments_accepted_total", "Payments accepted", ["rail"]);
  readonly #refused = this.#counter("bursar_payments_refused_total", "Payments refused", ["rail", "code"]);
  readonly #failures = this.#counter("bursar_chore_failures_total", "Rounds that failed, such as settling", ["chore"]);
  readonly #alarms = this.#gauge("bursar_chain_alarms", "Alarms that are not over", ["code"]);
  readonly #latency = new Histogram({
    name: "bursar_http_duration_seconds",
    help: "From request to answer",
    labelNames: ["route"],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30],
    registers: [this.#registry],
  });
  readonly #groups = new Histogram({
    name: "bursar_commit_requests",
    help: "Requests that shared a commit",
    buckets: [1, 2, 4, 8, 16, 32, 64],
    registers: [this.#registry],
  });
  readonly #commits = new Histogram({
    name: "bursar_commit_seconds",
    help: "Duration of a commit, fsync included",
    buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1],
    registers: [this.#registry],
  });

  readonly #unsettled = this.#gauge("bursar_unsettled_payments", "Accepted and not settled");
  readonly #units = this.#gauge("bursar_unsettled_units", "Their sum");
  readonly #age = this.#gauge("bursar_oldest_unsettled_seconds", "Age of the oldest of them");
  readonly #batches = this.#gauge("bursar_batches", "Batches by state", ["state"]);
  readonly #jobs = this.#gauge("bursar_proof_jobs", "Batches that wait for their proof, by state of the job", [
    "state",
  ]);
  readonly #settledAt = this.#gauge(
    "bursar_last_settlement_timestamp_seconds",
    "When this process last settled; 0: never",
  );
  readonly #chain = this.#gauge("bursar_chain_reachable", "Whether the chain answered when it was last asked");
  readonly #store: Pick<Store, "backlog">;
  readonly #now: () => bigint;
  readonly #queue: Pick<ProofQueue, "counts"> | undefined;

  /** @param now - Unix seconds. */
  constructor(store: Pick<Store, "backlog">, now: () => bigint, queue?: Pick<ProofQueue, "counts">) {
    this.#store = store;
    this.#now = now;
    this.#queue = queue;
  }

  accepted(rail: PaymentRail): void {
    this.#accepted.inc({ rail });
  }

  refused(rail: PaymentRail, code: ErrorCode): void {
    this.#refused.inc({ rail, code });
  }

  committed(requests: number, milliseconds: number): void {
    this.#groups.observe(requests);
    this.#commits.observe(milliseconds / 1_000);
  }

  failed(chore: string): void {
    this.#failures.inc({ chore });
  }

  /** A batch is final on chain. */
  settled(): void {
    this.#settledAt.set(Number(this.#now()));
  }

  /** An alarm began, or is over. */
  alarmed(code: AlarmCode, over: boolean): void {
    this.#alarms.inc({ code }, over ? -1 : 1);
  }

  chainAnswers(reachable: boolean): void {
    this.#chain.set(Number(reachable));
  }

  /** Counts what a server answers, by route and not by URL. */
  watch(server: FastifyInstance): void {
    server.addHook("onResponse", (request, reply, done) => {
      const route = request.routeOptions.url ?? "none";
      this.#requests.inc({ route, status: reply.statusCode });
      this.#latency.observe({ route }, reply.elapsedTime / 1_000);
      done();
    });
  }

  /** A server of its own: what it tells is not for the public. */
  server(): FastifyInstance {
    const server = fastify();
    server.get("/metrics", async (_request, reply) => {
      await this.#readBooks();
      return reply.type(this.#registry.contentType).send(await this.#registry.metrics());
    });
    return server;
  }

  /** Once for all gauges: payments wait while the books are read. */
  async #readBooks(): Promise<void> {
    const { payments, units, oldest, batches } = await this.#store.backlog();
    this.#unsettled.set(payments);
    this.#units.set(Number(units));
    this.#age.set(oldest === null ? 0 : Number(this.#now() - oldest));
    for (const [state, count] of Object.entries(batches)) this.#batches.set({ state }, count);
    if (!this.#queue) return;
    for (const [state, count] of Object.entries(await this.#queue.counts())) this.#jobs.set({ state }, count);
  }

  #counter<T extends string>(name: string, help: string, labelNames: T[]): Counter<T> {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  #gauge<T extends string>(name: string, help: string, labelNames: T[] = []): Gauge<T> {
    return new Gauge({ name, help, labelNames, registers: [this.#registry] });
  }
}
