import {
  assertPolicyAgrees,
  BursarError,
  hashMandate,
  hashPayment,
  hashRevocation,
  offsetOf,
  payeesHash,
  signReceipt,
  startOf,
  termsHash,
  verifySignature,
  type Address,
  type Domain,
  type ErrorCode,
  type Hex,
  type Mandate,
  type Receipt,
  type Revocation,
  type SignedPayment,
  type SignedReceipt,
  type Terms,
} from "@bursar/protocol";
import type { Signer } from "ethers";

import { decide, type LedgerTail } from "./decide.ts";
import type { AcceptedPayment, MandateRecord, Store } from "./store.ts";

/** What the chain says of a mandate. */
export interface MandateOnChain extends Omit<Mandate, "agent" | "payees"> {
  readonly state: "none" | "open" | "revoked" | "expired" | "closed";
  readonly payeesHash: Hex;
  /** Base units of the token in one unit. */
  readonly unitScale: bigint;
  readonly base: bigint;
  readonly seq: bigint;
  readonly spent: bigint;
  /** Unix seconds, or null. */
  readonly revokedAt: bigint | null;
  /** Unix seconds from which on it can no longer be settled. */
  readonly closesAt: bigint;
}

/** The processor's view of the chain, as far as accepting needs it. */
export interface MandateReader {
  mandate(agent: Address): Promise<MandateOnChain>;
}

/** What an agent or owner may ask of a mandate; amounts in units. */
export interface MandateStatus {
  mandate: Mandate;
  terms: Terms;
  accepted: { seq: bigint; spent: bigint };
  settled: { base: bigint; seq: bigint; spent: bigint };
  remaining: bigint;
  /** Unix seconds, or null. */
  revokedAt: bigint | null;
}

export interface ProcessorOptions {
  domain: Domain;
  store: Store;
  chain: MandateReader;
  /** Key that signs receipts; its address is the mandates' `processor`. */
  signer: Signer;
  /** Seconds from acceptance to settlement, 600 to 86,400 (protocol.md 6). */
  settleWithin: bigint;
  /** Unix seconds. */
  now: () => bigint;
}

interface Pending {
  request: SignedPayment;
  digest: Hex;
  resolve: (accepted: AcceptedPayment) => void;
  reject: (refusal: unknown) => void;
}

/**
 * Accepts payments: verifies, decides, records durably and only then answers. Requests that arrive together share one
 * commit. A payment seen before gets the receipt that it got before.
 */
export class Processor {
  readonly #options: ProcessorOptions;
  #pending: Pending[] = [];

  constructor(options: ProcessorOptions) {
    this.#options = options;
  }

  /**
   * Takes up a mandate that stands open on chain and whose signed terms are `terms`. Repeating it changes nothing.
   * @throws {@link BursarError} `mandate-not-open`, `wrong-processor`, `terms-mismatch`, `policy-mismatch`,
   * `mandate-conflict` when another mandate of the same agent is known or stands on chain.
   */
  async register(mandate: Mandate, terms: Terms): Promise<MandateRecord> {
    const { store, chain, signer, domain } = this.#options;
    if (terms.limits) {
      throw new BursarError(
        "terms-unsupported",
        "This processor does not enforce limits per day or minute, so it takes no mandate that relies on them.",
        { value: Object.keys(terms.limits).join(" ") },
        "Have the owner sign terms without `limits`, or name another processor.",
      );
    }
    assertPolicyAgrees(mandate);
    expectEqual(
      "terms-mismatch",
      "The terms are not the ones that the owner signed.",
      termsHash(terms),
      mandate.termsHash,
    );
    expectEqual(
      "wrong-processor",
      "The mandate names another processor.",
      mandate.processor,
      await signer.getAddress(),
    );
    const known = store.mandate(mandate.agent);
    if (known) {
      expectEqual(
        "mandate-conflict",
        "Another mandate of this agent is known.",
        hashMandate(domain, mandate),
        hashMandate(domain, known.mandate),
      );
      return known;
    }
    const onChain = await chain.mandate(mandate.agent);
    if (onChain.state !== "open") {
      throw new BursarError(
        "mandate-not-open",
        `The mandate of ${mandate.agent} is ${onChain.state} on chain.`,
        { value: onChain.state, limit: "open" },
        "Open the mandate on chain first, then register it again.",
      );
    }
    expectSameMandate(mandate, onChain);
    const record: MandateRecord = {
      mandate,
      terms,
      unitScale: onChain.unitScale,
      settled: { base: onChain.base, seq: onChain.seq, spent: onChain.spent },
      revokedAt: null,
    };
    store.transact(() => store.addMandate(record));
    return record;
  }

  /**
   * Stops a mandate at once, on the owner's signed word; the chain may follow.
   * @throws {@link BursarError} `signature-*` unless the owner's own key signed. A contract owner revokes on chain.
   */
  revoke(revocation: Revocation, signature: Hex): void {
    const { store, now, domain } = this.#options;
    const { mandate } = store.mandateOf(revocation.agent);
    verifySignature(hashRevocation(domain, revocation), signature, mandate.owner);
    store.transact(() => store.markRevoked(revocation.agent, now()));
  }

  /** Takes over revocations that the chain has seen. */
  async refresh(): Promise<void> {
    const { store, chain } = this.#options;
    for (const { mandate, revokedAt } of store.mandates()) {
      if (revokedAt !== null) continue;
      const onChain = await chain.mandate(mandate.agent);
      if (onChain.revokedAt !== null) store.transact(() => store.markRevoked(mandate.agent, onChain.revokedAt ?? 0n));
    }
  }

  /**
   * Accepts one signed payment.
   * @returns The processor's receipt, byte for byte the same whenever the same payment is sent again.
   * @throws {@link BursarError} A typed refusal; it is recorded too, and nothing else changes.
   */
  async accept(request: SignedPayment): Promise<SignedReceipt> {
    const digest = this.#authenticate(request);
    const accepted = await new Promise<AcceptedPayment>((resolve, reject) => {
      if (this.#pending.length === 0) setImmediate(() => this.#commit());
      this.#pending.push({ request, digest, resolve, reject });
    });
    return this.#receipt(accepted);
  }

  /** Decides like {@link accept}, without any effect. */
  check(request: SignedPayment): void {
    this.#decide(request, this.#authenticate(request));
  }

  /** What is accepted, settled and left of a mandate. */
  status(agent: Address): MandateStatus {
    const { mandate, terms, settled, revokedAt } = this.#options.store.mandateOf(agent);
    const { seq, spent } = this.tail(agent).position;
    const accepted = { seq, spent };
    return { mandate, terms, accepted, settled, remaining: mandate.budget - spent, revokedAt };
  }

  /** Where the ledger of `agent` stands, for an agent that resumes. */
  tail(agent: Address): LedgerTail {
    const { store, domain } = this.#options;
    store.mandateOf(agent);
    const start = startOf(domain, agent);
    const last = store.lastPayment(agent);
    if (!last) return { position: start, salt: null };
    const { seq, spent } = last.payment;
    const full = seq - offsetOf(seq);
    const base = full === 0n ? start.base : store.headAt(agent, full);
    const lines = store.payments(agent, full + 1n, seq).map(({ payment }) => payment.line);
    return { position: { seq, spent, base, lines }, salt: full === seq ? null : last.salt };
  }

  /** The receipt of a payment accepted before, if there is one. */
  async receipt(agent: Address, seq: bigint): Promise<SignedReceipt | undefined> {
    const accepted = this.#options.store.payment(agent, seq);
    return accepted && this.#receipt(accepted);
  }

  #authenticate({ agent, payment, signature }: SignedPayment): Hex {
    const digest = hashPayment(this.#options.domain, payment);
    verifySignature(digest, signature, agent);
    return digest;
  }

  #commit(): void {
    const group = this.#pending.splice(0, GROUP);
    if (this.#pending.length > 0) setImmediate(() => this.#commit());
    const { store } = this.#options;
    const answers: (() => void)[] = [];
    try {
      store.transact(() => {
        for (const { request, digest, resolve, reject } of group) {
          try {
            const accepted = this.#take(request, digest);
            answers.push(() => resolve(accepted));
          } catch (refusal) {
            if (!(refusal instanceof BursarError)) throw refusal;
            this.#recordRefusal(request, digest, refusal);
            answers.push(() => reject(refusal));
          }
        }
      });
    } catch (failure) {
      for (const { reject } of group) reject(failure);
      return;
    }
    for (const answer of answers) answer();
  }

  #take(request: SignedPayment, digest: Hex): AcceptedPayment {
    const { store, now, settleWithin } = this.#options;
    const { agent, payment, signature, salt } = request;
    const earlier = this.#decide(request, digest);
    if (earlier) return earlier;
    const acceptedAt = now();
    return store.addPayment({
      agent,
      payment,
      signature,
      digest,
      salt,
      acceptedAt,
      settleBy: acceptedAt + settleWithin,
    });
  }

  /** @returns The same payment, if it was accepted before. */
  #decide({ agent, payment, salt }: SignedPayment, digest: Hex): AcceptedPayment | undefined {
    const { store, now } = this.#options;
    const record = store.mandateOf(agent);
    const earlier = store.payment(agent, payment.seq);
    if (earlier?.digest === digest) return earlier;
    if (earlier) {
      throw new BursarError(
        "sequence-taken",
        `Payment ${payment.seq} was already signed for ${earlier.payment.line.amount} to ${earlier.payment.line.payee}.`,
        { value: digest, limit: earlier.digest },
        "Never sign two payments with one number: read the ledger's tail and use the next one.",
      );
    }
    decide({ payment, salt }, { record, tail: this.tail(agent), profile: store.payee(payment.line.payee), now: now() });
    return undefined;
  }

  /** A refusal that carries the agent's own signature is kept: people read it, and a conflict is evidence. */
  #recordRefusal({ agent, payment, signature }: SignedPayment, digest: Hex, refusal: BursarError): void {
    const { store, now } = this.#options;
    if (!store.mandate(agent)) return;
    const { code, message, details, advice = null } = refusal;
    store.addRefusal({ agent, payment, signature, digest, code, message, details, advice, at: now() });
  }

  /** Signatures are deterministic (RFC 6979), so the receipt need not be stored to be the same for ever. */
  async #receipt({ agent, payment, settleBy, logIndex }: AcceptedPayment): Promise<SignedReceipt> {
    const { signer, domain } = this.#options;
    const { seq, head, line } = payment;
    const receipt: Receipt = { agent, seq, ...line, head, settleBy, logIndex };
    return { receipt, signature: await signReceipt(signer, domain, receipt) };
  }
}

/** Requests that share one commit: beyond about 64 the wait grows faster than the throughput. */
const GROUP = 64;

function expectEqual(code: ErrorCode, message: string, value: string, limit: string): void {
  if (value !== limit) throw new BursarError(code, message, { value, limit });
}

function expectSameMandate(mandate: Mandate, onChain: MandateOnChain): void {
  const signed = { ...mandate, payeesHash: payeesHash(mandate.payees) };
  const fields = [
    "owner",
    "token",
    "budget",
    "paymentCap",
    "validUntil",
    "processor",
    "payeesHash",
    "policyRoot",
    "termsHash",
  ] as const;
  for (const field of fields) {
    expectEqual(
      "mandate-conflict",
      `Another ${field} stands on chain for this agent.`,
      String(signed[field]),
      String(onChain[field]),
    );
  }
}
