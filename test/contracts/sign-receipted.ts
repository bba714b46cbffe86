import { signPayment, signReceipt, type Address, type Domain, type Hex, type Receipt } from "@bursar/protocol";
import { ZeroHash, type Signer } from "ethers";

import type { ReceiptedPaymentStruct } from "../../typechain-types/Claims.ts";
import { processor, type Core } from "./fixture.ts";

/** The message by which owner and processor end a mandate together. */
export async function signClose(
  signer: Signer,
  { chainId, registry }: Domain,
  close: { agent: string; seq: bigint },
): Promise<string> {
  const types = {
    Close: [
      { name: "agent", type: "address" },
      { name: "seq", type: "uint64" },
    ],
  };
  return signer.signTypedData({ name: "Bursar", version: "1", chainId, verifyingContract: registry }, types, close);
}

/** A payment with both signatures: the agent's, and a receipt that promises to settle it by then. */
export async function signReceipted(
  { domain }: Core,
  agent: Signer,
  receipted: { seq: bigint; spent: bigint; head: Hex; payee: Address; amount: bigint; settleBy: bigint },
): Promise<ReceiptedPaymentStruct> {
  const { seq, spent, head, payee, amount, settleBy } = receipted;
  const line = { payee, amount, ref: ZeroHash as Hex };
  const address = (await agent.getAddress()) as Address;
  const receipt: Receipt = { agent: address, seq, ...line, head, settleBy, logIndex: 0n };
  return {
    agent: address,
    seq,
    spent,
    head,
    line,
    settleBy,
    logIndex: 0n,
    agentSignature: await signPayment(agent, domain, { seq, spent, head, line }),
    processorSignature: await signReceipt(processor, domain, receipt),
    payees: [],
  };
}
