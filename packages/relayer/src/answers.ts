import {
  BursarError,
  hashCredits,
  offsetOf,
  rowWords,
  type Address,
  type Hex,
  type SignedPayment,
} from "@bursar/protocol";
import { inclusionSize, showLine, type CircuitSize, type InclusionStatement, type Proof } from "@bursar/prover";
import { AbiCoder, keccak256 } from "ethers";

import type { Chain } from "./chain.ts";
import type { Outbox } from "./outbox.ts";
import type { SettledBatch } from "./settler.ts";
import type { Store } from "./store.ts";

export interface InclusionProver {
  /** Opens a circuit's files, and says what names its key on chain. @throws BursarError `key-missing`, `key-corrupt` */
  ready(size: CircuitSize): Promise<Hex>;
  proveInclusion(size: CircuitSize, statement: InclusionStatement): Promise<Omit<Proof, "signals">>;
}

/** A challenge as its event tells it. */
export interface ChallengeOnChain {
  readonly id: Hex;
  readonly agent: Address;
  readonly seq: bigint;
  /** Unix seconds. */
  readonly answerableUntil: bigint;
  readonly block: number;
}

export interface AnswersOptions {
  readonly store: Store;
  readonly chain: Chain;
  readonly outbox: Outbox;
  readonly prover: Pick<InclusionProver, "proveInclusion">;
  readonly settler: { settled(id: number): SettledBatch };
  /** The mandates' processor. */
  readonly processor: Address;
  /** Told once of each challenge that could not be answered, though it is tried again: the bond is at stake. */
  readonly failed: (challenge: { id: Hex; agent: Address; seq: bigint }, error: Error) => void;
}

/** The last final block, and its time in Unix seconds. */
interface Moment {
  readonly final: number;
  readonly time: bigint;
}

/** The block up to which every challenge has its end. */
const CHALLENGES = "challenges";

/**
 * Answers challenges of what was settled, each with a proof that the challenged line is in it. A challenge is kept until
 * it has its end on chain, in final blocks; what goes wrong with one holds up no other and is tried again. The block from
 * which challenges are read at the next start never passes one that is open, so that a crash forgets none.
 */
export class Answers {
  readonly #options: AnswersOptions;
  readonly #open = new Map<Hex, ChallengeOnChain>();
  readonly #told = new Set<Hex>();
  /** Last block whose challenges are known; null before the first batch. */
  #seen: number | null = null;

  constructor(options: AnswersOptions) {
    this.#options = options;
  }

  /**
   * @returns the challenges that were answered.
   * @throws {@link BursarError} `chain-unavailable`: run it again later.
   */
  async run(): Promise<Hex[]> {
    const moment = await this.#look();
    if (!moment) return [];
    const told = ({ id }: ChallengeOnChain): number => Number(this.#told.has(id));
    const urgent = [...this.#open.values()].sort(
      (a, b) => told(a) - told(b) || Number(a.answerableUntil - b.answerableUntil),
    );
    const ends = await Promise.all(urgent.slice(0, AT_ONCE).map((challenge) => this.#end(challenge, moment)));
    this.#keepPlace();
    const error = ends.find((end) => end instanceof Error);
    if (error) throw error;
    return urgent.filter((_, i) => ends[i] === "answered").map(({ id }) => id);
  }

  /** Reads challenges up to the last final block. @returns it and its time, or null before the first batch. */
  async #look(): Promise<Moment | null> {
    const { chain, store, processor } = this.#options;
    this.#seen ??= store.cursor(CHALLENGES) ?? firstSettled(store);
    while (this.#seen !== null) {
      const from = Math.max(0, this.#seen + 1 - REREAD);
      const { upTo, final, time, opened } = await chain.challenged(processor, from);
      for (const challenge of opened) this.#open.set(challenge.id, challenge);
      this.#seen = Math.max(this.#seen, upTo);
      if (this.#seen >= final) return { final, time };
    }
    return null;
  }

  /** @returns why the chain could not be asked, or null for what is over or told of. */
  async #end(challenge: ChallengeOnChain, { final, time }: Moment): Promise<Error | "answered" | null> {
    const { id, answerableUntil } = challenge;
    try {
      if (!(await this.#options.chain.isChallengeOpen(id, final))) return this.#forget(id);
      if (time > answerableUntil) {
        this.#tell(challenge, new BursarError("transaction-failed", "The challenge was not answered in time."));
        return this.#forget(id);
      }
      await this.#deliver(challenge);
      this.#forget(id);
      return "answered";
    } catch (error) {
      if (error instanceof BursarError && error.code === "chain-unavailable") return error;
      return this.#explain(challenge, error as Error);
    }
  }

  /** Somebody else's answer is as good: only what is still open is told of. */
  async #explain(challenge: ChallengeOnChain, error: Error): Promise<Error | null> {
    try {
      if (await this.#options.chain.isChallengeOpen(challenge.id, "latest")) this.#tell(challenge, error);
      return null;
    } catch (unavailable) {
      return unavailable as Error;
    }
  }

  #tell({ id, agent, seq }: ChallengeOnChain, error: Error): void {
    if (this.#told.has(id)) return;
    this.#told.add(id);
    this.#options.failed({ id, agent, seq }, error);
  }

  #forget(id: Hex): null {
    this.#open.delete(id);
    return null;
  }

  #keepPlace(): void {
    const { store } = this.#options;
    const place = Math.min(this.#seen ?? 0, ...[...this.#open.values()].map(({ block }) => block - 1));
    if (place !== store.cursor(CHALLENGES)) store.transact(() => store.setCursor(CHALLENGES, place));
  }

  /** A transaction that was mined and reverted is spent: the answer goes out again in another one. */
  async #deliver(challenge: ChallengeOnChain): Promise<void> {
    const { chain, outbox } = this.#options;
    const data = await this.#call(challenge);
    for (let attempt = 1; ; ++attempt) {
      const job = `answer:${challenge.id}${attempt === 1 ? "" : `:${attempt}`}`;
      try {
        await outbox.deliver(job, { to: chain.rail.challenges, data });
        return;
      } catch (error) {
        const spent = error instanceof BursarError && error.code === "transaction-failed" && (await outbox.begun(job));
        if (!spent || attempt === ATTEMPTS) throw error;
      }
    }
  }

  async #call({ id, agent, seq }: ChallengeOnChain): Promise<string> {
    const { store, settler, prover } = this.#options;
    const payment = store.payment(agent, seq);
    if (!payment || claimId(agent, payment.payment) !== id || payment.batch === null) throw behind(id, agent, seq);
    const { circuit, parts, statement } = settler.settled(payment.batch);
    const row = parts.findIndex((part) => part.agent === agent);
    const part = parts[row];
    const batchId = await this.#batchOnChain(payment.batch);
    if (!part || batchId === null) throw behind(id, agent, seq);
    const index = Number(seq - 1n - (part.seq - offsetOf(part.seq)));
    const { circuitId, proof } = await prover.proveInclusion(
      inclusionSize(circuit.size),
      showLine(inclusionSize(circuit.size), part, index),
    );
    const settled = {
      batchId,
      circuitId: circuit.circuitId,
      commitment: statement.commitment,
      rowWords: rowWords(statement.rows),
      creditsHash: hashCredits(statement.credits),
      row,
    };
    const { spent, head, line } = payment.payment;
    const challenged = { agent, seq, spent, head, line, settleBy: 0n, logIndex: 0n, ...UNREAD };
    const { interface: abi } = this.#options.chain.challenges;
    return abi.encodeFunctionData("answer", [challenged, settled, circuitId, proof as never]);
  }

  /** The number under which the chain keeps a batch; null if no transaction settled it. */
  async #batchOnChain(id: number): Promise<bigint | null> {
    const { store, chain } = this.#options;
    const batchId = await chain.batchSettledBy((await store.transactions(`batch:${id}`)).map(({ hash }) => hash));
    if (batchId === null && store.batch(id)?.state === "settled") {
      throw new BursarError(
        "chain-unavailable",
        `The node does not tell which transaction settled batch ${id}.`,
        { value: id },
        "Ask a node that keeps the receipts of old transactions.",
      );
    }
    return batchId;
  }
}

/** Nothing is challenged before it is settled. */
function firstSettled(store: Store): number | null {
  const blocks = store.batches(["settled"]).flatMap(({ block }) => block ?? []);
  return blocks.length === 0 ? null : Math.min(...blocks) - 1;
}

function behind(id: Hex, agent: Address, seq: bigint): BursarError {
  return new BursarError(
    "books-behind",
    `The books know no settled payment ${seq} of ${agent} as it is challenged.`,
    { value: id },
    "Restore the books that gave its receipt before the challenge ends.",
  );
}

/** Names a receipted payment in claims and challenges: keccak256 of what both of its signatures are about. */
export function claimId(agent: Address, { seq, head, line }: SignedPayment["payment"]): Hex {
  return keccak256(
    AbiCoder.defaultAbiCoder().encode(
      ["address", "uint64", "bytes32", "address", "uint40", "bytes32"],
      [agent, seq, head, line.payee, line.amount, line.ref],
    ),
  ) as Hex;
}

/** What an answer repeats of a challenge without its being read. */
const UNREAD = { agentSignature: "0x", processorSignature: "0x", payees: [] };
/** Blocks that are read again: a reorganisation may bring a challenge into one that had none. */
const REREAD = 64;
/** Transactions that are tried for one answer. */
const ATTEMPTS = 3;
/** Answers under way: their transactions go out one after another, and await their confirmations together. */
const AT_ONCE = 32;
