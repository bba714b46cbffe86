import { FIELD, lineToField, signClose, signReceipt, type Address, type Hex, type Receipt } from "@bursar/protocol";
import { inclusionSize, Prover, showLine } from "@bursar/prover";
import { expect } from "chai";
import fc from "fast-check";
import { id, Signature, toBeHex, ZeroAddress, ZeroHash, type Signer } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import { claimId } from "../../packages/relayer/src/answers.ts";
import {
  Challenges__factory,
  IInclusionVerifier__factory,
  type BatchSettlement,
  type Challenges,
  type TestUSD,
} from "../../typechain-types/index.ts";
import {
  bond,
  BOND,
  DAY,
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
  stranger,
  type Core,
} from "./fixture.ts";
import type { ReceiptedPayment } from "./receipted.ts";
import { Book, prove, show, TINY, type Answer, type Batch } from "./settled-ledger.ts";
import { deployRail } from "./whole-rail.ts";

const DEPOSIT = 1_000_000n;
const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
const VICTIM_WINDOW = 7n * DAY;
/** Order of the field that the curve's points are over, and of the scalars. */
const Q = 21888242871839275222246405745257275088696311157297823662689037894645226208583n;
const SECP256K1 = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const [NONE, OPEN, ANSWERED, UPHELD] = [0n, 1n, 2n, 3n];

describe("Challenges", function () {
  this.timeout(600_000);
  const prover = new Prover();
  let context: Core;
  let settlement: BatchSettlement;
  let challenges: Challenges;
  let base: Awaited<ReturnType<typeof networkHelpers.takeSnapshot>>;

  /** Nine lines, three of them in the first batch, six in the second from the middle of the page. */
  let ada: Book;
  /** A payee list, and nine lines over two pages in the first batch. */
  let ben: Book;
  /** Twenty lines over two segments of the third batch. */
  let cleo: Book;
  /** What Dan's agent and the processor told a payee, and what they settled in the second batch. */
  let told: Book;
  let forked: Book;
  let first: Batch;
  let second: Batch;
  let third: Batch;

  before(async () => {
    ({ context, settlement, challenges } = await deployRail());
    const payees = [payee.address, other.address] as const;
    ada = new Book(context, await open(context)).pay(...lines(3));
    ben = new Book(context, await open(context, { payees: [...payees] })).pay(...lines(9));
    cleo = new Book(context, await open(context)).pay(...lines(20));
    const dan = await open(context);
    told = new Book(context, dan).pay({ payee: payee.address, amount: 700n });
    forked = new Book(context, dan, "fork").pay({ payee: other.address, amount: 700n });
    first = await settle(ada, ben);
    ada.pay(...lines(6));
    second = await settle(ada, forked);
    third = await settle(cleo);
    base = await networkHelpers.takeSnapshot();
  });
  beforeEach(() => base.restore());
  after(() => prover.close());

  /** Lines of different amounts to two payees in turn. */
  function lines(count: number): { payee: Address; amount: bigint }[] {
    return Array.from({ length: count }, (_, i) => ({
      payee: i % 2 === 0 ? payee.address : other.address,
      amount: BigInt(100 + i),
    }));
  }

  async function settle(...books: Book[]): Promise<Batch> {
    const { send } = await prove(context, settlement, prover, books);
    return send();
  }

  const at = (time: bigint): Promise<void> => networkHelpers.time.setNextBlockTimestamp(time);
  const idOf = ({ agent, ...payment }: ReceiptedPayment): Hex => claimId(agent, payment);
  const statusOf = async (payment: ReceiptedPayment): Promise<bigint> =>
    (await challenges.challengeOf(idOf(payment))).status;
  const creditOf = (account: string, token = context.token): Promise<bigint> => context.escrow.creditOf(token, account);
  const bondOf = (): Promise<bigint> => context.processors.bondOf(processor.address, context.token);
  const isSlashed = async (): Promise<boolean> => (await context.processors.processorOf(processor.address)).slashed;
  const depositAccount = async (payment: ReceiptedPayment): Promise<string> =>
    context.escrow.accountOf(await challenges.getAddress(), idOf(payment));

  async function approve(by: Signer & { address: string } = stranger, amount = DEPOSIT): Promise<void> {
    await context.dollar.mint(by.address, amount);
    await context.dollar.connect(by).approve(challenges, amount);
  }

  async function file(payment: ReceiptedPayment, by: Signer & { address: string } = stranger) {
    await approve(by);
    return challenges.connect(by).challenge(payment);
  }

  const answer = (payment: ReceiptedPayment, [settled, circuit, proof]: Answer, by: Signer = processor) =>
    challenges.connect(by).answer(payment, settled, circuit, proof);

  describe("reportEquivocation", () => {
    let receipt: Receipt;
    beforeEach(() => {
      const { seq, head, line } = told.drafts[0]!.payment;
      receipt = { agent: told.address, seq, ...line, head, settleBy: 2_000_000_000n, logIndex: 0n };
    });

    async function report(one: Receipt, two: Receipt, key: Signer = processor) {
      const sign = (what: Receipt): Promise<Hex> => signReceipt(key, context.domain, what);
      return challenges.connect(stranger).reportEquivocation(one, await sign(one), two, await sign(two));
    }

    const contradictions: [what: string, change: Partial<Receipt>][] = [
      ["payee", { payee: other.address }],
      ["amount", { amount: 701n }],
      ["reference", { ref: `0x${"01".repeat(32)}` }],
      ["head", { head: `0x${"02".padStart(64, "0")}` }],
    ];
    for (const [what, change] of contradictions) {
      it(`P7 receipt_paid_or_sp_slashed: slashes at once for two receipts on one number that differ in the ${what}`, async () => {
        const sent = report(receipt, { ...receipt, ...change });
        await expect(sent)
          .to.emit(challenges, "Equivocation")
          .withArgs(processor.address, told.address, 1n, stranger.address);
        await expect(sent)
          .to.emit(context.processors, "BondSlashed")
          .withArgs(processor.address, context.token, stranger.address, BOND);
        expect(await isSlashed()).to.equal(true);
      });
    }

    const consistent: [what: string, change: Partial<Receipt>][] = [
      ["is the same one", {}],
      ["promises another time", { settleBy: 2_000_000_001n }],
      ["stands elsewhere in the log", { logIndex: 9n }],
      ["is on another number", { seq: 2n, payee: other.address }],
      ["is of another agent", { agent: other.address, payee: other.address }],
    ];
    for (const [what, change] of consistent) {
      it(`P15 honest_sp_never_slashed: refuses a second receipt that ${what}`, async () => {
        await expect(report(receipt, { ...receipt, ...change }))
          .to.be.revertedWithCustomError(challenges, "NotTwoReceipts")
          .withArgs(told.address, 1n);
        expect(await isSlashed()).to.equal(false);
      });
    }

    it("refuses receipts that a stranger signed, both or one, and signatures over another chain or contract", async () => {
      const two = { ...receipt, amount: 701n };
      await expect(report(receipt, two, stranger))
        .to.be.revertedWithCustomError(challenges, "NotAReceiptKey")
        .withArgs(processor.address, stranger.address, receipt.settleBy);
      const [own, forged] = [
        await signReceipt(processor, context.domain, receipt),
        await signReceipt(stranger, context.domain, two),
      ];
      for (const call of [
        challenges.reportEquivocation(receipt, own, two, forged),
        challenges.reportEquivocation(two, forged, receipt, own),
      ]) {
        await expect(call)
          .to.be.revertedWithCustomError(challenges, "NotAReceiptKey")
          .withArgs(processor.address, stranger.address, receipt.settleBy);
      }
      for (const domain of [
        { ...context.domain, chainId: 1n },
        { ...context.domain, registry: stranger.address },
      ]) {
        const elsewhere = await signReceipt(processor, domain, two);
        await expect(challenges.reportEquivocation(receipt, own, two, elsewhere)).to.be.revertedWithCustomError(
          challenges,
          "NotAReceiptKey",
        );
      }
      expect(await isSlashed()).to.equal(false);
    });
    it("refuses a signature in its other form, and none", async () => {
      const two = { ...receipt, amount: 701n };
      const own = await signReceipt(processor, context.domain, receipt);
      const { r, s, v } = Signature.from(await signReceipt(processor, context.domain, two));
      const high = `${r}${toBeHex(SECP256K1 - BigInt(s), 32).slice(2)}${v === 27 ? "1c" : "1b"}`;
      for (const signature of [high, "0x"]) {
        await expect(challenges.reportEquivocation(receipt, own, two, signature))
          .to.be.revertedWithCustomError(challenges, "NotAReceiptKey")
          .withArgs(processor.address, ZeroAddress, receipt.settleBy);
      }
    });
    it("refuses a mandate that nobody opened", async () => {
      const unknown = { ...receipt, agent: stranger.address };
      await expect(report(unknown, { ...unknown, amount: 1n }))
        .to.be.revertedWithCustomError(challenges, "NotAReceiptKey")
        .withArgs(ZeroAddress, processor.address, receipt.settleBy);
    });
    it("takes receipts of a retired key as far as they can have been promised, and none after", async () => {
      await context.processors.connect(processor).rotateKey(freshKey().address);
      const until = (await now()) + WINDOWS.settleBy;
      const late = { ...receipt, settleBy: until + 1n };
      await expect(report(late, { ...late, amount: 701n }))
        .to.be.revertedWithCustomError(challenges, "NotAReceiptKey")
        .withArgs(processor.address, processor.address, until + 1n);
      const intime = { ...receipt, settleBy: until };
      await report(intime, { ...intime, amount: 701n });
      expect(await isSlashed()).to.equal(true);
    });
    it("slashes once: a later report moves neither the window nor the reporter", async () => {
      await report(receipt, { ...receipt, amount: 701n });
      const before = fields(await context.processors.slashOf(processor.address, context.token));
      await networkHelpers.time.increase(DAY);
      const sign = (what: Receipt): Promise<Hex> => signReceipt(processor, context.domain, what);
      const two = { ...receipt, amount: 702n };
      await challenges.connect(owner).reportEquivocation(receipt, await sign(receipt), two, await sign(two));
      expect(fields(await context.processors.slashOf(processor.address, context.token))).to.deep.equal(before);
    });
  });

  describe("challenge", () => {
    it("takes the deposit into an account of its own and opens the cure window", async () => {
      const payment = await told.receipt(context, 1);
      await approve();
      const sent = challenges.connect(stranger).challenge(payment);
      await sent;
      const until = (await now()) + WINDOWS.cure;
      await expect(sent)
        .to.emit(challenges, "ChallengeOpened")
        .withArgs(idOf(payment), told.address, processor.address, 1n, until);
      expect(fields(await challenges.challengeOf(idOf(payment)))).to.deep.equal({
        status: OPEN,
        answerableUntil: until,
        challenger: stranger.address,
        deposit: DEPOSIT,
      });
      expect(await context.escrow.freeOf(context.token, await depositAccount(payment))).to.equal(DEPOSIT);
      expect(await context.dollar.balanceOf(challenges)).to.equal(0n);
      expect(await context.dollar.balanceOf(stranger.address)).to.equal(0n);
    });
    it("is refused again for the same payment, whatever time its receipt promises, while open and after", async () => {
      const payment = await ada.receipt(context, 2);
      await file(payment);
      await networkHelpers.time.increase(1n);
      const again = await ada.receipt(context, 2);
      expect(again.settleBy).not.to.equal(payment.settleBy);
      const refused = async (): Promise<void> =>
        expect(file(again, owner)).to.be.revertedWithCustomError(challenges, "ChallengeExists").withArgs(idOf(payment));
      await refused();
      await answer(payment, await show(prover, first, ada.address, 2));
      await refused();
    });
    it("P9 pay_once: refuses what is not settled; that is claimed, or paid from the lock already", async () => {
      ada.pay({ payee: payee.address, amount: 5n });
      const payment = await ada.receipt(context, 10);
      ada.drafts.pop();
      await expect(file(payment))
        .to.be.revertedWithCustomError(challenges, "NotSettled")
        .withArgs(ada.address, 10n, 9n);
      await at(payment.settleBy + WINDOWS.grace + 1n);
      await context.claims.file([payment]);
      await networkHelpers.time.increase(WINDOWS.cure);
      await context.claims.resolve([payment]);
      expect(await context.claims.paidOf(ada.address, 10n)).to.equal(idOf(payment));
      await expect(file(payment)).to.be.revertedWithCustomError(challenges, "NotSettled");
    });
    it("P6: refuses a payment that another key signed, or that was altered after it", async () => {
      await expect(file(await told.receipt(context, 1, { signer: other })))
        .to.be.revertedWithCustomError(challenges, "WrongSigner")
        .withArgs(told.address, other.address, 0n);
      const payment = await told.receipt(context, 1);
      for (const altered of [
        { ...payment, spent: payment.spent + 1n },
        { ...payment, line: { ...payment.line, payee: stranger.address } },
        { ...payment, head: toBeHex(1n, 32) as Hex },
      ]) {
        await expect(file(altered)).to.be.revertedWithCustomError(challenges, "WrongSigner");
      }
    });
    it("P15 honest_sp_never_slashed: refuses a payment without the processor's receipt", async () => {
      const payment = await told.receipt(context, 1, { key: stranger });
      await expect(file(payment))
        .to.be.revertedWithCustomError(challenges, "NotAReceiptKey")
        .withArgs(processor.address, stranger.address, payment.settleBy);
      await expect(file({ ...(await told.receipt(context, 1)), logIndex: 1n })).to.be.revertedWithCustomError(
        challenges,
        "NotAReceiptKey",
      );
    });
    it("refuses an unknown mandate, and a promise that no honest receipt makes", async () => {
      const unknown = { ...(await told.receipt(context, 1)), agent: stranger.address };
      await expect(file(unknown))
        .to.be.revertedWithCustomError(challenges, "UnknownMandate")
        .withArgs(stranger.address);
      const latest = told.mandate.validUntil + WINDOWS.acknowledge + WINDOWS.settleBy;
      await expect(file(await told.receipt(context, 1, { settleBy: latest + 1n })))
        .to.be.revertedWithCustomError(challenges, "SettleByTooLate")
        .withArgs(told.address, latest + 1n, latest);
      await file(await told.receipt(context, 1, { settleBy: latest }));
    });
    it("P2 no_payment_above_cap_or_off_allowlist: a bond is shared by no more than the mandate's own limits", async () => {
      const { paymentCap, budget } = ben.mandate;
      await expect(file(await ben.receipt(context, 1, { amount: paymentCap + 1n })))
        .to.be.revertedWithCustomError(context.registry, "PaymentAboveCap")
        .withArgs(ben.address, paymentCap + 1n, paymentCap);
      await expect(file(await ben.receipt(context, 1, { spent: budget + 1n })))
        .to.be.revertedWithCustomError(context.registry, "BudgetExceeded")
        .withArgs(ben.address, budget + 1n, budget);
      await expect(file(await ben.receipt(context, 1, { payee: stranger.address })))
        .to.be.revertedWithCustomError(context.registry, "PayeeNotAllowed")
        .withArgs(ben.address, stranger.address);
      for (const payees of [[], [stranger.address], [other.address, payee.address]]) {
        await expect(file(await ben.receipt(context, 1, { payees })))
          .to.be.revertedWithCustomError(context.registry, "PayeesMismatch")
          .withArgs(ben.address);
      }
      await file(await ben.receipt(context, 1, { amount: paymentCap, spent: budget, payee: other.address }));
    });
    it("refuses a caller that has not approved the deposit, and keeps nothing", async () => {
      const payment = await told.receipt(context, 1);
      await approve(stranger, DEPOSIT - 1n);
      await expect(challenges.connect(stranger).challenge(payment)).to.be.revertedWithCustomError(
        context.dollar,
        "ERC20InsufficientAllowance",
      );
      expect(await statusOf(payment)).to.equal(NONE);
    });
    it("is anyone's, for the payee", async () => {
      const payment = await told.receipt(context, 1);
      await file(payment, owner);
      expect((await challenges.challengeOf(idOf(payment))).challenger).to.equal(owner.address);
    });
  });

  describe("until one cure window after the claims, to the second", () => {
    const CURE = WINDOWS.cure;

    async function expectUntil(payment: ReceiptedPayment, until: bigint): Promise<void> {
      expect((await context.registry.claimsOf(payment.agent)).claimsUntil + CURE).to.equal(until);
      await approve();
      const snapshot = await networkHelpers.takeSnapshot();
      await at(until + 1n);
      await expect(challenges.connect(stranger).challenge(payment))
        .to.be.revertedWithCustomError(challenges, "ClaimWindowOver")
        .withArgs(payment.agent, until + 1n, until);
      await snapshot.restore();
      await at(until);
      await challenges.connect(stranger).challenge(payment);
      expect(await statusOf(payment)).to.equal(OPEN);
    }

    it("of a mandate whose time is over, closed or not", async () => {
      const payment = await told.receipt(context, 1);
      const claimsUntil = told.mandate.validUntil + TAIL;
      await at(claimsUntil);
      await context.registry.close(told.address);
      await expectUntil(payment, claimsUntil + CURE);
    });
    it("of a revoked mandate", async () => {
      const payment = await told.receipt(context, 1);
      await context.registry.connect(owner).revoke(told.address, 1n);
      await expectUntil(payment, (await now()) + TAIL + CURE);
    });
    it("of one that both ended together, though it is closed an hour later", async () => {
      const payment = await told.receipt(context, 1);
      const close = { agent: told.address, seq: 1n };
      const [byOwner, byProcessor] = await Promise.all(
        [owner, processor].map((signer) => signClose(signer, context.domain, close)),
      );
      await context.registry.closeTogether(told.address, 1n, byOwner!, byProcessor!);
      const until = (await now()) + TAIL + CURE;
      await networkHelpers.time.increase(3_600n);
      await context.registry.close(told.address);
      await expectUntil(payment, until);
    });
    it("of one that fell back to its payees, from its fallback on", async () => {
      const agent = await open(context, { validUntil: (await now()) + 30n * DAY });
      const promised = new Book(context, agent).pay({ payee: payee.address, amount: 700n });
      const fork = new Book(context, agent, "fork").pay({ payee: other.address, amount: 700n });
      await settle(fork);
      const payment = await promised.receipt(context, 1);
      const late = await fork.pay({ payee: payee.address, amount: 50n }).receipt(context, 2);
      await at(late.settleBy + WINDOWS.grace + 1n);
      await context.claims.file([late]);
      await networkHelpers.time.increase(CURE);
      await context.claims.resolve([late]);
      expect(await context.registry.stateOf(fork.address)).to.equal(5n);
      await expectUntil(payment, (await now()) + TAIL + CURE);
    });
  });

  describe("answer", () => {
    async function expectAnswered(book: Book, batch: Batch, seq: number, by: Signer = processor): Promise<void> {
      const payment = await book.receipt(context, seq);
      await file(payment);
      const credit = await creditOf(processor.address);
      await expect(answer(payment, await show(prover, batch, book.address, seq), by))
        .to.emit(challenges, "ChallengeAnswered")
        .withArgs(idOf(payment), batch.settled.batchId);
      expect(await statusOf(payment)).to.equal(ANSWERED);
      expect(await creditOf(processor.address)).to.equal(credit + DEPOSIT);
      expect(await context.escrow.balanceOf(context.token, await depositAccount(payment))).to.equal(0n);
      expect([await isSlashed(), await bondOf()]).to.deep.equal([false, BOND]);
    }

    it("P15 honest_sp_never_slashed: with the first line of a ledger", () => expectAnswered(ada, first, 1));
    it("with the last line of a page that is not full", () => expectAnswered(ada, first, 3));
    it("with the line after those that an earlier batch settled of its page", () => expectAnswered(ada, second, 4));
    it("with the first line of the next page of such a row", () => expectAnswered(ada, second, 8));
    it("with a line of a mandate with a payee list, on its second page", () => expectAnswered(ben, first, 9));
    it("with the last line of the first segment of a long row", () => expectAnswered(cleo, third, 14));
    it("with the last line of the last segment", () => expectAnswered(cleo, third, 20));
    it("by anyone; the deposit is the processor's all the same", () => expectAnswered(ada, second, 9, stranger));

    it("until the last second of the cure window", async () => {
      const payment = await ada.receipt(context, 1);
      await file(payment);
      const until = (await now()) + WINDOWS.cure;
      const shown = await show(prover, first, ada.address, 1);
      const snapshot = await networkHelpers.takeSnapshot();
      await at(until + 1n);
      await expect(answer(payment, shown))
        .to.be.revertedWithCustomError(challenges, "AnswerTooLate")
        .withArgs(idOf(payment), until + 1n, until);
      await snapshot.restore();
      await at(until);
      await answer(payment, shown);
      expect(await statusOf(payment)).to.equal(ANSWERED);
    });
    it("is refused where nothing is challenged, and a second time", async () => {
      const payment = await ada.receipt(context, 1);
      const shown = await show(prover, first, ada.address, 1);
      const refused = async (): Promise<void> =>
        expect(answer(payment, shown))
          .to.be.revertedWithCustomError(challenges, "ChallengeNotOpen")
          .withArgs(idOf(payment));
      await refused();
      await file(payment);
      await answer(payment, shown);
      await refused();
      expect(await creditOf(processor.address)).to.equal(DEPOSIT);
    });
    it("is refused with a circuit that is not of inclusion, such as the batch's own", async () => {
      const payment = await ada.receipt(context, 1);
      await file(payment);
      const [settled, , proof] = await show(prover, first, ada.address, 1);
      for (const circuit of [settled.circuitId, id("other") as Hex, ZeroHash as Hex]) {
        await expect(answer(payment, [settled, circuit, proof]))
          .to.be.revertedWithCustomError(challenges, "UnknownCircuit")
          .withArgs(circuit);
      }
    });
    it("is refused with a transcript that is not what the batch left, in any part of it", async () => {
      const payment = await ada.receipt(context, 1);
      await file(payment);
      const [settled, circuit, proof] = await show(prover, first, ada.address, 1);
      const { settled: others } = second;
      for (const changed of [
        { ...settled, commitment: settled.commitment + 1n },
        { ...settled, circuitId: circuit },
        { ...settled, creditsHash: others.creditsHash },
        { ...settled, batchId: 2n },
        { ...settled, rowWords: settled.rowWords.map((word, i) => (i === 3 ? word + 1n : word)) },
        { ...settled, rowWords: settled.rowWords.slice(0, 7) },
        { ...others, batchId: 1n },
      ]) {
        await expect(answer(payment, [changed, circuit, proof])).to.be.revertedWithCustomError(
          challenges,
          "WrongTranscript",
        );
      }
      for (const batchId of [0n, 4n]) {
        await expect(answer(payment, [{ ...settled, batchId }, circuit, proof]))
          .to.be.revertedWithCustomError(challenges, "WrongTranscript")
          .withArgs(batchId, await settlement.transcriptOf(1n), ZeroHash);
      }
    });
    it("is refused with another agent's row, or one that settles other numbers", async () => {
      const payment = await ada.receipt(context, 2);
      await file(payment);
      const [settled, circuit, proof] = await show(prover, first, ada.address, 2);
      await expect(answer(payment, [{ ...settled, row: 1 - settled.row }, circuit, proof]))
        .to.be.revertedWithCustomError(challenges, "WrongRow")
        .withArgs(ada.address, 2n, 1n, 9n);
      // The second batch has line 2 on its first page, but settled 4 to 9.
      const later = await show(prover, second, ada.address, 2);
      await expect(answer(payment, later))
        .to.be.revertedWithCustomError(challenges, "WrongRow")
        .withArgs(ada.address, 2n, 4n, 9n);
      const above = await ada.receipt(context, 4);
      await file(above);
      await expect(answer(above, [settled, circuit, proof]))
        .to.be.revertedWithCustomError(challenges, "WrongRow")
        .withArgs(ada.address, 4n, 1n, 3n);
      await expect(answer(payment, [{ ...settled, row: 2 }, circuit, proof])).to.be.revertedWithPanic(0x32);
    });
    it("is refused with a proof of another line, another ledger or another batch, and with none", async () => {
      const payment = await ada.receipt(context, 2);
      await file(payment);
      const [settled, circuit, proof] = await show(prover, first, ada.address, 2);
      const others = await Promise.all([
        show(prover, first, ada.address, 1),
        show(prover, first, ben.address, 2),
        show(prover, second, ada.address, 2),
      ]);
      for (const wrong of [...others.map(([, , one]) => one), Array<bigint>(8).fill(0n)]) {
        await expect(answer(payment, [settled, circuit, wrong]))
          .to.be.revertedWithCustomError(challenges, "InvalidProof")
          .withArgs(circuit);
      }
      const altered = (change: (words: bigint[]) => void): bigint[] => {
        const words = [...proof];
        change(words);
        return words;
      };
      for (const wrong of [
        altered((words) => (words[0] = words[0]! + 1n)),
        altered((words) => (words[6] = words[6]! + Q)),
        altered((words) => (words[1] = Q - words[1]!)),
        altered((words) => words.reverse()),
      ]) {
        await expect(answer(payment, [settled, circuit, wrong])).to.be.revertedWithCustomError(
          challenges,
          "InvalidProof",
        );
      }
      await answer(payment, [settled, circuit, proof]);
    });
    it("takes the same proof in another form, once: a proof is never an identifier", async () => {
      const payment = await ada.receipt(context, 1);
      await file(payment);
      const [settled, circuit, proof] = await show(prover, first, ada.address, 1);
      const malleated = proof.map((word, i) => ([1, 4, 5].includes(i) ? Q - word : word));
      await answer(payment, [settled, circuit, malleated]);
      for (const again of [proof, malleated]) {
        await expect(answer(payment, [settled, circuit, again])).to.be.revertedWithCustomError(
          challenges,
          "ChallengeNotOpen",
        );
      }
    });
    it("shows nothing for a payment that differs from what was settled at its number: payee, amount or place", async () => {
      const line = { payee: other.address, amount: 700n };
      for (const overrides of [
        { payee: payee.address },
        { payee: other.address, amount: 699n },
        { payee: other.address, amount: 701n },
      ]) {
        const payment = await forked.receipt(context, 1, { ...line, ...overrides });
        await file(payment);
        await expect(answer(payment, await show(prover, second, forked.address, 1))).to.be.revertedWithCustomError(
          challenges,
          "InvalidProof",
        );
      }
      // A line that the ledger holds, only not at the number of the receipt.
      const moved = await cleo.receipt(context, 5, { ...cleo.drafts[2]!.payment.line });
      await file(moved);
      for (const shown of [3, 5]) {
        await expect(answer(moved, await show(prover, third, cleo.address, shown))).to.be.revertedWithCustomError(
          challenges,
          "InvalidProof",
        );
      }
    });
    it("P15 honest_sp_never_slashed: takes the line whatever head and reference its receipt names: it is paid", async () => {
      const payment = await ada.receipt(context, 1, { head: toBeHex(7n, 32) as Hex, ref: id("another") as Hex });
      await file(payment);
      await answer(payment, await show(prover, first, ada.address, 1));
      expect(await statusOf(payment)).to.equal(ANSWERED);
    });
  });

  it("the verifier refuses signals of value + r, and any other value, in each place", async () => {
    const [settled, circuit, proof] = await show(prover, first, ada.address, 2);
    const verifier = IInclusionVerifier__factory.connect(await challenges.verifierOf(circuit), deployer);
    const [, , start, head] = settled.rowWords.slice(7 * settled.row);
    const signals = [start!, head!, lineToField(ada.drafts[1]!.payment.line), 1n];
    expect(await verifier.verify(proof, signals)).to.equal(true);
    for (const index of signals.keys()) {
      for (const change of [FIELD, 1n]) {
        const altered = signals.map((signal, i) => (i === index ? signal + change : signal));
        expect(await verifier.verify(proof, altered)).to.equal(false);
      }
    }
    expect(await verifier.isDevelopmentKey()).to.equal(true);
    expect(await challenges.verifierOf(settled.circuitId)).to.equal(ZeroAddress);
  });

  describe("uphold", () => {
    it("waits for the last second of the cure window, and ends a challenge once", async () => {
      const payment = await told.receipt(context, 1);
      const refused = async (): Promise<void> =>
        expect(challenges.uphold(payment))
          .to.be.revertedWithCustomError(challenges, "ChallengeNotOpen")
          .withArgs(idOf(payment));
      await refused();
      await file(payment);
      const until = (await now()) + WINDOWS.cure;
      await at(until);
      await expect(challenges.uphold(payment))
        .to.be.revertedWithCustomError(challenges, "AnswerStillPossible")
        .withArgs(idOf(payment), until, until);
      await at(until + 1n);
      await expect(challenges.uphold(payment))
        .to.emit(challenges, "ChallengeUpheld")
        .withArgs(idOf(payment), payee.address, 700n);
      await refused();
      await expect(answer(payment, await show(prover, second, forked.address, 1))).to.be.revertedWithCustomError(
        challenges,
        "ChallengeNotOpen",
      );
      expect(await creditOf(stranger.address)).to.equal(DEPOSIT);
    });
    it("does not undo an answer", async () => {
      const payment = await ada.receipt(context, 1);
      await file(payment);
      await answer(payment, await show(prover, first, ada.address, 1));
      await networkHelpers.time.increase(WINDOWS.cure + 1n);
      await expect(challenges.uphold(payment)).to.be.revertedWithCustomError(challenges, "ChallengeNotOpen");
      expect([await isSlashed(), await creditOf(stranger.address)]).to.deep.equal([false, 0n]);
    });
    it("P7 receipt_paid_or_sp_slashed: a settled fork costs the bond, of which the payee gets what it was promised", async () => {
      const payment = await told.receipt(context, 1);
      const credited = await creditOf(payee.address);
      await file(payment);
      await networkHelpers.time.increase(WINDOWS.cure + 1n);
      const sent = challenges.connect(owner).uphold(payment);
      await expect(sent)
        .to.emit(context.processors, "BondSlashed")
        .withArgs(processor.address, context.token, stranger.address, BOND);
      await expect(sent)
        .to.emit(context.processors, "VictimAdded")
        .withArgs(processor.address, context.token, idOf(payment), payee.address, 700n);
      expect(await statusOf(payment)).to.equal(UPHELD);
      expect(await isSlashed()).to.equal(true);
      expect(await creditOf(stranger.address)).to.equal(DEPOSIT);

      await networkHelpers.time.increase(VICTIM_WINDOW);
      await context.processors.payVictim(processor.address, context.token, idOf(payment));
      expect(await creditOf(payee.address)).to.equal(credited + 700n);
      await context.processors.finishSlash(processor.address, context.token);
      expect(await creditOf(stranger.address)).to.equal(DEPOSIT + 500_000_000n);
      expect(await bondOf()).to.equal(0n);
    });
    it("P9 pay_once: a payment whose claim the fork cured is a victim once, and never again", async () => {
      const agent = await open(context);
      const promised = new Book(context, agent).pay({ payee: payee.address, amount: 300n });
      const fork = new Book(context, agent, "fork").pay({ payee: other.address, amount: 300n });
      const payment = await promised.receipt(context, 1);
      await at(payment.settleBy + WINDOWS.grace + 1n);
      await context.claims.file([payment]);
      await settle(fork);
      await networkHelpers.time.increase(WINDOWS.cure);
      await context.claims.resolve([payment]);
      expect((await context.claims.claimOf(idOf(payment))).status).to.equal(2n);
      await file(payment);
      await networkHelpers.time.increase(WINDOWS.cure + 1n);
      await challenges.uphold(payment);
      expect((await context.processors.slashOf(processor.address, context.token)).owed).to.equal(300n);
      await expect(context.claims.file([payment])).to.be.revertedWithCustomError(context.claims, "AlreadyFiled");
      await expect(file(payment)).to.be.revertedWithCustomError(challenges, "ChallengeExists");
      await networkHelpers.time.increase(VICTIM_WINDOW);
      await context.processors.payVictim(processor.address, context.token, idOf(payment));
      await expect(context.processors.payVictim(processor.address, context.token, idOf(payment)))
        .to.be.revertedWithCustomError(context.processors, "NoVictim")
        .withArgs(idOf(payment));
    });
    it("P7 receipt_paid_or_sp_slashed, P16 bond_outlives_receipts: a fork settled in the last second there is", async () => {
      const agent = await open(context);
      const promised = new Book(context, agent).pay({ payee: payee.address, amount: 300n });
      const fork = new Book(context, agent, "fork").pay({ payee: other.address, amount: 300n });
      await context.processors.connect(processor).requestUnbonding();
      const payment = await promised.receipt(context, 1);
      const { send } = await prove(context, settlement, prover, [fork]);
      const claimsUntil = agent.mandate.validUntil + TAIL;

      // A claim in time, which the fork cures: nothing is paid, and no claim can follow.
      await at(claimsUntil - WINDOWS.cure);
      await context.claims.file([payment]);
      await at(claimsUntil - 1n);
      await send();
      await at(claimsUntil);
      await context.claims.resolve([payment]);
      expect((await context.claims.claimOf(idOf(payment))).status).to.equal(2n);
      await context.registry.close(fork.address);

      const end = claimsUntil + WINDOWS.cure;
      await approve();
      await at(end);
      await challenges.connect(stranger).challenge(payment);
      await at(end + WINDOWS.cure + 1n);
      await challenges.uphold(payment);
      const bonded = await bondOf();
      expect(bonded).to.be.greaterThan(BOND - 10n ** 9n);

      // The processor may no longer take it; without the slash it would have waited until then.
      const withdrawable = await context.processors.withdrawableAt(processor.address);
      expect(withdrawable).to.be.at.least(end + VICTIM_WINDOW);
      expect(end + WINDOWS.cure + 1n).to.be.lessThan(withdrawable);
      await at(withdrawable + VICTIM_WINDOW);
      await expect(context.processors.connect(processor).withdrawBond(context.token, processor.address))
        .to.be.revertedWithCustomError(context.processors, "Slashed")
        .withArgs(processor.address);
      const credited = await creditOf(payee.address);
      await context.processors.payVictim(processor.address, context.token, idOf(payment));
      expect(await creditOf(payee.address)).to.equal(credited + 300n);
    });
    it("two at once: each has its own deposit and end, and one answer saves no fork", async () => {
      const [honest, false_] = [await ada.receipt(context, 5), await told.receipt(context, 1)];
      await file(honest, owner);
      await file(false_);
      const accounts = [await depositAccount(honest), await depositAccount(false_)] as const;
      expect(accounts[0]).not.to.equal(accounts[1]);
      for (const account of accounts) {
        expect(await context.escrow.balanceOf(context.token, account)).to.equal(DEPOSIT);
      }
      await answer(honest, await show(prover, second, ada.address, 5));
      expect(await context.escrow.balanceOf(context.token, accounts[0])).to.equal(0n);
      expect(await context.escrow.balanceOf(context.token, accounts[1])).to.equal(DEPOSIT);
      await networkHelpers.time.increase(WINDOWS.cure + 1n);
      await challenges.uphold(false_);
      expect([await creditOf(processor.address), await creditOf(stranger.address)]).to.deep.equal([DEPOSIT, DEPOSIT]);
      expect(await creditOf(owner.address)).to.equal(0n);
      expect((await context.processors.slashOf(processor.address, context.token)).owed).to.equal(700n);
    });
    it("two forks of one processor are both victims of one slash; its first challenger is the reporter", async () => {
      const agent = await open(context);
      const promised = new Book(context, agent).pay({ payee: other.address, amount: 40n });
      await settle(new Book(context, agent, "fork").pay({ payee: payee.address, amount: 1n }));
      const [one, two] = [await told.receipt(context, 1), await promised.receipt(context, 1)];
      await file(one);
      await file(two, owner);
      await networkHelpers.time.increase(WINDOWS.cure + 1n);
      await challenges.uphold(one);
      await challenges.uphold(two);
      const slash = await context.processors.slashOf(processor.address, context.token);
      expect([slash.owed, slash.reporter]).to.deep.equal([740n, stranger.address]);
      expect([await creditOf(stranger.address), await creditOf(owner.address)]).to.deep.equal([DEPOSIT, DEPOSIT]);
    });
    it("gives the deposit back though the victims of an earlier slash were counted already", async () => {
      const receipt = { agent: told.address, seq: 1n, ...told.drafts[0]!.payment.line, head: toBeHex(1n, 32) as Hex };
      const [one, two] = [7n, 8n].map((amount) => ({ ...receipt, amount, settleBy: 2_000_000_000n, logIndex: 0n }));
      const sign = (what: Receipt): Promise<Hex> => signReceipt(processor, context.domain, what);
      await challenges.reportEquivocation(one!, await sign(one!), two!, await sign(two!));
      const payment = await told.receipt(context, 1);
      await file(payment);
      await networkHelpers.time.increase(VICTIM_WINDOW);
      await challenges.uphold(payment);
      expect(await creditOf(stranger.address)).to.equal(DEPOSIT);
      expect((await context.processors.slashOf(processor.address, context.token)).owed).to.equal(0n);
    });
  });

  describe("tokens that stop", () => {
    it("paused: nothing can be deposited, but what is challenged is answered and upheld", async () => {
      const [honest, false_] = [await ada.receipt(context, 1), await told.receipt(context, 1)];
      await file(honest);
      await file(false_);
      await approve(owner);
      await context.dollar.pause();
      await expect(challenges.connect(owner).challenge(await ada.receipt(context, 2))).to.be.revertedWithCustomError(
        context.dollar,
        "EnforcedPause",
      );
      await answer(honest, await show(prover, first, ada.address, 1));
      await networkHelpers.time.increase(WINDOWS.cure + 1n);
      await challenges.uphold(false_);
      expect(await isSlashed()).to.equal(true);
    });
    it("I16 pull only: a blocked payee, challenger or processor stops nobody", async () => {
      const [honest, false_] = [await ada.receipt(context, 1), await told.receipt(context, 1)];
      await file(honest);
      await file(false_);
      for (const account of [payee, stranger, processor]) await context.dollar.setBlocked(account.address, true);
      await answer(honest, await show(prover, first, ada.address, 1));
      await networkHelpers.time.increase(WINDOWS.cure + 1n);
      await challenges.uphold(false_);
      await networkHelpers.time.increase(VICTIM_WINDOW);
      await context.processors.payVictim(processor.address, context.token, idOf(false_));
      expect([await creditOf(processor.address), await creditOf(stranger.address)]).to.deep.equal([DEPOSIT, DEPOSIT]);
    });
    it("a blocked challenger is refused, and somebody else challenges for it", async () => {
      const payment = await told.receipt(context, 1);
      await approve();
      await context.dollar.setBlocked(stranger.address, true);
      await expect(challenges.connect(stranger).challenge(payment))
        .to.be.revertedWithCustomError(context.dollar, "AccountBlocked")
        .withArgs(stranger.address);
      await file(payment, owner);
      expect(await statusOf(payment)).to.equal(OPEN);
    });
    for (const [kind, name, argument, scale, arrives] of [
      ["of 18 decimals", "TokenWithDecimals", 18, 10n ** 12n, DEPOSIT * 10n ** 12n],
      ["that takes a tenth of each transfer", "FeeToken", 10, 1n, 810_000n],
    ] as const) {
      it(`one ${kind}: the deposit is what arrives, and goes back as such`, async () => {
        const token = (await ethers.deployContract(name, [argument])) as unknown as TestUSD;
        const address = (await token.getAddress()) as Address;
        await bond(context, 2n ** 80n, token);
        await token.mint(owner.address, 10n ** 20n);
        await token.connect(owner).approve(context.escrow, 10n ** 20n);
        await context.escrow.connect(owner).deposit(token, 10n ** 20n, owner.address);
        const agent = await open(context, { token: address });
        const promised = new Book(context, agent).pay({ payee: payee.address, amount: 30n });
        await settle(new Book(context, agent, "fork").pay({ payee: other.address, amount: 30n }));
        const payment = await promised.receipt(context, 1);
        await token.mint(stranger.address, DEPOSIT * scale);
        await token.connect(stranger).approve(challenges, DEPOSIT * scale);
        await challenges.connect(stranger).challenge(payment);
        expect((await challenges.challengeOf(idOf(payment))).deposit).to.equal(arrives);
        expect(await token.balanceOf(challenges)).to.equal(0n);
        await networkHelpers.time.increase(WINDOWS.cure + 1n);
        await challenges.uphold(payment);
        expect(await creditOf(stranger.address, address)).to.equal(arrives);
        expect((await context.processors.slashOf(processor.address, address)).owed).to.equal(30n * scale);
        expect((await context.processors.slashOf(processor.address, context.token)).windowEndsAt).to.equal(0n);
      });
    }
  });

  it("P15 honest_sp_never_slashed: every line of every batch of a random ledger can be shown, and none by another's row", async () => {
    const line = fc.record({
      payee: fc.constantFrom(payee.address, other.address, stranger.address),
      amount: fc.bigInt({ min: 1n, max: 100n }),
    });
    const batch = fc.array(line, { minLength: 1, maxLength: 11 });
    const ledger = fc.record({ batches: fc.array(batch, { minLength: 1, maxLength: 3 }), pick: fc.nat() });
    await fc.assert(
      fc.asyncProperty(ledger, async ({ batches, pick }) => {
        await base.restore();
        const [one, two] = [new Book(context, await open(context)), new Book(context, await open(context))];
        for (const [round, paid] of batches.entries()) {
          const from = one.drafts.length;
          one.pay(...paid);
          // The second mandate is in every other batch only, so that rows begin anywhere on their pages.
          const beside = round % 2 === 0 && paid.length < 8 ? [two.pay(...paid.slice(0, 3))] : [];
          const settled = await settle(one, ...beside);
          const part = settled.parts.find(({ agent }) => agent === one.address)!;
          const row = settled.parts.indexOf(part);
          const [, , start, head] = settled.settled.rowWords.slice(7 * row);
          for (const index of part.lines.keys()) {
            const { input } = showLine(inclusionSize(TINY), part, index);
            expect([input.base, input.head, input.index]).to.deep.equal([start, head, BigInt(index)]);
          }
          const seq = from + 1 + (pick % paid.length);
          const payment = await one.receipt(context, seq);
          await file(payment);
          await answer(payment, await show(prover, settled, one.address, seq));
          expect(await statusOf(payment)).to.equal(ANSWERED);
          if (beside.length === 0) continue;
          const foreign = await two.receipt(context, two.drafts.length);
          await file(foreign);
          await expect(answer(foreign, await show(prover, settled, one.address, seq))).to.be.revertedWithCustomError(
            challenges,
            "WrongRow",
          );
        }
        expect([await isSlashed(), await bondOf()]).to.deep.equal([false, BOND]);
      }),
      { numRuns: 6, ...(process.env["SEED"] === undefined ? {} : { seed: Number(process.env["SEED"]) }) },
    );
  });

  it("P17 sp_cannot_take: what is challenged moves no mandate, credit or lock", async () => {
    const agents = [ada, ben, cleo, told];
    const picture = async (): Promise<unknown> => [
      await Promise.all(agents.map(async ({ address }) => fields(await context.registry.positionOf(address)))),
      await Promise.all(agents.map(({ address }) => context.registry.remainingOf(address))),
      await context.escrow.lockedOf(context.token),
      await Promise.all([payee, other].map(({ address }) => creditOf(address))),
    ];
    const before = await picture();
    const [honest, false_] = [await ada.receipt(context, 1), await told.receipt(context, 1)];
    await file(honest);
    await file(false_);
    await answer(honest, await show(prover, first, ada.address, 1));
    await networkHelpers.time.increase(WINDOWS.cure + 1n);
    await challenges.uphold(false_);
    expect(await picture()).to.deep.equal(before);
  });

  it("P20 parameters_bounded: nothing here is settable, and it stands on a verifier", async () => {
    const writes = Challenges__factory.createInterface()
      .fragments.filter((one) => one.type === "function" && !("constant" in one && one.constant === true))
      .map((one) => ("name" in one ? one.name : ""));
    expect(writes.sort()).to.deep.equal(["answer", "challenge", "reportEquivocation", "uphold"]);
    expect(await challenges.registry()).to.equal(await context.registry.getAddress());
    expect(await challenges.settlement()).to.equal(await settlement.getAddress());
    expect(await challenges.processors()).to.equal(await context.processors.getAddress());
    const factory = new Challenges__factory(deployer);
    const links = [context.escrow, context.registry, settlement, context.processors] as const;
    await expect(factory.deploy(...links, [])).to.be.revertedWithCustomError(challenges, "NoVerifiers");
  });
});
