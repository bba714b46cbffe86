import { FIELD, verifyPaid, type Address } from "@bursar/protocol";
import { capacity, circuitSize } from "@bursar/prover";
import { expect } from "chai";
import { AbiCoder, ContractFactory, ZeroAddress, ZeroHash, type Result } from "ethers";

import { readArtifact } from "../../deploy/artifact.ts";
import { TestUSD__factory } from "../../typechain-types/index.ts";
import { postTestBond, TestRail, type PayingAgent } from "./rail.ts";

describe("The rail", function () {
  this.timeout(300_000);
  let rail: TestRail;

  before(async () => {
    rail = await TestRail.start();
  });
  after(async () => {
    await rail.stop();
  });

  /** Plans, proves and settles what waits. */
  async function settleAll(): Promise<void> {
    for (const { state, error } of await rail.settler.run()) expect(state, error ?? "").to.equal("settled");
  }

  async function credit(payee: Address, token = rail.token): Promise<bigint> {
    return rail.chain.escrow.creditOf(token, payee);
  }

  async function payMany(agent: PayingAgent, payees: readonly Address[], count: number): Promise<bigint> {
    let total = 0n;
    for (let i = 0; i < count; ++i) {
      const amount = BigInt(1 + ((i * 37) % 900));
      await agent.pay(payees[i % payees.length]!, amount);
      total += amount;
    }
    return total;
  }

  /** The chain stands where the store says, and where the agents' own ledgers do. */
  async function expectAgreement(agents: readonly PayingAgent[]): Promise<void> {
    for (const { address, ledger } of agents) {
      const { base, seq, spent } = await rail.chain.registry.positionOf(address);
      expect({ base, seq, spent }).to.deep.equal((await rail.store.mandateOf(address)).settled);
      expect({ base, seq, spent }).to.deep.equal({
        base: BigInt(ledger.state.base),
        seq: ledger.state.seq,
        spent: ledger.state.spent,
      });
    }
  }

  it("I1 solvency: settles several mandates, pages and batches in a row, continuing partial pages", async () => {
    const payees = [rail.payee(), rail.payee(), rail.payee()];
    const [ada, ben, cleo] = [await rail.open(), await rail.open({ payees: payees.slice(0, 2) }), await rail.open()];
    let paid = 0n;
    for (const [a, b, c] of [
      [5, 10, 1],
      [4, 20, 6],
      [1, 5, 14],
    ] as const) {
      paid += await payMany(ada, payees, a);
      paid += await payMany(ben, payees.slice(0, 2), b);
      paid += await payMany(cleo, payees, c);
      await settleAll();
      await expectAgreement([ada, ben, cleo]);
    }
    const credits = await Promise.all(payees.map((payee) => credit(payee)));
    expect(credits.reduce((sum, one) => sum + one)).to.equal(paid);
    const { escrow, processors } = rail.chain;
    const bond = await processors.bondOf(rail.processorKey.address, rail.token);
    const held = (await escrow.freeOf(rail.token, rail.ownerAddress)) + (await escrow.lockedOf(rail.token)) + paid;
    expect(await rail.dollar.balanceOf(rail.chain.rail.escrow)).to.equal(held + bond);

    for (const payee of payees) await (await escrow.connect(rail.owner).sweepCredit(rail.token, payee)).wait();
    const received = await Promise.all(payees.map((payee) => rail.dollar.balanceOf(payee)));
    expect(received).to.deep.equal(credits);
  });

  it("settles a mandate that takes two segments, in one transaction with one proof", async () => {
    const [agent, payee] = [await rail.open(), rail.payee()];
    const total = await payMany(agent, [payee], 20);
    const planned = await rail.settler.plan();
    expect(planned).to.include({ circuit: "tiny", payments: 20, total });
    const settled = await rail.settler.finish(planned!.id);
    expect(settled.state).to.equal("settled");
    expect(await credit(payee)).to.equal(total);
    await expectAgreement([agent]);
    const receipt = await rail.provider.getTransactionReceipt(settled.transaction!);
    const events = receipt!.logs
      .map((log) => rail.chain.settlementContract.interface.parseLog(log)?.name)
      .filter(Boolean);
    expect(events).to.deep.equal(["MandateSettled", "BatchSettled"]);
  });

  it("settles in several batches what no circuit holds at once", async () => {
    const payee = rail.payee();
    const agents = await Promise.all([rail.open()]);
    const total = await payMany(agents[0], [payee], capacity(circuitSize("default")) + 3);
    const ended = await rail.settler.run();
    expect(ended.map(({ state, payments }) => [state, payments])).to.deep.equal([
      ["settled", 175],
      ["settled", 3],
    ]);
    expect(await credit(payee)).to.equal(total);
    await expectAgreement(agents);
  });

  it("keeps tokens apart: one batch each, amounts in units of 10^(decimals−6) base units", async () => {
    const { abi, bytecode } = readArtifact("mocks/Tokens#TokenWithDecimals");
    const contract = await new ContractFactory(abi, bytecode, rail.owner).deploy(18);
    await contract.waitForDeployment();
    const ether = (await contract.getAddress()) as Address;
    await postTestBond(rail.chain, rail.processorKey, ether);
    const payee = rail.payee();
    const [inDollars, inEther] = [await rail.open(), await rail.open({ token: ether })];
    await inDollars.pay(payee, 7n);
    await inEther.pay(payee, 9n);
    const ended = await rail.settler.run();
    expect(ended.map(({ state }) => state)).to.deep.equal(["settled", "settled"]);
    expect(await credit(payee)).to.equal(7n);
    expect(await credit(payee, ether)).to.equal(9n * 10n ** 12n);
    await (await rail.chain.escrow.connect(rail.owner).sweepCredit(ether, payee)).wait();
    expect(await TestUSD__factory.connect(ether, rail.provider).balanceOf(payee)).to.equal(9n * 10n ** 12n);
  });

  it("P13 one_bad_mandate_never_blocks_others: a payee that the token blocks, and a paused token, stop no settlement", async () => {
    const [blocked, paid] = [rail.payee(), rail.payee()];
    const agent = await rail.open();
    await agent.pay(blocked, 10n);
    await agent.pay(paid, 20n);
    const admin = TestUSD__factory.connect(rail.token, await rail.provider.getSigner(0));
    await (await admin.setBlocked(blocked, true)).wait();
    await (await admin.pause()).wait();
    await settleAll();
    await (await admin.unpause()).wait();
    const { escrow } = rail.chain;
    await (await escrow.connect(rail.owner).sweepCredit(rail.token, paid)).wait();
    expect(await rail.dollar.balanceOf(paid)).to.equal(20n);
    const refused = await escrow.sweepCredit.staticCall(rail.token, blocked).then(
      () => "paid",
      () => "refused",
    );
    expect(refused).to.equal("refused");
    expect(await credit(blocked)).to.equal(10n);
  });

  it("P8 receipt_verifies_offline: a payee needs nothing but payment, receipt and the processor's address", async () => {
    const [agent, payee] = [await rail.open(), rail.payee()];
    const payment = await agent.sign(payee, 5n);
    const receipt = await rail.processor.accept(payment);
    const expected = {
      domain: rail.domain,
      payee,
      amount: 5n,
      ref: ZeroHash as `0x${string}`,
      processor: rail.processorKey.address as Address,
      now: rail.now(),
    };
    expect(() => verifyPaid({ domain: rail.domain, payment, receipt }, expected)).not.to.throw();
    for (const wrong of [
      { payee: rail.payee() },
      { amount: 6n },
      { ref: `0x${"11".repeat(32)}` as const },
      { processor: rail.payee() },
      { now: rail.now() + 7_200n },
    ]) {
      expect(() => verifyPaid({ domain: rail.domain, payment, receipt }, { ...expected, ...wrong })).to.throw();
    }
  });

  it("gives the payments of a batch that the contract refuses back to the next one", async () => {
    const [agent, payee] = [await rail.open(), rail.payee()];
    await agent.pay(payee, 42n);
    const snapshot: unknown = await rail.provider.send("evm_snapshot", []);
    const planned = await rail.settler.plan();
    await rail.settler.prove(planned!.id);
    await rail.provider.send("evm_increaseTime", [200 * 3_600]);
    await rail.provider.send("evm_mine", []);
    const failed = await rail.settler.finish(planned!.id);
    expect(failed.state).to.equal("failed");
    expect(failed.error).to.match(/^The contract refuses: MandateNotSettleable\(/);
    expect((await rail.store.counts()).unbatched).to.be.greaterThan(0);
    await rail.provider.send("evm_revert", [snapshot]);
    await settleAll();
    expect(await credit(payee)).to.equal(42n);
  });

  describe("refuses a settlement that differs from what was proved", () => {
    let honest: Result;
    const contract = () => rail.chain.settlementContract;

    before(async () => {
      const payees = [rail.payee(), rail.payee()];
      for (const agent of [await rail.open(), await rail.open()]) await payMany(agent, payees, 8);
      const planned = await rail.settler.plan();
      expect(planned).to.include({ circuit: "tiny", payments: 16 });
      const { calldata } = await rail.settler.prove(planned!.id);
      honest = contract().interface.decodeFunctionData("settle", calldata!);
    });

    type Call = {
      circuitId: string;
      rows: Row[];
      credits: { payee: string; amount: bigint }[];
      commitment: bigint;
      evaluation: bigint;
      proof: bigint[];
    };
    type Row = {
      agent: string;
      count: bigint;
      debit: bigint;
      head: bigint;
      newBase: bigint;
      lineHash: string;
      r: string;
      s: string;
      v: bigint;
    };

    const copy = (): Call => {
      const { circuitId, rows, credits, commitment, evaluation, proof } = honest.toObject() as unknown as Call;
      return {
        circuitId,
        rows: [...rows].map((row) => ({ ...(row as unknown as Result).toObject() }) as Row),
        credits: [...credits].map((one) => ({ ...(one as unknown as Result).toObject() }) as Call["credits"][number]),
        commitment,
        evaluation,
        proof: [...proof],
      };
    };

    async function answer(call: Call, from = rail.processorKey.address): Promise<string> {
      const { circuitId, rows, credits, commitment, evaluation, proof } = call;
      const data = contract().interface.encodeFunctionData("settle", [
        circuitId,
        rows,
        credits,
        commitment,
        evaluation,
        proof,
      ]);
      try {
        await rail.provider.call({ from, to: rail.chain.settlement, data });
        return "accepted";
      } catch (error) {
        return rail.chain.explain(error).replace(/\(.*/s, "");
      }
    }

    it("accepts it unaltered", async () => {
      expect(await answer(copy())).to.equal("accepted");
    });

    const alterations: [name: string, alter: (call: Call) => void, error: string][] = [
      [
        "a credit moved to another payee",
        ({ credits }) => (credits[0]!.payee = `0x${"12".repeat(20)}`),
        "EvaluationMismatch",
      ],
      [
        "one unit moved between credits",
        ({ credits }) => void ((credits[0]!.amount += 1n), (credits[1]!.amount -= 1n)),
        "EvaluationMismatch",
      ],
      ["a credit raised", ({ credits }) => (credits[0]!.amount += 1n), "CreditsDifferFromDebits"],
      ["a credit dropped", ({ credits }) => void credits.pop(), "CreditsDifferFromDebits"],
      [
        "a debit and a credit raised",
        ({ rows, credits }) => void ((rows[0]!.debit += 1n), (credits[0]!.amount += 1n)),
        "WrongSigner",
      ],
      [
        "a debit moved between rows",
        ({ rows }) => void ((rows[0]!.debit += 1n), (rows[1]!.debit -= 1n)),
        "WrongSigner",
      ],
      ["a count of 0", ({ rows }) => (rows[0]!.count = 0n), "EmptyRow"],
      ["another count", ({ rows }) => (rows[0]!.count += 1n), "WrongSigner"],
      ["another head", ({ rows }) => (rows[0]!.head += 1n), "WrongSigner"],
      ["another next base", ({ rows }) => (rows[0]!.newBase += 1n), "EvaluationMismatch"],
      ["a head of value + r", ({ rows }) => (rows[0]!.head += FIELD), "NotAFieldElement"],
      ["a next base of value + r", ({ rows }) => (rows[0]!.newBase += FIELD), "NotAFieldElement"],
      ["another last line", ({ rows }) => (rows[0]!.lineHash = `0x${"34".repeat(32)}`), "WrongSigner"],
      ["a signature with v 0 or 1", ({ rows }) => (rows[0]!.v -= 27n), "WrongSigner"],
      [
        "a signature with s in the upper half",
        ({ rows }) =>
          void (
            (rows[0]!.s = `0x${(SECP256K1 - BigInt(rows[0]!.s)).toString(16).padStart(64, "0")}`),
            (rows[0]!.v = 55n - rows[0]!.v)
          ),
        "WrongSigner",
      ],
      ["the same agent twice", ({ rows }) => (rows[1] = { ...rows[0]! }), "AgentsNotIncreasing"],
      ["unsorted agents", ({ rows }) => void rows.reverse(), "AgentsNotIncreasing"],
      ["a row dropped", ({ rows }) => void rows.pop(), "CreditsDifferFromDebits"],
      ["no rows", (call) => (call.rows = []), "EmptyBatch"],
      ["an agent without a mandate", ({ rows }) => (rows[1]!.agent = `0x${"ff".repeat(20)}`), "MandateNotSettleable"],
      [
        "a proof for another circuit size",
        (call) => (call.circuitId = rail.chain.rail.circuits["default"]!),
        "EvaluationMismatch",
      ],
      ["an unknown circuit", (call) => (call.circuitId = ZeroHash), "UnknownCircuit"],
      ["another commitment", (call) => (call.commitment += 1n), "EvaluationMismatch"],
      ["a commitment of value + r", (call) => (call.commitment += FIELD), "NotAFieldElement"],
      ["another evaluation", (call) => (call.evaluation = (call.evaluation + 1n) % FIELD), "EvaluationMismatch"],
      ["an evaluation of value + r", (call) => (call.evaluation += FIELD), "NotAFieldElement"],
      ["another proof", (call) => (call.proof = [1n, 2n, ...call.proof.slice(2)]), "InvalidProof"],
      ["a proof whose points are off the curve", (call) => (call.proof[0]! += 1n), "InvalidProof"],
    ];
    for (const [name, alter, error] of alterations) {
      it(`refuses ${name}: ${error}`, async () => {
        const call = copy();
        alter(call);
        expect(await answer(call)).to.equal(error);
      });
    }

    it("refuses another sender than the processor that the mandates name: WrongProcessor", async () => {
      expect(await answer(copy(), rail.ownerAddress)).to.equal("WrongProcessor");
      expect(await answer(copy(), ZeroAddress)).to.equal("WrongProcessor");
    });

    it("refuses the same batch twice, whose base is stale then: WrongSigner", async () => {
      await settleAll();
      expect(await answer(copy())).to.equal("WrongSigner");
    });
  });

  it("leaves the transcript of each batch on chain", async () => {
    const { settlementContract } = rail.chain;
    const count = await settlementContract.batchCount();
    const [event] = (await settlementContract.queryFilter(settlementContract.filters.BatchSettled(count))).map(
      ({ args }) => args,
    );
    expect(await settlementContract.transcriptOf(count)).to.equal(event!.transcript);
    expect(AbiCoder.defaultAbiCoder().encode(["bytes32"], [event!.transcript])).not.to.equal(ZeroHash);
  });
});

const SECP256K1 = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
