import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { toWire, type PaidRequest } from "@bursar/protocol";
import { writeDeployment } from "@bursar/relayer";
import { expect } from "chai";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { TestRail } from "../integration/rail.ts";
import { buy, Webhook } from "../integration/watch-post.ts";

interface Run {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

interface Status {
  readonly atRisk: string;
  readonly receipts: { id: string; state: string; until: string; units: string }[];
  readonly mandates: { state: string; remaining: string }[];
  readonly totals: { state: string; receipts: number; units: string }[];
  readonly undelivered: number;
}

describe("bursar watch", function () {
  this.timeout(120_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-watch-"));
  let rail: TestRail;
  let webhook: Webhook;
  let paid: PaidRequest[];

  before(async () => {
    rail = await TestRail.start();
    webhook = await Webhook.listen();
    const genesis = (await rail.provider.getBlock(0))!.hash as `0x${string}`;
    const deployment = { ...rail.chain.rail, genesis, contracts: {} };
    writeDeployment(join(folder, "deployments", "31337.json"), deployment);
    const agent = await rail.open();
    paid = [];
    for (let i = 0; i < 3; ++i) paid.push(await buy(rail, agent, rail.payee()));
  });
  afterEach(() => {
    delete process.env["BURSAR_WEBHOOK_SECRET"];
  });
  after(async () => {
    webhook.close();
    await rail.stop();
    rmSync(folder, { recursive: true });
  });

  const place = (rpc = rail.node.url): string[] => [
    ...["--rpc", rpc],
    ...["--home", join(folder, "home")],
    ...["--deployments", join(folder, "deployments")],
  ];

  const bursar = (...argv: string[]): Promise<Run> => bursarAt(rail.node.url, ...argv);

  async function bursarAt(rpc: string, ...argv: string[]): Promise<Run> {
    let [out, err] = ["", ""];
    const code = await main([...place(rpc), ...argv], {
      out: (text) => (out += `${text}\n`),
      err: (text) => (err += `${text}\n`),
    });
    return { code, out, err };
  }

  async function answer<T>(...argv: string[]): Promise<T> {
    const { code, out, err } = await bursar("--json", ...argv);
    expect(code, err).to.equal(0);
    return JSON.parse(out) as T;
  }

  function file(name: string, content: string): string {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  }
  const wire = (index: number): string => JSON.stringify(toWire(paid[index]));

  it("takes receipts from a file: one, a list, or a line each; the same again is known", async () => {
    expect(await answer("watch", "add", file("one.json", wire(0)))).to.include({ kept: 1, known: 0 });
    expect(await answer("watch", "add", file("list.json", `[${wire(0)}, ${wire(1)}]`))).to.include({
      kept: 1,
      known: 1,
    });
    const lines = file("lines.jsonl", `${wire(1)}\n{"paid":${wire(2)},"url":"https://shop.test/"}\n\n`);
    expect(await answer("watch", "add", lines)).to.include({ kept: 1, known: 1 });
  });

  it("keeps the good ones of a file, tells the bad ones, and ends with 1", async () => {
    const forged = { ...paid[0]!, payment: { ...paid[0]!.payment, salt: 1n, agent: rail.ownerAddress } };
    const { code, out, err } = await bursar(
      "watch",
      "add",
      file("bad.json", `[${JSON.stringify(toWire(forged))}, ${wire(0)}]`),
    );
    expect(code).to.equal(1);
    expect(out).to.match(/^0 kept, 1 known already, 1 refused\nentry 1: receipt-mismatch: /);
    expect(err).to.match(/^bursar: malformed-input: 1 of 2 /);
    expect(await bursar("watch", "add", file("no.json", "no JSON"))).to.include({ code: 1, out: "" });
  });

  it("shows what is watched, what is at risk and until when", async () => {
    const status = await answer<Status>("watch", "status");
    expect(status.atRisk).to.equal("3000");
    expect(status.receipts.map(({ state }) => state)).to.deep.equal(["waiting", "waiting", "waiting"]);
    expect(status.totals).to.deep.equal([{ state: "waiting", receipts: 3, units: "3000" }]);
    const { out } = await bursar("watch", "status");
    expect(out).to.match(/^3 waiting \(0\.003\)\nat risk: 0\.003\nstate +until +amount/);
  });

  it("makes one round for a cron job, posts its alerts, and shows where things stand", async () => {
    process.env["BURSAR_WEBHOOK_SECRET"] = webhook.secret;
    const once = ["watch", "--once", "--owner", rail.ownerAddress, "--webhook", webhook.url, "--log-level", "silent"];
    const before = await answer<Status>(...once);
    expect(before.receipts.map(({ until }) => until)).to.deep.equal(
      paid.map(({ receipt }) => String(receipt.receipt.settleBy + 7_200n)),
    );
    expect(before.mandates).to.have.length(1);
    expect(before.undelivered).to.equal(0);
    expect(webhook.posted.map(({ headers }) => String(headers["bursar-alert"]).split(":")[0])).to.deep.equal([
      "mandate-opened",
    ]);
    expect(webhook.isSigned(webhook.posted[0]!)).to.equal(true);
    await rail.settler.run();
    const after = await answer<Status>(...once);
    expect(after.receipts).to.deep.equal([]);
    expect(after.totals).to.deep.equal([{ state: "settled", receipts: 3, units: "3000" }]);
    expect(webhook.posted).to.have.length(1);
  });

  it("refuses a webhook or a port without a secret, and what is no URL, owner or policy", async () => {
    const { code, err } = await bursar("watch", "--once", "--webhook", "https://hooks.test/");
    expect(code).to.equal(1);
    expect(err).to.match(/^bursar: malformed-input: BURSAR_WEBHOOK_SECRET has 0 characters\./);
    expect((await bursar("watch", "--once", "--port", "0")).err).to.match(/BURSAR_WATCH_TOKEN/);
    for (const wrong of [
      ["--webhook", "ftp://hooks.test/"],
      ["--owner", "0x12"],
      ["--challenge", "perhaps"],
      ["--low", "101"],
    ]) {
      expect(await bursar("watch", "--once", ...wrong)).to.include({ code: 2, out: "" });
    }
  });

  it("ends with 3 when the chain is down", async () => {
    const run = await bursarAt("http://127.0.0.1:1", "watch", "--once");
    expect(run).to.include({ code: 3, out: "" });
  });

  it("runs until it is interrupted, and lets no second one act by its book", async () => {
    const bin = fileURLToPath(new URL("../../packages/relayer/bin/bursar.js", import.meta.url));
    const child = spawn(process.execPath, [bin, ...place(), "watch", "--every", "1"], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let told = "";
    child.stderr.on("data", (chunk: Buffer) => (told += String(chunk)));
    const ended = once(child, "close");
    while (!told.includes("watching as")) {
      expect(child.exitCode, told).to.equal(null);
      await new Promise((done) => setTimeout(done, 50));
    }
    try {
      const second = await bursar("watch", "--once");
      expect(second).to.include({ code: 3, out: "" });
      expect(second.err).to.match(/^bursar: store-unavailable: Another watcher/);
      expect(await answer<Status>("watch", "status")).to.have.property("atRisk", "0");
    } finally {
      child.kill("SIGTERM");
    }
    expect(await ended).to.deep.equal([0, null]);
    expect((await bursar("watch", "--once", "--log-level", "silent")).code).to.equal(0);
    expect(existsSync(join(folder, "home", "keys", "watcher.json"))).to.equal(true);
  });
});
