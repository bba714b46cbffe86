import { BursarError, formatAmount, type Address, type Mandate } from "@bursar/protocol";
import type { ContractTransactionResponse, Signer } from "ethers";

import { TestUSD__factory } from "../../../typechain-types/index.ts";
import type { Chain } from "./chain.ts";

/** How a processor stands on chain; amounts in base units, times in Unix seconds. */
export interface Standing {
  readonly processor: Address;
  readonly registered: boolean;
  readonly receiptKey: Address;
  readonly uri: string;
  readonly slashed: boolean;
  readonly bond: bigint;
  /** The least bond with which it may take mandates. */
  readonly floor: bigint;
  /** The budgets of the mandates that name it. */
  readonly covered: bigint;
  /** What those may be with this bond. */
  readonly capacity: bigint;
  /** When the bond can be taken out, or null while it has not asked to leave. */
  readonly withdrawableAt: bigint | null;
}

/** What a processor's registration and bond in `token` are. */
export async function standingOf(chain: Chain, processor: Address, token: Address): Promise<Standing> {
  const { processors, escrow } = chain;
  const [record, bond, covered, capacity, withdrawableAt, floorUnits, unitScale] = await Promise.all([
    processors.processorOf(processor),
    processors.bondOf(processor, token),
    processors.coveredOf(processor, token),
    processors.capacityOf(processor, token),
    processors.withdrawableAt(processor),
    processors.floorUnits(),
    escrow.unitScale(token),
  ]);
  return {
    processor,
    registered: record.registeredAt !== 0n,
    receiptKey: record.receiptKey as Address,
    uri: record.uri,
    slashed: record.slashed,
    bond,
    floor: floorUnits * unitScale,
    covered,
    capacity,
    withdrawableAt: withdrawableAt === 0n ? null : withdrawableAt,
  };
}

/** Why the contract would refuse a mandate for its processor's bond, if it would. */
export async function bondShortage(
  chain: Chain,
  { processor, token, budget }: Pick<Mandate, "processor" | "token" | "budget">,
): Promise<BursarError | undefined> {
  const scale = await chain.escrow.unitScale(token);
  const { bond, floor, covered, capacity } = await standingOf(chain, processor, token);
  const behind = covered + budget * scale;
  if (bond >= floor && behind <= capacity) return undefined;
  const units = (base: bigint): string => formatAmount(base / scale);
  const [message, value, limit] =
    bond < floor
      ? [`The bond of processor ${processor} is ${units(bond)}; the least is ${units(floor)}.`, bond, floor]
      : [
          `The bond of processor ${processor} would stand behind ${units(behind)}, and carries ${units(capacity)}.`,
          behind,
          capacity,
        ];
  return new BursarError(
    "bond-too-small",
    message,
    { value: value / scale, limit: limit / scale },
    "Its operator can post more: bursar bond post <amount>. Or lower the budget, or name another processor.",
  );
}

/**
 * Registers the signer as a processor unless it is one, with its own key for receipts.
 * @returns whether a transaction was needed.
 */
export async function register(chain: Chain, signer: Signer, uri: string): Promise<boolean> {
  const address = await signer.getAddress();
  const { registeredAt } = await chain.processors.processorOf(address);
  if (registeredAt !== 0n) return false;
  await mined(chain.processors.connect(signer).register(address, uri));
  return true;
}

/**
 * Adds to a processor's bond from the signer's tokens.
 * @param units - of the token.
 * @throws BursarError `insufficient-funds` when the signer has not got as much.
 */
export async function postBond(
  chain: Chain,
  signer: Signer,
  bond: { processor: Address; token: Address; units: bigint },
): Promise<void> {
  const { escrow, processors, rail } = chain;
  const amount = bond.units * (await escrow.unitScale(bond.token));
  const token = TestUSD__factory.connect(bond.token, signer);
  const balance = await token.balanceOf(await signer.getAddress());
  if (balance < amount) {
    throw new BursarError(
      "insufficient-funds",
      `The bond takes ${amount} base units; the account holds ${balance}.`,
      { value: balance, limit: amount },
      "Send the tokens to the processor's account first.",
    );
  }
  const account = await processors.bondAccountOf(bond.processor);
  await mined(token.approve(rail.escrow, amount));
  await mined(escrow.connect(signer).deposit(bond.token, amount, account));
}

/** Waits for a transaction. */
export async function mined(sent: Promise<ContractTransactionResponse>): Promise<void> {
  await (await sent).wait();
}
