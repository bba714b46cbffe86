import { headHex, signClose, signMandate, type Address } from "@bursar/protocol";
import { expect } from "chai";
import { toBeHex, ZeroHash, type Wallet } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import {
  MoodyGate__factory,
  OpenGate__factory,
  type MandateRegistry,
  type MoodyGate,
} from "../../typechain-types/index.ts";
import {
  core,
  deployer,
  deployWith,
  draft,
  ethers,
  fields,
  freshKey,
  fund,
  networkHelpers,
  now,
  open,
  other,
  owner,
  payee,
  processor,
  settlement,
  solidity,
  stranger,
  type Core,
} from "./fixture.ts";
import { receipted } from "./receipted.ts";
import { signRow, type SignedRow } from "./settle-one.ts";
import { signDebit } from "./sign-direct.ts";

const [NONE, OPEN, REVOKED, EXPIRED, CLOSED, FALLBACK] = [0n, 1n, 2n, 3n, 4n, 5n];
const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
const HOUR = 3_600n;
const [AGREES, REFUSES] = [0, 1];

describe("Revocation", () => {
  let context: Core;
  let registry: MandateRegistry;
  beforeEach(async () => {
    context = await core();
    registry = context.registry.connect(stranger);
  });

  const at = (time: bigint): Promise<void> => networkHelpers.time.setNextBlockTimestamp(time);
  const settle = (row: SignedRow) =>
    context.registry
      .connect(settlement)
      .settle(processor.address, [row], [{ payee: payee.address, amount: row.debit }]);
  const row = (agent: Wallet, debit: bigint, count = 1n): Promise<SignedRow> =>
    signRow(context, agent, payee.address, debit, count);
  const debit = async (agent: Wallet, value: bigint, nonce = 1n) =>
    context.direct.connect(processor).debit([await signDebit(context, agent, { payee: payee.address, value, nonce })]);
  const acknowledge = (agent: Wallet, seq: bigint, head: string = ZeroHash, direct = 0n, by = processor) =>
    context.registry.connect(by).acknowledge(agent.address, seq, head, direct);
  const isRefused = async (sent: Promise<unknown>, error: string, ...args: unknown[]): Promise<void> => {
    await expect(sent)
      .to.be.revertedWithCustomError(registry, error)
      .withArgs(...args);
  };

  /** Opens a mandate, settles `settled` payments of one unit each and revokes it. */
  async function revoked(settled = 0n): Promise<{ agent: Wallet; revokedAt: bigint }> {
    const agent = (await open(context)).agent as Wallet;
    if (settled > 0n) await settle(await row(agent, settled, settled));
    await context.registry.connect(owner).revoke(agent.address, 0n);
    return { agent, revokedAt: await now() };
  }

  describe("P5 revoke_is_final: answered", () => {
    it("keeps and emits what the processor acknowledged", async () => {
      const { agent } = await revoked(2n);
      const head = headHex(7n);
      expect(fields(await registry.acknowledgementOf(agent.address))).to.deep.equal({
        acknowledged: false,
        seq: 0n,
        directSpent: 0n,
        head: ZeroHash,
      });
      await expect(acknowledge(agent, 5n, head, 9n))
        .to.emit(registry, "RevocationAcknowledged")
        .withArgs(agent.address, 5n, head, 9n);
      expect(fields(await registry.acknowledgementOf(agent.address))).to.deep.equal({
        acknowledged: true,
        seq: 5n,
        directSpent: 9n,
        head,
      });
      expect(await registry.stateOf(agent.address)).to.equal(REVOKED);
    });
    it("settles up to the acknowledged payment in any steps, until the mandate can be closed, and none above", async () => {
      const { agent, revokedAt } = await revoked(2n);
      const { base } = await registry.positionOf(agent.address);
      // Each row of these adds 1 to the head: payment 5 ends the second row.
      await acknowledge(agent, 5n, headHex(base + 2n));
      await settle(await row(agent, 1n));
      await isRefused(settle(await row(agent, 3n, 3n)), "AboveAcknowledged", agent.address, 6n, 5n);
      await at(revokedAt + TAIL - 1n);
      await settle(await row(agent, 2n, 2n));
      expect((await registry.positionOf(agent.address)).seq).to.equal(5n);
      const above = await row(agent, 1n);
      await at(revokedAt + TAIL);
      await isRefused(
        settle(above),
        "MandateNotSettleable",
        agent.address,
        REVOKED,
        revokedAt + TAIL,
        revokedAt + TAIL,
      );
    });
    it("settles no payment above the acknowledged one, though the agent signed it", async () => {
      const { agent } = await revoked();
      const { base } = await registry.positionOf(agent.address);
      await acknowledge(agent, 1n, headHex(base + 1n));
      await settle(await row(agent, 1n));
      await isRefused(settle(await row(agent, 1n)), "AboveAcknowledged", agent.address, 2n, 1n);
    });
    it("settles no other head at the acknowledged payment", async () => {
      const { agent } = await revoked();
      const { base } = await registry.positionOf(agent.address);
      const head = headHex(base + 2n);
      await acknowledge(agent, 2n, head);
      await isRefused(settle(await row(agent, 2n, 2n)), "HeadNotAcknowledged", agent.address, base + 1n, head);
      await settle(await row(agent, 1n));
      await settle(await row(agent, 1n));
    });
    it("settles nothing more where the acknowledged payment is the settled one", async () => {
      const { agent } = await revoked(3n);
      await acknowledge(agent, 3n);
      await isRefused(settle(await row(agent, 1n)), "AboveAcknowledged", agent.address, 4n, 3n);
    });
    it("pays directly up to the acknowledged sum, and no unit above, also with what was paid before", async () => {
      const agent = (await open(context)).agent as Wallet;
      await debit(agent, 100n);
      await context.registry.connect(owner).revoke(agent.address, 0n);
      await debit(agent, 10n, 2n);
      await acknowledge(agent, 0n, ZeroHash, 150n);
      await isRefused(debit(agent, 41n, 3n), "AboveAcknowledged", agent.address, 151n, 150n);
      await debit(agent, 40n, 3n);
      await isRefused(debit(agent, 1n, 4n), "AboveAcknowledged", agent.address, 151n, 150n);
      expect((await registry.mandateOf(agent.address)).directSpent).to.equal(150n);
    });
    it("pays nothing more directly where less was acknowledged than is paid", async () => {
      const agent = (await open(context)).agent as Wallet;
      await debit(agent, 100n);
      await context.registry.connect(owner).revoke(agent.address, 0n);
      await acknowledge(agent, 0n, ZeroHash, 0n);
      await isRefused(debit(agent, 1n, 2n), "AboveAcknowledged", agent.address, 101n, 0n);
    });
  });

  describe("P5 revoke_is_final: unanswered", () => {
    it("is settled on both rails until the last second for an answer, and on neither after", async () => {
      const [one, two] = [await revoked(), await revoked()];
      const [first, second] = [await row(one.agent, 1n), await row(two.agent, 1n)];
      const deadline = two.revokedAt + WINDOWS.acknowledge;
      await at(one.revokedAt + WINDOWS.acknowledge - 1n);
      await debit(one.agent, 1n);
      await at(one.revokedAt + WINDOWS.acknowledge);
      await settle(first);
      await at(deadline + 1n);
      await isRefused(settle(second), "NotAcknowledged", two.agent.address, deadline + 1n, deadline);
      await at(deadline + 2n);
      await isRefused(debit(two.agent, 1n), "NotAcknowledged", two.agent.address, deadline + 2n, deadline);
      await at(two.revokedAt + TAIL - 1n);
      await isRefused(settle(second), "NotAcknowledged", two.agent.address, two.revokedAt + TAIL - 1n, deadline);
      expect(await registry.remainingOf(two.agent.address)).to.equal(10_000n);
    });
    it("is the payees' to claim from the next second on", async () => {
      const { agent, revokedAt } = await revoked();
      const isAbandoned = async (time: bigint): Promise<boolean> => {
        await networkHelpers.time.increaseTo(time);
        return (await registry.claimsOf(agent.address)).fallback_;
      };
      expect(await isAbandoned(revokedAt + WINDOWS.acknowledge)).to.equal(false);
      expect(await isAbandoned(revokedAt + WINDOWS.acknowledge + 1n)).to.equal(true);
    });
    it("costs a batch that holds it, and no other mandate", async () => {
      const { agent, revokedAt } = await revoked();
      const healthy = (await open(context)).agent as Wallet;
      const rows = [await row(agent, 1n), await row(healthy, 1n)].sort((a, b) =>
        BigInt(a.agent) < BigInt(b.agent) ? -1 : 1,
      );
      const deadline = revokedAt + WINDOWS.acknowledge;
      await at(deadline + 1n);
      await isRefused(
        context.registry.connect(settlement).settle(processor.address, rows, [{ payee: payee.address, amount: 2n }]),
        "NotAcknowledged",
        agent.address,
        deadline + 1n,
        deadline,
      );
      await settle(rows.find((one) => one.agent === healthy.address)!);
    });
  });

  describe("acknowledge", () => {
    it("is taken in its last second and refused after", async () => {
      const [one, two] = [await revoked(), await revoked()];
      await at(one.revokedAt + WINDOWS.acknowledge);
      await acknowledge(one.agent, 0n);
      const deadline = two.revokedAt + WINDOWS.acknowledge;
      await at(deadline + 1n);
      await isRefused(acknowledge(two.agent, 0n), "AcknowledgementTooLate", two.agent.address, deadline + 1n, deadline);
    });
    it("P17 sp_cannot_take: is the mandate's processor's alone", async () => {
      const { agent } = await revoked();
      for (const signer of [owner, stranger, settlement, payee])
        await isRefused(
          acknowledge(agent, 0n, ZeroHash, 0n, signer),
          "OnlyProcessor",
          signer.address,
          processor.address,
        );
    });
    it("is given once", async () => {
      const { agent } = await revoked();
      await acknowledge(agent, 4n);
      for (const seq of [3n, 4n, 5n])
        await isRefused(acknowledge(agent, seq), "AlreadyAcknowledged", agent.address, 4n);
    });
    it("cannot leave out what is settled already", async () => {
      const { agent } = await revoked(3n);
      await isRefused(acknowledge(agent, 2n), "AcknowledgementBelowSettled", agent.address, 2n, 3n);
      await acknowledge(agent, 3n);
    });
    it("is of revoked mandates only: not of an open, expired, closed or unknown one", async () => {
      const { agent, mandate } = await open(context);
      const one = agent as Wallet;
      await isRefused(acknowledge(one, 0n), "MandateNotRevoked", one.address, OPEN);
      await networkHelpers.time.increaseTo(mandate.validUntil + 1n);
      await isRefused(acknowledge(one, 0n), "MandateNotRevoked", one.address, EXPIRED);
      await networkHelpers.time.increaseTo(mandate.validUntil + TAIL);
      await registry.close(one.address);
      await isRefused(acknowledge(one, 0n), "MandateNotRevoked", one.address, CLOSED);
      const unknown = freshKey();
      await isRefused(acknowledge(unknown, 0n), "MandateNotRevoked", unknown.address, NONE);
    });
  });

  describe("P4 owner_always_exits", () => {
    /** Nobody but a stranger calls anything, and every contract that is asked at opening answers no more. */
    async function gated(): Promise<{ gate: MoodyGate; agent: Wallet; validUntil: bigint }> {
      const gate = await new MoodyGate__factory(deployer).deploy();
      context = await deployWith((await gate.getAddress()) as Address);
      registry = context.registry.connect(stranger);
      const { agent, mandate } = await open(context);
      return { gate, agent: agent as Wallet, validUntil: mandate.validUntil };
    }
    const returned = async (agent: Wallet, units: bigint): Promise<void> => {
      await expect(registry.close(agent.address))
        .to.emit(registry, "MandateClosed")
        .withArgs(agent.address, owner.address, units);
      expect(await context.escrow.freeOf(context.token, owner.address)).to.equal(units);
      expect(await context.escrow.lockedOf(context.token)).to.equal(0n);
      expect(await registry.remainingOf(agent.address)).to.equal(0n);
      await context.escrow.connect(owner).withdraw(context.token, units, owner.address);
      expect(await context.dollar.balanceOf(owner.address)).to.equal(units);
    };

    it("after a revocation that nobody answers, every unpaid unit comes back by a stranger's call", async () => {
      const { gate, agent } = await gated();
      await settle(await row(agent, 400n));
      await debit(agent, 100n);
      await gate.set(2, 2);
      await context.registry.connect(owner).revoke(agent.address, 0n);
      const closesAt = (await now()) + TAIL;
      await at(closesAt - 1n);
      await isRefused(registry.close(agent.address), "TooEarlyToClose", agent.address, closesAt - 1n, closesAt);
      await at(closesAt);
      await returned(agent, 9_500n);
    });
    it("after the end alone, with no call of its owner's, every unpaid unit comes back by a stranger's call", async () => {
      const { gate, agent, validUntil } = await gated();
      await debit(agent, 100n);
      await gate.set(3, 3);
      const closesAt = validUntil + TAIL;
      await at(closesAt - 1n);
      await isRefused(registry.close(agent.address), "TooEarlyToClose", agent.address, closesAt - 1n, closesAt);
      await at(closesAt);
      await returned(agent, 9_900n);
    });
    it("an answer that promises the whole budget takes nothing that is not settled in time", async () => {
      const { agent } = await revoked();
      await acknowledge(agent, 2n ** 64n - 1n, headHex(1n), 2n ** 64n - 1n);
      await networkHelpers.time.increase(TAIL);
      await returned(agent, 10_000n);
    });
    it("a processor that is on its way out keeps nothing of it", async () => {
      const { agent } = await revoked();
      await context.processors.connect(processor).requestUnbonding();
      await networkHelpers.time.increase(TAIL);
      await returned(agent, 10_000n);
      expect(await context.processors.coveredOf(processor.address, context.token)).to.equal(0n);
    });
  });

  describe("closeTogether", () => {
    async function signatures(
      agent: Wallet,
      seq: bigint,
      [first, second] = [owner, processor],
    ): Promise<readonly [string, string]> {
      const close = { agent: agent.address as Address, seq };
      return [await signClose(first, context.domain, close), await signClose(second, context.domain, close)];
    }
    const together = async (agent: Wallet, seq: bigint, signed?: readonly [string, string]) =>
      registry.closeTogether(agent.address, seq, ...(signed ?? (await signatures(agent, seq))));

    it("gives the owner the rest after an hour, by two signatures and a stranger's calls", async () => {
      const agent = (await open(context)).agent as Wallet;
      await settle(await row(agent, 3n, 3n));
      await debit(agent, 7n);
      const time = (await now()) + 10n;
      const signed = await signatures(agent, 3n);
      await at(time);
      const sent = together(agent, 3n, signed);
      await expect(sent).to.emit(registry, "MandateRevoked");
      await expect(sent).to.emit(registry, "RevocationAcknowledged").withArgs(agent.address, 3n, ZeroHash, 7n);
      expect(fields(await registry.mandateOf(agent.address))).to.deep.include({
        state: REVOKED,
        revokedAt: time,
        revokedAfterSeq: 3n,
        closesAt: time + HOUR,
      });
      await at(time + HOUR - 1n);
      await isRefused(registry.close(agent.address), "TooEarlyToClose", agent.address, time + HOUR - 1n, time + HOUR);
      await at(time + HOUR);
      await expect(registry.close(agent.address))
        .to.emit(registry, "MandateClosed")
        .withArgs(agent.address, owner.address, 9_990n);
      expect(await context.escrow.freeOf(context.token, owner.address)).to.equal(9_990n);
    });
    it("P5 revoke_is_final: nothing is settled after it, on neither rail", async () => {
      const agent = (await open(context)).agent as Wallet;
      await settle(await row(agent, 1n));
      await debit(agent, 7n);
      await together(agent, 1n);
      await isRefused(settle(await row(agent, 1n)), "AboveAcknowledged", agent.address, 2n, 1n);
      await isRefused(debit(agent, 1n, 2n), "AboveAcknowledged", agent.address, 8n, 7n);
    });
    it("takes no other signatures: wrong signer, other payment, other agent, swapped, none", async () => {
      const agent = (await open(context)).agent as Wallet;
      const good = await signatures(agent, 0n);
      const another = await signatures(freshKey(), 0n);
      const later = await signatures(agent, 1n);
      for (const ownerSignature of [
        (await signatures(agent, 0n, [stranger, processor]))[0],
        another[0],
        later[0],
        good[1],
        "0x",
      ])
        await isRefused(together(agent, 0n, [ownerSignature, good[1]]), "InvalidOwnerSignature", owner.address);
      for (const processorSignature of [
        (await signatures(agent, 0n, [owner, stranger]))[1],
        another[1],
        later[1],
        good[0],
        "0x",
      ])
        await expect(together(agent, 0n, [good[0], processorSignature])).to.be.revertedWithCustomError(
          registry,
          "WrongSigner",
        );
      await together(agent, 0n, good);
    });
    it("takes the receipt key that the processor has now", async () => {
      const agent = (await open(context)).agent as Wallet;
      await context.processors.connect(processor).rotateKey(other.address);
      await expect(together(agent, 0n))
        .to.be.revertedWithCustomError(registry, "WrongSigner")
        .withArgs(other.address, processor.address, 0n);
      await together(agent, 0n, await signatures(agent, 0n, [owner, other]));
    });
    it("takes no other payment than the last that is settled", async () => {
      const agent = (await open(context)).agent as Wallet;
      await settle(await row(agent, 2n, 2n));
      for (const seq of [1n, 3n]) await isRefused(together(agent, seq), "NotSettledUpTo", agent.address, seq, 2n);
      const signed = await signatures(agent, 2n);
      await settle(await row(agent, 1n));
      await isRefused(together(agent, 2n, signed), "NotSettledUpTo", agent.address, 2n, 3n);
    });
    it("ends an expired mandate, as of its end and never later than before", async () => {
      const { agent, mandate } = await open(context);
      const one = agent as Wallet;
      const { validUntil } = mandate;
      await at(validUntil + 100n);
      await together(one, 0n, await signatures(one, 0n));
      expect(fields(await registry.mandateOf(one.address))).to.deep.include({
        state: REVOKED,
        revokedAt: validUntil,
        closesAt: validUntil + 100n + HOUR,
      });
      const { agent: late, mandate: second } = await open(context);
      await at(second.validUntil + TAIL - 60n);
      await together(late as Wallet, 0n, await signatures(late as Wallet, 0n));
      expect((await registry.mandateOf(late.address)).closesAt).to.equal(second.validUntil + TAIL);
    });
    it("ends a revoked mandate that was answered, one that was not, and one whose answer is too late", async () => {
      const [answered, waiting, silent] = [await revoked(1n), await revoked(), await revoked()];
      await acknowledge(answered.agent, 4n, headHex(9n), 5n);
      for (const [{ agent, revokedAt }, seq, wait] of [
        [answered, 1n, 1n],
        [waiting, 0n, 1n],
        [silent, 0n, 2n * WINDOWS.acknowledge],
      ] as const) {
        await networkHelpers.time.increase(wait);
        await together(agent, seq);
        expect(fields(await registry.acknowledgementOf(agent.address))).to.deep.equal({
          acknowledged: true,
          seq,
          directSpent: 0n,
          head: ZeroHash,
        });
        expect(fields(await registry.mandateOf(agent.address))).to.deep.include({
          revokedAt,
          closesAt: (await now()) + HOUR,
        });
        await isRefused(settle(await row(agent, 1n)), "AboveAcknowledged", agent.address, seq + 1n, seq);
      }
    });
    it("is refused for a mandate that is closed, or was never opened", async () => {
      const { agent } = await revoked();
      await networkHelpers.time.increase(TAIL);
      await registry.close(agent.address);
      await isRefused(together(agent, 0n), "MandateNotOpen", agent.address, CLOSED);
      const unknown = freshKey();
      await isRefused(together(unknown, 0n), "MandateNotOpen", unknown.address, NONE);
    });

    describe("with a payment that was left out", () => {
      /** A mandate with a receipt that is missed by the time both end it. */
      async function missed() {
        const agent = (await open(context)).agent as Wallet;
        const payment = await receipted(context, agent, { amount: 500n, settleBy: await now() });
        await networkHelpers.time.increase(WINDOWS.grace + 1n);
        return { agent, payment, claims: context.claims.connect(stranger) };
      }

      it("a claim within the hour brings back the full windows", async () => {
        const { agent, payment, claims } = await missed();
        await together(agent, 0n);
        const endedAt = await now();
        expect((await registry.mandateOf(agent.address)).closesAt).to.equal(endedAt + HOUR);
        await claims.file([payment]);
        const closesAt = endedAt + TAIL;
        expect((await registry.mandateOf(agent.address)).closesAt).to.equal(closesAt);
        await networkHelpers.time.increaseTo(endedAt + HOUR);
        await expect(registry.close(agent.address)).to.be.revertedWithCustomError(registry, "TooEarlyToClose");
      });
      it("the same two signatures do not shorten the windows again", async () => {
        const { agent, payment, claims } = await missed();
        const signed = await signatures(agent, 0n);
        await together(agent, 0n, signed);
        const closesAt = (await now()) + TAIL;
        await claims.file([payment]);
        await isRefused(together(agent, 0n, signed), "AlreadyAcknowledged", agent.address, 0n);
        expect((await registry.mandateOf(agent.address)).closesAt).to.equal(closesAt);
      });
      it("P5 revoke_is_final: the bond pays that payee and not the owner, who gets everything back", async () => {
        const { agent, payment, claims } = await missed();
        await together(agent, 0n);
        const endedAt = await now();
        await claims.file([payment]);
        expect((await registry.mandateOf(agent.address)).reserved).to.equal(0n);
        await networkHelpers.time.increase(WINDOWS.cure);
        await claims.resolve([payment]);
        expect(await registry.stateOf(agent.address)).to.equal(REVOKED);
        expect((await context.processors.processorOf(processor.address)).slashed).to.equal(true);
        await networkHelpers.time.increaseTo(endedAt + TAIL);
        await expect(registry.close(agent.address))
          .to.emit(registry, "MandateClosed")
          .withArgs(agent.address, owner.address, 10_000n);
      });
      it("a claim that was filed before keeps its units in the lock, and the owner gets the rest within the hour", async () => {
        const { agent, payment, claims } = await missed();
        await claims.file([payment]);
        await together(agent, 0n);
        await networkHelpers.time.increase(HOUR);
        await expect(registry.close(agent.address))
          .to.emit(registry, "RemainderReturned")
          .withArgs(agent.address, owner.address, 9_500n);
        await isRefused(registry.close(agent.address), "ClaimsPending", agent.address, 500n);
        await networkHelpers.time.increase(WINDOWS.cure);
        await claims.resolve([payment]);
        expect(await registry.stateOf(agent.address)).to.equal(FALLBACK);
        await isRefused(together(agent, 0n), "MandateNotOpen", agent.address, FALLBACK);
        // The penalty, a tenth, and the claim.
        expect(await context.escrow.creditOf(context.token, payee.address)).to.equal(550n);
        await expect(registry.close(agent.address))
          .to.emit(registry, "MandateClosed")
          .withArgs(agent.address, owner.address, 0n);
        expect(await context.escrow.lockedOf(context.token)).to.equal(0n);
      });
    });
  });
});

describe("Identity gate at opening", () => {
  let context: Core;
  let gate: MoodyGate;
  let registry: MandateRegistry;

  const moody = async (): Promise<void> => {
    gate = await new MoodyGate__factory(deployer).deploy();
    context = await deployWith((await gate.getAddress()) as Address);
    registry = context.registry.connect(stranger);
  };
  async function attempt(payees: Address[] = []) {
    const agent = freshKey();
    const mandate = await draft(context, agent.address, { payees });
    await fund(context, mandate.budget);
    const signatures = [
      await signMandate(owner, context.domain, mandate),
      await signMandate(agent, context.domain, mandate),
    ] as const;
    return { agent, send: () => registry.open(solidity(mandate), ...signatures, { gasLimit: 5_000_000n }) };
  }

  it("is open to everyone by default, and says which interfaces it has", async () => {
    context = await core();
    const open = OpenGate__factory.connect(await context.registry.gate(), ethers.provider);
    expect(await open.mayOpen(owner.address, other.address, context.token, 1n)).to.equal(true);
    expect(await open.mayBePaid(payee.address, context.token)).to.equal(true);
    const selectors = ["mayOpen", "mayBePaid"].map((name) =>
      BigInt(open.interface.getFunction(name as "mayOpen").selector),
    );
    const own = toBeHex(selectors[0]! ^ selectors[1]!, 4);
    for (const [id, expected] of [
      [own, true],
      ["0x01ffc9a7", true],
      ["0xffffffff", false],
    ] as const)
      expect(await open.supportsInterface(id)).to.equal(expected);
  });
  it("is asked for the owner and every listed payee", async () => {
    await moody();
    expect(await registry.gate()).to.equal(await gate.getAddress());
    const { agent, send } = await attempt([payee.address, other.address]);
    await send();
    expect(await registry.stateOf(agent.address)).to.equal(OPEN);
    await gate.set(AGREES, REFUSES);
    const { send: refused } = await attempt([payee.address, other.address]);
    await expect(refused()).to.be.revertedWithCustomError(registry, "RefusedByGate").withArgs(payee.address);
    const { send: unlisted } = await attempt();
    await unlisted();
  });

  const hostile = [
    ["refuses", 1],
    ["reverts", 2],
    ["burns all gas", 3],
    ["returns a bomb", 4],
    ["reverts with a bomb", 5],
    ["answers 2", 6],
    ["answers a dirty word", 7],
    ["answers 31 bytes", 8],
    ["answers nothing", 9],
  ] as const;
  for (const [name, answer] of hostile) {
    it(`that ${name} lets nobody open, and takes no more than its gas`, async () => {
      await moody();
      await gate.set(answer, AGREES);
      const { agent, send } = await attempt([payee.address]);
      await expect(send()).to.be.revertedWithCustomError(registry, "RefusedByGate").withArgs(owner.address);
      await gate.set(AGREES, answer);
      await expect(send()).to.be.revertedWithCustomError(registry, "RefusedByGate").withArgs(payee.address);
      expect(await registry.stateOf(agent.address)).to.equal(NONE);
      expect(await context.escrow.lockedOf(context.token)).to.equal(0n);
      await gate.set(AGREES, AGREES);
      await send();
    });
  }
  it("that agrees at great length is understood, and its answer is not copied", async () => {
    await moody();
    const gasOf = async (): Promise<bigint> => (await (await (await attempt()).send()).wait())!.gasUsed;
    await gasOf();
    const short = await gasOf();
    await gate.set(10, AGREES);
    const long = await gasOf();
    expect(long - short < 200_000n).to.equal(true);
    expect(long > short).to.equal(true);
  });
  it("without code lets nobody open", async () => {
    context = await deployWith(other.address);
    registry = context.registry.connect(stranger);
    const { send } = await attempt();
    await expect(send()).to.be.revertedWithCustomError(registry, "RefusedByGate").withArgs(owner.address);
  });

  for (const [name, mood] of [
    ["reverts", 2],
    ["burns all gas", 3],
  ] as const)
    it(`P4 owner_always_exits: one that agrees once and then ${name} stops new mandates and nothing else`, async () => {
      await moody();
      const [{ agent }, { agent: second }] = [
        await open(context, { payees: [payee.address] }),
        await open(context, { payees: [payee.address] }),
      ] as { agent: Wallet }[] as [{ agent: Wallet }, { agent: Wallet }];
      await gate.set(mood, mood);
      const { send } = await attempt();
      await expect(send()).to.be.revertedWithCustomError(registry, "RefusedByGate");

      const credits = [{ payee: payee.address, amount: 400n }];
      const row = await signRow(context, agent, payee.address, 400n);
      await context.registry.connect(settlement).settle(processor.address, [row], credits);
      const order = { payee: payee.address, value: 100n, payees: [payee.address] };
      await context.direct.connect(processor).debit([await signDebit(context, agent, order)]);
      await context.registry.connect(owner).revoke(agent.address, 0n);
      await context.registry.connect(processor).acknowledge(agent.address, 1n, headHex(row.head), 100n);
      const close = { agent: second.address as Address, seq: 0n };
      await registry.closeTogether(
        second.address,
        0n,
        await signClose(owner, context.domain, close),
        await signClose(processor, context.domain, close),
      );
      await networkHelpers.time.increase(TAIL);
      await registry.close(agent.address);
      await registry.close(second.address);
      // What the refused attempt would have locked is free too.
      const free = 9_500n + 10_000n + 10_000n;
      expect(await context.escrow.freeOf(context.token, owner.address)).to.equal(free);
      await context.escrow.connect(owner).withdraw(context.token, free, owner.address);
      await context.escrow.connect(payee).withdrawCredit(context.token, payee.address);
      expect(await context.dollar.balanceOf(owner.address)).to.equal(free);
      expect(await context.dollar.balanceOf(payee.address)).to.equal(500n);
    });
});
