import { createKeccak } from "hash-wasm";

export { bytesToHex } from "./curve.ts";

const hasher = await createKeccak(256);

/** keccak256 of bytes. */
export function keccak(bytes: Uint8Array): Uint8Array {
  return hasher.init().update(bytes).digest("binary");
}

export interface Curve {
  recover: (digest: Uint8Array, rs: Uint8Array, recovery: 0 | 1) => Uint8Array | null;
  sign: (digest: Uint8Array, privateKey: Uint8Array) => { rs: Uint8Array; recovery: number };
}

/** libsecp256k1, or the same in WebAssembly on machines that it has no build for. */
const curve = await native().catch(wasm);

/** The package's index falls back silently to a slow curve in JavaScript: its bindings are named instead. */
export async function native(): Promise<Curve> {
  const { default: library } = await import("secp256k1/bindings.js");
  return {
    recover: (digest, rs, recovery) => {
      try {
        return library.ecdsaRecover(rs, recovery, digest, false).subarray(1);
      } catch {
        return null;
      }
    },
    sign: (digest, privateKey) => {
      const { signature, recid } = library.ecdsaSign(digest, privateKey);
      return { rs: signature, recovery: recid };
    },
  };
}

/** libsecp256k1 in WebAssembly. */
export async function wasm(): Promise<Curve> {
  const { instantiateSecp256k1 } = await import("@bitauth/libauth");
  const library = await instantiateSecp256k1();
  return {
    recover: (digest, rs, recovery) => {
      const key = library.recoverPublicKeyUncompressed(rs, recovery, digest);
      return typeof key === "string" ? null : key.subarray(1);
    },
    sign: (digest, privateKey) => {
      const signed = library.signMessageHashRecoverableCompact(privateKey, digest);
      if (typeof signed === "string") throw new Error(signed);
      return { rs: signed.signature, recovery: signed.recoveryId };
    },
  };
}

/** The public key, 64 bytes without prefix, that signed `digest`; null when there is none. `rs` is 64 bytes. */
export function recoverPublicKey(digest: Uint8Array, rs: Uint8Array, recovery: 0 | 1): Uint8Array | null {
  return curve.recover(digest, rs, recovery);
}

/** Deterministic ECDSA (RFC 6979) with low s: 65 bytes `r ‖ s ‖ v`. */
export function signDigest(digest: Uint8Array, privateKey: Uint8Array): Uint8Array {
  const { rs, recovery } = curve.sign(digest, privateKey);
  const signature = new Uint8Array(65);
  signature.set(rs);
  signature[64] = 27 + recovery;
  return signature;
}
