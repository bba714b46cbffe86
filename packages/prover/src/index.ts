export * from "./build.ts";
export * from "./ceremony.ts";
export * from "./circuits.ts";
export * from "./development-key.ts";
export * from "./prove.ts";
export * from "./r1cs.ts";
export * from "./statement.ts";
export * from "./verifier.ts";
