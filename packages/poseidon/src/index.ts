import { readFile } from "node:fs/promises";

import { buildPoseidon } from "./build.ts";
import { instantiatePoseidon, type Poseidon } from "./instance.ts";

export { buildPoseidon, wasmFile } from "./build.ts";
export * from "./constants.ts";
export { instantiatePoseidon, type Poseidon } from "./instance.ts";
export { FACTOR, LIMBS, LIMB_BITS, limbsOf, packConstants, type PackedConstants } from "./packing.ts";

let loaded: Promise<Poseidon> | undefined;

/** The hash for Node: compiled when it is first asked for, made once in a process. */
export function loadPoseidon(): Promise<Poseidon> {
  loaded ??= buildPoseidon()
    .then((file) => readFile(file))
    .then(instantiatePoseidon)
    .catch((error: unknown) => {
      loaded = undefined;
      throw error;
    });
  return loaded;
}
