import { PAYMENT_HEADER } from "@bursar/protocol";
import type { Request, RequestHandler, Response } from "express";
import type { IncomingMessage } from "node:http";

import { PAYMENT_RESPONSE_HEADER } from "./ask.ts";
import type { Paid, Paywall, RouteOptions, Serve } from "./paywall.ts";
import { pricing, type Price } from "./price.ts";
import { absoluteUrl } from "./target.ts";

const bodies = new WeakMap<IncomingMessage, Uint8Array>();
const payments = new WeakMap<IncomingMessage, Paid>();

/**
 * Keeps the bytes of a body for the paywall: `app.use(express.json({ verify: keepBody }))`. `express.raw` needs no hook.
 */
export function keepBody(request: IncomingMessage, _response: unknown, bytes: Uint8Array): void {
  bodies.set(request, bytes);
}

/**
 * Lets a route of express be paid for: `app.get("/weather", paid(paywall, "0.00025"), handler)`. Error handlers come
 * after the routes, as always, and bodies are parsed before.
 *
 * @param price what the request costs, or a function that says it; null and 0 are free.
 * @throws BursarError `malformed-input`, `amount-zero`, `amount-too-large` for a fixed price that is no amount.
 */
export function paid(paywall: Paywall, price: Price<Request>, options: RouteOptions = {}): RequestHandler {
  const priceOf = pricing(price);
  return async (request, response, next) => {
    const origin = paywall.origin ?? `${request.protocol}://${request.host}`;
    const admission = await paywall.admit({
      method: request.method,
      url: absoluteUrl(origin, request.originalUrl),
      body: bodyOf(request),
      header: request.get(PAYMENT_HEADER),
      price: await priceOf(request),
      description: options.description,
      serving: options.serving,
    });
    response.set({ ...admission.headers });
    if (admission.kind === "ask") {
      response.status(admission.status);
      if (admission.body === null) response.end();
      else response.send(admission.body);
      return;
    }
    if (admission.paid !== null) {
      payments.set(request, admission.paid);
      beforeEnd(response, admission);
    }
    next();
  };
}

/** The payment that bought this request, or null when it was free. */
export function paidOf(request: IncomingMessage): Paid | null {
  return payments.get(request) ?? null;
}

function bodyOf(request: Request): Uint8Array | null | undefined {
  const length = request.headers["content-length"];
  if (request.headers["transfer-encoding"] === undefined && (length === undefined || length === "0")) return undefined;
  const { body, rawBody } = request as { body?: unknown; rawBody?: unknown };
  for (const bytes of [bodies.get(request), body, rawBody]) if (bytes instanceof Uint8Array) return bytes;
  return null;
}

/**
 * An answer that is a failure leaves only once the receipt is given back, so that its reader can use it again; one that is
 * not, with the payee's signed delivery, unless its head is gone already.
 */
function beforeEnd(response: Response, { failed, delivered }: Serve): void {
  const end = response.end.bind(response) as (...args: unknown[]) => Response;
  const late = (...args: unknown[]): Response => {
    if (response.statusCode >= 500) {
      if (!response.headersSent) response.removeHeader(PAYMENT_RESPONSE_HEADER);
      void failed()
        .catch(() => undefined)
        .then(() => end(...args));
      return response;
    }
    if (delivered === null || response.headersSent) return end(...args);
    const [body] = args;
    const whole = typeof body === "string" || body instanceof Uint8Array ? body : undefined;
    void delivered(whole)
      .then((headers) => response.set({ ...headers }))
      .catch(() => undefined)
      .then(() => end(...args));
    return response;
  };
  response.end = late as Response["end"];
}
