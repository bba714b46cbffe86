import { signRevocation, type Address, type Domain } from "@bursar/protocol";
import type { Signer } from "ethers";

import { deposit, isRunning, type AgentActor, type OwnerActor } from "./cast.ts";
import { same } from "./broken.ts";
import { endOf, TAIL } from "./ghost.ts";
import type { World } from "./world.ts";

/** What owners do with their money. */
export async function moveMoney(world: World): Promise<void> {
  const { random, ghost, contracts, chain } = world;
  const owner = random.pick(world.owners);
  const free = ghost.free.get(owner.address) ?? 0n;
  if (world.pausedUntil !== null) return withdrawAll(world, owner, free);
  const kind = random.pick(["deposit", "withdraw", "withdraw too much"]);
  if (kind === "deposit") {
    await deposit(world, owner, BigInt(random.between(1, 1_000)));
    world.say(`${owner.name} deposits`);
  } else if (kind === "withdraw") {
    await withdrawAll(world, owner, free);
  } else {
    const escrow = contracts.escrow.connect(owner.wallet);
    const refused = await world.attempt(() => escrow.withdraw(chain.token, free + 1n, owner.address));
    world.expectRefused("P3 locked_funds_not_spendable_elsewhere", `a withdrawal of ${free + 1n} of ${free}`, refused);
    world.say(`${owner.name} withdraws one unit more than is free`, refused);
  }
}

async function withdrawAll(world: World, owner: OwnerActor, free: bigint): Promise<void> {
  if (free === 0n) return;
  const { contracts, chain } = world;
  const escrow = contracts.escrow.connect(owner.wallet);
  const refused = await world.attempt(() => escrow.withdraw(chain.token, free, owner.address));
  world.say(`${owner.name} withdraws ${free}`, refused);
  same("P4 owner_always_exits", "whether free money is kept back", refused !== null, world.pausedUntil !== null);
}

export async function revoke(world: World): Promise<void> {
  const agent = pickRunning(world);
  if (!agent) return;
  const { owner, address, processor } = agent;
  const { settled } = await processor.office.processor.status(address);
  const registry = world.contracts.registry.connect(owner.wallet);
  if (world.random.chance(0.3)) {
    const revocation = { agent: address, afterSeq: settled.seq };
    const signature = await signRevocation(owner.wallet, world.domain, revocation);
    await processor.office.processor.revoke(revocation, signature);
    world.say(`${owner.name} tells ${processor.name} to stop ${agent.name}`);
    if (world.random.chance(0.5)) return;
  }
  const refused = await world.attempt(() => registry.revoke(address, settled.seq));
  world.say(`${owner.name} revokes ${agent.name}`, refused);
}

/** Owner and honest processor end a mandate of which everything is settled. */
export async function endTogether(world: World): Promise<void> {
  const agent = pickRunning(world);
  if (!agent?.processor.honest) return;
  const { owner, address, processor } = agent;
  const { store, processor: books } = processor.office;
  const revocation = { agent: address, afterSeq: 0n };
  await books.revoke(revocation, await signRevocation(owner.wallet, world.domain, revocation));
  const { accepted, settled, reserved } = await books.status(address);
  const chain = world.ghost.mandates.get(address)!;
  const waits =
    accepted.seq !== settled.seq || reserved !== chain.directSpent || (await store.openDirects()).length > 0;
  if (waits) {
    world.say(`${processor.name} stops ${agent.name}, and has to settle before it ends`);
    return;
  }
  const close = { agent: address, seq: chain.seq };
  const [byOwner, byProcessor] = [
    await signClose(owner.wallet, world.domain, close),
    await signClose(processor.wallet, world.domain, close),
  ];
  const registry = world.contracts.registry.connect(owner.wallet);
  const refused = await world.attempt(() => registry.closeTogether(address, chain.seq, byOwner, byProcessor));
  world.say(`${owner.name} and ${processor.name} end ${agent.name} together`, refused);
}

/** Somebody closes a mandate, which works after its windows and never before. */
export async function closeSome(world: World): Promise<void> {
  const open = world.agents.filter(({ address }) => world.ghost.mandates.get(address)?.closed === false);
  if (open.length === 0) return;
  const { address, name } = world.random.pick(open);
  await close(world, name, address);
}

export async function close(world: World, name: string, agent: Address): Promise<void> {
  const ghost = world.ghost.mandates.get(agent)!;
  const stranger = world.payees[0]!.wallet;
  const refused = await world.attempt(() => world.contracts.registry.connect(stranger).close(agent));
  world.say(`somebody closes ${name}`, refused);
  if (ghost.together || world.chain.clock >= endOf(ghost) + TAIL) return;
  world.expectRefused("P7 receipt_paid_or_sp_slashed", `an early end of ${name}`, refused);
}

function pickRunning(world: World): AgentActor | null {
  const running = world.agents.filter((agent) => isRunning(world, agent));
  return running.length === 0 ? null : world.random.pick(running);
}

async function signClose(signer: Signer, domain: Domain, close: { agent: Address; seq: bigint }): Promise<string> {
  const types = {
    Close: [
      { name: "agent", type: "address" },
      { name: "seq", type: "uint64" },
    ],
  };
  const { chainId, registry } = domain;
  return signer.signTypedData({ name: "Bursar", version: "1", chainId, verifyingContract: registry }, types, close);
}
