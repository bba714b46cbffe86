import {
  FIELD,
  genesis,
  headHex,
  hashMandate,
  payeesHash,
  policyRoot,
  rowWords,
  signMandate,
  signRevocation,
  type Address,
  type Hex,
  type Mandate,
} from "@bursar/protocol";
import { expect } from "chai";
import { concat, getCreateAddress, Signature, toBeHex, ZeroAddress, ZeroHash } from "ethers";

import { readArtifact } from "../../deploy/artifact.ts";
import { WINDOWS } from "../../deploy/index.ts";
import {
  Escrow__factory,
  MandateRegistry__factory,
  type Escrow,
  type MandateRegistry,
} from "../../typechain-types/index.ts";
import {
  bond,
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
import { signRow } from "./settle-one.ts";

const [NONE, OPEN, REVOKED, EXPIRED, CLOSED] = [0n, 1n, 2n, 3n, 4n];
const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

/** The links of a registry beside the fixture's, to which they do not lead back. */
const linksOf = ({ direct, claims, processors }: Core, escrow: Escrow) => ({
  escrow,
  settlement: settlement.address,
  direct,
  claims,
  processors,
  gate: other.address,
});

describe("MandateRegistry", () => {
  let context: Core;
  let registry: MandateRegistry;
  beforeEach(async () => {
    context = await core();
    registry = context.registry.connect(stranger);
  });

  describe("constructor", () => {
    it("keeps its references and windows", async () => {
      expect(await registry.escrow()).to.equal(await context.escrow.getAddress());
      expect(await registry.settlement()).to.equal(settlement.address);
      expect(await registry.direct()).to.equal(await context.direct.getAddress());
      expect(await registry.claims()).to.equal(await context.claims.getAddress());
      expect(await registry.processors()).to.equal(await context.processors.getAddress());
      expect(fields(await registry.windows())).to.deep.equal(WINDOWS);
    });
    const [minute, hour] = [60n, 3_600n];
    const ranges = [
      ["settleBy", 10n * minute, 24n * hour],
      ["grace", 30n * minute, 6n * hour],
      ["acknowledge", 15n * minute, 6n * hour],
      ["cure", 6n * hour, 24n * hour],
      ["claim", 48n * hour, 336n * hour],
    ] as const;
    ranges.forEach(([name, minimum, maximum], index) => {
      it(`P20 parameters_bounded, K10: takes ${name} from ${minimum} to ${maximum} s, and nothing outside`, async () => {
        const factory = new MandateRegistry__factory(deployer);
        const deploy = (value: bigint) =>
          factory.deploy(linksOf(context, context.escrow), { ...WINDOWS, cure: 6n * hour, [name]: value });
        await deploy(minimum);
        await deploy(maximum);
        for (const value of [minimum - 1n, maximum + 1n, 0n]) {
          await expect(deploy(value))
            .to.be.revertedWithCustomError(registry, "WindowOutOfRange")
            .withArgs(BigInt(index), value, minimum, maximum);
        }
      });
    });
    it("has a claim window of at least twice the cure window: the smallest is twice the largest", () => {
      const [, , , cure, claim] = ranges;
      expect(claim[1]).to.equal(2n * cure[2]);
    });
  });

  describe("open", () => {
    it("locks the budget and keeps what was signed", async () => {
      const agent = freshKey();
      const payees = [payee.address, other.address];
      const mandate = await draft(context, agent.address, { payees });
      await fund(context, 12_000n);
      const signatures = [
        await signMandate(owner, context.domain, mandate),
        await signMandate(agent, context.domain, mandate),
      ] as const;
      await expect(registry.open(solidity(mandate), ...signatures))
        .to.emit(registry, "MandateOpened")
        .withArgs(
          agent.address,
          owner.address,
          processor.address,
          context.token,
          10_000n,
          1_000n,
          mandate.validUntil,
          payees,
          mandate.policyRoot,
          mandate.termsHash,
        );
      const record = await registry.mandateOf(agent.address);
      expect(fields(record)).to.deep.include({
        state: OPEN,
        owner: owner.address,
        token: context.token,
        processor: processor.address,
        budget: 10_000n,
        paymentCap: 1_000n,
        validUntil: mandate.validUntil,
        revokedAt: 0n,
        closesAt: mandate.validUntil + TAIL,
        seq: 0n,
        spent: 0n,
        directSpent: 0n,
        base: genesis(context.domain, agent.address as Address),
        policyRoot: mandate.policyRoot,
        payeesHash: payeesHash(payees),
        termsHash: mandate.termsHash,
      });
      expect(await registry.genesisOf(agent.address)).to.equal(record.base);
      expect(await registry.remainingOf(agent.address)).to.equal(10_000n);
      expect(await context.escrow.freeOf(context.token, owner.address)).to.equal(2_000n);
      expect(await context.escrow.lockedOf(context.token)).to.equal(10_000n);
    });

    it("hashes the mandate as EIP-712 does, in its own domain", async () => {
      const mandate = await draft(context, freshKey().address, { payees: [payee.address] });
      expect(await registry.hashMandate(solidity(mandate))).to.equal(hashMandate(context.domain, mandate));
    });

    /** Signs what it opens, so that nothing but the named limit is wrong. */
    async function attempt(
      overrides: Partial<Mandate>,
      agent = freshKey(),
    ): Promise<{ sent: Promise<unknown>; mandate: Mandate }> {
      const mandate = await draft(context, agent.address, overrides);
      await fund(context, 100_000n);
      const signatures = [
        await signMandate(owner, context.domain, mandate),
        await signMandate(agent, context.domain, mandate),
      ] as const;
      return { sent: registry.open(solidity(mandate), ...signatures), mandate };
    }

    it("refuses a budget of 0", async () => {
      const { sent } = await attempt({ budget: 0n });
      await expect(sent).to.be.revertedWithCustomError(registry, "ZeroBudget");
    });
    for (const [name, paymentCap] of [
      ["0", 0n],
      ["above the budget", 10_001n],
    ] as const) {
      it(`refuses a payment cap ${name}`, async () => {
        const { sent } = await attempt({ paymentCap });
        await expect(sent)
          .to.be.revertedWithCustomError(registry, "PaymentCapOutOfRange")
          .withArgs(paymentCap, 10_000n);
      });
    }
    it("refuses an end in the past or more than 90 days away", async () => {
      for (const validUntil of [(await now()) - 1n, (await now()) + 91n * DAY, 2n ** 64n - 1n]) {
        const { sent } = await attempt({ validUntil });
        await expect(sent).to.be.revertedWithCustomError(registry, "EndOutOfRange");
      }
    });
    it("refuses the processor 0", async () => {
      const { sent } = await attempt({ processor: ZeroAddress as Address });
      await expect(sent).to.be.revertedWithCustomError(registry, "ZeroProcessor");
    });
    it("refuses nine payees and takes eight", async () => {
      const payees = Array.from({ length: 9 }, (_, i): Address => `0x${String(i + 1).repeat(40)}`);
      const { sent } = await attempt({ payees });
      await expect(sent).to.be.revertedWithCustomError(registry, "TooManyPayees").withArgs(9n, 8n);
      await (
        await attempt({ payees: payees.slice(0, 8) })
      ).sent;
    });
    it("refuses as payee the zero address, the token and the contracts themselves", async () => {
      for (const bad of [
        ZeroAddress,
        context.token,
        await context.escrow.getAddress(),
        await registry.getAddress(),
        settlement.address,
        await context.direct.getAddress(),
        await context.claims.getAddress(),
        await context.processors.getAddress(),
      ]) {
        const { sent } = await attempt({ payees: [payee.address, bad as Address] });
        await expect(sent).to.be.revertedWithCustomError(registry, "InvalidPayee").withArgs(bad);
      }
    });
    it("refuses a policy root of value + r", async () => {
      const { sent } = await attempt({ policyRoot: headHex(FIELD) });
      await expect(sent).to.be.revertedWithCustomError(registry, "NotAFieldElement").withArgs(FIELD, FIELD);
    });
    it("P3 locked_funds_not_spendable_elsewhere: refuses a budget that is not free", async () => {
      const { sent } = await attempt({ budget: 100_001n });
      await expect(sent)
        .to.be.revertedWithCustomError(context.escrow, "InsufficientFree")
        .withArgs(context.token, owner.address, 100_001n, 100_000n);
    });
    it("I11: refuses an agent that was used before, even after its mandate was closed", async () => {
      const { agent, mandate } = await open(context);
      const again = async () => {
        await fund(context, mandate.budget);
        const next = { ...mandate, validUntil: (await now()) + DAY };
        return registry.open(
          solidity(next),
          await signMandate(owner, context.domain, next),
          await signMandate(agent, context.domain, next),
        );
      };
      await expect(again()).to.be.revertedWithCustomError(registry, "AgentUsed").withArgs(agent.address);
      await networkHelpers.time.increaseTo(mandate.validUntil + TAIL);
      await registry.close(agent.address);
      await expect(again()).to.be.revertedWithCustomError(registry, "AgentUsed").withArgs(agent.address);
    });

    describe("signatures", () => {
      it("P6 no_agent_signature_no_debit: refuses without the agent's own", async () => {
        const agent = freshKey();
        const mandate = await draft(context, agent.address);
        await fund(context, mandate.budget);
        const [ownerSignature, wrong] = [
          await signMandate(owner, context.domain, mandate),
          await signMandate(stranger, context.domain, mandate),
        ];
        await expect(registry.open(solidity(mandate), ownerSignature, wrong))
          .to.be.revertedWithCustomError(registry, "WrongSigner")
          .withArgs(agent.address, stranger.address, 0n);
        for (const bad of [
          "0x",
          `${(await signMandate(agent, context.domain, mandate)).slice(0, -2)}00`,
          Signature.from(await signMandate(agent, context.domain, mandate)).compactSerialized,
        ]) {
          await expect(registry.open(solidity(mandate), ownerSignature, bad)).to.be.revertedWithCustomError(
            registry,
            "WrongSigner",
          );
        }
        const { r, s, v } = Signature.from(await signMandate(agent, context.domain, mandate));
        const high = `${r}${(ORDER - BigInt(s)).toString(16).padStart(64, "0")}${(55 - v).toString(16)}`;
        await expect(registry.open(solidity(mandate), ownerSignature, high)).to.be.revertedWithCustomError(
          registry,
          "WrongSigner",
        );
      });
      it("refuses an owner's signature over anything else: mandate, chain, contract, signer", async () => {
        const agent = freshKey();
        const mandate = await draft(context, agent.address);
        await fund(context, mandate.budget);
        const agentSignature = await signMandate(agent, context.domain, mandate);
        const wrong = [
          await signMandate(owner, context.domain, { ...mandate, budget: mandate.budget + 1n }),
          await signMandate(owner, { ...context.domain, chainId: 1n }, mandate),
          await signMandate(owner, { ...context.domain, registry: other.address }, mandate),
          await signMandate(stranger, context.domain, mandate),
          "0x",
        ];
        for (const signature of wrong) {
          await expect(registry.open(solidity(mandate), signature, agentSignature))
            .to.be.revertedWithCustomError(registry, "InvalidOwnerSignature")
            .withArgs(owner.address);
        }
      });

      async function wallet(name: string, argument: unknown): Promise<Address> {
        const { abi, bytecode } = readArtifact(`mocks/OwnerWallets#${name}`);
        const contract = await new ethers.ContractFactory(abi, bytecode, deployer).deploy(argument);
        return (await contract.getAddress()) as Address;
      }
      async function openFor(account: Address): Promise<{ sent: Promise<unknown>; agent: string }> {
        const agent = freshKey();
        const mandate = await draft(context, agent.address, { owner: account });
        await context.dollar.mint(deployer.address, mandate.budget);
        await context.dollar.connect(deployer).approve(context.escrow, mandate.budget);
        await context.escrow.connect(deployer).deposit(context.token, mandate.budget, account);
        const signatures = [
          await signMandate(owner, context.domain, mandate),
          await signMandate(agent, context.domain, mandate),
        ] as const;
        return { sent: registry.open(solidity(mandate), ...signatures), agent: agent.address };
      }
      it("takes a smart account's (ERC-1271)", async () => {
        const { sent, agent } = await openFor(await wallet("OwnerWallet", owner.address));
        await sent;
        expect(await registry.stateOf(agent)).to.equal(OPEN);
      });
      it("refuses a smart account of another key", async () => {
        const account = await wallet("OwnerWallet", stranger.address);
        await expect((await openFor(account)).sent)
          .to.be.revertedWithCustomError(registry, "InvalidOwnerSignature")
          .withArgs(account);
      });
      ["refuses", "reverts", "burns all gas", "returns 4 bytes", "returns a megabyte", "returns dirty bytes"].forEach(
        (name, answer) => {
          it(`refuses a smart account that ${name}`, async () => {
            const account = await wallet("BadOwnerWallet", answer);
            await expect((await openFor(account)).sent)
              .to.be.revertedWithCustomError(registry, "InvalidOwnerSignature")
              .withArgs(account);
          });
        },
      );
      it("one owner's signature opens for one of its smart accounts only", async () => {
        const [one, two] = [await wallet("OwnerWallet", owner.address), await wallet("OwnerWallet", owner.address)];
        const agent = freshKey();
        const mandate = await draft(context, agent.address, { owner: one });
        const signatures = [
          await signMandate(owner, context.domain, mandate),
          await signMandate(agent, context.domain, mandate),
        ] as const;
        await expect(registry.open(solidity({ ...mandate, owner: two }), ...signatures))
          .to.be.revertedWithCustomError(registry, "InvalidOwnerSignature")
          .withArgs(two);
      });
    });
  });

  describe("revoke", () => {
    it("sets flags and windows, and moves nothing else", async () => {
      const { agent } = await open(context);
      const before = await registry.positionOf(agent.address);
      await context.registry.connect(owner).revoke(agent.address, 7n);
      const time = await now();
      const record = await registry.mandateOf(agent.address);
      expect(fields(record)).to.deep.include({
        state: REVOKED,
        revokedAt: time,
        revokedAfterSeq: 7n,
        closesAt: time + TAIL,
        spent: 0n,
      });
      expect(await registry.positionOf(agent.address)).to.deep.equal(before);
    });
    it("emits what it set", async () => {
      const { agent } = await open(context);
      const time = (await now()) + 10n;
      await networkHelpers.time.setNextBlockTimestamp(time);
      await expect(context.registry.connect(owner).revoke(agent.address, 7n))
        .to.emit(registry, "MandateRevoked")
        .withArgs(agent.address, 7n, time + TAIL);
    });
    it("is the owner's alone", async () => {
      const { agent } = await open(context);
      for (const signer of [stranger, processor, settlement]) {
        await expect(context.registry.connect(signer).revoke(agent.address, 0n))
          .to.be.revertedWithCustomError(registry, "OnlyOwner")
          .withArgs(signer.address, owner.address);
      }
    });
    it("works once, and not after the end or for no mandate", async () => {
      const { agent } = await open(context);
      const as = context.registry.connect(owner);
      await as.revoke(agent.address, 0n);
      await expect(as.revoke(agent.address, 0n))
        .to.be.revertedWithCustomError(registry, "MandateNotOpen")
        .withArgs(agent.address, REVOKED);
      await expect(as.revoke(stranger.address, 0n))
        .to.be.revertedWithCustomError(registry, "OnlyOwner")
        .withArgs(owner.address, ZeroAddress);
      const { agent: late, mandate } = await open(context);
      await networkHelpers.time.increaseTo(mandate.validUntil + 1n);
      await expect(as.revoke(late.address, 0n))
        .to.be.revertedWithCustomError(registry, "MandateNotOpen")
        .withArgs(late.address, EXPIRED);
    });
    it("works by signature, sent by anyone", async () => {
      const { agent } = await open(context);
      const signature = await signRevocation(owner, context.domain, { agent: agent.address as Address, afterSeq: 3n });
      await expect(registry.revokeWithSignature(agent.address, 4n, signature))
        .to.be.revertedWithCustomError(registry, "InvalidOwnerSignature")
        .withArgs(owner.address);
      await registry.revokeWithSignature(agent.address, 3n, signature);
      expect(await registry.stateOf(agent.address)).to.equal(REVOKED);
    });
    it("refuses a signature for a mandate that does not exist", async () => {
      await expect(registry.revokeWithSignature(stranger.address, 0n, "0x"))
        .to.be.revertedWithCustomError(registry, "InvalidOwnerSignature")
        .withArgs(ZeroAddress);
    });
  });

  describe("close", () => {
    it("P4 owner_always_exits: returns what is left by a call that anyone can make", async () => {
      const { agent, mandate } = await open(context);
      const row = await signRow(context, agent, payee.address, 400n);
      await context.registry
        .connect(settlement)
        .settle(processor.address, [row], [{ payee: payee.address, amount: 400n }]);
      await networkHelpers.time.increaseTo(mandate.validUntil + TAIL);
      await expect(registry.close(agent.address))
        .to.emit(registry, "MandateClosed")
        .withArgs(agent.address, owner.address, 9_600n);
      expect(await context.escrow.freeOf(context.token, owner.address)).to.equal(9_600n);
      expect(await context.escrow.lockedOf(context.token)).to.equal(0n);
      expect(await registry.remainingOf(agent.address)).to.equal(0n);
      expect(await registry.stateOf(agent.address)).to.equal(CLOSED);
    });
    it("is refused a second before the windows are over", async () => {
      const { agent, mandate } = await open(context);
      const closesAt = mandate.validUntil + TAIL;
      await networkHelpers.time.setNextBlockTimestamp(closesAt - 1n);
      await expect(registry.close(agent.address))
        .to.be.revertedWithCustomError(registry, "TooEarlyToClose")
        .withArgs(agent.address, closesAt - 1n, closesAt);
      await networkHelpers.time.setNextBlockTimestamp(closesAt);
      await registry.close(agent.address);
    });
    it("comes earlier after a revocation", async () => {
      const { agent } = await open(context);
      await context.registry.connect(owner).revoke(agent.address, 0n);
      await networkHelpers.time.increase(TAIL);
      await registry.close(agent.address);
      expect(await context.escrow.freeOf(context.token, owner.address)).to.equal(10_000n);
    });
    it("works once, and not for no mandate", async () => {
      const { agent, mandate } = await open(context);
      await networkHelpers.time.increaseTo(mandate.validUntil + TAIL);
      await registry.close(agent.address);
      await expect(registry.close(agent.address))
        .to.be.revertedWithCustomError(registry, "MandateNotOpen")
        .withArgs(agent.address, CLOSED);
      await expect(registry.close(stranger.address))
        .to.be.revertedWithCustomError(registry, "MandateNotOpen")
        .withArgs(stranger.address, NONE);
    });
  });

  describe("settle", () => {
    const settle = (rows: Awaited<ReturnType<typeof signRow>>[], amount: bigint, by = processor.address) =>
      context.registry.connect(settlement).settle(by, rows, [{ payee: payee.address, amount }]);

    it("moves base, seq and spent together, and the debit to the payee", async () => {
      const { agent } = await open(context);
      const row = await signRow(context, agent, payee.address, 300n, 5n);
      await settle([row], 300n);
      expect(fields(await registry.positionOf(agent.address))).to.deep.include({
        base: row.newBase,
        seq: 5n,
        spent: 300n,
      });
      expect(await context.escrow.creditOf(context.token, payee.address)).to.equal(300n);
      expect(await registry.remainingOf(agent.address)).to.equal(9_700n);
    });
    it("tells what it settled, in the words that a proof speaks about", async () => {
      const agents = [freshKey(), freshKey()].sort((a, b) => (BigInt(a.address) < BigInt(b.address) ? -1 : 1));
      for (const agent of agents) await open(context, {}, agent);
      await settle([await signRow(context, agents[0]!, payee.address, 40n, 4n)], 40n);
      const signed = await Promise.all(
        agents.map((agent, i) => signRow(context, agent, payee.address, 300n, 5n + BigInt(i))),
      );
      const rows = await Promise.all(
        signed.map(async (row) => {
          const { base, seq, policyRoot } = await registry.positionOf(row.agent);
          return { ...row, base, seq, policyRoot, offset: seq };
        }),
      );
      const [words, spent, token, total] = await context.registry
        .connect(settlement)
        .settle.staticCall(processor.address, signed, [{ payee: payee.address, amount: 600n }]);
      expect(words).to.equal(concat(rowWords(rows).map((word) => toBeHex(word, 32))));
      expect([[...spent], token, total]).to.deep.equal([[340n, 300n], context.token, 600n]);
    });
    it("P1 debits_never_exceed_budget: refuses what goes beyond, whatever the proof says", async () => {
      const { agent } = await open(context);
      await settle([await signRow(context, agent, payee.address, 9_999n)], 9_999n);
      const row = await signRow(context, agent, payee.address, 2n);
      await expect(settle([row], 2n))
        .to.be.revertedWithCustomError(registry, "BudgetExceeded")
        .withArgs(agent.address, 10_001n, 10_000n);
      await settle([await signRow(context, agent, payee.address, 1n)], 1n);
    });
    it("P6 no_agent_signature_no_debit: refuses a row that the agent did not sign so", async () => {
      const { agent } = await open(context);
      const row = await signRow(context, agent, payee.address, 10n);
      for (const altered of [
        { debit: 11n },
        { count: 2n },
        { head: row.head + 1n },
        { lineHash: ZeroHash as Hex },
        { v: 55 - row.v },
        { v: 0 },
      ]) {
        await expect(settle([{ ...row, ...altered }], altered.debit ?? 10n)).to.be.revertedWithCustomError(
          registry,
          "WrongSigner",
        );
      }
    });
    it("P9 pay_once: refuses the same row again", async () => {
      const { agent } = await open(context);
      const row = await signRow(context, agent, payee.address, 10n);
      await settle([row], 10n);
      await expect(settle([row], 10n)).to.be.revertedWithCustomError(registry, "WrongSigner");
    });
    it("refuses count 0, and a head or next base of value + r", async () => {
      const { agent } = await open(context);
      const row = await signRow(context, agent, payee.address, 10n);
      await expect(settle([{ ...row, count: 0n }], 10n))
        .to.be.revertedWithCustomError(registry, "EmptyRow")
        .withArgs(agent.address);
      for (const wrong of [{ head: FIELD }, { newBase: FIELD }]) {
        await expect(settle([{ ...row, ...wrong }], 10n))
          .to.be.revertedWithCustomError(registry, "NotAFieldElement")
          .withArgs(FIELD, FIELD);
      }
    });
    it("refuses no rows, the same agent twice and unsorted agents", async () => {
      await expect(settle([], 0n)).to.be.revertedWithCustomError(registry, "EmptyBatch");
      const rows = [];
      for (const { agent } of [await open(context), await open(context)])
        rows.push(await signRow(context, agent, payee.address, 10n));
      rows.sort((a, b) => (BigInt(a.agent) < BigInt(b.agent) ? -1 : 1));
      const [low, high] = rows as [(typeof rows)[0], (typeof rows)[0]];
      await expect(settle([low, low], 20n))
        .to.be.revertedWithCustomError(registry, "AgentsNotIncreasing")
        .withArgs(low.agent, low.agent);
      await expect(settle([high, low], 20n))
        .to.be.revertedWithCustomError(registry, "AgentsNotIncreasing")
        .withArgs(high.agent, low.agent);
      await settle([low, high], 20n);
    });
    it("refuses another processor", async () => {
      const { agent } = await open(context);
      const row = await signRow(context, agent, payee.address, 10n);
      await expect(settle([row], 10n, stranger.address))
        .to.be.revertedWithCustomError(registry, "WrongProcessor")
        .withArgs(agent.address, stranger.address, processor.address);
    });
    it("refuses a mandate of another token", async () => {
      const { agent } = await open(context);
      const { abi, bytecode } = readArtifact("mocks/Tokens#TokenWithDecimals");
      const contract = await new ethers.ContractFactory(abi, bytecode, deployer).deploy(6);
      const token = (await contract.getAddress()) as Address;
      const elsewhere = { ...context, token, dollar: context.dollar.attach(token) as Core["dollar"] };
      await bond(elsewhere);
      const { agent: second } = await open(elsewhere, { token });
      const rows = [];
      for (const one of [agent, second]) rows.push(await signRow(context, one, payee.address, 10n));
      rows.sort((a, b) => (BigInt(a.agent) < BigInt(b.agent) ? -1 : 1));
      await expect(settle(rows, 20n)).to.be.revertedWithCustomError(registry, "WrongToken");
    });
    it("refuses every caller but the settlement contract", async () => {
      const { agent } = await open(context);
      const row = await signRow(context, agent, payee.address, 10n);
      for (const signer of [processor, owner, stranger]) {
        await expect(context.registry.connect(signer).settle(processor.address, [row], []))
          .to.be.revertedWithCustomError(registry, "OnlySettlement")
          .withArgs(signer.address, settlement.address);
      }
    });
    it("goes on after the end, until the mandate can be closed; never after", async () => {
      const { agent, mandate } = await open(context);
      await settle([await signRow(context, agent, payee.address, 1n)], 1n);
      await networkHelpers.time.increaseTo(mandate.validUntil + 5n);
      expect(await registry.stateOf(agent.address)).to.equal(EXPIRED);
      await settle([await signRow(context, agent, payee.address, 1n)], 1n);
      const closesAt = mandate.validUntil + TAIL;
      await networkHelpers.time.setNextBlockTimestamp(closesAt);
      const row = await signRow(context, agent, payee.address, 1n);
      await expect(settle([row], 1n))
        .to.be.revertedWithCustomError(registry, "MandateNotSettleable")
        .withArgs(agent.address, OPEN, closesAt, closesAt);
      await registry.close(agent.address);
      await expect(settle([row], 1n)).to.be.revertedWithCustomError(registry, "MandateNotSettleable");
      await expect(settle([{ ...row, agent: stranger.address }], 1n)).to.be.revertedWithCustomError(
        registry,
        "MandateNotSettleable",
      );
    });
    it("P5 revoke_is_final: a batch signed before a revocation settles until it must be answered, not after", async () => {
      const [{ agent }, { agent: late }] = [await open(context), await open(context)];
      const row = await signRow(context, agent, payee.address, 10n);
      const lateRow = await signRow(context, late, payee.address, 10n);
      const time = (await now()) + 10n;
      for (const [i, one] of [agent, late].entries()) {
        await networkHelpers.time.setNextBlockTimestamp(time + BigInt(i));
        await context.registry.connect(owner).revoke(one.address, 0n);
      }
      await networkHelpers.time.setNextBlockTimestamp(time + WINDOWS.acknowledge);
      await settle([row], 10n);
      const deadline = time + 1n + WINDOWS.acknowledge;
      await networkHelpers.time.setNextBlockTimestamp(deadline + 1n);
      await expect(settle([lateRow], 10n))
        .to.be.revertedWithCustomError(registry, "NotAcknowledged")
        .withArgs(late.address, deadline + 1n, deadline);
    });
  });

  it("P6: a mandate opens on no other chain and no other registry", async () => {
    const nonce = await ethers.provider.getTransactionCount(deployer.address);
    const escrow = await new Escrow__factory(deployer).deploy(
      getCreateAddress({ from: deployer.address, nonce: nonce + 1 }),
    );
    const elsewhere = await new MandateRegistry__factory(deployer).deploy(linksOf(context, escrow), WINDOWS);
    const agent = freshKey();
    const mandate = await draft(context, agent.address);
    const signatures = [
      await signMandate(owner, context.domain, mandate),
      await signMandate(agent, context.domain, mandate),
    ] as const;
    await expect(elsewhere.open(solidity(mandate), ...signatures)).to.be.revertedWithCustomError(
      registry,
      "InvalidOwnerSignature",
    );
    expect(await elsewhere.domainSeparator()).not.to.equal(await registry.domainSeparator());
    expect(headHex(policyRoot([], 1_000n))).to.equal(mandate.policyRoot);
  });
});
