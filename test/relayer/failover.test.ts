import { setTimeout } from "node:timers/promises";

import type { Hex } from "@bursar/protocol";
import {
  Alarms,
  connect,
  isUnreachable,
  Outbox,
  reach,
  Store,
  type Alarm,
  type ConnectOptions,
  type FailoverProvider,
} from "@bursar/relayer";
import { expect } from "chai";
import { AbiCoder, concat, parseEther, toBeHex, type JsonRpcProvider } from "ethers";

import { LocalNode } from "../../scripts/demo/node.ts";
import { NodeFront, type Trouble } from "./node-front.ts";
import { storeUrl } from "./databases.ts";
import { addressOf, keyOf, NOW, refusalOf } from "./office.ts";

const TROUBLES: readonly Trouble[] = [
  "resets",
  "answers 429",
  "answers 500",
  "answers 503",
  "answers HTML",
  "answers other JSON",
  "hangs",
  "limits requests",
  "lacks the block",
];

describe("a chain with several nodes", function () {
  this.timeout(60_000);
  let node: LocalNode;
  let direct: JsonRpcProvider;
  let [first, second]: NodeFront[] = [];
  let provider: FailoverProvider;
  let alarms: Alarms;
  let told: string[];
  /** Milliseconds. */
  let clock: number;

  before(async () => {
    node = await LocalNode.start();
    direct = node.provider();
    await direct.send("hardhat_mine", ["0x5"]);
  });
  after(() => {
    direct.destroy();
    node.stop();
  });
  beforeEach(async () => {
    [first, second] = [await NodeFront.before(node.url), await NodeFront.before(node.url)];
    clock = 0;
    alarms = new Alarms();
    told = [];
    alarms.listen(({ code, about }: Alarm, over) => {
      const which = about === first!.host ? "first" : about === second!.host ? "second" : about;
      told.push(`${which} ${code}${over ? " over" : ""}`);
    });
  });
  afterEach(async () => {
    provider.destroy();
    await first!.close();
    await second!.close();
  });

  async function open(options: ConnectOptions = {}, fronts = [first!, second!]): Promise<void> {
    const urls = fronts.map(({ url }) => url);
    ({ provider } = await connect(urls, { alarms, timeout: 300, clock: () => clock, ...options }));
    for (const { asked } of fronts) asked.length = 0;
  }

  it("asks the first one while it is well", async () => {
    await open();
    for (let i = 0; i < 3; ++i) expect(await provider.getBlockNumber()).to.equal(await direct.getBlockNumber());
    expect([first!.count("eth_blockNumber"), second!.count("eth_blockNumber")]).to.deep.equal([3, 0]);
    expect(told).to.deep.equal([]);
  });

  for (const trouble of TROUBLES) {
    it(`asks the next one when the first ${trouble}`, async () => {
      await open();
      first!.trouble = trouble;
      expect(await provider.getBlockNumber()).to.equal(await direct.getBlockNumber());
      expect([first!.count("eth_blockNumber"), second!.count("eth_blockNumber")]).to.deep.equal([1, 1]);
    });
  }

  it("asks the next one when nothing listens at the first", async () => {
    await open();
    await first!.close();
    expect(await provider.getBlockNumber()).to.equal(await direct.getBlockNumber());
    expect(told).to.deep.equal(["first node-unreachable"]);
  });

  it("leaves out one that does not answer until it is well again, and tells both", async () => {
    await open();
    first!.trouble = "answers 503";
    for (let i = 0; i < 3; ++i) await provider.getBlockNumber();
    expect([first!.count("eth_blockNumber"), second!.count("eth_blockNumber")]).to.deep.equal([1, 3]);
    first!.trouble = null;
    clock += 4_999;
    await provider.getBlockNumber();
    expect(first!.count("eth_chainId")).to.equal(0);
    clock += 1;
    await provider.getBlockNumber();
    while (told.length < 2) await setTimeout(5);
    await provider.getBlockNumber();
    expect([first!.count("eth_blockNumber"), second!.count("eth_blockNumber")]).to.deep.equal([2, 5]);
    expect(told).to.deep.equal(["first node-unreachable", "first node-unreachable over"]);
  });

  it("spares one that limits requests for as long as it asks, and asks it all the same when there is no other", async () => {
    await open();
    first!.trouble = "answers 429";
    await provider.getBlockNumber();
    first!.trouble = null;
    clock += 6_999;
    await provider.getBlockNumber();
    expect([first!.count("eth_blockNumber"), second!.count("eth_blockNumber")]).to.deep.equal([1, 2]);
    clock += 1;
    await provider.getBlockNumber();
    expect([first!.count("eth_blockNumber"), second!.count("eth_blockNumber")]).to.deep.equal([2, 2]);
    expect(told).to.contain("first node-limited");

    for (const front of [first!, second!]) front.trouble = "limits requests";
    expect(isUnreachable(await provider.getBlockNumber().catch((error: unknown) => error))).to.equal(true);
    for (const front of [first!, second!]) front.trouble = null;
    expect(await provider.getBlockNumber()).to.equal(await direct.getBlockNumber());
  });

  it("asks none that stands still while the chain goes on", async () => {
    await open();
    first!.standsAt = await direct.getBlockNumber();
    await direct.send("evm_increaseTime", [31]);
    await direct.send("evm_mine", []);
    await provider.look();
    first!.asked.length = 0;
    expect(await provider.getBlockNumber()).to.equal(await direct.getBlockNumber());
    expect(first!.count("eth_blockNumber")).to.equal(0);
    expect(told).to.deep.equal(["first node-behind"]);

    second!.trouble = "answers 500";
    expect((await refusalOf(() => reach(() => provider.getBlockNumber()))).code).to.equal("chain-unavailable");
    expect(first!.count("eth_blockNumber")).to.equal(0);

    first!.standsAt = null;
    expect(await provider.getBlockNumber()).to.equal(await direct.getBlockNumber());
    expect(first!.count("eth_blockNumber")).to.equal(1);
    expect(told.slice(1)).to.have.members(["second node-unreachable", "first node-behind over"]);
  });

  it("starts with one that does not answer, and takes it in later", async () => {
    first!.trouble = "hangs";
    await open();
    expect(told).to.deep.equal(["first node-unreachable"]);
    first!.trouble = null;
    await provider.look();
    await provider.getBlockNumber();
    expect(first!.count("eth_blockNumber")).to.equal(1);
  });

  it("says chain-unavailable when none answers, and tells no URL", async () => {
    await open();
    first!.trouble = second!.trouble = "answers 503";
    for (const ask of [() => connect([first!.url, second!.url]), () => reach(() => provider.getBlockNumber())]) {
      const { code, message } = await refusalOf(ask);
      expect(code).to.equal("chain-unavailable");
      expect(message).to.contain("503").and.not.contain("127.0.0.1").and.not.contain("provider-key");
    }
  });

  describe("of which one is on another chain", () => {
    let others: LocalNode[];
    before(async () => {
      others = await Promise.all([LocalNode.start(1_337), LocalNode.start()]);
    });
    after(() => {
      for (const other of others) other.stop();
    });

    for (const [i, what] of ["chain id", "first block"].entries()) {
      it(`is refused at the start: another ${what}`, async () => {
        await open();
        second!.target = others[i]!.url;
        const refusal = await refusalOf(() => connect([first!.url, second!.url]));
        expect(refusal.code).to.equal("wrong-chain");
        expect(refusal.details).to.have.keys("value", "limit");
        expect(refusal.message).to.contain(second!.host).and.not.contain("provider-key");
      });

      it(`leaves it out when it turns out later, and never asks it: another ${what}`, async () => {
        first!.trouble = "answers 500";
        await open();
        first!.trouble = null;
        first!.target = others[i]!.url;
        await provider.look();
        expect(told).to.deep.equal(["first node-unreachable", "first node-unreachable over", "first node-wrong-chain"]);
        first!.asked.length = 0;
        second!.trouble = "resets";
        const refusal = await refusalOf(() => reach(() => provider.getBlockNumber()));
        expect(refusal.code).to.equal("chain-unavailable");
        await provider.broadcastTransaction(await rawTransfer()).catch(() => undefined);
        expect([first!.count("eth_blockNumber"), first!.count("eth_sendRawTransaction")]).to.deep.equal([0, 0]);
      });
    }

    it("is refused when the chain is not the one that was meant", async () => {
      await open();
      const refusal = await refusalOf(() => connect(first!.url, { chainId: 8_453n }));
      expect([refusal.code, refusal.details]).to.deep.equal(["wrong-chain", { value: "31337", limit: "8453" }]);
    });

    it("is not asked either when it stands alone and was replaced while it was away", async () => {
      await open({}, [first!]);
      await first!.close();
      await provider.getBlockNumber().catch(() => undefined);
      first!.target = others[1]!.url;
      await first!.listen();
      const refusal = await refusalOf(() => reach(() => provider.getBlockNumber()));
      expect(refusal.code).to.equal("chain-unavailable");
      expect(alarms.raised.map(({ code }) => code)).to.deep.equal(["node-wrong-chain"]);
    });
  });

  it("takes a contract's refusal for an answer, whatever its text", async () => {
    await open();
    const reason = concat([
      "0x08c379a0",
      AbiCoder.defaultAbiCoder().encode(["string"], ["rate limit exceeded"]),
    ]) as Hex;
    const size = toBeHex((reason.length - 2) / 2, 2).slice(2);
    const error: unknown = await provider
      .call({ data: concat([`0x61${size}80600a5f395ffd`, reason]) })
      .catch((refusal: unknown) => refusal);
    expect(error).to.include({ code: "CALL_EXCEPTION", reason: "rate limit exceeded" });
    expect(isUnreachable(error)).to.equal(false);
    expect([first!.count("eth_call"), second!.count("eth_call")]).to.deep.equal([1, 0]);
  });

  it("takes a node's limit on calls for no answer: nothing is said about the contract", async () => {
    await open();
    first!.trouble = second!.trouble = "limits requests";
    const refusal = await refusalOf(() => reach(() => provider.call({ to: addressOf("contract"), data: "0x" })));
    expect(refusal.code).to.equal("chain-unavailable");
  });

  let nonce = 0;
  const rawTransfer = (): Promise<string> =>
    keyOf("node sender").signTransaction({
      to: addressOf("payee"),
      value: 1n,
      nonce,
      type: 2,
      chainId: 31_337,
      gasLimit: 21_000,
      maxFeePerGas: 10_000_000_000n,
      maxPriorityFeePerGas: 1_000_000_000n,
    });

  describe("that gets a transaction", () => {
    before(async () => {
      const faucet = await direct.getSigner(0);
      await (await faucet.sendTransaction({ to: keyOf("node sender").address, value: parseEther("1") })).wait();
    });

    it("gets it at every node", async () => {
      await open();
      await direct.send("evm_setAutomine", [false]);
      const sent = await provider.broadcastTransaction(await rawTransfer());
      while (second!.count("eth_sendRawTransaction") === 0) await setTimeout(5);
      expect(first!.count("eth_sendRawTransaction")).to.equal(1);
      await direct.send("evm_setAutomine", [true]);
      await direct.send("evm_mine", []);
      expect((await direct.getTransactionReceipt(sent.hash))?.status).to.equal(1);
      ++nonce;
    });

    for (const trouble of ["hangs", "answers 500", "limits requests"] as const) {
      it(`needs one that takes it: the first ${trouble}`, async () => {
        await open();
        first!.trouble = trouble;
        const sent = await provider.broadcastTransaction(await rawTransfer());
        expect((await direct.getTransactionReceipt(sent.hash))?.status).to.equal(1);
        ++nonce;
      });
    }

    it("is told why when all refuse it", async () => {
      await open();
      first!.trouble = "resets";
      --nonce;
      const error: unknown = await provider
        .broadcastTransaction(await rawTransfer())
        .catch((refusal: unknown) => refusal);
      ++nonce;
      expect(error).to.include({ code: "NONCE_EXPIRED" });
    });

    it("never has another node sign what one did not answer about", async () => {
      await open();
      first!.trouble = "hangs";
      const [from] = (await direct.send("eth_accounts", [])) as string[];
      const sending = provider.send("eth_sendTransaction", [{ from, to: addressOf("payee"), value: "0x1" }]);
      expect(isUnreachable(await sending.catch((error: unknown) => error))).to.equal(true);
      expect(second!.count("eth_sendTransaction")).to.equal(0);
    });

    it("pays once though the first node dies between broadcast and block", async () => {
      await open();
      const store = await Store.open(await storeUrl(":memory:"));
      const outbox = new Outbox({
        store,
        provider,
        signer: keyOf("node sender").connect(provider),
        finality: 1,
        replaceAfter: 600n,
        pollInterval: 10,
        now: () => NOW,
        sleep: (milliseconds) => setTimeout(milliseconds),
      });
      const payee = addressOf("paid once");
      await direct.send("evm_setAutomine", [false]);
      const delivery = outbox.deliver("pay:1", { to: payee, value: 1n });
      while (second!.count("eth_sendRawTransaction") === 0) await setTimeout(5);
      await first!.close();
      await direct.send("evm_setAutomine", [true]);
      await direct.send("evm_mine", []);
      const { hash } = await delivery;
      expect((await store.transactions("pay:1")).map((entry) => entry.hash)).to.deep.equal([hash]);
      expect(await direct.getBalance(payee)).to.equal(1n);
      await store.close();
    });
  });
});
