import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import {
  AgentLedger,
  allowList,
  challenge,
  hashLine,
  headHex,
  policyRoot,
  signMandate,
  signPayment,
  transcript,
  type Address,
  type Hex,
  type Mandate,
} from "@bursar/protocol";
import { layOut, type CircuitSize, type Prover } from "@bursar/prover";
import { Chain, postBond, railOf, register } from "@bursar/relayer";
import { id, NonceManager, parseEther, Wallet, ZeroHash, type JsonRpcProvider, type TransactionReceipt } from "ethers";

import { deploy, settingsOf } from "../../deploy/index.ts";
import { TestUSD__factory, type TestUSD } from "../../typechain-types/index.ts";
import { LocalNode } from "../demo/node.ts";

const CAP = 1_000n;

interface Spender {
  wallet: Wallet;
  secret: Hex;
  ledger: AgentLedger;
}

/** What one mandate pays in a batch. */
export interface Spending {
  /** Its place among the rail's mandates, which are in the order of their agents. */
  readonly mandate: number;
  readonly payments: readonly { readonly payee: Address; readonly amount: bigint }[];
}

/** A transaction that was mined. */
export interface Sent {
  readonly gas: bigint;
  /** Its calldata. */
  readonly data: string;
}

/** A local chain with open mandates, to measure what settling costs there. */
export class BenchRail {
  readonly provider: JsonRpcProvider;
  readonly chain: Chain;
  readonly dollar: TestUSD;
  readonly owner: NonceManager;
  readonly ownerAddress: Address;
  readonly token: Address;
  readonly processor: Wallet;
  openGas = 0n;
  depositGas = 0n;
  readonly #node: LocalNode;
  readonly #spenders: Spender[] = [];

  private constructor(
    node: LocalNode,
    provider: JsonRpcProvider,
    chain: Chain,
    owner: NonceManager,
    ownerAddress: Address,
    processor: Wallet,
  ) {
    this.#node = node;
    this.provider = provider;
    this.chain = chain;
    this.owner = owner;
    this.ownerAddress = ownerAddress;
    this.processor = processor;
    this.token = chain.rail.tokens["tUSD"]!;
    this.dollar = TestUSD__factory.connect(this.token, owner);
  }

  static async start(mandates: number): Promise<BenchRail> {
    const node = await LocalNode.start();
    const provider = node.provider();
    const folder = mkdtempSync(join(tmpdir(), "bursar-bench-"));
    const deployment = await deploy(new NonceManager(await provider.getSigner(0)), provider, {
      settings: settingsOf(31_337n, {}),
      folder,
    });
    rmSync(folder, { recursive: true });
    const chain = new Chain(railOf(deployment, 31_337n, deployment.genesis), provider);
    const owner = new NonceManager(await provider.getSigner(1));
    const processor = new Wallet(id("bench.processor"), provider);
    await (await owner.sendTransaction({ to: processor.address, value: parseEther("100") })).wait();
    const rail = new BenchRail(node, provider, chain, owner, (await owner.getAddress()) as Address, processor);
    const budget = 10_000_000n;
    await mined(rail.dollar.mint(rail.ownerAddress, budget * BigInt(mandates + 1)));
    await mined(rail.dollar.approve(chain.rail.escrow, 2n ** 200n));
    const deposit = () =>
      chain.escrow.connect(owner).deposit(rail.token, (budget * BigInt(mandates)) / 2n, rail.ownerAddress);
    await mined(deposit());
    rail.depositGas = (await mined(deposit())).gasUsed;
    await register(chain, processor, "http://127.0.0.1");
    const bond = 10_000_000_000n;
    await mined(rail.dollar.mint(processor.address, bond));
    await postBond(chain, processor, { processor: processor.address as Address, token: rail.token, units: bond });
    for (let i = 0; i < mandates; ++i) await rail.#open(i, budget);
    return rail;
  }

  stop(): void {
    this.provider.destroy();
    this.#node.stop();
  }

  async #open(index: number, budget: bigint): Promise<void> {
    const wallet = new Wallet(id(`bench.agent.${index}`));
    const domain = { chainId: 31_337n, registry: this.chain.rail.registry };
    const agent = wallet.address as Address;
    const mandate: Mandate = {
      owner: this.ownerAddress,
      agent,
      token: this.token,
      budget,
      paymentCap: CAP,
      validUntil: BigInt(Math.floor(Date.now() / 1_000)) + 86_400n,
      processor: this.processor.address as Address,
      payees: [],
      policyRoot: headHex(policyRoot([], CAP)),
      termsHash: ZeroHash as Hex,
    };
    const signatures = await Promise.all([this.owner, wallet].map((signer) => signMandate(signer, domain, mandate)));
    const opened = await mined(
      this.chain.registry.connect(this.owner).open({ ...mandate, payees: [] }, signatures[0]!, signatures[1]!),
    );
    this.openGas = opened.gasUsed;
    const secret = id(agent) as Hex;
    this.#spenders.push({ wallet, secret, ledger: new AgentLedger({ domain, agent, secret }) });
    this.#spenders.sort((a, b) => (BigInt(a.wallet.address) < BigInt(b.wallet.address) ? -1 : 1));
  }

  /** Settles `lines` payments of each of `rows` mandates to `payees` in turn, for real. @returns gas used. */
  async settle(
    prover: Prover,
    size: CircuitSize,
    rows: number,
    lines: number,
    payees: readonly Address[],
  ): Promise<bigint> {
    const spendings = Array.from({ length: rows }, (_, mandate) => ({
      mandate,
      payments: Array.from({ length: lines }, (_, i) => ({
        payee: payees[(mandate * lines + i) % payees.length]!,
        amount: BigInt(1 + (i % 900)),
      })),
    }));
    return (await this.settlePayments(prover, size, spendings)).gas;
  }

  /** Settles these payments, mandates in order, in one batch. */
  async settlePayments(prover: Prover, size: CircuitSize, spendings: readonly Spending[]): Promise<Sent> {
    const domain = { chainId: 31_337n, registry: this.chain.rail.registry };
    const parts = await Promise.all(
      spendings.map(async ({ mandate, payments }) => {
        const { wallet, ledger } = this.#spenders[mandate]!;
        const { base, seq, lines } = ledger.state;
        const drafts = payments.map((line) => ledger.append({ ...line, ref: ZeroHash as Hex }));
        const { payment } = drafts.at(-1)!;
        return {
          row: {
            agent: wallet.address as Address,
            base: BigInt(base),
            seq,
            allow: allowList([]),
            paymentCap: CAP,
            salts: drafts.filter(({ page }, i) => page !== drafts[i - 1]?.page).map(({ salt }) => salt),
            lines: [...lines, ...drafts.map((draft) => draft.payment.line)],
          },
          lineHash: hashLine(payment.line),
          signature: await signPayment(wallet, domain, payment),
        };
      }),
    );
    const statement = layOut(
      size,
      parts.map(({ row }) => row),
    );
    const { commitment, credits } = statement;
    const circuitId = this.chain.rail.circuits[size.name]!;
    const settlement = this.chain.settlement;
    const bound = transcript({ chainId: 31_337n, settlement, circuitId, commitment, rows: statement.rows, credits });
    const { proof, signals } = await prover.prove(size, statement, challenge(bound));
    const data = this.chain.encode({
      circuitId,
      rows: statement.rows.map((row, i) => ({ ...row, lineHash: parts[i]!.lineHash, signature: parts[i]!.signature })),
      credits,
      commitment,
      evaluation: signals.T,
      proof,
    });
    return { gas: (await mined(this.processor.sendTransaction({ to: settlement, data }))).gasUsed, data };
  }

  /** Does `work`, then puts the chain and the ledgers back to where they stood. */
  async rehearse<T>(work: () => Promise<T>): Promise<T> {
    const snapshot: unknown = await this.provider.send("evm_snapshot", []);
    const states = this.#spenders.map(({ ledger }) => ledger.state);
    const done = await work();
    await this.provider.send("evm_revert", [snapshot]);
    this.owner.reset();
    const domain = { chainId: 31_337n, registry: this.chain.rail.registry };
    this.#spenders.forEach((spender, i) => {
      const agent = spender.wallet.address as Address;
      spender.ledger = new AgentLedger({ domain, agent, secret: spender.secret, state: states[i]! });
    });
    return done;
  }
}

/** The receipt of a transaction that must succeed. */
export async function mined(
  sent: Promise<{ wait(): Promise<TransactionReceipt | null> }>,
): Promise<TransactionReceipt> {
  const receipt = await (await sent).wait();
  if (receipt?.status !== 1) throw new Error("a transaction of the benchmark failed");
  return receipt;
}
