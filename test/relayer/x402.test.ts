import { directDomainName, signMandate, type Address, type Hex } from "@bursar/protocol";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { expect } from "chai";
import { hexlify, randomBytes, Wallet } from "ethers";

import { OPEN_TERMS, PayingAgent, TestRail } from "../integration/rail.ts";
import { Facilitator, type Answer, type Terms } from "./facilitator.ts";
import { refusalOf } from "./office.ts";

describe("the x402 facilitator", function () {
  this.timeout(120_000);
  let rail: TestRail;
  let facilitator: Facilitator;
  let agent: PayingAgent;
  let payTo: Address;

  before(async () => {
    rail = await TestRail.start();
    facilitator = await Facilitator.open(rail);
    agent = await rail.open({ budget: 10_000n });
  });
  after(async () => {
    await facilitator.close();
    await rail.stop();
  });
  beforeEach(() => (payTo = rail.payee()));

  const verify = (body: unknown): Promise<Answer> => facilitator.http("POST", "/x402/verify", body);
  const settle = (body: unknown): Promise<Answer> => facilitator.http("POST", "/x402/settle", body);
  const books = async (): Promise<unknown> => [
    await rail.store.counts(),
    (await rail.processor.status(agent.address)).reserved,
  ];

  /** That verify and settle refuse with one reason, and neither leaves a direct payment. */
  async function refused(body: unknown, reason: string, code?: string): Promise<void> {
    const { directs } = await rail.store.counts();
    const verified = await verify(body);
    expect(verified.body).to.include({ isValid: false, invalidReason: reason });
    const settled = await settle(body);
    expect(settled.body).to.include({ success: false, errorReason: reason, transaction: "" });
    expect(settled.status).to.equal(verified.status);
    if (code !== undefined) expect(settled.body.extra?.code).to.equal(code);
    expect((await rail.store.counts()).directs).to.equal(directs);
    expect(await facilitator.credit(payTo)).to.equal(0n);
  }

  it("says what it supports, as the stock client reads it", async () => {
    const supported = await new HTTPFacilitatorClient({ url: `${facilitator.url}/x402` }).getSupported();
    expect(supported.kinds.map(({ scheme, network, x402Version }) => [scheme, network, x402Version])).to.deep.equal([
      ["exact", "eip155:31337", 2],
      ["bursar", "eip155:31337", 2],
    ]);
    expect(supported.kinds[0]?.extra).to.deep.include({ asset: rail.chain.direct, assetTransferMethod: "eip3009" });
    expect(supported.kinds[0]?.extra?.["tokens"]).to.deep.include({
      symbol: "tUSD",
      token: rail.token,
      name: directDomainName(rail.token),
      version: "1",
    });
    expect(supported.signers).to.deep.equal({ "eip155:*": [rail.processorKey.address] });
  });

  it("verifies without a trace, and settles on chain", async () => {
    const body = await facilitator.exact(agent, { payTo, amount: 7n });
    const before = await books();
    for (let i = 0; i < 3; i++) {
      expect(await verify(body)).to.deep.equal({ status: 200, body: { isValid: true, payer: agent.address } });
    }
    expect(await books()).to.deep.equal(before);
    const { status, body: answer } = await settle(body);
    expect(status).to.equal(200);
    expect(answer).to.include({ success: true, network: "eip155:31337", payer: agent.address });
    const receipt = await rail.provider.getTransactionReceipt(answer["transaction"] as string);
    expect(receipt?.status).to.equal(1);
    expect(await facilitator.credit(payTo)).to.equal(7n);
    expect((await rail.chain.mandate(agent.address)).directSpent).to.equal(7n);
  });

  it("settles the same request once, and answers it alike again, 64 at once too", async () => {
    const body = await facilitator.exact(agent, { payTo, amount: 3n });
    const { directs } = await rail.store.counts();
    const answers = await Promise.all(Array.from({ length: 64 }, () => settle(body)));
    answers.push(await settle(body));
    for (const answer of answers) expect(answer).to.deep.equal(answers[0]);
    expect(answers[0]!.body["success"]).to.equal(true);
    expect((await rail.store.counts()).directs).to.equal(directs + 1);
    expect(await facilitator.credit(payTo)).to.equal(3n);
  });

  it("P8: tells one of many servings that it is paid: 64 payees that verified the same authorisation at once", async () => {
    const body = await facilitator.exact(agent, { payTo, amount: 3n });
    const verified = await Promise.all(Array.from({ length: 64 }, () => verify(body)));
    for (const answer of verified) expect(answer.body["isValid"]).to.equal(true);
    const answers = await Promise.all(Array.from({ length: 64 }, () => settle(body)));
    const paid = answers.filter((answer) => answer.body["success"] === true);
    expect(paid).to.have.lengthOf(1);
    for (const { body: answer } of answers.filter((one) => !paid.includes(one))) {
      expect(answer).to.include({
        errorReason: "duplicate_settlement",
        transaction: paid[0]!.body["transaction"] as string,
      });
    }
    expect((await verify(body)).body).to.include({
      isValid: false,
      invalidReason: "invalid_exact_evm_nonce_already_used",
    });
    expect(await facilitator.credit(payTo)).to.equal(3n);
  });

  it("tells a payee that settles before it serves once, since it never verifies", async () => {
    const extra = { name: directDomainName(rail.token), version: "1", paymentFlow: "upfront" };
    const body = await facilitator.exact(agent, { payTo, amount: 3n, extra });
    const answers = await Promise.all(Array.from({ length: 16 }, () => settle(body)));
    expect(answers.filter((answer) => answer.body["success"] === true)).to.have.lengthOf(1);
    expect((await settle(body)).body["errorReason"]).to.equal("duplicate_settlement");
  });

  it("refuses another payment on a nonce that has paid", async () => {
    const nonce = hexlify(randomBytes(32)) as Hex;
    await settle(await facilitator.exact(agent, { payTo, amount: 1n }, { nonce }));
    payTo = rail.payee();
    await refused(
      await facilitator.exact(agent, { payTo, amount: 2n }, { nonce }),
      "invalid_exact_evm_nonce_already_used",
      "nonce-used",
    );
  });

  it("K3: refuses an agent without an open mandate, and keeps nothing", async () => {
    const stranger = new PayingAgent(rail, new Wallet(hexlify(randomBytes(32))));
    const before = await rail.store.counts();
    await refused(await facilitator.exact(stranger, { payTo, amount: 1n }), "mandate_unknown", "mandate-unknown");
    expect(await rail.store.counts()).to.deep.equal(before);
  });

  it("refuses above the cap and above the budget", async () => {
    await refused(await facilitator.exact(agent, { payTo, amount: 1_001n }), "above_payment_cap", "above-payment-cap");
    const poor = await rail.open({ budget: 5n, paymentCap: 5n });
    await poor.pay(rail.payee(), 3n);
    await refused(
      await facilitator.exact(poor, { payTo, amount: 3n }),
      "invalid_exact_evm_insufficient_balance",
      "above-budget",
    );
    await refused(await facilitator.exact(agent, { payTo, amount: 0n }), "invalid_exact_evm_authorization_value");
  });

  it("K9: pays from the lock after the owner took all that is free", async () => {
    const { escrow } = rail.chain;
    const one = await rail.open({ budget: 10n, paymentCap: 10n });
    await rail.fund(100n);
    const free = await escrow.freeOf(rail.token, rail.ownerAddress);
    await (await escrow.connect(rail.owner).withdraw(rail.token, free, rail.ownerAddress)).wait();
    const { body } = await settle(await facilitator.exact(one, { payTo, amount: 10n }));
    expect(body["success"]).to.equal(true);
    expect(await facilitator.credit(payTo)).to.equal(10n);
  });

  it("refuses what is not valid yet or any more", async () => {
    const terms: Terms = { payTo, amount: 1n };
    await refused(
      await facilitator.exact(agent, terms, { validBefore: rail.now() - 1n }),
      "invalid_exact_evm_payload_authorization_valid_before",
    );
    await refused(
      await facilitator.exact(agent, terms, { validAfter: rail.now() + 60n }),
      "invalid_exact_evm_payload_authorization_valid_after",
    );
  });

  it("refuses signatures under another domain: chain, contract, token, the token's own name", async () => {
    const terms: Terms = { payTo, amount: 1n };
    const token = "invalid_exact_evm_token_name_mismatch";
    await refused(await facilitator.exact(agent, terms, { domain: { chainId: 1n } }), "invalid_exact_evm_signature");
    const direct = rail.chain.registry.target as Address;
    await refused(await facilitator.exact(agent, terms, { domain: { direct } }), "invalid_exact_evm_signature");
    for (const name of ["USD Coin", "Test Dollar", `Bursar ${rail.token.toLowerCase()}`, undefined]) {
      await refused(await facilitator.exact(agent, { ...terms, extra: { name, version: "1" } }), token, "wrong-token");
    }
    const other = rail.chain.escrow.target as Address;
    const extra = { name: directDomainName(other), version: "1" };
    await refused(await facilitator.exact(agent, { ...terms, extra }, { token: other }), token, "wrong-token");
    await refused(
      await facilitator.exact(agent, { ...terms, extra: { name: directDomainName(rail.token), version: "2" } }),
      "invalid_exact_evm_token_version_mismatch",
    );
    const forged = await facilitator.exact(agent, terms, {
      from: (await rail.open({ budget: 9n, paymentCap: 9n })).address,
    });
    await refused(forged, "invalid_exact_evm_signature", "signature-signer");
  });

  it("refuses requirements that are not what was signed or accepted", async () => {
    const body = await facilitator.exact(agent, { payTo, amount: 5n });
    const asks = (changes: Record<string, unknown>): unknown => ({
      ...body,
      paymentRequirements: { ...body.paymentRequirements, ...changes },
    });
    await refused(asks({ payTo: rail.payee() }), "invalid_exact_evm_recipient_mismatch");
    await refused(asks({ amount: "4" }), "invalid_exact_evm_payload_authorization_value_mismatch");
    await refused(asks({ asset: rail.token }), "invalid_payment_requirements");
    await refused(asks({ network: "eip155:1" }), "invalid_exact_evm_network_mismatch");
    await refused(asks({ scheme: "upto" }), "unsupported_scheme");
    await refused(asks({ scheme: "constructor" }), "unsupported_scheme");
    await refused(asks({ extra: { name: "USD Coin", version: "2" } }), "invalid_exact_evm_token_name_mismatch");
    const signedOther = { value: 4n };
    await refused(
      await facilitator.exact(agent, { payTo, amount: 5n }, signedOther),
      "invalid_exact_evm_payload_authorization_value_mismatch",
    );
    await refused(
      await facilitator.exact(agent, { payTo, amount: 5n }, { to: rail.payee() }),
      "invalid_exact_evm_recipient_mismatch",
    );
    await refused(
      await facilitator.exact(agent, { payTo, amount: 5n, asset: rail.token, network: "eip155:31337" }),
      "invalid_payment_requirements",
    );
  });

  it("K5: answers 400 to every other form of a number", async () => {
    const body = await facilitator.exact(agent, { payTo, amount: 5n });
    const { payload } = body.paymentPayload as { payload: { signature: Hex; authorization: Record<string, unknown> } };
    const forms: Record<string, unknown[]> = {
      value: [5, "0x5", "05", " 5", "5e0", "5.0", "", null],
      validBefore: [Number(rail.now() + 300n)],
      nonce: ["777", 777, "0x309"],
    };
    for (const [field, values] of Object.entries(forms)) {
      for (const value of values) {
        const authorization = { ...payload.authorization, [field]: value };
        const wrong = { ...body, paymentPayload: { ...body.paymentPayload, payload: { ...payload, authorization } } };
        await refused(wrong, "invalid_payload");
        expect((await settle(wrong)).status).to.equal(400);
      }
    }
    for (const nothing of [{}, [], null, "x", { ...body, x402Version: 1 }, { ...body, paymentRequirements: null }]) {
      await refused(nothing, "invalid_payload");
    }
  });

  it("trusts the payee's profile and not its URL for the hosts of the terms", async () => {
    const terms = { version: 1 as const, purpose: "weather", categories: [], hosts: ["api.weather.example"] };
    const bound = await rail.open({ budget: 100n, paymentCap: 100n }, terms);
    const body = await facilitator.exact(bound, { payTo, amount: 1n });
    body.paymentPayload["resource"] = { url: "https://api.weather.example/today" };
    const unknown = await verify(body);
    expect(unknown.body["isValid"]).to.equal(false);
    const profile = { name: "Weather", category: "data.weather" };
    await rail.store.putPayee({ address: payTo, host: "casino.example", ...profile });
    await refused(body, "off_mission_host", "off-mission-host");
    await rail.store.putPayee({ address: payTo, host: "api.weather.example", ...profile });
    expect((await settle(body)).body["success"]).to.equal(true);
  });

  it("says that the outcome is open while the chain cannot be reached, and the outcome later, paying once", async () => {
    const patient = await Facilitator.open(rail, 300);
    try {
      const body = await patient.exact(agent, { payTo, amount: 9n });
      patient.wire.cut = true;
      const pending = await patient.http("POST", "/x402/settle", body);
      expect(pending).to.deep.include({ status: 200 });
      expect(pending.body).to.include({ success: false, errorReason: "settlement_pending" });
      expect(await patient.credit(payTo)).to.equal(0n);
      expect((await patient.http("POST", "/x402/verify", body)).body["isValid"]).to.equal(true);
      patient.wire.cut = false;
      let last = pending;
      for (let i = 0; i < 50 && last.body["success"] !== true; i++) {
        last = await patient.http("POST", "/x402/settle", body);
      }
      expect(last.body["success"]).to.equal(true);
      expect(await patient.credit(payTo)).to.equal(9n);
      expect((await patient.http("POST", "/x402/verify", body)).body["isValid"]).to.equal(false);
      expect((await rail.store.direct("exact", agent.address, nonceOf(body)))?.status).to.equal("settled");
    } finally {
      await patient.close();
    }
  });

  it("K2: with 1,503 free, mandates and payments on both rails never commit more", async () => {
    const { escrow, registry } = rail.chain;
    const free = await escrow.freeOf(rail.token, rail.ownerAddress);
    if (free > 0n) await (await escrow.connect(rail.owner).withdraw(rail.token, free, rail.ownerAddress)).wait();
    await rail.fund(1_503n);
    const opened: PayingAgent[] = [];
    const refusedAgents: PayingAgent[] = [];
    for (let i = 0; i < 6; i++) {
      const one = new PayingAgent(rail, new Wallet(hexlify(randomBytes(32))));
      const mandate = rail.draft(one.address, { budget: 1_501n, paymentCap: 1_501n });
      const [owners, agents] = [
        await signMandate(rail.owner, rail.domain, mandate),
        await signMandate(one.wallet, rail.domain, mandate),
      ];
      try {
        await (await registry.connect(rail.owner).open({ ...mandate, payees: [] }, owners, agents)).wait();
        await rail.processor.register(mandate, OPEN_TERMS);
        opened.push(one);
      } catch {
        rail.owner.reset();
        expect((await refusalOf(() => rail.processor.register(mandate, OPEN_TERMS))).code).to.equal("mandate-not-open");
        refusedAgents.push(one);
      }
    }
    expect(opened).to.have.lengthOf(1);
    const [payer] = opened as [PayingAgent];
    const bodies = await Promise.all(
      Array.from({ length: 6 }, () => facilitator.exact(payer, { payTo, amount: 400n })),
    );
    const debits = await Promise.all(Array.from({ length: 6 }, () => facilitator.debit(payer, payTo, 400n)));
    const [settled, enqueued, proved] = await Promise.all([
      Promise.all(bodies.map(settle)),
      Promise.all(debits.map((debit) => facilitator.http("POST", "/enqueue", debit))),
      payer.pay(payTo, 400n).then(
        () => 1n,
        () => 0n,
      ),
    ]);
    const exact = BigInt(settled.filter(({ body }) => body["success"] === true).length);
    const aep2 = BigInt(enqueued.filter(({ status }) => status === 200).length);
    expect(exact + aep2 + proved).to.equal(3n);
    for (const { body } of settled.filter((one) => one.body["success"] !== true)) {
      expect(body["errorReason"]).to.equal("invalid_exact_evm_insufficient_balance");
    }
    for (const { status, body } of enqueued.filter((one) => one.status !== 200)) {
      expect([status, body["error"], body["receipt"]]).to.deep.equal([402, "INSUFFICIENT_BALANCE", undefined]);
    }
    const { budget, remaining } = { budget: 1_501n, remaining: (await rail.processor.status(payer.address)).remaining };
    expect(remaining).to.equal(budget - 400n * 3n);
    const freeNow = await escrow.freeOf(rail.token, rail.ownerAddress);
    expect(freeNow + budget).to.equal(1_503n);
    for (const one of refusedAgents) await refusedBy(one);
    await rail.direct.run();
    expect(await facilitator.credit(payTo)).to.equal(400n * (exact + aep2));

    async function refusedBy(one: PayingAgent): Promise<void> {
      const answer = await settle(await facilitator.exact(one, { payTo, amount: 1n }));
      expect(answer.body["errorReason"]).to.equal("mandate_unknown");
      expect((await refusalOf(() => one.pay(payTo, 1n))).code).to.equal("mandate-unknown");
    }
  });

  it("tells that the contract refused a payment, and gives its units back", async () => {
    const one = await rail.open({ budget: 10n, paymentCap: 10n });
    const body = await facilitator.exact(one, { payTo, amount: 4n }, { validBefore: rail.now() + 60n });
    await rail.provider.send("evm_setNextBlockTimestamp", [Number(rail.now()) + 120]);
    await rail.provider.send("evm_mine", []);
    const answers = [await settle(body), await settle(body)];
    for (const { body: answer } of answers) {
      expect(answer).to.include({ success: false, errorReason: "invalid_exact_evm_transaction_failed" });
      expect(answer["errorMessage"]).to.match(/AuthorizationExpired/);
    }
    expect((await rail.processor.status(one.address)).reserved).to.equal(0n);
    expect((await verify(body)).body["invalidReason"]).to.equal("invalid_exact_evm_transaction_failed");
    expect(await facilitator.credit(payTo)).to.equal(0n);
  });
});

function nonceOf({ paymentPayload }: { paymentPayload: Record<string, unknown> }): Hex {
  return (paymentPayload["payload"] as { authorization: { nonce: Hex } }).authorization.nonce;
}
