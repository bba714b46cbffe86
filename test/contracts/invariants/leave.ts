import { expect } from "chai";

import type { Checker } from "./check.ts";
import { expire, release, resolveDispute, takeFees } from "./holds.ts";
import { close } from "./money.ts";
import { attempt, everyone, isSubAccount, type Play } from "./play.ts";
import { finishSlash, payVictim, requestUnbonding, resolve, takeBond, uphold } from "./trust.ts";
import { deployer, owners, payees, stranger } from "./world.ts";

const LONG = 200n * 86_400n;

/**
 * P4 owner_always_exits, P7, I13, I15, I16: whatever happened, a stranger ends every claim, challenge, dispute and mandate,
 * even while the token is paused; then everybody takes out what is theirs, a blocked payee last and without keeping anyone
 * waiting. What stays is nobody's: donations, and the rounding of slashed bonds.
 */
export async function leave(play: Play, checker: Checker): Promise<void> {
  const { world, ghost, clock } = play;
  if (!ghost.paused) await attempt(play, "pause", true, deployer, world.dollar.pause.populateTransaction());
  ghost.paused = true;
  await clock.wait(LONG);
  for (const claim of ghost.claims.values()) if (claim.status === "filed") await resolve(play, claim.receipt, stranger);
  for (const one of ghost.challenges.values()) if (one.status === "open") await uphold(play, one, stranger);
  for (const one of ghost.cases) if (one.status === "waiting") await expire(play, one, stranger);
  for (const dispute of ghost.disputes) if (dispute.out === null) await resolveDispute(play, dispute, stranger);
  await clock.wait(LONG);
  for (const mandate of ghost.mandates)
    if (mandate.state !== "closed") expect(await close(play, mandate), "P4 owner_always_exits").to.equal(true);
  await leaveBonds(play);
  // What reached a hold last waits once more: a victim's share, or a claim's.
  for (const hold of ghost.holds) await release(play, hold, stranger, 0);
  await clock.wait(LONG);
  for (const hold of ghost.holds) await release(play, hold, stranger, 10_000);
  await checker.check(play, "take bond");

  await attempt(play, "unpause", true, deployer, world.dollar.unpause.populateTransaction());
  ghost.paused = false;
  await takeAll(play);
  await checker.check(play, "leave");
  expectNothingLeft(play);
}

async function leaveBonds(play: Play): Promise<void> {
  const { ghost, clock } = play;
  for (const processor of ghost.processors) if (processor.unbondingAt === null) await requestUnbonding(play, processor);
  await clock.wait(LONG);
  for (const processor of ghost.processors) {
    for (const victim of [...processor.victims.keys()]) await payVictim(play, processor, victim, stranger);
    if (processor.slash && !processor.slash.finished) await finishSlash(play, processor, stranger);
    else if (!processor.slash && ghost.bondOf(processor) > 0n)
      expect(await takeBond(play, processor), "P16 bond_outlives_receipts, and then leaves").to.equal(true);
  }
}

/** Everybody but the blocked payee, and then that one too. */
async function takeAll(play: Play): Promise<void> {
  const { world, ghost } = play;
  const [blocked] = payees;
  await attempt(play, "block", true, deployer, world.dollar.setBlocked.populateTransaction(blocked.address, true));
  for (const owner of owners) {
    const free = ghost.accounts.freeOf(owner.address);
    if (free === 0n) continue;
    const call = world.escrow.withdraw.populateTransaction(world.token, free, owner.address);
    await attempt(play, "P4 withdraw", true, owner, call);
    ghost.accounts.withdraw(owner.address, free);
  }
  const owed = [...ghost.accounts.credit].filter(([account, credit]) => credit > 0n && !isSubAccount(account));
  for (const [account] of owed.filter(([one]) => one !== blocked.address)) await sweep(play, account);
  await attempt(play, "unblock", true, deployer, world.dollar.setBlocked.populateTransaction(blocked.address, false));
  if (ghost.accounts.creditOf(blocked.address) > 0n) await sweep(play, blocked.address);
  for (const account of everyone) if ((ghost.owedTo.get(account.address) ?? 0n) > 0n) await takeFees(play, account);
}

async function sweep(play: Play, account: (typeof payees)[number]["address"]): Promise<void> {
  const { world, ghost } = play;
  const call = world.escrow.sweepCredit.populateTransaction(world.token, account);
  await attempt(play, "I16 sweep", true, stranger, call);
  ghost.accounts.sweep(account);
}

function expectNothingLeft({ ghost }: Play): void {
  const { accounts } = ghost;
  const slashed = ghost.processors.filter(({ slash }) => slash !== null);
  const rest = slashed.reduce((sum, processor) => sum + ghost.bondOf(processor), 0n);
  expect(accounts.locked, "nothing is locked").to.equal(0n);
  expect(accounts.deposited - accounts.withdrawn, "what stays is slashed bonds' alone").to.equal(rest);
}
