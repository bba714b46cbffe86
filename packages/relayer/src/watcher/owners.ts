import { formatAmount, type Address } from "@bursar/protocol";

import { standingOf } from "../bonding.ts";
import { MANDATE_STATES, reach } from "../chain.ts";
import type { Actions } from "./actions.ts";
import type { AlertLevel, Alerts } from "./alerts.ts";
import type { OwnedMandate, WatchBook } from "./book.ts";
import type { Lookout, Moment } from "./lookout.ts";

export interface OwnersOptions {
  readonly book: WatchBook;
  readonly lookout: Lookout;
  readonly actions: Actions;
  readonly alerts: Alerts;
  readonly owners: readonly Address[];
  /** Percent of a budget below which what remains is low. */
  readonly low: number;
}

/** Blocks that are read again, should a reorganisation have moved an opening to an earlier one. */
const OVERLAP = 64;
/** Of what a processor's bond allows, in percent. */
const HIGH_LEVERAGE = 90n;

/**
 * Watches owners' mandates and the processors that anyone here relies on: tells what an owner should know, and gets back
 * what remains of a mandate once its windows are over.
 */
export class Owners {
  readonly #options: OwnersOptions;

  constructor(options: OwnersOptions) {
    this.#options = options;
  }

  /** @param receipts - what else relies on a processor. @throws BursarError `chain-unavailable` */
  async look(moment: Moment, receipts: readonly { record: { processor: Address; token: Address } }[]): Promise<void> {
    const { book, owners } = this.#options;
    for (const owner of owners) await this.#discover(owner, moment);
    const open = book.mandates().filter(({ done }) => !done);
    for (const mandate of open) await this.#lookAt(mandate, moment);
    const relied = [...open, ...receipts.map(({ record }) => record)];
    const bonds = new Map(relied.map(({ processor, token }) => [`${processor} ${token}`, { processor, token }]));
    for (const { processor, token } of bonds.values()) await this.#rely(processor, token, moment);
  }

  async #discover(owner: Address, moment: Moment): Promise<void> {
    const { book, lookout } = this.#options;
    const place = `openings:${owner}`;
    for (let from = Math.max(0, (book.place(place)?.position ?? 0) - OVERLAP); from <= moment.block;) {
      const { upTo, mandates } = await lookout.openings(owner, from, moment);
      book.transact(() => {
        for (const mandate of mandates) this.#add(mandate);
        book.setPlace(place, { position: upTo, mark: "" });
      });
      from = upTo + 1;
    }
  }

  #add(mandate: Parameters<WatchBook["addMandate"]>[0]): void {
    const { agent, budget, processor } = mandate;
    if (!this.#options.book.addMandate(mandate)) return;
    this.#tell("mandate-opened", agent, "info", mandate, `A mandate of ${formatAmount(budget)} was opened`, {
      processor,
    });
  }

  async #lookAt(mandate: OwnedMandate, { block, time }: Moment): Promise<void> {
    const { book, lookout, low } = this.#options;
    const { agent, budget } = mandate;
    const { registry } = lookout.chain;
    const at = { blockTag: block };
    const [record, remaining, { acknowledged }, windows] = await reach(() =>
      Promise.all([
        registry.mandateOf(agent, at),
        registry.remainingOf(agent, at),
        registry.acknowledgementOf(agent, at),
        lookout.windows(),
      ]),
    );
    const state = MANDATE_STATES[Number(record.state)] ?? "none";
    if (state === "none") return;
    const { closesAt } = record;
    const closed = state === "closed";
    const done = closed || (time >= closesAt && remaining === 0n);
    book.transact(() => {
      book.setMandate(agent, { state, remaining, closesAt, done });
      if (closed) {
        const returned = budget - record.spent - record.directSpent;
        this.#tell("mandate-closed", agent, "info", mandate, `It is closed, and ${formatAmount(returned)} came back`, {
          returned,
        });
      }
      if (state === "open" && remaining * 100n < budget * BigInt(low)) {
        this.#tell("low-remaining", agent, "warning", mandate, `${formatAmount(remaining)} of its budget remain`, {
          remaining,
        });
      }
      if (state === "fallback") {
        this.#tell("mandate-fallback", agent, "critical", mandate, "Its processor failed: only claims debit it", {
          closesAt,
        });
      }
    });
    if (state === "revoked") {
      this.#tellRevoked(mandate, { acknowledged, deadline: record.revokedAt + windows.acknowledge, closesAt, time });
    }
    if (!done && time >= closesAt && remaining > 0n) await this.#close(agent);
  }

  #tellRevoked(
    mandate: OwnedMandate,
    {
      acknowledged,
      deadline,
      closesAt,
      time,
    }: { acknowledged: boolean; deadline: bigint; closesAt: bigint; time: bigint },
  ): void {
    const { agent } = mandate;
    this.#tell("mandate-revoked", agent, "info", mandate, "It is revoked", { closesAt, deadline });
    if (acknowledged) {
      this.#tell("revocation-acknowledged", agent, "info", mandate, "Its processor acknowledged the revocation", {});
    } else if (time > deadline) {
      const text = "Its processor did not acknowledge the revocation in time: only claims debit it";
      this.#tell("acknowledgement-missed", agent, "critical", mandate, text, { deadline });
    }
  }

  /** Gets back what remains, unless claims are pending for all of it. */
  async #close(agent: Address): Promise<void> {
    const { actions, lookout } = this.#options;
    const { registry, rail } = lookout.chain;
    if (!actions.free("close", agent)) return;
    const data = registry.interface.encodeFunctionData("close", [agent]);
    const gas = await actions.tryOut(rail.registry, data);
    if (typeof gas === "bigint") actions.decide("close", [agent], rail.registry, data, gas);
  }

  /** Tells once a day, as long as it lasts, what endangers a bond that is relied on. */
  async #rely(processor: Address, token: Address, { time }: Moment): Promise<void> {
    const standing = await reach(() => standingOf(this.#options.lookout.chain, processor, token));
    const { slashed, bond, floor, covered, capacity, withdrawableAt } = standing;
    const day = time / 86_400n;
    const tell = (kind: string, mark: string, level: AlertLevel, message: string, details: object): void =>
      this.#options.alerts.raise({
        id: `${kind}:${processor}:${token}:${mark}`,
        kind,
        level,
        message: `${processor}: ${message}.`,
        details: { processor, token, ...details },
      });
    if (slashed) tell("processor-slashed", "", "critical", "its bond was slashed", { bond });
    if (withdrawableAt !== null) {
      const details = { withdrawableAt };
      tell("processor-leaving", String(withdrawableAt), "warning", "it takes its bond out", details);
    }
    if (slashed) return;
    if (bond < floor) tell("bond-below-floor", String(day), "critical", "its bond is below the floor", { bond, floor });
    else if (covered * 100n >= capacity * HIGH_LEVERAGE) {
      const details = { covered, capacity };
      tell("processor-leverage", String(day), "warning", "mandates take nearly all that its bond allows", details);
    }
  }

  #tell(
    kind: string,
    agent: Address,
    level: AlertLevel,
    { owner, processor, token }: Pick<OwnedMandate, "owner" | "processor" | "token">,
    message: string,
    details: object,
  ): void {
    this.#options.alerts.raise({
      id: `${kind}:${agent}`,
      kind,
      level,
      message: `Mandate ${agent}: ${message}.`,
      details: { agent, owner, processor, token, ...details },
    });
  }
}
