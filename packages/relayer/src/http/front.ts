import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

import { addressSchema, BursarError, uint256Schema, type Address } from "@bursar/protocol";
import cors from "@fastify/cors";
import fastify, { LogController, type FastifyBaseLogger, type FastifyInstance } from "fastify";
import { z } from "zod";

import { infoSchema } from "./info.ts";
import { answerProblems, readJsonOnly } from "./problems.ts";
import { routeSchema } from "./route.ts";
import { answerBadBytes, answerBadUrl } from "./unreadable.ts";

/** One of the chains behind a front. */
export interface Door {
  readonly name: string;
  readonly chainId: bigint;
  readonly registry: Address;
  /** What answers below `/chains/<name>`; null while it does not stand. */
  readonly server: FastifyInstance | null;
  /** Why it does not. */
  readonly failure: BursarError | null;
}

export interface FrontOptions {
  readonly logger: FastifyBaseLogger;
  /** Origins whose pages may call. */
  readonly origins: readonly string[];
  /** Bytes. */
  readonly bodyLimit: number;
  readonly maxConnections: number;
}

const doorSchema = z.object({
  name: z.string(),
  path: z.string(),
  ready: z.boolean(),
  chainId: uint256Schema,
  registry: addressSchema,
  info: infoSchema.optional(),
});

/** Where a chain's API stands. */
export const doorPath = (name: string): string => `/chains/${name}`;

/**
 * One listener for the APIs of several chains: each answers below `/chains/<name>` as if it stood at the root; `GET /chains` lists
 * them. One that does not stand yet is answered for, with 503.
 */
export function createFront(doors: readonly Door[], options: FrontOptions): FastifyInstance {
  const { logger, origins, bodyLimit, maxConnections } = options;
  const front = fastify({
    loggerInstance: logger,
    bodyLimit,
    return503OnClosing: false,
    logController: new LogController({ disableRequestLogging: true }),
    frameworkErrors: answerBadUrl,
    serverFactory: (answer) => listenerOf(doors, answer),
  });
  front.server.maxConnections = maxConnections;
  front.setValidatorCompiler(() => () => true);
  answerProblems(front, bodyLimit);
  readJsonOnly(front);
  if (origins.length > 0) void front.register(cors, { origin: [...origins] });
  front.get("/health", () => ({ status: "ok" }));
  front.get(
    "/chains",
    {
      schema: routeSchema({
        summary: "The chains of this service, each with its path and what GET /info says there",
        tags: ["service"],
        answer: z.object({ chains: z.array(doorSchema) }),
      }),
    },
    async () => ({ chains: await Promise.all(doors.map(describe)) }),
  );
  const refuse = (name: string): never => {
    const door = doors.find((one) => one.name === name);
    if (door === undefined) throw unknownChain(name, doors);
    throw new BursarError(
      door.failure?.code === "store-unavailable" ? "store-unavailable" : "chain-unavailable",
      `The service of ${name} does not stand yet.`,
      { value: name },
      "Send the same request again later.",
    );
  };
  for (const url of ["/chains/:name", "/chains/:name/*"]) {
    front.all<{ Params: { name: string } }>(url, ({ params }) => refuse(params.name));
  }
  return front;
}

/** Requests of a chain that stands go to its own server, without the prefix; all others to the front's. */
function listenerOf(
  doors: readonly Door[],
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): ReturnType<typeof createServer> {
  const server = createServer({ headersTimeout: 5_000, connectionsCheckingInterval: 1_000 }, (request, response) => {
    const [prefix, name] = PREFIX.exec(request.url ?? "") ?? [];
    const open = prefix === undefined ? undefined : doors.find((door) => door.name === name)?.server;
    if (!open) {
      answer(request, response);
      return;
    }
    const rest = request.url!.slice(prefix!.length);
    request.url = rest.startsWith("/") ? rest : `/${rest}`;
    open.routing(request, response);
  });
  server.requestTimeout = 10_000;
  server.keepAliveTimeout = 5_000;
  server.on("clientError", answerBadBytes);
  return server;
}

const PREFIX = /^\/chains\/([a-z0-9-]{1,32})(?=[/?]|$)/;

async function describe({ name, chainId, registry, server }: Door): Promise<unknown> {
  const door = { name, path: doorPath(name), ready: server !== null, chainId: String(chainId), registry };
  return server === null ? door : { ...door, info: (await server.inject("/info")).json<unknown>() };
}

function unknownChain(name: string, doors: readonly Door[]): BursarError {
  const limit = doors.map((door) => door.name).join(" ");
  return new BursarError("not-found", "This service has no such chain.", { value: name, limit }, "See GET /chains.");
}
