import { Readable } from "node:stream";

import { addressSchema, parseWire, toWire, uint64Schema } from "@bursar/protocol";
import { z } from "zod";

import { csvLines } from "../ledger-csv.ts";
import type { Processor } from "../processor.ts";
import type { LedgerEntry } from "../records.ts";
import type { Readers } from "./access.ts";
import { routeSchema, type Routes } from "./route.ts";

const MOST = 1_000;
const countSchema = z
  .string()
  .regex(/^[1-9][0-9]{0,15}$/, "not a whole number from 1")
  .transform(Number);

const STATUSES = ["accepted", "batched", "proving", "submitted", "settled", "claimable", "failed", "refused"] as const;

const querySchema = z.strictObject({
  agent: addressSchema.optional(),
  owner: addressSchema.optional(),
  payee: addressSchema.optional(),
  kind: z.enum(["accepted", "refused"]).optional(),
  status: z.enum(STATUSES).optional(),
  rail: z.enum(["proved", "exact", "aep2"]).optional(),
  /** Unix seconds, inclusive. */
  since: uint64Schema.optional(),
  until: uint64Schema.optional(),
  /** `next` of the page before. */
  before: countSchema.optional(),
  limit: countSchema.refine((limit) => limit <= MOST, { error: `above ${MOST}` }).optional(),
  format: z.enum(["json", "csv"]).default("json"),
});

const entrySchema = z.object({
  position: z.number(),
  kind: z.enum(["accepted", "refused"]),
  rail: z.enum(["proved", "exact", "aep2"]),
  agent: addressSchema,
  owner: addressSchema,
  purpose: z.string(),
  seq: uint64Schema.nullable(),
  payee: addressSchema,
  amount: uint64Schema,
  ref: z.string(),
  at: uint64Schema,
  status: z.enum(STATUSES),
  code: z.string().nullable(),
  reason: z.string().nullable(),
  advice: z.string().nullable(),
  batch: z.number().nullable(),
  transaction: z.string().nullable(),
});
const pageSchema = z.object({ entries: z.array(entrySchema), next: z.number().nullable() });

/** The readable ledger: an operator sees all of it, an account what it owns, signs or is paid. */
export function ledgerRoutes(processor: Processor, readers: Readers): Routes {
  return (server) => {
    server.get(
      "/ledger",
      {
        schema: routeSchema({
          summary: "Who paid whom, how much, for what, and what was refused and why; newest first",
          tags: ["ledger"],
          querystring: querySchema,
          answer: pageSchema,
          errors: ["unauthorised", "malformed-input"],
        }),
      },
      async (request, reply) => {
        const who = await readers.who(request);
        const { format, limit = 100, ...asked } = parseWire(querySchema, request.query);
        const filter = who === "operator" ? asked : { ...asked, party: who };
        if (format === "csv") {
          const lines = csvLines((before) =>
            processor.ledger({ ...filter, before: before ?? asked.before, limit: MOST }),
          );
          return reply.type("text/csv; charset=utf-8").send(Readable.from(lines));
        }
        const entries = await processor.ledger({ ...filter, limit });
        return reply.send(toWire({ entries, next: nextOf(entries, limit) }));
      },
    );
  };
}

function nextOf(entries: readonly LedgerEntry[], limit: number): number | null {
  return entries.length < limit ? null : (entries.at(-1)?.position ?? null);
}
