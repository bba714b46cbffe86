import type { Address } from "@bursar/protocol";
import { getAddress, toBeHex, type Signer, type TypedDataDomain } from "ethers";

import type { IDirectSettlement } from "../../typechain-types/DirectSettlement.ts";
import type { Core } from "./fixture.ts";

export type SignedTransfer = IDirectSettlement.TransferStruct;
export type SignedDebit = IDirectSettlement.DebitStruct;

export const TRANSFER_TYPES = {
  TransferWithAuthorization: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "validAfter", type: "uint256" },
    { name: "validBefore", type: "uint256" },
    { name: "nonce", type: "bytes32" },
  ],
};

export const DEBIT_TYPES = {
  Mandate: [
    { name: "owner", type: "address" },
    { name: "token", type: "address" },
    { name: "payee", type: "address" },
    { name: "amount", type: "uint256" },
    { name: "nonce", type: "uint256" },
    { name: "deadline", type: "uint256" },
    { name: "ref", type: "bytes32" },
  ],
};

export const REF = `0x${"2e".repeat(32)}`;
export const FOREVER = 2n ** 256n - 1n;

/** What a test wants to pay; `value` in base units. */
export interface Order {
  payee: Address;
  value: bigint;
  nonce?: bigint;
  /** The first second in which it pays; a debit has none. */
  since?: bigint;
  /** The last second in which it pays. */
  until?: bigint;
  payees?: readonly Address[];
  token?: Address;
  /** Who signs, if not the agent. */
  signer?: Signer;
  domain?: TypedDataDomain;
}

export async function transferDomain({ direct, domain, token }: Core): Promise<TypedDataDomain> {
  const verifyingContract = await direct.getAddress();
  return { name: `Bursar ${getAddress(token)}`, version: "1", chainId: domain.chainId, verifyingContract };
}

export async function debitDomain({ direct, domain }: Core): Promise<TypedDataDomain> {
  const verifyingContract = await direct.getAddress();
  return { name: "AEP2DebitWallet", version: "1", chainId: domain.chainId, verifyingContract };
}

/** What a stock x402 `exact` client signs. */
export async function signTransfer(
  context: Core,
  agent: Signer,
  { payee, value, nonce = 1n, since = 1n, until = FOREVER - 1n, payees = [], signer = agent, domain, token }: Order,
): Promise<SignedTransfer> {
  const message = {
    from: await agent.getAddress(),
    to: payee,
    value,
    validAfter: since - 1n,
    validBefore: until + 1n,
    nonce: toBeHex(nonce, 32),
  };
  const meant = { ...(await transferDomain({ ...context, token: token ?? context.token })), ...domain };
  return { ...message, signature: await signer.signTypedData(meant, TRANSFER_TYPES, message), payees: [...payees] };
}

/** What an AEP2 v1 client signs. */
export async function signDebit(
  context: Core,
  agent: Signer,
  { payee, value, nonce = 1n, until = FOREVER, payees = [], signer = agent, domain, token }: Order,
): Promise<SignedDebit> {
  const message = {
    owner: await agent.getAddress(),
    token: token ?? context.token,
    payee,
    amount: value,
    nonce,
    deadline: until,
    ref: REF,
  };
  const meant = { ...(await debitDomain(context)), ...domain };
  return { ...message, signature: await signer.signTypedData(meant, DEBIT_TYPES, message), payees: [...payees] };
}
