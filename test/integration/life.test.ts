import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import {
  decodePaymentHeader,
  encodePaymentHeader,
  parseWire,
  signedPaymentSchema,
  signedReceiptSchema,
  signWithKey,
  toWire,
  verifyPaid,
  type Address,
  type DirectPayment,
  type Hex,
} from "@bursar/protocol";
import { Chain, DirectSettler, Outbox, Processor, receiptKey, Settler, Store } from "@bursar/relayer";
import { expect } from "chai";
import {
  hexlify,
  JsonRpcProvider,
  NonceManager,
  randomBytes,
  TypedDataEncoder,
  ZeroHash,
  type JsonRpcPayload,
  type JsonRpcResult,
} from "ethers";

import { refusalOf } from "../relayer/office.ts";
import { TestRail, type PayingAgent } from "./rail.ts";

const TRANSFER = {
  TransferWithAuthorization: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "validAfter", type: "uint256" },
    { name: "validBefore", type: "uint256" },
    { name: "nonce", type: "bytes32" },
  ],
};

/** A connection that can be cut. */
class Wire extends JsonRpcProvider {
  cut = false;
  override _send(payload: JsonRpcPayload | JsonRpcPayload[]): Promise<JsonRpcResult[]> {
    if (this.cut) return Promise.reject(Object.assign(new Error("the wire is cut"), { code: "ECONNREFUSED" }));
    return super._send(payload);
  }
}

describe("The life of a payment", function () {
  this.timeout(300_000);
  let rail: TestRail;

  beforeEach(async () => {
    rail = await TestRail.start({}, 60n);
  });
  afterEach(async () => {
    await rail.stop();
  });

  const statusOf = async (agent: PayingAgent, seq = 1n): Promise<string | undefined> =>
    (await rail.processor.payment(agent.address, seq))?.status;
  const credit = (payee: Address): Promise<bigint> => rail.chain.escrow.creditOf(rail.token, payee);

  /** Lets time pass, on the chain and for the processor. */
  async function wait(seconds: bigint): Promise<void> {
    rail.skew += seconds;
    await rail.provider.send("evm_setNextBlockTimestamp", [Number(rail.now())]);
    await rail.provider.send("evm_mine", []);
  }

  /** A direct payment in the stock x402 form, signed by the agent. */
  function direct(
    agent: PayingAgent,
    payee: Address,
    amount: bigint,
    changes: Partial<DirectPayment> = {},
  ): DirectPayment {
    const nonce = hexlify(randomBytes(32)) as Hex;
    const validBefore = rail.now() + 600n;
    const payment = { nonce, validAfter: 0n, validBefore, amount, payee, ...changes };
    const digest = TypedDataEncoder.hash(
      {
        name: `Bursar ${rail.token}`,
        version: "1",
        chainId: rail.domain.chainId,
        verifyingContract: rail.chain.direct,
      },
      TRANSFER,
      {
        from: agent.address,
        to: payment.payee,
        value: payment.amount,
        validAfter: payment.validAfter,
        validBefore: payment.validBefore,
        nonce: payment.nonce,
      },
    ) as Hex;
    const signature = signWithKey(digest, agent.wallet.privateKey as Hex);
    const form = { kind: "exact" as const, agent: agent.address, token: rail.token, ref: ZeroHash as Hex };
    return { ...form, ...payment, digest, signature };
  }

  it("P14 status_is_chain_truth: accepted, batched, proving, submitted, settled, each when it is so", async () => {
    const agent = await rail.open();
    await agent.pay(rail.payee(), 5n);
    expect(await statusOf(agent)).to.equal("accepted");
    const { id } = (await rail.settler.plan())!;
    expect(await statusOf(agent)).to.equal("batched");
    const proving = rail.settler.prove(id);
    while ((await statusOf(agent)) === "batched") await pause(1);
    expect(await statusOf(agent)).to.equal("proving");
    await proving;
    expect(await statusOf(agent)).to.equal("proving");
    await rail.provider.send("evm_setAutomine", [false]);
    const finished = rail.settler.finish(id);
    while ((await rail.store.transactions(`batch:${id}`)).length === 0) await pause(10);
    expect(await statusOf(agent)).to.equal("submitted");
    await rail.provider.send("evm_setAutomine", [true]);
    await rail.provider.send("evm_mine", []);
    await finished;
    expect(await statusOf(agent)).to.equal("settled");
    const { transaction, batch } = (await rail.processor.payment(agent.address, 1n))!;
    expect(batch).to.equal(id);
    expect((await rail.provider.getTransactionReceipt(transaction!))?.status).to.equal(1);
  });

  it("P14: what was not settled in time is claimable, and settled once it is, and failed once the mandate is closed", async () => {
    const [late, lost] = [await rail.open(), await rail.open()];
    await late.pay(rail.payee(), 5n);
    await lost.pay(rail.payee(), 5n);
    rail.skew += 3_600n + 7_200n;
    expect([await statusOf(late), await statusOf(lost)]).to.deep.equal(["accepted", "accepted"]);
    rail.skew += 1n;
    expect([await statusOf(late), await statusOf(lost)]).to.deep.equal(["claimable", "claimable"]);
    expect(await rail.store.ledger({ status: "claimable" })).to.have.length(2);
    await rail.store.exclude(lost.address, "left out by the test");
    await rail.settler.run();
    expect([await statusOf(late), await statusOf(lost)]).to.deep.equal(["settled", "claimable"]);
    rail.skew = (await rail.store.mandateOf(lost.address)).closesAt - BigInt(Math.floor(Date.now() / 1_000));
    expect([await statusOf(late), await statusOf(lost)]).to.deep.equal(["settled", "failed"]);
  });

  it("P13 one_bad_mandate_never_blocks_others: a mandate that can no longer settle is left out, the others settle", async () => {
    const [good, bad] = [await rail.open(), await rail.open()];
    const shop = rail.payee();
    await good.pay(shop, 5n);
    await bad.pay(shop, 7n);
    // The processor has not heard of the end: the chain alone knows that the windows are over.
    const registry = rail.chain.registry.connect(rail.owner);
    await (await registry.revoke(bad.address, 1n)).wait();
    const { closesAt } = await rail.chain.mandate(bad.address);
    const opened = await rail.chain.mandate(good.address);
    expect(closesAt).to.be.lessThan(opened.closesAt);
    rail.skew = closesAt - BigInt(Math.floor(Date.now() / 1_000));
    await rail.provider.send("evm_setNextBlockTimestamp", [Number(closesAt)]);
    await rail.provider.send("evm_mine", []);
    const ended = await rail.settler.run();
    expect(ended.map(({ state }) => state)).to.deep.equal(["failed", "settled"]);
    expect(ended[0]!.error).to.match(new RegExp(`${bad.address}: MandateNotSettleable`));
    expect(await credit(shop)).to.equal(5n);
    expect(await rail.store.excluded(bad.address)).to.match(/MandateNotSettleable/);
    expect(await rail.store.excluded(good.address)).to.equal(null);
    await good.pay(shop, 1n).catch(() => undefined);
    expect(await rail.settler.run()).to.have.length(0);
  });

  it("settles direct payments in one transaction, in the same budget, beside a ledger that they do not touch", async () => {
    const agent = await rail.open({ budget: 1_000n, paymentCap: 500n });
    const shop = rail.payee();
    await agent.pay(shop, 100n);
    const before = await rail.chain.registry.positionOf(agent.address);
    const records = await Promise.all(
      [200n, 300n].map((amount) => rail.processor.acceptDirect(direct(agent, shop, amount))),
    );
    const settled = await Promise.all(records.map((record) => rail.direct.settled(record, { timeout: 20_000 })));
    expect(settled.map(({ status }) => status)).to.deep.equal(["settled", "settled"]);
    expect(await credit(shop)).to.equal(500n);
    expect(await rail.chain.registry.positionOf(agent.address)).to.deep.equal(before);
    const [batch] = await rail.settler.run();
    expect(batch!.state).to.equal("settled");
    expect(await credit(shop)).to.equal(600n);
    const { spent, directSpent } = await rail.chain.mandate(agent.address);
    expect([spent, directSpent]).to.deep.equal([100n, 500n]);
    expect((await rail.processor.status(agent.address)).remaining).to.equal(400n);
    expect((await rail.store.ledger()).map(({ rail: way, status }) => [way, status])).to.have.deep.members([
      ["exact", "settled"],
      ["exact", "settled"],
      ["proved", "settled"],
    ]);
  });

  it("ends a direct payment that the chain refuses as failed, gives its units back, and settles its neighbours", async () => {
    const agent = await rail.open({ budget: 1_000n, paymentCap: 500n });
    const shop = rail.payee();
    const short = await rail.processor.acceptDirect(direct(agent, shop, 200n, { validBefore: rail.now() + 60n }));
    const long = await rail.processor.acceptDirect(direct(agent, shop, 300n));
    await wait(120n);
    const ended = await Promise.all([short, long].map((record) => rail.direct.settled(record, { timeout: 20_000 })));
    expect(ended.map(({ status }) => status)).to.deep.equal(["failed", "settled"]);
    expect(ended[0]!.error).to.match(/AuthorizationExpired/);
    expect(await credit(shop)).to.equal(300n);
    expect((await rail.processor.status(agent.address)).remaining).to.equal(700n);
  });

  it("follows a direct payment to its end after a crash between record and broadcast, and pays it once", async () => {
    const agent = await rail.open();
    const shop = rail.payee();
    const record = await rail.processor.acceptDirect(direct(agent, shop, 200n));
    await rail.provider.send("evm_setAutomine", [false]);
    const hanging = rail.direct.settled(record, { timeout: 500 });
    expect((await hanging).status).to.equal("submitted");
    const again = new DirectSettler({
      store: rail.store,
      gateway: rail.chain,
      outbox: rail.outbox,
      sender: rail.processorKey.address as Address,
    });
    const followed = again.settled(record, { timeout: 20_000 });
    await rail.provider.send("evm_setAutomine", [true]);
    await rail.provider.send("evm_mine", []);
    expect((await followed).status).to.equal("settled");
    await again.run();
    expect(await credit(shop)).to.equal(200n);
  });

  it("K7: says settled at finality only, takes it back to pending when a reorganisation drops it, and settles once", async () => {
    const agent = await rail.open();
    const shop = rail.payee();
    await agent.pay(shop, 5n);
    const { settler, outbox } = patient(3);
    const { id } = (await settler.plan())!;
    await settler.prove(id);
    const snapshot: unknown = await rail.provider.send("evm_snapshot", []);
    const finished = settler.finish(id);
    while ((await credit(shop)) === 0n) await pause(20);
    expect(await statusOf(agent)).to.equal("submitted");
    await rail.provider.send("evm_revert", [snapshot]);
    expect(await credit(shop)).to.equal(0n);
    expect(await statusOf(agent)).to.equal("submitted");
    while ((await credit(shop)) === 0n) await pause(20);
    await rail.provider.send("hardhat_mine", ["0x3"]);
    expect((await finished).state).to.equal("settled");
    expect(await statusOf(agent)).to.equal("settled");
    expect(await credit(shop)).to.equal(5n);
    expect(await outbox.begun(`batch:${id}`)).to.equal(true);
  });

  it("K8: with the RPC cut for five minutes after the broadcast, ends right within a minute of its return, without a hand", async () => {
    const agent = await rail.open();
    const shop = rail.payee();
    await agent.pay(shop, 5n);
    const wire = new Wire(rail.node.url, 31_337, { staticNetwork: true, cacheTimeout: -1 });
    const { settler } = patient(1, wire);
    const { id } = (await settler.plan())!;
    await settler.prove(id);
    await rail.provider.send("evm_setAutomine", [false]);
    const finished = settler.finish(id);
    while (((await rail.provider.send("eth_pendingTransactions", [])) as unknown[]).length === 0) await pause(20);
    wire.cut = true;
    await rail.provider.send("evm_setAutomine", [true]);
    await rail.provider.send("evm_mine", []);
    rail.skew += 300n;
    await pause(300);
    expect(await statusOf(agent)).to.equal("submitted");
    wire.cut = false;
    expect((await finished).state).to.equal("settled");
    expect(await credit(shop)).to.equal(5n);
    expect(await rail.store.transactions(`batch:${id}`)).to.have.length(1);
    wire.destroy();
  });

  it("K1: a withdrawal of all takes what is free; what a mandate locks settles", async () => {
    const agent = await rail.open({ budget: 60n, paymentCap: 60n });
    const shop = rail.payee();
    await rail.fund(40n);
    const escrow = rail.chain.escrow.connect(rail.owner);
    const free = await escrow.freeOf(rail.token, rail.ownerAddress);
    expect(free).to.equal(40n);
    await expectRevert(escrow.withdraw.staticCall(rail.token, 100n, rail.ownerAddress), "InsufficientFree");
    await (await escrow.withdraw(rail.token, free, rail.ownerAddress)).wait();
    await agent.pay(shop, 10n);
    await rail.settler.run();
    expect(await credit(shop)).to.equal(10n);
  });

  it("K3: a mandate that is not opened, or not yet final, is taken up by nobody, and no payment of it is accepted", async () => {
    const agent = await rail.open();
    const unknown = { ...(await agent.sign(rail.payee(), 1n)), agent: rail.payee() };
    expect((await refusalOf(() => rail.processor.accept(unknown))).code).to.equal("mandate-unknown");
    const careful = new Chain(rail.chain.rail, rail.provider, 2);
    const { mandate, terms } = await rail.store.mandateOf(agent.address);
    const folder = mkdtempSync(join(tmpdir(), "bursar-careful-"));
    const store = await Store.open(join(folder, "books.db"));
    const { domain } = rail;
    const processor = new Processor({
      domain,
      store,
      chain: careful,
      key: receiptKey(rail.processorKey),
      settleWithin: 3_600n,
      now: () => rail.now(),
    });
    const refused = await refusalOf(() => processor.register(mandate, terms));
    expect([refused.code, refused.details["value"]]).to.deep.equal(["mandate-not-open", "none"]);
    await rail.provider.send("hardhat_mine", ["0x1"]);
    await processor.register(mandate, terms);
    expect(await store.counts()).to.include({ mandates: 1, payments: 0, refusals: 0 });
    await store.close();
    rmSync(folder, { recursive: true });
  });

  it("K14: neither the processor of another mandate nor the deployer can settle, and no verifier can be changed", async () => {
    const agent = await rail.open();
    await agent.pay(rail.payee(), 5n);
    const { id } = (await rail.settler.plan())!;
    const { calldata } = await rail.settler.prove(id);
    const deployer = await rail.provider.getSigner(0);
    for (const from of [deployer.address, rail.ownerAddress]) {
      const refused = await refusalOf(() => rail.chain.simulate(rail.chain.settlement, calldata!, from as Address));
      expect(refused.message).to.match(/WrongProcessor/);
    }
    const mutating = rail.chain.settlementContract.interface.fragments
      .filter((fragment) => "stateMutability" in fragment && fragment.stateMutability === "nonpayable")
      .map((fragment) => ("name" in fragment ? fragment.name : fragment.type));
    expect(mutating).to.deep.equal(["settle"]);
  });

  it("accepts nothing while its clock is more than a minute behind the chain's, and goes on once it is set", async () => {
    const agent = await rail.open();
    const { timestamp } = (await rail.provider.getBlock("latest"))!;
    await rail.provider.send("evm_setNextBlockTimestamp", [timestamp + 3_600]);
    await rail.provider.send("evm_mine", []);
    await rail.processor.refresh();
    const request = await agent.sign(rail.payee(), 1n);
    const refused = await refusalOf(() => rail.processor.accept(request));
    expect([refused.code, refused.details["limit"]]).to.deep.equal(["clock-behind", "60"]);
    rail.skew += 3_600n;
    await rail.processor.refresh();
    expect(await rail.processor.accept(request)).to.have.property("receipt");
  });

  it("K12, P7 receipt_paid_or_sp_slashed: what was receipted and never settled is claimed on chain with the payee's saved file alone", async () => {
    const agent = await rail.open();
    const shop = rail.payee();
    const payment = await agent.sign(shop, 5n);
    const receipt = await rail.processor.accept(payment);
    agent.ledger.commit();
    const file = JSON.stringify(toWire({ domain: rail.domain, payment, receipt }));
    rail.skew += 3_600n + 7_200n + 1n;
    expect(await statusOf(agent)).to.equal("claimable");
    const kept = JSON.parse(file) as Record<string, unknown>;
    const saved = decodePaymentHeader(
      encodePaymentHeader({
        domain: rail.domain,
        payment: parseWire(signedPaymentSchema, kept["payment"]),
        receipt: parseWire(signedReceiptSchema, kept["receipt"]),
      }),
    );
    const then = receipt.receipt.settleBy - 1n;
    const processor = rail.processorKey.address as Address;
    const expected = { domain: rail.domain, payee: shop, amount: 5n, ref: ZeroHash as Hex, processor, now: then };
    expect(() => verifyPaid(saved, expected)).not.to.throw();

    await wait(0n);
    const { seq, spent, head, line } = saved.payment.payment;
    const { settleBy, logIndex } = saved.receipt.receipt;
    const claim = {
      ...{ agent: saved.payment.agent, seq, spent, head, line, settleBy, logIndex, payees: [] },
      agentSignature: saved.payment.signature,
      processorSignature: saved.receipt.signature,
    };
    const { chain, token } = rail;
    const bond = await chain.processors.bondOf(processor, token);
    const anyone = new NonceManager(await rail.provider.getSigner(5));
    await (await chain.claims.connect(anyone).file([claim])).wait();
    expect(bond - (await chain.processors.bondOf(processor, token))).to.equal(500_000n);
    await wait(86_400n);
    await (await chain.claims.connect(anyone).resolve([claim])).wait();
    expect(await credit(shop)).to.equal(5n);
    expect((await chain.mandate(agent.address)).state).to.equal("fallback");
    // What it accepted from now on could never settle.
    await rail.processor.refresh();
    expect((await refusalOf(() => agent.pay(shop, 1n))).code).to.equal("mandate-revoked");
  });

  it("signs nothing more for a mandate of which the chain knows more than the books, as after an old backup", async () => {
    const agent = await rail.open();
    await agent.pay(rail.payee(), 5n);
    await rail.settler.run();
    const folder = mkdtempSync(join(tmpdir(), "bursar-backup-"));
    const store = await Store.open(join(folder, "books.db"));
    const { mandate, terms } = await rail.store.mandateOf(agent.address);
    const { domain, chain } = rail;
    const key = receiptKey(rail.processorKey);
    const restored = new Processor({ domain, store, chain, key, settleWithin: 3_600n, now: () => rail.now() });
    expect((await refusalOf(() => restored.register(mandate, terms))).code).to.equal("books-behind");
    await store.addMandate({
      ...(await rail.store.mandateOf(agent.address)),
      settled: { base: 0n, seq: 0n, spent: 0n },
    });
    await restored.reconcile();
    const next = await agent.sign(rail.payee(), 1n);
    expect((await refusalOf(() => restored.accept(next))).code).to.equal("books-behind");
    expect(await rail.processor.accept(next)).to.have.property("receipt");
    await store.close();
    rmSync(folder, { recursive: true });
  });

  /** A settler of its own that waits for `confirmations`. */
  function patient(
    confirmations: number,
    provider: JsonRpcProvider = rail.provider,
  ): { settler: Settler; outbox: Outbox } {
    const { store, domain, prover } = rail;
    const signer = rail.processorKey.connect(provider);
    const sleep = pause;
    const now = (): bigint => rail.now();
    const outbox = new Outbox({
      store,
      provider,
      signer,
      finality: confirmations,
      replaceAfter: 600n,
      pollInterval: 20,
      now,
      sleep,
    });
    const gateway = new Chain(rail.chain.rail, provider, confirmations);
    const sender = rail.processorKey.address as Address;
    const circuits = rail.circuits;
    return { settler: new Settler({ domain, store, circuits, gateway, prover, outbox, sender, now }), outbox };
  }
});

const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

async function expectRevert(call: Promise<unknown>, error: string): Promise<void> {
  const reason: unknown = await call.then(
    () => "it went through",
    (failure: unknown) => failure,
  );
  expect(String((reason as { revert?: { name: string } }).revert?.name ?? reason)).to.equal(error);
}
