import { BursarError, formatAmount, type Address } from "@bursar/protocol";
import type { Logger } from "pino";

import { TestUSD__factory } from "../../../../typechain-types/index.ts";
import { reach } from "../chain.ts";
import { isQuiet, type Actions, type GroupCall } from "./actions.ts";
import type { Alerts, AlertLevel } from "./alerts.ts";
import type { ActionKind, WatchBook, WatchedRecord } from "./book.ts";
import { follow, isDue, type ChallengePolicy, type Facts, type ReceiptState, type Step } from "./follow.ts";
import type { Lookout, Moment } from "./lookout.ts";
import type { Owners } from "./owners.ts";
import type { PayeeDatabase } from "./payee-database.ts";
import { receiptIn } from "./receipt.ts";

export interface WatcherOptions {
  readonly book: WatchBook;
  readonly lookout: Lookout;
  readonly actions: Actions;
  readonly alerts: Alerts;
  readonly owners: Owners;
  readonly payeeDatabases: readonly PayeeDatabase[];
  /** Who sends the transactions. */
  readonly account: Address;
  readonly challenge: ChallengePolicy;
  /** Payees whose credits are paid out to them. */
  readonly sweep: readonly Address[];
  /** Credits below this many units wait. */
  readonly sweepAbove: bigint;
  readonly logger: Logger;
}

interface Found {
  readonly record: WatchedRecord;
  readonly step: Step;
}

/** Seconds before a window closes in which somebody is told that nothing could be done yet. */
const MARGIN = 43_200n;
/** Agents that are asked about at once. */
const AT_ONCE = 50;

/**
 * Watches receipts for payees and mandates for owners, and does what the contracts let anyone do for them. It decides by
 * final blocks and acts by recorded {@link Actions}; a round that is interrupted is made again.
 */
export class Watcher {
  readonly #options: WatcherOptions;

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  /**
   * One round: takes what is new, looks at everything that is open, and begins what has to be done.
   * @throws BursarError `chain-unavailable`, `store-unavailable`: make it again later.
   */
  async run(): Promise<void> {
    const { actions, payeeDatabases, lookout, owners, logger } = this.#options;
    await actions.start();
    const unread = await Promise.allSettled(payeeDatabases.map((database) => database.read()));
    const moment = await lookout.moment();
    const found = await this.#look(moment);
    this.#write(found, moment);
    await this.#act(found, moment);
    await owners.look(moment, found);
    await actions.start();
    logger.debug({ block: moment.block, open: found.length }, "looked");
    for (const outcome of unread) if (outcome.status === "rejected") throw outcome.reason;
  }

  /** Resolves when everything that was begun is final. */
  async idle(): Promise<void> {
    await this.#options.actions.idle();
  }

  async #look(moment: Moment): Promise<Found[]> {
    const agents = this.#options.book.openAgents();
    const found: Found[] = [];
    for (let first = 0; first < agents.length; first += AT_ONCE) {
      const looks = agents.slice(first, first + AT_ONCE).map((agent) =>
        this.#lookAt(agent, moment).catch((error: unknown): Found[] => {
          if (error instanceof BursarError) throw error;
          // One agent's receipts that cannot be looked up hold up no other's.
          this.#options.logger.error({ agent, reason: (error as Error).message }, "cannot be looked at");
          return [];
        }),
      );
      found.push(...(await Promise.all(looks)).flat());
    }
    return found;
  }

  async #lookAt(agent: Address, moment: Moment): Promise<Found[]> {
    const { book, lookout } = this.#options;
    const [mandate, windows] = await Promise.all([lookout.mandate(agent, moment.block), lookout.windows()]);
    const common = { ...mandate, ...windows, time: moment.time, victimsUntil: 0n, settledHead: null };
    return Promise.all(
      book.open(agent).map(async (record): Promise<Found> => {
        const facts = await this.#facts(record, common, moment);
        return { record, step: follow(record.payment, facts, this.#options.challenge) };
      }),
    );
  }

  async #facts(record: WatchedRecord, common: Omit<Facts, "claim" | "challenge">, moment: Moment): Promise<Facts> {
    const { lookout } = this.#options;
    const { id, processor, token, payment } = record;
    const nothing = {
      claim: { status: "none", resolvableAt: 0n },
      challenge: { status: "none", answerableUntil: 0n },
    } as const;
    if (!isDue(payment, common)) return { ...common, ...nothing };
    const [claim, challenge, { victimsUntil }] = await Promise.all([
      lookout.claim(id, moment.block),
      lookout.challenge(id, moment.block),
      lookout.slash(processor, token, moment.block),
    ]);
    const settledHead = common.settled >= payment.seq ? await lookout.settledHead(payment, moment) : null;
    return { ...common, claim, challenge, victimsUntil, settledHead };
  }

  /** Writes down what was found, with an alert for whatever is new and matters. */
  #write(found: readonly Found[], { time }: Moment): void {
    const { book } = this.#options;
    book.transact(() => {
      for (const { record, step } of found) {
        if (step.state !== record.state || step.until !== record.until || step.done) {
          book.setState(record.id, step.state, step.until, step.done);
        }
      }
      for (const [state, level, text] of NEWS) {
        const news = found.filter(({ record, step }) => step.state === state && record.state !== state);
        for (const group of groupedBy(news, ({ record }) => record.payment.agent))
          this.#tell(state, level, text, group);
      }
      const closing = found.filter(({ step }) => ACTABLE.has(step.state) && step.until! - time < MARGIN);
      for (const group of groupedBy(closing, ({ record }) => record.payment.agent)) {
        this.#tell(
          "window-closing",
          "critical",
          "are neither claimed nor challenged, and the window is closing",
          group,
        );
      }
    });
  }

  /** One alert for the receipts of one agent, under the name of the first: what is written down is not told again. */
  #tell(kind: ReceiptState | "window-closing", level: AlertLevel, text: string, group: readonly Found[]): void {
    const [{ record, step }] = group as [Found];
    const units = group.reduce((sum, one) => sum + one.record.payment.line.amount, 0n);
    this.#options.alerts.raise({
      id: `receipt-${kind}:${record.id}`,
      kind: `receipt-${kind}`,
      level,
      message: `Receipts over ${formatAmount(units)} (${group.length}) of ${record.payment.agent} ${text}.`,
      details: {
        agent: record.payment.agent,
        processor: record.processor,
        token: record.token,
        units,
        until: step.until,
        receipts: group.map(({ record: { id, payment } }) => ({
          id,
          seq: payment.seq,
          payee: payment.line.payee,
          units: payment.line.amount,
        })),
      },
    });
  }

  async #act(found: readonly Found[], moment: Moment): Promise<void> {
    await this.#report(moment);
    const wanting = (kind: ActionKind): WatchedRecord[] =>
      found.filter(({ step }) => step.action === kind).map(({ record }) => record);
    const { claims } = this.#options.lookout.chain;
    const ofBond = ({ processor, token }: WatchedRecord): string => `${processor} ${token}`;
    for (const group of groupedBy(wanting("file"), ofBond)) {
      await this.#decide("file", group, (payments) => claims.interface.encodeFunctionData("file", [payments as never]));
    }
    await this.#decide("resolve", wanting("resolve"), (payments) =>
      claims.interface.encodeFunctionData("resolve", [payments as never]),
    );
    for (const group of groupedBy(wanting("challenge"), ({ token }) => token)) await this.#challenge(group);
    await this.#uphold(wanting("uphold"));
    for (const record of wanting("share")) await this.#share(record, moment);
    await this.#finish(moment);
    await this.#sweep();
  }

  async #decide(
    kind: ActionKind,
    records: readonly WatchedRecord[],
    encode: (payments: readonly WatchedRecord["payment"][]) => string,
  ): Promise<void> {
    const call: GroupCall<WatchedRecord> = {
      kind,
      target: this.#options.lookout.chain.rail.claims,
      things: records,
      subjectOf: ({ id }) => id,
      encode: (group) => encode(group.map(({ payment }) => payment)),
    };
    this.#note(kind, await this.#options.actions.decideAll(call));
  }

  /** Keeps the contracts' refusals, and tells those that are no matter of who was first. */
  #note(kind: ActionKind, refused: ReadonlyMap<string, string>): void {
    const { book, alerts, logger } = this.#options;
    for (const [id, reason] of refused) {
      logger.info({ receipt: id, kind, reason }, "the contract would refuse it");
      if (isQuiet(reason)) continue;
      book.transact(() => {
        book.note(id, `${kind}: ${reason}`);
        alerts.raise({
          id: `receipt-refused:${kind}:${id}`,
          kind: "receipt-refused",
          level: "critical",
          message: `The contracts would refuse «${kind}» of receipt ${id}: ${reason}`,
          details: { receipt: id, action: kind, reason },
        });
      });
    }
  }

  /** Two receipts on one number: no window is needed. */
  async #report({ block }: Moment): Promise<void> {
    const { book, lookout, actions, alerts } = this.#options;
    const { challenges, rail } = lookout.chain;
    for (const [first, second] of book.contradictions()) {
      const { agent, seq } = first.payment;
      const subject = `${agent}:${seq}`;
      if (book.did("report", subject) || !actions.free("report", subject)) continue;
      const { victimsUntil } = await lookout.slash(first.processor, first.token, block);
      if (victimsUntil !== 0n) continue;
      const data = challenges.interface.encodeFunctionData("reportEquivocation", [
        receiptIn(first.payment),
        first.payment.processorSignature,
        receiptIn(second.payment),
        second.payment.processorSignature,
      ]);
      const gas = await actions.tryOut(rail.challenges, data);
      if (typeof gas !== "bigint") {
        this.#note("report", new Map([[first.id, gas]]));
        continue;
      }
      book.transact(() => {
        actions.decide("report", [subject], rail.challenges, data, gas);
        alerts.raise({
          id: `equivocation:${subject}`,
          kind: "equivocation",
          level: "critical",
          message: `${first.processor} gave two receipts on payment ${seq} of ${agent}: its bond is reported.`,
          details: { processor: first.processor, agent, seq, receipts: [first.id, second.id] },
        });
      });
    }
  }

  /** Deposits are approved to the unit, for what is challenged now. */
  async #challenge(records: readonly WatchedRecord[]): Promise<void> {
    const { actions, lookout, account, alerts } = this.#options;
    const { challenges, escrow, provider, rail } = lookout.chain;
    const free = records.filter(({ id }) => actions.free("challenge", id));
    const token = free[0]?.token;
    if (token === undefined || !actions.free("approve", token)) return;
    const erc20 = TestUSD__factory.connect(token, provider);
    const [scale, balance, allowance] = await reach(() =>
      Promise.all([escrow.unitScale(token), erc20.balanceOf(account), erc20.allowance(account, rail.challenges)]),
    );
    const deposit = DEPOSIT_UNITS * scale;
    const affordable = free.slice(0, Number(balance / deposit));
    for (const { id, processor } of free.slice(affordable.length)) {
      alerts.raise({
        id: `deposit-missing:${id}`,
        kind: "deposit-missing",
        level: "critical",
        message: `A challenge of ${processor} takes a deposit of 1 token: send it to ${account}.`,
        details: { receipt: id, token, account, balance, deposit },
      });
    }
    const needed = deposit * BigInt(affordable.length);
    if (affordable.length === 0) return;
    this.#options.book.transact(() => {
      if (allowance < needed) {
        const data = erc20.interface.encodeFunctionData("approve", [rail.challenges, needed]);
        actions.decide("approve", [token], token, data, APPROVE_GAS);
      }
      for (const { id, payment } of affordable) {
        const data = challenges.interface.encodeFunctionData("challenge", [payment as never]);
        actions.decide("challenge", [id], rail.challenges, data, CHALLENGE_GAS);
      }
    });
  }

  async #uphold(records: readonly WatchedRecord[]): Promise<void> {
    const { actions, lookout } = this.#options;
    const { challenges, rail } = lookout.chain;
    for (const { id, payment } of records) {
      const data = challenges.interface.encodeFunctionData("uphold", [payment as never]);
      await this.#once("uphold", id, rail.challenges, data, actions);
    }
  }

  /** A share of the slashed bond: paid already, by whomever, or to be fetched. */
  async #share({ id, processor, token }: WatchedRecord, moment: Moment): Promise<void> {
    const { actions, book, lookout } = this.#options;
    const { processors, rail } = lookout.chain;
    const data = processors.interface.encodeFunctionData("payVictim", [processor, token, id]);
    const refusal = await this.#once("share", id, rail.processors, data, actions);
    if (refusal?.startsWith("NoVictim(") !== true) return;
    const { victimsUntil } = await lookout.slash(processor, token, moment.block);
    const paid = await lookout.share({ processor, token, id }, victimsUntil, moment);
    book.transact(() => {
      book.setState(id, paid === null ? "lost" : "shared", null, true);
      book.note(id, paid === null ? "It is no victim of the bond." : `${paid} base units came from the bond.`);
      const level = paid === null ? "critical" : "info";
      this.#options.alerts.raise({
        id: `receipt-shared:${id}`,
        kind: paid === null ? "receipt-lost" : "receipt-shared",
        level,
        message: `${paid ?? 0n} base units of the bond of ${processor} were paid for receipt ${id}.`,
        details: { receipt: id, processor, token, paid: paid ?? 0n },
      });
    });
  }

  /** Fetches the reporter's reward, if this watcher's report slashed a bond. */
  async #finish({ block, time }: Moment): Promise<void> {
    const { actions, account, book, lookout } = this.#options;
    const { processors, rail } = lookout.chain;
    for (const { processor, token } of book.bonds()) {
      const { victimsUntil, finished, reporter } = await lookout.slash(processor, token, block);
      if (victimsUntil === 0n || time < victimsUntil || finished || reporter !== account) continue;
      const data = processors.interface.encodeFunctionData("finishSlash", [processor, token]);
      await this.#once("finish", `${processor}:${token}`, rail.processors, data, actions);
    }
  }

  async #sweep(): Promise<void> {
    const { actions, lookout, sweep, sweepAbove } = this.#options;
    const { escrow, rail } = lookout.chain;
    const tokens = new Set([...Object.values(rail.tokens), ...this.#options.book.bonds().map(({ token }) => token)]);
    for (const payee of sweep) {
      for (const token of tokens) {
        const [credit, scale] = await reach(() =>
          Promise.all([escrow.creditOf(token, payee), escrow.unitScale(token).catch(() => 1n)]),
        );
        if (credit === 0n || credit < sweepAbove * scale) continue;
        const data = escrow.interface.encodeFunctionData("sweepCredit", [token, payee]);
        await this.#once("sweep", `${payee}:${token}`, rail.escrow, data, actions);
      }
    }
  }

  /** Decides on a call if the contract would take it. @returns why it would not. */
  async #once(
    kind: ActionKind,
    subject: string,
    target: Address,
    data: string,
    actions: Actions,
  ): Promise<string | null> {
    if (!actions.free(kind, subject)) return null;
    const gas = await actions.tryOut(target, data);
    if (typeof gas !== "bigint") return gas;
    actions.decide(kind, [subject], target, data, gas);
    return null;
  }
}

/** States of which somebody wants to hear. */
const NEWS: readonly (readonly [ReceiptState, AlertLevel, string])[] = [
  ["missed", "warning", "were not settled in time and are being claimed"],
  ["claimed", "info", "are claimed; the processor can still settle them"],
  ["contradicted", "critical", "are contradicted by the settled ledger"],
  ["challenged", "info", "are challenged; the processor can still show them"],
  ["answered", "info", "were challenged, and the processor showed that they are settled"],
  ["victim", "critical", "have a share in the slashed bond"],
  ["paid", "info", "were paid from the lock"],
  ["lost", "critical", "were not paid, and their windows are over"],
];

/** States in which something should be done before a window closes. */
const ACTABLE: ReadonlySet<ReceiptState> = new Set(["missed", "contradicted"]);
/** They cannot be tried out before the deposit is approved. */
const APPROVE_GAS = 60_000n;
const CHALLENGE_GAS = 400_000n;
/** One token. */
const DEPOSIT_UNITS = 1_000_000n;

function groupedBy<T>(things: readonly T[], name: (thing: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const thing of things) {
    const key = name(thing);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [thing]);
    else group.push(thing);
  }
  return [...groups.values()];
}
