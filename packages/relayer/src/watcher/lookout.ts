import { BursarError, headHex, type Address, type Hex } from "@bursar/protocol";
import type { BaseContract, ContractEventName, EventLog, Log } from "ethers";

import { reach, type Chain } from "../chain.ts";
import type { ChallengeStatus, ClaimStatus } from "./follow.ts";

/** Blocks of logs that a node is asked for at once. */
const LOG_RANGE = 5_000;
const CLAIMS: readonly ClaimStatus[] = ["none", "filed", "cured", "paid", "bonded"];
const CHALLENGES: readonly ChallengeStatus[] = ["none", "open", "answered", "upheld"];
/** Seconds: no receipt promises settlement later than this after its payment. */
const LONGEST_PROMISE = 86_400n;

/** One look at the chain: what is final, at the newest block's time. */
export interface Moment {
  /** The newest final block. */
  readonly block: number;
  /** Unix seconds of the newest block. */
  readonly time: bigint;
}

export interface Windows {
  readonly settleBy: bigint;
  readonly grace: bigint;
  readonly acknowledge: bigint;
  readonly cure: bigint;
}

/** What a claim must know of a mandate. */
export interface MandateFacts {
  readonly settled: bigint;
  readonly endedAt: bigint;
  readonly claimsUntil: bigint;
  readonly abandoned: boolean;
}

/** What a watcher reads from the chain. Every call throws BursarError `chain-unavailable` when no answer comes. */
export class Lookout {
  readonly chain: Chain;
  readonly #fromBlock: number;
  #windows: Windows | undefined;

  /** @param fromBlock - the contracts' first block: nothing is looked for before it. */
  constructor(chain: Chain, fromBlock = 0) {
    this.chain = chain;
    this.#fromBlock = fromBlock;
  }

  async moment(): Promise<Moment> {
    const block = await this.chain.finalBlock();
    const newest = await reach(() => this.chain.provider.getBlock("latest"));
    return { block, time: BigInt(newest?.timestamp ?? 0) };
  }

  async windows(): Promise<Windows> {
    this.#windows ??= await reach(async () => {
      const { settleBy, grace, acknowledge, cure } = await this.chain.registry.windows();
      return { settleBy, grace, acknowledge, cure };
    });
    return this.#windows;
  }

  async mandate(agent: Address, blockTag: number): Promise<MandateFacts> {
    const found = await reach(() => this.chain.registry.claimsOf(agent, { blockTag }));
    const { seq, endedAt, claimsUntil, fallback_ } = found;
    return { settled: seq, endedAt, claimsUntil, abandoned: fallback_ };
  }

  async claim(id: Hex, blockTag: number): Promise<{ status: ClaimStatus; resolvableAt: bigint }> {
    const { status, resolvableAt } = await reach(() => this.chain.claims.claimOf(id, { blockTag }));
    return { status: CLAIMS[Number(status)] ?? "none", resolvableAt };
  }

  async challenge(id: Hex, blockTag: number): Promise<{ status: ChallengeStatus; answerableUntil: bigint }> {
    const { status, answerableUntil } = await reach(() => this.chain.challenges.challengeOf(id, { blockTag }));
    return { status: CHALLENGES[Number(status)] ?? "none", answerableUntil };
  }

  async slash(processor: Address, token: Address, blockTag: number) {
    const found = await reach(() => this.chain.processors.slashOf(processor, token, { blockTag }));
    return { victimsUntil: found.windowEndsAt, finished: found.finished, reporter: found.reporter as Address };
  }

  /** The head of the batch that ended exactly at payment `seq`, or null if none did. */
  async settledHead(
    { agent, seq, settleBy }: { agent: Address; seq: bigint; settleBy: bigint },
    moment: Moment,
  ): Promise<Hex | null> {
    const { settlementContract } = this.chain;
    const filter = settlementContract.filters.MandateSettled(agent);
    for await (const { args } of this.#backwards(
      settlementContract,
      filter,
      settleBy - LONGEST_PROMISE,
      moment.block,
    )) {
      if (args["seq"] === seq) return headHex(args["head"] as bigint);
      if ((args["seq"] as bigint) < seq) return null;
    }
    return null;
  }

  /** Base units that a victim got from a slashed bond, or null if it got nothing. */
  async share(
    { processor, token, id }: { processor: Address; token: Address; id: Hex },
    since: bigint,
    moment: Moment,
  ): Promise<bigint | null> {
    const { processors } = this.chain;
    const filter = processors.filters.VictimPaid(processor, token, id);
    for await (const { args } of this.#backwards(processors, filter, since, moment.block))
      return args["paid"] as bigint;
    return null;
  }

  /** Mandates that an owner opened, in final blocks from `from` on, at most one range of them. */
  async openings(owner: Address, from: number, moment: Moment) {
    const first = Math.max(from, this.#fromBlock);
    const upTo = Math.min(moment.block, first + LOG_RANGE - 1);
    const { registry } = this.chain;
    const filter = registry.filters.MandateOpened(undefined, owner);
    const events = first > upTo ? [] : await this.#events(registry, filter, first, upTo);
    const mandates = events.filter(isParsed).map(({ args }) => ({
      agent: args["agent"] as Address,
      owner: args["owner"] as Address,
      processor: args["processor"] as Address,
      token: args["token"] as Address,
      budget: args["budget"] as bigint,
    }));
    return { upTo, mandates };
  }

  /** Events, oldest first. Of a range that the node will not answer it is asked for the halves. */
  async #events(
    contract: BaseContract,
    filter: ContractEventName,
    from: number,
    to: number,
  ): Promise<(EventLog | Log)[]> {
    try {
      return await reach(() => contract.queryFilter(filter, from, to));
    } catch (error) {
      if (error instanceof BursarError || from === to) throw error;
      const middle = Math.floor((from + to) / 2);
      const first = await this.#events(contract, filter, from, middle);
      return [...first, ...(await this.#events(contract, filter, middle + 1, to))];
    }
  }

  /** Events, newest first, not before `since` (Unix seconds). */
  async *#backwards(
    contract: BaseContract,
    filter: ContractEventName,
    since: bigint,
    newest: number,
  ): AsyncGenerator<EventLog> {
    for (let to = newest; to >= this.#fromBlock; to -= LOG_RANGE) {
      const from = Math.max(this.#fromBlock, to - LOG_RANGE + 1);
      const events = await this.#events(contract, filter, from, to);
      for (const event of events.reverse()) if (isParsed(event)) yield event;
      const oldest = await reach(() => this.chain.provider.getBlock(from));
      if (BigInt(oldest?.timestamp ?? 0) < since) return;
    }
  }
}

const isParsed = (event: EventLog | Log): event is EventLog => "args" in event;
