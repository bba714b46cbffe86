import { type Address } from "@bursar/protocol";
import { expect } from "chai";
import { id, ZeroHash, type Wallet } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import { PaidFeedback__factory, type PaidFeedback } from "../../typechain-types/index.ts";
import {
  deployCore,
  deployer,
  ethers,
  freshKey,
  networkHelpers,
  open,
  other,
  owner,
  payee,
  processor,
  settlement,
  stranger,
  type Core,
} from "./fixture.ts";
import { receipted, type PaymentDraft, type ReceiptedPayment } from "./receipted.ts";
import { signRow } from "./settle-one.ts";

const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
const PAYEE = BigInt(payee.address);

async function deployScene(): Promise<{ context: Core; feedback: PaidFeedback }> {
  const context = await deployCore();
  return { context, feedback: await new PaidFeedback__factory(deployer).deploy(context.registry) };
}

describe("PaidFeedback", () => {
  let context: Core;
  let feedback: PaidFeedback;
  let agent: Wallet;

  beforeEach(async () => {
    ({ context, feedback } = await networkHelpers.loadFixture(deployScene));
    feedback = feedback.connect(owner);
    agent = (await open(context)).agent as Wallet;
  });

  /** Pays `to` and settles it. */
  async function paid(overrides: PaymentDraft = {}, from = agent): Promise<ReceiptedPayment> {
    const payment = await receipted(context, from, { amount: 100n, ...overrides });
    const { payee: to, amount } = payment.line;
    const row = await signRow(context, from, to, amount);
    await context.registry.connect(settlement).settle(processor.address, [row], [{ payee: to, amount }]);
    return payment;
  }
  const rate = (payment: ReceiptedPayment, value = 80n, tag1 = "starred", tag2 = "") =>
    feedback.rate(payment, value, tag1, tag2, "", ZeroHash);
  const summary = async (clients: Address[] = [], tag1 = "", tag2 = ""): Promise<bigint[]> => [
    ...(await feedback.getSummary(PAYEE, clients, tag1, tag2)),
  ];
  const isRefused = async (sent: Promise<unknown>, error: string, ...args: unknown[]): Promise<void> => {
    await expect(sent)
      .to.be.revertedWithCustomError(feedback, error)
      .withArgs(...args);
  };

  describe("rate", () => {
    it("takes the owner's word of a settled payment, and says it as ERC-8004 does", async () => {
      const payment = await paid();
      const hash = id("more");
      await expect(feedback.rate(payment, 80n, "starred", "speed", "ipfs://more", hash))
        .to.emit(feedback, "NewFeedback")
        .withArgs(PAYEE, owner.address, 1n, 80n, 0n, "starred", "starred", "speed", "", "ipfs://more", hash);
      expect([...(await feedback.readFeedback(PAYEE, owner.address, 1n))]).to.deep.equal([
        80n,
        0n,
        "starred",
        "speed",
        false,
      ]);
      expect([...(await feedback.getClients(PAYEE))]).to.deep.equal([owner.address]);
      expect(await feedback.getLastIndex(PAYEE, owner.address)).to.equal(1n);
      expect(await feedback.isRated(agent.address, 1n)).to.equal(true);
    });
    it("takes the agent's word as its owner's", async () => {
      const payment = await paid();
      await networkHelpers.setBalance(agent.address, 10n ** 18n);
      await networkHelpers.impersonateAccount(agent.address);
      await feedback.connect(await ethers.getSigner(agent.address)).rate(payment, 70n, "", "", "", ZeroHash);
      expect([...(await feedback.getClients(PAYEE))]).to.deep.equal([owner.address]);
      expect(await summary()).to.deep.equal([1n, 7_000n, 2n]);
    });
    it("takes nobody else's: not the payee's, the processor's, a stranger's", async () => {
      const payment = await paid();
      for (const caller of [payee, processor, stranger])
        await expect(feedback.connect(caller).rate(payment, 100n, "", "", "", ZeroHash))
          .to.be.revertedWithCustomError(feedback, "OnlyOwnerOrAgent")
          .withArgs(caller.address, owner.address, agent.address);
    });
    it("takes one word for a payment, whoever of the two speaks and whatever it says", async () => {
      const payment = await paid();
      await rate(payment);
      await isRefused(rate(payment, 10n), "RatedAlready", agent.address, 1n);
      // The same payment with another promise is the same payment.
      const again = await receipted(context, agent, {
        ...payment.line,
        seq: 1n,
        spent: 100n,
        head: payment.head,
        settleBy: payment.settleBy + 1n,
      });
      await isRefused(rate(again), "RatedAlready", agent.address, 1n);
      await rate(await paid());
      expect(await feedback.getLastIndex(PAYEE, owner.address)).to.equal(2n);
    });
    it("takes no word of a payment before it is settled", async () => {
      const payment = await receipted(context, agent, { amount: 100n });
      await isRefused(rate(payment), "NotSettled", agent.address, 1n, 0n);
      const row = await signRow(context, agent, payee.address, 100n);
      const credits = [{ payee: payee.address, amount: 100n }];
      await context.registry.connect(settlement).settle(processor.address, [row], credits);
      await rate(payment);
    });
    it("takes no payment without both its signatures", async () => {
      const payment = await paid();
      await expect(rate({ ...payment, line: { ...payment.line, payee: other.address } })).to.be.revertedWithCustomError(
        feedback,
        "WrongSigner",
      );
      const invented = await receipted(context, agent, { seq: 1n, spent: 100n, amount: 100n, key: stranger });
      await expect(rate(invented)).to.be.revertedWithCustomError(feedback, "NotAReceiptKey");
      const forged = await receipted(context, agent, { seq: 1n, spent: 100n, amount: 100n, signer: stranger });
      await expect(rate(forged)).to.be.revertedWithCustomError(feedback, "WrongSigner");
      const unknown = await receipted(context, freshKey(), { seq: 1n });
      await expect(rate(unknown)).to.be.revert(ethers);
    });
    it("takes no praise of oneself, as the owner or as the agent", async () => {
      for (const to of [owner.address, agent.address as Address])
        await isRefused(rate(await paid({ payee: to })), "OwnPayee", to);
    });
    it("takes words until the mandate's claims end", async () => {
      const payments = [await paid(), await paid()];
      await context.registry.connect(owner).revoke(agent.address, 2n);
      const { claimsUntil } = await context.registry.claimsOf(agent.address);
      await networkHelpers.time.setNextBlockTimestamp(claimsUntil);
      await rate(payments[0]!);
      await networkHelpers.time.setNextBlockTimestamp(claimsUntil + 1n);
      await isRefused(rate(payments[1]!), "ClaimWindowOver", agent.address, claimsUntil + 1n, claimsUntil);
    });
    it("takes 0 to 100, tags of 32 bytes and addresses of 256", async () => {
      const payment = await paid();
      for (const value of [-1n, 101n]) await isRefused(rate(payment, value), "ValueOutOfRange", value, 0n, 100n);
      const long = "x".repeat(33);
      await isRefused(rate(payment, 1n, long), "TextTooLong", 33n, 32n);
      await isRefused(rate(payment, 1n, "", long), "TextTooLong", 33n, 32n);
      await isRefused(feedback.rate(payment, 1n, "", "", "x".repeat(257), ZeroHash), "TextTooLong", 257n, 256n);
      await feedback.rate(payment, 0n, "x".repeat(32), "y".repeat(32), "z".repeat(256), ZeroHash);
      await rate(await paid(), 100n);
    });
  });

  describe("a summary", () => {
    it("is the mean of what was said, with two decimals, rounded down, and 0 of nothing", async () => {
      expect(await summary()).to.deep.equal([0n, 0n, 2n]);
      for (const value of [100n, 50n, 50n]) await rate(await paid(), value);
      expect(await summary()).to.deep.equal([3n, 6_666n, 2n]);
      expect([...(await feedback.getSummary(BigInt(other.address), [], "", ""))]).to.deep.equal([0n, 0n, 2n]);
    });
    it("is of the clients and tags that are asked for", async () => {
      await rate(await paid(), 90n, "starred", "speed");
      await rate(await paid(), 30n, "starred", "taste");
      await rate(await paid(), 60n, "uptime", "speed");
      expect(await summary([owner.address])).to.deep.equal([3n, 6_000n, 2n]);
      expect(await summary([stranger.address])).to.deep.equal([0n, 0n, 2n]);
      expect(await summary([], "starred")).to.deep.equal([2n, 6_000n, 2n]);
      expect(await summary([], "", "speed")).to.deep.equal([2n, 7_500n, 2n]);
      expect(await summary([], "starred", "taste")).to.deep.equal([1n, 3_000n, 2n]);
      expect(await summary([], "unheard")).to.deep.equal([0n, 0n, 2n]);
    });
    it("leaves out what was taken back, which stays readable and is not said again for the same payment", async () => {
      const payment = await paid();
      await rate(payment, 10n);
      await rate(await paid(), 90n);
      await expect(feedback.revokeFeedback(PAYEE, 1n))
        .to.emit(feedback, "FeedbackRevoked")
        .withArgs(PAYEE, owner.address, 1n);
      expect(await summary()).to.deep.equal([1n, 9_000n, 2n]);
      expect((await feedback.readFeedback(PAYEE, owner.address, 1n)).isRevoked).to.equal(true);
      await isRefused(rate(payment), "RatedAlready", agent.address, 1n);
    });
  });

  it("lets nobody take back what another said, nothing twice, and nothing that was not said", async () => {
    await rate(await paid());
    await expect(feedback.connect(payee).revokeFeedback(PAYEE, 1n))
      .to.be.revertedWithCustomError(feedback, "NoFeedback")
      .withArgs(PAYEE, payee.address, 1n);
    for (const index of [0n, 2n]) {
      await isRefused(feedback.revokeFeedback(PAYEE, index), "NoFeedback", PAYEE, owner.address, index);
      await isRefused(feedback.readFeedback(PAYEE, owner.address, index), "NoFeedback", PAYEE, owner.address, index);
    }
    await feedback.revokeFeedback(PAYEE, 1n);
    await isRefused(feedback.revokeFeedback(PAYEE, 1n), "NoFeedback", PAYEE, owner.address, 1n);
  });
  it("P17 sp_cannot_take: moves no money and stands in nobody's way", async () => {
    const payment = await paid();
    const { escrow, token, registry } = context;
    const before = [await escrow.creditOf(token, payee.address), await escrow.lockedOf(token)];
    await rate(payment, 0n);
    expect([await escrow.creditOf(token, payee.address), await escrow.lockedOf(token)]).to.deep.equal(before);
    await escrow.connect(stranger).sweepCredit(token, payee.address);
    await registry.connect(owner).revoke(agent.address, 1n);
    await networkHelpers.time.increase(TAIL);
    await registry.connect(stranger).close(agent.address);
  });
  it("says which interfaces it has", async () => {
    const names = ["rate", "revokeFeedback", "getSummary", "readFeedback", "getClients", "getLastIndex", "isRated"];
    const own = names.reduce((sum, name) => sum ^ BigInt(feedback.interface.getFunction(name as "rate").selector), 0n);
    for (const [interfaceId, expected] of [
      [ethers.toBeHex(own, 4), true],
      ["0x01ffc9a7", true],
      ["0xffffffff", false],
    ] as const)
      expect(await feedback.supportsInterface(interfaceId)).to.equal(expected);
  });
});
