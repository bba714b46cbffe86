import type { Address } from "@bursar/protocol";
import { expect } from "chai";
import { ZeroAddress, type BaseContract, type Wallet } from "ethers";

import { Bench, ROLES, type NodeProvider, type Outcome } from "../../scripts/conformance/index.ts";
import {
  AttestedGate__factory,
  BondedArbiter__factory,
  CrookedGate__factory,
  CrookedWallet__factory,
  Disputes__factory,
  EasGate__factory,
  FlatteringFeedback__factory,
  IDisputeModule__factory,
  ISettlement__factory,
  KeyWallet__factory,
  OpenGate__factory,
  PaidFeedback__factory,
  RepeatedFeedback__factory,
  StubVerifier__factory,
  Tampered__factory,
  TinyEas__factory,
} from "../../typechain-types/index.ts";
import { circuitIdOf, circuitSize, openCircuit } from "@bursar/prover";
import {
  DAY,
  deployCore,
  deployer,
  ethers,
  freshKey,
  networkHelpers,
  now,
  other,
  owner,
  stranger,
  type Core,
} from "./fixture.ts";
import { signAttestation } from "./sign-attestation.ts";
import { deployBursar, deployVerifier } from "./whole-rail.ts";

const SCHEMA = `0x${"5c".repeat(32)}`;

const addressOf = async (contract: BaseContract): Promise<Address> => (await contract.getAddress()) as Address;
const named = (outcomes: Outcome[], result: Outcome["result"]): string[] =>
  outcomes.filter((one) => one.result === result).map(({ requirement }) => requirement);
const reasons = (outcomes: Outcome[]): string =>
  outcomes.map(({ requirement, reason }) => `${requirement}: ${reason ?? "-"}`).join("\n");

function expectKept(outcomes: Outcome[], skipped: string[] = []): void {
  expect(named(outcomes, "fail"), reasons(outcomes)).to.deep.equal([]);
  expect(named(outcomes, "skip"), reasons(outcomes)).to.deep.equal(skipped);
  expect(named(outcomes, "pass").length).to.be.at.least(3);
}

function expectBroken(outcomes: Outcome[], requirement: string, reason: RegExp): void {
  expect(named(outcomes, "fail"), reasons(outcomes)).to.deep.equal([requirement]);
  expect(outcomes.find((one) => one.requirement === requirement)!.reason).to.match(reason);
}

/** The code of a real contract, which then answers this one call with a word. */
async function tamper(contract: BaseContract, selector: string, word: bigint): Promise<void> {
  const at = await addressOf(contract);
  const behind = freshKey().address;
  await networkHelpers.setCode(behind, await ethers.provider.getCode(at));
  const tampered = await new Tampered__factory(deployer).deploy(behind, selector, word);
  await networkHelpers.setCode(at, await ethers.provider.getCode(tampered));
}

describe("conformance", function () {
  this.timeout(300_000);
  let bench: Bench;
  let context: Core;
  let registry: Address;

  before(async () => {
    context = await deployCore();
    registry = await addressOf(context.registry);
    bench = await Bench.open(ethers.provider);
  });

  it("is judged on the chain as it was: nothing of it stays", async () => {
    const feedback = await new PaidFeedback__factory(deployer).deploy(registry);
    const before = await ethers.provider.getBlockNumber();
    await ROLES.reputation(bench, await addressOf(feedback), { registry });
    expect(await ethers.provider.getBlockNumber()).to.equal(before);
  });
  it("of an address without code fails, whatever the role", async () => {
    for (const judge of Object.values(ROLES)) {
      const outcomes = await judge(bench, freshKey().address as Address, { registry });
      expect(named(outcomes, "fail")).to.deep.equal(["deployed"]);
      expect(named(outcomes, "pass")).to.deep.equal([]);
    }
  });

  it("on a chain that is not local is judged by questions alone, and nothing is sent", async () => {
    const provider = ethers.provider as unknown as NodeProvider;
    const remote = new Proxy(provider, {
      get(target, name): unknown {
        if (name === "send") return (method: string) => Promise.reject(new Error(`${method} is not available`));
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      },
    });
    const far = await Bench.open(remote);
    expect(far.local).to.equal(false);
    const gate = await new OpenGate__factory(deployer).deploy();
    expectKept(await ROLES.identity(far, await addressOf(gate), { registry }), ["admits", "refuses"]);
    const feedback = await new PaidFeedback__factory(deployer).deploy(registry);
    const outcomes = await ROLES.reputation(far, await addressOf(feedback), { registry });
    expect(named(outcomes, "pass")).to.deep.equal(["deployed", "interfaces", "empty-at-first"]);
    expect(named(outcomes, "fail")).to.deep.equal([]);
    expect(outcomes.at(-1)!.reason).to.match(/local chain/);
  });

  describe("identity", () => {
    it("is kept by OpenGate", async () => {
      const gate = await new OpenGate__factory(deployer).deploy();
      const admitted = [owner.address, ZeroAddress as Address];
      expectKept(await ROLES.identity(bench, await addressOf(gate), { registry, admitted }), ["refuses"]);
    });
    it("is kept by AttestedGate", async () => {
      const attester = freshKey();
      const gate = await new AttestedGate__factory(deployer).deploy([attester.address]);
      const time = await now();
      const attestation = { subject: owner.address, issuedAt: time, expiresAt: time + DAY };
      const domain = { chainId: context.domain.chainId, gate: await addressOf(gate) };
      await gate.attest(attestation, attester.address, await signAttestation(attester, domain, attestation));
      const details = { registry, admitted: [owner.address], refused: [stranger.address] };
      expectKept(await ROLES.identity(bench, domain.gate, details));
      const swapped = await ROLES.identity(bench, domain.gate, {
        admitted: [stranger.address],
        refused: [owner.address],
      });
      expect(named(swapped, "fail")).to.deep.equal(["admits", "refuses"]);
    });
    it("is kept by EasGate", async () => {
      const eas = await new TinyEas__factory(deployer).deploy();
      const gate = await new EasGate__factory(deployer).deploy(eas, SCHEMA, [other.address]);
      const sent = await (await eas.connect(other).attest(SCHEMA, owner.address, 0n, "0x")).wait();
      await gate.point(eas.interface.parseLog(sent!.logs[0]!)!.args["uid"] as string);
      const details = { registry, admitted: [owner.address], refused: [stranger.address] };
      expectKept(await ROLES.identity(bench, await addressOf(gate), details));
    });
    for (const [fault, what, requirement, reason] of [
      [1, "answers the registry otherwise than who looks before", "impartial", /asked by/],
      [2, "writes while it answers", "reads-only", /writes/],
      [3, "takes more gas than it is given", "frugal", /gas/],
      [4, "says yes as 2", "plain", /32 bytes, 2/],
      [5, "claims every interface", "interfaces", /0xffffffff/],
    ] as const) {
      it(`is broken by a gate that ${what}: ${requirement}`, async () => {
        const gate = await new CrookedGate__factory(deployer).deploy(fault);
        expectBroken(await ROLES.identity(bench, await addressOf(gate), { registry }), requirement, reason);
      });
    }
    it("is kept by the same gate without a fault", async () => {
      const gate = await new CrookedGate__factory(deployer).deploy(0);
      expectKept(await ROLES.identity(bench, await addressOf(gate), { registry }), ["admits", "refuses"]);
    });
  });

  describe("wallet", () => {
    let key: Wallet;
    beforeEach(() => (key = freshKey()));

    it("is kept by KeyWallet", async () => {
      const wallet = await new KeyWallet__factory(deployer).deploy(other.address, key.address);
      expectKept(await ROLES.wallet(bench, await addressOf(wallet), { key }));
    });
    it("is looked at as far as one signature shows, where the key stays where it is", async () => {
      const wallet = await new KeyWallet__factory(deployer).deploy(other.address, key.address);
      const address = await addressOf(wallet);
      expectKept(await ROLES.wallet(bench, address, {}), [
        "names-its-signer",
        "signs",
        "binds-the-message",
        "one-form",
        "binds-the-key",
        "binds-the-wallet",
      ]);
      const digest = `0x${"77".repeat(32)}` as const;
      const struct = ethers.keccak256(ethers.concat([ethers.id("PersonalSign(bytes prefixed)"), digest]));
      const domain = { name: "KeyWallet", version: "1", chainId: bench.chainId, verifyingContract: address };
      const nested = ethers.concat(["0x1901", ethers.TypedDataEncoder.hashDomain(domain), struct]);
      const signature = key.signingKey.sign(ethers.keccak256(nested)).serialized as Address;
      expectKept(await ROLES.wallet(bench, address, { sample: { digest, signature } }), [
        "names-its-signer",
        "binds-the-key",
        "binds-the-wallet",
      ]);
    });
    it("is broken by a wallet whose key is another", async () => {
      const wallet = await new KeyWallet__factory(deployer).deploy(other.address, freshKey().address);
      const outcomes = await ROLES.wallet(bench, await addressOf(wallet), { key });
      expect(named(outcomes, "fail")).to.deep.equal(["names-its-signer", "signs"]);
    });
    for (const [fault, what, requirement, reason] of [
      [0, "takes what its key signed for itself", "binds-the-wallet", /own account/],
      [1, "takes a mirror image", "one-form", /mirror/],
      [2, "knows no interface", "interfaces", /IERC165/],
    ] as const) {
      it(`is broken by a wallet that ${what}: ${requirement}`, async () => {
        const wallet = await new CrookedWallet__factory(deployer).deploy(fault, other.address, key.address);
        expectBroken(await ROLES.wallet(bench, await addressOf(wallet), { key }), requirement, reason);
      });
    }
  });

  describe("settlement", () => {
    async function deploy(verifier: string): Promise<Address> {
      const bursar = await deployBursar([verifier], [await deployVerifier("TinyInclusion")]);
      return (await bursar.settlement()) as Address;
    }
    const real = async (): Promise<Address> => deploy(await deployVerifier("TinyBatch"));

    it("is kept by BatchSettlement", async () => {
      expectKept(await ROLES.settlement(bench, await real()));
    });
    it("is broken by a verifier that says yes to everything: true-proofs-only", async () => {
      const circuitId = circuitIdOf((await openCircuit(circuitSize("tiny"))).verificationKey);
      const stub = await new StubVerifier__factory(deployer).deploy(circuitId);
      const outcomes = await ROLES.settlement(bench, await deploy(await addressOf(stub)));
      expectBroken(outcomes, "true-proofs-only", /was not refused/);
    });
    for (const [call, word, requirement, reason] of [
      ["transcriptOf", 0n, "keeps-the-transcript", /transcriptOf is/],
      ["verifierOf", 1n, "known-circuits-only", /unknown circuit/],
    ] as const) {
      it(`is broken by a contract that answers ${call} with ${word}: ${requirement}`, async () => {
        const settlement = ISettlement__factory.connect(await real(), deployer);
        await tamper(settlement, settlement.interface.getFunction(call).selector, word);
        expectBroken(await ROLES.settlement(bench, await addressOf(settlement)), requirement, reason);
      });
    }
    it("is broken by a contract that its registry does not know: bound", async () => {
      const settlement = ISettlement__factory.connect(await real(), deployer);
      const elsewhere = BigInt(registry);
      await tamper(settlement, settlement.interface.getFunction("registry").selector, elsewhere);
      expect(named(await ROLES.settlement(bench, await addressOf(settlement)), "fail")).to.include("bound");
    });
  });

  describe("dispute", () => {
    async function deploy(posted = true) {
      const arbiter = await new BondedArbiter__factory(deployer).deploy([other.address], 1_000n, 5_000n, 7n * DAY);
      if (posted) await arbiter.connect(other).postBond({ value: 20_000n });
      const rotation = ethers.AbiCoder.defaultAbiCoder().encode(["address"], [ZeroAddress]);
      const deadlines = { deliver: 3_600n, answer: 2n * DAY, escalate: DAY, rule: 14n * DAY };
      return new Disputes__factory(deployer).deploy(registry, arbiter, rotation, deadlines);
    }

    it("is kept by Disputes", async () => {
      expectKept(await ROLES.dispute(bench, await addressOf(await deploy())));
    });
    it("is kept by Disputes with an arbitrator that takes none, as far as that shows", async () => {
      expectKept(await ROLES.dispute(bench, await addressOf(await deploy(false))), [
        "obeys-its-arbitrator",
        "outlives-its-arbitrator",
      ]);
    });
    async function broken(call: "refund" | "fileOverQuote" | "rule" | "release"): Promise<Outcome[]> {
      const module = IDisputeModule__factory.connect(await addressOf(await deploy()), deployer);
      await tamper(module, module.interface.getFunction(call).selector, 0n);
      return ROLES.dispute(bench, await addressOf(module));
    }
    it("is broken by a module whose payee cannot give in: gives-in", async () => {
      expectBroken(await broken("refund"), "gives-in", /not refused/);
    });
    it("is broken by a module that knows no quotes: refunds-above-the-quote", async () => {
      expectBroken(await broken("fileOverQuote"), "refunds-above-the-quote", /not refused/);
    });
    it("is broken by a module that hears no arbitrator: obeys-its-arbitrator, and no end is an end", async () => {
      const outcomes = await broken("rule");
      expect(named(outcomes, "fail")).to.deep.equal(["obeys-its-arbitrator", "outlives-its-arbitrator"]);
    });
    it("is broken by a module that lets nothing go: pays-after-the-holdback, and keeps what is not disputed", async () => {
      const outcomes = await broken("release");
      expect(named(outcomes, "fail")).to.deep.equal(["pays-after-the-holdback", "freezes-that-alone"]);
    });
  });

  describe("reputation", () => {
    it("is kept by PaidFeedback", async () => {
      const feedback = await new PaidFeedback__factory(deployer).deploy(registry);
      expectKept(await ROLES.reputation(bench, await addressOf(feedback), { registry }));
    });
    it("is broken by feedback of which one payment buys any number: one-word-a-payment", async () => {
      const feedback = await new RepeatedFeedback__factory(deployer).deploy(registry);
      const outcomes = await ROLES.reputation(bench, await addressOf(feedback), { registry });
      expectBroken(outcomes, "one-word-a-payment", /second word/);
    });
    it("is broken by feedback that flatters: true-mean", async () => {
      const feedback = await new FlatteringFeedback__factory(deployer).deploy(registry);
      const outcomes = await ROLES.reputation(bench, await addressOf(feedback), { registry });
      expectBroken(outcomes, "true-mean", /mean/);
    });
    it("is not looked at for want of a registry to pay by", async () => {
      const feedback = await new PaidFeedback__factory(deployer).deploy(registry);
      const outcomes = await ROLES.reputation(bench, await addressOf(feedback), {});
      expect(named(outcomes, "pass")).to.deep.equal(["deployed", "interfaces", "empty-at-first"]);
      expect(named(outcomes, "fail")).to.deep.equal([]);
    });
  });
});
