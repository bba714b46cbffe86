import { BursarError, ERRORS, problem, type ErrorCode, type Problem } from "@bursar/protocol";
import type { FastifyInstance, FastifyReply } from "fastify";

/** Levels of objects and arrays in a body. */
const MAX_DEPTH = 16;

/** Answers every error with Problem Details (RFC 9457), which tell nothing of what is behind them. */
export function answerProblems(server: FastifyInstance, bodyLimit: number): void {
  server.setErrorHandler((error, request, reply) => {
    const known = refusalOf(error, bodyLimit);
    if (known === null || OPERATORS.has(known.code)) request.log.error(error);
    return sendProblem(reply, problem(known === null ? error : withoutPlaces(known)));
  });
  server.setNotFoundHandler((_request, reply) =>
    sendProblem(reply, problem(new BursarError("not-found", "There is nothing here.", {}, "See GET /openapi.json."))),
  );
}

/** Reads bodies as JSON: nothing else, not nested deeper than any message is, and without keys that mean a prototype. */
export function readJsonOnly(server: FastifyInstance): void {
  const parse = server.getDefaultJsonParser("error", "error");
  server.removeAllContentTypeParsers();
  server.addContentTypeParser("application/json", { parseAs: "string" }, (request, body, done) => {
    const text = String(body);
    if (depthOf(text) > MAX_DEPTH) {
      done(
        new BursarError("malformed-input", `The body is nested deeper than ${MAX_DEPTH} levels.`, { limit: MAX_DEPTH }),
      );
    } else void parse(request, text, done);
  });
}

/** What is wrong on the operator's side: the words of these errors are for the log. */
const OPERATORS: ReadonlySet<ErrorCode> = new Set([
  "chain-unavailable",
  "store-unavailable",
  "key-missing",
  "key-corrupt",
]);

/** Callers are not told where the chain is asked, or where books and keys are kept. */
export function withoutPlaces(error: BursarError): BursarError {
  const { code } = error;
  if (!OPERATORS.has(code)) return error;
  return new BursarError(code, `${ERRORS[code].title}.`, {}, "Send the same request again later.");
}

/** What fastify itself refuses is the caller's error. @returns null for a fault of this side. */
function refusalOf(error: unknown, bodyLimit: number): BursarError | null {
  if (error instanceof BursarError) return error;
  const { statusCode, code } = error as { statusCode?: unknown; code?: unknown };
  if (typeof statusCode !== "number" || statusCode >= 500) return null;
  if (statusCode === 413) {
    return new BursarError("body-too-large", `A body has at most ${bodyLimit} bytes.`, { limit: bodyLimit });
  }
  if (statusCode === 415) {
    return new BursarError("unsupported-media-type", "The body is not application/json.", {
      limit: "application/json",
    });
  }
  if (code === "FST_ERR_CTP_EMPTY_JSON_BODY") return new BursarError("malformed-input", "The body is empty.");
  return new BursarError("malformed-input", "The request cannot be read.");
}

function sendProblem(reply: FastifyReply, body: Problem): FastifyReply {
  if (body.status === 429 || body.status === 503) reply.header("retry-after", "1");
  return reply.status(body.status).type("application/problem+json").send(body);
}

/** How deep brackets outside of strings are nested, as far as {@link MAX_DEPTH}. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (let i = 0; i < text.length && deepest <= MAX_DEPTH; ++i) {
    const character = text[i];
    if (character === '"') {
      for (++i; i < text.length && text[i] !== '"'; ++i) if (text[i] === "\\") ++i;
    } else if (character === "{" || character === "[") deepest = Math.max(deepest, ++depth);
    else if (character === "}" || character === "]") --depth;
  }
  return deepest;
}
