import { getAddress } from "ethers";
import { bytesToHex, keccak, recoverPublicKey, signDigest } from "#curve";
import { BursarError } from "./errors.ts";
import { hexToBytes } from "./packing.ts";
import type { Address, Hex } from "./types.ts";

/** Half the order of secp256k1: a strict signature's `s` is at most this. */
export const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;

const SIGNATURE = /^0x[0-9a-fA-F]{130}$/;
const HALF_ORDER_TEXT = HALF_ORDER.toString(16).padStart(64, "0");

/**
 * The signer of a digest, under the rule that the contracts apply: 65 bytes `r ‖ s ‖ v`, `s` in the lower half,
 * `v` 27 or 28. Never ERC-1271.
 *
 * @throws signature-length, signature-high-s, signature-v, signature-invalid, checked in this order.
 */
export function recoverStrict(digest: Hex, signature: Hex): Address {
  return getAddress(signerOf(digest, signature)) as Address;
}

/**
 * Refuses a signature that is not `expected`'s.
 *
 * @throws what {@link recoverStrict} throws, and signature-signer.
 */
export function verifySignature(digest: Hex, signature: Hex, expected: Address): void {
  const signer = signerOf(digest, signature);
  if (signer !== expected.toLowerCase()) {
    throw new BursarError("signature-signer", `The signature is by ${getAddress(signer)}, not by ${expected}`, {
      value: getAddress(signer),
      limit: expected,
    });
  }
}

/** A local key's signature of a digest: deterministic (RFC 6979), low s, v 27 or 28. */
export function signWithKey(digest: Hex, privateKey: Hex): Hex {
  return bytesToHex(signDigest(hexToBytes(digest), hexToBytes(privateKey)));
}

/** The signer's address in lower case. */
function signerOf(digest: Hex, signature: Hex): Hex {
  if (!SIGNATURE.test(signature)) {
    throw new BursarError("signature-length", `A signature is 65 bytes, not ${signature}`, {
      value: signature,
      limit: 65,
    });
  }
  const s = signature.slice(66, 130).toLowerCase();
  if (s > HALF_ORDER_TEXT) {
    throw new BursarError("signature-high-s", "The signature's s is above half the curve order", {
      value: BigInt(`0x${s}`),
      limit: HALF_ORDER,
    });
  }
  const bytes = hexToBytes(signature);
  const v = bytes[64];
  if (v !== 27 && v !== 28) {
    throw new BursarError("signature-v", `The signature's v is ${v}, not 27 or 28`, { value: v!, limit: "27 or 28" });
  }
  const key = recoverPublicKey(hexToBytes(digest), bytes.subarray(0, 64), v === 27 ? 0 : 1);
  if (key === null) {
    throw new BursarError("signature-invalid", "No key recovers from the signature", { value: signature });
  }
  return bytesToHex(keccak(key).subarray(12));
}
