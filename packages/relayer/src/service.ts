import { BursarError, type Address } from "@bursar/protocol";
import { inclusionSize } from "@bursar/prover";
import type { FastifyInstance } from "fastify";
import type { Logger } from "pino";
import type { BaseWallet, JsonRpcApiProvider } from "ethers";

import { Acknowledgements } from "./acknowledgements.ts";
import { Alarms, type Alarm } from "./alarms.ts";
import { Answers, type InclusionProver } from "./answers.ts";
import { ApiKeys } from "./api-keys.ts";
import { BatchProofs } from "./batch-proofs.ts";
import { gasPriceOf, reach, type Chain } from "./chain.ts";
import { Closings } from "./closings.ts";
import { DirectSettler } from "./direct.ts";
import { EvidenceBook } from "./evidence-book.ts";
import { aep2Routes } from "./http/aep2.ts";
import { closingRoutes } from "./http/closings.ts";
import { disputeRoutes } from "./http/disputes.ts";
import type { Place } from "./http/info.ts";
import { intentRoutes } from "./http/intents.ts";
import { Metrics, type MetricsOptions } from "./http/metrics.ts";
import { payeeRoutes } from "./http/payees.ts";
import { createServer } from "./http/server.ts";
import { x402Routes } from "./http/x402.ts";
import type { Finality } from "./finality.ts";
import { IntentBook, Intents } from "./intents.ts";
import { Outbox } from "./outbox.ts";
import { Lease } from "./lease.ts";
import { openProofQueue } from "./open-proof-queue.ts";
import { loadPageHash } from "./page-hash.ts";
import { PayeeGate } from "./payee-gate.ts";
import { MAX_WAIT, type BatchPolicy } from "./planner.ts";
import { Processor, receiptKey } from "./processor.ts";
import { Profiles } from "./profiles.ts";
import type { ProofQueue } from "./proof-queue.ts";
import { ProofWorker, type KeyedProver, type ProofNews } from "./proof-worker.ts";
import { Rate } from "./rate.ts";
import { Rounds } from "./rounds.ts";
import { SettledCheck } from "./settled-check.ts";
import { availableCircuits, Settler, type BatchProver, type Circuit } from "./settler.ts";
import type { Store } from "./store.ts";
import type { Witness } from "./witness.ts";

/** What an operator decides. */
export interface ServiceConfig {
  readonly host: string;
  /** 0 takes any that is free. */
  readonly port: number;
  readonly metricsHost: string;
  /** null serves no metrics, 0 takes any port that is free. */
  readonly metricsPort: number | null;
  /** Where the API stands for the public, such as `https://pay.example`; signing links are relative without it. */
  readonly publicUrl: string;
  /** Seconds from acceptance to settlement that receipts promise. */
  readonly settleWithin: bigint;
  /** Seconds that the machine's clock may be behind the chain's; null on a local chain. */
  readonly maxSkew: bigint | null;
  /** Seconds that a payment waits for a fuller batch; 0 settles batches by hand. */
  readonly settleEvery: number;
  /** When something on chain counts as final. */
  readonly finality: Finality;
  /** Wei a gas that no transaction pays more than. */
  readonly maxFeePerGas?: bigint | undefined;
  /** Wei for gas in any 24 hours, above which what may wait does. */
  readonly gasBudget?: bigint | undefined;
  /** Wei on the account, below which what may wait does. */
  readonly minBalance?: bigint | undefined;
  /** Wei for a unit of gas above which a batch waits, though never past its promises; null settles at any price. */
  readonly settleBelow: bigint | null;
  /** Seconds after which a transaction is replaced at a higher fee. */
  readonly replaceAfter: bigint;
  /** Payments of one mandate. */
  readonly paymentsPerSecond: number;
  readonly burst: number;
  /** Requests of one client address, twice as many at once; 0 for any number. */
  readonly requestsPerSecond: number;
  /** Proxies whose `X-Forwarded-For` is believed. */
  readonly trustedProxies: readonly string[];
  /** Origins whose pages may call. */
  readonly origins: readonly string[];
  /** Bytes. */
  readonly bodyLimit: number;
  readonly maxConnections: number;
}

export const SERVICE_DEFAULTS: ServiceConfig = {
  host: "127.0.0.1",
  port: 8402,
  metricsHost: "127.0.0.1",
  metricsPort: null,
  publicUrl: "",
  settleWithin: 3_600n,
  maxSkew: 60n,
  settleEvery: MAX_WAIT,
  settleBelow: null,
  finality: 1,
  replaceAfter: 60n,
  paymentsPerSecond: 200,
  burst: 400,
  requestsPerSecond: 0,
  trustedProxies: [],
  origins: [],
  bodyLimit: 65_536,
  maxConnections: 10_000,
};

export interface ServiceParts {
  readonly config: ServiceConfig;
  readonly chain: Chain;
  readonly provider: JsonRpcApiProvider;
  readonly store: Store;
  /** What this process has told, kept apart from the books; see {@link Witness}. */
  readonly witness?: Witness;
  /** Signs receipts and sends transactions: the mandates' processor, with money for gas. */
  readonly signer: BaseWallet;
  readonly prover: BatchProver & InclusionProver;
  /** Those that prove batches in this process, side by side; `prover` unless given, none where others do. */
  readonly provers?: readonly KeyedProver[];
  readonly logger: Logger;
  /** What the nodes, the transactions and the settled batches raise is logged and counted. */
  readonly alarms?: Alarms | undefined;
  /** Unix seconds. */
  readonly now: () => bigint;
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly sleep: (milliseconds: number, signal?: AbortSignal) => Promise<unknown>;
}

export interface Service {
  readonly url: string;
  readonly metricsUrl: string | null;
  readonly processor: Processor;
  readonly settler: Settler;
  /** Takes nothing more, answers what it has begun to answer, and ends. What is unfinished goes on at the next start. */
  stop(): Promise<void>;
}

/** The chore that asks the chain every second. */
const REFRESH = "revocations";

/** Seconds between looks for a batch that is due, at most. */
const LOOK_FOR_BATCHES = 5;

/** Milliseconds that a chore may take to end when the service stops; what it does is recorded step by step. */
const PATIENCE = 10_000;

/** A processor on one chain: its API, which does not listen yet, and its rounds. */
export interface ChainService extends Pick<Service, "processor" | "settler"> {
  readonly server: FastifyInstance;
  readonly metrics: Metrics;
  /** Begins the rounds. */
  start(): void;
  /** Takes nothing more, answers what it has begun to answer, and ends. */
  stop(): Promise<void>;
}

/**
 * Starts a processor: the API, the metrics, and the rounds that settle.
 *
 * @throws {@link BursarError} `malformed-input` when receipts would promise more time than the deployment gives;
 * `chain-unavailable`.
 */
export async function startService(parts: ServiceParts): Promise<Service> {
  const { host, port, metricsHost, metricsPort } = parts.config;
  const { server, metrics, processor, settler, ...service } = await createChainService(parts);
  const metricsServer = metricsPort === null ? null : metrics.server();
  const stop = async (): Promise<void> => {
    await service.stop();
    await metricsServer?.close();
  };
  try {
    // The metrics come first: nothing is answered by a service that does not start.
    const metricsUrl = (await metricsServer?.listen({ host: metricsHost, port: metricsPort! })) ?? null;
    const url = await server.listen({ host, port });
    service.start();
    return { url, metricsUrl, processor, settler, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/**
 * Puts the parts of a processor together.
 * @param shared - what it has in common with those of other chains in this process.
 * @throws {@link BursarError} like {@link startService}.
 */
export async function createChainService(
  parts: ServiceParts,
  shared: Pick<MetricsOptions, "registry" | "chain"> = {},
): Promise<ChainService> {
  const queue = await openProofQueue(parts.store.database);
  try {
    return await createWith(queue, parts, shared);
  } catch (error) {
    await queue.close();
    throw error;
  }
}

async function createWith(
  queue: ProofQueue,
  parts: ServiceParts,
  shared: Pick<MetricsOptions, "registry" | "chain">,
): Promise<ChainService> {
  const { config, chain, provider, store, signer, prover, logger, now, alarms = new Alarms() } = parts;
  await expectWithin(config.settleWithin, chain);
  const sender = signer.address as Address;
  const lease = new Lease({ database: store.database, name: `sending as ${sender} on chain ${chain.rail.chainId}` });
  const metrics = new Metrics({ store, now, isSender: () => lease.held, queue, ...shared });
  const outbox = outboxOf(parts, alarms, lease, metrics);
  const key = receiptKey(signer);
  const domain = { chainId: chain.rail.chainId, registry: chain.rail.registry };
  const rate = new Rate({ perSecond: config.paymentsPerSecond, burst: config.burst, clock: () => performance.now() });
  const processor = new Processor({
    domain,
    store,
    chain,
    key,
    settleWithin: config.settleWithin,
    impossible: chain.contracts,
    gate: await payeeGateOf(chain, now),
    hashPage: await loadPageHash(),
    events: metrics,
    witness: parts.witness,
    maxSkew: config.maxSkew,
    admit: (agent) => rate.admit(agent),
    now,
  });
  const circuits = availableCircuits(chain.rail.circuits);
  await expectAnswers(circuits, parts);
  const policy = config.settleEvery === 0 ? undefined : () => policyOf(parts);
  const settler = new Settler({ domain, store, circuits, gateway: chain, prover, queue, outbox, sender, policy, now });
  const proofs = new BatchProofs({ domain, store, circuits, gateway: chain });
  const told = (news: ProofNews): void => tellProof(news, logger);
  const workers = (parts.provers ?? [prover]).map(
    (one) => new ProofWorker({ queue, proofs, prover: one, circuits, told }),
  );
  const direct = new DirectSettler({ store, gateway: chain, outbox, sender, lease });
  const acknowledgements = new Acknowledgements({
    store,
    processor,
    chain,
    outbox,
    failed: (agent, { message }) => logger.error({ agent, reason: message }, "a revocation could not be answered"),
    now,
  });
  const settled = new SettledCheck({ store, provider, outbox, settlement: chain.settlement, alarms });
  const answers = new Answers({
    store,
    chain,
    outbox,
    prover,
    settler,
    processor: sender,
    failed: (challenge, { message }) => {
      metrics.failed("answers");
      logger.error({ challenge, reason: message }, "a challenge could not be answered");
    },
  });
  const closings = new Closings({
    store,
    processor,
    chain,
    outbox,
    key,
    sender,
    failed: (agent, { message }) => logger.error({ agent, reason: message }, "a mandate could not be ended together"),
    now,
  });
  const book = new IntentBook(store.database);
  const deliver = outbox.deliver.bind(outbox);
  const intents = new Intents({ domain, book, processor, chain, deliver, publicUrl: config.publicUrl, now });
  const place = await placeOf(chain);
  const directDomain = { chainId: domain.chainId, direct: chain.direct };

  await processor.reconcile();
  const { promised, missing } = await processor.completeness();
  if (missing > 0) logger.error({ promised, missing }, "receipts are missing in the books: nothing is signed");
  const server = createServer(processor, {
    place,
    keys: new ApiKeys(store.database, now),
    metrics,
    logger,
    origins: config.origins,
    bodyLimit: config.bodyLimit,
    maxConnections: config.maxConnections,
    admit: admission(config.requestsPerSecond),
    trustedProxies: config.trustedProxies,
    routes: [
      (readers) =>
        intentRoutes({ intents, domain, now, mayRead: (request, mandate) => readers.mayRead(request, mandate) }),
      () => closingRoutes(closings),
      () => payeeRoutes(processor, store, new Profiles(store.database)),
      (readers) => disputeRoutes({ chain, book: new EvidenceBook(store.database), readers, now }),
      () =>
        x402Routes({
          processor,
          settler: direct,
          store,
          domain,
          direct: chain.direct,
          tokens: chain.rail.tokens,
          address: sender,
          now,
        }),
      () =>
        aep2Routes({ processor, settler: direct, store, domain: directDomain, key, settleWithin: config.settleWithin }),
    ],
  });
  const dead = new Set<number>();
  const rounds = new Rounds({
    chores: [
      { name: REFRESH, every: 1_000, run: () => processor.refresh().then(() => metrics.chainAnswers(true)) },
      { name: "balance", every: 60_000, run: () => reach(() => outbox.watchBalance()) },
      ...[
        { name: "acknowledgements", every: 1_000, run: () => acknowledgements.run() },
        { name: "closings", every: 5_000, run: () => closings.run() },
        { name: "answers", every: 5_000, run: () => answers.run() },
        { name: "intents", every: 5_000, run: () => intents.resume() },
        { name: "direct", every: 1_000, run: () => direct.run() },
        { name: "settlements", every: 60_000, run: () => settled.run() },
        ...(config.settleEvery === 0
          ? []
          : [
              {
                name: "batches",
                every: Math.min(config.settleEvery, LOOK_FOR_BATCHES) * 1_000,
                run: () => settler.begin(),
              },
              { name: "proved", every: 1_000, run: () => settle(settler, metrics, logger) },
            ]),
      ].map(({ run, ...chore }) => ({ ...chore, run: () => lease.run<unknown>(run) })),
      { name: "proof jobs", every: 5_000, run: () => tellDead(queue, dead, logger) },
    ],
    failed: (chore, error) => {
      metrics.failed(chore);
      if (chore === REFRESH) metrics.chainAnswers(false);
      logger.warn(
        { chore, code: (error as { code?: unknown }).code, reason: (error as Error).message },
        "will be tried again",
      );
    },
    sleep: (milliseconds, signal) => parts.sleep(milliseconds, signal),
  });
  const start = (): void => {
    alarms.listen((alarm, over) => tellAlarm(alarm, over, metrics, logger));
    rounds.start();
    for (const worker of workers) worker.start();
  };
  return { server, metrics, processor, settler, start, stop: () => stop(server, rounds, lease, workers, queue) };
}

function admission(perSecond: number): ((address: string) => void) | undefined {
  if (perSecond === 0) return undefined;
  const rate = new Rate({ perSecond, burst: 2 * perSecond, clock: () => performance.now() });
  return (address) => rate.admit(address);
}

async function stop(
  server: FastifyInstance,
  rounds: Rounds,
  lease: Lease,
  workers: readonly ProofWorker[],
  queue: ProofQueue,
): Promise<void> {
  await server.close();
  await Promise.all([rounds.stop(PATIENCE), ...workers.map((worker) => worker.stop(PATIENCE))]);
  await queue.close();
  // Where the database is gone the lease ends by itself.
  await lease.release().catch(() => undefined);
}

async function policyOf({ config, provider }: ServiceParts): Promise<BatchPolicy> {
  const { settleEvery, settleBelow } = config;
  const isCheap = settleBelow === null || (await reach(() => gasPriceOf(provider))) <= settleBelow;
  return { maxWait: settleEvery, isCheap };
}

function settle(settler: Settler, metrics: Metrics, logger: Logger): Promise<unknown> {
  return settler.settle({
    ended: (batch) => {
      const { id, state, payments, gasUsed, error } = batch;
      metrics.ended(batch);
      logger.info({ batch: id, state, payments, gasUsed: gasUsed?.toString(), error }, "batch ended");
    },
  });
}

function tellProof({ kind, ...news }: ProofNews, logger: Logger): void {
  const error = "error" in news ? { code: (news.error as { code?: unknown }).code, reason: news.error.message } : {};
  logger[NEWS[kind]]({ ...news, ...error }, `proof ${kind}`);
}

const NEWS = {
  begun: "debug",
  proved: "info",
  dropped: "info",
  returned: "info",
  failed: "warn",
  unreached: "warn",
  keyless: "error",
} as const;

/** Whichever worker gave a batch up, and wherever it ran: told of once for each time that it happens. */
async function tellDead(queue: ProofQueue, told: Set<number>, logger: Logger): Promise<void> {
  const dead = await queue.dead();
  for (const { batch, circuit, reason } of dead) {
    if (!told.has(batch)) logger.error({ batch, circuit, reason }, "a batch is not proved: see `bursar prove --retry`");
  }
  told.clear();
  for (const { batch } of dead) told.add(batch);
}

function tellAlarm(alarm: Alarm, over: boolean, metrics: Metrics, logger: Logger): void {
  metrics.alarmed(alarm.code, over);
  const { code, about, message, value, limit } = alarm;
  const told = { alarm: code, about, value: String(value), ...(limit === undefined ? {} : { limit: String(limit) }) };
  if (over) logger.info(told, "over: " + message);
  else logger.error(told, message);
}

/** The gate that payments are asked about, if the deployment has one that does not let everyone in. */
export async function payeeGateOf(chain: Chain, now: () => bigint): Promise<PayeeGate | undefined> {
  const address = await chain.gate();
  if (address === null) return undefined;
  return new PayeeGate({ address, mayBePaid: (payee, token) => chain.mayBePaid(address, payee, token), now });
}

/** The one sender of the processor's transactions. */
function outboxOf(
  { config, store, provider, signer, now, sleep }: ServiceParts,
  alarms: Alarms,
  lease: Lease,
  metrics: Metrics,
): Outbox {
  const { finality, replaceAfter, maxFeePerGas, gasBudget, minBalance } = config;
  const wait = async (milliseconds: number): Promise<void> => {
    await sleep(milliseconds);
  };
  const bounds = { maxFeePerGas, gasBudget, minBalance, alarms };
  const pace = { replaceAfter, pollInterval: 250, now, sleep: wait };
  const paid = (job: string, cost: bigint): void => metrics.paid(job, cost);
  return new Outbox({ store, provider, signer, finality, lease, paid, ...bounds, ...pace });
}

async function placeOf(chain: Chain): Promise<Place> {
  const { escrow, settlement, direct, tokens } = chain.rail;
  const scales = Object.entries(tokens).map(async ([symbol, address]) => {
    const unitScale = await chain.escrow.unitScale(address);
    return [symbol, { address, unitScale }] as const;
  });
  return { escrow, settlement, direct, tokens: Object.fromEntries(await Promise.all(scales)) };
}

/** Says before anything is settled what could not be answered for: there is time to bring the key. */
async function expectAnswers(circuits: readonly Circuit[], { chain, prover, logger }: ServiceParts): Promise<void> {
  const { inclusions } = chain.rail;
  for (const { size } of circuits) {
    const found = await prover.ready(inclusionSize(size)).catch((error: unknown) => (error as Error).message);
    if (found === inclusions[size.name]) continue;
    logger.error({ circuit: size.name, found }, "challenges of batches of this circuit could not be answered");
  }
}

async function expectWithin(settleWithin: bigint, chain: Chain): Promise<void> {
  const { settleBy } = await chain.windows();
  if (settleWithin <= settleBy) return;
  throw new BursarError(
    "malformed-input",
    `Receipts would promise settlement within ${settleWithin} s; the contracts give ${settleBy} s.`,
    { value: settleWithin, limit: settleBy },
    "Lower --settle-within.",
  );
}
