import { headHex, signPayment, signReceipt, type Address, type Domain, type Hex } from "@bursar/protocol";
import { AbiCoder, keccak256, ZeroHash, type HDNodeWallet, type Signer, type Wallet } from "ethers";

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
  logIndex?: bigint;
  payees?: Address[];
  /** Who signs the payment, instead of the agent. */
  signer?: Signer;
  /** Who signs the receipt, instead of the fixture's processor. */
  key?: Signer;
  /** For which chain and contract both sign, instead of the fixture's. */
  domain?: Domain;
}

/**
 * A payment of 1,000 units and its receipt: the next one from where the chain stands, to be settled within the settle-by
 * window from now. `signRow` settles one with the same head.
 */
export async function receipted(
  { registry, domain: home }: Core,
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
    logIndex = 0n,
    domain = home,
  } = overrides;
  const line = { payee: overrides.payee ?? payee.address, amount, ref: overrides.ref ?? (ZeroHash as Hex) };
  const address = agent.address as Address;
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

/** By which claims and challenges know a payment. */
export const idOf = ({ agent, seq, head, line }: ReceiptedPayment): string =>
  keccak256(
    AbiCoder.defaultAbiCoder().encode(
      ["address", "uint64", "bytes32", "address", "uint40", "bytes32"],
      [agent, seq, head, line.payee, line.amount, line.ref],
    ),
  );
