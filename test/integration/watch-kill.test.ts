import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

import { toWire, type Hex } from "@bursar/protocol";
import { expect } from "chai";

import type { Deathbed } from "./killed-at-filing.ts";
import { TestRail } from "./rail.ts";
import { buy, wait, WatchPost } from "./watch-post.ts";

const MISSED = 3n * 3_600n + 1n;

describe("a watcher that is killed while it files", function () {
  this.timeout(120_000);
  let rail: TestRail;

  before(async () => {
    rail = await TestRail.start();
  });
  after(() => {
    rail.stop();
  });

  const program = fileURLToPath(new URL("killed-at-filing.ts", import.meta.url));

  /** Runs a watcher in a process of its own until it kills itself. */
  async function die(post: WatchPost, moment: Deathbed["moment"]): Promise<void> {
    const bed = {
      url: rail.node.url,
      rail: rail.chain.rail,
      path: post.path,
      key: post.account.privateKey,
      now: rail.now(),
      moment,
    };
    const child = spawn(process.execPath, ["--import", "tsx", program, JSON.stringify(toWire(bed))], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let errors = "";
    child.stderr.on("data", (chunk: Buffer) => (errors += String(chunk)));
    const signal = await new Promise((resolve) => child.once("close", (_code, killedBy) => resolve(killedBy)));
    expect(signal, errors).to.equal("SIGKILL");
  }

  for (const [moment, transactions, sent] of [
    ["recorded", 0, 0],
    ["signed", 1, 0],
    ["sent", 1, 1],
  ] as const) {
    it(`files once, though kill -9 came when the claim was ${moment}`, async () => {
      const [agent, shop] = [await rail.open(), rail.payee()];
      const post = await WatchPost.open(rail);
      const [id] = (await post.take(await buy(rail, agent, shop))) as [Hex];
      rail.store.exclude(agent.address, "forgotten by the test");
      await wait(rail, MISSED);
      await die(post, moment);
      expect(post.book.pending().map(({ kind, subjects }) => [kind, subjects])).to.deep.equal([["file", [id]]]);
      expect(await post.book.transactions("watch:1")).to.have.length(transactions);
      expect(await post.sent()).to.equal(sent);

      post.reopen();
      await post.rounds();
      expect(post.state(id)).to.equal("claimed");
      expect(post.book.pending()).to.have.length(0);
      expect(await post.sent()).to.equal(1);
      const { claims } = rail.chain;
      expect(await claims.queryFilter(claims.filters.ClaimFiled(id))).to.have.length(1);
      post.close();
    });
  }
});
