import { join } from "node:path";

import { encodePaymentHeader, toWire, type PaidRequest, type Problem } from "@bursar/protocol";
import { createLogger, startWatching, type Watching } from "@bursar/relayer";
import { SqliteReceipts } from "@bursar/sdk/payee/sqlite";
import { expect } from "chai";

import { refusalOf } from "../relayer/office.ts";
import { TestRail, type PayingAgent } from "./rail.ts";
import { buy, pause, wait, Webhook, WatchPost } from "./watch-post.ts";

const EXPOSURE = { processor: 10n ** 12n, mandate: 10n ** 12n };
const MISSED = 3n * 3_600n + 1n;

describe("how receipts come to a watcher", function () {
  this.timeout(120_000);
  let rail: TestRail;
  let agent: PayingAgent;

  before(async () => {
    rail = await TestRail.start();
    agent = await rail.open({ budget: 1_000_000n });
  });
  after(async () => {
    await rail.stop();
  });

  describe("from a payee's database", () => {
    const mark = (receipts: SqliteReceipts, paid: PaidRequest) =>
      receipts.mark(
        {
          paid,
          processor: paid.receipt.receipt.payee,
          method: "GET",
          url: "https://shop.test/",
          usedAt: rail.now(),
          settled: false,
        },
        EXPOSURE,
      );

    it("takes what is marked as it comes, while the payee goes on, and each once", async () => {
      const path = join(rail.folder, "payee.db");
      const receipts = new SqliteReceipts(path);
      const post = await WatchPost.open(rail, { payeeDatabases: [path] });
      await mark(receipts, await buy(rail, agent, rail.payee()));
      await post.round();
      expect(post.book.open()).to.have.length(1);
      for (let i = 0; i < 3; ++i) await mark(receipts, await buy(rail, agent, rail.payee()));
      await post.round();
      await post.round();
      expect(post.book.open()).to.have.length(4);
      receipts.close();
      post.close();
    });

    it("misses none when the payee deletes what it kept and row numbers come again", async () => {
      const path = join(rail.folder, "pruned.db");
      const receipts = new SqliteReceipts(path);
      const post = await WatchPost.open(rail, { payeeDatabases: [path] });
      const old = [await buy(rail, agent, rail.payee()), await buy(rail, agent, rail.payee())];
      for (const paid of old) await mark(receipts, paid);
      await post.round();
      await receipts.settled(rail.domain, agent.address, old[1]!.payment.payment.seq);
      const later = rail.now() + 10n * 86_400n;
      expect(await receipts.prune(later, later)).to.equal(2);
      for (let i = 0; i < 3; ++i) await mark(receipts, await buy(rail, agent, rail.payee()));
      await post.round();
      expect(post.book.open()).to.have.length(5);
      receipts.close();
      post.close();
    });

    it("tells what it cannot take, and takes the next", async () => {
      const path = join(rail.folder, "strange.db");
      const receipts = new SqliteReceipts(path);
      const post = await WatchPost.open(rail, { payeeDatabases: [path] });
      const paid = await buy(rail, agent, rail.payee());
      const forged = { ...paid.receipt, signature: paid.payment.signature };
      await mark(receipts, { ...paid, receipt: forged });
      await mark(receipts, await buy(rail, agent, rail.payee()));
      await post.round();
      expect(post.book.open()).to.have.length(1);
      expect(post.alerts()).to.deep.equal(["receipt-refused"]);
      receipts.close();
      post.close();
    });

    it("watches on when the file is not there, and says so", async () => {
      const post = await WatchPost.open(rail, { payeeDatabases: [join(rail.folder, "missing.db")] });
      const paid = await buy(rail, agent, rail.payee());
      const [id] = await post.take(paid);
      expect((await refusalOf(() => post.round())).code).to.equal("store-unavailable");
      expect(post.of(id!).until).to.equal(paid.receipt.receipt.settleBy + 7_200n);
      post.close();
    });
  });

  describe("over HTTP, while it runs", () => {
    const token = "a token of the watcher's tests";
    let post: WatchPost;
    let webhook: Webhook;
    let watching: Watching;

    before(async () => {
      webhook = await Webhook.listen();
      post = await WatchPost.open(rail, {
        every: 1,
        webhook: { url: webhook.url, secret: webhook.secret },
        counter: { host: "127.0.0.1", port: 0, token },
      });
      watching = await startWatching({
        ...post.parts,
        logger: createLogger("silent", process.stderr),
        sleep: (milliseconds, signal) =>
          new Promise((done) => {
            const timer = setTimeout(done, Math.min(milliseconds, 50));
            signal?.addEventListener("abort", () => {
              clearTimeout(timer);
              done(undefined);
            });
          }),
      });
    });
    after(async () => {
      await watching.stop();
      webhook.close();
      post.close();
    });

    async function hand(body: string, authorization = `Bearer ${token}`): Promise<[number, Record<string, unknown>]> {
      const headers = { "content-type": "application/json", authorization };
      const response = await fetch(`${watching.url}/receipts`, { method: "POST", headers, body });
      return [response.status, (await response.json()) as Record<string, unknown>];
    }

    it("takes a receipt from whoever knows the token: 201, and 200 again", async () => {
      const paid = await buy(rail, agent, rail.payee());
      const body = JSON.stringify(toWire(paid));
      const [status, taken] = await hand(body);
      expect([status, taken["kept"]]).to.deep.equal([201, true]);
      expect(taken).to.include({ agent: agent.address, seq: String(paid.payment.payment.seq) });
      expect((await hand(JSON.stringify(encodePaymentHeader(paid))))[0]).to.equal(200);
    });

    it("refuses strangers, other forms and large bodies with Problem Details, and keeps nothing of them", async () => {
      const paid = JSON.stringify(toWire(await buy(rail, agent, rail.payee())));
      const before = post.book.open().length;
      const code = async (body: string, authorization?: string): Promise<[number, string]> => {
        const [status, problem] = await hand(body, authorization);
        return [status, (problem as unknown as Problem).code];
      };
      expect(await code(paid, "Bearer another token")).to.deep.equal([401, "unauthorised"]);
      expect(await code(paid, "")).to.deep.equal([401, "unauthorised"]);
      expect(await code("{}")).to.deep.equal([400, "malformed-input"]);
      expect(await code("no JSON")).to.deep.equal([400, "malformed-input"]);
      expect(await code(`"${"a".repeat(70_000)}"`)).to.deep.equal([413, "body-too-large"]);
      expect(post.book.open()).to.have.length(before);
      const response = await fetch(`${watching.url}/receipts`, { headers: { authorization: `Bearer ${token}` } });
      expect(response.status).to.equal(404);
    });

    it("claims what is missed and posts it, signed, without being asked", async () => {
      const other = await rail.open();
      const paid = await buy(rail, other, rail.payee());
      await rail.store.exclude(other.address, "forgotten by the test");
      const [, taken] = await hand(JSON.stringify(toWire(paid)));
      await wait(rail, MISSED);
      const mine = (): string[] =>
        webhook.posted
          .filter(({ body }) => body.includes(String(taken["id"])))
          .map(({ body }) => (JSON.parse(body) as { kind: string }).kind);
      while (mine().length < 2) await pause(50);
      expect(mine()).to.deep.equal(["receipt-missed", "receipt-claimed"]);
      expect(webhook.posted.every((posted) => webhook.isSigned(posted))).to.equal(true);
    });
  });
});
