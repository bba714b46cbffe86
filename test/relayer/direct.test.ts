import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { signWithKey, type DirectPayment, type ErrorCode, type Hex } from "@bursar/protocol";
import { expect } from "chai";
import { id, ZeroHash } from "ethers";

import type { PayingAgent } from "../integration/rail.ts";
import { addressOf, ANYTHING, NOW, Office, refusalOf } from "./office.ts";

const SHOP = addressOf("shop");

/** A direct payment of `agent`, signed whatever it says. */
function direct({ wallet, address }: PayingAgent, amount: bigint, changes: Partial<DirectPayment> = {}): DirectPayment {
  const message = {
    kind: "exact" as const,
    agent: address,
    token: addressOf("token"),
    payee: SHOP,
    amount,
    nonce: id(`nonce ${amount}`) as Hex,
    validAfter: NOW - 1n,
    validBefore: NOW + 60n,
    ref: ZeroHash as Hex,
    ...changes,
  };
  const digest = id(JSON.stringify(message, (_, value: unknown) => (typeof value === "bigint" ? `${value}` : value)));
  const signed = signWithKey(digest as Hex, wallet.privateKey as Hex);
  return { ...message, digest: digest as Hex, signature: signed, ...("signature" in changes ? changes : {}) };
}

describe("direct payments in the books", () => {
  let office: Office;
  let agent: PayingAgent;
  beforeEach(async () => {
    office = await Office.open();
    agent = await office.agent("agent", { budget: 1_000n, paymentCap: 500n });
  });
  afterEach(() => office.store.close());

  it("accepts one, reserves its units and shows it in the ledger", async () => {
    const record = await office.processor.acceptDirect(direct(agent, 300n));
    expect(record).to.include({ status: "accepted", amount: 300n, transaction: null, error: null });
    expect(await office.processor.status(agent.address)).to.include({ reserved: 300n, remaining: 700n });
    const [line] = await office.store.ledger({ agent: agent.address });
    expect(line).to.include({ kind: "accepted", rail: "exact", seq: null, status: "accepted", amount: 300n });
  });

  it("P10 same_request_same_answer: the same one again, 64 at once and after its end of validity, is one record", async () => {
    const payment = direct(agent, 300n);
    const answers = await Promise.all(Array.from({ length: 64 }, () => office.processor.acceptDirect(payment)));
    office.clock += 1_000n;
    answers.push(await office.processor.acceptDirect(payment));
    for (const answer of answers) expect(answer).to.deep.equal(answers[0]);
    expect(await office.store.counts()).to.include({ directs: 1, refusals: 0 });
    expect((await office.processor.status(agent.address)).reserved).to.equal(300n);
  });

  it("refuses another payment on a nonce that is taken, and keeps it", async () => {
    const nonce = id("one") as Hex;
    await office.processor.acceptDirect(direct(agent, 1n, { nonce }));
    const refused = await refusalOf(() => office.processor.acceptDirect(direct(agent, 2n, { nonce })));
    expect(refused.code).to.equal("nonce-used");
    expect((await office.store.refusals(agent.address)).map(({ code, rail }) => [code, rail])).to.deep.equal([
      ["nonce-used", "exact"],
    ]);
    await office.processor.acceptDirect(direct(agent, 2n, { nonce, kind: "aep2" }));
    expect((await office.store.counts()).directs).to.equal(2);
  });

  it("refuses one of a mandate whose payments wait in holds: not-held", async () => {
    const terms = { ...ANYTHING, dispute: { module: addressOf("dispute module"), holdback: "3600" } };
    const held = await office.agent("held", {}, terms);
    expect(await refusalOf(() => office.processor.acceptDirect(direct(held, 1n)))).to.include({ code: "not-held" });
  });

  it("K2: both rails draw on one budget, however they interleave", async () => {
    await agent.pay(SHOP, 400n);
    await office.processor.acceptDirect(direct(agent, 500n));
    const refused = await refusalOf(() => office.processor.acceptDirect(direct(agent, 101n)));
    expect([refused.code, refused.details]).to.deep.equal([
      "above-budget",
      { value: "101", limit: "100", remaining: "100" },
    ]);
    expect((await refusalOf(() => agent.pay(SHOP, 101n))).code).to.equal("above-budget");
    const rivals = [
      ...Array.from({ length: 8 }, (_, n) => () => office.processor.acceptDirect(direct(agent, 60n + BigInt(n)))),
      () => agent.pay(SHOP, 60n),
    ];
    const ends = await Promise.allSettled(rivals.map((pay) => pay()));
    expect(ends.filter(({ status }) => status === "fulfilled")).to.have.length(1);
    const { remaining, reserved, accepted } = await office.processor.status(agent.address);
    expect(remaining + reserved + accepted.spent).to.equal(1_000n);
    expect(remaining).to.be.at.least(0n);
  });

  const refusals: [what: string, code: ErrorCode, amount: bigint, changes: Partial<DirectPayment>][] = [
    ["above the payment cap", "above-payment-cap", 501n, {}],
    ["of nothing", "amount-zero", 0n, {}],
    ["in another token", "wrong-token", 1n, { token: addressOf("worthless") }],
    ["that begins later", "authorization-early", 1n, { validAfter: NOW }],
    ["that has ended", "authorization-expired", 1n, { validBefore: NOW }],
    ["that ends before it could settle", "authorization-expired", 1n, { validBefore: NOW + 6n }],
    ["to the token itself", "payee-impossible", 1n, { payee: addressOf("token") }],
  ];
  for (const [what, code, amount, changes] of refusals) {
    it(`refuses one ${what}: ${code}, and changes nothing but the list of refusals`, async () => {
      const payment = direct(agent, amount, changes);
      expect((await refusalOf(() => office.processor.checkDirect(payment))).code).to.equal(code);
      expect((await office.store.counts()).refusals).to.equal(0);
      expect((await refusalOf(() => office.processor.acceptDirect(payment))).code).to.equal(code);
      expect(await office.store.counts()).to.include({ directs: 0, refusals: 1 });
      expect((await office.processor.status(agent.address)).reserved).to.equal(0n);
    });
  }

  it("refuses a signature by another key, and one of an unknown agent, and records neither", async () => {
    const other = await office.agent("other");
    const forged = { ...direct(agent, 1n), agent: other.address };
    expect((await refusalOf(() => office.processor.acceptDirect(forged))).code).to.equal("signature-signer");
    const unknown = { ...direct(agent, 1n), agent: addressOf("nobody") };
    expect((await refusalOf(() => office.processor.acceptDirect(unknown))).code).to.equal("mandate-unknown");
    expect(await office.store.counts()).to.include({ directs: 0, refusals: 0 });
  });

  it("counts towards the limits of the terms, on both rails", async () => {
    const limited = await office.agent("limited", {}, { ...ANYTHING, limits: { unitsPerDay: "100" } });
    await office.processor.acceptDirect(direct(limited, 70n));
    expect((await refusalOf(() => limited.pay(SHOP, 31n))).code).to.equal("above-daily-limit");
    await limited.pay(SHOP, 30n);
    expect((await refusalOf(() => office.processor.acceptDirect(direct(limited, 1n)))).code).to.equal(
      "above-daily-limit",
    );
  });

  it("gives the units back when the chain refuses it, and keeps them reserved once it is settled", async () => {
    const { store } = office;
    const first = await office.processor.acceptDirect(direct(agent, 300n));
    const second = await office.processor.acceptDirect(direct(agent, 200n));
    await store.transact(() =>
      store.endDirect(first.position, { status: "failed", transaction: null, error: "expired" }),
    );
    await store.transact(() =>
      store.endDirect(second.position, { status: "settled", transaction: "0x12", error: null }),
    );
    expect(await office.processor.status(agent.address)).to.include({ reserved: 200n, remaining: 800n });
    expect((await store.ledger()).map(({ status, reason }) => [status, reason])).to.deep.equal([
      ["settled", null],
      ["failed", "expired"],
    ]);
  });

  it("P11 answer_implies_durable: stands in the books after a restart, reserved as before", async () => {
    const folder = mkdtempSync(join(tmpdir(), "bursar-direct-"));
    const path = join(folder, "books.db");
    const before = await Office.open(path);
    const payer = await before.agent("payer");
    const payment = direct(payer, 300n);
    const record = await before.processor.acceptDirect(payment);
    await before.store.close();
    const after = await Office.open(path);
    expect(await after.processor.direct("exact", payer.address, payment.nonce)).to.deep.equal(record);
    expect(await after.processor.acceptDirect(payment)).to.deep.equal(record);
    expect((await after.processor.status(payer.address)).reserved).to.equal(300n);
    await after.store.close();
    rmSync(folder, { recursive: true });
  });
});
