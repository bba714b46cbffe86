import {
  hashEvidence,
  headHex,
  holdOf,
  signDelivery,
  signPayment,
  signQuote,
  signReceipt,
  type Address,
  type Delivery,
  type Hex,
  type Payment,
  type Quote,
  type Receipt,
} from "@bursar/protocol";
import { expect } from "chai";
import { AbiCoder, id, ZeroAddress, ZeroHash, type HDNodeWallet, type Signer, type Wallet } from "ethers";

import {
  BondedArbiter__factory,
  Disputes__factory,
  HostileArbitrator__factory,
  OwnerWallet__factory,
  StubbornArbitrable__factory,
  type BondedArbiter,
  type Disputes,
  type HostileArbitrator,
} from "../../typechain-types/index.ts";
import {
  DAY,
  deployCore,
  deployer,
  ethers,
  fields,
  freshKey,
  networkHelpers,
  now,
  open,
  other,
  owner,
  payee,
  processor,
  settlement,
  stranger,
  type Core,
} from "./fixture.ts";
import { signRow } from "./settle-one.ts";

const HOUR = 3_600n;
const DEADLINES = { deliver: HOUR, answer: 2n * DAY, escalate: DAY, rule: 14n * DAY };
const FEE = 1_000n;
const STAKE = 5_000n;
const HOLDBACK = DAY;
const EVIDENCE = id("evidence");
const ROTATION = AbiCoder.defaultAbiCoder().encode(["address"], [ZeroAddress]);
const [NOT_DELIVERED, DOUBLE_CHARGE, , OTHER] = [0n, 1n, 2n, 3n];
const [FILED, ANSWERED, ESCALATED, PAID, REFUNDED] = [1n, 2n, 3n, 4n, 5n];
const [arbiterOne, arbiterTwo] = [deployer, other];

interface Scene extends Core {
  disputes: Disputes;
  arbiter: BondedArbiter;
  hostile: HostileArbitrator;
  /** The same module with the hostile arbitrator. */
  captive: Disputes;
}

type Account = Signer & { address: Address };

async function deployScene(): Promise<Scene> {
  const context = await deployCore();
  const arbiter = await new BondedArbiter__factory(deployer).deploy(
    [arbiterOne.address, arbiterTwo.address],
    FEE,
    STAKE,
    7n * DAY,
  );
  const hostile = await new HostileArbitrator__factory(deployer).deploy();
  const disputes = await deploy(context, await arbiter.getAddress());
  const captive = await deploy(context, await hostile.getAddress());
  await arbiter.connect(arbiterOne).postBond({ value: 2n * STAKE });
  await arbiter.connect(arbiterTwo).postBond({ value: STAKE });
  return { ...context, disputes, arbiter, hostile, captive };
}

const deploy = ({ registry }: Core, arbitrator: string, deadlines = DEADLINES): Promise<Disputes> =>
  new Disputes__factory(deployer).deploy(registry, arbitrator, ROTATION, deadlines);

const scene = (): Promise<Scene> => networkHelpers.loadFixture(deployScene);
const at = (time: bigint): Promise<void> => networkHelpers.time.setNextBlockTimestamp(time);
const pass = (seconds: bigint): Promise<unknown> => networkHelpers.time.increase(seconds);

interface Buyer {
  agent: Wallet | HDNodeWallet;
  hold: { agent: Address; payee: Address; holdback: bigint };
  address: Address;
}

/** An agent with an open mandate, and its hold for the payee. */
async function buyer(
  context: Scene,
  module = context.disputes,
  to = payee.address,
  holdback = HOLDBACK,
): Promise<Buyer> {
  const { agent } = await open(context);
  const hold = { agent: agent.address as Address, payee: to, holdback };
  return { agent, hold, address: (await module.holdOf(hold.agent, to, holdback)) as Address };
}

/** The signed next payment to the hold, with its receipt, as if settled with the row of {@link signRow}. */
async function signPurchase(
  { registry, domain }: Scene,
  { agent, address }: Buyer,
  amount: bigint,
  overrides: Partial<Receipt> = {},
  keys: { agent?: Signer; processor?: Signer } = {},
) {
  const { seq, spent, base } = await registry.positionOf(agent.address);
  const receipt: Receipt = {
    agent: agent.address as Address,
    seq: seq + 1n,
    payee: address,
    amount,
    ref: ZeroHash as Hex,
    head: headHex(base + 1n),
    settleBy: (await now()) + HOUR,
    logIndex: 0n,
    ...overrides,
  };
  const line = { payee: receipt.payee, amount: receipt.amount, ref: receipt.ref };
  const payment: Payment = { seq: receipt.seq, spent: spent + amount, head: receipt.head, line };
  return {
    receipt,
    spent: payment.spent,
    agentSignature: await signPayment(keys.agent ?? agent, domain, payment),
    processorSignature: await signReceipt(keys.processor ?? processor, domain, receipt),
  };
}

/** Pays the hold: signs, settles, and answers what was signed. */
async function pay(context: Scene, from: Buyer, amount: bigint) {
  const purchase = await signPurchase(context, from, amount);
  const row = await signRow(context, from.agent, from.address, amount);
  await context.registry.connect(settlement).settle(processor.address, [row], [{ payee: from.address, amount }]);
  return purchase;
}

const credit = ({ escrow, token }: Core, account: string): Promise<bigint> => escrow.creditOf(token, account);

async function deliveryOf(purchase: { receipt: Receipt }, overrides: Partial<Delivery> = {}): Promise<Delivery> {
  const { agent, seq, ref } = purchase.receipt;
  return { agent, seq, ref, bodyHash: id("body") as Hex, deliveredAt: await now(), ...overrides };
}

async function answer(context: Scene, module: Disputes, purchase: { receipt: Receipt }, by: Signer = payee) {
  const delivery = await deliveryOf(purchase);
  const signature = await signDelivery(by, context.domain, delivery);
  return module.connect(stranger).answerDelivery(1n, delivery, signature);
}

/** A paid and filed dispute, the first of its module. */
async function filed(context: Scene, kind = NOT_DELIVERED, module = context.disputes) {
  const from = await buyer(context, module);
  const purchase = await pay(context, from, 100n);
  await module.connect(owner).file(kind, from.hold, purchase, EVIDENCE);
  return { from, purchase };
}

async function answered(context: Scene, module = context.disputes) {
  const one = await filed(context, NOT_DELIVERED, module);
  await answer(context, module, one.purchase);
  return one;
}

const statusOf = async (module: Disputes, dispute = 1n): Promise<bigint> => (await module.disputeOf(dispute)).status;

/** What the hold holds is what the module says: the sum of its parts and of what is frozen. */
async function expectBooks({ escrow, token }: Core, module: Disputes, address: string): Promise<void> {
  const { known, frozen, tranches, cursor } = await module.holdStateOf(address);
  let sum = frozen;
  for (let i = cursor; i < tranches; i++) sum += (await module.trancheOf(address, i)).amount;
  expect(known).to.equal(sum);
  expect(await escrow.balanceOf(token, address)).to.equal(known);
}

describe("holds", () => {
  it("have the address that the protocol package computes", async () => {
    const { disputes } = await scene();
    const module = (await disputes.getAddress()) as Address;
    for (const holdback of [0n, 1n, DAY, 7n * DAY]) {
      const agent = freshKey().address as Address;
      expect(await disputes.holdOf(agent, payee.address, holdback)).to.equal(
        holdOf(module, agent, payee.address, holdback),
      );
    }
  });

  it("refuse a holdback above seven days and a payee that the escrow cannot pay", async () => {
    const { disputes, escrow } = await scene();
    await expect(disputes.holdOf(owner.address, payee.address, 7n * DAY + 1n))
      .to.be.revertedWithCustomError(disputes, "HoldbackTooLong")
      .withArgs(7n * DAY + 1n, 7n * DAY);
    for (const to of [ZeroAddress, await escrow.getAddress()]) {
      await expect(disputes.holdOf(owner.address, to, DAY)).to.be.revertedWithCustomError(disputes, "InvalidPayee");
    }
  });

  it("of no mandate are refused", async () => {
    const { disputes } = await scene();
    const hold = { agent: stranger.address, payee: payee.address, holdback: DAY };
    await expect(disputes.collect(hold))
      .to.be.revertedWithCustomError(disputes, "NoMandate")
      .withArgs(stranger.address);
  });

  it("keep the payee waiting for the holdback and then pay it, whoever asks", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    await pay(context, from, 100n);
    await expect(disputes.connect(stranger).collect(from.hold)).to.emit(disputes, "Collected");
    const [, maturesAt] = await disputes.trancheOf(from.address, 0n);
    expect(maturesAt - (await now())).to.be.within(HOLDBACK, HOLDBACK + HOLDBACK / 64n + 1n);
    await at(maturesAt - 1n);
    await disputes.release(from.hold, 10n);
    expect(await credit(context, payee.address)).to.equal(0n);
    await at(maturesAt);
    await disputes.connect(stranger).release(from.hold, 10n);
    expect(await credit(context, payee.address)).to.equal(100n);
    await expectBooks(context, disputes, from.address);
  });

  it("P9: are no one's to sweep: what waits leaves by the module alone", async () => {
    const context = await scene();
    const { disputes, escrow, token } = context;
    const from = await buyer(context);
    await pay(context, from, 100n);
    for (const collected of [false, true]) {
      await expect(escrow.connect(stranger).sweepCredit(token, from.address))
        .to.be.revertedWithCustomError(escrow, "SubAccount")
        .withArgs(from.address);
      if (!collected) await disputes.collect(from.hold);
    }
    await expectBooks(context, disputes, from.address);
  });

  it("with no holdback pay at once", async () => {
    const context = await scene();
    const from = await buyer(context, context.disputes, payee.address, 0n);
    await pay(context, from, 100n);
    await context.disputes.release(from.hold, 10n);
    expect(await credit(context, payee.address)).to.equal(100n);
  });

  it("take dust without growing: what arrives together matures together", async () => {
    const context = await scene();
    const { disputes, dollar, escrow, token } = context;
    const from = await buyer(context);
    await dollar.connect(stranger).mint(stranger.address, 1_000n);
    await dollar.connect(stranger).approve(escrow, 1_000n);
    const start = ((await now()) / 1_351n + 1n) * 1_351n;
    for (let i = 0n; i < 10n; i++) {
      await at(start + i * 100n);
      await escrow.connect(stranger).deposit(token, 1n, from.address);
      await disputes.collect(from.hold);
    }
    const { tranches, known } = await disputes.holdStateOf(from.address);
    expect(tranches).to.be.at.most(2n);
    expect(known).to.equal(10n);
  });

  it("are paid in parts when there are many, and hold at most 66 that wait", async () => {
    const context = await scene();
    const { disputes, dollar, escrow, token } = context;
    const from = await buyer(context, disputes, payee.address, 640n);
    await dollar.connect(stranger).mint(stranger.address, 1_000n);
    await dollar.connect(stranger).approve(escrow, 1_000n);
    for (let i = 0; i < 70; i++) {
      await pass(11n);
      await escrow.connect(stranger).deposit(token, 1n, from.address);
      await disputes.collect(from.hold);
    }
    const { tranches } = await disputes.holdStateOf(from.address);
    let waiting = 0;
    for (let i = 0n; i < tranches; i++)
      if ((await disputes.trancheOf(from.address, i)).maturesAt > (await now())) waiting++;
    expect(waiting).to.be.at.most(66);
    await pass(1_000n);
    await disputes.release(from.hold, 0n);
    await disputes.release(from.hold, 30n);
    expect(await credit(context, payee.address)).to.equal(30n);
    await disputes.release(from.hold, 1_000n);
    expect(await credit(context, payee.address)).to.equal(70n);
    await disputes.release(from.hold, 1_000n);
    await expectBooks(context, disputes, from.address);
  });
});

describe("filing a dispute", () => {
  it("freezes that payment alone: the rest reaches the payee in time", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    const first = await pay(context, from, 100n);
    await pay(context, from, 30n);
    await expect(disputes.connect(owner).file(OTHER, from.hold, first, EVIDENCE)).to.emit(disputes, "Filed");
    expect(fields(await disputes.disputeOf(1n))).to.include({
      agent: from.agent.address,
      payee: payee.address,
      owner: owner.address,
      status: FILED,
      amount: 100n,
      evidenceHash: EVIDENCE,
    });
    expect(await disputes.disputeIdOf(from.agent.address, 1n)).to.equal(1n);
    await pass(2n * HOLDBACK);
    await disputes.release(from.hold, 10n);
    expect(await credit(context, payee.address)).to.equal(30n);
    await expectBooks(context, disputes, from.address);
  });

  it("is the owner's or the agent's", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    const purchase = await pay(context, from, 100n);
    await expect(disputes.connect(stranger).file(OTHER, from.hold, purchase, EVIDENCE))
      .to.be.revertedWithCustomError(disputes, "OnlyOwnerOrAgent")
      .withArgs(stranger.address, owner.address, from.agent.address);
    await networkHelpers.setBalance(from.agent.address, 10n ** 18n);
    await disputes.connect(from.agent.connect(ethers.provider)).file(OTHER, from.hold, purchase, EVIDENCE);
    expect((await disputes.disputeOf(1n)).filer).to.equal(from.agent.address);
  });

  it("happens once for each payment", async () => {
    const context = await scene();
    const { from, purchase } = await filed(context);
    await pay(context, from, 100n);
    await expect(context.disputes.connect(owner).file(OTHER, from.hold, purchase, EVIDENCE))
      .to.be.revertedWithCustomError(context.disputes, "DisputedAlready")
      .withArgs(from.agent.address, 1n, 1n);
  });

  it("needs both signatures", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    await pay(context, from, 100n);
    const byNoAgent = await signPurchase(context, from, 10n, {}, { agent: owner });
    await expect(disputes.connect(owner).file(OTHER, from.hold, byNoAgent, EVIDENCE)).to.be.revertedWithCustomError(
      disputes,
      "WrongSigner",
    );
    const byNoProcessor = await signPurchase(context, from, 10n, {}, { processor: owner });
    await expect(disputes.connect(owner).file(OTHER, from.hold, byNoProcessor, EVIDENCE))
      .to.be.revertedWithCustomError(disputes, "NotAReceiptKey")
      .withArgs(processor.address, owner.address, byNoProcessor.receipt.settleBy);
  });

  it("is refused for a payment of another agent or to another account", async () => {
    const context = await scene();
    const { disputes } = context;
    const [from, elsewhere] = [await buyer(context), await buyer(context)];
    await pay(context, from, 100n);
    const foreign = await pay(context, elsewhere, 100n);
    const direct = await signPurchase(context, from, 10n, { payee: payee.address });
    for (const purchase of [foreign, direct]) {
      await expect(disputes.connect(owner).file(OTHER, from.hold, purchase, EVIDENCE)).to.be.revertedWithCustomError(
        disputes,
        "NotOfHold",
      );
    }
  });

  it("is refused where the money does not wait: unsettled, or matured", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    const unsettled = await signPurchase(context, from, 100n);
    await expect(disputes.connect(owner).file(OTHER, from.hold, unsettled, EVIDENCE))
      .to.be.revertedWithCustomError(disputes, "NotPaid")
      .withArgs(from.agent.address, 1n, 0n);
    const purchase = await pay(context, from, 100n);
    await disputes.collect(from.hold);
    const [, maturesAt] = await disputes.trancheOf(from.address, 0n);
    await at(maturesAt);
    await expect(disputes.connect(owner).file(OTHER, from.hold, purchase, EVIDENCE))
      .to.be.revertedWithCustomError(disputes, "InsufficientHeld")
      .withArgs(from.address, 100n, 0n);
  });

  it("P17: is refused for a payment that was never settled, though both signed it and money of others waits", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    await pay(context, from, 100n);
    const invented = await signPurchase(context, from, 100n);
    await expect(disputes.connect(owner).file(NOT_DELIVERED, from.hold, invented, EVIDENCE))
      .to.be.revertedWithCustomError(disputes, "NotPaid")
      .withArgs(from.agent.address, 2n, 1n);
  });

  it("is refused long after the payment, though money of later ones waits", async () => {
    const context = await scene();
    const { disputes, registry } = context;
    const from = await buyer(context);
    const old = await pay(context, from, 100n);
    const { grace } = await registry.windows();
    const limit = old.receipt.settleBy + grace + HOLDBACK + HOLDBACK / 64n + 1n;
    await at(limit - 100n);
    await context.escrow
      .connect(owner)
      .deposit(context.token, 0n, owner.address)
      .catch(() => undefined);
    await disputes.collect(from.hold);
    await at(limit + 1n);
    await expect(disputes.connect(owner).file(OTHER, from.hold, old, EVIDENCE))
      .to.be.revertedWithCustomError(disputes, "TooLateToFile")
      .withArgs(limit + 1n, limit);
  });

  it("is refused with a receipt that promises settlement too late to be one", async () => {
    const context = await scene();
    const from = await buyer(context);
    const purchase = await signPurchase(context, from, 10n, { settleBy: 2n ** 64n - 1n });
    await pay(context, from, 10n);
    await expect(
      context.disputes.connect(owner).file(NOT_DELIVERED, from.hold, purchase, EVIDENCE),
    ).to.be.revertedWithCustomError(context.disputes, "SettleByTooLate");
  });

  it("P7: takes a payment that a claim paid, however late that was, and that very payment alone", async () => {
    const context = await scene();
    const { disputes, claims, registry } = context;
    const from = await buyer(context);
    const purchase = await signPurchase(context, from, 100n);
    const { agent, head, settleBy, payee: hold, amount, ref } = purchase.receipt;
    const claimed = { ...purchase, agent, seq: 1n, head, line: { payee: hold, amount, ref }, settleBy, logIndex: 0n };
    const { grace, cure, claim } = await registry.windows();
    await at(settleBy + grace + claim);
    await claims.connect(stranger).file([{ ...claimed, payees: [] }]);
    await pass(cure + 1n);
    const file = () => disputes.connect(owner).file(NOT_DELIVERED, from.hold, purchase, EVIDENCE);
    await expect(file()).to.be.revertedWithCustomError(disputes, "NotPaid").withArgs(agent, 1n, 0n);
    await claims.resolve([{ ...claimed, payees: [] }]);
    const another = await signPurchase(context, from, 100n, { ref: id("another") as Hex, settleBy });
    await expect(disputes.connect(owner).file(NOT_DELIVERED, from.hold, another, EVIDENCE))
      .to.be.revertedWithCustomError(disputes, "NotPaid")
      .withArgs(agent, 1n, 0n);
    await registry.close(agent).catch(() => undefined);
    await file();
    const before = await credit(context, owner.address);
    await at((await disputes.disputeOf(1n)).deadline + 1n);
    await disputes.resolve(1n);
    expect((await credit(context, owner.address)) - before).to.equal(100n);
    await disputes.release(from.hold, 10n);
    await expectBooks(context, disputes, from.address);
  });

  it("of a kind with a proof goes by its own function", async () => {
    const context = await scene();
    const from = await buyer(context);
    const purchase = await pay(context, from, 100n);
    for (const kind of [1n, 2n]) {
      await expect(context.disputes.connect(owner).file(kind, from.hold, purchase, EVIDENCE))
        .to.be.revertedWithCustomError(context.disputes, "KindNeedsProof")
        .withArgs(kind);
    }
  });

  it("finds the money of each payment that waits, whatever was disputed before", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    const first = await pay(context, from, 100n);
    await disputes.collect(from.hold);
    await pass(HOLDBACK / 2n);
    const second = await pay(context, from, 100n);
    await disputes.connect(owner).file(OTHER, from.hold, first, EVIDENCE);
    await pass((HOLDBACK * 3n) / 4n);
    await disputes.release(from.hold, 10n);
    expect(await credit(context, payee.address)).to.equal(0n);
    await disputes.connect(owner).file(OTHER, from.hold, second, EVIDENCE);
    await expectBooks(context, disputes, from.address);
  });

  it("touches no other agent's money for the same payee", async () => {
    const context = await scene();
    const { disputes } = context;
    const elsewhere = await buyer(context);
    await pay(context, elsewhere, 500n);
    await disputes.collect(elsewhere.hold);
    await filed(context);
    await pass(10n * DAY);
    await disputes.resolve(1n);
    await disputes.release(elsewhere.hold, 10n);
    expect(await credit(context, owner.address)).to.equal(100n);
    expect(await credit(context, payee.address)).to.equal(500n);
  });
});

describe("a purchase that was not delivered", () => {
  it("is refunded when the payee shows no delivery in time", async () => {
    const context = await scene();
    const { disputes } = context;
    const { from, purchase } = await filed(context);
    const { deadline } = await disputes.disputeOf(1n);
    expect(deadline).to.equal(purchase.receipt.settleBy + DEADLINES.deliver + DEADLINES.answer);
    await at(deadline);
    await expect(disputes.connect(stranger).resolve(1n))
      .to.be.revertedWithCustomError(disputes, "DeadlineNotOver")
      .withArgs(1n, deadline, deadline);
    await at(deadline + 1n);
    await expect(disputes.connect(stranger).resolve(1n))
      .to.emit(disputes, "Resolved")
      .withArgs(1n, owner.address, REFUNDED, 100n);
    expect(await credit(context, owner.address)).to.equal(100n);
    await expectBooks(context, disputes, from.address);
  });

  it("stays paid when it does, and nobody escalates", async () => {
    const context = await scene();
    const { disputes } = context;
    await answered(context);
    await pass(DEADLINES.escalate + 1n);
    await disputes.connect(stranger).resolve(1n);
    expect(await statusOf(disputes)).to.equal(PAID);
    expect(await credit(context, payee.address)).to.equal(100n);
  });

  it("is answered by the payee's signature on this very payment alone", async () => {
    const context = await scene();
    const { disputes, domain } = context;
    const { purchase } = await filed(context);
    await expect(answer(context, disputes, purchase, stranger)).to.be.revertedWithCustomError(disputes, "WrongSigner");
    for (const change of [{ seq: 2n }, { ref: id("another") as Hex }, { agent: stranger.address }]) {
      const delivery = await deliveryOf(purchase, change);
      const signature = await signDelivery(payee, domain, delivery);
      await expect(disputes.answerDelivery(1n, delivery, signature)).to.be.revertedWithCustomError(
        disputes,
        "DeliveryMismatch",
      );
    }
    const deliverBy = purchase.receipt.settleBy + DEADLINES.deliver;
    const late = await deliveryOf(purchase, { deliveredAt: deliverBy + 1n });
    await expect(disputes.answerDelivery(1n, late, await signDelivery(payee, domain, late)))
      .to.be.revertedWithCustomError(disputes, "DeliveredTooLate")
      .withArgs(1n, deliverBy + 1n, deliverBy);
    await expect(disputes.connect(payee).answer(1n, EVIDENCE)).to.be.revertedWithCustomError(disputes, "WrongAnswer");
  });

  it("is not answered after the deadline, nor twice", async () => {
    const context = await scene();
    const { disputes } = context;
    const { purchase } = await answered(context);
    await expect(answer(context, disputes, purchase)).to.be.revertedWithCustomError(disputes, "WrongStatus");
    const again = await networkHelpers.loadFixture(deployScene);
    const { purchase: late } = await filed(again);
    const { deadline } = await again.disputes.disputeOf(1n);
    await at(deadline + 1n);
    await expect(answer(again, again.disputes, late)).to.be.revertedWithCustomError(again.disputes, "DeadlineOver");
  });

  it("is answered by a payee that is a contract, by its own call", async () => {
    const context = await scene();
    const { disputes } = context;
    const wallet = await new OwnerWallet__factory(deployer).deploy(payee.address);
    const from = await buyer(context, disputes, (await wallet.getAddress()) as Address);
    const purchase = await pay(context, from, 100n);
    await disputes.connect(owner).file(NOT_DELIVERED, from.hold, purchase, EVIDENCE);
    const delivery = await deliveryOf(purchase);
    const call = disputes.interface.encodeFunctionData("answerDelivery", [1n, delivery, "0x"]);
    await wallet.connect(payee).execute(disputes, call);
    expect(await statusOf(disputes)).to.equal(ANSWERED);
  });
});

describe("a double charge", () => {
  it("is refunded unless the payee shows that it delivered the second too", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    const first = await pay(context, from, 100n);
    const second = await pay(context, from, 100n);
    await disputes.connect(owner).fileDoubleCharge(from.hold, second, first, EVIDENCE);
    const { kind, deadline, seq } = await disputes.disputeOf(1n);
    expect([kind, seq]).to.deep.equal([DOUBLE_CHARGE, 2n]);
    await expect(answer(context, disputes, first)).to.be.revertedWithCustomError(disputes, "DeliveryMismatch");
    await at(deadline + 1n);
    await disputes.resolve(1n);
    expect(await credit(context, owner.address)).to.equal(100n);
  });

  it("is kept by the delivery of the second", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    const first = await pay(context, from, 100n);
    const second = await pay(context, from, 100n);
    await disputes.connect(owner).fileDoubleCharge(from.hold, second, first, EVIDENCE);
    await answer(context, disputes, second);
    await pass(DEADLINES.escalate + 1n);
    await disputes.resolve(1n);
    expect(await statusOf(disputes)).to.equal(PAID);
  });

  it("is the later of two payments for one reference", async () => {
    const context = await scene();
    const { disputes } = context;
    const from = await buyer(context);
    const first = await pay(context, from, 100n);
    const second = await pay(context, from, 100n);
    const unlike = await signPurchase(context, from, 100n, { seq: 3n, ref: id("another") as Hex });
    for (const [late, early] of [
      [first, second],
      [first, first],
      [unlike, first],
    ] as const) {
      await expect(
        disputes.connect(owner).fileDoubleCharge(from.hold, late, early, EVIDENCE),
      ).to.be.revertedWithCustomError(disputes, "NotChargedBefore");
    }
    const invented = { ...first, processorSignature: second.processorSignature };
    await expect(
      disputes.connect(owner).fileDoubleCharge(from.hold, second, invented, EVIDENCE),
    ).to.be.revertedWithCustomError(disputes, "NotAReceiptKey");
  });
});

describe("a price above the quote", () => {
  const quoteOf = async (purchase: { receipt: Receipt }, overrides: Partial<Quote> = {}): Promise<Quote> => ({
    payee: payee.address,
    amount: 60n,
    ref: purchase.receipt.ref,
    host: "api.example.com",
    category: "data",
    expiresAt: (await now()) + 300n,
    ...overrides,
  });

  it("is refunded at once, and only what was too much", async () => {
    for (const ofHold of [false, true]) {
      const context = await networkHelpers.loadFixture(deployScene);
      const { disputes, domain } = context;
      const from = await buyer(context);
      const purchase = await pay(context, from, 100n);
      const quote = await quoteOf(purchase, ofHold ? { payee: from.address } : {});
      const signature = await signQuote(payee, domain, quote);
      await disputes.connect(owner).fileOverQuote(from.hold, purchase, quote, signature, EVIDENCE);
      expect(await statusOf(disputes)).to.equal(REFUNDED);
      expect(await credit(context, owner.address)).to.equal(40n);
      await expect(
        disputes.connect(owner).fileOverQuote(from.hold, purchase, quote, signature, EVIDENCE),
      ).to.be.revertedWithCustomError(disputes, "DisputedAlready");
      await pass(2n * HOLDBACK);
      await disputes.release(from.hold, 10n);
      expect(await credit(context, payee.address)).to.equal(60n);
      await expectBooks(context, disputes, from.address);
    }
  });

  it("is not one without the payee's live quote for less", async () => {
    const context = await scene();
    const { disputes, domain, registry } = context;
    const from = await buyer(context);
    const purchase = await pay(context, from, 100n);
    const paidAt = purchase.receipt.settleBy - (await registry.windows()).settleBy;
    const cases = [
      [{ payee: stranger.address }, "QuoteMismatch"],
      [{ ref: id("another") as Hex }, "QuoteMismatch"],
      [{ amount: 100n }, "QuoteNotExceeded"],
      [{ expiresAt: paidAt - 1n }, "QuoteExpired"],
    ] as const;
    for (const [change, error] of cases) {
      const quote = await quoteOf(purchase, change);
      const signature = await signQuote(payee, domain, quote);
      await expect(
        disputes.connect(owner).fileOverQuote(from.hold, purchase, quote, signature, EVIDENCE),
      ).to.be.revertedWithCustomError(disputes, error);
    }
    const quote = await quoteOf(purchase);
    const forged = await signQuote(owner, domain, quote);
    await expect(
      disputes.connect(owner).fileOverQuote(from.hold, purchase, quote, forged, EVIDENCE),
    ).to.be.revertedWithCustomError(disputes, "WrongSigner");
  });
});

describe("any other dispute", () => {
  it("is answered by the payee's evidence", async () => {
    const context = await scene();
    const { disputes } = context;
    const { purchase } = await filed(context, OTHER);
    await expect(disputes.connect(stranger).answer(1n, EVIDENCE))
      .to.be.revertedWithCustomError(disputes, "OnlyPayee")
      .withArgs(stranger.address, payee.address);
    await expect(answer(context, disputes, purchase)).to.be.revertedWithCustomError(disputes, "WrongAnswer");
    await disputes.connect(payee).answer(1n, id("answer"));
    expect(await statusOf(disputes)).to.equal(ANSWERED);
    await pass(DEADLINES.escalate + 1n);
    await disputes.resolve(1n);
    expect(await credit(context, payee.address)).to.equal(100n);
  });

  it("is refunded without an answer", async () => {
    const context = await scene();
    await filed(context, OTHER);
    await pass(DEADLINES.answer + 1n);
    await context.disputes.resolve(1n);
    expect(await credit(context, owner.address)).to.equal(100n);
  });
});

describe("giving in", () => {
  it("refunds in each state, by the payee alone, and ends the dispute", async () => {
    for (const reach of [filed, answered, escalated]) {
      const context = await networkHelpers.loadFixture(deployScene);
      const { disputes } = context;
      await reach(context);
      await expect(disputes.connect(owner).refund(1n)).to.be.revertedWithCustomError(disputes, "OnlyPayee");
      await disputes.connect(payee).refund(1n);
      expect(await credit(context, owner.address)).to.equal(100n);
      await expect(disputes.connect(payee).refund(1n)).to.be.revertedWithCustomError(disputes, "WrongStatus");
      await expect(disputes.resolve(1n)).to.be.revertedWithCustomError(disputes, "WrongStatus");
    }
  });

  it("is refused for a dispute that there is not", async () => {
    const { disputes } = await scene();
    await expect(disputes.resolve(7n)).to.be.revertedWithCustomError(disputes, "WrongStatus");
    await expect(disputes.refund(7n)).to.be.revertedWithCustomError(disputes, "WrongStatus");
  });
});

async function escalated(context: Scene) {
  const one = await answered(context);
  await context.disputes.connect(owner).escalate(1n, { value: FEE });
  return one;
}

describe("the arbitrator", () => {
  it("is called by either side, for exactly its cost, in time", async () => {
    const context = await scene();
    const { disputes } = context;
    await filed(context);
    await expect(disputes.connect(owner).escalate(1n, { value: FEE })).to.be.revertedWithCustomError(
      disputes,
      "WrongStatus",
    );
    for (const by of [owner, payee]) {
      const again = await networkHelpers.loadFixture(deployScene);
      await answered(again);
      expect(await again.disputes.escalationCost(1n)).to.equal(FEE);
      await expect(again.disputes.connect(stranger).escalate(1n, { value: FEE })).to.be.revertedWithCustomError(
        disputes,
        "OnlyParty",
      );
      await expect(again.disputes.connect(by).escalate(1n, { value: FEE + 1n }))
        .to.be.revertedWithCustomError(disputes, "WrongFee")
        .withArgs(FEE + 1n, FEE);
      await again.disputes.connect(by).escalate(1n, { value: FEE });
      expect(await statusOf(again.disputes)).to.equal(ESCALATED);
      expect(await again.disputes.escalatedOf(1n)).to.equal(1n);
    }
  });

  it("is not called after the deadline", async () => {
    const context = await scene();
    await answered(context);
    await pass(DEADLINES.escalate + 1n);
    await expect(context.disputes.connect(owner).escalate(1n, { value: FEE })).to.be.revertedWithCustomError(
      context.disputes,
      "DeadlineOver",
    );
  });

  for (const [ruling, to, status] of [
    [0n, payee, PAID],
    [1n, payee, PAID],
    [2n, owner, REFUNDED],
  ] as const) {
    it(`rules ${ruling}: the money goes to the ${to === payee ? "payee" : "owner"}, the fee to the arbiter`, async () => {
      const context = await scene();
      const { disputes, arbiter } = context;
      const { from } = await escalated(context);
      await expect(arbiter.connect(arbiterOne).giveRuling(1n, ruling))
        .to.emit(disputes, "Ruling")
        .withArgs(await arbiter.getAddress(), 1n, ruling);
      expect(await statusOf(disputes)).to.equal(status);
      expect(await credit(context, to.address)).to.equal(100n);
      expect(await arbiter.currentRuling(1n)).to.equal(ruling);
      expect(await arbiter.disputeStatus(1n)).to.equal(2n);
      expect(await arbiter.owedTo(arbiterOne.address)).to.equal(FEE);
      await expectBooks(context, disputes, from.address);
    });
  }

  it("that is late pays for it, and the payee is paid", async () => {
    const context = await scene();
    const { disputes, arbiter } = context;
    await escalated(context);
    await expect(arbiter.expire(1n)).to.be.revertedWithCustomError(arbiter, "RulingNotDue");
    await pass(7n * DAY + 1n);
    await expect(arbiter.connect(arbiterOne).giveRuling(1n, 2n)).to.be.revertedWithCustomError(
      arbiter,
      "RulingTooLate",
    );
    await arbiter.connect(stranger).expire(1n);
    expect(await statusOf(disputes)).to.equal(PAID);
    expect(await arbiter.owedTo(owner.address)).to.equal(FEE + STAKE);
    expect((await arbiter.arbiterOf(arbiterOne.address)).bond).to.equal(STAKE);
    await expect(arbiter.connect(owner).withdraw(stranger.address)).to.changeEtherBalance(
      ethers,
      stranger,
      FEE + STAKE,
    );
    await expect(arbiter.connect(owner).withdraw(stranger.address)).to.be.revertedWithCustomError(
      arbiter,
      "NothingOwed",
    );
  });

  it("alone rules", async () => {
    const context = await scene();
    const { disputes } = context;
    await escalated(context);
    await expect(disputes.connect(stranger).rule(1n, 2n)).to.be.revertedWithCustomError(disputes, "OnlyArbitrator");
  });

  it("that is hostile cannot keep an escalated dispute from ending", async () => {
    const context = await scene();
    const { captive } = context;
    await answered(context, captive);
    await captive.connect(owner).escalate(1n);
    const { deadline } = await captive.disputeOf(1n);
    await at(deadline);
    await expect(captive.resolve(1n)).to.be.revertedWithCustomError(captive, "DeadlineNotOver");
    await at(deadline + 1n);
    await captive.connect(stranger).resolve(1n);
    expect(await credit(context, payee.address)).to.equal(100n);
    await expect(context.hostile.rule(captive, 1n, 2n)).to.be.revertedWithCustomError(captive, "WrongStatus");
  });

  it("that rules out of range pays the payee, once, and not after its deadline", async () => {
    const context = await scene();
    const { captive, hostile } = context;
    await answered(context, captive);
    await captive.connect(owner).escalate(1n);
    await expect(hostile.rule(captive, 5n, 2n))
      .to.be.revertedWithCustomError(captive, "UnknownDispute")
      .withArgs(5n);
    await hostile.rule(captive, 1n, 99n);
    expect(await credit(context, payee.address)).to.equal(100n);
    await expect(hostile.rule(captive, 1n, 2n)).to.be.revertedWithCustomError(captive, "WrongStatus");
    const again = await networkHelpers.loadFixture(deployScene);
    await answered(again, again.captive);
    await again.captive.connect(owner).escalate(1n);
    await pass(DEADLINES.rule + 1n);
    await expect(again.hostile.rule(again.captive, 1n, 2n)).to.be.revertedWithCustomError(captive, "DeadlineOver");
  });

  it("that reverts, burns gas or rules at once leaves the dispute where it was", async () => {
    for (const manner of [1n, 2n, 3n]) {
      const context = await networkHelpers.loadFixture(deployScene);
      const { captive, hostile } = context;
      await answered(context, captive);
      await hostile.behave(manner, 1n, "0x");
      await expect(captive.connect(owner).escalate(1n, { gasLimit: 1_000_000n })).to.revert(ethers);
      expect(await statusOf(captive)).to.equal(ANSWERED);
      await pass(DEADLINES.escalate + 1n);
      await captive.resolve(1n);
      expect(await credit(context, payee.address)).to.equal(100n);
    }
  });

  it("that calls back gets nowhere", async () => {
    const context = await scene();
    const { captive, hostile } = context;
    const { from } = await answered(context, captive);
    for (const call of [
      captive.interface.encodeFunctionData("resolve", [1n]),
      captive.interface.encodeFunctionData("release", [from.hold, 10n]),
    ]) {
      const snapshot = await networkHelpers.takeSnapshot();
      await hostile.behave(4n, 1n, call);
      await captive.connect(owner).escalate(1n);
      expect(await hostile.called()).to.equal(false);
      expect(await statusOf(captive)).to.equal(ESCALATED);
      await snapshot.restore();
    }
  });

  it("that gives a number twice is refused", async () => {
    const context = await scene();
    const { captive } = context;
    await answered(context, captive);
    await captive.connect(owner).escalate(1n);
    const from = await buyer(context, captive);
    const purchase = await pay(context, from, 50n);
    await captive.connect(owner).file(OTHER, from.hold, purchase, EVIDENCE);
    await captive.connect(payee).answer(2n, EVIDENCE);
    await expect(captive.connect(owner).escalate(2n))
      .to.be.revertedWithCustomError(captive, "DisputeIdUsed")
      .withArgs(1n);
  });
});

describe("the module", () => {
  it("refuses deadlines outside their ranges", async () => {
    const context = await scene();
    const arbitrator = await context.arbiter.getAddress();
    const cases = [
      [0n, { deliver: 7n * DAY + 1n }],
      [1n, { answer: HOUR - 1n }],
      [1n, { answer: 14n * DAY + 1n }],
      [2n, { escalate: HOUR - 1n }],
      [2n, { escalate: 14n * DAY + 1n }],
      [3n, { rule: DAY - 1n }],
      [3n, { rule: 30n * DAY + 1n }],
    ] as const;
    for (const [index, change] of cases) {
      await expect(deploy(context, arbitrator, { ...DEADLINES, ...change }))
        .to.be.revertedWithCustomError(context.disputes, "DeadlineOutOfRange")
        .withArgs(
          index,
          Object.values(change)[0],
          (value: bigint) => value >= 0n,
          (value: bigint) => value > 0n,
        );
    }
  });

  it("tells what it was deployed with", async () => {
    const { disputes, registry, escrow, processors, arbiter } = await scene();
    expect(await disputes.registry()).to.equal(await registry.getAddress());
    expect(await disputes.escrow()).to.equal(await escrow.getAddress());
    expect(await disputes.processors()).to.equal(await processors.getAddress());
    expect(await disputes.arbitrator()).to.equal(await arbiter.getAddress());
    expect(fields(await disputes.deadlines())).to.deep.equal(DEADLINES);
  });

  it("takes the hash of an evidence file of the protocol package", async () => {
    const context = await scene();
    const { disputes, domain } = context;
    const from = await buyer(context);
    const purchase = await pay(context, from, 100n);
    const { receipt, spent } = purchase;
    const wire = (value: object): never =>
      JSON.parse(JSON.stringify(value, (_, one: unknown) => (typeof one === "bigint" ? one.toString() : one))) as never;
    const line = { payee: receipt.payee, amount: receipt.amount, ref: receipt.ref };
    const hash = hashEvidence(
      wire({
        version: 1,
        domain,
        agent: receipt.agent,
        payee: payee.address,
        purchase: {
          payment: { seq: receipt.seq, spent, head: receipt.head, line },
          signature: purchase.agentSignature,
          receipt,
          receiptSignature: purchase.processorSignature,
        },
        statement: "The answer was empty.",
      }),
    );
    await disputes.connect(owner).file(OTHER, from.hold, purchase, hash);
    expect((await disputes.disputeOf(1n)).evidenceHash).to.equal(hash);
  });
});

describe("the bonded arbiter", () => {
  const named = (arbiter: Account, payer = stranger): string =>
    AbiCoder.defaultAbiCoder().encode(["address", "address"], [arbiter.address, payer.address]);

  it("takes disputes in rotation, as many as its stakes", async () => {
    const { arbiter } = await scene();
    const ask = () => arbiter.connect(stranger).createDispute(2n, "0x", { value: FEE });
    for (let i = 0; i < 3; i++) await ask();
    const assigned = await Promise.all([1n, 2n, 3n].map(async (one) => (await arbiter.caseOf(one)).arbiter));
    expect(assigned).to.deep.equal([arbiterOne.address, arbiterTwo.address, arbiterOne.address]);
    await expect(ask()).to.be.revertedWithCustomError(arbiter, "NoArbiter").withArgs(ZeroAddress);
  });

  it("takes a dispute that names it, while it has a stake", async () => {
    const { arbiter } = await scene();
    await arbiter.connect(stranger).createDispute(2n, named(arbiterTwo), { value: FEE });
    expect((await arbiter.caseOf(1n)).arbiter).to.equal(arbiterTwo.address);
    for (const one of [arbiterTwo, stranger]) {
      await expect(arbiter.connect(stranger).createDispute(2n, named(one), { value: FEE }))
        .to.be.revertedWithCustomError(arbiter, "NoArbiter")
        .withArgs(one.address);
    }
  });

  it("is asked for its fee, with data that it reads", async () => {
    const { arbiter } = await scene();
    expect(await arbiter.arbitrationCost("0x")).to.equal(FEE);
    await expect(arbiter.createDispute(2n, "0x", { value: FEE - 1n }))
      .to.be.revertedWithCustomError(arbiter, "WrongFee")
      .withArgs(FEE - 1n, FEE);
    await expect(arbiter.createDispute(2n, "0x01", { value: FEE }))
      .to.be.revertedWithCustomError(arbiter, "MalformedExtraData")
      .withArgs(1n);
  });

  it("rules itself, in range, once", async () => {
    const { arbiter } = await scene();
    await arbiter.connect(stranger).createDispute(2n, "0x", { value: FEE });
    await expect(arbiter.connect(arbiterTwo).giveRuling(1n, 1n)).to.be.revertedWithCustomError(arbiter, "OnlyAssigned");
    await expect(arbiter.connect(arbiterOne).giveRuling(1n, 3n))
      .to.be.revertedWithCustomError(arbiter, "RulingOutOfRange")
      .withArgs(3n, 2n);
    await expect(arbiter.deliver(1n)).to.be.revertedWithCustomError(arbiter, "NotSolved");
    await arbiter.connect(arbiterOne).giveRuling(1n, 2n);
    await expect(arbiter.connect(arbiterOne).giveRuling(1n, 2n)).to.be.revertedWithCustomError(arbiter, "NotWaiting");
    await expect(arbiter.expire(1n)).to.be.revertedWithCustomError(arbiter, "NotWaiting");
    await expect(arbiter.caseOf(9n)).to.be.revertedWithCustomError(arbiter, "UnknownCase");
    await expect(arbiter.expire(9n)).to.be.revertedWithCustomError(arbiter, "UnknownCase");
  });

  it("earns its fee though the contract does not take the ruling, which can be given again", async () => {
    for (const burns of [false, true]) {
      const { arbiter } = await networkHelpers.loadFixture(deployScene);
      const stubborn = await new StubbornArbitrable__factory(deployer).deploy();
      await stubborn.ask(arbiter, 2n, "0x", { value: FEE });
      await stubborn.behave(false, burns);
      await expect(arbiter.connect(arbiterOne).giveRuling(1n, 2n))
        .to.emit(arbiter, "Ruled")
        .withArgs(1n, arbiterOne.address, 2n, false);
      expect(await arbiter.owedTo(arbiterOne.address)).to.equal(FEE);
      await stubborn.behave(true, false);
      await arbiter.connect(stranger).deliver(1n);
      expect(await stubborn.ruled()).to.equal(2n);
    }
  });

  it("cannot keep a ruling from its contract by sending too little gas", async () => {
    const { arbiter } = await scene();
    const thrifty = await new StubbornArbitrable__factory(deployer).deploy();
    await thrifty.behave(true, false);
    await thrifty.ask(arbiter, 2n, "0x", { value: FEE });
    const ruling = arbiter.connect(arbiterOne).giveRuling;
    await expect(ruling(1n, 2n, { gasLimit: 400_000n })).to.be.revertedWithCustomError(arbiter, "TooLittleGas");
    await ruling(1n, 2n, { gasLimit: await ruling.estimateGas(1n, 2n) });
    expect(await thrifty.ruled()).to.equal(2n);
  });

  it("takes its bond back after a notice, with no dispute open", async () => {
    const { arbiter } = await scene();
    await arbiter.connect(stranger).createDispute(2n, named(arbiterTwo), { value: FEE });
    const leaving = arbiter.connect(arbiterTwo);
    await expect(leaving.takeBond()).to.be.revertedWithCustomError(arbiter, "NoNotice");
    await leaving.giveNotice();
    await expect(leaving.takeBond()).to.be.revertedWithCustomError(arbiter, "NoticeNotOver");
    const { leavesAt } = await arbiter.arbiterOf(arbiterTwo.address);
    await pass(100n);
    await leaving.giveNotice();
    expect((await arbiter.arbiterOf(arbiterTwo.address)).leavesAt).to.equal(leavesAt);
    await leaving.giveRuling(1n, 1n);
    await at(leavesAt);
    await leaving.takeBond();
    await expect(leaving.withdraw(stranger.address)).to.emit(arbiter, "Withdrawn");
    await expect(leaving.giveNotice()).to.be.revertedWithCustomError(arbiter, "ZeroBond");
  });

  it("keeps its bond while a dispute is open, and takes no new one after its notice", async () => {
    const { arbiter } = await scene();
    await arbiter.connect(stranger).createDispute(2n, named(arbiterOne), { value: FEE });
    await arbiter.connect(arbiterOne).giveNotice();
    await expect(
      arbiter.connect(stranger).createDispute(2n, named(arbiterOne), { value: FEE }),
    ).to.be.revertedWithCustomError(arbiter, "NoArbiter");
    await pass(7n * DAY + 10n);
    await expect(arbiter.connect(arbiterOne).takeBond())
      .to.be.revertedWithCustomError(arbiter, "DisputesOpen")
      .withArgs(arbiterOne.address, 1n);
    await arbiter.expire(1n);
    await arbiter.connect(arbiterOne).takeBond();
    expect(await arbiter.owedTo(arbiterOne.address)).to.equal(STAKE);
    expect(await arbiter.owedTo(stranger.address)).to.equal(FEE + STAKE);
  });

  it("comes back by posting a bond", async () => {
    const { arbiter } = await scene();
    await arbiter.connect(arbiterOne).giveNotice();
    await arbiter.connect(arbiterOne).postBond({ value: 1n });
    expect((await arbiter.arbiterOf(arbiterOne.address)).leavesAt).to.equal(0n);
    await expect(arbiter.connect(arbiterOne).postBond()).to.be.revertedWithCustomError(arbiter, "ZeroBond");
    await expect(arbiter.connect(stranger).postBond({ value: 1n }))
      .to.be.revertedWithCustomError(arbiter, "OnlyArbiter")
      .withArgs(stranger.address);
  });

  it("is deployed with one to sixteen arbiters, a stake and a time to rule", async () => {
    const { arbiter } = await scene();
    const factory = new BondedArbiter__factory(deployer);
    const many = Array.from({ length: 17 }, () => freshKey().address);
    const one = [arbiterOne.address];
    for (const list of [[], many]) {
      await expect(factory.deploy(list, FEE, STAKE, DAY)).to.be.revertedWithCustomError(
        arbiter,
        "ArbiterCountOutOfRange",
      );
    }
    await expect(factory.deploy([...one, ...one], FEE, STAKE, DAY)).to.be.revertedWithCustomError(
      arbiter,
      "ListedTwice",
    );
    await expect(factory.deploy(one, FEE, 0n, DAY)).to.be.revertedWithCustomError(arbiter, "ZeroStake");
    for (const seconds of [HOUR - 1n, 14n * DAY + 1n]) {
      await expect(factory.deploy(one, FEE, STAKE, seconds)).to.be.revertedWithCustomError(
        arbiter,
        "RuleWithinOutOfRange",
      );
    }
    expect(await arbiter.arbiters()).to.deep.equal([arbiterOne.address, arbiterTwo.address]);
  });
});
