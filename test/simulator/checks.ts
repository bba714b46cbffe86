import type { Address } from "@bursar/protocol";
import type { Log } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import { hold, same } from "./broken.ts";
import type { ProcessorActor } from "./cast.ts";
import { Follower } from "./follow.ts";
import { endOf, headOf, remainingOf, TAIL, type GhostMandate } from "./ghost.ts";
import type { World } from "./world.ts";

/** `IMandateRegistry.State.Closed`. */
const CLOSED = 4n;

/** Holds the chain and the books of honest processors against the ghost, after every step. */
export class Checks {
  readonly #world: World;
  readonly #follower: Follower;
  readonly #escrow: Address;
  #seen: number;
  /** How often everything was compared. */
  count = 0;

  constructor(world: World, height: number) {
    this.#world = world;
    this.#seen = height;
    this.#escrow = world.contracts.rail.escrow;
    const accounts = new Map(world.processors.map(({ address, bondAccount }) => [address, bondAccount]));
    this.#follower = new Follower(world.ghost, world.contracts, (processor) => accounts.get(processor) ?? "");
  }

  /** @throws PromiseBroken */
  async run(): Promise<void> {
    const { chain, ghost } = this.#world;
    const height = await chain.height();
    if (height > this.#seen) {
      const logs = await chain.provider.getLogs({ fromBlock: this.#seen + 1, toBlock: height });
      this.#follower.follow(logs, await this.#times(logs));
      this.#seen = height;
    }
    await this.#money();
    for (const mandate of ghost.mandates.values()) await this.#mandate(mandate);
    for (const processor of this.#world.processors) await this.#processor(processor);
    ++this.count;
  }

  /** @throws PromiseBroken unless the escrow's books are the ghost's, and it holds as much. */
  async #money(): Promise<void> {
    const { ghost, contracts, chain } = this.#world;
    const { escrow, dollar } = contracts;
    const { token } = chain;
    for (const [account, free] of ghost.free) {
      same("I2 conservation", `the free balance of ${account}`, await escrow.freeOf(token, account), free);
    }
    for (const [account, credit] of ghost.credits) {
      same("P17 sp_cannot_take", `the credit of ${account}`, await escrow.creditOf(token, account), credit);
    }
    same("I3 locked", "the sum of locks", await escrow.lockedOf(token), ghost.locked);
    same("I2 conservation", "deposits less withdrawals", ghost.deposited - ghost.withdrawn, ghost.held);
    same("I1 solvency", "the escrow's balance", await dollar.balanceOf(this.#escrow), ghost.held);
  }

  async #mandate(ghost: GhostMandate): Promise<void> {
    const { registry } = this.#world.contracts;
    const { agent, budget } = ghost.mandate;
    const record = await registry.mandateOf(agent);
    const debits = record.spent + record.directSpent;
    hold("P1 debits_never_exceed_budget", debits <= budget, () => `${agent} spent ${debits} of ${budget}`);
    same("I4 positions", `the seq of ${agent}`, record.seq, ghost.seq);
    same("I4 positions", `what ${agent} spent`, record.spent, ghost.spent);
    same("I3 per mandate", `what ${agent} spent directly`, record.directSpent, ghost.directSpent);
    same("I8 closed", `whether ${agent} is closed`, record.state === CLOSED, ghost.closed);
    same("I3 per mandate", `the remainder of ${agent}`, await registry.remainingOf(agent), remainingOf(ghost));
    if (!ghost.closed && !ghost.together) {
      same("P20 parameters_bounded", `the end of ${agent}'s windows`, record.closesAt, endOf(ghost) + TAIL);
    }
  }

  async #processor(actor: ProcessorActor): Promise<void> {
    const { ghost, contracts, chain } = this.#world;
    const covered = await contracts.processors.coveredOf(actor.address, chain.token);
    same("I9 leverage", `what covers ${actor.name}`, covered, ghost.coveredOf(actor.address));
    if (!actor.honest) return;
    const bond = ghost.free.get(actor.bondAccount) ?? 0n;
    const kept = bond >= actor.bond || actor.left;
    hold("P15 honest_sp_never_slashed", kept, () => `the bond of ${actor.name} fell to ${bond}`);
    hold("P15 honest_sp_never_slashed", !ghost.slashes.has(actor.address), () => `${actor.name} is slashed`);
    await this.#books(actor);
  }

  /** P12 and P14: nothing that an honest processor took is refused on chain, and it calls nothing settled that is not. */
  async #books({ name, office }: ProcessorActor): Promise<void> {
    const { ghost } = this.#world;
    for (const { mandate } of await office.store.mandates()) {
      const { agent } = mandate;
      const excluded = await office.store.excluded(agent);
      hold("P12 accepted_implies_settleable", excluded === null, () => `${name} cannot settle ${agent}: ${excluded}`);
      const last = (await office.store.lastPayment(agent))?.payment.seq ?? 0n;
      const chain = ghost.mandates.get(agent);
      for (let seq = 1n; seq <= last; ++seq) {
        const status = await office.store.paymentStatus(agent, seq);
        const head = headOf(BigInt((await office.store.payment(agent, seq))!.payment.head));
        const paid = ghost.howPaid(agent, seq, head) === "batch";
        hold("P14 status_is_chain_truth", status !== "settled" || paid, () => {
          return `${name} calls payment ${seq} of ${agent} settled; the chain stands at ${chain?.seq}`;
        });
        const failed = status === "failed" || status === "claimable";
        hold("P12 accepted_implies_settleable", !failed, () => `${name} left payment ${seq} of ${agent} ${status}`);
      }
    }
    const failed = await office.store.batches(["failed"]);
    hold("P13 one_bad_mandate_never_blocks_others", failed.length === 0, () => {
      return `batch ${failed[0]!.id} of ${name} failed: ${failed[0]!.error}`;
    });
  }

  async #times(logs: readonly Log[]): Promise<(block: number) => bigint> {
    const times = new Map<number, bigint>();
    for (const { blockNumber } of logs) {
      if (times.has(blockNumber)) continue;
      const block = await this.#world.chain.provider.getBlock(blockNumber);
      times.set(blockNumber, BigInt(block!.timestamp));
    }
    return (block) => times.get(block)!;
  }
}

/** From when on a receipt can be claimed, in Unix seconds. */
export const claimableAt = (settleBy: bigint): bigint => settleBy + WINDOWS.grace;
