import type { HardhatRuntimeEnvironment } from "hardhat/types/hre";

import { deploy, settingsOf } from "./index.ts";

/** `hardhat deploy --network NAME`: the deployer's key comes from Hardhat's encrypted keystore. */
export default async function action(_arguments: unknown, hre: HardhatRuntimeEnvironment): Promise<void> {
  const { ethers } = await hre.network.create();
  const [signer] = await ethers.getSigners();
  if (!signer) throw new Error("the network has no account: set BURSAR_DEPLOYER_KEY with `hardhat keystore set`");
  const { chainId } = await ethers.provider.getNetwork();
  await deploy(signer, ethers.provider, {
    settings: settingsOf(chainId, process.env),
    folder: "deployments",
    begin: (title) => console.log(title),
    log: (message) => console.log(`  ${message}`),
  });
}
