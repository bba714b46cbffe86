import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { parseWire, type Address, type Problem } from "@bursar/protocol";
import { Chain, connect, Keyring, Outbox, Processor, railOf, readDeployment, receiptKey, Store } from "@bursar/relayer";
import { expect } from "chai";
import type { JsonRpcProvider } from "ethers";
import fastify, { type FastifyInstance } from "fastify";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { intentRoutes, intentViewSchema } from "../../packages/relayer/src/http/intents.ts";
import { IntentBook, Intents } from "../../packages/relayer/src/intents.ts";
import { LocalNode } from "../../scripts/demo/node.ts";
import { postTestBond } from "../integration/rail.ts";
import { answerProblems } from "./intent-desk.ts";
import { addressOf } from "./office.ts";

interface Run {
  code: number;
  out: string;
  err: string;
}

interface View {
  agent: Address;
  state: string;
  signUrl: string;
  terms: Record<string, unknown>;
  mandate: Record<string, unknown>;
  failure: string | null;
}

describe("bursar intent", function () {
  this.timeout(120_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-intents-"));
  let node: LocalNode;
  let provider: JsonRpcProvider;
  let server: FastifyInstance;
  let store: Store;
  let url: string;

  before(async () => {
    node = await LocalNode.start();
    await answer("deploy");
    await answer("bond", "post", "10000");
    await answer("deposit", "100");
    ({ provider } = await connect(node.url));
    url = await serve();
  });
  after(async () => {
    await server.close();
    await store.close();
    provider.destroy();
    node.stop();
    rmSync(folder, { recursive: true });
  });

  /** A processor elsewhere, with its own key and its own books. */
  async function serve(): Promise<string> {
    const { chainId, genesis } = await connect(node.url);
    const rail = railOf(readDeployment(join(folder, "deployments", "31337.json")), chainId, genesis);
    const chain = new Chain(rail, provider);
    const domain = { chainId, registry: rail.registry };
    const key = (await new Keyring(join(folder, "elsewhere"), "", true).loadOrCreate("processor")).connect(provider);
    await (await (await provider.getSigner(0)).sendTransaction({ to: key.address, value: 10n ** 18n })).wait();
    await postTestBond(chain, key);
    const now = (): bigint => BigInt(Math.floor(Date.now() / 1_000));
    const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));
    store = await Store.open(join(folder, "elsewhere.db"), { now });
    const processor = new Processor({ domain, store, chain, key: receiptKey(key), settleWithin: 3_600n, now });
    const pace = { finality: 1, replaceAfter: 60n, pollInterval: 20, now, sleep };
    const outbox = new Outbox({ store, provider, signer: key, ...pace });
    const book = new IntentBook(store.database);
    const deliver: Outbox["deliver"] = (job, request) => outbox.deliver(job, request);
    server = answerProblems(fastify());
    intentRoutes({ intents: new Intents({ domain, book, processor, chain, deliver, now }), domain, now })(server);
    server.get("/info", () => ({ processor: key.address }));
    return server.listen({ host: "127.0.0.1", port: 0 });
  }

  async function bursar(...argv: string[]): Promise<Run> {
    const run: Run = { code: -1, out: "", err: "" };
    const place = ["--rpc", node.url, "--home", join(folder, "home"), "--deployments", join(folder, "deployments")];
    run.code = await main([...place, ...argv], {
      out: (text) => (run.out += `${text}\n`),
      err: (text) => (run.err += `${text}\n`),
    });
    return run;
  }

  async function answer<T = View>(...argv: string[]): Promise<T> {
    const { code, out, err } = await bursar("--json", ...argv);
    expect(code, err).to.equal(0);
    return JSON.parse(out) as T;
  }

  const ASKED = ["--budget", "5", "--cap", "0.5", "--purpose", "weather for a route"];
  const draft = (...options: string[]): Promise<View> => answer("intent", "draft", ...ASKED, ...options);

  it("drafts what the options say, as a fresh agent", async () => {
    const view = await draft(
      ...["--days", "30", "--host", "api.example", "*.data.example", "--category", "weather"],
      ...["--payee", addressOf("shop"), "--max-price", "0.25", "--per-day", "1", "--per-minute", "6"],
      ...["--recurring", "2.50/week"],
    );
    expect(view.state).to.equal("awaiting-signature");
    expect(view.mandate).to.include({ budget: "5000000", paymentCap: "500000" });
    expect(view.mandate["payees"]).to.deep.equal([addressOf("shop")]);
    const { recurring, ...terms } = view.terms;
    expect(terms).to.deep.equal({
      version: 1,
      purpose: "weather for a route",
      categories: ["weather"],
      hosts: ["api.example", "*.data.example"],
      limits: { unitsPerCall: "250000", unitsPerDay: "1000000", paymentsPerMinute: "6" },
    });
    expect(recurring).to.include({ units: "2500000", seconds: "604800" });
    const other = await draft("--recurring", "1/12h");
    expect(other.terms["recurring"]).to.include({ units: "1000000", seconds: "43200" });
    expect(other.agent).not.to.equal(view.agent);
  });

  it("prints a draft without sending it", async () => {
    const drafted = await answer<{ intent: object; mandate: { agent: string }; agentSignature: string }>(
      ...["intent", "draft", ...ASKED, "--print"],
    );
    expect(drafted.agentSignature).to.match(/^0x[0-9a-f]{130}$/);
    expect(drafted.intent).to.include({ budget: "5000000", duration: "604800" });
    const { code, err } = await bursar("intent", "show", drafted.mandate.agent);
    expect([code, err.startsWith("bursar: not-found:")]).to.deep.equal([1, true]);
    const { out } = await bursar("intent", "draft", ...ASKED, "--print");
    expect(JSON.parse(out)).to.include.keys("intent", "mandate", "terms", "agentSignature");
  });

  it("shows it in plain words, signs it once as the owner, and opens it", async () => {
    const { agent } = await draft("--host", "api.example", "--purpose", "tea \u001B[2J\u202Eand cake");
    const shown = await bursar("intent", "show", agent);
    expect(shown.out).to.contain("tea [U+001B][2J[U+202E]and cake");
    expect(shown.out).to.match(/Contract and proof enforce:\n {2}budget {7}at most 5 tUSD in all/);
    expect(shown.out).to.match(/alone enforces:\n(.*\n)* {2}hosts {8}api\.example/);
    expect(shown.out).to.match(/State: awaiting-signature, forgotten at \d/);
    const signed = await bursar("intent", "sign", agent, "--yes");
    expect(signed.code, signed.err).to.equal(0);
    expect(signed.err).to.contain("at most 5 tUSD in all").and.not.to.contain("\u001B");
    expect(signed.out).to.equal(`Signed: the mandate of agent ${agent} is open.\n`);
    expect(await answer("mandate", "show", agent)).to.deep.include({ accepted: { seq: "0", spent: "0" } });
    expect((await bursar("pay", agent, addressOf("shop"), "0.1", "--memo", "tea")).err).to.contain("payee-unknown");
    const again = await bursar("intent", "sign", agent, "--yes");
    expect([again.code, again.err.includes("intent-not-signable")]).to.deep.equal([1, true]);
  });

  it("signs nothing where nobody is there to say yes", async () => {
    const { agent } = await draft();
    const { code, err } = await bursar("intent", "sign", agent);
    expect(code).to.equal(1);
    expect(err).to.contain("Nobody is there to confirm");
    expect((await answer("intent", "show", agent)).state).to.equal("awaiting-signature");
  });

  it("lists what was asked, newest first", async () => {
    const { agent } = await draft("--purpose", "the newest");
    const [newest] = await answer<View[]>("intent", "list");
    expect(newest).to.include({ agent });
    expect((await bursar("intent", "list")).out).to.match(
      new RegExp(`^agent +state +owner +budget +purpose\\n${agent} +awaiting-signature +\\S+ +5 tUSD +the newest\\n`),
    );
  });

  it("says what the owner lacks", async () => {
    const { agent } = await draft("--budget", "5000");
    expect((await bursar("intent", "show", agent)).out).to.match(/missing {6}\d+\.?\d* tUSD: deposit it first/);
    const { code, err } = await bursar("intent", "sign", agent, "--yes");
    expect(code).to.equal(1);
    expect(err).to.match(/bursar: funds-missing: .* Deposit [\d.]+ more into the escrow, then sign\./);
  });

  it("replaces an older mandate, and ends it on chain with --end-old", async () => {
    const old = await draft();
    await answer("intent", "sign", old.agent, "--yes");
    const next = await draft("--replaces", old.agent);
    expect((await bursar("intent", "show", next.agent)).out).to.contain(`stops the mandate of ${old.agent} at once`);
    expect((await answer("intent", "sign", next.agent, "--end-old", "--yes")).state).to.equal("open");
    expect(await answer<{ onChain: { state: string } }>("mandate", "show", old.agent)).to.nested.include({
      "onChain.state": "revoked",
    });
    const plain = await draft();
    expect((await bursar("intent", "sign", plain.agent, "--end-old", "--yes")).err).to.contain("replaces no other");
  });

  it("asks and signs at a processor elsewhere", async () => {
    const elsewhere = ["--processor-url", url];
    const view = await draft(...elsewhere);
    expect(view.mandate["processor"]).to.equal(await fetchInfo());
    expect((await bursar("intent", "show", view.agent)).err).to.contain("not-found");
    expect(await answer("intent", "sign", view.agent, "--yes", ...elsewhere)).to.include({ state: "open" });
    const shown = await answer("intent", "show", view.agent, ...elsewhere);
    expect([shown.state, shown.terms["purpose"]]).to.deep.equal(["open", "weather for a route"]);
    const away = await bursar("intent", "show", view.agent, "--processor-url", "http://127.0.0.1:1");
    expect([away.code, away.err.includes("gave no answer")]).to.deep.equal([3, true]);
  });

  it("does not sign terms at a processor elsewhere that are not the mandate's", async () => {
    const view = await draft("--processor-url", url);
    const liar = answerProblems(fastify());
    liar.get("/intents/:agent", () => ({ ...view, terms: { ...view.terms, hosts: ["nice.example"] } }));
    const lies = await liar.listen({ host: "127.0.0.1", port: 0 });
    const { code, err } = await bursar("intent", "sign", view.agent, "--yes", "--processor-url", lies);
    expect([code, err.startsWith("bursar: terms-mismatch:")]).to.deep.equal([1, true]);
    await liar.close();
    expect(parseWire(intentViewSchema, view)).to.include({ agent: view.agent });
  });

  for (const [option, value] of [
    ["--days", "0"],
    ["--days", "91"],
    ["--recurring", "5"],
    ["--recurring", "1/fortnight"],
    ["--recurring", "1/0d"],
    ["--per-minute", "many"],
    ["--budget", "0.1"],
    ["--host", "https://api.example/"],
    ["--replaces", "0x12"],
  ] as const) {
    it(`refuses ${option} ${value}`, async () => {
      const { code, out, err } = await bursar("--json", "intent", "draft", ...ASKED, option, value);
      expect([code, out]).to.deep.equal([1, ""]);
      expect((JSON.parse(err) as Problem).code).to.equal("malformed-input");
    });
  }

  async function fetchInfo(): Promise<string> {
    return ((await (await fetch(`${url}/info`)).json()) as { processor: string }).processor;
  }
});
