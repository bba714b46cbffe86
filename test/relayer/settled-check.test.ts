import type { Hex } from "@bursar/protocol";
import { Alarms, SettledCheck } from "@bursar/relayer";
import { expect } from "chai";

import { TestRail, type PayingAgent } from "../integration/rail.ts";

describe("batches that were final", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let agent: PayingAgent;
  let alarms: Alarms;
  let told: string[];
  let check: SettledCheck;

  beforeEach(async () => {
    rail = await TestRail.start();
    agent = await rail.open();
    alarms = new Alarms();
    told = [];
    alarms.listen(({ code, about }, over) => void told.push(`${about} ${code}${over ? " over" : ""}`));
    const { store, provider, outbox, chain } = rail;
    check = new SettledCheck({ store, provider, outbox, settlement: chain.settlement, alarms, most: 3 });
  });
  afterEach(() => rail.stop());

  const snapshot = (): Promise<unknown> => rail.provider.send("evm_snapshot", []);
  const settledSeq = async (): Promise<bigint> => (await rail.chain.mandate(agent.address)).seq;
  const hashes = async (id: number): Promise<Hex[]> =>
    (await rail.store.transactions(`batch:${id}`)).map(({ hash }) => hash);
  async function settle(): Promise<void> {
    await agent.pay(rail.payee(), 5n);
    const [batch] = await rail.settler.run();
    expect(batch!.state, batch!.error ?? "").to.equal("settled");
  }
  /** The chain forgets all since a snapshot: deeper than the rule of finality says that it can. */
  async function forget(since: unknown): Promise<void> {
    await rail.provider.send("evm_revert", [since]);
  }

  it("are left alone while they are on chain", async () => {
    expect(await check.run()).to.deep.equal([]);
    await settle();
    expect(await check.run()).to.deep.equal([]);
    expect([told, (await hashes(1)).length]).to.deep.equal([[], 1]);
  });

  it("are told of when their block is gone, and sent again in their order: the same bytes, each once", async () => {
    await settle();
    const since = await snapshot();
    await settle();
    await settle();
    const before = [await hashes(2), await hashes(3)];
    await forget(since);
    expect(await settledSeq()).to.equal(1n);

    expect(await check.run()).to.deep.equal([2, 3]);
    expect(await settledSeq()).to.equal(3n);
    expect([await hashes(2), await hashes(3)]).to.deep.equal(before);
    expect(told).to.deep.equal(
      [2, 3].flatMap((id) => [`batch:${id} settlement-vanished`, `batch:${id} settlement-vanished over`]),
    );
    expect(await check.run()).to.deep.equal([]);
    await settle();
    expect(await settledSeq()).to.equal(4n);
  });

  it("are looked for as far back as was said; what those wait for goes out with them", async () => {
    const since = await snapshot();
    for (let batch = 0; batch < 4; ++batch) await settle();
    const before = await hashes(1);
    await forget(since);
    expect(await check.run()).to.deep.equal([2, 3, 4]);
    expect(await settledSeq()).to.equal(4n);
    expect((await rail.provider.getTransactionReceipt(before[0]!))?.status).to.equal(1);
    expect(await hashes(1)).to.deep.equal(before);
  });

  it("keep their alarm, with the reason, when the chain takes them no more", async () => {
    const since = await snapshot();
    await settle();
    await forget(since);
    await rail.provider.send("evm_increaseTime", [86_400 * 30]);
    await rail.provider.send("evm_mine", []);
    expect(await check.run()).to.deep.equal([1]);
    expect(told).to.deep.equal(["batch:1 settlement-vanished"]);
    expect(alarms.raised[0]!.message).to.contain("nor takes it again");
  });
});
