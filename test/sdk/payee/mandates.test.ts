import {
  BursarError,
  encodePaymentHeader,
  requestRef,
  signRevocation,
  type Address,
  type PaidRequest,
} from "@bursar/protocol";
import { chainMandates, Paywall, type MandateSource } from "@bursar/sdk/payee";
import { paid } from "@bursar/sdk/payee/express";
import { SqliteReceipts } from "@bursar/sdk/payee/sqlite";
import { expect } from "chai";
import { hexlify, parseEther, randomBytes, Wallet } from "ethers";
import express from "express";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

import { TestUSD__factory } from "../../../typechain-types/index.ts";
import { postTestBond, TestRail, type PayingAgent } from "../../integration/rail.ts";
import { addressIn, paidWith, PAYEE, refused } from "./stand.ts";

const PAYEE_ADDRESS = addressIn(PAYEE);

describe("mandates as a payee reads them from the chain", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let time = 0;

  before(async () => {
    rail = await TestRail.start();
  });
  after(async () => {
    await rail.stop();
  });

  const source = (options: Parameters<typeof chainMandates>[2] = {}): MandateSource =>
    chainMandates(rail.node.url, rail.domain.registry, { finality: 1, clock: () => time, ...options });

  async function codeOf(work: Promise<unknown>): Promise<string> {
    return work.then(
      () => "answered",
      (error: unknown) => (error instanceof BursarError ? error.code : String(error)),
    );
  }

  const mine = async (blocks: number): Promise<void> => {
    await rail.provider.send("hardhat_mine", [`0x${blocks.toString(16)}`]);
  };

  it("are the ones that their owners signed, with their payees", async () => {
    const payees = [PAYEE_ADDRESS, rail.payee(), rail.payee()];
    const mandates = source();
    for (const list of [[], payees.slice(0, 1), payees]) {
      const agent = await rail.open({ payees: list });
      const snapshot = await mandates.mandate(agent.address, 60);
      expect(snapshot).to.deep.include({ domain: rail.domain, state: "open", seq: 0n, remaining: 100_000n });
      const { validUntil } = snapshot!.mandate;
      expect(snapshot!.mandate).to.deep.equal({ ...rail.draft(agent.address, { payees: list }), validUntil });
    }
  });

  it("are found though their opening lies many blocks back, and a node answers few at a time", async () => {
    const agent = await rail.open({ payees: [PAYEE_ADDRESS] });
    await mine(30_000);
    const asked: number[] = [];
    const provider = rail.node.provider();
    const send = provider.send.bind(provider);
    provider.send = (method: string, params: unknown[]) => {
      if (method === "eth_getLogs") {
        const [{ fromBlock, toBlock }] = params as [{ fromBlock: string; toBlock: string }];
        asked.push(Number(toBlock) - Number(fromBlock) + 1);
        if (asked.at(-1)! > 5_000) return Promise.reject(new Error("too many blocks"));
      }
      return send(method, params) as Promise<unknown>;
    };
    const mandates = chainMandates(provider, rail.domain.registry, { finality: 1 });
    expect((await mandates.mandate(agent.address, 60))?.mandate.payees).to.deep.equal([PAYEE_ADDRESS]);
    expect(asked.filter((blocks) => blocks <= 5_000)).not.to.have.length(0);
    provider.destroy();
  });

  /** A node whose requests are counted by method. */
  function counted(): { provider: ReturnType<TestRail["node"]["provider"]>; calls: () => number } {
    const provider = rail.node.provider();
    const send = provider.send.bind(provider);
    let calls = 0;
    provider.send = (method: string, params: unknown[]) => {
      if (method === "eth_call") calls += 1;
      return send(method, params) as Promise<unknown>;
    };
    return { provider, calls: () => calls };
  }

  it("are asked once for many requests, and again when they are too old", async () => {
    const agent = await rail.open();
    const { provider, calls } = counted();
    const mandates = chainMandates(provider, rail.domain.registry, { finality: 1, clock: () => time });
    await Promise.all(Array.from({ length: 20 }, () => mandates.mandate(agent.address, 60)));
    expect(calls()).to.equal(2);
    time += 60_000;
    await mandates.mandate(agent.address, 60);
    expect(calls()).to.equal(2);
    time += 1;
    await mandates.mandate(agent.address, 60);
    expect(calls()).to.equal(4);
    provider.destroy();
  });

  it("are kept in a bounded number", async () => {
    const agents = [await rail.open(), await rail.open(), await rail.open()];
    const { provider, calls } = counted();
    const mandates = chainMandates(provider, rail.domain.registry, { finality: 1, clock: () => time, most: 2 });
    for (const agent of agents) await mandates.mandate(agent.address, 60);
    await mandates.mandate(agents[2]!.address, 60);
    expect(calls()).to.equal(6);
    await mandates.mandate(agents[0]!.address, 60);
    expect(calls()).to.equal(8);
    provider.destroy();
  });

  it("are revoked at once, and settled only when final", async () => {
    const agent = await rail.open();
    const mandates = source({ finality: 5 });
    expect(await codeOf(mandates.mandate(agent.address, 0))).to.equal("opening-pending");
    await mine(5);
    time += 1;
    expect((await mandates.mandate(agent.address, 0))?.state).to.equal("open");
    const signature = await signRevocation(rail.owner, rail.domain, { agent: agent.address, afterSeq: 0n });
    await (await rail.chain.registry.connect(rail.owner).revokeWithSignature(agent.address, 0n, signature)).wait();
    time += 1;
    expect((await mandates.mandate(agent.address, 0))?.state).to.equal("revoked");
  });

  it("are none where none was opened, and unavailable where there is no contract or no node", async () => {
    const stranger = rail.payee();
    expect(await source().mandate(stranger, 60)).to.equal(null);
    expect(await codeOf(chainMandates(rail.node.url, stranger, { finality: 1 }).mandate(stranger, 60))).to.equal(
      "chain-unavailable",
    );
    const nowhere = chainMandates("http://127.0.0.1:1/secret-key", rail.domain.registry, { timeout: 200 });
    const error = await nowhere.mandate(stranger, 60).catch((refusal: unknown) => refusal as BursarError);
    expect(error).to.be.instanceOf(BursarError);
    expect(JSON.stringify(error)).not.to.contain("secret-key");
  });

  it("are read at the node's finalized block unless told otherwise", async () => {
    const agent = await rail.open();
    await mine(100);
    const mandates = chainMandates(rail.node.url, rail.domain.registry);
    expect((await mandates.mandate(agent.address, 60))?.mandate.owner).to.equal(rail.ownerAddress);
  });

  it("come with the processor's bond, which counts for receipts that it signs with its own address", async () => {
    const bondOf = (processor: string): Promise<bigint> => source().bond!(processor as Address, rail.token);
    expect(await bondOf(rail.processorKey.address)).to.equal(1_000_000_000_000n);
    expect(await bondOf(rail.payee())).to.equal(0n);
    const other = new Wallet(hexlify(randomBytes(32)), rail.provider);
    await (await rail.owner.sendTransaction({ to: other.address, value: parseEther("1") })).wait();
    await postTestBond(rail.chain, other, rail.token, 20_000_000_000n);
    expect(await bondOf(other.address)).to.equal(20_000_000_000n);
    await (await rail.chain.processors.connect(other).rotateKey(rail.payee())).wait();
    expect(await bondOf(other.address)).to.equal(0n);
    const nowhere = chainMandates("http://127.0.0.1:1/secret-key", rail.domain.registry, { timeout: 200 });
    expect(await codeOf(nowhere.bond!(rail.payee(), rail.token))).to.equal("chain-unavailable");
  });

  describe("and a service that is paid through the rail", () => {
    let server: Server;
    let paywall: Paywall;
    let origin: string;
    let receipts: SqliteReceipts;

    before(async () => {
      receipts = new SqliteReceipts(join(rail.folder, "receipts.db"));
      const app = express();
      paywall = new Paywall({
        payee: PAYEE_ADDRESS,
        domain: rail.domain,
        token: rail.token,
        processors: [rail.processorKey.address],
        receipts,
        mandates: chainMandates(rail.node.url, rail.domain.registry, { finality: 1 }),
        maxUnsettled: 1_500n,
        refreshEvery: 0,
        now: () => rail.now(),
      });
      app.get("/weather", paid(paywall, "0.001"), (_request, response) => void response.send("22 degrees"));
      app.get("/house", paid(paywall, "11"), (_request, response) => void response.send("a house"));
      server = createServer(app);
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    });
    after(() => {
      server.close();
      server.closeAllConnections();
      receipts.close();
    });

    async function buy(agent: PayingAgent, path: string, amount: bigint): Promise<string> {
      const ref = requestRef({ method: "GET", url: origin + path });
      const payment = await agent.sign(PAYEE_ADDRESS, amount, ref);
      const receipt = await rail.processor.accept(payment);
      agent.ledger.commit();
      const shown: PaidRequest = { domain: rail.domain, payment, receipt };
      return encodePaymentHeader(shown);
    }

    async function settleAll(): Promise<void> {
      for (const { state, error } of await rail.settler.run()) expect(state, error ?? "").to.equal("settled");
    }

    it("serves with the processor's own receipts, waits at its exposure, and goes on after settlement (P8)", async () => {
      const agent = await rail.open({ budget: 10_000n, paymentCap: 1_000n });
      const headers = [await buy(agent, "/weather", 1_000n), await buy(agent, "/weather", 1_000n)];
      const first = await fetch(`${origin}/weather`, paidWith(headers[0]!));
      expect([first.status, await first.text()]).to.deep.equal([200, "22 degrees"]);
      await refused(await fetch(`${origin}/weather`, paidWith(headers[1]!)), "exposure-exceeded", 503);
      await settleAll();
      const second = await fetch(`${origin}/weather`, paidWith(headers[1]!));
      expect(second.status, await second.text()).to.equal(200);
      await paywall.refresh();
      expect(await paywall.exposure(rail.processorKey.address)).to.equal(0n);
    });

    it("serves 11 USDC only once the chain shows them settled", async () => {
      const agent = await rail.open({ budget: 50_000_000n, paymentCap: 20_000_000n });
      const header = await buy(agent, "/house", 11_000_000n);
      await refused(await fetch(`${origin}/house`, paidWith(header)), "settlement-pending", 503);
      await settleAll();
      const answer = await fetch(`${origin}/house`, paidWith(header));
      expect([answer.status, await answer.text()]).to.deep.equal([200, "a house"]);
      await refused(await fetch(`${origin}/house`, paidWith(header)), "receipt-used");
      expect(await rail.chain.escrow.creditOf(rail.token, PAYEE_ADDRESS)).to.be.at.least(11_000_000n);
    });

    it("refuses a mandate in another token with the same symbol (K6)", async () => {
      const twin = await new TestUSD__factory(rail.owner).deploy();
      await twin.waitForDeployment();
      const token = (await twin.getAddress()) as Address;
      await postTestBond(rail.chain, rail.processorKey, token);
      const agent = await rail.open({ token });
      const header = await buy(agent, "/weather", 1_000n);
      const problem = await refused(await fetch(`${origin}/weather`, paidWith(header)), "payment-mismatch");
      expect(problem.details).to.include({ field: "token", value: token });
    });

    it("refunds through the rail to the owner of the mandate", async () => {
      const agent = await rail.open({ budget: 10_000n, paymentCap: 1_000n });
      const till = await rail.open({ budget: 10_000n, paymentCap: 1_000n });
      const header = await buy(agent, "/weather", 1_000n);
      expect((await fetch(`${origin}/weather`, paidWith(header))).status).to.equal(200);
      const record = await receipts.find({ domain: rail.domain, agent: agent.address, seq: 1n });
      const payer = {
        pay: async (line: { payee: Address; amount: bigint; ref: `0x${string}` }) => {
          const payment = await till.sign(line.payee, line.amount, line.ref);
          await rail.processor.accept(payment);
          till.ledger.commit();
          return { payment };
        },
      };
      const before = await rail.chain.escrow.creditOf(rail.token, rail.ownerAddress);
      const refund = await paywall.refund(payer, record!.paid);
      expect(await paywall.refund(payer, record!.paid)).to.deep.equal(refund);
      await settleAll();
      expect((await rail.chain.escrow.creditOf(rail.token, rail.ownerAddress)) - before).to.equal(1_000n);
    });

    it("refuses a mandate that was revoked on chain a minute ago", async () => {
      const agent = await rail.open({ budget: 10_000n, paymentCap: 1_000n });
      const header = await buy(agent, "/weather", 1_000n);
      const signature = await signRevocation(rail.owner, rail.domain, { agent: agent.address, afterSeq: 0n });
      await (await rail.chain.registry.connect(rail.owner).revokeWithSignature(agent.address, 0n, signature)).wait();
      await refused(await fetch(`${origin}/weather`, paidWith(header)), "mandate-revoked");
    });
  });
});
