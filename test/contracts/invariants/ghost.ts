import type { Address, Hex, Line } from "@bursar/protocol";
import type { Wallet } from "ethers";

import { WINDOWS } from "../../../deploy/index.ts";
import type { Account } from "../post-bond.ts";
import type { ReceiptedPayment } from "../receipted.ts";

export const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
export const NOTICE = 3_600n;
export const UNBONDING = 14n * 86_400n;
export const VICTIM_WINDOW = 7n * 86_400n;
export const FLOOR = 10_000_000_000n;
export const DEPOSIT = 1_000_000n;
export const BURNED = "0x000000000000000000000000000000000000dEaD" as Address;
/** Seconds after the claims' last in which a challenge may still be opened. */
export const LATE_CHALLENGES = WINDOWS.cure;

const get = (map: Map<Address, bigint>, account: Address): bigint => map.get(account) ?? 0n;

/** The escrow as it should be: whose money is where, and how it came and went. */
export class Accounts {
  readonly free = new Map<Address, bigint>();
  readonly credit = new Map<Address, bigint>();
  locked = 0n;
  deposited = 0n;
  withdrawn = 0n;
  donated = 0n;

  freeOf(account: Address): bigint {
    return get(this.free, account);
  }

  creditOf(account: Address): bigint {
    return get(this.credit, account);
  }

  balanceOf(account: Address): bigint {
    return this.freeOf(account) + this.creditOf(account);
  }

  deposit(account: Address, amount: bigint): void {
    this.deposited += amount;
    this.addFree(account, amount);
  }

  withdraw(account: Address, amount: bigint): void {
    this.withdrawn += amount;
    this.addFree(account, -amount);
  }

  sweep(account: Address): void {
    this.withdrawn += this.creditOf(account);
    this.credit.set(account, 0n);
  }

  addFree(account: Address, amount: bigint): void {
    this.free.set(account, this.freeOf(account) + amount);
  }

  addCredit(account: Address, amount: bigint): void {
    this.credit.set(account, this.creditOf(account) + amount);
  }

  /** From a sub-account, its free balance first. */
  pay(from: Address, to: Address, amount: bigint): void {
    const free = this.freeOf(from);
    const fromFree = amount < free ? amount : free;
    this.addFree(from, -fromFree);
    this.addCredit(from, fromFree - amount);
    this.addCredit(to, amount);
  }

  accounts(): Set<Address> {
    return new Set([...this.free.keys(), ...this.credit.keys()]);
  }
}

export interface GhostSlash {
  endsAt: bigint;
  reporter: Address;
  pot: bigint;
  owed: bigint;
  finished: boolean;
}

export interface GhostProcessor {
  readonly account: Account;
  readonly bondAccount: Address;
  readonly registeredAt: bigint;
  key: Wallet;
  /** The last settle-by that a key can have promised. */
  readonly keyUntil: Map<string, bigint>;
  keys: number;
  unbondingAt: bigint | null;
  coversUntil: bigint;
  covered: bigint;
  slash: GhostSlash | null;
  readonly victims: Map<Hex, { payee: Address; owed: bigint }>;
}

/** A settled row, as whoever answers a challenge shows it. */
export interface GhostRow {
  readonly first: bigint;
  readonly last: bigint;
  readonly row: number;
  readonly batch: {
    readonly batchId: bigint;
    readonly commitment: bigint;
    readonly rowWords: bigint[];
    readonly creditsHash: Hex;
  };
}

export type State = "open" | "revoked" | "fallback" | "closed";

export interface GhostMandate {
  readonly agent: Wallet;
  readonly address: Address;
  readonly owner: Account;
  readonly processor: GhostProcessor;
  readonly budget: bigint;
  readonly paymentCap: bigint;
  readonly validUntil: bigint;
  readonly payees: Address[];
  state: State;
  base: bigint;
  seq: bigint;
  spent: bigint;
  directSpent: bigint;
  returned: bigint;
  reserved: bigint;
  closesAt: bigint;
  revokedAt: bigint | null;
  noticed: boolean;
  acknowledged: { seq: bigint; directSpent: bigint; head: bigint } | null;
  /** Nonces of direct payments that paid; those that did not may come again. */
  readonly used: Set<string>;
  readonly lines: Map<bigint, Line>;
  readonly rows: GhostRow[];
}

/** A payment with both signatures that somebody holds. */
export interface GhostReceipt {
  readonly mandate: GhostMandate;
  readonly id: Hex;
  readonly key: string;
  readonly payment: ReceiptedPayment;
}

export type ClaimStatus = "filed" | "cured" | "paid" | "bonded";

export interface GhostClaim {
  readonly receipt: GhostReceipt;
  status: ClaimStatus;
  readonly fromLock: boolean;
  readonly resolvableAt: bigint;
  /** Units that the lock paid. */
  paid: bigint;
}

export interface GhostChallenge {
  readonly receipt: GhostReceipt;
  readonly account: Address;
  readonly challenger: Address;
  readonly until: bigint;
  status: "open" | "answered" | "upheld";
}

export interface GhostHold {
  readonly mandate: GhostMandate;
  readonly payee: Account;
  readonly holdback: bigint;
  readonly address: Address;
  known: bigint;
  frozen: bigint;
  cursor: number;
  readonly tranches: { maturesAt: bigint; amount: bigint }[];
}

export type DisputeStatus = "filed" | "answered" | "escalated" | "paid" | "refunded";

export interface GhostDispute {
  readonly id: bigint;
  readonly hold: GhostHold;
  readonly receipt: GhostReceipt;
  readonly kind: "not-delivered" | "other";
  readonly amount: bigint;
  readonly deliverBy: bigint;
  status: DisputeStatus;
  deadline: bigint;
  disputeID: bigint | null;
  /** What left the hold for it, and to whom. */
  out: { to: Address; amount: bigint } | null;
}

export interface GhostArbiter {
  readonly account: Account;
  bond: bigint;
  open: bigint;
  leavesAt: bigint;
}

export interface GhostCase {
  readonly id: bigint;
  readonly dispute: GhostDispute;
  readonly arbiter: GhostArbiter;
  readonly payer: Address;
  readonly deadline: bigint;
  status: "waiting" | "solved";
  ruling: bigint;
}

/** What the contracts should hold, kept beside them. */
export class Ghost {
  readonly accounts = new Accounts();
  readonly processors: GhostProcessor[] = [];
  readonly mandates: GhostMandate[] = [];
  readonly receipts: GhostReceipt[] = [];
  readonly claims = new Map<Hex, GhostClaim>();
  /** Which claim paid a number. */
  readonly paidOf = new Map<string, Hex>();
  readonly challenges = new Map<Hex, GhostChallenge>();
  readonly wasVictim = new Set<Hex>();
  readonly holds: GhostHold[] = [];
  readonly disputes: GhostDispute[] = [];
  readonly arbiters: GhostArbiter[] = [];
  readonly cases: GhostCase[] = [];
  readonly owedTo = new Map<Address, bigint>();
  nextArbiter = 0;
  batches = 0n;
  paused = false;
  gate: "agrees" | "refuses" | "reverts" = "agrees";
  keys = 0;

  bondOf(processor: GhostProcessor): bigint {
    return this.accounts.balanceOf(processor.bondAccount);
  }

  penalize(processor: GhostProcessor, to: Address, units: bigint): void {
    if (processor.slash) return;
    const bond = this.bondOf(processor);
    const amount = units < bond ? units : bond;
    if (amount > 0n) this.accounts.pay(processor.bondAccount, to, amount);
  }

  slash(processor: GhostProcessor, reporter: Address, time: bigint): void {
    processor.slash ??= { endsAt: time + VICTIM_WINDOW, reporter, pot: 0n, owed: 0n, finished: false };
  }

  addVictim(processor: GhostProcessor, id: Hex, payee: Address, owed: bigint, time: bigint): void {
    const { slash } = processor;
    if (!slash || this.wasVictim.has(id) || time >= slash.endsAt) return;
    this.wasVictim.add(id);
    processor.victims.set(id, { payee, owed });
    slash.owed += owed;
  }

  /** What can be paid out once every victim was counted, fixed at the first payment. */
  potOf(processor: GhostProcessor, slash: GhostSlash): bigint {
    if (slash.pot === 0n) slash.pot = this.bondOf(processor);
    return slash.pot;
  }
}

export const remaining = ({ budget, spent, directSpent, returned }: GhostMandate): bigint =>
  budget - spent - directSpent - returned;

/** After this second no receipt is honest. */
export const endedAt = ({ revokedAt, closesAt }: GhostMandate): bigint => revokedAt ?? closesAt - TAIL;

/** Not revoked, or in the time in which the processor may still answer. */
export const isAnswerable = ({ revokedAt }: GhostMandate, time: bigint): boolean =>
  revokedAt === null || time <= revokedAt + WINDOWS.acknowledge;

/** The processor settles it no more. */
export const isAbandoned = (mandate: GhostMandate, time: bigint): boolean =>
  mandate.state === "fallback" ||
  (mandate.state === "revoked" && !mandate.acknowledged && !isAnswerable(mandate, time));

/** Batches and the direct rail may still debit it. */
export const isSettleable = ({ state, closesAt }: GhostMandate, time: bigint): boolean =>
  (state === "open" || state === "revoked") && time < closesAt;

export const least = (one: bigint, two: bigint): bigint => (one < two ? one : two);
export const most = (one: bigint, two: bigint): bigint => (one > two ? one : two);
