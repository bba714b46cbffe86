import { type Address, type Hex } from "@bursar/protocol";
import { id } from "ethers";
import fc from "fast-check";

import { WINDOWS } from "../../../deploy/index.ts";
import type { GhostArbiter, GhostCase, GhostDispute, GhostHold, GhostReceipt } from "./ghost.ts";
import { most } from "./ghost.ts";
import { attempt, everyone, index, kind, pick, prefer, twoOf, type Kind, type Play } from "./play.ts";
import { arbiters, DEADLINES, FEE, RULE_WITHIN, STAKE, stranger } from "./world.ts";

const PARTS = 64n;
const EVIDENCE = id("evidence") as Hex;
const ARBITER_NOTICE = 7n * 86_400n;
const [NOT_DELIVERED, OTHER] = [0n, 3n];

type Caller = (typeof everyone)[number];

const structOf = ({ mandate, payee, holdback }: GhostHold) => ({
  agent: mandate.address,
  payee: payee.address,
  holdback,
});

/** Takes what arrived into the books, with its time. */
function collect({ ghost }: Play, hold: GhostHold, time: bigint): void {
  const fresh = ghost.accounts.balanceOf(hold.address) - hold.known;
  if (fresh === 0n) return;
  const part = hold.holdback / PARTS + 1n;
  const maturesAt = ((time + hold.holdback + part - 1n) / part) * part;
  hold.known += fresh;
  const last = hold.tranches.at(-1);
  if (hold.tranches.length > hold.cursor && last?.maturesAt === maturesAt) last.amount += fresh;
  else hold.tranches.push({ maturesAt, amount: fresh });
}

/** What waits in a hold, `fresh` money included, that matures after `time`. */
function waitingIn({ ghost }: Play, hold: GhostHold, time: bigint): bigint {
  let waiting = ghost.accounts.balanceOf(hold.address) - hold.known;
  if (hold.holdback === 0n) waiting = 0n;
  for (let at = hold.tranches.length - 1; at >= hold.cursor && hold.tranches[at]!.maturesAt > time; at--)
    waiting += hold.tranches[at]!.amount;
  return waiting;
}

function freeze(hold: GhostHold, amount: bigint, time: bigint): void {
  let first = hold.tranches.length;
  while (first > hold.cursor && hold.tranches[first - 1]!.maturesAt > time) first -= 1;
  let missing = amount;
  for (const tranche of hold.tranches.slice(first)) {
    const taken = missing < tranche.amount ? missing : tranche.amount;
    tranche.amount -= taken;
    missing -= taken;
  }
  hold.frozen += amount;
}

function finish({ ghost }: Play, dispute: GhostDispute, status: "paid" | "refunded"): void {
  const { hold, amount } = dispute;
  const to: Address = status === "refunded" ? hold.mandate.owner.address : hold.payee.address;
  dispute.status = status;
  dispute.out = { to, amount };
  hold.frozen -= amount;
  hold.known -= amount;
  ghost.accounts.pay(hold.address, to, amount);
}

const isOpen = ({ status }: GhostDispute): boolean =>
  status === "filed" || status === "answered" || status === "escalated";

const holds: Kind[] = [
  kind("collect", 3, fc.record({ index, by: index }), async (play, drawn) => {
    const hold = pick(play.ghost.holds, drawn.index);
    if (!hold) return;
    const { time } = play.clock;
    const call = play.world.disputes.collect.populateTransaction(structOf(hold));
    await attempt(play, "collect", true, pick(everyone, drawn.by)!, call);
    collect(play, hold, time);
  }),
  kind(
    "release hold",
    4,
    fc.record({ index, by: index, parts: fc.nat({ max: 4 }) }),
    async (play, { index, by, parts }) => {
      const hold = pick(play.ghost.holds, index);
      if (hold) await release(play, hold, pick(everyone, by)!, parts);
    },
  ),
];

export async function release(play: Play, hold: GhostHold, by: Caller, parts: number): Promise<void> {
  const { world, ghost, clock } = play;
  const { time } = clock;
  const call = world.disputes.release.populateTransaction(structOf(hold), parts);
  await attempt(play, "release", true, by, call);
  collect(play, hold, time);
  const end = Math.min(hold.cursor + parts, hold.tranches.length);
  let paid = 0n;
  for (; hold.cursor < end && hold.tranches[hold.cursor]!.maturesAt <= time; hold.cursor++) {
    paid += hold.tranches[hold.cursor]!.amount;
    hold.tranches[hold.cursor] = { maturesAt: 0n, amount: 0n };
  }
  if (paid === 0n) return;
  hold.known -= paid;
  ghost.accounts.pay(hold.address, hold.payee.address, paid);
}

const disputes: Kind[] = [
  kind(
    "dispute",
    22,
    fc.record({
      index,
      by: fc.constantFrom("owner", "owner", "owner", "stranger"),
      kind: fc.constantFrom("not-delivered" as const, "other" as const),
    }),
    async (play, drawn) => {
      const bought = play.ghost.receipts.filter(({ payment }) =>
        play.ghost.holds.some(({ address }) => address === payment.line.payee),
      );
      const receipt = prefer(bought.slice(-4), drawn.index, ({ mandate, payment }) => payment.seq <= mandate.seq);
      if (receipt) await file(play, receipt, drawn);
    },
  ),
  kind(
    "answer dispute",
    12,
    fc.record({ index, isOdd: fc.constantFrom(false, false, false, true), by: fc.nat({ max: 4 }) }),
    async (play, { index, isOdd, by }) => {
      const dispute = prefer(play.ghost.disputes, index, ({ status }) => status === "filed");
      if (!dispute) return;
      const isEvidence = isOdd !== (dispute.kind === "other");
      const { payment } = dispute.receipt;
      const { time } = play.clock;
      const sender = by === 0 ? stranger : dispute.hold.payee;
      const { disputes } = play.world;
      const delivery = {
        agent: payment.agent,
        seq: payment.seq,
        ref: payment.line.ref,
        bodyHash: EVIDENCE,
        deliveredAt: time,
      };
      const call = isEvidence
        ? disputes.answer.populateTransaction(dispute.id, EVIDENCE)
        : disputes.answerDelivery.populateTransaction(dispute.id, delivery, "0x");
      const allowed =
        dispute.status === "filed" &&
        time <= dispute.deadline &&
        isEvidence === (dispute.kind === "other") &&
        (isEvidence || time <= dispute.deliverBy) &&
        by !== 0;
      if (!(await attempt(play, "answer dispute", allowed, sender, call))) return;
      dispute.status = "answered";
      dispute.deadline = time + DEADLINES.escalate;
    },
  ),
  kind(
    "escalate",
    12,
    fc.record({ index, by: fc.constantFrom("owner", "payee", "stranger"), fee: fc.constantFrom(FEE, FEE, FEE, 1n) }),
    async (play, drawn) => {
      const dispute = prefer(play.ghost.disputes, drawn.index, ({ status }) => status === "answered");
      if (dispute) await escalate(play, dispute, drawn);
    },
  ),
  kind("give in", 1, fc.record({ index, isPayee: fc.boolean() }), async (play, { index, isPayee }) => {
    const dispute = pick(play.ghost.disputes, index);
    if (!dispute) return;
    const allowed = isOpen(dispute) && isPayee;
    const call = play.world.disputes.refund.populateTransaction(dispute.id);
    if (await attempt(play, "give in", allowed, isPayee ? dispute.hold.payee : stranger, call))
      finish(play, dispute, "refunded");
  }),
  kind("resolve dispute", 5, fc.record({ index, by: index }), async (play, drawn) => {
    const dispute = prefer(play.ghost.disputes, drawn.index, isOpen);
    if (dispute) await resolveDispute(play, dispute, pick(everyone, drawn.by)!);
  }),
];

async function file(
  play: Play,
  receipt: GhostReceipt,
  { by, kind }: { by: string; kind: GhostDispute["kind"] },
): Promise<void> {
  const { world, ghost, clock } = play;
  const { mandate, payment, key } = receipt;
  const { time } = clock;
  const hold = ghost.holds.find(({ address }) => address === payment.line.payee)!;
  const { seq, spent, head, settleBy, logIndex, line, agentSignature, processorSignature } = payment;
  const purchase = {
    receipt: { agent: mandate.address, seq, ...line, head, settleBy, logIndex },
    spent,
    agentSignature,
    processorSignature,
  };
  const limit = settleBy + WINDOWS.grace + hold.holdback + hold.holdback / PARTS + 1n;
  const isSettled = seq <= mandate.seq;
  const isClaimed = !isSettled && ghost.paidOf.get(`${mandate.address} ${seq}`) === receipt.id;
  const isKnown = ghost.disputes.some((one) => one.hold.mandate === mandate && one.receipt.payment.seq === seq);
  const allowed =
    by === "owner" &&
    settleBy <= mandate.processor.keyUntil.get(key)! &&
    settleBy <= time + WINDOWS.settleBy &&
    (isClaimed || (isSettled && time <= limit)) &&
    !isKnown &&
    line.amount <= waitingIn(play, hold, time);
  const call = world.disputes.file.populateTransaction(
    kind === "other" ? OTHER : NOT_DELIVERED,
    structOf(hold),
    purchase,
    EVIDENCE,
  );
  const sender = by === "owner" ? mandate.owner : stranger;
  if (!(await attempt(play, "dispute", allowed, sender, call))) return;
  collect(play, hold, time);
  freeze(hold, line.amount, time);
  const deliverBy = settleBy + DEADLINES.deliver;
  ghost.disputes.push({
    id: BigInt(ghost.disputes.length + 1),
    hold,
    receipt,
    kind,
    amount: line.amount,
    deliverBy,
    status: "filed",
    deadline: (kind === "other" ? time : most(time, deliverBy)) + DEADLINES.answer,
    disputeID: null,
    out: null,
  });
}

async function escalate(play: Play, dispute: GhostDispute, { by, fee }: { by: string; fee: bigint }): Promise<void> {
  const { world, ghost, clock } = play;
  const { time } = clock;
  const { owner } = dispute.hold.mandate;
  const sender = { owner, payee: dispute.hold.payee, stranger }[by]!;
  const at = [0, 1].map((i) => (ghost.nextArbiter + i) % 2).find((i) => isFree(ghost.arbiters[i]!));
  const allowed =
    dispute.status === "answered" && time <= dispute.deadline && by !== "stranger" && fee === FEE && at !== undefined;
  const call = world.disputes.escalate.populateTransaction(dispute.id);
  if (!(await attempt(play, "escalate", allowed, sender, call, fee))) return;
  const arbiter = ghost.arbiters[at!]!;
  ghost.nextArbiter = at! + 1;
  arbiter.open += 1n;
  const one: GhostCase = {
    id: BigInt(ghost.cases.length + 1),
    dispute,
    arbiter,
    payer: sender.address,
    deadline: time + RULE_WITHIN,
    status: "waiting",
    ruling: 0n,
  };
  ghost.cases.push(one);
  dispute.status = "escalated";
  dispute.deadline = time + DEADLINES.rule;
  dispute.disputeID = one.id;
}

const isFree = ({ leavesAt, bond, open }: GhostArbiter): boolean => leavesAt === 0n && bond >= STAKE * (open + 1n);

/** I13: after its deadline every dispute ends, by a call of anyone. */
export async function resolveDispute(play: Play, dispute: GhostDispute, by: Caller): Promise<void> {
  const allowed = isOpen(dispute) && play.clock.time > dispute.deadline;
  const status = dispute.status === "filed" ? "refunded" : "paid";
  const call = play.world.disputes.resolve.populateTransaction(dispute.id);
  if (await attempt(play, "I13 resolve dispute", allowed, by, call)) finish(play, dispute, status);
}

const isWaiting = ({ status }: GhostCase): boolean => status === "waiting";

const rulings: Kind[] = [
  kind(
    "rule",
    8,
    fc.record({ index, ruling: fc.bigInt({ min: 0n, max: 3n }), isOther: fc.nat({ max: 4 }) }),
    async (play, { index, ruling, isOther }) => {
      const { ghost, world, clock } = play;
      const one = prefer(ghost.cases, index, isWaiting);
      if (!one) return;
      const { time } = clock;
      const sender = isOther === 0 ? stranger : one.arbiter.account;
      const allowed = one.status === "waiting" && isOther !== 0 && ruling <= 2n && time <= one.deadline;
      const call = world.arbiter.giveRuling.populateTransaction(one.id, ruling);
      if (!(await attempt(play, "rule", allowed, sender, call))) return;
      owe(play, one.arbiter.account.address, FEE);
      solve(play, one, ruling, time);
    },
  ),
  kind("expire", 5, fc.record({ index, by: index }), async (play, drawn) => {
    const one = prefer(play.ghost.cases, drawn.index, isWaiting);
    if (one) await expire(play, one, pick(everyone, drawn.by)!);
  }),
  kind("deliver", 2, fc.record({ index }), async (play, drawn) => {
    const one = pick(play.ghost.cases, drawn.index);
    if (!one) return;
    const { time } = play.clock;
    const allowed = one.status === "solved" && isRulable(one, time);
    const call = play.world.arbiter.deliver.populateTransaction(one.id);
    if (await attempt(play, "deliver", allowed, stranger, call)) deliver(play, one, time);
  }),
  kind("arbiter's bond", 2, fc.record({ at: twoOf, stakes: fc.bigInt({ min: 0n, max: 2n }) }), async (play, drawn) => {
    const arbiter = play.ghost.arbiters[drawn.at]!;
    await postArbiterBond(play, arbiter, drawn.stakes * STAKE);
  }),
  kind("arbiter's notice", 1, fc.record({ at: twoOf }), async (play, { at }) => {
    const arbiter = play.ghost.arbiters[at]!;
    const { time } = play.clock;
    const call = play.world.arbiter.giveNotice.populateTransaction();
    const allowed = arbiter.bond > 0n;
    if (!(await attempt(play, "arbiter's notice", allowed, arbiter.account, call))) return;
    if (arbiter.leavesAt === 0n) arbiter.leavesAt = time + ARBITER_NOTICE;
  }),
  kind("arbiter leaves", 2, fc.record({ at: twoOf }), async (play, { at }) => {
    const arbiter = play.ghost.arbiters[at]!;
    const allowed = arbiter.leavesAt !== 0n && play.clock.time >= arbiter.leavesAt && arbiter.open === 0n;
    const call = play.world.arbiter.takeBond.populateTransaction();
    if (!(await attempt(play, "arbiter leaves", allowed, arbiter.account, call))) return;
    owe(play, arbiter.account.address, arbiter.bond);
    [arbiter.bond, arbiter.leavesAt] = [0n, 0n];
  }),
  kind("take fees", 2, fc.record({ by: index }), async (play, { by }) => {
    await takeFees(play, pick(everyone, by)!);
  }),
];

export async function postArbiterBond(play: Play, arbiter: GhostArbiter, amount: bigint): Promise<void> {
  const call = play.world.arbiter.postBond.populateTransaction();
  if (!(await attempt(play, "arbiter's bond", amount > 0n, arbiter.account, call, amount))) return;
  arbiter.bond += amount;
  arbiter.leavesAt = 0n;
}

export async function takeFees(play: Play, by: Caller): Promise<void> {
  const { owedTo } = play.ghost;
  const call = play.world.arbiter.withdraw.populateTransaction(stranger.address);
  if (await attempt(play, "take fees", (owedTo.get(by.address) ?? 0n) > 0n, by, call)) owedTo.set(by.address, 0n);
}

export async function expire(play: Play, one: GhostCase, by: Caller): Promise<void> {
  const { time } = play.clock;
  const allowed = one.status === "waiting" && time > one.deadline;
  const call = play.world.arbiter.expire.populateTransaction(one.id);
  if (!(await attempt(play, "expire", allowed, by, call))) return;
  one.arbiter.bond -= STAKE;
  owe(play, one.payer, FEE + STAKE);
  solve(play, one, 0n, time);
}

function owe({ ghost }: Play, account: Address, amount: bigint): void {
  ghost.owedTo.set(account, (ghost.owedTo.get(account) ?? 0n) + amount);
}

function solve(play: Play, one: GhostCase, ruling: bigint, time: bigint): void {
  one.status = "solved";
  one.ruling = ruling;
  one.arbiter.open -= 1n;
  if (isRulable(one, time)) deliver(play, one, time);
}

const isRulable = ({ dispute }: GhostCase, time: bigint): boolean =>
  dispute.status === "escalated" && time <= dispute.deadline;

function deliver(play: Play, { dispute, ruling }: GhostCase, time: bigint): void {
  if (time <= dispute.deadline) finish(play, dispute, ruling === 2n ? "refunded" : "paid");
}

/** Both arbiters, one with stakes for two disputes. */
export async function seatArbiters(play: Play): Promise<void> {
  for (const [at, account] of arbiters.entries()) {
    const arbiter: GhostArbiter = { account, bond: 0n, open: 0n, leavesAt: 0n };
    play.ghost.arbiters.push(arbiter);
    await postArbiterBond(play, arbiter, BigInt(2 - at) * STAKE);
  }
}

export const holdSteps: readonly Kind[] = [...holds, ...disputes, ...rulings];
