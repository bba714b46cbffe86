import { freshKey, openKey, sealKey } from "@bursar/sdk/agent";
import { fileBook, keyFile } from "@bursar/sdk/agent/node";
import { expect } from "chai";
import { id, Wallet } from "ethers";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { refusalOf } from "../../relayer/office.ts";
import { Market, PAYEE, stateOf } from "./market.ts";

const LIGHT = { work: 2 };
const bill = (amount: bigint): { payee: string; amount: bigint; ref: string } => ({
  payee: PAYEE,
  amount,
  ref: id("x"),
});

describe("an agent's files", () => {
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bursar-agent-"));
    path = join(folder, "deep", "agent.json");
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  describe("hold the key", () => {
    it("made once, encrypted, readable by its owner alone", async () => {
      const key = await keyFile(path, "secret", LIGHT);
      expect((await keyFile(path, "secret")).privateKey).to.equal(key.privateKey);
      expect(readFileSync(path, "utf8")).not.to.include(key.privateKey.slice(2));
      expect(statSync(path).mode & 0o777).to.equal(0o600);
      expect(readdirSync(join(folder, "deep")), "nothing else is left").to.deep.equal(["agent.json"]);
      expect((await Wallet.fromEncryptedJson(readFileSync(path, "utf8"), "secret")).address).to.equal(key.address);
    });

    it("one, whoever makes it first", async () => {
      const keys = await Promise.all(Array.from({ length: 4 }, () => keyFile(path, "secret", LIGHT)));
      expect(new Set(keys.map(({ address }) => address)).size).to.equal(1);
    });

    it("and do not open with another password, or damaged, and are not overwritten", async () => {
      await keyFile(path, "secret", LIGHT);
      expect((await refusalOf(() => keyFile(path, "wrong"))).code).to.equal("key-corrupt");
      writeFileSync(path, "{");
      expect((await refusalOf(() => keyFile(path, "secret"))).code).to.equal("key-corrupt");
      expect(readFileSync(path, "utf8")).to.equal("{");
    });

    it("as text too, for where there are no files", async () => {
      const key = freshKey();
      expect((await openKey(await sealKey(key, "p", LIGHT), "p")).address).to.equal(key.address);
    });
  });

  describe("hold the ledger", () => {
    let market: Market;
    beforeEach(async () => {
      market = await Market.open();
    });
    afterEach(() => market.close());

    it("as one whole text, readable by its owner alone", async () => {
      const book = fileBook(path);
      expect(await book.read()).to.equal(null);
      const agent = await market.agent("alice", { book });
      for (let amount = 1n; amount <= 9n; amount++) await agent.pay(bill(amount));
      expect(await stateOf(fileBook(path))).to.include({ seq: "9", spent: "45", pending: null });
      expect(statSync(path).mode & 0o777).to.equal(0o600);
      expect(existsSync(`${path}.new`)).to.equal(false);
      expect(
        (await (await market.agent("alice", { book: fileBook(path) })).pay(bill(1n))).payment.payment.seq,
      ).to.equal(10n);
    });

    it("of one agent alone, undamaged", async () => {
      await (await market.agent("alice", { book: fileBook(path) })).pay(bill(1n));
      const error = await refusalOf(async () => (await market.agent("bob", { book: fileBook(path) })).pay(bill(1n)));
      expect(error.advice).to.include("book of its own");
      writeFileSync(path, readFileSync(path, "utf8").slice(0, 50));
      const damaged = await refusalOf(async () =>
        (await market.agent("alice", { book: fileBook(path) })).pay(bill(1n)),
      );
      expect(damaged.message).to.include("damaged");
      expect(market.line.sent).to.have.length(1);
    });

    it("for agents that share it, in turns", async () => {
      const one = async (): Promise<ReturnType<typeof market.agent>> => market.agent("alice", { book: fileBook(path) });
      const agents = [await one(), await one(), await one()];
      await Promise.all(Array.from({ length: 12 }, (_, index) => agents[index % 3]!.pay(bill(BigInt(index + 1)))));
      expect(market.line.sent, "nobody signed a number twice").to.have.length(12);
      expect(await market.paid(agents[0]!)).to.have.length(12);
    });

    it("through a kill in the middle of a payment", async function () {
      this.timeout(60_000);
      const agent = await market.agent("alice", { book: fileBook(path) });
      await agent.pay(bill(1n));
      for (const fault of ["unanswered", "lost"] as const) {
        const waiting = new Promise<void>((resolve) => {
          market.line.faults.push(fault, () => {
            resolve();
            return new Promise(() => undefined);
          });
        });
        const script = join(import.meta.dirname, "pays-forever.ts");
        const child = spawn(process.execPath, ["--import=tsx", script, market.line.url, path], { stdio: "inherit" });
        await waiting;
        child.kill("SIGKILL");
        await once(child, "exit");
      }
      const { pending, seq } = await stateOf(fileBook(path));
      expect(pending, "the last one was underway").not.to.equal(null);
      const { payment } = await agent.pay(bill(2n));
      expect(payment.payment.seq).to.equal(BigInt(seq) + 2n);
      const digests = new Map<string, Set<string>>();
      for (const body of market.line.sent) {
        const sent = (JSON.parse(body) as { payment: { seq: string; head: string } }).payment;
        digests.set(sent.seq, (digests.get(sent.seq) ?? new Set()).add(sent.head));
      }
      expect(
        [...digests.values()].every(({ size }) => size === 1),
        "one line for each number",
      ).to.equal(true);
      expect(await market.paid(agent)).to.have.length(digests.size);
    });
  });
});
