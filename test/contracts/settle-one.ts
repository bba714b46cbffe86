import { hashLine, headHex, signPayment, type Address, type Hex } from "@bursar/protocol";
import { Signature, ZeroHash, type ContractTransactionResponse, type Wallet, type HDNodeWallet } from "ethers";

import { open, processor, settlement, type Core } from "./fixture.ts";

export interface SignedRow {
  agent: Address;
  count: bigint;
  debit: bigint;
  head: bigint;
  newBase: bigint;
  lineHash: Hex;
  r: string;
  s: string;
  v: number;
}

/** A row of payments of one unit, the last of which makes up the debit; signed by the agent from where the chain stands. */
export async function signRow(
  { registry, domain }: Core,
  agent: Wallet | HDNodeWallet,
  payee: Address,
  debit: bigint,
  count = 1n,
): Promise<SignedRow> {
  const { seq, spent, base } = await registry.positionOf(agent.address);
  const line = { payee, amount: debit, ref: ZeroHash as Hex };
  const payment = { seq: seq + count, spent: spent + debit, head: headHex(base + 1n), line };
  const { r, s, v } = Signature.from(await signPayment(agent, domain, payment));
  return {
    agent: agent.address as Address,
    count,
    debit,
    head: base + 1n,
    newBase: base + 1n,
    lineHash: hashLine(line),
    r,
    s,
    v,
  };
}

/** Opens a mandate and settles one row of it with these credits, as the settlement contract. */
export async function settleOne(
  context: Core,
  credits: readonly (readonly [payee: string, amount: bigint])[],
  debit = credits.reduce((sum, [, amount]) => sum + amount, 0n),
): Promise<ContractTransactionResponse> {
  const { agent } = await open(context);
  const row = await signRow(context, agent, credits[0]![0] as Address, debit);
  return context.registry.connect(settlement).settle(
    processor.address,
    [row],
    credits.map(([payee, amount]) => ({ payee, amount })),
  );
}
