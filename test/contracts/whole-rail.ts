import type { Address } from "@bursar/protocol";
import { getCreateAddress } from "ethers";

import { readArtifact } from "../../deploy/artifact.ts";
import { WINDOWS } from "../../deploy/index.ts";
import {
  BatchSettlement__factory,
  Bursar__factory,
  Challenges__factory,
  Claims__factory,
  DirectSettlement__factory,
  Escrow__factory,
  MandateRegistry__factory,
  OpenGate__factory,
  ProcessorRegistry__factory,
  TestUSD__factory,
  Trust__factory,
  type BatchSettlement,
  type Bursar,
  type Challenges,
  type Trust,
} from "../../typechain-types/index.ts";
import { bond, deployer, ethers, processor, type Core } from "./fixture.ts";

/** A verifier of generated code, by its name without `Verifier`. */
export async function deployVerifier(name: string): Promise<Address> {
  const { abi, bytecode } = readArtifact(`verifiers/${name}Verifier`);
  const verifier = await new ethers.ContractFactory(abi, bytecode, deployer).deploy();
  return (await verifier.getAddress()) as Address;
}

/** Trust and core, each made for the other, with a gate that is open to everyone unless another is to be asked. */
export async function deployBursar(
  verifiers: readonly string[],
  inclusions: readonly string[],
  asked?: Address,
): Promise<Bursar> {
  const gate = asked ?? (await new OpenGate__factory(deployer).deploy());
  const nonce = await ethers.provider.getTransactionCount(deployer.address);
  const address = getCreateAddress({ from: deployer.address, nonce: nonce + 1 });
  const trust: Trust = await new Trust__factory(deployer).deploy(address, [...inclusions]);
  return new Bursar__factory(deployer).deploy(WINDOWS, [...verifiers], trust, gate);
}

/** As a deployment makes them, with the tiny circuits' verifiers, a test dollar, and a bond for `processor`. */
export async function deployRail(): Promise<{ context: Core; settlement: BatchSettlement; challenges: Challenges }> {
  const bursar = await deployBursar([await deployVerifier("TinyBatch")], [await deployVerifier("TinyInclusion")]);
  const trust = Trust__factory.connect(await bursar.trust(), deployer);
  const registry = MandateRegistry__factory.connect(await bursar.registry(), deployer);
  const dollar = await new TestUSD__factory(deployer).deploy();
  const { chainId } = await ethers.provider.getNetwork();
  const context: Core = {
    escrow: Escrow__factory.connect(await bursar.escrow(), deployer),
    registry,
    direct: DirectSettlement__factory.connect(await bursar.direct(), deployer),
    processors: ProcessorRegistry__factory.connect(await trust.processors(), deployer),
    claims: Claims__factory.connect(await trust.claims(), deployer),
    dollar,
    token: (await dollar.getAddress()) as Address,
    domain: { chainId, registry: (await registry.getAddress()) as Address },
  };
  await context.processors.connect(processor).register(processor.address, "https://processor.test");
  await bond(context);
  return {
    context,
    settlement: BatchSettlement__factory.connect(await bursar.settlement(), processor),
    challenges: Challenges__factory.connect(await trust.challenges(), deployer),
  };
}
