import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Domain, PageHash } from "@bursar/protocol";
import type { Chain } from "@bursar/relayer";
import { isCallException, type ContractTransactionResponse, type Signer } from "ethers";

import type { TestUSD } from "../../typechain-types/index.ts";
import { hold } from "./broken.ts";
import type { AgentActor, OwnerActor, PayeeActor, ProcessorActor, ProcessorKind } from "./cast.ts";
import type { SimulatedChain } from "./chain.ts";
import { Ghost } from "./ghost.ts";
import type { Proving } from "./office.ts";
import { Random } from "./random.ts";

export interface WorldOptions {
  readonly chain: SimulatedChain;
  readonly prover: Proving;
  readonly hashPage: PageHash;
  /** Steps to draw; 40 unless given. */
  readonly steps?: number;
  /** The two processors, instead of drawn ones. */
  readonly processors?: readonly [ProcessorKind, ProcessorKind];
  /** Which of them are held to an honest processor's promises, whatever they are. */
  readonly sworn?: readonly number[];
  /** Seconds that receipts promise. */
  readonly settleWithin?: bigint;
  /** The verifiers accept everything, for a prover that proves nothing. */
  readonly unproved?: boolean;
  /** Told each line of the log. */
  readonly hear?: (line: string) => void;
  /** Done after the cast stands and before the first step: for tests of the checks themselves. */
  readonly tamper?: (world: World) => Promise<void> | void;
}

/** Everything that a step reads and changes. */
export class World {
  readonly seed: number;
  readonly options: WorldOptions;
  readonly random: Random;
  readonly chain: SimulatedChain;
  readonly contracts: Chain & { readonly dollar: TestUSD };
  readonly ghost = new Ghost();
  readonly folder = mkdtempSync(join(tmpdir(), "bursar-world-"));
  readonly log: string[] = [];
  owners: OwnerActor[] = [];
  payees: PayeeActor[] = [];
  processors: ProcessorActor[] = [];
  readonly agents: AgentActor[] = [];
  /** Token transfers are paused until then. */
  pausedUntil: bigint | null = null;
  /** Somebody challenged what was settled as promised; once is enough, for its proof takes time. */
  accused = false;
  /** Reorganisations that may still come. */
  reorganisations = 4;
  step = 0;
  /** Holds everything against the ghost. @throws PromiseBroken */
  check: () => Promise<void> = () => Promise.resolve();
  readonly #began: bigint;

  constructor(seed: number, options: WorldOptions) {
    this.seed = seed;
    this.options = options;
    this.random = new Random(seed);
    this.chain = options.chain;
    this.contracts = options.chain.contracts();
    this.#began = options.chain.clock;
  }

  get domain(): Domain {
    return { chainId: this.chain.rail.chainId, registry: this.chain.rail.registry };
  }

  /** Who deployed the token. */
  issuer(): Promise<Signer> {
    return this.chain.provider.getSigner(0);
  }

  async close(): Promise<void> {
    for (const { office, second } of this.processors) {
      await office.close();
      await second?.close();
    }
    rmSync(this.folder, { recursive: true });
  }

  /** Writes a line of the log: what was done, and why it was refused if it was. */
  say(what: string, refused: string | null = null): void {
    const seconds = Number(this.chain.clock - this.#began);
    const time = `${String(Math.floor(seconds / 3_600)).padStart(3)} h ${String(Math.floor(seconds / 60) % 60).padStart(2)}`;
    const line = `${String(this.step).padStart(3)} ${time}  ${what}${refused === null ? "" : `: refused, ${refused}`}`;
    this.log.push(line);
    this.options.hear?.(line);
  }

  /** Sends a transaction that a contract may refuse. @returns its reason, or null. */
  async attempt(send: () => Promise<ContractTransactionResponse>): Promise<string | null> {
    try {
      await (await send()).wait();
      return null;
    } catch (error) {
      if (!isCallException(error)) throw error;
      return this.contracts.explain(error);
    }
  }

  /** Sends a transaction that nothing may refuse. */
  async must(send: () => Promise<ContractTransactionResponse>): Promise<void> {
    await (await send()).wait();
  }

  /** @throws PromiseBroken when what may never be taken was taken. */
  expectRefused(promise: string, what: string, refused: string | null): void {
    hold(promise, refused !== null, () => `${what} was taken`);
  }

  /** What an office waits for: a block, and at times the loss of some. */
  async pause(confirmations: number): Promise<void> {
    const { chain, random } = this;
    await chain.mine(chain.clock + BigInt(random.between(2, 12)));
    if (confirmations === 1 || this.reorganisations === 0 || !random.chance(0.2)) return;
    const lost = await chain.reorganise(confirmations - 1);
    if (lost === 0) return;
    --this.reorganisations;
    this.say(`the chain forgets its newest ${lost} blocks`);
  }

  /** Blocks enough that everything before them is final to everybody. */
  async settleDown(): Promise<void> {
    for (let block = 0; block < 3; ++block) await this.chain.mine(this.chain.clock + 2n);
  }
}
