import { hashLine, headHex, signClose, type Address, type Domain } from "@bursar/protocol";
import { expect } from "chai";
import fc from "fast-check";
import { concat, Signature, toBeHex, ZeroAddress, ZeroHash, type Wallet } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import { type Claims, type MandateRegistry } from "../../typechain-types/index.ts";
import {
  BOND,
  core,
  DAY,
  ethers,
  fields,
  freshKey,
  networkHelpers,
  now,
  open as openWith,
  other,
  owner,
  payee,
  processor,
  settlement,
  stranger,
  type Core,
} from "./fixture.ts";
import { registerWithBond } from "./post-bond.ts";
import { idOf, receipted, type PaymentDraft, type ReceiptedPayment } from "./receipted.ts";
import type { SignedRow } from "./settle-one.ts";
import { signDebit } from "./sign-direct.ts";
import { deployRail } from "./whole-rail.ts";

const { settleBy: SETTLE_BY, grace: GRACE, acknowledge: ACKNOWLEDGE, cure: CURE } = WINDOWS;
const TAIL = SETTLE_BY + GRACE + WINDOWS.claim;
const HOUR = 3_600n;
const [NONE, OPEN, REVOKED, EXPIRED, CLOSED, FALLBACK] = [0n, 1n, 2n, 3n, 4n, 5n];
const [UNFILED, FILED, CURED, PAID, BONDED] = [0n, 1n, 2n, 3n, 4n];
/** The least penalty of a call. */
const FLOOR = 500_000n;
const CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

describe("Claims", () => {
  let context: Core;
  let claims: Claims;
  let registry: MandateRegistry;
  beforeEach(async () => {
    context = await core();
    claims = context.claims.connect(stranger);
    registry = context.registry.connect(stranger);
  });

  const at = (time: bigint): Promise<void> => networkHelpers.time.setNextBlockTimestamp(time);
  const pass = async (seconds: bigint): Promise<unknown> => networkHelpers.time.increase(seconds);
  const creditOf = (account: string): Promise<bigint> => context.escrow.creditOf(context.token, account);
  const freeOf = (account: string): Promise<bigint> => context.escrow.freeOf(context.token, account);
  const bondOf = (of = processor): Promise<bigint> => context.processors.bondOf(of.address, context.token);
  const recordOf = async (agent: Wallet) => fields(await registry.mandateOf(agent.address));
  const statusOf = async (payment: ReceiptedPayment): Promise<bigint> => (await claims.claimOf(idOf(payment))).status;
  const isSlashed = async (of = processor): Promise<boolean> =>
    (await context.processors.processorOf(of.address)).slashed;
  const slashOf = async () => fields(await context.processors.slashOf(processor.address, context.token));

  async function open(overrides: Parameters<typeof openWith>[1] = {}): Promise<{ agent: Wallet; validUntil: bigint }> {
    const { agent, mandate } = await openWith(context, { validUntil: (await now()) + 10n * DAY, ...overrides });
    return { agent: agent as Wallet, validUntil: mandate.validUntil };
  }

  /** The row that settles a mandate up to this payment, which is the last of `count` with this total. */
  function rowOf(payment: ReceiptedPayment, count = 1n, debit = payment.line.amount): SignedRow {
    const { r, s, v } = Signature.from(payment.agentSignature);
    const head = BigInt(payment.head);
    return { agent: payment.agent, count, debit, head, newBase: head, lineHash: hashLine(payment.line), r, s, v };
  }
  const settle = (...rows: SignedRow[]) =>
    context.registry.connect(settlement).settle(
      processor.address,
      rows.sort((a, b) => (BigInt(a.agent) < BigInt(b.agent) ? -1 : 1)),
      [{ payee: payee.address, amount: rows.reduce((sum, { debit }) => sum + debit, 0n) }],
    );

  /** Refused by the contract or library that has this error. */
  async function isRefused(sent: Promise<unknown>, error: string, ...args: unknown[]): Promise<void> {
    const emitter = [claims, registry].find((one) => one.interface.getError(error) !== null)!;
    const refused = expect(sent).to.be.revertedWithCustomError(emitter, error);
    await (args.length > 0 ? refused.withArgs(...args) : refused);
  }

  /** Payments of one mandate in a row, in their order, each with a receipt of now. */
  async function receipts(agent: Wallet, count: number, draft: PaymentDraft = {}): Promise<ReceiptedPayment[]> {
    const { seq, spent, base } = await registry.positionOf(agent.address);
    const amount = draft.amount ?? 1_000n;
    return Promise.all(
      Array.from({ length: count }, (_, index) => {
        const nth = BigInt(index) + 1n;
        return receipted(context, agent, {
          seq: seq + nth,
          spent: spent + nth * amount,
          head: headHex(base + nth),
          ...draft,
        });
      }),
    );
  }

  /** Opens a mandate with one payment that its processor has missed. */
  async function missed(draft: PaymentDraft = {}, mandate: Parameters<typeof open>[0] = {}) {
    const { agent, validUntil } = await open(mandate);
    const [payment] = await receipts(agent, 1, draft);
    await pass(SETTLE_BY + GRACE);
    return { agent, validUntil, payment: payment! };
  }

  async function filed(draft: PaymentDraft = {}, mandate: Parameters<typeof open>[0] = {}) {
    const one = await missed(draft, mandate);
    await claims.file([one.payment]);
    return { ...one, resolvableAt: (await now()) + CURE };
  }

  /** Revokes a mandate, and answers that nothing above `seq` counts. */
  async function acknowledge(agent: Wallet, seq: bigint, head: string = ZeroHash): Promise<void> {
    await context.registry.connect(owner).revoke(agent.address, 0n);
    await context.registry.connect(processor).acknowledge(agent.address, seq, head, 0n);
  }

  async function closeTogether(agent: Wallet, seq = 0n): Promise<void> {
    const close = { agent: agent.address as Address, seq };
    const [first, second] = [owner, processor].map((signer) => signClose(signer, context.domain, close));
    await registry.closeTogether(agent.address, seq, await first!, await second!);
  }

  it("says what it works with", async () => {
    expect(await claims.registry()).to.equal(await registry.getAddress());
    expect(await claims.processors()).to.equal(await context.processors.getAddress());
  });

  describe("filing", () => {
    it("K12: the payee's saved files are enough, in anyone's hands, and the bond falls by the penalty", async () => {
      const { agent, payment } = await missed();
      const before = await recordOf(agent);
      const sent = claims.file([payment]);
      await sent;
      const resolvableAt = (await now()) + CURE;
      await expect(sent)
        .to.emit(claims, "ClaimFiled")
        .withArgs(idOf(payment), agent.address, payee.address, 1n, 1_000n, resolvableAt);
      expect(await bondOf()).to.equal(BOND - FLOOR);
      expect([await creditOf(payee.address), await creditOf(stranger.address)]).to.deep.equal([100n, FLOOR - 100n]);
      expect(fields(await claims.claimOf(idOf(payment)))).to.deep.equal({
        status: FILED,
        fromLock: true,
        resolvableAt,
        amount: 1_000n,
        payee: payee.address,
      });
      // A flag, and nothing else: what the processor has proved still settles.
      expect(await recordOf(agent)).to.deep.equal({ ...before, reserved: 1_000n });
    });
    it("K12: on the contracts as they are deployed, from the missed receipt to the payee's wallet", async () => {
      ({ context } = await networkHelpers.loadFixture(deployRail));
      claims = context.claims.connect(stranger);
      registry = context.registry.connect(stranger);
      const { payment } = await filed();
      await pass(CURE);
      await claims.resolve([payment]);
      await context.escrow.sweepCredit(context.token, payee.address);
      expect(await context.dollar.balanceOf(payee.address)).to.equal(1_000n + 100n);
      expect(await bondOf()).to.equal(BOND - FLOOR);
    });

    for (const [name, amounts, caller] of [
      ["of a small payment is a tenth for its payee, and the rest of 0.50 tokens for the caller", [1_000n], 499_900n],
      ["of a payment of nine units is all the caller's", [9n], 500_000n],
      ["of 5 tokens is exactly 0.50, all the payee's", [5_000_000n], 0n],
      ["of more is a tenth", [6_000_009n], 0n],
      ["of many is a tenth of each, and the rest of 0.50 tokens once", [1_000_000n, 1_000_000n, 10n], 299_999n],
      ["of many that come to 0.50 tokens has no rest", [2_000_000n, 2_000_000n, 2_000_000n], 0n],
    ] as const)
      it(`the penalty ${name}`, async () => {
        const { agent } = await open({ budget: 10n ** 9n, paymentCap: 10n ** 9n });
        const payees = amounts.map(() => freshKey().address as Address);
        const payments = await Promise.all(
          amounts.map((amount, index) =>
            receipted(context, agent, { seq: BigInt(index) + 1n, amount, payee: payees[index]! }),
          ),
        );
        await pass(SETTLE_BY + GRACE);
        await claims.file(payments);
        const tenths = amounts.map((amount) => amount / 10n);
        expect(await Promise.all(payees.map(creditOf))).to.deep.equal(tenths);
        expect(await creditOf(stranger.address)).to.equal(caller);
        expect(await bondOf()).to.equal(BOND - tenths.reduce((sum, tenth) => sum + tenth, caller));
      });

    it("of many in one call, by a stranger for their payees, of two mandates", async () => {
      const [one, two] = [await open(), await open()];
      const payments = [...(await receipts(one.agent, 3)), ...(await receipts(two.agent, 2))];
      await pass(SETTLE_BY + GRACE);
      await claims.file(payments);
      for (const payment of payments) expect(await statusOf(payment)).to.equal(FILED);
      expect((await recordOf(one.agent))["reserved"]).to.equal(3_000n);
      expect((await recordOf(two.agent))["reserved"]).to.equal(2_000n);
      await pass(CURE);
      await claims.resolve(payments);
      expect(await creditOf(payee.address)).to.equal(5n * 1_100n);
    });
    it("all of a call or nothing", async () => {
      const { agent } = await open();
      const [first, second] = await receipts(agent, 2);
      await pass(SETTLE_BY + GRACE);
      await isRefused(claims.file([first!, { ...second!, logIndex: 1n }]), "NotAReceiptKey");
      expect(await statusOf(first!)).to.equal(UNFILED);
      expect(await bondOf()).to.equal(BOND);
    });
    it("takes a claim when settle-by and grace are over and not in their last second", async () => {
      const { agent } = await open();
      const [payment] = await receipts(agent, 1);
      const claimableAt = payment!.settleBy + GRACE;
      await at(claimableAt);
      await isRefused(claims.file([payment!]), "NotMissed", agent.address, 1n, claimableAt, claimableAt);
      await at(claimableAt + 1n);
      await claims.file([payment!]);
    });
    it("takes claims to the last second of their window", async () => {
      const { agent, validUntil } = await open();
      const [first, second] = await receipts(agent, 2);
      await at(validUntil + TAIL);
      await claims.file([first!]);
      const late = validUntil + TAIL + 1n;
      await at(late);
      await isRefused(claims.file([second!]), "ClaimWindowOver", agent.address, late, late - 1n);
    });
    it("takes any payment number above the settled one, in any order", async () => {
      const { agent } = await open();
      const payments = await receipts(agent, 3);
      await pass(SETTLE_BY + GRACE);
      await claims.file([payments[2]!]);
      await claims.file([payments[0]!]);
      await claims.file([payments[1]!]);
    });

    describe("is refused", () => {
      it("of nothing", () => isRefused(claims.file([]), "NoClaims"));
      it("of two processors in one call", async () => {
        await registerWithBond(context, other, 10_000n * 10n ** 6n);
        const [one, two] = [await open(), await open({ processor: other.address })];
        const [first] = await receipts(one.agent, 1);
        const [second] = await receipts(two.agent, 1, { key: other });
        await pass(SETTLE_BY + GRACE);
        await isRefused(claims.file([first!, second!]), "MixedClaims", two.agent.address, other.address, context.token);
        await claims.file([second!]);
      });
      it("of two tokens in one call", async () => {
        const token = await ethers.deployContract("TokenWithDecimals", [6]);
        const address = (await token.getAddress()) as Address;
        await token.mint(processor.address, BOND);
        await token.connect(processor).approve(context.escrow, BOND);
        const account = await context.processors.bondAccountOf(processor.address);
        await context.escrow.connect(processor).deposit(address, BOND, account);
        await token.mint(owner.address, 10_000n);
        await token.connect(owner).approve(context.escrow, 10_000n);
        await context.escrow.connect(owner).deposit(address, 10_000n, owner.address);
        const [one, two] = [await open(), await open({ token: address })];
        const [[first], [second]] = [await receipts(one.agent, 1), await receipts(two.agent, 1)];
        await pass(SETTLE_BY + GRACE);
        await isRefused(claims.file([first!, second!]), "MixedClaims", two.agent.address, processor.address, address);
      });
      it("twice: in one call, later, or by another receipt for the same payment", async () => {
        const { agent } = await open();
        const [payment] = await receipts(agent, 1);
        const again = await receipted(context, agent, { settleBy: payment!.settleBy - 5n, logIndex: 9n });
        expect(idOf(again)).to.equal(idOf(payment!));
        await pass(SETTLE_BY + GRACE);
        await isRefused(claims.file([payment!, payment!]), "AlreadyFiled", idOf(payment!));
        await claims.file([payment!]);
        await isRefused(claims.file([payment!]), "AlreadyFiled", idOf(payment!));
        await isRefused(claims.file([again]), "AlreadyFiled", idOf(payment!));
        await pass(CURE);
        await claims.resolve([payment!]);
        await isRefused(claims.file([payment!]), "AlreadyFiled", idOf(payment!));
      });
      it("of what is settled: the last, one before, and a fork of it", async () => {
        const { agent } = await open();
        const [first, second, third] = await receipts(agent, 3);
        const fork = await receipted(context, agent, { payee: other.address });
        await settle(rowOf(second!, 2n, 2_000n));
        await pass(SETTLE_BY + GRACE);
        await isRefused(claims.file([first!]), "SettledAlready", agent.address, 1n, 2n);
        await isRefused(claims.file([second!]), "SettledAlready", agent.address, 2n, 2n);
        await isRefused(claims.file([fork]), "SettledAlready", agent.address, 1n, 2n);
        await claims.file([third!]);
      });
      it("of payment number 0", async () => {
        const { payment } = await missed({ seq: 0n });
        await isRefused(claims.file([payment]), "SettledAlready", payment.agent, 0n, 0n);
      });
      it("of an agent without a mandate", async () => {
        const agent = freshKey();
        const payment = await receipted(context, agent);
        await pass(SETTLE_BY + GRACE);
        await isRefused(claims.file([payment]), "UnknownMandate", agent.address);
      });
      it("of a receipt that promises more than it can in good faith, to the second", async () => {
        const { agent, validUntil } = await open();
        const latest = validUntil + ACKNOWLEDGE + SETTLE_BY;
        const [good] = await receipts(agent, 1, { settleBy: latest });
        const [bad] = await receipts(agent, 1, { settleBy: latest + 1n, seq: 2n });
        await at(latest + GRACE + 1n);
        await claims.file([good!]);
        await isRefused(claims.file([bad!]), "SettleByTooLate", agent.address, latest + 1n, latest);
      });
      it("P2 no_payment_above_cap_or_off_allowlist: above the cap, though agent and processor signed it", async () => {
        const { agent } = await open({ paymentCap: 400n });
        const [good] = await receipts(agent, 1, { amount: 400n });
        const [bad] = await receipts(agent, 1, { amount: 401n, seq: 2n });
        await pass(SETTLE_BY + GRACE);
        await isRefused(claims.file([bad!]), "PaymentAboveCap", agent.address, 401n, 400n);
        await claims.file([good!]);
      });
      it("of no unit, which no batch could settle", async () => {
        const { payment } = await missed({ amount: 0n });
        await isRefused(claims.file([payment]), "ZeroPayment", payment.agent);
      });
      it("P2 no_payment_above_cap_or_off_allowlist: off the list, or with another list than the owner signed", async () => {
        const payees = [payee.address, other.address];
        const { agent } = await open({ payees });
        const [good] = await receipts(agent, 1, { payees });
        const [off] = await receipts(agent, 1, { payees, payee: stranger.address, seq: 2n });
        await pass(SETTLE_BY + GRACE);
        for (const list of [[], [payee.address], [...payees].reverse(), [...payees, stranger.address]])
          await isRefused(claims.file([{ ...good!, payees: list }]), "PayeesMismatch", agent.address);
        await isRefused(claims.file([off!]), "PayeeNotAllowed", agent.address, stranger.address);
        await claims.file([good!]);
      });
      it("to a payee that nobody could pay out: no address, the token, and each contract", async () => {
        const { agent } = await open();
        const { escrow, direct, processors, token } = context;
        const contracts = await Promise.all(
          [escrow, direct, processors, claims, registry].map((contract) => contract.getAddress()),
        );
        const invalid = [ZeroAddress, token, settlement.address, ...contracts] as Address[];
        const payments = await Promise.all(
          invalid.map((payee, index) => receipted(context, agent, { payee, seq: BigInt(index) + 1n })),
        );
        await pass(SETTLE_BY + GRACE);
        for (const payment of payments) await isRefused(claims.file([payment]), "InvalidPayee", payment.line.payee);
      });
    });

    describe("P6 no_agent_signature_no_debit, and none without the processor's: is refused", () => {
      const elsewhere = (part: Partial<Domain>): Domain => ({ ...context.domain, ...part });

      it("with another signer of either message", async () => {
        const { agent } = await open();
        const thief = freshKey();
        const [byThief] = await receipts(agent, 1, { signer: thief });
        const [byProcessor] = await receipts(agent, 1, { signer: processor });
        const [keyOfThief] = await receipts(agent, 1, { key: thief });
        const [keyOfAgent] = await receipts(agent, 1, { key: agent });
        const [keyOfOwner] = await receipts(agent, 1, { key: owner });
        await pass(SETTLE_BY + GRACE);
        await isRefused(claims.file([byThief!]), "WrongSigner", agent.address, thief.address, 0n);
        await isRefused(claims.file([byProcessor!]), "WrongSigner", agent.address, processor.address, 0n);
        for (const [payment, key] of [
          [keyOfThief!, thief],
          [keyOfAgent!, agent],
          [keyOfOwner!, owner],
        ] as const)
          await isRefused(claims.file([payment]), "NotAReceiptKey", processor.address, key.address, payment.settleBy);
      });
      it("for another chain or another contract", async () => {
        const { agent } = await open();
        const domains = [
          elsewhere({ chainId: context.domain.chainId + 1n }),
          elsewhere({ registry: (await claims.getAddress()) as Address }),
        ];
        for (const domain of domains) {
          const [good] = await receipts(agent, 1);
          const [bad] = await receipts(agent, 1, { domain });
          await pass(SETTLE_BY + GRACE);
          await isRefused(claims.file([bad!]), "WrongSigner");
          await isRefused(claims.file([{ ...bad!, agentSignature: good!.agentSignature }]), "NotAReceiptKey");
          await isRefused(claims.file([{ ...good!, agentSignature: bad!.agentSignature }]), "WrongSigner");
        }
      });
      it("with any member changed after it was signed", async () => {
        const { agent, payment } = await missed();
        const { agent: another } = await open();
        const line = payment.line;
        for (const [changed, error] of [
          [{ agent: another.address as Address }, "WrongSigner"],
          [{ seq: 2n }, "WrongSigner"],
          [{ spent: 999n }, "WrongSigner"],
          [{ head: headHex(5n) }, "WrongSigner"],
          [{ line: { ...line, payee: other.address } }, "WrongSigner"],
          [{ line: { ...line, amount: 999n } }, "WrongSigner"],
          [{ line: { ...line, ref: headHex(1n) } }, "WrongSigner"],
          [{ settleBy: payment.settleBy - 1n }, "NotAReceiptKey"],
          [{ logIndex: 1n }, "NotAReceiptKey"],
        ] as const)
          await isRefused(claims.file([{ ...payment, ...changed }]), error);
        await claims.file([payment]);
        expect(await statusOf(payment)).to.equal(FILED);
        expect((await recordOf(agent))["reserved"]).to.equal(1_000n);
      });
      it("with the agent's word for one payment, and the processor's for another", async () => {
        const { agent } = await open();
        const [first] = await receipts(agent, 1);
        for (const draft of [
          { seq: 2n },
          { head: headHex(5n) },
          { payee: other.address },
          { amount: 999n },
          { ref: headHex(1n) },
        ]) {
          const [second] = await receipts(agent, 1, draft);
          await isRefused(
            claims.file([{ ...second!, processorSignature: first!.processorSignature }]),
            "NotAReceiptKey",
          );
          await isRefused(claims.file([{ ...second!, agentSignature: first!.agentSignature }]), "WrongSigner");
        }
      });
      it("in any other form than 65 bytes with low s and v of 27 or 28", async () => {
        const { agent, payment } = await missed();
        for (const member of ["agentSignature", "processorSignature"] as const) {
          const { r, s, v, compactSerialized } = Signature.from(payment[member]);
          const highS = concat([r, toBeHex(CURVE_ORDER - BigInt(s), 32), toBeHex(55 - v)]);
          const raw = concat([r, s, toBeHex(v - 27)]);
          for (const signature of [highS, raw, compactSerialized, "0x", concat([payment[member], "0x00"])]) {
            const sent = claims.file([{ ...payment, [member]: signature }]);
            if (member === "agentSignature") await isRefused(sent, "WrongSigner");
            else await isRefused(sent, "NotAReceiptKey", processor.address, ZeroAddress, payment.settleBy);
          }
          await isRefused(
            claims.file([{ ...payment, [member]: concat([r, s, toBeHex(55 - v)]) }]),
            member === "agentSignature" ? "WrongSigner" : "NotAReceiptKey",
          );
        }
        expect((await recordOf(agent))["reserved"]).to.equal(0n);
      });
      it("with a receipt key that is not yet, or no longer, the processor's for that time", async () => {
        const { agent } = await open();
        const next = freshKey();
        const [early] = await receipts(agent, 1, { key: next });
        await pass(SETTLE_BY + GRACE);
        await isRefused(claims.file([early!]), "NotAReceiptKey", processor.address, next.address, early!.settleBy);
        await context.processors.connect(processor).rotateKey(next.address);
        const until = (await now()) + SETTLE_BY;
        const [last] = await receipts(agent, 1, { settleBy: until });
        const [beyond] = await receipts(agent, 1, { settleBy: until + 1n, seq: 2n });
        const [fresh] = await receipts(agent, 1, { key: next, settleBy: until + 1n, seq: 3n });
        await at(until + 1n + GRACE + 1n);
        await isRefused(claims.file([beyond!]), "NotAReceiptKey", processor.address, processor.address, until + 1n);
        await claims.file([last!, fresh!]);
      });
      it("with the receipt key of another processor", async () => {
        await registerWithBond(context, other, 10_000n * 10n ** 6n);
        const { payment } = await missed({ key: other });
        await isRefused(claims.file([payment]), "NotAReceiptKey", processor.address, other.address, payment.settleBy);
      });
    });
  });

  describe("resolving", () => {
    it("P7 receipt_paid_or_sp_slashed: pays from the lock, and takes the mandate from the processor", async () => {
      const { agent, payment, resolvableAt } = await filed();
      await at(resolvableAt);
      const sent = claims.resolve([payment]);
      await expect(sent)
        .to.emit(claims, "ClaimResolved")
        .withArgs(idOf(payment), agent.address, PAID, 1_000n)
        .and.to.emit(registry, "FallbackStarted");
      expect(await creditOf(payee.address)).to.equal(100n + 1_000n);
      expect(await claims.paidOf(agent.address, 1n)).to.equal(idOf(payment));
      expect(await recordOf(agent)).to.deep.include({
        state: FALLBACK,
        seq: 0n,
        spent: 0n,
        directSpent: 1_000n,
        reserved: 0n,
      });
      expect(await registry.remainingOf(agent.address)).to.equal(9_000n);
      expect([await isSlashed(), await bondOf()]).to.deep.equal([false, BOND - FLOOR]);
    });
    it("waits for the cure window, to the second", async () => {
      const { payment, resolvableAt } = await filed();
      await at(resolvableAt - 1n);
      await isRefused(claims.resolve([payment]), "NotResolvable", idOf(payment), resolvableAt - 1n, resolvableAt);
      await at(resolvableAt);
      await claims.resolve([payment]);
    });
    it("is refused for what was not filed, and a second time", async () => {
      const { payment } = await filed();
      await pass(CURE);
      const unfiled = await receipted(context, freshKey());
      await isRefused(claims.resolve([unfiled]), "NotFiled", idOf(unfiled));
      await isRefused(claims.resolve([payment, payment]), "NotFiled", idOf(payment));
      await claims.resolve([payment]);
      await isRefused(claims.resolve([payment]), "NotFiled", idOf(payment));
      await isRefused(claims.resolve([{ ...payment, line: { ...payment.line, amount: 9_000n } }]), "NotFiled");
    });
    it("pays what was filed, whatever signatures, lists and totals come with it", async () => {
      const { payment, resolvableAt } = await filed();
      await at(resolvableAt);
      const bare = { ...payment, spent: 0n, settleBy: 0n, agentSignature: "0x", processorSignature: "0x" };
      await claims.resolve([{ ...bare, payees: [other.address] }]);
      expect([await creditOf(payee.address), await creditOf(other.address)]).to.deep.equal([1_100n, 0n]);
    });
    it("P13 one_bad_mandate_never_blocks_others: batches hold both until the cure is over, then the others alone", async () => {
      const [bad, good] = [await open(), await open()];
      const [lost, kept] = await receipts(bad.agent, 2);
      const payments = await receipts(good.agent, 3);
      await pass(SETTLE_BY + GRACE);
      await claims.file([kept!]);
      // Not the claimed payment, but the one before it, in one batch with another mandate.
      await settle(rowOf(lost!), rowOf(payments[0]!));
      await pass(CURE);
      await settle(rowOf(payments[1]!));
      await claims.resolve([kept!]);
      const { closesAt } = await registry.mandateOf(bad.agent.address);
      const time = (await now()) + 100n;
      await at(time);
      await isRefused(
        settle(rowOf(kept!), rowOf(payments[2]!)),
        "MandateNotSettleable",
        bad.agent.address,
        FALLBACK,
        time,
        closesAt,
      );
      await settle(rowOf(payments[2]!));
      expect(await recordOf(good.agent)).to.deep.include({ state: OPEN, seq: 3n, spent: 3_000n, directSpent: 0n });
      expect(await recordOf(bad.agent)).to.deep.include({ seq: 1n, spent: 1_000n, directSpent: 1_000n });
    });
    it("leaves nothing of the mandate to the processor, on either rail", async () => {
      const { agent, payment } = await filed();
      await pass(CURE);
      await claims.resolve([payment]);
      await isRefused(settle(rowOf(payment)), "MandateNotSettleable");
      const debit = await signDebit(context, agent, { payee: payee.address, value: 1n });
      await isRefused(context.direct.connect(processor).debit([debit]), "MandateNotSettleable");
      await isRefused(
        context.registry.connect(owner).revoke(agent.address, 0n),
        "MandateNotOpen",
        agent.address,
        FALLBACK,
      );
      expect((await registry.claimsOf(agent.address)).fallback_).to.equal(true);
    });
    it("ends the mandate's receipts, and gives the other payees the whole windows from then on", async () => {
      const { agent, payment } = await filed();
      const [given] = await receipts(agent, 1, { seq: 2n });
      await pass(CURE);
      await claims.resolve([payment]);
      const endedAt = await now();
      const { closesAt } = await registry.mandateOf(agent.address);
      expect(closesAt).to.equal(endedAt + TAIL);
      expect(fields(await registry.claimsOf(agent.address))).to.deep.include({
        endedAt,
        claimsUntil: closesAt,
      });
      await at(closesAt);
      await claims.file([given!]);
    });
    it("never lengthens the windows of a mandate that ended before", async () => {
      const { agent, validUntil } = await open();
      const [payment] = await receipts(agent, 1);
      await at(validUntil + TAIL - CURE);
      await claims.file([payment!]);
      await at(validUntil + TAIL);
      await claims.resolve([payment!]);
      expect(await recordOf(agent)).to.deep.include({ state: FALLBACK, closesAt: validUntil + TAIL });
    });
    it("of a mandate that fell back pays the others at once, what still has time too, then without a penalty", async () => {
      const { agent, payment } = await filed();
      await pass(CURE);
      const [, late, early] = await receipts(agent, 3);
      const missedToo = await receipted(context, agent, { seq: 4n, settleBy: payment.settleBy });
      await claims.resolve([payment]);
      const bond = await bondOf();
      await claims.file([late!, early!]);
      expect((await claims.claimOf(idOf(late!))).resolvableAt).to.equal(await now());
      await claims.resolve([early!, late!]);
      expect(await bondOf()).to.equal(bond);
      expect(await creditOf(payee.address)).to.equal(100n + 3n * 1_000n);
      await claims.file([missedToo]);
      expect(await bondOf()).to.equal(bond - FLOOR);
    });
    it("still pays from the lock once the bond is slashed", async () => {
      const [one, two] = [await open(), await open()];
      const [[first], [second]] = [await receipts(one.agent, 1), await receipts(two.agent, 1)];
      await acknowledge(one.agent, 0n);
      await pass(SETTLE_BY + GRACE);
      await claims.file([first!, second!]);
      await pass(CURE);
      await claims.resolve([first!]);
      expect(await isSlashed()).to.equal(true);
      await expect(claims.resolve([second!]))
        .to.emit(claims, "ClaimResolved")
        .withArgs(idOf(second!), two.agent.address, PAID, 1_000n);
      expect((await slashOf())["owed"]).to.equal(1_000n);
    });
  });

  describe("cure", () => {
    it("by settling ends the claim: nothing is paid twice, the penalty stays, the mandate goes on", async () => {
      const { agent, payment } = await filed();
      await settle(rowOf(payment));
      expect(await creditOf(payee.address)).to.equal(1_100n);
      await pass(CURE);
      await expect(claims.resolve([payment]))
        .to.emit(claims, "ClaimResolved")
        .withArgs(idOf(payment), agent.address, CURED, 0n)
        .and.not.to.emit(registry, "FallbackStarted");
      expect(await creditOf(payee.address)).to.equal(1_100n);
      expect(await recordOf(agent)).to.deep.include({ state: OPEN, reserved: 0n, spent: 1_000n, directSpent: 0n });
      expect(await claims.paidOf(agent.address, 1n)).to.equal(ZeroHash);
      expect([await isSlashed(), await bondOf()]).to.deep.equal([false, BOND - FLOOR]);
      const [next] = await receipts(agent, 1);
      await settle(rowOf(next!));
    });
    it("is settling to the claimed number or beyond, and not to the one before", async () => {
      const { agent } = await open();
      const payments = await receipts(agent, 4);
      await pass(SETTLE_BY + GRACE);
      await claims.file(payments.slice(1));
      await settle(rowOf(payments[0]!));
      await settle(rowOf(payments[2]!, 2n, 2_000n));
      await pass(CURE);
      await claims.resolve(payments.slice(1));
      expect(await Promise.all(payments.slice(1).map(statusOf))).to.deep.equal([CURED, CURED, PAID]);
      expect(await recordOf(agent)).to.deep.include({ seq: 3n, spent: 3_000n, directSpent: 1_000n, reserved: 0n });
    });
    it("is possible as long as nobody resolved, also after the window", async () => {
      const { payment } = await filed();
      await pass(2n * CURE);
      await settle(rowOf(payment));
      await claims.resolve([payment]);
      expect(await statusOf(payment)).to.equal(CURED);
    });
    it("cannot be undone: the payment is not claimed again, nor resolved again", async () => {
      const { payment } = await filed();
      await settle(rowOf(payment));
      await isRefused(claims.file([payment]), "AlreadyFiled", idOf(payment));
      await pass(CURE);
      await claims.resolve([payment]);
      await isRefused(claims.resolve([payment]), "NotFiled", idOf(payment));
      await isRefused(claims.file([payment]), "AlreadyFiled", idOf(payment));
    });
  });

  describe("P9 pay_once", () => {
    it("of two receipts on one number the lock pays the first that is resolved, and the bond the other", async () => {
      for (const order of [
        [0, 1],
        [1, 0],
      ] as const) {
        context = await core();
        [claims, registry] = [context.claims.connect(stranger), context.registry.connect(stranger)];
        const { agent } = await open();
        const forks = [await receipted(context, agent), await receipted(context, agent, { payee: other.address })];
        await pass(SETTLE_BY + GRACE);
        await claims.file(forks);
        await pass(CURE);
        const [first, second] = order.map((index) => forks[index]!);
        await claims.resolve([first!, second!]);
        expect(await claims.paidOf(agent.address, 1n)).to.equal(idOf(first!));
        expect([await statusOf(first!), await statusOf(second!)]).to.deep.equal([PAID, BONDED]);
        expect(await recordOf(agent)).to.deep.include({ directSpent: 1_000n, reserved: 0n });
        expect(await creditOf(second!.line.payee)).to.equal(100n);
        expect(await slashOf()).to.deep.include({ owed: 1_000n, reporter: stranger.address });
      }
    });
    it("of a settled number the lock pays no other receipt, filed before it was settled", async () => {
      const { agent } = await open();
      const [paid, fork] = [await receipted(context, agent), await receipted(context, agent, { payee: other.address })];
      await pass(SETTLE_BY + GRACE);
      await claims.file([paid, fork]);
      await settle(rowOf(paid));
      await pass(CURE);
      await claims.resolve([fork, paid]);
      // Its payee challenges the settled ledger.
      expect([await statusOf(fork), await creditOf(other.address)]).to.deep.equal([CURED, 100n]);
    });
    it("P1 debits_never_exceed_budget: whatever mix of batches, direct payments, forks and claims", async function () {
      this.timeout(240_000);
      const step = fc.record({
        act: fc.constantFrom("file", "file", "resolve", "resolve", "settle", "direct", "wait", "wait", "close"),
        seq: fc.integer({ min: 1, max: 4 }),
        fork: fc.nat(1),
        wait: fc.constantFrom(HOUR, CURE, CURE),
      });
      let [resolved, refused] = [0, 0];
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 24 }), async (steps) => {
          context = await core();
          [claims, registry] = [context.claims.connect(stranger), context.registry.connect(stranger)];
          // Of four payments of up to 900 units the budget holds two.
          const { agent } = await open({ budget: 2_000n, paymentCap: 1_000n });
          const payees = [freshKey().address as Address, freshKey().address as Address];
          const forks = await Promise.all(
            payees.map((payee, fork) =>
              Promise.all(
                [1n, 2n, 3n, 4n].map((seq) =>
                  receipted(context, agent, {
                    seq,
                    spent: seq * 900n,
                    head: headHex(7n * seq + BigInt(fork)),
                    amount: 900n,
                    payee,
                  }),
                ),
              ),
            ),
          );
          const paidBy = new Map<bigint, number>();
          const pending: ReceiptedPayment[] = [];
          let direct = 0n;
          await pass(SETTLE_BY + GRACE);
          for (const { act, seq, fork, wait } of steps) {
            const filed = pending[(seq + fork) % pending.length];
            const payment = (act === "resolve" && filed) || forks[fork]![seq - 1]!;
            const before = await registry.mandateOf(agent.address);
            try {
              if (act === "wait") await pass(wait + 1n);
              if (act === "file") {
                await claims.file([payment]);
                pending.push(payment);
              }
              if (act === "close") await registry.close(agent.address);
              if (act === "direct") {
                const value = BigInt(seq) * 10n;
                const debit = await signDebit(context, agent, { payee: payee.address, value, nonce: direct });
                await context.direct.connect(processor).debit([debit]);
                direct += value;
              }
              if (act === "settle") {
                const { seq: settled, spent } = await registry.positionOf(agent.address);
                const row = rowOf(payment, payment.seq - settled, payment.spent - spent);
                await settle(row);
                for (let paid = settled + 1n; paid <= payment.seq; ++paid)
                  paidBy.set(paid, (paidBy.get(paid) ?? 0) + 1);
              }
              if (act === "resolve") {
                await claims.resolve([payment]);
                const { directSpent } = await registry.mandateOf(agent.address);
                if (directSpent > before.directSpent) paidBy.set(payment.seq, (paidBy.get(payment.seq) ?? 0) + 1);
                resolved += 1;
              }
            } catch (error) {
              if (!/revert|uint64|out-of-bounds|count/i.test(String(error))) throw error;
              refused += 1;
            }
            const record = await registry.mandateOf(agent.address);
            expect(record.spent + record.directSpent <= 2_000n, "P1").to.equal(true);
            for (const [number, times] of paidBy) expect(times, `payment ${number}`).to.equal(1);
            const credits = await Promise.all([...payees, payee.address].map(creditOf));
            // Penalties come from the bond, the rest from the lock.
            const penalties = BOND - (await bondOf());
            const inEscrow = credits.reduce((sum, credit) => sum + credit, await creditOf(stranger.address));
            // `settle` of this suite credits `payee`.
            expect(inEscrow).to.equal(penalties + record.spent + record.directSpent);
          }
        }),
        { numRuns: 25 },
      );
      expect(resolved > 10 && refused > 10, `${resolved} resolved, ${refused} refused`).to.equal(true);
    });
  });

  describe("what the lock does not pay takes the bond", () => {
    it("P7 receipt_paid_or_sp_slashed: as far as the lock reaches, then the bond, for each payee what is missing", async () => {
      const { agent } = await open({ budget: 1_500n, paymentCap: 1_000n });
      const payees = [freshKey(), freshKey(), freshKey()].map(({ address }) => address as Address);
      const payments = await Promise.all(
        payees.map((payee, index) => receipted(context, agent, { seq: BigInt(index) + 1n, payee })),
      );
      await pass(SETTLE_BY + GRACE);
      await claims.file(payments);
      await pass(CURE);
      const sent = claims.resolve(payments);
      for (const [index, [status, paid]] of (
        [
          [PAID, 1_000n],
          [BONDED, 500n],
          [BONDED, 0n],
        ] as const
      ).entries())
        await expect(sent)
          .to.emit(claims, "ClaimResolved")
          .withArgs(idOf(payments[index]!), agent.address, status, paid);
      expect(await slashOf()).to.deep.include({ owed: 1_500n, reporter: stranger.address });
      await pass(7n * DAY);
      await context.processors.payVictim(processor.address, context.token, idOf(payments[1]!));
      await context.processors.payVictim(processor.address, context.token, idOf(payments[2]!));
      expect(await Promise.all(payees.map(creditOf))).to.deep.equal([1_100n, 1_100n, 1_100n]);
      await expect(
        context.processors.payVictim(processor.address, context.token, idOf(payments[0]!)),
      ).to.be.revertedWithCustomError(context.processors, "NoVictim");
    });
    it("P5 revoke_is_final: a payment above the acknowledged one, and not the owner", async () => {
      const { agent } = await open();
      const [first, second, third] = await receipts(agent, 3);
      await acknowledge(agent, 2n, second!.head);
      await pass(SETTLE_BY + GRACE);
      await claims.file([first!, second!, third!]);
      expect((await recordOf(agent))["reserved"]).to.equal(2_000n);
      expect((await claims.claimOf(idOf(third!))).fromLock).to.equal(false);
      await pass(CURE);
      await expect(claims.resolve([third!]))
        .to.emit(claims, "ClaimResolved")
        .withArgs(idOf(third!), agent.address, BONDED, 0n);
      expect(await recordOf(agent)).to.deep.include({ state: REVOKED, directSpent: 0n });
      await claims.resolve([first!, second!]);
      expect([await statusOf(first!), await statusOf(second!)]).to.deep.equal([PAID, PAID]);
      expect(await recordOf(agent)).to.deep.include({ state: FALLBACK, directSpent: 2_000n, reserved: 0n });
      expect(await slashOf()).to.deep.include({ owed: 1_000n });
    });
    it("a claim that was filed before the answer is paid as it was filed", async () => {
      const { agent, payment } = await filed();
      await acknowledge(agent, 0n);
      await pass(CURE);
      await claims.resolve([payment]);
      expect(await statusOf(payment)).to.equal(PAID);
      expect(await isSlashed()).to.equal(false);
    });
    it("of a mandate that both ended and that is closed, while claims may still be filed", async () => {
      const { agent } = await open();
      const [payment] = await receipts(agent, 1);
      await closeTogether(agent);
      await pass(HOUR);
      await registry.close(agent.address);
      expect(await freeOf(owner.address)).to.equal(10_000n);
      await pass(SETTLE_BY + GRACE);
      await claims.file([payment!]);
      expect(await recordOf(agent)).to.deep.include({ state: CLOSED, reserved: 0n });
      await pass(CURE);
      await claims.resolve([payment!]);
      expect(await statusOf(payment!)).to.equal(BONDED);
      expect(await slashOf()).to.deep.include({ owed: 1_000n });
      expect(await recordOf(agent)).to.deep.include({ state: CLOSED, directSpent: 0n });
    });
    it("of a mandate that was closed earlier in the last second for claims", async () => {
      const { agent, validUntil } = await open();
      const [first, second] = await receipts(agent, 2);
      await networkHelpers.time.increaseTo(validUntil + TAIL - 1n);
      await ethers.provider.send("evm_setAutomine", [false]);
      try {
        const gasLimit = 2_000_000n;
        await claims.file([first!], { gasLimit });
        await registry.close(agent.address, { gasLimit });
        await claims.file([second!], { gasLimit });
        await at(validUntil + TAIL);
        await networkHelpers.mine();
      } finally {
        await ethers.provider.send("evm_setAutomine", [true]);
      }
      const [before, after] = [await claims.claimOf(idOf(first!)), await claims.claimOf(idOf(second!))];
      // Only what was claimed waits: the second competes for it with the first, and falls on the bond.
      expect([before.status, before.fromLock, after.status]).to.deep.equal([FILED, true, FILED]);
      expect(await freeOf(owner.address)).to.equal(9_000n);
      await pass(CURE);
      await claims.resolve([first!, second!]);
      expect([await statusOf(first!), await statusOf(second!)]).to.deep.equal([PAID, BONDED]);
    });
    it("what closed empty owes its pending claims to the bond", async () => {
      const { agent, validUntil } = await open({ budget: 1_000n });
      const forks = [await receipted(context, agent), await receipted(context, agent, { payee: other.address })];
      await at(validUntil + TAIL - CURE - 1n);
      await claims.file(forks);
      await at(validUntil + TAIL - 1n);
      await claims.resolve([forks[0]!]);
      expect(await recordOf(agent)).to.deep.include({ directSpent: 1_000n, reserved: 1_000n });
      await at(validUntil + TAIL);
      await registry.close(agent.address);
      await claims.resolve([forks[1]!]);
      expect(await recordOf(agent)).to.deep.include({ state: CLOSED, reserved: 0n, directSpent: 1_000n });
      expect(await slashOf()).to.deep.include({ owed: 1_000n });
    });
  });

  describe("a revocation that nobody answers", () => {
    it("leaves the receipts to be claimed at once, before their time, and resolved at once", async () => {
      const { agent } = await open();
      const payments = await receipts(agent, 2, { settleBy: (await now()) + 2n * SETTLE_BY });
      await context.registry.connect(owner).revoke(agent.address, 0n);
      const deadline = (await now()) + ACKNOWLEDGE;
      const claimableAt = payments[0]!.settleBy + GRACE;
      await at(deadline);
      await isRefused(claims.file(payments), "NotMissed", agent.address, 1n, deadline, claimableAt);
      await at(deadline + 1n);
      await claims.file(payments);
      expect(await bondOf()).to.equal(BOND);
      await claims.resolve(payments);
      expect(await creditOf(payee.address)).to.equal(2_000n);
      expect(await recordOf(agent)).to.deep.include({ state: FALLBACK, directSpent: 2_000n });
      expect(await isSlashed()).to.equal(false);
    });
    it("costs the penalty for what is missed besides", async () => {
      const { agent, payment } = await missed();
      await context.registry.connect(owner).revoke(agent.address, 0n);
      await pass(ACKNOWLEDGE + 1n);
      await claims.file([payment]);
      expect(await bondOf()).to.equal(BOND - FLOOR);
      await claims.resolve([payment]);
      expect(await statusOf(payment)).to.equal(PAID);
    });
    it("P7 receipt_paid_or_sp_slashed: covers receipts of before anyone could know of it", async () => {
      const { agent } = await open();
      await context.registry.connect(owner).revoke(agent.address, 0n);
      const revokedAt = await now();
      await at(revokedAt + ACKNOWLEDGE);
      await networkHelpers.mine();
      const [payment] = await receipts(agent, 1);
      expect(payment!.settleBy).to.equal(revokedAt + ACKNOWLEDGE + SETTLE_BY);
      await pass(1n);
      await claims.file([payment!]);
      await claims.resolve([payment!]);
      expect(await creditOf(payee.address)).to.equal(1_000n);
    });
  });

  describe("what goes back to the owner", () => {
    it("P4 owner_always_exits: everything but what pending claims ask for, by anyone's call", async () => {
      const { agent, validUntil } = await open();
      const [payment] = await receipts(agent, 1);
      await at(validUntil + TAIL - 1n);
      await claims.file([payment!]);
      await at(validUntil + TAIL);
      await expect(registry.close(agent.address))
        .to.emit(registry, "RemainderReturned")
        .withArgs(agent.address, owner.address, 9_000n);
      expect(await freeOf(owner.address)).to.equal(9_000n);
      expect([await registry.remainingOf(agent.address), await registry.stateOf(agent.address)]).to.deep.equal([
        1_000n,
        EXPIRED,
      ]);
      await isRefused(registry.close(agent.address), "ClaimsPending", agent.address, 1_000n);
      expect(await context.processors.coveredOf(processor.address, context.token)).to.equal(10_000n);
      await isRefused(settle(rowOf(payment!)), "MandateNotSettleable");

      await pass(CURE);
      await claims.resolve([payment!]);
      expect(await statusOf(payment!)).to.equal(PAID);
      await expect(registry.close(agent.address))
        .to.emit(registry, "MandateClosed")
        .withArgs(agent.address, owner.address, 0n);
      expect(await context.escrow.lockedOf(context.token)).to.equal(0n);
      expect(await context.processors.coveredOf(processor.address, context.token)).to.equal(0n);
    });
    it("P4 owner_always_exits: what a cured claim kept waiting too", async () => {
      const { agent, validUntil } = await open();
      const [payment] = await receipts(agent, 1);
      await at(validUntil + TAIL - CURE);
      await claims.file([payment!]);
      await settle(rowOf(payment!));
      await at(validUntil + TAIL - 1n);
      await networkHelpers.mine();
      await registry.close(agent.address);
      expect(await freeOf(owner.address)).to.equal(8_000n);
      await claims.resolve([payment!]);
      await registry.close(agent.address);
      expect(await freeOf(owner.address)).to.equal(9_000n);
      expect(await registry.stateOf(agent.address)).to.equal(CLOSED);
    });
    it("nothing, while claims ask for more than is left", async () => {
      const { agent, validUntil } = await open({ budget: 1_500n });
      const payments = await receipts(agent, 3);
      await at(validUntil + TAIL - 1n);
      await claims.file(payments);
      await at(validUntil + TAIL);
      await isRefused(registry.close(agent.address), "ClaimsPending", agent.address, 1_500n);
      await pass(CURE);
      await claims.resolve([payments[0]!]);
      await isRefused(registry.close(agent.address), "ClaimsPending", agent.address, 500n);
      await claims.resolve(payments.slice(1));
      await registry.close(agent.address);
      expect([await registry.stateOf(agent.address), await freeOf(owner.address)]).to.deep.equal([CLOSED, 0n]);
    });
    it("the rest of a mandate that fell back, after the windows of its other payees", async () => {
      const { agent, payment } = await filed();
      await pass(CURE);
      await claims.resolve([payment]);
      const { closesAt } = await registry.mandateOf(agent.address);
      await at(closesAt - 1n);
      await isRefused(registry.close(agent.address), "TooEarlyToClose", agent.address, closesAt - 1n, closesAt);
      await at(closesAt);
      await registry.close(agent.address);
      expect([await registry.stateOf(agent.address), await freeOf(owner.address)]).to.deep.equal([CLOSED, 9_000n]);
      expect(await registry.stateOf(freshKey().address)).to.equal(NONE);
    });
  });

  describe("P15 honest_sp_never_slashed", () => {
    it("to the last second: what is settled by settle-by and grace is claimed neither before nor after", async () => {
      const { agent } = await open();
      const [payment] = await receipts(agent, 1);
      const last = payment!.settleBy + GRACE;
      await networkHelpers.time.increaseTo(last - 1n);
      await ethers.provider.send("evm_setAutomine", [false]);
      let sent;
      try {
        // In one block: the claim before the batch, and after it.
        sent = [
          await claims.file([payment!], { gasLimit: 2_000_000n }),
          await context.registry
            .connect(settlement)
            .settle(processor.address, [rowOf(payment!)], [{ payee: payee.address, amount: 1_000n }], {
              gasLimit: 2_000_000n,
            }),
          await claims.file([payment!], { gasLimit: 2_000_000n }),
        ];
        await at(last);
        await networkHelpers.mine();
      } finally {
        await ethers.provider.send("evm_setAutomine", [true]);
      }
      const mined = await Promise.all(sent.map(({ hash }) => ethers.provider.getTransactionReceipt(hash)));
      expect(mined.map((one) => one!.status)).to.deep.equal([0, 1, 0]);
      expect(await now()).to.equal(last);
      await pass(1n);
      await isRefused(claims.file([payment!]), "SettledAlready", agent.address, 1n, 1n);
      expect(await bondOf()).to.equal(BOND);
    });
    it("by what agent and owner sign without it: forks, receipts of their own, its receipts in other words", async () => {
      const { agent } = await open();
      const [honest] = await receipts(agent, 1);
      const { agent: twin } = await open();
      await settle(rowOf(honest!));
      const forged = [
        await receipted(context, agent, { seq: 2n, key: agent }),
        await receipted(context, agent, { seq: 2n, key: owner }),
        { ...honest!, seq: 2n },
        { ...(await receipted(context, agent, { seq: 2n })), processorSignature: honest!.processorSignature },
        { ...(await receipted(context, twin)), processorSignature: honest!.processorSignature },
        { ...(await receipted(context, agent)), settleBy: 0n },
      ];
      await pass(SETTLE_BY + GRACE);
      for (const payment of forged) await expect(claims.file([payment])).to.be.revert(ethers);
      expect([await isSlashed(), await bondOf()]).to.deep.equal([false, BOND]);
    });
    it("is the judges' word alone: nobody else reserves or ends a claim", async () => {
      const { agent } = await open();
      const address = await claims.getAddress();
      for (const signer of [owner, processor, settlement, stranger]) {
        const by = context.registry.connect(signer);
        for (const call of [
          by.reserveClaim(agent.address, 1n, payee.address, 1n, []),
          by.endClaim(agent.address, payee.address, 1n, true),
        ])
          await isRefused(call, "OnlyClaims", signer.address, address);
      }
    });
    it("whatever agent, owner and payees do and when: it settles in time, answers in time, and loses nothing", async function () {
      this.timeout(300_000);
      const run = fc.record({
        /** Seconds between payments. */
        gaps: fc.array(fc.integer({ min: 1, max: 9_000 }), { minLength: 1, maxLength: 6 }),
        /** How long before the last moment it settles, and answers. */
        slack: fc.constantFrom(0n, 0n, 1n, 600n),
        answerSlack: fc.constantFrom(0n, 0n, 1n, 600n),
        /** After which payment the owner revokes, if ever. */
        revokeAfter: fc.option(fc.nat(6), { nil: undefined }),
        before: fc.subarray([-1_000, -2, -1]),
        after: fc.subarray([1, 2, 1_000]),
      });
      let claimed = 0;
      await fc.assert(
        fc.asyncProperty(run, async ({ gaps, slack, answerSlack, revokeAfter, before, after }) => {
          context = await core();
          [claims, registry] = [context.claims.connect(stranger), context.registry.connect(stranger)];
          const { agent } = await open({ validUntil: (await now()) + 10n * DAY });
          const accepted: ReceiptedPayment[] = [];
          let settled = 0;
          let answerBy: bigint | undefined;
          const attack = async (): Promise<void> => {
            for (const payment of accepted) {
              claimed += 1;
              await expect(claims.file([payment])).to.be.revert(ethers);
            }
          };
          const settleAll = async (time: bigint): Promise<void> => {
            const last = accepted.at(-1)!;
            const count = BigInt(accepted.length - settled);
            await at(time);
            await settle(rowOf(last, count, count * 100n));
            settled = accepted.length;
          };
          /** The processor's next duty, with its time. */
          const due = (): { time: bigint; duty: "settle" | "answer" } | undefined => {
            const oldest = accepted[settled];
            const settleAt = oldest && oldest.settleBy + GRACE - slack;
            const answerAt = answerBy === undefined ? undefined : answerBy - answerSlack;
            if (answerAt !== undefined && (settleAt === undefined || answerAt <= settleAt))
              return { time: answerAt, duty: "answer" };
            return settleAt === undefined ? undefined : { time: settleAt, duty: "settle" };
          };
          const attackAround = async (moment: bigint, offsets: readonly number[]): Promise<void> => {
            for (const time of offsets.map((offset) => moment + BigInt(offset))) {
              const next = due();
              // Attackers move the clock, and not beyond the second in which the processor works next.
              if (time <= (await now()) || (next && time >= next.time)) continue;
              await networkHelpers.time.increaseTo(time);
              await attack();
            }
          };
          /** Works, and leaves no duty to the next few seconds. */
          const workUntil = async (time: bigint): Promise<void> => {
            const horizon = async (): Promise<bigint> => ((await now()) > time ? await now() : time) + 3n;
            for (let next = due(); next && next.time <= (await horizon()); next = due()) {
              await attackAround(next.time, before);
              // One second later where both are due at once: it answers first.
              const moment = next.time > (await now()) ? next.time : (await now()) + 1n;
              if (next.duty === "settle") await settleAll(moment);
              else {
                await at(moment);
                const head = accepted.at(-1)?.head ?? ZeroHash;
                const seq = BigInt(accepted.length);
                await context.registry.connect(processor).acknowledge(agent.address, seq, head, 0n);
                answerBy = undefined;
              }
              await attackAround(next.time, after);
            }
            if (time > (await now())) await networkHelpers.time.increaseTo(time);
          };
          for (const [index, gap] of gaps.entries()) {
            await workUntil((await now()) + BigInt(gap));
            if (revokeAfter !== undefined && index >= revokeAfter) break;
            const nth = BigInt(accepted.length) + 1n;
            accepted.push(
              await receipted(context, agent, {
                seq: nth,
                spent: nth * 100n,
                head: headHex(1_000n + nth),
                amount: 100n,
              }),
            );
          }
          if (revokeAfter !== undefined) {
            await at((await now()) + 1n);
            await context.registry.connect(owner).revoke(agent.address, 0n);
            answerBy = (await now()) + ACKNOWLEDGE;
          }
          await workUntil((await now()) + SETTLE_BY + GRACE + 10n);
          await attack();
          await networkHelpers.time.increase(5n * DAY);
          await attack();
          expect(settled).to.equal(accepted.length);
          expect([await isSlashed(), await bondOf()]).to.deep.equal([false, BOND]);
          expect(await creditOf(payee.address)).to.equal(BigInt(accepted.length) * 100n);
        }),
        { numRuns: 20 },
      );
      expect(claimed > 50, "claims were tried").to.equal(true);
    });
  });
});
