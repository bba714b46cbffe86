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
  proveInclusion(size: CircuitSize, statement: InclusionStatement): Promise<Omit<Proof, "signals">>;
}

export interface AnswersOptions {
  readonly store: Store;
  readonly chain: Chain;
  readonly outbox: Outbox;
  readonly prover: InclusionProver;
  readonly settler: { settled(id: number): SettledBatch };
  /** The mandates' processor. */
  readonly processor: Address;
  /** Told of a challenge that cannot be answered: the bond is at stake. */
  readonly failed: (challenge: { id: Hex; agent: Address; seq: bigint }, error: Error) => void;
}

/** How far challenges have been looked at. */
const CHALLENGES = "challenges";

/**
 * Answers challenges of what was settled, each with a proof that the challenged line is in it. The place in the chain is
 * moved on only when every challenge up to it has an answer, so that a crash forgets none.
 */
export class Answers {
  readonly #options: AnswersOptions;
  readonly #given = new Set<Hex>();

  constructor(options: AnswersOptions) {
    this.#options = options;
  }

  /** @throws {@link BursarError} `chain-unavailable`, `key-*`: run it again later. */
  async run(): Promise<void> {
    const { chain, store, processor } = this.#options;
    const { challenges } = chain;
    const from = store.cursor(CHALLENGES) ?? 0;
    const upTo = Math.min(await chain.finalBlock(), from + LOG_RANGE);
    const opened = await challenges.queryFilter(
      challenges.filters.ChallengeOpened(undefined, undefined, processor),
      from,
      upTo,
    );
    for (const { args } of opened) {
      await this.#answer({ id: args.id as Hex, agent: args.agent as Address, seq: args.seq });
    }
    if (upTo !== from) store.transact(() => store.setCursor(CHALLENGES, upTo));
  }

  async #answer(challenge: { id: Hex; agent: Address; seq: bigint }): Promise<void> {
    const { chain, outbox, failed } = this.#options;
    const { id } = challenge;
    const job = `answer:${id}`;
    if (this.#given.has(id)) return;
    const { status } = await chain.challenges.challengeOf(id);
    if (status !== OPEN && !outbox.begun(job)) return;
    try {
      await outbox.deliver(job, { to: chain.rail.challenges, data: await this.#call(challenge) });
    } catch (error) {
      if (!(error instanceof BursarError) || !FINAL.has(error.code)) throw error;
      failed(challenge, error);
    }
    this.#given.add(id);
  }

  async #call({ id, agent, seq }: { id: Hex; agent: Address; seq: bigint }): Promise<string> {
    const { store, chain, settler, prover } = this.#options;
    const payment = store.payment(agent, seq);
    if (!payment || claimId(agent, payment.payment) !== id || payment.batch === null) {
      throw new BursarError(
        "books-behind",
        `The books know no settled payment ${seq} of ${agent} as it is challenged.`,
        {
          value: id,
        },
      );
    }
    const { circuit, parts, statement } = settler.settled(payment.batch);
    const row = parts.findIndex((part) => part.agent === agent);
    const part = parts[row];
    if (!part) throw new Error(`batch ${payment.batch} has no row of ${agent}`);
    const index = Number(seq - 1n - (part.seq - offsetOf(part.seq)));
    const { circuitId, proof } = await prover.proveInclusion(
      inclusionSize(circuit.size),
      showLine(inclusionSize(circuit.size), part, index),
    );
    const settled = {
      batchId: await this.#batchOnChain(agent, seq),
      circuitId: circuit.circuitId,
      commitment: statement.commitment,
      rowWords: rowWords(statement.rows),
      creditsHash: hashCredits(statement.credits),
      row,
    };
    const { spent, head, line } = payment.payment;
    const challenged = { agent, seq, spent, head, line, settleBy: 0n, logIndex: 0n, ...UNREAD };
    return chain.challenges.interface.encodeFunctionData("answer", [challenged, settled, circuitId, proof as never]);
  }

  /** The number under which the chain keeps the batch that settled a payment. */
  async #batchOnChain(agent: Address, seq: bigint): Promise<bigint> {
    const { settlementContract } = this.#options.chain;
    const events = await settlementContract.queryFilter(settlementContract.filters.MandateSettled(agent));
    const event = events.find(({ args }) => args.seq >= seq);
    if (!event)
      throw new BursarError("chain-unavailable", `The node does not tell who settled payment ${seq} of ${agent}.`);
    return event.args.batchId;
  }
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
/** `IChallenges.Status.Open`. */
const OPEN = 1n;
const LOG_RANGE = 5_000;
/** After these no later try would succeed. */
const FINAL: ReadonlySet<string> = new Set(["transaction-failed", "books-behind", "proof-invalid"]);
