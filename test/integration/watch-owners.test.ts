import type { Address } from "@bursar/protocol";
import { expect } from "chai";

import { TestRail } from "./rail.ts";
import { buy, wait, WatchPost } from "./watch-post.ts";

const HOUR = 3_600n;
const DAY = 24n * HOUR;

describe("the watcher of an owner", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let post: WatchPost;

  beforeEach(async () => {
    rail = await TestRail.start();
    post = await WatchPost.open(rail, { owners: [rail.ownerAddress], low: 20 });
  });
  afterEach(async () => {
    post.close();
    await rail.stop();
  });

  const told = (): string[] => post.alerts();

  it("tells what is opened in the owner's name, and when little remains", async () => {
    const agent = await rail.open({ budget: 1_000n, paymentCap: 500n });
    await post.rounds();
    expect(told()).to.deep.equal(["mandate-opened"]);
    for (const amount of [500n, 300n]) await buy(rail, agent, rail.payee(), amount);
    await rail.settler.run();
    await post.rounds();
    expect(told()).to.deep.equal(["mandate-opened"]);
    await buy(rail, agent, rail.payee(), 1n);
    await rail.settler.run();
    await post.rounds();
    await post.rounds();
    expect(told()).to.deep.equal(["mandate-opened", "low-remaining"]);
    expect(await post.sent()).to.equal(0);
  });

  it("P4 owner_always_exits: closes a mandate once its windows are over, and the rest is free again", async () => {
    const agent = await rail.open({ budget: 1_000n, paymentCap: 500n });
    await buy(rail, agent, rail.payee(), 300n);
    await rail.settler.run();
    const { escrow, registry } = rail.chain;
    const free = await escrow.freeOf(rail.token, rail.ownerAddress);
    await wait(rail, DAY + 75n * HOUR - 60n);
    await post.rounds();
    expect(await post.sent()).to.equal(0);
    await wait(rail, 120n);
    await post.rounds();
    expect(await registry.stateOf(agent.address)).to.equal(4n);
    expect((await escrow.freeOf(rail.token, rail.ownerAddress)) - free).to.equal(700n);
    expect(await post.sent()).to.equal(1);
    expect(told()).to.deep.equal(["mandate-opened", "mandate-closed"]);
    expect(post.book.mandates()).to.have.length(1);
    expect(post.book.mandates()[0]).to.deep.include({ state: "closed", remaining: 0n, done: true });
  });

  it("spends no gas on a mandate of which nothing is left", async () => {
    const agent = await rail.open({ budget: 1_000n, paymentCap: 1_000n });
    await buy(rail, agent, rail.payee(), 1_000n);
    await rail.settler.run();
    await wait(rail, 10n * DAY);
    await post.rounds();
    expect(await post.sent()).to.equal(0);
  });

  it("P5 revoke_is_final: tells a revocation that was answered, and one that was not", async () => {
    const [good, bad] = [await rail.open(), await rail.open()];
    const registry = rail.chain.registry.connect(rail.owner);
    for (const { address } of [good, bad]) await (await registry.revoke(address, 0n)).wait();
    const { base } = await registry.positionOf(good.address);
    const head = `0x${base.toString(16).padStart(64, "0")}`;
    await (await rail.chain.registry.connect(rail.processorKey).acknowledge(good.address, 0n, head, 0n)).wait();
    await post.rounds();
    expect(told().filter((kind) => kind === "mandate-revoked")).to.have.length(2);
    expect(told().filter((kind) => kind === "revocation-acknowledged")).to.have.length(1);
    expect(told()).to.not.include("acknowledgement-missed");
    await wait(rail, HOUR + 1n);
    await post.rounds();
    await post.rounds();
    expect(told().filter((kind) => kind === "acknowledgement-missed")).to.have.length(1);
  });

  it("tells when a processor fails the mandate, leaves, or carries nearly all that its bond allows", async () => {
    const agent = await rail.open();
    const processor = rail.processorKey.address as Address;
    await post.take(await buy(rail, agent, rail.payee()));
    await rail.store.exclude(agent.address, "forgotten by the test");
    const { processors } = rail.chain;
    const capacity = await processors.capacityOf(processor, rail.token);
    await rail.open({ budget: (capacity * 9n) / 10n });
    await post.rounds();
    expect(told()).to.include("processor-leverage");
    await (await processors.connect(rail.processorKey).requestUnbonding()).wait();
    await wait(rail, 3n * HOUR + 1n);
    await post.rounds();
    expect(told()).to.include("processor-leaving");
    await wait(rail, DAY);
    await post.rounds();
    expect(told()).to.include("mandate-fallback");
    expect(told()).to.not.include("processor-slashed");
  });

  it("gets back what no claim waits for, and the rest after the claims", async () => {
    const agent = await rail.open({ budget: 10_000n });
    const { claims, escrow } = rail.chain;
    const payee = await WatchPost.open(rail);
    const [id] = await payee.take(await buy(rail, agent, rail.payee()));
    await rail.store.exclude(agent.address, "forgotten by the test");
    const free = await escrow.freeOf(rail.token, rail.ownerAddress);
    await wait(rail, DAY + 75n * HOUR - 60n);
    const { payment } = payee.of(id!);
    await (await claims.connect(payee.account).file([{ ...payment, payees: [] }])).wait();
    await wait(rail, 120n);
    await post.rounds();
    expect((await escrow.freeOf(rail.token, rail.ownerAddress)) - free).to.equal(9_000n);
    expect(await post.sent()).to.equal(1);
    await wait(rail, DAY);
    await payee.rounds();
    expect(payee.state(id!)).to.equal("paid");
    await post.rounds();
    expect((await escrow.freeOf(rail.token, rail.ownerAddress)) - free).to.equal(9_000n);
    expect(await post.sent()).to.equal(1);
    payee.close();
  });
});
