import {
  AgentLedger,
  allowList,
  challenge,
  FIELD,
  hashLine,
  signPayment,
  transcript,
  type Address,
  type Credit,
  type Hex,
  type Row,
} from "@bursar/protocol";
import { buildCircuit, circuitIdOf, circuitSize, layOut, Prover, type BatchRow } from "@bursar/prover";
import { expect } from "chai";
import { network } from "hardhat";
import { getCreateAddress, id, Signature, toBeHex, ZeroHash } from "ethers";

import { readArtifact } from "../../deploy/artifact.ts";
import { BatchSettlement__factory, StubVerifier__factory, type BatchSettlement } from "../../typechain-types/index.ts";
import {
  deployer,
  ethers,
  fields,
  networkHelpers,
  open,
  other,
  payee,
  processor,
  stranger,
  type Core,
} from "./fixture.ts";
import { deployBursar, deployRail, deployVerifier } from "./whole-rail.ts";

const TINY = circuitSize("tiny");
const BAD = 2n ** 256n - 1n;

interface SignedRow extends Row {
  lineHash: Hex;
  r: string;
  s: string;
  v: number;
}

interface Spender extends Awaited<ReturnType<typeof open>> {
  ledger: AgentLedger;
}

interface Call {
  circuitId: Hex;
  rows: SignedRow[];
  credits: Credit[];
  commitment: bigint;
  evaluation: bigint;
  proof: bigint[];
}

describe("BatchSettlement", function () {
  this.timeout(300_000);
  const prover = new Prover();
  let context: Core;
  let settlement: BatchSettlement;
  let honest: Call;
  let base: Awaited<ReturnType<typeof networkHelpers.takeSnapshot>>;

  before(async () => {
    ({ context, settlement } = await deployRail());
    honest = await prove();
    base = await networkHelpers.takeSnapshot();
  });
  beforeEach(() => base.restore());
  after(() => prover.close());

  async function hire(): Promise<Spender> {
    const { agent, mandate } = await open(context);
    const secret = id(agent.address) as Hex;
    return {
      agent,
      mandate,
      ledger: new AgentLedger({ domain: context.domain, agent: agent.address as Address, secret }),
    };
  }

  /** Mandates that pay two payees so many times each, from where a page begins, proved. Three and nine times unless given. */
  async function prove(payments?: [Spender, count: number][]): Promise<Call> {
    const payees = [payee.address, other.address];
    const parts: { row: BatchRow; lineHash: Hex; signature: Signature }[] = [];
    for (const [{ agent, mandate, ledger }, count] of payments ?? [
      [await hire(), 3],
      [await hire(), 9],
    ]) {
      const drafts = Array.from({ length: count }, (_, i) =>
        ledger.append({ payee: payees[i % 2]!, amount: BigInt(10 + i), ref: ZeroHash as Hex }),
      );
      const { payment } = drafts.at(-1)!;
      const { base, seq } = await context.registry.positionOf(agent.address);
      parts.push({
        row: {
          agent: agent.address as Address,
          base,
          seq,
          allow: allowList(mandate.payees),
          paymentCap: mandate.paymentCap,
          salts: drafts.filter((_, i) => i % 7 === 0).map(({ salt }) => salt),
          lines: drafts.map((one) => one.payment.line),
        },
        lineHash: hashLine(payment.line),
        signature: Signature.from(await signPayment(agent, context.domain, payment)),
      });
    }
    parts.sort((a, b) => (BigInt(a.row.agent) < BigInt(b.row.agent) ? -1 : 1));
    const statement = layOut(
      TINY,
      parts.map(({ row }) => row),
    );
    const { commitment, credits } = statement;
    const rows = statement.rows.map((row, i) => {
      const { r, s, v } = parts[i]!.signature;
      return { ...row, lineHash: parts[i]!.lineHash, r, s, v };
    });
    const { verificationKey } = await buildCircuit(TINY);
    const circuitId = circuitIdOf(verificationKey);
    const bound = transcript({
      chainId: context.domain.chainId,
      settlement: (await settlement.getAddress()) as Address,
      circuitId,
      commitment,
      rows,
      credits,
    });
    const { proof, signals } = await prover.prove(TINY, statement, challenge(bound));
    return { circuitId, rows, credits: [...credits], commitment, evaluation: signals.T, proof: [...proof] };
  }

  const send = ({ circuitId, rows, credits, commitment, evaluation, proof }: Call, by = settlement) =>
    by.settle(
      circuitId,
      rows,
      credits.map((credit) => ({ ...credit })),
      commitment,
      evaluation,
      proof,
    );
  const altered = (change: (call: Call) => void): Call => {
    const call = structuredClone(honest);
    change(call);
    return call;
  };

  describe("constructor", () => {
    it("wires registry, escrow and both settlement contracts to each other, in one transaction", async () => {
      const registry = await settlement.registry();
      expect(registry).to.equal(context.domain.registry);
      expect(await context.registry.settlement()).to.equal(await settlement.getAddress());
      expect(await context.registry.direct()).to.equal(await context.direct.getAddress());
      expect(await context.direct.registry()).to.equal(registry);
      expect(await context.registry.escrow()).to.equal(await context.escrow.getAddress());
      expect(await context.escrow.registry()).to.equal(registry);
    });
    it("says which verifiers are built in", async () => {
      const [added] = await settlement.queryFilter(settlement.filters.VerifierAdded());
      expect([added!.args.circuitId, added!.args.verifier]).to.deep.equal([
        honest.circuitId,
        await settlement.verifierOf(honest.circuitId),
      ]);
    });
    it("refuses to stand without a verifier, and two for one circuit", async () => {
      const factory = new BatchSettlement__factory(deployer);
      await expect(factory.deploy(context.registry, [])).to.be.revertedWithCustomError(settlement, "NoVerifiers");
      const stub = await new StubVerifier__factory(deployer).deploy(id("stub"));
      await expect(factory.deploy(context.registry, [stub, stub]))
        .to.be.revertedWithCustomError(settlement, "DuplicateCircuit")
        .withArgs(id("stub"));
      const inclusions = [await deployVerifier("TinyInclusion")];
      await expect(deployBursar([], inclusions)).to.be.revertedWithCustomError(settlement, "NoVerifiers");
    });
  });

  describe("settle", () => {
    it("I4: goes on where the last batch ended, and counts from there in what it leaves", async () => {
      const spender = await hire();
      await send(await prove([[spender, 7]]));
      const { seq, spent } = await context.registry.positionOf(spender.agent.address);
      expect(seq).to.equal(7n);
      const next = await prove([[spender, 3]]);
      await expect(send(next))
        .to.emit(settlement, "MandateSettled")
        .withArgs(spender.agent.address, 2n, 10n, spent + 33n, next.rows[0]!.head);
    });
    it("moves both mandates and pays both payees, with one proof", async () => {
      await expect(send(honest)).to.emit(settlement, "BatchSettled");
      for (const { agent, head, newBase, count, debit, base: from } of honest.rows) {
        expect(fields(await context.registry.positionOf(agent))).to.deep.include({
          base: newBase,
          seq: count,
          spent: debit,
        });
        expect(head).not.to.equal(from);
      }
      for (const { payee: account, amount } of honest.credits)
        expect(await context.escrow.creditOf(context.token, account)).to.equal(amount);
    });
    it("tells what it did, and keeps the transcript", async () => {
      const settled = send(honest);
      const total = honest.rows.reduce((sum, { debit }) => sum + debit, 0n);
      const address = (await settlement.getAddress()) as Address;
      const bound = transcript({ ...honest, chainId: context.domain.chainId, settlement: address });
      await expect(settled)
        .to.emit(settlement, "BatchSettled")
        .withArgs(1n, processor.address, context.token, honest.circuitId, bound, total, 2n, 2n);
      for (const { agent, count, debit, head } of honest.rows) {
        await expect(settled).to.emit(settlement, "MandateSettled").withArgs(agent, 1n, count, debit, head);
      }
      expect(await settlement.transcriptOf(1n)).to.equal(bound);
      expect(await settlement.batchCount()).to.equal(1n);
      expect(await settlement.transcriptOf(2n)).to.equal(ZeroHash);
    });
    it("works while the token is paused, and for a payee that the token blocks", async () => {
      await context.dollar.connect(deployer).setBlocked(payee.address, true);
      await context.dollar.connect(deployer).pause();
      await send(honest);
      expect(await context.escrow.creditOf(context.token, payee.address)).to.be.greaterThan(0n);
    });
    it("P9 pay_once: refuses the batch again, from a stale base", async () => {
      await send(honest);
      await expect(send(honest)).to.be.revertedWithCustomError(context.registry, "WrongSigner");
    });
    it("K14: refuses everybody but the processor that the mandates name", async () => {
      for (const signer of [deployer, stranger]) {
        await expect(send(honest, settlement.connect(signer)))
          .to.be.revertedWithCustomError(context.registry, "WrongProcessor")
          .withArgs(honest.rows[0]!.agent, signer.address, processor.address);
      }
    });

    const mismatches: [name: string, change: (call: Call) => void][] = [
      ["a credit for another payee", ({ credits }) => (credits[0] = { ...credits[0]!, payee: stranger.address })],
      [
        "a unit moved between credits",
        ({ credits }) =>
          void (
            (credits[0] = { ...credits[0]!, amount: credits[0]!.amount - 1n }),
            (credits[1] = { ...credits[1]!, amount: credits[1]!.amount + 1n })
          ),
      ],
      ["another next base", ({ rows }) => (rows[0] = { ...rows[0]!, newBase: rows[0]!.newBase + 1n })],
      ["another commitment", (call) => (call.commitment += 1n)],
      ["another evaluation", (call) => (call.evaluation += 1n)],
    ];
    for (const [name, change] of mismatches) {
      it(`P17 sp_cannot_take: refuses ${name}`, async () => {
        await expect(send(altered(change))).to.be.revertedWithCustomError(settlement, "EvaluationMismatch");
      });
    }
    it("P17 sp_cannot_take: refuses credits that sum up to other than the debits", async () => {
      const more = altered(({ credits }) => (credits[0] = { ...credits[0]!, amount: credits[0]!.amount + 1n }));
      await expect(send(more)).to.be.revertedWithCustomError(context.escrow, "CreditsDifferFromDebits");
    });
    it("refuses value + r: commitment, evaluation, head, next base", async () => {
      for (const change of [
        (call: Call) => (call.commitment += FIELD),
        (call: Call) => (call.evaluation += FIELD),
        ({ rows }: Call) => (rows[0] = { ...rows[0]!, head: rows[0]!.head + FIELD }),
        ({ rows }: Call) => (rows[0] = { ...rows[0]!, newBase: rows[0]!.newBase + FIELD }),
      ]) {
        await expect(send(altered(change))).to.be.revertedWithCustomError(settlement, "NotAFieldElement");
      }
    });
    it("refuses a bit beyond the width of any word of a row or credit", async () => {
      const { data } = await settlement.settle.populateTransaction(
        honest.circuitId,
        honest.rows,
        honest.credits.map((credit) => ({ ...credit })),
        honest.commitment,
        honest.evaluation,
        honest.proof,
      );
      const find = (word: string): number => data.indexOf(word.slice(2).toLowerCase().padStart(64, "0"));
      const row = find(honest.rows[1]!.agent);
      const credit = find(honest.credits[1]!.payee);
      const words: [word: number, bits: bigint][] = [
        [row, 160n],
        [row + 64, 32n],
        [row + 2 * 64, 64n],
        [row + 8 * 64, 8n],
        [credit, 160n],
        [credit + 64, 64n],
      ];
      for (const [word, bits] of words) {
        for (const bit of [bits, 255n]) {
          const wide = BigInt(`0x${data.slice(word, word + 64)}`) | (1n << bit);
          const altered = `${data.slice(0, word)}${toBeHex(wide, 32).slice(2)}${data.slice(word + 64)}`;
          await expect(processor.sendTransaction({ to: settlement, data: altered })).to.be.revertedWithoutReason(
            ethers,
          );
        }
      }
      await expect(processor.sendTransaction({ to: settlement, data })).to.emit(settlement, "BatchSettled");
    });
    it("refuses a circuit that it does not know", async () => {
      await expect(send(altered((call) => (call.circuitId = id("other") as Hex))))
        .to.be.revertedWithCustomError(settlement, "UnknownCircuit")
        .withArgs(id("other"));
    });
    it("refuses another proof, a proof with a coordinate + q, and an empty one", async () => {
      for (const change of [
        (call: Call) => (call.proof[0] = call.proof[0]! + 1n),
        (call: Call) => (call.proof[0] = BAD),
        (call: Call) => (call.proof = Array<bigint>(8).fill(0n)),
      ]) {
        await expect(send(altered(change)))
          .to.be.revertedWithCustomError(settlement, "InvalidProof")
          .withArgs(honest.circuitId);
      }
    });
  });

  describe("the verifier", () => {
    it("refuses signals of value + r", async () => {
      const { abi } = readArtifact("verifiers/TinyBatchVerifier");
      const verifier = new ethers.Contract(await settlement.verifierOf(honest.circuitId), abi, deployer);
      const address = (await settlement.getAddress()) as Address;
      const z = challenge(transcript({ ...honest, chainId: context.domain.chainId, settlement: address }));
      const signals = [honest.evaluation, honest.commitment, z];
      const verify = (values: bigint[]) => verifier.getFunction("verify")(honest.proof, values) as Promise<boolean>;
      expect(await verify(signals)).to.equal(true);
      for (const index of [0, 1, 2])
        expect(await verify(signals.map((value, i) => (i === index ? value + FIELD : value)))).to.equal(false);
      for (const index of [0, 1, 2])
        expect(await verify(signals.map((value, i) => (i === index ? (value + 1n) % FIELD : value)))).to.equal(false);
    });
    it("says that it holds a development key, and refuses a chain that is not local", async () => {
      const { abi, bytecode } = readArtifact("verifiers/TinyBatchVerifier");
      const verifier = new ethers.Contract(await settlement.verifierOf(honest.circuitId), abi, deployer);
      expect(await verifier.getFunction("isDevelopmentKey")()).to.equal(true);
      const elsewhere = await network.create({ override: { chainId: 5_555 } });
      const [signer] = await elsewhere.ethers.getSigners();
      const deployment = new elsewhere.ethers.ContractFactory(abi, bytecode, signer).deploy();
      await expect(deployment)
        .to.be.revertedWithCustomError({ interface: new ethers.Interface(abi) }, "DevelopmentKey")
        .withArgs(5_555n);
      await elsewhere.close();
    });
  });

  it("uses no address of the deployer's choice: the core's addresses follow from Bursar's", async () => {
    const verifiers = [await settlement.verifierOf(honest.circuitId)];
    const bursar = await deployBursar(verifiers, [await deployVerifier("TinyInclusion")]);
    const from = await bursar.getAddress();
    const expected = [1, 2, 3, 4].map((nonce) => getCreateAddress({ from, nonce }));
    expect([
      await bursar.escrow(),
      await bursar.registry(),
      await bursar.settlement(),
      await bursar.direct(),
    ]).to.deep.equal(expected);
  });
});
