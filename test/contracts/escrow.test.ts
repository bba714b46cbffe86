import { type Address } from "@bursar/protocol";
import { expect } from "chai";
import { AbiCoder, getAddress, keccak256, Signature, ZeroAddress, ZeroHash, zeroPadValue } from "ethers";

import { readArtifact } from "../../deploy/artifact.ts";
import { TestUSD__factory, type Escrow } from "../../typechain-types/index.ts";
import { core, deployer, ethers, fund, open, other, owner, payee, settlement, stranger, type Core } from "./fixture.ts";

const mock = async (name: string, ...args: unknown[]) => {
  const { abi, bytecode } = readArtifact(name);
  const contract = await new ethers.ContractFactory(abi, bytecode, deployer).deploy(...args);
  return {
    contract: TestUSD__factory.connect(await contract.getAddress(), owner),
    address: (await contract.getAddress()) as Address,
  };
};
const token = (name: string, ...args: unknown[]) => mock(`mocks/Tokens#${name}`, ...args);

describe("Escrow", () => {
  let context: Core;
  let escrow: Escrow;
  beforeEach(async () => {
    context = await core();
    escrow = context.escrow.connect(owner);
  });

  describe("registerToken", () => {
    for (const [decimals, scale] of [
      [0n, 1n],
      [6n, 1n],
      [7n, 10n],
      [18n, 10n ** 12n],
      [24n, 10n ** 18n],
    ] as const) {
      it(`fixes the unit of a token with ${decimals} decimals at ${scale} base units`, async () => {
        const { address } = await token("TokenWithDecimals", decimals);
        await expect(escrow.registerToken(address)).to.emit(escrow, "TokenRegistered").withArgs(2n, address, scale);
        expect(await escrow.unitScale(address)).to.equal(scale);
        expect(await escrow.tokenIdOf(address)).to.equal(2n);
        expect(await escrow.tokenOf(2n)).to.equal(address);
      });
    }
    it("gives the same id again, and the next one to the next token", async () => {
      await escrow.registerToken(context.token);
      await expect(escrow.registerToken(context.token)).not.to.emit(escrow, "TokenRegistered");
      const { address } = await token("TokenWithDecimals", 6);
      await escrow.registerToken(address);
      expect(await escrow.tokenIdOf(address)).to.equal(2n);
    });
    it("refuses more than 24 decimals", async () => {
      const { address } = await token("TokenWithDecimals", 25);
      await expect(escrow.registerToken(address))
        .to.be.revertedWithCustomError(escrow, "TooManyDecimals")
        .withArgs(address, 25n, 24n);
    });
    it("refuses decimals beyond 8 bits", async () => {
      const { address } = await token("OddDecimals", AbiCoder.defaultAbiCoder().encode(["uint256"], [2n ** 200n]));
      await expect(escrow.registerToken(address))
        .to.be.revertedWithCustomError(escrow, "TooManyDecimals")
        .withArgs(address, 2n ** 200n, 24n);
    });
    it("refuses what is no token: an account, a short answer, a contract without decimals", async () => {
      const short = await token("OddDecimals", "0x06");
      for (const address of [stranger.address, short.address, await escrow.getAddress()]) {
        await expect(escrow.registerToken(address))
          .to.be.revertedWithCustomError(escrow, "NotAToken")
          .withArgs(address);
      }
    });
    it("has no unit for a token that nobody registered", async () => {
      await expect(escrow.unitScale(other.address))
        .to.be.revertedWithCustomError(escrow, "TokenNotRegistered")
        .withArgs(other.address);
    });
  });

  describe("deposit", () => {
    it("credits the beneficiary with what arrived", async () => {
      await context.dollar.connect(owner).mint(owner.address, 50n);
      await context.dollar.connect(owner).approve(escrow, 50n);
      await expect(escrow.deposit(context.token, 50n, other.address))
        .to.emit(escrow, "Deposited")
        .withArgs(context.token, other.address, owner.address, 50n);
      expect(await escrow.freeOf(context.token, other.address)).to.equal(50n);
      expect(await escrow.freeOf(context.token, owner.address)).to.equal(0n);
    });
    it("credits a token that takes a fee with what arrived", async () => {
      const { contract, address } = await token("FeeToken", 10n);
      await contract.mint(owner.address, 100n);
      await contract.approve(escrow, 100n);
      expect(await escrow.deposit.staticCall(address, 100n, owner.address)).to.equal(90n);
      await escrow.deposit(address, 100n, owner.address);
      expect(await escrow.freeOf(address, owner.address)).to.equal(90n);
    });
    it("takes a token that returns nothing", async () => {
      const { contract, address } = await token("SilentToken");
      await contract.mint(owner.address, 5n);
      await escrow.deposit(address, 5n, owner.address);
      expect(await escrow.freeOf(address, owner.address)).to.equal(5n);
      await escrow.withdraw(address, 5n, other.address);
      expect(await contract.balanceOf(other.address)).to.equal(5n);
    });
    it("refuses a token that says false", async () => {
      const { address } = await token("FalseToken");
      await expect(escrow.deposit(address, 5n, owner.address)).to.be.revertedWithCustomError(
        { interface: SAFE_ERC20 },
        "SafeERC20FailedOperation",
      );
    });
    it("refuses a token of which nothing arrives", async () => {
      const { contract, address } = await token("FeeToken", 100n);
      await contract.mint(owner.address, 100n);
      await contract.approve(escrow, 100n);
      await expect(escrow.deposit(address, 100n, owner.address))
        .to.be.revertedWithCustomError(escrow, "NothingReceived")
        .withArgs(address, 100n);
    });
    it("refuses the amount 0 and the beneficiary 0", async () => {
      await expect(escrow.deposit(context.token, 0n, owner.address)).to.be.revertedWithCustomError(
        escrow,
        "ZeroAmount",
      );
      await expect(escrow.deposit(context.token, 1n, ZeroAddress))
        .to.be.revertedWithCustomError(escrow, "InvalidBeneficiary")
        .withArgs(ZeroAddress);
    });
    it("refuses a token that calls back, out of whatever moves it and into whatever moves it", async () => {
      const { contract, address } = await token("ReentrantToken", await escrow.getAddress());
      await contract.mint(owner.address, 40n);
      await contract.approve(escrow, 40n);
      await escrow.connect(owner).deposit(address, 10n, owner.address);
      await escrow.connect(owner).deposit(address, 10n, await escrow.accountOf(owner.address, ZeroHash));
      await escrow.connect(owner).pay(address, ZeroHash, owner.address, 10n);
      const to = owner.address;
      const permit = [2n ** 40n, 27, ZeroHash, ZeroHash] as const;
      const moves: [string, readonly unknown[]][] = [
        ["deposit", [address, 10n, to]],
        ["depositWithPermit", [address, 10n, to, ...permit]],
        ["withdraw", [address, 10n, to]],
        ["withdrawCredit", [address, to]],
        ["sweepCredit", [address, to]],
        ["depositWithAuthorization", [address, to, 10n, 0n, 2n ** 40n, ZeroHash, 27, ZeroHash, ZeroHash]],
      ];
      const encoded = moves.map(([name, args]) =>
        escrow.interface.encodeFunctionData(name as "deposit", args as never),
      );
      const setCall = new ethers.Contract(address, ["function setCall(bytes)"], owner as never).getFunction("setCall");
      for (const inner of encoded) {
        await setCall(inner);
        for (const outer of encoded.slice(0, -1)) {
          await expect(owner.sendTransaction({ to: escrow, data: outer })).to.be.revertedWithCustomError(
            { interface: GUARD },
            "ReentrancyGuardReentrantCall",
          );
        }
      }
    });
  });

  describe("depositWithPermit", () => {
    async function permit(value: bigint): Promise<Signature> {
      const { dollar, domain, token: address } = context;
      const types = {
        Permit: [
          ["owner", "address"],
          ["spender", "address"],
          ["value", "uint256"],
          ["nonce", "uint256"],
          ["deadline", "uint256"],
        ].map(([name, type]) => ({ name: name!, type: type! })),
      };
      const message = {
        owner: owner.address,
        spender: await escrow.getAddress(),
        value,
        nonce: await dollar.nonces(owner.address),
        deadline: 2n ** 40n,
      };
      const separator = {
        name: await dollar.name(),
        version: (await dollar.eip712Domain()).version,
        chainId: domain.chainId,
        verifyingContract: address,
      };
      return Signature.from(await owner.signTypedData(separator, types, message));
    }
    beforeEach(() => context.dollar.connect(owner).mint(owner.address, 50n));

    it("deposits in one call", async () => {
      const { v, r, s } = await permit(50n);
      await escrow.depositWithPermit(context.token, 50n, owner.address, 2n ** 40n, v, r, s);
      expect(await escrow.freeOf(context.token, owner.address)).to.equal(50n);
    });
    it("tolerates a permit that somebody has used already", async () => {
      const { v, r, s } = await permit(50n);
      await context.dollar.connect(stranger).permit(owner.address, escrow, 50n, 2n ** 40n, v, r, s);
      await escrow.depositWithPermit(context.token, 50n, owner.address, 2n ** 40n, v, r, s);
      expect(await escrow.freeOf(context.token, owner.address)).to.equal(50n);
    });
    it("refuses without permit and allowance", async () => {
      const { v, r, s } = await permit(49n);
      await expect(
        escrow.depositWithPermit(context.token, 50n, owner.address, 2n ** 40n, v, r, s),
      ).to.be.revertedWithCustomError(context.dollar, "ERC20InsufficientAllowance");
    });
    it("names what is no token before it asks it for the permit", async () => {
      const { v, r, s } = await permit(50n);
      await expect(escrow.depositWithPermit(stranger.address, 50n, owner.address, 2n ** 40n, v, r, s))
        .to.be.revertedWithCustomError(escrow, "NotAToken")
        .withArgs(stranger.address);
    });
  });

  describe("depositWithAuthorization", () => {
    const NONCE = `0x${"0a".repeat(32)}`;
    async function authorization(value: bigint): Promise<Signature> {
      const { dollar, domain, token: address } = context;
      const types = {
        ReceiveWithAuthorization: [
          ["from", "address"],
          ["to", "address"],
          ["value", "uint256"],
          ["validAfter", "uint256"],
          ["validBefore", "uint256"],
          ["nonce", "bytes32"],
        ].map(([name, type]) => ({ name: name!, type: type! })),
      };
      const separator = {
        name: await dollar.name(),
        version: (await dollar.eip712Domain()).version,
        chainId: domain.chainId,
        verifyingContract: address,
      };
      const message = {
        from: owner.address,
        to: await escrow.getAddress(),
        value,
        validAfter: 0n,
        validBefore: 2n ** 40n,
        nonce: NONCE,
      };
      return Signature.from(await owner.signTypedData(separator, types, message));
    }
    const send = (signature: Signature, amount: bigint, from = owner.address) =>
      escrow
        .connect(stranger)
        .depositWithAuthorization(
          context.token,
          from,
          amount,
          0n,
          2n ** 40n,
          NONCE,
          signature.v,
          signature.r,
          signature.s,
        );
    beforeEach(() => context.dollar.connect(owner).mint(owner.address, 50n));

    it("deposits for its signer, whoever sends it", async () => {
      await expect(send(await authorization(50n), 50n))
        .to.emit(escrow, "Deposited")
        .withArgs(context.token, owner.address, owner.address, 50n);
      expect(await escrow.freeOf(context.token, owner.address)).to.equal(50n);
      expect(await escrow.freeOf(context.token, stranger.address)).to.equal(0n);
    });
    it("works once", async () => {
      const signature = await authorization(20n);
      await send(signature, 20n);
      await expect(send(signature, 20n)).to.revert(ethers);
    });
    it("refuses another amount and another depositor", async () => {
      const signature = await authorization(20n);
      await expect(send(signature, 21n)).to.revert(ethers);
      await expect(send(signature, 20n, stranger.address)).to.revert(ethers);
      await expect(send(signature, 0n)).to.be.revertedWithCustomError(escrow, "ZeroAmount");
    });
  });

  describe("withdraw", () => {
    beforeEach(() => fund(context, 100n));

    it("pays free balance out to whom the owner names", async () => {
      await expect(escrow.withdraw(context.token, 60n, other.address))
        .to.emit(escrow, "Withdrawn")
        .withArgs(context.token, owner.address, other.address, 60n);
      expect(await context.dollar.balanceOf(other.address)).to.equal(60n);
      expect(await escrow.freeOf(context.token, owner.address)).to.equal(40n);
    });
    it("refuses more than is free", async () => {
      await expect(escrow.withdraw(context.token, 101n, owner.address))
        .to.be.revertedWithCustomError(escrow, "InsufficientFree")
        .withArgs(context.token, owner.address, 101n, 100n);
    });
    it("refuses the amount 0, and the zero address and itself as recipient", async () => {
      await expect(escrow.withdraw(context.token, 0n, owner.address)).to.be.revertedWithCustomError(
        escrow,
        "ZeroAmount",
      );
      for (const to of [ZeroAddress, await escrow.getAddress()]) {
        await expect(escrow.withdraw(context.token, 1n, to))
          .to.be.revertedWithCustomError(escrow, "InvalidRecipient")
          .withArgs(to);
      }
    });
    it("P3 locked_funds_not_spendable_elsewhere: what a mandate locks can be neither withdrawn nor locked again", async () => {
      await open(context, { budget: 1_000n });
      await expect(escrow.withdraw(context.token, 101n, owner.address))
        .to.be.revertedWithCustomError(escrow, "InsufficientFree")
        .withArgs(context.token, owner.address, 101n, 100n);
      await escrow.withdraw(context.token, 100n, owner.address);
      expect(await escrow.lockedOf(context.token)).to.equal(1_000n);
    });
    it("is refused while the token is paused, and works after", async () => {
      await context.dollar.connect(deployer).pause();
      await expect(escrow.withdraw(context.token, 1n, owner.address)).to.revert(ethers);
      await context.dollar.connect(deployer).unpause();
      await escrow.withdraw(context.token, 1n, owner.address);
    });
  });

  describe("credits", () => {
    /** Settles through the registry, with the test as settlement contract: one unit-priced row. */
    async function creditPayees(amounts: readonly (readonly [string, bigint])[]): Promise<void> {
      const { settleOne } = await import("./settle-one.ts");
      await settleOne(context, amounts);
    }
    it("are withdrawn by the payee to whom it likes", async () => {
      await creditPayees([[payee.address, 30n]]);
      expect(await escrow.creditOf(context.token, payee.address)).to.equal(30n);
      await expect(escrow.connect(payee).withdrawCredit(context.token, other.address))
        .to.emit(escrow, "CreditWithdrawn")
        .withArgs(context.token, payee.address, other.address, 30n);
      expect(await context.dollar.balanceOf(other.address)).to.equal(30n);
      expect(await escrow.creditOf(context.token, payee.address)).to.equal(0n);
    });
    it("are swept by anyone, to the payee only", async () => {
      await creditPayees([[payee.address, 30n]]);
      await escrow.connect(stranger).sweepCredit(context.token, payee.address);
      expect(await context.dollar.balanceOf(payee.address)).to.equal(30n);
      expect(await context.dollar.balanceOf(stranger.address)).to.equal(0n);
    });
    it("are paid once", async () => {
      await creditPayees([[payee.address, 30n]]);
      await escrow.sweepCredit(context.token, payee.address);
      await expect(escrow.sweepCredit(context.token, payee.address))
        .to.be.revertedWithCustomError(escrow, "NoCredit")
        .withArgs(context.token, payee.address);
      await expect(escrow.connect(other).withdrawCredit(context.token, other.address)).to.be.revertedWithCustomError(
        escrow,
        "NoCredit",
      );
      await expect(escrow.connect(payee).withdrawCredit(context.token, ZeroAddress)).to.be.revertedWithCustomError(
        escrow,
        "InvalidRecipient",
      );
    });
    it("I16: a payee that the token blocks waits alone, and may take its credit elsewhere", async () => {
      await creditPayees([
        [payee.address, 30n],
        [other.address, 20n],
      ]);
      await context.dollar.connect(deployer).setBlocked(payee.address, true);
      await expect(escrow.sweepCredit(context.token, payee.address)).to.revert(ethers);
      await escrow.sweepCredit(context.token, other.address);
      await escrow.connect(payee).withdrawCredit(context.token, stranger.address);
      expect(await context.dollar.balanceOf(stranger.address)).to.equal(30n);
    });
    it("that do not sum up to the debits are refused", async () => {
      const { settleOne } = await import("./settle-one.ts");
      await expect(settleOne(context, [[payee.address, 30n]], 31n))
        .to.be.revertedWithCustomError(escrow, "CreditsDifferFromDebits")
        .withArgs(30n, 31n);
    });
  });

  describe("sub-accounts", () => {
    const SALT = zeroPadValue("0x07", 32);
    let account: Address;
    beforeEach(async () => {
      account = (await escrow.accountOf(owner.address, SALT)) as Address;
    });
    const pay = (amount: bigint, to: string = other.address, salt = SALT) =>
      escrow.pay(context.token, salt, to, amount);
    const balances = async (): Promise<bigint[]> => [
      await escrow.freeOf(context.token, account),
      await escrow.creditOf(context.token, account),
      await escrow.balanceOf(context.token, account),
    ];
    /** Gives the sub-account 30 by deposit and 20 by settlement. */
    async function fill(): Promise<void> {
      const { settleOne } = await import("./settle-one.ts");
      await context.dollar.connect(owner).mint(owner.address, 30n);
      await context.dollar.connect(owner).approve(escrow, 30n);
      await escrow.deposit(context.token, 30n, account);
      await settleOne(context, [[account, 20n]]);
    }

    it("are named by controller and salt, each another", async () => {
      const expected = keccak256(
        AbiCoder.defaultAbiCoder().encode(["address", "bytes32"], [owner.address, SALT]),
      ).slice(-34);
      expect(account).to.equal(getAddress(`0x737562${expected}`));
      expect(await escrow.accountOf(stranger.address, SALT)).not.to.equal(account);
      expect(await escrow.accountOf(owner.address, ZeroHash)).not.to.equal(account);
    });
    it("hold what is deposited for them and what settlements credit them", async () => {
      await fill();
      expect(await balances()).to.deep.equal([30n, 20n, 50n]);
    });
    it("pay the free balance first, then credit, and nothing is made or lost", async () => {
      await fill();
      const held = await context.dollar.balanceOf(escrow);
      await expect(pay(25n)).to.emit(escrow, "Paid").withArgs(context.token, account, other.address, 25n);
      expect(await balances()).to.deep.equal([5n, 20n, 25n]);
      await pay(15n);
      expect(await balances()).to.deep.equal([0n, 10n, 10n]);
      await pay(10n);
      expect(await balances()).to.deep.equal([0n, 0n, 0n]);
      expect(await escrow.creditOf(context.token, other.address)).to.equal(50n);
      expect(await escrow.freeOf(context.token, other.address)).to.equal(0n);
      expect(await context.dollar.balanceOf(escrow)).to.equal(held);
      await escrow.connect(stranger).sweepCredit(context.token, other.address);
      expect(await context.dollar.balanceOf(other.address)).to.equal(50n);
    });
    it("are not swept: nobody could take the tokens where they would go", async () => {
      await fill();
      await expect(escrow.connect(stranger).sweepCredit(context.token, account))
        .to.be.revertedWithCustomError(escrow, "SubAccount")
        .withArgs(account);
      expect(await balances()).to.deep.equal([30n, 20n, 50n]);
    });
    it("pay themselves without making money", async () => {
      await fill();
      await pay(40n, account);
      expect(await balances()).to.deep.equal([0n, 50n, 50n]);
      await pay(50n, account);
      expect(await balances()).to.deep.equal([0n, 50n, 50n]);
    });
    it("pay while the token is paused: nothing calls it", async () => {
      await fill();
      await context.dollar.connect(deployer).pause();
      await pay(50n);
      expect(await escrow.creditOf(context.token, other.address)).to.equal(50n);
    });
    it("are their controller's alone", async () => {
      await fill();
      for (const signer of [stranger, deployer, payee]) {
        const own = await escrow.accountOf(signer.address, SALT);
        await expect(escrow.connect(signer).pay(context.token, SALT, signer.address, 1n))
          .to.be.revertedWithCustomError(escrow, "InsufficientBalance")
          .withArgs(context.token, own, 1n, 0n);
      }
      const wrong = await escrow.accountOf(owner.address, ZeroHash);
      await expect(pay(1n, other.address, ZeroHash))
        .to.be.revertedWithCustomError(escrow, "InsufficientBalance")
        .withArgs(context.token, wrong, 1n, 0n);
      expect(await balances()).to.deep.equal([30n, 20n, 50n]);
    });
    it("do not reach their controller's own balance, nor another token's", async () => {
      await fund(context, 100n);
      await expect(pay(1n))
        .to.be.revertedWithCustomError(escrow, "InsufficientBalance")
        .withArgs(context.token, account, 1n, 0n);
      await fill();
      const { address } = await token("TokenWithDecimals", 6);
      await expect(escrow.pay(address, SALT, other.address, 1n))
        .to.be.revertedWithCustomError(escrow, "InsufficientBalance")
        .withArgs(address, account, 1n, 0n);
    });
    it("refuse more than they hold, by one", async () => {
      await fill();
      await expect(pay(51n))
        .to.be.revertedWithCustomError(escrow, "InsufficientBalance")
        .withArgs(context.token, account, 51n, 50n);
      await pay(50n);
      await expect(pay(1n))
        .to.be.revertedWithCustomError(escrow, "InsufficientBalance")
        .withArgs(context.token, account, 1n, 0n);
    });
    it("refuse the amount 0, and the zero address and the escrow as recipient", async () => {
      await fill();
      await expect(pay(0n)).to.be.revertedWithCustomError(escrow, "ZeroAmount");
      for (const to of [ZeroAddress, await escrow.getAddress()]) {
        await expect(pay(1n, to)).to.be.revertedWithCustomError(escrow, "InvalidRecipient").withArgs(to);
      }
      expect(await balances()).to.deep.equal([30n, 20n, 50n]);
    });
    it("keep the credits of payees that a sub-account pays beside a settlement", async () => {
      const { settleOne } = await import("./settle-one.ts");
      await settleOne(context, [[other.address, 5n]]);
      await fill();
      await pay(1n);
      expect(await escrow.creditOf(context.token, other.address)).to.equal(6n);
    });
  });

  it("P17 sp_cannot_take: lock, release and settle are the registry's alone", async () => {
    const registry = await context.registry.getAddress();
    expect(await escrow.registry()).to.equal(registry);
    for (const signer of [owner, stranger, deployer, settlement]) {
      const as = escrow.connect(signer);
      await expect(as.lock(1n, owner.address, 1n))
        .to.be.revertedWithCustomError(escrow, "OnlyRegistry")
        .withArgs(signer.address, registry);
      await expect(as.release(1n, owner.address, 1n))
        .to.be.revertedWithCustomError(escrow, "OnlyRegistry")
        .withArgs(signer.address, registry);
      await expect(as.settle(1n, 1n, []))
        .to.be.revertedWithCustomError(escrow, "OnlyRegistry")
        .withArgs(signer.address, registry);
    }
  });
});

const SAFE_ERC20 = new ethers.Interface(["error SafeERC20FailedOperation(address token)"]);
const GUARD = new ethers.Interface(["error ReentrancyGuardReentrantCall()"]);
