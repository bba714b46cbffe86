import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";

import {
  encodePaymentHeader,
  decodePaymentHeader,
  toWire,
  verifyPaid,
  type Hex,
  type PageHash,
  type SignedPayment,
} from "@bursar/protocol";
import { loadPageHash, Store, type Processor } from "@bursar/relayer";
import { id, ZeroHash } from "ethers";
import secp256k1 from "secp256k1/bindings.js";

import { AMOUNT, DOMAIN, PAYEE, paymentsOf, PROCESSOR, processorOn, recordOf, signAll } from "./load.ts";

export interface AcceptanceReport {
  /** libsecp256k1's recoveries a second on one core: the reference of everything here. */
  readonly recover: number;
  /** Rows inserted and synced a second, one a transaction. */
  readonly insert: number;
  /** Page hashes a second. */
  readonly pageHash: number;
  /** Payments a second in process, and microseconds of CPU for each. */
  readonly inProcess: Rate;
  /** The same over HTTP, of the processor's process alone; the load comes from another. */
  readonly http: Rate;
  /** At half of that load, milliseconds. */
  readonly latency: { readonly rate: number; readonly p50: number; readonly p99: number };
  /** A payee's offline check of header, payment and receipt, microseconds. */
  readonly verification: number;
  readonly memory: { readonly payments: number; readonly points: readonly MemoryPoint[] };
}

export interface Rate {
  readonly rate: number;
  readonly cpu: number;
}

export interface MemoryPoint {
  readonly payments: number;
  /** MiB. */
  readonly resident: number;
}

const AGENTS = 64;
const SECONDS = 8;

/** @param payments - how many the memory is watched over. */
export async function measureAcceptance(payments: number, say: (text: string) => void): Promise<AcceptanceReport> {
  const hashPage = await loadPageHash();
  const lines = Array.from({ length: 7 }, (_, i) => BigInt(i + 1));
  const pageHash = perSecond(3_000, () => hashPage(1n, lines, 2n));
  const [recover, insert] = [recoverRate(), insertRate()];
  say("acceptance in process");
  const inProcess = await rateInProcess(hashPage);
  say("acceptance over HTTP");
  const { http, latency } = await overHttp(hashPage);
  say(`memory over ${payments} payments`);
  const memory = { payments, points: await memoryOver(payments, hashPage) };
  return { recover, insert, pageHash, inProcess, http, latency, verification: await verification(hashPage), memory };
}

async function rateInProcess(hashPage: PageHash): Promise<Rate> {
  const { processor, close } = await processorIn(hashPage);
  const queues = signAll(AGENTS, 100, hashPage);
  const before = process.cpuUsage();
  const began = performance.now();
  await Promise.all(
    queues.map(async (queue) => {
      for (const signed of queue) await processor.accept(signed);
    }),
  );
  const seconds = (performance.now() - began) / 1_000;
  const { user, system } = process.cpuUsage(before);
  await close();
  const count = AGENTS * 100;
  return { rate: count / seconds, cpu: (user + system) / count };
}

async function overHttp(hashPage: PageHash): Promise<Pick<AcceptanceReport, "http" | "latency">> {
  const folder = mkdtempSync(join(tmpdir(), "bursar-bench-"));
  const { child, url } = await start(join(folder, "processor.db"));
  const signers = Array.from({ length: AGENTS }, (_, i) => paymentsOf(i, hashPage));
  const bodies = (each: number): string[][] =>
    signers.map((signer) => Array.from({ length: each }, () => JSON.stringify(toWire(signer.next().value))));
  const sendAll = async (queues: readonly string[][]): Promise<number> => {
    // Signing took longer than an idle connection is kept.
    const agent = new Agent({ keepAlive: true, maxSockets: AGENTS });
    const began = performance.now();
    await Promise.all(
      queues.map(async (queue) => {
        for (const body of queue) await post(agent, url, body);
      }),
    );
    const seconds = (performance.now() - began) / 1_000;
    agent.destroy();
    return seconds;
  };
  await sendAll(bodies(20));
  const each = 300;
  const queues = bodies(each);
  const before = await usage(child);
  const seconds = await sendAll(queues);
  const after = await usage(child);
  const count = AGENTS * each;
  const http = { rate: count / seconds, cpu: (after.cpu - before.cpu) / count };
  const latency = await latencyAt(1_250, signers, url);
  child.kill();
  await once(child, "close");
  rmSync(folder, { recursive: true });
  return { http, latency };
}

/** An open load: a request leaves at its time, whether the last was answered or not. */
async function latencyAt(
  rate: number,
  signers: readonly Generator<SignedPayment>[],
  url: string,
): Promise<AcceptanceReport["latency"]> {
  const count = rate * SECONDS;
  const queues = signers.map((signer) =>
    Array.from({ length: Math.ceil(count / AGENTS) }, () =>
      JSON.stringify(toWire(signer.next().value as SignedPayment)),
    ),
  );
  const latencies: number[] = [];
  const agent = new Agent({ keepAlive: true, maxSockets: AGENTS });
  const began = performance.now();
  /** An agent's next payment waits for its last, as real ones do; its latency counts from when it was due. */
  await Promise.all(
    queues.map(async (queue, index) => {
      for (const [turn, body] of queue.entries()) {
        const due = began + ((turn * AGENTS + index) * 1_000) / rate;
        const wait = due - performance.now();
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
        await post(agent, url, body);
        latencies.push(performance.now() - due);
      }
    }),
  );
  agent.destroy();
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.floor(latencies.length * share)]!;
  return { rate, p50: at(0.5), p99: at(0.99) };
}

async function memoryOver(payments: number, hashPage: PageHash): Promise<MemoryPoint[]> {
  const folder = mkdtempSync(join(tmpdir(), "bursar-bench-"));
  const path = join(folder, "processor.db");
  const { child, url } = await start(path);
  const agent = new Agent({ keepAlive: true, maxSockets: AGENTS });
  const signers = Array.from({ length: AGENTS }, (_, i) => paymentsOf(i, hashPage));
  const points: MemoryPoint[] = [];
  const steps = 10;
  for (let step = 1; step <= steps; ++step) {
    const each = Math.ceil(payments / steps / AGENTS);
    await Promise.all(
      signers.map(async (signer) => {
        for (let i = 0; i < each; ++i) await post(agent, url, JSON.stringify(toWire(signer.next().value)));
      }),
    );
    points.push({ payments: step * each * AGENTS, resident: (await usage(child)).memory / 2 ** 20 });
  }
  agent.destroy();
  child.kill();
  await once(child, "close");
  if (statSync(path).size === 0) throw new Error("nothing was written");
  rmSync(folder, { recursive: true });
  return points;
}

async function verification(hashPage: PageHash): Promise<number> {
  const { processor, close } = await processorIn(hashPage);
  const headers: string[] = [];
  const signer = paymentsOf(0, hashPage);
  for (let i = 0; i < 500; ++i) {
    const payment = signer.next().value;
    headers.push(encodePaymentHeader({ domain: DOMAIN, payment, receipt: await processor.accept(payment) }));
  }
  await close();
  const expected = {
    domain: DOMAIN,
    payee: PAYEE,
    amount: AMOUNT,
    ref: ZeroHash,
    processor: PROCESSOR.address,
  } as const;
  const now = BigInt(Math.floor(Date.now() / 1_000));
  let next = 0;
  const rate = perSecond(5_000, () =>
    verifyPaid(decodePaymentHeader(headers[next++ % headers.length]!), {
      ...expected,
      ref: ZeroHash as Hex,
      processor: expected.processor as Hex,
      now,
    }),
  );
  return 1e6 / rate;
}

async function processorIn(hashPage: PageHash): Promise<{ processor: Processor; close: () => Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), "bursar-bench-"));
  const store = await Store.open(join(folder, "processor.db"));
  await store.transact(async () => {
    for (let agent = 0; agent < AGENTS; ++agent) await store.addMandate(recordOf(agent));
  });
  const processor = processorOn({ store, hashPage });
  const close = async (): Promise<void> => {
    await store.close();
    rmSync(folder, { recursive: true });
  };
  return { processor, close };
}

async function start(path: string): Promise<{ child: ChildProcess; url: string }> {
  const child = fork(fileURLToPath(new URL("processor-process.ts", import.meta.url)), [path, String(AGENTS)], {
    execArgv: ["--import", "tsx", "--expose-gc"],
  });
  const [{ url }] = (await once(child, "message")) as [{ url: string }];
  return { child, url };
}

async function usage(child: ChildProcess): Promise<{ cpu: number; memory: number }> {
  child.send("usage");
  const [answer] = (await once(child, "message")) as [{ cpu: number; memory: number }];
  return answer;
}

function post(agent: Agent, url: string, body: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    const sent = request(`${url}/payments`, { method: "POST", agent, headers }, (answer) => {
      let text = "";
      answer.on("data", (chunk: Buffer) => (text += String(chunk)));
      answer.on("end", () => (answer.statusCode === 200 ? resolve() : reject(new Error(text))));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

function recoverRate(): number {
  const [digest, key] = [Buffer.from(id("digest").slice(2), "hex"), Buffer.from(id("key").slice(2), "hex")];
  const { signature, recid } = secp256k1.ecdsaSign(digest, key);
  return perSecond(20_000, () => secp256k1.ecdsaRecover(signature, recid, digest, false));
}

/** After a fifth of the work to warm up. */
function perSecond(count: number, work: () => unknown): number {
  for (let i = 0; i < count / 5; ++i) work();
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
