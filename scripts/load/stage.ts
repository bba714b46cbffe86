import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import {
  headHex,
  policyRoot,
  signMandate,
  termsHash,
  toWire,
  type Address,
  type Domain,
  type Hex,
  type Mandate,
  type Terms,
} from "@bursar/protocol";
import { Chain, Keyring, postBond, railOf, register } from "@bursar/relayer";
import { hexlify, NonceManager, parseEther, randomBytes, Wallet, type JsonRpcProvider } from "ethers";

import { deploy, settingsOf } from "../../deploy/index.ts";
import { TestUSD__factory } from "../../typechain-types/index.ts";
import { LocalNode } from "../demo/node.ts";
import { createDatabase, startPostgres, type LocalPostgres } from "./postgres.ts";

const TERMS: Terms = { version: 1, purpose: "a load test", categories: [], hosts: [] };
const CAP = 100n;
const SERVICE = fileURLToPath(new URL("../../packages/relayer/bin/bursar.js", import.meta.url));
/** Mandates that are opened side by side. */
const ABREAST = 25;

export interface StageOptions {
  readonly agents: number;
  /** Units of each mandate. */
  readonly budget: bigint;
  readonly replicas: number;
  /** Seconds between batches; 0 settles none. */
  readonly settleEvery: number;
  /** `postgres://…` of an empty database; one of the test's own where replicas need it, else an SQLite file. */
  readonly database?: string | undefined;
}

/** One process of the service. */
export interface Replica {
  readonly pid: number;
  readonly url: string;
}

/** A local chain with the contracts, open mandates, and the service as processes of their own. */
export class Stage {
  readonly folder: string;
  readonly chain: Chain;
  readonly domain: Domain;
  readonly token: Address;
  readonly processor: Address;
  /** Private keys of the agents. */
  readonly keys: readonly Hex[];
  /** URL of the books, or the path of their file. */
  readonly books: string;
  readonly postgres: LocalPostgres | undefined;
  readonly node: LocalNode;
  readonly #provider: JsonRpcProvider;
  readonly #place: readonly string[];
  readonly #settleEvery: number;
  readonly #children: ChildProcess[] = [];
  readonly #urls: string[] = [];

  private constructor(parts: {
    folder: string;
    provider: JsonRpcProvider;
    chain: Chain;
    token: Address;
    processor: Address;
    keys: readonly Hex[];
    books: string;
    postgres: LocalPostgres | undefined;
    node: LocalNode;
    settleEvery: number;
  }) {
    const { folder, provider, chain, token, processor, keys, books, postgres, node, settleEvery } = parts;
    this.#provider = provider;
    this.folder = folder;
    this.chain = chain;
    this.domain = { chainId: chain.rail.chainId, registry: chain.rail.registry };
    this.token = token;
    this.processor = processor;
    this.keys = keys;
    this.books = books;
    this.postgres = postgres;
    this.node = node;
    this.#settleEvery = settleEvery;
    this.#place = [
      ...["--rpc", node.url, "--database", books],
      ...["--home", join(folder, "home")],
      ...["--deployments", join(folder, "deployments")],
    ];
  }

  static async set(options: StageOptions, say: (text: string) => void): Promise<Stage> {
    const folder = mkdtempSync(join(tmpdir(), "bursar-load-"));
    say("a local chain and the contracts");
    const node = await LocalNode.start();
    const provider = node.provider();
    const deployment = await deploy(new NonceManager(await provider.getSigner(0)), provider, {
      settings: settingsOf(31_337n, {}),
      folder: join(folder, "deployments"),
    });
    const chain = new Chain(railOf(deployment, 31_337n, deployment.genesis), provider);
    const token = chain.rail.tokens["tUSD"]!;
    const wallet = (await new Keyring(join(folder, "home", "keys"), "", true).loadOrCreate("processor")).connect(
      provider,
    );
    await bond(chain, provider, wallet, token, options);
    const own = options.database === undefined && options.replicas > 1;
    if (own) say("a PostgreSQL");
    const postgres = own ? await startPostgres() : undefined;
    const books =
      options.database ??
      (postgres === undefined ? join(folder, "processor.db") : await createDatabase(postgres.url, "bursar"));
    const keys = Array.from({ length: options.agents }, () => hexlify(randomBytes(32)) as Hex);
    const processor = wallet.address as Address;
    const { settleEvery } = options;
    const stage = new Stage({ folder, provider, chain, token, processor, keys, books, postgres, node, settleEvery });
    say(options.replicas === 1 ? "the service" : `${options.replicas} replicas of the service`);
    for (let i = 0; i < options.replicas; ++i) await stage.#serve(i);
    say(`${options.agents} mandates`);
    await stage.#open(provider, options);
    return stage;
  }

  get replicas(): Replica[] {
    return this.#children.map(({ pid }, i) => ({ pid: pid!, url: this.#urls[i]! }));
  }

  /** Bytes of an SQLite file with its log; undefined where the books are elsewhere. */
  get bytes(): number | undefined {
    if (this.books.startsWith("postgres")) return undefined;
    return ["", "-wal"].reduce(
      (sum, end) => sum + (statSync(this.books + end, { throwIfNoEntry: false })?.size ?? 0),
      0,
    );
  }

  /** Kills a replica as a power cut would, and starts it again at the same place. */
  async kill(replica: number): Promise<void> {
    const child = this.#children[replica]!;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
    await this.#serve(replica);
  }

  async strike(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    }
    this.#provider.destroy();
    this.node.stop();
    await this.postgres?.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #serve(replica: number): Promise<void> {
    const port = this.#urls[replica] === undefined ? "0" : new URL(this.#urls[replica]).port;
    const options = [
      ...["--port", port, "--settle-every", String(this.#settleEvery), "--log-level", "silent"],
      ...["--payments-per-second", "1000000", "--burst", "1000000"],
    ];
    const child = spawn(process.execPath, [SERVICE, ...this.#place, "serve", ...options], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#children[replica] = child;
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => (said += String(chunk)));
    while (!said.includes("listening on")) {
      if (child.exitCode !== null) throw new Error(`the service did not start:\n${said}`);
      await setTimeout(20);
    }
    this.#urls[replica] = /listening on (\S+)/.exec(said)![1]!;
  }

  /** One owner deposits for all, and opens a mandate for each agent. */
  async #open(provider: JsonRpcProvider, { budget }: StageOptions): Promise<void> {
    const signer = await provider.getSigner(1);
    const owner = new NonceManager(signer);
    const { escrow, registry, rail } = this.chain;
    const amount = budget * BigInt(this.keys.length) * (await escrow.unitScale(this.token));
    const dollar = TestUSD__factory.connect(this.token, owner);
    await (await dollar.mint(signer.address, amount)).wait();
    await (await dollar.approve(rail.escrow, amount)).wait();
    await (await escrow.connect(owner).deposit(this.token, amount, signer.address)).wait();
    const validUntil = BigInt(Math.floor(Date.now() / 1_000)) + 86_400n;
    let nonce = await signer.getNonce();
    for (let from = 0; from < this.keys.length; from += ABREAST) {
      const some = this.keys.slice(from, from + ABREAST);
      await Promise.all(
        some.map(async (key) => {
          const agent = new Wallet(key);
          const mandate = this.#mandate(signer.address as Address, agent.address as Address, budget, validUntil);
          const place = nonce++;
          const [byOwner, byAgent] = [
            await signMandate(signer, this.domain, mandate),
            await signMandate(agent, this.domain, mandate),
          ];
          const overrides = { nonce: place, gasLimit: 1_000_000 };
          const call = { ...mandate, payees: [...mandate.payees] };
          await (await registry.connect(signer).open(call, byOwner, byAgent, overrides)).wait();
          await this.#register(mandate);
        }),
      );
    }
  }

  #mandate(owner: Address, agent: Address, budget: bigint, validUntil: bigint): Mandate {
    const { token, processor } = this;
    const policy = { payees: [], policyRoot: headHex(policyRoot([], CAP)), termsHash: termsHash(TERMS) };
    return { owner, agent, token, budget, paymentCap: CAP, validUntil, processor, ...policy };
  }

  async #register(mandate: Mandate): Promise<void> {
    const answer = await fetch(`${this.#urls[0]!}/mandates`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(toWire({ mandate, terms: TERMS })),
    });
    if (answer.status !== 201) throw new Error(`the service did not take a mandate up: ${await answer.text()}`);
  }
}

/** The processor's bond, as large as the mandates need it. */
async function bond(
  chain: Chain,
  provider: JsonRpcProvider,
  wallet: Wallet,
  token: Address,
  { agents, budget }: StageOptions,
): Promise<void> {
  const faucet = await provider.getSigner(0);
  await (await faucet.sendTransaction({ to: wallet.address, value: parseEther("100") })).wait();
  const signer = new NonceManager(wallet);
  const units = 10_000_000_000n + (budget * BigInt(agents)) / 10n;
  const amount = units * (await chain.escrow.unitScale(token));
  await register(chain, signer, "https://processor.test");
  await (await TestUSD__factory.connect(token, signer).mint(wallet.address, amount)).wait();
  await postBond(chain, signer, { processor: wallet.address as Address, token, units });
}
