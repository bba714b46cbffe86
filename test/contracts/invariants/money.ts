import {
  challenge,
  evaluate,
  hashCredits,
  hashLine,
  headHex,
  holdOf,
  rowWords,
  signClose,
  signMandate,
  signPayment,
  signRevocation,
  transcript,
  type Address,
  type Credit,
  type Hex,
  type Line,
  type Mandate,
  type Row,
} from "@bursar/protocol";
import { Signature, ZeroHash, type ContractTransaction } from "ethers";
import fc from "fast-check";

import { signDebit, signTransfer } from "../sign-direct.ts";
import {
  FLOOR,
  isAnswerable,
  isSettleable,
  least,
  most,
  NOTICE,
  remaining,
  TAIL,
  type GhostHold,
  type GhostMandate,
  type GhostRow,
} from "./ghost.ts";
import {
  amountOf,
  attempt,
  everyone,
  index,
  isSubAccount,
  kind,
  payeeOf,
  pick,
  prefer,
  sums,
  twoOf,
  units,
  type Kind,
  type Play,
} from "./play.ts";
import { BATCH_CIRCUIT, deployer, keyOf, operators, owners, payees, stranger } from "./world.ts";

const DAY = 86_400n;
export const HOLDBACK = DAY;

const deposits: Kind[] = [
  kind("deposit", 2, fc.record({ by: twoOf, amount: sums }), async (play, { by, amount }) => {
    await deposit(play, by, amount);
  }),
  kind("withdraw", 2, fc.record({ by: twoOf, amount: sums }), async (play, { by, amount }) => {
    const { world, ghost } = play;
    const owner = owners[by]!;
    const allowed = !ghost.paused && amount <= ghost.accounts.freeOf(owner.address);
    const call = world.escrow.withdraw.populateTransaction(world.token, amount, owner.address);
    if (await attempt(play, "withdraw", allowed, owner, call)) ghost.accounts.withdraw(owner.address, amount);
  }),
  kind("sweep", 3, fc.record({ index, by: index }), async (play, { index, by }) => {
    const { world, ghost } = play;
    const account = pick([...ghost.accounts.accounts()], index)!;
    const allowed = !ghost.paused && ghost.accounts.creditOf(account) > 0n && !isSubAccount(account);
    const call = world.escrow.sweepCredit.populateTransaction(world.token, account);
    if (await attempt(play, "sweep", allowed, pick(everyone, by)!, call)) ghost.accounts.sweep(account);
  }),
  kind("take", 1, fc.record({ by: index }), async (play, { by }) => {
    const { world, ghost } = play;
    const account = pick(everyone, by)!;
    const allowed = !ghost.paused && ghost.accounts.creditOf(account.address) > 0n;
    const call = world.escrow.withdrawCredit.populateTransaction(world.token, stranger.address);
    if (await attempt(play, "take", allowed, account, call)) ghost.accounts.sweep(account.address);
  }),
  kind("donate", 1, fc.record({ amount: sums }), async (play, { amount }) => {
    const { world, ghost } = play;
    const call = world.dollar.mint.populateTransaction(world.addresses.escrow, amount);
    if (await attempt(play, "donate", !ghost.paused, stranger, call)) ghost.accounts.donated += amount;
  }),
];

const surroundings: Kind[] = [
  kind("pause", 1, fc.constant(null), async (play) => {
    const { world, ghost } = play;
    const call = ghost.paused ? world.dollar.unpause : world.dollar.pause;
    await attempt(play, "pause", true, deployer, call.populateTransaction());
    ghost.paused = !ghost.paused;
  }),
  kind("gate", 1, fc.record({ mood: fc.nat({ max: 4 }) }), async (play, { mood }) => {
    const answer = [0n, 0n, 0n, 1n, 2n][mood]!;
    await attempt(play, "gate", true, stranger, play.world.gate.set.populateTransaction(answer, answer));
    play.ghost.gate = (["agrees", "refuses", "reverts"] as const)[Number(answer)]!;
  }),
  kind(
    "wait",
    22,
    fc.record({
      seconds: fc.oneof(
        { weight: 10, arbitrary: fc.bigInt({ min: 60n, max: 2n * 3_600n }) },
        { weight: 6, arbitrary: fc.bigInt({ min: 3_600n, max: 30n * 3_600n }) },
        { weight: 1, arbitrary: fc.bigInt({ min: 3n * DAY, max: 20n * DAY }) },
      ),
    }),
    async ({ clock }, { seconds }) => {
      await clock.wait(seconds);
    },
  ),
  kind("intrude", 2, fc.record({ by: index, index, which: fc.nat({ max: 12 }) }), async (play, drawn) => {
    const { world, ghost } = play;
    const by = pick(everyone, drawn.by)!;
    const agent = pick(ghost.mandates, drawn.index)?.address ?? by.address;
    const { escrow, registry, processors, disputes, token } = world;
    const id = ZeroHash;
    const calls: (() => Promise<ContractTransaction>)[] = [
      () => escrow.lock.populateTransaction(1n, owners[0].address, 1n),
      () => escrow.release.populateTransaction(1n, by.address, 1n),
      () => escrow.settle.populateTransaction(1n, 0n, []),
      () => escrow.pay.populateTransaction(token, id, by.address, 1n),
      () => registry.settle.populateTransaction(by.address, [], []),
      () => registry.payDirect.populateTransaction(operators[0].address, agent, token, by.address, 1n, []),
      () => registry.reserveClaim.populateTransaction(agent, 1n, by.address, 1n, []),
      () => registry.endClaim.populateTransaction(agent, by.address, 1n, true),
      () => processors.cover.populateTransaction(operators[0].address, token, 1n, 1n),
      () => processors.uncover.populateTransaction(operators[0].address, token, 1n),
      () => processors.penalize.populateTransaction(operators[0].address, token, by.address, 1n),
      () => processors.slash.populateTransaction(operators[0].address, token, by.address),
      () => disputes.rule.populateTransaction(1n, 1n),
    ];
    await attempt(play, `I12 intrude ${drawn.which}`, false, by, calls[drawn.which]!());
  }),
];

const mandates: Kind[] = [
  kind(
    "open",
    6,
    fc.record({
      by: twoOf,
      operator: twoOf,
      budget: fc.oneof(
        { weight: 4, arbitrary: fc.bigInt({ min: 500n, max: 12_000n }) },
        { weight: 1, arbitrary: fc.bigInt({ min: FLOOR, max: 2n * FLOOR }) },
      ),
      listed: fc.nat({ max: 3 }),
      days: fc.constantFrom(1n, 10n, 30n),
      funded: fc.nat({ max: 4 }),
    }),
    async (play, { by, operator, budget, listed, days, funded }) => {
      if (funded > 0) await deposit(play, by, budget);
      await open(play, { by, operator, budget, isListed: listed === 0, days });
    },
  ),
  kind("reopen", 1, fc.record({ index }), async (play, drawn) => {
    const mandate = pick(play.ghost.mandates, drawn.index);
    if (!mandate) return;
    const message = draft(play, mandate, play.clock.time + DAY);
    await attempt(play, "I11 reopen", false, stranger, openCall(play, mandate, message));
  }),
  kind(
    "revoke",
    4,
    fc.record({ index, by: fc.constantFrom("owner", "signed", "stranger", "forged") }),
    async (play, { index, by }) => {
      const mandate = pick(play.ghost.mandates, index);
      if (!mandate) return;
      const { registry, domain } = play.world;
      const revocation = { agent: mandate.address, afterSeq: mandate.seq };
      const byOwner = by === "owner" || by === "signed";
      const allowed = byOwner && mandate.state === "open" && play.clock.time <= mandate.validUntil;
      const call = async (): Promise<ContractTransaction> =>
        by === "owner" || by === "stranger"
          ? registry.revoke.populateTransaction(revocation.agent, revocation.afterSeq)
          : registry.revokeWithSignature.populateTransaction(
              revocation.agent,
              revocation.afterSeq,
              await signRevocation(byOwner ? mandate.owner : stranger, domain, revocation),
            );
      const { time } = play.clock;
      if (await attempt(play, `revoke by ${by}`, allowed, by === "owner" ? mandate.owner : stranger, call()))
        end(mandate, time);
    },
  ),
  kind(
    "acknowledge",
    6,
    fc.record({ index, ahead: fc.bigInt({ min: 0n, max: 2n }), direct: units, honest: fc.boolean() }),
    async (play, { index, ahead, direct, honest }) => {
      const isWaiting = ({ state, acknowledged }: GhostMandate): boolean => state === "revoked" && !acknowledged;
      const mandate = prefer(play.ghost.mandates, index, isWaiting);
      if (!mandate) return;
      const { time } = play.clock;
      const allowed = mandate.state === "revoked" && !mandate.acknowledged && isAnswerable(mandate, time);
      const acknowledged = {
        seq: mandate.seq + ahead,
        directSpent: mandate.directSpent + amountOf(mandate, direct),
        head: mandate.base + (honest ? ahead : 1_000n),
      };
      const call = play.world.registry.acknowledge.populateTransaction(
        mandate.address,
        acknowledged.seq,
        headHex(acknowledged.head),
        acknowledged.directSpent,
      );
      if (await attempt(play, "acknowledge", allowed, mandate.processor.account, call))
        mandate.acknowledged = acknowledged;
    },
  ),
  kind("together", 2, fc.record({ index, ahead: fc.bigInt({ min: 0n, max: 1n }) }), async (play, { index, ahead }) => {
    const mandate = pick(play.ghost.mandates, index);
    if (!mandate) return;
    const { world, clock } = play;
    const close = { agent: mandate.address, seq: mandate.seq + ahead };
    const isOpen = mandate.state === "open" || mandate.state === "revoked";
    const allowed = isOpen && !mandate.noticed && ahead === 0n;
    const call = world.registry.closeTogether.populateTransaction(
      close.agent,
      close.seq,
      await signClose(mandate.owner, world.domain, close),
      await signClose(mandate.processor.key, world.domain, close),
    );
    const { time } = clock;
    if (!(await attempt(play, "together", allowed, stranger, call))) return;
    if (mandate.state === "open") end(mandate, time);
    mandate.noticed = true;
    mandate.acknowledged = { seq: mandate.seq, directSpent: mandate.directSpent, head: 0n };
    mandate.closesAt = least(mandate.closesAt, time + NOTICE);
  }),
  kind("close", 5, fc.record({ index }), async (play, drawn) => {
    const mandate = pick(play.ghost.mandates, drawn.index);
    if (mandate) await close(play, mandate);
  }),
];

/** Anyone closes a mandate, or gives back to its owner what no claim waits for. */
export async function close(play: Play, mandate: GhostMandate): Promise<boolean> {
  const { ghost, clock, world } = play;
  const left = remaining(mandate);
  const waiting = least(mandate.reserved, left);
  const due = left - waiting;
  const allowed = mandate.state !== "closed" && clock.time >= mandate.closesAt && (waiting === 0n || due > 0n);
  const call = world.registry.close.populateTransaction(mandate.address);
  if (!(await attempt(play, "P4 close", allowed, stranger, call))) return false;
  mandate.returned += due;
  ghost.accounts.locked -= due;
  ghost.accounts.addFree(mandate.owner.address, due);
  if (waiting > 0n) return true;
  mandate.state = "closed";
  mandate.processor.covered -= mandate.budget;
  return true;
}

const debits: Kind[] = [
  kind(
    "settle",
    24,
    fc.record({
      index,
      also: index,
      isAlone: fc.constantFrom(true, true, false),
      amounts: fc.array(units, { minLength: 1, maxLength: 3 }),
      to: payeeOf,
      isHonest: fc.constantFrom(true, true, false),
      wrong: fc.constantFrom(..."nothing ".repeat(9).trim().split(" "), "credits", "sender", "evaluation"),
    }),
    async (play, drawn) => {
      await settle(play, drawn);
    },
  ),
  kind("replay", 1, fc.constant(null), async (play) => {
    const last = lastBatches.get(play.ghost);
    if (last) await attempt(play, "P9 replay", false, last.from, Promise.resolve(last.call));
  }),
  kind(
    "direct",
    8,
    fc.record({
      index,
      amount: fc.oneof({ weight: 9, arbitrary: units }, { weight: 1, arbitrary: fc.constant(0n) }),
      form: fc.constantFrom("transfer" as const, "debit" as const),
      nonce: fc.bigInt({ min: 0n, max: 3n }),
      to: payeeOf,
    }),
    async (play, drawn) => {
      const mandate = pick(play.ghost.mandates, drawn.index);
      if (mandate) await payDirectly(play, mandate, drawn);
    },
  ),
];

const lastBatches = new WeakMap<Play["ghost"], { from: { address: string }; call: ContractTransaction }>();

async function payDirectly(
  play: Play,
  mandate: GhostMandate,
  drawn: { amount: bigint; form: "transfer" | "debit"; nonce: bigint; to: number },
): Promise<void> {
  const { world, ghost, clock } = play;
  const { form, nonce, to } = drawn;
  const amount = amountOf(mandate, drawn.amount);
  const account = accountAt(play, mandate, to);
  const order = { payee: account, value: amount, nonce, payees: mandate.payees };
  const call = async (): Promise<ContractTransaction> =>
    form === "debit"
      ? world.direct.debit.populateTransaction([await signDebit(world, mandate.agent, order)])
      : world.direct.transferWithAuthorizations.populateTransaction([await signTransfer(world, mandate.agent, order)]);
  const name = `${form} ${nonce}`;
  const answered = mandate.acknowledged
    ? mandate.directSpent + amount <= mandate.acknowledged.directSpent
    : isAnswerable(mandate, clock.time);
  const allowed =
    isSettleable(mandate, clock.time) &&
    amount > 0n &&
    amount <= mandate.paymentCap &&
    mandate.spent + mandate.directSpent + amount <= mandate.budget &&
    (mandate.payees.length === 0 || mandate.payees.includes(account)) &&
    !mandate.used.has(name) &&
    answered;
  if (!(await attempt(play, `direct ${name}`, allowed, mandate.processor.account, call()))) return;
  mandate.directSpent += amount;
  mandate.used.add(name);
  ghost.accounts.locked -= amount;
  ghost.accounts.addCredit(account, amount);
}

/** With what a life begins. */
export const opening: readonly Kind[] = mandates.slice(0, 1);
export const money: readonly Kind[] = [...deposits, ...surroundings, ...mandates, ...debits];

export async function deposit(play: Play, by: number, amount: bigint): Promise<void> {
  const { world, ghost } = play;
  const owner = owners[by]!;
  const call = world.escrow.deposit.populateTransaction(world.token, amount, owner.address);
  if (await attempt(play, "deposit", !ghost.paused, owner, call)) ghost.accounts.deposit(owner.address, amount);
}

type Drafted = Pick<GhostMandate, "agent" | "owner" | "processor" | "budget" | "paymentCap" | "payees">;

function draft({ world }: Play, mandate: Drafted, validUntil: bigint): Mandate {
  return {
    owner: mandate.owner.address,
    agent: mandate.agent.address as Address,
    token: world.token,
    budget: mandate.budget,
    paymentCap: mandate.paymentCap,
    validUntil,
    processor: mandate.processor.account.address,
    payees: mandate.payees,
    policyRoot: ZeroHash as Hex,
    termsHash: ZeroHash as Hex,
  };
}

async function openCall({ world }: Play, mandate: Drafted, message: Mandate): Promise<ContractTransaction> {
  const { domain, registry } = world;
  return registry.open.populateTransaction(
    { ...message, payees: [...message.payees] },
    await signMandate(mandate.owner, domain, message),
    await signMandate(mandate.agent, domain, message),
  );
}

async function open(
  play: Play,
  drawn: { by: number; operator: number; budget: bigint; isListed: boolean; days: bigint },
): Promise<void> {
  const { world, ghost, clock } = play;
  const { budget } = drawn;
  const processor = ghost.processors[drawn.operator]!;
  const owner = owners[drawn.by]!;
  const agent = keyOf("agent", ghost.keys++);
  const address = agent.address as Address;
  const hold = holdOf(world.addresses.disputes, address, payees[0].address, HOLDBACK);
  const drafted: Drafted = {
    agent,
    owner,
    processor,
    budget,
    paymentCap: least(budget, amountOf({ budget }, 1_000n)),
    payees: drawn.isListed ? [payees[0].address, hold] : [],
  };
  const validUntil = clock.time + drawn.days * DAY;
  const bond = ghost.bondOf(processor);
  const leverage = clock.time < processor.registeredAt + 30n * DAY ? 3n : 10n;
  const isCovered =
    !processor.slash &&
    processor.unbondingAt === null &&
    bond >= FLOOR &&
    processor.covered + budget <= bond * leverage;
  const allowed = ghost.gate === "agrees" && isCovered && budget <= ghost.accounts.freeOf(owner.address);
  const call = openCall(play, drafted, draft(play, drafted, validUntil));
  if (!(await attempt(play, "I9 open", allowed, stranger, call))) return;

  ghost.accounts.addFree(owner.address, -budget);
  ghost.accounts.locked += budget;
  processor.covered += budget;
  processor.coversUntil = most(processor.coversUntil, validUntil + TAIL);
  const mandate: GhostMandate = {
    ...drafted,
    address,
    validUntil,
    state: "open",
    base: await world.registry.genesisOf(address),
    seq: 0n,
    spent: 0n,
    directSpent: 0n,
    returned: 0n,
    reserved: 0n,
    closesAt: validUntil + TAIL,
    revokedAt: null,
    noticed: false,
    acknowledged: null,
    used: new Set(),
    lines: new Map(),
    rows: [],
  };
  ghost.mandates.push(mandate);
  const account = payees[0];
  const empty: Omit<GhostHold, "address"> = {
    mandate,
    payee: account,
    holdback: HOLDBACK,
    known: 0n,
    frozen: 0n,
    cursor: 0,
    tranches: [],
  };
  ghost.holds.push({ ...empty, address: hold });
}

function end(mandate: GhostMandate, time: bigint): void {
  mandate.state = "revoked";
  mandate.revokedAt = least(time, mandate.validUntil);
  mandate.closesAt = mandate.revokedAt + TAIL;
}

export function accountAt({ ghost }: Play, mandate: GhostMandate, to: number): Address {
  return payees[to]?.address ?? ghost.holds.find((hold) => hold.mandate === mandate)!.address;
}

interface Part {
  readonly mandate: GhostMandate;
  readonly lines: Line[];
  readonly row: Row;
}

interface SettleDraw {
  readonly index: number;
  readonly also: number;
  readonly isAlone: boolean;
  readonly amounts: bigint[];
  readonly to: number;
  /** Whether it settles what receipts promise, where there are any. */
  readonly isHonest: boolean;
  readonly wrong: string;
}

async function settle(play: Play, drawn: SettleDraw): Promise<void> {
  const { ghost } = play;
  const chosen = new Set([
    pick(ghost.mandates, drawn.index),
    ...(drawn.isAlone ? [] : [pick(ghost.mandates, drawn.also)]),
  ]);
  await settleRows(
    play,
    [...chosen].filter((mandate) => mandate !== undefined),
    drawn,
  );
}

/** Settles rows of one or two mandates through the real settlement contract, whose verifier believes everything. */
export async function settleRows(
  play: Play,
  chosen: readonly GhostMandate[],
  drawn: Omit<SettleDraw, "index" | "also" | "isAlone">,
): Promise<void> {
  const { world, ghost, clock } = play;
  const parts = [...chosen]
    .sort((one, two) => (BigInt(one.address) < BigInt(two.address) ? -1 : 1))
    .map((mandate) => partOf(play, mandate, drawn));
  if (parts.length === 0) return;
  const credits = creditsOf(parts.flatMap(({ lines }) => lines));
  if (drawn.wrong === "credits") credits[0] = { ...credits[0]!, amount: credits[0]!.amount + 1n };
  const rows = parts.map(({ row }) => row);
  const commitment = ghost.batches + 1n;
  const { chainId } = world.domain;
  const { settlement } = world.addresses;
  const bound = transcript({ chainId, settlement, circuitId: BATCH_CIRCUIT, commitment, rows, credits });
  const evaluation = evaluate(challenge(bound), rows, credits) ^ (drawn.wrong === "evaluation" ? 1n : 0n);
  const call = await world.settlement.settle.populateTransaction(
    BATCH_CIRCUIT,
    await Promise.all(parts.map((part) => signedRow(play, part))),
    credits.map((credit) => ({ ...credit })),
    commitment,
    evaluation,
    [0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n],
  );
  const from = drawn.wrong === "sender" ? stranger : parts[0]!.mandate.processor.account;
  const allowed =
    drawn.wrong === "nothing" &&
    parts.every((part) => part.mandate.processor.account === from && fits(part, clock.time));
  if (!(await attempt(play, "I5 settle", allowed, from, Promise.resolve(call)))) return;

  ghost.batches += 1n;
  lastBatches.set(ghost, { from, call });
  for (const { payee, amount } of credits) ghost.accounts.addCredit(payee, amount);
  const batch = { batchId: ghost.batches, commitment, rowWords: rowWords(rows), creditsHash: hashCredits(credits) };
  parts.forEach((part, row) => advance(play, part, row, batch));
}

function partOf(
  play: Play,
  mandate: GhostMandate,
  { amounts, to, isHonest }: Omit<SettleDraw, "index" | "also" | "isAlone">,
): Part {
  const lines = amounts.map((amount, i): Line => {
    const seq = mandate.seq + 1n + BigInt(i);
    const receipt = play.ghost.receipts.find((one) => one.mandate === mandate && one.payment.seq === seq);
    if (isHonest && receipt) return receipt.payment.line;
    return { payee: accountAt(play, mandate, to), amount: amountOf(mandate, amount), ref: ZeroHash as Hex };
  });
  const { address: agent, seq, base } = mandate;
  const head = base + BigInt(lines.length);
  const debit = lines.reduce((sum, line) => sum + line.amount, 0n);
  const count = BigInt(lines.length);
  const row = { agent, seq, base, head, newBase: head, policyRoot: 0n, debit, count, offset: seq % 7n };
  return { mandate, lines, row };
}

async function signedRow({ world }: Play, { mandate, lines, row }: Part) {
  const line = lines.at(-1)!;
  const payment = { seq: row.seq + row.count, spent: mandate.spent + row.debit, head: headHex(row.head), line };
  const { r, s, v } = Signature.from(await signPayment(mandate.agent, world.domain, payment));
  const { agent, count, debit, head, newBase } = row;
  return { agent, count, debit, head, newBase, lineHash: hashLine(line), r, s, v };
}

function fits({ mandate, row }: Part, time: bigint): boolean {
  const seq = row.seq + row.count;
  const { acknowledged } = mandate;
  const answered = acknowledged
    ? seq < acknowledged.seq || (seq === acknowledged.seq && row.head === acknowledged.head)
    : isAnswerable(mandate, time);
  return isSettleable(mandate, time) && mandate.spent + row.debit + mandate.directSpent <= mandate.budget && answered;
}

/** One credit a payee, in the order of their first lines. */
function creditsOf(lines: readonly Line[]): Credit[] {
  const sums = new Map<Address, bigint>();
  for (const { payee, amount } of lines) sums.set(payee, (sums.get(payee) ?? 0n) + amount);
  return [...sums].map(([payee, amount]) => ({ payee, amount }));
}

function advance({ ghost }: Play, { mandate, lines, row }: Part, at: number, batch: GhostRow["batch"]): void {
  lines.forEach((line, i) => mandate.lines.set(row.seq + 1n + BigInt(i), line));
  mandate.rows.push({ first: row.seq + 1n, last: row.seq + row.count, row: at, batch });
  mandate.base = row.newBase;
  mandate.seq += row.count;
  mandate.spent += row.debit;
  ghost.accounts.locked -= row.debit;
}
