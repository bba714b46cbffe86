import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

import {
  openDatabase,
  PgBossQueue,
  TableQueue,
  type Database,
  type HeldJob,
  type ProofJob,
  type ProofQueue,
  type ProofQueueOptions,
} from "@bursar/relayer";
import { expect } from "chai";

import { postgresUrl } from "./databases.ts";
import { addressOf, NOW } from "./office.ts";

interface Implementation {
  readonly name: string;
  /** Seconds of the shortest lease, and until one that is over is seen at the latest. */
  readonly term: number;
  readonly seen: number;
  readonly url: (path: string) => Promise<string>;
  readonly open: (database: Database, options: ProofQueueOptions) => Promise<ProofQueue>;
  /** Does what several processes do: at once where one thread can wait for several connections. */
  readonly race: <T>(work: readonly (() => Promise<T>)[]) => Promise<T[]>;
}

async function inTurn<T>(work: readonly (() => Promise<T>)[]): Promise<T[]> {
  const done: T[] = [];
  for (const one of work) done.push(await one());
  return done;
}

const IMPLEMENTATIONS: readonly Implementation[] = [
  {
    name: "a table in SQLite",
    term: 2,
    seen: 3,
    url: (path) => Promise.resolve(path),
    open: (database, options) => TableQueue.open(database, options),
    race: inTurn,
  },
  {
    name: "pg-boss",
    term: 10,
    seen: 18,
    url: postgresUrl,
    open: (database, options) => PgBossQueue.open(database, options),
    race: (work) => Promise.all(work.map((one) => one())),
  },
];

const job = (batch: number, settleBy = Number(NOW), circuit = "tiny"): ProofJob => ({
  batch,
  circuit,
  circuitId: `0x${"c1".repeat(32)}`,
  chainId: 31_337,
  settlement: addressOf("settlement"),
  settleBy,
});

const CIRCUITS = ["tiny", "default"];

for (const { name, term, seen, url, open, race } of IMPLEMENTATIONS) {
  describe(`the queue of proofs in ${name}`, function () {
    this.timeout(120_000);
    let folder: string;
    let place: string;
    const opened: { database: Database; queue: ProofQueue }[] = [];

    /** What another process of the farm has. */
    async function another(options: ProofQueueOptions = {}): Promise<{ database: Database; queue: ProofQueue }> {
      const database = openDatabase(place);
      const queue = await open(database, { term, backoff: 1, ...options });
      opened.push({ database, queue });
      return { database, queue };
    }

    beforeEach(async () => {
      folder = mkdtempSync(join(tmpdir(), "bursar-queue-"));
      place = await url(join(folder, "books.db"));
    });
    afterEach(async () => {
      for (const { queue } of opened) await queue.close();
      for (const { database } of opened.splice(0)) await database.close();
      rmSync(folder, { recursive: true });
    });

    async function taken(queue: ProofQueue, within: number): Promise<HeldJob | undefined> {
      const end = Date.now() + within * 1_000;
      while (Date.now() < end) {
        const held = await queue.take(CIRCUITS);
        if (held) return held;
        await setTimeout(100);
      }
      return undefined;
    }

    it("gives what was sent, once, to whoever asks first", async () => {
      const [a, b] = [await another(), await another()];
      await a.queue.send(job(7));
      expect(await a.queue.counts()).to.deep.equal({ waiting: 1, active: 0, dead: 0 });
      const takes = [a, b, a, b].map((one) => () => one.queue.take(CIRCUITS));
      const given = (await race(takes)).filter(Boolean);
      expect(given).to.have.length(1);
      expect(given[0]).to.deep.include({ ...job(7), attempt: 1 });
      expect(await b.queue.counts()).to.deep.equal({ waiting: 0, active: 1, dead: 0 });
      await given[0]!.complete();
      await given[0]!.complete();
      expect(await a.queue.counts()).to.deep.equal({ waiting: 0, active: 0, dead: 0 });
      expect(await a.queue.take(CIRCUITS)).to.equal(undefined);
    });

    it("knows nothing of a job whose transaction was rolled back, and has one whose transaction committed", async () => {
      const { database, queue } = await another();
      const crash = new Error("the process ends here");
      const sent = database.transact(async () => {
        await queue.send(job(1));
        throw crash;
      });
      expect(await sent.catch((error: unknown) => error)).to.equal(crash);
      expect(await queue.take(CIRCUITS)).to.equal(undefined);
      await database.transact(() => queue.send(job(2)));
      expect((await queue.take(CIRCUITS))?.batch).to.equal(2);
    });

    it("ends a job only if the transaction around it commits", async () => {
      const { database, queue } = await another();
      await queue.send(job(1));
      const held = (await queue.take(CIRCUITS))!;
      const ended = database.transact(async () => {
        await held.complete();
        throw new Error("nothing was written");
      });
      expect(await ended.catch((error: unknown) => (error as Error).message)).to.equal("nothing was written");
      expect(await queue.counts()).to.deep.equal({ waiting: 0, active: 1, dead: 0 });
      await database.transact(() => held.complete());
      expect(await queue.counts()).to.deep.equal({ waiting: 0, active: 0, dead: 0 });
    });

    it("has one job for each batch, however often it is sent", async () => {
      const { queue } = await another();
      for (let again = 0; again < 3; ++again) await queue.send(job(3));
      expect(await queue.counts()).to.deep.equal({ waiting: 1, active: 0, dead: 0 });
      const held = (await queue.take(CIRCUITS))!;
      await queue.send(job(3));
      expect(await queue.take(CIRCUITS)).to.equal(undefined);
      await held.complete();
    });

    it("gives the job that settles by the earliest time first, over all circuits that a worker proves", async () => {
      const { queue } = await another();
      const due = Number(NOW);
      await queue.send(job(1, due + 300));
      await queue.send(job(2, due + 100, "default"));
      await queue.send(job(3, due + 200));
      await queue.send(job(4, due + 50, "large"));
      const order: number[] = [];
      for (let held = await queue.take(CIRCUITS); held; held = await queue.take(CIRCUITS)) order.push(held.batch);
      expect(order).to.deep.equal([2, 3, 1]);
      expect((await queue.take(["large"]))?.batch).to.equal(4);
    });

    it("keeps a job with the worker that renews it, and tells when it is over", async () => {
      const [a, b] = [await another(), await another()];
      await a.queue.send(job(1));
      const held = (await a.queue.take(CIRCUITS))!;
      const end = Date.now() + (term + seen) * 1_000;
      while (Date.now() < end) {
        expect(await held.renew()).to.equal(true);
        expect(await b.queue.take(CIRCUITS)).to.equal(undefined);
        await setTimeout((term * 1_000) / 4);
      }
      await held.complete();
      expect(await held.renew()).to.equal(false);
    });

    it("gives the job of a worker that is not heard of to another, and nothing that the first says then counts", async () => {
      const [a, b] = [await another(), await another()];
      await a.queue.send(job(1));
      const lost = (await a.queue.take(CIRCUITS))!;
      const next = (await taken(b.queue, term + seen))!;
      expect([next.batch, next.attempt]).to.deep.equal([1, 2]);
      expect(await lost.renew()).to.equal(false);
      await lost.complete();
      await lost.fail("too late", true);
      await lost.release();
      expect(await b.queue.counts()).to.deep.equal({ waiting: 0, active: 1, dead: 0 });
      await next.complete();
      expect(await a.queue.counts()).to.deep.equal({ waiting: 0, active: 0, dead: 0 });
    });

    it("tries what failed again after a while, and gives it up after the last attempt, with the reason", async () => {
      const { queue } = await another({ attempts: 2 });
      await queue.send(job(5));
      await (await queue.take(CIRCUITS))!.fail("no memory", false);
      expect(await queue.take(CIRCUITS)).to.equal(undefined);
      expect(await queue.counts()).to.deep.equal({ waiting: 1, active: 0, dead: 0 });
      await (await taken(queue, 10))!.fail("no memory again", false);
      expect(await queue.counts()).to.deep.equal({ waiting: 0, active: 0, dead: 1 });
      expect(await queue.dead()).to.deep.equal([{ batch: 5, circuit: "tiny", reason: "no memory again" }]);
      await queue.send(job(5));
      expect(await taken(queue, 3)).to.equal(undefined);
    });

    it("gives up at once what cannot go well, and tries it from the start when told to", async () => {
      const { queue } = await another();
      await queue.send(job(1));
      await queue.send(job(2));
      for (let held = await queue.take(CIRCUITS); held; held = await queue.take(CIRCUITS))
        await held.fail(`the proof of ${held.batch} does not verify`, true);
      expect(await queue.dead()).to.deep.equal([
        { batch: 1, circuit: "tiny", reason: "the proof of 1 does not verify" },
        { batch: 2, circuit: "tiny", reason: "the proof of 2 does not verify" },
      ]);
      expect([await queue.retry(1), await queue.retry(1), await queue.retry(9)]).to.deep.equal([true, false, false]);
      expect(await queue.counts()).to.deep.equal({ waiting: 1, active: 0, dead: 1 });
      const again = (await queue.take(CIRCUITS))!;
      expect(again).to.deep.include({ ...job(1), attempt: 1 });
      await again.complete();
    });

    it("takes back what a worker returns, at once and as if it had never been tried", async () => {
      const { queue } = await another();
      await queue.send(job(1));
      const held = (await queue.take(CIRCUITS))!;
      await held.release();
      expect(await queue.take(CIRCUITS)).to.deep.include({ ...job(1), attempt: 1 });
    });

    it("drops a job that is cancelled, whether it waits, is being done or was given up", async () => {
      const { queue } = await another();
      for (const batch of [1, 2, 3]) await queue.send(job(batch, Number(NOW) + batch));
      const active = (await queue.take(CIRCUITS))!;
      await (await queue.take(CIRCUITS))!.fail("no", true);
      for (const batch of [1, 2, 3]) await queue.cancel(job(batch));
      expect(await queue.counts()).to.deep.equal({ waiting: 0, active: 0, dead: 0 });
      expect([await active.renew(), await queue.retry(2)]).to.deep.equal([false, false]);
      await active.fail("no", false);
      expect(await queue.counts()).to.deep.equal({ waiting: 0, active: 0, dead: 0 });
    });

    it("is opened and asked by several at once", async () => {
      const many = await race(Array.from({ length: 5 }, () => () => another()));
      await many[0]!.queue.send(job(1));
      const given = await race(many.map((one) => () => one.queue.take(CIRCUITS)));
      expect(given.filter(Boolean)).to.have.length(1);
    });
  });
}
