import { signTransfer, type Address } from "@bursar/protocol";
import { id } from "ethers";

import type { AgentActor } from "./cast.ts";
import type { World } from "./world.ts";

/** A processor that is not honest asks to leave, and tries to take its bond at once. */
export async function fleeWithBond(world: World): Promise<void> {
  const villain = world.processors.find(({ honest }) => !honest);
  if (!villain) return;
  const { contracts, chain } = world;
  const processors = contracts.processors.connect(villain.wallet);
  const asked = await world.attempt(() => processors.requestUnbonding());
  const refused = await world.attempt(() => processors.withdrawBond(chain.token, villain.address));
  world.say(
    `${villain.name} ${asked === null ? "asks to leave" : "asked to leave before"} and takes its bond`,
    refused,
  );
  const covered = world.agents.some(({ processor }) => processor === villain);
  if (covered) world.expectRefused("P16 bond_outlives_receipts", `the bond of ${villain.name}`, refused);
}

/** What nobody may do, whoever asks: each try must fail. */
const THEFTS: Readonly<Record<string, (world: World, agent: AgentActor) => Promise<string | null>>> = {
  "a direct payment off the list": (world, agent) =>
    agent.mandate.payees.length === 0
      ? Promise.resolve("no list")
      : transfer(world, agent, agent.processor.address, 1n),
  "a direct payment above the cap": (world, agent) =>
    transfer(world, agent, agent.mandate.payees[0] ?? agent.owner.address, agent.mandate.paymentCap + 1n),
  "a revocation by its processor": (world, agent) =>
    world.attempt(() => world.contracts.registry.connect(agent.processor.wallet).revoke(agent.address, 0n)),
  "an escrow's payment without an account": (world, agent) =>
    world.attempt(() => {
      const escrow = world.contracts.escrow.connect(agent.processor.wallet);
      return escrow.pay(world.chain.token, id("no account"), agent.processor.address, 1n);
    }),
  "a lock released": (world, agent) =>
    world.attempt(() =>
      world.contracts.escrow.connect(agent.processor.wallet).release(1n, agent.processor.address, 1n),
    ),
  "a bond slashed": (world, agent) =>
    world.attempt(() => {
      const processors = world.contracts.processors.connect(agent.owner.wallet);
      return processors.slash(agent.processor.address, world.chain.token, agent.owner.address);
    }),
  "a debit by another processor": async (world, agent) => {
    const other = world.processors.find((processor) => processor !== agent.processor)!;
    return transfer(world, agent, agent.mandate.payees[0] ?? agent.owner.address, 1n, other.wallet);
  },
};

export async function takeFromStrangers(world: World): Promise<void> {
  const agent = world.random.pick(world.agents);
  const name = world.random.pick(Object.keys(THEFTS));
  const refused = await THEFTS[name]!(world, agent);
  world.say(`somebody tries ${name} of ${agent.name}`, refused);
  world.expectRefused("P17 sp_cannot_take", name, refused);
}

async function transfer(
  world: World,
  agent: AgentActor,
  to: Address,
  value: bigint,
  by = agent.processor.wallet,
): Promise<string | null> {
  const { chain, contracts } = world;
  const transferred = {
    from: agent.address,
    to,
    value,
    validAfter: 0n,
    validBefore: chain.clock + 86_400n,
    nonce: id(`theft ${world.step}`) as Address,
  };
  const domain = { chainId: chain.rail.chainId, direct: chain.rail.direct };
  const signature = await signTransfer(agent.wallet, domain, chain.token, transferred);
  const payees = [...agent.mandate.payees];
  return world.attempt(() =>
    contracts.directContract.connect(by).transferWithAuthorizations([{ ...transferred, signature, payees }]),
  );
}
