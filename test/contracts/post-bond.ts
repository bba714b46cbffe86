import type { Address } from "@bursar/protocol";
import type { Signer } from "ethers";

import type { TestUSD, TokenWithDecimals } from "../../typechain-types/index.ts";
import type { Core } from "./fixture.ts";

export type Account = Signer & { address: Address };

/** Registers a processor that signs its own receipts, and posts its bond, in base units of the test dollar. */
export async function registerWithBond(context: Core, account: Account, amount: bigint): Promise<void> {
  await context.processors.connect(account).register(account.address, "https://other.test");
  await postBond(context, account, amount);
}

/** Posts a bond for an account in a token that anyone can mint. */
export async function postBond(
  { escrow, processors, dollar }: Core,
  account: Account,
  amount: bigint,
  token: TestUSD | TokenWithDecimals = dollar,
): Promise<void> {
  await token.mint(account.address, amount);
  await (token.connect(account) as TestUSD).approve(escrow, amount);
  await escrow.connect(account).deposit(token, amount, await processors.bondAccountOf(account.address));
}
