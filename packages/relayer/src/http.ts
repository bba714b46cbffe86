import {
  addressSchema,
  BursarError,
  mandateSchema,
  parseAddress,
  parseWire,
  problem,
  revocationSchema,
  signatureSchema,
  signedPaymentSchema,
  termsSchema,
  toWire,
  type Problem,
} from "@bursar/protocol";
import fastify, { type FastifyInstance, type FastifyReply } from "fastify";
import { z } from "zod";

import type { Processor } from "./processor.ts";

/** The largest request body, in bytes: a signed payment has under 2 KiB. */
const BODY_LIMIT = 65_536;

const registrationSchema = z.strictObject({ mandate: mandateSchema, terms: termsSchema });
const signedRevocationSchema = z.strictObject({ revocation: revocationSchema, signature: signatureSchema });
const agentSchema = z.strictObject({ agent: addressSchema });

/**
 * The processor over HTTP. Amounts are decimal strings of units; errors are Problem Details (RFC 9457).
 *
 * - `POST /mandates` takes `{mandate, terms}`: take up a mandate that is open on chain.
 * - `POST /payments` takes a signed payment and answers with the receipt, the same for the same payment.
 * - `POST /payments/check` decides like `POST /payments`, without effect.
 * - `POST /revocations` takes `{revocation, signature}` of the owner: stop at once.
 * - `GET /mandates/:agent` tells what is accepted, settled and left.
 * - `GET /health`.
 */
export function createServer(processor: Processor): FastifyInstance {
  const server = fastify({ bodyLimit: BODY_LIMIT, requestTimeout: 10_000, keepAliveTimeout: 5_000 });

  server.setErrorHandler((error, _request, reply) => sendProblem(reply, problemOf(error)));
  server.setNotFoundHandler((request, reply) =>
    sendProblem(reply, { ...unrouted, detail: `No ${request.method} ${request.url.split("?")[0]}` }),
  );

  server.get("/health", () => ({ status: "ok" }));

  server.post("/mandates", async (request, reply) => {
    const { mandate, terms } = parseWire(registrationSchema, request.body);
    await processor.register(mandate, terms);
    return reply.status(201).send(toWire(processor.status(mandate.agent)));
  });

  server.get("/mandates/:agent", (request) =>
    toWire(processor.status(parseAddress(parseWire(agentSchema, request.params).agent))),
  );

  server.post("/payments", async (request) =>
    toWire(await processor.accept(parseWire(signedPaymentSchema, request.body))),
  );

  server.post("/payments/check", (request) => {
    processor.check(parseWire(signedPaymentSchema, request.body));
    return { accepted: true };
  });

  server.post("/revocations", (request) => {
    const { revocation, signature } = parseWire(signedRevocationSchema, request.body);
    processor.revoke(revocation, signature);
    return toWire(processor.status(revocation.agent));
  });

  return server;
}

const unrouted: Problem = {
  type: "about:blank",
  title: "Not found",
  status: 404,
  detail: "",
  code: "malformed-input",
  details: {},
};

/** What fastify itself refuses (a body that is no JSON or too large) is the caller's error, with fastify's status. */
function problemOf(error: unknown): Problem {
  const status = (error as { statusCode?: unknown }).statusCode;
  if (error instanceof BursarError || typeof status !== "number" || status >= 500) return problem(error);
  const malformed = problem(new BursarError("malformed-input", (error as Error).message, { limit: BODY_LIMIT }));
  return { ...malformed, status };
}

function sendProblem(reply: FastifyReply, body: Problem): FastifyReply {
  return reply.status(body.status).type("application/problem+json").send(body);
}
