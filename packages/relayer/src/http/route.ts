import type { ErrorCode } from "@bursar/protocol";
import type { FastifyInstance, FastifySchema } from "fastify";
import { z } from "zod";

/** A group of routes, added to a server. */
export type Routes = (server: FastifyInstance) => void;

export interface RouteDescription {
  /** One line for a reader of the API. */
  readonly summary: string;
  readonly tags: readonly string[];
  readonly params?: z.ZodType;
  readonly querystring?: z.ZodType;
  readonly body?: z.ZodType;
  /** What is answered when nothing is wrong; 200 unless `status` says otherwise. */
  readonly answer?: z.ZodType;
  readonly status?: number;
  /** The refusals that a caller should expect; `unauthorised` where it has to say who it is. */
  readonly errors?: readonly ErrorCode[];
}

/**
 * What a route says of itself in the OpenAPI document. It documents only: input is parsed once, in the handler, with
 * the same zod schema (`parseWire`).
 */
export function routeSchema(route: RouteDescription): FastifySchema {
  const { summary, tags, params, querystring, body, answer, status = 200, errors = [] } = route;
  return {
    summary,
    tags: [...tags],
    ...(errors.length === 0 ? {} : { description: `Refusals: ${errors.join(", ")}.` }),
    ...(params === undefined ? {} : { params: jsonSchema(params) }),
    ...(querystring === undefined ? {} : { querystring: jsonSchema(querystring) }),
    ...(body === undefined ? {} : { body: jsonSchema(body) }),
    ...(errors.includes("unauthorised") ? { security: READERS } : {}),
    ...(answer === undefined ? {} : { response: { [status]: jsonSchema(answer) } }),
  };
}

function jsonSchema(schema: z.ZodType): unknown {
  return z.toJSONSchema(schema, { io: "input", unrepresentable: "any", target: "draft-2020-12" });
}

const READERS = [{ access: [] }, { key: [] }];

/** What a refusal looks like. It stands in the document alone: on a route it would shape what is answered. */
export const REFUSAL = {
  description: "A refusal, as Problem Details (RFC 9457)",
  content: {
    "application/problem+json": {
      schema: jsonSchema(
        z.object({
          type: z.string(),
          title: z.string(),
          status: z.number(),
          detail: z.string(),
          code: z.string().describe("a stable name for what went wrong"),
          details: z.record(z.string(), z.string()).describe("the offending value, its limit, and the like"),
          advice: z.string().optional().describe("what to do instead"),
        }),
      ),
    },
  },
};
