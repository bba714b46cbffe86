import { hold, same } from "./broken.ts";
import type { Held, ProcessorActor } from "./cast.ts";
import { advance } from "./duties.ts";
import { endOf, TAIL, total } from "./ghost.ts";
import { close } from "./own.ts";
import { resumeToken, setBlocked } from "./surroundings.ts";
import type { World } from "./world.ts";

const DAY = 86_400n;

/** Everybody leaves. What is owed has to be paid, and nothing may stay behind. */
export async function exit(world: World): Promise<void> {
  world.step += 1;
  await resumeToken(world, true);
  for (const payee of world.payees) if (payee.blocked) await setBlocked(world, payee, false);
  world.say("everybody leaves");
  await advance(world, (await lastWindow(world)) - world.chain.clock);
  await expectReceiptsHonoured(world);
  for (const { name, address } of world.agents) {
    if (world.ghost.mandates.get(address)?.closed === false) await close(world, name, address);
  }
  await world.check();
  await takeEverythingOut(world);
  await expectNothingLeft(world);
}

/** When the last claim, challenge and slashed bond has come to its end. */
async function lastWindow({ ghost, chain, contracts, processors }: World): Promise<bigint> {
  const { cure } = await contracts.registry.windows();
  const ends = [...ghost.mandates.values()].map((mandate) => endOf(mandate) + TAIL + 2n * cure);
  const slashed = processors.some(({ honest }) => !honest) ? 9n * DAY : 0n;
  const last = [...ends, chain.clock].reduce((latest, end) => (end > latest ? end : latest));
  return last + slashed;
}

/** P7 and, for those whose processor is honest, P12 and P15. */
async function expectReceiptsHonoured(world: World): Promise<void> {
  for (const payee of world.payees) {
    if (payee.kind === "silent") continue;
    for (const held of payee.holds) await expectHonoured(world, held);
  }
}

async function expectHonoured(world: World, held: Held): Promise<void> {
  const { ghost, contracts, chain } = world;
  const { agent, id, payee, payment } = held;
  const { seq, head, line } = payment.payment;
  const what = `${payee.name}'s receipt for payment ${seq} of ${agent.name} at ${agent.processor.name}`;
  const by = ghost.howPaid(agent.address, seq, head);
  const paid = ghost.paid.get(`${agent.address} ${seq}`);
  const whole = by !== null && paid?.amount === line.amount;
  if (agent.processor.honest) {
    hold("P12 accepted_implies_settleable", whole && by === "batch", () => `${what} was never settled`);
  }
  if (whole) return;
  const slash = ghost.slashes.get(agent.processor.address);
  const owed = slash?.owed.get(id);
  hold("P7 receipt_paid_or_sp_slashed", owed !== undefined, () => `${what} was neither paid nor is its bond slashed`);
  const { pot, owed: all } = await contracts.processors.slashOf(agent.processor.address, chain.token);
  const share = (owed * (pot < all ? pot : all)) / all;
  same("P7 receipt_paid_or_sp_slashed", `the share of ${what}`, slash!.paid.get(id), share);
  same("P7 receipt_paid_or_sp_slashed", `what ${what} is owed`, owed, line.amount - (by ? paid!.amount : 0n));
}

async function takeEverythingOut(world: World): Promise<void> {
  const { contracts, chain, ghost } = world;
  const { escrow } = contracts;
  for (const actor of world.processors) await leave(world, actor);
  await world.check();
  for (const { wallet, address, name } of world.owners) {
    const free = ghost.free.get(address) ?? 0n;
    if (free === 0n) continue;
    const refused = await world.attempt(() => escrow.connect(wallet).withdraw(chain.token, free, address));
    same("P4 owner_always_exits", `what keeps ${name} from its ${free} units`, refused, null);
  }
  for (const [account, credit] of ghost.credits) {
    if (credit === 0n || isBondAccount(world, account)) continue;
    const refused = await world.attempt(() =>
      escrow.connect(world.owners[0]!.wallet).sweepCredit(chain.token, account),
    );
    same("P4 owner_always_exits", `what keeps ${account} from its credit`, refused, null);
  }
  await world.check();
}

/** A slashed bond is finished, another one is taken out once it covers nothing. */
async function leave(world: World, actor: ProcessorActor): Promise<void> {
  const { chain, contracts, ghost } = world;
  const { address, wallet, name } = actor;
  const processors = contracts.processors.connect(wallet);
  if (ghost.slashes.has(address)) {
    const refused = await world.attempt(() => processors.finishSlash(address, chain.token));
    world.say(`the slashing of ${name} is finished`, refused);
    return;
  }
  if ((await processors.withdrawableAt(address)) === 0n) await world.must(() => processors.requestUnbonding());
  const at = await processors.withdrawableAt(address);
  if (chain.clock < at) await chain.mine(at);
  actor.left = true;
  if ((await processors.bondOf(address, chain.token)) === 0n) return;
  const refused = await world.attempt(() => processors.withdrawBond(chain.token, address));
  world.say(`${name} takes its bond out`, refused);
  same("P15 honest_sp_never_slashed", `what keeps ${name} from its bond`, refused, null);
}

/** Only what pro rata shares are rounded down by. */
async function expectNothingLeft(world: World): Promise<void> {
  const { ghost, contracts, chain } = world;
  same("P4 owner_always_exits", "what is still locked", ghost.locked, 0n);
  const left = await contracts.dollar.balanceOf(chain.rail.escrow);
  const victims = total([...ghost.slashes.values()].map(({ owed }) => BigInt(owed.size)));
  hold("I2 conservation", left <= victims, () => `${left} units stay behind, with ${victims} victims`);
}

const isBondAccount = ({ processors }: World, account: string): boolean =>
  processors.some(({ bondAccount }) => bondAccount === account);
