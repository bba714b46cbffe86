import { signMandate, type Address, type Mandate } from "@bursar/protocol";
import { expect } from "chai";
import { Signature, ZeroAddress, ZeroHash } from "ethers";
import fc from "fast-check";

import { WINDOWS } from "../../deploy/index.ts";
import {
  MandateRegistry__factory,
  ProcessorRegistry__factory,
  type ProcessorRegistry,
} from "../../typechain-types/index.ts";
import {
  BOND,
  core,
  DAY,
  deployer,
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
import { postBond, registerWithBond } from "./post-bond.ts";
import { idOf, receipted, type ReceiptedPayment } from "./receipted.ts";
import { signDebit } from "./sign-direct.ts";

const FLOOR = 10_000n * 10n ** 6n;
const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
const VICTIM_WINDOW = 7n * DAY;
const HOUR = 3_600n;
const URI = "https://other.test";
const BURNED = "0x000000000000000000000000000000000000dEaD";

type Agent = Awaited<ReturnType<typeof open>>["agent"];

describe("ProcessorRegistry", () => {
  let context: Core;
  let processors: ProcessorRegistry;
  beforeEach(async () => {
    context = await core();
    processors = context.processors.connect(other);
  });

  /** Asks to open a mandate with `other` as its processor; `fund` first. */
  async function tryOpen(overrides: Partial<Mandate> = {}): Promise<unknown> {
    const agent = freshKey();
    const mandate = await draft(context, agent.address, { processor: other.address, ...overrides });
    await fund(context, mandate.budget);
    return context.registry.open(
      solidity(mandate),
      await signMandate(owner, context.domain, mandate),
      await signMandate(agent, context.domain, mandate),
    );
  }

  const at = (time: bigint): Promise<void> => networkHelpers.time.setNextBlockTimestamp(time);
  const bondOf = (account = other.address): Promise<bigint> => processors.bondOf(account, context.token);

  describe("register", () => {
    it("keeps the time, the receipt key and where it serves", async () => {
      const key = freshKey().address;
      await expect(processors.register(key, URI))
        .to.emit(processors, "ProcessorRegistered")
        .withArgs(other.address, key, URI);
      expect(fields(await processors.processorOf(other.address))).to.deep.equal({
        registeredAt: await now(),
        unbondingAt: 0n,
        coversUntil: 0n,
        slashed: false,
        receiptKey: key,
        uri: URI,
      });
      expect(await processors.isReceiptKey(other.address, key, 2n ** 64n - 1n)).to.equal(true);
      expect(await processors.isReceiptKey(processor.address, key, 0n)).to.equal(false);
    });
    it("refuses to register twice", async () => {
      await processors.register(other.address, URI);
      await expect(processors.register(freshKey().address, URI))
        .to.be.revertedWithCustomError(processors, "AlreadyRegistered")
        .withArgs(other.address);
    });
    it("refuses the zero key", async () => {
      await expect(processors.register(ZeroAddress, URI)).to.be.revertedWithCustomError(processors, "ZeroKey");
    });
    it("says what it was built with", async () => {
      expect(await processors.escrow()).to.equal(await context.escrow.getAddress());
      expect(await processors.registry()).to.equal(await context.registry.getAddress());
      expect(await processors.floorUnits()).to.equal(FLOOR);
      expect(await processors.isJudge(await context.claims.getAddress())).to.equal(true);
      expect(await processors.isJudge(await context.registry.getAddress())).to.equal(false);
    });
    it("changes where it serves, for the processor alone", async () => {
      await expect(processors.setUri(URI))
        .to.be.revertedWithCustomError(processors, "NotRegistered")
        .withArgs(other.address);
      await processors.register(other.address, URI);
      await expect(processors.setUri("https://moved.test"))
        .to.emit(processors, "UriChanged")
        .withArgs(other.address, "https://moved.test");
      expect((await processors.processorOf(other.address)).uri).to.equal("https://moved.test");
      expect((await processors.processorOf(processor.address)).uri).to.equal("https://processor.test");
    });
  });

  describe("bond", () => {
    beforeEach(() => processors.register(other.address, URI));

    it("is what is deposited to its account, by anyone", async () => {
      await postBond(context, other, 70n);
      await context.dollar.mint(stranger.address, 30n);
      await context.dollar.connect(stranger).approve(context.escrow, 30n);
      const account = await processors.bondAccountOf(other.address);
      await context.escrow.connect(stranger).deposit(context.token, 30n, account);
      expect(await bondOf()).to.equal(100n);
      expect(await bondOf(processor.address)).to.equal(BOND);
    });
    it("is what is deposited with a permit", async () => {
      const { dollar, escrow, token, domain } = context;
      await dollar.mint(other.address, 50n);
      const deadline = (await now()) + 1_000n;
      const permit = await other.signTypedData(
        { name: "Bursar Test Dollar", version: "1", chainId: domain.chainId, verifyingContract: token },
        {
          Permit: [
            { name: "owner", type: "address" },
            { name: "spender", type: "address" },
            { name: "value", type: "uint256" },
            { name: "nonce", type: "uint256" },
            { name: "deadline", type: "uint256" },
          ],
        },
        { owner: other.address, spender: await escrow.getAddress(), value: 50n, nonce: 0n, deadline },
      );
      const { v, r, s } = Signature.from(permit);
      const account = await processors.bondAccountOf(other.address);
      await escrow.connect(other).depositWithPermit(token, 50n, account, deadline, v, r, s);
      expect(await bondOf()).to.equal(50n);
    });
    it("is not what an authorization deposits: that is its sender's own", async () => {
      const { dollar, escrow, token, domain } = context;
      await dollar.mint(other.address, 50n);
      const message = {
        from: other.address,
        to: await escrow.getAddress(),
        value: 50n,
        validAfter: 0n,
        validBefore: 2n ** 40n,
        nonce: ZeroHash,
      };
      const names = { from: "address", to: "address", value: "uint256", validAfter: "uint256", validBefore: "uint256" };
      const signature = await other.signTypedData(
        { name: "Bursar Test Dollar", version: "1", chainId: domain.chainId, verifyingContract: token },
        {
          ReceiveWithAuthorization: Object.entries({ ...names, nonce: "bytes32" }).map(([name, type]) => ({
            name,
            type,
          })),
        },
        message,
      );
      const { v, r, s } = Signature.from(signature);
      await escrow.depositWithAuthorization(token, other.address, 50n, 0n, 2n ** 40n, ZeroHash, v, r, s);
      expect(await bondOf()).to.equal(0n);
      expect(await escrow.freeOf(token, other.address)).to.equal(50n);
    });
    it("cannot be withdrawn from the escrow by the processor itself", async () => {
      await postBond(context, other, FLOOR);
      await expect(
        context.escrow.connect(other).withdraw(context.token, 1n, other.address),
      ).to.be.revertedWithCustomError(context.escrow, "InsufficientFree");
      const salt = ethers.zeroPadValue(other.address, 32);
      await expect(
        context.escrow.connect(other).pay(context.token, salt, other.address, 1n),
      ).to.be.revertedWithCustomError(context.escrow, "InsufficientBalance");
    });
    it("must reach the floor for a mandate to name it", async () => {
      await postBond(context, other, FLOOR - 1n);
      await expect(tryOpen())
        .to.be.revertedWithCustomError(processors, "BondBelowFloor")
        .withArgs(other.address, context.token, FLOOR - 1n, FLOOR);
      await postBond(context, other, 1n);
      await tryOpen();
    });
    it("must be in the mandate's token, and its processor registered", async () => {
      await expect(tryOpen({ processor: stranger.address }))
        .to.be.revertedWithCustomError(processors, "NotRegistered")
        .withArgs(stranger.address);
      await expect(tryOpen())
        .to.be.revertedWithCustomError(processors, "BondBelowFloor")
        .withArgs(other.address, context.token, 0n, FLOOR);
    });
    it("covers for the registry alone", async () => {
      for (const signer of [stranger, other, settlement, deployer]) {
        const by = processors.connect(signer);
        const registry = await context.registry.getAddress();
        for (const call of [
          by.cover(other.address, context.token, 1n, 1n),
          by.uncover(other.address, context.token, 1n),
        ]) {
          await expect(call)
            .to.be.revertedWithCustomError(processors, "OnlyRegistry")
            .withArgs(signer.address, registry);
        }
      }
    });
  });

  describe("leverage", () => {
    it("I9: three times the bond in the first 30 days, ten times from then on, to the second", async () => {
      await registerWithBond(context, other, FLOOR);
      const grown = (await processors.processorOf(other.address)).registeredAt + 30n * DAY;
      expect(await processors.capacityOf(other.address, context.token)).to.equal(3n * FLOOR);
      await tryOpen({ budget: 3n * FLOOR });
      expect(await processors.coveredOf(other.address, context.token)).to.equal(3n * FLOOR);

      const agent = freshKey();
      const mandate = await draft(context, agent.address, {
        processor: other.address,
        budget: 7n * FLOOR,
        validUntil: grown + DAY,
      });
      await fund(context, 7n * FLOOR);
      const signatures = [
        await signMandate(owner, context.domain, mandate),
        await signMandate(agent, context.domain, mandate),
      ] as const;
      await at(grown - 1n);
      await expect(context.registry.open(solidity(mandate), ...signatures))
        .to.be.revertedWithCustomError(processors, "LeverageExceeded")
        .withArgs(other.address, context.token, 10n * FLOOR, 3n * FLOOR);
      await at(grown);
      await context.registry.open(solidity(mandate), ...signatures);
      expect(await processors.capacityOf(other.address, context.token)).to.equal(10n * FLOOR);
      expect(await processors.coveredOf(other.address, context.token)).to.equal(10n * FLOOR);
      await expect(tryOpen({ budget: 1n, paymentCap: 1n }))
        .to.be.revertedWithCustomError(processors, "LeverageExceeded")
        .withArgs(other.address, context.token, 10n * FLOOR + 1n, 10n * FLOOR);
    });
    it("counts whole budgets, spent or not, until their mandates are closed", async () => {
      await registerWithBond(context, other, FLOOR);
      const { agent, mandate } = await open(context, { processor: other.address, budget: 3n * FLOOR });
      await expect(tryOpen()).to.be.revertedWithCustomError(processors, "LeverageExceeded");
      await at(mandate.validUntil + TAIL - 1n);
      await expect(context.registry.close(agent.address)).to.be.revertedWithCustomError(
        context.registry,
        "TooEarlyToClose",
      );
      expect(await processors.coveredOf(other.address, context.token)).to.equal(3n * FLOOR);
      await at(mandate.validUntil + TAIL);
      await context.registry.close(agent.address);
      expect(await processors.coveredOf(other.address, context.token)).to.equal(0n);
      await tryOpen();
    });
    it("counts each token by itself, in base units", async () => {
      await registerWithBond(context, other, FLOOR);
      const token = await ethers.deployContract("TokenWithDecimals", [18]);
      const address = (await token.getAddress()) as `0x${string}`;
      await postBond(context, other, FLOOR * 10n ** 12n, token);
      expect(await processors.capacityOf(other.address, address)).to.equal(3n * FLOOR * 10n ** 12n);
      await token.mint(owner.address, 10n ** 30n);
      await token.connect(owner).approve(context.escrow, 10n ** 30n);
      await context.escrow.connect(owner).deposit(address, 10n ** 30n, owner.address);
      await tryOpen({ token: address, budget: 3n * FLOOR });
      expect(await processors.coveredOf(other.address, address)).to.equal(3n * FLOOR * 10n ** 12n);
      expect(await processors.coveredOf(other.address, context.token)).to.equal(0n);
      await expect(tryOpen({ token: address, budget: 1n, paymentCap: 1n }))
        .to.be.revertedWithCustomError(processors, "LeverageExceeded")
        .withArgs(other.address, address, 3n * FLOOR * 10n ** 12n + 10n ** 12n, 3n * FLOOR * 10n ** 12n);
      await tryOpen();
    });
  });

  describe("receipt keys", () => {
    it("a retired key counts for what it can have promised, and the new one for everything", async () => {
      const [first, second] = [freshKey().address, freshKey().address];
      await processors.register(first, URI);
      const sent = processors.rotateKey(second);
      await sent;
      const until = (await now()) + WINDOWS.settleBy;
      await expect(sent).to.emit(processors, "ReceiptKeyRotated").withArgs(other.address, first, second, until);
      expect(await processors.isReceiptKey(other.address, first, until)).to.equal(true);
      expect(await processors.isReceiptKey(other.address, first, until + 1n)).to.equal(false);
      expect(await processors.isReceiptKey(other.address, second, 2n ** 64n - 1n)).to.equal(true);
      expect((await processors.processorOf(other.address)).receiptKey).to.equal(second);
      expect(await processors.isReceiptKey(other.address, stranger.address, 0n)).to.equal(false);
    });
    it("never come back, not even by rotating to the same one", async () => {
      const [first, second] = [freshKey().address, freshKey().address];
      await processors.register(first, URI);
      await expect(processors.rotateKey(first)).to.be.revertedWithCustomError(processors, "KeyUsed").withArgs(first);
      await processors.rotateKey(second);
      await expect(processors.rotateKey(first)).to.be.revertedWithCustomError(processors, "KeyUsed").withArgs(first);
      await networkHelpers.time.increase(365n * DAY);
      await expect(processors.rotateKey(first)).to.be.revertedWithCustomError(processors, "KeyUsed").withArgs(first);
    });
    it("are not zero, and a stranger has none to rotate", async () => {
      await expect(processors.rotateKey(freshKey().address))
        .to.be.revertedWithCustomError(processors, "NotRegistered")
        .withArgs(other.address);
      await processors.register(other.address, URI);
      await expect(processors.rotateKey(ZeroAddress)).to.be.revertedWithCustomError(processors, "ZeroKey");
    });
  });

  describe("unbonding", () => {
    beforeEach(() => registerWithBond(context, other, FLOOR));

    it("P16 bond_outlives_receipts: 14 days if nothing is covered, to the second", async () => {
      const sent = processors.requestUnbonding();
      await sent;
      const until = (await now()) + 14n * DAY;
      // Nothing was ever covered: the cure window and seven days after time 0 are long over.
      await expect(sent).to.emit(processors, "UnbondingRequested").withArgs(other.address, until);
      expect(await processors.withdrawableAt(other.address)).to.equal(until);
      await at(until - 1n);
      await expect(processors.withdrawBond(context.token, payee.address))
        .to.be.revertedWithCustomError(processors, "BondStillCovers")
        .withArgs(other.address, until - 1n, until);
      await at(until);
      await expect(processors.withdrawBond(context.token, payee.address))
        .to.emit(processors, "BondWithdrawn")
        .withArgs(other.address, context.token, payee.address, FLOOR);
      expect(await bondOf()).to.equal(0n);
      expect(await context.escrow.creditOf(context.token, payee.address)).to.equal(FLOOR);
      await expect(processors.withdrawBond(context.token, payee.address))
        .to.be.revertedWithCustomError(processors, "NoBond")
        .withArgs(other.address, context.token);
    });
    it("P16 bond_outlives_receipts: the last claim, its cure and seven days, to the second", async () => {
      const validUntil = (await now()) + 60n * DAY;
      const { agent } = await open(context, { processor: other.address, validUntil });
      await open(context, { processor: other.address });
      expect((await processors.processorOf(other.address)).coversUntil).to.equal(validUntil + TAIL);
      const { claimsUntil } = await context.registry.claimsOf(agent.address);
      expect(claimsUntil).to.equal(validUntil + TAIL);

      await processors.requestUnbonding();
      const until = validUntil + TAIL + WINDOWS.cure + VICTIM_WINDOW;
      expect(await processors.withdrawableAt(other.address)).to.equal(until);
      await at(validUntil + TAIL);
      await context.registry.close(agent.address);
      await at(until - 1n);
      await expect(processors.withdrawBond(context.token, other.address))
        .to.be.revertedWithCustomError(processors, "BondStillCovers")
        .withArgs(other.address, until - 1n, until);
      await at(until);
      await processors.withdrawBond(context.token, other.address);
      expect(await bondOf()).to.equal(0n);
    });
    it("P16 bond_outlives_receipts: a claim of the last second, and a challenge of its last, find the bond", async () => {
      const { agent, mandate } = await open(context, { processor: other.address });
      const settleBy = mandate.validUntil + WINDOWS.settleBy;
      const [first, second] = [
        await receipted(context, agent, { key: other, settleBy }),
        await receipted(context, agent, { key: other, settleBy, seq: 2n }),
      ];
      await processors.requestUnbonding();
      await spend(agent, 10_000n);
      const claimsUntil = mandate.validUntil + TAIL;
      await at(claimsUntil);
      await context.claims.file([first]);
      await at(claimsUntil + 1n);
      await expect(context.claims.file([second]))
        .to.be.revertedWithCustomError(context.claims, "ClaimWindowOver")
        .withArgs(agent.address, claimsUntil + 1n, claimsUntil);
      // A challenge may be filed, and then answered, for a cure window each.
      await at(claimsUntil + 2n * WINDOWS.cure);
      await expect(processors.withdrawBond(context.token, other.address)).to.be.revertedWithCustomError(
        processors,
        "BondStillCovers",
      );
      await context.claims.resolve([first]);
      expect(fields(await processors.slashOf(other.address, context.token))).to.deep.include({ owed: 1_000n });
      await networkHelpers.time.increase(365n * DAY);
      await expect(processors.withdrawBond(context.token, other.address))
        .to.be.revertedWithCustomError(processors, "Slashed")
        .withArgs(other.address);
    });
    it("takes no new mandates from the request on, and again after it is cancelled", async () => {
      await processors.requestUnbonding();
      const since = await now();
      await expect(tryOpen()).to.be.revertedWithCustomError(processors, "Unbonding").withArgs(other.address, since);
      await expect(processors.requestUnbonding())
        .to.be.revertedWithCustomError(processors, "Unbonding")
        .withArgs(other.address, since);
      await expect(processors.cancelUnbonding()).to.emit(processors, "UnbondingCancelled").withArgs(other.address);
      expect(await processors.withdrawableAt(other.address)).to.equal(0n);
      await tryOpen();
    });
    it("starts again after it was cancelled: time that passed before counts for nothing", async () => {
      await processors.requestUnbonding();
      await networkHelpers.time.increase(13n * DAY);
      await processors.cancelUnbonding();
      await processors.requestUnbonding();
      expect(await processors.withdrawableAt(other.address)).to.equal((await now()) + 14n * DAY);
    });
    it("is asked for before anything is withdrawn, by the processor itself", async () => {
      await expect(processors.withdrawBond(context.token, other.address))
        .to.be.revertedWithCustomError(processors, "NotUnbonding")
        .withArgs(other.address);
      await expect(processors.cancelUnbonding())
        .to.be.revertedWithCustomError(processors, "NotUnbonding")
        .withArgs(other.address);
      const by = processors.connect(stranger);
      await expect(by.requestUnbonding())
        .to.be.revertedWithCustomError(processors, "NotRegistered")
        .withArgs(stranger.address);
      await processors.requestUnbonding();
      await networkHelpers.time.increase(15n * DAY);
      await expect(by.withdrawBond(context.token, stranger.address)).to.be.revertedWithCustomError(
        processors,
        "NotUnbonding",
      );
      expect(await bondOf()).to.equal(FLOOR);
    });
    it("pays nothing out of a token whose bond is slashed", async () => {
      const { agent } = await open(context, { processor: other.address });
      await processors.requestUnbonding();
      await slash(agent);
      await networkHelpers.time.increase(365n * DAY);
      await expect(processors.withdrawBond(context.token, other.address))
        .to.be.revertedWithCustomError(processors, "Slashed")
        .withArgs(other.address);
    });
  });

  /** Takes units of a mandate of `other` out of its lock by the direct rail. */
  async function spend(agent: Agent, units: bigint): Promise<void> {
    for (let nonce = 1n; units > 0n; units -= 1_000n, ++nonce) {
      const value = units < 1_000n ? units : 1_000n;
      await context.direct
        .connect(other)
        .debit([await signDebit(context, agent, { payee: payee.address, value, nonce })]);
    }
  }

  /**
   * Leaves payments that no lock pays: `other` answers the revocation of their mandate as if they were not, and misses them.
   * `reporter` files them in one call and resolves them.
   */
  async function slash(
    agent: Agent,
    owed: readonly (readonly [payee: Address, amount: bigint])[] = [[payee.address, 1_000n]],
    reporter = stranger,
  ): Promise<ReceiptedPayment[]> {
    const payments = [];
    for (const [index, [payee, amount]] of owed.entries())
      payments.push(await receipted(context, agent, { key: other, seq: BigInt(index) + 1n, payee, amount }));
    await context.registry.connect(owner).revoke(agent.address, 0n);
    await context.registry.connect(other).acknowledge(agent.address, 0n, ZeroHash, 0n);
    await networkHelpers.time.increase(WINDOWS.settleBy + WINDOWS.grace);
    await context.claims.connect(reporter).file(payments);
    await networkHelpers.time.increase(WINDOWS.cure);
    await context.claims.connect(reporter).resolve(payments);
    return payments;
  }

  const creditOf = (account: string): Promise<bigint> => context.escrow.creditOf(context.token, account);
  const isSlashed = async (): Promise<boolean> => (await processors.processorOf(other.address)).slashed;

  describe("slashing", () => {
    beforeEach(() => registerWithBond(context, other, FLOOR));

    it("I10 bond falls only by slash, penalty or after unbonding: strangers are no judges", async () => {
      for (const signer of [stranger, other, settlement, owner, deployer]) {
        const by = processors.connect(signer);
        for (const call of [
          by.penalize(other.address, context.token, signer.address, 1n),
          by.slash(other.address, context.token, signer.address),
          by.addVictim(other.address, context.token, ZeroHash, signer.address, 1n),
        ]) {
          await expect(call).to.be.revertedWithCustomError(processors, "OnlyJudge").withArgs(signer.address);
        }
      }
      expect(await bondOf()).to.equal(FLOOR);
    });
    it("is needed before victims are paid or the rest is shared", async () => {
      for (const call of [
        processors.payVictim(other.address, context.token, ZeroHash),
        processors.finishSlash(other.address, context.token),
      ]) {
        await expect(call)
          .to.be.revertedWithCustomError(processors, "NotSlashed")
          .withArgs(other.address, context.token);
      }
    });
    it("ends new mandates, keeps its record, and leaves other processors alone", async () => {
      const { agent } = await open(context, { processor: other.address });
      await slash(agent);
      expect(fields(await processors.slashOf(other.address, context.token))).to.deep.equal({
        windowEndsAt: (await now()) + VICTIM_WINDOW,
        finished: false,
        reporter: stranger.address,
        owed: 1_000n,
        pot: 0n,
      });
      expect(await isSlashed()).to.equal(true);
      await expect(tryOpen()).to.be.revertedWithCustomError(processors, "Slashed").withArgs(other.address);
      await open(context);
      expect(await bondOf(processor.address)).to.equal(BOND);
    });
    it("P7 receipt_paid_or_sp_slashed: pays victims pro rata where the bond does not reach, and nobody else", async () => {
      const [first, second] = [freshKey().address as Address, freshKey().address as Address];
      const { agent } = await open(context, { processor: other.address, budget: 3n * FLOOR, paymentCap: 2n * FLOOR });
      const payments = await slash(agent, [
        [first, FLOOR],
        [second, 2n * FLOOR],
      ]);
      // A tenth each as penalties, at filing.
      const pot = FLOOR - (3n * FLOOR) / 10n;
      expect([await creditOf(first), await creditOf(second)]).to.deep.equal([FLOOR / 10n, (2n * FLOOR) / 10n]);
      await networkHelpers.time.increase(VICTIM_WINDOW);
      const shares = [pot / 3n, (2n * pot) / 3n];
      for (const [index, payment] of payments.entries())
        await expect(processors.connect(stranger).payVictim(other.address, context.token, idOf(payment)))
          .to.emit(processors, "VictimPaid")
          .withArgs(other.address, context.token, idOf(payment), payment.line.payee, shares[index]);
      expect(await creditOf(first)).to.equal(FLOOR / 10n + shares[0]!);
      expect(await creditOf(second)).to.equal((2n * FLOOR) / 10n + shares[1]!);
      await expect(processors.finishSlash(other.address, context.token))
        .to.emit(processors, "SlashFinished")
        .withArgs(other.address, context.token, 0n, 0n);
      // What rounding leaves is nobody's.
      expect(await bondOf()).to.equal(pot - shares[0]! - shares[1]!);
      expect([await creditOf(stranger.address), await creditOf(BURNED)]).to.deep.equal([0n, 0n]);
    });
    it("pays victims in full where it reaches, of the rest one part in twenty to the reporter, and burns the others", async () => {
      const { agent } = await open(context, { processor: other.address });
      const [payment] = await slash(agent);
      await networkHelpers.time.increase(VICTIM_WINDOW);
      // 0.50 tokens were the penalty of the one call.
      const rest = FLOOR - 500_000n - 1_000n;
      const reward = rest / 20n;
      await expect(processors.finishSlash(other.address, context.token))
        .to.emit(processors, "SlashFinished")
        .withArgs(other.address, context.token, reward, rest - reward);
      expect(await bondOf()).to.equal(1_000n);
      await processors.payVictim(other.address, context.token, idOf(payment!));
      expect(await bondOf()).to.equal(0n);
      expect(await creditOf(payee.address)).to.equal(100n + 1_000n);
      expect(await creditOf(stranger.address)).to.equal(499_900n + reward);
      expect(await creditOf(BURNED)).to.equal(rest - reward);
      await context.escrow.sweepCredit(context.token, BURNED);
      expect(await context.dollar.balanceOf(BURNED)).to.equal(rest - reward);
    });
    it("rewards the reporter with 500 tokens at most", async () => {
      await postBond(context, other, 2n * FLOOR);
      const { agent } = await open(context, { processor: other.address });
      await slash(agent);
      await networkHelpers.time.increase(VICTIM_WINDOW);
      const rest = 3n * FLOOR - 500_000n - 1_000n;
      await expect(processors.finishSlash(other.address, context.token))
        .to.emit(processors, "SlashFinished")
        .withArgs(other.address, context.token, 500n * 10n ** 6n, rest - 500n * 10n ** 6n);
    });
    it("counts victims until its window is over, and pays nobody before, to the second", async () => {
      const [one, two, three] = [
        (await open(context, { processor: other.address })).agent,
        (await open(context, { processor: other.address })).agent,
        (await open(context, { processor: other.address })).agent,
      ];
      const later = [];
      for (const agent of [two, three]) {
        later.push(await receipted(context, agent, { key: other }));
        await spend(agent, 10_000n);
      }
      await networkHelpers.time.increase(WINDOWS.settleBy + WINDOWS.grace);
      await context.claims.file(later);
      const [payment] = await slash(one);
      const { windowEndsAt } = await processors.slashOf(other.address, context.token);

      await at(windowEndsAt - 1n);
      for (const call of [
        processors.payVictim(other.address, context.token, idOf(payment!)),
        processors.finishSlash(other.address, context.token),
      ])
        await expect(call)
          .to.be.revertedWithCustomError(processors, "VictimsNotCounted")
          .withArgs(other.address, windowEndsAt - 1n, windowEndsAt);
      await expect(context.claims.resolve([later[0]!]))
        .to.emit(processors, "VictimAdded")
        .withArgs(other.address, context.token, idOf(later[0]!), payee.address, 1_000n);
      await at(windowEndsAt);
      await expect(context.claims.resolve([later[1]!]))
        .to.emit(context.claims, "ClaimResolved")
        .and.not.to.emit(processors, "VictimAdded");
      expect((await processors.slashOf(other.address, context.token)).owed).to.equal(2_000n);
      await processors.payVictim(other.address, context.token, idOf(payment!));
      await processors.payVictim(other.address, context.token, idOf(later[0]!));
      await expect(processors.payVictim(other.address, context.token, idOf(later[1]!)))
        .to.be.revertedWithCustomError(processors, "NoVictim")
        .withArgs(idOf(later[1]!));
    });
    it("P9 pay_once: pays each victim once, and ends once", async () => {
      const { agent } = await open(context, { processor: other.address });
      const [payment] = await slash(agent);
      await networkHelpers.time.increase(VICTIM_WINDOW);
      await processors.payVictim(other.address, context.token, idOf(payment!));
      await expect(processors.payVictim(other.address, context.token, idOf(payment!)))
        .to.be.revertedWithCustomError(processors, "NoVictim")
        .withArgs(idOf(payment!));
      await processors.finishSlash(other.address, context.token);
      await expect(processors.finishSlash(other.address, context.token))
        .to.be.revertedWithCustomError(processors, "SlashFinishedAlready")
        .withArgs(other.address, context.token);
    });
    it("happens once: a second reporter changes neither reward, window nor pot, and adds its victims", async () => {
      const validUntil = (await now()) + 30n * DAY;
      const [one, two] = [
        (await open(context, { processor: other.address })).agent,
        (await open(context, { processor: other.address, validUntil })).agent,
      ];
      await slash(one);
      const before = fields(await processors.slashOf(other.address, context.token));
      const [second] = await slash(two, [[payee.address, 700n]], deployer);
      expect(fields(await processors.slashOf(other.address, context.token))).to.deep.equal({ ...before, owed: 1_700n });
      await networkHelpers.time.increase(VICTIM_WINDOW);
      await processors.payVictim(other.address, context.token, idOf(second!));
      await processors.finishSlash(other.address, context.token);
      // Slashed already, it paid no second penalty.
      expect(await creditOf(deployer.address)).to.equal(0n);
      expect(await bondOf()).to.equal(1_000n);
    });
    it("shares what is posted before the first payment, and nothing that is posted after", async () => {
      const [first, second] = [freshKey().address as Address, freshKey().address as Address];
      const { agent } = await open(context, { processor: other.address, budget: 3n * FLOOR, paymentCap: 2n * FLOOR });
      const payments = await slash(agent, [
        [first, FLOOR],
        [second, FLOOR],
      ]);
      await postBond(context, other, FLOOR / 5n);
      await networkHelpers.time.increase(VICTIM_WINDOW);
      await processors.payVictim(other.address, context.token, idOf(payments[0]!));
      expect((await processors.slashOf(other.address, context.token)).pot).to.equal(FLOOR);
      await postBond(context, other, FLOOR);
      await processors.payVictim(other.address, context.token, idOf(payments[1]!));
      expect([await creditOf(first), await creditOf(second)]).to.deep.equal([
        FLOOR / 10n + FLOOR / 2n,
        FLOOR / 10n + FLOOR / 2n,
      ]);
      await expect(processors.finishSlash(other.address, context.token))
        .to.emit(processors, "SlashFinished")
        .withArgs(other.address, context.token, 0n, 0n);
    });
    it("reaches the bond of its token alone: the others go on to pay penalties, and leave as any bond does", async () => {
      const token = await ethers.deployContract("TokenWithDecimals", [18]);
      const address = (await token.getAddress()) as Address;
      const scale = 10n ** 12n;
      await postBond(context, other, FLOOR * scale, token);
      await token.mint(owner.address, 10_000n * scale);
      await token.connect(owner).approve(context.escrow, 10_000n * scale);
      await context.escrow.connect(owner).deposit(address, 10_000n * scale, owner.address);
      const { agent: elsewhere } = await open(context, { processor: other.address, token: address });
      const missed = await receipted(context, elsewhere, { key: other });
      await slash((await open(context, { processor: other.address })).agent);

      expect((await processors.slashOf(other.address, address)).windowEndsAt).to.equal(0n);
      await expect(tryOpen({ token: address })).to.be.revertedWithCustomError(processors, "Slashed");
      await expect(context.claims.connect(stranger).file([missed]))
        .to.emit(processors, "PenaltyPaid")
        .withArgs(other.address, address, payee.address, 100n * scale)
        .and.to.emit(processors, "PenaltyPaid")
        .withArgs(other.address, address, stranger.address, 499_900n * scale);
      await networkHelpers.time.increase(WINDOWS.cure);
      await context.claims.resolve([missed]);
      expect(await context.escrow.creditOf(address, payee.address)).to.equal(1_100n * scale);

      await processors.requestUnbonding();
      await at(await processors.withdrawableAt(other.address));
      await processors.withdrawBond(address, other.address);
      expect(await context.escrow.creditOf(address, other.address)).to.equal((FLOOR - 500_000n) * scale);
      await expect(processors.withdrawBond(context.token, other.address))
        .to.be.revertedWithCustomError(processors, "Slashed")
        .withArgs(other.address);
    });
    it("of each token has its own window, reporter and pot", async () => {
      const token = await ethers.deployContract("TokenWithDecimals", [6]);
      const address = (await token.getAddress()) as Address;
      await postBond(context, other, 5n * FLOOR, token);
      await token.mint(owner.address, 10_000n);
      await token.connect(owner).approve(context.escrow, 10_000n);
      await context.escrow.connect(owner).deposit(address, 10_000n, owner.address);
      const validUntil = (await now()) + 30n * DAY;
      const { agent: elsewhere } = await open(context, { processor: other.address, token: address, validUntil });
      const { agent } = await open(context, { processor: other.address });
      const [first] = await slash(agent);
      const [second] = await slash(elsewhere, [[payee.address, 400n]], deployer);
      const [one, two] = [
        await processors.slashOf(other.address, context.token),
        await processors.slashOf(other.address, address),
      ];
      expect([one.reporter, one.owed, two.reporter, two.owed]).to.deep.equal([
        stranger.address,
        1_000n,
        deployer.address,
        400n,
      ]);
      expect(two.windowEndsAt > one.windowEndsAt).to.equal(true);
      await at(two.windowEndsAt);
      await processors.payVictim(other.address, address, idOf(second!));
      for (const [of, payment] of [
        [address, first!],
        [context.token, second!],
      ] as const)
        await expect(processors.payVictim(other.address, of, idOf(payment)))
          .to.be.revertedWithCustomError(processors, "NoVictim")
          .withArgs(idOf(payment));
      expect((await processors.slashOf(other.address, address)).pot).to.equal(5n * FLOOR - 500_000n);
    });
  });

  describe("slashing, by judges that are accounts of the test", () => {
    const [judge, challenges] = [settlement, deployer];
    const ID = `0x${"1d".repeat(32)}`;

    /** Judges of their own beside the core's registry, or one with other windows; `other` has a bond there. */
    async function judged(bond: bigint, windows?: typeof WINDOWS): Promise<ProcessorRegistry> {
      const { escrow, registry } = context;
      const links = {
        escrow,
        settlement: settlement.address,
        direct: stranger.address,
        processors: stranger.address,
        claims: stranger.address,
        gate: stranger.address,
      };
      const with_ = windows ? await new MandateRegistry__factory(deployer).deploy(links, windows) : registry;
      const deployed = await new ProcessorRegistry__factory(deployer).deploy(
        escrow,
        with_,
        judge.address,
        challenges.address,
      );
      await registerWithBond({ ...context, processors: deployed }, other, bond);
      return deployed.connect(judge);
    }

    it("both may take from bonds, as far as these reach", async () => {
      const own = await judged(100n);
      await expect(own.penalize(other.address, context.token, payee.address, 30n))
        .to.emit(own, "PenaltyPaid")
        .withArgs(other.address, context.token, payee.address, 30n);
      await expect(own.connect(challenges).penalize(other.address, context.token, stranger.address, 71n))
        .to.emit(own, "PenaltyPaid")
        .withArgs(other.address, context.token, stranger.address, 70n);
      for (const units of [0n, 1n])
        await expect(own.penalize(other.address, context.token, payee.address, units)).not.to.emit(own, "PenaltyPaid");
      expect([await creditOf(payee.address), await creditOf(stranger.address)]).to.deep.equal([30n, 70n]);
    });
    it("a bond that is slashed pays no penalty: it is its victims'", async () => {
      const own = await judged(100n);
      await own.slash(other.address, context.token, payee.address);
      await expect(own.penalize(other.address, context.token, payee.address, 30n)).not.to.emit(own, "PenaltyPaid");
      expect(await own.bondOf(other.address, context.token)).to.equal(100n);
    });
    it("counts nobody whose bond was not slashed, and each id once, whatever its payee, sum and token", async () => {
      const own = await judged(100n);
      await own.addVictim(other.address, context.token, ID, payee.address, 10n);
      expect((await own.slashOf(other.address, context.token)).owed).to.equal(0n);
      await own.slash(other.address, context.token, stranger.address);
      await own.addVictim(other.address, context.token, ID, payee.address, 10n);
      await own.connect(challenges).addVictim(other.address, context.token, ID, stranger.address, 90n);
      expect((await own.slashOf(other.address, context.token)).owed).to.equal(10n);
      await networkHelpers.time.increase(VICTIM_WINDOW);
      await own.payVictim(other.address, context.token, ID);
      expect([await creditOf(payee.address), await creditOf(stranger.address)]).to.deep.equal([10n, 0n]);
    });
    it("of nothing shares nothing", async () => {
      const own = await judged(1n);
      await own.penalize(other.address, context.token, payee.address, 1n);
      await own.slash(other.address, context.token, stranger.address);
      await own.addVictim(other.address, context.token, ID, payee.address, 10n);
      await networkHelpers.time.increase(VICTIM_WINDOW);
      await expect(own.payVictim(other.address, context.token, ID))
        .to.emit(own, "VictimPaid")
        .withArgs(other.address, context.token, ID, payee.address, 0n);
      await expect(own.finishSlash(other.address, context.token))
        .to.emit(own, "SlashFinished")
        .withArgs(other.address, context.token, 0n, 0n);
    });
    it("counts victims as long as a receipt can take to be missed, claimed and not cured", async () => {
      const windows = {
        settleBy: 24n * HOUR,
        grace: 6n * HOUR,
        acknowledge: 6n * HOUR,
        cure: 24n * HOUR,
        claim: 14n * DAY,
      };
      const own = await judged(100n, windows);
      await own.slash(other.address, context.token, stranger.address);
      const { windowEndsAt } = await own.slashOf(other.address, context.token);
      expect(windowEndsAt - (await now())).to.equal(24n * HOUR + 6n * HOUR + 14n * DAY + 24n * HOUR);
    });
    it("whatever is owed and posted: nobody gets more than is owed or there, and at least half of the rest is burned", async function () {
      this.timeout(120_000);
      await fc.assert(
        fc.asyncProperty(
          fc.bigInt({ min: 1n, max: 4n * FLOOR }),
          fc.array(fc.bigInt({ min: 1n, max: 2n * FLOOR }), { maxLength: 6 }),
          fc.nat(6),
          async (bond, owed, finishAfter) => {
            const own = await judged(bond);
            const [reporter, ...payees] = [freshKey(), ...owed.map(() => freshKey())].map(({ address }) => address);
            await own.slash(other.address, context.token, reporter!);
            const id = (index: number): string => ethers.toBeHex(index + 1, 32);
            for (const [index, units] of owed.entries())
              await own.addVictim(other.address, context.token, id(index), payees[index]!, units);
            await networkHelpers.time.increase(VICTIM_WINDOW);
            const burnedBefore = await creditOf(BURNED);
            for (const [index] of owed.entries()) {
              if (index === finishAfter) await own.finishSlash(other.address, context.token);
              await own.payVictim(other.address, context.token, id(index));
            }
            if (finishAfter >= owed.length) await own.finishSlash(other.address, context.token);

            const sum = owed.reduce((total, units) => total + units, 0n);
            const shared = bond < sum ? bond : sum;
            for (const [index, units] of owed.entries())
              expect(await creditOf(payees[index]!)).to.equal((units * shared) / sum);
            const [reward, burned] = [await creditOf(reporter!), (await creditOf(BURNED)) - burnedBefore];
            expect(reward + burned).to.equal(bond - shared);
            expect(reward * 20n <= bond - shared && reward <= 500n * 10n ** 6n && burned >= reward).to.equal(true);
            const left = await own.bondOf(other.address, context.token);
            expect(left <= BigInt(owed.length), "what rounding leaves").to.equal(true);
          },
        ),
        { numRuns: 20 },
      );
    });
  });

  it("P20 parameters_bounded: nothing here is settable but key and URI, and only by their processor", () => {
    const writes = ProcessorRegistry__factory.createInterface()
      .fragments.filter((one) => one.type === "function" && !("constant" in one && one.constant === true))
      .map((one) => ("name" in one ? one.name : ""));
    expect(writes.sort()).to.deep.equal([
      "addVictim",
      "cancelUnbonding",
      "cover",
      "finishSlash",
      "payVictim",
      "penalize",
      "register",
      "requestUnbonding",
      "rotateKey",
      "setUri",
      "slash",
      "uncover",
      "withdrawBond",
    ]);
  });
});
