import { BursarError, type Address } from "@bursar/protocol";
import { AbiCoder, ZeroAddress } from "ethers";

import { BondedArbiter__factory, Disputes__factory } from "../typechain-types/index.ts";
import { ensureContract, type Context, type DisputeSettings, type Step } from "./context.ts";

/** The beginning of each dispute's data: no arbiter by name, so the next in rotation. */
const ROTATION = AbiCoder.defaultAbiCoder().encode(["address"], [ZeroAddress]);

/** Where payments can be disputed, and who decides what no rule can. Nothing in the core knows of it. */
export const disputes: Step = {
  title: "Disputes",
  async run(context) {
    const { settings, signer, deployment, save, log } = context;
    delete deployment.arbiter;
    delete deployment.disputes;
    const meant = settings.disputes;
    if (meant === undefined) {
      log("No arbiters are named: no payment can be disputed.");
      save();
      return;
    }
    requireTimeToDeliver(meant);
    const arbiters = await arbitersOf(context, meant);
    const bonded = [arbiters, meant.fee, meant.stake, meant.ruleWithin] as const;
    deployment.arbiter = await ensureContract(context, "BondedArbiter", new BondedArbiter__factory(signer), bonded);
    deployment.disputes = await ensureContract(context, "Disputes", new Disputes__factory(signer), [
      deployment.registry,
      deployment.arbiter,
      ROTATION,
      meant.deadlines,
    ]);
    save();
  },
};

/** On a local chain without names, the deployer. */
export async function arbitersOf({ signer }: Context, { arbiters }: DisputeSettings): Promise<readonly Address[]> {
  return arbiters.length > 0 ? arbiters : [(await signer.getAddress()) as Address];
}

/** A ruling in the last second must still reach the module. @throws BursarError `malformed-input` */
function requireTimeToDeliver({ ruleWithin, deadlines }: DisputeSettings): void {
  if (deadlines.rule > ruleWithin) return;
  throw new BursarError(
    "malformed-input",
    `An arbiter has ${ruleWithin} seconds, and the module waits ${deadlines.rule}: it would end disputes before their ruling.`,
    { value: ruleWithin, limit: deadlines.rule },
    "Give arbiters less time than the module waits.",
  );
}
