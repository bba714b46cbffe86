import { BursarError } from "@bursar/protocol";
import { Contract } from "ethers";

import {
  BatchSettlement__factory,
  BondedArbiter__factory,
  Bursar__factory,
  Challenges__factory,
  Claims__factory,
  DirectSettlement__factory,
  Disputes__factory,
  Escrow__factory,
  MandateRegistry__factory,
  ProcessorRegistry__factory,
  Trust__factory,
} from "../typechain-types/index.ts";
import { readArtifact } from "./artifact.ts";
import { circuitOf, inclusionOf } from "./01-verifiers.ts";
import { arbitersOf } from "./04-disputes.ts";
import type { Context, Step } from "./context.ts";

/** Reads everything back from the chain and compares it with what was meant. */
export const validate: Step = {
  title: "Validation",
  async run(context) {
    await validateReferences(context);
    await validateWindows(context);
    await validateVerifiers(context);
    await validateTokens(context);
    await validateDisputes(context);
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
  const trust = Trust__factory.connect(deployment.contracts["Trust"]!.address, provider);
  const processors = ProcessorRegistry__factory.connect(deployment.processors!, provider);
  const claims = Claims__factory.connect(deployment.claims!, provider);
  const challenges = Challenges__factory.connect(deployment.challenges!, provider);
  expect("Bursar.trust", await bursar.trust(), deployment.contracts["Trust"]!.address);
  expect("Trust.bursar", await trust.bursar(), deployment.contracts["Bursar"]!.address);
  expect("Trust.processors", await trust.processors(), deployment.processors!);
  expect("Trust.claims", await trust.claims(), deployment.claims!);
  expect("Trust.challenges", await trust.challenges(), deployment.challenges!);
  expect("MandateRegistry.processors", await registry.processors(), deployment.processors!);
  expect("MandateRegistry.claims", await registry.claims(), deployment.claims!);
  expect("MandateRegistry.gate", await registry.gate(), deployment.gate!);
  expect("ProcessorRegistry.escrow", await processors.escrow(), deployment.escrow!);
  expect("ProcessorRegistry.registry", await processors.registry(), deployment.registry!);
  for (const judge of [deployment.claims!, deployment.challenges!])
    expect(`ProcessorRegistry.isJudge(${judge})`, String(await processors.isJudge(judge)), "true");
  expect("Claims.registry", await claims.registry(), deployment.registry!);
  expect("Claims.processors", await claims.processors(), deployment.processors!);
  expect("Challenges.registry", await challenges.registry(), deployment.registry!);
  expect("Challenges.settlement", await challenges.settlement(), deployment.settlement!);
  expect("Challenges.processors", await challenges.processors(), deployment.processors!);
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
  const challenges = Challenges__factory.connect(deployment.challenges!, provider);
  const check = async (name: string, meant: string, verifierOf: (id: string) => Promise<string>): Promise<void> => {
    const { address } = deployment.contracts[name]!;
    const verifier = new Contract(address, readArtifact(`verifiers/${name}`).abi, provider);
    const circuitId = (await verifier.getFunction("circuitId")()) as string;
    expect(`${name}.circuitId`, circuitId, meant);
    expect(`verifierOf(${circuitId})`, await verifierOf(circuitId), address);
    if (!local) expect(`${name}.isDevelopmentKey`, String(await verifier.getFunction("isDevelopmentKey")()), "false");
  };
  for (const name of settings.verifiers) {
    const circuit = circuitOf(name);
    await check(name, deployment.circuits[circuit]!, (id) => settlement.verifierOf(id));
    await check(inclusionOf(name), deployment.inclusions[circuit]!, (id) => challenges.verifierOf(id));
  }
}

async function validateTokens({ deployment, provider }: Context): Promise<void> {
  const escrow = Escrow__factory.connect(deployment.escrow!, provider);
  for (const token of Object.values(deployment.tokens)) {
    expect(`Escrow.tokenOf(${token})`, await escrow.tokenOf(await escrow.tokenIdOf(token)), token);
  }
}

async function validateDisputes(context: Context): Promise<void> {
  const { deployment, provider, settings } = context;
  const meant = settings.disputes;
  if (meant === undefined || !deployment.disputes || !deployment.arbiter) return;
  const module = Disputes__factory.connect(deployment.disputes, provider);
  const arbiter = BondedArbiter__factory.connect(deployment.arbiter, provider);
  expect("Disputes.registry", await module.registry(), deployment.registry!);
  expect("Disputes.escrow", await module.escrow(), deployment.escrow!);
  expect("Disputes.processors", await module.processors(), deployment.processors!);
  expect("Disputes.arbitrator", await module.arbitrator(), deployment.arbiter);
  const deadlines = await module.deadlines();
  for (const [name, value] of Object.entries(meant.deadlines))
    expect(`Disputes.deadlines.${name}`, deadlines[name as keyof typeof meant.deadlines], value);
  expect("BondedArbiter.arbiters", (await arbiter.arbiters()).join(" "), (await arbitersOf(context, meant)).join(" "));
  expect("BondedArbiter.fee", await arbiter.fee(), meant.fee);
  expect("BondedArbiter.stake", await arbiter.stake(), meant.stake);
  expect("BondedArbiter.ruleWithin", await arbiter.ruleWithin(), meant.ruleWithin);
}

function expect(what: string, value: string | bigint, limit: string | bigint): void {
  if (value !== limit) {
    throw new BursarError("wrong-contract", `${what} is ${value} on chain; ${limit} was meant.`, { value, limit });
  }
}
