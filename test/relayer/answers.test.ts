import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

import type { Address, Hex } from "@bursar/protocol";
import { circuitSize, inclusionSize, keyFolder, openCircuit, Prover } from "@bursar/prover";
import {
  Answers,
  Chain,
  claimId,
  createLogger,
  Outbox,
  SERVICE_DEFAULTS,
  startService,
  type AnswersOptions,
  type Service,
} from "@bursar/relayer";
import { expect } from "chai";
import { JsonRpcProvider } from "ethers";

import { TestRail, type PayingAgent } from "../integration/rail.ts";
import { addressOf, refusalOf } from "./office.ts";

const SHOP = addressOf("shop");
const DEPOSIT = 1_000_000n;
const CURE = 86_400n;
const [OPEN, ANSWERED] = [1n, 2n];

/** A provider whose machine dies when it should broadcast. */
class DeadAtBroadcast extends JsonRpcProvider {
  override broadcastTransaction(): Promise<never> {
    return new Promise(() => undefined);
  }
}

describe("answers to challenges", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let told: [id: Hex, message: string][];

  beforeEach(async () => {
    rail = await TestRail.start();
    told = [];
  });
  afterEach(async () => {
    await rail.stop();
  });

  const answers = (overrides: Partial<AnswersOptions> = {}): Answers =>
    new Answers({
      store: rail.store,
      chain: rail.chain,
      outbox: rail.outbox,
      prover: rail.prover,
      settler: rail.settler,
      processor: rail.processorKey.address as Address,
      failed: ({ id }, { message }) => void told.push([id, message]),
      ...overrides,
    });

  /** An outbox on the same books, as the process after a crash has one. */
  const outboxOver = (provider: JsonRpcProvider = rail.provider): Outbox =>
    new Outbox({
      store: rail.store,
      provider,
      signer: rail.processorKey.connect(provider),
      confirmations: 1,
      replaceAfter: 60n,
      pollInterval: 20,
      now: () => rail.now(),
      sleep: setTimeout,
    });

  const start = (prover: Prover, write: (line: string) => void): Promise<Service> =>
    startService({
      config: { ...SERVICE_DEFAULTS, port: 0, settleEvery: 0, maxSkew: null },
      chain: rail.chain,
      provider: rail.provider,
      store: rail.store,
      signer: rail.processorKey,
      prover,
      logger: createLogger("info", { write }),
      now: () => rail.now(),
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    });

  /** An agent whose `count` payments are settled in one batch. */
  async function settled(count: number, agent?: PayingAgent): Promise<PayingAgent> {
    const paying = agent ?? (await rail.open());
    for (let i = 1; i <= count; ++i) await paying.pay(SHOP, BigInt(i));
    for (const { state, error } of await rail.settler.run()) expect(state, error ?? "").to.equal("settled");
    return paying;
  }

  /** Challenges a payment with what its payee keeps. */
  async function challenge({ address }: PayingAgent, seq: bigint): Promise<Hex> {
    const { payment, signature } = (await rail.store.payment(address, seq))!;
    const { receipt, signature: processorSignature } = (await rail.processor.receipt(address, seq))!;
    const { challenges } = rail.chain;
    await (await rail.dollar.mint(rail.ownerAddress, DEPOSIT)).wait();
    await (await rail.dollar.approve(challenges, DEPOSIT)).wait();
    const sent = await challenges.connect(rail.owner).challenge({
      ...payment,
      agent: address,
      settleBy: receipt.settleBy,
      logIndex: receipt.logIndex,
      agentSignature: signature,
      processorSignature,
      payees: [],
    });
    await sent.wait();
    const id = claimId(address, payment);
    expect(await statusOf(id)).to.equal(OPEN);
    return id;
  }

  const statusOf = async (id: Hex): Promise<bigint> => (await rail.chain.challenges.challengeOf(id)).status;
  const sent = async (id: Hex, attempt = ""): Promise<number> =>
    (await rail.store.transactions(`answer:${id}${attempt}`)).length;
  const place = async (): Promise<number | null> => rail.store.cursor("challenges");
  const earned = (): Promise<bigint> => rail.chain.escrow.creditOf(rail.token, rail.processorKey.address);

  it("P15 honest_sp_never_slashed: the running service answers by itself, each line of each batch, once", async () => {
    const agent = await settled(3);
    await settled(6, agent);
    let log = "";
    const keep = (line: string): void => {
      log += line;
    };
    const service = await start(rail.prover, keep);
    const ids: Hex[] = [];
    for (const seq of [1n, 3n, 4n, 7n, 8n, 9n]) ids.push(await challenge(agent, seq));
    for (const id of ids) while ((await statusOf(id)) === OPEN) await setTimeout(50);
    await service.stop();
    for (const id of ids) expect([await statusOf(id), await sent(id)]).to.deep.equal([ANSWERED, 1]);
    expect(await earned()).to.equal(6n * DEPOSIT);
    expect(log).not.to.include("could not be answered");
    const again = await start(rail.prover, keep);
    const end = (await rail.provider.getBlockNumber()) + 2;
    await rail.provider.send("hardhat_mine", ["0x2"]);
    while (((await place()) ?? 0) < end) await setTimeout(50);
    await again.stop();
    expect(await Promise.all(ids.map((id) => sent(id)))).to.deep.equal([1, 1, 1, 1, 1, 1]);
    const { slashed } = await rail.chain.processors.processorOf(rail.processorKey.address);
    expect(slashed).to.equal(false);
  });

  it("says at its start which keys it lacks to answer with, and which the chain does not know", async () => {
    const folder = mkdtempSync(join(tmpdir(), "bursar-no-keys-"));
    const lacks = async (open: ConstructorParameters<typeof Prover>[0]): Promise<string[]> => {
      const lines: string[] = [];
      const prover = new Prover(open);
      await (await start(prover, (line) => void lines.push(line))).stop();
      const failed = lines.filter((line) => line.includes("could not be answered"));
      return failed.map((line) => (JSON.parse(line) as { circuit: string }).circuit).sort();
    };
    expect(await lacks((size) => openCircuit(size, keyFolder(size, folder)))).to.deep.equal(["default", "tiny"]);
    const [tiny, other] = ["tiny", "default"].map((name) => inclusionSize(circuitSize(name)));
    expect(await lacks((size) => openCircuit(size.name === tiny!.name ? other! : size))).to.deep.equal(["tiny"]);
    expect(await lacks(undefined)).to.deep.equal([]);
    rmSync(folder, { recursive: true });
  });

  it("waits until a challenge is final", async () => {
    const agent = await settled(1);
    const id = await challenge(agent, 1n);
    const watching = answers({ chain: new Chain(rail.chain.rail, rail.provider, 3) });
    expect(await watching.run()).to.deep.equal([]);
    await rail.provider.send("hardhat_mine", ["0x1"]);
    expect(await watching.run()).to.deep.equal([]);
    await rail.provider.send("hardhat_mine", ["0x1"]);
    expect(await watching.run()).to.deep.equal([id]);
    expect(await statusOf(id)).to.equal(ANSWERED);
  });

  it("looks at nothing and keeps no place before the first batch, and then from its block on", async () => {
    const watching = answers();
    await watching.run();
    expect(await place()).to.equal(null);
    const agent = await settled(1);
    const id = await challenge(agent, 1n);
    await watching.run();
    expect(await statusOf(id)).to.equal(ANSWERED);
    expect(await place()).to.be.greaterThan((await rail.store.batch(1))!.block! - 1);
  });

  it("finds a challenge however many blocks later, and reads them in parts that a node answers", async () => {
    const agent = await settled(2);
    await rail.provider.send("hardhat_mine", ["0x2ee0"]);
    const id = await challenge(agent, 2n);
    await rail.provider.send("hardhat_mine", ["0x1770"]);
    const ranges: number[] = [];
    void rail.provider.on("debug", ({ payload }: { payload?: { method: string; params: unknown[] } }) => {
      if (payload?.method !== "eth_getLogs") return;
      const { fromBlock, toBlock } = payload.params[0] as { fromBlock: string; toBlock: string };
      ranges.push(Number(toBlock) - Number(fromBlock) + 1);
    });
    await answers().run();
    expect(await statusOf(id)).to.equal(ANSWERED);
    expect(ranges).to.have.length(4);
    expect(Math.max(...ranges)).to.equal(5_000);
    expect(await place()).to.be.at.least(18_000);
    await answers().run();
    expect(ranges.slice(4).every((blocks) => blocks < 100)).to.equal(true);
  });

  describe("across a crash", () => {
    it("between the record of the transaction and its broadcast: the same bytes go out, once", async () => {
      const agent = await settled(2);
      const id = await challenge(agent, 2n);
      const dead = new DeadAtBroadcast(rail.node.url, 31_337, { staticNetwork: true, cacheTimeout: -1 });
      void answers({ outbox: outboxOver(dead) }).run();
      while ((await sent(id)) === 0) await setTimeout(20);
      const [{ hash } = { hash: "" }] = await rail.store.transactions(`answer:${id}`);
      expect((await place()) ?? 0).to.be.lessThan(await rail.provider.getBlockNumber());
      await answers({ outbox: outboxOver() }).run();
      expect([await statusOf(id), await sent(id)]).to.deep.equal([ANSWERED, 1]);
      expect((await rail.provider.getTransactionReceipt(hash))?.status).to.equal(1);
      dead.destroy();
    });
    it("while it is proved: it is proved again", async () => {
      const agent = await settled(2);
      const id = await challenge(agent, 1n);
      const hanging = answers({ prover: { proveInclusion: () => new Promise(() => undefined) } });
      void hanging.run();
      await setTimeout(200);
      await answers().run();
      expect([await statusOf(id), await sent(id)]).to.deep.equal([ANSWERED, 1]);
    });
  });

  it("a prover that dies costs no answer: it is told once, and the next time answers", async () => {
    const agent = await settled(2);
    const id = await challenge(agent, 1n);
    const gone = new AbortController();
    const proveInclusion: typeof rail.prover.proveInclusion = (size, statement) => {
      const proof = rail.prover.proveInclusion(size, statement);
      proof.catch(() => {
        gone.abort();
      });
      return proof;
    };
    const watching = answers({ prover: { proveInclusion } });
    const running = watching.run();
    while (!gone.signal.aborted) {
      rail.prover.close();
      await setTimeout(5);
    }
    await running;
    expect(told.map(([one]) => one)).to.deep.equal([id]);
    expect(await statusOf(id)).to.equal(OPEN);
    expect(await place()).to.be.lessThan(await rail.provider.getBlockNumber());
    await watching.run();
    expect([await statusOf(id), await sent(id), told.length]).to.deep.equal([ANSWERED, 1, 1]);
  });

  it("one that the books cannot answer holds up no other, is told once, and is given up when its time is over", async () => {
    const [agent, lost] = [await settled(2), await settled(1)];
    const id = await challenge(lost, 1n);
    await rail.store.database.run("UPDATE payment SET batch = NULL WHERE agent = ?", lost.address);
    const other = await challenge(agent, 2n);
    const watching = answers();
    for (let i = 0; i < 3; ++i) await watching.run();
    expect([await statusOf(id), await statusOf(other)]).to.deep.equal([OPEN, ANSWERED]);
    expect(told).to.have.length(1);
    expect(told[0]![0]).to.equal(id);
    expect(told[0]![1]).to.match(/The books know no settled payment 1/);
    const { answerableUntil } = await rail.chain.challenges.challengeOf(id);
    const mineAt = async (time: bigint): Promise<void> => {
      await rail.provider.send("evm_setNextBlockTimestamp", [Number(time)]);
      await rail.provider.send("evm_mine", []);
    };
    await mineAt(answerableUntil);
    await watching.run();
    expect(await place()).to.be.lessThan(await rail.provider.getBlockNumber());
    await mineAt(answerableUntil + 1n);
    await watching.run();
    expect(await place()).to.equal(await rail.provider.getBlockNumber());
    expect([told.length, await sent(id)]).to.deep.equal([1, 0]);
  });

  it("tells of a challenge whose payment the books have otherwise, and of one that they never had", async () => {
    const agent = await settled(2);
    const id = await challenge(agent, 1n);
    const { ref } = (await rail.store.payment(agent.address, 1n))!.payment.line;
    const write = async (value: string): Promise<void> => {
      await rail.store.database.run("UPDATE payment SET ref = ? WHERE agent = ? AND seq = 1", value, agent.address);
    };
    await write(`0x${"99".repeat(32)}`);
    const watching = answers();
    await watching.run();
    expect(told).to.have.length(1);
    await write(ref);
    await watching.run();
    expect([await statusOf(id), told.length]).to.deep.equal([ANSWERED, 1]);
  });

  it("answers for a payment whose first batch failed, by the batch that settled it", async () => {
    const agent = await rail.open();
    await agent.pay(SHOP, 4n);
    const failed = (await rail.settler.plan())!;
    await rail.store.markFailed(failed.id, "given up by the test");
    await settled(1, agent);
    expect((await rail.store.payment(agent.address, 1n))!.batch).to.equal(failed.id + 1);
    const id = await challenge(agent, 1n);
    await answers().run();
    const [event] = await rail.chain.challenges.queryFilter(rail.chain.challenges.filters.ChallengeAnswered(id));
    expect([await statusOf(id), event!.args.batchId]).to.deep.equal([ANSWERED, 1n]);
  });

  it("answers for a batch that is on chain before the books say so", async () => {
    const agent = await settled(1);
    await rail.store.database.run("UPDATE batch SET state = 'submitted', tx = NULL, block = NULL WHERE id = 1");
    await rail.store.setCursor("challenges", 0);
    const id = await challenge(agent, 1n);
    await answers().run();
    expect(await statusOf(id)).to.equal(ANSWERED);
  });

  it("says so of a node that has forgotten the transaction of a batch, and answers by one that has not", async () => {
    const agent = await settled(1);
    const id = await challenge(agent, 1n);
    const kept = (await rail.store.transactions("batch:1")).map(({ hash }) => hash);
    const rename = async (from: string, to: string): Promise<void> => {
      await rail.store.database.run("UPDATE outbox SET hash = ? WHERE hash = ?", to, from);
    };
    for (const hash of kept) await rename(hash, `${hash.slice(0, -2)}00`);
    const refused = await refusalOf(() => answers().run());
    expect([refused.code, refused.advice]).to.deep.equal([
      "chain-unavailable",
      "Ask a node that keeps the receipts of old transactions.",
    ]);
    for (const hash of kept) await rename(`${hash.slice(0, -2)}00`, hash);
    expect(await answers().run()).to.deep.equal([id]);
  });

  it("leaves it at that when somebody else answered, before or in the same block", async () => {
    const agent = await settled(2);
    const [one, two] = [await challenge(agent, 1n), await challenge(agent, 2n)];
    const calls = new Map<string, string>();
    const listening = outboxOver();
    listening.deliver = (job, { data }) => {
      calls.set(job, data!);
      return Promise.reject(new Error("only listens"));
    };
    await answers({ outbox: listening }).run();
    expect(told.splice(0)).to.have.length(2);
    const stranger = await rail.provider.getSigner(2);
    const to = rail.chain.rail.challenges;
    await (await stranger.sendTransaction({ to, data: calls.get(`answer:${one}`)! })).wait();
    await rail.provider.send("evm_setAutomine", [false]);
    const running = answers().run();
    while ((await sent(two)) === 0) await setTimeout(20);
    await stranger.sendTransaction({
      to,
      data: calls.get(`answer:${two}`)!,
      gasLimit: 1_000_000n,
      maxPriorityFeePerGas: 10n ** 11n,
      maxFeePerGas: 10n ** 12n,
    });
    await rail.provider.send("evm_setAutomine", [true]);
    await rail.provider.send("evm_mine", []);
    await running;
    expect([await statusOf(one), await statusOf(two)]).to.deep.equal([ANSWERED, ANSWERED]);
    expect([await sent(one), await sent(two), told]).to.deep.equal([0, 1, []]);
    const [mine] = await rail.store.transactions(`answer:${two}`);
    expect((await rail.provider.getTransactionReceipt(mine!.hash))?.status).to.equal(0);
  });

  it("answers again when a reorganisation put its answer before the challenge", async () => {
    const agent = await settled(1);
    const watching = answers();
    await watching.run();
    const snapshot: unknown = await rail.provider.send("evm_snapshot", []);
    const nonce = await rail.owner.getNonce();
    const id = await challenge(agent, 1n);
    await watching.run();
    expect(await statusOf(id)).to.equal(ANSWERED);

    await rail.provider.send("evm_revert", [snapshot]);
    const [{ raw, hash } = { raw: "", hash: "" }] = await rail.store.transactions(`answer:${id}`);
    // The local node says what a transaction that it mines reverts with.
    await rail.provider.broadcastTransaction(raw).catch(() => undefined);
    expect((await rail.provider.getTransactionReceipt(hash))?.status).to.equal(0);
    rail.owner.reset();
    expect(await rail.owner.getNonce()).to.equal(nonce);
    expect(await challenge(agent, 1n)).to.equal(id);
    await watching.run();
    expect(await statusOf(id)).to.equal(ANSWERED);
    expect([await sent(id), await sent(id, ":2"), told]).to.deep.equal([1, 1, []]);
  });

  it("waits for the chain to answer, and tells nobody meanwhile", async () => {
    const agent = await settled(1);
    const id = await challenge(agent, 1n);
    const nowhere = new JsonRpcProvider("http://127.0.0.1:9", 31_337, { staticNetwork: true });
    const chain = Object.create(rail.chain, {
      challenges: {
        value: rail.chain.challenges.connect(nowhere),
      },
    }) as typeof rail.chain;
    const error: unknown = await answers({ chain })
      .run()
      .then(
        () => undefined,
        (reason: unknown) => reason,
      );
    nowhere.destroy();
    expect((error as { code?: string }).code).to.equal("chain-unavailable");
    expect([told, await place()]).to.deep.equal([[], null]);
    await answers().run();
    expect(await statusOf(id)).to.equal(ANSWERED);
    expect((await rail.chain.challenges.challengeOf(id)).answerableUntil).to.be.greaterThan(rail.now() - CURE);
  });
});
