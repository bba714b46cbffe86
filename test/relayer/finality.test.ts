import { setTimeout } from "node:timers/promises";

import { Chain, connect, finalBlockOf, finalityOf, Outbox, parseFinality, Store, type Rail } from "@bursar/relayer";
import { expect } from "chai";
import { parseEther, type JsonRpcProvider } from "ethers";

import { LocalNode } from "../../scripts/demo/node.ts";
import { NodeFront } from "./node-front.ts";
import { storeUrl } from "./databases.ts";
import { addressOf, keyOf, NOW, refusalOf } from "./office.ts";

const RAIL: Rail = {
  chainId: 31_337n,
  escrow: addressOf("escrow"),
  registry: addressOf("registry"),
  settlement: addressOf("settlement"),
  direct: addressOf("direct"),
  processors: addressOf("processors"),
  claims: addressOf("claims"),
  challenges: addressOf("challenges"),
  circuits: {},
  inclusions: {},
  tokens: {},
};

describe("the rule of finality", function () {
  this.timeout(30_000);
  let node: LocalNode;
  let direct: JsonRpcProvider;
  let front: NodeFront;
  let provider: JsonRpcProvider;

  before(async () => {
    node = await LocalNode.start();
    direct = node.provider();
    await direct.send("hardhat_mine", ["0x14"]);
    front = await NodeFront.before(node.url);
    ({ provider } = await connect(front.url, { timeout: 1_000 }));
  });
  after(async () => {
    provider.destroy();
    direct.destroy();
    await front.close();
    node.stop();
  });
  beforeEach(() => {
    front.trouble = null;
    front.finalAfter = null;
  });

  it("is each chain's own, and finalized where none is known", () => {
    expect([1n, 8_453n, 42_161n, 137n, 31_337n].map(finalityOf)).to.deep.equal([
      "finalized",
      "safe",
      "safe",
      "finalized",
      1,
    ]);
    expect(finalityOf(999_999n)).to.equal("finalized");
  });

  it("is read as safe, finalized or a number of blocks, and as nothing else", async () => {
    expect(["safe", "finalized", "1", "12", "10000"].map(parseFinality)).to.deep.equal([
      "safe",
      "finalized",
      1,
      12,
      10_000,
    ]);
    for (const wrong of ["", "0", "10001", "-1", "1.5", "latest", "12 blocks", "100000"]) {
      const refusal = await refusalOf(() => parseFinality(wrong));
      expect(refusal, wrong).to.include({ code: "malformed-input" });
      expect(refusal.details).to.deep.equal({ value: wrong, limit: "10000" });
    }
  });

  it("counts a block itself, and ends at the first", async () => {
    const newest = await direct.getBlockNumber();
    expect(await finalBlockOf(provider, 1)).to.equal(newest);
    expect(await finalBlockOf(provider, 5)).to.equal(newest - 4);
    expect(await finalBlockOf(provider, 10_000)).to.equal(0);
  });

  for (const tag of ["safe", "finalized"] as const) {
    it(`asks the node for its ${tag} block`, async () => {
      const newest = await direct.getBlockNumber();
      expect(await finalBlockOf(provider, tag)).to.equal(newest);
      front.finalAfter = 7;
      expect(await finalBlockOf(provider, tag)).to.equal(newest - 7);
      expect(await new Chain(RAIL, provider, tag).finalBlock()).to.equal(newest - 7);
    });
  }

  it("says chain-unavailable when the node knows no such block, or does not answer", async () => {
    front.finalAfter = -5;
    const none = await refusalOf(() => finalBlockOf(provider, "finalized"));
    expect([none.code, none.details]).to.deep.equal(["chain-unavailable", { value: "finalized" }]);
    front.finalAfter = null;
    front.trouble = "answers 503";
    const chain = new Chain(RAIL, provider, "finalized");
    expect((await refusalOf(() => chain.finalBlock())).code).to.equal("chain-unavailable");
  });

  it("decides when a transaction has its end", async () => {
    front.finalAfter = 3;
    const sender = keyOf("finality").connect(provider);
    const faucet = await direct.getSigner(0);
    await (await faucet.sendTransaction({ to: sender.address, value: parseEther("1") })).wait();
    const store = await Store.open(await storeUrl(":memory:"));
    let settled = false;
    const outbox = new Outbox({
      store,
      provider,
      signer: sender,
      finality: "finalized",
      replaceAfter: 60n,
      pollInterval: 10,
      now: () => NOW,
      sleep: (milliseconds) => setTimeout(milliseconds),
    });
    const delivery = outbox.deliver("pay:1", { to: addressOf("payee"), value: 1n }).finally(() => (settled = true));
    const isMined = async (): Promise<boolean> => {
      const [sent] = await store.transactions("pay:1");
      return sent !== undefined && (await direct.getTransactionReceipt(sent.hash)) !== null;
    };
    while (!(await isMined())) await setTimeout(10);
    for (let block = 0; block < 3; ++block) {
      // Two looks at the chain, and still waiting.
      const looks = front.count("eth_getTransactionReceipt");
      while (front.count("eth_getTransactionReceipt") < looks + 2) await setTimeout(5);
      expect(settled).to.equal(false);
      await direct.send("evm_mine", []);
    }
    const { blockNumber } = await delivery;
    expect(blockNumber).to.equal((await direct.getBlockNumber()) - 3);
    await store.close();
  });
});
