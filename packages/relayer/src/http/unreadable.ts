import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";

import { BursarError, problem } from "@bursar/protocol";
import type { FastifyReply, FastifyRequest } from "fastify";

const UNREADABLE = new BursarError("malformed-input", "The request cannot be read.");

/** Answers a request whose URL does not decode or is too long, without saying it again: no route has seen it. */
export function answerBadUrl(_error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  request.log.info({ res: { statusCode: 400 } }, "answered");
  void reply.status(400).type("application/problem+json").send(problem(UNREADABLE));
}

/** Answers bytes that are no HTTP, and headers that are too long or do not come. */
export function answerBadBytes(error: Error & { code?: string }, socket: Socket): void {
  if (socket.writable && error.code !== "ECONNRESET") {
    const status = STATUSES[error.code ?? ""] ?? 400;
    const body = JSON.stringify({ ...problem(UNREADABLE), status });
    const head = [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      "content-type: application/problem+json",
      `content-length: ${Buffer.byteLength(body)}`,
      "connection: close",
    ];
    socket.write(`${head.join("\r\n")}\r\n\r\n${body}`);
  }
  socket.destroy();
}

const STATUSES: Readonly<Record<string, number>> = { ERR_HTTP_REQUEST_TIMEOUT: 408, HPE_HEADER_OVERFLOW: 431 };
