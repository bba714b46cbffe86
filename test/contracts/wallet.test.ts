import { eip712Domain, signForWallet, signMandate, TYPES, type Address, type Mandate } from "@bursar/protocol";
import { expect } from "chai";
import { concat, hashMessage, id, Signature, toBeHex, TypedDataEncoder, ZeroAddress, type Wallet } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import { KeyWallet__factory, type KeyWallet } from "../../typechain-types/index.ts";
import {
  core,
  deployer,
  draft,
  ethers,
  freshKey,
  networkHelpers,
  other,
  owner,
  solidity,
  stranger,
  type Core,
} from "./fixture.ts";

const MAGIC = "0x1626ba7e";
const REFUSED = "0xffffffff";
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const admin = other;

describe("KeyWallet", () => {
  let context: Core;
  let wallet: KeyWallet;
  let address: Address;
  let key: Wallet;

  beforeEach(async () => {
    context = await core();
    key = freshKey();
    ({ wallet, address } = await deploy(key));
  });

  async function deploy(signer: Wallet): Promise<{ wallet: KeyWallet; address: Address }> {
    const deployed = await new KeyWallet__factory(deployer).deploy(admin.address, signer.address);
    return { wallet: deployed.connect(stranger), address: (await deployed.getAddress()) as Address };
  }
  async function mandateOf(owner = address): Promise<{ agent: Wallet; mandate: Mandate; digest: string }> {
    const agent = freshKey();
    const mandate = await draft(context, agent.address, { owner });
    return { agent, mandate, digest: await context.registry.hashMandate(solidity(mandate)) };
  }
  const signed = (mandate: Mandate, by = key, of = address): Promise<string> =>
    signForWallet(by, { wallet: of }, context.domain, "Mandate", mandate);

  /** Anyone deposits for the wallet. */
  async function deposit(amount: bigint): Promise<void> {
    await context.dollar.mint(stranger.address, amount);
    await context.dollar.connect(stranger).approve(context.escrow, amount);
    await context.escrow.connect(stranger).deposit(context.token, amount, address);
  }
  async function open(): Promise<Wallet> {
    const { agent, mandate } = await mandateOf();
    await deposit(mandate.budget);
    const agentSignature = await signMandate(agent, context.domain, mandate);
    await context.registry.connect(stranger).open(solidity(mandate), await signed(mandate), agentSignature);
    return agent;
  }

  describe("as an owner", () => {
    it("opens a mandate by its key's signature, whose text shows the whole mandate", async () => {
      const agent = await open();
      const record = await context.registry.mandateOf(agent.address);
      expect(record.state).to.equal(1n);
      expect(record.owner).to.equal(address);
    });
    it("revokes by its key's signature, sent by anyone", async () => {
      const agent = await open();
      const revocation = { agent: agent.address, afterSeq: 0n };
      const signature = await signForWallet(key, { wallet: address }, context.domain, "Revocation", revocation);
      await context.registry.connect(stranger).revokeWithSignature(agent.address, 0n, signature);
      expect(await context.registry.stateOf(agent.address)).to.equal(2n);
    });
    it("P4 owner_always_exits: its admin alone revokes, and takes everything out, though the key is lost", async () => {
      const agent = await open();
      const { registry, escrow, token, dollar } = context;
      const by = wallet.connect(admin);
      await by.rotate(ZeroAddress);
      await by.execute(registry, 0n, registry.interface.encodeFunctionData("revoke", [agent.address, 0n]));
      await networkHelpers.time.increase(WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim);
      await registry.connect(stranger).close(agent.address);
      const data = escrow.interface.encodeFunctionData("withdraw", [token, 10_000n, owner.address]);
      await by.execute(escrow, 0n, data);
      expect(await dollar.balanceOf(owner.address)).to.equal(10_000n);
    });
    it("says which interfaces it has, and who signs", async () => {
      expect(await wallet.getFunction("signer")()).to.equal(key.address);
      expect(await wallet.admin()).to.equal(admin.address);
      for (const [interfaceId, expected] of [
        [MAGIC, true],
        ["0x01ffc9a7", true],
        [wallet.interface.getFunction("signer").selector, true],
        [REFUSED, false],
      ] as const)
        expect(await wallet.supportsInterface(interfaceId)).to.equal(expected);
    });
  });

  describe("a signature", () => {
    it("for the wallet is valid for that message alone", async () => {
      const { mandate, digest } = await mandateOf();
      const signature = await signed(mandate);
      expect(await wallet.isValidSignature(digest, signature)).to.equal(MAGIC);
      const changed = await context.registry.hashMandate(solidity({ ...mandate, budget: mandate.budget + 1n }));
      expect(await wallet.isValidSignature(changed, signature)).to.equal(REFUSED);
      expect(await wallet.isValidSignature(id("anything"), signature)).to.equal(REFUSED);
    });
    it("that the same key gave for itself or for another wallet is none here", async () => {
      const twin = await deploy(key);
      const { mandate, digest } = await mandateOf();
      expect(await wallet.isValidSignature(digest, await signMandate(key, context.domain, mandate))).to.equal(REFUSED);
      const foreign = await signed(mandate, key, twin.address);
      expect(await twin.wallet.isValidSignature(digest, foreign)).to.equal(MAGIC);
      expect(await wallet.isValidSignature(digest, foreign)).to.equal(REFUSED);
    });
    it("that the key gave for another chain is none here", async () => {
      const { mandate } = await mandateOf();
      const elsewhere = { ...context.domain, chainId: context.domain.chainId + 1n };
      const signature = await signForWallet(key, { wallet: address }, elsewhere, "Mandate", mandate);
      const digest = TypedDataEncoder.hash(eip712Domain(elsewhere), { Mandate: TYPES.Mandate }, mandate);
      expect(await wallet.isValidSignature(digest, signature)).to.equal(REFUSED);
    });
    it("of another key is none, though it is the admin's", async () => {
      const { mandate, digest } = await mandateOf();
      const thief = freshKey();
      expect(await wallet.isValidSignature(digest, await signed(mandate, thief))).to.equal(REFUSED);
      const byAdmin = await signForWallet(admin, { wallet: address }, context.domain, "Mandate", mandate);
      expect(await wallet.isValidSignature(digest, byAdmin)).to.equal(REFUSED);
    });
    it("has one form: no mirror image, no v of 0 or 1, nothing at all, nothing torn", async () => {
      const { mandate, digest } = await mandateOf();
      const signature = await signed(mandate);
      const { r, s, v } = Signature.from(signature.slice(0, 132));
      const rest = `0x${signature.slice(132)}`;
      const form = (other: string, last: number): string => concat([r, other, toBeHex(last, 1), rest]);
      expect(form(s, v)).to.equal(signature);
      const mirror = form(toBeHex(ORDER - BigInt(s), 32), 55 - v);
      for (const malleated of [mirror, form(s, v - 27), "0x", signature.slice(0, 132), signature.slice(0, -2)])
        expect(await wallet.isValidSignature(digest, malleated)).to.equal(REFUSED);
    });
    it("of a plain text is taken as ERC-7739 nests it, and not otherwise", async () => {
      const digest = hashMessage("hello");
      const { chainId } = context.domain;
      const domain = { name: "KeyWallet", version: "1", chainId, verifyingContract: address };
      const types = { PersonalSign: [{ name: "prefixed", type: "bytes" }] };
      const nested = TypedDataEncoder.hashDomain(domain);
      const struct = ethers.keccak256(concat([id("PersonalSign(bytes prefixed)"), digest]));
      const signature = key.signingKey.sign(ethers.keccak256(concat(["0x1901", nested, struct]))).serialized;
      expect(await wallet.isValidSignature(digest, signature)).to.equal(MAGIC);
      expect(await wallet.isValidSignature(digest, await key.signMessage("hello"))).to.equal(REFUSED);
      // The same as a wallet's software signs it.
      const prefixed = concat([ethers.toUtf8Bytes("\x19Ethereum Signed Message:\n5"), ethers.toUtf8Bytes("hello")]);
      expect(await key.signTypedData(domain, types, { prefixed })).to.equal(signature);
    });
  });

  describe("rotate", () => {
    it("replaces the key at once: what the old one signed and nobody used is void", async () => {
      const { mandate, digest } = await mandateOf();
      const before = await signed(mandate);
      const next = freshKey();
      await expect(wallet.connect(admin).rotate(next.address))
        .to.emit(wallet, "SignerChanged")
        .withArgs(key.address, next.address);
      expect(await wallet.getFunction("signer")()).to.equal(next.address);
      expect(await wallet.isValidSignature(digest, before)).to.equal(REFUSED);
      expect(await wallet.isValidSignature(digest, await signed(mandate, next))).to.equal(MAGIC);
    });
    it("changes nothing for a mandate that is open", async () => {
      const agent = await open();
      await wallet.connect(admin).rotate(freshKey().address);
      expect(await context.registry.stateOf(agent.address)).to.equal(1n);
    });
    it("to nobody leaves a wallet that signs nothing, until another key is named", async () => {
      await wallet.connect(admin).rotate(ZeroAddress);
      const { mandate, digest } = await mandateOf();
      for (const signature of [await signed(mandate), "0x", `0x${"00".repeat(65)}`, `0x${"00".repeat(64)}1b`])
        expect(await wallet.isValidSignature(digest, signature)).to.equal(REFUSED);
      await wallet.connect(admin).rotate(key.address);
      expect(await wallet.isValidSignature(digest, await signed(mandate))).to.equal(MAGIC);
    });
    it("is the admin's alone: neither the key's nor a stranger's", async () => {
      await networkHelpers.setBalance(key.address, 10n ** 18n);
      await networkHelpers.impersonateAccount(key.address);
      for (const caller of [await ethers.getSigner(key.address), stranger])
        await expect(wallet.connect(caller).rotate(stranger.address))
          .to.be.revertedWithCustomError(wallet, "OnlyAdmin")
          .withArgs(caller.address, admin.address);
    });
  });

  describe("execute", () => {
    it("is the admin's alone: the key can commit money to mandates, and take none out", async () => {
      await deposit(500n);
      const data = context.escrow.interface.encodeFunctionData("withdraw", [context.token, 500n, stranger.address]);
      await networkHelpers.setBalance(key.address, 10n ** 18n);
      await networkHelpers.impersonateAccount(key.address);
      for (const caller of [await ethers.getSigner(key.address), stranger])
        await expect(wallet.connect(caller).execute(context.escrow, 0n, data))
          .to.be.revertedWithCustomError(wallet, "OnlyAdmin")
          .withArgs(caller.address, admin.address);
      expect(await context.escrow.freeOf(context.token, address)).to.equal(500n);
    });
    it("passes on what the call answers, and what it reverts with", async () => {
      const by = wallet.connect(admin);
      const { escrow, token } = context;
      const free = escrow.interface.encodeFunctionData("freeOf", [token, address]);
      await deposit(500n);
      expect(await by.execute.staticCall(escrow, 0n, free)).to.equal(toBeHex(500n, 32));
      const data = escrow.interface.encodeFunctionData("withdraw", [token, 501n, stranger.address]);
      await expect(by.execute(escrow, 0n, data))
        .to.be.revertedWithCustomError(escrow, "InsufficientFree")
        .withArgs(token, address, 501n, 500n);
    });
    it("sends the chain's coin that the wallet holds, and what comes with the call", async () => {
      const receiver = freshKey().address;
      await stranger.sendTransaction({ to: address, value: 5n });
      await wallet.connect(admin).execute(receiver, 8n, "0x", { value: 3n });
      expect(await ethers.provider.getBalance(receiver)).to.equal(8n);
      expect(await ethers.provider.getBalance(address)).to.equal(0n);
    });
  });

  it("is not deployed without an admin", async () => {
    const factory = new KeyWallet__factory(deployer);
    await expect(factory.deploy(ZeroAddress, key.address)).to.be.revertedWithCustomError(factory, "ZeroAdmin");
  });
});
