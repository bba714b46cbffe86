import { BursarError, PAYMENT_HEADER } from "@bursar/protocol";
import type { Context, MiddlewareHandler } from "hono";

import { PAYMENT_RESPONSE_HEADER, refusal, type Ask } from "./ask.ts";
import type { Paid, Paywall, RouteOptions, Serve } from "./paywall.ts";
import { pricing, type Price } from "./price.ts";
import { absoluteUrl } from "./target.ts";

const MAX_BODY = 1_048_576;

const payments = new WeakMap<Request, Paid>();

/** What hono has read of a body; its own type leaves the promises out. */
interface BodyCache {
  arrayBuffer?: Promise<ArrayBuffer>;
  readonly text?: Promise<string>;
}

/**
 * Lets a route of hono be paid for: `app.get("/weather", paid(paywall, "0.00025"), handler)`. The body's bytes are kept,
 * and read once: `c.req.json()` and the like work in the handler.
 *
 * @param price what the request costs, or a function that says it; null and 0 are free.
 * @throws BursarError `malformed-input`, `amount-zero`, `amount-too-large` for a fixed price that is no amount.
 */
export function paid(paywall: Paywall, price: Price<Context>, options: RouteOptions = {}): MiddlewareHandler {
  const priceOf = pricing(price);
  return async (c, next) => {
    const admission = await admit(paywall, c, await priceOf(c), options);
    if (admission.kind === "ask") {
      return new Response(admission.body, { status: admission.status, headers: admission.headers });
    }
    if (admission.paid === null) return next();
    payments.set(c.req.raw, admission.paid);
    try {
      await next();
    } catch (error) {
      await given(admission);
      throw error;
    }
    if (c.res.status >= 500) {
      await given(admission);
      c.header(PAYMENT_RESPONSE_HEADER, undefined);
      return;
    }
    // A key that is out of reach holds no answer back: who paid is told that there is no delivery.
    const delivery = await admission.delivered?.(await bytesOf(c.res)).catch(() => undefined);
    for (const [name, value] of Object.entries({ ...admission.headers, ...delivery })) c.header(name, value);
  };
}

/** What is answered, unless it is told piece by piece. */
async function bytesOf(response: Response): Promise<Uint8Array | undefined> {
  if (response.headers.get("content-type")?.startsWith("text/event-stream")) return undefined;
  if (response.headers.get("transfer-encoding") === "chunked") return undefined;
  return new Uint8Array(await response.clone().arrayBuffer());
}

/** The payment that bought this request, or null when it was free. */
export function paidOf(c: Context): Paid | null {
  return payments.get(c.req.raw) ?? null;
}

async function admit(paywall: Paywall, c: Context, price: bigint, options: RouteOptions): Promise<Ask | Serve> {
  const { method, url } = c.req;
  try {
    return await paywall.admit({
      method,
      url: absoluteUrl(paywall.origin ?? new URL(url).origin, url),
      body: price === 0n ? undefined : await bodyOf(c, options.maxBody ?? MAX_BODY),
      header: c.req.header(PAYMENT_HEADER),
      price,
      description: options.description,
      serving: options.serving,
    });
  } catch (error) {
    if (!(error instanceof BursarError) || error.code !== "body-too-large") throw error;
    return refusal(error, { head: false, retryAfter: 0, terms: () => Promise.reject(error) });
  }
}

/** Gives a receipt back before the failure is told. A store that fails keeps it used. */
function given(admission: Serve): Promise<void> {
  return admission.failed().catch(() => undefined);
}

/** @throws BursarError `body-too-large` */
async function bodyOf(c: Context, most: number): Promise<Uint8Array | string | null | undefined> {
  const { raw } = c.req;
  const bodyCache = c.req.bodyCache as unknown as BodyCache;
  if (bodyCache.arrayBuffer !== undefined) return new Uint8Array(await bodyCache.arrayBuffer);
  if (bodyCache.text !== undefined) return whole(await bodyCache.text);
  if (raw.body === null) return undefined;
  if (raw.bodyUsed) return null;
  const bytes = await readAll(raw.body, most);
  bodyCache.arrayBuffer = Promise.resolve(bytes.buffer);
  return bytes;
}

/** Text stands for its bytes unless some of them were no UTF-8. */
function whole(text: string): string | null {
  return text.includes("\uFFFD") ? null : text;
}

async function readAll(stream: ReadableStream<Uint8Array>, most: number): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let size = 0;
  const reader = stream.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.length;
    if (size > most) {
      await reader.cancel();
      throw new BursarError("body-too-large", `The body has more than ${most} bytes.`, { value: size, limit: most });
    }
    parts.push(part.value);
  }
  const body = new Uint8Array(size);
  let offset = 0;
  for (const part of parts) {
    body.set(part, offset);
    offset += part.length;
  }
  return body;
}
