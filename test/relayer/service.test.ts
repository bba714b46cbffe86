import { once } from "node:events";
import { spawn, type ChildProcess } from "node:child_process";
import { connect } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout } from "node:timers/promises";

import {
  signProfile,
  signQuote,
  toWire,
  type Address,
  type Hex,
  type Problem,
  type SignedReceipt,
} from "@bursar/protocol";
import {
  ApiKeys,
  createLogger,
  Profiles,
  Rate,
  SERVICE_DEFAULTS,
  startService,
  type LedgerEntry,
  type Service,
  type ServiceConfig,
} from "@bursar/relayer";
import { Ajv2020 } from "ajv/dist/2020.js";
import { expect } from "chai";
import { ZeroHash, type Signer } from "ethers";

import { TestRail, type PayingAgent } from "../integration/rail.ts";
import { accessOf, keyOf, refusalOf } from "./office.ts";

const SHOP = keyOf("shop");

describe("the service", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let service: Service;
  let log = "";

  before(async () => {
    rail = await TestRail.start();
    service = await start();
  });
  after(async () => {
    await service.stop();
    await rail.stop();
  });

  function start(config: Partial<ServiceConfig> = {}): Promise<Service> {
    return startService({
      config: { ...SERVICE_DEFAULTS, port: 0, metricsPort: 0, settleEvery: 0, maxSkew: null, ...config },
      chain: rail.chain,
      provider: rail.provider,
      store: rail.store,
      signer: rail.processorKey,
      prover: rail.prover,
      logger: createLogger("info", {
        write: (line) => {
          log += line;
        },
      }),
      now: () => rail.now(),
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    });
  }

  async function post(path: string, body: unknown, url = service.url): Promise<Response> {
    return fetch(`${url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: typeof body === "string" ? body : JSON.stringify(toWire(body)),
    });
  }

  type Reader = Signer & { address: string };
  async function get(path: string, reader?: Reader | string): Promise<Response> {
    if (reader === undefined) return fetch(`${service.url}${path}`);
    const authorization =
      typeof reader === "string" ? `Bearer ${reader}` : await accessOf(reader, rail.domain, rail.now());
    return fetch(`${service.url}${path}`, { headers: { authorization } });
  }

  const json = async <T>(response: Response): Promise<T> => (await response.json()) as T;
  const codeOf = async (response: Response): Promise<string> => (await json<Problem>(response)).code;

  describe("who may read", () => {
    let agent: PayingAgent;
    let keys: ApiKeys;
    before(async () => {
      agent = await rail.open();
      await agent.pay(SHOP.address as Address, 7n);
      keys = new ApiKeys(rail.store.database, () => rail.now());
    });

    it("shows a payment to its agent and its payee, and a mandate to its agent, not to the payee", async () => {
      const payment = `/payments/${agent.address}/1`;
      for (const reader of [agent.wallet, SHOP]) {
        const view = await json<{ status: string; receipt: SignedReceipt }>(await get(payment, reader));
        expect(view.status).to.equal("accepted");
        expect(view.receipt).to.deep.equal(toWire(await rail.processor.receipt(agent.address, 1n)));
      }
      expect(await json(await get(`/mandates/${agent.address}`, agent.wallet))).to.include({ state: "open" });
      expect((await get(`/mandates/${agent.address}`, SHOP)).status).to.equal(403);
      const tail = await json<{ seq: string; last: object }>(
        await get(`/mandates/${agent.address}/tail`, agent.wallet),
      );
      const { payment: last, signature } = (await rail.store.lastPayment(agent.address))!;
      expect([tail.seq, tail.last]).to.deep.equal(["1", toWire({ payment: last, signature })]);
    });

    it("takes an API key for one account, or the operator's for everything, until it is revoked", async () => {
      const one = await keys.create("agent's own", agent.address);
      const all = await keys.create("operator", "operator");
      expect((await get(`/mandates/${agent.address}`, one.key)).status).to.equal(200);
      const other = await rail.open();
      expect((await get(`/mandates/${other.address}`, one.key)).status).to.equal(403);
      expect((await get(`/mandates/${other.address}`, all.key)).status).to.equal(200);
      await keys.revoke(one.id);
      expect(await codeOf(await get(`/mandates/${agent.address}`, one.key))).to.equal("unauthorised");
      expect(await codeOf(await get("/ledger", "bk_made-up"))).to.equal("unauthorised");
      expect(JSON.stringify(await rail.store.database.all("SELECT * FROM api_key"))).not.to.contain(all.key);
    });

    it("shows each side its own part of the ledger, and pages that new rows do not move", async () => {
      const other = await rail.open();
      await other.pay(SHOP.address as Address, 5n);
      await refusalOf(() => other.pay(SHOP.address as Address, 2_000n));
      interface Page {
        entries: LedgerEntry[];
        next: number | null;
      }
      const ledger = async (query: string, reader: Reader | string): Promise<Page> =>
        json(await get(`/ledger${query}`, reader));
      const own = await ledger("", other.wallet);
      expect(own.entries.map(({ kind, code, amount }) => [kind, code, amount])).to.deep.equal([
        ["refused", "above-payment-cap", "2000"],
        ["accepted", null, "5"],
      ]);
      expect(own.entries[0]).to.include({ purpose: "anything a test buys", rail: "proved", status: "refused" });
      const received = await ledger("?kind=accepted", SHOP);
      expect(received.entries.map((line) => line.agent)).to.include.members([other.address, agent.address]);
      expect(new Set(received.entries.map((line) => line.payee))).to.deep.equal(new Set([SHOP.address]));
      expect((await ledger(`?agent=${agent.address}`, other.wallet)).entries).to.have.length(0);

      const all = (await keys.create("paging", "operator")).key;
      const first = await ledger("?limit=2", all);
      await other.pay(SHOP.address as Address, 1n);
      const second = await ledger(`?limit=2&before=${first.next}`, all);
      const positions = [...first.entries, ...second.entries].map(({ position }) => position);
      expect(positions).to.deep.equal([...new Set(positions)].sort((a, b) => b - a));
      expect(await codeOf(await get("/ledger?limit=0", all))).to.equal("malformed-input");
      expect(await codeOf(await get("/ledger?limit=1001", all))).to.equal("malformed-input");
      expect(await codeOf(await get("/ledger?colour=blue", all))).to.equal("malformed-input");
    });

    it("exports CSV that a spreadsheet reads as text", async () => {
      const tricky = await rail.open({}, { version: 1, purpose: '=cmd("a"), twice', categories: [], hosts: [] });
      await tricky.pay(SHOP.address as Address, 3n);
      const response = await get("/ledger?format=csv", tricky.wallet);
      expect(response.headers.get("content-type")).to.equal("text/csv; charset=utf-8");
      const [header, line] = (await response.text()).split("\r\n");
      expect(header).to.match(/^position,time,kind/);
      expect(line).to.contain(`"'=cmd(""a""), twice"`).and.to.contain(",0.000003,");
    });
  });

  describe("payees", () => {
    const profile = (issuedAt: bigint) => ({
      payee: SHOP.address as Address,
      name: "Market",
      host: "*.market.example",
      category: "data",
      issuedAt,
    });

    it("apply with a signed profile, which counts once it is approved; a quote narrows it", async () => {
      const terms = { version: 1 as const, purpose: "rates", categories: ["data.fx"], hosts: ["fx.market.example"] };
      const agent = await rail.open({}, terms);
      const application = profile(rail.now());
      const signature = await signProfile(SHOP, rail.domain, application);
      const applied = await post("/payees", { profile: application, signature });
      expect([applied.status, await applied.json()]).to.deep.equal([202, { payee: SHOP.address, state: "pending" }]);
      expect((await get(`/payees/${SHOP.address}`)).status).to.equal(404);
      const buy = async (changes: object = {}): Promise<Response> => {
        const line = { payee: SHOP.address as Address, amount: 5n, ref: ZeroHash as Hex };
        const offer = { host: "fx.market.example", category: "data.fx", expiresAt: rail.now() + 60n };
        const quote = { ...line, ...offer, ...changes };
        const signed = await agent.sign(line.payee, line.amount);
        const response = await post("/payments", {
          ...signed,
          quote: { quote, signature: await signQuote(SHOP, rail.domain, quote) },
        });
        if (response.ok) agent.ledger.commit();
        else agent.ledger.discard();
        return response;
      };
      expect(await codeOf(await buy())).to.equal("payee-unknown");
      const approved = await new Profiles(rail.store.database).approve(SHOP.address as Address);
      await rail.store.putPayee(approved);
      expect(await json(await get(`/payees/${SHOP.address}`))).to.include({ host: "*.market.example" });
      expect(await codeOf(await buy({ host: "fx.elsewhere.example" }))).to.equal("quote-too-wide");
      expect(await codeOf(await buy({ category: "gambling" }))).to.equal("quote-too-wide");
      expect(await codeOf(await buy({ host: "other.market.example" }))).to.equal("off-mission-host");
      expect(await codeOf(await buy({ category: "data.weather" }))).to.equal("off-mission-category");
      expect(await codeOf(await buy({ amount: 4n }))).to.equal("quote-mismatch");
      expect(await codeOf(await buy({ expiresAt: rail.now() - 1n }))).to.equal("quote-expired");
      expect((await buy()).status).to.equal(200);
      const unquoted = await post("/payments", await agent.sign(SHOP.address as Address, 5n));
      expect(await codeOf(unquoted)).to.equal("off-mission-host");
    });

    it("are refused a profile that is forged, stale, from the future or not in form", async () => {
      const application = profile(rail.now() + 10n);
      const signature = await signProfile(SHOP, rail.domain, application);
      const forged = await signProfile(keyOf("other"), rail.domain, application);
      expect(await codeOf(await post("/payees", { profile: application, signature: forged }))).to.equal(
        "signature-signer",
      );
      expect((await post("/payees", { profile: application, signature })).status).to.equal(202);
      expect((await post("/payees", { profile: application, signature })).status).to.equal(202);
      const older = profile(rail.now() - 10n);
      const stale = await post("/payees", { profile: older, signature: await signProfile(SHOP, rail.domain, older) });
      expect(await codeOf(stale)).to.equal("profile-stale");
      for (const wrong of [
        { issuedAt: rail.now() + 10_000n },
        { name: "" },
        { name: "Shop\u202e" },
        { host: "https://x" },
        { category: "A B" },
      ]) {
        const changed = { ...profile(rail.now() + 20n), ...wrong };
        const answer = await post("/payees", {
          profile: changed,
          signature: await signProfile(SHOP, rail.domain, changed),
        });
        expect(await codeOf(answer), JSON.stringify(toWire(wrong))).to.equal("malformed-input");
      }
    });
  });

  describe("what anybody may know", () => {
    it("tells chain, contracts, tokens and the processor at GET /info, and its rules at GET /policy", async () => {
      const info = await json<Record<string, unknown>>(await get("/info"));
      const { escrow, registry, settlement, direct } = rail.chain.rail;
      expect(info).to.deep.include({ chainId: "31337", escrow, registry, settlement, direct, settleWithin: "3600" });
      expect(info).to.deep.include({
        processor: rail.processorKey.address,
        tokens: { tUSD: { address: rail.token, unitScale: "1" } },
      });
      const { rules } = await json<{ rules: { code: string; rule: string }[] }>(await get("/policy"));
      expect(rules).to.deep.include({ code: "above-payment-cap", rule: "payment.amount <= left.cap" });
    });

    it("describes every route at GET /openapi.json, and its answers fit the description", async () => {
      interface Operation {
        responses?: Record<string, { content?: Record<string, { schema: object }> }>;
      }
      const document = await json<{ openapi: string; paths: Record<string, Record<string, Operation>> }>(
        await get("/openapi.json"),
      );
      expect(document.openapi).to.equal("3.1.0");
      const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
        Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
      );
      expect(routes).to.include.members([
        "GET /health",
        "GET /info",
        "GET /policy",
        "POST /mandates",
        "GET /mandates/{agent}",
        "GET /mandates/{agent}/tail",
        "POST /revocations",
        "POST /payments",
        "POST /payments/check",
        "GET /payments/{agent}/{seq}",
        "GET /ledger",
        "POST /payees",
        "GET /payees/{address}",
        "POST /intents",
        "GET /intents/{agent}",
        "POST /intents/{agent}/signature",
        "GET /x402/supported",
        "POST /x402/verify",
        "POST /x402/settle",
        "POST /enqueue",
      ]);
      const agent = await rail.open();
      const payment = await agent.sign(SHOP.address as Address, 5n);
      const ajv = new Ajv2020({ strict: false, formats: { uri: true } });
      const fits = async (route: string, method: string, status: string, response: Response): Promise<void> => {
        const { schema } = document.paths[route]![method]!.responses![status]!.content!["application/json"]!;
        const body: unknown = await response.json();
        expect(String(response.status), JSON.stringify(body)).to.equal(status);
        const validate = ajv.compile(schema);
        expect(validate(body), `${route} ${JSON.stringify(validate.errors)}`).to.equal(true);
      };
      await fits("/health", "get", "200", await get("/health"));
      await fits("/info", "get", "200", await get("/info"));
      await fits("/policy", "get", "200", await get("/policy"));
      await fits("/payments/check", "post", "200", await post("/payments/check", payment));
      await fits("/payments", "post", "200", await post("/payments", payment));
      await fits("/payments/{agent}/{seq}", "get", "200", await get(`/payments/${agent.address}/1`, agent.wallet));
      await fits("/mandates/{agent}", "get", "200", await get(`/mandates/${agent.address}`, agent.wallet));
      await fits("/mandates/{agent}/tail", "get", "200", await get(`/mandates/${agent.address}/tail`, agent.wallet));
      await fits("/ledger", "get", "200", await get("/ledger", agent.wallet));
      await fits("/x402/supported", "get", "200", await get("/x402/supported"));
    });

    it("K15: health, errors and what does not exist tell no address, key, path, stack or version", async () => {
      const secrets = [
        rail.processorKey.address,
        rail.processorKey.privateKey,
        rail.chain.rail.escrow,
        rail.node.url,
        rail.folder,
        "node_modules",
        "fastify",
        "sqlite",
        "    at ",
      ];
      for (const [method, path] of [
        ["GET", "/health"],
        ["GET", "/metrics"],
        ["GET", "/debug"],
        ["GET", "/../../etc/passwd"],
        ["OPTIONS", "/payments"],
        ["TRACE", "/payments"],
        ["DELETE", "/ledger"],
        ["GET", `/payments/${"9".repeat(500)}/1`],
        ["GET", "/%"],
      ] as const) {
        const response = await rawRequest(
          service.url,
          `${method} ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
        );
        for (const secret of secrets) expect(response, `${method} ${path}`).not.to.contain(secret);
        expect(response).not.to.match(/^(server|x-powered-by):/im);
      }
    });
  });

  describe("what it withstands", () => {
    it("64 connections with the same request: one row, one answer", async () => {
      const agent = await rail.open();
      const request = JSON.stringify(toWire(await agent.sign(SHOP.address as Address, 5n)));
      const before = (await rail.store.counts()).payments;
      const answers = await Promise.all(
        Array.from({ length: 64 }, async () => (await post("/payments", request)).text()),
      );
      expect(new Set(answers).size).to.equal(1);
      expect((await rail.store.counts()).payments).to.equal(before + 1);
    });

    it("bodies that are nested too deep, and keys that mean a prototype", async () => {
      const deep = `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
      expect(await codeOf(await post("/payments", deep))).to.equal("malformed-input");
      expect(await codeOf(await post("/payments", `{"a":"${"[".repeat(100)}"}`))).to.equal("malformed-input");
      expect(await codeOf(await post("/payments", '{"__proto__": {"agent": "x"}}'))).to.equal("malformed-input");
      expect(await codeOf(await post("/payments", '{"constructor": {"prototype": {}}}'))).to.equal("malformed-input");
      expect(await codeOf(await post("/payments", "{"))).to.equal("malformed-input");
      expect(await codeOf(await post("/payments", ""))).to.equal("malformed-input");
      expect(({} as { agent?: unknown }).agent).to.equal(undefined);
    });

    it("numbers in any form but one, in every numeric field of a payment", async () => {
      const agent = await rail.open();
      const good = toWire(await agent.sign(SHOP.address as Address, 5n)) as unknown as Record<string, unknown>;
      const forms = [
        "0x5",
        "+5",
        "-5",
        "5e0",
        "05",
        " 5",
        "5 ",
        "5.0",
        "５",
        "",
        "five",
        5,
        null,
        true,
        [5],
        "1".repeat(99),
      ];
      const fields = [["salt"], ["payment", "seq"], ["payment", "spent"], ["payment", "line", "amount"]];
      for (const form of forms) {
        for (const path of fields) {
          const body = structuredClone(good);
          const holder = path.slice(0, -1).reduce((at, name) => at[name] as Record<string, unknown>, body);
          holder[path.at(-1)!] = form;
          const response = await post("/payments", body);
          expect([response.status, await codeOf(response)], `${path.join(".")} ${JSON.stringify(form)}`).to.deep.equal([
            400,
            "malformed-input",
          ]);
        }
      }
      expect((await post("/payments", good)).status).to.equal(200);
    });

    it("slow headers: the connection is closed after five seconds, others are served meanwhile", async () => {
      const { hostname, port } = new URL(service.url);
      const socket = connect(Number(port), hostname);
      const began = performance.now();
      socket.write("POST /payments HTTP/1.1\r\nhost: x\r\n");
      const drip = setInterval(() => socket.write("x-a: b\r\n"), 500);
      const closed = new Promise((resolve) => socket.once("close", resolve));
      socket.on("error", () => undefined);
      expect((await get("/health")).status).to.equal(200);
      await closed;
      clearInterval(drip);
      expect(performance.now() - began).to.be.greaterThan(3_000);
    });

    it("an agent that pays too fast: held back alone, and let on after a while", () => {
      let clock = 0;
      const rate = new Rate({ perSecond: 10, burst: 3, clock: () => clock });
      for (let n = 0; n < 3; ++n) rate.admit("fast");
      expect(() => rate.admit("fast")).to.throw("More than 10 requests a second");
      rate.admit("other");
      clock += 100;
      rate.admit("fast");
      expect(() => rate.admit("fast")).to.throw();
      clock += 1_000_000;
      for (let n = 0; n < 3; ++n) rate.admit("fast");
      expect(() => rate.admit("fast")).to.throw();
    });

    it("the same over HTTP: 429 with Retry-After, and nothing recorded", async () => {
      const slow = await start({ paymentsPerSecond: 1, burst: 2 });
      const agent = await rail.open();
      const request = await agent.sign(SHOP.address as Address, 5n);
      const answers = await Promise.all(Array.from({ length: 6 }, () => post("/payments", request, slow.url)));
      expect(answers.map(({ status }) => status).sort()).to.deep.equal([200, 200, 429, 429, 429, 429]);
      expect(answers.find(({ status }) => status === 429)!.headers.get("retry-after")).to.equal("1");
      expect(await rail.store.refusals(agent.address)).to.deep.equal([]);
      await slow.stop();
    });
  });

  it("answers pages of the origins that it was told, and no others", async () => {
    const open = await start({ origins: ["https://app.example"] });
    const asked = async (url: string, origin: string): Promise<string | null> => {
      const headers = { origin, "access-control-request-method": "POST" };
      const response = await fetch(`${url}/payments`, { method: "OPTIONS", headers });
      return response.headers.get("access-control-allow-origin");
    };
    expect(await asked(open.url, "https://app.example")).to.equal("https://app.example");
    expect(await asked(open.url, "https://evil.example")).to.equal(null);
    expect(await asked(service.url, "https://app.example")).to.equal(null);
    await open.stop();
  });

  it("counts what it does on another port, and names nobody there", async () => {
    const agent = await rail.open();
    await post("/payments", await agent.sign(SHOP.address as Address, 5n));
    agent.ledger.commit();
    await post("/payments", await agent.sign(SHOP.address as Address, 5_000n));
    const metrics = await (await fetch(`${service.metricsUrl!}/metrics`)).text();
    expect(metrics).to.match(/^bursar_payments_accepted_total\{rail="proved"\} [1-9]/m);
    expect(metrics).to.match(/^bursar_payments_refused_total\{rail="proved",code="above-payment-cap"\} [1-9]/m);
    expect(metrics).to.match(/^bursar_http_requests_total\{route="\/payments",status="200"\} [1-9]/m);
    expect(metrics).to.match(/^bursar_unsettled_payments [1-9]/m);
    expect(metrics).to.match(/^bursar_batches\{state="planned"\} 0/m);
    expect(metrics).not.to.match(/0x[0-9a-fA-F]{8}/);
    expect((await fetch(`${service.url}/metrics`)).status).to.equal(404);
  });

  it("logs each request and no secret", async () => {
    log = "";
    const agent = await rail.open();
    const request = await agent.sign(SHOP.address as Address, 5n);
    const receipt = await json<SignedReceipt>(await post("/payments", request));
    const access = await accessOf(agent.wallet, rail.domain, rail.now());
    await fetch(`${service.url}/mandates/${agent.address}`, { headers: { authorization: access } });
    const lines = log
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { req?: { url: string }; reqId?: string });
    expect(lines.some(({ req }) => req?.url === "/payments")).to.equal(true);
    expect(lines.every(({ reqId }) => reqId !== undefined)).to.equal(true);
    const secrets = [
      request.signature,
      receipt.signature,
      String(request.salt),
      access,
      agent.wallet.privateKey,
      rail.processorKey.privateKey,
    ];
    for (const secret of secrets) expect(log).not.to.contain(secret);
  });

  it("promises no more time than the contracts give", async () => {
    const refused = await refusalOf(() => start({ settleWithin: 3_601n }));
    expect([refused.code, refused.details]).to.deep.equal(["malformed-input", { value: "3601", limit: "3600" }]);
  });

  it("settles by itself, on both rails", async () => {
    await service.stop();
    service = await start({ settleEvery: 1 });
    const agent = await rail.open();
    await post("/payments", await agent.sign(SHOP.address as Address, 5n));
    const settled = async (): Promise<boolean> => {
      const view = await rail.processor.payment(agent.address, 1n);
      return view?.status === "settled";
    };
    while (!(await settled())) await setTimeout(200);
    await service.stop();
    service = await start();
  });

  it("finishes what it answers when it stops, and refuses on a connection that is still open", async () => {
    const leaving = await start();
    const agent = await rail.open();
    const request = await agent.sign(SHOP.address as Address, 5n);
    const answered = Promise.all(Array.from({ length: 20 }, () => post("/payments", request, leaving.url)));
    await setTimeout(5);
    await leaving.stop();
    const statuses = (await answered.catch(() => [])).map(({ status }) => status);
    for (const status of statuses) expect(status).to.be.oneOf([200, 503]);
    await refusesConnections(leaving.url);
    expect((await post("/payments", request)).status).to.equal(200);
  });

  describe("as a command", () => {
    const bin = fileURLToPath(new URL("../../packages/relayer/bin/bursar.js", import.meta.url));
    let place: string[];

    async function bursar(...argv: string[]): Promise<string> {
      const child = spawn(process.execPath, [bin, ...place, "--json", ...argv], { stdio: ["ignore", "pipe", "pipe"] });
      let [out, err] = ["", ""];
      child.stdout.on("data", (chunk: Buffer) => (out += String(chunk)));
      child.stderr.on("data", (chunk: Buffer) => (err += String(chunk)));
      const [code] = (await once(child, "close")) as [number];
      expect(code, err).to.equal(0);
      return out;
    }

    async function serving(): Promise<{ child: ChildProcess; url: string }> {
      const child = spawn(process.execPath, [bin, ...place, "serve", "--port", "0", "--log-level", "silent"], {
        stdio: ["ignore", "ignore", "pipe"],
      });
      let said = "";
      child.stderr.on("data", (chunk: Buffer) => (said += String(chunk)));
      while (!said.includes("listening on")) {
        if (child.exitCode !== null) throw new Error(said);
        await setTimeout(20);
      }
      return { child, url: /listening on (\S+)/.exec(said)![1]! };
    }

    it("serves, ends with 0 on SIGTERM, and after a restart gives the same receipts", async () => {
      place = [
        ...["--rpc", rail.node.url],
        ...["--home", join(rail.folder, "home")],
        ...["--deployments", join(rail.folder, "deployments")],
      ];
      await bursar("deploy");
      await bursar("bond", "post", "10000");
      await bursar("deposit", "10");
      const opened = JSON.parse(
        await bursar("mandate", "open", "--budget", "1", "--cap", "0.1", "--purpose", "tests", "--yes"),
      ) as { mandate: { agent: Address } };
      const first = await serving();
      const pay = async (url: string): Promise<string> =>
        bursar("pay", opened.mandate.agent, SHOP.address, "0.05", "--memo", "tea", "--processor-url", url);
      await pay(first.url);
      const { registry } = await json<{ registry: Address }>(await fetch(`${first.url}/info`));
      expect(registry).not.to.equal(rail.domain.registry);
      first.child.kill("SIGTERM");
      expect(await once(first.child, "close")).to.deep.equal([0, null]);
      const second = await serving();
      const again = JSON.parse(await bursar("ledger")) as { agent: Address; amount: string }[];
      expect(again.map(({ agent, amount }) => [agent, amount])).to.deep.equal([[opened.mandate.agent, "50000"]]);
      second.child.kill("SIGINT");
      expect(await once(second.child, "close")).to.deep.equal([0, null]);
    });
  });
});

/** All that a server says to raw bytes, until it closes. */
async function rawRequest(url: string, bytes: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.end(bytes);
  let said = "";
  for await (const chunk of socket) said += String(chunk);
  return said;
}

async function refusesConnections(url: string): Promise<void> {
  const end = await fetch(`${url}/health`).catch((error: unknown) => error);
  expect(end).to.be.instanceOf(Error);
}
