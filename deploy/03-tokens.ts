import { Escrow__factory, TestUSD__factory } from "../typechain-types/index.ts";
import { ensureContract, type Step } from "./context.ts";

/** Registers the tokens in the escrow, which fixes their units; a local chain gets a test dollar. */
export const tokens: Step = {
  title: "Tokens",
  async run(context) {
    const { settings, signer, local, deployment, save, log } = context;
    deployment.tokens = { ...settings.tokens };
    if (local) deployment.tokens["tUSD"] = await ensureContract(context, "TestUSD", new TestUSD__factory(signer), []);
    save();
    const escrow = Escrow__factory.connect(deployment.escrow!, signer);
    for (const [symbol, token] of Object.entries(deployment.tokens)) {
      if ((await escrow.tokenIdOf(token)) === 0n) await (await escrow.registerToken(token)).wait();
      log(`${symbol} is ${token}, 1 unit = ${await escrow.unitScale(token)} base units`);
    }
  },
};
