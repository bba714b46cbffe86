import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { AgentLedger, signPayment, toWire, type Address, type Hex, type SignedPayment } from "@bursar/protocol";
import { Keyring, Store } from "@bursar/relayer";
import { expect } from "chai";
import { id, ZeroHash, type Wallet } from "ethers";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { Books } from "../relayer/books.ts";
import { postgresUrl } from "../relayer/databases.ts";
import { TestRail } from "./rail.ts";

const SHOP = "0x00000000000000000000000000000000000005A0" as Address;
const CAFE = "0x00000000000000000000000000000000000005A1" as Address;

const some = (count: number): number => Math.floor(Math.random() * count);

/** An agent that signs its payments one after another, and another one on the same number whenever it is asked. */
class Signer {
  readonly wallet: Wallet;
  readonly ledger: AgentLedger;
  readonly #domain: Books["domain"];

  constructor(wallet: Wallet, domain: Books["domain"]) {
    this.wallet = wallet;
    this.#domain = domain;
    this.ledger = new AgentLedger({ domain, agent: wallet.address as Address, secret: id(wallet.address) as Hex });
  }

  async sign(payee = SHOP, ref: Hex = ZeroHash as Hex): Promise<SignedPayment> {
    const { payment, salt } = this.ledger.draft({ payee, amount: 1n, ref });
    const signature = await signPayment(this.wallet, this.#domain, payment);
    this.ledger.discard();
    return { agent: this.wallet.address as Address, payment, signature, salt };
  }

  /** The payment that was accepted is the ledger's next. */
  keep(payee: Address, ref: Hex): void {
    this.ledger.draft({ payee, amount: 1n, ref });
    this.ledger.commit();
  }
}

/** One process of a processor whose books it shares. */
class Replica {
  readonly child: ChildProcess;
  readonly url: string;

  private constructor(child: ChildProcess, url: string) {
    this.child = child;
    this.url = url;
  }

  /** @param program - of what says «listening on» and its URL. */
  static async start(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Replica> {
    const child = spawn(process.execPath, ["--import", "tsx", program, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    });
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += String(chunk)));
    while (!said.includes("listening on")) {
      if (child.exitCode !== null) throw new Error(said);
      await setTimeout(20);
    }
    return new Replica(child, /listening on (\S+)/.exec(said)![1]!);
  }

  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await ended;
  }

  /** @returns the receipt's bytes or the refusal's code, or null when nothing came back. */
  async pay(payment: SignedPayment): Promise<string | null> {
    try {
      const response = await fetch(`${this.url}/payments`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(toWire(payment)),
      });
      const text = await response.text();
      return response.ok ? text : (JSON.parse(text) as { code: string }).code;
    } catch {
      return null;
    }
  }
}

describe("replicas on one database", function () {
  this.timeout(600_000);
  let folder: string;
  let url: string;
  let replicas: Replica[];
  let books: Books;

  const REPLICA = fileURLToPath(new URL("replica.ts", import.meta.url));
  const start = (): Promise<Replica> => Replica.start(REPLICA, [url]);
  const any = (): Replica => replicas[some(replicas.length)]!;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "bursar-replicas-"));
    url = await postgresUrl(join(folder, "books"));
    books = await Books.at(url);
    replicas = await Promise.all([start(), start(), start()]);
  });
  afterEach(async () => {
    await Promise.all(replicas.map((replica) => replica.kill()));
    await books.store.close();
    rmSync(folder, { recursive: true });
  });

  async function signers(count: number): Promise<Signer[]> {
    const names = Array.from({ length: count }, (_, i) => `agent ${i}`);
    return Promise.all(names.map(async (name) => new Signer((await books.open(name)).wallet, books.domain)));
  }

  /** Every receipt in the books, in the order of the log. */
  async function log(agents: readonly Signer[]): Promise<{ agent: string; seq: bigint; logIndex: bigint }[]> {
    const ledgers = agents.map(({ wallet: { address } }) => books.store.payments(address as Address, 1n, 1_000_000n));
    const all = (await Promise.all(ledgers)).flat();
    return all
      .map(({ agent, payment: { seq }, logIndex }) => ({ agent, seq, logIndex }))
      .sort((a, b) => Number(a.logIndex - b.logIndex));
  }

  it("P10 same_request_same_answer: a storm of duplicates gets one receipt, byte for byte, whichever replica answers", async () => {
    const agents = await signers(8);
    await Promise.all(
      agents.map(async (agent) => {
        for (let seq = 1; seq <= 12; ++seq) {
          const payment = await agent.sign();
          const answers = await Promise.all(Array.from({ length: 9 }, (_, i) => replicas[i % 3]!.pay(payment)));
          expect(new Set(answers).size).to.equal(1);
          expect(answers[0]).to.contain('"signature"');
          agent.keep(SHOP, ZeroHash as Hex);
        }
      }),
    );
    const receipts = await log(agents);
    expect(receipts.map(({ logIndex }) => logIndex)).to.deep.equal(receipts.map((_, i) => BigInt(i)));
    expect(receipts).to.have.length(96);
  });

  it("of two payments on one number sent to all replicas at once, one gets receipts and the other none", async () => {
    const agents = await signers(6);
    await Promise.all(
      agents.map(async (agent) => {
        for (let round = 1; round <= 8; ++round) {
          const rivals: { payee: Address; payment: SignedPayment }[] = [];
          for (const payee of [SHOP, CAFE]) {
            rivals.push({ payee, payment: await agent.sign(payee, id(`${round}`) as Hex) });
          }
          const answers = await Promise.all(
            Array.from({ length: 12 }, async (_, i) => ({ i: i % 2, answer: await any().pay(rivals[i % 2]!.payment) })),
          );
          const accepted = answers.filter(({ answer }) => answer!.startsWith("{"));
          expect(new Set(accepted.map(({ i }) => i)).size, "one of the rivals").to.equal(1);
          expect(new Set(accepted.map(({ answer }) => answer)).size, "one receipt").to.equal(1);
          const refused = answers.filter(({ answer }) => !answer!.startsWith("{"));
          expect(new Set(refused.map(({ answer }) => answer))).to.deep.equal(new Set(["sequence-taken"]));
          agent.keep(rivals[accepted[0]!.i]!.payee, id(`${round}`) as Hex);
        }
      }),
    );
    expect(await log(agents)).to.have.length(48);
  });

  it("keep a ledger's order when each of its payments goes to another one", async () => {
    const [agent] = await signers(1);
    for (let seq = 1; seq <= 40; ++seq) {
      expect(await replicas[seq % 3]!.pay(await agent!.sign())).to.contain('"signature"');
      agent!.keep(SHOP, ZeroHash as Hex);
    }
    expect((await log([agent!])).map(({ seq }) => seq)).to.deep.equal(
      Array.from({ length: 40 }, (_, i) => BigInt(i + 1)),
    );
  });

  it("P11 answer_implies_durable: receipts outlive kills of replicas in the middle of a storm", async () => {
    const agents = await signers(8);
    const told = new Map<string, string>();
    let storming = true;
    const murders = (async () => {
      for (let kill = 0; kill < 12; ++kill) {
        await setTimeout(some(120));
        const victim = some(3);
        await replicas[victim]!.kill();
        replicas[victim] = await start();
      }
      storming = false;
    })();
    const storm = agents.map(async (agent) => {
      while (storming) {
        const payment = await agent.sign();
        let answer: string | null = null;
        while (answer === null) {
          const answers = await Promise.all([any().pay(payment), any().pay(payment)]);
          answer = answers.find((one) => one !== null) ?? null;
          for (const one of answers) if (one !== null) expect(one).to.equal(answer);
        }
        told.set(`${payment.agent} ${payment.payment.seq}`, answer);
        agent.keep(SHOP, ZeroHash as Hex);
      }
    });
    await Promise.all([murders, ...storm]);
    for (const [key, receipt] of told) {
      const [agent, seq] = key.split(" ") as [Address, string];
      expect(JSON.stringify(toWire(await books.processor.receipt(agent, BigInt(seq))))).to.equal(receipt);
    }
    const receipts = await log(agents);
    expect(receipts.map(({ logIndex }) => logIndex)).to.deep.equal(receipts.map((_, i) => BigInt(i)));
    expect(receipts).to.have.length(told.size);
    expect(told.size).to.be.greaterThan(50);
  });
});

describe("replicas that settle", function () {
  this.timeout(600_000);
  let rail: TestRail;
  let place: string[];
  let store: Store;
  let replicas: Replica[] = [];
  const agents: Signer[] = [];
  const BIN = fileURLToPath(new URL("../../packages/relayer/bin/bursar.js", import.meta.url));

  before(async () => {
    rail = await TestRail.start();
    const database = await postgresUrl(join(rail.folder, "shared"));
    place = [
      ...["--rpc", rail.node.url, "--database", database],
      ...["--home", join(rail.folder, "home")],
      ...["--deployments", join(rail.folder, "deployments")],
    ];
    await bursar("deploy");
    await bursar("bond", "post", "10000");
    await bursar("deposit", "100");
    const opened: Wallet[] = [];
    const keys = new Keyring(join(rail.folder, "home", "keys"), "", true);
    for (let count = 0; count < 6; ++count) {
      const options = ["--budget", "10", "--cap", "1", "--purpose", "a storm", "--yes"];
      const { mandate } = (await bursar("mandate", "open", ...options)) as { mandate: { agent: Address } };
      opened.push(await keys.load(mandate.agent));
    }
    store = await Store.open(database);
    replicas = await Promise.all([serve(), serve()]);
    const { chainId, registry } = (await (await fetch(`${replicas[0]!.url}/info`)).json()) as Record<string, string>;
    const domain = { chainId: BigInt(chainId!), registry: registry as Address };
    agents.push(...opened.map((wallet) => new Signer(wallet, domain)));
  });
  after(async () => {
    await Promise.all(replicas.map((replica) => replica.kill()));
    await store.close();
    await rail.stop();
  });

  async function bursar(...args: string[]): Promise<unknown> {
    let out = "";
    let err = "";
    const streams = { out: (text: string) => (out += text), err: (text: string) => (err += text) };
    const code = await main([...place, "--json", ...args], streams);
    if (code !== 0) throw new Error(out + err);
    return JSON.parse(out);
  }

  const serve = (): Promise<Replica> =>
    Replica.start(BIN, [...place, "serve", "--port", "0", "--settle-every", "1", "--log-level", "silent"]);

  it("P15: no batch is lost or settled twice when the replica that settles is killed, again and again", async () => {
    let paid = 0;
    for (let round = 0; round < 6; ++round) {
      for (const agent of agents) {
        for (let i = 0; i < 2; ++i) {
          const payment = await agent.sign();
          let answer: string | null = null;
          while (!answer?.startsWith("{")) answer = await replicas[some(2)]!.pay(payment);
          agent.keep(SHOP, ZeroHash as Hex);
          ++paid;
        }
      }
      await setTimeout(some(2_500));
      const holder = await store.database.get("SELECT holder FROM lease");
      const pid = Number(String(holder?.["holder"]).split("/")[1]);
      const victim = Math.max(
        0,
        replicas.findIndex(({ child }) => child.pid === pid),
      );
      await replicas[victim]!.kill();
      replicas[victim] = await serve();
    }
    const unsettled = async (): Promise<number> => (await store.backlog()).payments;
    while ((await unsettled()) > 0) await setTimeout(200);
    const settled = await store.batches(["settled"]);
    expect(settled.reduce((sum, { payments }) => sum + payments, 0)).to.equal(paid);
    const events = await rail.provider.getLogs({ fromBlock: 0, toBlock: "latest" });
    const hashes = new Set(settled.map(({ transaction }) => transaction));
    expect(hashes.size).to.equal(settled.length);
    for (const hash of hashes) expect(events.some(({ transactionHash }) => transactionHash === hash)).to.equal(true);
    for (const { wallet, ledger } of agents) {
      const record = await store.mandateOf(wallet.address as Address);
      expect(record.settled.seq).to.equal(ledger.state.seq);
    }
  });
});
