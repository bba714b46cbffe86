/** The native bindings of secp256k1 5.0.2, as far as they are used here; they throw on bad input. */
declare module "secp256k1/bindings.js" {
  const bindings: {
    /** The public key that signed; 65 bytes when not `compressed`. */
    ecdsaRecover(signature: Uint8Array, recovery: number, message: Uint8Array, compressed: boolean): Uint8Array;
    ecdsaSign(message: Uint8Array, privateKey: Uint8Array): { signature: Uint8Array; recid: number };
  };
  export default bindings;
}
