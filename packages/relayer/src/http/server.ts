import { BursarError } from "@bursar/protocol";
import cors from "@fastify/cors";
import swagger from "@fastify/swagger";
import fastify, { LogController, type FastifyBaseLogger, type FastifyInstance, type FastifySchema } from "fastify";

import type { ApiKeys } from "../api-keys.ts";
import type { Processor } from "../processor.ts";
import { Readers } from "./access.ts";
import { publicRoutes, type Place } from "./info.ts";
import { ledgerRoutes } from "./ledger.ts";
import { mandateRoutes } from "./mandates.ts";
import type { Metrics } from "./metrics.ts";
import { paymentRoutes } from "./payments.ts";
import { answerProblems, readJsonOnly } from "./problems.ts";
import { receiptRoutes } from "./receipts.ts";
import { REFUSAL, type Routes } from "./route.ts";
import { answerBadBytes, answerBadUrl } from "./unreadable.ts";

export interface ServerOptions {
  /** For `GET /info`. */
  readonly place?: Place;
  /** Whose bearers may read; accounts with a signed access may without. */
  readonly keys?: Pick<ApiKeys, "scopeOf">;
  /** Further groups of routes, such as those of intents, payees, x402 and AEP2. */
  readonly routes?: readonly ((readers: Readers) => Routes)[];
  readonly metrics?: Metrics;
  readonly logger?: FastifyBaseLogger;
  /** Origins whose pages may call, none unless given. */
  readonly origins?: readonly string[];
  /** Bytes of a body; 65,536 unless given. */
  readonly bodyLimit?: number;
  /** Connections at once; 10,000 unless given. */
  readonly maxConnections?: number;
  /** Asked for each request with the client's address; throws `too-many-requests` to hold it back. */
  readonly admit?: ((address: string) => void) | undefined;
  /** Proxies, by address or network, whose `X-Forwarded-For` is believed; none unless given. */
  readonly trustedProxies?: readonly string[];
}

/** A signed payment has under 2 KiB. */
const BODY_LIMIT = 65_536;

/**
 * The processor over HTTP; `GET /openapi.json` describes it. Amounts are decimal strings of units; errors are Problem
 * Details (RFC 9457).
 */
export function createServer(processor: Processor, options: ServerOptions = {}): FastifyInstance {
  const { place, keys, routes = [], metrics, logger, origins = [], bodyLimit = BODY_LIMIT } = options;
  const { admit, trustedProxies = [] } = options;
  const server = fastify({
    bodyLimit,
    ...(logger === undefined ? {} : { loggerInstance: logger }),
    requestTimeout: 10_000,
    keepAliveTimeout: 5_000,
    http: { headersTimeout: 5_000, connectionsCheckingInterval: 1_000 },
    return503OnClosing: false,
    ...(trustedProxies.length === 0 ? {} : { trustProxy: [...trustedProxies] }),
    logController: new LogController({ disableRequestLogging: true }),
    frameworkErrors: answerBadUrl,
    clientErrorHandler: answerBadBytes,
    routerOptions: { maxParamLength: 200 },
  });
  server.server.maxConnections = options.maxConnections ?? 10_000;
  // Schemas document; handlers parse.
  server.setValidatorCompiler(() => () => true);
  server.setSerializerCompiler(() => (answer) => JSON.stringify(answer));
  answerProblems(server, bodyLimit);
  readJsonOnly(server);
  metrics?.watch(server);
  logEachRequest(server);
  refuseWhileClosing(server);
  if (admit !== undefined) {
    server.addHook("onRequest", (request, _reply, done) => {
      admit(request.ip);
      done();
    });
  }
  const readers = new Readers({ domain: processor.domain, keys, now: () => processor.now() });

  if (origins.length > 0) void server.register(cors, { origin: [...origins], exposedHeaders: ["retry-after"] });
  void server.register(swagger, { openapi: DOCUMENT, transform: withRefusal });
  void server.register((scope, _options, done) => {
    const groups = [
      publicRoutes(processor, place),
      mandateRoutes(processor, readers),
      paymentRoutes(processor, readers),
      receiptRoutes(processor),
      ledgerRoutes(processor, readers),
      ...routes.map((group) => group(readers)),
    ];
    for (const group of groups) group(scope);
    scope.get("/openapi.json", { schema: { hide: true } }, () => scope.swagger());
    done();
  });
  return server;
}

/** One line a request, when it is answered. */
function logEachRequest(server: FastifyInstance): void {
  server.addHook("onResponse", (request, reply, done) => {
    request.log.info({ req: request, res: reply, responseTime: reply.elapsedTime }, "answered");
    done();
  });
}

/** A connection that is kept open may still ask while the rest is being finished. */
function refuseWhileClosing(server: FastifyInstance): void {
  let closing = false;
  server.addHook("preClose", () => {
    closing = true;
  });
  server.addHook("onRequest", (_request, _reply, done) => {
    if (!closing) {
      done();
      return;
    }
    done(new BursarError("shutting-down", "The service is shutting down.", {}, "Send the same request again later."));
  });
  // What was begun before is answered, and its connection not waited for.
  server.addHook("onSend", (_request, reply, payload, done) => {
    if (closing) reply.header("connection", "close");
    done(null, payload);
  });
}

function withRefusal({ schema, url }: { schema: FastifySchema; url: string }): { schema: FastifySchema; url: string } {
  return { schema: { ...schema, response: { ...(schema.response as object | undefined), default: REFUSAL } }, url };
}

const DOCUMENT = {
  openapi: "3.1.0",
  info: {
    title: "Bursar processor",
    version: "1",
    description:
      "Payments of agents inside signed mandates. Amounts are decimal strings of units; errors are Problem Details (RFC 9457) with a stable `code`, `details` and `advice`.",
  },
  components: {
    securitySchemes: {
      access: {
        type: "apiKey",
        in: "header",
        name: "Authorization",
        description: "Bursar <base64 of a signed Access>",
      },
      key: { type: "http", scheme: "bearer", description: "An API key of the operator" },
    },
  },
} as const;
