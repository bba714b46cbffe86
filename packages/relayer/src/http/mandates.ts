import {
  addressSchema,
  fieldSchema,
  lineSchema,
  mandateSchema,
  parseWire,
  paymentSchema,
  revocationSchema,
  signatureSchema,
  termsSchema,
  toWire,
  uint64Schema,
} from "@bursar/protocol";
import { z } from "zod";

import type { Processor } from "../processor.ts";
import { concerns, forbidden, type Readers } from "./access.ts";
import { routeSchema, type Routes } from "./route.ts";

const registrationSchema = z.strictObject({ mandate: mandateSchema, terms: termsSchema });
const signedRevocationSchema = z.strictObject({ revocation: revocationSchema, signature: signatureSchema });
const agentSchema = z.strictObject({ agent: addressSchema });

const registeredSchema = z.object({ agent: addressSchema, state: z.enum(["open", "revoked", "expired", "closed"]) });
const statusSchema = z.object({
  mandate: mandateSchema,
  terms: termsSchema,
  state: z.enum(["open", "revoked", "expired", "closed"]),
  accepted: z.object({ seq: uint64Schema, spent: uint64Schema }),
  settled: z.object({ base: z.string(), seq: uint64Schema, spent: uint64Schema }),
  reserved: uint64Schema,
  remaining: uint64Schema,
  revokedAt: uint64Schema.nullable(),
  closesAt: uint64Schema,
});
const tailSchema = z.object({
  seq: uint64Schema,
  spent: uint64Schema,
  base: fieldSchema,
  lines: z.array(lineSchema),
  last: z.object({ payment: paymentSchema, signature: signatureSchema }).nullable(),
});

/** Mandates: taken up, told, ended. */
export function mandateRoutes(processor: Processor, readers: Readers): Routes {
  return (server) => {
    server.post(
      "/mandates",
      {
        schema: routeSchema({
          summary: "Take up a mandate that stands open on chain and names this processor",
          tags: ["mandates"],
          body: registrationSchema,
          answer: registeredSchema,
          status: 201,
          errors: [
            "mandate-not-open",
            "wrong-processor",
            "terms-mismatch",
            "policy-mismatch",
            "mandate-conflict",
            "books-behind",
          ],
        }),
      },
      async (request, reply) => {
        const { mandate, terms } = parseWire(registrationSchema, request.body);
        await processor.register(mandate, terms);
        const { agent } = mandate;
        return reply.status(201).send({ agent, state: (await processor.status(agent)).state });
      },
    );

    server.get(
      "/mandates/:agent",
      {
        schema: routeSchema({
          summary: "What is accepted, settled and left of a mandate; for its owner and its agent",
          tags: ["mandates"],
          params: agentSchema,
          answer: statusSchema,
          errors: ["unauthorised", "forbidden", "mandate-unknown"],
        }),
      },
      async (request) => {
        const who = await readers.who(request);
        const { agent } = parseWire(agentSchema, request.params);
        const shown = who === "operator" || who === agent || (await processor.knows(agent));
        const status = shown ? await processor.status(agent) : null;
        if (status === null || !concerns(who, agent, status.mandate.owner)) throw forbidden();
        return toWire(status);
      },
    );

    server.get(
      "/mandates/:agent/tail",
      {
        schema: routeSchema({
          summary: "Where an agent's ledger stands, for the agent that resumes",
          tags: ["mandates"],
          params: agentSchema,
          answer: tailSchema,
          errors: ["unauthorised", "forbidden", "mandate-unknown"],
        }),
      },
      async (request) => {
        const who = await readers.who(request);
        const { agent } = parseWire(agentSchema, request.params);
        if (!concerns(who, agent)) throw forbidden();
        return toWire({ ...(await processor.tail(agent)).position, last: await processor.last(agent) });
      },
    );

    server.post(
      "/revocations",
      {
        schema: routeSchema({
          summary: "Stop a mandate at once, on its owner's signed word",
          tags: ["mandates"],
          body: signedRevocationSchema,
          answer: registeredSchema,
          errors: ["mandate-unknown", "signature-signer"],
        }),
      },
      async (request) => {
        const { revocation, signature } = parseWire(signedRevocationSchema, request.body);
        await processor.revoke(revocation, signature);
        const { agent } = revocation;
        return { agent, state: (await processor.status(agent)).state };
      },
    );
  };
}
