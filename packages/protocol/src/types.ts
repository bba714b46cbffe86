/** `0x` and hexadecimal digits. */
export type Hex = `0x${string}`;
/** An account in EIP-55 form. */
export type Address = `0x${string}`;

/** Where a message is valid: one chain, one MandateRegistry. */
export interface Domain {
  readonly chainId: bigint;
  readonly registry: Address;
}

/** The owner's one signed permission; its agent's address identifies it. Amounts in units, times in Unix seconds. */
export interface Mandate {
  readonly owner: Address;
  readonly agent: Address;
  readonly token: Address;
  /** 1 … 2^64−1 units. */
  readonly budget: bigint;
  /** 1 … 2^40−1 units a payment. */
  readonly paymentCap: bigint;
  readonly validUntil: bigint;
  readonly processor: Address;
  /** At most eight; empty means anyone. */
  readonly payees: readonly Address[];
  /** Poseidon of the same list and paymentCap, see `policyRoot`. */
  readonly policyRoot: Hex;
  /** Hash of the terms, see `termsHash`. */
  readonly termsHash: Hex;
}

/** What one payment pays: a line of the ledger. */
export interface Line {
  readonly payee: Address;
  /** 1 … 2^40−1 units. */
  readonly amount: bigint;
  /** Binds what is bought, see `requestRef`. */
  readonly ref: Hex;
}

/** One numbered payment, signed by the agent. */
export interface Payment {
  /** Counts from 1. */
  readonly seq: bigint;
  /** The running total after this payment, in units. */
  readonly spent: bigint;
  /** The ledger's head after this payment, below the field order. */
  readonly head: Hex;
  readonly line: Line;
}

/** The processor's signed promise to settle a payment by a time. */
export interface Receipt {
  readonly agent: Address;
  readonly seq: bigint;
  readonly payee: Address;
  readonly amount: bigint;
  readonly ref: Hex;
  readonly head: Hex;
  /** Unix seconds. */
  readonly settleBy: bigint;
  /** Position in the processor's append-only log. */
  readonly logIndex: bigint;
}

/** The owner's signed end of a mandate: nothing above `afterSeq` was meant. */
export interface Revocation {
  readonly agent: Address;
  readonly afterSeq: bigint;
}

/** The word of owner and processor that a mandate ends at payment `seq`, up to which everything is settled. */
export interface Close {
  readonly agent: Address;
  readonly seq: bigint;
}

/** An account's word that the bearer may read what concerns it, until `expiresAt` (Unix seconds, at most a day away). */
export interface Access {
  readonly account: Address;
  readonly expiresAt: bigint;
}

/** Who a payee says it is. A processor trusts it only once its operator has vouched for it. */
export interface Profile {
  readonly payee: Address;
  /** At most 100 characters. */
  readonly name: string;
  /** A host, or `*.` and a name for a payee with many, see `hostMatches`. */
  readonly host: string;
  readonly category: string;
  /** Unix seconds; of two profiles of a payee the later counts. */
  readonly issuedAt: bigint;
}

/** A payee's signed offer for one purchase. Its host and category may narrow those of the payee's profile, no more. */
export interface Quote {
  readonly payee: Address;
  readonly amount: bigint;
  readonly ref: Hex;
  readonly host: string;
  readonly category: string;
  /** Unix seconds. */
  readonly expiresAt: bigint;
}

/** A payee's word that it served a payment: what it answers a dispute with. */
export interface Delivery {
  readonly agent: Address;
  readonly seq: bigint;
  readonly ref: Hex;
  /** keccak256 of what was delivered. */
  readonly bodyHash: Hex;
  /** Unix seconds. */
  readonly deliveredAt: bigint;
}

export interface SignedDelivery {
  readonly delivery: Delivery;
  readonly signature: Hex;
}

export interface SignedQuote {
  readonly quote: Quote;
  readonly signature: Hex;
}

/** What an agent sends to its processor (`POST /payments`). */
export interface SignedPayment {
  readonly agent: Address;
  readonly payment: Payment;
  /** The agent's signature over the payment. */
  readonly signature: Hex;
  /** Salt of the payment's page, below 2^248: with it the processor recomputes the head. */
  readonly salt: bigint;
  /** The payee's offer for this very purchase, if it made one. */
  readonly quote?: SignedQuote | undefined;
  /** Whose hold is paid, under a mandate whose terms name a dispute module: see `holdOf`. */
  readonly hold?: HoldFor | undefined;
}

/** The payee behind a hold, and the seconds that its money waits there. */
export interface HoldFor {
  readonly payee: Address;
  readonly holdback: bigint;
}

/** A processor's answer to a payment. */
export interface SignedReceipt {
  readonly receipt: Receipt;
  readonly signature: Hex;
}
