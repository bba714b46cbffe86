import { expect } from "chai";
import { Signature, ZeroAddress, ZeroHash } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import { ProcessorRegistry__factory, type ProcessorRegistry } from "../../typechain-types/index.ts";
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
import { receipted } from "./receipted.ts";
import { signMandate, type Mandate } from "@bursar/protocol";

const FLOOR = 10_000n * 10n ** 6n;
const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
const VICTIM_WINDOW = 7n * DAY;
const URI = "https://other.test";

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
      await context.registry.close(agent.address);
      expect(await processors.coveredOf(other.address, context.token)).to.equal(0n);
      await tryOpen();
    });
    it("counts each token by itself, in base units", async () => {
      await registerWithBond(context, other, FLOOR);
      const token = await ethers.deployContract("TokenWithDecimals", [18]);
      const address = (await token.getAddress()) as `0x${string}`;
      await postBond(context, other, FLOOR * 10n ** 12n, token as never);
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
      await processors.withdrawBond(context.token, other.address);
      expect(await bondOf()).to.equal(0n);
    });
    it("P16 bond_outlives_receipts: a claim filed in the last second still finds the bond", async () => {
      const { agent, mandate } = await open(context, { processor: other.address });
      await processors.requestUnbonding();
      const claimsUntil = mandate.validUntil + TAIL;
      const settleBy = mandate.validUntil + WINDOWS.settleBy;
      const payment = await receipted(context, agent, { key: other, settleBy });
      await at(claimsUntil);
      await context.registry.close(agent.address);
      await networkHelpers.time.setNextBlockTimestamp(claimsUntil + 1n);
      await expect(context.claims.file([payment])).to.be.revertedWithCustomError(context.claims, "ClaimWindowOver");
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
    it("pays nothing out once the bond is slashed", async () => {
      const { agent } = await open(context, { processor: other.address });
      await processors.requestUnbonding();
      await slash(agent);
      await networkHelpers.time.increase(365n * DAY);
      await expect(processors.withdrawBond(context.token, other.address))
        .to.be.revertedWithCustomError(processors, "Slashed")
        .withArgs(other.address);
    });
  });

  /** Leaves a payment that the lock cannot pay: the owner ended the mandate with the processor before it. */
  async function slash(agent: Awaited<ReturnType<typeof open>>["agent"]): Promise<void> {
    const payment = await receipted(context, agent, { key: other });
    await context.registry.connect(owner).revoke(agent.address, 0n);
    const { base } = await context.registry.positionOf(agent.address);
    await context.registry.connect(other).acknowledge(agent.address, 0n, ethers.toBeHex(base, 32), 0n);
    await networkHelpers.time.increase(WINDOWS.settleBy + WINDOWS.grace);
    await context.claims.connect(stranger).file([payment]);
    await networkHelpers.time.increase(WINDOWS.cure);
    await context.claims.connect(stranger).resolve([payment]);
  }

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
      const slashed = await processors.slashOf(other.address, context.token);
      expect([slashed.reporter, slashed.owed, slashed.pot, slashed.finished]).to.deep.equal([
        stranger.address,
        1_000n,
        0n,
        false,
      ]);
      expect(slashed.windowEndsAt).to.equal((await now()) + VICTIM_WINDOW);
      expect((await processors.processorOf(other.address)).slashed).to.equal(true);
      await expect(tryOpen()).to.be.revertedWithCustomError(processors, "Slashed").withArgs(other.address);
      await open(context);
      expect(await bondOf(processor.address)).to.equal(BOND);
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
