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

/** The log of a service: a line of JSON for each request and each round, and no secret in any. */
export function createLogger(level: string, destination: DestinationStream): Logger {
  return pino({ level, redact: { paths: SECRETS, censor: "[hidden]" }, base: null }, destination);
}
