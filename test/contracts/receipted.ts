import { headHex, signPayment, signReceipt, type Address, type Hex } from "@bursar/protocol";
import { ZeroHash, type HDNodeWallet, type Signer, type Wallet } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import { now, payee, processor, type Core } from "./fixture.ts";

/** A payment with both signatures, as the contracts read it. */
export interface ReceiptedPayment {
  agent: Address;
  seq: bigint;
  spent: bigint;
  head: Hex;
  line: { payee: Address; amount: bigint; ref: Hex };
  settleBy: bigint;
  logIndex: bigint;
  agentSignature: Hex;
  processorSignature: Hex;
  payees: Address[];
}

export interface PaymentDraft {
  seq?: bigint;
  spent?: bigint;
  head?: Hex;
  payee?: Address;
  amount?: bigint;
  ref?: Hex;
  settleBy?: bigint;
  payees?: Address[];
  /** Who signs the payment, instead of the agent. */
  signer?: Signer;
  /** Who signs the receipt, instead of the fixture's processor. */
  key?: Signer;
}

/**
 * A payment of 1,000 units and its receipt: the next one from where the chain stands, to be settled within the settle-by
 * window from now. `signRow` settles one with the same head.
 */
export async function receipted(
  { registry, domain }: Core,
  agent: Wallet | HDNodeWallet,
  overrides: PaymentDraft = {},
): Promise<ReceiptedPayment> {
  const position = await registry.positionOf(agent.address);
  const amount = overrides.amount ?? 1_000n;
  const {
    seq = position.seq + 1n,
    spent = position.spent + amount,
    head = headHex(position.base + 1n),
    settleBy = (await now()) + WINDOWS.settleBy,
  } = overrides;
  const line = { payee: overrides.payee ?? payee.address, amount, ref: overrides.ref ?? (ZeroHash as Hex) };
  const address = agent.address as Address;
  const logIndex = 0n;
  return {
    agent: address,
    seq,
    spent,
    head,
    line,
    settleBy,
    logIndex,
    agentSignature: await signPayment(overrides.signer ?? agent, domain, { seq, spent, head, line }),
    processorSignature: await signReceipt(overrides.key ?? processor, domain, {
      agent: address,
      seq,
      ...line,
      head,
      settleBy,
      logIndex,
    }),
    payees: overrides.payees ?? [],
  };
}
