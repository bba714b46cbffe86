import { setTimeout } from "node:timers/promises";

import {
  BursarError,
  composeMandate,
  describeMandate,
  formatAmount,
  hashMandate,
  hashRevocation,
  payeesHash,
  verifySignature,
  type Address,
  type Clause,
  type Domain,
  type ErrorCode,
  type Hex,
  type Intent,
  type Mandate,
  type Revocation,
  type Terms,
} from "@bursar/protocol";
import type { TransactionReceipt, TransactionRequest } from "ethers";

import { bondShortage } from "./bonding.ts";
import { reach, type Chain } from "./chain.ts";
import { IntentBook, type IntentRecord, type SignedRevocation } from "./intent-book.ts";
import { keySigned, ownerSigned } from "./owner-signature.ts";
import type { MandateOnChain, MandateStatus, Processor } from "./processor.ts";

export * from "./intent-book.ts";

/**
 * Sends a transaction of the processor's key for a job, once however often it is asked, and resolves when it is final.
 * Throws {@link BursarError} `transaction-failed` when it reverts.
 */
export type Deliver = (job: string, request: TransactionRequest) => Promise<TransactionReceipt>;

/**
 * `drafted`: the agent has not signed. `awaiting-signature`: the owner has not. `opening`: the owner's signature is
 * recorded and the chain does not show the mandate yet. The others follow from the chain.
 */
export type IntentState = "drafted" | "awaiting-signature" | "opening" | MandateStatus["state"];

/** What an intent says, and how far it has come. Amounts in units, times in Unix seconds. */
export interface IntentView {
  readonly agent: Address;
  readonly state: IntentState;
  readonly mandate: Mandate;
  readonly terms: Terms;
  readonly clauses: readonly Clause[];
  /** Symbol of the token; empty if it has none here. */
  readonly symbol: string;
  /** Where the owner reads and signs. */
  readonly signUrl: string;
  /** When it is forgotten unless the owner signs; null once it is signed. */
  readonly expiresAt: bigint | null;
  /** What must still happen before the mandate is open. */
  readonly missing: {
    readonly agentSignature: boolean;
    readonly ownerSignature: boolean;
    /** What the owner's free balance lacks of the budget. */
    readonly funds: bigint;
  };
  /** The owner's free balance; null once it no longer matters. */
  readonly free: bigint | null;
  /** The mandate that this one takes the place of. */
  readonly replaces: {
    readonly agent: Address;
    readonly state: MandateStatus["state"];
    readonly remaining: bigint;
    /** What the owner may sign to end it on chain too. */
    readonly revocation: Revocation;
    readonly revocationSigned: boolean;
  } | null;
  /** Why the last thing that was tried did not succeed. */
  readonly failure: string | null;
}

/** What an agent asks for. */
export interface IntentRequest {
  readonly intent: Intent;
  readonly mandate: Mandate;
  readonly agentSignature?: Hex | undefined;
}

/** What the owner answers. */
export interface OwnerAnswer {
  readonly ownerSignature: Hex;
  /** The owner's over the `Revocation` of the mandate that is replaced. */
  readonly revocationSignature?: Hex | undefined;
  /** Of that revocation; the payments accepted so far unless given. */
  readonly afterSeq?: bigint | undefined;
}

export interface IntentsOptions {
  readonly domain: Domain;
  readonly book: IntentBook;
  readonly processor: Processor;
  readonly chain: Chain;
  readonly deliver: Deliver;
  /** Where this API stands, such as `https://pay.example`; signing links are relative unless given. */
  readonly publicUrl?: string;
  /** Seconds after which an intent without the owner's signature is forgotten; an hour unless given. */
  readonly lifetime?: bigint;
  /** Most that wait at once for one owner; 20 unless given. */
  readonly perOwner?: number;
  /** Most that wait at once in all; 10,000 unless given. */
  readonly inAll?: number;
  /** Milliseconds that an answer waits for the chain; 20,000 unless given. */
  readonly patience?: number;
  readonly sleep?: (milliseconds: number) => Promise<unknown>;
  /** Unix seconds. */
  readonly now: () => bigint;
}

/** Seconds that an agent's clock may differ from this one. */
const CLOCK_SLACK = 300n;
/** Nothing is decided: the same will be tried again. */
const UNDECIDED: readonly ErrorCode[] = ["chain-unavailable", "opening-pending"];
const UNSIGNED: readonly IntentState[] = ["drafted", "awaiting-signature"];

/**
 * From an agent's draft to an open mandate: the agent asks, the owner reads and signs once, and the processor opens the
 * mandate with its own key. An owner's signature is on disk before anything is sent; {@link resume} goes on wherever a
 * crash or a chain that was down has left it.
 */
export class Intents {
  readonly #options: Required<Omit<IntentsOptions, "book">> & Pick<IntentsOptions, "book">;
  readonly #underway = new Map<Address, Promise<void>>();

  constructor(options: IntentsOptions) {
    this.#options = {
      publicUrl: "",
      lifetime: 3_600n,
      perOwner: 20,
      inAll: 10_000,
      patience: 20_000,
      sleep: (milliseconds) => setTimeout(milliseconds, undefined, { ref: false }),
      ...options,
    };
  }

  /**
   * Takes down what an agent asks for. Repeating it changes nothing, but a missing agent's signature may be added.
   * @throws {@link BursarError} `intent-mismatch`, `policy-mismatch`, `terms-mismatch` when the mandate does not say what
   * the intent says; `wrong-processor`, `wrong-token`; `signature-*` unless the agent signed; `intent-conflict` for
   * another intent of the same agent; `mandate-conflict` when the agent's address is used; `mandate-unknown` or
   * `forbidden` for a mandate that cannot be replaced; `too-many-requests`; `chain-unavailable`.
   */
  async draft({ intent, mandate, agentSignature }: IntentRequest): Promise<IntentView> {
    const { book, domain, now } = this.#options;
    const { agent } = mandate;
    const terms = await this.#agreedTerms(intent, mandate);
    const digest = hashMandate(domain, mandate);
    if (agentSignature !== undefined) verifySignature(digest, agentSignature, agent);
    if ((await this.#find(agent)) === undefined) {
      const drafted = mandate.validUntil - intent.duration;
      if (absolute(drafted - now()) > CLOCK_SLACK) {
        throw new BursarError(
          "intent-mismatch",
          `The mandate ends ${mandate.validUntil - now()} s from now; the intent says ${intent.duration} s.`,
          { value: drafted, limit: now() },
          "Compose the mandate with the present time, and check the clock.",
        );
      }
      await this.#state({ mandate, digest, agentSignature: null, ownerSignature: null });
    }
    await book.drafting(async () => {
      const known = await this.#find(agent);
      if (known === undefined) {
        await this.#makeRoom(mandate.owner);
        await book.add({ mandate, terms, digest, agentSignature: agentSignature ?? null, at: now() });
      } else if (known.digest !== digest) {
        throw new BursarError(
          "intent-conflict",
          `Another intent of ${agent} is known.`,
          { value: digest, limit: known.digest },
          "An agent's key serves one mandate: take a fresh key.",
        );
      } else if (agentSignature !== undefined && known.agentSignature === null) {
        await book.addAgentSignature(agent, agentSignature, now());
      }
    });
    return this.view(agent);
  }

  /** @throws {@link BursarError} `not-found`; `mandate-conflict`; `chain-unavailable`. */
  async view(agent: Address): Promise<IntentView> {
    const { chain, lifetime, publicUrl } = this.#options;
    const intent = await this.#expect(agent);
    const { mandate, terms } = intent;
    const state = await this.#state(intent);
    const unsigned = UNSIGNED.includes(state);
    const free = unsigned || state === "opening" ? await this.#free(mandate) : null;
    const [symbol = ""] = Object.entries(chain.rail.tokens).find(([, token]) => token === mandate.token) ?? [];
    return {
      agent,
      state,
      mandate,
      terms,
      clauses: describeMandate(mandate, terms, symbol),
      symbol,
      signUrl: `${publicUrl.replace(/\/$/, "")}/intents/${agent}/sign`,
      expiresAt: unsigned ? intent.at + lifetime : null,
      missing: {
        agentSignature: state === "drafted",
        ownerSignature: unsigned,
        funds: free === null || free >= mandate.budget ? 0n : mandate.budget - free,
      },
      free,
      replaces: await this.#replaced(intent),
      failure: intent.failure,
    };
  }

  /** Those in the book, newest first, as {@link view} shows them. */
  async list(): Promise<IntentView[]> {
    await this.#prune();
    return Promise.all((await this.#options.book.list()).map(({ mandate }) => this.view(mandate.agent)));
  }

  /**
   * Takes the owner's signature, opens the mandate on chain and takes it up. The signature is recorded before anything is
   * sent, and repeating it changes nothing. That somebody else has opened the same mandate is no error.
   * @throws {@link BursarError} `not-found`; `intent-not-signable`; `signature-*` unless the owner stands behind it, by
   * its key or its ERC-1271 contract; `funds-missing`, in which case nothing is recorded; `transaction-failed` when the
   * contract refuses, and the owner may sign again; `chain-unavailable` or `opening-pending` when the signature is
   * recorded and the mandate opens later, see {@link resume}.
   */
  async sign(agent: Address, answer: OwnerAnswer): Promise<IntentView> {
    const { book, patience, sleep } = this.#options;
    const intent = await this.#expect(agent);
    if (intent.agentSignature === null) throw notSignable(agent, "drafted", "The agent signs it first.");
    const revocation = await this.#askedRevocation(intent, answer);
    const checked = await this.#check(intent, answer.ownerSignature, revocation);
    await book.sign(agent, checked.ownerSignature, checked.revocation);
    const finished = this.#finish(agent);
    finished.catch(() => undefined);
    const inTime = await Promise.race([finished.then(() => true), sleep(patience).then(() => false)]).catch(
      (error: unknown) => {
        throw recorded(agent, error);
      },
    );
    if (!inTime) throw pending(agent, "the transaction is not final");
    return this.view(agent);
  }

  /**
   * Brings every recorded signature to its end; to be run at start and from time to time.
   * @returns what became of each: null, or why it is not open. With `chain-unavailable` or `opening-pending` it is tried
   * again the next time.
   */
  async resume(): Promise<{ agent: Address; failure: unknown }[]> {
    await this.#prune();
    return Promise.all(
      (await this.#options.book.unfinished()).map(({ mandate: { agent } }) =>
        this.#finish(agent).then(
          () => ({ agent, failure: null }),
          (failure: unknown) => ({ agent, failure }),
        ),
      ),
    );
  }

  /** The terms that the mandate's hash stands for, if the mandate is what the intent asks for. */
  async #agreedTerms(intent: Intent, mandate: Mandate): Promise<Terms> {
    const { processor, chain } = this.#options;
    const { owner, agent, token, validUntil } = mandate;
    const tokens = Object.values(chain.rail.tokens);
    if (mandate.processor !== processor.address) {
      throw new BursarError("wrong-processor", "The mandate names another processor.", {
        value: mandate.processor,
        limit: processor.address,
      });
    }
    if (!tokens.includes(token)) {
      throw new BursarError("wrong-token", `The processor does not settle ${token}.`, {
        value: token,
        limit: tokens.join(" "),
      });
    }
    if (validUntil < intent.duration) {
      throw new BursarError("intent-mismatch", "The mandate ends before it could have begun.", {
        value: validUntil,
        limit: intent.duration,
      });
    }
    const now = validUntil - intent.duration;
    const asked = composeMandate(intent, { owner, agent, token, processor: processor.address, now });
    for (const [field, code] of AGREEMENT) {
      const [value, limit] = [String(mandate[field]), String(asked.mandate[field])];
      if (value === limit) continue;
      throw new BursarError(code, `The mandate's ${field} is not what the intent says.`, { field, value, limit });
    }
    if (asked.terms.replaces !== undefined) await this.#expectReplaceable(asked.terms.replaces, owner);
    return asked.terms;
  }

  async #expectReplaceable(old: Address, owner: Address): Promise<void> {
    const before = await this.#options.processor.status(old);
    if (before.mandate.owner === owner) return;
    throw new BursarError("forbidden", "A mandate can only take the place of one of the same owner.", {
      value: owner,
      limit: before.mandate.owner,
    });
  }

  async #makeRoom(owner: Address): Promise<void> {
    const { book, perOwner, inAll } = this.#options;
    const limits = [
      [await book.waiting(owner), perOwner, `of ${owner}`],
      [await book.waiting(), inAll, "here"],
    ] as const;
    for (const [value, limit, whose] of limits) {
      if (value < limit) continue;
      throw new BursarError(
        "too-many-requests",
        `${value} intents ${whose} wait for a signature.`,
        { value, limit },
        "Sign one, or wait until they are forgotten.",
      );
    }
  }

  async #askedRevocation(intent: IntentRecord, answer: OwnerAnswer): Promise<SignedRevocation | null> {
    const { replaces } = intent.terms;
    const { revocationSignature: signature, afterSeq } = answer;
    if (signature === undefined) return null;
    if (replaces === undefined) {
      throw new BursarError("malformed-input", "There is a revocation, and the mandate replaces no other.", {
        revocationSignature: signature,
      });
    }
    return { signature, afterSeq: afterSeq ?? (await this.#options.processor.tail(replaces)).position.seq };
  }

  /** Checks all that can be checked before the signatures are recorded; without a chain, only who signed. */
  async #check(
    intent: IntentRecord,
    signature: Hex,
    revocation: SignedRevocation | null,
  ): Promise<{ ownerSignature: Hex; revocation: SignedRevocation | null }> {
    try {
      const signed = await this.#signed(intent, signature, revocation, (digest, given) =>
        ownerSigned(this.#options.chain.provider, intent.mandate.owner, digest, given),
      );
      if (intent.ownerSignature === null) await this.#expectOpenable(intent);
      return signed;
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "chain-unavailable") throw error;
      return this.#signed(intent, signature, revocation, (digest, given) => {
        try {
          return Promise.resolve(keySigned(intent.mandate.owner, digest, given));
        } catch {
          throw error;
        }
      });
    }
  }

  async #signed(
    intent: IntentRecord,
    signature: Hex,
    revocation: SignedRevocation | null,
    verify: (digest: Hex, signature: Hex) => Promise<Hex>,
  ): Promise<{ ownerSignature: Hex; revocation: SignedRevocation | null }> {
    const ownerSignature = await verify(intent.digest, signature);
    if (revocation === null) return { ownerSignature, revocation };
    const { afterSeq } = revocation;
    const digest = hashRevocation(this.#options.domain, { agent: intent.terms.replaces!, afterSeq });
    return { ownerSignature, revocation: { afterSeq, signature: await verify(digest, revocation.signature) } };
  }

  async #expectOpenable(intent: IntentRecord): Promise<void> {
    const { mandate } = intent;
    const state = await this.#state(intent);
    if (state === "open") return;
    if (state !== "awaiting-signature") throw notSignable(mandate.agent, state, "Ask the agent for a new intent.");
    const shortage = (await this.#shortage(mandate)) ?? (await reach(() => bondShortage(this.#options.chain, mandate)));
    if (shortage) throw shortage;
  }

  /** One at a time for each agent, however many ask. */
  #finish(agent: Address): Promise<void> {
    const running = this.#underway.get(agent);
    if (running) return running;
    const begun = this.#complete(agent).finally(() => this.#underway.delete(agent));
    this.#underway.set(agent, begun);
    return begun;
  }

  async #complete(agent: Address): Promise<void> {
    const { book, processor, now } = this.#options;
    const intent = await this.#expect(agent);
    if (intent.finished || intent.ownerSignature === null) return;
    try {
      await this.#open(intent);
      await processor.register(intent.mandate, intent.terms);
    } catch (error) {
      if (!(error instanceof BursarError) || UNDECIDED.includes(error.code)) throw error;
      if (await this.#stands(agent)) await book.finish(agent, error.message);
      else await book.unsign(agent, error.message, now());
      throw error;
    }
    await book.finish(agent, await this.#revoke(intent));
  }

  async #open({ mandate, attempt, ownerSignature, agentSignature }: IntentRecord): Promise<void> {
    const { chain, deliver, now } = this.#options;
    const { agent, validUntil } = mandate;
    if ((await chain.mandate(agent)).state !== "none") return;
    if (validUntil <= now()) {
      throw new BursarError("mandate-expired", "The mandate has ended before it was opened.", {
        value: now(),
        limit: validUntil,
      });
    }
    const data = chain.registry.interface.encodeFunctionData("open", [
      { ...mandate, payees: [...mandate.payees] },
      ownerSignature!,
      agentSignature!,
    ]);
    try {
      await deliver(attempt === 1 ? `open:${agent}` : `open:${agent}:${attempt}`, { to: chain.rail.registry, data });
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "transaction-failed") throw error;
      if ((await chain.mandate(agent)).state !== "none") return;
      if (await this.#stands(agent)) throw pending(agent, "another's transaction is not final");
      throw (await this.#shortage(mandate)) ?? this.#explained(error);
    }
  }

  /**
   * Ends the replaced mandate on chain, if the owner signed that: what is left of it comes back early.
   * @returns why it did not succeed; null if it did, or nothing had to be done.
   */
  async #revoke({ mandate, terms, revocation, attempt }: IntentRecord): Promise<string | null> {
    const { chain, deliver } = this.#options;
    const old = terms.replaces;
    if (revocation === null || old === undefined) return null;
    if ((await chain.mandate(old)).state !== "open") return null;
    const data = chain.registry.interface.encodeFunctionData("revokeWithSignature", [
      old,
      revocation.afterSeq,
      revocation.signature,
    ]);
    try {
      await deliver(`revoke:${old}:${mandate.agent}:${attempt}`, { to: chain.rail.registry, data });
    } catch (error) {
      if (!(error instanceof BursarError) || error.code !== "transaction-failed") throw error;
      if ((await chain.mandate(old)).state === "open") {
        return `The mandate of ${old} could not be revoked on chain: ${this.#explained(error).message}`;
      }
    }
    return null;
  }

  /** Where the mandate stands, by the processor's books, then the chain, then the clock and the signatures. */
  async #state(
    intent: Pick<IntentRecord, "mandate" | "digest" | "agentSignature" | "ownerSignature">,
  ): Promise<IntentState> {
    const { chain, domain, now } = this.#options;
    const { mandate, digest, agentSignature, ownerSignature } = intent;
    const registered = await this.#registered(mandate.agent);
    if (registered) {
      if (hashMandate(domain, registered.mandate) !== digest) throw agentUsed(mandate.agent);
      return registered.state;
    }
    const onChain = await chain.mandate(mandate.agent);
    if (onChain.state !== "none") {
      if (!sameMandate(mandate, onChain)) throw agentUsed(mandate.agent);
      // To the agent it is over: only claims on earlier payments go on.
      return onChain.state === "fallback" ? "closed" : onChain.state;
    }
    if (mandate.validUntil <= now()) return "expired";
    if (ownerSignature !== null) return "opening";
    return agentSignature === null ? "drafted" : "awaiting-signature";
  }

  async #registered(agent: Address): Promise<MandateStatus | undefined> {
    try {
      return await this.#options.processor.status(agent);
    } catch (error) {
      if (error instanceof BursarError && error.code === "mandate-unknown") return undefined;
      throw error;
    }
  }

  /** Whether the newest block, final or not, has a mandate of this agent. */
  async #stands(agent: Address): Promise<boolean> {
    return (await reach(() => this.#options.chain.registry.stateOf(agent))) !== 0n;
  }

  /** Whole units of the owner's free balance. */
  async #free({ token, owner }: Mandate): Promise<bigint> {
    const { escrow } = this.#options.chain;
    const [free, scale] = await reach(() => Promise.all([escrow.freeOf(token, owner), escrow.unitScale(token)]));
    return free / scale;
  }

  async #shortage(mandate: Mandate): Promise<BursarError | undefined> {
    const { budget, owner } = mandate;
    const free = await this.#free(mandate);
    if (free >= budget) return undefined;
    const missing = formatAmount(budget - free);
    return new BursarError(
      "funds-missing",
      `${owner} has ${formatAmount(free)} free; the budget is ${formatAmount(budget)}.`,
      { value: free, limit: budget, missing: budget - free },
      `Deposit ${missing} more into the escrow, then sign.`,
    );
  }

  async #replaced({ terms, revocation }: IntentRecord): Promise<IntentView["replaces"]> {
    const { processor } = this.#options;
    const agent = terms.replaces;
    if (agent === undefined) return null;
    const { state, remaining, accepted } = await processor.status(agent);
    const afterSeq = revocation?.afterSeq ?? accepted.seq;
    return { agent, state, remaining, revocation: { agent, afterSeq }, revocationSigned: revocation !== null };
  }

  #explained(error: BursarError): BursarError {
    const value = error.details["value"] ?? "0x";
    const reason = value.length >= 10 ? this.#options.chain.explain({ data: value, message: value }) : error.message;
    return new BursarError("transaction-failed", `The contract refuses: ${reason}`, { value: reason });
  }

  async #find(agent: Address): Promise<IntentRecord | undefined> {
    await this.#prune();
    return this.#options.book.get(agent);
  }

  async #expect(agent: Address): Promise<IntentRecord> {
    const intent = await this.#find(agent);
    if (intent) return intent;
    throw new BursarError(
      "not-found",
      `No intent of ${agent} is known.`,
      { value: agent },
      `An intent is forgotten ${this.#options.lifetime} s after its drafting unless the owner signs: draft it again.`,
    );
  }

  async #prune(): Promise<void> {
    const { book, now, lifetime } = this.#options;
    await book.prune(now() - lifetime);
  }
}

/** What a mandate has to agree with its intent in, and the error where it does not. */
const AGREEMENT = [
  ["budget", "intent-mismatch"],
  ["paymentCap", "intent-mismatch"],
  ["payees", "intent-mismatch"],
  ["policyRoot", "policy-mismatch"],
  ["termsHash", "terms-mismatch"],
] as const;

function sameMandate(mandate: Mandate, onChain: MandateOnChain): boolean {
  const signed = { ...mandate, payeesHash: payeesHash(mandate.payees) };
  const fields = [
    "owner",
    "token",
    "processor",
    "budget",
    "paymentCap",
    "validUntil",
    "policyRoot",
    "termsHash",
  ] as const;
  return fields.every((field) => signed[field] === onChain[field]) && signed.payeesHash === onChain.payeesHash;
}

function agentUsed(agent: Address): BursarError {
  return new BursarError(
    "mandate-conflict",
    `Another mandate uses the agent ${agent}.`,
    { value: agent },
    "An agent's key serves one mandate: take a fresh key.",
  );
}

function notSignable(agent: Address, state: IntentState, advice: string): BursarError {
  return new BursarError(
    "intent-not-signable",
    `The intent of ${agent} is ${state}.`,
    { value: state, limit: "awaiting-signature" },
    advice,
  );
}

function pending(agent: Address, why: string): BursarError {
  return new BursarError(
    "opening-pending",
    `The signature is recorded, and the mandate of ${agent} is not open yet: ${why}.`,
    { value: agent },
    "There is nothing more to do: it opens by itself. GET /intents/:agent tells when.",
  );
}

/** An error after the signature was recorded says so where it is not the last word. */
function recorded(agent: Address, error: unknown): unknown {
  if (!(error instanceof BursarError) || error.code !== "chain-unavailable") return error;
  return new BursarError(
    "chain-unavailable",
    "The signature is recorded, and the chain does not answer.",
    { value: agent },
    "There is nothing more to do: the mandate opens when the chain answers. GET /intents/:agent tells when.",
  );
}

const absolute = (value: bigint): bigint => (value < 0n ? -value : value);
