import { BursarError, type Address, type Hex } from "@bursar/protocol";
import { type Interface, type JsonRpcApiProvider, type Provider } from "ethers";

import {
  BatchSettlement__factory,
  DirectSettlement__factory,
  BondedArbiter__factory,
  Disputes__factory,
  Escrow__factory,
  Challenges__factory,
  Claims__factory,
  IIdentityGate__factory,
  MandateRegistry__factory,
  OpenGate__factory,
  ProcessorRegistry__factory,
  type BatchSettlement,
  type BondedArbiter,
  type Challenges,
  type Claims,
  type DirectSettlement,
  type Disputes,
  type Escrow,
  type MandateRegistry,
  type ProcessorRegistry,
} from "../../../typechain-types/index.ts";
import type { ChallengeOnChain } from "./answers.ts";
import type { Rail } from "./deployment.ts";
import { readMarket } from "./fees.ts";
import type { DirectCall, DirectGateway } from "./direct.ts";
import { finalBlockOf, type Finality } from "./finality.ts";
import type { MandateOnChain, MandateReader, RevocationOnChain } from "./processor.ts";
import type { DirectKind } from "./records.ts";
import type { SettleCall, SettlementGateway } from "./settler.ts";
import { isUnreachable, unavailable } from "./unreachable.ts";

export const MANDATE_STATES = ["none", "open", "revoked", "expired", "closed", "fallback"] as const;

/** The contracts of one deployment, as the processor and the CLI use them. */
export class Chain implements MandateReader, SettlementGateway, DirectGateway {
  readonly rail: Rail;
  readonly provider: Provider;
  readonly escrow: Escrow;
  readonly registry: MandateRegistry;
  readonly settlementContract: BatchSettlement;
  readonly directContract: DirectSettlement;
  readonly processors: ProcessorRegistry;
  readonly claims: Claims;
  readonly challenges: Challenges;
  readonly #disputes: Disputes | undefined;
  readonly #arbiter: BondedArbiter | undefined;
  readonly finality: Finality;

  /** @param finality - when something counts as final: a number of blocks, its own included, or a tag of the nodes. */
  constructor(rail: Rail, provider: Provider, finality: Finality = 1) {
    this.rail = rail;
    this.finality = finality;
    this.provider = provider;
    this.escrow = Escrow__factory.connect(rail.escrow, provider);
    this.registry = MandateRegistry__factory.connect(rail.registry, provider);
    this.settlementContract = BatchSettlement__factory.connect(rail.settlement, provider);
    this.directContract = DirectSettlement__factory.connect(rail.direct, provider);
    this.processors = ProcessorRegistry__factory.connect(rail.processors, provider);
    this.claims = Claims__factory.connect(rail.claims, provider);
    this.challenges = Challenges__factory.connect(rail.challenges, provider);
    if (rail.disputes !== undefined) this.#disputes = Disputes__factory.connect(rail.disputes, provider);
    if (rail.arbiter !== undefined) this.#arbiter = BondedArbiter__factory.connect(rail.arbiter, provider);
  }

  /** @throws BursarError `wrong-chain` where payments cannot be disputed. */
  get disputes(): Disputes {
    return this.#disputes ?? undisputable(this.rail.chainId);
  }

  /** @throws BursarError `wrong-chain` where payments cannot be disputed. */
  get arbiter(): BondedArbiter {
    return this.#arbiter ?? undisputable(this.rail.chainId);
  }

  /** Bursar's own contracts: they cannot collect a credit. */
  get contracts(): Address[] {
    const { escrow, registry, settlement, direct, processors, claims, challenges, disputes, arbiter } = this.rail;
    const core = [escrow, registry, settlement, direct, processors, claims, challenges];
    return [...core, ...[disputes, arbiter].filter((address) => address !== undefined)];
  }

  get direct(): Address {
    return this.rail.direct;
  }

  get settlement(): Address {
    return this.rail.settlement;
  }

  /** The mandate as of the last final block. */
  async mandate(agent: Address): Promise<MandateOnChain> {
    const blockTag = await this.finalBlock();
    const record = await reach(() => this.registry.mandateOf(agent, { blockTag }));
    const scale = record.state === 0n ? 1n : await reach(() => this.escrow.unitScale(record.token));
    return {
      state: MANDATE_STATES[Number(record.state)] ?? "none",
      owner: record.owner as Address,
      token: record.token as Address,
      processor: record.processor as Address,
      budget: record.budget,
      paymentCap: record.paymentCap,
      validUntil: record.validUntil,
      policyRoot: record.policyRoot as Hex,
      payeesHash: record.payeesHash as Hex,
      termsHash: record.termsHash as Hex,
      unitScale: scale,
      base: record.base,
      seq: record.seq,
      spent: record.spent,
      directSpent: record.directSpent,
      revokedAt: record.revokedAt === 0n ? null : record.revokedAt,
      closesAt: record.closesAt,
    };
  }

  /** The newest block that is final. @throws {@link BursarError} `chain-unavailable` */
  finalBlock(): Promise<number> {
    return reach(() => finalBlockOf(this.provider, this.finality));
  }

  /** The time spans that the deployment promises, in seconds. */
  async windows(): Promise<{ settleBy: bigint; grace: bigint }> {
    const { settleBy, grace } = await reach(() => this.registry.windows());
    return { settleBy, grace };
  }

  /** At most {@link LOG_RANGE} blocks at a time: nodes answer no more. */
  async revocations(fromBlock: number): Promise<{ upTo: number; time: bigint; revoked: RevocationOnChain[] }> {
    const upTo = Math.min(await this.finalBlock(), fromBlock + LOG_RANGE);
    const { filters } = this.registry;
    const [revocations, fallbacks] = await reach(() =>
      Promise.all([
        this.registry.queryFilter(filters.MandateRevoked(), fromBlock, upTo),
        this.registry.queryFilter(filters.FallbackStarted(), fromBlock, upTo),
      ]),
    );
    const revoked = [...revocations, ...fallbacks].map(async (event) => ({
      agent: event.args.agent as Address,
      at: BigInt((await reach(() => event.getBlock())).timestamp),
      closesAt: event.args.closesAt,
    }));
    const block = await reach(() => this.provider.getBlock(upTo));
    return { upTo, time: BigInt(block?.timestamp ?? 0), revoked: await Promise.all(revoked) };
  }

  /** Challenges of what a processor settled, of at most {@link LOG_RANGE} blocks that are final. */
  async challenged(
    processor: Address,
    fromBlock: number,
  ): Promise<{ upTo: number; final: number; time: bigint; opened: ChallengeOnChain[] }> {
    const final = await this.finalBlock();
    const upTo = Math.min(final, fromBlock + LOG_RANGE - 1);
    const filter = this.challenges.filters.ChallengeOpened(undefined, undefined, processor);
    const events = upTo < fromBlock ? [] : await reach(() => this.challenges.queryFilter(filter, fromBlock, upTo));
    const opened = events.map(({ args, blockNumber }) => ({
      id: args.id as Hex,
      agent: args.agent as Address,
      seq: args.seq,
      answerableUntil: args.answerableUntil,
      block: blockNumber,
    }));
    const block = await reach(() => this.provider.getBlock(final));
    return { upTo, final, time: BigInt(block?.timestamp ?? 0), opened };
  }

  /** Whether a challenge still waits for its answer, as of a block. */
  async isChallengeOpen(id: Hex, blockTag: number | "latest"): Promise<boolean> {
    const { status } = await reach(() => this.challenges.challengeOf(id, { blockTag }));
    return status === CHALLENGE_OPEN;
  }

  /** The number under which the chain keeps the batch that one of these transactions settled, or null. */
  async batchSettledBy(transactions: readonly Hex[]): Promise<bigint | null> {
    const { interface: abi } = this.settlementContract;
    for (const hash of transactions) {
      const receipt = await reach(() => this.provider.getTransactionReceipt(hash));
      for (const log of receipt?.logs ?? []) {
        if (log.address !== this.rail.settlement) continue;
        const event = abi.parseLog(log);
        if (event?.name === "BatchSettled") return event.args["batchId"] as bigint;
      }
    }
    return null;
  }

  /** The identity gate that has to be asked about payees; null where it is the one that lets everyone in. */
  async gate(): Promise<Address | null> {
    const address = (await reach(() => this.registry.gate())) as Address;
    const code = await reach(() => this.provider.getCode(address));
    return code !== "0x" && OpenGate__factory.bytecode.endsWith(code.slice(2)) ? null : address;
  }

  /** Whether a gate lets `payee` be paid, asked with the contracts' gas: anything but a plain yes is a no. */
  async mayBePaid(gate: Address, payee: Address, token: Address): Promise<boolean> {
    const data = IIdentityGate__factory.createInterface().encodeFunctionData("mayBePaid", [payee, token]);
    try {
      const answer = await reach(() => this.provider.call({ to: gate, data, gasLimit: GATE_GAS }));
      return answer.length >= 66 && BigInt(answer.slice(0, 66)) === 1n;
    } catch (error) {
      if (error instanceof BursarError) throw error;
      return false;
    }
  }

  async checkRows(rows: SettleCall["rows"], credits: SettleCall["credits"], from: Address): Promise<string | null> {
    const data = this.registry.interface.encodeFunctionData("settle", [
      from,
      rows.map(solidityRow),
      credits.map((credit) => ({ ...credit })),
    ]);
    try {
      await reach(() => this.provider.call({ from: this.settlement, to: this.rail.registry, data }));
      return null;
    } catch (error) {
      if (error instanceof BursarError) throw error;
      return this.explain(error);
    }
  }

  encode(call: SettleCall): Hex {
    return this.settlementContract.interface.encodeFunctionData("settle", [
      call.circuitId,
      call.rows.map(solidityRow),
      call.credits.map((credit) => ({ ...credit })),
      call.commitment,
      call.evaluation,
      call.proof as never,
    ]) as Hex;
  }

  encodeDirect(kind: DirectKind, calls: readonly DirectCall[]): Hex {
    const { interface: abi } = this.directContract;
    if (kind === "exact") {
      const transfers = calls.map(({ agent, payee, amount, unitScale, payees, ...signed }) => ({
        from: agent,
        to: payee,
        value: amount * unitScale,
        validAfter: signed.validAfter,
        validBefore: signed.validBefore,
        nonce: signed.nonce,
        signature: signed.signature,
        payees: [...payees],
      }));
      return abi.encodeFunctionData("transferWithAuthorizations", [transfers]) as Hex;
    }
    const debits = calls.map(({ agent, token, payee, amount, unitScale, payees, ...signed }) => ({
      owner: agent,
      token,
      payee,
      amount: amount * unitScale,
      nonce: BigInt(signed.nonce),
      deadline: signed.validBefore - 1n,
      ref: signed.ref,
      signature: signed.signature,
      payees: [...payees],
    }));
    return abi.encodeFunctionData("debit", [debits]) as Hex;
  }

  async simulate(to: Address, calldata: Hex, from: Address): Promise<void> {
    try {
      await reach(() => this.provider.call({ from, to, data: calldata }));
    } catch (error) {
      if (error instanceof BursarError) throw error;
      const reason = this.explain(error);
      throw new BursarError("transaction-failed", `The contract refuses: ${reason}`, { value: reason });
    }
  }

  /** The contract's own error with its arguments, or the client's message. */
  explain(error: unknown): string {
    const data = revertData(error);
    if (data !== undefined) {
      const { settlementContract, directContract, registry, processors, claims, challenges, escrow } = this;
      const core = [settlementContract, directContract, registry, processors, claims, challenges, escrow];
      for (const contract of [...core, this.#disputes, this.#arbiter]) {
        const parsed = (contract?.interface as Interface | undefined)?.parseError(data);
        if (parsed) return `${parsed.name}(${parsed.args.map(String).join(", ")})`;
      }
    }
    return (error as { shortMessage?: string }).shortMessage ?? (error as Error).message;
  }
}

/** `IChallenges.Status.Open`. */
const CHALLENGE_OPEN = 1n;

function undisputable(chainId: bigint): never {
  throw new BursarError(
    "wrong-chain",
    `No disputes are deployed on this chain ${chainId}.`,
    { value: chainId },
    "Name arbiters in BURSAR_ARBITERS and run `bursar deploy`.",
  );
}

/** What the contracts give a gate, and what a call costs besides. */
const GATE_GAS = 225_000n;

/** Blocks of logs that a node is asked for at once. */
const LOG_RANGE = 5_000;

function solidityRow({ agent, count, debit, head, newBase, lineHash, signature }: SettleCall["rows"][number]) {
  return {
    agent,
    count,
    debit,
    head,
    newBase,
    lineHash,
    r: signature.slice(0, 66),
    s: `0x${signature.slice(66, 130)}`,
    v: Number(`0x${signature.slice(130)}`),
  };
}

/** @throws {@link BursarError} `chain-unavailable` when no answer comes. */
export async function reach<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw isUnreachable(error) ? unavailable(error) : error;
  }
}

/** Wei for a unit of gas, as a transaction would pay in the next block. */
export async function gasPriceOf(provider: JsonRpcApiProvider): Promise<bigint> {
  const { baseFee, priority } = await readMarket(provider);
  return baseFee + priority;
}

function revertData(error: unknown): string | undefined {
  const { data, info } = error as { data?: unknown; info?: { error?: { data?: unknown } } };
  const found = data ?? info?.error?.data;
  return typeof found === "string" && found.length >= 10 ? found : undefined;
}
