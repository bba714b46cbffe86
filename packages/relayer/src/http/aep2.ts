import {
  BursarError,
  debitPayment,
  debitReceiptDigest,
  debitReceiptSchema,
  ERRORS,
  parseWire,
  problem,
  signedDebitSchema,
  type DebitReceipt,
  type DirectDomain,
  type ErrorCode,
} from "@bursar/protocol";
import type { FastifyReply } from "fastify";
import { z } from "zod";

import type { DirectSettler } from "../direct.ts";
import type { Processor, ReceiptKey } from "../processor.ts";
import type { DirectRecord } from "../records.ts";
import type { Store } from "../store.ts";
import { routeSchema, type Routes } from "./route.ts";
import { isTold, Servings } from "./servings.ts";

export interface Aep2RoutesOptions {
  readonly processor: Pick<Processor, "acceptDirect" | "direct">;
  readonly settler: Pick<DirectSettler, "run">;
  readonly store: Pick<Store, "mandateOf">;
  /** Chain and contract that verify debits. */
  readonly domain: DirectDomain;
  /** Signs receipts, deterministically: a receipt is signed again and not stored. */
  readonly key: ReceiptKey;
  /** Seconds from acceptance to settlement. */
  readonly settleWithin: bigint;
}

const answerSchema = z.object({ success: z.literal(true), receipt: debitReceiptSchema });

/**
 * AEP2 v1's settlement processor, see docs/aep2.md. A receipt leaves only after the debit is on disk and its amount
 * reserved. As in AEP2 a debit is enqueued once, since payees serve whatever is enqueued; sent again it is refused with
 * `DUPLICATE_MANDATE`, and the answer holds the same receipt for a payee that lost the first.
 */
export function aep2Routes({ processor, settler, store, domain, key, settleWithin }: Aep2RoutesOptions): Routes {
  const servings = new Servings();

  function receiptOf({ acceptedAt, validBefore, digest }: DirectRecord): DebitReceipt {
    const settleBy = acceptedAt + settleWithin;
    const deadline = validBefore - 1n;
    const until = settleBy < deadline ? settleBy : deadline;
    return {
      sp: key.address,
      mandateDigest: digest,
      enqueueDeadline: Number(until),
      spEnqueueSig: key.sign(debitReceiptDigest(digest, until)),
    };
  }

  return (server) => {
    server.post(
      "/enqueue",
      {
        schema: routeSchema({
          summary: "Accept an AEP2 debit and promise to settle it",
          tags: ["aep2"],
          body: signedDebitSchema,
          answer: answerSchema,
          errors: [
            "malformed-input",
            "mandate-unknown",
            "authorization-expired",
            "signature-signer",
            "nonce-used",
            "above-budget",
            "above-payment-cap",
            "wrong-token",
            "payee-not-admitted",
          ],
        }),
      },
      async (request, reply) => {
        try {
          const signed = parseWire(signedDebitSchema, request.body);
          const { unitScale } = await store.mandateOf(signed.mandate.owner);
          const payment = debitPayment(domain, unitScale, signed);
          const before = await processor.direct(payment.kind, payment.agent, payment.nonce);
          const record = await processor.acceptDirect(payment);
          // What cannot be settled now is settled by the processor's next run.
          void settler.run().catch(() => undefined);
          const serving = servings.of(record.digest, before === undefined);
          const receipt = receiptOf(record);
          if (isTold(serving)) return await sendDuplicate(reply, receipt);
          serving.told = !request.raw.socket.destroyed;
          return await reply.send({ success: true, receipt });
        } catch (error) {
          if (!(error instanceof BursarError)) throw error;
          return sendRefusal(reply, error);
        }
      },
    );
  };
}

function sendDuplicate(reply: FastifyReply, receipt: DebitReceipt): FastifyReply {
  const refusal = new BursarError(
    "nonce-used",
    "This mandate was enqueued before; its receipt is here again.",
    { value: receipt.mandateDigest },
    "Serve for it once.",
  );
  return reply
    .status(409)
    .type("application/problem+json")
    .send({ ...problem(refusal), status: 409, error: "DUPLICATE_MANDATE", message: refusal.message, receipt });
}

/** AEP2's words and statuses where it has them. */
const WORDS: Partial<Record<ErrorCode, readonly [word: string, status: number]>> = {
  "malformed-input": ["INVALID_REQUEST", 400],
  "authorization-expired": ["EXPIRED_MANDATE", 400],
  "nonce-used": ["NONCE_USED", 400],
  "above-budget": ["INSUFFICIENT_BALANCE", 402],
  "mandate-unknown": ["INSUFFICIENT_BALANCE", 402],
  "mandate-not-open": ["INSUFFICIENT_BALANCE", 402],
};

/** A refusal as Problem Details that an AEP2 client can read too: it looks at `error` and `message`. */
function sendRefusal(reply: FastifyReply, refusal: BursarError): FastifyReply {
  const invalid = refusal.code.startsWith("signature-") ? (["INVALID_SIGNATURE", 400] as const) : undefined;
  const other = [refusal.code.toUpperCase().replaceAll("-", "_"), ERRORS[refusal.code].status] as const;
  const [error, status] = invalid ?? WORDS[refusal.code] ?? other;
  return reply
    .status(status)
    .type("application/problem+json")
    .send({ ...problem(refusal), status, error, message: refusal.message });
}
