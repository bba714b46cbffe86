import { BursarError } from "@bursar/protocol";
import { groth16, type VerificationKey } from "snarkjs";
import { z } from "zod";

import { quiet } from "./quiet.ts";

/** Order of the field that points of the curve are over. */
const BASE_FIELD = 21888242871839275222246405745257275088696311157297823662689037894645226208583n;

/** The one form that a coordinate has on chain. A larger number would stand for the same point here, and for none there. */
const coordinate = z.string().refine((digits) => /^(0|[1-9][0-9]{0,77})$/.test(digits) && BigInt(digits) < BASE_FIELD);
const pair = z.tuple([coordinate, coordinate]);

/** A proof of affine points, none at infinity: what is verified here is word for word what is sent. */
const provedSchema = z.object({
  proof: z.object({
    pi_a: z.tuple([coordinate, coordinate, z.literal("1")]),
    pi_b: z.tuple([pair, pair, z.tuple([z.literal("1"), z.literal("0")])]),
    pi_c: z.tuple([coordinate, coordinate, z.literal("1")]),
  }),
  publicSignals: z.array(coordinate),
});

/** A proof and its public signals in their only form. */
export type Proved = z.infer<typeof provedSchema>;

/**
 * What some prover answered, once it is known to be a proof for these public signals by this key. What the signals say is
 * left to whoever knows the statement.
 * @throws BursarError `proof-invalid`
 */
export async function verified(key: VerificationKey, answer: unknown): Promise<Proved> {
  const parsed = provedSchema.safeParse(answer);
  if (!parsed.success) throw new BursarError("proof-invalid", "What the prover wrote is no proof.");
  const { proof, publicSignals } = parsed.data;
  const complete = publicSignals.length === key.nPublic;
  if (!complete || !(await groth16.verify(key, publicSignals, proof, quiet))) {
    throw new BursarError("proof-invalid", "The proof does not verify.", { value: publicSignals.join(" ") });
  }
  return parsed.data;
}
