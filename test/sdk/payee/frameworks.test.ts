import { BursarError, decodePaymentHeader, PAYMENT_HEADER, requestRef, toWire } from "@bursar/protocol";
import { expect } from "chai";
import { connect } from "node:net";

import { addressOf, word } from "../../protocol/reference.ts";
import { SHOPS, type Shop, type ShopOptions } from "./shops.ts";
import {
  addressIn,
  Buyer,
  DOMAIN,
  Ledger,
  now,
  OTHER_PROCESSOR,
  paidWith,
  PAYEE,
  PROCESSOR,
  refused,
  stall,
  STRANGER,
  termsIn,
  TOKEN,
  type Forgery,
} from "./stand.ts";
import type { PaywallOptions } from "@bursar/sdk/payee";

for (const [framework, open] of SHOPS) {
  describe(`a paid route in ${framework}`, () => {
    const shops: Shop[] = [];
    let mandates: Ledger;
    let buyer: Buyer;

    beforeEach(() => {
      mandates = new Ledger();
      buyer = new Buyer(mandates);
    });
    afterEach(async () => {
      await Promise.all(shops.splice(0).map((shop) => shop.close()));
    });

    async function shopWith(
      options: Partial<ShopOptions> = {},
      paywall: Partial<PaywallOptions> = {},
    ): Promise<Shop & { route: string }> {
      const shop = await open(stall(mandates, paywall), { price: "0.00025", ...options });
      shops.push(shop);
      return Object.assign(shop, { route: `${shop.url}/weather` });
    }

    it("asks, is paid, and serves (P8)", async () => {
      const shop = await shopWith({ route: { description: "The weather" } });
      const asked = await fetch(shop.route);
      await refused(asked, "payment-missing");
      expect(termsIn(asked)).to.deep.equal({
        domain: DOMAIN,
        token: TOKEN,
        payee: PAYEE.address,
        amount: 250n,
        unitScale: 1n,
        ref: requestRef({ method: "GET", url: shop.route }),
        url: shop.route,
        description: "The weather",
        processors: [PROCESSOR.address, OTHER_PROCESSOR.address],
      });
      expect(asked.headers.get("cache-control")).to.equal("no-store");

      const answer = await fetch(shop.route, paidWith(buyer.header({ url: shop.route, amount: 250n })));
      expect([answer.status, await answer.text()]).to.deep.equal([200, "22 degrees"]);
      const told = Buffer.from(answer.headers.get("payment-response")!, "base64").toString();
      expect(JSON.parse(told)).to.deep.equal({ success: true, agent: buyer.address, seq: "1", amount: "250" });
      expect([shop.served, shop.seen]).to.deep.equal([1, [1n]]);
    });

    it("serves one request a receipt, and the other 63 of a storm not (P8)", async () => {
      const shop = await shopWith();
      const header = buyer.header({ url: shop.route, amount: 250n });
      const answers = await Promise.all(Array.from({ length: 64 }, () => fetch(shop.route, paidWith(header))));
      const served = answers.filter((answer) => answer.status === 200);
      expect([served.length, shop.served]).to.deep.equal([1, 1]);
      for (const answer of answers) if (answer.status !== 200) await refused(answer, "receipt-used");
    });

    /** What a lying processor or agent may send (K13). */
    const forged: [string, string, Forgery][] = [
      ["with a receipt by another key", "processor-not-accepted", { processorKey: word("stranger") }],
      ["signed by another key", "signature-signer", { agentKey: word("stranger") }],
      ["to another payee", "payment-mismatch", { line: { payee: addressOf("other") } }],
      ["of a smaller amount", "payment-mismatch", { line: { amount: 249n } }],
      ["of a larger amount", "payment-mismatch", { line: { amount: 251n } }],
      ["for another reference", "payment-mismatch", { line: { ref: word("other") } }],
      ["with a receipt for another payee", "receipt-mismatch", { receipt: { payee: addressOf("other") } }],
      ["with a receipt of another amount", "receipt-mismatch", { receipt: { amount: 1n } }],
      ["with a receipt for another reference", "receipt-mismatch", { receipt: { ref: word("other") } }],
      ["with a receipt for another number", "receipt-mismatch", { receipt: { seq: 9n } }],
      ["with an expired receipt", "receipt-expired", { receipt: { settleBy: now() - 1n } }],
      ["with a receipt that is due too late", "receipt-too-long", { receipt: { settleBy: now() + 90_000n } }],
      ["on another chain", "wrong-chain", { domain: { ...DOMAIN, chainId: 1n } }],
      ["at another contract", "wrong-contract", { domain: { ...DOMAIN, registry: addressOf("other") } }],
    ];
    it("does not run the handler for a payment that is not right, and sends no content (K13)", async () => {
      const shop = await shopWith();
      for (const [name, code, forgery] of forged) {
        const header = new Buyer(mandates).header({ url: shop.route, amount: 250n }, forgery);
        const problem = await refused(await fetch(shop.route, paidWith(header)), code);
        expect(JSON.stringify(problem), name).not.to.contain("degrees");
      }
      const { receipt, ...rest } = decodePaymentHeader(buyer.header({ url: shop.route, amount: 250n }));
      expect(receipt).to.have.property("signature");
      const bare = { x402Version: 2, accepted: { scheme: "bursar" }, payload: toWire(rest) };
      const header = Buffer.from(JSON.stringify(bare)).toString("base64");
      await refused(await fetch(shop.route, paidWith(header)), "malformed-input", 400);
      expect(shop.served).to.equal(0);
    });

    it("refuses a mandate in another token, however its tokens are called (K6)", async () => {
      const shop = await shopWith();
      const poor = new Buyer(mandates, { token: addressOf("worthless") });
      const answer = await fetch(shop.route, paidWith(poor.header({ url: shop.route, amount: 250n })));
      const problem = await refused(answer, "payment-mismatch");
      expect(problem.details).to.include({ field: "token", value: addressOf("worthless"), limit: TOKEN });
      expect(shop.served).to.equal(0);
    });

    it("refuses a payment that was made for another method, URL or body", async () => {
      const shop = await shopWith();
      const json = { "content-type": "application/json" };
      const body = '{"city":"Bern"}';
      const paidFor = { method: "POST", url: `${shop.route}?day=1`, body, amount: 250n };
      const header = new Buyer(mandates).header(paidFor);
      const sent = { method: "POST", headers: { ...json, [PAYMENT_HEADER]: header }, body };
      const tampered: [string, RequestInit][] = [
        [shop.route, sent],
        [`${shop.route}?day=2`, sent],
        [`${shop.route}/Bern?day=1`, sent],
        [paidFor.url, { ...sent, method: "PUT" }],
        [paidFor.url, { ...sent, body: '{"city": "Bern"}' }],
        [paidFor.url, { ...sent, body: '{"city":"Basel"}' }],
        [paidFor.url, { ...sent, headers: { [PAYMENT_HEADER]: header }, body: null }],
      ];
      for (const [url, init] of tampered) await refused(await fetch(url, init), "payment-mismatch");
      expect(shop.served).to.equal(0);
      expect((await fetch(paidFor.url, sent)).status).to.equal(200);
    });

    it("hands the body on to the handler", async () => {
      const shop = await shopWith({ work: (body) => `weather of ${(body as { city: string }).city}` });
      const body = '{ "city" : "Zürich" }';
      const header = buyer.header({ method: "POST", url: shop.route, body, amount: 250n });
      const headers = { "content-type": "application/json", [PAYMENT_HEADER]: header };
      const answer = await fetch(shop.route, { method: "POST", headers, body });
      expect(await answer.text()).to.equal("weather of Zürich");
    });

    it("asks for dynamic prices, and serves what is free", async () => {
      const prices: Record<string, string | bigint | null> = {
        "/weather/a": "1.5",
        "/weather/b": 7n,
        "/weather/c": null,
      };
      const shop = await shopWith({ price: (path) => Promise.resolve(prices[path] ?? 0n) });
      const asked = await Promise.all(["a", "b"].map((city) => fetch(`${shop.route}/${city}`)));
      expect(asked.map((answer) => termsIn(answer).amount)).to.deep.equal([1_500_000n, 7n]);
      for (const path of ["", "/c"]) expect((await fetch(shop.route + path)).status).to.equal(200);
      expect(shop.seen).to.deep.equal([null, null]);
      const url = `${shop.route}/b`;
      expect((await fetch(url, paidWith(buyer.header({ url, amount: 7n })))).status).to.equal(200);
      const cheap = buyer.header({ url, amount: 6n });
      await refused(await fetch(url, paidWith(cheap)), "payment-mismatch");
    });

    it("is not paid for when the price is no amount", async () => {
      const shop = await shopWith({ price: () => "a lot" });
      expect((await fetch(shop.route)).status).to.equal(500);
      expect(shop.served).to.equal(0);
    });

    it("gives the receipt back when the handler throws or answers 5xx: the same payment buys again, and no second one is needed", async () => {
      const failures: (() => never | { status: number; text: string })[] = [
        () => {
          throw new Error("no weather");
        },
        () => ({ status: 503, text: "later" }),
      ];
      const shop = await shopWith({ work: () => failures.shift()?.() ?? "at last" });
      const header = buyer.header({ url: shop.route, amount: 250n });
      const statuses: number[] = [];
      for (let turn = 0; turn < 4; turn++) {
        const answer = await fetch(shop.route, paidWith(header));
        statuses.push(answer.status);
        if (answer.status >= 500) expect(answer.headers.get("payment-response")).to.equal(null);
        if (turn === 2) expect(await answer.text()).to.equal("at last");
      }
      expect(statuses).to.deep.equal([500, 503, 200, 402]);
      expect(shop.served).to.equal(3);
    });

    it("keeps the receipt used after a failure if it is told so", async () => {
      const shop = await shopWith({ work: () => ({ status: 500, text: "no" }) }, { afterFailure: "keep" });
      const header = buyer.header({ url: shop.route, amount: 250n });
      expect((await fetch(shop.route, paidWith(header))).status).to.equal(500);
      await refused(await fetch(shop.route, paidWith(header)), "receipt-used");
    });

    it("does not give the receipt back for the caller's own mistake", async () => {
      const shop = await shopWith({ work: () => ({ status: 404, text: "no such city" }) });
      const header = buyer.header({ url: shop.route, amount: 250n });
      expect((await fetch(shop.route, paidWith(header))).status).to.equal(404);
      await refused(await fetch(shop.route, paidWith(header)), "receipt-used");
    });

    it("refuses header bombs and nonsense before anything is verified", async () => {
      const shop = await shopWith();
      const good = buyer.header({ url: shop.route, amount: 250n });
      const nested = `${"[".repeat(2_000)}${"]".repeat(2_000)}`;
      for (const bomb of [
        "A".repeat(8_193),
        "%%%",
        `${good}, ${good}`,
        `${good}=`,
        Buffer.from(nested).toString("base64"),
        Buffer.from("null").toString("base64"),
      ]) {
        await refused(await fetch(shop.route, paidWith(bomb)), "malformed-input", 400);
      }
      const huge = await fetch(shop.route, paidWith("A".repeat(20_000)));
      expect(huge.status).to.equal(431);
      expect([shop.served, mandates.asked]).to.deep.equal([0, []]);
      expect((await fetch(shop.route, paidWith(good))).status).to.equal(200);
    });

    it("tells the price of GET to HEAD, without content and without taking a payment", async () => {
      const shop = await shopWith();
      const header = buyer.header({ method: "HEAD", url: shop.route, amount: 250n });
      for (const init of [{}, paidWith(header)]) {
        const answer = await fetch(shop.route, { method: "HEAD", ...init });
        expect([answer.status, await answer.text()]).to.deep.equal([402, ""]);
        expect(termsIn(answer).ref).to.equal(requestRef({ method: "GET", url: shop.route }));
      }
      expect(shop.served).to.equal(0);
    });

    it("sends no content to OPTIONS", async () => {
      const shop = await shopWith();
      const answer = await fetch(shop.route, { method: "OPTIONS" });
      expect([answer.status, await answer.text(), shop.served]).to.deep.equal([204, "", 0]);
    });

    it("binds to the configured origin behind a proxy, whatever the Host header says", async () => {
      const shop = await shopWith({}, { origin: "https://api.example.com/v1/" });
      const url = "https://api.example.com/v1/weather?day=1";
      expect(termsIn(await fetch(`${shop.route}?day=1`)).url).to.equal(url);
      const answer = await fetch(`${shop.route}?day=1`, paidWith(buyer.header({ url, amount: 250n })));
      expect(answer.status).to.equal(200);
      const local = buyer.header({ url: `${shop.route}?day=1`, amount: 250n });
      await refused(await fetch(`${shop.route}?day=1`, paidWith(local)), "payment-mismatch");
    });

    it("does not let the request line choose the host", async () => {
      const shop = await shopWith({}, { origin: "https://api.example.com" });
      const answer = await raw(shop.url, "GET http://elsewhere.example/weather HTTP/1.1");
      const header = /payment-required: (\S+)/i.exec(answer)?.[1] ?? "";
      const asked = JSON.parse(Buffer.from(header, "base64").toString()) as { resource: { url: string } };
      expect(asked.resource.url).to.equal("https://api.example.com/weather");
    });

    if (framework !== "hono") {
      it("believes X-Forwarded-* only where the framework is told to", async () => {
        const forwarded = { headers: { "x-forwarded-proto": "https", "x-forwarded-host": "api.example.com" } };
        const plain = await shopWith();
        expect(termsIn(await fetch(plain.route, forwarded)).url).to.equal(plain.route);
        const trusting = await shopWith({ trustProxy: true });
        expect(termsIn(await fetch(trusting.route, forwarded)).url).to.equal("https://api.example.com/weather");
      });
    }

    it("refuses a payment while the chain cannot be read, and takes the same one later", async () => {
      const shop = await shopWith();
      const header = buyer.header({ url: shop.route, amount: 250n });
      mandates.fault = new BursarError("chain-unavailable", "The chain is away.");
      await refused(await fetch(shop.route, paidWith(header)), "chain-unavailable", 503);
      mandates.fault = null;
      expect((await fetch(shop.route, paidWith(header))).status).to.equal(200);
    });

    it("is never paid by a stranger's mandate or one that the chain does not know", async () => {
      const shop = await shopWith();
      const unknown = new Buyer();
      await refused(
        await fetch(shop.route, paidWith(unknown.header({ url: shop.route, amount: 250n }))),
        "mandate-unknown",
      );
      const elsewhere = new Buyer(mandates, { processor: addressIn(STRANGER) });
      const header = elsewhere.header({ url: shop.route, amount: 250n });
      await refused(await fetch(shop.route, paidWith(header)), "wrong-processor");
      expect(shop.served).to.equal(0);
    });

    if (framework === "express") {
      it("says so when a body was parsed and its bytes are gone", async () => {
        const shop = await shopWith({ forgetful: true });
        const sent = { method: "POST", headers: { "content-type": "application/json" }, body: "{}" };
        const problem = await refused(await fetch(shop.route, sent), "body-unavailable", 500);
        expect(problem.advice).to.contain("docs/payee.md");
        const header = buyer.header({ method: "POST", url: shop.route, body: "{}", amount: 250n });
        const paid = { ...sent, headers: { ...sent.headers, [PAYMENT_HEADER]: header } };
        await refused(await fetch(shop.route, paid), "body-unavailable", 500);
        expect(shop.served).to.equal(0);
      });
    }

    if (framework === "hono") {
      it("refuses a body that is too large to keep", async () => {
        const shop = await shopWith({ route: { maxBody: 10 } });
        const answer = await fetch(shop.route, { method: "POST", body: "x".repeat(11) });
        await refused(answer, "body-too-large", 413);
      });
    }

    it("takes one payment of an agent for each of many requests", async () => {
      const shop = await shopWith();
      const headers = Array.from({ length: 20 }, () => buyer.header({ url: shop.route, amount: 250n }));
      const answers = await Promise.all(headers.map((header) => fetch(shop.route, paidWith(header))));
      expect(answers.map(({ status }) => status)).to.deep.equal(Array(20).fill(200));
      expect(new Set(shop.seen).size).to.equal(20);
    });

    it("does not take a second receipt on a number, whatever it says", async () => {
      const shop = await shopWith();
      const header = buyer.header({ url: shop.route, amount: 250n });
      expect((await fetch(shop.route, paidWith(header))).status).to.equal(200);
      const url = `${shop.route}/Bern`;
      const other = buyer.twin().header({ url, amount: 250n });
      expect(decodePaymentHeader(other).payment.payment.seq).to.equal(1n);
      await refused(await fetch(url, paidWith(other)), "receipt-used");
    });
  });
}

/** One request as it is, and the answer as it is. */
function raw(url: string, line: string): Promise<string> {
  const { port, hostname } = new URL(url);
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(Number(port), hostname, () =>
      socket.write(`${line}\r\nHost: x.example\r\nConnection: close\r\n\r\n`),
    );
    socket.on("data", (chunk) => (answer += String(chunk)));
    socket.on("end", () => resolve(answer));
    socket.on("error", reject);
  });
}
