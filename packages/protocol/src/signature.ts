import { dataSlice, recoverAddress, toBigInt } from "ethers";
import { BursarError } from "./errors.ts";
import type { Address, Hex } from "./types.ts";

/** Half the order of secp256k1: a strict signature's `s` is at most this. */
export const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;

const SIGNATURE = /^0x[0-9a-fA-F]{130}$/;

/**
 * The signer of a digest, under the rule that the contracts apply: 65 bytes `r ‖ s ‖ v`, `s` in the lower half,
 * `v` 27 or 28. Never ERC-1271.
 *
 * @throws signature-length, signature-high-s, signature-v, signature-invalid, checked in this order.
 */
export function recoverStrict(digest: Hex, signature: Hex): Address {
  if (!SIGNATURE.test(signature)) {
    throw new BursarError("signature-length", `A signature is 65 bytes, not ${signature}`, {
      value: signature,
      limit: 65,
    });
  }
  const s = toBigInt(dataSlice(signature, 32, 64));
  if (s > HALF_ORDER) {
    throw new BursarError("signature-high-s", "The signature's s is above half the curve order", {
      value: s,
      limit: HALF_ORDER,
    });
  }
  const v = Number(dataSlice(signature, 64));
  if (v !== 27 && v !== 28)
    throw new BursarError("signature-v", `The signature's v is ${v}, not 27 or 28`, { value: v, limit: "27 or 28" });
  try {
    return recoverAddress(digest, signature) as Address;
  } catch {
    throw new BursarError("signature-invalid", "No key recovers from the signature", { value: signature });
  }
}

/**
 * Refuses a signature that is not `expected`'s.
 *
 * @throws what {@link recoverStrict} throws, and signature-signer.
 */
export function verifySignature(digest: Hex, signature: Hex, expected: Address): void {
  const signer = recoverStrict(digest, signature);
  if (signer.toLowerCase() !== expected.toLowerCase()) {
    throw new BursarError("signature-signer", `The signature is by ${signer}, not by ${expected}`, {
      value: signer,
      limit: expected,
    });
  }
}
