import { BursarError, type Address } from "@bursar/protocol";
import type { FastifyInstance } from "fastify";
import type { Logger } from "pino";
import type { Registry } from "prom-client";

import { createFront, doorPath, type Door } from "./http/front.ts";
import { createRegistry, metricsServer, reachable } from "./http/metrics.ts";
import { createChainService, type ChainService, type ServiceConfig, type ServiceParts } from "./service.ts";

/** A chain of a service, as far as it is known before anything is asked. */
export interface ServedChain {
  /** Its API stands at `/chains/<name>`. */
  readonly name: string;
  readonly chainId: bigint;
  readonly registry: Address;
  /** Opens its nodes and its books; what cannot be opened yet is tried again. */
  open(): Promise<Omit<ServiceParts, "logger" | "sleep"> & { readonly close: () => Promise<void> }>;
}

export interface ServicesParts {
  /** Of the listeners: what else a chain decides comes with its own parts. */
  readonly config: ServiceConfig;
  readonly chains: readonly ServedChain[];
  readonly logger: Logger;
  readonly sleep: ServiceParts["sleep"];
}

/** One process that serves several chains. */
export interface Services {
  readonly url: string;
  readonly metricsUrl: string | null;
  stop(): Promise<void>;
}

/** Milliseconds after which a chain that could not be opened is tried again. */
const AGAIN = 2_000;

/**
 * Starts a processor on each of several chains behind one listener. Each has its own books, lease, outbox and rounds: one whose
 * chain or database is down holds up no other, and stands as soon as they are back.
 *
 * @throws {@link BursarError} `malformed-input` when two chains have the same contracts.
 */
export async function startServices({ config, chains, logger, sleep }: ServicesParts): Promise<Services> {
  expectDistinct(chains);
  const registry = createRegistry();
  const starts = chains.map((chain) => new ChainStart(chain, { registry, logger, sleep }));
  const { host, port, metricsHost, metricsPort, origins, bodyLimit, maxConnections } = config;
  const front = createFront(starts, { logger, origins, bodyLimit, maxConnections });
  const standing = () => starts.flatMap(({ service }) => (service === null ? [] : [service.metrics]));
  const metrics = metricsPort === null ? null : metricsServer(registry, standing);
  const stop = async (): Promise<void> => {
    const ends = Promise.all(starts.map((start) => start.stop()));
    await front.close();
    await ends;
    await metrics?.close();
  };
  try {
    const metricsUrl = (await metrics?.listen({ host: metricsHost, port: metricsPort! })) ?? null;
    const url = await front.listen({ host, port });
    for (const start of starts) start.begin();
    return { url, metricsUrl, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Brings one chain's service up, as often as it takes. */
class ChainStart implements Door {
  readonly name: string;
  readonly chainId: bigint;
  readonly registry: Address;
  service: ChainService | null = null;
  failure: BursarError | null = null;
  readonly #chain: ServedChain;
  readonly #shared: { registry: Registry; logger: Logger; sleep: ServiceParts["sleep"] };
  readonly #stopping = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #close = (): Promise<void> => Promise.resolve();

  constructor(chain: ServedChain, shared: { registry: Registry; logger: Logger; sleep: ServiceParts["sleep"] }) {
    ({ name: this.name, chainId: this.chainId, registry: this.registry } = chain);
    this.#chain = chain;
    this.#shared = { ...shared, logger: shared.logger.child({ chain: chain.name }) };
  }

  get server(): FastifyInstance | null {
    return this.service?.server ?? null;
  }

  begin(): void {
    this.#running = this.#untilItStands();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    await this.service?.stop();
    await this.#close();
  }

  async #untilItStands(): Promise<void> {
    const { logger, sleep } = this.#shared;
    const { signal } = this.#stopping;
    while (this.service === null && !signal.aborted) {
      try {
        await this.#open();
      } catch (error) {
        this.#tell(error);
        await sleep(AGAIN, signal);
      }
    }
    if (this.service !== null) logger.info({ path: doorPath(this.name) }, "stands");
  }

  async #open(): Promise<void> {
    const { registry, logger, sleep } = this.#shared;
    const { close, ...parts } = await this.#chain.open();
    try {
      const shared = { registry, chain: this.name };
      const service = await createChainService({ ...parts, logger, sleep }, shared);
      await service.server.ready();
      this.#close = close;
      this.service = service;
      service.start();
    } catch (error) {
      await close();
      throw error;
    }
  }

  /** What is told stands in the log: a caller hears the code alone. */
  #tell(error: unknown): void {
    const { registry, logger } = this.#shared;
    this.failure = error instanceof BursarError ? error : null;
    const what = this.failure?.code === "store-unavailable" ? "database" : "chain";
    reachable(registry, what, this.name).set({ chain: this.name }, 0);
    logger.warn({ code: this.failure?.code, reason: (error as Error).message }, "cannot start, will be tried again");
  }
}

function expectDistinct(chains: readonly ServedChain[]): void {
  const places = chains.map(({ chainId, registry }) => `${chainId} ${registry}`);
  const i = places.findIndex((place, at) => places.indexOf(place) < at);
  if (i < 0) return;
  throw new BursarError(
    "malformed-input",
    `${chains[places.indexOf(places[i]!)]!.name} and ${chains[i]!.name} are the same contracts.`,
    { value: places[i]! },
    "Each chain's contracts have one set of books: name them once.",
  );
}
