/** What each error code means over HTTP: its status and its title, which never changes for a code. */
export const ERRORS = {
  "malformed-input": { status: 400, title: "The input is not in the documented form" },
  "wrong-chain": { status: 422, title: "The message is for another chain" },
  "wrong-contract": { status: 422, title: "The message is for another contract" },
  "wrong-processor": { status: 422, title: "The mandate names another processor" },
  "not-in-field": { status: 422, title: "The value is not below the field order" },
  "amount-zero": { status: 422, title: "An amount is at least one unit" },
  "amount-too-large": { status: 422, title: "The amount is above the largest that can be settled" },
  "total-too-large": { status: 422, title: "The running total is above the largest that can be settled" },

  "mandate-unknown": { status: 404, title: "No mandate is known for this agent" },
  "mandate-conflict": { status: 409, title: "Another mandate already uses this agent" },
  "mandate-not-open": { status: 409, title: "The mandate is not open on chain" },
  "mandate-revoked": { status: 409, title: "The mandate is revoked" },
  "mandate-expired": { status: 409, title: "The mandate has expired" },
  "mandate-closed": { status: 409, title: "The mandate is closed" },
  "mandate-fallback": { status: 409, title: "Only claims still debit the mandate" },
  "close-mismatch": { status: 409, title: "The close names another payment than the last one" },
  "clock-behind": { status: 503, title: "The processor's clock is behind the chain's" },
  "books-behind": { status: 503, title: "The processor's books lack payments that were accepted or settled" },
  "books-conflict": { status: 409, title: "The processor's books tell another history than its receipts" },
  "bond-too-small": { status: 409, title: "The processor's bond is too small for the mandate" },
  "policy-mismatch": { status: 422, title: "The mandate's payee list and policy root differ" },
  "terms-mismatch": { status: 422, title: "The terms are not the ones that the owner signed" },

  "signature-length": { status: 422, title: "A signature is 65 bytes" },
  "signature-high-s": { status: 422, title: "The signature's s is in the upper half of the curve order" },
  "signature-v": { status: 422, title: "The signature's v is neither 27 nor 28" },
  "signature-invalid": { status: 422, title: "No key recovers from the signature" },
  "signature-signer": { status: 422, title: "The signature is by another key" },

  "sequence-gap": { status: 409, title: "The payment is not the next one" },
  "sequence-taken": { status: 409, title: "Another payment holds this sequence number" },
  "spent-mismatch": { status: 409, title: "The running total does not follow from the ledger" },
  "head-mismatch": { status: 409, title: "The head does not follow from the ledger" },

  "above-payment-cap": { status: 403, title: "The amount is above the mandate's payment cap" },
  "above-budget": { status: 403, title: "The payment does not fit in the mandate's budget" },
  "payee-not-allowed": { status: 403, title: "The payee is not on the mandate's list" },
  "payee-unknown": { status: 403, title: "The processor knows no profile of the payee" },
  "off-mission-host": { status: 403, title: "The mandate's terms do not cover this host" },
  "off-mission-category": { status: 403, title: "The mandate's terms do not cover this category" },
  "above-price": { status: 403, title: "The price is above the highest that the mandate's terms allow for a call" },
  "above-rate": { status: 429, title: "The payment is above the rate in the mandate's terms" },
  "above-daily-limit": { status: 429, title: "The payment is above the daily limit in the mandate's terms" },
  "above-allowance": { status: 429, title: "The payment is above the allowance of this period" },
  "not-started": { status: 409, title: "The first period of the mandate's terms has not begun" },
  "payee-impossible": { status: 403, title: "The payee is a contract that could never collect its credit" },
  "not-held": { status: 403, title: "The mandate's payments wait in holds, and this one does not" },
  "payee-not-admitted": { status: 403, title: "The identity gate does not let the payee be paid" },
  "quote-mismatch": { status: 422, title: "The quote is not for this payment" },
  "quote-expired": { status: 422, title: "The quote has expired" },
  "quote-too-wide": { status: 403, title: "The quote claims more than the payee's profile" },
  "profile-stale": { status: 409, title: "A later profile of the payee is known" },

  unauthorised: { status: 401, title: "The request does not say who asks" },
  forbidden: { status: 403, title: "Who asks may not read this" },
  "not-found": { status: 404, title: "There is no such thing here" },
  "unsupported-media-type": { status: 415, title: "The body is not in a media type that is read here" },
  "body-too-large": { status: 413, title: "The request body is too large" },
  "too-many-requests": { status: 429, title: "Too many requests" },
  "shutting-down": { status: 503, title: "The service is shutting down" },

  "intent-conflict": { status: 409, title: "Another intent already uses this agent" },
  "intent-mismatch": { status: 422, title: "The mandate does not say what the intent says" },
  "intent-not-signable": { status: 409, title: "The intent does not wait for a signature" },
  "opening-pending": { status: 503, title: "The mandate is signed, and not open on chain yet" },
  "funds-missing": { status: 409, title: "The owner's free balance does not cover the budget" },

  "nonce-used": { status: 409, title: "Another payment used this nonce" },
  "authorization-expired": { status: 422, title: "The authorisation has expired" },
  "authorization-early": { status: 422, title: "The authorisation is not valid yet" },
  "wrong-token": { status: 422, title: "The token is not the mandate's" },
  "fractional-units": { status: 422, title: "The amount is not a whole number of units" },
  "settlement-pending": { status: 503, title: "The outcome of the settlement is not known yet" },

  "exposure-exceeded": { status: 503, title: "Too much is unsettled with this processor" },
  "processor-not-accepted": { status: 402, title: "The payee does not take receipts of this processor" },
  "price-above-limit": { status: 402, title: "The price is above what the caller allows" },
  redirected: { status: 502, title: "The service answers from another URL than the one that was asked" },
  "processor-unavailable": { status: 503, title: "The processor gives no usable answer" },
  "paid-not-served": { status: 502, title: "The payment was made, and the service did not answer it" },

  "payment-missing": { status: 402, title: "The request carries no payment" },
  "payment-mismatch": { status: 402, title: "The payment is not for this request" },
  "receipt-invalid": { status: 402, title: "The receipt is not by the expected processor" },
  "receipt-mismatch": { status: 402, title: "The receipt and the payment differ" },
  "receipt-expired": { status: 402, title: "The receipt's settle-by time is past" },
  "receipt-too-long": { status: 402, title: "The receipt promises settlement later than is acceptable" },
  "receipt-used": { status: 402, title: "The receipt already paid for a request" },
  "body-unavailable": { status: 500, title: "The bytes of the request body are not at hand" },
  "store-unavailable": { status: 503, title: "What was recorded cannot be read or written" },
  "lease-lost": { status: 503, title: "Another process has taken over" },
  "refund-uncertain": { status: 409, title: "Nobody knows whether an earlier refund was paid" },

  "batch-does-not-fit": { status: 422, title: "The batch does not fit the circuit" },
  "batch-unbalanced": { status: 422, title: "The batch cannot be evaluated at its challenge" },
  "key-missing": { status: 503, title: "The proving key is missing" },
  "key-corrupt": { status: 503, title: "The proving key is not the expected one" },
  "prover-missing": { status: 503, title: "The program that proves cannot be started" },
  "prover-failed": { status: 503, title: "The prover gave no proof" },
  "proof-invalid": { status: 500, title: "The proof does not verify" },
  "chain-unavailable": { status: 503, title: "The chain cannot be reached" },
  "insufficient-funds": { status: 422, title: "The account holds too little" },
  "transaction-failed": { status: 502, title: "The transaction failed" },
  "internal-error": { status: 500, title: "Internal error" },
} as const satisfies Record<string, { status: number; title: string }>;

/** A stable name for what went wrong; clients may switch on it. */
export type ErrorCode = keyof typeof ERRORS;

/** What a {@link BursarError} may name: the offending value, its limit, and the like. */
export type ErrorDetails = Readonly<Record<string, string | number | bigint>>;

/** The one error class. `details` holds the value and the limit; `advice` says what to do instead. */
export class BursarError extends Error {
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, string>>;
  readonly advice?: string;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, advice?: string) {
    super(message);
    this.name = "BursarError";
    this.code = code;
    this.details = Object.fromEntries(Object.entries(details).map(([key, value]) => [key, String(value)]));
    if (advice !== undefined) this.advice = advice;
  }
}

/** Problem Details (RFC 9457), media type `application/problem+json`, with the extensions code, details, advice. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, string>>;
  readonly advice?: string;
}

/** The Problem Details of an error. What is not a {@link BursarError} becomes `internal-error` and tells nothing. */
export function problem(error: unknown): Problem {
  const known =
    error instanceof BursarError ? error : new BursarError("internal-error", ERRORS["internal-error"].title);
  return {
    type: `urn:bursar:problem:${known.code}`,
    ...ERRORS[known.code],
    detail: known.message,
    code: known.code,
    details: known.details,
    ...(known.advice === undefined ? {} : { advice: known.advice }),
  };
}
