import {
  BursarError,
  decodePaymentHeader,
  encodePaymentRequired,
  PAYMENT_HEADER,
  PAYMENT_REQUIRED_HEADER,
  problem,
  requestRef,
  verifyPaid,
  type Address,
  type Domain,
} from "@bursar/protocol";
import fastify, { type FastifyInstance } from "fastify";

export interface ServiceOptions {
  name: string;
  domain: Domain;
  token: Address;
  payee: Address;
  /** Units for one call. */
  price: bigint;
  /** The processor whose receipts it takes. */
  processor: Address;
  answer: (topic: string) => unknown;
}

/**
 * A service that is paid per call: without payment it answers 402 and says what it wants; with one it verifies
 * payment and receipt offline, uses the receipt once, and serves.
 */
export function createService(options: ServiceOptions): FastifyInstance {
  const { domain, token, payee, price: amount, processor } = options;
  const used = new Set<string>();
  const service = fastify();
  service.get<{ Params: { topic: string } }>("/v1/:topic", (request, reply) => {
    const url = `http://${request.headers.host}${request.url}`;
    const ref = requestRef({ method: "GET", url });
    const header = request.headers[PAYMENT_HEADER.toLowerCase()];
    try {
      if (typeof header !== "string")
        throw new BursarError("payment-missing", `${amount} units are asked.`, { value: 0n, limit: amount });
      const paid = decodePaymentHeader(header);
      verifyPaid(paid, { domain, payee, amount, ref, processor, now: BigInt(Math.floor(Date.now() / 1_000)) });
      const { agent, seq } = paid.receipt.receipt;
      const receipt = `${agent}:${seq}`;
      if (used.has(receipt))
        throw new BursarError("receipt-used", `Receipt ${seq} of ${agent} was used.`, { value: receipt });
      used.add(receipt);
    } catch (error) {
      const body = problem(error);
      return reply
        .status(body.status < 500 ? 402 : 500)
        .header(
          PAYMENT_REQUIRED_HEADER,
          encodePaymentRequired({
            domain,
            token,
            payee,
            amount,
            ref,
            url,
            processors: [processor],
            description: options.name,
          }),
        )
        .type("application/problem+json")
        .send(body);
    }
    return reply.send(options.answer(request.params.topic));
  });
  return service;
}
