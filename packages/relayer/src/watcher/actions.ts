import { BursarError, type Address, type Hex } from "@bursar/protocol";
import type { Logger } from "pino";

import { reach, type Chain } from "../chain.ts";
import type { Outbox } from "../outbox.ts";
import type { Alerts } from "./alerts.ts";
import type { Action, ActionKind, WatchBook } from "./book.ts";

export interface ActionsOptions {
  readonly book: WatchBook;
  readonly chain: Chain;
  readonly outbox: Pick<Outbox, "deliver" | "begun">;
  /** Who sends them. */
  readonly account: Address;
  readonly alerts: Alerts;
  readonly logger: Logger;
  /** Unix seconds. */
  readonly now: () => bigint;
}

/** A call that is about several things, such as the claims of several receipts. */
export interface GroupCall<T> {
  readonly kind: ActionKind;
  readonly target: Address;
  readonly things: readonly T[];
  readonly subjectOf: (thing: T) => string;
  readonly encode: (things: readonly T[]) => string;
}

/** Things in one call at most, and the gas that it may take. */
const LARGEST_GROUP = 40;
const MOST_GAS = 8_000_000n;
/** Seconds until something that failed is tried again, doubled with each failure. */
const FIRST_DELAY = 60n;
const LONGEST_DELAY = 21_600n;
/** What the contracts answer when it is too early, or somebody else was first: nothing to tell anyone. */
const QUIET =
  /^(NotMissed|SettledAlready|AlreadyFiled|NotFiled|NotResolvable|NotSettled|ChallengeExists|ChallengeNotOpen|AnswerStillPossible|VictimsNotCounted|NoVictim|SlashFinishedAlready|ClaimsPending|TooEarlyToClose)\(/;

/**
 * What the watcher sends. Each transaction is recorded with what it is about before it exists, so that after a crash it is
 * finished and never decided on again.
 */
export class Actions {
  readonly #options: ActionsOptions;
  readonly #running = new Map<number, Promise<void>>();

  constructor(options: ActionsOptions) {
    this.#options = options;
  }

  /** Whether an action of this kind may be decided on now: none is under way, and none has failed a moment ago. */
  free(kind: ActionKind, subject: string, busy = this.#busy(kind)): boolean {
    const { book, now } = this.#options;
    if (busy.has(subject)) return false;
    const { count, last } = book.failures(kind, subject);
    if (count === 0) return true;
    const delay = FIRST_DELAY << BigInt(Math.min(count - 1, 16));
    return now() >= last + (delay < LONGEST_DELAY ? delay : LONGEST_DELAY);
  }

  /** Records a call that takes about so much gas; {@link start} sends it. */
  decide(kind: ActionKind, subjects: readonly string[], target: Address, data: string, gas: bigint): void {
    this.#options.book.decide({ kind, subjects, target, data: data as Hex, gas });
  }

  /**
   * Records calls about all of these things that the contract would take, in as few as bounds on size and gas allow.
   * @returns what was refused of each that it would not take.
   * @throws BursarError `chain-unavailable`
   */
  async decideAll<T>(call: GroupCall<T>): Promise<Map<string, string>> {
    const refused = new Map<string, string>();
    const busy = this.#busy(call.kind);
    const things = call.things.filter((thing) => this.free(call.kind, call.subjectOf(thing), busy));
    for (let first = 0; first < things.length; first += LARGEST_GROUP) {
      await this.#fit(call, things.slice(first, first + LARGEST_GROUP), refused);
    }
    return refused;
  }

  /**
   * Sends what is recorded and not under way, as far as the account's money goes: what it cannot pay for stays recorded.
   * @throws BursarError `chain-unavailable`
   */
  async start(): Promise<void> {
    const { book, outbox } = this.#options;
    const waiting = book.pending().filter(({ id }) => !this.#running.has(id));
    if (waiting.length === 0) return;
    const { balance, fee } = await this.#means();
    let left = balance;
    for (const action of waiting) {
      const cost = fee * ((action.gas * 5n) / 4n);
      if (cost > left && !(await outbox.begun(jobOf(action)))) {
        this.#stuck(action, `it takes about ${cost} wei, and ${this.#options.account} holds ${left}`);
        return;
      }
      left -= cost;
      const running = this.#deliver(action).finally(() => this.#running.delete(action.id));
      this.#running.set(action.id, running);
    }
  }

  #busy(kind: ActionKind): ReadonlySet<string> {
    const pending = this.#options.book.pending().filter((action) => action.kind === kind);
    return new Set(pending.flatMap(({ subjects }) => subjects));
  }

  async #means(): Promise<{ balance: bigint; fee: bigint }> {
    const { provider } = this.#options.chain;
    const [balance, { maxFeePerGas, gasPrice }] = await reach(() =>
      Promise.all([provider.getBalance(this.#options.account), provider.getFeeData()]),
    );
    return { balance, fee: maxFeePerGas ?? gasPrice ?? 0n };
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.values());
  }

  /** @returns the gas that a call would take, or the contract's refusal. @throws BursarError `chain-unavailable` */
  async tryOut(target: Address, data: string): Promise<bigint | string> {
    const { chain, account } = this.#options;
    try {
      return await reach(() => chain.provider.estimateGas({ from: account, to: target, data }));
    } catch (error) {
      if (error instanceof BursarError) throw error;
      return chain.explain(error);
    }
  }

  async #fit<T>(call: GroupCall<T>, things: readonly T[], refused: Map<string, string>): Promise<void> {
    const { kind, target, subjectOf, encode } = call;
    const data = encode(things);
    const gas = await this.tryOut(target, data);
    if (typeof gas === "bigint" && (gas <= MOST_GAS || things.length === 1)) {
      this.decide(kind, things.map(subjectOf), target, data, gas);
    } else if (things.length > 1) {
      const half = Math.ceil(things.length / 2);
      await this.#fit(call, things.slice(0, half), refused);
      await this.#fit(call, things.slice(half), refused);
    } else {
      refused.set(subjectOf(things[0]!), String(gas));
    }
  }

  async #deliver(action: Action): Promise<void> {
    const { book, chain, outbox, logger } = this.#options;
    const { id, kind, subjects, target, data } = action;
    try {
      const { hash } = await outbox.deliver(jobOf(action), { to: target, data });
      book.end(id, "done", hash);
      logger.info({ action: id, kind, subjects, transaction: hash }, "done on chain");
    } catch (error) {
      if (error instanceof BursarError && error.code === "transaction-failed") {
        this.#failed(action, chain.explain({ data: error.details["value"], message: error.message }));
      } else {
        this.#stuck(action, error instanceof Error ? error.message : String(error));
      }
    }
  }

  #failed({ id, kind, subjects }: Action, reason: string): void {
    const { book, alerts, logger } = this.#options;
    book.transact(() => {
      book.end(id, "failed", reason);
      if (QUIET.test(reason)) return;
      alerts.raise({
        id: `action-failed:${id}`,
        kind: "action-failed",
        level: "warning",
        message: `The transaction «${kind}» failed and will be tried again: ${reason}`,
        details: { action: kind, subjects, reason },
      });
    });
    logger.warn({ action: id, kind, subjects, reason }, "failed on chain");
  }

  /** It stays recorded and is sent again in the next round: the account may have no money for gas. */
  #stuck({ id, kind, subjects }: Action, reason: string): void {
    const { alerts, now } = this.#options;
    alerts.raise({
      id: `action-stuck:${id}:${now() / 86_400n}`,
      kind: "action-stuck",
      level: "critical",
      message: `The transaction «${kind}» cannot be sent: ${reason}`,
      details: { action: kind, subjects, reason },
    });
  }
}

const jobOf = ({ id }: Action): string => `watch:${id}`;

/** Whether a refusal only says that it is too early, or that somebody else was first. */
export const isQuiet = (reason: string): boolean => QUIET.test(reason);
