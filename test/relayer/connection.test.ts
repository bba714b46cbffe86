import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer as createProxy, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

import { toWire, type Problem, type SignedPayment, type SignedReceipt } from "@bursar/protocol";
import { createServer, Witness, type ProcessorOptions } from "@bursar/relayer";
import { expect } from "chai";
import type { FastifyInstance } from "fastify";
import pg from "pg";

import type { PayingAgent } from "../integration/rail.ts";
import { startPostgres, type LocalPostgres } from "../../scripts/load/postgres.ts";
import { addressOf, Office, refusalOf } from "./office.ts";

const SHOP = addressOf("shop");
/** Milliseconds: an answer of a server that lives comes sooner. */
const PATIENCE = 1_500;

/** A PostgreSQL that can be hit, with all its processes. */
class Victim {
  readonly url: string;
  readonly #server: LocalPostgres;

  private constructor(server: LocalPostgres) {
    this.url = server.url;
    this.#server = server;
  }

  static async start(): Promise<Victim> {
    return new Victim(await startPostgres());
  }

  signal(name: "SIGSTOP" | "SIGCONT" | "SIGKILL"): void {
    const { pid } = this.#server;
    const children = execFileSync("ps", ["-o", "pid=", "--ppid", String(pid)], { encoding: "utf8" }).split(/\s+/);
    for (const one of [pid, ...children.filter((text) => text !== "")]) process.kill(Number(one), name);
  }

  /** On the same data, as after a power cut. */
  async startAgain(): Promise<void> {
    for (;;) {
      try {
        await this.#server.start();
        return;
      } catch {
        await setTimeout(100);
      }
    }
  }

  stop(): Promise<void> {
    return this.#server.stop();
  }
}

async function ask(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

describe("a processor whose database goes away", function () {
  this.timeout(240_000);
  let victim: Victim;
  let books: string;
  let folder: string;
  let count = 0;
  const closing: (() => unknown)[] = [];

  before(async () => {
    victim = await Victim.start();
  });
  after(() => victim.stop());
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "bursar-connection-"));
    books = `books_${++count}`;
    await ask(`${victim.url}/postgres`, `CREATE DATABASE ${books}`);
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
    rmSync(folder, { recursive: true });
  });

  async function open(url = `${victim.url}/${books}`, overrides: Partial<ProcessorOptions> = {}): Promise<Office> {
    const office = await Office.at(url, overrides, { patience: PATIENCE, connections: 4 });
    closing.push(() => office.store.close());
    return office;
  }

  /** The processor over HTTP. */
  async function serve(office: Office): Promise<(payment: SignedPayment) => Promise<SignedReceipt | Problem>> {
    const server: FastifyInstance = createServer(office.processor);
    const url = await server.listen({ host: "127.0.0.1", port: 0 });
    closing.push(() => server.close());
    return async (payment) => {
      const headers = { "content-type": "application/json" };
      const response = await fetch(`${url}/payments`, {
        method: "POST",
        headers,
        body: JSON.stringify(toWire(payment)),
      });
      return (await response.json()) as SignedReceipt | Problem;
    };
  }

  it("answers 503 while it is dead or hangs, keeps running, and gives the same receipts when it is back", async () => {
    const office = await open();
    const send = await serve(office);
    const agents = await Promise.all(["Ada", "Ben", "Cleo", "Dan"].map((name) => office.agent(name)));
    const told = new Map<string, SignedReceipt>();
    const refusals: Problem[] = [];
    let stopped = false;

    /** Pays one thing after the other; what has no receipt is sent again with the same bytes. */
    const payOn = async (agent: PayingAgent): Promise<void> => {
      while (!stopped) {
        const payment = await agent.sign(SHOP, 1n);
        let answer = await send(payment);
        while (!("receipt" in answer)) {
          refusals.push(answer);
          answer = await send(payment);
        }
        expect(await send(payment).then((again) => ("receipt" in again ? again : answer))).to.deep.equal(answer);
        agent.ledger.commit();
        told.set(`${agent.address} ${payment.payment.seq}`, answer);
      }
    };
    const paying = Promise.all(agents.map(payOn));
    const more = async (): Promise<void> => {
      for (const wanted = told.size + 40; told.size < wanted;) await setTimeout(20);
    };
    const refused = async (): Promise<void> => {
      for (const wanted = refusals.length + 4; refusals.length < wanted;) await setTimeout(20);
    };

    for (let round = 0; round < 2; ++round) {
      await more();
      victim.signal("SIGKILL");
      await refused();
      await victim.startAgain();
      await more();
      victim.signal("SIGSTOP");
      await refused();
      victim.signal("SIGCONT");
    }
    await more();
    stopped = true;
    await paying;

    expect(new Set(refusals.map(({ code, status }) => `${status} ${code}`))).to.deep.equal(
      new Set(["503 store-unavailable"]),
    );
    for (const { detail } of refusals) expect(detail).not.to.match(/127\.0\.0\.1|ECONN|timeout/);
    const reopened = await open();
    for (const [key, receipt] of told) {
      const [agent, seq] = key.split(" ") as [typeof SHOP, string];
      expect(toWire(await reopened.processor.receipt(agent, BigInt(seq))), key).to.deep.equal(receipt);
    }
    const [numbers] = await reopened.store.database.all(
      "SELECT COUNT(*) AS payments, MAX(log_index) AS last, COUNT(DISTINCT agent || seq) AS different FROM payment",
    );
    expect(numbers).to.deep.equal({ payments: told.size, last: told.size - 1, different: told.size });
    for (const { address } of agents) {
      const { seq, spent } = (await reopened.processor.tail(address)).position;
      expect(spent).to.equal(seq);
      expect(await reopened.store.payments(address, 1n, seq)).to.have.length(Number(seq));
    }
  });

  it("gives the receipt of a commit whose answer was lost when it is asked again", async () => {
    const line = await Cut.to(Number(new URL(victim.url).port));
    closing.push(() => line.close());
    const url = new URL(`${victim.url}/${books}`);
    url.port = String(line.port);
    const office = await open(url.href);
    const agent = await office.agent("Ada");
    await agent.pay(SHOP, 1n);
    const payment = await agent.sign(SHOP, 2n);
    line.cutAfter("COMMIT");
    expect((await refusalOf(() => office.processor.accept(payment))).code).to.equal("store-unavailable");
    expect(line.cuts).to.equal(1);
    expect((await office.processor.accept(payment)).receipt).to.include({ seq: 2n, logIndex: 1n });
    expect((await office.store.counts()).payments).to.equal(2);
  });

  it("waits no longer than its patience for somebody else's lock, and goes on after it", async () => {
    const office = await open();
    const agent = await office.agent("Ada");
    const payment = await agent.sign(SHOP, 1n);
    const other = new pg.Client(`${victim.url}/${books}`);
    await other.connect();
    await other.query("BEGIN");
    await other.query("SELECT * FROM mandate FOR UPDATE");
    expect((await refusalOf(() => office.processor.accept(payment))).code).to.equal("store-unavailable");
    await other.query("ROLLBACK");
    await other.end();
    expect((await office.processor.accept(payment)).receipt).to.include({ seq: 1n, logIndex: 0n });
  });

  it("does not stop others when it stops in the middle of a transaction", async () => {
    const office = await open();
    const agent = await office.agent("Ada");
    const payment = await agent.sign(SHOP, 1n);
    const hung = await open();
    let locked!: () => void;
    const isLocked = new Promise<void>((resolve) => (locked = resolve));
    let wake!: () => void;
    const awake = new Promise<void>((resolve) => (wake = resolve));
    const late = hung.store.transact(async () => {
      await hung.store.lockMandates([agent.address]);
      locked();
      await awake;
      await hung.store.markRevoked(agent.address, 1n);
    });
    await isLocked;
    let receipt: SignedReceipt | undefined;
    while (receipt === undefined) {
      receipt = await office.processor.accept(payment).catch(() => undefined);
    }
    wake();
    expect((await refusalOf(() => late)).code).to.equal("store-unavailable");
    expect((await office.store.mandateOf(agent.address)).revokedAt).to.equal(null);
  });

  it("calls a deadlock what it is: something to try again", async () => {
    const { store } = await open();
    await store.putPayee({ address: addressOf("one"), name: "one", host: "one.example", category: "data" });
    await store.putPayee({ address: addressOf("two"), name: "two", host: "two.example", category: "data" });
    const touch = (name: string): Promise<void> =>
      store.database.run("UPDATE payee SET category = 'food' WHERE name = ?", name);
    const meet = gate(2);
    const both = await Promise.allSettled(
      [
        ["one", "two"],
        ["two", "one"],
      ].map(([first, second]) =>
        store.transact(async () => {
          await touch(first!);
          await meet();
          await touch(second!);
        }),
      ),
    );
    const failed = both.filter((end): end is PromiseRejectedResult => end.status === "rejected");
    expect(failed).to.have.length(1);
    expect(failed[0]!.reason).to.include({ code: "store-unavailable" });
  });

  it("plans its statements anew when another version has changed the tables", async () => {
    const office = await open();
    const agent = await office.agent("Ada");
    await agent.pay(SHOP, 1n);
    await ask(`${victim.url}/${books}`, "ALTER TABLE mandate ADD COLUMN later BIGINT");
    const payment = await agent.sign(SHOP, 2n);
    let receipt: SignedReceipt | undefined;
    while (receipt === undefined) {
      const answer = await office.processor.accept(payment).catch((error: unknown) => error as { code: string });
      if ("receipt" in answer) receipt = answer;
      else expect(answer.code).to.equal("store-unavailable");
    }
    expect(receipt.receipt.seq).to.equal(2n);
  });

  it("signs nothing when what comes back is an earlier state of it", async () => {
    const witness = Witness.open(join(folder, "witness"));
    closing.push(() => witness.close());
    const office = await open(undefined, { witness });
    const agent = await office.agent("Ada");
    const handed: { payment: SignedPayment; receipt: SignedReceipt }[] = [];
    const pay = async (): Promise<void> => {
      const payment = await agent.sign(SHOP, 1n);
      handed.push({ payment, receipt: await office.processor.accept(payment) });
      agent.ledger.commit();
    };
    await pay();
    await copyDatabase(books, "backup");
    for (let i = 0; i < 3; ++i) await pay();
    await copyDatabase("backup", books);
    const refusal = await refusalOf(pay);
    expect(refusal.code).to.equal("books-behind");
    expect(refusal.details).to.deep.equal({ value: "1", limit: "4" });
    agent.ledger.discard();
    expect(await office.processor.takeBack(handed)).to.deep.equal({ promised: 4, missing: 0 });
    await pay();
    expect(handed.at(-1)!.receipt.receipt).to.include({ seq: 5n, logIndex: 4n });
  });

  /** In place of what stands there; whoever is connected is cut off. */
  async function copyDatabase(from: string, to: string): Promise<void> {
    const admin = `${victim.url}/postgres`;
    await ask(admin, `DROP DATABASE IF EXISTS ${to} WITH (FORCE)`);
    await ask(admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${from}'`);
    for (;;) {
      try {
        await ask(admin, `CREATE DATABASE ${to} TEMPLATE ${from}`);
        return;
      } catch {
        await setTimeout(50);
      }
    }
  }
});

/** Lets the first callers wait for the last. */
function gate(callers: number): () => Promise<void> {
  let waiting = callers;
  let open!: () => void;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return () => {
    if (--waiting === 0) open();
    return opened;
  };
}

/** A line to a server that breaks once, between a request and its answer. */
class Cut {
  readonly #server: Server;
  #word: string | null = null;
  cuts = 0;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async to(port: number): Promise<Cut> {
    const server = createProxy();
    const cut = new Cut(server);
    server.on("connection", (client) => {
      const target = connect(port, "127.0.0.1");
      const end = (): void => {
        client.destroy();
        target.destroy();
      };
      for (const socket of [client, target]) socket.on("error", end).on("close", end);
      let cutting = false;
      client.on("data", (bytes: Buffer) => {
        if (cut.#word !== null && bytes.includes(cut.#word)) {
          cut.#word = null;
          cutting = true;
        }
        target.write(bytes);
      });
      target.on("data", (bytes: Buffer) => {
        if (!cutting) return void client.write(bytes);
        ++cut.cuts;
        end();
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return cut;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** The next request with this word in it is done, and never answered. */
  cutAfter(word: string): void {
    this.#word = word;
  }

  close(): void {
    this.#server.close();
  }
}
