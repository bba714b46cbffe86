import type { Address } from "@bursar/protocol";
import { expect } from "chai";
import { Signature, toBeHex, TypedDataEncoder, ZeroAddress, ZeroHash, type Signer } from "ethers";

import { readArtifact } from "../../deploy/artifact.ts";
import { WINDOWS } from "../../deploy/index.ts";
import { DirectSettlement__factory, type DirectSettlement } from "../../typechain-types/index.ts";
import {
  bond,
  BOND,
  core,
  DAY,
  deployer,
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
  stranger,
  type Core,
} from "./fixture.ts";
import { signRow } from "./settle-one.ts";
import {
  debitDomain,
  REF,
  signDebit,
  signTransfer,
  transferDomain,
  type Order,
  type SignedDebit,
  type SignedTransfer,
} from "./sign-direct.ts";

const [OPEN, REVOKED, CLOSED] = [1n, 2n, 4n];
const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

type Signed = SignedTransfer | SignedDebit;

/** One of the two messages: how it is signed, sent and looked up, and what changes its meaning. */
interface Form {
  readonly name: string;
  sign(context: Core, agent: Signer, order: Order): Promise<Signed>;
  send(contract: DirectSettlement, signed: readonly Signed[]): ReturnType<DirectSettlement["debit"]>;
  isUsed(contract: DirectSettlement, agent: string, nonce: bigint): Promise<boolean>;
  /** The same signed bytes with another value in each signed member. */
  altered(signed: Signed): Signed[];
  readonly expired: string;
  readonly used: string;
  usedArgs(agent: string, nonce: bigint): unknown[];
}

const FORMS: readonly Form[] = [
  {
    name: "EIP-3009 authorizations",
    sign: signTransfer,
    send: (contract, signed) => contract.transferWithAuthorizations(signed as SignedTransfer[]),
    isUsed: (contract, agent, nonce) => contract.authorizationState(agent, toBeHex(nonce, 32)),
    altered: (signed) => {
      const one = signed as SignedTransfer;
      return [
        { ...one, to: other.address },
        { ...one, value: BigInt(one.value) + 1n },
        { ...one, validAfter: BigInt(one.validAfter) + 1n },
        { ...one, validBefore: BigInt(one.validBefore) - 1n },
        { ...one, nonce: toBeHex(99n, 32) },
      ];
    },
    expired: "AuthorizationExpired",
    used: "AuthorizationUsedAlready",
    usedArgs: (agent, nonce) => [agent, toBeHex(nonce, 32)],
  },
  {
    name: "AEP2 debits",
    sign: signDebit,
    send: (contract, signed) => contract.debit(signed as SignedDebit[]),
    isUsed: (contract, agent, nonce) => contract.debitState(agent, nonce),
    altered: (signed) => {
      const one = signed as SignedDebit;
      return [
        { ...one, token: other.address },
        { ...one, payee: other.address },
        { ...one, amount: BigInt(one.amount) + 1n },
        { ...one, nonce: 99n },
        { ...one, deadline: BigInt(one.deadline) - 1n },
        { ...one, ref: toBeHex(1n, 32) },
      ];
    },
    expired: "DebitExpired",
    used: "DebitUsedAlready",
    usedArgs: (agent, nonce) => [agent, nonce],
  },
];

describe("DirectSettlement", () => {
  let context: Core;
  let direct: DirectSettlement;
  beforeEach(async () => {
    context = await core();
    direct = context.direct.connect(processor);
  });

  const creditOf = (account: Address): Promise<bigint> => context.escrow.creditOf(context.token, account);

  for (const form of FORMS) {
    describe(form.name, () => {
      const sign = (agent: Signer, order: Partial<Order> = {}): Promise<Signed> =>
        form.sign(context, agent, { payee: payee.address, value: 300n, ...order });
      const send = (...signed: Signed[]) => form.send(direct, signed);
      const refusal = async (sent: Promise<unknown>, error: string, ...args: unknown[]): Promise<void> => {
        const emitter = direct.interface.getError(error) ? direct : context.registry;
        const expected = expect(sent).to.be.revertedWithCustomError(emitter, error);
        await (args.length > 0 ? expected.withArgs(...args) : expected);
      };

      it("credit the payee from the lock, and leave base, seq and spent untouched", async () => {
        const { agent } = await open(context);
        const before = fields(await context.registry.mandateOf(agent.address));
        await send(await sign(agent));
        expect(fields(await context.registry.mandateOf(agent.address))).to.deep.equal({ ...before, directSpent: 300n });
        expect(await context.registry.remainingOf(agent.address)).to.equal(9_700n);
        expect(await creditOf(payee.address)).to.equal(300n);
        expect(await context.escrow.lockedOf(context.token)).to.equal(9_700n);
        expect(await form.isUsed(direct, agent.address, 1n)).to.equal(true);
        expect(await form.isUsed(direct, agent.address, 2n)).to.equal(false);
        expect(await form.isUsed(direct, stranger.address, 1n)).to.equal(false);
      });
      it("pay in their only second, and the payee takes it out", async () => {
        const { agent } = await open(context);
        const time = (await now()) + 10n;
        await networkHelpers.time.setNextBlockTimestamp(time);
        await send(await sign(agent, { since: time, until: time }));
        await context.escrow.connect(payee).withdrawCredit(context.token, payee.address);
        expect(await context.dollar.balanceOf(payee.address)).to.equal(300n);
      });
      it("are refused after their last second", async () => {
        const { agent } = await open(context);
        const time = (await now()) + 10n;
        const signed = await sign(agent, { until: time - 1n });
        await networkHelpers.time.setNextBlockTimestamp(time);
        const limit = form.name.startsWith("AEP2") ? time - 1n : time;
        await refusal(send(signed), form.expired, time, limit);
      });

      it("P6 no_agent_signature_no_debit: pay nothing that the agent did not sign so", async () => {
        const { agent } = await open(context);
        for (const altered of form.altered(await sign(agent))) await refusal(send(altered), "WrongSigner");
        for (const signer of [owner, processor, stranger])
          await refusal(send(await sign(agent, { signer })), "WrongSigner", agent.address, signer.address, 0n);
      });
      it("P6: count in no other domain: chain, contract, name, version", async () => {
        const { agent } = await open(context);
        for (const domain of [
          { chainId: 1n },
          { verifyingContract: await context.registry.getAddress() },
          { verifyingContract: context.token },
          { name: "Bursar" },
          { version: "2" },
        ])
          await refusal(send(await sign(agent, { domain })), "WrongSigner");
      });
      it("P6: are taken in one form of signature only: 65 bytes, low s, v 27 or 28", async () => {
        const { agent } = await open(context);
        const signed = await sign(agent);
        const { r, s, v, compactSerialized } = Signature.from(String(signed.signature));
        const high = `${r}${(ORDER - BigInt(s)).toString(16).padStart(64, "0")}${(55 - v).toString(16)}`;
        const parity = `${String(signed.signature).slice(0, -2)}0${v - 27}`;
        const flipped = `${String(signed.signature).slice(0, -2)}${(55 - v).toString(16)}`;
        for (const signature of [high, parity, flipped, compactSerialized, "0x", `${String(signed.signature)}00`])
          await refusal(send({ ...signed, signature }), "WrongSigner");
        await send(signed);
      });
      it("P6: a key that has code (EIP-7702, ERC-1271) is asked for its signature all the same", async () => {
        const { agent } = await open(context);
        const { abi, bytecode } = readArtifact("mocks/OwnerWallets#OwnerWallet");
        const wallet = await new ethers.ContractFactory(abi, bytecode, deployer).deploy(stranger.address);
        const code = await ethers.provider.getCode(await wallet.getAddress());
        await networkHelpers.setCode(agent.address, code);
        await refusal(send(await sign(agent, { signer: stranger })), "WrongSigner");
        await send(await sign(agent));
      });

      it("P9 pay_once: each nonce of an agent pays once, for ever", async () => {
        const { agent } = await open(context);
        const signed = await sign(agent);
        await send(signed);
        await refusal(send(signed), form.used, ...form.usedArgs(agent.address, 1n));
        const again = await sign(agent, { value: 1n, payee: other.address });
        await refusal(send(again), form.used, ...form.usedArgs(agent.address, 1n));
        expect(await creditOf(payee.address)).to.equal(300n);
      });
      it("P9: not twice in one call either", async () => {
        const { agent } = await open(context);
        const signed = await sign(agent);
        await refusal(send(signed, signed), form.used, ...form.usedArgs(agent.address, 1n));
        expect(await form.isUsed(direct, agent.address, 1n)).to.equal(false);
      });
      it("P9: nonces are each agent's own, and neighbours do not touch", async () => {
        const [one, two] = [await open(context), await open(context)];
        for (const nonce of [0n, 1n, 255n, 256n, 2n ** 256n - 1n])
          await send(await sign(one.agent, { nonce }), await sign(two.agent, { nonce }));
        expect(await creditOf(payee.address)).to.equal(3_000n);
        for (const nonce of [2n, 254n, 257n])
          expect(await form.isUsed(direct, one.agent.address, nonce)).to.equal(false);
      });

      it("P2 no_payment_above_cap_or_off_allowlist: pay up to the cap and nothing above", async () => {
        const { agent } = await open(context);
        for (const value of [1_001n, 2n ** 40n, 2n ** 64n + 1n, 2n ** 256n - 1n]) {
          const sent = send(await sign(agent, { value }));
          await refusal(sent, "PaymentAboveCap", agent.address, value, 1_000n);
        }
        await send(await sign(agent, { value: 1_000n }));
      });
      it("P2: the largest cap pays no more than the budget", async () => {
        const { agent } = await open(context, { paymentCap: 10_000n });
        await refusal(send(await sign(agent, { value: 10_001n })), "PaymentAboveCap");
        await send(await sign(agent, { value: 10_000n }));
      });
      it("refuse a payment of nothing", async () => {
        const { agent } = await open(context);
        await refusal(send(await sign(agent, { value: 0n })), "ZeroPayment", agent.address);
      });
      it("P2: pay every payee of the list, and nobody else", async () => {
        const payees = [payee.address, other.address];
        const { agent } = await open(context, { payees });
        const outside = await sign(agent, { payee: stranger.address, payees });
        await refusal(send(outside), "PayeeNotAllowed", agent.address, stranger.address);
        await send(await sign(agent, { payees }), await sign(agent, { payee: other.address, nonce: 2n, payees }));
        expect([await creditOf(payee.address), await creditOf(other.address)]).to.deep.equal([300n, 300n]);
      });
      it("P2: take no other list than the owner's: none, shorter, longer, in another order", async () => {
        const payees = [payee.address, other.address];
        const { agent } = await open(context, { payees });
        const lists = [[], [payee.address], [...payees, stranger.address], [other.address, payee.address]];
        for (const wrong of lists)
          await refusal(send(await sign(agent, { payees: wrong })), "PayeesMismatch", agent.address);
        const { agent: free } = await open(context);
        await refusal(send(await sign(free, { payees: [payee.address] })), "PayeesMismatch", free.address);
      });
      it("refuse as payee the zero address, the token and the contracts themselves", async () => {
        const { agent } = await open(context);
        for (const contract of [
          ZeroAddress,
          context.token,
          await context.registry.getAddress(),
          await context.escrow.getAddress(),
          settlement.address,
          await direct.getAddress(),
          await context.claims.getAddress(),
          await context.processors.getAddress(),
        ])
          await refusal(send(await sign(agent, { payee: contract as Address })), "InvalidPayee", contract);
      });

      it("P1 debits_never_exceed_budget: share the budget with batches, and are refused beyond", async () => {
        const { agent } = await open(context);
        const batch = async (amount: bigint) => {
          const row = await signRow(context, agent, payee.address, amount);
          const credits = [{ payee: payee.address, amount }];
          return context.registry.connect(settlement).settle(processor.address, [row], credits);
        };
        await batch(9_600n);
        await send(await sign(agent));
        const tooMuch = await sign(agent, { value: 101n, nonce: 2n });
        await refusal(send(tooMuch), "BudgetExceeded", agent.address, 10_001n, 10_000n);
        await refusal(batch(101n), "BudgetExceeded", agent.address, 10_001n, 10_000n);
        await send(await sign(agent, { value: 60n, nonce: 3n }));
        await batch(40n);
        expect(fields(await context.registry.mandateOf(agent.address))).to.deep.include({
          spent: 9_640n,
          directSpent: 360n,
          seq: 2n,
        });
        expect(await context.registry.remainingOf(agent.address)).to.equal(0n);
      });
      it("a batch that was signed before a direct payment settles after it", async () => {
        const { agent } = await open(context);
        const row = await signRow(context, agent, payee.address, 500n);
        await send(await sign(agent));
        const credits = [{ payee: payee.address, amount: 500n }];
        await context.registry.connect(settlement).settle(processor.address, [row], credits);
        expect(await creditOf(payee.address)).to.equal(800n);
      });
      it("P3 locked_funds_not_spendable_elsewhere: never touch the lock of another mandate", async () => {
        const { agent } = await open(context, { budget: 1_000n });
        await open(context);
        await send(await sign(agent, { value: 1_000n }));
        await refusal(
          send(await sign(agent, { value: 1n, nonce: 2n })),
          "BudgetExceeded",
          agent.address,
          1_001n,
          1_000n,
        );
        expect(await context.escrow.lockedOf(context.token)).to.equal(10_000n);
      });
      it("P4 owner_always_exits: the owner gets back what neither rail spent", async () => {
        const { agent, mandate } = await open(context);
        await send(await sign(agent));
        await networkHelpers.time.increaseTo(mandate.validUntil + TAIL);
        await expect(context.registry.close(agent.address))
          .to.emit(context.registry, "MandateClosed")
          .withArgs(agent.address, owner.address, 9_700n);
        expect(await context.escrow.freeOf(context.token, owner.address)).to.equal(9_700n);
      });

      it("P17 sp_cannot_take: are the mandate's processor's to send, and nobody else's", async () => {
        const { agent } = await open(context);
        const signed = await sign(agent);
        for (const signer of [stranger, owner, payee, settlement]) {
          const sent = form.send(context.direct.connect(signer), [signed]);
          await refusal(sent, "WrongProcessor", agent.address, signer.address, processor.address);
        }
        await send(signed);
      });
      it("P5 revoke_is_final: settle after the end, and after a revocation what was acknowledged, until the mandate can be closed, and never after", async () => {
        const { agent, mandate } = await open(context);
        const { agent: revoked } = await open(context, { validUntil: mandate.validUntil + 10n * DAY });
        await context.registry.connect(owner).revoke(revoked.address, 0n);
        const revokedUntil = (await now()) + TAIL;
        await context.registry.connect(processor).acknowledge(revoked.address, 0n, ZeroHash, 300n);
        const above = await sign(revoked, { value: 301n, nonce: 3n });
        await refusal(send(above), "AboveAcknowledged", revoked.address, 301n, 300n);
        await networkHelpers.time.setNextBlockTimestamp(revokedUntil - 1n);
        await send(await sign(revoked));
        const late = await sign(revoked, { nonce: 2n });
        await networkHelpers.time.setNextBlockTimestamp(revokedUntil);
        await refusal(send(late), "MandateNotSettleable", revoked.address, REVOKED, revokedUntil, revokedUntil);

        const closesAt = mandate.validUntil + TAIL;
        await networkHelpers.time.setNextBlockTimestamp(closesAt - 1n);
        await send(await sign(agent));
        await networkHelpers.time.setNextBlockTimestamp(closesAt);
        const expired = await sign(agent, { nonce: 2n });
        await refusal(send(expired), "MandateNotSettleable", agent.address, OPEN, closesAt, closesAt);
        await networkHelpers.time.setNextBlockTimestamp(closesAt + 1n);
        await context.registry.close(agent.address);
        await networkHelpers.time.setNextBlockTimestamp(closesAt + 2n);
        await refusal(send(expired), "MandateNotSettleable", agent.address, CLOSED, closesAt + 2n, closesAt);
      });

      it("P5 revoke_is_final: settle after a revocation until it must be answered, and never after if it was not", async () => {
        const { agent } = await open(context);
        const [signed, late] = [await sign(agent), await sign(agent, { nonce: 2n })];
        await context.registry.connect(owner).revoke(agent.address, 0n);
        const deadline = (await now()) + WINDOWS.acknowledge;
        await networkHelpers.time.setNextBlockTimestamp(deadline);
        await send(signed);
        await networkHelpers.time.setNextBlockTimestamp(deadline + 1n);
        await refusal(send(late), "NotAcknowledged", agent.address, deadline + 1n, deadline);
      });

      it("take whole units only, of a token with 18 decimals", async () => {
        const scale = 10n ** 12n;
        const elsewhere = await tokenOf(18);
        await fund(elsewhere, 10_000n * scale);
        const { agent } = await open(elsewhere);
        const signed = (value: bigint): Promise<Signed> => form.sign(elsewhere, agent, { payee: payee.address, value });
        for (const value of [1n, 300n * scale - 1n, 300n * scale + 1n])
          await refusal(send(await signed(value)), "FractionalUnits", value, scale);
        await refusal(send(await signed(0n)), "ZeroPayment", agent.address);
        await refusal(send(await signed(1_001n * scale)), "PaymentAboveCap", agent.address, 1_001n, 1_000n);
        await send(await signed(300n * scale));
        expect(await context.escrow.creditOf(elsewhere.token, payee.address)).to.equal(300n * scale);
        expect((await context.registry.mandateOf(agent.address)).directSpent).to.equal(300n);
      });
      it("settle several in one call, of several mandates and tokens", async () => {
        const elsewhere = await tokenOf(6);
        const [one, two, three] = [await open(context), await open(elsewhere), await open(context)];
        await send(
          await sign(one.agent, { value: 1n }),
          await sign(one.agent, { value: 2n, nonce: 2n, payee: other.address }),
          await form.sign(elsewhere, two.agent, { payee: payee.address, value: 4n }),
          await sign(three.agent, { value: 8n }),
        );
        expect([await creditOf(payee.address), await creditOf(other.address)]).to.deep.equal([9n, 2n]);
        expect(await context.escrow.creditOf(elsewhere.token, payee.address)).to.equal(4n);
      });
      it("settle all of a call or nothing", async () => {
        const { agent } = await open(context);
        const good = await sign(agent);
        const bad = await sign(agent, { value: 1_001n, nonce: 2n });
        await refusal(send(good, bad), "PaymentAboveCap");
        expect(await form.isUsed(direct, agent.address, 1n)).to.equal(false);
        expect(await creditOf(payee.address)).to.equal(0n);
        await refusal(send(), "EmptySettlement");
      });
      it("P13 one_bad_mandate_never_blocks_others: settle while the token is paused and blocks the payee", async () => {
        const { agent } = await open(context);
        await context.dollar.connect(deployer).setBlocked(payee.address, true);
        await context.dollar.connect(deployer).pause();
        await send(await sign(agent));
        expect(await creditOf(payee.address)).to.equal(300n);
      });
      it("do not count for the other form", async () => {
        const { agent } = await open(context);
        const signed = await sign(agent);
        const { signature } = signed;
        const forged =
          form.name === "AEP2 debits"
            ? { ...(await signTransfer(context, agent, { payee: payee.address, value: 300n })), signature }
            : { ...(await signDebit(context, agent, { payee: payee.address, value: 300n })), signature };
        const rival = FORMS.find(({ name }) => name !== form.name)!;
        await refusal(rival.send(direct, [forged]), "WrongSigner");
        await send(signed);
        expect(await rival.isUsed(direct, agent.address, 1n)).to.equal(false);
      });
      it("of a mandate with another token are worth nothing", async () => {
        const elsewhere = await tokenOf(6);
        const { agent } = await open(context);
        const { agent: abroad } = await open(elsewhere);
        const [here, there] = [
          await form.sign(elsewhere, agent, { payee: payee.address, value: 1n }),
          await form.sign(context, abroad, { payee: payee.address, value: 1n }),
        ];
        for (const signed of [here, there])
          await refusal(send(signed), form.name === "AEP2 debits" ? "WrongToken" : "WrongSigner");
      });
    });
  }

  /** The same core, seen with another token. */
  async function tokenOf(decimals: number): Promise<Core> {
    const { abi, bytecode } = readArtifact("mocks/Tokens#TokenWithDecimals");
    const contract = await new ethers.ContractFactory(abi, bytecode, deployer).deploy(decimals);
    const token = (await contract.getAddress()) as Address;
    const elsewhere = { ...context, token, dollar: context.dollar.attach(token) as Core["dollar"] };
    await bond(elsewhere, BOND * (decimals > 6 ? 10n ** BigInt(decimals - 6) : 1n));
    return elsewhere;
  }

  describe("EIP-3009 authorizations alone", () => {
    it("emit EIP-3009's event and their own", async () => {
      const { agent } = await open(context);
      const sent = direct.transferWithAuthorizations([
        await signTransfer(context, agent, { payee: payee.address, value: 300n, nonce: 7n }),
      ]);
      const nonce = toBeHex(7n, 32);
      await expect(sent).to.emit(direct, "AuthorizationUsed").withArgs(agent.address, nonce);
      await expect(sent).to.emit(direct, "TransferSettled").withArgs(agent.address, payee.address, nonce, 300n);
    });
    it("are refused in and before the second validAfter", async () => {
      const { agent } = await open(context);
      const time = (await now()) + 10n;
      const signed = await signTransfer(context, agent, { payee: payee.address, value: 300n, since: time + 1n });
      await networkHelpers.time.setNextBlockTimestamp(time);
      await expect(direct.transferWithAuthorizations([signed]))
        .to.be.revertedWithCustomError(direct, "AuthorizationNotYetValid")
        .withArgs(time, time);
      await networkHelpers.time.setNextBlockTimestamp(time + 1n);
      await direct.transferWithAuthorizations([signed]);
    });
    it("name their token in the domain, so that stock clients bind what the message does not", async () => {
      const name = `Bursar ${context.token}`;
      expect(await direct.eip712NameOf(context.token)).to.equal(name);
      expect(await direct.eip712NameOf(context.token.toLowerCase())).to.equal(name);
      expect(await direct.domainSeparatorOf(context.token)).to.equal(
        TypedDataEncoder.hashDomain(await transferDomain(context)),
      );
      expect(await direct.domainSeparatorOf(other.address)).not.to.equal(await direct.domainSeparatorOf(context.token));
    });
    it("of an agent without a mandate have no token: NoMandate", async () => {
      const agent = freshKey();
      const signed = await signTransfer(context, agent, {
        payee: payee.address,
        value: 300n,
        token: ZeroAddress as Address,
      });
      await expect(direct.transferWithAuthorizations([signed]))
        .to.be.revertedWithCustomError(direct, "NoMandate")
        .withArgs(agent.address);
    });
  });

  describe("AEP2 debits alone", () => {
    it("emit what they paid for", async () => {
      const { agent } = await open(context);
      const signed = await signDebit(context, agent, { payee: payee.address, value: 300n, nonce: 7n });
      await expect(direct.debit([signed]))
        .to.emit(direct, "DebitSettled")
        .withArgs(agent.address, payee.address, 7n, 300n, REF);
    });
    it("are signed in AEP2's domain", async () => {
      expect(await direct.debitDomainSeparator()).to.equal(TypedDataEncoder.hashDomain(await debitDomain(context)));
    });
    it("of an agent without a mandate, or of a token that nobody registered, are refused", async () => {
      const agent = freshKey();
      const order = { payee: payee.address, value: 300n };
      await open(context);
      await expect(direct.debit([await signDebit(context, agent, order)])).to.be.revertedWithCustomError(
        context.registry,
        "MandateNotSettleable",
      );
      await expect(direct.debit([await signDebit(context, agent, { ...order, token: other.address })]))
        .to.be.revertedWithCustomError(context.escrow, "TokenNotRegistered")
        .withArgs(other.address);
    });
  });

  describe("the registry", () => {
    it("takes direct payments from the direct settlement contract alone", async () => {
      const { agent } = await open(context);
      for (const signer of [processor, owner, settlement, stranger]) {
        const sent = context.registry
          .connect(signer)
          .payDirect(processor.address, agent.address, context.token, payee.address, 1n, []);
        await expect(sent)
          .to.be.revertedWithCustomError(context.registry, "OnlyDirect")
          .withArgs(signer.address, await direct.getAddress());
      }
    });
    it("takes none from another direct settlement contract, though the agent signed for it", async () => {
      const { agent } = await open(context);
      const rogue = await new DirectSettlement__factory(processor).deploy(context.registry);
      const signed = await signTransfer({ ...context, direct: rogue }, agent, { payee: payee.address, value: 1n });
      await expect(rogue.transferWithAuthorizations([signed]))
        .to.be.revertedWithCustomError(context.registry, "OnlyDirect")
        .withArgs(await rogue.getAddress(), await direct.getAddress());
    });
    it("tells the token of a mandate, and none where there is none", async () => {
      const { agent } = await open(context);
      expect(await context.registry.tokenOf(agent.address)).to.equal(context.token);
      expect(await context.registry.tokenOf(stranger.address)).to.equal(ZeroAddress);
    });
  });

  it("costs no more gas than expected, alone and as one of ten", async () => {
    const { agent } = await open(context);
    let nonce = 0n;
    const limits = [
      [120_000n, 56_000n],
      [84_000n, 30_000n],
    ] as const;
    for (const [index, form] of FORMS.entries()) {
      const gasOf = async (count: number): Promise<bigint> => {
        const signed: Signed[] = [];
        for (let i = 0; i < count; ++i)
          signed.push(await form.sign(context, agent, { payee: payee.address, value: 1n, nonce: nonce++ }));
        return (await (await form.send(direct, signed)).wait())!.gasUsed;
      };
      await gasOf(1);
      const [one, each] = limits[index]!;
      expect(await gasOf(1)).to.be.below(one);
      expect((await gasOf(10)) / 10n).to.be.below(each);
    }
  });
});
