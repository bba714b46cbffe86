import { expect } from "chai";
import { id, MaxUint256, Signature, type Signer, type TypedDataDomain, type TypedDataField } from "ethers";

import {
  AuthorizationBatch__factory,
  ConfiguredChannels__factory,
  DebitWallet__factory,
  LeanChannels__factory,
  TestUSD__factory,
} from "../../typechain-types/index.ts";
import { deployer, networkHelpers, now, other, owner, payee, stranger } from "./fixture.ts";
import { TRANSFER_TYPES } from "./sign-direct.ts";

const DEPOSIT = 1_000n;
const FOREVER = 2n ** 40n;

async function deployPeers() {
  const dollar = await new TestUSD__factory(deployer).deploy();
  const authorizations = await new AuthorizationBatch__factory(deployer).deploy(dollar);
  const wallet = await new DebitWallet__factory(deployer).deploy(dollar);
  const lean = await new LeanChannels__factory(deployer).deploy(dollar);
  const configured = await new ConfiguredChannels__factory(deployer).deploy();
  await dollar.mint(owner.address, 10n * DEPOSIT);
  for (const contract of [wallet, lean, configured]) await dollar.connect(owner).approve(contract, MaxUint256);
  return { dollar, authorizations, wallet, lean, configured };
}

const peers = (): ReturnType<typeof deployPeers> => networkHelpers.loadFixture(deployPeers);

interface Domained {
  eip712Domain(): Promise<{ name: string; version: string; chainId: bigint; verifyingContract: string }>;
}

async function sign(
  signer: Signer,
  contract: Domained,
  types: Record<string, TypedDataField[]>,
  message: object,
): Promise<Signature> {
  const { name, version, chainId, verifyingContract } = await contract.eip712Domain();
  const domain: TypedDataDomain = { name, version, chainId, verifyingContract };
  return Signature.from(await signer.signTypedData(domain, types, message));
}

const fields = (text: string): TypedDataField[] =>
  text.split(",").map((field) => {
    const [type, name] = field.split(" ");
    return { type: type!, name: name! };
  });

describe("EIP-3009 in batches", () => {
  const authorize = async ({ dollar }: Awaited<ReturnType<typeof peers>>, nonce: string, signer: Signer = owner) => {
    const message = {
      from: owner.address,
      to: payee.address,
      value: 5n,
      validAfter: 0n,
      validBefore: FOREVER,
      nonce: id(nonce),
    };
    const { v, r, s } = await sign(signer, dollar, TRANSFER_TYPES, message);
    return { ...message, v, r, s };
  };

  it("moves what each authorization says", async () => {
    const context = await peers();
    await context.authorizations.transfer([await authorize(context, "a"), await authorize(context, "b")]);
    expect(await context.dollar.balanceOf(payee.address)).to.equal(10n);
  });

  it("refuses an authorization twice, and with it the batch", async () => {
    const context = await peers();
    const one = await authorize(context, "a");
    await expect(context.authorizations.transfer([one, one])).to.be.revertedWithCustomError(
      context.dollar,
      "AuthorizationSpent",
    );
    expect(await context.dollar.balanceOf(payee.address)).to.equal(0n);
  });

  it("refuses another's signature", async () => {
    const context = await peers();
    await expect(
      context.authorizations.transfer([await authorize(context, "a", stranger)]),
    ).to.be.revertedWithCustomError(context.dollar, "AuthorizationSigner");
  });
});

describe("the debit wallet", () => {
  const types = {
    Debit: fields("address owner,address payee,uint128 amount,uint64 nonce,uint64 deadline,bytes32 ref"),
  };
  const funded = async () => {
    const context = await peers();
    await context.wallet.connect(owner).deposit(DEPOSIT);
    return context;
  };
  const debit = async (
    { wallet }: Awaited<ReturnType<typeof peers>>,
    nonce: bigint,
    { amount = 5n, deadline = FOREVER, signer = owner } = {},
  ) => {
    const message = { owner: owner.address, payee: payee.address, amount, nonce, deadline, ref: id("ref") };
    const { r, yParityAndS } = await sign(signer, wallet, types, message);
    return { ...message, r, vs: yParityAndS };
  };

  it("credits the payee for each debit and pays the credit out once", async () => {
    const context = await funded();
    await context.wallet.settle([await debit(context, 0n), await debit(context, 300n, { amount: 7n })]);
    expect(await context.wallet.balanceOf(owner.address)).to.equal(DEPOSIT - 12n);
    await context.wallet.payOut(payee.address);
    await context.wallet.payOut(payee.address);
    expect(await context.dollar.balanceOf(payee.address)).to.equal(12n);
  });

  it("refuses a debit twice", async () => {
    const context = await funded();
    const one = await debit(context, 1n);
    await context.wallet.settle([one]);
    await expect(context.wallet.settle([one]))
      .to.be.revertedWithCustomError(context.wallet, "DebitUsedAlready")
      .withArgs(owner.address, 1n);
  });

  it("refuses another's signature, another amount, a late debit and more than was deposited", async () => {
    const context = await funded();
    const { wallet } = context;
    const refused = async (one: Awaited<ReturnType<typeof debit>>, error: string): Promise<void> =>
      expect(wallet.settle([one])).to.be.revertedWithCustomError(wallet, error);
    await refused(await debit(context, 0n, { signer: stranger }), "WrongSigner");
    await refused({ ...(await debit(context, 0n)), amount: 6n }, "WrongSigner");
    await refused(await debit(context, 0n, { deadline: (await now()) - 1n }), "DebitExpired");
    await expect(wallet.settle([await debit(context, 0n, { amount: DEPOSIT + 1n })])).to.be.revertedWithPanic(0x11);
  });
});

describe("lean channels", () => {
  const types = { Voucher: fields("address payer,address payee,uint128 total") };
  const funded = async () => {
    const context = await peers();
    await context.lean.connect(owner).deposit(payee.address, DEPOSIT);
    await context.lean.connect(owner).deposit(other.address, DEPOSIT);
    return context;
  };
  const voucher = async (
    { lean }: Awaited<ReturnType<typeof peers>>,
    total: bigint,
    { to = payee.address, signer = owner } = {},
  ) => {
    const { r, yParityAndS } = await sign(signer, lean, types, { payer: owner.address, payee: to, total });
    return { payer: owner.address, total, r, vs: yParityAndS };
  };

  it("credits each payee what its vouchers added, and pays it out", async () => {
    const context = await funded();
    const { lean, dollar } = context;
    await lean.claim([{ payee: payee.address, vouchers: [await voucher(context, 5n)] }]);
    await lean.claim([
      { payee: payee.address, vouchers: [await voucher(context, 9n), await voucher(context, 11n)] },
      { payee: other.address, vouchers: [await voucher(context, 7n, { to: other.address })] },
    ]);
    await lean.payOut(payee.address);
    await lean.payOut(other.address);
    expect(await dollar.balanceOf(payee.address)).to.equal(11n);
    expect(await dollar.balanceOf(other.address)).to.equal(7n);
  });

  it("refuses a voucher twice", async () => {
    const context = await funded();
    const claim = [{ payee: payee.address, vouchers: [await voucher(context, 5n)] }];
    await context.lean.claim(claim);
    await expect(context.lean.claim(claim)).to.be.revertedWithCustomError(context.lean, "NothingNew").withArgs(5n, 5n);
  });

  it("refuses another's signature, another payee's voucher and more than was deposited", async () => {
    const context = await funded();
    const { lean } = context;
    const refused = async (to: string, one: Awaited<ReturnType<typeof voucher>>, error: string): Promise<void> =>
      expect(lean.claim([{ payee: to, vouchers: [one] }])).to.be.revertedWithCustomError(lean, error);
    await refused(payee.address, await voucher(context, 5n, { signer: stranger }), "WrongSigner");
    await refused(other.address, await voucher(context, 5n), "WrongSigner");
    await refused(payee.address, await voucher(context, DEPOSIT + 1n), "AboveDeposit");
  });
});

describe("channels in x402's shape", () => {
  const types = { Voucher: fields("bytes32 channelId,uint128 ceiling") };
  const funded = async () => {
    const context = await peers();
    const terms = {
      payer: owner.address,
      payerSigner: owner.address,
      payee: payee.address,
      payeeSigner: other.address,
      token: await context.dollar.getAddress(),
      withdrawDelay: 900n,
      salt: id("salt"),
    };
    await context.configured.connect(owner).deposit(terms, DEPOSIT);
    return { ...context, terms };
  };
  const redemption = async (
    { configured, terms }: Awaited<ReturnType<typeof funded>>,
    total: bigint,
    { ceiling = total, signer = owner } = {},
  ) => {
    const channelId = await configured.idOf(terms);
    const { serialized } = await sign(signer, configured, types, { channelId, ceiling });
    return { terms, ceiling, total, signature: serialized };
  };

  it("counts what is new, and settles it by one transfer", async () => {
    const context = await funded();
    const { configured, dollar, terms } = context;
    await configured.connect(other).claim([await redemption(context, 5n)]);
    await configured.connect(payee).claim([await redemption(context, 9n, { ceiling: 20n })]);
    await configured.settle(payee.address, terms.token);
    expect(await dollar.balanceOf(payee.address)).to.equal(9n);
  });

  it("counts a voucher once", async () => {
    const context = await funded();
    const { configured, dollar, terms } = context;
    for (let i = 0; i < 2; ++i) await configured.connect(other).claim([await redemption(context, 5n)]);
    await configured.settle(payee.address, terms.token);
    await configured.settle(payee.address, terms.token);
    expect(await dollar.balanceOf(payee.address)).to.equal(5n);
  });

  it("refuses another's signature, other terms, more than was signed or deposited, and who is not the payee's", async () => {
    const context = await funded();
    const { configured, terms } = context;
    const refused = async (one: Awaited<ReturnType<typeof redemption>>, error: string, by = other): Promise<void> =>
      expect(configured.connect(by).claim([one])).to.be.revertedWithCustomError(configured, error);
    await refused(await redemption(context, 5n, { signer: stranger }), "WrongSigner");
    await refused(
      { ...(await redemption(context, 5n)), terms: { ...terms, salt: id("another") } },
      "AboveDeposit", // a channel of its own, with nothing in it
    );
    await refused(await redemption(context, 6n, { ceiling: 5n }), "AboveCeiling");
    await refused(await redemption(context, DEPOSIT + 1n), "AboveDeposit");
    await refused(await redemption(context, 5n), "NotPayeeSide", stranger);
  });
});
