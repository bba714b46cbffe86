import { composeMandate, describeMandate, parseIntent } from "@bursar/protocol";
import { draftIntent, type IntentInput } from "@bursar/sdk/agent";
import { expect } from "chai";

import { addressOf, NOW, refusalOf } from "../../relayer/office.ts";

const plain: IntentInput = { purpose: "weather", budget: "5.00", paymentCap: "0.05", duration: "7d" };

describe("an intent", () => {
  it("is drafted from amounts and times as people write them", () => {
    expect(draftIntent(plain)).to.deep.equal(
      parseIntent({ purpose: "weather", budget: "5000000", paymentCap: "50000", duration: "604800" }),
    );
  });

  it("is drafted from units and seconds alike", () => {
    const exact = { ...plain, budget: 5_000_000n, paymentCap: 50_000n, duration: 604_800n };
    expect(draftIntent(exact)).to.deep.equal(draftIntent(plain));
  });

  it("may spend the whole budget at once unless it says otherwise", () => {
    expect(draftIntent({ purpose: "x", budget: "1", duration: "60s" }).paymentCap).to.equal(1_000_000n);
  });

  it("says everything that the owner reads", () => {
    const intent = draftIntent({
      ...plain,
      hosts: ["*.weather.example"],
      categories: ["data.weather"],
      payees: [addressOf("shop").toLowerCase()],
      limits: { perCall: "0.01", perDay: "1", paymentsPerMinute: 60 },
      recurring: { amount: "2", every: "1d" },
      replaces: addressOf("older"),
    });
    const { mandate, terms } = composeMandate(intent, {
      owner: addressOf("owner"),
      agent: addressOf("agent"),
      token: addressOf("token"),
      processor: addressOf("processor"),
      now: NOW,
    });
    const words = describeMandate(mandate, terms, "USDC").map((clause) => clause.words);
    expect(words).to.include.members([
      "at most 5 USDC in all",
      "at most 0.05 USDC in one payment",
      addressOf("shop"),
      "*.weather.example",
      "data.weather",
      "at most 0.01 USDC a call",
      "at most 1 USDC in any 24 hours",
      "at most 60 payments in any 60 seconds",
      "recurring: at most 2 USDC in each day",
    ]);
    expect(mandate.validUntil).to.equal(NOW + 604_800n);
  });

  for (const [text, seconds] of [
    ["90s", 90n],
    ["15m", 900n],
    ["12h", 43_200n],
    ["2w", 1_209_600n],
    ["1 d", 86_400n],
  ] as const) {
    it(`lasts ${text}`, () => expect(draftIntent({ ...plain, duration: text }).duration).to.equal(seconds));
  }

  const wrong: [string, Partial<IntentInput>, RegExp][] = [
    ["budget", { budget: "five" }, /budget: five is not an amount such as "5.00"/],
    ["budget", { budget: "0.0000001" }, /budget: .* is not an amount/],
    ["budget", { budget: 0n, paymentCap: 0n }, /budget/],
    ["paymentCap", { paymentCap: "6" }, /paymentCap: 6 is not at most the budget of 5/],
    ["paymentCap", { paymentCap: "-1" }, /paymentCap/],
    ["paymentCap", { budget: 2n ** 41n, paymentCap: 2n ** 40n }, /paymentCap/],
    ["duration", { duration: "a week" }, /duration: a week is not a duration such as/],
    ["duration", { duration: "59s" }, /between a minute and 90 days/],
    ["duration", { duration: "91d" }, /between a minute and 90 days/],
    ["purpose", { purpose: "" }, /purpose/],
    ["hosts", { hosts: ["https://x.example/"] }, /hosts/],
    ["categories", { categories: ["Weather!"] }, /categories/],
    ["payees", { payees: ["0x12"] }, /payees/],
    ["payees", { payees: Array.from({ length: 9 }, (_, index) => addressOf(`payee ${index}`)) }, /payees/],
    ["limits.perDay", { limits: { perDay: "much" } }, /limits.perDay/],
    ["limits.paymentsPerMinute", { limits: { paymentsPerMinute: 0.5 } }, /limits.paymentsPerMinute/],
    ["recurring.every", { recurring: { amount: "1", every: "monthly" } }, /recurring.every/],
    ["replaces", { replaces: "bob" }, /replaces/],
  ];
  for (const [field, change, message] of wrong) {
    it(`names ${field} when it is wrong: ${JSON.stringify(Object.values(change), (_key, value: unknown) => (typeof value === "bigint" ? String(value) : value)).slice(0, 40)}`, async () => {
      const error = await refusalOf(() => draftIntent({ ...plain, ...change }));
      expect(error.code).to.equal("malformed-input");
      expect(error.message).to.match(message);
    });
  }
});
