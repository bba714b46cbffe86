import {
  BursarError,
  decodePaymentRequired,
  encodePaymentHeader,
  PAYMENT_HEADER,
  PAYMENT_REQUIRED_HEADER,
  PAYMENT_SCHEME,
  requestRef,
  type Hex,
  type PaidRequest,
  type PaymentTerms,
} from "@bursar/protocol";
import { decodeBase64, encodeBase64, toUtf8Bytes, toUtf8String } from "ethers";

import { pauseAfter, type Patience, type Surroundings } from "./surroundings.ts";

const ASKED_AGAIN = "asked-again";
const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];

/** The payment was made and the service did not answer it: `paid` is the evidence, and `header` can be sent again. */
export class PaidNotServed extends BursarError {
  readonly paid: PaidRequest;
  /** Value of the PAYMENT-SIGNATURE header. */
  readonly header: string;
  /** The last answer, if there was one. */
  readonly response: Response | null;

  constructor(message: string, paid: PaidRequest, response: Response | null, reason: string) {
    const { payment } = paid.payment;
    super(
      "paid-not-served",
      message,
      { seq: payment.seq, payee: payment.line.payee, amount: payment.line.amount, ref: payment.line.ref, reason },
      "Do not pay again for the same. Keep the payment and its receipt as evidence and ask the payee to serve it.",
    );
    this.paid = paid;
    this.header = encodePaymentHeader(paid);
    this.response = response;
  }
}

/** A request that can be sent more than once: its body is in memory. */
export interface Prepared {
  readonly method: string;
  readonly url: string;
  readonly body: Uint8Array<ArrayBuffer>;
  readonly signal: AbortSignal;
  /** As the caller wrote it, or with a payment, in which case redirects are not followed. */
  request(paymentHeader?: string): Request;
}

/**
 * Reads a request's body, once.
 *
 * @param maxBody bytes.
 * @throws BursarError `body-too-large`
 */
export async function prepare(
  input: RequestInfo | URL,
  init: RequestInit | undefined,
  maxBody: number,
): Promise<Prepared> {
  const original = new Request(input, init?.body == null ? init : ({ duplex: "half", ...init } as RequestInit));
  const body = await readAll(original, maxBody);
  const { method, url, signal } = original;
  const request = (paymentHeader?: string): Request => {
    const headers = new Headers(original.headers);
    if (paymentHeader !== undefined) headers.set(PAYMENT_HEADER, paymentHeader);
    return new Request(original, {
      headers,
      signal,
      ...(original.bodyUsed ? { body } : {}),
      ...(paymentHeader === undefined ? {} : { redirect: "manual" }),
    });
  };
  return { method, url, body, signal, request };
}

/** What a 402 answer asks for under the scheme `bursar`, each way of paying; empty when it asks for nothing of ours. */
export function asksOf(response: Response): PaymentTerms[] {
  const header = response.headers.get(PAYMENT_REQUIRED_HEADER);
  if (response.status !== 402 || header === null) return [];
  const required = requiredOf(header);
  const own = required.accepts.filter((entry) => (entry as { scheme?: unknown } | null)?.scheme === PAYMENT_SCHEME);
  return own.map((entry) => {
    const alone = JSON.stringify({ ...required, accepts: [entry] });
    return decodePaymentRequired(encodeBase64(toUtf8Bytes(alone)));
  });
}

/**
 * Where a payment for this answer is bound to: the URL that asked. A payment follows no redirect to another origin and
 * none that may have changed the method.
 *
 * @throws BursarError `redirected`
 */
export function askedAt(prepared: Prepared, response: Response): string {
  if (!response.redirected) return prepared.url;
  const safe = prepared.method === "GET" || prepared.method === "HEAD";
  if (safe && new URL(response.url).origin === new URL(prepared.url).origin) return response.url;
  throw new BursarError(
    "redirected",
    `${prepared.method} ${prepared.url} is redirected, and ${response.url} asks for payment.`,
    { value: response.url, limit: prepared.url },
    "Call the other URL directly if you mean to pay it.",
  );
}

/**
 * The reference of what is sent, computed from what is sent. A payee that computed another one would not take the
 * payment, so it is not made.
 *
 * @throws BursarError `payment-mismatch`
 */
export function refOf(prepared: Prepared, url: string, asked: PaymentTerms, quoteId: string | undefined): Hex {
  const { method, body } = prepared;
  const ref = requestRef({ method, url, body, ...(quoteId === undefined ? {} : { quote: quoteId }) });
  if (ref === asked.ref) return ref;
  throw new BursarError(
    "payment-mismatch",
    `The payee asks to be paid for another request than ${method} ${url}; it names ${asked.url}.`,
    { field: "ref", value: asked.ref, limit: ref },
    "Nothing was paid. The payee sees another URL or body than was sent, or expects a quote id.",
  );
}

/** What the repeated request needs. */
export interface Delivery {
  readonly patience: Patience;
  readonly around: Surroundings;
  /** Told when the payment may still be served: the same header can be sent again. */
  readonly unserved: (paid: PaidRequest) => void;
}

/**
 * Sends the paid request, always with the same payment, until there is an answer.
 *
 * @throws {@link PaidNotServed}; the signal's reason.
 */
export async function deliver(
  prepared: Prepared,
  url: string,
  paid: PaidRequest,
  delivery: Delivery,
): Promise<Response> {
  const { patience, around, unserved } = delivery;
  const header = encodePaymentHeader(paid);
  const { signal } = prepared;
  try {
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted();
      let retryAfter: string | null = null;
      let later: Response | null = null;
      let reason: string;
      try {
        const request = prepared.request(header);
        const response = await around.fetch(url === prepared.url ? request : new Request(url, request));
        const waits = await waitsFor(response);
        if (waits === null) return judged(response, paid, unserved);
        retryAfter = response.headers.get("retry-after");
        later = response;
        reason = waits;
      } catch (error) {
        if (error instanceof BursarError) throw error;
        signal.throwIfAborted();
        reason = error instanceof Error ? error.message : String(error);
      }
      if (attempt >= patience.attempts) {
        throw new PaidNotServed(
          `${url} did not answer a paid request in ${attempt} tries: ${reason}.`,
          paid,
          later,
          reason,
        );
      }
      await around.sleep(pauseAfter(attempt, patience, around, retryAfter), signal);
    }
  } catch (error) {
    const refused = error instanceof PaidNotServed && error.details["reason"] === ASKED_AGAIN;
    if (!refused) unserved(paid);
    throw error;
  }
}

function judged(response: Response, paid: PaidRequest, unserved: (paid: PaidRequest) => void): Response {
  const redirect = response.type === "opaqueredirect" || REDIRECTS.includes(response.status);
  if (redirect) {
    const where = response.headers.get("location") ?? "somewhere that the browser does not tell";
    throw new PaidNotServed(
      `The paid request is redirected to ${where}; a payment is bound to one URL.`,
      paid,
      response,
      "redirected",
    );
  }
  if (response.status === 402) {
    throw new PaidNotServed("The payee asks for payment again after it was paid.", paid, response, ASKED_AGAIN);
  }
  if (response.status >= 500) unserved(paid);
  return response;
}

/** Why the same payment is to be shown again later: `settlement-pending`, or a 503 that says when. Null when it is not. */
async function waitsFor(response: Response): Promise<string | null> {
  if (response.status !== 402 && response.status !== 503) return null;
  const body: unknown = await response
    .clone()
    .json()
    .catch(() => null);
  const code = (body as { code?: unknown } | null)?.code;
  if (code === "settlement-pending" || code === "exposure-exceeded") return code;
  if (response.status === 402 || !response.headers.has("retry-after")) return null;
  return typeof code === "string" ? code : "later";
}

function requiredOf(header: string): { accepts: unknown[] } {
  try {
    const required: unknown = JSON.parse(toUtf8String(decodeBase64(header)));
    const { accepts } = required as { accepts: unknown };
    if (Array.isArray(accepts)) return { ...(required as object), accepts };
  } catch {
    // told below
  }
  throw new BursarError("malformed-input", "The PAYMENT-REQUIRED header is not base64 of an x402 demand.", {
    value: header.slice(0, 80),
  });
}

/** A browser without `Request.body` has no streams to send either, so what it holds is in memory already. */
async function readAll(request: Request, maxBody: number): Promise<Uint8Array<ArrayBuffer>> {
  const stream = request.body as ReadableStream<Uint8Array> | null | undefined;
  if (stream === null) return new Uint8Array();
  const chunks = stream === undefined ? [new Uint8Array(await request.arrayBuffer())] : chunksOf(stream);
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
    if (size > maxBody) {
      throw new BursarError(
        "body-too-large",
        `A paid request's body is kept in memory; this one has more than ${maxBody} bytes.`,
        { value: size, limit: maxBody },
        "Raise maxBody, or send less.",
      );
    }
    parts.push(chunk);
  }
  return joined(parts, size);
}

async function* chunksOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } finally {
    await reader.cancel();
  }
}

function joined(parts: readonly Uint8Array[], size: number): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(size);
  let offset = 0;
  for (const part of parts) {
    body.set(part, offset);
    offset += part.length;
  }
  return body;
}
