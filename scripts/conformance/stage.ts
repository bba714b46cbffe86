import {
  headHex,
  policyRoot,
  signMandate,
  signPayment,
  signReceipt,
  type Address,
  type Domain,
  type Hex,
  type Mandate,
  type Payment,
  type Receipt,
} from "@bursar/protocol";
import { hashLine } from "@bursar/protocol";
import { Signature, ZeroHash } from "ethers";

import {
  Escrow__factory,
  MandateRegistry__factory,
  OpenGate__factory,
  ProcessorRegistry__factory,
  TestUSD__factory,
  type Escrow,
  type MandateRegistry,
  type ProcessorRegistry,
} from "../../typechain-types/index.ts";
import { randomAddress, type Bench, type Person } from "./bench.ts";

/** A payment with both its signatures. */
export interface SignedPurchase {
  readonly payment: Payment;
  readonly receipt: Receipt;
  readonly agentSignature: Hex;
  readonly processorSignature: Hex;
}

/** A mandate that is open on the stage. */
export interface Actor {
  readonly agent: Person;
  readonly mandate: Mandate;
}

const BUDGET = 1_000_000n;
const CAP = 10_000n;
const BOND = 10n ** 15n;
const DAY = 86_400n;

/**
 * A token, a bonded processor and an owner with money, all new, before the contracts that stand on a local chain: what a
 * suite needs to see payments come by. The registry's gate lets everyone in meanwhile.
 */
export class Stage {
  readonly bench: Bench;
  readonly registry: MandateRegistry;
  readonly escrow: Escrow;
  readonly processors: ProcessorRegistry;
  readonly domain: Domain;
  readonly token: Address;
  readonly owner: Person;
  readonly processor: Person;

  private constructor(
    bench: Bench,
    contracts: { registry: MandateRegistry; escrow: Escrow; processors: ProcessorRegistry },
    domain: Domain,
    token: Address,
    people: { owner: Person; processor: Person },
  ) {
    this.bench = bench;
    ({ registry: this.registry, escrow: this.escrow, processors: this.processors } = contracts);
    this.domain = domain;
    this.token = token;
    ({ owner: this.owner, processor: this.processor } = people);
  }

  static async set(bench: Bench, at: Address): Promise<Stage> {
    const { provider } = bench;
    const registry = MandateRegistry__factory.connect(at, provider);
    const escrow = Escrow__factory.connect(await registry.escrow(), provider);
    const processors = ProcessorRegistry__factory.connect(await registry.processors(), provider);
    const builder = await bench.person();
    const open = await deployed(new OpenGate__factory(builder.sender).deploy());
    await provider.send("hardhat_setCode", [await registry.gate(), await provider.getCode(open)]);

    const token = await deployed(new TestUSD__factory(builder.sender).deploy());
    const people = { owner: await bench.person(), processor: await bench.person() };
    const stage = new Stage(
      bench,
      { registry, escrow, processors },
      { chainId: bench.chainId, registry: at },
      token,
      people,
    );
    const { processor, owner } = people;
    await processors.connect(processor.sender).register(processor.address, "https://processor.test");
    await stage.deposit(processor, BOND, (await processors.bondAccountOf(processor.address)) as Address);
    await stage.deposit(owner, 100n * BUDGET, owner.address);
    return stage;
  }

  async deposit({ sender, address }: Person, amount: bigint, beneficiary: Address): Promise<void> {
    const dollar = TestUSD__factory.connect(this.token, sender);
    await dollar.mint(address, amount);
    await dollar.approve(this.escrow, amount);
    await this.escrow.connect(sender).deposit(this.token, amount, beneficiary);
  }

  /** Opens a mandate for a fresh agent. */
  async open(): Promise<Actor> {
    const agent = await this.bench.person();
    const mandate: Mandate = {
      owner: this.owner.address,
      agent: agent.address,
      token: this.token,
      budget: BUDGET,
      paymentCap: CAP,
      validUntil: (await this.bench.time()) + 30n * DAY,
      processor: this.processor.address,
      payees: [],
      policyRoot: headHex(policyRoot([], CAP)),
      termsHash: ZeroHash as Hex,
    };
    await this.registry
      .connect(this.owner.sender)
      .open(
        { ...mandate, payees: [] },
        await signMandate(this.owner.key, this.domain, mandate),
        await signMandate(agent.key, this.domain, mandate),
      );
    return { agent, mandate };
  }

  /** The agent's next payment and its receipt, as {@link settle} settles it. */
  async sign({ agent }: Actor, payee: Address, amount: bigint, ref = ZeroHash as Hex): Promise<SignedPurchase> {
    const { seq, spent, base } = await this.registry.positionOf(agent.address);
    const { settleBy } = await this.registry.windows();
    const line = { payee, amount, ref };
    const payment: Payment = { seq: seq + 1n, spent: spent + amount, head: headHex(base + 1n), line };
    const receipt: Receipt = {
      agent: agent.address,
      seq: payment.seq,
      ...line,
      head: payment.head,
      settleBy: (await this.bench.time()) + settleBy,
      logIndex: 0n,
    };
    return {
      payment,
      receipt,
      agentSignature: await signPayment(agent.key, this.domain, payment),
      processorSignature: await signReceipt(this.processor.key, this.domain, receipt),
    };
  }

  /** Settles one payment in the settlement contract's name: its proof is no matter here. */
  async settle({ payment, receipt, agentSignature }: SignedPurchase): Promise<void> {
    const { r, s, v } = Signature.from(agentSignature);
    const { payee, amount } = payment.line;
    const head = BigInt(payment.head);
    const row = {
      agent: receipt.agent,
      count: 1n,
      debit: amount,
      head,
      newBase: head,
      lineHash: hashLine(payment.line),
      r,
      s,
      v,
    };
    const settlement = await this.bench.as((await this.registry.settlement()) as Address);
    await this.registry.connect(settlement).settle(this.processor.address, [row], [{ payee, amount }]);
  }

  /** Signs and settles. */
  async pay(from: Actor, payee = randomAddress(), amount = 1_000n, ref?: Hex): Promise<SignedPurchase> {
    const purchase = await this.sign(from, payee, amount, ref);
    await this.settle(purchase);
    return purchase;
  }

  creditOf(account: Address): Promise<bigint> {
    return this.escrow.creditOf(this.token, account);
  }
}

async function deployed(
  contract: Promise<{ getAddress(): Promise<string>; waitForDeployment(): Promise<unknown> }>,
): Promise<Address> {
  const made = await contract;
  await made.waitForDeployment();
  return (await made.getAddress()) as Address;
}
