import type { Address } from "@bursar/protocol";

import { Bursar__factory } from "../typechain-types/index.ts";
import { ensureContract, type Step } from "./context.ts";

/** Escrow, registry and both settlement contracts in one transaction, bound to each other for ever. */
export const core: Step = {
  title: "Core",
  async run(context) {
    const { settings, signer, deployment, save } = context;
    const verifiers = settings.verifiers.map((name) => deployment.contracts[name]!.address);
    const address = await ensureContract(context, "Bursar", new Bursar__factory(signer), [settings.windows, verifiers]);
    const bursar = Bursar__factory.connect(address, signer);
    deployment.escrow = (await bursar.escrow()) as Address;
    deployment.registry = (await bursar.registry()) as Address;
    deployment.settlement = (await bursar.settlement()) as Address;
    deployment.direct = (await bursar.direct()) as Address;
    save();
  },
};
