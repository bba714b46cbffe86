import { once } from "node:events";
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";

import type { Address, Hex } from "@bursar/protocol";
import {
  Alarms,
  GasBudget,
  isUnreachable,
  mostCost,
  Outbox,
  readMarket,
  Store,
  type OutboxOptions,
  Lease,
} from "@bursar/relayer";
import { expect } from "chai";
import { JsonRpcProvider, parseEther, Transaction, type Wallet } from "ethers";

import { LocalNode } from "../../scripts/demo/node.ts";
import { TestUSD__factory, type TestUSD } from "../../typechain-types/index.ts";
import { addressOf, keyOf, NOW, refusalOf } from "./office.ts";

/** A provider whose machine dies when it should broadcast. */
class DeadAtBroadcast extends JsonRpcProvider {
  override broadcastTransaction(): Promise<never> {
    return new Promise(() => undefined);
  }
}

/** A gateway to the node that can be taken down in the ways in which gateways go down. */
class Gateway {
  mode: "up" | "resets" | "answers 503" | "answers HTML" = "up";
  readonly #target: URL;
  #server: Server;
  port = 0;

  constructor(target: string) {
    this.#target = new URL(target);
    this.#server = this.#create();
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async listen(): Promise<void> {
    this.#server = this.#create();
    this.#server.listen(this.port, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  #create(): Server {
    return createServer((asked, answer) => {
      if (this.mode === "resets") return void asked.socket.destroy();
      if (this.mode === "answers 503") return void answer.writeHead(503).end("busy");
      if (this.mode === "answers HTML") return void answer.writeHead(200).end("<html>maintenance</html>");
      const onward = request(this.#target, { method: "POST", headers: asked.headers }, (reply) => {
        answer.writeHead(reply.statusCode ?? 500, reply.headers);
        reply.pipe(answer);
      });
      onward.on("error", () => asked.socket.destroy());
      asked.pipe(onward);
    });
  }
}

const JOB = "batch:1";

describe("the outbox", function () {
  this.timeout(15_000);
  let node: LocalNode;
  let provider: JsonRpcProvider;
  let dollar: TestUSD;
  let snapshot: unknown;
  let store: Store;
  let clock: bigint;
  let sender: Wallet;
  /** Deliveries of the running test poll on; those that outlive it do not. */
  let running: symbol;

  before(async () => {
    node = await LocalNode.start();
    provider = node.provider();
    const admin = await provider.getSigner(0);
    sender = keyOf("sender").connect(provider);
    await (await admin.sendTransaction({ to: sender.address, value: parseEther("10") })).wait();
    dollar = await new TestUSD__factory(admin).deploy();
    await dollar.waitForDeployment();
    await (await dollar.mint(sender.address, 1_000n)).wait();
  });
  after(() => {
    provider.destroy();
    node.stop();
  });

  beforeEach(async () => {
    snapshot = await provider.send("evm_snapshot", []);
    clock = NOW;
    running = Symbol();
    store = await Store.open(":memory:");
  });
  afterEach(async () => {
    running = Symbol();
    await provider.send("evm_setAutomine", [true]);
    await provider.send("evm_revert", [snapshot]);
    await store.close();
  });

  function pause(ms: number): Promise<void> {
    const test = running;
    return new Promise((done) => setTimeout(() => test === running && done(), ms));
  }

  const outbox = (overrides: Partial<OutboxOptions> = {}): Outbox =>
    new Outbox({
      store,
      provider,
      signer: sender,
      finality: 1,
      replaceAfter: 60n,
      pollInterval: 10,
      now: () => clock,
      sleep: pause,
      ...overrides,
    });

  /** Moves one unit to the payee: what is sent twice, or not at all, shows in the payee's balance. */
  const pay = (): { to: string; data: string } => ({
    to: dollar.target as string,
    data: dollar.interface.encodeFunctionData("transfer", [addressOf("payee"), 1n]),
  });
  const received = (): Promise<bigint> => dollar.balanceOf(addressOf("payee"));

  async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
    for (let look = 0; !(await condition()); ++look) {
      if (look === 500) throw new Error(`never came true: ${String(condition)}`);
      await pause(10);
    }
  }
  const sent = async (): Promise<Hex[]> => (await store.transactions(JOB)).map(({ hash }) => hash);
  const inPool = async (hash: Hex | undefined): Promise<boolean> =>
    hash !== undefined && (await provider.getTransaction(hash)) !== null;

  it("records a transaction before it is broadcast, and after a crash sends the same bytes", async () => {
    const dying = new DeadAtBroadcast(node.url, 31_337, { staticNetwork: true, cacheTimeout: -1 });
    void outbox({ provider: dying }).deliver(JOB, pay());
    await until(async () => (await sent()).length > 0);
    const [recorded] = await store.transactions(JOB);
    expect(Transaction.from(recorded!.raw).hash).to.equal(recorded!.hash);
    expect(await inPool(recorded!.hash)).to.equal(false);
    dying.destroy();

    const receipt = await outbox().deliver(JOB, pay());
    expect(receipt.hash).to.equal(recorded!.hash);
    expect(await sent()).to.deep.equal([recorded!.hash]);
    expect(await received()).to.equal(1n);
  });

  it("sends nothing again for a batch whose transaction is mined", async () => {
    const first = await outbox().deliver(JOB, pay());
    const again = await outbox().deliver(JOB, pay());
    expect(again.hash).to.equal(first.hash);
    expect(await received()).to.equal(1n);
  });

  it("finds the transaction that was mined while it was away", async () => {
    await provider.send("evm_setAutomine", [false]);
    void outbox({ sleep: () => new Promise(() => undefined) }).deliver(JOB, pay());
    await until(async () => inPool((await sent())[0]));
    await provider.send("evm_mine", []);
    const receipt = await outbox().deliver(JOB, pay());
    expect([receipt.hash]).to.deep.equal(await sent());
    expect(await received()).to.equal(1n);
  });

  it("replaces what is not mined in time: same nonce, higher fees, paid once", async () => {
    await provider.send("evm_setAutomine", [false]);
    const delivery = outbox().deliver(JOB, pay());
    await until(async () => inPool((await sent())[0]));
    clock += 59n;
    await pause(100);
    expect(await sent()).to.have.length(1);
    clock += 1n;
    await until(async () => (await sent()).length === 2 && inPool((await sent())[0]));
    await provider.send("evm_mine", []);
    const receipt = await delivery;
    const [newer, older] = await store.transactions(JOB);
    expect(receipt.hash).to.equal(newer!.hash);
    expect(newer!.nonce).to.equal(older!.nonce);
    expect(newer!.maxFeePerGas * 10n).to.be.at.least(older!.maxFeePerGas * 11n);
    expect(newer!.maxPriorityFeePerGas * 10n).to.be.at.least(older!.maxPriorityFeePerGas * 11n);
    expect(await received()).to.equal(1n);
  });

  it("P14 status_is_chain_truth: says transaction-failed for what was mined and reverted", async () => {
    await provider.send("evm_setAutomine", [false]);
    const delivery = refusalOf(() => outbox().deliver(JOB, pay()));
    await until(async () => inPool((await sent())[0]));
    const { maxFeePerGas, maxPriorityFeePerGas } = (await store.transactions(JOB))[0]!;
    await dollar.pause({ maxFeePerGas: maxFeePerGas * 2n, maxPriorityFeePerGas: maxPriorityFeePerGas * 2n });
    await provider.send("evm_mine", []);
    const refusal = await delivery;
    expect(refusal).to.include({ code: "transaction-failed" });
    expect(refusal.details["value"]).to.equal((await sent())[0]);
    expect(await received()).to.equal(0n);
  });

  it("P14 status_is_chain_truth: says transaction-failed for what would revert, and sends nothing", async () => {
    await (await dollar.pause()).wait();
    const refusal = await refusalOf(() => outbox().deliver(JOB, pay()));
    expect(refusal).to.include({ code: "transaction-failed" });
    expect(await sent()).to.deep.equal([]);
    expect(await provider.getTransactionCount(sender.address, "pending")).to.equal(
      await provider.getTransactionCount(sender.address, "latest"),
    );
  });

  it("K7: waits for its confirmations, and sends again what a reorganisation dropped", async () => {
    const beforeMining: unknown = await provider.send("evm_snapshot", []);
    let settled = false;
    const delivery = outbox({ finality: 3 })
      .deliver(JOB, pay())
      .finally(() => (settled = true));
    const minedIn = async (): Promise<number | undefined> =>
      ((await sent())[0] && (await provider.getTransactionReceipt((await sent())[0]!))?.blockNumber) ?? undefined;
    await until(async () => (await minedIn()) !== undefined);
    await provider.send("evm_mine", []);
    await pause(100);
    expect(settled).to.equal(false);

    await provider.send("evm_setAutomine", [false]);
    await provider.send("evm_revert", [beforeMining]);
    expect(await received()).to.equal(0n);
    await until(async () => inPool((await sent())[0]));
    for (let block = 0; block < 3; ++block) {
      expect(settled).to.equal(false);
      await provider.send("evm_mine", []);
    }
    const receipt = await delivery;
    expect([receipt.hash]).to.deep.equal(await sent());
    expect(await received()).to.equal(1n);
  });

  it("signs anew when something else used its nonce", async () => {
    await provider.send("evm_setAutomine", [false]);
    const delivery = outbox().deliver(JOB, pay());
    await until(async () => inPool((await sent())[0]));
    const [lost] = await store.transactions(JOB);
    const rival = { to: sender.address, nonce: lost!.nonce, maxFeePerGas: lost!.maxFeePerGas * 2n };
    await sender.sendTransaction({ ...rival, maxPriorityFeePerGas: lost!.maxPriorityFeePerGas * 2n });
    await provider.send("evm_mine", []);
    await provider.send("evm_setAutomine", [true]);
    const receipt = await delivery;
    const [newest] = await store.transactions(JOB);
    expect(receipt.hash).to.equal(newest!.hash);
    expect(newest!.nonce).to.equal(lost!.nonce + 1);
    expect(await received()).to.equal(1n);
  });

  describe("K8: when the chain is away", () => {
    let gateway: Gateway;
    let through: JsonRpcProvider;
    beforeEach(async () => {
      gateway = new Gateway(node.url);
      await gateway.listen();
      through = new JsonRpcProvider(gateway.url, 31_337, { staticNetwork: true, cacheTimeout: -1, batchMaxCount: 1 });
    });
    afterEach(async () => {
      through.destroy();
      await gateway.close();
    });

    /** A delivery over the gateway, which counts how often it waits. */
    function deliverThrough(): { delivery: Promise<{ hash: string }>; waited: () => number } {
      let waits = 0;
      const over = outbox({
        provider: through,
        sleep: (ms) => {
          ++waits;
          return pause(ms);
        },
      });
      return { delivery: over.deliver(JOB, pay()), waited: () => waits };
    }

    for (const mode of ["resets", "answers 503", "answers HTML"] as const) {
      it(`and its gateway ${mode}, it waits and delivers when it is back`, async () => {
        gateway.mode = mode;
        const { delivery, waited } = deliverThrough();
        await until(() => waited() >= 3);
        gateway.mode = "up";
        expect([(await delivery).hash]).to.deep.equal(await sent());
        expect(await received()).to.equal(1n);
      });
    }

    it("and nothing listens, it waits and delivers when it is back", async () => {
      await gateway.close();
      const { delivery, waited } = deliverThrough();
      await until(() => waited() >= 3);
      await gateway.listen();
      expect([(await delivery).hash]).to.deep.equal(await sent());
      expect(await received()).to.equal(1n);
    });

    it("between broadcast and block, the payment is found settled without a hand, and not sent twice", async () => {
      await provider.send("evm_setAutomine", [false]);
      const { delivery, waited } = deliverThrough();
      await until(async () => inPool((await sent())[0]));
      gateway.mode = "resets";
      await provider.send("evm_mine", []);
      const before = waited();
      await until(() => waited() >= before + 3);
      gateway.mode = "up";
      expect([(await delivery).hash]).to.deep.equal(await sent());
      expect(await received()).to.equal(1n);
    });
  });

  describe("whose fees and money are bounded", () => {
    const GWEI = 1_000_000_000n;
    let alarms: Alarms;
    let told: string[];
    beforeEach(() => {
      alarms = new Alarms();
      told = [];
      alarms.listen(({ code }, over) => void told.push(`${code}${over ? " over" : ""}`));
    });
    const nextBaseFee = (fee: bigint): Promise<unknown> =>
      provider.send("hardhat_setNextBlockBaseFeePerGas", [`0x${fee.toString(16)}`]);
    const spending = async (): Promise<bigint> => (await provider.getBalance(sender.address)) - balance;
    let balance: bigint;
    beforeEach(async () => (balance = await provider.getBalance(sender.address)));

    it("pays what the next block takes twice, and no blob: type 2", async () => {
      const { baseFee, priority } = await readMarket(provider);
      await outbox().deliver(JOB, pay());
      const { raw, maxFeePerGas, maxPriorityFeePerGas } = (await store.transactions(JOB))[0]!;
      expect([maxFeePerGas, maxPriorityFeePerGas]).to.deep.equal([2n * baseFee + priority, priority]);
      expect(Transaction.from(raw)).to.include({
        type: 2,
        maxFeePerGas,
        maxPriorityFeePerGas,
        blobVersionedHashes: null,
      });
    });

    it("signs nothing while blocks take more than the cap, says so once, and sends when they take less", async () => {
      await nextBaseFee(100n * GWEI);
      await provider.send("evm_mine", []);
      const delivery = outbox({ maxFeePerGas: 50n * GWEI, alarms }).deliver(JOB, pay());
      await until(() => told.length > 0);
      await pause(100);
      expect([await sent(), told]).to.deep.equal([[], ["fee-above-cap"]]);
      const [alarm] = alarms.raised;
      expect(alarm).to.include({ limit: 50n * GWEI });
      expect(alarm!.value)
        .to.be.a("bigint")
        .and.satisfy((value: bigint) => value > 50n * GWEI);

      await nextBaseFee(40n * GWEI);
      await provider.send("evm_mine", []);
      await delivery;
      expect(told).to.deep.equal(["fee-above-cap", "fee-above-cap over"]);
      expect((await store.transactions(JOB))[0]!.maxFeePerGas <= 50n * GWEI).to.equal(true);
    });

    it("replaces what is stuck as far as the cap goes, and then keeps the last one alive", async () => {
      await provider.send("evm_setAutomine", [false]);
      const { baseFee, priority } = await readMarket(provider);
      const first = 2n * baseFee + priority;
      const cap = (first * 5n) / 4n;
      const capped = outbox({ alarms, maxFeePerGas: cap }).deliver(JOB, pay());
      await until(async () => (await sent()).length === 1);
      clock += 60n;
      await until(async () => (await sent()).length === 2);
      clock += 60n;
      await until(() => told.includes("fee-above-cap"));
      await pause(100);
      const fees = (await store.transactions(JOB)).map(({ maxFeePerGas }) => maxFeePerGas);
      expect(fees).to.have.length(2);
      expect(fees[0]! * 8n >= first * 9n && fees[0]! <= cap).to.equal(true);
      await provider.send("evm_mine", []);
      expect((await capped).hash).to.equal((await sent())[0]);
      expect(await received()).to.equal(1n);
    });

    it("replaces at what blocks take by now, where that is more than an eighth", async () => {
      await provider.send("evm_setAutomine", [false]);
      const delivery = outbox().deliver(JOB, pay());
      await until(async () => inPool((await sent())[0]));
      const first = (await store.transactions(JOB))[0]!.maxFeePerGas;
      await nextBaseFee(first * 3n);
      await provider.send("evm_mine", []);
      clock += 60n;
      await until(async () => (await sent()).length === 2 && inPool((await sent())[0]));
      expect((await store.transactions(JOB))[0]!.maxFeePerGas > first * 3n).to.equal(true);
      await provider.send("evm_mine", []);
      await delivery;
      expect(await received()).to.equal(1n);
    });

    it("holds back what may wait when the budget of 24 hours is spent, lets the urgent pass, and goes on a day later", async () => {
      for (const job of ["first", "before"]) await outbox().deliver(job, pay());
      const gasBudget = (mostCost(Transaction.from((await store.transactions("before"))[0]!.raw)) * 6n) / 5n;
      const bounded = outbox({ gasBudget, alarms });
      const waiting = bounded.deliver(JOB, pay(), clock + 1_000_000n);
      await until(() => told.length > 0);
      expect(alarms.raised[0]).to.include({ code: "gas-budget-spent", about: sender.address, limit: gasBudget });
      await bounded.deliver("urgent", pay());
      expect([await received(), await sent()]).to.deep.equal([3n, []]);

      clock += 86_400n;
      await pause(300);
      expect(await sent()).to.deep.equal([]);
      clock += 1n;
      await waiting;
      expect([await received(), told]).to.deep.equal([4n, ["gas-budget-spent", "gas-budget-spent over"]]);
    });

    it("knows after a restart what was spent, by the price that was paid and not by the most that it could be", async () => {
      await outbox().deliver("before", pay());
      const account = sender.address as Address;
      const money = new GasBudget({ store, provider, account, perDay: 1n, alarms, now: () => clock });
      expect(await money.spent()).to.equal(-(await spending()));
      clock += 86_401n;
      expect(await money.spent()).to.equal(0n);
    });

    it("counts what is not mined at the most that it can cost, and its replacements once", async () => {
      await provider.send("evm_setAutomine", [false]);
      const delivery = outbox().deliver(JOB, pay());
      await until(async () => (await sent()).length === 1);
      clock += 60n;
      await until(async () => (await sent()).length === 2 && inPool((await sent())[0]));
      const account = sender.address as Address;
      const money = new GasBudget({ store, provider, account, perDay: 1n, alarms, now: () => clock });
      const { raw } = (await store.transactions(JOB))[0]!;
      expect(await money.spent()).to.equal(mostCost(Transaction.from(raw)));
      await provider.send("evm_mine", []);
      await delivery;
      expect(await money.spent()).to.equal(-(await spending()));
    });

    it("holds back what may wait while the account holds too little, and goes on when it holds more", async () => {
      const minBalance = balance + parseEther("1");
      const bounded = outbox({ minBalance, alarms });
      const waiting = bounded.deliver(JOB, pay(), clock + 1_000_000n);
      await until(() => told.length > 0);
      expect(alarms.raised[0]).to.include({ code: "balance-low", value: balance, limit: minBalance });
      await bounded.deliver("urgent", pay());
      expect([await received(), await sent()]).to.deep.equal([1n, []]);
      await provider.send("hardhat_setBalance", [sender.address, `0x${(minBalance * 2n).toString(16)}`]);
      await waiting;
      expect([await received(), told]).to.deep.equal([2n, ["balance-low", "balance-low over"]]);
    });

    it("waits for money no longer than it may", async () => {
      await outbox({ minBalance: balance * 2n, gasBudget: 1n, alarms }).deliver(JOB, pay(), clock);
      expect(told).to.have.members(["balance-low", "gas-budget-spent"]);
      expect(await received()).to.equal(1n);
    });

    it("tells of the account's balance though nothing is to be sent", async () => {
      const watching = outbox({ minBalance: balance + 1n, alarms });
      await watching.watchBalance();
      await watching.watchBalance();
      expect(told).to.deep.equal(["balance-low"]);
    });
  });

  describe("K7: after a reorganisation", () => {
    let alarms: Alarms;
    beforeEach(() => (alarms = new Alarms()));
    const codes = (): string[] => alarms.raised.map(({ code }) => code);

    it("does not send anew while what used its nonce can vanish again: the first one is mined, alone", async () => {
      await provider.send("evm_setAutomine", [false]);
      const before: unknown = await provider.send("evm_snapshot", []);
      const delivery = outbox({ finality: 4, alarms }).deliver(JOB, pay());
      await until(async () => (await sent()).length === 1);
      const [mine] = await store.transactions(JOB);
      await provider.send("evm_revert", [before]);
      const fees = { maxFeePerGas: mine!.maxFeePerGas * 4n, maxPriorityFeePerGas: mine!.maxPriorityFeePerGas * 4n };
      const again: unknown = await provider.send("evm_snapshot", []);
      await sender.sendTransaction({ to: sender.address, nonce: mine!.nonce, ...fees });
      await provider.send("evm_mine", []);
      await until(async () => (await provider.getTransactionCount(sender.address)) === mine!.nonce + 1);
      await pause(150);
      expect([await sent(), codes()]).to.deep.equal([[mine!.hash], []]);

      await provider.send("evm_revert", [again]);
      await until(async () => inPool(mine!.hash));
      for (let block = 0; block < 4; ++block) await provider.send("evm_mine", []);
      expect((await delivery).hash).to.equal(mine!.hash);
      expect(await received()).to.equal(1n);
    });

    it("sends anew once what used its nonce is final, and says that something else has the key", async () => {
      await provider.send("evm_setAutomine", [false]);
      const delivery = outbox({ finality: 3, alarms }).deliver(JOB, pay());
      await until(async () => inPool((await sent())[0]));
      const [mine] = await store.transactions(JOB);
      const fees = { maxFeePerGas: mine!.maxFeePerGas * 4n, maxPriorityFeePerGas: mine!.maxPriorityFeePerGas * 4n };
      await sender.sendTransaction({ to: sender.address, nonce: mine!.nonce, ...fees });
      await provider.send("evm_mine", []);
      await provider.send("evm_mine", []);
      await pause(150);
      expect(await sent()).to.have.length(1);
      await provider.send("evm_mine", []);
      await until(async () => (await sent()).length === 2 && inPool((await sent())[0]));
      expect(codes()).to.deep.equal(["nonce-taken"]);
      for (let block = 0; block < 3; ++block) await provider.send("evm_mine", []);
      await delivery;
      expect([await received(), codes()]).to.deep.equal([1n, []]);
    });

    it("mines each of two jobs whose blocks vanished, once", async () => {
      const before: unknown = await provider.send("evm_snapshot", []);
      const over = outbox({ finality: 4, alarms });
      const deliveries = [over.deliver("one", pay()), over.deliver("two", pay())];
      await until(async () => (await received()) === 2n);
      await provider.send("evm_revert", [before]);
      expect(await received()).to.equal(0n);
      await until(async () => (await received()) === 2n);
      for (let block = 0; block < 4; ++block) await provider.send("evm_mine", []);
      const hashes = (await Promise.all(deliveries)).map(({ hash }) => hash);
      expect(new Set(hashes).size).to.equal(2);
      expect(await received()).to.equal(2n);
    });

    it("sends what it had ended again, where a later transaction waits for its nonce", async () => {
      const before: unknown = await provider.send("evm_snapshot", []);
      const ended = await outbox().deliver("ended", pay());
      const delivery = outbox({ finality: 3 }).deliver(JOB, pay());
      await until(async () => (await received()) === 2n);
      await provider.send("evm_revert", [before]);
      await until(async () => (await received()) === 2n);
      await provider.send("evm_mine", []);
      await provider.send("evm_mine", []);
      await delivery;
      expect((await provider.getTransactionReceipt(ended.hash))?.status).to.equal(1);
      expect(await store.transactions("ended")).to.have.length(1);
    });

    it("fills a gap that nothing recorded can fill with an empty transaction, and says so", async () => {
      const before: unknown = await provider.send("evm_snapshot", []);
      await (await sender.sendTransaction({ to: sender.address })).wait();
      const delivery = outbox({ finality: 3, alarms }).deliver(JOB, pay());
      await until(async () => (await received()) === 1n);
      const [mine] = await store.transactions(JOB);
      await provider.send("evm_revert", [before]);
      await pause(150);
      expect(await received()).to.equal(0n);
      clock += 60n;
      await until(async () => (await received()) === 1n);
      const [filler] = await store.transactionsAt(mine!.nonce - 1);
      expect([filler!.job, codes()]).to.deep.equal([`gap:${mine!.nonce - 1}`, []]);
      expect(Transaction.from(filler!.raw)).to.include({ to: sender.address, value: 0n, data: "0x" });
      await provider.send("evm_mine", []);
      await provider.send("evm_mine", []);
      expect(await sent()).to.include((await delivery).hash);
    });
  });

  it("signs nothing without the lease, and follows what its holder sends to its end", async () => {
    const leases = [1, 2].map((number) => {
      return new Lease({ database: store.database, name: JOB, holder: `elsewhere/1/${number}` });
    });
    const [holder, other] = leases as [Lease, Lease];
    await holder.run(() => Promise.resolve());
    let ended = false;
    const watched = outbox({ lease: other })
      .deliver(JOB, pay())
      .finally(() => (ended = true));
    await pause(500);
    expect([await sent(), ended]).to.deep.equal([[], false]);
    const { hash } = await outbox({ lease: holder }).deliver(JOB, pay());
    expect((await watched).hash).to.equal(hash);
    expect(await sent()).to.deep.equal([hash]);
  });

  it("records and broadcasts nothing once another process has the lease, even if it is about to", async () => {
    const [holder, other] = [1, 2].map((number) => {
      return new Lease({ database: store.database, name: JOB, holder: `elsewhere/1/${number}` });
    }) as [Lease, Lease];
    const stolen = holder.run(async () => {
      await store.database.run("UPDATE lease SET until = 0");
      await other.run(() => Promise.resolve());
      return outbox({ lease: holder }).deliver(JOB, pay());
    });
    expect((await refusalOf(() => stolen)).code).to.equal("lease-lost");
    expect(await sent()).to.deep.equal([]);
    expect(await provider.getTransactionCount(sender.address, "pending")).to.equal(
      await provider.getTransactionCount(sender.address, "latest"),
    );
  });

  it("tells a chain that does not answer from one that refuses", async () => {
    const nobody = new JsonRpcProvider("http://127.0.0.1:1", 31_337, { staticNetwork: true });
    const silence: unknown = await nobody.getBlockNumber().catch((error: unknown) => error);
    expect(isUnreachable(silence)).to.equal(true);
    nobody.destroy();
    await (await dollar.pause()).wait();
    const refusal: unknown = await provider.call({ from: sender.address, ...pay() }).catch((error: unknown) => error);
    expect(isUnreachable(refusal)).to.equal(false);
    expect(isUnreachable(new Error("a bug"))).to.equal(false);
    expect(isUnreachable(null)).to.equal(false);
  });
});
