import {
  BursarError,
  hashQuote,
  signQuote,
  verifySignature,
  type Address,
  type Domain,
  type Line,
  type Quote,
  type SignedQuote,
} from "@bursar/protocol";
import type { Signer } from "ethers";

/** How a paywall signs its offers. */
export interface QuoteOptions {
  /** The payee's key. */
  readonly signer: Signer;
  /** What is sold, within the payee's profile. */
  readonly category: string;
  /** The host, within the payee's profile; that of the request's URL unless given. */
  readonly host?: string;
  /** Seconds for which an offer stands, 300 unless given. */
  readonly validFor?: bigint;
}

/** @throws BursarError `signature-signer` when the signer is not the payee. */
export async function offer(signer: Signer, domain: Domain, quote: Quote): Promise<SignedQuote> {
  const signature = await signQuote(signer, domain, quote);
  verifySignature(hashQuote(domain, quote), signature, quote.payee);
  return { quote, signature };
}

/**
 * Refuses a quote that is not the payee's own for this very payment. Whether it still stands is the caller's: only a
 * price that has changed meanwhile makes that matter.
 *
 * @throws BursarError `quote-mismatch`
 */
export function assertOwnQuote({ quote, signature }: SignedQuote, domain: Domain, payee: Address, line: Line): void {
  try {
    if (quote.payee !== payee || quote.amount !== line.amount || quote.ref !== line.ref) {
      throw new BursarError("quote-mismatch", "The quote is for another payee, amount or request.");
    }
    verifySignature(hashQuote(domain, quote), signature, payee);
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    throw new BursarError(
      "quote-mismatch",
      "The quote is not the payee's offer for this request.",
      { reason: error.code, value: quote.amount, limit: line.amount },
      "Send the quote as it was in the 402 answer to this request, or none.",
    );
  }
}
