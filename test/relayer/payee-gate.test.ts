import { setTimeout } from "node:timers/promises";

import {
  BursarError,
  signWithKey,
  toWire,
  type Address,
  type Hex,
  type Problem,
  type SignedPayment,
} from "@bursar/protocol";
import { createLogger, PayeeGate, payeeGateOf, SERVICE_DEFAULTS, startService, type Service } from "@bursar/relayer";
import { expect } from "chai";
import { id } from "ethers";

import { AttestedGate__factory, type AttestedGate } from "../../typechain-types/index.ts";
import { signAttestation } from "../contracts/sign-attestation.ts";
import { TestRail, type PayingAgent } from "../integration/rail.ts";
import { addressOf, keyOf, NOW, Office, refusalOf } from "./office.ts";

const [SHOP, OTHER] = [addressOf("shop"), addressOf("other")];
const TOKEN = addressOf("token");
const GATE = addressOf("gate");

describe("the gate for payees", () => {
  let clock: bigint;
  let asked: string[];
  let admitted: Set<Address>;
  let reachable: boolean;
  let gate: PayeeGate;
  beforeEach(() => {
    clock = NOW;
    asked = [];
    admitted = new Set([SHOP]);
    reachable = true;
    gate = new PayeeGate({
      address: GATE,
      mayBePaid: async (payee) => {
        asked.push(payee);
        await setTimeout(1);
        if (!reachable) throw new BursarError("chain-unavailable", "no answer");
        return admitted.has(payee);
      },
      now: () => clock,
    });
  });
  const codeOf = async (payee: Address, token = TOKEN): Promise<string | null> =>
    (await gate.refusal(payee, token))?.code ?? null;

  it("asks once for all that come together, and once for each token and payee", async () => {
    await Promise.all(Array.from({ length: 64 }, () => codeOf(SHOP)));
    expect(asked).to.deep.equal([SHOP]);
    await codeOf(SHOP, addressOf("second token"));
    await codeOf(OTHER);
    expect(asked).to.deep.equal([SHOP, SHOP, OTHER]);
  });
  it("believes a yes for a minute, and a no for five seconds", async () => {
    expect(await codeOf(SHOP)).to.equal(null);
    expect(await codeOf(OTHER)).to.equal("payee-not-admitted");
    admitted = new Set([OTHER]);
    clock = NOW + 5n;
    expect([await codeOf(SHOP), await codeOf(OTHER)]).to.deep.equal([null, "payee-not-admitted"]);
    clock = NOW + 6n;
    expect([await codeOf(SHOP), await codeOf(OTHER)]).to.deep.equal([null, null]);
    clock = NOW + 60n;
    expect(await codeOf(SHOP)).to.equal(null);
    clock = NOW + 61n;
    expect(await codeOf(SHOP)).to.equal("payee-not-admitted");
  });
  it("says what to do instead", async () => {
    const refusal = await gate.refusal(OTHER, TOKEN);
    expect(refusal!.details).to.deep.equal({ value: OTHER, limit: GATE });
    expect(refusal!.advice).to.match(/another payee/);
  });
  it("that cannot be asked lets nobody in, and is asked again at once", async () => {
    reachable = false;
    expect(await codeOf(SHOP)).to.equal("chain-unavailable");
    reachable = true;
    expect(await codeOf(SHOP)).to.equal(null);
    reachable = false;
    expect(await codeOf(SHOP)).to.equal(null);
  });

  describe("before the books", () => {
    const office = async (): Promise<{ office: Office; agent: PayingAgent }> => {
      const made = await Office.open(":memory:", { gate });
      return { office: made, agent: await made.agent("agent") };
    };
    it("refuses a payment by its own code and records it, takes the next one, and asks once for a hundred", async () => {
      const { office: made, agent } = await office();
      const refusal = await refusalOf(() => agent.pay(OTHER, 5n));
      expect(refusal.code).to.equal("payee-not-admitted");
      expect(await made.store.counts()).to.include({ payments: 0, refusals: 1 });
      for (let n = 0; n < 100; ++n) await agent.pay(SHOP, 5n);
      expect(asked).to.deep.equal([OTHER, SHOP]);
    });
    it("P10 same_request_same_answer: a payment that was accepted keeps its receipt when its payee is let in no more", async () => {
      const { office: made, agent } = await office();
      const request = await agent.sign(SHOP, 5n);
      const receipt = await made.processor.accept(request);
      admitted = new Set();
      clock = NOW + 61n;
      expect(await made.processor.accept(request)).to.deep.equal(receipt);
      expect(await made.processor.check(request)).to.deep.equal({ remaining: 99_995n });
      agent.ledger.commit();
      expect((await refusalOf(() => agent.pay(SHOP, 5n))).code).to.equal("payee-not-admitted");
      reachable = false;
      clock = NOW + 200n;
      expect(await made.processor.accept(request)).to.deep.equal(receipt);
    });
    it("refuses a payment of the direct rail too, and takes the same one once its payee is let in", async () => {
      const { office: made, agent } = await office();
      const message = {
        kind: "exact" as const,
        agent: agent.address,
        token: TOKEN,
        payee: OTHER,
        amount: 5n,
        nonce: id("nonce") as Hex,
        validAfter: NOW - 1n,
        validBefore: NOW + 600n,
        ref: id("ref") as Hex,
      };
      const digest = id("direct") as Hex;
      const direct = { ...message, digest, signature: signWithKey(digest, agent.wallet.privateKey as Hex) };
      for (const attempt of [() => made.processor.checkDirect(direct), () => made.processor.acceptDirect(direct)])
        expect((await refusalOf(attempt)).code).to.equal("payee-not-admitted");
      expect(await made.store.counts()).to.include({ directs: 0, refusals: 1 });
      admitted.add(OTHER);
      clock = NOW + 6n;
      expect(await made.processor.acceptDirect(direct)).to.include({ status: "accepted", amount: 5n });
    });
    it("refuses for any other reason first", async () => {
      const { agent } = await office();
      expect((await refusalOf(() => agent.pay(OTHER, 1_001n))).code).to.equal("above-payment-cap");
    });
    it("is foreseen by a dry run, which records nothing", async () => {
      const { office: made, agent } = await office();
      const request = await agent.sign(OTHER, 5n);
      expect((await refusalOf(() => made.processor.check(request))).code).to.equal("payee-not-admitted");
      expect(await made.store.counts()).to.include({ payments: 0, refusals: 0 });
    });
  });
});

describe("a service whose deployment has an identity gate", function () {
  this.timeout(120_000);
  const attester = keyOf("attester");
  let rail: TestRail;
  let gate: AttestedGate;
  let service: Service;
  let agent: PayingAgent;

  before(async () => {
    rail = await TestRail.start({}, null, async (deployer) => {
      const deployed = await new AttestedGate__factory(deployer).deploy([attester.address]);
      await deployed.waitForDeployment();
      gate = deployed;
      return (await deployed.getAddress()) as Address;
    });
    await attest(rail.ownerAddress);
    service = await startService({
      config: { ...SERVICE_DEFAULTS, port: 0, settleEvery: 0, maxSkew: null },
      chain: rail.chain,
      provider: rail.provider,
      store: rail.store,
      signer: rail.processorKey,
      prover: rail.prover,
      logger: createLogger("silent", process.stdout),
      now: () => rail.now(),
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    });
    agent = await rail.open();
  });
  after(async () => {
    await service.stop();
    await rail.stop();
  });

  async function attest(subject: Address): Promise<void> {
    const { timestamp } = (await rail.provider.getBlock("latest"))!;
    const attestation = { subject, issuedAt: BigInt(timestamp), expiresAt: BigInt(timestamp) + 86_400n };
    const domain = { chainId: rail.domain.chainId, gate: (await gate.getAddress()) as Address };
    const signature = await signAttestation(attester, domain, attestation);
    await (await gate.connect(rail.owner).attest(attestation, attester.address, signature)).wait();
  }
  async function pay(request: SignedPayment, path = "/payments"): Promise<Response> {
    return fetch(`${service.url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(toWire(request)),
    });
  }

  it("refuses a payee that is not admitted with 403 and advice, and takes the same payment once it is", async () => {
    const request = await agent.sign(SHOP, 5n, id("one") as Hex);
    for (const path of ["/payments/check", "/payments"]) {
      const refused = await pay(request, path);
      expect(refused.status).to.equal(403);
      const problem = (await refused.json()) as Problem;
      expect(problem.code).to.equal("payee-not-admitted");
      expect(problem.details).to.deep.equal({ value: SHOP, limit: await gate.getAddress() });
      expect(problem.advice).to.match(/admitted at the gate/);
    }
    await attest(SHOP);
    rail.skew += 6n;
    expect((await pay(request, "/payments/check")).status).to.equal(200);
    expect((await pay(request)).status).to.equal(200);
    agent.ledger.commit();
  });
  it("takes everything but a plain yes for a no, and asks no gate that lets everyone in", async () => {
    const { chain } = rail;
    const address = (await gate.getAddress()) as Address;
    expect(await chain.gate()).to.equal(address);
    expect(await chain.mayBePaid(address, SHOP, rail.token)).to.equal(true);
    // Contracts that answer nothing, or not as a gate does.
    for (const other of [OTHER, chain.rail.escrow, rail.token])
      expect(await chain.mayBePaid(other, SHOP, rail.token)).to.equal(false);
    const open = await TestRail.start();
    try {
      expect(await open.chain.gate()).to.equal(null);
      expect(await payeeGateOf(open.chain, () => open.now())).to.equal(undefined);
    } finally {
      await open.stop();
    }
  });
});
