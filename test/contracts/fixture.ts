import { headHex, policyRoot, signMandate, type Address, type Domain, type Mandate } from "@bursar/protocol";
import { network } from "hardhat";
import { getCreateAddress, hexlify, randomBytes, Wallet, type HDNodeWallet, type Result, type Signer } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import {
  Claims__factory,
  DirectSettlement__factory,
  Escrow__factory,
  MandateRegistry__factory,
  OpenGate__factory,
  ProcessorRegistry__factory,
  TestUSD__factory,
  type Claims,
  type DirectSettlement,
  type Escrow,
  type MandateRegistry,
  type ProcessorRegistry,
  type TestUSD,
} from "../../typechain-types/index.ts";

export const connection = await network.create();
export const { ethers, networkHelpers } = connection;

export const [deployer, owner, processor, settlement, stranger, payee, other] =
  (await ethers.getSigners()) as unknown as [
    Signer & { address: Address },
    Signer & { address: Address },
    Signer & { address: Address },
    Signer & { address: Address },
    Signer & { address: Address },
    Signer & { address: Address },
    Signer & { address: Address },
  ];

export const TERMS_HASH = `0x${"7e".repeat(32)}` as const;
export const DAY = 86_400n;

/** More than the mandates of any test lock, in units. */
export const BOND = 2n ** 70n;

/**
 * Escrow, registry whose batch settlement contract is an account of the test, direct settlement, claims against bonds, and
 * a test dollar, in which `processor` has its bond.
 */
export interface Core {
  escrow: Escrow;
  registry: MandateRegistry;
  direct: DirectSettlement;
  processors: ProcessorRegistry;
  claims: Claims;
  dollar: TestUSD;
  token: Address;
  domain: Domain;
}

export const deployCore = (): Promise<Core> => deployWith();

/** Deploys the core with this identity gate, or one that is open to everyone. */
export async function deployWith(gate?: Address): Promise<Core> {
  const nonce = await ethers.provider.getTransactionCount(deployer.address);
  const predicted = (n: number): string => getCreateAddress({ from: deployer.address, nonce: nonce + n });
  const escrow = await new Escrow__factory(deployer).deploy(predicted(1));
  const links = {
    escrow,
    settlement: settlement.address,
    direct: predicted(2),
    processors: predicted(3),
    claims: predicted(4),
    gate: gate ?? predicted(5),
  };
  const registry = await new MandateRegistry__factory(deployer).deploy(links, WINDOWS);
  const direct = await new DirectSettlement__factory(deployer).deploy(registry);
  const processors = await new ProcessorRegistry__factory(deployer).deploy(
    escrow,
    registry,
    links.claims,
    predicted(100),
  );
  const claims = await new Claims__factory(deployer).deploy(registry, processors);
  if (!gate) await new OpenGate__factory(deployer).deploy();
  const dollar = await new TestUSD__factory(deployer).deploy();
  const { chainId } = await ethers.provider.getNetwork();
  const domain = { chainId, registry: (await registry.getAddress()) as Address };
  const token = (await dollar.getAddress()) as Address;
  const context = { escrow, registry, direct, processors, claims, dollar, token, domain };
  await processors.connect(processor).register(processor.address, "https://processor.test");
  await bond(context);
  return context;
}

/** Posts a bond for `processor` in a token that anyone can mint. */
export async function bond(
  { escrow, processors, dollar }: Core,
  amount = BOND,
  token: TestUSD = dollar,
): Promise<void> {
  await token.connect(processor).mint(processor.address, amount);
  await token.connect(processor).approve(escrow, amount);
  await escrow.connect(processor).deposit(token, amount, await processors.bondAccountOf(processor.address));
}

export const core = (): Promise<Core> => networkHelpers.loadFixture(deployCore);

export const now = async (): Promise<bigint> => BigInt(await networkHelpers.time.latest());

export async function fund({ escrow, dollar, token }: Core, amount: bigint, account = owner): Promise<void> {
  await dollar.connect(account).mint(account.address, amount);
  await dollar.connect(account).approve(escrow, amount);
  await escrow.connect(account).deposit(token, amount, account.address);
}

export const freshKey = (): Wallet => new Wallet(hexlify(randomBytes(32)));

export async function draft({ token }: Core, agent: string, overrides: Partial<Mandate> = {}): Promise<Mandate> {
  const { payees = [], paymentCap = 1_000n } = overrides;
  return {
    owner: owner.address,
    agent: agent as Address,
    token,
    budget: 10_000n,
    validUntil: (await now()) + DAY,
    processor: processor.address,
    policyRoot: headHex(policyRoot(payees.filter((one) => BigInt(one) > 0n).slice(0, 8), 1_000n)),
    termsHash: TERMS_HASH,
    ...overrides,
    payees,
    paymentCap,
  };
}

export const solidity = (mandate: Mandate): Mandate & { payees: Address[] } => ({
  ...mandate,
  payees: [...mandate.payees],
});

/** Signs by owner and agent and opens. */
export async function open(
  context: Core,
  overrides: Partial<Mandate> = {},
  agent: Wallet | HDNodeWallet = freshKey(),
): Promise<{ agent: Wallet | HDNodeWallet; mandate: Mandate }> {
  const mandate = await draft(context, agent.address, overrides);
  await fund(context, mandate.budget);
  await context.registry.open(
    solidity(mandate),
    await signMandate(owner, context.domain, mandate),
    await signMandate(agent, context.domain, mandate),
  );
  return { agent, mandate };
}

/** A decoded struct by its field names. */
export const fields = (struct: unknown): Record<string, unknown> => (struct as Result).toObject();
