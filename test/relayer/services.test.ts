import { once } from "node:events";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout } from "node:timers/promises";

import type { Address, Problem } from "@bursar/protocol";
import { Keyring } from "@bursar/relayer";
import { draftIntent, openMandate, type Agent } from "@bursar/sdk/agent";
import { chainMandates, MemoryReceipts, Paywall } from "@bursar/sdk/payee";
import { paid } from "@bursar/sdk/payee/express";
import { expect } from "chai";
import { Wallet } from "ethers";
import express from "express";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { LocalNode } from "../../scripts/demo/node.ts";
import { NodeFront } from "./node-front.ts";
import { addressOf } from "./office.ts";

const BIN = fileURLToPath(new URL("../../packages/relayer/bin/bursar.js", import.meta.url));
const INTENT = draftIntent({ purpose: "tests", budget: 1_000n, paymentCap: 100n, duration: "1d" });

interface Listed {
  readonly name: string;
  readonly path: string;
  readonly ready: boolean;
  readonly chainId: string;
  readonly registry: Address;
  readonly info?: { readonly processor: Address; readonly tokens: Record<string, { readonly address: Address }> };
}

describe("a service of several chains", function () {
  this.timeout(300_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-chains-"));
  const shops: Server[] = [];
  let nodes: LocalNode[];
  let front: NodeFront;
  let service: { child: ChildProcess; url: string; metrics: string; log: () => string };

  const home = (): string[] => ["--home", join(folder, "home"), "--deployments", join(folder, "deployments")];

  async function bursar(...argv: string[]): Promise<{ code: number; err: string }> {
    let err = "";
    const code = await main([...home(), "--json", ...argv], { out: () => undefined, err: (text) => (err += text) });
    return { code, err };
  }

  function listOf(chains: readonly object[]): string {
    const path = join(folder, "chains.json");
    writeFileSync(path, JSON.stringify(chains));
    return path;
  }

  function chain(name: string, chainId: number, rpc: string, more: object = {}): object {
    const deployment = join(folder, "deployments", `${chainId}.json`);
    return { name, chainId, rpc: [rpc], deployment, store: join(folder, `${name}.db`), ...more };
  }

  async function serve(chains: string): Promise<typeof service> {
    const argv = ["serve", "--chains", chains, "--port", "0", "--metrics-port", "0", "--settle-every", "1"];
    const child = spawn(process.execPath, [BIN, ...home(), ...argv], { stdio: ["ignore", "pipe", "pipe"] });
    const said = { out: "", err: "" };
    child.stdout.on("data", (chunk: Buffer) => (said.out += String(chunk)));
    child.stderr.on("data", (chunk: Buffer) => (said.err += String(chunk)));
    for (;;) {
      const url = /listening on (\S+)/.exec(said.err)?.[1];
      const metrics = /metrics on (\S+)/.exec(said.err)?.[1];
      if (url !== undefined && metrics !== undefined) return { child, url, metrics, log: () => said.out };
      if (child.exitCode !== null) throw new Error(said.err);
      await setTimeout(20);
    }
  }

  const get = (path: string): Promise<Response> => fetch(`${service.url}${path}`);
  const listed = async (): Promise<Listed[]> => ((await (await get("/chains")).json()) as { chains: Listed[] }).chains;
  const refusal = async (path: string): Promise<[number, Problem]> => {
    const response = await get(path);
    return [response.status, (await response.json()) as Problem];
  };
  const metric = async (sample: string): Promise<string | undefined> =>
    (await (await fetch(service.metrics)).text())
      .split("\n")
      .find((line) => line.startsWith(`${sample} `))
      ?.slice(sample.length + 1);

  async function until(isSo: () => Promise<boolean>): Promise<void> {
    while (!(await isSo())) await setTimeout(100);
  }

  /** A shop on one of the chains, which takes that chain's receipts alone. */
  async function shopOn({ info, chainId, registry }: Listed, rpc: string): Promise<string> {
    const domain = { chainId: BigInt(chainId), registry };
    const paywall = new Paywall({
      payee: Wallet.createRandom().address,
      domain,
      token: info!.tokens["tUSD"]!.address,
      processors: [info!.processor],
      receipts: new MemoryReceipts(),
      mandates: chainMandates(rpc, registry, { finality: 1 }),
    });
    const app = express();
    app.get("/tea", paid(paywall, 5n), (_request, response) => response.json({ tea: chainId }));
    const server = app.listen(0, "127.0.0.1");
    shops.push(server);
    await once(server, "listening");
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/tea`;
  }

  async function agentOn({ path }: Listed): Promise<Agent> {
    const owner = await new Keyring(join(folder, "home", "keys"), "", true).load("owner");
    return (await openMandate({ processor: service.url + path, intent: INTENT, owner })).wait({ interval: 100 });
  }

  before(async () => {
    nodes = await Promise.all([LocalNode.start(31_337), LocalNode.start(1_337)]);
    for (const { url } of nodes) {
      for (const argv of [["deploy"], ["deposit", "1"], ["bond", "post", "10000"]]) {
        const { code, err } = await bursar("--rpc", url, ...argv);
        expect(code, err).to.equal(0);
      }
    }
    // Other contracts, by their record, whose database is nowhere.
    const record = JSON.parse(readFileSync(join(folder, "deployments", "31337.json"), "utf8")) as object;
    const elsewhere = join(folder, "elsewhere.json");
    writeFileSync(elsewhere, JSON.stringify({ ...record, registry: addressOf("registry") }));
    front = await NodeFront.before(nodes[1]!.url);
    front.trouble = "resets";
    service = await serve(
      listOf([
        chain("one", 31_337, nodes[0]!.url),
        chain("two", 1_337, front.url),
        chain("three", 31_337, nodes[0]!.url, { deployment: elsewhere, store: "postgres://127.0.0.1:9/nowhere" }),
      ]),
    );
  });
  after(async () => {
    service.child.kill("SIGKILL");
    for (const shop of shops) shop.close();
    await front.close();
    for (const node of nodes) node.stop();
    rmSync(folder, { recursive: true });
  });

  it("starts with a chain that is down and a database that is, and says so of these alone", async () => {
    await until(async () => (await listed())[0]!.ready);
    const [one, two, three] = (await listed()) as [Listed, Listed, Listed];
    expect([one, two, three].map(({ name, path, chainId, ready }) => [name, path, chainId, ready])).to.deep.equal([
      ["one", "/chains/one", "31337", true],
      ["two", "/chains/two", "1337", false],
      ["three", "/chains/three", "31337", false],
    ]);
    expect(await (await get("/chains/one/info")).json()).to.deep.equal(one.info);
    await until(async () => (await refusal("/chains/three/info"))[1].code === "store-unavailable");
    for (const [path, code] of [
      ["/chains/two/info", "chain-unavailable"],
      ["/chains/two/payments/1", "chain-unavailable"],
      ["/chains/three", "store-unavailable"],
    ] as const) {
      const [status, problem] = await refusal(path);
      expect([status, problem.code]).to.deep.equal([503, code]);
      expect(JSON.stringify(problem)).not.to.contain("127.0.0.1");
    }
    await until(async () => (await metric('bursar_chain_reachable{chain="one"}')) === "1");
    expect(await metric('bursar_chain_reachable{chain="two"}')).to.equal("0");
    expect(await metric('bursar_database_reachable{chain="three"}')).to.equal("0");
  });

  it("knows no other chains, and has nothing of a processor at its root", async () => {
    for (const path of ["/chains/four/info", "/chains/four", "/chains/on", "/chains/ones/info"]) {
      const [status, { code, details }] = await refusal(path);
      expect([status, code, details["limit"]], path).to.deep.equal([404, "not-found", "one two three"]);
    }
    for (const path of ["/info", "/payments", "/", "/chains/one/chains/one/info"]) {
      expect((await get(path)).status, path).to.equal(404);
    }
    expect((await get("/health")).status).to.equal(200);
  });

  it("lets agents buy and payees be settled on each chain, by nothing but the prefix in the processor's URL", async () => {
    front.trouble = null;
    await until(async () => (await listed())[1]!.ready);
    const chains = (await listed()).slice(0, 2);
    expect(chains[0]!.info!.processor).to.equal(chains[1]!.info!.processor);
    const shopUrls = [await shopOn(chains[0]!, nodes[0]!.url), await shopOn(chains[1]!, nodes[1]!.url)];
    const agents = [await agentOn(chains[0]!), await agentOn(chains[1]!)];
    for (const [i, agent] of agents.entries()) {
      const response = await agent.fetch(shopUrls[i]!);
      expect(await response.json()).to.deep.equal({ tea: chains[i]!.chainId });
    }
    for (const { name } of chains) {
      await until(async () => (await metric(`bursar_settled_payments_total{chain="${name}"}`)) === "1");
    }
    const wrong: unknown = await agents[0]!.fetch(shopUrls[1]!).catch((error: unknown) => error);
    expect((wrong as { code?: string }).code).to.equal("wrong-chain");
    const lines = service
      .log()
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    for (const { name } of chains) {
      const ended = lines.filter((line) => line["chain"] === name && line["msg"] === "batch ended");
      expect(
        ended.map(({ batch, state }) => [batch, state]),
        name,
      ).to.deep.equal([[1, "settled"]]);
    }
  });

  it("goes on with one chain while another one leaves and comes back", async () => {
    const [one] = (await listed()) as [Listed];
    front.trouble = "resets";
    await until(async () => (await metric('bursar_chain_reachable{chain="two"}')) === "0");
    const agent = await agentOn(one);
    const response = await agent.fetch(await shopOn(one, nodes[0]!.url));
    expect(response.status).to.equal(200);
    expect(await metric('bursar_chain_reachable{chain="one"}')).to.equal("1");
    expect((await get("/chains/two/info")).status).to.equal(200);
    front.trouble = null;
    await until(async () => (await metric('bursar_chain_reachable{chain="two"}')) === "1");
  });

  it("refuses a list that names the same contracts twice, another chain's record, or none; and options that it says itself", async () => {
    const [rpc, other] = nodes.map(({ url }) => url) as [string, string];
    const copy = join(folder, "copy.json");
    writeFileSync(copy, readFileSync(join(folder, "deployments", "31337.json")));
    const refused = async (chains: readonly object[], ...argv: string[]): Promise<string> => {
      const { code, err } = await bursar("serve", "--chains", listOf(chains), "--port", "0", ...argv);
      expect(code).to.equal(1);
      return (JSON.parse(err) as Problem).detail;
    };
    const one = chain("one", 31_337, rpc);
    expect(await refused([one, chain("again", 31_337, rpc, { deployment: copy })])).to.match(
      /one and again are the same/,
    );
    expect(await refused([chain("two", 1_337, other, { deployment: copy })])).to.match(
      /records no deployment on chain 1337/,
    );
    expect(await refused([chain("two", 1_337, other, { deployment: "/nowhere.json" })])).to.match(
      /records no deployment/,
    );
    expect(await refused([one], "--replace-after", "30")).to.match(/says replaceAfter for each chain/);
    expect(await refused([one], "--rpc", rpc)).to.match(/says rpc for each chain/);
  });

  it("ends with 0 on SIGTERM, while a chain still waits for its database", async () => {
    service.child.kill("SIGTERM");
    expect(await once(service.child, "close")).to.deep.equal([0, null]);
  });
});
