import {
  advance,
  headHex,
  MAX_AMOUNT,
  MAX_TOTAL,
  PAGE_LINES,
  startOf,
  type Address,
  type ErrorCode,
  type Hex,
  type Line,
  type Payment,
  type Position,
  type Terms,
} from "@bursar/protocol";
import { decide, Spending, type Circumstances, type PayeeProfile, type Proposal } from "@bursar/relayer";
import { expect } from "chai";
import { ZeroHash } from "ethers";
import fc from "fast-check";

import { addressOf, DOMAIN, draftMandate, NOW, Office, refusalOf, signAs } from "./office.ts";

const AGENT = addressOf("agent");
const SHOP = addressOf("shop");
const SALT = 77n;
const MISSION: Terms = { version: 1, purpose: "maps", categories: ["maps"], hosts: ["*.maps.example"] };
const PROFILE: PayeeProfile = { address: SHOP, name: "Shop", host: "tiles.maps.example", category: "maps" };

const line = (amount: bigint, payee: Address = SHOP): Line => ({ payee, amount, ref: ZeroHash as Hex });

/** A ledger of `amounts` on pages that all have the salt {@link SALT}. */
function ledgerOf(amounts: readonly bigint[]): Position {
  return amounts.reduce<Position>(
    (position, amount) => advance(position, line(amount), SALT).position,
    startOf(DOMAIN, AGENT),
  );
}

function circumstances(position: Position, overrides: Partial<Circumstances> = {}): Circumstances {
  const terms = overrides.record?.terms ?? MISSION;
  return {
    record: {
      mandate: draftMandate(AGENT, { paymentCap: 500n, budget: 2_000n, payees: [SHOP] }, terms),
      terms,
      unitScale: 1n,
      settled: { base: BigInt(position.base), seq: 0n, spent: 0n },
      revokedAt: null,
      closesAt: NOW + 1_000_000n,
    },
    tail: { position, salt: position.lines.length === 0 ? null : SALT },
    reserved: 0n,
    spending: new Spending(terms),
    impossible: [],
    profile: PROFILE,
    now: NOW,
    ...overrides,
  };
}

function proposal(position: Position, next: Line, salt = SALT): Proposal {
  return { payment: advance(position, next, salt).payment, salt };
}

describe("decide", function () {
  this.timeout(30_000);
  const position = ledgerOf([400n, 400n]);
  const usual = circumstances(position);
  const good = proposal(position, line(500n));
  const { record } = usual;
  const paying = (changes: Partial<Payment>): Proposal => ({ ...good, payment: { ...good.payment, ...changes } });
  const under = (changes: Partial<typeof record.mandate>): Circumstances => ({
    ...usual,
    record: { ...record, mandate: { ...record.mandate, ...changes } },
  });

  it("accepts a payment that meets every limit exactly", () => {
    expect(() => decide(good, under({ paymentCap: 500n, budget: 1_300n, validUntil: NOW }))).not.to.throw();
  });

  const late = under({ validUntil: NOW - 1n });
  const refusals: [
    what: string,
    code: ErrorCode,
    Proposal,
    Circumstances,
    details: Record<string, unknown>,
    advice: RegExp | null,
  ][] = [
    [
      "after the owner revoked",
      "mandate-revoked",
      good,
      { ...usual, record: { ...record, revokedAt: 9n } },
      { revokedAt: "9" },
      /ask the owner for a new mandate/,
    ],
    [
      "after the mandate's end",
      "mandate-expired",
      good,
      late,
      { value: `${NOW}`, limit: `${NOW - 1n}` },
      /ask the owner/,
    ],
    ["a skipped number", "sequence-gap", paying({ seq: 4n }), usual, { value: "4", limit: "3" }, /number 3 next/],
    ["a number again", "sequence-gap", paying({ seq: 2n }), usual, { value: "2", limit: "3" }, /number 3 next/],
    [
      "the largest number",
      "sequence-gap",
      paying({ seq: MAX_TOTAL }),
      usual,
      { value: `${MAX_TOTAL}`, limit: "3" },
      /number 3 next/,
    ],
    [
      "a running total that is too small",
      "spent-mismatch",
      paying({ spent: 1_299n }),
      usual,
      { value: "1299", limit: "1300" },
      /last receipt/,
    ],
    [
      "a running total that is too large",
      "spent-mismatch",
      paying({ spent: 1_301n }),
      usual,
      { value: "1301", limit: "1300" },
      /last receipt/,
    ],
    [
      "another head",
      "head-mismatch",
      paying({ head: ZeroHash as Hex }),
      usual,
      { value: ZeroHash, limit: good.payment.head },
      /Rebuild the ledger/,
    ],
    [
      "another salt on the same page",
      "head-mismatch",
      { ...good, salt: SALT + 1n },
      usual,
      { value: good.payment.head, limit: good.payment.head },
      /Rebuild the ledger/,
    ],
    [
      "a head under another salt of the same page",
      "head-mismatch",
      proposal(position, line(500n), SALT + 1n),
      usual,
      { value: proposal(position, line(500n), SALT + 1n).payment.head, limit: good.payment.head },
      /Rebuild the ledger/,
    ],
    [
      "one unit above the cap",
      "above-payment-cap",
      good,
      under({ paymentCap: 499n }),
      { value: "500", limit: "499" },
      /choose a cheaper payee/,
    ],
    [
      "one unit above the budget",
      "above-budget",
      good,
      under({ budget: 1_299n }),
      { value: "500", limit: "499", remaining: "499" },
      /ask the owner/,
    ],
    [
      "a payee that the owner did not name",
      "payee-not-allowed",
      good,
      under({ payees: [addressOf("other"), addressOf("another")] }),
      { value: SHOP, limit: `${addressOf("other")} ${addressOf("another")}` },
      /Pay one of the named payees/,
    ],
    [
      "a payee that the processor does not know",
      "payee-unknown",
      good,
      { ...usual, profile: undefined },
      { value: SHOP },
      /purpose «maps»/,
    ],
    [
      "a host outside the terms",
      "off-mission-host",
      good,
      { ...usual, profile: { ...PROFILE, host: "play.casino.example" } },
      { value: "play.casino.example", limit: "*.maps.example" },
      /purpose «maps»/,
    ],
    [
      "a category outside the terms",
      "off-mission-category",
      good,
      { ...usual, profile: { ...PROFILE, category: "gambling" } },
      { value: "gambling", limit: "maps" },
      /purpose «maps»/,
    ],
    ["an amount of zero", "amount-zero", paying({ line: line(0n) }), usual, { value: "0", limit: "1" }, null],
    [
      "an amount of 2^40",
      "amount-too-large",
      paying({ line: line(MAX_AMOUNT + 1n) }),
      usual,
      { value: `${MAX_AMOUNT + 1n}`, limit: `${MAX_AMOUNT}` },
      null,
    ],
    [
      "a total of 2^64",
      "above-budget",
      good,
      circumstances({ ...position, spent: MAX_TOTAL }),
      { value: "500", limit: "0", remaining: "0" },
      /ask the owner/,
    ],
  ];
  for (const [what, code, asked, met, details, advice] of refusals) {
    it(`refuses ${what}: ${code}, with value, limit and advice`, async () => {
      const refusal = await refusalOf(() => decide(asked, met));
      expect({ code: refusal.code, details: refusal.details }).to.deep.equal({ code, details });
      if (advice) expect(refusal.advice).to.match(advice);
    });
  }

  it("asks for no profile when the terms limit neither host nor category", () => {
    const terms: Terms = { version: 1, purpose: "anything", categories: [], hosts: [] };
    expect(() => decide(good, { ...usual, record: { ...record, terms }, profile: undefined })).not.to.throw();
  });

  it("looks only at what the terms limit: a host without categories, a category without hosts", async () => {
    const elsewhere = { ...PROFILE, host: "play.casino.example", category: "gambling" };
    const met = (terms: Terms): Circumstances => ({ ...usual, record: { ...record, terms }, profile: elsewhere });
    const byHost = await refusalOf(() => decide(good, met({ ...MISSION, categories: [] })));
    const byCategory = await refusalOf(() => decide(good, met({ ...MISSION, hosts: [] })));
    expect([byHost.code, byCategory.code]).to.deep.equal(["off-mission-host", "off-mission-category"]);
  });

  it("takes a new salt with a new page, and keeps it for all lines of the page", async () => {
    const page = ledgerOf(Array<bigint>(PAGE_LINES).fill(1n));
    expect(page.lines).to.have.length(0);
    expect(() => decide(proposal(page, line(1n), 123n), circumstances(page))).not.to.throw();
    const begun = ledgerOf(Array<bigint>(PAGE_LINES + 1).fill(1n));
    const refusal = await refusalOf(() => decide(proposal(begun, line(1n), 123n), circumstances(begun)));
    expect(refusal.code).to.equal("head-mismatch");
  });

  const amounts = fc.array(fc.bigInt({ min: 1n, max: 200n }), { maxLength: 9 });
  /** A payment that is often right and often wrong in one or more ways. */
  const attempts = fc.record({
    amount: fc.bigInt({ min: 1n, max: 600n }),
    payee: fc.constantFrom(SHOP, SHOP, SHOP, addressOf("stranger")),
    seqOff: fc.constantFrom(0n, 0n, 0n, 0n, 1n, -1n),
    spentOff: fc.constantFrom(0n, 0n, 0n, 0n, 1n, -1n),
    headOff: fc.constantFrom(0n, 0n, 0n, 0n, 1n),
    salt: fc.constantFrom(SALT, SALT, SALT, SALT + 1n),
    late: fc.constantFrom(false, false, false, true),
  });

  it("P12 accepted_implies_settleable: accepts a payment exactly if advance gives it and every limit holds", () => {
    let accepted = 0;
    fc.assert(
      fc.property(amounts, attempts, (earlier, { amount, payee, seqOff, spentOff, headOff, salt, late }) => {
        const tail = ledgerOf(earlier);
        const { payment: honest } = advance(tail, line(amount, payee), salt);
        const payment = {
          ...honest,
          seq: honest.seq + seqOff,
          spent: honest.spent + spentOff,
          head: headHex(BigInt(honest.head) + headOff),
        };
        const met = circumstances(tail, { now: late ? NOW + 86_401n : NOW });
        const { budget, paymentCap } = met.record.mandate;
        const follows =
          seqOff === 0n && spentOff === 0n && headOff === 0n && (salt === SALT || tail.lines.length === 0);
        const within = amount <= paymentCap && tail.spent + amount <= budget && payee === SHOP && !late;
        let decision = true;
        try {
          decide({ payment, salt }, met);
        } catch {
          decision = false;
        }
        accepted += Number(decision);
        expect(decision).to.equal(follows && within);
      }),
      { numRuns: 400 },
    );
    expect(accepted).to.be.greaterThan(20);
  });

  it("a dry run answers as accepting does, and leaves the books as they were", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(attempts, { maxLength: 6 }), async (plan) => {
        const office = await Office.open();
        const agent = await office.agent("agent", { budget: 1_200n, paymentCap: 500n, payees: [SHOP] });
        let tail: Position = startOf(DOMAIN, AGENT);
        for (const { amount, payee, seqOff, spentOff, salt } of plan) {
          const { payment, position: next } = advance(tail, line(amount, payee), salt);
          const altered = { ...payment, seq: payment.seq + seqOff, spent: payment.spent + spentOff };
          const signed = await signAs(agent, altered, salt);
          const before = await office.snapshot();
          const foreseen = await codeOf(() => office.processor.check(signed));
          expect(await office.snapshot()).to.equal(before);
          const answer = await office.processor.accept(signed).then(
            () => null,
            (error: unknown) => (error as { code: string }).code,
          );
          expect(answer).to.equal(foreseen);
          if (answer === null && altered.seq === tail.seq + 1n) tail = next;
        }
        await office.store.close();
      }),
      { numRuns: 40 },
    );
  });
});

async function codeOf(attempt: () => Promise<unknown>): Promise<string | null> {
  try {
    await attempt();
    return null;
  } catch (error) {
    return (error as { code: string }).code;
  }
}
