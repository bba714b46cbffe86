import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { signWithKey, type DirectPayment, type Hex, type SignedPayment } from "@bursar/protocol";
import { Witness, type HandedBack } from "@bursar/relayer";
import { expect } from "chai";
import { id, ZeroHash } from "ethers";

import type { PayingAgent } from "../integration/rail.ts";
import { copyBooks } from "./backups.ts";
import { addressOf, NOW, Office, refusalOf, signAs } from "./office.ts";

const SHOP = addressOf("shop");

describe("books that were restored from a backup", function () {
  this.timeout(60_000);
  let folder: string;
  let books: string;
  let backup: string;
  const closing: (() => unknown)[] = [];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bursar-restore-"));
    books = join(folder, "books.db");
    backup = join(folder, "backup.db");
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
    rmSync(folder, { recursive: true });
  });

  /** A process with its own witness. */
  async function open(path = books, name = "witness"): Promise<Office> {
    const witness = Witness.open(join(folder, name));
    const office = await Office.open(path, { witness });
    closing.push(
      () => office.store.close(),
      () => witness.close(),
    );
    // This office has no chain: its witness alone is asked.
    await office.processor.reconcile().catch(() => undefined);
    return office;
  }

  async function close(): Promise<void> {
    for (const end of closing.splice(0).reverse()) await end();
  }

  async function pay(office: Office, agent: PayingAgent, amount: bigint): Promise<HandedBack> {
    const payment = await agent.sign(SHOP, amount);
    const receipt = await office.processor.accept(payment);
    agent.ledger.commit();
    return { payment, receipt };
  }

  interface Lost {
    readonly office: Office;
    readonly agents: { readonly ada: PayingAgent; readonly ben: PayingAgent };
    /** What was accepted after the backup. */
    readonly lost: { readonly ada: HandedBack[]; readonly ben: HandedBack[] };
    /** All books, as they were. */
    readonly before: string;
  }

  /** Ada and Ben pay, a backup is made, they pay on, and the backup is put in the place of the books. */
  async function putBack(witness = "witness"): Promise<Lost> {
    const first = await open();
    const agents = { ada: await first.agent("Ada"), ben: await first.agent("Ben") };
    await pay(first, agents.ada, 1n);
    await pay(first, agents.ben, 2n);
    await close();
    await copyBooks(books, backup);
    const second = await open();
    const lost: Lost["lost"] = { ada: [], ben: [] };
    for (let i = 0n; i < 8n; ++i) lost.ada.push(await pay(second, agents.ada, 10n + i));
    for (let i = 0n; i < 2n; ++i) lost.ben.push(await pay(second, agents.ben, 20n + i));
    const before = await ledgerOf(second);
    await close();
    return { office: await open(backup, witness), agents, lost, before };
  }

  /** All that was accepted, in the order of receipts. */
  async function ledgerOf(office: Office): Promise<string> {
    const rows = await office.store.database.all(
      "SELECT log_index, at, agent, seq, spent, payee, amount, head, salt, digest, signature, settle_by FROM payment ORDER BY log_index",
    );
    return JSON.stringify(rows);
  }

  it("sign nothing for anybody, and say how many receipts are missing", async () => {
    const { office, agents } = await putBack();
    const fresh = await office.agent("a new agent");
    for (const agent of [agents.ada, agents.ben, fresh]) {
      const payment = await agent.sign(SHOP, 1n);
      const refusal = await refusalOf(() => office.processor.accept(payment));
      expect(refusal.code).to.equal("books-behind");
      expect(refusal.details).to.deep.equal({ value: "2", limit: "12" });
      expect((await refusalOf(() => office.processor.check(payment))).code).to.equal("books-behind");
    }
    expect((await refusalOf(() => office.processor.acceptDirect(directOf(fresh)))).code).to.equal("books-behind");
    expect(await office.processor.completeness()).to.deep.equal({ promised: 12, missing: 10 });
    expect(await office.store.counts()).to.include({ payments: 2, refusals: 0, directs: 0 });
  });

  it("are whole again when every receipt was handed back: byte for byte, under its number, and payments go on", async () => {
    const { office, agents, lost, before } = await putBack();
    expect(await office.processor.takeBack(lost.ben)).to.deep.equal({ promised: 12, missing: 8 });
    expect((await refusalOf(() => pay(office, agents.ben, 1n))).code).to.equal("books-behind");
    agents.ben.ledger.discard();
    expect(await office.processor.takeBack(lost.ada.slice(0, 5))).to.deep.equal({ promised: 12, missing: 3 });
    expect(await office.processor.takeBack(lost.ada)).to.deep.equal({ promised: 12, missing: 0 });
    expect(await ledgerOf(office)).to.equal(before);
    for (const { payment, receipt } of [...lost.ada, ...lost.ben]) {
      expect(await office.processor.accept(payment)).to.deep.equal(receipt);
    }
    expect((await pay(office, agents.ada, 1n)).receipt.receipt.logIndex).to.equal(12n);
  });

  it("take a receipt back once, however often it comes, and in the order of its ledger only", async () => {
    const { office, lost } = await putBack();
    expect((await refusalOf(() => office.processor.takeBack(lost.ada.slice(1)))).code).to.equal("sequence-gap");
    expect((await refusalOf(() => office.processor.takeBack([...lost.ada].reverse()))).code).to.equal("sequence-gap");
    expect(await office.store.counts()).to.include({ payments: 2 });
    await office.processor.takeBack(lost.ada);
    const once = await ledgerOf(office);
    await Promise.all([lost.ada, lost.ada].map((handed) => office.processor.takeBack(handed)));
    expect(await ledgerOf(office)).to.equal(once);
  });

  it("take nothing back that processor and agent have not both signed, or that is about another payment", async () => {
    const { office, agents, lost } = await putBack();
    const [first] = lost.ben as [HandedBack];
    const { payment, receipt } = first;
    const forged: Record<string, HandedBack> = {
      "receipt-invalid": { payment, receipt: { ...receipt, receipt: { ...receipt.receipt, logIndex: 99n } } },
      "signature-signer": { payment: { ...payment, signature: lost.ada[0]!.payment.signature }, receipt },
      "receipt-mismatch": { payment, receipt: lost.ben[1]!.receipt },
      "head-mismatch": { payment: { ...payment, salt: 1n }, receipt },
      "mandate-unknown": { payment: { ...payment, agent: addressOf("nobody") }, receipt },
    };
    for (const [code, handed] of Object.entries(forged)) {
      expect((await refusalOf(() => office.processor.takeBack([handed]))).code).to.equal(code);
    }
    const other = await rival(agents.ben, payment);
    expect((await refusalOf(() => office.processor.takeBack([{ payment: other, receipt }]))).code).to.equal(
      "receipt-mismatch",
    );
    expect(await office.processor.completeness()).to.deep.equal({ promised: 12, missing: 10 });
  });

  it("take a mandate up again that they have forgotten, and its payments with it", async () => {
    const first = await open();
    await pay(first, await first.agent("Ada"), 1n);
    await close();
    await copyBooks(books, backup);
    const second = await open();
    const dan = await second.agent("Dan");
    const handed = [await pay(second, dan, 5n), await pay(second, dan, 6n)];
    await close();
    const office = await open(backup);
    expect((await refusalOf(() => office.processor.takeBack(handed))).code).to.equal("mandate-unknown");
    await office.agent("Dan");
    expect(await office.processor.takeBack(handed)).to.deep.equal({ promised: 3, missing: 0 });
    expect((await pay(office, dan, 7n)).receipt.receipt).to.include({ seq: 3n, logIndex: 3n });
  });

  it("learn from a receipt itself that they are behind, where no witness is left", async () => {
    const { office, lost } = await putBack("the witness of another machine");
    await office.processor.takeBack(lost.ada.slice(0, 1));
    const fresh = await office.agent("a new agent");
    await office.processor.takeBack([...lost.ada, ...lost.ben.slice(0, 1)]);
    expect(await office.processor.completeness()).to.deep.equal({ promised: 11, missing: 0 });
    expect((await pay(office, fresh, 1n)).receipt.receipt.logIndex).to.equal(11n);
    // One number too early: now two histories are out, and the books refuse the other one.
    expect((await refusalOf(() => office.processor.takeBack(lost.ben))).code).to.equal("books-conflict");
  });

  it("are refused as a whole when they hold another receipt under a number that was told", async () => {
    const { office } = await putBack("none");
    const fresh = await office.agent("a new agent");
    for (let i = 0n; i < 10n; ++i) await pay(office, fresh, 1n);
    await close();
    const told = await open(backup);
    const refusal = await refusalOf(() => told.processor.reconcile());
    expect(refusal.code).to.equal("books-conflict");
    expect((await refusalOf(() => pay(told, fresh, 1n))).code).to.equal("books-conflict");
    expect(await told.store.counts()).to.include({ payments: 12 });
  });

  it("stop every process that shares them, whichever of them has told more", async () => {
    const { office, agents, lost } = await putBack("another process");
    const knowing = await open(backup);
    await refusalOf(async () => knowing.processor.accept(await agents.ada.sign(SHOP, 1n)));
    agents.ada.ledger.discard();
    const fresh = await office.agent("a new agent");
    expect((await refusalOf(() => pay(office, fresh, 1n))).code).to.equal("books-behind");
    fresh.ledger.discard();
    await office.processor.takeBack(lost.ada);
    await knowing.processor.takeBack(lost.ben);
    expect((await pay(office, fresh, 1n)).receipt.receipt.logIndex).to.equal(12n);
    expect((await pay(knowing, agents.ada, 1n)).receipt.receipt.logIndex).to.equal(13n);
  });

  it("go on without what never comes back when the operator says so, and remember it", async () => {
    const { office, agents, lost } = await putBack();
    await office.processor.takeBack(lost.ben);
    expect(await office.processor.acceptLoss()).to.equal(8);
    expect(await office.processor.acceptLoss()).to.equal(0);
    expect((await pay(office, agents.ben, 1n)).receipt.receipt.logIndex).to.equal(12n);
    expect(await office.store.database.all("SELECT at, receipts FROM loss")).to.deep.equal([
      { at: Number(NOW), receipts: 8 },
    ]);
    // What comes back after all is taken, and the count stays right.
    expect(await office.processor.takeBack(lost.ada)).to.deep.equal({ promised: 13, missing: 0 });
    expect((await pay(office, agents.ada, 1n)).receipt.receipt).to.include({ seq: 10n, logIndex: 13n });
    expect(await office.processor.completeness()).to.deep.equal({ promised: 14, missing: 0 });
  });

  it("are no backup where nothing was told after it", async () => {
    const first = await open();
    const agent = await first.agent("Ada");
    await pay(first, agent, 1n);
    await close();
    await copyBooks(books, backup);
    const office = await open(backup);
    expect((await pay(office, agent, 1n)).receipt.receipt.logIndex).to.equal(1n);
  });

  it("count against the budget what the chain has settled directly without them", async () => {
    const office = await open();
    const agent = await office.agent("Ada", { budget: 100n });
    await office.store.setUnknownDirect(agent.address, 90n);
    expect(await office.processor.status(agent.address)).to.include({ reserved: 90n, remaining: 10n });
    expect((await refusalOf(() => agent.pay(SHOP, 11n))).code).to.equal("above-budget");
    await agent.pay(SHOP, 10n);
  });

  /** Another payment of the same agent under the same number. */
  async function rival(agent: PayingAgent, { payment, salt }: SignedPayment): Promise<SignedPayment> {
    const spent = payment.spent + 1n;
    return signAs(agent, { ...payment, spent, line: { ...payment.line, amount: payment.line.amount + 1n } }, salt);
  }

  function directOf({ address, wallet }: PayingAgent): DirectPayment {
    const digest = id("a direct payment") as Hex;
    const signature = signWithKey(digest, wallet.privateKey as Hex);
    const until = { validAfter: NOW - 1n, validBefore: NOW + 60n };
    const what = { payee: SHOP, amount: 1n, ref: ZeroHash as Hex, token: addressOf("token"), nonce: ZeroHash as Hex };
    return { kind: "exact", agent: address, ...what, ...until, digest, signature };
  }
});
