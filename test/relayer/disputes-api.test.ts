import {
  accessHeader,
  hashEvidence,
  holdOf,
  signAccess,
  signDelivery,
  toWire,
  type Address,
  type Evidence,
  type Hex,
} from "@bursar/protocol";
import {
  ApiKeys,
  createLogger,
  EvidenceBook,
  filingOf,
  SERVICE_DEFAULTS,
  startService,
  type DisputeView,
  type Service,
} from "@bursar/relayer";
import { expect } from "chai";
import { id, keccak256, NonceManager, toUtf8Bytes, ZeroHash, type Signer } from "ethers";
import { setTimeout } from "node:timers/promises";

import { OPEN_TERMS, TestRail, type PayingAgent } from "../integration/rail.ts";
import { addressOf, keyOf, refusalOf } from "./office.ts";

const HOLDBACK = "3600";

describe("disputes over HTTP", function () {
  this.timeout(120_000);
  const shop = keyOf("shop");
  const payee = shop.address as Address;
  let rail: TestRail;
  let service: Service;
  let agent: PayingAgent;
  let evidence: Evidence;
  let hash: Hex;
  let operator: string;

  before(async () => {
    rail = await TestRail.start();
    const config = { ...SERVICE_DEFAULTS, port: 0, settleEvery: 0, maxSkew: null };
    service = await startService({
      config,
      chain: rail.chain,
      provider: rail.provider,
      store: rail.store,
      signer: rail.processorKey,
      prover: rail.prover,
      logger: createLogger("silent", { write: () => undefined }),
      now: () => rail.now(),
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    });
    operator = `Bearer ${(await new ApiKeys(rail.store.database, () => rail.now()).create("operator", "operator")).key}`;
    const hold = { module: rail.chain.rail.disputes!, holdback: HOLDBACK };
    agent = await rail.open({}, { ...OPEN_TERMS, dispute: hold });
    const account = holdOf(hold.module, agent.address, payee, BigInt(HOLDBACK));
    const signed = { ...(await agent.sign(account, 100n)), hold: { payee, holdback: BigInt(HOLDBACK) } };
    const { receipt, signature: receiptSignature } = await rail.processor.accept(signed);
    agent.ledger.commit();
    const { payment, signature } = signed;
    evidence = {
      version: 1,
      domain: toWire(rail.domain),
      agent: agent.address,
      payee,
      hold,
      purchase: toWire({ payment, signature, receipt, receiptSignature }),
    };
    hash = hashEvidence(evidence);
  });
  after(async () => {
    await service.stop();
    await rail.stop();
  });

  async function as(account: Address, signer: Signer): Promise<string> {
    const access = { account, expiresAt: rail.now() + 600n };
    return accessHeader(access, await signAccess(signer, rail.domain, access));
  }
  const owner = (): Promise<string> => as(rail.ownerAddress, rail.owner);
  const stranger = (): Promise<string> => as(addressOf("stranger"), keyOf("stranger"));
  const ask = async (path: string, authorization?: string): Promise<[status: number, text: string]> => {
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
    const response = await fetch(`${service.url}${path}`, { headers });
    return [response.status, await response.text()];
  };
  const leave = async (file: unknown, authorization: string): Promise<[status: number, body: { code?: string }]> => {
    const response = await fetch(`${service.url}/disputes/evidence`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization },
      body: JSON.stringify(file),
    });
    return [response.status, (await response.json()) as { code?: string }];
  };
  const codeOf = async (file: unknown, authorization: string): Promise<string | undefined> =>
    (await leave(file, authorization))[1].code;

  it("keeps evidence of a party whose signatures are good, once, for the other side and the operator", async () => {
    expect((await ask(`/disputes/evidence/${hash}`, await as(payee, shop)))[0]).to.equal(403);
    expect((await ask(`/disputes/evidence/${hash}`, operator))[0]).to.equal(404);
    for (let again = 0; again < 2; again++) {
      expect(await leave(evidence, await owner())).to.deep.equal([200, { hash }]);
    }
    for (const who of [await owner(), await as(payee, shop), await as(agent.address, agent.wallet), operator]) {
      const [status, file] = await ask(`/disputes/evidence/${hash}`, who);
      expect(status).to.equal(200);
      expect(keccak256(toUtf8Bytes(file))).to.equal(hash);
    }
    expect((await ask(`/disputes/evidence/${hash}`, await stranger()))[0]).to.equal(403);
    expect((await ask(`/disputes/evidence/${hash}`))[0]).to.equal(401);
    const reopened = await new EvidenceBook(rail.store.database).get(hash);
    expect(reopened).to.include({ agent: agent.address, payee, owner: rail.ownerAddress });
  });

  it("keeps nothing that a signature, the chain or the caller does not stand behind", async () => {
    const { purchase } = evidence;
    const by = await owner();
    const changed = (change: object): Evidence => ({ ...evidence, ...change });
    expect(await codeOf(evidence, await stranger())).to.equal("forbidden");
    expect(await codeOf(changed({ purchase: { ...purchase, signature: purchase.receiptSignature } }), by)).to.equal(
      "signature-signer",
    );
    expect(await codeOf(changed({ purchase: { ...purchase, receiptSignature: purchase.signature } }), by)).to.equal(
      "receipt-invalid",
    );
    expect(await codeOf(changed({ payee: addressOf("another shop") }), by)).to.equal("payment-mismatch");
    expect(await codeOf(changed({ hold: undefined }), by)).to.equal("payment-mismatch");
    expect(await codeOf(changed({ domain: { ...evidence.domain, chainId: "1" } }), by)).to.equal("wrong-chain");
    expect(await codeOf(changed({ statement: "x".repeat(10_001) }), by)).to.equal("malformed-input");
    expect(await codeOf(changed({ earlier: purchase }), by)).to.equal("payment-mismatch");
    const seq = BigInt(purchase.payment.seq);
    const delivery = { agent: agent.address, seq, ref: ZeroHash as Hex, bodyHash: id("b") as Hex, deliveredAt: 1n };
    const forged = toWire({ delivery, signature: await signDelivery(keyOf("stranger"), rail.domain, delivery) });
    expect(await codeOf(changed({ delivery: forged }), by)).to.equal("signature-signer");
    expect((await leave(changed({ statement: "x".repeat(70_000) }), by))[0]).to.equal(413);
  });

  it("keeps at most eight files of a payment for each account", async () => {
    for (let file = 1; file < 8; file++) {
      expect((await leave({ ...evidence, statement: `file ${file}` }, await owner()))[0]).to.equal(200);
    }
    const more = { ...evidence, statement: "one more" };
    expect(await codeOf(more, await owner())).to.equal("too-many-requests");
    expect((await leave(evidence, await owner()))[0]).to.equal(200);
    expect((await leave(more, await as(payee, shop)))[0]).to.equal(200);
  });

  it("tells how a dispute stands, what each side can do until when, and shows its file to its arbiter", async () => {
    const { disputes, arbiter } = rail.chain;
    const module = disputes.connect(rail.owner);
    const judge = await rail.provider.getSigner(0);
    const judgeAddress = judge.address as Address;
    const [status, text] = await ask("/disputes/1");
    expect([status, (JSON.parse(text) as { code: string }).code]).to.deep.equal([404, "not-found"]);
    expect((await ask("/disputes/first"))[0]).to.equal(400);
    const [batch] = await service.settler.run();
    expect(batch?.state).to.equal("settled");
    const { hold, purchase } = filingOf(evidence);
    await (await module.collect(hold)).wait();
    await (await module.file(3, hold, purchase, hash)).wait();
    const view = async (): Promise<DisputeView> => JSON.parse((await ask("/disputes/1"))[1]) as DisputeView;
    const filed = await view();
    expect(filed).to.include({ state: "filed", kind: "other", units: "100", evidenceHash: hash, caseId: null });
    expect(filed.choices.map(({ who, action }) => `${who}: ${action}`)).to.deep.equal([
      "payee: answer",
      "payee: refund",
      "anyone: resolve",
    ]);
    expect(filed.choices[0]?.until).to.equal(filed.deadline);

    const shopAtChain = new NonceManager(shop.connect(rail.provider));
    await (await rail.owner.sendTransaction({ to: payee, value: 10n ** 18n })).wait();
    await (await disputes.connect(shopAtChain).answer(1n, id("it was served"))).wait();
    expect((await view()).choices.map(({ action }) => action)).to.include("escalate");
    expect((await ask(`/disputes/evidence/${hash}`, await as(judgeAddress, judge)))[0]).to.equal(403);

    await (await arbiter.connect(judge).postBond({ value: await arbiter.stake() })).wait();
    await (await module.escalate(1n, { value: await disputes.escalationCost(1n) })).wait();
    expect(await view()).to.include({ state: "escalated", caseId: "1" });
    expect((await ask(`/disputes/evidence/${hash}`, await as(judgeAddress, judge)))[0]).to.equal(200);
    await (await arbiter.connect(judge).giveRuling(1n, 2n)).wait();
    expect(await view()).to.deep.include({ state: "refunded", choices: [] });
  });

  it("I13: takes no payment of such a mandate that does not go to a hold of the payee that it names", async () => {
    const account = holdOf(evidence.hold!.module as Address, agent.address, payee, BigInt(HOLDBACK));
    const signed = await agent.sign(account, 5n);
    const holdback = BigInt(HOLDBACK);
    const others = [
      { payee: addressOf("another shop"), holdback },
      { payee, holdback: holdback + 1n },
    ];
    for (const wrong of [{}, ...others.map((hold) => ({ hold }))]) {
      expect(await refusalOf(() => rail.processor.check({ ...signed, ...wrong }))).to.include({ code: "not-held" });
    }
    const { remaining } = await rail.processor.check({ ...signed, hold: { payee, holdback } });
    expect(remaining).to.equal(100_000n - 105n);
    agent.ledger.discard();
    const plain = await rail.open();
    const free = await plain.sign(payee, 5n);
    expect(await refusalOf(() => rail.processor.check({ ...free, hold: { payee, holdback } }))).to.include({
      code: "not-held",
    });
  });
});
