import { setTimeout } from "node:timers/promises";

import type { Address } from "@bursar/protocol";
import { Alarms, Outbox, Settler } from "@bursar/relayer";
import { expect } from "chai";

import { TestRail } from "../integration/rail.ts";

describe("a batch above the gas budget", function () {
  this.timeout(120_000);
  let rail: TestRail;
  before(async () => {
    rail = await TestRail.start();
  });
  after(() => rail.stop());

  it("waits until half an hour before the first receipt in it falls due, and then goes", async () => {
    let clock = rail.now();
    const alarms = new Alarms();
    const { store, provider, processorKey, domain, prover, circuits, chain } = rail;
    const now = (): bigint => clock;
    const outbox = new Outbox({
      store,
      provider,
      signer: processorKey,
      finality: 1,
      replaceAfter: 600n,
      pollInterval: 10,
      gasBudget: 1n,
      alarms,
      now,
      sleep: (milliseconds) => setTimeout(milliseconds),
    });
    const sender = processorKey.address as Address;
    const settler = new Settler({ domain, store, circuits, gateway: chain, prover, outbox, sender, now });
    const agent = await rail.open();
    const { receipt } = await agent.pay(rail.payee(), 5n);
    await agent.pay(rail.payee(), 5n);

    const running = settler.run();
    while (alarms.raised.length === 0) await setTimeout(20);
    expect(alarms.raised[0]).to.include({ code: "gas-budget-spent", limit: 1n });
    clock = receipt.settleBy - 1_801n;
    await setTimeout(500);
    expect(await store.transactions("batch:1")).to.deep.equal([]);
    clock += 1n;
    const [batch] = await running;
    expect(batch!.state).to.equal("settled");
  });
});
