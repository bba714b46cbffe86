import {
  BursarError,
  hashPayment,
  headHex,
  lineToField,
  pageHash,
  pageOf,
  pageSalt,
  parseLedgerState,
  toWire,
  verifySignature,
  type Address,
  type Domain,
  type Hex,
  type LedgerState,
} from "@bursar/protocol";

import type { Tail } from "./processor-client.ts";
import { lineKey } from "./unclaimed.ts";

/** What a processor's tail is held against. */
export interface TailEvidence {
  readonly domain: Domain;
  readonly agent: Address;
  readonly budget: bigint;
  /** Behind the salts of the pages. */
  readonly secret: Hex;
  /** What the agent itself knows for certain. */
  readonly own: LedgerState;
  /** The head in the processor's receipt for the last payment, where the caller trusts that; null where it does not. */
  readonly receiptHead: ((seq: bigint) => Promise<Hex | null>) | null;
}

/**
 * The state that a processor tells, if it is true. The next payment's head stands for all lines before it, so a line
 * that was never signed must not slip in: the head is computed again with the agent's own salts, and the agent's own
 * signature must be on it.
 *
 * @returns null when the agent knows that state already.
 * @throws BursarError `books-behind`, `head-mismatch`, `signature-*`, `malformed-input`
 */
export async function provenTail({ last, ...position }: Tail, evidence: TailEvidence): Promise<LedgerState | null> {
  const state = parseLedgerState({ ...toWire(position), pending: null });
  const { own, budget } = evidence;
  if (state.seq < own.seq) {
    throw new BursarError(
      "books-behind",
      `The processor knows ${state.seq} payments; the agent has receipts for ${own.seq}.`,
      { value: state.seq, limit: own.seq },
      "The operator has to restore the processor's books; until then ask the owner for a new mandate.",
    );
  }
  if (state.seq === own.seq) {
    if (told(state) === told(own)) return null;
    throw unproven(`the processor tells another ledger of ${own.seq} payments than the agent has receipts for`);
  }
  const sum = state.lines.reduce((total, { amount }) => total + amount, 0n);
  if (state.spent > budget || state.spent < sum) throw unproven(`a total of ${state.spent} units cannot be`);
  await assertSigned(state, last ?? null, evidence);
  return state;
}

async function assertSigned(state: LedgerState, last: Tail["last"], evidence: TailEvidence): Promise<void> {
  const { seq, spent } = state;
  const head = headOf(state, evidence.secret);
  if (last) {
    const { payment, signature } = last;
    if (payment.seq !== seq || payment.spent !== spent || payment.head !== head) {
      throw unproven(`the lines come to the head ${head}, and payment ${payment.seq} says ${payment.head}`);
    }
    verifySignature(hashPayment(evidence.domain, payment), signature, evidence.agent);
    return;
  }
  if (evidence.receiptHead === null) throw unproven("the processor shows no signature of the agent's on it");
  if ((await evidence.receiptHead(seq)) !== head) {
    throw unproven(`the lines come to the head ${head}, and the receipt differs`);
  }
}

function headOf({ seq, base, lines }: LedgerState, secret: Hex): Hex {
  if (lines.length === 0) return base;
  return headHex(pageHash(BigInt(base), lines.map(lineToField), pageSalt(secret, pageOf(seq))));
}

function told({ seq, spent, base, lines }: LedgerState): string {
  return [seq, spent, base, ...lines.map(lineKey)].join(" ");
}

function unproven(what: string): BursarError {
  return new BursarError(
    "head-mismatch",
    `The ledger cannot be read back: ${what}.`,
    {},
    "Restore the agent's own book from a backup, or ask the owner for a new mandate.",
  );
}
