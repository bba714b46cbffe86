import { BursarError, requestRef, signWithKey, hashPayment, type Address, type Hex } from "@bursar/protocol";
import { MemoryReceipts, readRecord, type Marked, type ReceiptStore, type UsedReceipt } from "@bursar/sdk/payee";
import { RedisReceipts } from "@bursar/sdk/payee/redis";
import { SqliteReceipts } from "@bursar/sdk/payee/sqlite";
import { expect } from "chai";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createClient } from "redis";

import { addressOf, word } from "../../protocol/reference.ts";
import { provide } from "../../provide.ts";
import { SHOPS } from "./shops.ts";
import {
  addressIn,
  Buyer,
  DOMAIN,
  Ledger,
  now,
  OTHER_PROCESSOR,
  paidWith,
  PAYEE,
  PROCESSOR,
  refused,
  stall,
} from "./stand.ts";

const PROCESSOR_ADDRESS = addressIn(PROCESSOR);
const MUCH = { processor: 10n ** 9n, mandate: 10n ** 9n };
const url = "https://api.example.com/weather";

function used(buyer: Buyer, amount = 100n, changes: Partial<UsedReceipt> = {}, settleBy?: bigint): UsedReceipt {
  const line = { payee: addressIn(PAYEE), amount, ref: requestRef({ method: "GET", url }) };
  const paid = buyer.pay(line, settleBy === undefined ? {} : { receipt: { settleBy } });
  return { paid, processor: PROCESSOR_ADDRESS, method: "GET", url, usedAt: now(), settled: false, ...changes };
}

const closingOf = (store: SqliteReceipts) => (): Promise<void> => {
  store.close();
  return Promise.resolve();
};

/** The same receipt as if its payment had another number. */
function numbered(one: UsedReceipt, seq: bigint): UsedReceipt {
  const { payment } = one.paid;
  return { ...one, paid: { ...one.paid, payment: { ...payment, payment: { ...payment.payment, seq } } } };
}

const keyIn = ({ paid: { domain, payment } }: UsedReceipt) => ({
  domain,
  agent: payment.agent,
  seq: payment.payment.seq,
});

/** The real stores: each opens on what the one before it left. */
interface Kind {
  readonly name: string;
  readonly lasts: boolean;
  readonly before: () => Promise<void>;
  readonly open: () => Promise<{ store: ReceiptStore; close: () => Promise<void> }>;
  readonly after: () => Promise<void>;
  /** Kills the server as a power cut would, and starts it again. */
  readonly crash?: () => Promise<void>;
}

function sqlite(): Kind & { path: string } {
  const folder = mkdtempSync(join(tmpdir(), "bursar-receipts-"));
  let turn = 0;
  const kind = {
    name: "SQLite",
    lasts: true,
    path: "",
    before: () => {
      kind.path = join(folder, `receipts-${turn++}.db`);
      return Promise.resolve();
    },
    open: () => {
      const store = new SqliteReceipts(kind.path);
      return Promise.resolve({ store, close: closingOf(store) });
    },
    after: () => {
      rmSync(folder, { recursive: true });
      return Promise.resolve();
    },
  };
  return kind;
}

function redis(): Kind {
  const folder = mkdtempSync(join(tmpdir(), "bursar-redis-"));
  let server: ChildProcess | null = null;
  let port = 0;
  let turn = 0;
  const start = async (): Promise<void> => {
    const options = ["--port", String(port), "--dir", folder, "--appendonly", "yes", "--appendfsync", "always"];
    server = spawn(provide("redis-server"), [...options, "--bind", "127.0.0.1"], { stdio: "ignore" });
    await answering(port);
  };
  const stop = async (signal: "SIGTERM" | "SIGKILL"): Promise<void> => {
    if (server === null) return;
    const ended = once(server, "exit");
    server.kill(signal);
    await ended;
  };
  return {
    name: "Redis",
    lasts: true,
    before: async () => {
      if (server === null) {
        port = await freePort();
        await start();
      }
      turn += 1;
    },
    open: async () => {
      const client = createClient({ url: `redis://127.0.0.1:${port}`, disableOfflineQueue: true });
      await client.connect();
      const store = new RedisReceipts(client, { prefix: `{shop*${turn}}` });
      return { store, close: () => client.close() };
    },
    crash: async () => {
      await stop("SIGKILL");
      await start();
    },
    after: async () => {
      await stop("SIGTERM");
      rmSync(folder, { recursive: true });
    },
  };
}

function memory(): Kind {
  let store = new MemoryReceipts();
  return {
    name: "memory",
    lasts: false,
    before: () => {
      store = new MemoryReceipts();
      return Promise.resolve();
    },
    open: () => Promise.resolve({ store, close: () => Promise.resolve() }),
    after: () => Promise.resolve(),
  };
}

for (const kind of [memory(), sqlite(), redis()]) {
  describe(`receipts in ${kind.name}`, function () {
    this.timeout(180_000);
    let store: ReceiptStore;
    let buyer: Buyer;
    const closing: (() => Promise<void>)[] = [];

    async function replica(): Promise<ReceiptStore> {
      const opened = await kind.open();
      closing.push(opened.close);
      return opened.store;
    }

    beforeEach(async () => {
      await kind.before();
      store = await replica();
      buyer = new Buyer();
    });
    afterEach(async () => {
      for (const close of closing.splice(0)) await close();
    });
    after(() => kind.after());

    it("are used once, whichever of two replicas is asked, and however often at once (P8)", async () => {
      const other = await replica();
      const one = used(buyer);
      const marks = await Promise.all(
        Array.from({ length: 64 }, (_, index) => (index % 2 === 0 ? store : other).mark(one, MUCH)),
      );
      expect(marks.filter(({ kind: marked }) => marked === "marked")).to.deep.equal([
        { kind: "marked", exposure: 100n },
      ]);
      expect(marks.filter(({ kind: marked }) => marked === "used")).to.have.length(63);
      expect(await other.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(100n);
    });

    it("are named by chain, contract, agent and number, and by nothing else", async () => {
      const one = used(buyer);
      await store.mark(one, MUCH);
      const twin = used(buyer.twin(), 7n);
      expect(keyIn(twin).seq).to.equal(1n);
      expect(await store.mark(twin, MUCH)).to.deep.equal({ kind: "used" });
      for (const domain of [
        { ...DOMAIN, chainId: 1n },
        { ...DOMAIN, registry: addressOf("elsewhere") },
      ]) {
        const elsewhere = { ...one, paid: { ...one.paid, domain } };
        expect(await store.mark(elsewhere, MUCH)).to.deep.equal({ kind: "marked", exposure: 100n });
      }
      expect((await store.mark(used(buyer), MUCH)).kind).to.equal("marked");
      expect((await store.mark(used(new Buyer()), MUCH)).kind).to.equal("marked");
    });

    it("hold numbers above 2^63", async () => {
      const seq = 2n ** 64n - 1n;
      const last = numbered(used(buyer), seq);
      expect((await store.mark(last, MUCH)).kind).to.equal("marked");
      expect((await store.mark(last, MUCH)).kind).to.equal("used");
      await store.settled(DOMAIN, buyer.address, seq - 1n);
      expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(100n);
      await store.settled(DOMAIN, buyer.address, seq);
      expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(0n);
      expect((await store.find({ domain: DOMAIN, agent: buyer.address, seq }))?.settled).to.equal(true);
    });

    it("keep whole what was shown, as evidence, and export it as JSON lines", async () => {
      const records = [used(buyer), used(buyer, 5n), used(new Buyer(), 6n, { settled: true })];
      for (const record of records) await store.mark(record, MUCH);
      expect(await store.find(keyIn(records[1]!))).to.deep.equal({ ...records[1], released: false, refund: null });
      expect(await store.find({ ...keyIn(records[1]!), seq: 3n })).to.equal(null);
      const lines: string[] = [];
      for await (const line of store.export()) lines.push(line);
      expect(lines.every((line) => line.endsWith("}\n"))).to.equal(true);
      const told = lines.map(readRecord).map(({ paid }) => paid.payment.signature);
      expect(told).to.have.members(records.map(({ paid }) => paid.payment.signature));
    });

    it("stop at the limit of the processor and at what is left of the mandate, and write nothing then", async () => {
      const limits = { processor: 250n, mandate: 150n };
      await store.mark(used(buyer), limits);
      const second = used(buyer);
      expect(await store.mark(second, limits)).to.deep.equal({
        kind: "exceeded",
        scope: "mandate",
        value: 200n,
        limit: 150n,
      });
      expect((await store.mark(used(new Buyer(), 150n), limits)).kind).to.equal("marked");
      const third = used(new Buyer(), 1n);
      expect(await store.mark(third, limits)).to.deep.equal({
        kind: "exceeded",
        scope: "processor",
        value: 251n,
        limit: 250n,
      });
      expect(await store.find(keyIn(third))).to.equal(null);
      const elsewhere = used(new Buyer(), 150n, { processor: addressIn(OTHER_PROCESSOR) });
      expect((await store.mark(elsewhere, limits)).kind).to.equal("marked");
      expect((await store.mark({ ...third, settled: true }, limits)).kind).to.equal("marked");
      expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(250n);
    });

    it("never exceed a limit, however many come at once", async () => {
      const other = await replica();
      const marks = await Promise.all(
        Array.from({ length: 40 }, (_, index) =>
          (index % 2 === 0 ? store : other).mark(used(new Buyer(), 10n), { processor: 105n, mandate: 10n }),
        ),
      );
      expect(marks.filter(({ kind: marked }) => marked === "marked")).to.have.length(10);
      expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(100n);
    });

    it("free what has settled, up to a number and of one agent", async () => {
      const other = new Buyer();
      for (let turn = 0; turn < 12; turn++) await store.mark(used(buyer, 10n), MUCH);
      await store.mark(used(other, 1n), MUCH);
      expect(await store.unsettled(DOMAIN, PROCESSOR_ADDRESS, 10)).to.have.members([buyer.address, other.address]);
      await store.settled(DOMAIN, buyer.address, 9n);
      await store.settled(DOMAIN, buyer.address, 9n);
      expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(31n);
      await store.settled(DOMAIN, buyer.address, 100n);
      expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(1n);
      expect(await store.unsettled(DOMAIN, PROCESSOR_ADDRESS, 10)).to.deep.equal([other.address]);
      expect(await store.exposure({ ...DOMAIN, chainId: 1n }, PROCESSOR_ADDRESS)).to.equal(0n);
    });

    it("can be used again once released, with the same payment only, and count once", async () => {
      const one = used(buyer);
      await store.mark(one, MUCH);
      await store.release(keyIn(one));
      expect((await store.find(keyIn(one)))?.released).to.equal(true);
      expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(100n);
      expect((await store.mark(used(buyer.twin(), 7n), MUCH)).kind).to.equal("used");
      const marks: Marked[] = await Promise.all([store.mark(one, MUCH), store.mark(one, MUCH)]);
      expect(marks.map(({ kind: marked }) => marked).sort()).to.deep.equal(["marked", "used"]);
      expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(100n);
      expect((await store.find(keyIn(one)))?.released).to.equal(false);
      await store.release({ domain: DOMAIN, agent: addressOf("nobody"), seq: 1n });
    });

    it("remember one refund a payment", async () => {
      const one = used(buyer);
      await store.mark(one, MUCH);
      const refund = { payee: addressOf("owner"), amount: 40n, ref: word("refund"), seq: null };
      const begun = await Promise.all([store.beginRefund(keyIn(one), refund), store.beginRefund(keyIn(one), refund)]);
      expect(begun.filter((before) => before === null)).to.have.length(1);
      await store.endRefund(keyIn(one), { ...refund, seq: 3n });
      expect(await store.beginRefund(keyIn(one), { ...refund, amount: 1n })).to.deep.equal({ ...refund, seq: 3n });
      expect((await store.find(keyIn(one)))?.refund).to.deep.equal({ ...refund, seq: 3n });
      await store.endRefund(keyIn(one), null);
      expect(await store.beginRefund(keyIn(one), refund)).to.equal(null);
      const unknown = await store.beginRefund({ ...keyIn(one), seq: 9n }, refund).catch((error: unknown) => error);
      expect((unknown as BursarError).code).to.equal("not-found");
    });

    if (kind.lasts) {
      it("serve one of 64 connections with the same header, over two replicas of a service (P8)", async () => {
        const mandates = new Ledger();
        mandates.open(buyer.address);
        const origin = "https://api.example.com";
        const [, open] = SHOPS[0]!;
        const replicas = [store, await replica()].map((receipts) => stall(mandates, { receipts, origin }));
        const shops = await Promise.all(replicas.map((paywall) => open(paywall, { price: "0.00025" })));
        for (let turn = 0; turn < 3; turn++) {
          const header = buyer.header({ url, amount: 250n });
          const answers = await Promise.all(
            Array.from({ length: 64 }, (_, index) => fetch(`${shops[index % 2]!.url}/weather`, paidWith(header))),
          );
          expect(answers.filter(({ status }) => status === 200)).to.have.length(1);
          for (const answer of answers) if (answer.status !== 200) await refused(answer, "receipt-used");
        }
        expect(shops[0]!.served + shops[1]!.served).to.equal(3);
        for (const shop of shops) await shop.close();
      });

      it("survive a restart, with what is unsettled", async () => {
        const one = used(buyer);
        await store.mark(one, MUCH);
        for (const close of closing.splice(0)) await close();
        await kind.crash?.();
        store = await replica();
        expect((await store.mark(one, MUCH)).kind).to.equal("used");
        expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(100n);
        await store.settled(DOMAIN, buyer.address, 1n);
        expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(0n);
      });

      it("refuse with a reason when they cannot be reached", async () => {
        for (const close of closing.splice(0)) await close();
        const error = await store.mark(used(buyer), MUCH).catch((refusal: unknown) => refusal);
        expect((error as BursarError).code).to.equal("store-unavailable");
      });
    }
  });
}

describe("receipts in memory", () => {
  it("are forgotten once settled and past every use, and not before", async () => {
    let time = now();
    const store = new MemoryReceipts({ now: () => time });
    const due = time + 10n;
    const old = used(new Buyer(), 1n, { settled: true }, due);
    const owed = used(new Buyer(), 1n, {}, due);
    await store.mark(old, MUCH);
    await store.mark(owed, MUCH);
    time = due + 86_399n;
    const recent = used(new Buyer(), 1n, { settled: true }, due + 1_000_000n);
    let seq = 0n;
    const mark = () => store.mark(numbered(recent, ++seq), MUCH);
    for (let turn = 0; turn < 1_000; turn++) await mark();
    expect(await store.find(keyIn(old))).not.to.equal(null);
    time += 1n;
    for (let turn = 0; turn < 1_000; turn++) await mark();
    expect(await store.find(keyIn(old))).to.equal(null);
    expect(await store.find(keyIn(owed))).not.to.equal(null);
    expect(store.size).to.equal(2_001);
  });

  it("are refused when the memory is full, and none is forgotten for another", async () => {
    const store = new MemoryReceipts({ most: 2 });
    const first = used(new Buyer());
    await store.mark(first, MUCH);
    await store.mark(used(new Buyer()), MUCH);
    const error = await store.mark(used(new Buyer()), MUCH).catch((refusal: unknown) => refusal);
    expect((error as BursarError).code).to.equal("store-unavailable");
    expect((await store.mark(first, MUCH)).kind).to.equal("used");
  });
});

describe("receipts in SQLite", () => {
  it("that settled long ago can be pruned, and no others", async () => {
    const store = new SqliteReceipts(":memory:");
    const long = now() - 1_000_000n;
    const old = used(new Buyer(), 1n, { settled: true }, long);
    const records = [old, used(new Buyer(), 1n, {}, long), used(new Buyer(), 1n, { settled: true })];
    for (const record of records) await store.mark(record, MUCH);
    expect(await store.prune(now() + 10n ** 6n)).to.equal(1);
    expect(await store.find(keyIn(old))).to.equal(null);
    store.close();
  });

  it("are never used twice though the process is killed between mark and handler", async function () {
    this.timeout(60_000);
    const folder = mkdtempSync(join(tmpdir(), "bursar-killed-"));
    const path = join(folder, "receipts.db");
    const program = fileURLToPath(new URL("./killed-at-handler.ts", import.meta.url));
    const key = word("killed agent");
    const run = async (): Promise<string> => {
      const child = spawn(process.execPath, ["--import", "tsx", program, path, key], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      let output = "";
      child.stdout.on("data", (chunk: Buffer) => (output += String(chunk)));
      await once(child, "close");
      return output;
    };
    expect(await run()).to.equal("handler\n");
    expect(await run()).to.equal("402 receipt-used\n");
    const store = new SqliteReceipts(path);
    expect(await store.exposure(DOMAIN, PROCESSOR_ADDRESS)).to.equal(250n);
    store.close();
    rmSync(folder, { recursive: true });
  });
});

describe("a signature in a record", () => {
  it("is the agent's own, so that a claim can be made of it", async () => {
    const store = new SqliteReceipts(":memory:");
    const buyer = new Buyer();
    const one = used(buyer);
    await store.mark(one, MUCH);
    const lines: string[] = [];
    for await (const line of store.export()) lines.push(line);
    const { paid } = readRecord(lines[0]!);
    const digest = hashPayment(paid.domain, paid.payment.payment);
    expect(paid.payment.signature).to.equal(signWithKey(digest, buyer.wallet.privateKey as Hex));
    expect(paid.receipt.receipt.agent satisfies Address).to.equal(buyer.address);
    store.close();
  });
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

async function answering(port: number): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const client = createClient({ url: `redis://127.0.0.1:${port}`, socket: { reconnectStrategy: false } });
    client.on("error", () => undefined);
    const up = await client.connect().then(
      () => true,
      () => false,
    );
    if (up) return client.close();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("redis-server does not answer");
}
