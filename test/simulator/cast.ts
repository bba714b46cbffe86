import {
  AgentLedger,
  headHex,
  policyRoot,
  signMandate,
  startOf,
  termsHash,
  type Address,
  type Hex,
  type Mandate,
  type SignedPayment,
  type SignedReceipt,
  type Terms,
} from "@bursar/protocol";
import { id, Wallet } from "ethers";

import { endOf } from "./ghost.ts";
import { Office } from "./office.ts";
import type { World } from "./world.ts";

/** How a processor behaves; the first three are honest. */
export type ProcessorKind = "honest" | "crashing" | "slow" | "late" | "dying" | "silent" | "equivocating" | "colluding";

const HONEST: readonly ProcessorKind[] = ["honest", "crashing", "slow"];
const TWO_BOOKS: readonly ProcessorKind[] = ["equivocating", "colluding"];

export interface ProcessorActor {
  readonly name: string;
  readonly kind: ProcessorKind;
  readonly honest: boolean;
  readonly address: Address;
  readonly wallet: Wallet;
  /** What it posted, in units. */
  readonly bond: bigint;
  readonly bondAccount: string;
  readonly office: Office;
  /** The books that it settles from, when those are others than it shows to payees. */
  readonly second: Office | null;
  /** Seconds from the oldest payment until it settles, or null for never. */
  readonly settlesAfter: bigint | null;
  /** It settles in the last minute in which a mandate lets it. */
  readonly lastMinute: boolean;
  /** From then on it does nothing more. */
  readonly diesAt: bigint | null;
  /** It has taken its bond out, as it may. */
  left: boolean;
}

export interface OwnerActor {
  readonly name: string;
  readonly address: Address;
  readonly wallet: Wallet;
}

/** Watches all the time, looks when it is almost too late, or never. */
export type PayeeKind = "watchful" | "late" | "silent";

export interface PayeeActor {
  readonly name: string;
  readonly kind: PayeeKind;
  readonly address: Address;
  readonly wallet: Wallet;
  readonly holds: Held[];
  /** What it last read of a mandate, and when. */
  readonly snapshots: Map<Address, { at: bigint; takes: boolean }>;
  watchedAt: bigint;
  /** Its tokens are frozen by the issuer. */
  blocked: boolean;
}

/** A receipt that a payee served for. */
export interface Held {
  readonly id: Hex;
  readonly agent: AgentActor;
  readonly payee: PayeeActor;
  readonly payment: SignedPayment;
  readonly receipt: SignedReceipt;
  /** Nothing is left to be done for it. */
  done: boolean;
}

export interface AgentActor {
  readonly name: string;
  readonly address: Address;
  readonly wallet: Wallet;
  readonly owner: OwnerActor;
  readonly processor: ProcessorActor;
  readonly mandate: Mandate;
  readonly ledger: AgentLedger;
  /** The history that an agent in league with its processor keeps besides. */
  readonly fork: AgentLedger | null;
  /** The newest head of each history. */
  readonly heads: { ledger: Hex; fork: Hex };
  forked: boolean;
}

export const TERMS: Terms = { version: 1, purpose: "whatever is drawn", categories: [], hosts: [] };
/** Least bond, in units. */
const FLOOR = 10_000_000_000n;
const HOUR = 3_600;
const PAYEES: readonly PayeeKind[] = ["watchful", "watchful", "late", "silent"];

/** A key that follows from seed and name. */
export function keyOf(world: World, name: string): Wallet {
  return new Wallet(id(`bursar simulator ${world.seed} ${name}`), world.chain.provider);
}

async function account(world: World, name: string): Promise<{ name: string; wallet: Wallet; address: Address }> {
  const wallet = keyOf(world, name);
  const address = wallet.address as Address;
  await world.chain.endow(address);
  return { name, wallet, address };
}

export async function drawOwners(world: World): Promise<OwnerActor[]> {
  const owners = [await account(world, "owner 1"), await account(world, "owner 2")];
  for (const owner of owners) await deposit(world, owner, 0n);
  return owners;
}

/** Mints and deposits; 0 only allows it. */
export async function deposit(world: World, owner: OwnerActor, amount: bigint): Promise<void> {
  const { dollar, escrow } = world.contracts;
  if (amount === 0n) {
    await world.must(() => dollar.connect(owner.wallet).approve(escrow, 2n ** 255n));
    return;
  }
  await world.must(() => dollar.connect(owner.wallet).mint(owner.address, amount));
  await world.must(() => escrow.connect(owner.wallet).deposit(world.chain.token, amount, owner.address));
}

export async function drawPayees(world: World): Promise<PayeeActor[]> {
  const { dollar, challenges } = world.contracts;
  const payees: PayeeActor[] = [];
  for (const [index, kind] of PAYEES.entries()) {
    const base = await account(world, `${kind} payee ${index + 1}`);
    await world.must(() => dollar.connect(base.wallet).mint(base.address, 100_000_000n));
    await world.must(() => dollar.connect(base.wallet).approve(challenges, 2n ** 255n));
    payees.push({ ...base, kind, holds: [], snapshots: new Map(), watchedAt: world.chain.clock, blocked: false });
  }
  return payees;
}

export async function drawProcessors(world: World): Promise<ProcessorActor[]> {
  const { random } = world;
  const [first, second] = world.options.processors ?? [
    random.weighted<ProcessorKind>([
      [4, "honest"],
      [4, "crashing"],
      [2, "slow"],
    ]),
    random.weighted<ProcessorKind>([
      [1, "honest"],
      [1, "crashing"],
      [2, "late"],
      [2, "silent"],
      [2, "dying"],
      [4, "equivocating"],
      [4, "colluding"],
    ]),
  ];
  return [await drawProcessor(world, 1, first), await drawProcessor(world, 2, second)];
}

async function drawProcessor(world: World, number: number, kind: ProcessorKind): Promise<ProcessorActor> {
  const { random, contracts, chain } = world;
  const base = await account(world, `${kind} processor ${number}`);
  const honest = HONEST.includes(kind);
  const bond = FLOOR * (honest ? 3n : 1n);
  const bondAccount = await contracts.processors.bondAccountOf(base.address);
  await world.must(() => contracts.processors.connect(base.wallet).register(base.address, "https://processor.test"));
  await world.must(() => contracts.dollar.connect(base.wallet).mint(base.address, bond));
  await world.must(() => contracts.dollar.connect(base.wallet).approve(chain.rail.escrow, bond));
  await world.must(() => contracts.escrow.connect(base.wallet).deposit(chain.token, bond, bondAccount));
  const confirmations = random.pick([1, 3]);
  const skew = BigInt(random.between(-30, 30));
  const open = (name: string): Promise<Office> =>
    Office.open({
      chain,
      prover: world.options.prover,
      hashPage: world.options.hashPage,
      key: base.wallet,
      folder: world.folder,
      name,
      confirmations,
      skew,
      settleWithin: world.options.settleWithin ?? 3_600n,
      pause: () => world.pause(confirmations),
      failed: (what) => world.say(`${base.name}: ${what}`),
    });
  world.say(`${base.name}: ${confirmations} confirmations, clock ${skew} s ahead`);
  return {
    ...base,
    kind,
    honest: world.options.sworn?.includes(number - 1) ?? honest,
    bond,
    bondAccount,
    office: await open(`processor-${number}`),
    second: TWO_BOOKS.includes(kind) ? await open(`processor-${number}-second`) : null,
    settlesAfter: settlesAfter(world, kind),
    lastMinute: kind === "colluding" && random.chance(0.4),
    diesAt: kind === "dying" ? chain.clock + BigInt(random.between(1, 5 * HOUR)) : null,
    left: false,
  };
}

function settlesAfter({ random }: World, kind: ProcessorKind): bigint | null {
  switch (kind) {
    case "silent":
      return null;
    case "slow":
      return BigInt(random.between(HOUR, 2 * HOUR + 1_200));
    case "late":
      return BigInt(random.between(4 * HOUR, 30 * HOUR));
    case "equivocating":
    case "colluding":
      return BigInt(random.between(HOUR / 2, 26 * HOUR));
    default:
      return BigInt(random.between(300, 2_400));
  }
}

/** Draws, signs and opens a mandate with a processor and has it registered in its books. */
export async function openMandate(world: World, number: number, processor: ProcessorActor): Promise<AgentActor | null> {
  const { random, chain, contracts, ghost, payees } = world;
  const owner = random.pick(world.owners);
  const base = await account(world, `agent ${number}`);
  const rich = !processor.honest && number % 2 === 0 && random.chance(0.4);
  const budget = rich ? BigInt(random.between(11, 24)) * 1_000_000_000n : BigInt(random.between(500, 5_000));
  const paymentCap = budget / BigInt(random.between(2, 10));
  const listed = random.chance(0.3) ? [random.pick(payees).address, payees[0]!.address].filter(unique) : [];
  const mandate: Mandate = {
    owner: owner.address,
    agent: base.address,
    token: chain.token,
    budget,
    paymentCap,
    validUntil: chain.clock + BigInt(random.between(6 * HOUR, 40 * HOUR)),
    processor: processor.address,
    payees: listed,
    policyRoot: headHex(policyRoot(listed, paymentCap)),
    termsHash: termsHash(TERMS),
  };
  const { domain } = processor.office;
  const genesis = startOf(domain, base.address).base;
  ghost.drafts.set(base.address, { mandate, genesis });
  const signatures = [
    await signMandate(owner.wallet, domain, mandate),
    await signMandate(base.wallet, domain, mandate),
  ] as const;
  const open = (): Promise<string | null> =>
    world.attempt(() => contracts.registry.connect(base.wallet).open({ ...mandate, payees: listed }, ...signatures));
  const free = ghost.free.get(owner.address) ?? 0n;
  if (free < budget) {
    world.expectRefused("P3 locked_funds_not_spendable_elsewhere", "a mandate above the free balance", await open());
    await deposit(world, owner, budget - free + BigInt(random.between(0, 1_000)));
  }
  const refused = await open();
  world.say(`${owner.name} opens ${base.name}: ${budget} units, ${paymentCap} each, with ${processor.name}`, refused);
  if (refused !== null) return null;
  await world.settleDown();
  await processor.office.processor.register(mandate, TERMS);
  await processor.second?.processor.register(mandate, TERMS);
  const ledger = (): AgentLedger => new AgentLedger({ domain, agent: base.address, secret: id(base.address) as Hex });
  return {
    ...base,
    owner,
    processor,
    mandate,
    ledger: ledger(),
    fork: processor.second ? ledger() : null,
    heads: { ledger: genesis, fork: genesis },
    forked: false,
  };
}

/** Whether the mandate still takes payments by its own words. */
export function isRunning(world: World, { address, mandate }: AgentActor): boolean {
  const ghost = world.ghost.mandates.get(address);
  return (
    ghost !== undefined && !ghost.closed && world.chain.clock <= endOf(ghost) && world.chain.clock < mandate.validUntil
  );
}

/** Whether a processor still does anything. */
export function isAlive({ chain }: World, { kind, diesAt }: ProcessorActor): boolean {
  return kind !== "silent" && (diesAt === null || chain.clock < diesAt);
}

const unique = <T>(value: T, index: number, all: readonly T[]): boolean => all.indexOf(value) === index;
