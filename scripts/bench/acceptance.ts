import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

import {
  AgentLedger,
  headHex,
  policyRoot,
  recoverStrict,
  signPayment,
  termsHash,
  toWire,
  hashPayment,
  type Address,
  type Domain,
  type Hex,
  type Mandate,
  type SignedPayment,
  type Terms,
} from "@bursar/protocol";
import { createServer, Processor, receiptKey, Store } from "@bursar/relayer";
import { id, Wallet, ZeroHash } from "ethers";

export interface AcceptanceReport {
  /** Payments a second. */
  inProcess: { agents: number; rate: number }[];
  http: { agents: number; rate: number }[];
  /** Signatures recovered a second, the greater part of the work. */
  recover: number;
  /** Rows inserted and synced a second, one a transaction. */
  insert: number;
}

const DOMAIN: Domain = { chainId: 31_337n, registry: "0x00000000000000000000000000000000000000C3" };
const TERMS: Terms = { version: 1, purpose: "benchmark", categories: [], hosts: [] };
const PAYMENTS = 640;

export async function measureAcceptance(): Promise<AcceptanceReport> {
  const inProcess = [];
  const http = [];
  for (const agents of [1, 16, 64]) {
    inProcess.push({
      agents,
      rate: await rate(agents, (processor) =>
        Promise.resolve({ send: (signed) => processor.accept(signed), close: () => Promise.resolve() }),
      ),
    });
    http.push({ agents, rate: await rate(agents, overHttp) });
  }
  const [signed] = await sign(new Wallet(id("bench.recover")), 1);
  const digest = hashPayment(DOMAIN, signed!.payment);
  return {
    inProcess,
    http,
    recover: perSecond(400, () => recoverStrict(digest, signed!.signature)),
    insert: insertRate(),
  };
}

interface Sender {
  send: (signed: SignedPayment) => Promise<unknown>;
  close: () => Promise<unknown>;
}

async function overHttp(processor: Processor): Promise<Sender> {
  const server = createServer(processor);
  const url = await server.listen({ host: "127.0.0.1", port: 0 });
  return {
    send: async (signed) => {
      const answer = await fetch(`${url}/payments`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(toWire(signed)),
      });
      if (!answer.ok) throw new Error(await answer.text());
      return (await answer.json()) as unknown;
    },
    close: () => server.close(),
  };
}

/** Agents side by side, each sending its next payment when the last has its receipt. Signing is not counted. */
async function rate(agents: number, connect: (processor: Processor) => Promise<Sender>): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "bursar-bench-"));
  const store = new Store(join(folder, "processor.db"));
  const signer = new Wallet(id("bench.processor"));
  const now = () => BigInt(Math.floor(Date.now() / 1_000));
  const never = () => Promise.reject(new Error("the benchmark asks no chain"));
  const processor = new Processor({
    domain: DOMAIN,
    store,
    chain: { mandate: never, revocations: never },
    key: receiptKey(signer),
    settleWithin: 3_600n,
    now,
  });
  const each = PAYMENTS / agents;
  const queues = await Promise.all(
    Array.from({ length: agents }, async (_, i) => {
      const wallet = new Wallet(id(`bench.agent.${i}`));
      store.transact(() =>
        store.addMandate({
          mandate: mandateOf(wallet.address as Address),
          terms: TERMS,
          unitScale: 1n,
          settled: { base: 0n, seq: 0n, spent: 0n },
          revokedAt: null,
          closesAt: 2n ** 40n,
        }),
      );
      return sign(wallet, each);
    }),
  );
  const { send, close } = await connect(processor);
  const began = performance.now();
  await Promise.all(
    queues.map(async (queue) => {
      for (const signed of queue) await send(signed);
    }),
  );
  const seconds = (performance.now() - began) / 1_000;
  await close();
  store.close();
  rmSync(folder, { recursive: true });
  return PAYMENTS / seconds;
}

function mandateOf(agent: Address): Mandate {
  return {
    owner: agent,
    agent,
    token: agent,
    budget: 1_000_000n,
    paymentCap: 1_000n,
    validUntil: 2n ** 40n,
    processor: agent,
    payees: [],
    policyRoot: headHex(policyRoot([], 1_000n)),
    termsHash: termsHash(TERMS),
  };
}

async function sign(wallet: Wallet, count: number): Promise<SignedPayment[]> {
  const agent = wallet.address as Address;
  const ledger = new AgentLedger({ domain: DOMAIN, agent, secret: id(agent) as Hex });
  const signed: SignedPayment[] = [];
  for (let i = 0; i < count; ++i) {
    const { payment, salt } = ledger.append({
      payee: "0x0000000000000000000000000000000000000051",
      amount: 5n,
      ref: ZeroHash as Hex,
    });
    signed.push({ agent, payment, signature: await signPayment(wallet, DOMAIN, payment), salt });
  }
  return signed;
}

function perSecond(count: number, work: () => unknown): number {
  const began = performance.now();
  for (let i = 0; i < count; ++i) work();
  return (count * 1_000) / (performance.now() - began);
}

function insertRate(): number {
  const folder = mkdtempSync(join(tmpdir(), "bursar-bench-"));
  const db = new DatabaseSync(join(folder, "reference.db"));
  db.exec(
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE line (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;",
  );
  const insert = db.prepare("INSERT INTO line (text) VALUES (?)");
  const result = perSecond(500, () => insert.run("x".repeat(500)));
  db.close();
  rmSync(folder, { recursive: true });
  return result;
}
