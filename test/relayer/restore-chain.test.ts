import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Address } from "@bursar/protocol";
import { Outbox, Processor, receiptKey, Settler, Store, Witness, type HandedBack } from "@bursar/relayer";
import { expect } from "chai";

import { TestRail, type PayingAgent } from "../integration/rail.ts";
import { copyBooks } from "./backups.ts";
import { storeUrl } from "./databases.ts";
import { refusalOf } from "./office.ts";

/** A processor on the rail's chain with books that can be put back. */
class Desk {
  readonly store: Store;
  readonly processor: Processor;
  readonly settler: Settler;
  readonly #witness: Witness;

  private constructor(rail: TestRail, store: Store, witness: Witness) {
    const { domain, chain, provider, processorKey: signer, circuits, prover } = rail;
    const now = (): bigint => rail.now();
    this.store = store;
    this.#witness = witness;
    const key = receiptKey(signer);
    this.processor = new Processor({ domain, store, chain, key, witness, settleWithin: 3_600n, maxSkew: null, now });
    const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));
    const pace = { finality: 1, replaceAfter: 60n, pollInterval: 20 };
    const outbox = new Outbox({ store, provider, signer, ...pace, now, sleep });
    const sender = signer.address as Address;
    this.settler = new Settler({ domain, store, circuits, gateway: chain, prover, outbox, sender, now });
  }

  static async open(rail: TestRail, path: string, witness: string): Promise<Desk> {
    const store = await Store.open(await storeUrl(path), { now: () => rail.now() });
    return new Desk(rail, store, Witness.open(witness));
  }

  async pay(agent: PayingAgent, payee: Address, times: number): Promise<HandedBack[]> {
    const paid: HandedBack[] = [];
    for (let i = 0; i < times; ++i) {
      const payment = await agent.sign(payee, 1n);
      paid.push({ payment, receipt: await this.processor.accept(payment) });
      agent.ledger.commit();
    }
    return paid;
  }

  async close(): Promise<void> {
    await this.store.close();
    this.#witness.close();
  }
}

describe("restored books and a chain that knows more", function () {
  this.timeout(240_000);
  let rail: TestRail;
  let folder: string;
  let desk: Desk;

  before(async () => {
    rail = await TestRail.start();
    folder = mkdtempSync(join(tmpdir(), "bursar-restore-"));
    desk = await open("books.db");
  });
  after(async () => {
    await desk.close();
    await rail.stop();
    rmSync(folder, { recursive: true });
  });

  const open = (books: string): Promise<Desk> => Desk.open(rail, join(folder, books), join(folder, "witness"));

  /** An agent whose mandate stands on chain and in the books. */
  async function newAgent(): Promise<PayingAgent> {
    const agent = await rail.open();
    const { mandate, terms } = await rail.store.mandateOf(agent.address);
    await desk.processor.register(mandate, terms);
    return agent;
  }

  it("agree before anything is signed: what is settled is settled once, and nothing is lost or settled twice", async () => {
    const shop = rail.payee();
    const [ada, ben] = [await newAgent(), await newAgent()];
    const paid = { ada: await desk.pay(ada, shop, 3), ben: [] as HandedBack[] };
    await desk.settler.run();
    paid.ben.push(...(await desk.pay(ben, shop, 2)));
    const planned = await desk.settler.plan();
    await desk.close();
    await copyBooks(join(folder, "books.db"), join(folder, "backup.db"));

    desk = await open("books.db");
    const dan = await newAgent();
    paid.ada.push(...(await desk.pay(ada, shop, 9)));
    const dans = await desk.pay(dan, shop, 2);
    const eve = await newAgent();
    await desk.settler.run();
    paid.ben.push(...(await desk.pay(ben, shop, 1)));
    await desk.settler.run();
    paid.ada.push(...(await desk.pay(ada, shop, 1)));
    paid.ben.push(...(await desk.pay(ben, shop, 1)));
    const eves = await desk.pay(eve, shop, 1);
    await (await rail.chain.registry.connect(rail.owner).revoke(eve.address, 1n)).wait();
    const told = [...paid.ada, ...paid.ben, ...dans, ...eves];
    await desk.close();

    desk = await open("backup.db");
    await desk.processor.reconcile();
    // The chain answers for 12 and 3 payments; the books forgot Dan and Eve.
    expect(await desk.processor.completeness()).to.deep.equal({ promised: 20, missing: 5 });
    const planless = await desk.store.batch(planned!.id);
    expect(planless).to.include({ state: "failed" });
    expect(await desk.settler.run()).to.deep.equal([]);
    expect(await desk.processor.payment(ben.address, 2n)).to.include({ status: "settled", transaction: null });
    expect((await refusalOf(() => desk.pay(ben, shop, 1))).code).to.equal("books-behind");
    ben.ledger.discard();

    // A mandate that is not known any more is taken up where the chain stands; agents need not have kept what is settled.
    for (const { address } of [dan, eve]) {
      const { mandate, terms } = await rail.store.mandateOf(address);
      await desk.processor.register(mandate, terms);
    }
    expect(await desk.processor.completeness()).to.deep.equal({ promised: 20, missing: 3 });
    expect(await desk.processor.takeBack(eves)).to.deep.equal({ promised: 20, missing: 2 });
    await desk.processor.takeBack(paid.ada.slice(7));
    expect(await desk.processor.takeBack(paid.ben.slice(2))).to.deep.equal({ promised: 20, missing: 0 });
    expect((await refusalOf(() => desk.pay(eve, shop, 1))).code).to.equal("mandate-revoked");
    expect((await refusalOf(() => desk.pay(dan, shop, 1))).message).to.contain("The chain knows payments");
    dan.ledger.discard();
    expect(await desk.processor.takeBack(dans)).to.deep.equal({ promised: 20, missing: 0 });

    for (const agent of [ada, ben, dan]) told.push(...(await desk.pay(agent, shop, 1)));
    expect(told.map(({ receipt }) => receipt.receipt.logIndex).sort((a, b) => Number(a - b))).to.deep.equal(
      Array.from({ length: 23 }, (_, i) => BigInt(i)),
    );
    await desk.settler.run();
    for (const [agent, seq] of [
      [ada, 14n],
      [ben, 5n],
      [dan, 3n],
      [eve, 1n],
    ] as const) {
      expect(await rail.chain.mandate(agent.address)).to.include({ seq, spent: seq });
      expect((await desk.processor.status(agent.address)).settled).to.include({ seq, spent: seq });
      expect(await desk.store.excluded(agent.address)).to.equal(null);
    }
    const scale = await rail.chain.escrow.unitScale(rail.token);
    expect((await rail.chain.escrow.creditOf(rail.token, shop)) / scale).to.equal(23n);
    await desk.close();
    desk = await open("backup.db");
    await desk.processor.reconcile();
    told.push(...(await desk.pay(ada, shop, 1)));
  });

  it("go on by themselves where the chain alone answers for what they have forgotten", async () => {
    const shop = rail.payee();
    const agent = await newAgent();
    await desk.close();
    await copyBooks(join(folder, "backup.db"), join(folder, "second.db"));
    desk = await open("backup.db");
    await desk.pay(agent, shop, 7);
    await desk.settler.run();
    await desk.close();
    desk = await open("second.db");
    await desk.processor.reconcile();
    expect((await desk.processor.completeness()).missing).to.equal(0);
    const [next] = await desk.pay(agent, shop, 1);
    expect(next!.receipt.receipt.seq).to.equal(8n);
    await desk.settler.run();
    expect(await rail.chain.mandate(agent.address)).to.include({ seq: 8n, spent: 8n });
  });
});
