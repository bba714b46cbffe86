import { createHash, timingSafeEqual } from "node:crypto";

import { BursarError } from "@bursar/protocol";
import fastify, { LogController, type FastifyBaseLogger, type FastifyInstance } from "fastify";

import { answerProblems, readJsonOnly, withoutPlaces } from "../http/problems.ts";
import { answerBadBytes, answerBadUrl } from "../http/unreadable.ts";
import type { Intake } from "./intake.ts";

export interface CounterOptions {
  readonly intake: Intake;
  /** Whoever sends it as bearer may hand in receipts. */
  readonly token: string;
  readonly logger: FastifyBaseLogger;
}

/** A payment with its receipt has under 4 KiB. */
const BODY_LIMIT = 65_536;
const BEARER = "Bearer ";

/** Where receipts are handed in over HTTP: `POST /receipts`, one at a time. */
export function createCounter({ intake, token, logger }: CounterOptions): FastifyInstance {
  const server = fastify({
    bodyLimit: BODY_LIMIT,
    loggerInstance: logger,
    requestTimeout: 10_000,
    keepAliveTimeout: 5_000,
    http: { headersTimeout: 5_000, connectionsCheckingInterval: 1_000 },
    logController: new LogController({ disableRequestLogging: true }),
    frameworkErrors: answerBadUrl,
    clientErrorHandler: answerBadBytes,
  });
  answerProblems(server, BODY_LIMIT);
  readJsonOnly(server);
  const expected = digest(token);
  server.addHook("onRequest", (request, _reply, done) => {
    const { authorization = "" } = request.headers;
    const known =
      authorization.startsWith(BEARER) && timingSafeEqual(digest(authorization.slice(BEARER.length)), expected);
    done(known ? undefined : new BursarError("unauthorised", "The bearer is not the watcher's token."));
  });
  server.post("/receipts", async (request, reply) => {
    const taken = await intake.take(request.body).catch((error: unknown) => {
      throw error instanceof BursarError ? withoutPlaces(error) : error;
    });
    return reply.status(taken.kept ? 201 : 200).send({ ...taken, seq: taken.seq.toString() });
  });
  return server;
}

/** Of one length, whatever was sent. */
const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
