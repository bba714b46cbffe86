import { once } from "node:events";
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { AgentLedger, signPayment, toWire, type Address, type Domain, type Hex } from "@bursar/protocol";
import { Keyring } from "@bursar/relayer";
import { expect } from "chai";
import { id, ZeroHash, type Wallet } from "ethers";

import { LocalNode } from "../../scripts/demo/node.ts";
import { Collector, type CollectedSpan } from "./collector.ts";
import { addressOf } from "./office.ts";

const BIN = fileURLToPath(new URL("../../packages/relayer/bin/bursar.js", import.meta.url));
const SHOP = addressOf("shop");

describe("traces", function () {
  this.timeout(300_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-traces-"));
  let node: LocalNode;
  let collector: Collector;
  let service: ChildProcess;
  let url: string;
  let domain: Domain;

  const start = (argv: readonly string[], environment: Record<string, string> = {}): ChildProcess =>
    spawn(
      process.execPath,
      [BIN, "--rpc", node.url, "--home", join(folder, "home"), "--deployments", join(folder, "deployments"), ...argv],
      { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...environment } },
    );
  const traced = (name: string): Record<string, string> => ({
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_SERVICE_NAME: name,
  });

  async function run(argv: readonly string[], environment: Record<string, string> = {}): Promise<string> {
    const child = start(["--json", ...argv], environment);
    const said = { out: "", err: "" };
    child.stdout!.on("data", (chunk: Buffer) => (said.out += String(chunk)));
    child.stderr!.on("data", (chunk: Buffer) => (said.err += String(chunk)));
    const [code] = (await once(child, "close")) as [number];
    expect(code, said.err).to.equal(0);
    return said.out;
  }

  function serve(environment: Record<string, string>): Promise<{ child: ChildProcess; url: string }> {
    const child = start(["serve", "--port", "0", "--settle-every", "0", "--log-level", "silent"], environment);
    let said = "";
    return new Promise((resolve, reject) => {
      child.stderr!.on("data", (chunk: Buffer) => {
        said += String(chunk);
        const listening = /listening on (http:\S+)/.exec(said)?.[1];
        if (listening !== undefined) resolve({ child, url: listening });
      });
      child.once("exit", () => reject(new Error(`the service did not start:\n${said}`)));
    });
  }

  async function end(child: ChildProcess): Promise<void> {
    child.kill("SIGTERM");
    if (child.exitCode === null) await once(child, "exit");
  }

  async function openAgent(): Promise<{ wallet: Wallet; ledger: AgentLedger }> {
    const opened = await run(["mandate", "open", "--budget", "0.01", "--cap", "0.001", "--purpose", "tests", "--yes"]);
    const { mandate } = JSON.parse(opened) as { mandate: { agent: Address } };
    const wallet = await new Keyring(join(folder, "home", "keys"), "", true).load(mandate.agent);
    const ledger = new AgentLedger({ domain, agent: mandate.agent, secret: id(mandate.agent) as Hex });
    return { wallet, ledger };
  }

  async function pay(
    { wallet, ledger }: Awaited<ReturnType<typeof openAgent>>,
    amount: bigint,
    traceparent: string,
    to = url,
  ): Promise<Response> {
    const { payment, salt } = ledger.draft({ payee: SHOP, amount, ref: ZeroHash as Hex });
    const signature = await signPayment(wallet, domain, payment);
    const response = await fetch(`${to}/payments`, {
      method: "POST",
      headers: { "content-type": "application/json", traceparent },
      body: JSON.stringify(toWire({ agent: wallet.address as Address, payment, salt, signature })),
    });
    if (response.ok) ledger.commit();
    else ledger.discard();
    return response;
  }

  const freshTrace = (): string => randomBytes(16).toString("hex");
  const ofAgent = (traceId: string, flags = "01"): string => `00-${traceId}-${"a".repeat(16)}-${flags}`;
  const named = (traceId: string, name: string): CollectedSpan =>
    collector.trace(traceId).find((span) => span.name === name)!;

  before(async () => {
    collector = await Collector.start();
    node = await LocalNode.start();
    await run(["deploy"]);
    await run(["deposit", "1"]);
    await run(["bond", "post", "10000", "--uri", "https://processor.test"]);
    ({ child: service, url } = await serve(traced("till")));
    const { chainId, registry } = (await (await fetch(`${url}/info`)).json()) as { chainId: string; registry: Address };
    domain = { chainId: BigInt(chainId), registry };
  });
  after(async () => {
    await end(service);
    node.stop();
    await collector.stop();
    rmSync(folder, { recursive: true });
  });

  it("follow a payment from the agent's request over batch and proof to settlement, through three processes", async () => {
    const [first, second, third] = [await openAgent(), await openAgent(), await openAgent()];
    const [traceId, other, unsampled] = [freshTrace(), freshTrace(), freshTrace()];
    expect((await pay(first, 5n, ofAgent(traceId))).status).to.equal(200);
    expect((await pay(second, 6n, ofAgent(other))).status).to.equal(200);
    expect((await pay(third, 7n, ofAgent(unsampled, "00"))).status).to.equal(200);
    expect((await pay(first, 5_000n, ofAgent(traceId))).status).to.equal(403);
    await run(["batch"], traced("prover"));
    const [settled] = JSON.parse(await run(["settle"], traced("settler"))) as [
      { id: number; transaction: string; gasUsed: string; payments: number },
    ];
    await end(service);
    ({ child: service, url } = await serve(traced("till")));

    const spans = collector.trace(traceId);
    const accepted = spans.filter(({ name }) => name === "accept");
    expect(spans.map(({ name }) => name)).to.include.members([
      "POST /payments",
      "accept",
      "decide",
      "commit",
      "batch",
      "proof",
      "settlement",
      "submission",
    ]);
    const way = ["POST /payments", "batch", "proof", "settlement", "submission"];
    expect(way.map((name) => named(traceId, name).resource["service.name"])).to.deep.equal([
      "till",
      "prover",
      "prover",
      "settler",
      "settler",
    ]);
    const instances = new Set(way.map((name) => named(traceId, name).resource["service.instance.id"]));
    expect(instances.size).to.equal(3);

    const ids = new Map(spans.map((span) => [span.spanId, span]));
    const parentOf = (name: string): string => ids.get(named(traceId, name).parentSpanId!)?.name ?? "the agent's";
    expect([...way, "accept", "decide", "commit"].map((name) => `${name} < ${parentOf(name)}`)).to.deep.equal([
      "POST /payments < the agent's",
      "batch < accept",
      "proof < batch",
      "settlement < batch",
      "submission < settlement",
      "accept < POST /payments",
      "decide < accept",
      "commit < accept",
    ]);
    expect(named(traceId, "batch").attributes).to.include({ "bursar.batch": settled.id, "bursar.payments": 3 });
    expect(named(traceId, "batch").links?.map((link) => link.traceId)).to.deep.equal([other]);
    expect(named(traceId, "proof").attributes["bursar.circuit"]).to.equal("default");
    expect(named(traceId, "settlement").attributes).to.include({
      "bursar.transaction": settled.transaction,
      "bursar.gas": Number(settled.gasUsed),
    });
    expect(collector.trace(unsampled)).to.deep.equal([]);
    expect(accepted.map(({ status }) => status.message ?? "accepted")).to.deep.equal(["accepted", "above-payment-cap"]);
  });

  it("name no account, no amount and no reference", () => {
    const known = ["bursar.transaction"];
    const values = collector.spans.flatMap(({ attributes, status }) => [
      ...Object.entries(attributes)
        .filter(([key]) => !known.includes(key))
        .map(([, value]) => String(value)),
      status.message ?? "",
    ]);
    expect(values.join(" ")).not.to.match(/0x[0-9a-fA-F]{8}/);
    expect(new Set(collector.spans.flatMap(({ attributes }) => Object.keys(attributes)))).to.deep.equal(
      new Set([
        ...["bursar.chain_id", "bursar.requests", "bursar.batch", "bursar.circuit", "bursar.payments"],
        ...["bursar.mandates", "bursar.transaction", "bursar.block", "bursar.gas", "bursar.gas_per_payment"],
      ]),
    );
  });

  it("begin with the service where an agent sends none, or one that is not in form", async () => {
    const agent = await openAgent();
    const before = collector.spans.length;
    expect((await pay(agent, 5n, "00-not-a-trace")).status).to.equal(200);
    await end(service);
    const roots = collector.spans.slice(before).filter(({ name }) => name === "POST /payments");
    expect(roots.map(({ parentSpanId }) => parentSpanId)).to.deep.equal([undefined]);
    ({ child: service, url } = await serve(traced("till")));
  });

  it("cost no payment where the collector is gone, and are off unless one is named", async () => {
    const agent = await openAgent();
    const nowhere = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9" };
    for (const environment of [nowhere, { ...traced("off"), OTEL_SDK_DISABLED: "true" }, {}]) {
      const other = await serve(environment);
      const traceId = freshTrace();
      expect((await pay(agent, 5n, ofAgent(traceId), other.url)).status).to.equal(200);
      await end(other.child);
      expect(other.child.exitCode).to.equal(0);
      expect(collector.trace(traceId)).to.deep.equal([]);
    }
  });
});
