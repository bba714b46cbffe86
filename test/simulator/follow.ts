import { allowsPayee, type Address, type Hex } from "@bursar/protocol";
import { claimId, type Chain } from "@bursar/relayer";
import { ZeroHash, type Interface, type Log, type LogDescription } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import { hold, PromiseBroken, same } from "./broken.ts";
import { endOf, headOf, lineKey, paymentKey, remainingOf, TAIL, type Ghost, type GhostMandate } from "./ghost.ts";

interface Happened {
  readonly ghost: Ghost;
  /** Unix seconds of the block. */
  readonly time: bigint;
  /** Of the batch whose rows are being followed. */
  readonly batch: { debits: bigint };
  /** The bond of a processor as the ghost has it. */
  readonly bondOf: (processor: Address) => bigint;
}

type Args = LogDescription["args"];

/**
 * Moves the ghost along what the contracts say they did, and holds each step against what agents signed: a debit that no
 * signature stands behind, one above a limit or a second one for the same payment breaks its promise here.
 */
export class Follower {
  readonly #ghost: Ghost;
  readonly #interfaces: ReadonlyMap<string, Interface>;
  readonly #bondAccountOf: (processor: Address) => string;

  constructor(ghost: Ghost, chain: Chain, bondAccountOf: (processor: Address) => string) {
    this.#ghost = ghost;
    this.#bondAccountOf = bondAccountOf;
    const { rail } = chain;
    this.#interfaces = new Map(
      (
        [
          [rail.escrow, chain.escrow],
          [rail.registry, chain.registry],
          [rail.settlement, chain.settlementContract],
          [rail.direct, chain.directContract],
          [rail.processors, chain.processors],
          [rail.claims, chain.claims],
          [rail.challenges, chain.challenges],
        ] as const
      ).map(([address, contract]) => [address, contract.interface as Interface]),
    );
  }

  /** @throws PromiseBroken */
  follow(logs: readonly Log[], timeOf: (block: number) => bigint): void {
    const batch = { debits: 0n };
    for (const log of logs) {
      const parsed = this.#interfaces.get(log.address)?.parseLog(log);
      if (!parsed) continue;
      const bondOf = (processor: Address): bigint => this.#ghost.free.get(this.#bondAccountOf(processor)) ?? 0n;
      RULES[parsed.name]?.({ ghost: this.#ghost, time: timeOf(log.blockNumber), batch, bondOf }, parsed.args);
    }
  }
}

const mandateOf = (ghost: Ghost, agent: unknown): GhostMandate => {
  const known = ghost.mandates.get(agent as Address);
  hold("P6 no_agent_signature_no_debit", known !== undefined, () => `${String(agent)} has no mandate`);
  return known;
};

/** What each event means for the ghost. */
const RULES: Readonly<Record<string, (happened: Happened, args: Args) => void>> = {
  Deposited: ({ ghost }, { beneficiary, amount }) => {
    ghost.add(ghost.free, beneficiary as string, amount as bigint);
    ghost.deposited += amount as bigint;
  },
  Withdrawn: ({ ghost }, { account, amount }) => {
    ghost.add(ghost.free, account as string, -(amount as bigint));
    ghost.withdrawn += amount as bigint;
  },
  CreditWithdrawn: ({ ghost }, { payee, amount }) => {
    ghost.add(ghost.credits, payee as string, -(amount as bigint));
    ghost.withdrawn += amount as bigint;
  },
  Paid: ({ ghost }, { from, to, amount }) => {
    const free = ghost.free.get(from as string) ?? 0n;
    const fromFree = (amount as bigint) < free ? (amount as bigint) : free;
    ghost.add(ghost.free, from as string, -fromFree);
    ghost.add(ghost.credits, from as string, fromFree - (amount as bigint));
    ghost.add(ghost.credits, to as string, amount as bigint);
  },
  MandateOpened: opened,
  MandateRevoked: ({ ghost }, { agent, closesAt }) => {
    mandateOf(ghost, agent).revokedAt = (closesAt as bigint) - TAIL;
  },
  RevocationAcknowledged: ({ ghost, time }, { agent, seq, head, directSpent }) => {
    const mandate = mandateOf(ghost, agent);
    mandate.acknowledged = { seq: seq as bigint, directSpent: directSpent as bigint, at: time };
    mandate.together = head === ZeroHash;
  },
  FallbackStarted: ({ ghost, time }, { agent }) => {
    mandateOf(ghost, agent).fallbackAt = time;
  },
  MandateSettled: settled,
  BatchSettled: ({ batch }, { total }) => {
    same("I5 debits equal credits", "the total of a batch", total, batch.debits);
    batch.debits = 0n;
  },
  TransferSettled: paidDirectly,
  ClaimFiled: ({ ghost, time }, { id, agent, seq }) => {
    ghost.claims.set(id as Hex, { agent: agent as Address, seq: seq as bigint, filedAt: time });
  },
  ClaimResolved: claimed,
  RemainderReturned: ({ ghost }, { agent, owner, returned }) => {
    mandateOf(ghost, agent).returned += returned as bigint;
    ghost.add(ghost.free, owner as string, returned as bigint);
  },
  MandateClosed: ({ ghost, time }, { agent, owner, returned }) => {
    const mandate = mandateOf(ghost, agent);
    same("P4 owner_always_exits", `what ${String(agent)} returns`, returned, remainingOf(mandate));
    hold("I8 closed once", !mandate.closed, () => `${String(agent)} is closed twice`);
    hold("P7 receipt_paid_or_sp_slashed", mandate.together || time >= endOf(mandate) + TAIL, () => {
      return `${String(agent)} is closed before its claim window is over`;
    });
    mandate.closed = true;
    ghost.add(ghost.free, owner as string, returned as bigint);
  },
  PenaltyPaid: ({ ghost }, { processor, amount }) => {
    ghost.penalties.set(processor as Address, (ghost.penalties.get(processor as Address) ?? 0n) + (amount as bigint));
  },
  BondSlashed: ({ ghost }, { processor }) => {
    ghost.slashes.set(processor as Address, { owed: new Map(), paid: new Map(), finished: false });
  },
  VictimAdded: ({ ghost }, { processor, id, owed }) => {
    expectUnpaid(ghost, id as Hex, owed as bigint);
    ghost.slashes.get(processor as Address)!.owed.set(id as Hex, owed as bigint);
  },
  VictimPaid: ({ ghost }, { processor, id, paid }) => {
    const { paid: already } = ghost.slashes.get(processor as Address)!;
    hold("P9 pay_once", !already.has(id as Hex), () => `the victim of ${String(id)} is paid twice`);
    already.set(id as Hex, paid as bigint);
  },
  SlashFinished: ({ ghost }, { processor }) => {
    ghost.slashes.get(processor as Address)!.finished = true;
  },
  BondWithdrawn: ({ ghost, time }, { processor }) => {
    for (const mandate of ghost.mandates.values()) {
      if (mandate.mandate.processor !== processor) continue;
      const claimsUntil = endOf(mandate) + TAIL;
      hold("P16 bond_outlives_receipts", time > claimsUntil + WINDOWS.cure, () => {
        return `${String(processor)} took its bond at ${time}; receipts can be claimed until ${claimsUntil}`;
      });
    }
  },
};

function opened({ ghost, time, bondOf }: Happened, { agent, owner, budget }: Args): void {
  const draft = ghost.drafts.get(agent as Address);
  hold("P3 locked_funds_not_spendable_elsewhere", draft !== undefined, () => `nobody signed for ${String(agent)}`);
  same("P3 locked_funds_not_spendable_elsewhere", `the budget of ${String(agent)}`, budget, draft.mandate.budget);
  ghost.add(ghost.free, owner as string, -(budget as bigint));
  const free = ghost.free.get(owner as string)!;
  hold("P3 locked_funds_not_spendable_elsewhere", free >= 0n, () => `${String(owner)} locked what it has not got`);
  const { mandate, genesis } = draft;
  const { processor } = mandate;
  ghost.mandates.set(agent as Address, {
    mandate,
    openedAt: time,
    seq: 0n,
    head: genesis,
    spent: 0n,
    directSpent: 0n,
    returned: 0n,
    closed: false,
    fallbackAt: null,
    revokedAt: null,
    together: false,
    acknowledged: null,
  });
  const covered = ghost.coveredOf(processor);
  const limit = 3n * bondOf(processor);
  hold("I9 leverage", covered <= limit, () => `${covered} units are covered by ${limit}`);
}

function settled({ ghost, time, batch }: Happened, { agent, seq, spent, head }: Args): void {
  const mandate = mandateOf(ghost, agent);
  const debit = (spent as bigint) - mandate.spent;
  batch.debits += debit;
  hold(
    "I4 positions never fall",
    (seq as bigint) > mandate.seq,
    () => `seq went from ${mandate.seq} to ${String(seq)}`,
  );
  expectBeforeTheEnd(mandate, time, { seq: seq as bigint });
  let at = headOf(head as bigint);
  for (let number = seq as bigint; number > mandate.seq; --number) {
    const line = ghost.signed.get(lineKey(agent as Address, number, at))?.[0];
    hold("P6 no_agent_signature_no_debit", line !== undefined, () => {
      return `payment ${number} of ${String(agent)} with head ${at} was settled, and its agent never signed it`;
    });
    if (number === seq) same("P6 no_agent_signature_no_debit", "the settled total", spent, line.payment.spent);
    pay(ghost, mandate, { agent: agent as Address, seq: number, head: at, by: "batch" });
    at = line.parent;
  }
  same("P6 no_agent_signature_no_debit", `the history of ${String(agent)}`, at, mandate.head);
  Object.assign(mandate, { seq: seq as bigint, spent: spent as bigint, head: headOf(head as bigint) });
}

function claimed({ ghost }: Happened, { id, agent, paid }: Args): void {
  if (paid === 0n) return;
  const mandate = mandateOf(ghost, agent);
  const claim = ghost.claims.get(id as Hex)!;
  const { acknowledged } = mandate;
  // What was filed before the acknowledgement is the payee's already.
  const late = acknowledged !== null && claim.filedAt > acknowledged.at && claim.seq > acknowledged.seq;
  hold("P5 revoke_is_final", !late, () => `payment ${claim.seq} of ${String(agent)} was paid after its end`);
  const line = ghost.signedBy(agent as Address).find(({ payment }) => claimId(agent as Address, payment) === id);
  hold("P6 no_agent_signature_no_debit", line !== undefined, () => `claim ${String(id)} has no signed payment`);
  mandate.directSpent += paid as bigint;
  const { seq, head } = line.payment;
  pay(ghost, mandate, { agent: agent as Address, seq, head, by: "claim", amount: paid as bigint });
}

/** Credits a payee for a signed line, if that may be paid and never was. */
function pay(
  ghost: Ghost,
  { mandate }: GhostMandate,
  one: { agent: Address; seq: bigint; head: Hex; by: "batch" | "claim"; amount?: bigint },
): void {
  const { agent, seq, head, by } = one;
  const { line } = ghost.signed.get(lineKey(agent, seq, head))![0]!.payment;
  const key = paymentKey(agent, seq);
  hold("P9 pay_once", !ghost.paid.has(key), () => `payment ${seq} of ${agent} is paid by ${by}, and was paid before`);
  hold("P2 no_payment_above_cap_or_off_allowlist", line.amount <= mandate.paymentCap, () => {
    return `${line.amount} units are above the cap of ${mandate.paymentCap}`;
  });
  hold("P2 no_payment_above_cap_or_off_allowlist", allowsPayee(mandate.payees, line.payee), () => {
    return `${line.payee} is not on the list of ${agent}`;
  });
  const { amount = line.amount } = one;
  ghost.paid.set(key, { head, by, amount });
  ghost.add(ghost.credits, line.payee, amount);
}

/** A victim is owed what neither a batch nor a claim has paid. */
function expectUnpaid(ghost: Ghost, id: Hex, owed: bigint): void {
  for (const [agent] of ghost.mandates) {
    const line = ghost.signedBy(agent).find(({ payment }) => claimId(agent, payment) === id);
    if (!line) continue;
    const { seq, head } = line.payment;
    const paid = ghost.paid.get(paymentKey(agent, seq));
    const already = paid?.head === head ? paid.amount : 0n;
    hold("P9 pay_once", already + owed <= line.payment.line.amount, () => {
      return `payment ${seq} of ${agent} is owed ${owed} by the bond, and was paid ${already}`;
    });
    return;
  }
  throw new PromiseBroken("P6 no_agent_signature_no_debit", `the victim ${id} has no signed payment`);
}

function paidDirectly({ ghost, time }: Happened, { agent, payee, nonce, units }: Args): void {
  const mandate = mandateOf(ghost, agent);
  const key = `${String(agent)} ${String(nonce)}`;
  const signed = ghost.direct.get(key);
  hold("P9 pay_once", signed !== undefined, () => `the direct payment ${key} was paid before, or never signed`);
  same("P17 sp_cannot_take", "the payee of a direct payment", payee, signed.payee);
  same("P6 no_agent_signature_no_debit", "the amount of a direct payment", units, signed.amount);
  ghost.direct.delete(key);
  mandate.directSpent += units as bigint;
  expectBeforeTheEnd(mandate, time, { directSpent: mandate.directSpent });
  ghost.add(ghost.credits, payee as string, units as bigint);
}

/** Nothing debits the owner after its revocation but what the processor acknowledged in time. */
function expectBeforeTheEnd(mandate: GhostMandate, time: bigint, after: { seq?: bigint; directSpent?: bigint }): void {
  const { revokedAt, acknowledged, fallbackAt, closed } = mandate;
  const { agent } = mandate.mandate;
  hold("I7 life cycle", !closed && fallbackAt === null, () => `${agent} is debited after its fallback or its end`);
  hold("P5 revoke_is_final", time < endOf(mandate) + TAIL, () => `${agent} is debited after its windows`);
  if (revokedAt === null) return;
  const { seq = 0n, directSpent = 0n } = after;
  const answered = acknowledged
    ? seq <= acknowledged.seq && directSpent <= acknowledged.directSpent
    : time <= revokedAt + WINDOWS.acknowledge;
  hold("P5 revoke_is_final", answered, () => `${agent} is debited up to payment ${seq} after its revocation`);
}
