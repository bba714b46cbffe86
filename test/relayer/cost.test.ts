import { readFileSync } from "node:fs";

import type { Address } from "@bursar/protocol";
import { breakEven, SETTLE_GAS, settlementGas, shapeOf, TRANSFER_GAS, type Shape } from "@bursar/relayer";
import { expect } from "chai";
import { Wallet } from "ethers";

import { TestRail, type PayingAgent } from "../integration/rail.ts";

/** Of the gas that was used, in percent. */
const error = (measured: bigint, modelled: bigint): number => (100 * Number(modelled - measured)) / Number(measured);

describe("the cost of a batch", function () {
  this.timeout(300_000);
  let rail: TestRail;
  const credited = new Set<Address>();
  const measured: { name: string; shape: Shape; gas: bigint }[] = [];

  before(async () => {
    rail = await TestRail.start();
  });
  after(async () => {
    await rail.stop();
  });

  /** Settles `count` payments of each agent to payees in turn, for real. @returns gas used. */
  async function settle(
    name: string,
    agents: readonly PayingAgent[],
    count: number,
    payees: readonly Address[],
  ): Promise<bigint> {
    for (const agent of agents)
      for (let i = 0; i < count; ++i) await agent.pay(payees[i % payees.length]!, BigInt(1 + ((i * 37) % 900)));
    const [batch, ...others] = await rail.settler.run();
    expect(others).to.deep.equal([]);
    expect(batch!.state, batch!.error ?? "").to.equal("settled");
    const { parts } = await rail.settler.settled(batch!.id);
    const shape = shapeOf(parts, credited);
    for (const payee of payees.slice(0, count)) credited.add(payee);
    measured.push({ name, shape, gas: batch!.gasUsed! });
    return batch!.gasUsed!;
  }

  it("is modelled within 1 % of what real settlements take, each part by a difference of two", async () => {
    const agents: PayingAgent[] = [];
    for (let i = 0; i < 5; ++i) agents.push(await rail.open());
    const payees = Array.from({ length: 10 }, () => rail.payee());
    const [one, two] = [agents.slice(0, 1), agents.slice(0, 2)];

    await settle("the first", one, 7, payees.slice(0, 1));
    // The first batch of a deployment fills the counter of batches besides, once.
    measured.length = 0;
    const single = await settle("one mandate, one payee", one, 7, payees.slice(0, 1));
    await settle("a first batch", two, 7, payees.slice(0, 1));
    const double = await settle("two mandates, one payee", two, 7, payees.slice(0, 1));
    const first = await settle("six new payees", one, 7, payees.slice(0, 7));
    const again = await settle("seven payees", one, 7, payees.slice(0, 7));
    const within = await settle("within a page", one, 3, payees.slice(0, 1));
    await settle("five mandates, ten payees", agents, 30, payees);
    await settle("the same again, nothing on its page", agents.slice(1, 4), 20, payees);

    const known = (again - single) / 6n;
    const turning = double - single;
    const parts = {
      batch: single - turning - known,
      turning,
      staying: turning + within - single,
      known,
      fresh: known + (first - again) / 6n,
    };
    const table = measured.map(
      ({ name, shape, gas }) =>
        `${name}: ${gas} gas, the model errs by ${error(gas, settlementGas(shape)).toFixed(2)} %`,
    );
    const found = Object.entries(parts).map(([part, gas]) => `${part}: ${gas}`);
    const told = `${table.join("\n")}\nmeasured parts: ${found.join(", ")}`;
    if (process.env["BURSAR_GAS"] === "tell") console.log(told);
    for (const { shape, gas } of measured) expect(Math.abs(error(gas, settlementGas(shape))), told).to.be.lessThan(1);
    for (const [part, gas] of Object.entries(parts))
      expect(Math.abs(error(gas, SETTLE_GAS[part as keyof typeof parts])), `${part} ${told}`).to.be.lessThan(3);
  });

  it("tells new payees from those that were credited, from the books", async () => {
    expect(await rail.store.credited(rail.token)).to.deep.equal(credited);
    expect(await rail.store.credited(rail.ownerAddress)).to.deep.equal(new Set());
  });

  it("is told in docs/batching.md, part by part", () => {
    const page = readFileSync(new URL("../../docs/batching.md", import.meta.url), "utf8");
    const told = [...page.matchAll(/^\| [^|]+ \| ([\d,]+) \|$/gm)].map(([, gas]) => BigInt(gas!.replaceAll(",", "")));
    expect(told).to.deep.equal([...Object.values(SETTLE_GAS), TRANSFER_GAS]);
  });

  it("is below that of a transfer each from its break-even on", () => {
    const shape = { turning: 3, staying: 2, known: 4, fresh: 1 };
    const from = breakEven(shape);
    expect(from * TRANSFER_GAS >= settlementGas(shape)).to.equal(true);
    expect((from - 1n) * TRANSFER_GAS <= settlementGas(shape)).to.equal(true);
  });

  it("takes for a transfer what one takes to a payee that holds the token", async () => {
    const holder = Wallet.createRandom().address;
    await (await rail.dollar.mint(rail.ownerAddress, 100n)).wait();
    await (await rail.dollar.transfer(holder, 5n)).wait();
    const { gasUsed } = (await (await rail.dollar.transfer(holder, 5n)).wait())!;
    expect(Math.abs(error(gasUsed, TRANSFER_GAS))).to.be.lessThan(1);
  });
});
