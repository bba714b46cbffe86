import { PAYMENT_HEADER } from "@bursar/protocol";
import type { FastifyReply, FastifyRequest, RequestPayload } from "fastify";
import { Transform } from "node:stream";

import { PAYMENT_RESPONSE_HEADER } from "./ask.ts";
import type { Paid, Paywall, RouteOptions, Serve } from "./paywall.ts";
import { pricing, type Price } from "./price.ts";
import { absoluteUrl } from "./target.ts";

const MAX_BODY = 1_048_576;

/** A body as it came; null until all of it did, and for ever when it is too large to keep. */
interface Kept {
  bytes: Uint8Array | null;
}

/** The hooks of a paid route. */
export interface PaidRoute {
  readonly preParsing: (
    request: FastifyRequest,
    reply: FastifyReply,
    payload: RequestPayload,
  ) => Promise<RequestPayload>;
  readonly preHandler: (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>;
  readonly onSend: (request: FastifyRequest, reply: FastifyReply, payload: unknown) => Promise<unknown>;
}

const bodies = new WeakMap<FastifyRequest, Kept>();
const admissions = new WeakMap<FastifyRequest, Serve>();

/**
 * Lets a route of fastify be paid for: `app.get("/weather", paid(paywall, "0.00025"), handler)`. The body's bytes are
 * kept on their way to the parser. To add other route options: `{ ...paid(paywall, price), schema }`.
 *
 * @param price what the request costs, or a function that says it; null and 0 are free.
 * @throws BursarError `malformed-input`, `amount-zero`, `amount-too-large` for a fixed price that is no amount.
 */
export function paid(paywall: Paywall, price: Price<FastifyRequest>, options: RouteOptions = {}): PaidRoute {
  const priceOf = pricing(price);
  return {
    preParsing: (request, _reply, payload) => Promise.resolve(keep(request, payload, options.maxBody ?? MAX_BODY)),
    preHandler: async (request, reply) => {
      const admission = await paywall.admit({
        method: request.method,
        url: absoluteUrl(paywall.origin ?? `${request.protocol}://${request.host}`, request.originalUrl),
        body: bodies.get(request)?.bytes,
        header: headerOf(request),
        price: await priceOf(request),
        description: options.description,
        serving: options.serving,
      });
      reply.headers(admission.headers);
      if (admission.kind === "ask") return reply.status(admission.status).send(admission.body ?? undefined);
      if (admission.paid !== null) admissions.set(request, admission);
      return undefined;
    },
    onSend: async (request, reply, payload) => {
      const admission = admissions.get(request);
      if (admission !== undefined && reply.statusCode >= 500) {
        reply.removeHeader(PAYMENT_RESPONSE_HEADER);
        await admission.failed().catch(() => undefined);
      } else {
        const whole = typeof payload === "string" || payload instanceof Uint8Array ? payload : undefined;
        // A key that is out of reach holds no answer back: who paid is told that there is no delivery.
        const delivery = await admission?.delivered?.(whole).catch(() => undefined);
        if (delivery !== undefined) reply.headers(delivery);
      }
      return payload;
    },
  };
}

/** The payment that bought this request, or null when it was free. */
export function paidOf(request: FastifyRequest): Paid | null {
  return admissions.get(request)?.paid ?? null;
}

function headerOf(request: FastifyRequest): string | undefined {
  const value = request.headers[PAYMENT_HEADER.toLowerCase()];
  return Array.isArray(value) ? value.join(", ") : value;
}

function keep(request: FastifyRequest, payload: RequestPayload, most: number): RequestPayload {
  const length = request.headers["content-length"];
  if (request.headers["transfer-encoding"] === undefined && (length === undefined || length === "0")) return payload;
  const kept: Kept = { bytes: null };
  bodies.set(request, kept);
  const parts: Buffer[] = [];
  let size = 0;
  const through: Transform & { receivedEncodedLength?: number } = new Transform({
    transform(part: Buffer, _encoding, done) {
      size += part.length;
      through.receivedEncodedLength = size;
      if (size <= most) parts.push(part);
      else parts.length = 0;
      done(null, part);
    },
    flush(done) {
      if (size <= most) kept.bytes = Buffer.concat(parts);
      done();
    },
  });
  payload.once("error", (error) => through.destroy(error));
  return payload.pipe(through);
}
