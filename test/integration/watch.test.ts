import { type Address, type Hex, type PaidRequest, signReceipt, toWire } from "@bursar/protocol";
import { startWatching } from "@bursar/relayer";
import { expect } from "chai";
import { JsonRpcProvider, Wallet, type JsonRpcPayload, type JsonRpcResult } from "ethers";

import { refusalOf } from "../relayer/office.ts";
import { TestRail } from "./rail.ts";
import { buy, pause, SecondBooks, wait, WatchPost } from "./watch-post.ts";

const HOUR = 3_600n;
const DAY = 24n * HOUR;
/** Settle-by and grace, and a second more. */
const MISSED = 3n * HOUR + 1n;

const codeOf = async (attempt: () => unknown): Promise<string> => (await refusalOf(attempt)).code;

/** A connection that can be cut. */
class Wire extends JsonRpcProvider {
  cut = false;
  override _send(payload: JsonRpcPayload | JsonRpcPayload[]): Promise<JsonRpcResult[]> {
    if (this.cut) return Promise.reject(Object.assign(new Error("the wire is cut"), { code: "ECONNREFUSED" }));
    return super._send(payload);
  }
}

/** A node that answers for few blocks of logs at a time. */
class NarrowNode extends JsonRpcProvider {
  refused = 0;
  override async _send(payload: JsonRpcPayload | JsonRpcPayload[]): Promise<JsonRpcResult[]> {
    const answers = await super._send(payload);
    return [payload].flat().map(({ id, method, params }, index) => {
      const [{ fromBlock, toBlock } = {}] = params as { fromBlock?: string; toBlock?: string }[];
      if (method !== "eth_getLogs" || Number(toBlock) - Number(fromBlock) < 10) return answers[index]!;
      ++this.refused;
      return {
        id,
        error: { code: -32_005, message: "query exceeds the range of 10 blocks" },
      } as unknown as JsonRpcResult;
    });
  }
}

describe("the watcher of a payee", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let post: WatchPost;

  before(async () => {
    rail = await TestRail.start();
  });
  after(() => {
    rail.stop();
  });
  beforeEach(async () => {
    post = await WatchPost.open(rail);
  });
  afterEach(() => {
    post.close();
  });

  const credit = (account: string): Promise<bigint> => rail.chain.escrow.creditOf(rail.token, account);
  const claims = async (agent: Address): Promise<string[]> => {
    const { claims } = rail.chain;
    return (await claims.queryFilter(claims.filters.ClaimFiled(undefined, agent))).map(
      ({ transactionHash }) => transactionHash,
    );
  };

  it("costs nothing when all is well", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const [id] = (await post.take(await buy(rail, agent, shop))) as [Hex];
    await post.rounds();
    expect(post.of(id)).to.deep.include({ state: "waiting", done: false });
    await rail.settler.run();
    await post.rounds();
    expect(post.of(id)).to.deep.include({ state: "settled", done: true });
    expect(await post.sent()).to.equal(0);
    expect(post.alerts()).to.deep.equal([]);
  });

  it("P7 receipt_paid_or_sp_slashed: claims what was missed; cured late, the payee has the payment and the penalty", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const [id] = (await post.take(await buy(rail, agent, shop))) as [Hex];
    await wait(rail, MISSED);
    await post.rounds();
    expect(post.state(id)).to.equal("claimed");
    expect(await claims(agent.address)).to.have.length(1);
    expect(await credit(shop)).to.equal(100n);
    expect(await credit(post.account.address)).to.equal(499_900n);
    await rail.settler.run();
    await post.rounds();
    expect(post.state(id)).to.equal("claimed");
    await wait(rail, DAY);
    await post.rounds();
    expect(post.of(id)).to.deep.include({ state: "settled", done: true });
    expect(await credit(shop)).to.equal(1_100n);
    expect(await rail.chain.registry.stateOf(agent.address)).to.equal(3n);
    expect(await post.sent()).to.equal(2);
    expect(post.alerts()).to.deep.equal(["receipt-missed", "receipt-claimed"]);
  });

  it("P7, K12: claims by itself from what was saved, several in one call, and what stays unsettled is paid from the lock", async () => {
    const [shop, cafe] = [rail.payee(), rail.payee()];
    const [ada, ben] = [await rail.open(), await rail.open({ payees: [cafe, shop] })];
    const paid = [await buy(rail, ada, shop), await buy(rail, ada, cafe, 500n), await buy(rail, ben, shop)];
    for (const { address } of [ada, ben]) rail.store.exclude(address, "forgotten by the test");
    const bond = (): Promise<bigint> => rail.chain.processors.bondOf(rail.processorKey.address, rail.token);
    const before = await bond();
    const ids = await post.take(...paid);
    await wait(rail, MISSED);
    await post.rounds();
    const filed = [...(await claims(ada.address)), ...(await claims(ben.address))];
    expect(filed).to.have.length(3);
    expect(new Set(filed)).to.have.length(1);
    expect(before - (await bond())).to.equal(500_000n);
    await wait(rail, DAY);
    await post.rounds();
    expect(ids.map((id) => post.state(id))).to.deep.equal(["paid", "paid", "paid"]);
    expect([await credit(shop), await credit(cafe)]).to.deep.equal([2_200n, 550n]);
    expect(await post.sent()).to.equal(2);
    await post.rounds();
    expect(await post.sent()).to.equal(2);
  });

  it("files only what the contract takes, though a neighbour in the call was claimed by another a block ago", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const late = await WatchPost.open(rail, {}, rail.provider, 3);
    await rail.provider.send("hardhat_mine", ["0x3"]);
    const ids = await late.take(await buy(rail, agent, shop), await buy(rail, agent, shop));
    rail.store.exclude(agent.address, "forgotten by the test");
    await wait(rail, MISSED);
    const { payment } = late.of(ids[0]!);
    await (await rail.chain.claims.connect(post.account).file([{ ...payment, payees: [] }])).wait();
    await late.watch.watcher.run();
    expect(late.book.pending().map(({ kind, subjects }) => [kind, subjects])).to.deep.equal([["file", [ids[1]]]]);
    while ((await late.sent()) === 0) await pause(10);
    await late.watch.watcher.run();
    expect(late.book.pending()).to.have.length(1);
    await rail.provider.send("hardhat_mine", ["0x3"]);
    await late.watch.watcher.idle();
    await late.round();
    expect(ids.map((id) => late.state(id))).to.deep.equal(["claimed", "claimed"]);
    expect(await claims(agent.address)).to.have.length(2);
    expect(await late.sent()).to.equal(1);
    late.close();
  });

  it("files many claims in calls of bounded size and gas, and resolves them so", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const paid: PaidRequest[] = [];
    for (let i = 0; i < 45; ++i) paid.push(await buy(rail, agent, shop, 1n));
    rail.store.exclude(agent.address, "forgotten by the test");
    const ids = await post.take(...paid);
    await wait(rail, MISSED);
    await post.rounds();
    const filed = await claims(agent.address);
    expect(filed).to.have.length(45);
    const receipts = await Promise.all([...new Set(filed)].map((hash) => rail.provider.getTransactionReceipt(hash)));
    expect(receipts.every((receipt) => receipt!.gasUsed <= 8_000_000n)).to.equal(true);
    expect(await post.sent()).to.equal(receipts.length);
    await wait(rail, DAY);
    await post.rounds();
    expect(new Set(ids.map((id) => post.state(id)))).to.deep.equal(new Set(["paid"]));
    expect(await credit(shop)).to.equal(45n);
  });

  it("claims at once, without a cure window, when the processor left a revocation unanswered", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const [id] = (await post.take(await buy(rail, agent, shop))) as [Hex];
    rail.store.exclude(agent.address, "forgotten by the test");
    await (await rail.chain.registry.connect(rail.owner).revoke(agent.address, 1n)).wait();
    await wait(rail, HOUR + 60n);
    await post.rounds();
    expect(post.of(id)).to.deep.include({ state: "paid", done: true });
    expect(await credit(shop)).to.equal(1_000n);
  });

  it("goes on where it stopped when the chain is cut off and comes back, and files once", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const wire = new Wire(rail.node.url, 31_337, { staticNetwork: true, cacheTimeout: -1 });
    const cutOff = await WatchPost.open(rail, {}, wire);
    const [id] = (await cutOff.take(await buy(rail, agent, shop))) as [Hex];
    rail.store.exclude(agent.address, "forgotten by the test");
    await wait(rail, MISSED);
    wire.cut = true;
    expect(await codeOf(() => cutOff.watch.watcher.run())).to.equal("chain-unavailable");
    wire.cut = false;
    await rail.provider.send("evm_setAutomine", [false]);
    await cutOff.watch.watcher.run();
    while ((await cutOff.book.transactions("watch:1")).length === 0) await pause(10);
    wire.cut = true;
    expect(await codeOf(() => cutOff.watch.watcher.run())).to.equal("chain-unavailable");
    await rail.provider.send("evm_setAutomine", [true]);
    await rail.provider.send("evm_mine", []);
    wire.cut = false;
    await cutOff.watch.watcher.idle();
    await cutOff.rounds();
    expect(cutOff.state(id)).to.equal("claimed");
    expect(await claims(agent.address)).to.have.length(1);
    cutOff.close();
    wire.destroy();
  });

  it("tells when the chain has not answered for ten minutes", async () => {
    const wire = new Wire(rail.node.url, 31_337, { staticNetwork: true, cacheTimeout: -1 });
    const deaf = await WatchPost.open(rail, { every: 1 }, wire);
    wire.cut = true;
    const watching = await startWatching(deaf.parts);
    const failures = (): number => deaf.log.split("will be tried again").length - 1;
    while (failures() === 0) await pause(10);
    await wait(rail, 300n);
    for (const before = failures(); failures() < before + 2;) await pause(10);
    expect(deaf.alerts()).to.deep.equal([]);
    await wait(rail, 300n);
    while (deaf.alerts().length === 0) await pause(10);
    expect(deaf.alerts()).to.deep.equal(["chain-unreachable"]);
    await watching.stop();
    deaf.close();
    wire.destroy();
  });

  it("files again what a reorganisation took back", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const [id] = (await post.take(await buy(rail, agent, shop))) as [Hex];
    rail.store.exclude(agent.address, "forgotten by the test");
    await wait(rail, MISSED);
    const snapshot: unknown = await rail.provider.send("evm_snapshot", []);
    await post.rounds();
    expect(await claims(agent.address)).to.have.length(1);
    await rail.provider.send("evm_revert", [snapshot]);
    expect(await claims(agent.address)).to.have.length(0);
    await post.rounds();
    expect(await claims(agent.address)).to.have.length(1);
    expect(post.state(id)).to.equal("claimed");
  });

  it("finds the head of a settlement on a node that answers for few blocks at a time", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const node = new NarrowNode(rail.node.url, 31_337, { staticNetwork: true, cacheTimeout: -1 });
    const narrow = await WatchPost.open(rail, { challenge: "always" }, node);
    const [id] = (await narrow.take(await buy(rail, agent, shop))) as [Hex];
    await rail.settler.run();
    await narrow.rounds();
    expect(narrow.of(id)).to.deep.include({ state: "settled", done: true });
    expect(node.refused).to.be.greaterThan(0);
    narrow.close();
    node.destroy();
  });

  it("keeps what it cannot pay for until there is money, and tells so", async () => {
    const [agent, shop] = [await rail.open(), rail.payee()];
    const [id] = (await post.take(await buy(rail, agent, shop))) as [Hex];
    rail.store.exclude(agent.address, "forgotten by the test");
    const { address } = post.account;
    await rail.provider.send("hardhat_setBalance", [address, "0x1"]);
    await wait(rail, MISSED);
    await post.round();
    await post.round();
    expect(await post.sent()).to.equal(0);
    expect(post.alerts().filter((kind) => kind === "action-stuck")).to.have.length(1);
    await rail.provider.send("hardhat_setBalance", [address, "0x8ac7230489e80000"]);
    await post.rounds();
    expect(post.state(id)).to.equal("claimed");
    expect(await post.sent()).to.equal(1);
  });

  it("pays out the credits of the payees that it is told to", async () => {
    const [agent, shop, cafe] = [await rail.open(), rail.payee(), rail.payee()];
    const sweeping = await WatchPost.open(rail, { sweep: [shop], sweepAbove: 1_000n });
    await buy(rail, agent, shop, 999n);
    await buy(rail, agent, cafe);
    await rail.settler.run();
    await sweeping.rounds();
    expect(await rail.dollar.balanceOf(shop)).to.equal(0n);
    await buy(rail, agent, shop, 1n);
    await rail.settler.run();
    await sweeping.rounds();
    expect([await rail.dollar.balanceOf(shop), await rail.dollar.balanceOf(cafe)]).to.deep.equal([1_000n, 0n]);
    sweeping.close();
  });

  describe("what it refuses", () => {
    let paid: PaidRequest;
    const refusal = (changed: unknown): Promise<unknown> => codeOf(() => post.watch.intake.take(toWire(changed)));

    beforeEach(async () => {
      paid = await buy(rail, await rail.open(), rail.payee());
    });

    it("keeps the same receipt once, in whatever form it comes", async () => {
      const { intake } = post.watch;
      expect(await intake.take(toWire(paid))).to.include({ kept: true });
      expect(await intake.take({ paid: toWire(paid), processor: "ignored" })).to.include({ kept: false });
      expect(post.book.open()).to.have.length(1);
    });

    it("refuses what is no receipt, is for another chain or contract, or does not fit its payment", async () => {
      expect(await refusal({})).to.equal("malformed-input");
      expect(await refusal("AAAA")).to.equal("malformed-input");
      const { domain, receipt } = paid;
      expect(await refusal({ ...paid, domain: { ...domain, chainId: 1n } })).to.equal("wrong-chain");
      expect(await refusal({ ...paid, domain: { ...domain, registry: rail.token } })).to.equal("wrong-contract");
      const other = { ...receipt, receipt: { ...receipt.receipt, amount: 999n } };
      expect(await refusal({ ...paid, receipt: other })).to.equal("receipt-mismatch");
      expect(post.book.open()).to.have.length(0);
    });

    it("refuses signatures of others: the agent's, the processor's", async () => {
      const { domain, payment, receipt } = paid;
      const stranger = Wallet.createRandom();
      const unsigned = { ...payment, payment: { ...payment.payment, spent: 7n } };
      expect(await refusal({ ...paid, payment: unsigned })).to.equal("signature-signer");
      const forged = { ...receipt, signature: await signReceipt(stranger, domain, receipt.receipt) };
      expect(await refusal({ ...paid, receipt: forged })).to.equal("receipt-invalid");
      expect(await refusal({ ...paid, receipt: { ...receipt, signature: "0x00" } })).to.equal("receipt-invalid");
      expect(post.book.open()).to.have.length(0);
    });

    it("refuses a receipt without a mandate, beyond it, or whose windows are over", async () => {
      const { domain, receipt } = paid;
      const key = rail.processorKey;
      const unknown = new SecondBooks(rail, await rail.open());
      const { agent } = unknown;
      const stray = { ...(await agent.sign(rail.payee(), 5n)) };
      const fits = { agent: agent.address, seq: 1n, ...stray.payment.line, head: stray.payment.head };
      const promise = { ...fits, settleBy: receipt.receipt.settleBy, logIndex: 0n };
      const signed = async (changes: Partial<typeof promise>) => {
        const one = { ...promise, ...changes };
        return { receipt: one, signature: await signReceipt(key, domain, one) };
      };
      const late = { domain, payment: stray, receipt: await signed({ settleBy: promise.settleBy + 30n * DAY }) };
      expect(await refusal(late)).to.equal("receipt-too-long");
      const nobody = new SecondBooks(rail, Object.assign(agent, { wallet: Wallet.createRandom() }));
      const homeless = await nobody.agent.sign(rail.payee(), 5n);
      const theirs = await signed({
        agent: nobody.agent.address,
        ...homeless.payment.line,
        head: homeless.payment.head,
      });
      expect(await refusal({ domain, payment: homeless, receipt: theirs })).to.equal("mandate-unknown");
      await wait(rail, 6n * DAY);
      expect(await refusal(paid)).to.equal("receipt-expired");
      for (const books of [unknown, nobody]) books.close();
    });
  });
});
