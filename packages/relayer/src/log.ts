import pino, { type DestinationStream, type Logger } from "pino";

/** Places in which a secret, or what is as good as one, could stand. */
const SECRETS = [
  "req.headers.authorization",
  'req.headers["payment-signature"]',
  'req.headers["x-payment-mandate"]',
  "*.password",
  "*.privateKey",
  "*.signature",
  "*.salt",
  "*.key",
];

/** Of a request the log tells method and path: a query may hold what is nobody's business. */
function requestOf({ method, url }: { method: string; url: string }): { method: string; url: string } {
  return { method, url: url.split("?", 1)[0]! };
}

/** The log of a service: a line of JSON for each request and each round, and no secret in any. */
export function createLogger(level: string, destination: DestinationStream): Logger {
  const redact = { paths: SECRETS, censor: "[hidden]" };
  return pino({ level, redact, base: null, serializers: { req: requestOf } }, destination);
}
