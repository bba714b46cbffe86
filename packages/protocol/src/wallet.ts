import { concat, toBeHex, TypedDataEncoder, type Signer } from "ethers";

import { eip712Domain, TYPES } from "./typed-data.ts";
import type { Address, Domain, Hex } from "./types.ts";

/** A wallet contract that takes ERC-7739 signatures, by its own EIP-712 domain; a `KeyWallet` unless named otherwise. */
export interface WalletDomain {
  readonly wallet: Address;
  readonly name?: string;
  readonly version?: string;
}

const SALT = `0x${"00".repeat(32)}`;

/**
 * The signature by which the key of a wallet contract lets the wallet stand behind a message (ERC-7739). What is signed
 * shows the whole message and binds the wallet, so it counts for no other account of the same key.
 *
 * @param signer - the wallet's key.
 * @param domain - where the message is valid; the wallet is on the same chain.
 */
export async function signForWallet(
  signer: Signer,
  { wallet, name = "KeyWallet", version = "1" }: WalletDomain,
  domain: Domain,
  type: "Mandate" | "Revocation",
  message: object,
): Promise<Hex> {
  const own = { [type]: TYPES[type] };
  const types = {
    ...own,
    TypedDataSign: [
      { name: "contents", type },
      { name: "name", type: "string" },
      { name: "version", type: "string" },
      { name: "chainId", type: "uint256" },
      { name: "verifyingContract", type: "address" },
      { name: "salt", type: "bytes32" },
    ],
  };
  const nested = {
    contents: message,
    name,
    version,
    chainId: domain.chainId,
    verifyingContract: wallet,
    salt: SALT,
  };
  const app = eip712Domain(domain);
  const signature = await signer.signTypedData(app, types, nested);
  const description = new TextEncoder().encode(TypedDataEncoder.from(own).encodeType(type));
  return concat([
    signature,
    TypedDataEncoder.hashDomain(app),
    TypedDataEncoder.hashStruct(type, own, message),
    description,
    toBeHex(description.length, 2),
  ]) as Hex;
}
