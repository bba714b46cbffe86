import {
  decodePaymentRequired,
  DELIVERY_HEADER,
  encodePaymentHeader,
  hashDelivery,
  holdOf,
  verifySignature,
  type BursarError,
  type PaidRequest,
  type Terms,
} from "@bursar/protocol";
import { memoryBook, type Agent, type AgentSettings } from "@bursar/sdk/agent";
import { MemoryReceipts, Paywall, type HoldOptions } from "@bursar/sdk/payee";
import { expect } from "chai";
import { keccak256, toUtf8Bytes, ZeroHash } from "ethers";

import { ANYTHING, addressOf, DOMAIN, draftMandate, refusalOf } from "../../relayer/office.ts";
import { Market } from "../agent/market.ts";
import { SHOPS, type Shop, type Work } from "./shops.ts";
import { addressIn, PAYEE, STRANGER } from "./stand.ts";

const MODULE = addressOf("dispute module");
const HOLDBACK = 3_600n;
const TERMS: Terms = { ...ANYTHING, dispute: { module: MODULE, holdback: String(HOLDBACK) } };

for (const [framework, open] of SHOPS) {
  describe(`holds at a paywall in ${framework}`, () => {
    let market: Market;
    const shops: Shop[] = [];
    const told: BursarError[] = [];

    beforeEach(async () => {
      market = await Market.open();
      told.length = 0;
    });
    afterEach(async () => {
      await Promise.all(shops.splice(0).map((shop) => shop.close()));
      await market.close();
    });

    const buyer = async (terms = TERMS, settings: AgentSettings = {}): Promise<Agent> =>
      market.agent("buyer", { terms, onUndelivered: (_paid, reason) => told.push(reason), ...settings });

    async function shopWith(holds?: HoldOptions, terms = TERMS, work?: Work): Promise<string> {
      const mandate = draftMandate((await buyer()).address, {}, terms);
      const wall = new Paywall({
        payee: PAYEE.address,
        domain: DOMAIN,
        token: mandate.token,
        processors: [mandate.processor],
        receipts: new MemoryReceipts(),
        mandates: {
          mandate: () =>
            Promise.resolve({ domain: DOMAIN, mandate, state: "open", seq: 0n, remaining: mandate.budget } as const),
        },
        now: () => market.office.clock,
        ...(holds === undefined ? {} : { holds }),
      });
      const shop = await open(wall, { price: "0.0001", ...(work === undefined ? {} : { work }) });
      shops.push(shop);
      return `${shop.url}/weather`;
    }

    it("are paid in the payee's place, and each answer carries its signed delivery of what it says", async () => {
      const agent = await buyer();
      const url = await shopWith({ module: MODULE, signer: PAYEE });
      const answer = await agent.fetch(url);
      expect(await answer.clone().text()).to.equal("22 degrees");
      const { paid, delivery } = agent.boughtBy(answer)!;
      const hold = holdOf(MODULE, agent.address, addressIn(PAYEE), HOLDBACK);
      expect(paid.payment.payment.line.payee).to.equal(hold);
      expect((await market.paid(agent)).map(({ payee, amount }) => [payee, amount])).to.deep.equal([[hold, 100n]]);
      expect(delivery!.delivery).to.include({ agent: agent.address, seq: 1n, ref: paid.payment.payment.line.ref });
      expect(delivery!.delivery.bodyHash).to.equal(keccak256(toUtf8Bytes("22 degrees")));
      verifySignature(hashDelivery(DOMAIN, delivery!.delivery), delivery!.signature, addressIn(PAYEE));
      expect(told).to.deep.equal([]);
    });

    it("without a delivery are served too, and the agent is told, and keeps the payment", async () => {
      const agent = await buyer();
      for (const holds of [{ module: MODULE }, { module: MODULE, signer: STRANGER }]) {
        const answer = await agent.fetch(await shopWith(holds));
        expect(answer.status).to.equal(200);
        expect(answer.headers.get(DELIVERY_HEADER)).to.equal(null);
        const bought = agent.boughtBy(answer)!;
        expect(bought.delivery).to.equal(null);
        expect(bought.paid.payment.hold).to.deep.equal({ payee: addressIn(PAYEE), holdback: HOLDBACK });
      }
      await Promise.resolve();
      expect(told.map(({ code }) => code)).to.deep.equal(["malformed-input", "malformed-input"]);
    });

    it("get no delivery of an answer that is a failure", async () => {
      const agent = await buyer();
      const url = await shopWith({ module: MODULE, signer: PAYEE }, TERMS, () => ({ status: 500, text: "broken" }));
      const answer = await agent.fetch(url);
      expect(answer.status).to.equal(500);
      expect(answer.headers.get(DELIVERY_HEADER)).to.equal(null);
      expect(agent.boughtBy(answer)!.delivery).to.equal(null);
    });

    it("that the payee does not take are not paid: not-held, and nothing is spent", async () => {
      const agent = await buyer();
      const others = [undefined, { module: addressOf("another module") }, { module: MODULE, maxHoldback: 3_599n }];
      for (const holds of others) {
        const url = await shopWith(holds);
        expect(await refusalOf(() => agent.fetch(url))).to.include({ code: "not-held" });
        expect(await agent.estimate(url)).to.include({ allowed: false });
      }
      expect(await market.paid(agent)).to.deep.equal([]);
    });

    it("are refused by a payee that takes none, or none that long", async () => {
      const agent = await buyer();
      const taking = await shopWith({ module: MODULE });
      const { ref } = decodePaymentRequired((await fetch(taking)).headers.get("payment-required")!);
      const paid = await agent.pay({ payee: PAYEE.address, amount: 100n, ref });
      const show = (url: string, shown: PaidRequest): Promise<Response> =>
        fetch(url, { headers: { "PAYMENT-SIGNATURE": encodePaymentHeader(shown) } });
      const longer = { ...paid.payment, hold: { payee: addressIn(PAYEE), holdback: HOLDBACK + 1n } };
      for (const [shown, code] of [
        [{ ...paid, payment: { ...paid.payment, hold: undefined } }, "payment-mismatch"],
        [{ ...paid, payment: longer }, "payment-mismatch"],
        [{ ...paid, payment: { ...longer, hold: { payee: addressOf("another"), holdback: HOLDBACK } } }, "not-held"],
      ] as const) {
        const answer = await show(taking, shown);
        expect(answer.status).to.equal(402);
        expect(((await answer.json()) as { code: string }).code).to.equal(code);
      }
      expect((await show(taking, paid)).status).to.equal(200);
    });

    it("are paid at once by an agent whose terms name none", async () => {
      const agent = await buyer(ANYTHING);
      const answer = await agent.fetch(await shopWith({ module: MODULE, signer: PAYEE }, ANYTHING));
      expect(answer.headers.get(DELIVERY_HEADER)).to.equal(null);
      expect(agent.boughtBy(answer)!.paid.payment.payment.line.payee).to.equal(PAYEE.address);
      expect(told).to.deep.equal([]);
    });

    it("stand for their payee where the terms limit hosts, and a payment without an answer is sent again as it was", async () => {
      const profile = { address: addressIn(PAYEE), name: "Shop", host: "shop.example", category: "data" };
      await market.office.store.transact(() => market.office.store.putPayee(profile));
      const limited = (hosts: string[]): Terms => ({ ...TERMS, hosts });
      const book = memoryBook();
      const agent = await buyer(limited(["shop.example"]), { book, patience: { attempts: 1 } });
      market.line.faults.push("lost");
      const purchase = { payee: PAYEE.address, amount: 5n, ref: ZeroHash };
      expect(await refusalOf(() => agent.pay(purchase))).to.include({ code: "processor-unavailable" });
      const again = await buyer(limited(["shop.example"]), { book });
      const paid = await again.resume();
      expect(paid?.payment.hold?.payee).to.equal(PAYEE.address);
      const { store } = market.office;
      expect(await store.holderOf(paid!.payment.payment.line.payee)).to.equal(PAYEE.address);
      expect((await store.ledger({ payee: addressIn(PAYEE) })).map(({ amount }) => amount)).to.deep.equal([5n]);
      const elsewhere = await market.agent("elsewhere", { terms: limited(["other.example"]) });
      expect(await refusalOf(() => elsewhere.pay(purchase))).to.include({ code: "off-mission-host" });
      const lost = { ...purchase, payee: addressOf("token") };
      expect(await refusalOf(() => again.pay(lost))).to.include({ code: "payee-impossible" });
    });
  });
}
