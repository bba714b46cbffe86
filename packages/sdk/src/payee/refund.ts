import { BursarError, type Address, type Hex, type Line, type PaidRequest } from "@bursar/protocol";
import { AbiCoder, id, keccak256 } from "ethers";

import type { MandateSource } from "./mandates.ts";
import { keyOf, type ReceiptStore, type RefundRecord } from "./receipts.ts";

const REFUND_TAG = id("bursar.refund");
/** Seconds that the owner of a mandate may have been read ago: it never changes. */
const FOR_EVER = Number.MAX_SAFE_INTEGER;
/** The payer does not know whether it paid, and sends the same payment again before any other. */
const UNCERTAIN: readonly string[] = ["processor-unavailable", "receipt-invalid", "receipt-mismatch"];

/** What pays refunds: the agent SDK's `Agent`, with a mandate of the payee's own. */
export interface RefundPayer {
  pay(line: Line): Promise<{ readonly payment: { readonly payment: { readonly seq: bigint } } }>;
}

/** A refund that is paid. */
export interface Refund extends RefundRecord {
  readonly seq: bigint;
}

export interface RefundOptions {
  /**
   * Pay although an earlier attempt ended without a word. Look for the reference in the payer's ledger first: if it is
   * there, the owner is paid twice.
   */
  readonly again?: boolean;
}

/**
 * The reference of a payment's refund, one a payment: keccak256(abi.encode(keccak256("bursar.refund"), bytes32 ref,
 * uint64 seq)) with reference and number of the payment that is refunded.
 */
export function refundRef(ref: Hex, seq: bigint): Hex {
  const words = AbiCoder.defaultAbiCoder().encode(["bytes32", "bytes32", "uint64"], [REFUND_TAG, ref, seq]);
  return keccak256(words) as Hex;
}

/**
 * Pays a payment back to the owner of the mandate that made it.
 *
 * @param amount units; the whole payment unless given.
 * @throws BursarError `malformed-input` for more than was paid or another amount than was refunded; `not-found`;
 * `refund-uncertain`; what the payer throws.
 */
export async function payRefund(
  { receipts, mandates }: { receipts: ReceiptStore; mandates: MandateSource },
  payer: RefundPayer,
  paid: PaidRequest,
  amount = paid.payment.payment.line.amount,
  { again = false }: RefundOptions = {},
): Promise<Refund> {
  const { line, seq: paidSeq } = paid.payment.payment;
  if (amount < 1n || amount > line.amount) throw wrongAmount(amount, line.amount);
  const key = keyOf(paid);
  const payee = await ownerOf(mandates, key.agent);
  const refund: RefundRecord = { payee, amount, ref: refundRef(line.ref, paidSeq), seq: null };
  const before = await receipts.beginRefund(key, refund);
  if (before !== null) {
    if (before.amount !== amount) throw wrongAmount(amount, before.amount);
    if (before.seq !== null) return { ...before, seq: before.seq };
    if (!again) throw uncertain(before);
  }
  const seq = await send(payer, { payee, amount, ref: refund.ref }, () => receipts.endRefund(key, null));
  const done = { ...refund, seq };
  await receipts.endRefund(key, done);
  return done;
}

async function send(payer: RefundPayer, line: Line, forget: () => Promise<void>): Promise<bigint> {
  try {
    return (await payer.pay(line)).payment.payment.seq;
  } catch (error) {
    if (error instanceof BursarError && !UNCERTAIN.includes(error.code)) await forget();
    throw error;
  }
}

async function ownerOf(mandates: MandateSource, agent: Address): Promise<Address> {
  const snapshot = await mandates.mandate(agent, FOR_EVER);
  if (snapshot !== null) return snapshot.mandate.owner;
  throw new BursarError("mandate-unknown", `The chain knows no mandate of ${agent}.`, { value: agent });
}

function wrongAmount(value: bigint, limit: bigint): BursarError {
  return new BursarError(
    "malformed-input",
    `A refund of ${value} units does not go with one of ${limit}.`,
    { value, limit },
    "A payment is refunded once, in whole or in part.",
  );
}

function uncertain({ ref, amount }: RefundRecord): BursarError {
  return new BursarError(
    "refund-uncertain",
    `A refund of ${amount} units was begun, and nobody wrote down how it ended.`,
    { value: ref },
    "Look for the reference in the payer's ledger. If it is not there, refund with `again`.",
  );
}
