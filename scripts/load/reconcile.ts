import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";

import {
  hashReceipt,
  parseWire,
  signedReceiptSchema,
  verifySignature,
  type Address,
  type Domain,
  type SignedReceipt,
} from "@bursar/protocol";
import type { AcceptedPayment, BatchRecord, Chain, Store } from "@bursar/relayer";

/** What receipts, books and chain say together. */
export interface Reconciliation {
  /** Receipts that agents hold. */
  readonly receipts: number;
  /** Payments in the books. */
  readonly payments: number;
  /** Of them, settled on chain. */
  readonly settled: number;
  readonly batches: number;
  readonly units: bigint;
  /** Whatever does not agree, in words; nothing if all is well. */
  readonly faults: readonly string[];
}

export interface Evidence {
  readonly domain: Domain;
  readonly processor: Address;
  readonly token: Address;
  readonly chain: Chain;
  readonly store: Store;
  readonly agents: readonly Address[];
  /** Every account that was paid. */
  readonly payees: readonly Address[];
  /** Files of receipts, as generators wrote them. */
  readonly told: readonly string[];
  /** Whether all payments were to be settled. */
  readonly settling: boolean;
}

/** Faults of one kind that are told one by one. */
const TOLD = 5;

/** Collects faults, and tells only the first of a kind in full. */
class Faults {
  readonly #kinds = new Map<string, string[]>();

  add(kind: string, what: string): void {
    const known = this.#kinds.get(kind);
    if (known === undefined) this.#kinds.set(kind, [what]);
    else known.push(what);
  }

  expect(holds: boolean, kind: string, what: () => string): void {
    if (!holds) this.add(kind, what());
  }

  get list(): string[] {
    return [...this.#kinds].flatMap(([kind, all]) => [
      ...all.slice(0, TOLD).map((what) => `${kind}: ${what}`),
      ...(all.length > TOLD ? [`${kind}: and ${all.length - TOLD} more`] : []),
    ]);
  }
}

/**
 * Holds every receipt against the books, and the books against the chain. Each payment must be there exactly once in all of
 * them: with a receipt that its agent holds and the processor signed, a number of the log that nobody else has, in one
 * batch, in its mandate's total on chain, and in its payee's credit.
 */
export async function reconcile(evidence: Evidence): Promise<Reconciliation> {
  const { store, agents, told, settling } = evidence;
  const faults = new Faults();
  const books = new Map<Address, AcceptedPayment[]>();
  for (const agent of agents) books.set(agent, await store.payments(agent, 1n, BigInt(Number.MAX_SAFE_INTEGER)));
  const payments = [...books.values()].flat();
  const receipts = await holdReceipts(told, books, evidence, faults);
  expectNumbered(payments, faults);
  const batches = await store.batches(["settled"]);
  const settled = settledIn(batches, books, faults);
  if (settling) {
    faults.expect(settled.length === payments.length, "not settled", () => `${payments.length - settled.length}`);
  }
  await holdMandates(evidence, books, batches, faults);
  await holdCredits(evidence, settled, faults);
  await holdEvents(evidence, batches, faults);
  return {
    receipts,
    payments: payments.length,
    settled: settled.length,
    batches: batches.length,
    units: settled.reduce((sum, { payment }) => sum + payment.line.amount, 0n),
    faults: faults.list,
  };
}

/** Every receipt is the processor's, and says what the books say; every payment in the books has one. */
async function holdReceipts(
  files: readonly string[],
  books: ReadonlyMap<Address, AcceptedPayment[]>,
  { domain, processor }: Evidence,
  faults: Faults,
): Promise<number> {
  const held = new Set<string>();
  for (const file of files) {
    for await (const line of createInterface({ input: createReadStream(file) })) {
      const [agent, seq] = line.split(" ", 2) as [Address, string];
      const place = `${agent} ${seq}`;
      const signed = parseWire(signedReceiptSchema, JSON.parse(line.slice(place.length + 1))) as SignedReceipt;
      faults.expect(!held.has(place), "told twice", () => place);
      held.add(place);
      const payment = books.get(agent)?.[Number(seq) - 1];
      if (payment === undefined) faults.add("a receipt without a payment", place);
      else faults.expect(says(signed, payment), "a receipt that contradicts the books", () => place);
      try {
        verifySignature(hashReceipt(domain, signed.receipt), signed.signature, processor);
      } catch (error) {
        faults.add("a receipt that is not the processor's", `${place}: ${(error as Error).message}`);
      }
    }
  }
  for (const { agent, payment } of [...books.values()].flat()) {
    const place = `${agent} ${payment.seq}`;
    faults.expect(held.has(place), "a payment without a receipt", () => place);
  }
  return held.size;
}

function says({ receipt }: SignedReceipt, { agent, payment, settleBy, logIndex }: AcceptedPayment): boolean {
  const { seq, head, line } = payment;
  return (
    receipt.agent === agent &&
    receipt.seq === seq &&
    receipt.head === head &&
    receipt.payee === line.payee &&
    receipt.amount === line.amount &&
    receipt.ref === line.ref &&
    receipt.settleBy === settleBy &&
    receipt.logIndex === logIndex
  );
}

/** Numbers of the log go up without a gap, and each ledger's payments too. */
function expectNumbered(payments: readonly AcceptedPayment[], faults: Faults): void {
  const log = Float64Array.from(payments, ({ logIndex }) => Number(logIndex)).sort();
  log.forEach((index, i) => faults.expect(index === i, "a gap in the log", () => `${index} where ${i} should be`));
  payments.forEach(({ agent, payment: { seq, spent, line } }, i) => {
    const before = payments[i - 1];
    const last = before?.agent === agent ? before.payment : { seq: 0n, spent: 0n };
    const follows = seq === last.seq + 1n && spent === last.spent + line.amount;
    faults.expect(follows, "a gap in a ledger", () => `${agent} ${seq}`);
  });
}

/** The payments that the settled batches say they settled: each in one batch, its own. */
function settledIn(
  batches: readonly BatchRecord[],
  books: ReadonlyMap<Address, AcceptedPayment[]>,
  faults: Faults,
): AcceptedPayment[] {
  const settled = new Map<string, AcceptedPayment>();
  for (const { id, rows, payments } of batches) {
    const sum = rows.reduce((total, { count }) => total + count, 0n);
    faults.expect(Number(sum) === payments, "a batch that miscounts", () => `${id}: ${sum} of ${payments}`);
    for (const { agent, seq, count } of rows) {
      for (const payment of (books.get(agent) ?? []).slice(Number(seq), Number(seq + count))) {
        const place = `${agent} ${payment.payment.seq}`;
        faults.expect(!settled.has(place), "settled twice", () => place);
        faults.expect(payment.batch === id, "in another batch", () => `${place}: ${payment.batch} and ${id}`);
        settled.set(place, payment);
      }
    }
  }
  return [...settled.values()];
}

/** Each mandate stands on chain where its settled payments leave it. */
async function holdMandates(
  { chain }: Evidence,
  books: ReadonlyMap<Address, AcceptedPayment[]>,
  batches: readonly BatchRecord[],
  faults: Faults,
): Promise<void> {
  const settled = new Map<string, bigint>();
  for (const { agent, count } of batches.flatMap(({ rows }) => rows)) {
    settled.set(agent, (settled.get(agent) ?? 0n) + count);
  }
  for (const [agent, payments] of books) {
    const count = settled.get(agent) ?? 0n;
    const spent = payments[Number(count) - 1]?.payment.spent ?? 0n;
    const onChain = await chain.registry.positionOf(agent);
    const agrees = onChain.seq === count && onChain.spent === spent;
    faults.expect(agrees, "another total on chain", () => {
      return `${agent} stands at ${onChain.seq} and ${onChain.spent} units, not at ${count} and ${spent}`;
    });
  }
}

/** Each payee's credit on chain is what was paid to it and settled. */
async function holdCredits(
  { chain, token, payees }: Evidence,
  settled: readonly AcceptedPayment[],
  faults: Faults,
): Promise<void> {
  const owed = new Map<Address, bigint>(payees.map((payee) => [payee, 0n]));
  for (const { payment } of settled) {
    owed.set(payment.line.payee, (owed.get(payment.line.payee) ?? 0n) + payment.line.amount);
  }
  const scale = await chain.escrow.unitScale(token);
  for (const [payee, units] of owed) {
    const credit = await chain.escrow.creditOf(token, payee);
    faults.expect(
      credit === units * scale,
      "another credit on chain",
      () => `${payee}: ${credit}, not ${units * scale}`,
    );
  }
}

/** The chain has an event for every settled batch and for no other. */
async function holdEvents({ chain }: Evidence, batches: readonly BatchRecord[], faults: Faults): Promise<void> {
  const { settlementContract } = chain;
  const events = await settlementContract.queryFilter(settlementContract.filters.BatchSettled(), 0, "latest");
  const onChain = new Map(events.map((event) => [event.transactionHash, event]));
  faults.expect(events.length === onChain.size, "settled twice", () => "two batches in one transaction");
  for (const { id, transaction, total, rows } of batches) {
    const event = onChain.get(transaction ?? "");
    onChain.delete(transaction ?? "");
    if (event === undefined) faults.add("a batch that is not on chain", String(id));
    else {
      const agrees = event.args.total === total && event.args.rows === BigInt(rows.length);
      faults.expect(agrees, "another batch on chain", () => String(id));
    }
  }
  for (const hash of onChain.keys()) faults.add("a batch that is not in the books", hash);
}
