import { expect } from "chai";
import { build } from "esbuild";
import { id } from "ethers";
import fastify, { type FastifyInstance } from "fastify";
import { chromium, type Browser, type Page } from "playwright-core";

import { toWire } from "@bursar/protocol";
import { addressOf, DOMAIN, draftMandate, keyOf, NOW, Office } from "../../relayer/office.ts";
import { provide } from "../../provide.ts";
import { Market, type Shop } from "./market.ts";

/** What the page runs. */
const PAGE = `
  import { Agent, explain, freshKey, indexedDbStorage, openKey, sealKey, storageBook } from "@bursar/sdk";
  import { mandateSchema, parseWire } from "@bursar/protocol";
  import { Wallet } from "ethers";

  export const agentOf = ({ privateKey, processor, mandate, terms, domain, now, book }) =>
    new Agent({
      key: new Wallet(privateKey),
      processor,
      domain: { chainId: BigInt(domain.chainId), registry: domain.registry },
      mandate: parseWire(mandateSchema, mandate),
      terms,
      book: storageBook(book === "localStorage"
        ? { get: (name) => localStorage.getItem(name), set: (name, text) => localStorage.setItem(name, text) }
        : indexedDbStorage(), "agent"),
      patience: { attempts: 3, pause: 1 },
      surroundings: { now: () => BigInt(now) },
    });
  export const sealed = async () => {
    const key = freshKey();
    return (await openKey(await sealKey(key, "p", { work: 2 }), "p")).address === key.address;
  };
  export { explain };
`;

/** The SDK's page as a browser loads it; it fails if anything that it reaches needs Node. */
async function bundled(): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: PAGE, resolveDir: import.meta.dirname, loader: "ts" },
    bundle: true,
    platform: "browser",
    format: "iife",
    globalName: "sdk",
    target: "es2022",
    write: false,
    logLevel: "silent",
  });
  return outputFiles[0]!.text;
}

describe("an agent in a browser", function () {
  this.timeout(120_000);
  let browser: Browser;
  let market: Market;
  let shop: Shop;
  let site: FastifyInstance;
  let origin: string;

  before(async () => {
    const args = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking";
    browser = await chromium.launch({
      executablePath: provide("chromium"),
      args: [...args.split(" "), "--disable-component-update", "--disable-sync"],
    });
    const script = await bundled();
    site = fastify();
    site.get("/", (_request, reply) => reply.type("text/html").send("<!doctype html><script src=/sdk.js></script>"));
    site.get("/sdk.js", (_request, reply) => reply.type("text/javascript").send(script));
    origin = await site.listen({ host: "127.0.0.1", port: 0 });
  });
  after(async () => {
    await browser.close();
    await site.close();
  });
  beforeEach(async () => {
    market = await Market.open(await Office.open(), [origin]);
    shop = await market.shop({ cors: origin });
    await market.office.agent("alice");
  });
  afterEach(() => market.close());

  const setup = (book = "indexedDB"): object => ({
    privateKey: keyOf("alice").privateKey,
    processor: market.line.url,
    mandate: toWire(draftMandate(addressOf("alice"))),
    terms: { version: 1, purpose: "whatever a test buys", categories: [], hosts: [] },
    domain: toWire(DOMAIN),
    now: String(NOW),
    book,
  });
  /** Runs `body` in the page with `agent`, `sdk` and `shop`. */
  const inPage = (page: Page, body: string, book?: string): Promise<unknown> =>
    page.evaluate(
      `(async () => {
        const agent = sdk.agentOf(${JSON.stringify(setup(book))});
        const shop = ${JSON.stringify(shop.url)};
        ${body}
      })()`,
    );
  const open = async (): Promise<Page> => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(origin);
    return page;
  };
  const paid = async (): Promise<[bigint, bigint][]> =>
    (await market.office.store.payments(addressOf("alice"), 1n, 1_000n)).map(({ payment }) => [
      payment.seq,
      payment.line.amount,
    ]);

  it("pays for what it fetches", async () => {
    const page = await open();
    const answers = await inPage(
      page,
      `const bodies = ["grüße", new Blob(["grüße"]), new URLSearchParams({ text: "grüße" })];
       const answers = [await agent.fetch(shop + "/weather?city=Ulm#x")];
       for (const body of bodies) answers.push(await agent.fetch(shop + "/t", { method: "POST", body }));
       return Promise.all(answers.map((answer) => answer.json()));`,
    );
    expect(answers).to.deep.equal([
      { bought: "/weather?city=Ulm", body: "" },
      { bought: "/t", body: "grüße" },
      { bought: "/t", body: "grüße" },
      { bought: "/t", body: "text=gr%C3%BC%C3%9Fe" },
    ]);
    expect((await paid()).map(([seq]) => seq)).to.deep.equal([1n, 2n, 3n, 4n]);
  });

  for (const book of ["indexedDB", "localStorage"]) {
    it(`goes on from its ${book} after a reload that cut a payment off`, async () => {
      const page = await open();
      const waiting = new Promise<void>((resolve) => {
        market.line.faults.push(() => {
          resolve();
          return new Promise(() => undefined);
        });
      });
      const purchase = JSON.stringify({ payee: addressOf("payee"), amount: "0.000007", ref: id("x") });
      await inPage(page, `void agent.pay(${purchase});`, book);
      await waiting;
      await page.reload();
      expect(await inPage(page, `return (await agent.fetch(shop + "/")).status;`, book)).to.equal(200);
      expect(await paid()).to.deep.equal([
        [1n, 7n],
        [2n, 100n],
      ]);
    });
  }

  it("takes turns with other tabs", async () => {
    const context = await browser.newContext();
    const tabs = await Promise.all([context.newPage(), context.newPage(), context.newPage()]);
    await Promise.all(tabs.map((tab) => tab.goto(origin)));
    const storm = `return Promise.all(Array.from({ length: 5 }, async (_, i) => (await agent.fetch(shop + "/" + i)).status));`;
    const statuses = await Promise.all(tabs.map((tab) => inPage(tab, storm)));
    expect(statuses.flat()).to.deep.equal(Array<number>(15).fill(200));
    expect(market.line.sent, "nobody signed a number twice").to.have.length(15);
    expect(await paid()).to.have.length(15);
  });

  it("refuses in words, and follows no redirect with a payment", async () => {
    const page = await open();
    expect(
      await inPage(page, `return agent.fetch(shop + "/", {}, { maxPrice: "0.00001" }).catch(sdk.explain);`),
    ).to.match(/^error: price-above-limit\nwhat: [^]+\nlimit: 0.00001\nadvice: /);
    const away = await market.shop({
      cors: origin,
      instead: (paying, _request, reply) => (paying ? reply.redirect(`${shop.url}/`, 302) : undefined),
    });
    const error = await inPage(
      page,
      `return agent.fetch(${JSON.stringify(away.url)} + "/").catch((e) => [e.code, e.details.reason]);`,
    );
    expect(error).to.deep.equal(["paid-not-served", "redirected"]);
    expect(shop.headers).to.have.length(0);
  });

  it("reads its ledger back, and what the processor tells, across origins", async () => {
    const page = await open();
    const told = await inPage(
      page,
      `await agent.fetch(shop + "/");
       await agent.recover();
       const { accepted } = await agent.sync();
       const entries = [];
       for await (const { status } of agent.ledger()) entries.push(status);
       return [String(accepted.spent), entries, String(await agent.remaining())];`,
    );
    expect(told).to.deep.equal(["100", ["accepted"], "99900"]);
  });

  it("keeps a key as encrypted text", async () => {
    expect(await (await open()).evaluate("sdk.sealed()")).to.equal(true);
  });
});
