import { parseWire, signedPaymentSchema, signedReceiptSchema } from "@bursar/protocol";
import { z } from "zod";

import type { Processor } from "../processor.ts";
import { routeSchema, type Routes } from "./route.ts";

/** Receipts in one request: they share a commit, and fit into a body. */
const MOST = 25;

const handedBackSchema = z.strictObject({
  receipts: z
    .array(z.strictObject({ payment: signedPaymentSchema, receipt: signedReceiptSchema }))
    .min(1)
    .max(MOST),
});
const completenessSchema = z.object({
  promised: z.number().describe("receipts that were ever given"),
  missing: z.number().describe("of these, how many the books still lack; nothing is signed before it is 0"),
});

/** Receipts: handed back to books that were put back to an earlier time. */
export function receiptRoutes(processor: Processor): Routes {
  return (server) => {
    server.post(
      "/receipts",
      {
        schema: routeSchema({
          summary: "Hand back payments with the receipts that were given for them, in the order of each ledger",
          tags: ["payments"],
          body: handedBackSchema,
          answer: completenessSchema,
          errors: [
            "malformed-input",
            "mandate-unknown",
            "receipt-invalid",
            "receipt-mismatch",
            "signature-signer",
            "sequence-gap",
            "sequence-taken",
            "spent-mismatch",
            "head-mismatch",
            "books-conflict",
          ],
        }),
      },
      (request) => processor.takeBack(parseWire(handedBackSchema, request.body).receipts),
    );
  };
}
