import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Address } from "@bursar/protocol";
import { Chain, railOf, type Rail } from "@bursar/relayer";
import { BrowserProvider, Network, NonceManager, toQuantity, type Eip1193Provider } from "ethers";
import { network } from "hardhat";

import { deploy, settingsOf } from "../../deploy/index.ts";
import { TestUSD__factory, type TestUSD } from "../../typechain-types/index.ts";

const CHAIN_ID = 31_337;
/** Unix seconds of the first block: no clock of the machine plays a part. */
const START = 1_900_000_000n;

type Request = (method: string, params: unknown) => Promise<unknown>;

/** An ethers provider over a chain in this process: it says what a node says, without a wait. */
export class InProcessProvider extends BrowserProvider {
  readonly #request: Request;

  constructor(request: Request) {
    const eip1193: Eip1193Provider = { request: ({ method, params }) => request(method, params ?? []) };
    const staticNetwork = Network.from(CHAIN_ID);
    super(eip1193, staticNetwork, { staticNetwork, cacheTimeout: -1, pollingInterval: 1 });
    this.#request = request;
  }

  override async send(method: string, params: unknown[] | Record<string, unknown>): Promise<unknown> {
    try {
      return await this.#request(method, params);
    } catch (error) {
      const { code, message, data } = error as { code: number; message: string; data?: unknown };
      throw this.getRpcError({ id: 1, jsonrpc: "2.0", method, params }, { id: 1, error: { code, message, data } });
    }
  }
}

/** A point to which a reorganisation can go back. */
interface Snapshot {
  readonly id: unknown;
  readonly height: number;
}

/**
 * The contracts as `deploy` makes them, on an EVM in this process whose time is the simulator's: a block comes with each
 * transaction, stamped with {@link clock}, and when it is asked for.
 */
export class SimulatedChain {
  readonly request: Request;
  readonly provider: InProcessProvider;
  /** Unix seconds. */
  clock = START;
  #base: { snapshot: unknown; clock: bigint } = { snapshot: null, clock: START };
  #rail: Rail | undefined;
  /** Before each transaction since {@link beginEpoch}. */
  #epoch: Snapshot[] | null = null;

  private constructor(request: Request) {
    this.request = async (method, params) => {
      if (method === "eth_sendRawTransaction" || method === "eth_sendTransaction") await this.#beforeTransaction();
      return request(method, params);
    };
    this.provider = this.connect();
  }

  static async start(): Promise<SimulatedChain> {
    const connection = await network.create();
    const chain = new SimulatedChain((method, params) =>
      connection.provider.request({ method, params: params as unknown[] }),
    );
    await chain.mine();
    const folder = mkdtempSync(join(tmpdir(), "bursar-simulator-"));
    const deployment = await deploy(new NonceManager(await chain.provider.getSigner(0)), chain.provider, {
      settings: { ...settingsOf(BigInt(CHAIN_ID), {}), verifiers: ["TinyBatchVerifier"] },
      folder,
    });
    rmSync(folder, { recursive: true });
    chain.#rail = railOf(deployment, BigInt(CHAIN_ID), deployment.genesis);
    chain.#base = { snapshot: await chain.request("evm_snapshot", []), clock: chain.clock };
    return chain;
  }

  get rail(): Rail {
    if (!this.#rail) throw new Error("nothing is deployed");
    return this.#rail;
  }

  get token(): Address {
    return this.rail.tokens["tUSD"]!;
  }

  /** The contracts at the tip, called by nobody. */
  contracts(): Chain & { readonly dollar: TestUSD } {
    const chain = new Chain(this.rail, this.provider);
    return Object.assign(chain, { dollar: TestUSD__factory.connect(this.token, this.provider) });
  }

  /** Another provider of the same chain. */
  connect(): InProcessProvider {
    return new InProcessProvider(this.request);
  }

  /** Everything as after the deployment. */
  async reset(): Promise<void> {
    await this.request("evm_revert", [this.#base.snapshot]);
    this.#base = { ...this.#base, snapshot: await this.request("evm_snapshot", []) };
    this.clock = this.#base.clock;
    this.#epoch = null;
  }

  /** Gives an account ether for gas. */
  async endow(account: Address): Promise<void> {
    await this.request("hardhat_setBalance", [account, toQuantity(10n ** 24n)]);
  }

  /** An empty block at the present time, or at a later one. */
  async mine(at = this.clock): Promise<void> {
    await this.#stamp(at);
    await this.request("evm_mine", []);
  }

  /** The base fee of the next block, in wei. */
  async setBaseFee(fee: bigint): Promise<void> {
    await this.request("hardhat_setNextBlockBaseFeePerGas", [toQuantity(fee)]);
  }

  height(): Promise<number> {
    return this.provider.getBlockNumber();
  }

  /** From now on {@link reorganise} can go back, but not beyond this moment. */
  beginEpoch(): void {
    this.#epoch = [];
  }

  endEpoch(): void {
    this.#epoch = null;
  }

  /**
   * The chain forgets its newest blocks and goes on without their transactions.
   * @param depth - the most that it may forget.
   * @returns how many it forgot.
   */
  async reorganise(depth: number): Promise<number> {
    const epoch = this.#epoch ?? [];
    const height = await this.height();
    const index = epoch.findIndex((snapshot) => height - snapshot.height <= depth);
    const target = epoch[index];
    if (!target) return 0;
    await this.request("evm_revert", [target.id]);
    epoch.splice(index);
    await this.mine();
    return height - target.height;
  }

  async #beforeTransaction(): Promise<void> {
    if (this.#epoch) {
      const height = Number(await this.request("eth_blockNumber", []));
      this.#epoch.push({ id: await this.request("evm_snapshot", []), height });
    }
    await this.#stamp(this.clock);
  }

  /** Block times rise: where they would not, the clock gives way. */
  async #stamp(time: bigint): Promise<void> {
    const block = (await this.request("eth_getBlockByNumber", ["latest", false])) as { timestamp: string };
    const earliest = BigInt(block.timestamp) + 1n;
    this.clock = time < earliest ? earliest : time;
    await this.request("evm_setNextBlockTimestamp", [toQuantity(this.clock)]);
  }
}
