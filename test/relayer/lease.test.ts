import { mkdtempSync, rmSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Lease, Store } from "@bursar/relayer";
import { expect } from "chai";

import { storeUrl } from "./databases.ts";
import { refusalOf } from "./office.ts";

const NAME = "sending";

describe("a lease", function () {
  this.timeout(60_000);
  let folder: string;
  let books: Store[];

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "bursar-lease-"));
    const url = await storeUrl(join(folder, "books.db"));
    books = [await Store.open(url), await Store.open(url)];
  });

  afterEach(async () => {
    for (const store of books) await store.close();
    rmSync(folder, { recursive: true });
  });

  /** Of a process elsewhere, whose death nobody here can see. */
  function leaseOf(process: number, term = 1, holder = `elsewhere/1/${process}`): Lease {
    return new Lease({ database: books[process]!.database, name: NAME, term, holder });
  }

  it("is held by one process at a time, by the same one as often as it likes", async () => {
    const [first, second] = [leaseOf(0, 30), leaseOf(1, 30)];
    expect(await first.run(() => Promise.resolve("mine"))).to.equal("mine");
    expect(await second.run(() => Promise.resolve("mine"))).to.equal(undefined);
    expect(await first.run(() => Promise.resolve("still"))).to.equal("still");
  });

  it("is free at once when it is given back", async () => {
    const [first, second] = [leaseOf(0, 30), leaseOf(1, 30)];
    await first.run(() => Promise.resolve());
    await first.release();
    expect(await second.run(() => Promise.resolve(true))).to.equal(true);
  });

  it("lasts as long as its work, however long that takes", async () => {
    const [first, second] = [leaseOf(0, 3), leaseOf(1, 3)];
    const taken: unknown[] = [];
    await first.run(async () => {
      for (let i = 0; i < 8; ++i) {
        await sleep(800);
        taken.push(await second.run(() => Promise.resolve("stolen")));
      }
    });
    expect(taken).to.deep.equal(Array.from({ length: 8 }, () => undefined));
  });

  it("is free when its term ends without a sign of life", async () => {
    await leaseOf(0).run(() => Promise.resolve());
    await sleep(2_100);
    expect(await leaseOf(1).run(() => Promise.resolve(true))).to.equal(true);
  });

  it("is not waited for when its holder was a process of this machine and is gone", async () => {
    const gone = leaseOf(0, 600, `${hostname()}/${2 ** 22 + 1}/x`);
    await gone.run(() => Promise.resolve());
    expect(await leaseOf(1).run(() => Promise.resolve(true))).to.equal(true);
  });

  it("of another process writes nothing any more, neither in a transaction nor alone", async () => {
    const [store] = books;
    const slow = leaseOf(0);
    const refusals = await slow.run(async () => {
      await store!.setCursor("before", 1);
      await takeOver();
      return [
        await refusalOf(() => store!.setCursor("late", 1)),
        await refusalOf(() => store!.transact(() => store!.setCursor("late", 2))),
      ];
    });
    expect(refusals!.map(({ code }) => code)).to.deep.equal(["lease-lost", "lease-lost"]);
    expect(await store!.cursor("before")).to.equal(1);
    expect(await store!.cursor("late")).to.equal(null);
    expect(await slow.run(() => Promise.resolve(true)), "the other one holds it").to.equal(undefined);
  });

  it("keeps no reader from reading, and no other writer from writing", async () => {
    const [store, other] = books;
    await leaseOf(0, 30).run(async () => {
      await other!.setCursor("other", 7);
      expect(await store!.cursor("other")).to.equal(7);
    });
  });

  /** As when the holder was stopped for longer than its term. */
  async function takeOver(): Promise<void> {
    await books[1]!.database.run("UPDATE lease SET until = 0 WHERE name = ?", NAME);
    expect(await leaseOf(1, 30).run(() => Promise.resolve(true))).to.equal(true);
  }
});
