import { defineConfig } from "hardhat/config";

import base from "../../hardhat.config.ts";

/** Mutants are compiled hardly optimized, and so may be larger than a chain would take. */
export default defineConfig({
  ...base,
  networks: { ...base.networks, default: { type: "edr-simulated", allowUnlimitedContractSize: true } },
});
