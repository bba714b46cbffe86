import { WINDOWS } from "../../deploy/index.ts";
import type { AgentActor } from "./cast.ts";
import { advance, attend } from "./duties.ts";
import { isRunning } from "./cast.ts";
import type { World } from "./world.ts";

const HOUR = 3_600;

/** The issuer stops all transfers of the token for some hours. */
export async function pauseToken(world: World): Promise<void> {
  if (world.pausedUntil !== null) return;
  const { dollar } = world.contracts;
  await world.must(async () => dollar.connect(await world.issuer()).pause());
  world.pausedUntil = world.chain.clock + BigInt(world.random.between(HOUR, 6 * HOUR));
  world.say("the token is paused");
}

/** @param now - whether its time is up or not. */
export async function resumeToken(world: World, now = false): Promise<void> {
  if (world.pausedUntil === null || (!now && world.chain.clock < world.pausedUntil)) return;
  await world.must(async () => world.contracts.dollar.connect(await world.issuer()).unpause());
  world.pausedUntil = null;
  world.say("the token moves again");
}

/** The issuer freezes a payee, or lets it go. */
export async function block(world: World): Promise<void> {
  const payee = world.random.pick(world.payees);
  if (!payee.blocked && world.payees.some(({ blocked }) => blocked)) return;
  await setBlocked(world, payee, !payee.blocked);
}

export async function setBlocked(world: World, payee: World["payees"][number], blocked: boolean): Promise<void> {
  await world.must(async () => world.contracts.dollar.connect(await world.issuer()).setBlocked(payee.address, blocked));
  payee.blocked = blocked;
  world.say(`${payee.name} is ${blocked ? "" : "no longer "}frozen by the issuer`);
}

/** A payee's credit, paid out by anybody: it works unless the token refuses it. */
export async function sweep(world: World): Promise<void> {
  const payee = world.random.pick(world.payees);
  if ((world.ghost.credits.get(payee.address) ?? 0n) === 0n) return;
  const { escrow } = world.contracts;
  const refused = await world.attempt(() =>
    escrow.connect(world.owners[0]!.wallet).sweepCredit(world.chain.token, payee.address),
  );
  world.say(`${payee.name} is paid out`, refused);
}

/** A few hours pass. */
export async function wait(world: World): Promise<void> {
  const hours = world.random.between(1, 8);
  world.say(`${hours} hours pass`);
  await advance(world, BigInt(hours * HOUR));
}

/** No block comes for a while, at most as long as processors have after their promise, or to acknowledge. */
export async function halt(world: World): Promise<void> {
  const { ghost, chain, random } = world;
  if (world.processors.some(({ kind }) => kind === "slow")) return;
  const revoked = [...ghost.mandates.values()].some(
    ({ revokedAt, acknowledged }) => revokedAt !== null && !acknowledged,
  );
  const longest = Number(revoked ? WINDOWS.acknowledge / 2n : WINDOWS.grace);
  const seconds = random.between(600, longest);
  world.say(`the chain stands still for ${Math.round(seconds / 60)} minutes`);
  await chain.mine(chain.clock + BigInt(seconds));
  await attend(world);
}

/** An owner's revocation that the chain forgets again: nobody who waits for confirmations has heard of it. */
export async function forgottenRevocation(world: World): Promise<void> {
  const agent = patientMandate(world);
  if (!agent) return;
  const { chain, contracts } = world;
  const { office } = agent.processor;
  chain.beginEpoch();
  const refused = await world.attempt(() => contracts.registry.connect(agent.owner.wallet).revoke(agent.address, 0n));
  await office.processor.refresh();
  const lost = await chain.reorganise(1);
  chain.endEpoch();
  world.say(`${agent.owner.name} revokes ${agent.name}, and the chain forgets ${lost} block`, refused);
  const { state } = await office.processor.status(agent.address);
  if (state !== "open") world.say(`${agent.processor.name} believes it ${state}`);
}

function patientMandate(world: World): AgentActor | undefined {
  const patient = world.agents.filter(
    (agent) => isRunning(world, agent) && Number(agent.processor.office.chain.finality) > 1,
  );
  return patient.length === 0 ? undefined : world.random.pick(patient);
}
