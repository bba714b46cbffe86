import type { ReceiptedPaymentStruct } from "../../typechain-types/Claims.ts";
import type { Held, PayeeActor } from "./cast.ts";
import { claimableAt } from "./checks.ts";
import type { World } from "./world.ts";

/** `IClaims.Status` and `IChallenges.Status`. */
const CLAIM = { none: 0n, filed: 1n } as const;
const CHALLENGE = { none: 0n, open: 1n } as const;
/** Seconds before the end of the claim window at which a late payee wakes up. */
const LAST_MINUTE = 7_200n;
/** Seconds between the looks of a payee that watches. */
const LOOKS = 14_400n;

/** When a payee looks at its receipts next. */
export async function looksAt(world: World, payee: PayeeActor): Promise<bigint | null> {
  const open = payee.holds.filter(({ done }) => !done);
  if (payee.kind === "silent" || open.length === 0) return null;
  if (payee.kind === "watchful") return payee.watchedAt + LOOKS;
  const times = await Promise.all(
    open.map(async ({ agent }) => (await world.contracts.registry.claimsOf(agent.address)).claimsUntil - LAST_MINUTE),
  );
  const next = times.reduce((least, time) => (time < least ? time : least));
  return next > payee.watchedAt ? next : payee.watchedAt + LOOKS;
}

/** Does all that a payee can do for its receipts now: claims, challenges, what follows from them. */
export async function look(world: World, payee: PayeeActor): Promise<void> {
  payee.watchedAt = world.chain.clock;
  for (const held of payee.holds) if (!held.done) await follow(world, held);
}

async function follow(world: World, held: Held): Promise<void> {
  const { contracts, ghost, chain } = world;
  const { agent, id, receipt, payment } = held;
  const { seq, head, line } = payment.payment;
  const paid = ghost.paid.get(`${agent.address} ${seq}`);
  const { status, resolvableAt } = await contracts.claims.claimOf(id);
  if (status === CLAIM.filed && chain.clock >= resolvableAt) {
    await act(world, held, "resolves its claim", (by) => contracts.claims.connect(by).resolve([argument(held)]));
    return;
  }
  // What came in of a batch the payee sees in its calldata.
  if (paid?.head === head && paid.amount === line.amount) {
    held.done = status !== CLAIM.filed;
    return;
  }
  if (ghost.slashes.get(agent.processor.address)?.owed.has(id)) return takeShare(world, held);
  const { seq: settled, fallback_ } = await contracts.registry.claimsOf(agent.address);
  if (seq <= settled) return challenge(world, held);
  if (status !== CLAIM.none) return;
  if (chain.clock > claimableAt(receipt.receipt.settleBy) || fallback_) {
    await act(world, held, "files a claim", (by) => contracts.claims.connect(by).file([argument(held)]));
  }
}

async function challenge(world: World, held: Held): Promise<void> {
  const { contracts, chain } = world;
  const { id } = held;
  const { status, answerableUntil } = await contracts.challenges.challengeOf(id);
  const { challenges } = contracts;
  if (status === CHALLENGE.none) {
    await act(world, held, "challenges what was settled", (by) => challenges.connect(by).challenge(argument(held)));
  } else if (status === CHALLENGE.open && chain.clock > answerableUntil) {
    await act(world, held, "upholds its challenge", (by) => challenges.connect(by).uphold(argument(held)));
  }
}

async function takeShare(world: World, held: Held): Promise<void> {
  const { contracts, chain, ghost } = world;
  const { agent, id } = held;
  const processor = agent.processor.address;
  if (ghost.slashes.get(processor)!.paid.has(id)) {
    held.done = true;
    return;
  }
  const { windowEndsAt } = await contracts.processors.slashOf(processor, chain.token);
  if (chain.clock < windowEndsAt) return;
  await act(world, held, "takes its share of the bond", (by) =>
    contracts.processors.connect(by).payVictim(processor, chain.token, id),
  );
}

/** A receipt that its payee knows to be honoured, challenged all the same. */
export async function accuse(world: World): Promise<void> {
  const { contracts, ghost } = world;
  const honoured = world.payees.flatMap(({ holds }) =>
    holds.filter(({ agent, payment }) => {
      const { seq, head } = payment.payment;
      return agent.processor.honest && ghost.howPaid(agent.address, seq, head) === "batch";
    }),
  );
  if (honoured.length === 0 || world.accused || world.pausedUntil !== null) return;
  const held = world.random.pick(honoured);
  world.accused = true;
  const { challenges } = contracts;
  await act(world, held, "accuses an honest processor", (by) => challenges.connect(by).challenge(argument(held)));
}

/** Two receipts on one number that two payees compare. */
export async function compareReceipts(world: World): Promise<void> {
  const shown = new Map<string, Held>();
  for (const held of world.payees.flatMap(({ holds }) => holds)) {
    const { agent, payment, receipt } = held;
    const key = `${agent.address} ${payment.payment.seq}`;
    const other = shown.get(key);
    shown.set(key, held);
    if (!other || other.id === held.id || world.ghost.slashes.has(agent.processor.address)) continue;
    const { challenges } = world.contracts;
    const [one, two] = [other.receipt, receipt];
    await act(world, held, "reports two receipts on one number", (by) =>
      challenges.connect(by).reportEquivocation(one.receipt, one.signature, two.receipt, two.signature),
    );
    return;
  }
}

/** Refusals after which there is nothing left to try. */
const FINAL = /^(ClaimWindowOver|SettleByTooLate|NotAReceiptKey)/;

/** By the payee, or by somebody else for it where the payee's own tokens are frozen. */
async function act(
  world: World,
  held: Held,
  what: string,
  send: (wallet: PayeeActor["wallet"]) => ReturnType<Parameters<World["attempt"]>[0]>,
): Promise<void> {
  const { payee, payment, agent } = held;
  const by = payee.blocked ? world.payees.find(({ blocked }) => !blocked)! : payee;
  const refused = await world.attempt(() => send(by.wallet));
  world.say(`${payee.name} ${what}, payment ${payment.payment.seq} of ${agent.name}`, refused);
  if (refused !== null && FINAL.test(refused)) held.done = true;
}

/** The payment as the contracts read it. */
export function argument({ agent, payment, receipt }: Held): ReceiptedPaymentStruct {
  const { seq, spent, head, line } = payment.payment;
  return {
    agent: agent.address,
    seq,
    spent,
    head,
    line,
    settleBy: receipt.receipt.settleBy,
    logIndex: receipt.receipt.logIndex,
    agentSignature: payment.signature,
    processorSignature: receipt.signature,
    payees: [...agent.mandate.payees],
  };
}
