import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { BursarError, parseAddress, type Address, type Domain } from "@bursar/protocol";
import { formatEther, NonceManager, parseEther, type JsonRpcProvider, type Signer, type Wallet } from "ethers";

import { LOCAL_CHAINS } from "../../../../deploy/index.ts";
import { Alarms } from "../alarms.ts";
import { BatchProofs } from "../batch-proofs.ts";
import { Chain } from "../chain.ts";
import { deploymentPath, railOf, readDeployment, type Rail } from "../deployment.ts";
import { connect } from "../failover.ts";
import { parseGwei } from "../fees.ts";
import { finalityOf, type Finality } from "../finality.ts";
import { Keyring } from "../keyring.ts";
import { Outbox } from "../outbox.ts";
import { openProofQueue } from "../open-proof-queue.ts";
import { Processor, receiptKey } from "../processor.ts";
import type { ProofQueue, ProofQueueOptions } from "../proof-queue.ts";
import { payeeGateOf } from "../service.ts";
import { availableCircuits, Settler, type BatchProver } from "../settler.ts";
import { Store } from "../store.ts";
import { Witness } from "../witness.ts";

export interface SessionOptions {
  /** JSON-RPC URLs of nodes of the chain, the preferred ones first. */
  rpc: readonly string[];
  /** Folder of keys, ledgers and the processor's database. */
  home: string;
  /** `postgres://…`, or the path of an SQLite file; a file in the home unless given. */
  database?: string | undefined;
  /** Folder of deployment records. */
  deployments: string;
  /** File of this chain's record; by its chain id in the folder unless given. */
  deployment?: string | undefined;
  /** Protects the keys. */
  password: string;
  /** Seconds from acceptance to settlement that receipts promise. */
  settleWithin: bigint;
  /** When something on chain counts as final; the chain's own rule unless given. */
  finality?: Finality;
  /** A gas that no transaction of the processor pays more than. */
  maxFeeGwei?: string;
}

export const now = (): bigint => BigInt(Math.floor(Date.now() / 1_000));
/** A path of a processor's API, wherever that stands. */
export const below = (base: string, path: string): URL => new URL(base.replace(/\/$/, "") + path);
export const sleep = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** What one run of a command needs, opened on first use and closed together. */
export class Session {
  readonly options: SessionOptions;
  readonly provider: JsonRpcProvider;
  readonly chainId: bigint;
  readonly genesis: string;
  readonly local: boolean;
  readonly keys: Keyring;
  /** What an operator should know of the chain. */
  readonly alarms: Alarms;
  #store: Promise<Store> | undefined;
  #witness: Witness | undefined;
  #queue: Promise<ProofQueue> | undefined;

  private constructor(options: SessionOptions, connection: Awaited<ReturnType<typeof connect>>, alarms: Alarms) {
    this.options = options;
    this.alarms = alarms;
    this.provider = connection.provider;
    this.chainId = connection.chainId;
    this.genesis = connection.genesis;
    this.local = LOCAL_CHAINS.includes(connection.chainId);
    this.keys = new Keyring(join(options.home, "keys"), options.password, this.local);
  }

  static async open(options: SessionOptions): Promise<Session> {
    const alarms = new Alarms();
    return new Session(options, await connect(options.rpc, { alarms }), alarms);
  }

  async close(): Promise<void> {
    // What could not be opened needs no closing.
    for (const opened of [this.#queue, this.#store]) {
      await opened?.then(
        (one) => one.close(),
        () => undefined,
      );
    }
    this.#witness?.close();
    this.provider.destroy();
  }

  get rail(): Rail {
    const { deployments, deployment } = this.options;
    const path = deployment ?? deploymentPath(deployments, this.chainId);
    return railOf(readDeployment(path), this.chainId, this.genesis);
  }

  get finality(): Finality {
    return this.options.finality ?? finalityOf(this.chainId);
  }

  /** Wei a gas that no transaction of the processor pays more than. */
  get maxFeePerGas(): bigint | undefined {
    const { maxFeeGwei } = this.options;
    return maxFeeGwei === undefined ? undefined : parseGwei(maxFeeGwei);
  }

  get domain(): Domain {
    return { chainId: this.chainId, registry: this.rail.registry };
  }

  get chain(): Chain {
    return new Chain(this.rail, this.provider, this.finality);
  }

  /** The books: where `--database` says, or in a file for each registry, since a new deployment begins a new ledger. */
  store(): Promise<Store> {
    if (!this.#store) {
      mkdirSync(this.options.home, { recursive: true, mode: 0o700 });
      this.#store = Store.open(this.options.database ?? this.#file("processor", "db"));
    }
    return this.#store;
  }

  /** What this machine has told, kept apart from the books. */
  witness(): Witness {
    return (this.#witness ??= Witness.open(this.#file("witness", "log")));
  }

  #file(name: string, kind: string): string {
    return join(this.options.home, `${name}-${this.chainId}-${this.rail.registry.slice(2, 10)}.${kind}`);
  }

  /** The jobs of proving, in the books' database. */
  async queue(options: ProofQueueOptions = {}): Promise<ProofQueue> {
    const { database } = await this.store();
    return (this.#queue ??= openProofQueue(database, options));
  }

  /** Needs the books and the deployment's record, and no key of anybody. */
  async proofs(): Promise<BatchProofs> {
    const { domain, chain } = this;
    const circuits = availableCircuits(this.rail.circuits);
    return new BatchProofs({ domain, store: await this.store(), circuits, gateway: chain });
  }

  async processor(): Promise<Processor> {
    const { settleWithin } = this.options;
    const key = receiptKey(await this.keys.loadOrCreate("processor"));
    const { domain, chain } = this;
    const store = await this.store();
    const gate = await payeeGateOf(chain, now);
    const witness = this.witness();
    const impossible = chain.contracts;
    return new Processor({ domain, store, chain, key, settleWithin, impossible, gate, witness, now });
  }

  /** The one sender of the processor's transactions. */
  async outbox(): Promise<Outbox> {
    const signer = await this.account("processor");
    const { provider, finality, maxFeePerGas } = this;
    const store = await this.store();
    const pace = { replaceAfter: 60n, pollInterval: 500, now, sleep };
    return new Outbox({ store, provider, signer, finality, maxFeePerGas, ...pace });
  }

  async settler(prover: BatchProver): Promise<Settler> {
    const { chain, domain } = this;
    const store = await this.store();
    return new Settler({
      domain,
      store,
      circuits: availableCircuits(this.rail.circuits),
      gateway: chain,
      prover,
      outbox: await this.outbox(),
      sender: parseAddress((await this.keys.loadOrCreate("processor")).address),
      now,
    });
  }

  /** The key `name` with money for gas: a local chain's first account gives some to a new key. */
  async account(name: string): Promise<Wallet> {
    const wallet = (await this.keys.loadOrCreate(name)).connect(this.provider);
    if (this.local && (await this.provider.getBalance(wallet.address)) < parseEther("1")) {
      const faucet = await this.provider.getSigner(0);
      await (await faucet.sendTransaction({ to: wallet.address, value: parseEther("10") })).wait();
    }
    if ((await this.provider.getBalance(wallet.address)) === 0n) {
      throw new BursarError(
        "transaction-failed",
        `The key «${name}» has no money for gas.`,
        { value: formatEther(0n), account: wallet.address },
        `Send some to ${wallet.address}.`,
      );
    }
    return wallet;
  }

  /** Counts nonces itself, so that several transactions can follow each other at once. */
  async sender(name: string): Promise<Signer> {
    return new NonceManager(await this.account(name));
  }

  /** A registered token by symbol or address. @throws BursarError `malformed-input` */
  token(name?: string): Address {
    const { tokens } = this.rail;
    const symbols = Object.keys(tokens);
    const symbol = name ?? symbols[0] ?? "";
    const found =
      tokens[symbol] ?? Object.values(tokens).find((address) => address.toLowerCase() === symbol.toLowerCase());
    if (!found)
      throw new BursarError("malformed-input", `No token «${symbol}».`, { value: symbol, limit: symbols.join(" ") });
    return found;
  }
}
