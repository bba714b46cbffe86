import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

import type { Address } from "@bursar/protocol";
import { Store } from "@bursar/relayer";
import { expect } from "chai";
import { id, Wallet } from "ethers";

import { Generators } from "../../scripts/load/generators.ts";
import { usageOf } from "../../scripts/load/processes.ts";
import { reconcile, type Evidence } from "../../scripts/load/reconcile.ts";
import { runLoad } from "../../scripts/load/run.ts";
import { Stage } from "../../scripts/load/stage.ts";

const quiet = (): void => undefined;

describe("npm run load", function () {
  this.timeout(300_000);

  it("loses nothing and settles nothing twice over kills of the service", async () => {
    const said: string[] = [];
    const report = await runLoad(
      {
        ...{ agents: 4, payees: 3, rate: 20, seconds: 6, replicas: 1, generators: 2 },
        ...{ settleEvery: 3, roam: false, kill: true },
      },
      (text) => said.push(text),
    );
    expect(report.reconciliation.faults).to.deep.equal([]);
    expect(report.kills).to.be.greaterThan(0);
    const { receipts, payments, settled } = report.reconciliation;
    expect([report.sent, report.accepted, receipts, payments, settled]).to.deep.equal([120, 120, 120, 120, 120]);
    expect(report.refused).to.deep.equal({});
    expect(report.latency.p50).to.be.at.most(report.latency.p99);
    expect(report.latency.p99).to.be.at.most(report.latency.most);
  });
});

describe("what a load test holds against the chain", function () {
  this.timeout(300_000);
  let stage: Stage;
  let store: Store;
  let evidence: Evidence;
  let told: string;

  before(async () => {
    stage = await Stage.set({ agents: 2, budget: 10_000n, replicas: 1, settleEvery: 1 }, quiet);
    store = await Store.open(stage.books);
    told = join(stage.folder, "told");
    const payees = ["shop", "café"].map((name) => new Wallet(id(name)).address as Address);
    const { domain, keys, replicas, processor, token, chain } = stage;
    const urls = replicas.map(({ url }) => url);
    const generators = await Generators.prepare([
      { domain, keys, payees, urls, roam: true, rate: 100, payments: 16, ahead: 8, told },
    ]);
    const [outcome] = await generators.run();
    expect(outcome).to.include({ sent: 16, receipts: 16, repeated: 0 });
    while ((await store.backlog()).payments > 0) await setTimeout(100);
    const agents = keys.map((key) => new Wallet(key).address as Address);
    evidence = { domain, processor, token, chain, store, agents, payees, told: [told], settling: true };
  });
  after(async () => {
    await store.close();
    await stage.strike();
  });

  /** The kinds of faults, when the receipts that agents hold are these. */
  async function faultsWith(change: (lines: string[]) => string[]): Promise<string[]> {
    const lines = readFileSync(told, "utf8").trim().split("\n");
    const file = join(stage.folder, "changed");
    writeFileSync(file, change(lines).join("\n"));
    const { faults } = await reconcile({ ...evidence, told: [file] });
    return faults.map((fault) => fault.split(":")[0]!);
  }

  it("agrees where all is well", async () => {
    const { faults, ...counts } = await reconcile(evidence);
    expect(faults).to.deep.equal([]);
    expect(counts).to.include({ receipts: 16, payments: 16, settled: 16 });
    expect(counts.batches).to.be.greaterThan(0);
  });

  it("misses a receipt, and sees one that was told twice", async () => {
    expect(await faultsWith(([, ...rest]) => rest)).to.deep.equal(["a payment without a receipt"]);
    expect(await faultsWith((lines) => [...lines, lines[0]!])).to.deep.equal(["told twice"]);
  });

  it("sees a receipt that is not what the processor signed", async () => {
    const later = (line: string): string => line.replace(/"logIndex":"\d+"/, '"logIndex":"99"');
    expect(await faultsWith(([first, ...rest]) => [later(first!), ...rest])).to.deep.equal([
      "a receipt that contradicts the books",
      "a receipt that is not the processor's",
    ]);
  });

  it("sees a receipt for a payment that is not in the books", async () => {
    const extra = (line: string): string => line.replace(/^(\S+) \d+/, "$1 77");
    expect(await faultsWith((lines) => [...lines, extra(lines[0]!)])).to.deep.equal(["a receipt without a payment"]);
  });

  it("sees books that do not agree with the chain", async () => {
    const changed = async (change: string, back: string): Promise<string[]> => {
      await store.database.run(change);
      const { faults } = await reconcile(evidence);
      await store.database.run(back);
      return [...new Set(faults.map((fault) => fault.split(":")[0]!))];
    };
    expect(
      await changed(
        "UPDATE payment SET amount = amount + 1 WHERE seq = 1",
        "UPDATE payment SET amount = amount - 1 WHERE seq = 1",
      ),
    ).to.deep.equal(["a receipt that contradicts the books", "a gap in a ledger", "another credit on chain"]);
    expect(await changed("UPDATE batch SET state = 'failed'", "UPDATE batch SET state = 'settled'")).to.deep.equal([
      "not settled",
      "another total on chain",
      "another credit on chain",
      "a batch that is not in the books",
    ]);
    expect(
      await changed(
        "UPDATE payment SET log_index = log_index + 1000",
        "UPDATE payment SET log_index = log_index - 1000",
      ),
    ).to.deep.equal(["a receipt that contradicts the books", "a gap in the log"]);
  });
});

describe("what a process has used", () => {
  it("grows with its work, and is not told of one that is not there", function () {
    if (process.platform !== "linux") this.skip();
    const before = usageOf(process.pid)!;
    const until = process.cpuUsage().user + 50_000;
    while (process.cpuUsage().user < until);
    const after = usageOf(process.pid)!;
    expect(after.own - before.own).to.be.greaterThan(0.02);
    expect(after.memory).to.be.greaterThan(10);
    expect(usageOf(2 ** 30)).to.equal(undefined);
  });
});
