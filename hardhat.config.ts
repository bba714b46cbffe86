import { fileURLToPath } from "node:url";

import hardhatToolbox from "@nomicfoundation/hardhat-toolbox-mocha-ethers";
import { configVariable, defineConfig, task } from "hardhat/config";

/** The compiler comes from the npm package: no download at build time. */
const compiler = (runs: number) => ({
  version: "0.8.37",
  path: fileURLToPath(import.meta.resolve("solc/soljson.js")),
  settings: { optimizer: { enabled: true, runs }, viaIR: true, evmVersion: "cancun" },
});

export default defineConfig({
  plugins: [hardhatToolbox],
  tasks: [
    task("deploy", "Deploys or completes the contracts on --network, then validates them")
      .setAction(() => import("./deploy/task.ts"))
      .build(),
  ],
  solidity: {
    compilers: [compiler(1_000_000)],
    // Filed once in a while, and with everything inlined above the size of a contract.
    overrides: { "contracts/modules/Disputes.sol": compiler(200) },
  },
  typechain: { outDir: "typechain-types" },
  test: { solidity: { fuzz: { runs: 10_000 } }, mocha: { timeout: 120_000 } },
  paths: { tests: { mocha: "test/contracts", solidity: "test/contracts" } },
  networks: {
    local: { type: "http", chainType: "l1", url: "http://127.0.0.1:8545", chainId: 31337 },
    baseSepolia: {
      type: "http",
      chainType: "op",
      chainId: 84532,
      url: configVariable("BASE_SEPOLIA_RPC_URL"),
      accounts: [configVariable("BURSAR_DEPLOYER_KEY")],
    },
    rpc: {
      type: "http",
      chainType: "generic",
      url: configVariable("BURSAR_RPC_URL"),
      accounts: [configVariable("BURSAR_DEPLOYER_KEY")],
    },
  },
});
