declare module "circomlibjs" {
  /** circomlib's Poseidon in WebAssembly: takes and gives elements in Montgomery form. */
  export function buildPoseidon(): Promise<{
    (inputs: readonly bigint[]): Uint8Array;
    readonly F: { toObject(element: Uint8Array): bigint };
  }>;
}
