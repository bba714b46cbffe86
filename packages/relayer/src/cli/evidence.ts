import { readFileSync, writeFileSync } from "node:fs";

import {
  accessHeader,
  bytes32Schema,
  BursarError,
  decodePaymentHeader,
  domainSchema,
  evidenceSchema,
  hashEvidence,
  holdOf,
  parseWire,
  receiptSchema,
  signAccess,
  signDelivery,
  signedDeliverySchema,
  signedPaymentSchema,
  signedQuoteSchema,
  signedReceiptSchema,
  toWire,
  type Address,
  type Evidence,
  type Hex,
  type PaidRequest,
  type Problem,
} from "@bursar/protocol";
import { keccak256 } from "ethers";
import { z } from "zod";

import { checkEvidence, type CheckedEvidence } from "../disputes.ts";
import { report, table, type Output } from "./report.ts";
import { below, now, type Session } from "./session.ts";

export interface EvidenceOptions {
  payee?: Address;
  paid?: string;
  holdback?: number;
  earlier?: string;
  quote?: string;
  delivery?: string;
  statement?: string;
  out?: string;
}

export interface DeliveryOptions {
  as: string;
  ref?: string;
  body?: string;
  out?: string;
}

/** What an agent keeps of a payment. */
export const paidSchema = z.object({
  domain: domainSchema,
  payment: signedPaymentSchema,
  receipt: signedReceiptSchema,
});

/** A payment with its receipt: of this machine's books, or of a file that an agent or a payee kept. */
export async function makeEvidence(
  session: Session,
  output: Output,
  agent: Address,
  seq: bigint,
  options: EvidenceOptions,
): Promise<void> {
  const { quote, delivery, statement, earlier } = options;
  const paid = options.paid === undefined ? await ofBooks(session, agent, seq) : readPaid(options.paid);
  if (paid.payment.agent !== agent || paid.payment.payment.seq !== seq) {
    throw new BursarError("payment-mismatch", "The file holds another payment.", {
      value: `${paid.payment.agent} ${paid.payment.payment.seq}`,
      limit: `${agent} ${seq}`,
    });
  }
  const before = earlier === undefined ? null : await earlierPayment(session, agent, earlier);
  const evidence: Evidence = {
    version: 1,
    domain: toWire(session.domain),
    agent,
    ...(await whoseAccount(session, agent, paid.payment.payment.line.payee, options)),
    purchase: purchaseOf(paid),
    ...(before === null ? {} : { earlier: purchaseOf(before) }),
    ...(quote === undefined ? {} : { quote: toWire(parseWire(signedQuoteSchema, readJson(quote))) }),
    ...(delivery === undefined ? {} : { delivery: toWire(parseWire(signedDeliverySchema, readJson(delivery))) }),
    ...(statement === undefined ? {} : { statement }),
  };
  const hash = hashEvidence(evidence);
  const path = options.out ?? `evidence-${hash.slice(2, 10)}.json`;
  writeFileSync(path, `${JSON.stringify(evidence, null, 2)}\n`);
  report(output, { hash, path, evidence }, `${path} has the hash ${hash}. Nothing was filed.`);
}

/** Verifies a file by itself, and against the chain. */
export async function checkFile(session: Session, output: Output, path: string): Promise<void> {
  const checked = await checkEvidence(session.chain, readEvidence(path));
  report(output, { ...checked, evidence: undefined }, describe(checked));
}

/** Signs, as the payee, that a payment was served. */
export async function makeDelivery(
  session: Session,
  output: Output,
  agent: Address,
  seq: bigint,
  { as, ref, body, out }: DeliveryOptions,
): Promise<void> {
  const payee = await session.keys.load(as);
  const delivery = {
    agent,
    seq,
    ref:
      ref === undefined ? (await ofBooks(session, agent, seq)).payment.payment.line.ref : parseWire(bytes32Schema, ref),
    bodyHash: keccak256(body === undefined ? "0x" : read(body)) as Hex,
    deliveredAt: now(),
  };
  const signed = { delivery, signature: await signDelivery(payee, session.domain, delivery) };
  const path = out ?? `delivery-${agent.slice(2, 10)}-${seq}.json`;
  writeFileSync(path, `${JSON.stringify(toWire(signed), null, 2)}\n`);
  report(output, { path, ...signed }, `${path} says that ${payee.address} served payment ${seq} of ${agent}.`);
}

/** Leaves a file at the processor. */
export async function sendFile(
  session: Session,
  output: Output,
  path: string,
  { as, processorUrl }: { as: string; processorUrl: string },
): Promise<void> {
  const { hash } = (await overHttp(session, as, below(processorUrl, "/disputes/evidence"), readEvidence(path))) as {
    hash: Hex;
  };
  report(output, { hash, path }, `${path} is kept by the processor as ${hash}.`);
}

/** Fetches a file from the processor. @throws BursarError `malformed-input` for one that has another hash. */
export async function getFile(
  session: Session,
  output: Output,
  hash: string,
  { as, processorUrl, out }: { as: string; processorUrl: string; out?: string },
): Promise<void> {
  const wanted = parseWire(bytes32Schema, hash);
  const url = below(processorUrl, `/disputes/evidence/${wanted}`);
  const evidence = (await overHttp(session, as, url)) as Evidence;
  const found = hashEvidence(evidence);
  if (found !== wanted) {
    throw new BursarError("malformed-input", "The processor sent another file.", { value: found, limit: wanted });
  }
  const path = out ?? `evidence-${wanted.slice(2, 10)}.json`;
  writeFileSync(path, `${JSON.stringify(evidence, null, 2)}\n`);
  report(output, { hash: wanted, path }, `${path} has the hash ${wanted}.`);
}

/** Asks the processor as the account of a key. @throws BursarError its refusal, or `processor-unavailable`. */
async function overHttp(session: Session, as: string, url: URL, body?: Evidence): Promise<unknown> {
  const wallet = await session.keys.load(as);
  const access = { account: wallet.address as Address, expiresAt: now() + 600n };
  const authorization = accessHeader(access, await signAccess(wallet, session.domain, access));
  const response = await fetch(url, {
    headers: { authorization, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
  }).catch((error: unknown) => {
    throw new BursarError("processor-unavailable", `${url.host} does not answer: ${(error as Error).message}`, {
      value: url.host,
    });
  });
  const answer: unknown = await response.json();
  if (response.ok) return answer;
  const { code, detail, details, advice } = answer as Problem;
  throw new BursarError(code, detail, details, advice);
}

/** @throws BursarError `malformed-input` */
export function readEvidence(path: string): Evidence {
  const value = readJson(path) as Evidence;
  parseWire(evidenceSchema, value);
  return value;
}

/** A file that is JSON. @throws BursarError `malformed-input` */
export function readJson(path: string): unknown {
  const bytes = read(path);
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) as unknown;
  } catch (error) {
    throw new BursarError("malformed-input", `${path} is no JSON: ${(error as Error).message}`, { value: path });
  }
}

function read(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new BursarError("malformed-input", `${path} cannot be read: ${(error as Error).message}`, { value: path });
  }
}

/** What an agent keeps of a payment: the JSON of a paid request, or the header that it sent. */
function readPaid(path: string): PaidRequest {
  const text = new TextDecoder().decode(read(path)).trim();
  return text.startsWith("{") ? parseWire(paidSchema, readJson(path)) : decodePaymentHeader(text);
}

/** @throws BursarError `not-found` for a payment that this machine did not accept. */
async function ofBooks(session: Session, agent: Address, seq: bigint): Promise<PaidRequest> {
  const accepted = await (await session.store()).payment(agent, seq);
  const receipt = accepted && (await (await session.processor()).receipt(agent, seq));
  if (!accepted || !receipt) {
    throw new BursarError(
      "not-found",
      `This machine's books have no payment ${seq} of ${agent}.`,
      { agent, seq },
      "Pass --paid with the payment and its receipt, as the agent or the payee kept them.",
    );
  }
  const { payment, signature, salt } = accepted;
  return { domain: session.domain, payment: { agent, payment, signature, salt }, receipt };
}

async function earlierPayment(session: Session, agent: Address, earlier: string): Promise<PaidRequest> {
  return /^[1-9]\d*$/.test(earlier) ? ofBooks(session, agent, BigInt(earlier)) : readPaid(earlier);
}

function purchaseOf({ payment, receipt }: PaidRequest): Evidence["purchase"] {
  return toWire({
    payment: payment.payment,
    signature: payment.signature,
    receipt: parseWire(receiptSchema, toWire(receipt.receipt)),
    receiptSignature: receipt.signature,
  });
}

/**
 * The payee whose hold, or own account, was paid: as named, or one that this machine knows.
 * @throws BursarError `payment-mismatch`
 */
async function whoseAccount(
  session: Session,
  agent: Address,
  account: Address,
  { payee, holdback }: EvidenceOptions,
): Promise<Pick<Evidence, "payee" | "hold">> {
  const terms = (await (await session.store()).mandate(agent))?.terms.dispute;
  const module = terms?.module ?? session.rail.disputes;
  const seconds = holdback === undefined ? terms?.holdback : String(holdback);
  const candidates =
    payee === undefined ? (await (await session.store()).payees()).map(({ address }) => address) : [payee];
  if (module !== undefined && seconds !== undefined) {
    const found = candidates.find((one) => holdOf(module, agent, one, BigInt(seconds)) === account);
    if (found !== undefined) return { payee: found, hold: { module, holdback: seconds } };
  }
  if (payee === undefined ? candidates.includes(account) : payee === account) return { payee: account };
  throw new BursarError(
    "payment-mismatch",
    `${account} was paid, which is no hold of ${payee ?? "a payee that this machine knows"}.`,
    { value: account, limit: candidates.join(" ") },
    "Name the payee with --payee, and the seconds that it waits with --holdback.",
  );
}

function describe(checked: CheckedEvidence): string {
  const { hash, agent, payee, account, seq, owner, processor, settled, dispute, stands } = checked;
  const files = { filed: "filed it", answered: "answered it" };
  return table(
    ["evidence", hash],
    [
      ["signatures", "good: agent, processor, and what the payee signed"],
      ["payment", `${seq} of ${agent}, of ${owner}`],
      ["payee", account === payee ? payee : `${payee}, by its hold ${account}`],
      ["processor", processor],
      ["settled", settled ? "yes" : "no"],
      ["dispute", dispute === null ? "none" : `${dispute}${stands === null ? "" : `: this file ${files[stands]}`}`],
    ],
  );
}
