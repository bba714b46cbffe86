import { headHex, type Address, type Hex, type Mandate, type Payment } from "@bursar/protocol";

import { WINDOWS } from "../../deploy/index.ts";

/** From the end of a mandate until it can be closed, in seconds. */
export const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;

/** A payment as its agent signed it, and what it follows. */
export interface SignedLine {
  readonly payment: Payment;
  /** The head before it. */
  readonly parent: Hex;
}

/** What should stand on chain for one mandate; amounts in units. */
export interface GhostMandate {
  readonly mandate: Mandate;
  readonly openedAt: bigint;
  seq: bigint;
  head: Hex;
  spent: bigint;
  directSpent: bigint;
  returned: bigint;
  closed: boolean;
  /** When a claim was paid and the processor lost it, or null. */
  fallbackAt: bigint | null;
  revokedAt: bigint | null;
  /** Ended by both signatures, with an hour's notice. */
  together: boolean;
  acknowledged: { seq: bigint; directSpent: bigint; at: bigint } | null;
}

export interface GhostClaim {
  readonly agent: Address;
  readonly seq: bigint;
  readonly filedAt: bigint;
}

/** A slashed bond. */
export interface GhostSlash {
  /** What the victims are owed, by the id of their payment. */
  readonly owed: Map<Hex, bigint>;
  readonly paid: Map<Hex, bigint>;
  finished: boolean;
}

/**
 * What the contracts should hold, computed beside them from what the actors signed and sent. All of it is of one token,
 * whose units are its base units.
 */
export class Ghost {
  readonly free = new Map<string, bigint>();
  readonly credits = new Map<string, bigint>();
  /** What owners signed, and the head of the empty ledger; on chain once it is opened. */
  readonly drafts = new Map<Address, { mandate: Mandate; genesis: Hex }>();
  readonly mandates = new Map<Address, GhostMandate>();
  /** All that agents signed, whoever has seen it, by {@link lineKey}: under one head the references may differ. */
  readonly signed = new Map<string, SignedLine[]>();
  /** Signed payments of the direct rail that have not paid, by agent and nonce. */
  readonly direct = new Map<string, { payee: Address; amount: bigint }>();
  /** How a payment was paid, by agent and seq: once. */
  readonly paid = new Map<string, { head: Hex; by: "batch" | "claim"; amount: bigint }>();
  readonly claims = new Map<Hex, GhostClaim>();
  readonly slashes = new Map<Address, GhostSlash>();
  /** Penalties that each processor paid. */
  readonly penalties = new Map<Address, bigint>();
  deposited = 0n;
  withdrawn = 0n;

  sign(agent: Address, payment: Payment, parent: Hex): void {
    const key = lineKey(agent, payment.seq, payment.head);
    this.signed.set(key, [...(this.signed.get(key) ?? []), { payment, parent }]);
  }

  signedBy(agent: Address): SignedLine[] {
    return [...this.signed].filter(([key]) => key.startsWith(agent)).flatMap(([, lines]) => lines);
  }

  add(balances: Map<string, bigint>, account: string, amount: bigint): void {
    balances.set(account, (balances.get(account) ?? 0n) + amount);
  }

  /** Everything that the escrow should hold. */
  get held(): bigint {
    return total(this.free.values()) + total(this.credits.values()) + this.locked;
  }

  get locked(): bigint {
    return total([...this.mandates.values()].map(remainingOf));
  }

  /** The budgets of the mandates that name a processor and are not closed. */
  coveredOf(processor: Address): bigint {
    const open = [...this.mandates.values()].filter(
      ({ mandate, closed }) => !closed && mandate.processor === processor,
    );
    return total(open.map(({ mandate }) => mandate.budget));
  }

  /** How the payment with this head was paid, if it was: another payment under its number is not this one. */
  howPaid(agent: Address, seq: bigint, head: Hex): "batch" | "claim" | null {
    const paid = this.paid.get(paymentKey(agent, seq));
    return paid?.head === head ? paid.by : null;
  }
}

export const paymentKey = (agent: Address, seq: bigint): string => `${agent} ${seq}`;
export const lineKey = (agent: Address, seq: bigint, head: Hex): string => `${agent} ${seq} ${head}`;
export const headOf = (head: bigint): Hex => headHex(head);

/** What is still locked. */
export function remainingOf({ mandate, spent, directSpent, returned, closed }: GhostMandate): bigint {
  return closed ? 0n : mandate.budget - spent - directSpent - returned;
}

/** After this second no receipt is honest. */
export function endOf({ mandate, revokedAt, fallbackAt }: GhostMandate): bigint {
  if (revokedAt !== null) return revokedAt;
  return fallbackAt !== null && fallbackAt < mandate.validUntil ? fallbackAt : mandate.validUntil;
}

export function total(amounts: Iterable<bigint>): bigint {
  let sum = 0n;
  for (const amount of amounts) sum += amount;
  return sum;
}
