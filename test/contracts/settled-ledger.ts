import {
  AgentLedger,
  allowList,
  challenge,
  hashCredits,
  hashLine,
  offsetOf,
  rowWords,
  signPayment,
  transcript,
  type Address,
  type Draft,
  type Hex,
  type Mandate,
} from "@bursar/protocol";
import { buildCircuit, circuitIdOf, circuitSize, inclusionSize, layOut, Prover, showLine } from "@bursar/prover";
import type { BatchRow } from "@bursar/prover";
import { id, Signature, ZeroHash, type HDNodeWallet, type Wallet } from "ethers";

import type { BatchSettlement } from "../../typechain-types/index.ts";
import type { Core } from "./fixture.ts";
import { receipted, type PaymentDraft, type ReceiptedPayment } from "./receipted.ts";

export const TINY = circuitSize("tiny");
export const TINY_INCLUSION = inclusionSize(TINY);

/** What one payment is to pay; the reference is zero unless given. */
export interface Paid {
  readonly payee: Address;
  readonly amount: bigint;
  readonly ref?: Hex;
}

/** A ledger of a mandate's agent. Two of one agent are a fork. */
export class Book {
  readonly agent: Wallet | HDNodeWallet;
  readonly mandate: Mandate;
  readonly drafts: Draft[] = [];
  readonly #ledger: AgentLedger;

  constructor(
    { domain }: Core,
    { agent, mandate }: { agent: Wallet | HDNodeWallet; mandate: Mandate },
    secret = "own",
  ) {
    this.agent = agent;
    this.mandate = mandate;
    this.#ledger = new AgentLedger({ domain, agent: this.address, secret: id(secret) as Hex });
  }

  get address(): Address {
    return this.agent.address as Address;
  }

  /** @returns itself with these lines appended. */
  pay(...lines: readonly Paid[]): this {
    for (const line of lines) this.drafts.push(this.#ledger.append({ ref: ZeroHash as Hex, ...line }));
    return this;
  }

  /** Payment number `seq` with both signatures. */
  receipt(context: Core, seq: number, overrides: PaymentDraft = {}): Promise<ReceiptedPayment> {
    const { spent, head, line } = this.drafts[seq - 1]!.payment;
    const payment = { seq: BigInt(seq), spent, head, ...line, payees: [...this.mandate.payees] };
    return receipted(context, this.agent, { ...payment, ...overrides });
  }

  /** What a batch from the chain's position takes of it. */
  part({ base, seq }: { base: bigint; seq: bigint }): BatchRow {
    const drafts = this.drafts.slice(Number(seq - offsetOf(seq)));
    return {
      agent: this.address,
      base,
      seq,
      allow: allowList(this.mandate.payees),
      paymentCap: this.mandate.paymentCap,
      salts: drafts.filter((_, i) => i % 7 === 0).map(({ salt }) => salt),
      lines: drafts.map(({ payment }) => payment.line),
    };
  }
}

/** A batch as it stands on chain, and what an answer needs of it. */
export interface Batch {
  readonly parts: readonly BatchRow[];
  readonly settled: SettledRow;
}

export interface SettledRow {
  batchId: bigint;
  circuitId: Hex;
  commitment: bigint;
  rowWords: bigint[];
  creditsHash: Hex;
  row: number;
}

/** Proves what the chain has not settled of these books; `send` settles it, whenever that is. */
export async function prove(
  context: Core,
  settlement: BatchSettlement,
  prover: Prover,
  books: readonly Book[],
): Promise<{ parts: BatchRow[]; send: () => Promise<Batch> }> {
  const sorted = [...books].sort((a, b) => (BigInt(a.address) < BigInt(b.address) ? -1 : 1));
  const positions = await Promise.all(sorted.map(({ address }) => context.registry.positionOf(address)));
  const parts = sorted.map((book, i) => book.part(positions[i]!));
  const { rows, credits, commitment, input } = layOut(TINY, parts);
  const circuitId = circuitIdOf((await buildCircuit(TINY)).verificationKey);
  const place = { chainId: context.domain.chainId, settlement: (await settlement.getAddress()) as Address, circuitId };
  const z = challenge(transcript({ ...place, commitment, rows, credits }));
  const { proof, signals } = await prover.prove(TINY, { commitment, input }, z);
  const signed = rows.map(async (row, i) => {
    const { payment } = sorted[i]!.drafts.at(-1)!;
    const { r, s, v } = Signature.from(await signPayment(sorted[i]!.agent, context.domain, payment));
    return { ...row, lineHash: hashLine(payment.line), r, s, v };
  });
  const call = [
    circuitId,
    await Promise.all(signed),
    credits.map((credit) => ({ ...credit })),
    commitment,
    signals.T,
    [...proof],
  ] as const;
  const send = async (): Promise<Batch> => {
    await settlement.settle(...(call as unknown as Parameters<typeof settlement.settle>));
    const batchId = await settlement.batchCount();
    const creditsHash = hashCredits(credits);
    return { parts, settled: { batchId, circuitId, commitment, rowWords: rowWords(rows), creditsHash, row: 0 } };
  };
  return { parts, send };
}

/** An answer by a batch: what `Challenges.answer` takes after the payment. */
export type Answer = [settled: SettledRow, inclusionCircuit: Hex, proof: bigint[]];

/** Shows by a real proof that payment `seq` of the agent is in the batch. */
export async function show(
  prover: Prover,
  { parts, settled }: Batch,
  agent: string,
  seq: bigint | number,
): Promise<Answer> {
  const row = parts.findIndex((part) => part.agent === agent);
  const part = parts[row]!;
  const index = Number(BigInt(seq) - 1n - (part.seq - offsetOf(part.seq)));
  const { circuitId, proof } = await prover.proveInclusion(TINY_INCLUSION, showLine(TINY_INCLUSION, part, index));
  return [{ ...settled, row }, circuitId, [...proof]];
}
