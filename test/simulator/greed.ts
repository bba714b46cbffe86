import { BursarError, headHex, type Hex, type SignedPayment } from "@bursar/protocol";
import { id, Wallet } from "ethers";

import { hold } from "./broken.ts";
import type { AgentActor } from "./cast.ts";
import { accept, allowed, choose, signed } from "./pay.ts";
import type { World } from "./world.ts";

/** What a greedy agent tries, and the refusals that are right. */
const TRICKS: Readonly<
  Record<string, (world: World, agent: AgentActor) => SignedPayment | null | Promise<SignedPayment | null>>
> = {
  "above the cap": (world, agent) => draft(world, agent, { amount: agent.mandate.paymentCap + 1n }),
  "above the budget": async (world, agent) => {
    const { remaining } = await agent.processor.office.processor.status(agent.address);
    return draft(world, agent, { amount: remaining + 1n });
  },
  "off the list": (world, agent) =>
    agent.mandate.payees.length === 0 ? null : draft(world, agent, { payee: world.owners[0]!.address }),
  "to the escrow itself": (world, agent) => draft(world, agent, { payee: world.chain.rail.escrow }),
  "a number ahead": (world, agent) => {
    const { payment, salt } = next(world, agent, {});
    return signed(world, agent, { ...payment, seq: payment.seq + 1n }, salt);
  },
  "with another head": (world, agent) => {
    const { payment, salt } = next(world, agent, {});
    return signed(world, agent, { ...payment, head: headHex(BigInt(payment.head) ^ 1n) }, salt);
  },
  "with another total": (world, agent) => {
    const { payment, salt } = next(world, agent, {});
    return signed(world, agent, { ...payment, spent: payment.spent - 1n }, salt);
  },
  "on a number that is taken": async (world, agent) => {
    const last = await agent.processor.office.processor.last(agent.address);
    if (!last) return null;
    const { payment } = last;
    const other = { ...payment, line: { ...payment.line, ref: id("another") as Hex } };
    return signed(world, agent, other, 0n);
  },
  "with a stranger's signature": (world, agent) => {
    const { payment, salt } = next(world, agent, {});
    const stranger = { ...agent, wallet: new Wallet(id("stranger")) };
    return signed(world, stranger, payment, salt);
  },
};

/** A payment that no honest processor may take. */
export async function tryTrick(world: World): Promise<void> {
  const agent = await choose(world);
  if (!agent) return;
  const name = world.random.pick(Object.keys(TRICKS));
  const tried = await TRICKS[name]!(world, agent);
  if (!tried) return;
  const answer = await accept(agent.processor.office, tried);
  const what = `${agent.name} tries to pay ${name}`;
  hold("P12 accepted_implies_settleable", answer instanceof BursarError, () => `${what}, and gets a receipt`);
  world.say(what, answer.code);
}

function next(world: World, agent: AgentActor, change: { amount?: bigint; payee?: `0x${string}` }) {
  const payee = change.payee ?? world.random.pick(allowed(world, agent)).address;
  const drafted = agent.ledger.draft({ payee, amount: change.amount ?? 1n, ref: id(`trick ${world.step}`) as Hex });
  agent.ledger.discard();
  return drafted;
}

function draft(world: World, agent: AgentActor, change: Parameters<typeof next>[2]): SignedPayment {
  const { payment, salt } = next(world, agent, change);
  return signed(world, agent, payment, salt);
}
