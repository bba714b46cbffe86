import { concat, keccak256, zeroPadValue } from "ethers";
import { BursarError } from "./errors.ts";
import { poseidon } from "./field.ts";
import { headHex } from "./ledger.ts";
import type { Address, Hex, Mandate } from "./types.ts";
import { assertAmount } from "./units.ts";

/** Entries of an allow list. */
export const ALLOW_LENGTH = 8;

/** Eight payees as the circuit takes them. */
export type AllowList = readonly [bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint];

/**
 * A payee list as the circuit takes it: in its order, padded to eight with its first entry; eight zeros for the empty
 * list, which means anyone.
 *
 * @throws malformed-input for more than eight payees or the zero address, which would mean anyone.
 */
export function allowList(payees: readonly Address[]): AllowList {
  if (payees.length > ALLOW_LENGTH) {
    throw new BursarError("malformed-input", `A mandate names at most ${ALLOW_LENGTH} payees, not ${payees.length}`, {
      value: payees.length,
      limit: ALLOW_LENGTH,
    });
  }
  const named = payees.map((payee) => BigInt(payee));
  if (named.includes(0n))
    throw new BursarError("malformed-input", "The zero address cannot be a payee", { value: "0x0" });
  const padding = named[0] ?? 0n;
  return Array.from({ length: ALLOW_LENGTH }, (_, index) => named[index] ?? padding) as unknown as AllowList;
}

/** Poseidon(allow_0 … allow_7, paymentCap): the payee list and the cap as the circuit knows them. */
export function policyRoot(payees: readonly Address[], paymentCap: bigint): bigint {
  assertAmount(paymentCap);
  return poseidon([...allowList(payees), paymentCap]);
}

/** keccak256 of the payees, 32 bytes each: as EIP-712 hashes `address[]`, and Solidity `abi.encodePacked(payees)`. */
export function payeesHash(payees: readonly Address[]): Hex {
  return keccak256(concat(payees.map((payee) => zeroPadValue(payee, 32)))) as Hex;
}

/** Whether the list lets a payee be paid. */
export function allowsPayee(payees: readonly Address[], payee: Address): boolean {
  return payees.length === 0 || payees.some((allowed) => BigInt(allowed) === BigInt(payee));
}

/**
 * Refuses a mandate whose clear payee list and cap are not those of its policyRoot.
 *
 * @throws policy-mismatch with both roots.
 */
export function assertPolicyAgrees(mandate: Pick<Mandate, "payees" | "paymentCap" | "policyRoot">): void {
  const root = headHex(policyRoot(mandate.payees, mandate.paymentCap));
  if (root !== mandate.policyRoot.toLowerCase()) {
    throw new BursarError("policy-mismatch", "The policy root is not that of the payee list and the payment cap", {
      value: mandate.policyRoot,
      limit: root,
    });
  }
}
