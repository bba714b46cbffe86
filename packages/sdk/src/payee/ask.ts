import {
  BursarError,
  encodePaymentRequired,
  PAYMENT_REQUIRED_HEADER,
  problem,
  toWire,
  type PaymentTerms,
  type Problem,
} from "@bursar/protocol";
import { encodeBase64, toUtf8Bytes } from "ethers";

import type { Paid } from "./paywall.ts";

/** Header of a paid answer (x402 v2, HTTP transport). */
export const PAYMENT_RESPONSE_HEADER = "PAYMENT-RESPONSE";

/** An answer in place of the content. */
export interface Ask {
  readonly kind: "ask";
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** The body, `application/problem+json`; null for none. */
  readonly body: string | null;
}

/** What the payment itself is wrong about, is asked for anew whatever status the code has elsewhere. */
const ABOUT_PAYMENT: readonly number[] = [401, 402, 403, 404, 409, 422];

/** Seconds to wait before the same request again, by the refusal's status. */
export interface RefusalOptions {
  readonly head: boolean;
  readonly retryAfter: number;
  /** The terms to ask for, made only when they are needed. */
  readonly terms: () => Promise<PaymentTerms>;
}

/**
 * A refusal as an answer: 402 with fresh terms where another payment would help, otherwise the code's own status; 503
 * with `Retry-After` means that this very payment may be taken later.
 *
 * @throws whatever is not a BursarError: it is the service's, not the caller's.
 */
export async function refusal(error: unknown, { head, retryAfter, terms }: RefusalOptions): Promise<Ask> {
  if (!(error instanceof BursarError)) throw error;
  const told = problem(error);
  const status = ABOUT_PAYMENT.includes(told.status) ? 402 : told.status;
  const advice = told.advice ?? (status === 402 ? PAY_ANEW : undefined);
  const body: Problem = { ...told, status, ...(advice === undefined ? {} : { advice }) };
  return {
    kind: "ask",
    status,
    headers: {
      "content-type": "application/problem+json",
      "cache-control": "no-store",
      ...(status === 402 ? { [PAYMENT_REQUIRED_HEADER]: encodePaymentRequired(await terms()) } : {}),
      ...(status === 503 ? { "retry-after": String(retryAfter) } : {}),
    },
    body: head ? null : JSON.stringify(body),
  };
}

const PAY_ANEW = "Make a payment that fits the terms in the PAYMENT-REQUIRED header.";

/** An answer to OPTIONS: no content, nothing to pay. */
export const noContent: Ask = { kind: "ask", status: 204, headers: {}, body: null };

/** Value of {@link PAYMENT_RESPONSE_HEADER}. */
export function encodePaymentResponse({ payment: { agent, payment } }: Paid): string {
  const response = { success: true, agent, seq: payment.seq, amount: payment.line.amount };
  return encodeBase64(toUtf8Bytes(JSON.stringify(toWire(response))));
}
