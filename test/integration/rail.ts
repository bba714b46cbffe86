import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import {
  AgentLedger,
  headHex,
  policyRoot,
  signMandate,
  signPayment,
  termsHash,
  type Address,
  type Domain,
  type Hex,
  type Mandate,
  type SignedPayment,
  type SignedReceipt,
  type Terms,
} from "@bursar/protocol";
import { Prover } from "@bursar/prover";
import {
  availableCircuits,
  Chain,
  DirectSettler,
  Outbox,
  postBond,
  Processor,
  railOf,
  receiptKey,
  register,
  Settler,
  Store,
  type Circuit,
  type SettlerOptions,
} from "@bursar/relayer";
import {
  hexlify,
  id,
  NonceManager,
  parseEther,
  randomBytes,
  Wallet,
  ZeroHash,
  type JsonRpcProvider,
  type Signer,
} from "ethers";

import { deploy, settingsOf } from "../../deploy/index.ts";
import { storeUrl } from "../relayer/databases.ts";
import { LocalNode } from "../../scripts/demo/node.ts";
import { TestUSD__factory, type TestUSD } from "../../typechain-types/index.ts";

export const OPEN_TERMS: Terms = { version: 1, purpose: "anything a test buys", categories: [], hosts: [] };

/** Where an agent's payments go. */
export interface Counter {
  readonly domain: Domain;
  readonly processor: Processor;
}

/** An agent with its mandate, paying in process. */
export class PayingAgent {
  readonly wallet: Wallet;
  readonly ledger: AgentLedger;
  readonly #counter: Counter;

  constructor(counter: Counter, wallet: Wallet) {
    this.#counter = counter;
    this.wallet = wallet;
    this.ledger = new AgentLedger({ domain: counter.domain, agent: this.address, secret: id(wallet.address) as Hex });
  }

  get address(): Address {
    return this.wallet.address as Address;
  }

  /** The next payment, signed and not yet sent. */
  async sign(payee: Address, amount: bigint, ref: Hex = ZeroHash as Hex): Promise<SignedPayment> {
    const { payment, salt } = this.ledger.draft({ payee, amount, ref });
    return {
      agent: this.address,
      payment,
      signature: await signPayment(this.wallet, this.#counter.domain, payment),
      salt,
    };
  }

  async pay(payee: Address, amount: bigint, ref?: Hex): Promise<SignedReceipt> {
    const signed = await this.sign(payee, amount, ref);
    try {
      const receipt = await this.#counter.processor.accept(signed);
      this.ledger.commit();
      return receipt;
    } catch (error) {
      this.ledger.discard();
      throw error;
    }
  }
}

/** Registers a processor and bonds it with test dollars, or another token that anyone can mint. */
export async function postTestBond(
  chain: Chain,
  wallet: Wallet,
  token: Address = chain.rail.tokens["tUSD"]!,
  units = 1_000_000_000_000n,
): Promise<void> {
  const signer = new NonceManager(wallet);
  const processor = wallet.address as Address;
  await register(chain, signer, "https://processor.test");
  await (await chain.escrow.connect(signer).registerToken(token)).wait();
  const amount = units * (await chain.escrow.unitScale(token));
  await (await TestUSD__factory.connect(token, signer).mint(processor, amount)).wait();
  await postBond(chain, signer, { processor, token, units });
}

/** A whole rail on a local chain of its own: real contracts, real store, real proofs. */
export class TestRail {
  readonly folder: string;
  readonly node: LocalNode;
  readonly provider: JsonRpcProvider;
  readonly chain: Chain;
  readonly domain: Domain;
  readonly token: Address;
  readonly dollar: TestUSD;
  readonly owner: NonceManager;
  readonly processorKey: Wallet;
  readonly store: Store;
  readonly processor: Processor;
  readonly prover = new Prover();
  readonly outbox: Outbox;
  readonly settler: Settler;
  readonly direct: DirectSettler;
  readonly ownerAddress: Address;
  readonly circuits: Circuit[];
  /** Seconds that the processor's clock is ahead. */
  skew = 0n;

  private constructor(
    node: LocalNode,
    provider: JsonRpcProvider,
    chain: Chain,
    store: Store,
    folder: string,
    owner: NonceManager,
    ownerAddress: Address,
    processorKey: Wallet,
    options: Partial<SettlerOptions>,
    maxSkew: bigint | null,
  ) {
    this.node = node;
    this.provider = provider;
    this.chain = chain;
    this.domain = { chainId: chain.rail.chainId, registry: chain.rail.registry };
    this.token = chain.rail.tokens["tUSD"]!;
    this.owner = owner;
    this.ownerAddress = ownerAddress;
    this.processorKey = processorKey;
    this.dollar = TestUSD__factory.connect(this.token, owner);
    this.store = store;
    this.folder = folder;
    this.circuits = availableCircuits(chain.rail.circuits);
    const { domain, prover } = this;
    const sender = processorKey.address as Address;
    this.processor = new Processor({
      domain,
      store,
      chain,
      key: receiptKey(processorKey),
      settleWithin: 3_600n,
      impossible: chain.contracts,
      maxSkew,
      now: () => this.now(),
    });
    this.outbox = new Outbox({
      store,
      provider,
      signer: processorKey,
      finality: 1,
      replaceAfter: 60n,
      pollInterval: 20,
      now: () => this.now(),
      sleep: (ms) => new Promise((done) => setTimeout(done, ms)),
    });
    this.direct = new DirectSettler({ store, gateway: chain, outbox: this.outbox, sender });
    this.settler = new Settler({
      domain,
      store,
      circuits: this.circuits,
      gateway: chain,
      prover,
      outbox: this.outbox,
      sender,
      now: () => this.now(),
      ...options,
    });
  }

  /**
   * @param maxSkew - of the processor; a local chain with many blocks runs ahead of the clock.
   * @param gateOf - deploys the identity gate, instead of the one that lets everyone in.
   */
  static async start(
    options: Partial<SettlerOptions> = {},
    maxSkew: bigint | null = null,
    gateOf?: (deployer: Signer) => Promise<Address>,
  ): Promise<TestRail> {
    const node = await LocalNode.start();
    const provider = node.provider();
    const folder = mkdtempSync(join(tmpdir(), "bursar-deployment-"));
    const deployer = new NonceManager(await provider.getSigner(0));
    const settings = { ...settingsOf(31_337n, {}), verifiers: ["TinyBatchVerifier", "DefaultBatchVerifier"] };
    const deployment = await deploy(deployer, provider, {
      settings: gateOf ? { ...settings, gate: await gateOf(deployer) } : settings,
      folder,
    });
    rmSync(folder, { recursive: true });
    const owner = new NonceManager(await provider.getSigner(1));
    const processorKey = new Wallet(hexlify(randomBytes(32)), provider);
    await (await owner.sendTransaction({ to: processorKey.address, value: parseEther("10") })).wait();
    const chain = new Chain(railOf(deployment, 31_337n, deployment.genesis), provider);
    await postTestBond(chain, processorKey);
    const home = mkdtempSync(join(tmpdir(), "bursar-test-"));
    const store = await Store.open(await storeUrl(join(home, "processor.db")), { now: () => rail.now() });
    const rail: TestRail = new TestRail(
      node,
      provider,
      chain,
      store,
      home,
      owner,
      (await owner.getAddress()) as Address,
      processorKey,
      options,
      maxSkew,
    );
    return rail;
  }

  now(): bigint {
    return BigInt(Math.floor(Date.now() / 1_000)) + this.skew;
  }

  async stop(): Promise<void> {
    this.prover.close();
    await this.store.close();
    this.provider.destroy();
    this.node.stop();
    rmSync(this.folder, { recursive: true });
  }

  /** Puts `units` of a mintable token into the owner's free balance. */
  async fund(units: bigint, token: Address = this.token): Promise<void> {
    const { escrow } = this.chain;
    await (await escrow.connect(this.owner).registerToken(token)).wait();
    const amount = units * (await escrow.unitScale(token));
    const erc20 = TestUSD__factory.connect(token, this.owner);
    await (await erc20.mint(this.ownerAddress, amount)).wait();
    await (await erc20.approve(this.chain.rail.escrow, amount)).wait();
    await (await escrow.connect(this.owner).deposit(token, amount, this.ownerAddress)).wait();
  }

  draft(agent: Address, overrides: Partial<Mandate> = {}, terms: Terms = OPEN_TERMS): Mandate {
    const { payees = [], paymentCap = 1_000n } = overrides;
    return {
      owner: this.ownerAddress,
      agent,
      token: this.token,
      budget: 100_000n,
      validUntil: this.now() + 86_400n,
      processor: this.processorKey.address as Address,
      policyRoot: headHex(policyRoot(payees, paymentCap)),
      termsHash: termsHash(terms),
      ...overrides,
      payees,
      paymentCap,
    };
  }

  /** Funds, signs, opens and registers a mandate for a fresh agent. */
  async open(overrides: Partial<Mandate> = {}, terms: Terms = OPEN_TERMS): Promise<PayingAgent> {
    const agent = new PayingAgent(this, new Wallet(hexlify(randomBytes(32))));
    const mandate = this.draft(agent.address, overrides, terms);
    await this.fund(mandate.budget, mandate.token);
    const signatures = await Promise.all(
      [this.owner, agent.wallet].map((signer) => signMandate(signer, this.domain, mandate)),
    );
    const registry = this.chain.registry.connect(this.owner);
    await (await registry.open({ ...mandate, payees: [...mandate.payees] }, signatures[0]!, signatures[1]!)).wait();
    await this.processor.register(mandate, terms);
    return agent;
  }

  /** An address that nobody has paid before. */
  payee(): Address {
    return Wallet.createRandom().address as Address;
  }
}
