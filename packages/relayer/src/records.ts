import type { Address, DirectPayment, Hex, Line, Mandate, Payment, Row, Terms } from "@bursar/protocol";

/** A mandate as the processor knows it: what was signed, and where the chain stands. */
export interface MandateRecord {
  mandate: Mandate;
  terms: Terms;
  /** Base units of the token in one unit. */
  unitScale: bigint;
  /** Chain state that the next batch starts from: hash before the current page, settled seq and total. */
  settled: { base: bigint; seq: bigint; spent: bigint };
  /** Unix seconds, or null while the owner has not revoked. */
  revokedAt: bigint | null;
  /** Unix seconds from which on the contract settles nothing more. */
  closesAt: bigint;
}

/** What the receipt of an accepted payment says besides the payment itself. */
export interface AcceptedPayment {
  agent: Address;
  payment: Payment;
  signature: Hex;
  /** EIP-712 digest that the agent signed. */
  digest: Hex;
  salt: bigint;
  logIndex: bigint;
  settleBy: bigint;
  acceptedAt: bigint;
  batch: number | null;
}

export interface Refusal {
  rail: PaymentRail;
  agent: Address;
  /** On the direct rail only `line` means something: seq, spent and head are null. */
  payment: { seq: bigint | null; spent: bigint | null; head: Hex | null; line: Line };
  /** The agent's signature: with the payment it is evidence. */
  signature: Hex;
  code: string;
  message: string;
  details: Record<string, string>;
  advice: string | null;
  at: bigint;
}

/** Who a payee is, as registered by the operator: the agent's own claims about a payee are never trusted. */
export interface PayeeProfile {
  address: Address;
  name: string;
  host: string;
  category: string;
}

/**
 * `planned`, `proving` and `proved` are private to the processor; `submitted` is with the outbox; `settled`
 * is final on chain; `failed` gave its payments back to be planned again.
 */
export type BatchState = "planned" | "proving" | "proved" | "submitted" | "settled" | "failed";

/** How a payment reaches the chain: proved in a batch, or alone for an x402 `exact` or an AEP2 client. */
export type PaymentRail = "proved" | DirectKind;
export type DirectKind = DirectPayment["kind"];

export interface DirectRecord extends DirectPayment {
  /** Place in the ledger. */
  position: number;
  acceptedAt: bigint;
  status: "accepted" | "submitted" | "settled" | "failed";
  transaction: Hex | null;
  error: string | null;
}

/** What a batch does to one mandate, and the total that it started from. */
export interface SettledRow extends Row {
  readonly spent: bigint;
}

/** Payments of one mandate that are in no batch. */
export interface Waiting {
  readonly agent: Address;
  readonly token: Address;
  /** Last settled seq. */
  readonly from: bigint;
  /** Last accepted seq. */
  readonly to: bigint;
  /** The earliest promise among them, in Unix seconds. */
  readonly settleBy: bigint;
  /** When the first of them was accepted, in Unix seconds. */
  readonly acceptedAt: bigint;
}

export interface BatchRecord {
  id: number;
  state: BatchState;
  circuit: string;
  token: Address;
  rows: SettledRow[];
  payments: number;
  total: bigint;
  createdAt: bigint;
  /** Calldata of `settle`, once proved. */
  calldata: Hex | null;
  provedInMs: number | null;
  transaction: Hex | null;
  block: number | null;
  gasUsed: bigint | null;
  error: string | null;
  /** W3C `traceparent` that its proof and settlement go on with, whoever makes them; null where nothing is traced. */
  trace: string | null;
}

/** What a processor owes the chain. */
export interface Backlog {
  /** Payments of the proved rail that are accepted and not settled, and their sum in units. */
  readonly payments: number;
  readonly units: bigint;
  /** Unix seconds: when the first of them was accepted, and when the first of them is to be settled. */
  readonly oldest: bigint | null;
  readonly due: bigint | null;
  /** How many of them have waited as long as was asked for. */
  readonly older: readonly number[];
  /** Payments of the direct rail without an end. */
  readonly directs: number;
  readonly batches: Readonly<Record<BatchState, number>>;
}

export interface OutboxEntry {
  id: number;
  /** What the transaction is for, such as `batch:7`: all transactions of a job do the same, and one of them is mined. */
  job: string;
  nonce: number;
  maxFeePerGas: bigint;
  maxPriorityFeePerGas: bigint;
  raw: Hex;
  hash: Hex;
  sentAt: bigint;
}

/** The life of one payment, as it is told to agents and payees. */
export type PaymentStatus = "accepted" | "batched" | "proving" | "submitted" | "settled" | "claimable" | "failed";

export interface LedgerFilter {
  agent?: Address | undefined;
  owner?: Address | undefined;
  payee?: Address | undefined;
  /** An account that is the owner, the agent or the payee. */
  party?: Address | undefined;
  kind?: LedgerEntry["kind"] | undefined;
  status?: LedgerEntry["status"] | undefined;
  rail?: PaymentRail | undefined;
  /** Unix seconds, inclusive. */
  since?: bigint | undefined;
  until?: bigint | undefined;
  /** Rows with a smaller position than this, newest first. */
  before?: number | undefined;
  /** 100 unless given. */
  limit?: number | undefined;
}

/** One line of the readable ledger: an accepted payment or a refused one. */
export interface LedgerEntry {
  /** Its place: later lines have larger ones, for ever. */
  position: number;
  kind: "accepted" | "refused";
  rail: PaymentRail;
  agent: Address;
  owner: Address;
  /** Of the mandate: why the agent may spend. */
  purpose: string;
  /** Null on the direct rail. */
  seq: bigint | null;
  payee: Address;
  amount: bigint;
  ref: Hex;
  at: bigint;
  status: PaymentStatus | "refused";
  /** Error code of a refusal. */
  code: string | null;
  reason: string | null;
  advice: string | null;
  batch: number | null;
  transaction: Hex | null;
}
