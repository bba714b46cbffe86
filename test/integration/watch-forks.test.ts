import type { Address, Hex } from "@bursar/protocol";
import { Answers } from "@bursar/relayer";
import { expect } from "chai";

import { TestUSD__factory } from "../../typechain-types/index.ts";
import { TestRail } from "./rail.ts";
import { buy, SecondBooks, wait, WatchPost } from "./watch-post.ts";

const DAY = 86_400n;
const DEPOSIT = 1_000_000n;

describe("the watcher against a processor that contradicts itself", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let post: WatchPost;

  beforeEach(async () => {
    rail = await TestRail.start();
    post = await WatchPost.open(rail);
  });
  afterEach(async () => {
    post.close();
    await rail.stop();
  });

  const credit = (account: string): Promise<bigint> => rail.chain.escrow.creditOf(rail.token, account);

  async function giveDeposit(units = DEPOSIT): Promise<void> {
    const dollar = TestUSD__factory.connect(rail.token, rail.owner);
    await (await dollar.mint(post.account.address, units)).wait();
  }

  it("P7 receipt_paid_or_sp_slashed: challenges a settled fork, upholds it unanswered, and the payee is paid from the bond", async () => {
    const [agent, shop, accomplice] = [await rail.open(), rail.payee(), rail.payee()];
    const [id] = (await post.take(await buy(rail, agent, shop))) as [Hex];
    const fork = await SecondBooks.open(rail, agent);
    await buy(fork, fork.agent, accomplice);
    await fork.settle();
    expect([await credit(shop), await credit(accomplice)]).to.deep.equal([0n, 1_000n]);

    await post.rounds();
    expect(post.of(id)).to.deep.include({ state: "contradicted", done: false });
    expect(post.alerts()).to.include.members(["receipt-contradicted", "deposit-missing"]);
    expect(await post.sent()).to.equal(0);
    await giveDeposit();
    await post.rounds();
    expect(post.state(id)).to.equal("challenged");
    expect(await rail.dollar.balanceOf(post.account.address)).to.equal(0n);

    await wait(rail, DAY + 1n);
    await post.rounds();
    expect(post.state(id)).to.equal("victim");
    expect((await rail.chain.processors.processorOf(rail.processorKey.address)).slashed).to.equal(true);
    expect(await credit(post.account.address)).to.equal(DEPOSIT);

    await wait(rail, 7n * DAY);
    await post.rounds();
    expect(post.of(id)).to.deep.include({ state: "shared", done: true });
    expect(await credit(shop)).to.equal(1_000n);
    expect(await credit(post.account.address)).to.equal(DEPOSIT + 500n * DEPOSIT);
    expect(post.alerts()).to.include.members(["receipt-challenged", "receipt-victim", "receipt-shared"]);
    const { finished } = await rail.chain.processors.slashOf(rail.processorKey.address, rail.token);
    expect(finished).to.equal(true);
    await fork.close();
  });

  it("does not risk a deposit where it cannot know, unless it is told to; then an honest processor's answer ends it", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const paid = await buy(rail, agent, shop);
    await buy(rail, agent, shop);
    await rail.settler.run();
    const always = await WatchPost.open(rail, { challenge: "always" });
    const [id] = (await post.take(paid)) as [Hex];
    await always.take(paid);
    await post.rounds();
    expect(post.of(id)).to.deep.include({ state: "settled", done: true });
    const dollar = TestUSD__factory.connect(rail.token, rail.owner);
    await (await dollar.mint(always.account.address, DEPOSIT)).wait();
    await always.rounds();
    expect(always.state(id)).to.equal("challenged");

    const { store, chain, outbox, prover, settler } = rail;
    const processor = rail.processorKey.address as Address;
    const failed = (_challenge: unknown, error: Error): void => {
      throw error;
    };
    await new Answers({ store, chain, outbox, prover, settler, processor, failed }).run();
    await always.rounds();
    expect(always.of(id)).to.deep.include({ state: "answered", done: true });
    expect(await credit(processor)).to.equal(DEPOSIT);
    expect(await credit(shop)).to.equal(2_000n);
    always.close();
  });

  it("looks at a fork that the policy leaves alone, and tells it", async () => {
    const never = await WatchPost.open(rail, { challenge: "never" });
    const [agent, shop] = [await rail.open(), rail.payee()];
    const [id] = (await never.take(await buy(rail, agent, shop))) as [Hex];
    const fork = await SecondBooks.open(rail, agent);
    await buy(fork, fork.agent, rail.payee());
    await fork.settle();
    await never.rounds();
    expect(never.of(id)).to.deep.include({ state: "contradicted", done: false });
    expect(never.alerts()).to.include("receipt-contradicted");
    // A day, then settle-by, grace and claim windows, then the cure window: half a day before all of it is over.
    await wait(rail, 4n * DAY + 16n * 3_600n);
    await never.rounds();
    expect(never.alerts()).to.include("receipt-window-closing");
    await wait(rail, DAY);
    await never.rounds();
    expect(never.of(id)).to.deep.include({ state: "lost", done: true });
    expect(never.alerts()).to.include("receipt-lost");
    expect(await never.sent()).to.equal(0);
    await fork.close();
    never.close();
  });

  it("P7: reports two receipts on one number at once, and the one that is not settled gets its share of the bond", async () => {
    const [agent, shop, cafe] = [await rail.open(), rail.payee(), rail.payee()];
    const fork = await SecondBooks.open(rail, agent);
    const paid = [await buy(rail, agent, shop), await buy(fork, fork.agent, cafe)];
    const [first, second] = (await post.take(...paid)) as [Hex, Hex];
    await post.rounds();
    const { processors } = rail.chain;
    expect((await processors.processorOf(rail.processorKey.address)).slashed).to.equal(true);
    expect(await post.sent()).to.equal(1);
    expect(post.alerts()).to.include.members(["equivocation"]);

    await fork.settle();
    await giveDeposit();
    await post.rounds();
    expect([post.state(first), post.state(second)]).to.deep.equal(["challenged", "settled"]);
    await wait(rail, DAY + 1n);
    await post.rounds();
    await wait(rail, 7n * DAY);
    await post.rounds();
    expect([post.state(first), post.state(second)]).to.deep.equal(["shared", "settled"]);
    expect([await credit(shop), await credit(cafe)]).to.deep.equal([1_000n, 1_000n]);
    await fork.close();
  });
});
