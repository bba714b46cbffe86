import { BursarError, type Terms } from "@bursar/protocol";
import { covering, headroom, judge, RULES, Spending, type Facts } from "@bursar/relayer";
import { expect } from "chai";
import fc from "fast-check";

import { addressOf, NOW, Office, refusalOf } from "./office.ts";

const SHOP = addressOf("shop");

const FACTS: Facts = {
  mandate: { revokedAt: null, validUntil: NOW, payees: [SHOP] },
  now: NOW,
  terms: { purpose: "maps", hosts: ["*.maps.example"], categories: ["maps"], started: true },
  payment: { amount: 5n },
  payee: {
    address: SHOP,
    known: true,
    collects: true,
    host: "a.maps.example",
    coveredBy: ["*.maps.example"],
    category: "maps",
  },
  left: { cap: 5n, budget: 5n, call: 5n, minute: 1n, day: 5n, period: 5n },
};

function refusal(facts: unknown): BursarError | null {
  try {
    judge(facts as Facts);
    return null;
  } catch (error) {
    if (error instanceof BursarError) return error;
    throw error;
  }
}

describe("the policy", () => {
  it("lets a payment through that meets every rule exactly", () => {
    expect(refusal(FACTS)).to.equal(null);
  });

  const broken: Record<string, Partial<Facts>> = {
    "mandate-revoked": { mandate: { ...FACTS.mandate, revokedAt: 1n } },
    "mandate-expired": { now: NOW + 1n },
    "above-payment-cap": { left: { ...FACTS.left, cap: 4n } },
    "above-budget": { left: { ...FACTS.left, budget: 4n } },
    "payee-not-allowed": { mandate: { ...FACTS.mandate, payees: [addressOf("other")] } },
    "payee-impossible": { payee: { ...FACTS.payee, collects: false } },
    "payee-unknown": { payee: { ...FACTS.payee, known: false } },
    "off-mission-host": { payee: { ...FACTS.payee, coveredBy: [] } },
    "off-mission-category": { payee: { ...FACTS.payee, category: "gambling" } },
    "above-price": { left: { ...FACTS.left, call: 4n } },
    "not-started": { terms: { ...FACTS.terms, started: false } },
    "above-rate": { left: { ...FACTS.left, minute: 0n } },
    "above-daily-limit": { left: { ...FACTS.left, day: 4n } },
    "above-allowance": { left: { ...FACTS.left, period: 4n } },
  };

  it("has a refusal for every rule, and every refusal a rule", () => {
    expect(RULES.map(({ code }) => code)).to.have.members(Object.keys(broken));
  });

  for (const [code, change] of Object.entries(broken)) {
    it(`refuses with ${code} when that rule alone is broken, and says what to do`, () => {
      const refused = refusal({ ...FACTS, ...change });
      expect(refused?.code).to.equal(code);
      expect(refused?.message)
        .to.be.a("string")
        .and.not.match(/undefined|NaN/);
      expect(refused?.advice).to.be.a("string").and.not.equal("");
    });
  }

  it("refuses what it cannot evaluate: a missing fact or one of another type is never a yes", () => {
    const parts = ["mandate", "now", "terms", "payment", "payee", "left"] as const;
    for (const part of parts) {
      expect(() => judge({ ...FACTS, [part]: undefined }), part).to.throw();
      expect(() => judge({ ...FACTS, [part]: "yes" }), part).to.throw();
    }
    for (const limit of Object.keys(FACTS.left)) {
      expect(() => judge({ ...FACTS, left: { ...FACTS.left, [limit]: "9" } }), limit).to.throw();
    }
  });

  it("gives the same answer to the same facts, and never says yes to more than is left", () => {
    const units = fc.bigInt({ min: 0n, max: 2n ** 40n });
    fc.assert(
      fc.property(
        units,
        fc.array(units, { minLength: 5, maxLength: 5 }),
        (amount, [cap, budget, call, day, period]) => {
          const left = { cap: cap!, budget: budget!, call: call!, day: day!, period: period!, minute: 1n };
          const facts = { ...FACTS, payment: { amount }, left };
          const fits = [cap!, budget!, call!, day!, period!].every((limit) => amount <= limit);
          expect(refusal(facts) === null).to.equal(fits);
          expect(refusal(facts)?.code).to.equal(refusal(facts)?.code);
        },
      ),
    );
  });

  it("caps what is left far above any amount, where CEL's integers end", () => {
    expect(headroom(null)).to.equal(headroom(2n ** 64n));
    expect(headroom(2n ** 64n))
      .to.be.greaterThan(2n ** 40n)
      .and.lessThan(2n ** 63n);
    expect(headroom(-1n)).to.equal(0n);
    expect(headroom(7n)).to.equal(7n);
  });

  it("covers a host by a glob of one label, and a host that is a glob by the same glob alone", () => {
    expect(covering(["*.maps.example", "maps.example"], "a.maps.example")).to.deep.equal(["*.maps.example"]);
    expect(covering(["*.maps.example"], "*.maps.example")).to.deep.equal(["*.maps.example"]);
    expect(covering(["*.maps.example", "*.example"], "*.a.maps.example")).to.deep.equal([]);
    expect(covering([], "a.maps.example")).to.deep.equal([]);
  });
});

describe("limits that are counted", () => {
  const terms = (more: Partial<Terms>): Terms => ({ version: 1, purpose: "x", categories: [], hosts: [], ...more });

  it("refuses the payment that goes over the daily limit, and takes it a day later", async () => {
    const office = await Office.open();
    const agent = await office.agent("daily", {}, terms({ limits: { unitsPerDay: "100" } }));
    await agent.pay(SHOP, 60n);
    await agent.pay(SHOP, 40n);
    const refused = await refusalOf(() => agent.pay(SHOP, 1n));
    expect(refused.code).to.equal("above-daily-limit");
    expect(refused.details).to.deep.equal({ value: "1", limit: "0", remaining: "0" });
    office.clock += 86_399n;
    expect((await refusalOf(() => agent.pay(SHOP, 1n))).code).to.equal("above-daily-limit");
    await office.store.close();
  });

  it("counts any 24 hours, not calendar days", async () => {
    const office = await Office.open();
    const long = { validUntil: NOW + 1_000_000n };
    const agent = await office.agent("sliding", long, terms({ limits: { unitsPerDay: "100" } }));
    await agent.pay(SHOP, 60n);
    office.clock += 43_200n;
    await agent.pay(SHOP, 40n);
    office.clock += 43_199n;
    expect((await refusalOf(() => agent.pay(SHOP, 60n))).code).to.equal("above-daily-limit");
    office.clock += 121n;
    await agent.pay(SHOP, 60n);
    expect((await refusalOf(() => agent.pay(SHOP, 1n))).code).to.equal("above-daily-limit");
    await office.store.close();
  });

  it("refuses the payment above the rate, and takes it when the minute is over", async () => {
    const office = await Office.open();
    const agent = await office.agent("rate", {}, terms({ limits: { paymentsPerMinute: "3" } }));
    for (let n = 0; n < 3; ++n) await agent.pay(SHOP, 1n);
    expect((await refusalOf(() => agent.pay(SHOP, 1n))).code).to.equal("above-rate");
    office.clock += 59n;
    expect((await refusalOf(() => agent.pay(SHOP, 1n))).code).to.equal("above-rate");
    office.clock += 1n;
    await agent.pay(SHOP, 1n);
    await office.store.close();
  });

  it("refuses a call above the highest price", async () => {
    const office = await Office.open();
    const agent = await office.agent("price", {}, terms({ limits: { unitsPerCall: "10" } }));
    await agent.pay(SHOP, 10n);
    const refused = await refusalOf(() => agent.pay(SHOP, 11n));
    expect(refused.code).to.equal("above-price");
    expect(refused.details).to.deep.equal({ value: "11", limit: "10" });
    await office.store.close();
  });

  it("renews the allowance of a recurring mandate in each period, carries nothing over, and waits for the first", async () => {
    const office = await Office.open();
    const startsAt = String(NOW + 10n);
    const agent = await office.agent("recurring", {}, terms({ recurring: { startsAt, seconds: "100", units: "50" } }));
    expect((await refusalOf(() => agent.pay(SHOP, 1n))).code).to.equal("not-started");
    office.clock = NOW + 10n;
    await agent.pay(SHOP, 20n);
    office.clock = NOW + 109n;
    expect((await refusalOf(() => agent.pay(SHOP, 31n))).code).to.equal("above-allowance");
    await agent.pay(SHOP, 30n);
    office.clock = NOW + 110n;
    expect((await refusalOf(() => agent.pay(SHOP, 51n))).code).to.equal("above-allowance");
    await agent.pay(SHOP, 50n);
    office.clock = NOW + 350n;
    await agent.pay(SHOP, 50n);
    await office.store.close();
  });

  it("counts the same after a restart as before it", () => {
    const all = terms({
      limits: { unitsPerDay: "1000000", paymentsPerMinute: "1000000" },
      recurring: { startsAt: "0", seconds: "500", units: "1000000" },
    });
    const steps = fc.array(
      fc.record({ wait: fc.bigInt({ min: 0n, max: 9_000n }), amount: fc.bigInt({ min: 1n, max: 99n }) }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(steps, fc.bigInt({ min: 0n, max: 90_000n }), (spends, pause) => {
        const running = new Spending(all);
        let at = NOW;
        const past = spends.map(({ wait, amount }) => ({ at: (at += wait), amount }));
        for (const spend of past) running.add(spend);
        const now = at + pause;
        const restarted = new Spending(all);
        const since = Spending.since(all, now)!;
        for (const spend of past) if (spend.at >= since) restarted.add(spend);
        expect(restarted.headroom(now)).to.deep.equal(running.headroom(now));
        const counted = past.filter((spend) => spend.at > now - 86_400n).reduce((sum, { amount }) => sum + amount, 0n);
        expect(1_000_000n - running.headroom(now).day!).to.be.at.least(counted);
      }),
    );
  });
});
