import { circuitSize } from "@bursar/prover";
import { MARGIN, plan, type BatchPolicy } from "@bursar/relayer";
import { expect } from "chai";

import { TestRail } from "../integration/rail.ts";
import { addressOf, NOW, Office, refusalOf } from "./office.ts";

const TINY = circuitSize("tiny");
const SHOP = addressOf("shop");

describe("the planner", () => {
  it("plans the oldest promises first, cut where a segment is full, and sorts the rows", async () => {
    const office = await Office.open();
    const agents = [await office.agent("ada"), await office.agent("ben"), await office.agent("cleo")];
    for (const [index, count] of [3, 20, 1].entries()) {
      office.clock += 400n;
      for (let i = 0; i < count; ++i) await agents[index]!.pay(SHOP, 1n);
    }
    office.clock = NOW + 3_600n;
    const planned = (await plan(office.store, [TINY], office.clock))!;
    expect(planned).to.include({ circuit: "tiny", payments: 17 });
    const lines = new Map(planned.rows.map(({ agent, lines }) => [agent, lines.length]));
    expect(lines).to.deep.equal(
      new Map([
        [agents[0]!.address, 3],
        [agents[1]!.address, 14],
      ]),
    );
    const order = planned.rows.map(({ agent }) => BigInt(agent));
    expect(order).to.deep.equal([...order].sort((a, b) => (a < b ? -1 : 1)));
    await office.store.close();
  });

  it("plans nothing that can wait, and with no policy whatever waits", async () => {
    const office = await Office.open();
    const agent = await office.agent("ada");
    await agent.pay(SHOP, 1n);
    const at = (seconds: bigint, policy?: BatchPolicy) => plan(office.store, [TINY], NOW + seconds, policy);
    const [cheap, dear] = [true, false].map((isCheap) => ({ maxWait: 300, isCheap }));
    expect(await at(299n, cheap)).to.equal(undefined);
    expect(await at(300n, cheap)).to.include({ payments: 1 });
    expect(await at(300n, dear)).to.equal(undefined);
    expect(await at(3_600n - BigInt(MARGIN), dear)).to.include({ payments: 1 });
    expect(await at(0n)).to.include({ payments: 1 });
    expect((await refusalOf(() => plan(office.store, [], NOW))).code).to.equal("key-missing");
    await office.store.close();
  });

  it("waits for cheap gas on a real chain, and settles before the promise ends whatever it costs", async function () {
    this.timeout(120_000);
    let asked = 0;
    const policy = (): Promise<BatchPolicy> => Promise.resolve({ maxWait: ++asked, isCheap: false });
    const rail = await TestRail.start({ policy });
    try {
      const [agent, payee] = [await rail.open(), rail.payee()];
      await agent.pay(payee, 5n);
      rail.skew += 600n;
      expect(await rail.settler.run()).to.deep.equal([]);
      expect((await rail.store.counts()).unbatched).to.equal(1);
      rail.skew += 3_000n - BigInt(MARGIN);
      const ended = await rail.settler.run();
      expect(ended.map(({ state, payments }) => [state, payments])).to.deep.equal([["settled", 1]]);
      expect(await rail.chain.escrow.creditOf(rail.token, payee)).to.equal(5n);
      expect(asked, "before each plan").to.equal(3);
    } finally {
      await rail.stop();
    }
  });
});
