import type { Address, Hex } from "@bursar/protocol";
import { AbiCoder, id, toBeHex, Wallet, ZeroAddress, type ContractTransaction } from "ethers";

import {
  BatchSettlement__factory,
  BondedArbiter__factory,
  Challenges__factory,
  Claims__factory,
  DirectSettlement__factory,
  Disputes__factory,
  Escrow__factory,
  MandateRegistry__factory,
  MoodyGate__factory,
  ProcessorRegistry__factory,
  Reader__factory,
  StubInclusionVerifier__factory,
  StubVerifier__factory,
  TestUSD__factory,
  Trust__factory,
  type BatchSettlement,
  type BondedArbiter,
  type Challenges,
  type Disputes,
  type MoodyGate,
  type Reader,
} from "../../../typechain-types/index.ts";
import { connection, deployer, ethers, owner, payee, processor, stranger, other, type Core } from "../fixture.ts";
import type { Account } from "../post-bond.ts";
import { deployBursar } from "../whole-rail.ts";

export const BATCH_CIRCUIT = id("stub batch") as Hex;
export const INCLUSION_CIRCUIT = id("stub inclusion") as Hex;
export const FEE = 1_000n;
export const STAKE = 5_000n;
export const DEADLINES = { deliver: 3_600n, answer: 172_800n, escalate: 86_400n, rule: 1_209_600n };
export const RULE_WITHIN = 604_800n;

const more = (await ethers.getSigners()).slice(7) as unknown as Account[];

/** Who calls. The last is nobody's friend, and has no right to anything but what everyone may do. */
export const owners: readonly [Account, Account] = [owner, more[0]!];
export const operators: readonly [Account, Account] = [processor, more[1]!];
export const arbiters: readonly [Account, Account] = [more[2]!, more[3]!];
export const payees: readonly [Account, Account] = [payee, other];
export { deployer, stranger };

/** The n-th key of a kind: the same in every run, so that a seed is all that a failure needs. */
export const keyOf = (kind: string, n: number): Wallet => new Wallet(id(`bursar invariants ${kind} ${n}`));

/** Every contract as a deployment makes it, but for two verifiers that believe the test, and a gate with moods. */
export interface World extends Core {
  settlement: BatchSettlement;
  challenges: Challenges;
  disputes: Disputes;
  arbiter: BondedArbiter;
  gate: MoodyGate;
  reader: Reader;
  addresses: {
    escrow: Address;
    claims: Address;
    challenges: Address;
    disputes: Address;
    arbiter: Address;
    settlement: Address;
  };
}

export async function deployWorld(): Promise<World> {
  const gate = await new MoodyGate__factory(deployer).deploy();
  const batch = await new StubVerifier__factory(deployer).deploy(BATCH_CIRCUIT);
  const inclusion = await new StubInclusionVerifier__factory(deployer).deploy(INCLUSION_CIRCUIT);
  const bursar = await deployBursar(
    [await batch.getAddress()],
    [await inclusion.getAddress()],
    (await gate.getAddress()) as Address,
  );
  const trust = Trust__factory.connect(await bursar.trust(), deployer);
  const registry = MandateRegistry__factory.connect(await bursar.registry(), deployer);
  const escrow = Escrow__factory.connect(await bursar.escrow(), deployer);
  const settlement = BatchSettlement__factory.connect(await bursar.settlement(), deployer);
  const claims = Claims__factory.connect(await trust.claims(), deployer);
  const challenges = Challenges__factory.connect(await trust.challenges(), deployer);
  const dollar = await new TestUSD__factory(deployer).deploy();
  const arbiter = await new BondedArbiter__factory(deployer).deploy(
    arbiters.map(({ address }) => address),
    FEE,
    STAKE,
    RULE_WITHIN,
  );
  const rotation = AbiCoder.defaultAbiCoder().encode(["address"], [ZeroAddress]);
  const disputes = await new Disputes__factory(deployer).deploy(registry, arbiter, rotation, DEADLINES);
  const token = (await dollar.getAddress()) as Address;
  await escrow.registerToken(token);
  for (const account of [...owners, ...operators, stranger]) {
    await dollar.mint(account.address, 10n ** 15n);
    await dollar.connect(account).approve(escrow, 10n ** 15n);
    await dollar.connect(account).approve(challenges, 10n ** 15n);
  }
  const { chainId } = await ethers.provider.getNetwork();
  return {
    escrow,
    registry,
    direct: DirectSettlement__factory.connect(await bursar.direct(), deployer),
    processors: ProcessorRegistry__factory.connect(await trust.processors(), deployer),
    claims,
    challenges,
    settlement,
    disputes,
    arbiter,
    gate,
    dollar,
    token,
    reader: await new Reader__factory(deployer).deploy(),
    domain: { chainId, registry: (await registry.getAddress()) as Address },
    addresses: {
      escrow: (await escrow.getAddress()) as Address,
      claims: (await claims.getAddress()) as Address,
      challenges: (await challenges.getAddress()) as Address,
      disputes: (await disputes.getAddress()) as Address,
      arbiter: (await arbiter.getAddress()) as Address,
      settlement: (await settlement.getAddress()) as Address,
    },
  };
}

/** Below what one transaction may burn on any chain. */
const GAS = toBeHex(16_000_000);

/** The chain's clock, which goes where the test puts it: each call happens in a second that the test chose. */
export class Clock {
  /** Of the block that the next {@link send} makes. */
  time = 0n;

  async start(): Promise<void> {
    const block = await ethers.provider.getBlock("latest");
    this.time = BigInt(block!.timestamp) + 1n;
  }

  /** Sends one call from this account. @returns whether it went through; anything but a revert is an error. */
  async send(from: string, call: Promise<ContractTransaction>, value = 0n): Promise<boolean> {
    const { to, data } = await call;
    await connection.provider.request({ method: "evm_setNextBlockTimestamp", params: [Number(this.time)] });
    this.time += 1n;
    try {
      const transaction = { from, to, data, value: `0x${value.toString(16)}`, gas: GAS };
      const sent: unknown = await connection.provider.request({ method: "eth_sendTransaction", params: [transaction] });
      this.last = String(sent);
      return true;
    } catch (error) {
      this.failure = String(error);
      if (/revert/i.test(this.failure)) return false;
      throw error;
    }
  }

  /** Hash of the last call that went through. */
  last = "";
  /** Why the last refused call was refused. */
  failure = "";

  async wait(seconds: bigint): Promise<void> {
    this.time += seconds;
    await connection.provider.request({ method: "evm_setNextBlockTimestamp", params: [Number(this.time)] });
    await connection.provider.request({ method: "evm_mine", params: [] });
    this.time += 1n;
  }
}
