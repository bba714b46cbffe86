import {
  addressSchema,
  BursarError,
  parseWire,
  signedPaymentSchema,
  signedReceiptSchema,
  toWire,
  uint64Schema,
  type Address,
} from "@bursar/protocol";
import { SpanKind } from "@opentelemetry/api";
import { z } from "zod";

import type { PaymentView, Processor } from "../processor.ts";
import { contextOf, traced } from "../trace.ts";
import { concerns, forbidden, type Readers } from "./access.ts";
import { routeSchema, type Routes } from "./route.ts";

const REFUSALS = [
  "malformed-input",
  "mandate-unknown",
  "mandate-revoked",
  "mandate-expired",
  "signature-signer",
  "sequence-gap",
  "sequence-taken",
  "above-payment-cap",
  "above-budget",
  "payee-not-allowed",
  "payee-unknown",
  "not-held",
  "payee-not-admitted",
  "off-mission-host",
  "off-mission-category",
  "above-price",
  "above-rate",
  "above-daily-limit",
  "above-allowance",
  "too-many-requests",
  "books-behind",
  "store-unavailable",
] as const;

const STATUSES = ["accepted", "batched", "proving", "submitted", "settled", "claimable", "failed"] as const;
const placeSchema = z.strictObject({ agent: addressSchema, seq: uint64Schema });
const checkedSchema = z.object({ accepted: z.literal(true), remaining: uint64Schema });
const viewSchema = z.object({
  status: z.enum(STATUSES),
  agent: addressSchema,
  seq: uint64Schema,
  payee: addressSchema,
  amount: uint64Schema,
  ref: z.string(),
  head: z.string(),
  settleBy: uint64Schema,
  logIndex: uint64Schema,
  receipt: signedReceiptSchema,
  batch: z.number().nullable(),
  transaction: z.string().nullable(),
});

/** Payments: to be accepted, to be tried, to be followed. */
export function paymentRoutes(processor: Processor, readers: Readers): Routes {
  return (server) => {
    server.post(
      "/payments",
      {
        schema: routeSchema({
          summary: "Accept a signed payment; the same one again gets the same receipt",
          tags: ["payments"],
          body: signedPaymentSchema,
          answer: signedReceiptSchema,
          errors: REFUSALS,
        }),
      },
      (request) =>
        traced(
          "POST /payments",
          { kind: SpanKind.SERVER, attributes: { "bursar.chain_id": String(processor.domain.chainId) } },
          async () => toWire(await processor.accept(parseWire(signedPaymentSchema, request.body))),
          contextOf(request.headers["traceparent"]),
        ),
    );

    server.post(
      "/payments/check",
      {
        schema: routeSchema({
          summary: "Decide like POST /payments, without effect",
          tags: ["payments"],
          body: signedPaymentSchema,
          answer: checkedSchema,
          errors: REFUSALS,
        }),
      },
      async (request) => {
        const { remaining } = await processor.check(parseWire(signedPaymentSchema, request.body));
        return { accepted: true, remaining: String(remaining) };
      },
    );

    server.get(
      "/payments/:agent/:seq",
      {
        schema: routeSchema({
          summary: "How far a payment has come",
          tags: ["payments"],
          params: placeSchema,
          answer: viewSchema,
          errors: ["unauthorised", "forbidden", "not-found"],
        }),
      },
      async (request) => {
        const who = await readers.who(request);
        const { agent, seq } = parseWire(placeSchema, request.params);
        const payment = await processor.payment(agent, seq);
        if (!concerns(who, agent, ...(await partiesOf(processor, agent, payment)))) throw forbidden();
        if (payment !== undefined) return toWire(payment);
        throw new BursarError("not-found", `There is no payment ${seq} of ${agent}.`, { value: seq });
      },
    );
  };
}

/** Who else than the agent may know of a payment, or that there is none: its owner, and the payee of one that there is. */
async function partiesOf(processor: Processor, agent: Address, payment: PaymentView | undefined): Promise<Address[]> {
  const owner = (await processor.knows(agent)) ? [(await processor.status(agent)).mandate.owner] : [];
  return payment === undefined ? owner : [...owner, payment.payee, await processor.holderOf(payment.payee)];
}
