import { headHex, signPayment, signReceipt, type Address, type Hex, type Receipt } from "@bursar/protocol";
import { id } from "ethers";
import fc from "fast-check";

import { WINDOWS } from "../../../deploy/index.ts";
import { accountAt, settleRows } from "./money.ts";
import {
  BURNED,
  DEPOSIT,
  endedAt,
  isAbandoned,
  LATE_CHALLENGES,
  least,
  most,
  remaining,
  TAIL,
  UNBONDING,
  VICTIM_WINDOW,
  type GhostChallenge,
  type GhostClaim,
  type GhostMandate,
  type GhostProcessor,
  type GhostReceipt,
} from "./ghost.ts";
import {
  amountOf,
  attempt,
  everyone,
  idOf,
  index,
  kind,
  payeeOf,
  pick,
  prefer,
  subAccount,
  sums,
  twoOf,
  units,
  type Kind,
  type Play,
} from "./play.ts";
import { INCLUSION_CIRCUIT, keyOf, operators, owners, stranger } from "./world.ts";

type Caller = (typeof everyone)[number];

const NEVER = 2n ** 256n - 1n;
const [PENALTY_SHARE, PENALTY] = [10n, 500_000n];
const [REPORTER_SHARE, REPORTER_MOST] = [20n, 500_000_000n];

const receipts: Kind[] = [
  kind(
    "promise",
    26,
    fc.record({
      index,
      /** How far ahead of what is settled; 3 is what is settled already. */
      ahead: fc.constantFrom(0n, 0n, 0n, 1n, 2n, 3n),
      amount: units,
      to: payeeOf,
      settleIn: fc.bigInt({ min: 0n, max: WINDOWS.settleBy }),
      isFork: fc.nat({ max: 3 }),
    }),
    async (play, drawn) => {
      const mandate = pick(play.ghost.mandates, drawn.index);
      if (mandate) await promise(play, mandate, { ...drawn, isFork: drawn.isFork === 0 });
    },
  ),
];

/** A payment is promised and settled at once, or another one in its place. */
const purchases: Kind[] = [
  kind(
    "buy",
    24,
    fc.record({ index, amount: units, to: payeeOf, isHonest: fc.constantFrom(true, true, true, false) }),
    async (play, { index, amount, to, isHonest }) => {
      const mandate = prefer(play.ghost.mandates, index, ({ state }) => state === "open");
      if (!mandate) return;
      await promise(play, mandate, { ahead: 0n, amount, to, settleIn: WINDOWS.settleBy, isFork: false });
      await settleRows(play, [mandate], { amounts: [amount], to: 1, isHonest, wrong: "nothing" });
    },
  ),
];

/** Agent and processor sign a payment, whether or not both ever did so for another one with its number. */
async function promise(
  { world, ghost, clock }: Play,
  mandate: GhostMandate,
  drawn: { ahead: bigint; amount: bigint; to: number; settleIn: bigint; isFork: boolean },
): Promise<void> {
  const isPast = drawn.ahead === 3n;
  const amount = amountOf(mandate, drawn.amount);
  const seq = isPast ? most(mandate.seq, 1n) : mandate.seq + 1n + drawn.ahead;
  const head = headHex(mandate.base + (drawn.isFork || isPast ? 1_000n + amount : seq - mandate.seq));
  const play = { world, ghost, clock };
  const line = { payee: accountAt(play, mandate, drawn.to), amount, ref: id("ref") as Hex };
  const spent = mandate.spent + amount;
  const settleBy = clock.time + drawn.settleIn;
  const { address: agent, processor } = mandate;
  const message: Receipt = { agent, seq, ...line, head, settleBy, logIndex: 0n };
  const payment = {
    agent,
    seq,
    spent,
    head,
    line,
    settleBy,
    logIndex: 0n,
    agentSignature: await signPayment(mandate.agent, world.domain, { seq, spent, head, line }),
    processorSignature: await signReceipt(processor.key, world.domain, message),
    payees: mandate.payees,
  };
  ghost.receipts.push({ mandate, id: idOf(payment), key: processor.key.address, payment });
}

/** Whether the processor's key that signed it may have promised that. */
const isOfKey = ({ mandate, key, payment }: GhostReceipt): boolean =>
  payment.settleBy <= mandate.processor.keyUntil.get(key)!;

/** Whether claims and challenges take the receipt, `late` seconds after the claims' last. */
function isReceipted(receipt: GhostReceipt, time: bigint, late = 0n): boolean {
  const end = endedAt(receipt.mandate);
  return (
    time <= end + TAIL + late &&
    receipt.payment.settleBy <= end + WINDOWS.acknowledge + WINDOWS.settleBy &&
    isOfKey(receipt)
  );
}

const claims: Kind[] = [
  kind(
    "file",
    20,
    fc.record({ indices: fc.array(index, { minLength: 1, maxLength: 2 }), by: index }),
    async (play, { indices, by }) => {
      const { world, ghost, clock } = play;
      const { time } = clock;
      const chosen = indices
        .map((at) => prefer(ghost.receipts, at, (receipt) => mayFile(play, receipt, time)))
        .filter((one) => one !== undefined);
      if (chosen.length === 0) return;
      const sender = pick(everyone, by)!;
      const isMixed = chosen.some(({ mandate }) => mandate.processor !== chosen[0]!.mandate.processor);
      const allowed =
        !isMixed &&
        new Set(chosen.map((one) => one.id)).size === chosen.length &&
        chosen.every((receipt) => mayFile(play, receipt, time));
      const call = world.claims.file.populateTransaction(chosen.map(({ payment }) => payment));
      if (await attempt(play, "file", allowed, sender, call)) fileAll(play, chosen, sender.address, time);
    },
  ),
  kind("resolve", 14, fc.record({ index, by: index }), async (play, drawn) => {
    const claim = prefer([...play.ghost.claims.values()], drawn.index, ({ status }) => status === "filed");
    const receipt = claim?.receipt;
    if (receipt) await resolve(play, receipt, pick(everyone, drawn.by)!);
  }),
];

const isMissed = ({ payment }: GhostReceipt, time: bigint): boolean => time > payment.settleBy + WINDOWS.grace;

/** P2: no claim and no challenge for what its mandate does not allow. */
const isWithinLimits = ({ mandate, payment }: GhostReceipt): boolean =>
  payment.line.amount <= mandate.paymentCap &&
  (mandate.payees.length === 0 || mandate.payees.includes(payment.line.payee));

function mayFile({ ghost }: Play, receipt: GhostReceipt, time: bigint): boolean {
  const { mandate, payment } = receipt;
  return (
    isReceipted(receipt, time) &&
    !ghost.claims.has(receipt.id) &&
    payment.seq > mandate.seq &&
    (isMissed(receipt, time) || isAbandoned(mandate, time)) &&
    isWithinLimits(receipt)
  );
}

function fileAll({ ghost }: Play, chosen: readonly GhostReceipt[], sender: Address, time: bigint): void {
  const { processor } = chosen[0]!.mandate;
  let [missed, penalties] = [0, 0n];
  for (const receipt of chosen) {
    const { mandate, payment } = receipt;
    const { payee, amount } = payment.line;
    const abandoned = isAbandoned(mandate, time);
    const closesAt = endedAt(mandate) + TAIL;
    if (mandate.state !== "closed") mandate.closesAt = most(mandate.closesAt, closesAt);
    const { acknowledged } = mandate;
    const fromLock = mandate.state !== "closed" && !(acknowledged && payment.seq > acknowledged.seq);
    if (fromLock) mandate.reserved += amount;
    const resolvableAt = time + (abandoned ? 0n : WINDOWS.cure);
    ghost.claims.set(receipt.id, { receipt, status: "filed", fromLock, resolvableAt, paid: 0n });
    if (!isMissed(receipt, time)) continue;
    missed += 1;
    penalties += amount / PENALTY_SHARE;
    ghost.penalize(processor, payee, amount / PENALTY_SHARE, time);
  }
  if (missed > 0 && penalties < PENALTY) ghost.penalize(processor, sender, PENALTY - penalties, time);
}

/** Anyone ends a claim after its cure window. */
export async function resolve(play: Play, receipt: GhostReceipt, sender: Caller): Promise<boolean> {
  const { world, ghost, clock } = play;
  const { time } = clock;
  const claim = ghost.claims.get(receipt.id)!;
  const allowed = claim.status === "filed" && time >= claim.resolvableAt;
  const call = world.claims.resolve.populateTransaction([receipt.payment]);
  if (!(await attempt(play, "resolve", allowed, sender, call))) return false;

  const { mandate, payment } = receipt;
  const { amount, payee } = payment.line;
  const name = `${mandate.address} ${payment.seq}`;
  const cured = mandate.seq >= payment.seq;
  const pay = claim.fromLock && !cured && !ghost.paidOf.has(name);
  if (claim.fromLock) mandate.reserved -= amount;
  if (pay) {
    claim.paid = payFromLock(play, mandate, payee, amount, time);
    ghost.paidOf.set(name, receipt.id);
  }
  claim.status = statusOf(claim, cured, amount);
  if (claim.status !== "bonded") return true;
  ghost.slash(mandate.processor, sender.address, time);
  ghost.addVictim(mandate.processor, receipt.id, payee, amount - claim.paid, time);
  return true;
}

function statusOf({ paid }: GhostClaim, cured: boolean, amount: bigint): GhostClaim["status"] {
  if (cured) return "cured";
  return paid === amount ? "paid" : "bonded";
}

/** @returns the units that the lock had. */
function payFromLock({ ghost }: Play, mandate: GhostMandate, payee: Address, amount: bigint, time: bigint): bigint {
  if (mandate.state === "closed") return 0n;
  if (mandate.state !== "fallback") mandate.closesAt = least(mandate.closesAt, time + TAIL);
  mandate.state = "fallback";
  const paid = least(amount, remaining(mandate));
  mandate.directSpent += paid;
  ghost.accounts.locked -= paid;
  ghost.accounts.addCredit(payee, paid);
  return paid;
}

const isUnanswered = ({ status }: GhostChallenge): boolean => status === "open";

const challenges: Kind[] = [
  kind("equivocate", 3, fc.record({ first: index, second: index, by: index }), async (play, drawn) => {
    const { world, ghost, clock } = play;
    const first = pick(ghost.receipts, drawn.first);
    if (!first) return;
    const rivals = ghost.receipts.filter(
      ({ mandate, payment }) => mandate === first.mandate && payment.seq === first.payment.seq,
    );
    const second = pick(drawn.second % 5 === 0 ? ghost.receipts : rivals, drawn.second)!;
    const isPair = first.mandate === second.mandate && first.payment.seq === second.payment.seq;
    const allowed = isPair && first.id !== second.id && isOfKey(first) && isOfKey(second);
    const sender = pick(everyone, drawn.by)!;
    const { time } = clock;
    const call = world.challenges.reportEquivocation.populateTransaction(
      receiptOf(first),
      first.payment.processorSignature,
      receiptOf(second),
      second.payment.processorSignature,
    );
    if (await attempt(play, "equivocate", allowed, sender, call))
      ghost.slash(first.mandate.processor, sender.address, time);
  }),
  kind("challenge", 12, fc.record({ index, by: fc.nat({ max: 2 }) }), async (play, drawn) => {
    const { world, ghost, clock } = play;
    const settled = ghost.receipts.filter(({ mandate, payment }) => payment.seq <= mandate.seq);
    const receipt = pick(drawn.index % 4 === 0 ? ghost.receipts : settled, drawn.index);
    if (!receipt) return;
    const challenger = [stranger, ...owners][drawn.by]!;
    const { time } = clock;
    const allowed =
      isReceipted(receipt, time, LATE_CHALLENGES) &&
      isWithinLimits(receipt) &&
      receipt.payment.spent <= receipt.mandate.budget &&
      receipt.payment.seq <= receipt.mandate.seq &&
      !ghost.challenges.has(receipt.id) &&
      !ghost.paused;
    const call = world.challenges.challenge.populateTransaction(receipt.payment);
    if (!(await attempt(play, "challenge", allowed, challenger, call))) return;
    const account = subAccount(world.addresses.challenges, receipt.id);
    ghost.accounts.deposit(account, DEPOSIT);
    ghost.challenges.set(receipt.id, {
      receipt,
      account,
      challenger: challenger.address,
      until: time + WINDOWS.cure,
      status: "open",
    });
  }),
  kind(
    "answer",
    8,
    fc.record({ index, by: index, wrong: fc.constantFrom("nothing", "nothing", "nothing", "row", "proof", "credits") }),
    async (play, drawn) => {
      const challenge = prefer([...play.ghost.challenges.values()], drawn.index, isUnanswered);
      if (challenge) await answer(play, challenge, { ...drawn, by: pick(everyone, drawn.by)! });
    },
  ),
  kind("uphold", 6, fc.record({ index, by: index }), async (play, drawn) => {
    const challenge = prefer([...play.ghost.challenges.values()], drawn.index, isUnanswered);
    if (challenge) await uphold(play, challenge, pick(everyone, drawn.by)!);
  }),
];

function receiptOf({ payment }: GhostReceipt): Receipt {
  const { agent, seq, line, head, settleBy, logIndex } = payment;
  return { agent, seq, ...line, head, settleBy, logIndex };
}

/** The proof is believed if the ledger has that line: nobody could prove another one. */
async function answer(
  play: Play,
  challenge: GhostChallenge,
  { wrong, by }: { wrong: string; by: Caller },
): Promise<void> {
  const { world, ghost, clock } = play;
  const { mandate, payment } = challenge.receipt;
  const right = mandate.rows.find(({ first, last }) => first <= payment.seq && payment.seq <= last)!;
  const shown = wrong === "row" ? mandate.rows.find((row) => row !== right) : right;
  const line = mandate.lines.get(payment.seq)!;
  const isThere = line.payee === payment.line.payee && line.amount === payment.line.amount;
  const proved = isThere && wrong !== "proof";
  const { batch, row } = shown ?? right;
  const allowed =
    challenge.status === "open" &&
    clock.time <= challenge.until &&
    proved &&
    wrong !== "credits" &&
    (shown ?? right) === right;
  const call = world.challenges.answer.populateTransaction(
    payment,
    {
      batchId: batch.batchId,
      circuitId: id("stub batch"),
      commitment: batch.commitment,
      rowWords: batch.rowWords,
      creditsHash: wrong === "credits" ? id("others") : batch.creditsHash,
      row,
    },
    INCLUSION_CIRCUIT,
    [proved ? 1n : 0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n],
  );
  if (!(await attempt(play, `answer with wrong ${wrong}`, allowed, by, call))) return;
  challenge.status = "answered";
  ghost.accounts.pay(challenge.account, mandate.processor.account.address, DEPOSIT);
}

export async function uphold(play: Play, challenge: GhostChallenge, by: Caller): Promise<void> {
  const { world, ghost, clock } = play;
  const { time } = clock;
  const { mandate, payment } = challenge.receipt;
  const allowed = challenge.status === "open" && time > challenge.until;
  const call = world.challenges.uphold.populateTransaction(payment);
  if (!(await attempt(play, "uphold", allowed, by, call))) return;
  challenge.status = "upheld";
  ghost.slash(mandate.processor, challenge.challenger, time);
  ghost.addVictim(mandate.processor, challenge.receipt.id, payment.line.payee, payment.line.amount, time);
  ghost.accounts.pay(challenge.account, challenge.challenger, DEPOSIT);
}

const bonds: Kind[] = [
  kind("rotate", 1, fc.record({ operator: twoOf, isOld: fc.nat({ max: 3 }) }), async (play, { operator, isOld }) => {
    const { world, ghost, clock } = play;
    const processor = ghost.processors[operator]!;
    const key = isOld === 0 ? processor.key : keyOf(`receipts of ${operator}`, ++processor.keys);
    const { time } = clock;
    const call = world.processors.rotateKey.populateTransaction(key.address);
    if (!(await attempt(play, "rotate", isOld !== 0, processor.account, call))) return;
    processor.keyUntil.set(processor.key.address, time + WINDOWS.settleBy);
    processor.keyUntil.set(key.address, NEVER);
    processor.key = key;
  }),
  kind("unbond", 1, fc.record({ operator: twoOf }), async (play, { operator }) => {
    await requestUnbonding(play, play.ghost.processors[operator]!);
  }),
  kind("rebond", 2, fc.record({ operator: twoOf }), async (play, { operator }) => {
    const processor = play.ghost.processors[operator]!;
    const call = play.world.processors.cancelUnbonding.populateTransaction();
    if (await attempt(play, "rebond", processor.unbondingAt !== null, processor.account, call))
      processor.unbondingAt = null;
  }),
  kind("add bond", 2, fc.record({ operator: twoOf, amount: sums }), async (play, { operator, amount }) => {
    const { world, ghost } = play;
    const { bondAccount, account } = ghost.processors[operator]!;
    const call = world.escrow.deposit.populateTransaction(world.token, amount, bondAccount);
    if (await attempt(play, "add bond", !ghost.paused, account, call)) ghost.accounts.deposit(bondAccount, amount);
  }),
  kind("take bond", 3, fc.record({ operator: twoOf }), async (play, { operator }) => {
    await takeBond(play, play.ghost.processors[operator]!);
  }),
  kind("pay victim", 5, fc.record({ operator: twoOf, index, by: index }), async (play, drawn) => {
    const processor = play.ghost.processors[drawn.operator]!;
    const victim = pick([...processor.victims.keys()], drawn.index) ?? (id("nobody") as Hex);
    await payVictim(play, processor, victim, pick(everyone, drawn.by)!);
  }),
  kind("finish slash", 3, fc.record({ operator: twoOf, by: index }), async (play, drawn) => {
    await finishSlash(play, play.ghost.processors[drawn.operator]!, pick(everyone, drawn.by)!);
  }),
];

export async function requestUnbonding(play: Play, processor: GhostProcessor): Promise<void> {
  const { time } = play.clock;
  const call = play.world.processors.requestUnbonding.populateTransaction();
  if (await attempt(play, "unbond", processor.unbondingAt === null, processor.account, call))
    processor.unbondingAt = time;
}

/** @returns whether the bond left. */
export async function takeBond(play: Play, processor: GhostProcessor): Promise<boolean> {
  const { world, ghost, clock } = play;
  const { unbondingAt, coversUntil, account, bondAccount, slash } = processor;
  const bond = ghost.bondOf(processor);
  const isOver =
    unbondingAt !== null && clock.time >= most(unbondingAt + UNBONDING, coversUntil + WINDOWS.cure + VICTIM_WINDOW);
  const call = world.processors.withdrawBond.populateTransaction(world.token, account.address);
  const allowed = isOver && !slash && bond > 0n;
  if (await attempt(play, "P16 take bond", allowed, account, call))
    ghost.accounts.pay(bondAccount, account.address, bond);
  return allowed;
}

export async function payVictim(play: Play, processor: GhostProcessor, victim: Hex, by: Caller): Promise<void> {
  const { world, ghost, clock } = play;
  const { slash, victims } = processor;
  const owed = victims.get(victim);
  const allowed = slash !== null && clock.time >= slash.endsAt && owed !== undefined;
  const call = world.processors.payVictim.populateTransaction(processor.account.address, world.token, victim);
  if (!(await attempt(play, "pay victim", allowed, by, call))) return;
  const paid = (owed!.owed * least(ghost.potOf(processor, slash!), slash!.owed)) / slash!.owed;
  victims.delete(victim);
  if (paid > 0n) ghost.accounts.pay(processor.bondAccount, owed!.payee, paid);
}

export async function finishSlash(play: Play, processor: GhostProcessor, by: Caller): Promise<void> {
  const { world, ghost, clock } = play;
  const { slash, bondAccount } = processor;
  const allowed = slash !== null && clock.time >= slash.endsAt && !slash.finished;
  const call = world.processors.finishSlash.populateTransaction(processor.account.address, world.token);
  if (!(await attempt(play, "finish slash", allowed, by, call))) return;
  slash!.finished = true;
  const pot = ghost.potOf(processor, slash!);
  const rest = pot - least(pot, slash!.owed);
  const reward = least(rest / REPORTER_SHARE, REPORTER_MOST);
  if (reward > 0n) ghost.accounts.pay(bondAccount, slash!.reporter, reward);
  if (rest > reward) ghost.accounts.pay(bondAccount, BURNED, rest - reward);
}

/** Registers both processors, each with a key apart from its account and a little more than the least bond. */
export async function registerProcessors(play: Play, bond: bigint): Promise<void> {
  const { world, ghost, clock } = play;
  for (const [at, account] of operators.entries()) {
    const key = keyOf(`receipts of ${at}`, 0);
    const bondAccount = (await world.processors.bondAccountOf(account.address)) as Address;
    const registeredAt = clock.time;
    await attempt(play, "register", true, account, world.processors.register.populateTransaction(key.address, ""));
    ghost.processors.push({
      account,
      bondAccount,
      registeredAt,
      key,
      keyUntil: new Map([[key.address, NEVER]]),
      keys: 0,
      unbondingAt: null,
      coversUntil: 0n,
      covered: 0n,
      penalties: { since: 0n, paid: 0n },
      slash: null,
      victims: new Map(),
    });
    const call = world.escrow.deposit.populateTransaction(world.token, bond, bondAccount);
    if (await attempt(play, "bond", true, account, call)) ghost.accounts.deposit(bondAccount, bond);
  }
}

export const trust: readonly Kind[] = [...receipts, ...purchases, ...claims, ...challenges, ...bonds];
