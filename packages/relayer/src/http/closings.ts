import { addressSchema, closeSchema, parseWire, signatureSchema, toWire, uint64Schema } from "@bursar/protocol";
import { z } from "zod";

import type { Closings } from "../closings.ts";
import { routeSchema, type Routes } from "./route.ts";

const signedCloseSchema = z.strictObject({ close: closeSchema, signature: signatureSchema });
/** How far an end together is, as it is answered. */
export const closingSchema = z.object({
  agent: addressSchema,
  seq: uint64Schema,
  state: z.enum(["settling", "noticed", "closed", "failed"]),
  closesAt: uint64Schema.nullable(),
  failure: z.string().nullable(),
});

/** Ending a mandate together, on its owner's signed word. */
export function closingRoutes(closings: Closings): Routes {
  return (server) => {
    server.post(
      "/closes",
      {
        schema: routeSchema({
          summary: "End a mandate together with this processor: the rest is the owner's an hour after all is settled",
          tags: ["mandates"],
          body: signedCloseSchema,
          answer: closingSchema,
          errors: ["mandate-unknown", "mandate-closed", "close-mismatch", "signature-signer"],
        }),
      },
      async (request) => {
        const { close, signature } = parseWire(signedCloseSchema, request.body);
        return toWire(await closings.request(close, signature));
      },
    );
  };
}
