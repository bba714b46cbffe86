import { addressSchema, toWire, uint256Schema, uint64Schema, type Address } from "@bursar/protocol";
import { z } from "zod";

import { RULES } from "../mission.ts";
import type { Processor } from "../processor.ts";
import { routeSchema, type Routes } from "./route.ts";

/** Where a processor settles. */
export interface Place {
  readonly escrow: Address;
  readonly settlement: Address;
  readonly direct: Address;
  /** By symbol. */
  readonly tokens: Readonly<Record<string, { readonly address: Address; readonly unitScale: bigint }>>;
}

const healthSchema = z.object({ status: z.literal("ok") });
export const infoSchema = z.object({
  chainId: uint256Schema,
  registry: addressSchema,
  escrow: addressSchema,
  settlement: addressSchema,
  direct: addressSchema,
  processor: addressSchema,
  tokens: z.record(z.string(), z.object({ address: addressSchema, unitScale: uint256Schema })),
  settleWithin: uint64Schema,
});
const policySchema = z.object({ rules: z.array(z.object({ code: z.string(), rule: z.string() })) });

/** What anybody may know. */
export function publicRoutes(processor: Processor, place: Place | undefined): Routes {
  return (server) => {
    server.get(
      "/health",
      { schema: routeSchema({ summary: "Whether the service answers", tags: ["service"], answer: healthSchema }) },
      () => ({ status: "ok" }),
    );

    server.get(
      "/policy",
      {
        schema: routeSchema({
          summary: "The rules that every payment has to keep, in CEL, each with the code of its refusal",
          tags: ["service"],
          answer: policySchema,
        }),
      },
      () => ({ rules: RULES }),
    );

    if (place === undefined) return;
    server.get(
      "/info",
      {
        schema: routeSchema({
          summary: "Chain, contracts, tokens, and who signs receipts",
          tags: ["service"],
          answer: infoSchema,
        }),
      },
      () => {
        const { domain, address, settleWithin } = processor;
        return toWire({ ...domain, ...place, processor: address, settleWithin });
      },
    );
  };
}
