import {
  addressSchema,
  BursarError,
  categorySchema,
  hashProfile,
  hostGlobSchema,
  parseWire,
  signatureSchema,
  uint64Schema,
  verifySignature,
} from "@bursar/protocol";
import { z } from "zod";

import { visible } from "../plain-text.ts";
import type { Processor } from "../processor.ts";
import type { Profiles } from "../profiles.ts";
import type { Store } from "../store.ts";
import { routeSchema, type Routes } from "./route.ts";

const profileSchema = z.strictObject({
  payee: addressSchema,
  name: z
    .string()
    .min(1)
    .max(100)
    .refine((name) => visible(name) === name, { error: "with characters that do not show" }),
  host: hostGlobSchema,
  category: categorySchema,
  issuedAt: uint64Schema,
});
const applicationSchema = z.strictObject({ profile: profileSchema, signature: signatureSchema });
const addressParams = z.strictObject({ address: addressSchema });
const waitingSchema = z.object({ payee: addressSchema, state: z.literal("pending") });
const shownSchema = z.object({ address: addressSchema, name: z.string(), host: z.string(), category: z.string() });

/** Seconds that a profile may be dated ahead. */
const CLOCK_SLACK = 300n;

/** Payees: who the operator vouches for, and who asks to be vouched for. */
export function payeeRoutes(processor: Processor, store: Pick<Store, "payee">, profiles: Profiles): Routes {
  return (server) => {
    server.post(
      "/payees",
      {
        schema: routeSchema({
          summary: "Apply with a profile that the payee signed; it counts once the operator has approved it",
          tags: ["payees"],
          body: applicationSchema,
          answer: waitingSchema,
          status: 202,
          errors: ["malformed-input", "signature-signer", "profile-stale"],
        }),
      },
      async (request, reply) => {
        const { profile, signature } = parseWire(applicationSchema, request.body);
        verifySignature(hashProfile(processor.domain, profile), signature, profile.payee);
        const latest = processor.now() + CLOCK_SLACK;
        if (profile.issuedAt > latest) {
          throw new BursarError(
            "malformed-input",
            `The profile is dated ${profile.issuedAt}; it is ${processor.now()}.`,
            { value: profile.issuedAt, limit: latest },
            "Check the clock and sign it again.",
          );
        }
        await profiles.apply({ ...profile, signature });
        return reply.status(202).send({ payee: profile.payee, state: "pending" });
      },
    );

    server.get(
      "/payees/:address",
      {
        schema: routeSchema({
          summary: "Who a payee is, as the operator vouches for it",
          tags: ["payees"],
          params: addressParams,
          answer: shownSchema,
          errors: ["not-found"],
        }),
      },
      async (request) => {
        const { address } = parseWire(addressParams, request.params);
        const profile = await store.payee(address);
        if (profile) return { ...profile };
        throw new BursarError("not-found", `The operator vouches for no profile of ${address}.`, { value: address });
      },
    );
  };
}
