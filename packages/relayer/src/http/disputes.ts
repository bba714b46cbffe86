import {
  addressSchema,
  BursarError,
  bytes32Schema,
  evidenceSchema,
  parseWire,
  toWire,
  uint256Schema,
  uint64Schema,
  type Address,
  type Evidence,
} from "@bursar/protocol";
import { z } from "zod";

import type { Chain } from "../chain.ts";
import { checkEvidence, DISPUTE_KINDS, DISPUTE_STATES, readDispute, type DisputeView } from "../disputes.ts";
import type { EvidenceBook, KeptEvidence } from "../evidence-book.ts";
import { concerns, forbidden, type Readers } from "./access.ts";
import { routeSchema, type Routes } from "./route.ts";

export interface DisputeRoutesOptions {
  readonly chain: Chain;
  readonly book: EvidenceBook;
  readonly readers: Readers;
  /** Unix seconds. */
  readonly now: () => bigint;
}

const hashSchema = z.strictObject({ hash: bytes32Schema });
const idSchema = z.strictObject({ id: uint64Schema });
const keptSchema = z.object({ hash: bytes32Schema });

const choiceSchema = z.object({
  who: z.enum(["owner or agent", "payee", "arbiter", "anyone"]),
  action: z.enum(["answer", "refund", "escalate", "rule", "resolve"]),
  from: uint64Schema.nullable(),
  until: uint64Schema.nullable(),
  effect: z.string(),
});
const viewSchema = z.object({
  id: uint64Schema,
  kind: z.enum(DISPUTE_KINDS),
  state: z.enum(DISPUTE_STATES),
  agent: addressSchema,
  seq: uint64Schema,
  owner: addressSchema,
  payee: addressSchema,
  filer: addressSchema,
  hold: addressSchema,
  holdback: uint64Schema,
  token: addressSchema,
  amount: uint256Schema,
  units: uint64Schema,
  ref: bytes32Schema,
  evidenceHash: bytes32Schema,
  answerHash: bytes32Schema.nullable(),
  deadline: uint64Schema,
  deliverBy: uint64Schema,
  caseId: uint64Schema.nullable(),
  now: uint64Schema,
  choices: z.array(choiceSchema),
});

/** How the parties of a dispute and its arbiter get each other's files; how it stands, anyone may ask. */
export function disputeRoutes({ chain, book, readers, now }: DisputeRoutesOptions): Routes {
  return (server) => {
    server.post(
      "/disputes/evidence",
      {
        schema: routeSchema({
          summary: "Leave a file of evidence for the other side and the arbiter; the same file again changes nothing",
          tags: ["disputes"],
          body: evidenceSchema,
          answer: keptSchema,
          errors: [
            "unauthorised",
            "forbidden",
            "malformed-input",
            "wrong-chain",
            "wrong-contract",
            "payment-mismatch",
            "receipt-mismatch",
            "receipt-invalid",
            "signature-signer",
            "mandate-unknown",
            "too-many-requests",
          ],
        }),
      },
      async (request) => {
        const who = await readers.who(request);
        const checked = await checkEvidence(chain, request.body as Evidence);
        if (!concerns(who, checked.owner, checked.agent, checked.payee)) throw forbidden();
        await book.keep(checked, who, now());
        return { hash: checked.hash };
      },
    );

    server.get(
      "/disputes/evidence/:hash",
      {
        schema: routeSchema({
          summary: "A file of evidence, for owner, agent and payee of its payment and the arbiter of its dispute",
          tags: ["disputes"],
          params: hashSchema,
          answer: evidenceSchema,
          errors: ["unauthorised", "forbidden", "malformed-input"],
        }),
      },
      async (request, reply) => {
        const who = await readers.who(request);
        const { hash } = parseWire(hashSchema, request.params);
        const kept = await book.get(hash);
        if (kept === undefined) throw who === "operator" ? unknown(hash) : forbidden();
        const { owner, agent, payee } = kept;
        const mayRead =
          concerns(who, owner, agent, payee) || (who !== "operator" && (await arbitrates(chain, kept, who)));
        if (!mayRead) throw forbidden();
        return reply.type("application/json").serializer(String).send(kept.file);
      },
    );

    server.get(
      "/disputes/:id",
      {
        schema: routeSchema({
          summary: "How a dispute stands on chain, and what each side can do until when",
          tags: ["disputes"],
          params: idSchema,
          answer: viewSchema,
          errors: ["malformed-input", "not-found", "wrong-chain", "chain-unavailable"],
        }),
      },
      async (request) => {
        const { id } = parseWire(idSchema, request.params);
        return toWire<DisputeView>(await readDispute(chain, id));
      },
    );
  };
}

function unknown(hash: string): BursarError {
  return new BursarError("not-found", `No evidence has the hash ${hash}.`, { value: hash });
}

/** Whether the dispute of a payment was taken to this arbiter. */
async function arbitrates(chain: Chain, { agent, seq }: KeptEvidence, who: Address): Promise<boolean> {
  if (chain.rail.disputes === undefined) return false;
  const id = await chain.disputes.disputeIdOf(agent, seq);
  if (id === 0n) return false;
  const { caseId } = await readDispute(chain, id);
  return caseId !== null && (await chain.arbiter.caseOf(caseId)).arbiter === who;
}
