import {
  BursarError,
  composeMandate,
  describeMandate,
  headHex,
  parseIntent,
  policyRoot,
  termsHash,
  type Address,
  type IntentDraft,
} from "@bursar/protocol";
import { expect } from "chai";
import { id, Wallet } from "ethers";

const addressOf = (name: string): Address => new Wallet(id(name)).address as Address;
const PARTIES = {
  owner: addressOf("owner"),
  agent: addressOf("agent"),
  token: addressOf("token"),
  processor: addressOf("processor"),
  now: 1_800_000_000n,
};
const DRAFT: IntentDraft = {
  purpose: "Plan deliveries",
  budget: "5000000",
  paymentCap: "10000",
  duration: "86400",
};

describe("an intent", () => {
  it("becomes the mandate and the terms that say the same", () => {
    const payees = [addressOf("shop")];
    const intent = parseIntent({
      ...DRAFT,
      categories: ["weather"],
      hosts: ["*.weather.example"],
      payees,
      limits: { unitsPerCall: "900", unitsPerDay: "1000000", paymentsPerMinute: "60" },
      recurring: { seconds: "86400", units: "500000" },
      replaces: addressOf("old agent"),
    });
    const { mandate, terms } = composeMandate(intent, PARTIES);
    expect(terms).to.deep.equal({
      version: 1,
      purpose: "Plan deliveries",
      categories: ["weather"],
      hosts: ["*.weather.example"],
      limits: { unitsPerCall: "900", unitsPerDay: "1000000", paymentsPerMinute: "60" },
      recurring: { startsAt: "1800000000", seconds: "86400", units: "500000" },
      replaces: addressOf("old agent"),
    });
    expect(mandate).to.deep.equal({
      owner: PARTIES.owner,
      agent: PARTIES.agent,
      token: PARTIES.token,
      budget: 5_000_000n,
      paymentCap: 10_000n,
      validUntil: 1_800_086_400n,
      processor: PARTIES.processor,
      payees,
      policyRoot: headHex(policyRoot(payees, 10_000n)),
      termsHash: termsHash(terms),
    });
  });

  it("leaves out of the terms what it does not limit, so that equal intents have equal hashes", () => {
    const { terms } = composeMandate(parseIntent(DRAFT), PARTIES);
    expect(terms).to.deep.equal({ version: 1, purpose: "Plan deliveries", categories: [], hosts: [] });
  });

  const refused: [what: string, draft: Record<string, unknown>, field: string][] = [
    ["a budget of nothing", { budget: "0" }, "budget"],
    ["a budget of 2^64", { budget: "18446744073709551616" }, "budget"],
    ["a cap above the budget", { paymentCap: "5000001" }, "paymentCap"],
    ["a cap of 2^40", { budget: "9999999999999", paymentCap: "1099511627776" }, "paymentCap"],
    ["less than a minute", { duration: "59" }, "duration"],
    ["more than 90 days", { duration: "7776001" }, "duration"],
    ["no purpose", { purpose: "" }, "purpose"],
    ["nine payees", { payees: Array.from({ length: 9 }, (_, n) => addressOf(`${n}`)) }, "payees"],
    [
      "an address with a wrong checksum",
      { payees: [PARTIES.agent.replace(/[a-f]/, (c) => c.toUpperCase())] },
      "payees.0",
    ],
    ["a host that is none", { hosts: ["https://weather.example"] }, "hosts.0"],
    ["a category with spaces", { categories: ["all the things"] }, "categories.0"],
    ["a limit of zero", { limits: { unitsPerDay: "0" } }, "limits.unitsPerDay"],
    ["an amount as a number", { budget: 5_000_000 }, "budget"],
    ["a field that does not exist", { colour: "blue" }, "input"],
  ];
  for (const [what, changes, field] of refused) {
    it(`refuses ${what}, and names the field`, () => {
      expect(() => parseIntent({ ...DRAFT, ...changes }))
        .to.throw(BursarError)
        .that.satisfies((error: BursarError) => error.code === "malformed-input" && field in error.details);
    });
  }

  it("is told in plain words, each with who enforces it", () => {
    const intent = parseIntent({
      ...DRAFT,
      hosts: ["*.weather.example"],
      limits: { unitsPerCall: "900", unitsPerDay: "1000000", paymentsPerMinute: "60" },
      recurring: { seconds: "172800", units: "500000" },
    });
    const { mandate, terms } = composeMandate(intent, PARTIES);
    const words = Object.fromEntries(
      describeMandate(mandate, terms, "USDC").map(({ subject, words: said, enforcedBy }) => [
        subject,
        [said, enforcedBy],
      ]),
    );
    expect(words).to.deep.equal({
      purpose: ["Plan deliveries", "nobody"],
      budget: ["at most 5 USDC in all", "contract and proof"],
      "payment cap": ["at most 0.01 USDC in one payment", "contract and proof"],
      payees: ["anyone", "contract and proof"],
      end: ["no payment after 2027-01-16 08:00:00 UTC", "processor"],
      hosts: ["*.weather.example", "processor"],
      categories: ["any category", "processor"],
      price: ["at most 0.0009 USDC a call", "processor"],
      day: ["at most 1 USDC in any 24 hours", "processor"],
      rate: ["at most 60 payments in any 60 seconds", "processor"],
      kind: ["recurring: at most 0.5 USDC in each 2 days", "processor"],
    });
    const oneOff = composeMandate(parseIntent({ ...DRAFT, replaces: addressOf("old") }), PARTIES);
    const told = describeMandate(oneOff.mandate, oneOff.terms).map(({ subject, words: said }) => `${subject}: ${said}`);
    expect(told).to.include("kind: one-off");
    expect(told.join()).to.include(`replaces: stops the mandate of ${addressOf("old")}`);
  });
});
