import {
  hashMandate,
  headHex,
  policyRoot,
  signClose,
  signMandate,
  signReceipt,
  termsHash,
  toWire,
} from "@bursar/protocol";
import type { Address, Close, Mandate, Problem } from "@bursar/protocol";
import { Closings, receiptKey, type Closing } from "@bursar/relayer";
import { expect } from "chai";
import fastify, { type FastifyInstance } from "fastify";
import { ContractFactory, hexlify, randomBytes, Wallet, type Signer } from "ethers";

import { readArtifact } from "../../deploy/artifact.ts";
import { closingRoutes } from "../../packages/relayer/src/http/closings.ts";
import { OPEN_TERMS, PayingAgent, TestRail } from "../integration/rail.ts";
import { answerProblems } from "./intent-desk.ts";
import { refusalOf } from "./office.ts";

describe("ending a mandate together with its owner", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let closings: Closings;
  let server: FastifyInstance;
  let url: string;
  const failed: [agent: Address, message: string][] = [];

  beforeEach(async () => {
    rail = await TestRail.start();
    closings = start();
    server = answerProblems(fastify());
    closingRoutes(closings)(server);
    url = await server.listen({ host: "127.0.0.1", port: 0 });
    failed.length = 0;
  });
  afterEach(async () => {
    await server.close();
    rail.stop();
  });

  /** As a process that starts finds its books. */
  function start(): Closings {
    const { store, processor, chain, outbox, processorKey } = rail;
    return new Closings({
      store,
      processor,
      chain,
      outbox,
      key: receiptKey(processorKey),
      sender: processorKey.address as Address,
      failed: (agent, { message }) => void failed.push([agent, message]),
      now: () => rail.now(),
    });
  }

  async function ask(close: Close, signer: Signer = rail.owner): Promise<Response> {
    const signature = await signClose(signer, rail.domain, close);
    const body = JSON.stringify(toWire({ close, signature }));
    return fetch(`${url}/closes`, { method: "POST", headers: { "content-type": "application/json" }, body });
  }

  async function refused(close: Close, code: string, signer?: Signer): Promise<Problem> {
    const answer = await ask(close, signer);
    const problem = (await answer.json()) as Problem;
    expect(problem).to.include({ code });
    return problem;
  }

  async function waitUntil(time: bigint): Promise<void> {
    await rail.provider.send("evm_setNextBlockTimestamp", [Number(time)]);
    await rail.provider.send("evm_mine", []);
  }

  const free = (account = rail.ownerAddress): Promise<bigint> => rail.chain.escrow.freeOf(rail.token, account);
  const stateOf = async (agent: Address): Promise<string> => (await rail.chain.mandate(agent)).state;

  it("P4 owner_always_exits: stops the agent, settles what it paid, and returns the rest an hour later", async () => {
    const agent = await rail.open();
    const shop = rail.payee();
    await agent.pay(shop, 700n);
    const before = await free();
    const asked = (await (await ask({ agent: agent.address, seq: 1n })).json()) as Closing;
    expect(asked).to.deep.equal({ agent: agent.address, seq: "1", state: "settling", closesAt: null, failure: null });
    expect(await refusalOf(() => agent.pay(shop, 1n))).to.include({ code: "mandate-revoked" });

    await closings.run();
    expect(closings.get(agent.address)).to.include({ state: "settling" });
    expect(await stateOf(agent.address)).to.equal("open");
    await rail.settler.run();
    await closings.run();
    const { state, closesAt } = closings.get(agent.address)!;
    expect(state).to.equal("noticed");
    const { timestamp } = (await rail.provider.getBlock("latest"))!;
    expect(closesAt).to.equal(BigInt(timestamp) + 3_600n);

    await closings.run();
    expect(await stateOf(agent.address)).to.equal("revoked");
    await waitUntil(closesAt!);
    await closings.run();
    expect([closings.get(agent.address)!.state, await stateOf(agent.address)]).to.deep.equal(["closed", "closed"]);
    expect((await free()) - before).to.equal(100_000n - 700n);
    expect(await rail.chain.escrow.creditOf(rail.token, shop)).to.equal(700n);
    const again = (await (await ask({ agent: agent.address, seq: 1n })).json()) as Closing;
    expect(again).to.include({ state: "closed" });
    expect(failed).to.deep.equal([]);
  });

  it("takes the owner's own signature at the last payment, and changes nothing else", async () => {
    const agent = await rail.open();
    await agent.pay(rail.payee(), 5n);
    const { details } = await refused({ agent: agent.address, seq: 0n }, "close-mismatch");
    expect(details).to.deep.equal({ value: "0", limit: "1" });
    await refused({ agent: agent.address, seq: 1n }, "signature-signer", agent.wallet);
    await refused({ agent: rail.payee(), seq: 0n }, "mandate-unknown");
    const malformed = await fetch(`${url}/closes`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ close: { agent: agent.address, seq: 1 } }),
    });
    expect(((await malformed.json()) as Problem).code).to.equal("malformed-input");
    expect(closings.get(agent.address)).to.equal(undefined);
    await agent.pay(rail.payee(), 5n);
  });

  it("goes on after a crash wherever it was, and sends each transaction once", async () => {
    const agent = await rail.open();
    await ask({ agent: agent.address, seq: 0n });
    await rail.provider.send("evm_setAutomine", [false]);
    const cut = closings.run();
    while ((await rail.store.transactions(`close-together:${agent.address}`)).length === 0)
      await new Promise((done) => setTimeout(done, 10));
    // The process is gone; the transaction is in the pool, and the books know it.
    const resumed = start();
    const ended = resumed.run();
    await rail.provider.send("evm_setAutomine", [true]);
    await rail.provider.send("evm_mine", []);
    await Promise.all([cut, ended]);
    expect(resumed.get(agent.address)).to.include({ state: "noticed" });
    expect(await rail.store.transactions(`close-together:${agent.address}`)).to.have.length(1);
    await waitUntil(resumed.get(agent.address)!.closesAt!);
    await start().run();
    expect(await stateOf(agent.address)).to.equal("closed");
  });

  it("waits when a claim within the hour has brought the windows back", async () => {
    const agent = await rail.open();
    const shop = rail.payee();
    // A receipt that these books do not know, as after a restore that should never have signed.
    const payment = await agent.sign(shop, 50n);
    const { seq, spent, head, line } = payment.payment;
    const { timestamp } = (await rail.provider.getBlock("latest"))!;
    const settleBy = BigInt(timestamp) + 600n;
    const receipt = { agent: agent.address, seq, ...line, head, settleBy, logIndex: 0n };
    await ask({ agent: agent.address, seq: 0n });
    await waitUntil(settleBy + 7_201n);
    await closings.run();
    const { closesAt } = closings.get(agent.address)!;
    const claim = {
      ...{ agent: agent.address, seq, spent, head, line, settleBy, logIndex: 0n, payees: [] },
      agentSignature: payment.signature,
      processorSignature: await signReceipt(rail.processorKey, rail.domain, receipt),
    };
    await (await rail.chain.claims.connect(rail.owner).file([claim])).wait();
    await waitUntil(closesAt!);
    await closings.run();
    expect(closings.get(agent.address)!.state).to.equal("noticed");
    expect(closings.get(agent.address)!.closesAt! > closesAt!).to.equal(true);
    await waitUntil(closings.get(agent.address)!.closesAt!);
    await closings.run();
    expect(await stateOf(agent.address)).to.equal("closed");
  });

  it("takes the word of an owner that is a contract (ERC-1271), and of nobody else for it", async () => {
    const key = Wallet.createRandom();
    const { abi, bytecode } = readArtifact("mocks/OwnerWallets#OwnerWallet");
    const contract = await (
      await new ContractFactory(abi, bytecode, rail.owner).deploy(key.address)
    ).waitForDeployment();
    const owner = (await contract.getAddress()) as Address;
    const agent = new PayingAgent(rail, new Wallet(hexlify(randomBytes(32))));
    const mandate: Mandate = {
      ...rail.draft(agent.address, { owner }),
      policyRoot: headHex(policyRoot([], 1_000n)),
      termsHash: termsHash(OPEN_TERMS),
    };
    await rail.fund(mandate.budget);
    await (await rail.chain.escrow.connect(rail.owner).withdraw(rail.token, mandate.budget, rail.ownerAddress)).wait();
    await (await rail.dollar.approve(rail.chain.rail.escrow, mandate.budget)).wait();
    await (await rail.chain.escrow.connect(rail.owner).deposit(rail.token, mandate.budget, owner)).wait();
    const signatures = [
      key.signingKey.sign(hashMandate(rail.domain, mandate)).serialized,
      await signMandate(agent.wallet, rail.domain, mandate),
    ];
    const { registry } = rail.chain;
    await (await registry.connect(rail.owner).open({ ...mandate, payees: [] }, signatures[0]!, signatures[1]!)).wait();
    await rail.processor.register(mandate, OPEN_TERMS);
    await refused({ agent: agent.address, seq: 0n }, "signature-signer");
    expect(await (await ask({ agent: agent.address, seq: 0n }, key)).json()).to.include({ state: "settling" });
    await closings.run();
    expect(await stateOf(agent.address)).to.equal("revoked");
  });
});
