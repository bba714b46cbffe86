import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { headHex, MAX_AMOUNT, MAX_TOTAL, type Address, type Hex, type Payment } from "@bursar/protocol";
import { Store, type AcceptedPayment, type Decisions, type Refusal } from "@bursar/relayer";
import { expect } from "chai";
import { id, ZeroHash } from "ethers";
import fc from "fast-check";

import { openDatabase } from "../../packages/relayer/src/open-database.ts";
import { PAYMENTS_BOOK } from "../../packages/relayer/src/schema.ts";
import { storeUrl } from "./databases.ts";
import { addressOf, ANYTHING, draftMandate, keyOf, NOW } from "./office.ts";

const AGENT = addressOf("agent");
const SHOP = addressOf("shop");

async function withMandate(agent: Address = AGENT, given?: Store): Promise<Store> {
  const store = given ?? (await Store.open(await storeUrl(":memory:")));
  await store.addMandate({
    mandate: draftMandate(agent),
    terms: ANYTHING,
    unitScale: 1n,
    settled: { base: 1n, seq: 0n, spent: 0n },
    revokedAt: null,
    closesAt: NOW + 1_000_000n,
  });
  return store;
}

function payment(seq: bigint, overrides: Partial<Payment> = {}): Payment {
  return { seq, spent: seq, head: headHex(seq), line: { payee: SHOP, amount: 1n, ref: ZeroHash as Hex }, ...overrides };
}

function accepted(of: Payment, agent: Address = AGENT): Omit<AcceptedPayment, "logIndex" | "batch"> {
  return {
    agent,
    payment: of,
    signature: "0x00",
    digest: id(`${agent} ${of.seq}`) as Hex,
    salt: 2n ** 248n - 1n,
    settleBy: NOW + 3_600n,
    acceptedAt: NOW,
  };
}

function refused(of: Payment, digest: string, code = "above-budget"): Refusal & { digest: Hex } {
  const line = {
    rail: "proved" as const,
    agent: AGENT,
    payment: of,
    signature: "0x01" as Hex,
    digest: id(digest) as Hex,
  };
  return { ...line, code, message: `refused ${digest}`, details: { value: "1" }, advice: null, at: NOW };
}

const NOTHING: Decisions = { holds: [], payments: [], directs: [], refusals: [] };

async function pay(store: Store, ...payments: Decisions["payments"]): Promise<AcceptedPayment> {
  const recorded = await store.transact(() => store.record({ ...NOTHING, payments }));
  return recorded.payments.at(-1)!;
}

async function refuse(store: Store, ...refusals: Decisions["refusals"]): Promise<void> {
  await store.transact(() => store.record({ ...NOTHING, refusals }));
}

async function failure(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => "none",
    (error: unknown) => (error as Error).message,
  );
}

describe("the store", function () {
  this.timeout(60_000);

  it("P11 answer_implies_durable: every receipt told before kill -9 is in the books afterwards", async () => {
    const folder = mkdtempSync(join(tmpdir(), "bursar-store-"));
    for (const wanted of [1, 40, 150]) {
      const path = join(folder, `${wanted}.db`);
      const child = spawn(
        process.execPath,
        ["--import", "tsx", fileURLToPath(new URL("accepts-forever.ts", import.meta.url)), path],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      let told = "";
      child.stdout.on("data", (chunk: Buffer) => {
        told += String(chunk);
        if (told.split("\n").length > wanted) child.kill("SIGKILL");
      });
      await new Promise((resolve) => child.once("close", resolve));
      const lines = told.trim().split("\n");
      expect(lines.length).to.be.at.least(wanted);
      const store = await Store.open(await storeUrl(path));
      for (const line of lines) {
        const [seq = "", logIndex, head] = line.split(" ");
        const kept = await store.payment(addressOf("steady"), BigInt(seq));
        expect(kept && `${kept.payment.seq} ${kept.logIndex} ${kept.payment.head}`).to.equal(
          `${seq} ${logIndex} ${head}`,
        );
      }
      await store.close();
    }
    rmSync(folder, { recursive: true });
  });

  it("keeps all of a transaction or nothing", async () => {
    const store = await withMandate();
    await pay(store, accepted(payment(1n)));
    const cut = (): Promise<never> =>
      store.transact(async () => {
        await store.record({
          ...NOTHING,
          payments: [accepted(payment(2n))],
          refusals: [refused(payment(3n), "late")],
        });
        throw new Error("power cut");
      });
    expect(await failure(cut())).to.equal("power cut");
    expect(await store.counts()).to.deep.equal({ mandates: 1, payments: 1, unbatched: 1, refusals: 0, directs: 0 });
    expect(await store.ledger()).to.have.length(1);
    expect((await pay(store, accepted(payment(2n)))).logIndex).to.equal(1n);
  });

  it("refuses a second payment on one number, and a payment of no mandate", async () => {
    const store = await withMandate();
    await pay(store, accepted(payment(1n)));
    expect(await failure(pay(store, accepted(payment(1n, { spent: 9n }))))).to.match(/unique/i);
    expect(await failure(pay(store, accepted(payment(1n), SHOP)))).to.match(/foreign key/i);
    expect((await store.payment(AGENT, 1n))?.payment.spent).to.equal(1n);
  });

  it("K11: amounts and totals are exact to the unit up to 2^64 − 1, after reopening too", async () => {
    const folder = mkdtempSync(join(tmpdir(), "bursar-store-"));
    const path = join(folder, "store.db");
    const edges = [2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 63n + 1n, MAX_TOTAL];
    for (const [index, value] of edges.entries()) {
      const agent = addressOf(`edge ${index}`);
      const mandate = draftMandate(agent, { budget: value, validUntil: value });
      const settled = { base: 2n ** 253n + value, seq: 7n, spent: value };
      const one = payment(1n, { spent: value, line: { payee: SHOP, amount: MAX_AMOUNT, ref: ZeroHash as Hex } });
      const record = { mandate, terms: ANYTHING, unitScale: 10n ** 18n, settled, revokedAt: null, closesAt: NOW };
      const writing = await Store.open(await storeUrl(path));
      await writing.addMandate(record);
      await pay(writing, accepted(one, agent));
      await refuse(writing, { ...refused(payment(value, { spent: value }), `${value}`), agent });
      await writing.close();
      const reading = await Store.open(await storeUrl(path));
      expect(await reading.mandate(agent)).to.deep.equal(record);
      expect((await reading.payment(agent, 1n))?.payment).to.deep.equal(one);
      expect((await reading.refusals(agent))[0]?.payment).to.deep.equal(payment(value, { spent: value }));
      expect((await reading.ledger({ agent })).map(({ seq, amount }) => [seq, amount])).to.deep.equal([
        [value, 1n],
        [1n, MAX_AMOUNT],
      ]);
      await reading.setSettled(agent, { base: value, seq: 8n, spent: value });
      expect((await reading.mandate(agent))?.settled).to.deep.equal({ base: value, seq: 8n, spent: value });
      await reading.close();
    }
    rmSync(folder, { recursive: true });
  });

  it("K11: batch totals and debits are exact beyond 2^64", async () => {
    const store = await withMandate();
    await pay(store, accepted(payment(1n)));
    const debit = 2n ** 96n - 1n;
    const row = {
      agent: AGENT,
      seq: 0n,
      base: 1n,
      head: 2n,
      newBase: 1n,
      policyRoot: 3n,
      debit,
      count: 1n,
      offset: 0n,
    };
    const rows = [{ ...row, spent: MAX_TOTAL }];
    const id = await store.addBatch({ circuit: "tiny", token: SHOP, rows, payments: 1, total: debit, createdAt: NOW });
    expect(await store.batch(id)).to.deep.include({ rows, total: debit });
    await store.markSettled(id, { transaction: "0x01", block: 1, gasUsed: 2n ** 63n });
    expect((await store.batch(id))?.gasUsed).to.equal(2n ** 63n);
    expect((await store.mandateOf(AGENT)).settled).to.deep.equal({ base: 1n, seq: 1n, spent: MAX_TOTAL + debit });
  });

  it("journals accepted and refused payments in the order in which they came, newest first", async () => {
    const store = await withMandate();
    await pay(store, accepted(payment(1n)));
    await refuse(store, refused(payment(2n), "a"));
    await pay(store, accepted(payment(2n)));
    await refuse(store, refused(payment(3n), "b"));
    const entries = (await store.ledger()).map(({ position, kind, seq }) => ({ position, kind, seq }));
    expect(entries).to.deep.equal([
      { position: 4, kind: "refused", seq: 3n },
      { position: 3, kind: "accepted", seq: 2n },
      { position: 2, kind: "refused", seq: 2n },
      { position: 1, kind: "accepted", seq: 1n },
    ]);
    expect((await store.payments(AGENT, 1n, 2n)).map(({ logIndex }) => logIndex)).to.deep.equal([0n, 1n]);
  });

  it("records the same refusal of the same payment once, and another reason besides", async () => {
    const store = await withMandate();
    for (const code of ["above-budget", "above-budget", "mandate-expired"])
      await refuse(store, refused(payment(1n), "same", code));
    expect((await store.refusals(AGENT)).map(({ code }) => code)).to.deep.equal(["above-budget", "mandate-expired"]);
  });

  it("pages through the ledger without gap or repetition while rows arrive", async () => {
    const steps = fc.array(fc.constantFrom("pay", "refuse"), { minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(steps, steps, fc.integer({ min: 1, max: 7 }), async (before, meanwhile, limit) => {
        const store = await withMandate();
        let [seq, refusals] = [0n, 0];
        const apply = async (step: string): Promise<void> => {
          if (step === "pay") await pay(store, accepted(payment(++seq)));
          else await refuse(store, refused(payment(seq + 1n), `refusal ${++refusals}`));
        };
        for (const step of before) await apply(step);
        const seen: number[] = [];
        let late = 0;
        for (
          let page = await store.ledger({ limit });
          page.length > 0;
          page = await store.ledger({ limit, before: seen.at(-1) })
        ) {
          seen.push(...page.map(({ position }) => position));
          if (late < meanwhile.length) await apply(meanwhile[late++]!);
        }
        expect(seen).to.deep.equal(before.map((_, index) => before.length - index));
        await store.close();
      }),
      { numRuns: 60 },
    );
  });

  it("filters the ledger by agent and by payee", async () => {
    const other = addressOf("other");
    const store = await withMandate(other, await withMandate());
    await pay(store, accepted(payment(1n)));
    await pay(store, accepted(payment(1n, { line: { payee: other, amount: 1n, ref: ZeroHash as Hex } }), other));
    expect((await store.ledger({ agent: AGENT })).map(({ agent }) => agent)).to.deep.equal([AGENT]);
    expect((await store.ledger({ payee: other })).map(({ payee }) => payee)).to.deep.equal([other]);
    expect(await store.ledger({ agent: AGENT, payee: other })).to.deep.equal([]);
  });

  it("offers each mandate with its most urgent promise, and none whose batch is under way", async () => {
    const other = addressOf("other");
    const store = await withMandate(other, await withMandate());
    const { token } = draftMandate(AGENT);
    await pay(store, { ...accepted(payment(1n)), settleBy: NOW + 200n });
    await pay(store, { ...accepted(payment(1n), other), settleBy: NOW + 100n, acceptedAt: NOW + 1n });
    await pay(store, { ...accepted(payment(2n)), settleBy: NOW + 300n, acceptedAt: NOW + 2n });
    const ofOther = { agent: other, token, from: 0n, to: 1n, settleBy: NOW + 100n, acceptedAt: NOW + 1n };
    expect(await store.unbatched()).to.have.deep.members([
      ofOther,
      { agent: AGENT, token, from: 0n, to: 2n, settleBy: NOW + 200n, acceptedAt: NOW },
    ]);
    const row = {
      agent: AGENT,
      seq: 0n,
      base: 1n,
      head: 2n,
      newBase: 1n,
      policyRoot: 3n,
      debit: 1n,
      count: 1n,
      offset: 0n,
    };
    const rows = [{ ...row, spent: 0n }];
    const id = await store.addBatch({ circuit: "tiny", token: SHOP, rows, payments: 1, total: 1n, createdAt: NOW });
    expect(await store.unbatched()).to.deep.equal([ofOther]);
    await store.markFailed(id, "refused");
    expect((await store.unbatched()).map(({ agent, to }) => [agent, to])).to.have.deep.members([
      [other, 1n],
      [AGENT, 2n],
    ]);
    expect((await store.ledger({ agent: AGENT })).map(({ status, batch }) => [status, batch])).to.deep.equal([
      ["accepted", null],
      ["accepted", null],
    ]);
  });

  it("tells the earliest promise of what waits, wherever it stands, and nothing of what is settled", async () => {
    const store = await withMandate();
    const promises = [10n, 40n, 20n, 30n];
    for (const [index, left] of promises.entries()) {
      const seq = BigInt(index + 1);
      await pay(store, { ...accepted(payment(seq)), settleBy: NOW + left, acceptedAt: NOW + seq });
    }
    const waiting = async (): Promise<unknown> =>
      (await store.unbatched()).map(({ from, to, settleBy, acceptedAt }) => [from, to, settleBy, acceptedAt]);
    expect(await waiting()).to.deep.equal([[0n, 4n, NOW + 10n, NOW + 1n]]);
    // As after a restore: the chain has settled a payment that the books have in no batch.
    await store.setSettled(AGENT, { base: 1n, seq: 1n, spent: 1n });
    expect(await waiting()).to.deep.equal([[1n, 4n, NOW + 20n, NOW + 2n]]);
    await store.setSettled(AGENT, { base: 1n, seq: 4n, spent: 4n });
    expect(await waiting()).to.deep.equal([]);
  });

  it("offers no mandate that is left out, or that the contract settles no more", async () => {
    const other = addressOf("other");
    let clock = NOW;
    const store = await Store.open(await storeUrl(":memory:"), { now: () => clock });
    for (const agent of [AGENT, other]) await withMandate(agent, store);
    await pay(store, accepted(payment(1n)));
    await pay(store, accepted(payment(1n), other));
    const agents = async (): Promise<Address[]> => (await store.unbatched()).map(({ agent }) => agent);
    expect(await agents()).to.have.members([AGENT, other]);
    await store.exclude(AGENT, "refused");
    expect(await agents()).to.deep.equal([other]);
    clock = NOW + 1_000_000n;
    expect(await agents()).to.deep.equal([]);
  });

  it("knows the slowest recent proof of each circuit, and whom settled batches have credited", async () => {
    const store = await withMandate();
    await pay(store, accepted(payment(1n)));
    const { token } = draftMandate(AGENT);
    const row = { agent: AGENT, seq: 0n, base: 1n, head: 2n, newBase: 1n, policyRoot: 3n, debit: 1n, count: 1n };
    const rows = [{ ...row, offset: 0n, spent: 0n }];
    const batch = { circuit: "tiny", token, rows, payments: 1, total: 1n, createdAt: NOW };
    const ids: number[] = [];
    for (const [circuit, took] of [
      ["tiny", 90],
      ["default", 500],
      ["tiny", 70],
    ] as const) {
      ids.push(await store.addBatch({ ...batch, circuit }));
      await store.markProved(ids.at(-1)!, "0x", took);
    }
    await store.addBatch({ ...batch, circuit: "large", rows: [] });
    expect([...(await store.provingTimes())].sort()).to.deep.equal([
      ["default", 500],
      ["tiny", 90],
    ]);
    expect(await store.credited(token)).to.deep.equal(new Set());
    await store.markSettled(ids.at(-1)!, { transaction: "0x01", block: 1, gasUsed: 1n });
    expect(await store.credited(token)).to.deep.equal(new Set([SHOP]));
    expect(await store.credited(SHOP)).to.deep.equal(new Set());
  });

  it("brings the books of an older version to the newest, with what is in them", async () => {
    const folder = mkdtempSync(join(tmpdir(), "bursar-store-"));
    const url = await storeUrl(join(folder, "old.db"));
    const old = openDatabase(url);
    await old.open([{ ...PAYMENTS_BOOK, versions: PAYMENTS_BOOK.versions.slice(0, 1) }]);
    await old.close();
    const store = await Store.open(url);
    await pay(await withMandate(AGENT, store), accepted(payment(1n)));
    expect(await store.unbatched()).to.have.length(1);
    await store.close();
    const again = await Store.open(url);
    expect(await again.counts()).to.include({ payments: 1, unbatched: 1 });
    await again.close();
    rmSync(folder, { recursive: true });
  });

  it("registers a mandate once and keeps the first revocation", async () => {
    const store = await withMandate();
    await store.markRevoked(AGENT, 5n);
    await store.markRevoked(AGENT, 6n);
    await withMandate(AGENT, store);
    expect((await store.mandateOf(AGENT)).revokedAt).to.equal(5n);
    expect(await store.mandates()).to.have.length(1);
    expect(await store.mandate(keyOf("nobody").address as Address)).to.equal(undefined);
  });
});
