import { setTimeout } from "node:timers/promises";

import type { Address } from "@bursar/protocol";
import { circuitSize, keyFolder, openCircuit, Prover } from "@bursar/prover";
import {
  BatchProofs,
  openProofQueue,
  ProofWorker,
  Settler,
  type KeyedProver,
  type ProofNews,
  type ProofQueue,
} from "@bursar/relayer";
import { expect } from "chai";

import { TestRail } from "../integration/rail.ts";
import { addressOf } from "./office.ts";

describe("a worker of the prover farm", function () {
  this.timeout(120_000);
  let rail: TestRail;
  let queue: ProofQueue;
  let proofs: BatchProofs;
  let settler: Settler;
  const news: ProofNews[] = [];

  before(async () => {
    rail = await TestRail.start();
    queue = await openProofQueue(rail.store.database, { backoff: 1 });
    const { store, domain, circuits, chain: gateway, prover, outbox, processorKey } = rail;
    const sender = processorKey.address as Address;
    proofs = new BatchProofs({ domain, store, circuits, gateway });
    settler = new Settler({ domain, store, circuits, gateway, prover, queue, outbox, sender, now: () => rail.now() });
  });
  beforeEach(() => {
    news.length = 0;
  });
  after(async () => {
    await queue.close();
    await rail.stop();
  });

  const worker = (prover: KeyedProver = rail.prover, of = proofs): ProofWorker =>
    new ProofWorker({
      queue,
      proofs: of,
      prover,
      circuits: rail.circuits,
      told: (one) => void news.push(one),
      every: 50,
    });
  const kinds = (): string[] => news.map(({ kind }) => kind);

  async function planned(): Promise<number> {
    const agent = await rail.open();
    await agent.pay(rail.payee(), 5n);
    return (await settler.plan())!.id;
  }

  it("takes no batch of a circuit whose key is another than the deployment's", async () => {
    const id = await planned();
    const other = circuitSize("default");
    const stranger = new Prover(() => openCircuit(other, keyFolder(other, undefined)));
    expect(await worker(stranger).next()).to.equal(false);
    expect(news.find(({ kind }) => kind === "keyless")).to.deep.include({ circuit: "tiny" });
    expect(news.map((one) => ("error" in one ? (one.error as { code?: string }).code : null))).to.include(
      "key-corrupt",
    );
    expect([(await store(id)).state, (await queue.counts()).waiting]).to.deep.equal(["planned", 1]);
    await queue.cancel({ batch: id, circuit: "tiny" });
    await rail.store.markFailed(id, "only planned");
  });

  const store = async (id: number) => (await rail.store.batch(id))!;

  it("fails a batch of another deployment than its own, and leaves it to others", async () => {
    const [batch] = [(await settler.plan())!.id];
    const { domain, circuits, chain } = rail;
    const gateway = { settlement: addressOf("another settlement"), encode: chain.encode.bind(chain) };
    const elsewhere = new BatchProofs({ domain, store: rail.store, circuits, gateway });
    expect(await worker(rail.prover, elsewhere).next()).to.equal(true);
    expect(kinds()).to.deep.equal(["begun", "failed"]);
    expect((await store(batch)).state).to.equal("planned");
    while (!(await worker().next())) await setTimeout(100);
    expect((await store(batch)).state).to.equal("proved");
  });

  it("records the first proof of a batch, and none that comes after it or after its end", async () => {
    const id = await planned();
    const [first, second] = [await proofs.make(id, rail.prover), await proofs.make(id, rail.prover)];
    expect(first.calldata).not.to.equal(second.calldata);
    expect([await proofs.record(first), await proofs.record(second)]).to.deep.equal([true, false]);
    expect((await store(id)).calldata).to.equal(first.calldata);
    await rail.store.markFailed(id, "it was left out");
    expect(await proofs.record(second)).to.equal(false);
    expect((await store(id)).state).to.equal("failed");
    expect(await worker().next()).to.equal(true);
    expect(kinds()).to.deep.equal(["begun", "dropped"]);
    expect(await queue.counts()).to.deep.equal({ waiting: 0, active: 0, dead: 0 });
  });

  it("gives back at once what it has begun when its time is over, and what becomes of it is another's", async () => {
    const id = (await settler.plan())!.id;
    const slow: KeyedProver = {
      ready: (size) => rail.prover.ready(size),
      prove: async (...statement) => {
        await setTimeout(1_500);
        return rail.prover.prove(...statement);
      },
    };
    const leaving = worker(slow);
    leaving.start();
    while (!kinds().includes("begun")) await setTimeout(10);
    await leaving.stop(50);
    expect(kinds().at(-1)).to.equal("returned");
    expect(await worker().next()).to.equal(true);
    expect((await store(id)).state).to.equal("proved");
  });

  it("settles what workers prove, beside one that was given up", async () => {
    const dead = await planned();
    await (await queue.take(["tiny"]))!.fail("it cannot be proved", true);
    const agent = await rail.open();
    await agent.pay(rail.payee(), 5n);
    const working = worker();
    working.start();
    const ended = await settler.run();
    await working.stop(10_000);
    expect(ended.map(({ state }) => state)).to.include("settled");
    expect(ended.every(({ state }) => state === "settled")).to.equal(true);
    expect((await store(dead)).state).to.equal("planned");
  });
});
