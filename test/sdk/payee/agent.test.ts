import { PAYMENT_HEADER } from "@bursar/protocol";
import type { Agent } from "@bursar/sdk/agent";
import { MemoryReceipts, Paywall, type MandateSnapshot, type PaywallOptions } from "@bursar/sdk/payee";
import { expect } from "chai";

import { DOMAIN, draftMandate } from "../../relayer/office.ts";
import { Market } from "../agent/market.ts";
import { SHOPS, type Shop, type ShopOptions } from "./shops.ts";
import { PAYEE } from "./stand.ts";

for (const [framework, open] of SHOPS) {
  describe(`the agent SDK at a paywall in ${framework}`, () => {
    let market: Market;
    let agent: Agent;
    let seq: bigint;
    const shops: Shop[] = [];

    beforeEach(async () => {
      market = await Market.open();
      agent = await market.agent("buyer");
      seq = 0n;
    });
    afterEach(async () => {
      await Promise.all(shops.splice(0).map((shop) => shop.close()));
      await market.close();
    });

    /** The chain as the agent's mandate stands on it, with `seq` payments settled. */
    function snapshot(): MandateSnapshot {
      const mandate = draftMandate(agent.address);
      return { domain: DOMAIN, mandate, state: "open", seq, remaining: mandate.budget };
    }

    async function shopWith(options: Partial<ShopOptions>, paywall: Partial<PaywallOptions> = {}): Promise<string> {
      const mandate = draftMandate(agent.address);
      const wall = new Paywall({
        payee: PAYEE.address,
        domain: DOMAIN,
        token: mandate.token,
        processors: [mandate.processor],
        receipts: new MemoryReceipts(),
        mandates: { mandate: () => Promise.resolve(snapshot()) },
        now: () => market.office.clock,
        ...paywall,
      });
      const shop = await open(wall, { price: "0.0001", ...options });
      shops.push(shop);
      return `${shop.url}/weather`;
    }

    it("pays, body and query included, and is served (P8)", async () => {
      const url = await shopWith({ work: (body) => JSON.stringify(body ?? "22 degrees") });
      expect(await (await agent.fetch(`${url}?day=1`)).json()).to.equal("22 degrees");
      const sent = { method: "POST", headers: { "content-type": "application/json" }, body: '{ "city": "Genève" }' };
      expect(await (await agent.fetch(url, sent)).json()).to.deep.equal({ city: "Genève" });
      expect((await market.paid(agent)).map(({ amount }) => amount)).to.deep.equal([100n, 100n]);
    });

    it("waits for the settlement with one payment", async () => {
      let reads = 0;
      const mandates = {
        mandate: () => {
          if (++reads > 4) seq = 1n;
          return Promise.resolve(snapshot());
        },
      };
      const url = await shopWith({}, { serving: "after-settlement", refreshEvery: 0, mandates });
      expect((await agent.fetch(url)).status).to.equal(200);
      expect(await market.paid(agent)).to.have.length(1);
    });

    it("is charged once though the handler fails at first", async () => {
      const failures = [{ status: 500, text: "broken" }];
      const url = await shopWith({ work: () => failures.shift() ?? "22 degrees" });
      expect((await agent.fetch(url)).status).to.equal(500);
      expect(await (await agent.fetch(url)).text()).to.equal("22 degrees");
      expect(await market.paid(agent)).to.have.length(1);
    });

    it("learns the price by HEAD only, and pays nothing there", async () => {
      const url = await shopWith({});
      expect((await fetch(url, { method: "HEAD" })).headers.get("payment-required")).to.be.a("string");
      const refusal: unknown = await agent.fetch(url, { method: "HEAD" }).catch((error: unknown) => error);
      expect(refusal).to.have.property("code", "payment-mismatch");
      expect(await market.paid(agent)).to.have.length(0);
      expect(PAYMENT_HEADER).to.equal("PAYMENT-SIGNATURE");
    });
  });
}
