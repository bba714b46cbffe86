import { once } from "node:events";
import { createServer as createFront, type Server } from "node:http";
import { connect as connectSocket, type AddressInfo } from "node:net";
import { setTimeout } from "node:timers/promises";

import { toWire, type Address, type Hex, type Problem } from "@bursar/protocol";
import {
  Alarms,
  ApiKeys,
  Chain,
  connect,
  createLogger,
  SERVICE_DEFAULTS,
  startService,
  type Service,
  type ServiceConfig,
  type ServiceParts,
} from "@bursar/relayer";
import { expect } from "chai";
import { parseEther, ZeroHash, type JsonRpcProvider, type Signer } from "ethers";

import { OPEN_TERMS, TestRail } from "../integration/rail.ts";
import { accessOf, addressOf, keyOf } from "./office.ts";

const SHOP = keyOf("shop");

/** A chain behind a URL that holds a key, as providers sell it; it can be taken away. */
class Provider {
  readonly #server: Server;
  readonly url: string;

  private constructor(server: Server) {
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v3/provider-key`;
  }

  static async of(node: string): Promise<Provider> {
    const server = createFront((asked, answer) => {
      void (async () => {
        const body = Buffer.concat(await asked.toArray());
        const response = await fetch(node, { method: "POST", headers: { "content-type": "application/json" }, body });
        answer.setHeader("content-type", "application/json").end(await response.text());
      })();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Provider(server);
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  async leave(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }

  async comeBack(): Promise<void> {
    const { port } = this;
    this.#server.listen(port, "127.0.0.1");
    await once(this.#server, "listening");
  }
}

describe("the service when something goes wrong", function () {
  this.timeout(120_000);
  let rail: TestRail;
  let front: Provider;
  let wire: JsonRpcProvider;
  let service: Service;
  let log: string[] = [];

  before(async () => {
    rail = await TestRail.start();
    front = await Provider.of(rail.node.url);
    wire = (await connect(front.url)).provider;
    service = await start();
  });
  after(async () => {
    await service.stop();
    wire.destroy();
    await front.leave();
    await rail.stop();
  });

  const start = (config: Partial<ServiceConfig> = {}): Promise<Service> => startService(partsOf(config));

  function partsOf(config: Partial<ServiceConfig>): ServiceParts {
    return {
      config: { ...SERVICE_DEFAULTS, port: 0, metricsPort: 0, settleEvery: 0, ...config },
      chain: new Chain(rail.chain.rail, wire),
      provider: wire,
      store: rail.store,
      signer: rail.processorKey,
      prover: rail.prover,
      logger: createLogger("info", { write: (line) => void log.push(line) }),
      now: () => rail.now(),
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    };
  }

  const post = (path: string, body: unknown, url = service.url): Promise<Response> =>
    fetch(`${url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(toWire(body)),
    });
  const metric = async (name: string): Promise<string | undefined> => {
    const text = await (await fetch(`${service.metricsUrl!}/metrics`)).text();
    return new RegExp(`^${name} (.*)$`, "m").exec(text)?.[1];
  };
  const until = async (name: string, value: string): Promise<void> => {
    while ((await metric(name)) !== value) await setTimeout(50);
  };

  it("tells an operator that the chain is gone, and that it is back; payments go on meanwhile", async () => {
    const agent = await rail.open();
    await until("bursar_chain_reachable", "1");
    await front.leave();
    await until("bursar_chain_reachable", "0");
    expect(Number(await metric('bursar_chore_failures_total{chore="revocations"}'))).to.be.greaterThan(0);
    const paid = await post("/payments", await agent.sign(SHOP.address as Address, 5n));
    expect(paid.status).to.equal(200);
    await front.comeBack();
    await until("bursar_chain_reachable", "1");
  });

  it("K15: a chain that is gone is no reason to tell where it was", async () => {
    await front.leave();
    const mandate = rail.draft(addressOf("nobody"));
    const response = await post("/mandates", { mandate, terms: OPEN_TERMS });
    const text = await response.text();
    expect([response.status, (JSON.parse(text) as Problem).code]).to.deep.equal([503, "chain-unavailable"]);
    expect(text).not.to.match(/127\.0\.0\.1|ECONN|--rpc|hardhat|provider-key/);
    expect(text).not.to.contain(String(front.port));
    await front.comeBack();
    expect(log.join("")).not.to.contain("provider-key");
  });

  it("K15: answers a URL that does not decode, or is too long, without saying it again", async () => {
    for (const path of ["/mandates/%ff?token=open-sesame", `/mandates/${"a".repeat(300)}?token=open-sesame`]) {
      const response = await fetch(`${service.url}${path}`);
      const text = await response.text();
      expect(response.status).to.equal(400);
      expect(response.headers.get("content-type")).to.match(/^application\/problem\+json/);
      expect((JSON.parse(text) as Problem).code).to.equal("malformed-input");
      expect(text).not.to.match(/open-sesame|FST_|aaaa/);
    }
  });

  it("K15: answers bytes that are no HTTP, and headers without end, as Problem Details", async () => {
    for (const [status, bytes] of [
      [400, "what is this\r\n\r\n"],
      [400, "GET /health HTTP/9.9\r\nhost: a\r\n\r\n"],
      [431, `GET /health HTTP/1.1\r\nhost: a\r\nx: ${"a".repeat(70_000)}\r\n\r\n`],
    ] as const) {
      const said = await talk(service.url, bytes);
      expect(said).to.match(new RegExp(`^HTTP/1.1 ${status} `));
      const problem = JSON.parse(said.slice(said.indexOf("\r\n\r\n") + 4)) as Problem;
      expect(problem).to.include({ code: "malformed-input", status });
    }
  });

  it("starts as a whole or not at all: where the port of its metrics is taken, it answers nobody", async () => {
    const taken = Number(new URL(service.metricsUrl!).port);
    const spare = createFront().listen(0, "127.0.0.1");
    await once(spare, "listening");
    const { port } = spare.address() as AddressInfo;
    spare.close();
    await once(spare, "close");
    const failure: unknown = await start({ port, metricsPort: taken }).catch((error: unknown) => error);
    expect(failure).to.include({ code: "EADDRINUSE" });
    const asked: unknown = await fetch(`http://127.0.0.1:${port}/health`).catch((error: unknown) => error);
    expect(asked).to.be.instanceOf(Error);
    const other: unknown = await start({ port: Number(new URL(service.url).port) }).catch((error: unknown) => error);
    expect(other).to.include({ code: "EADDRINUSE" });
    expect((await fetch(`${service.url}/health`)).status).to.equal(200);
  });

  it("logs and counts an alarm of the chain once, and that it is over", async () => {
    const alarms = new Alarms();
    const alert = { code: "node-behind", about: "eth.example", message: "It is 40 s behind.", value: 40 } as const;
    alarms.raise(alert);
    await service.stop();
    const watched = await startService({ ...partsOf({ minBalance: parseEther("1000") }), alarms });
    const text = async (): Promise<string> => (await fetch(`${watched.metricsUrl!}/metrics`)).text();
    try {
      while (!(await text()).includes('bursar_chain_alarms{code="balance-low"} 1')) await setTimeout(20);
      expect(await text()).to.contain('bursar_chain_alarms{code="node-behind"} 1');
      alarms.raise(alert);
      alarms.clear("node-behind", "eth.example");
      expect(await text()).to.contain('bursar_chain_alarms{code="node-behind"} 0');
      const lines = log.map((line) => JSON.parse(line) as Record<string, unknown>);
      const told = lines.filter(({ alarm }) => alarm === "node-behind");
      expect(told.map(({ level, msg, value }) => [level, msg, value])).to.deep.equal([
        [50, "It is 40 s behind.", "40"],
        [30, "over: It is 40 s behind.", "40"],
      ]);
      const limit = String(parseEther("1000"));
      expect(lines.find(({ alarm }) => alarm === "balance-low")).to.include({ level: 50, limit });
    } finally {
      await watched.stop();
      service = await start();
    }
  });

  it("takes no more connections than it was told", async () => {
    const narrow = await start({ maxConnections: 1 });
    const { hostname, port } = new URL(narrow.url);
    const first = connectSocket(Number(port), hostname);
    await once(first, "connect");
    const answered = once(first, "data");
    first.write("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    await answered;
    expect(await talk(narrow.url, "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).to.equal("");
    first.destroy();
    await once(first, "close");
    let said = "";
    while (said === "") said = await talk(narrow.url, "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    expect(said).to.contain('{"status":"ok"}');
    await narrow.stop();
  });

  it("holds back a client that asks too fast, and believes no word about its address but a proxy's", async () => {
    const ask = async (url: string, client: string): Promise<Response> =>
      fetch(`${url}/health`, { headers: { "x-forwarded-for": client } });
    /** Asks until it is held back, each time as another client. */
    const heldBack = async (url: string, clientOf: (turn: number) => string): Promise<Response> => {
      for (let turn = 1; ; ++turn) {
        const response = await ask(url, clientOf(turn % 256));
        if (response.status === 429) return response;
        expect(response.status).to.equal(200);
      }
    };
    const direct = await start({ requestsPerSecond: 1 });
    const refused = await heldBack(direct.url, (turn) => `4.4.4.${turn}`);
    expect(refused.headers.get("retry-after")).to.equal("1");
    const problem = await refused.text();
    expect((JSON.parse(problem) as Problem).code).to.equal("too-many-requests");
    expect(problem).not.to.match(/127\.0\.0\.1|4\.4\.4\./);
    await direct.stop();

    const proxied = await start({ requestsPerSecond: 1, trustedProxies: ["127.0.0.0/8"] });
    await heldBack(proxied.url, () => "1.1.1.1");
    expect((await ask(proxied.url, "2.2.2.2")).status).to.equal(200);
    await heldBack(proxied.url, (turn) => `9.9.9.${turn}, 1.1.1.1`);
    await proxied.stop();
  });

  it("tells its agent, its owner and the operator that there is no such payment, and strangers nothing", async () => {
    const agent = await rail.open();
    await agent.pay(SHOP.address as Address, 7n);
    const owner = await rail.provider.getSigner(1);
    const { key } = await new ApiKeys(rail.store.database, () => rail.now()).create("operator", "operator");
    const readers: Record<string, string> = {
      agent: await access(agent.wallet),
      owner: await access(owner),
      operator: `Bearer ${key}`,
      payee: await access(SHOP),
      stranger: await access(keyOf("stranger")),
    };
    const ask = async (reader: string, path: string): Promise<string> => {
      const response = await fetch(`${service.url}${path}`, { headers: { authorization: readers[reader]! } });
      return response.ok ? "ok" : ((await response.json()) as Problem).code;
    };
    const answers = async (path: string): Promise<Record<string, string>> =>
      Object.fromEntries(
        await Promise.all(Object.keys(readers).map(async (reader) => [reader, await ask(reader, path)])),
      ) as Record<string, string>;
    const nothing = { payee: "forbidden", stranger: "forbidden" };
    const inside = { agent: "ok", owner: "ok", operator: "ok" };
    const missing = { agent: "not-found", owner: "not-found", operator: "not-found" };
    expect(await answers(`/payments/${agent.address}/1`)).to.deep.equal({
      ...inside,
      payee: "ok",
      stranger: "forbidden",
    });
    expect(await answers(`/payments/${agent.address}/2`)).to.deep.equal({ ...missing, ...nothing });
    expect(await answers(`/mandates/${agent.address}`)).to.deep.equal({ ...inside, ...nothing });
    expect(await answers(`/mandates/${agent.address}/tail`)).to.deep.equal({
      ...inside,
      ...nothing,
      owner: "forbidden",
    });
    const unknown = addressOf("nobody at all");
    for (const path of [`/payments/${unknown}/1`, `/mandates/${unknown}`, `/mandates/${unknown}/tail`]) {
      const { operator, ...others } = await answers(path);
      expect(operator).to.be.oneOf(["not-found", "mandate-unknown"]);
      expect(new Set(Object.values(others)), path).to.deep.equal(new Set(["forbidden"]));
    }
  });

  it("logs one line a request, without its query", async () => {
    log = [];
    await fetch(`${service.url}/health?token=open-sesame`);
    await fetch(`${service.url}/nowhere?token=open-sesame`);
    await fetch(`${service.url}/mandates/%ff?token=open-sesame`);
    const { payment, salt, ...rest } = await (await rail.open()).sign(SHOP.address as Address, 5n, ZeroHash as Hex);
    await post("/payments?token=open-sesame", { payment, salt, ...rest });
    const lines = log.map((line) => JSON.parse(line) as { reqId?: string; req?: object; res?: object; chore?: string });
    const requests = lines.filter(({ reqId }) => reqId !== undefined);
    expect(new Set(requests.map(({ reqId }) => reqId)).size).to.equal(4);
    expect(requests.map(({ req, res }) => ({ ...req, ...res }))).to.deep.equal([
      { method: "GET", url: "/health", statusCode: 200 },
      { method: "GET", url: "/nowhere", statusCode: 404 },
      { statusCode: 400 },
      { method: "POST", url: "/payments", statusCode: 200 },
    ]);
    expect(log.join("")).not.to.contain("open-sesame");
  });

  it("says when it last settled, and what waits", async () => {
    expect(await metric("bursar_last_settlement_timestamp_seconds")).to.equal("0");
    await service.stop();
    service = await start({ settleEvery: 1 });
    const agent = await rail.open();
    await agent.pay(SHOP.address as Address, 5n);
    const read = async (): Promise<string> => (await fetch(`${service.metricsUrl!}/metrics`)).text();
    while (/^bursar_last_settlement_timestamp_seconds 0$/m.test(await read())) await setTimeout(100);
    const [, at] = /^bursar_last_settlement_timestamp_seconds (\d+)$/m.exec(await read())!;
    expect(Math.abs(Number(at) - Number(rail.now()))).to.be.lessThan(60);
    // What is read from the books is told for a second.
    while (!/^bursar_batches\{state="settled"\} [1-9]/m.test(await read())) await setTimeout(100);
  });

  async function access(reader: Signer & { address: string }): Promise<string> {
    return accessOf(reader, rail.domain, rail.now());
  }
});

/** All that a server says to raw bytes, until it closes. */
async function talk(url: string, bytes: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connectSocket(Number(port), hostname);
  let said = "";
  socket.on("data", (chunk: Buffer) => (said += String(chunk)));
  socket.on("error", () => undefined);
  socket.write(bytes);
  await new Promise((done) => socket.once("close", done));
  return said;
}
