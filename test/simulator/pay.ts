import {
  BursarError,
  hashPayment,
  signTransfer,
  signWithKey,
  transferPayment,
  verifyPaid,
  type Address,
  type AgentLedger,
  type Hex,
  type PaidExpectation,
  type Payment,
  type SignedPayment,
  type SignedReceipt,
} from "@bursar/protocol";
import { claimId } from "@bursar/relayer";
import { id } from "ethers";

import { hold, same } from "./broken.ts";
import { isRunning, type AgentActor, type PayeeActor } from "./cast.ts";
import type { Office } from "./office.ts";
import type { World } from "./world.ts";

/** Seconds for which a payee believes what it read of a mandate. */
const SNAPSHOT = 60n;

/** Signs a payment and has the ghost know of it. */
function sign(world: World, agent: AgentActor, payment: Payment, salt: bigint, parent: Hex): SignedPayment {
  world.ghost.sign(agent.address, payment, parent);
  return signed(world, agent, payment, salt);
}

/** A signed payment that nobody may take. */
export function signed(world: World, agent: AgentActor, payment: Payment, salt: bigint): SignedPayment {
  const signature = signWithKey(hashPayment(world.domain, payment), agent.wallet.privateKey as Hex);
  return { agent: agent.address, payment, signature, salt };
}

/** What the processor answers, or why it refuses. */
export async function accept(office: Office, signed: SignedPayment): Promise<SignedReceipt | BursarError> {
  try {
    return await office.processor.accept(signed);
  } catch (error) {
    if (error instanceof BursarError) return error;
    throw error;
  }
}

/** An honest payment: signed, receipted, shown to the payee, which checks and serves. */
export async function pay(world: World): Promise<void> {
  const agent = await choose(world);
  if (!agent) return;
  const { random } = world;
  const payees = allowed(world, agent);
  // Who means to settle another history in the last minute keeps away from those who claim at once.
  const patient = agent.processor.lastMinute ? payees.filter(({ kind }) => kind !== "watchful") : payees;
  const payee = random.pick(patient.length === 0 ? payees : patient);
  await payAs(world, agent, payee, amountOf(world, agent));
}

export async function payAs(world: World, agent: AgentActor, payee: PayeeActor, amount: bigint): Promise<void> {
  const { processor } = agent;
  const { office } = processor;
  const ref = id(`purchase ${world.seed} ${world.step}`) as Hex;
  const { payment, salt } = agent.ledger.draft({ payee: payee.address, amount, ref });
  const signed = sign(world, agent, payment, salt, agent.heads.ledger);
  const first = await accept(office, signed);
  const what = `${agent.name} pays ${amount} to ${payee.name} at ${processor.name}, number ${payment.seq}`;
  if (first instanceof BursarError) {
    agent.ledger.discard();
    world.say(what, first.code);
    return;
  }
  agent.ledger.commit();
  agent.heads.ledger = payment.head;
  await askAgain(world, agent, signed, first);
  const refused = await serve(world, agent, payee, signed, first);
  world.say(what, refused);
  if (agent.fork) await copy(world, agent, signed, first);
}

/** P10: the same request has the same answer, after a crash too. */
async function askAgain(world: World, agent: AgentActor, signed: SignedPayment, first: SignedReceipt): Promise<void> {
  const { processor } = agent;
  if (!world.random.chance(0.25)) return;
  if (processor.kind === "crashing") {
    world.say(`${processor.name} dies with the answer on its way`);
    await processor.office.restart();
  }
  const again = await accept(processor.office, signed);
  hold("P10 same_request_same_answer", !(again instanceof BursarError), () => `${agent.name} is refused at once`);
  same("P10 same_request_same_answer", "the second receipt", again.signature, first.signature);
}

/**
 * The payee's part. It looks at the chain when it last did so a minute ago.
 * @returns why it does not serve, or null.
 */
async function serve(
  world: World,
  agent: AgentActor,
  payee: PayeeActor,
  payment: SignedPayment,
  receipt: SignedReceipt,
): Promise<string | null> {
  const paid = { domain: world.domain, payment, receipt };
  const { amount, ref } = payment.payment.line;
  const expected: PaidExpectation = {
    domain: world.domain,
    payee: payee.address,
    amount,
    ref,
    processor: agent.processor.address,
    now: world.chain.clock,
    maxSettleIn: 3_660n,
    onChain: { mandate: agent.mandate, token: world.chain.token },
  };
  expectOfflineRefusals(world, paid, expected);
  if (!(await takes(world, agent, payee))) return "the mandate takes no payments any more";
  try {
    verifyPaid(paid, expected);
  } catch (error) {
    if (error instanceof BursarError) return error.code;
    throw error;
  }
  const key = claimId(agent.address, payment.payment);
  payee.holds.push({ id: key, agent, payee, payment, receipt, done: false });
  return null;
}

/** P8: the same receipt is worth nothing to anybody else, for any other purchase, on any other chain. */
function expectOfflineRefusals(world: World, paid: Parameters<typeof verifyPaid>[0], expected: PaidExpectation): void {
  const others: PaidExpectation[] = [
    { ...expected, payee: world.owners[0]!.address },
    { ...expected, amount: expected.amount + 1n },
    { ...expected, ref: id("another request") as Hex },
    { ...expected, domain: { ...expected.domain, chainId: 1n } },
    { ...expected, processor: world.owners[0]!.address },
  ];
  const other = world.random.pick(others);
  let taken = true;
  try {
    verifyPaid(paid, other);
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    taken = false;
  }
  hold("P8 receipt_verifies_offline", !taken, () => "a receipt was taken for what it is not");
}

async function takes(world: World, agent: AgentActor, payee: PayeeActor): Promise<boolean> {
  const { chain, contracts } = world;
  const known = payee.snapshots.get(agent.address);
  if (known && chain.clock - known.at <= SNAPSHOT) return known.takes;
  const open = (await contracts.registry.stateOf(agent.address)) === 1n;
  const { windowEndsAt } = await contracts.processors.slashOf(agent.processor.address, chain.token);
  const slashed = windowEndsAt !== 0n;
  payee.snapshots.set(agent.address, { at: chain.clock, takes: open && !slashed });
  return open && !slashed;
}

/** In league with its processor, the agent writes the other history: the same so far, or another payee from now on. */
async function copy(world: World, agent: AgentActor, signed: SignedPayment, shown: SignedReceipt): Promise<void> {
  const { processor, fork, heads } = agent;
  const { second } = processor;
  if (!fork || !second) return;
  agent.forked ||= world.random.chance(0.4);
  if (!agent.forked) {
    fork.append(signed.payment.line);
    heads.fork = signed.payment.head;
    const copied = await accept(second, signed);
    hold("P12 accepted_implies_settleable", !(copied instanceof BursarError), () => "the same books differ");
    return;
  }
  const other = allowed(world, agent).find(({ address }) => address !== signed.payment.line.payee);
  const payee: Address = other?.address ?? signed.payment.line.payee;
  const line = { payee, amount: signed.payment.line.amount, ref: id(`fork ${world.step}`) as Hex };
  const receipt = await append(world, agent, fork, line);
  if (!receipt) return;
  world.say(`${agent.name} and ${processor.name} write another payment ${signed.payment.seq}`);
  if (processor.kind === "colluding" || !other) return;
  const { payment, receipt: given } = receipt;
  const refused = await serve(world, agent, other, payment, given);
  world.say(`${other.name} is shown a receipt for the same number as ${shown.receipt.payee}`, refused);
}

async function append(
  world: World,
  agent: AgentActor,
  fork: AgentLedger,
  line: Payment["line"],
): Promise<{ payment: SignedPayment; receipt: SignedReceipt } | null> {
  const { payment, salt } = fork.draft(line);
  const signed = sign(world, agent, payment, salt, agent.heads.fork);
  const receipt = await accept(agent.processor.second!, signed);
  if (receipt instanceof BursarError) {
    fork.discard();
    return null;
  }
  fork.commit();
  agent.heads.fork = payment.head;
  return { payment: signed, receipt };
}

/** One payment of the direct rail, which settles by itself. */
export async function payDirectly(world: World): Promise<void> {
  const agent = await choose(world);
  if (!agent || agent.fork) return;
  const { random, chain, ghost, step } = world;
  const payee = random.pick(allowed(world, agent));
  const amount = amountOf(world, agent);
  const authorization = {
    from: agent.address,
    to: payee.address,
    value: amount,
    validAfter: chain.clock - 120n,
    validBefore: chain.clock + 86_400n,
    nonce: id(`nonce ${world.seed} ${step}`) as Hex,
  };
  const domain = { chainId: chain.rail.chainId, direct: chain.rail.direct };
  const signature = await signTransfer(agent.wallet, domain, chain.token, authorization);
  ghost.direct.set(`${agent.address} ${authorization.nonce}`, { payee: payee.address, amount });
  const token = { token: chain.token, unitScale: 1n };
  const payment = transferPayment(domain, token, { authorization, signature });
  let refused: string | null = null;
  try {
    await agent.processor.office.processor.acceptDirect(payment);
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    refused = error.code;
  }
  world.say(`${agent.name} pays ${amount} to ${payee.name} directly`, refused);
}

/** Whom an agent may pay. */
export function allowed({ payees }: World, { mandate }: AgentActor): PayeeActor[] {
  return payees.filter(({ address }) => mandate.payees.length === 0 || mandate.payees.includes(address));
}

/** A mandate with a processor that is there and may still make proofs. */
export async function choose(world: World): Promise<AgentActor | undefined> {
  const running: AgentActor[] = [];
  for (const agent of world.agents) if (isRunning(world, agent) && (await isBusy(world, agent))) running.push(agent);
  return running.length === 0 ? undefined : world.random.pick(running);
}

/** Payments that wait for one batch: a mandate's part must fit a segment. */
const WAITING = 8n;
/** Proofs of one simulation after which nobody pays in the ledger any more: they are what takes time. */
const PROOFS = 3;

export const proofsOf = ({ processors }: World): number =>
  processors.reduce((sum, { office, second }) => sum + office.proofs + (second?.proofs ?? 0), 0);

async function isBusy(world: World, { address, processor }: AgentActor): Promise<boolean> {
  const { office } = processor;
  if (proofsOf(world) >= PROOFS && processor.settlesAfter !== null) return false;
  const dead = processor.diesAt !== null && world.chain.clock >= processor.diesAt;
  if (dead) return false;
  const { accepted, settled } = await office.processor.status(address);
  return accepted.seq - settled.seq < WAITING;
}

function amountOf({ random }: World, { mandate }: AgentActor): bigint {
  const most = Number(mandate.paymentCap);
  return BigInt(random.between(1, random.chance(0.3) ? most : Math.max(1, Math.floor(most / 4))));
}
