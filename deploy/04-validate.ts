import { BursarError } from "@bursar/protocol";
import { Contract } from "ethers";

import {
  BatchSettlement__factory,
  Bursar__factory,
  DirectSettlement__factory,
  Escrow__factory,
  MandateRegistry__factory,
} from "../typechain-types/index.ts";
import { readArtifact } from "./artifact.ts";
import { circuitOf } from "./01-verifiers.ts";
import type { Context, Step } from "./context.ts";

/** Reads everything back from the chain and compares it with what was meant. */
export const validate: Step = {
  title: "Validation",
  async run(context) {
    await validateReferences(context);
    await validateWindows(context);
    await validateVerifiers(context);
    await validateTokens(context);
    context.log("What stands on chain is what was meant.");
  },
};

async function validateReferences({ deployment, provider }: Context): Promise<void> {
  const bursar = Bursar__factory.connect(deployment.contracts["Bursar"]!.address, provider);
  const escrow = Escrow__factory.connect(deployment.escrow!, provider);
  const registry = MandateRegistry__factory.connect(deployment.registry!, provider);
  const settlement = BatchSettlement__factory.connect(deployment.settlement!, provider);
  const direct = DirectSettlement__factory.connect(deployment.direct!, provider);
  expect("Bursar.escrow", await bursar.escrow(), deployment.escrow!);
  expect("Bursar.registry", await bursar.registry(), deployment.registry!);
  expect("Bursar.settlement", await bursar.settlement(), deployment.settlement!);
  expect("Bursar.direct", await bursar.direct(), deployment.direct!);
  expect("Escrow.registry", await escrow.registry(), deployment.registry!);
  expect("MandateRegistry.escrow", await registry.escrow(), deployment.escrow!);
  expect("MandateRegistry.settlement", await registry.settlement(), deployment.settlement!);
  expect("MandateRegistry.direct", await registry.direct(), deployment.direct!);
  expect("BatchSettlement.registry", await settlement.registry(), deployment.registry!);
  expect("DirectSettlement.registry", await direct.registry(), deployment.registry!);
}

async function validateWindows({ deployment, provider, settings }: Context): Promise<void> {
  const windows = await MandateRegistry__factory.connect(deployment.registry!, provider).windows();
  for (const [name, value] of Object.entries(settings.windows)) {
    expect(`windows.${name}`, windows[name as keyof typeof settings.windows], value);
  }
}

async function validateVerifiers({ deployment, provider, settings, local }: Context): Promise<void> {
  const settlement = BatchSettlement__factory.connect(deployment.settlement!, provider);
  for (const name of settings.verifiers) {
    const { address } = deployment.contracts[name]!;
    const verifier = new Contract(address, readArtifact(`verifiers/${name}`).abi, provider);
    const circuitId = (await verifier.getFunction("circuitId")()) as string;
    expect(`${name}.circuitId`, circuitId, deployment.circuits[circuitOf(name)]!);
    expect(`BatchSettlement.verifierOf(${circuitId})`, await settlement.verifierOf(circuitId), address);
    if (!local) expect(`${name}.isDevelopmentKey`, String(await verifier.getFunction("isDevelopmentKey")()), "false");
  }
}

async function validateTokens({ deployment, provider }: Context): Promise<void> {
  const escrow = Escrow__factory.connect(deployment.escrow!, provider);
  for (const token of Object.values(deployment.tokens)) {
    expect(`Escrow.tokenOf(${token})`, await escrow.tokenOf(await escrow.tokenIdOf(token)), token);
  }
}

function expect(what: string, value: string | bigint, limit: string | bigint): void {
  if (value !== limit) {
    throw new BursarError("wrong-contract", `${what} is ${value} on chain; ${limit} was meant.`, { value, limit });
  }
}
