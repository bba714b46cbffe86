import type { Address, Hex } from "@bursar/protocol";
import { expect } from "chai";
import { AbiCoder, getAddress, keccak256, zeroPadValue, type ContractTransaction } from "ethers";
import fc from "fast-check";

import { FLOOR, type Ghost, type GhostMandate, type GhostReceipt } from "./ghost.ts";
import { arbiters, deployer, operators, owners, payees, stranger, type Clock, type World } from "./world.ts";

/** What a step acts on. */
export interface Play {
  readonly world: World;
  readonly ghost: Ghost;
  readonly clock: Clock;
}

/** One call of somebody, drawn but not yet made. */
export interface Step {
  readonly name: string;
  readonly run: (play: Play) => Promise<void>;
}

/** A kind of step: how often it comes, what is drawn for it, and what it does. */
export interface Kind<A = never> {
  readonly name: string;
  readonly weight: number;
  readonly arbitrary: fc.Arbitrary<Step>;
  readonly perform: (play: Play, args: A) => Promise<void>;
}

/**
 * Declares a kind of step. `perform` works out from the ghost whether the call must go through, makes it through
 * {@link attempt}, and moves the ghost as the contracts should have moved.
 */
export function kind<A>(
  name: string,
  weight: number,
  args: fc.Arbitrary<A>,
  perform: (play: Play, args: A) => Promise<void>,
): Kind<A> {
  const arbitrary = args.map((drawn) => ({
    name,
    run: (play: Play) => perform(play, drawn),
    [fc.toStringMethod]: () => `${name}(${fc.stringify(drawn)})`,
  }));
  return { name, weight, arbitrary, perform };
}

export const index = fc.nat({ max: 31 });
export const twoOf = fc.nat({ max: 1 });

/** A payment of a small mandate, in units; one of a mandate as large as a bond is {@link amountOf} times that. */
export const units = fc.bigInt({ min: 1n, max: 1_050n });
export const amountOf = ({ budget }: Pick<GhostMandate, "budget">, drawn: bigint): bigint =>
  budget < FLOOR ? drawn : drawn * 10_000_000n;

/** What is deposited or taken out, in units. */
export const sums = fc.oneof(
  { weight: 5, arbitrary: fc.bigInt({ min: 1n, max: 1_200n }) },
  { weight: 1, arbitrary: fc.bigInt({ min: 5_000_000_000n, max: 12_000_000_000n }) },
);

/** The first payee, the other, or the mandate's hold for the first. */
export const payeeOf = fc.constantFrom(0, 1, 2, 2);

export const pick = <T>(list: readonly T[], at: number): T | undefined => list[at % Math.max(list.length, 1)];

/** Mostly one for which the step can succeed, now and then any. */
export function prefer<T>(list: readonly T[], at: number, isRipe: (one: T) => boolean): T | undefined {
  const ripe = at % 8 === 0 ? [] : list.filter(isRipe);
  return pick(ripe.length > 0 ? ripe : list, at);
}

/** Everyone who calls: all of them may try everything. */
export const everyone = [...owners, ...operators, ...payees, ...arbiters, stranger, deployer];

/** How often calls of a name went through, and were refused. */
export const tally = new Map<string, [number, number]>();

/** Sends a call that must succeed exactly if it is `allowed`. @returns `allowed` */
export async function attempt(
  { clock }: Play,
  name: string,
  allowed: boolean,
  from: { address: string },
  call: Promise<ContractTransaction>,
  value = 0n,
): Promise<boolean> {
  const succeeded = await clock.send(from.address, call, value);
  expect(succeeded, succeeded ? name : `${name}: ${clock.failure}`).to.equal(allowed);
  tally.set(name, [(tally.get(name)?.[0] ?? 0) + Number(allowed), (tally.get(name)?.[1] ?? 0) + Number(!allowed)]);
  return allowed;
}

const coder = AbiCoder.defaultAbiCoder();

/** The escrow's sub-account of a controller and a salt. */
export function subAccount(controller: Address, salt: string): Address {
  const hash = keccak256(coder.encode(["address", "bytes32"], [controller, salt]));
  return getAddress(`0x737562${hash.slice(-34)}`) as Address;
}

export const isSubAccount = (account: Address): boolean => account.toLowerCase().startsWith("0x737562");
export const saltOf = (account: Address): string => zeroPadValue(account, 32);

/** The id under which contracts know a payment, whatever time its receipt promises. */
export function idOf({ agent, seq, head, line }: GhostReceipt["payment"]): Hex {
  const types = ["address", "uint64", "bytes32", "address", "uint40", "bytes32"];
  return keccak256(coder.encode(types, [agent, seq, head, line.payee, line.amount, line.ref])) as Hex;
}
