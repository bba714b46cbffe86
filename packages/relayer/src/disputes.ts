import {
  BursarError,
  hashEvidence,
  holdOf,
  parseWire,
  evidenceSchema,
  verifyEvidence,
  type Address,
  type Evidence,
  type Hex,
  type Receipt,
  type VerifiedEvidence,
} from "@bursar/protocol";
import { ZeroHash } from "ethers";

import type { Chain } from "./chain.ts";

/** In the order of the contract's numbers. */
export const DISPUTE_KINDS = ["not-delivered", "double-charge", "over-quote", "other"] as const;
export type DisputeKind = (typeof DISPUTE_KINDS)[number];

/** In the order of the contract's numbers; the last two are ends. */
export const DISPUTE_STATES = ["none", "filed", "answered", "escalated", "paid", "refunded"] as const;
export type DisputeState = (typeof DISPUTE_STATES)[number];

/** What somebody can do about a dispute now. */
export interface DisputeChoice {
  readonly who: "owner or agent" | "payee" | "arbiter" | "anyone";
  readonly action: "answer" | "refund" | "escalate" | "rule" | "resolve";
  /** The first and the last second of it, in Unix seconds; null is now, or without end. */
  readonly from: bigint | null;
  readonly until: bigint | null;
  readonly effect: string;
}

/** A dispute as the chain has it. Times in Unix seconds. */
export interface DisputeView {
  readonly id: bigint;
  readonly kind: DisputeKind;
  readonly state: DisputeState;
  readonly agent: Address;
  readonly seq: bigint;
  readonly owner: Address;
  readonly payee: Address;
  readonly filer: Address;
  readonly hold: Address;
  readonly holdback: bigint;
  readonly token: Address;
  /** What is frozen, or was: base units of the token, and units. */
  readonly amount: bigint;
  readonly units: bigint;
  readonly ref: Hex;
  readonly evidenceHash: Hex;
  /** Body hash of the delivery, or hash of the payee's evidence. */
  readonly answerHash: Hex | null;
  /** The last second of this state. */
  readonly deadline: bigint;
  /** The latest delivery that counts. */
  readonly deliverBy: bigint;
  /** Its number at the arbitrator, once escalated. */
  readonly caseId: bigint | null;
  /** The chain's time that `choices` are told for. */
  readonly now: bigint;
  readonly choices: readonly DisputeChoice[];
}

/** @throws BursarError `not-found`; `wrong-chain` where nothing can be disputed; `chain-unavailable` */
export async function readDispute(chain: Chain, id: bigint): Promise<DisputeView> {
  const { disputes, escrow, registry, provider } = chain;
  const [stored, block] = await Promise.all([disputes.disputeOf(id), provider.getBlock("latest")]);
  const state = DISPUTE_STATES[Number(stored.status)] ?? "none";
  if (state === "none") {
    throw new BursarError("not-found", `There is no dispute ${id}.`, { value: id }, "See `bursar dispute list`.");
  }
  const agent = stored.agent as Address;
  const payee = stored.payee as Address;
  const token = (await registry.tokenOf(agent)) as Address;
  const now = BigInt(block?.timestamp ?? 0);
  const caseId = state === "filed" || state === "answered" ? null : await caseOf(chain, id);
  const kind = DISPUTE_KINDS[Number(stored.kind)] ?? "other";
  const { seq, owner, holdback, amount, ref, evidenceHash, answerHash, deadline, deliverBy, filer } = stored;
  return {
    ...{ id, kind, state, agent, seq, payee, token, holdback, amount, deadline, deliverBy, caseId, now },
    owner: owner as Address,
    filer: filer as Address,
    hold: holdOf(chain.rail.disputes!, agent, payee, holdback),
    units: amount / (await escrow.unitScale(token)),
    ref: ref as Hex,
    evidenceHash: evidenceHash as Hex,
    answerHash: answerHash === ZeroHash ? null : (answerHash as Hex),
    choices: choicesOf({ kind, state, deadline, now }),
  };
}

/** What each side can do in this state, and until when. */
export function choicesOf({
  kind,
  state,
  deadline,
  now,
}: Pick<DisputeView, "kind" | "state" | "deadline" | "now">): DisputeChoice[] {
  if (state !== "filed" && state !== "answered" && state !== "escalated") return [];
  const over = now > deadline;
  const refund = { who: "payee", action: "refund", from: null, until: null, effect: "the owner is refunded" } as const;
  const resolve = {
    who: "anyone",
    action: "resolve",
    from: deadline + 1n,
    until: null,
    effect: state === "filed" ? "the owner is refunded" : "the payee is paid",
  } as const;
  const within = { from: null, until: deadline } as const;
  const evidence = kind === "other" ? "with the hash of evidence" : "with a signed delivery";
  const acts: Record<typeof state, DisputeChoice[]> = {
    filed: [{ who: "payee", action: "answer", ...within, effect: `${evidence}, the payment stands unless escalated` }],
    answered: [
      { who: "owner or agent", action: "escalate", ...within, effect: "an arbiter decides" },
      { who: "payee", action: "escalate", ...within, effect: "an arbiter decides" },
    ],
    escalated: [{ who: "arbiter", action: "rule", ...within, effect: "1 pays the payee, 2 refunds the owner" }],
  };
  return [...(over ? [] : acts[state]), refund, resolve];
}

/** Disputes from the newest on. */
export async function listDisputes(
  chain: Chain,
  { party, open = false, limit = 50 }: { party?: Address | undefined; open?: boolean; limit?: number } = {},
): Promise<DisputeView[]> {
  const found: DisputeView[] = [];
  for (let id = await chain.disputes.disputeCount(); id > 0n && found.length < limit; id--) {
    const view = await readDispute(chain, id);
    const ended = view.state === "paid" || view.state === "refunded";
    const concerned = party === undefined || [view.owner, view.agent, view.payee].includes(party);
    if (concerned && !(open && ended)) found.push(view);
  }
  return found;
}

/** The arbitrator's number of a dispute: its newest cases are looked at first. */
async function caseOf({ disputes, arbiter }: Chain, id: bigint): Promise<bigint | null> {
  for (let caseId = await arbiter.caseCount(); caseId > 0n; caseId--) {
    if ((await disputes.escalatedOf(caseId)) === id) return caseId;
  }
  return null;
}

/** Evidence that the chain agrees with. */
export interface CheckedEvidence extends VerifiedEvidence {
  readonly evidence: Evidence;
  readonly owner: Address;
  readonly processor: Address;
  /** Whether the chain shows the payment settled. */
  readonly settled: boolean;
  /** The dispute of this payment, and what of it has this evidence's hash. */
  readonly dispute: bigint | null;
  readonly stands: "filed" | "answered" | null;
}

/**
 * {@link verifyEvidence}, and what the chain knows: that it is this chain's, and that the processor's keys signed the
 * receipts.
 *
 * @throws BursarError as {@link verifyEvidence}; `wrong-chain`, `wrong-contract`, `mandate-unknown`, `receipt-invalid`
 */
export async function checkEvidence(chain: Chain, evidence: Evidence): Promise<CheckedEvidence> {
  const { domain, hold } = parseWire(evidenceSchema, evidence);
  const { rail, registry, processors, disputes } = chain;
  expectSame("wrong-chain", "chain", domain.chainId, rail.chainId);
  expectSame("wrong-contract", "registry", domain.registry, rail.registry);
  if (hold !== undefined) expectSame("wrong-contract", "dispute module", hold.module, rail.disputes ?? "none");
  const verified = verifyEvidence(evidence);
  const { agent, seq, settleBy, receiptKeys } = verified;
  const mandate = await registry.mandateOf(agent);
  if (mandate.state === 0n) {
    throw new BursarError("mandate-unknown", `The chain knows no mandate of ${agent}.`, { value: agent });
  }
  for (const key of receiptKeys) {
    if (await processors.isReceiptKey(mandate.processor, key, settleBy)) continue;
    throw new BursarError("receipt-invalid", `The receipt is by ${key}, which signs none of ${mandate.processor}.`, {
      value: key,
      limit: mandate.processor,
    });
  }
  const id = hold === undefined ? 0n : await disputes.disputeIdOf(agent, seq);
  const { hash } = verified;
  const stored = id === 0n ? null : await disputes.disputeOf(id);
  const stands = stored?.evidenceHash === hash ? "filed" : stored?.answerHash === hash ? "answered" : null;
  return {
    ...verified,
    evidence,
    owner: mandate.owner as Address,
    processor: mandate.processor as Address,
    settled: mandate.seq >= seq,
    dispute: id === 0n ? null : id,
    stands,
  };
}

function expectSame(
  code: "wrong-chain" | "wrong-contract",
  field: string,
  value: string | bigint,
  limit: string | bigint,
) {
  if (value === limit) return;
  throw new BursarError(code, `The evidence is of the ${field} ${value}, not ${limit}.`, { field, value, limit });
}

/** What a filing sends: the hold, the payment, the one before it, the hash. */
export interface Filing {
  readonly hold: { readonly agent: Address; readonly payee: Address; readonly holdback: bigint };
  readonly purchase: Purchase;
  readonly earlier: Purchase | null;
  readonly hash: Hex;
}

/** A payment with both signatures, as the contract takes it. */
export interface Purchase {
  readonly receipt: Receipt;
  readonly spent: bigint;
  readonly agentSignature: Hex;
  readonly processorSignature: Hex;
}

/** @throws BursarError `malformed-input` for evidence of a payment that waits in no hold. */
export function filingOf(evidence: Evidence): Filing {
  const { agent, payee, hold, purchase, earlier } = parseWire(evidenceSchema, evidence);
  if (hold === undefined) {
    throw new BursarError(
      "malformed-input",
      "The evidence names no hold: a payment to the payee itself cannot be disputed.",
      { value: payee },
      "Make the evidence with the module and the holdback that the payment waits for.",
    );
  }
  return {
    hold: { agent, payee, holdback: BigInt(hold.holdback) },
    purchase: purchaseOf(purchase),
    earlier: earlier === undefined ? null : purchaseOf(earlier),
    hash: hashEvidence(evidence),
  };
}

type ReadPurchase = ReturnType<typeof parseWire<typeof evidenceSchema>>["purchase"];

function purchaseOf({ payment, signature, receipt, receiptSignature }: ReadPurchase): Purchase {
  return { receipt, spent: payment.spent, agentSignature: signature, processorSignature: receiptSignature };
}
