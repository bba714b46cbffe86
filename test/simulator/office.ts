import { join } from "node:path";

import type { Address, Domain, PageHash } from "@bursar/protocol";
import {
  Acknowledgements,
  Answers,
  availableCircuits,
  Chain,
  DirectSettler,
  Outbox,
  Processor,
  receiptKey,
  Settler,
  Store,
  type BatchProver,
  type InclusionProver,
} from "@bursar/relayer";
import type { TransactionResponse, Wallet } from "ethers";

import { InProcessProvider, type SimulatedChain } from "./chain.ts";

/** Where a machine can die, or what can come between it and the chain. */
export type Fault = "dies while proving" | "dies before it broadcasts" | "dies after it broadcast" | "fees jump";

/** What proves batches and answers. */
export type Proving = BatchProver & Pick<InclusionProver, "proveInclusion">;

export interface OfficeOptions {
  readonly chain: SimulatedChain;
  readonly prover: Proving;
  readonly hashPage: PageHash;
  readonly key: Wallet;
  /** Where its books are kept. */
  readonly folder: string;
  readonly name: string;
  readonly confirmations: number;
  /** Seconds that its clock is ahead of the chain's. */
  readonly skew: bigint;
  readonly settleWithin: bigint;
  /** What happens on the chain while it waits so many milliseconds. */
  readonly pause: (milliseconds: number) => Promise<void>;
  /** Told what the service would log as an error. */
  readonly failed: (what: string) => void;
}

type OnBroadcast = (send: () => Promise<TransactionResponse>) => Promise<TransactionResponse>;

/** The node of an office, which the next {@link Fault} comes through. */
class FaultyProvider extends InProcessProvider {
  readonly #onBroadcast: OnBroadcast;

  constructor(chain: SimulatedChain, onBroadcast: OnBroadcast) {
    super(chain.request);
    this.#onBroadcast = onBroadcast;
  }

  override broadcastTransaction(raw: string): Promise<TransactionResponse> {
    return this.#onBroadcast(() => super.broadcastTransaction(raw));
  }
}

/** A processor as `startService` puts it together, on books of its own, which it opens again after it died. */
export class Office {
  readonly chain: Chain;
  /** What comes next. */
  fault: Fault | null = null;
  /** Proofs made so far. */
  proofs = 0;
  deaths = 0;
  store!: Store;
  processor!: Processor;
  settler!: Settler;
  direct!: DirectSettler;
  #acknowledgements!: Acknowledgements;
  #answers!: Answers;
  readonly #options: OfficeOptions;
  readonly #provider: FaultyProvider;
  #die: () => Promise<never> = () => new Promise(() => undefined);

  private constructor(options: OfficeOptions) {
    this.#options = options;
    this.#provider = new FaultyProvider(options.chain, (send) => this.#broadcast(send));
    this.chain = new Chain(options.chain.rail, this.#provider, options.confirmations);
  }

  static async open(options: OfficeOptions): Promise<Office> {
    const office = new Office(options);
    await office.#assemble();
    return office;
  }

  get address(): Address {
    return this.#options.key.address as Address;
  }

  get domain(): Domain {
    return { chainId: this.chain.rail.chainId, registry: this.chain.rail.registry };
  }

  /** Unix seconds. */
  now(): bigint {
    return this.#options.chain.clock + this.#options.skew;
  }

  async close(): Promise<void> {
    await this.store.close();
  }

  /** As after a kill -9: what is on disk is all that is left. */
  async restart(): Promise<void> {
    await this.store.close();
    await this.#assemble();
    await this.processor.reconcile();
  }

  /** What the service does every second. */
  async refresh(): Promise<void> {
    await this.processor.refresh();
    await this.#live(() => this.#acknowledgements.run());
    await this.#live(() => this.direct.run());
  }

  settle(): Promise<void> {
    return this.#live(() => this.settler.run());
  }

  answer(): Promise<void> {
    return this.#live(() => this.#answers.run());
  }

  /** Does a chore; where it dies on the way, it starts again and does it once more. */
  async #live(chore: () => Promise<unknown>): Promise<void> {
    const dead = Symbol();
    const death = new Promise<symbol>((resolve) => {
      this.#die = () => {
        resolve(dead);
        return new Promise<never>(() => undefined);
      };
    });
    if ((await Promise.race([chore(), death])) !== dead) return;
    ++this.deaths;
    await this.restart();
    await this.#live(chore);
  }

  async #broadcast(send: () => Promise<TransactionResponse>): Promise<TransactionResponse> {
    const { fault } = this;
    if (fault === null || fault === "dies while proving") return send();
    this.fault = null;
    if (fault === "dies before it broadcasts") return this.#die();
    if (fault === "fees jump") await this.#options.chain.setBaseFee(30_000_000_000n);
    const sent = await send();
    return fault === "dies after it broadcast" ? this.#die() : sent;
  }

  async #proves<T>(prove: () => Promise<T>): Promise<T> {
    if (this.fault === "dies while proving") {
      this.fault = null;
      return this.#die();
    }
    ++this.proofs;
    return prove();
  }

  async #assemble(): Promise<void> {
    const { prover, hashPage, key, folder, name, confirmations, settleWithin, pause, failed } = this.#options;
    const { chain, domain } = this;
    const now = (): bigint => this.now();
    const store = await Store.open(join(folder, `${name}.db`), { now });
    const signer = key.connect(this.#provider);
    this.store = store;
    this.processor = new Processor({
      domain,
      store,
      chain,
      key: receiptKey(key),
      settleWithin,
      impossible: chain.contracts,
      hashPage,
      now,
    });
    const outbox = new Outbox({
      store,
      provider: this.#provider,
      signer,
      finality: confirmations,
      replaceAfter: 60n,
      pollInterval: 250,
      now,
      sleep: pause,
    });
    const sender = this.address;
    this.settler = new Settler({
      domain,
      store,
      circuits: availableCircuits(chain.rail.circuits),
      gateway: chain,
      prover: { prove: (...statement) => this.#proves(() => prover.prove(...statement)) },
      outbox,
      sender,
      now,
    });
    this.direct = new DirectSettler({ store, gateway: chain, outbox, sender });
    this.#acknowledgements = new Acknowledgements({
      store,
      processor: this.processor,
      chain,
      outbox,
      failed: (agent, { message }) => failed(`a revocation of ${agent} could not be answered: ${message}`),
      now,
    });
    this.#answers = new Answers({
      store,
      chain,
      outbox,
      prover: { proveInclusion: (...statement) => this.#proves(() => prover.proveInclusion(...statement)) },
      settler: this.settler,
      processor: sender,
      failed: ({ id }, { message }) => failed(`the challenge ${id} could not be answered: ${message}`),
    });
  }
}
