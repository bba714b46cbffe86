import { getBytes, keccak256, SigningKey } from "ethers";

/** The portable implementation of what the hot path needs; Node takes `curve-native.ts` under the same name. */

/** keccak256 of bytes. */
export function keccak(bytes: Uint8Array): Uint8Array {
  return getBytes(keccak256(bytes));
}

/** The public key, 64 bytes without prefix, that signed `digest`; null when there is none. `rs` is 64 bytes. */
export function recoverPublicKey(digest: Uint8Array, rs: Uint8Array, recovery: 0 | 1): Uint8Array | null {
  const signature = new Uint8Array(65);
  signature.set(rs);
  signature[64] = 27 + recovery;
  try {
    return getBytes(SigningKey.recoverPublicKey(digest, bytesToHex(signature))).slice(1);
  } catch {
    return null;
  }
}

/** Deterministic ECDSA (RFC 6979) with low s: 65 bytes `r ‖ s ‖ v`. */
export function signDigest(digest: Uint8Array, privateKey: Uint8Array): Uint8Array {
  return getBytes(new SigningKey(privateKey).sign(digest).serialized);
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

export function bytesToHex(bytes: Uint8Array): `0x${string}` {
  let text = "0x";
  for (const byte of bytes) text += HEX[byte]!;
  return text as `0x${string}`;
}
