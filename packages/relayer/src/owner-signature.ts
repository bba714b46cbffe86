import { BursarError, verifySignature, type Address, type Hex } from "@bursar/protocol";
import { Interface, type Provider } from "ethers";

import { reach } from "./chain.ts";

/** Gas for a contract owner's `isValidSignature`: enough for a passkey checked in Solidity. */
const ERC1271_GAS = 2_000_000n;
const ERC1271 = new Interface(["function isValidSignature(bytes32 digest, bytes signature) view returns (bytes4)"]);
const ERC1271_YES = `0x1626ba7e${"0".repeat(56)}`;

/**
 * Whether the owner stands behind a digest, by the rule of the contract: an account with code answers itself.
 *
 * @returns the signature as the contract takes it.
 * @throws BursarError `signature-*`, `chain-unavailable`
 */
export async function ownerSigned(provider: Provider, owner: Address, digest: Hex, signature: Hex): Promise<Hex> {
  if ((await reach(() => provider.getCode(owner))) === "0x") return keySigned(owner, digest, signature);
  const data = ERC1271.encodeFunctionData("isValidSignature", [digest, signature]);
  const answer = await reach(() => provider.call({ to: owner, data, gasLimit: ERC1271_GAS })).catch(
    (error: unknown) => {
      if (error instanceof BursarError) throw error;
      return "0x";
    },
  );
  if (answer.slice(0, 66) === ERC1271_YES) return signature;
  throw new BursarError("signature-signer", `The account ${owner} does not stand behind this signature.`, {
    value: answer.slice(0, 66),
    limit: owner,
  });
}

/** The signature of an account without code, with the `v` that the contract takes: some wallets answer 0 or 1. */
export function keySigned(owner: Address, digest: Hex, signature: Hex): Hex {
  const v = signature.length === 132 ? { "00": "1b", "01": "1c" }[signature.slice(130)] : undefined;
  const strict = v === undefined ? signature : (`${signature.slice(0, 130)}${v}` as Hex);
  verifySignature(digest, strict, owner);
  return strict;
}
