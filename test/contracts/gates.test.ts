import { headHex, signMandate, type Address } from "@bursar/protocol";
import { expect } from "chai";
import { Signature, toBeHex, ZeroAddress, ZeroHash, type Wallet } from "ethers";

import { WINDOWS } from "../../deploy/index.ts";
import {
  AttestedGate__factory,
  EasGate__factory,
  TinyEas__factory,
  type AttestedGate,
  type EasGate,
  type TinyEas,
} from "../../typechain-types/index.ts";
import {
  DAY,
  deployer,
  deployWith,
  draft,
  ethers,
  freshKey,
  fund,
  networkHelpers,
  now,
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
import { signRow } from "./settle-one.ts";
import { signAttestation, type Attestation } from "./sign-attestation.ts";
import { signDebit } from "./sign-direct.ts";

const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const SCHEMA = `0x${"5c".repeat(32)}`;
const [alice, bob] = [freshKey(), freshKey()];

const at = (time: bigint): Promise<void> => networkHelpers.time.setNextBlockTimestamp(time);

/** Opens with a listed payee against a core with this gate, and says what happens. */
async function attempt(context: Core, payees: Address[] = [payee.address]) {
  const agent = freshKey();
  const mandate = await draft(context, agent.address, { payees });
  await fund(context, mandate.budget);
  const signatures = [
    await signMandate(owner, context.domain, mandate),
    await signMandate(agent, context.domain, mandate),
  ] as const;
  return { agent, mandate, send: () => context.registry.connect(stranger).open(solidity(mandate), ...signatures) };
}

/** What is open ends as if there were no gate: settled, paid, claimed, revoked, closed, withdrawn. */
async function expectExits(context: Core, agent: Wallet): Promise<void> {
  const { registry, escrow, token, direct, claims } = context;
  const credit = (): Promise<bigint> => escrow.creditOf(token, payee.address);
  const row = await signRow(context, agent, payee.address, 100n);
  await registry.connect(settlement).settle(processor.address, [row], [{ payee: payee.address, amount: 100n }]);
  const debit = await signDebit(context, agent, {
    payee: payee.address,
    value: 50n,
    nonce: 1n,
    payees: [payee.address],
  });
  await direct.connect(processor).debit([debit]);
  expect(await credit()).to.equal(150n);

  const { base } = await registry.positionOf(agent.address);
  const payment = { seq: 2n, spent: 300n, head: headHex(base + 1n), payee: payee.address, amount: 200n };
  const payees = [payee.address];
  const claim = await receipted(context, agent, { ...payment, settleBy: await now(), payees });
  await networkHelpers.time.increase(WINDOWS.grace + 1n);
  await claims.connect(stranger).file([claim]);
  await registry.connect(owner).revoke(agent.address, 1n);
  await networkHelpers.time.increase(WINDOWS.cure);
  await claims.connect(stranger).resolve([claim]);
  // The claim, and a tenth as the penalty.
  expect(await credit()).to.equal(370n);
  await escrow.connect(stranger).sweepCredit(token, payee.address);
  expect(await context.dollar.balanceOf(payee.address)).to.equal(370n);

  await networkHelpers.time.increase(TAIL);
  await registry.connect(stranger).close(agent.address);
  const free = await escrow.freeOf(token, owner.address);
  expect(free >= 9_650n).to.equal(true);
  await escrow.connect(owner).withdraw(token, free, owner.address);
  expect(await escrow.freeOf(token, owner.address)).to.equal(0n);
  expect(await escrow.lockedOf(token)).to.equal(0n);
}

async function expectInterfaces(gate: AttestedGate | EasGate): Promise<void> {
  const selectors = (["mayOpen", "mayBePaid"] as const).map((name) =>
    BigInt(gate.interface.getFunction(name).selector),
  );
  for (const [id, expected] of [
    [toBeHex(selectors[0]! ^ selectors[1]!, 4), true],
    ["0x01ffc9a7", true],
    ["0xffffffff", false],
  ] as const)
    expect(await gate.supportsInterface(id)).to.equal(expected);
}

describe("AttestedGate", () => {
  let gate: AttestedGate;
  let domain: { chainId: bigint; gate: Address };

  beforeEach(async () => {
    gate = await new AttestedGate__factory(deployer).deploy([alice.address, bob.address]);
    const { chainId } = await ethers.provider.getNetwork();
    domain = { chainId, gate: (await gate.getAddress()) as Address };
    gate = gate.connect(stranger);
  });

  async function word(subject: Address, overrides: Partial<Attestation> = {}): Promise<Attestation> {
    const time = await now();
    return { subject, issuedAt: time, expiresAt: time + DAY, ...overrides };
  }
  async function attest(subject: Address, overrides: Partial<Attestation> = {}, by = alice) {
    const attestation = await word(subject, overrides);
    return gate.attest(attestation, by.address, await signAttestation(by, domain, attestation));
  }
  /** Acts as the attester on chain. */
  async function as(attester: Wallet): Promise<AttestedGate> {
    await networkHelpers.setBalance(attester.address, 10n ** 18n);
    await networkHelpers.impersonateAccount(attester.address);
    return gate.connect(await ethers.getSigner(attester.address));
  }
  const knows = (account: Address): Promise<boolean> => gate.isAttested(account);

  describe("attesters", () => {
    it("are fixed at deployment, in their order, each once", async () => {
      expect([...(await gate.attesters())]).to.deep.equal([alice.address, bob.address]);
      expect(await gate.isAttester(alice.address)).to.equal(true);
      expect(await gate.isAttester(stranger.address)).to.equal(false);
      await expectInterfaces(gate);
    });
    it("are 1 to 16, and none of them twice or the zero address", async () => {
      const factory = new AttestedGate__factory(deployer);
      const keys = Array.from({ length: 17 }, () => freshKey().address);
      await factory.deploy(keys.slice(1));
      for (const [list, error, args] of [
        [[], "AttesterCountOutOfRange", [0n, 16n]],
        [keys, "AttesterCountOutOfRange", [17n, 16n]],
        [[keys[0]!, keys[1]!, keys[0]!], "InvalidAttester", [keys[0]]],
        [[ZeroAddress], "InvalidAttester", [ZeroAddress]],
      ] as const)
        await expect(factory.deploy([...list]))
          .to.be.revertedWithCustomError(factory, error)
          .withArgs(...args);
    });
    it("can be asked about with the gas that the core gives, all sixteen of them", async () => {
      const keys = Array.from({ length: 16 }, freshKey);
      gate = (await new AttestedGate__factory(deployer).deploy(keys.map(({ address }) => address))).connect(stranger);
      domain = { ...domain, gate: (await gate.getAddress()) as Address };
      await attest(owner.address, {}, keys[15]);
      const context = await deployWith(domain.gate);
      await (await attempt(context, [])).send();
    });
  });

  describe("an attestation", () => {
    it("lets its subject open and be paid, whoever brings it", async () => {
      const question = [owner.address, other.address, other.address, 1n] as const;
      expect(await gate.mayOpen(...question)).to.equal(false);
      const attestation = await word(owner.address);
      const signature = await signAttestation(alice, domain, attestation);
      await expect(gate.attest(attestation, alice.address, signature))
        .to.emit(gate, "Attested")
        .withArgs(owner.address, alice.address, attestation.issuedAt, attestation.expiresAt);
      expect(await gate.mayOpen(...question)).to.equal(true);
      expect(await gate.mayBePaid(owner.address, other.address)).to.equal(true);
      expect(await gate.mayBePaid(payee.address, other.address)).to.equal(false);
      expect(await gate.mayOpen(other.address, owner.address, owner.address, 1n)).to.equal(false);
    });
    it("counts to its last second and not in the next", async () => {
      const expiresAt = (await now()) + 1_000n;
      await attest(payee.address, { expiresAt });
      await networkHelpers.time.increaseTo(expiresAt);
      expect(await knows(payee.address)).to.equal(true);
      await networkHelpers.time.increaseTo(expiresAt + 1n);
      expect(await knows(payee.address)).to.equal(false);
    });
    it("is taken in its last second and refused after", async () => {
      const expiresAt = (await now()) + 1_000n;
      const attestation = await word(payee.address, { expiresAt });
      const second = { ...attestation, subject: other.address };
      const signatures = [
        await signAttestation(alice, domain, attestation),
        await signAttestation(alice, domain, second),
      ] as const;
      await at(expiresAt);
      await gate.attest(attestation, alice.address, signatures[0]);
      await at(expiresAt + 1n);
      await expect(gate.attest(second, alice.address, signatures[1]))
        .to.be.revertedWithCustomError(gate, "AttestationExpired")
        .withArgs(expiresAt, expiresAt + 1n);
    });
    it("is not taken if it is dated ahead, by a second", async () => {
      const time = (await now()) + 100n;
      const ahead = await word(payee.address, { issuedAt: time + 1n });
      const present = await word(payee.address, { issuedAt: time });
      const signatures = [
        await signAttestation(alice, domain, ahead),
        await signAttestation(alice, domain, present),
      ] as const;
      await at(time);
      await expect(gate.attest(ahead, alice.address, signatures[0]))
        .to.be.revertedWithCustomError(gate, "IssuedAhead")
        .withArgs(time + 1n, time);
      await networkHelpers.time.increaseTo(time + 1n);
      await gate.attest(present, alice.address, signatures[1]);
    });
    it("gives way to a later one of the same attester, also a shorter one, and to no earlier or equal one", async () => {
      const time = await now();
      await attest(payee.address, { issuedAt: time - 10n, expiresAt: time + 9_000n });
      await attest(payee.address, { issuedAt: time - 5n, expiresAt: time + 900n });
      expect((await gate.wordOf(alice.address, payee.address)).expiresAt).to.equal(time + 900n);
      for (const issuedAt of [time - 10n, time - 5n])
        await expect(attest(payee.address, { issuedAt, expiresAt: time + 9_000n }))
          .to.be.revertedWithCustomError(gate, "NotTheLatest")
          .withArgs(payee.address, issuedAt, time - 5n);
    });
    it("counts beside that of another attester, each for itself", async () => {
      const time = await now();
      await attest(payee.address, { expiresAt: time + 500n }, alice);
      await attest(payee.address, { expiresAt: time + 1_000n }, bob);
      await networkHelpers.time.increaseTo(time + 501n);
      expect(await knows(payee.address)).to.equal(true);
      await networkHelpers.time.increaseTo(time + 1_001n);
      expect(await knows(payee.address)).to.equal(false);
    });
  });

  describe("a signature", () => {
    it("is of an attester: a stranger's, or one attester's for another, is none", async () => {
      const attestation = await word(payee.address);
      const forged = await signAttestation(stranger, domain, attestation);
      await expect(gate.attest(attestation, stranger.address, forged))
        .to.be.revertedWithCustomError(gate, "OnlyAttester")
        .withArgs(stranger.address);
      for (const [claimed, signer] of [
        [alice.address, stranger],
        [alice.address, bob],
      ] as const)
        await expect(gate.attest(attestation, claimed, await signAttestation(signer, domain, attestation)))
          .to.be.revertedWithCustomError(gate, "WrongSigner")
          .withArgs(alice.address, await signer.getAddress(), 0n);
    });
    it("is over every field", async () => {
      const attestation = await word(payee.address);
      const signature = await signAttestation(alice, domain, attestation);
      for (const changed of [
        { ...attestation, subject: other.address },
        { ...attestation, issuedAt: attestation.issuedAt - 1n },
        { ...attestation, expiresAt: attestation.expiresAt + 1n },
      ])
        await expect(gate.attest(changed, alice.address, signature)).to.be.revertedWithCustomError(gate, "WrongSigner");
      await gate.attest(attestation, alice.address, signature);
    });
    it("for another chain or another gate is none here", async () => {
      const twin = await new AttestedGate__factory(deployer).deploy([alice.address]);
      const attestation = await word(payee.address);
      for (const elsewhere of [
        { ...domain, chainId: domain.chainId + 1n },
        { ...domain, gate: (await twin.getAddress()) as Address },
      ])
        await expect(
          gate.attest(attestation, alice.address, await signAttestation(alice, elsewhere, attestation)),
        ).to.be.revertedWithCustomError(gate, "WrongSigner");
    });
    it("has one form: no mirror image, no v of 0 or 1, no 64 bytes, nothing at all", async () => {
      const attestation = await word(payee.address);
      const { r, s, v, compactSerialized } = Signature.from(await signAttestation(alice, domain, attestation));
      const form = (other: string, last: number): string => r + other.slice(2) + toBeHex(last, 1).slice(2);
      const mirror = form(toBeHex(ORDER - BigInt(s), 32), 55 - v);
      for (const malleated of [mirror, form(s, v - 27), compactSerialized, form(s, v) + "00", "0x"])
        await expect(gate.attest(attestation, alice.address, malleated)).to.be.revertedWithCustomError(
          gate,
          "WrongSigner",
        );
      await gate.attest(attestation, alice.address, form(s, v));
    });
    it("hashes as the standard says", async () => {
      const attestation = await word(payee.address);
      const digest = await gate.hashAttestation(attestation);
      const signature = await signAttestation(alice, domain, attestation);
      expect(ethers.recoverAddress(digest, signature)).to.equal(alice.address);
    });
  });

  describe("a revocation", () => {
    it("ends an attestation at once, and whatever the attester signed until this second", async () => {
      const kept = await word(payee.address);
      await attest(payee.address);
      const time = (await now()) + 10n;
      const same = { ...kept, issuedAt: time };
      const by = await as(alice);
      await at(time);
      await expect(by.revoke(payee.address)).to.emit(gate, "Revoked").withArgs(payee.address, alice.address, time);
      expect(await knows(payee.address)).to.equal(false);
      for (const stale of [kept, same])
        await expect(gate.attest(stale, alice.address, await signAttestation(alice, domain, stale)))
          .to.be.revertedWithCustomError(gate, "NotTheLatest")
          .withArgs(payee.address, stale.issuedAt, time);
    });
    it("may come before the attestation, which then never counts, and gives way to a later one", async () => {
      const signed = await word(payee.address);
      await (await as(alice)).revoke(payee.address);
      await expect(
        gate.attest(signed, alice.address, await signAttestation(alice, domain, signed)),
      ).to.be.revertedWithCustomError(gate, "NotTheLatest");
      await networkHelpers.time.increase(1n);
      await attest(payee.address);
      expect(await knows(payee.address)).to.equal(true);
    });
    it("is the attester's own: another attester's word stands, and nobody else revokes", async () => {
      await attest(payee.address, {}, alice);
      await attest(payee.address, {}, bob);
      await (await as(alice)).revoke(payee.address);
      expect(await knows(payee.address)).to.equal(true);
      await (await as(bob)).revoke(payee.address);
      expect(await knows(payee.address)).to.equal(false);
      await expect(gate.revoke(payee.address))
        .to.be.revertedWithCustomError(gate, "OnlyAttester")
        .withArgs(stranger.address);
    });
  });

  describe("before a core", () => {
    it("refuses new business of who is not attested, owner or listed payee, and takes it after", async () => {
      const context = await deployWith(domain.gate);
      const { send, agent } = await attempt(context);
      await expect(send()).to.be.revertedWithCustomError(context.registry, "RefusedByGate").withArgs(owner.address);
      await attest(owner.address);
      await expect(send()).to.be.revertedWithCustomError(context.registry, "RefusedByGate").withArgs(payee.address);
      await attest(payee.address);
      await send();
      expect(await context.registry.stateOf(agent.address)).to.equal(1n);
    });
    it("P4 owner_always_exits, P17 sp_cannot_take: after a revocation nothing new opens, and all that is open ends as ever", async () => {
      const context = await deployWith(domain.gate);
      await attest(owner.address);
      await attest(payee.address);
      const { send, agent } = await attempt(context);
      await send();
      await (await as(alice)).revoke(owner.address);
      await (await as(alice)).revoke(payee.address);
      const { send: late } = await attempt(context);
      await expect(late()).to.be.revertedWithCustomError(context.registry, "RefusedByGate").withArgs(owner.address);
      await expectExits(context, agent);
    });
    it("P4 owner_always_exits: neither does an expiry block what is open", async () => {
      const context = await deployWith(domain.gate);
      const expiresAt = (await now()) + 600n;
      await attest(owner.address, { expiresAt });
      await attest(payee.address, { expiresAt });
      const { send, agent } = await attempt(context);
      await send();
      await networkHelpers.time.increaseTo(expiresAt + 1n);
      const { send: late } = await attempt(context);
      await expect(late()).to.be.revertedWithCustomError(context.registry, "RefusedByGate").withArgs(owner.address);
      await expectExits(context, agent);
    });
  });
});

describe("EasGate", () => {
  let eas: TinyEas;
  let gate: EasGate;
  const attester = other;

  beforeEach(async () => {
    eas = await new TinyEas__factory(deployer).deploy();
    gate = (await new EasGate__factory(deployer).deploy(eas, SCHEMA, [attester.address, processor.address])).connect(
      stranger,
    );
  });

  /** Attests in the service, and answers the attestation's id. */
  async function issue(recipient: Address, expirationTime = 0n, by = attester, schema = SCHEMA, data = "0x") {
    const sent = await eas.connect(by).attest(schema, recipient, expirationTime, data);
    const receipt = await sent.wait();
    return eas.interface.parseLog(receipt!.logs[0]!)!.args["uid"] as string;
  }
  const knows = (account: Address): Promise<boolean> => gate.isAttested(account);
  const isNotValid = async (uid: string): Promise<void> => {
    await expect(gate.point(uid)).to.be.revertedWithCustomError(gate, "NotValid").withArgs(uid);
  };

  it("reads one schema of some attesters, fixed at deployment", async () => {
    expect([...(await gate.attesters())]).to.deep.equal([attester.address, processor.address]);
    expect(await gate.schema()).to.equal(SCHEMA);
    expect(await gate.eas()).to.equal(await eas.getAddress());
    await expectInterfaces(gate);
    const factory = new EasGate__factory(deployer);
    const keys = Array.from({ length: 17 }, () => freshKey().address);
    await factory.deploy(eas, SCHEMA, keys.slice(1));
    for (const [list, error, args] of [
      [[], "AttesterCountOutOfRange", [0n, 16n]],
      [keys, "AttesterCountOutOfRange", [17n, 16n]],
      [[keys[0]!, keys[0]!], "InvalidAttester", [keys[0]]],
      [[ZeroAddress], "InvalidAttester", [ZeroAddress]],
    ] as const)
      await expect(factory.deploy(eas, SCHEMA, [...list]))
        .to.be.revertedWithCustomError(factory, error)
        .withArgs(...args);
  });
  it("knows an account once anybody pointed to its attestation", async () => {
    const uid = await issue(owner.address);
    expect(await gate.mayOpen(owner.address, other.address, other.address, 1n)).to.equal(false);
    await expect(gate.point(uid)).to.emit(gate, "Pointed").withArgs(owner.address, uid, attester.address);
    expect(await gate.mayOpen(owner.address, other.address, other.address, 1n)).to.equal(true);
    expect(await gate.mayBePaid(owner.address, other.address)).to.equal(true);
    expect(await gate.mayBePaid(payee.address, other.address)).to.equal(false);
    expect(await gate.uidOf(owner.address)).to.equal(uid);
  });
  it("takes no attestation of another schema, of somebody else, or that does not exist", async () => {
    await isNotValid(await issue(payee.address, 0n, attester, `0x${"5d".repeat(32)}`));
    await isNotValid(await issue(payee.address, 0n, stranger));
    await isNotValid(`0x${"77".repeat(32)}`);
    await isNotValid(ZeroHash);
    expect(await knows(payee.address)).to.equal(false);
    expect(await knows(ZeroAddress as Address)).to.equal(false);
  });
  it("follows the service: an attestation counts until the second of its end and not in it", async () => {
    const end = (await now()) + 1_000n;
    await gate.point(await issue(payee.address, end));
    await networkHelpers.time.increaseTo(end - 1n);
    expect(await knows(payee.address)).to.equal(true);
    await networkHelpers.time.increaseTo(end);
    expect(await knows(payee.address)).to.equal(false);
  });
  it("takes an attestation until the second of its end and not in it", async () => {
    const end = (await now()) + 1_000n;
    const [one, two] = [await issue(payee.address, end), await issue(owner.address, end)];
    await at(end - 1n);
    await gate.point(one);
    await at(end);
    await isNotValid(two);
  });
  it("follows the service: a revoked attestation counts no more at once, and is not taken", async () => {
    const [one, two] = [await issue(payee.address), await issue(owner.address)];
    await gate.point(one);
    await eas.connect(attester).revoke(one);
    expect(await knows(payee.address)).to.equal(false);
    await eas.connect(attester).revoke(two);
    await isNotValid(two);
  });
  it("keeps the longer of two that count, and takes another once the first is over", async () => {
    const time = await now();
    const short = await issue(payee.address, time + 1_000n);
    const long = await issue(payee.address, time + 2_000n, processor);
    const forever = await issue(payee.address);
    await gate.point(short);
    await gate.point(long);
    for (const uid of [short, long])
      await expect(gate.point(uid)).to.be.revertedWithCustomError(gate, "NoBetter").withArgs(uid, long);
    await gate.point(forever);
    await expect(gate.point(await issue(payee.address))).to.be.revertedWithCustomError(gate, "NoBetter");
    await eas.connect(attester).revoke(forever);
    await gate.point(short);
    expect(await knows(payee.address)).to.equal(true);
  });
  it("refuses new business of who has none, and of an account whose attestation is too long to be read", async () => {
    const context = await deployWith((await gate.getAddress()) as Address);
    const { send } = await attempt(context);
    await expect(send()).to.be.revertedWithCustomError(context.registry, "RefusedByGate").withArgs(owner.address);
    await gate.point(await issue(owner.address));
    await gate.point(await issue(payee.address, 0n, attester, SCHEMA, `0x${"ab".repeat(10_000)}`));
    await expect(send()).to.be.revertedWithCustomError(context.registry, "RefusedByGate").withArgs(payee.address);
  });
  it("P4 owner_always_exits, P17 sp_cannot_take: after a revocation nothing new opens, and all that is open ends as ever", async () => {
    const context = await deployWith((await gate.getAddress()) as Address);
    const uids = [await issue(owner.address), await issue(payee.address)];
    for (const uid of uids) await gate.point(uid);
    const { send, agent } = await attempt(context);
    await send();
    for (const uid of uids) await eas.connect(attester).revoke(uid);
    const { send: late } = await attempt(context);
    await expect(late()).to.be.revertedWithCustomError(context.registry, "RefusedByGate").withArgs(owner.address);
    await expectExits(context, agent);
  });
});
