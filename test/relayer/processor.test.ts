import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import {
  hashPayment,
  hashReceipt,
  headHex,
  policyRoot,
  recoverStrict,
  signMandate,
  signRevocation,
  toWire,
  type Hex,
  type Mandate,
  type Payment,
  type SignedPayment,
  type Terms,
} from "@bursar/protocol";
import { expect } from "chai";
import { Signature, ZeroHash } from "ethers";

import { OPEN_TERMS, TestRail } from "../integration/rail.ts";
import { addressOf, DOMAIN, keyOf, NOW, Office, refusalOf, signAs } from "./office.ts";

const SHOP = addressOf("shop");
const CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

const bytes = (receipt: unknown): string => JSON.stringify(toWire(receipt));

describe("the processor", function () {
  this.timeout(60_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-office-"));
  let path: string;
  let made = 0;
  beforeEach(() => (path = join(folder, `${++made}.db`)));
  after(() => rmSync(folder, { recursive: true }));

  describe("P10 same_request_same_answer", () => {
    it("answers the same payment with the same bytes, one after the other and 64 at once", async () => {
      const office = await Office.open(path);
      const request = await (await office.agent("agent")).sign(SHOP, 5n);
      const first = bytes(await office.processor.accept(request));
      office.clock += 100n;
      const answers = await Promise.all(Array.from({ length: 64 }, () => office.processor.accept(request)));
      for (const answer of answers) expect(bytes(answer)).to.equal(first);
      expect(await office.store.counts()).to.include({ payments: 1, refusals: 0 });
      await office.store.close();
    });

    it("answers 64 first attempts at once with one receipt, whatever salt comes along", async () => {
      const office = await Office.open(path);
      const request = await (await office.agent("agent")).sign(SHOP, 5n);
      // With its mandate at hand they arrive in this order: the first has the right salt.
      await office.store.signed(request.agent);
      const answers = await Promise.all(
        Array.from({ length: 64 }, (_, i) =>
          office.processor.accept({ ...request, salt: request.salt + BigInt(i % 2) }),
        ),
      );
      expect(new Set(answers.map(bytes)).size).to.equal(1);
      expect((await office.store.counts()).payments).to.equal(1);
      await office.store.close();
    });

    it("answers the same after a restart", async () => {
      const office = await Office.open(path);
      const agent = await office.agent("agent");
      const request = await agent.sign(SHOP, 5n);
      const first = bytes(await office.processor.accept(request));
      await office.store.close();
      const reopened = await Office.open(path);
      reopened.clock += 1_000n;
      expect(bytes(await reopened.processor.accept(request))).to.equal(first);
      expect(bytes(await reopened.processor.receipt(agent.address, 1n))).to.equal(first);
      await reopened.store.close();
    });

    it("P11 answer_implies_durable: gives the receipt that kill -9 cut off between commit and answer", async () => {
      const child = fileURLToPath(new URL("killed-at-receipt.ts", import.meta.url));
      const death = await promisify(execFile)(process.execPath, ["--import", "tsx", child, path]).catch(
        (error: unknown) => error as { signal: string },
      );
      expect(death).to.include({ signal: "SIGKILL" });
      const office = await Office.open(path);
      expect((await office.store.counts()).payments).to.equal(1);
      const agent = await office.agent("cut off");
      const request = await agent.sign(SHOP, 5n);
      const answer = await office.processor.accept(request);
      expect(answer.receipt).to.deep.include({ seq: 1n, logIndex: 0n, head: request.payment.head });
      expect((await office.store.counts()).payments).to.equal(1);
      await office.store.close();
    });

    it("refuses another payment on a taken number for ever, and keeps both signatures as evidence", async () => {
      const office = await Office.open(path);
      const agent = await office.agent("agent");
      const taken = await agent.sign(SHOP, 5n);
      agent.ledger.discard();
      const other = await agent.sign(SHOP, 6n);
      const receipt = bytes(await office.processor.accept(taken));
      const expectRefused = async (at: Office): Promise<void> => {
        const refusal = await refusalOf(() => at.processor.accept(other));
        expect({ code: refusal.code, details: refusal.details }).to.deep.equal({
          code: "sequence-taken",
          details: { value: hashPayment(DOMAIN, other.payment), limit: hashPayment(DOMAIN, taken.payment) },
        });
        expect(bytes(await at.processor.accept(taken))).to.equal(receipt);
      };
      await expectRefused(office);
      await office.store.close();

      const muchLater = await Office.open(path);
      muchLater.clock += 10_000_000n;
      await expectRefused(muchLater);
      const [evidence] = await muchLater.store.refusals(agent.address);
      const kept = await muchLater.store.payment(agent.address, 1n);
      expect(evidence!.payment).to.deep.equal(other.payment);
      expect(kept!.payment).to.deep.equal(taken.payment);
      for (const { payment, signature } of [evidence!, kept!])
        expect(recoverStrict(hashPayment(DOMAIN, payment as Payment), signature)).to.equal(agent.address);
      await muchLater.store.close();
    });

    it("gives one of 64 rivals for one number a receipt and refuses the rest", async () => {
      const office = await Office.open(path);
      const agent = await office.agent("agent");
      const rivals: SignedPayment[] = [];
      for (let amount = 1n; amount <= 64n; ++amount) {
        rivals.push(await agent.sign(SHOP, amount));
        agent.ledger.discard();
      }
      const outcomes = await Promise.allSettled(rivals.map((rival) => office.processor.accept(rival)));
      expect(outcomes.filter(({ status }) => status === "fulfilled")).to.have.length(1);
      expect(await office.store.counts()).to.include({ payments: 1, refusals: 63 });
      await office.store.close();
    });
  });

  it("P8 receipt_verifies_offline: signs agent, number, payee, amount, reference, head and time as accepted", async () => {
    const office = await Office.open(path);
    const agent = await office.agent("agent");
    const { payment } = await agent.sign(SHOP, 5n, `0x${"ab".repeat(32)}`);
    const { receipt, signature } = await agent.pay(SHOP, 5n, `0x${"ab".repeat(32)}`);
    expect(receipt).to.deep.equal({
      agent: agent.address,
      seq: 1n,
      ...payment.line,
      head: payment.head,
      settleBy: NOW + 3_600n,
      logIndex: 0n,
    });
    expect(recoverStrict(hashReceipt(DOMAIN, receipt), signature)).to.equal(addressOf("processor"));
    await office.store.close();
  });

  it("numbers receipts of all agents in one log without gaps", async () => {
    const office = await Office.open(path);
    const agents = await Promise.all(["a", "b", "c"].map((name) => office.agent(name)));
    const indices: bigint[] = [];
    for (let i = 0; i < 12; ++i) {
      const { receipt } = await agents[(i * 7) % 3]!.pay(SHOP, 1n);
      await refusalOf(() => agents[i % 3]!.pay(SHOP, 1_001n));
      indices.push(receipt.logIndex);
    }
    expect(indices).to.deep.equal(indices.map((_, index) => BigInt(index)));
    await office.store.close();
  });

  describe("what it refuses", () => {
    it("is recorded with reason and advice, once however often it is sent, and changes nothing else", async () => {
      const office = await Office.open(path);
      const agent = await office.agent("agent");
      await agent.pay(SHOP, 5n);
      const before = await office.processor.status(agent.address);
      const request = await agent.sign(SHOP, 1_001n);
      for (let attempt = 0; attempt < 3; ++attempt) {
        const refusal = await refusalOf(() => office.processor.accept(request));
        expect(refusal.code).to.equal("above-payment-cap");
      }
      expect(await office.processor.status(agent.address)).to.deep.equal(before);
      const refusals = await office.store.refusals(agent.address);
      expect(refusals).to.have.length(1);
      expect(refusals[0]).to.deep.include({
        code: "above-payment-cap",
        payment: request.payment,
        signature: request.signature,
        details: { value: "1001", limit: "1000" },
        at: NOW,
      });
      expect(refusals[0]!.advice).to.match(/cheaper payee/);
      await office.store.close();
    });

    it("may be accepted later, when the reason is gone", async () => {
      const office = await Office.open(path);
      const mission: Terms = { ...OPEN_TERMS, categories: ["maps"] };
      const agent = await office.agent("agent", {}, mission);
      const request = await agent.sign(SHOP, 5n);
      expect((await refusalOf(() => office.processor.accept(request))).code).to.equal("payee-unknown");
      await office.store.putPayee({ address: SHOP, name: "Shop", host: "maps.example", category: "maps" });
      expect((await office.processor.accept(request)).receipt.seq).to.equal(1n);
      await office.store.close();
    });

    it("leaves no trace when the agent did not sign it or has no mandate", async () => {
      const office = await Office.open(path);
      const agent = await office.agent("agent");
      const before = await office.snapshot();
      const request = await agent.sign(SHOP, 5n);
      const impostor = { address: agent.address, wallet: keyOf("stranger") };
      const forged = await signAs(impostor, request.payment, request.salt);
      const refusal = await refusalOf(() => office.processor.accept(forged));
      expect({ ...refusal.details, code: refusal.code }).to.deep.equal({
        code: "signature-signer",
        value: addressOf("stranger"),
        limit: agent.address,
      });
      const unknown = await refusalOf(() => office.processor.accept({ ...forged, agent: addressOf("stranger") }));
      expect({ code: unknown.code, details: unknown.details }).to.deep.equal({
        code: "mandate-unknown",
        details: { value: addressOf("stranger") },
      });
      expect(await office.snapshot()).to.equal(before);
      await office.store.close();
    });

    for (const [where, domain] of [
      ["chain", { ...DOMAIN, chainId: 1n }],
      ["contract", { ...DOMAIN, registry: addressOf("another registry") }],
    ] as const) {
      it(`includes a payment that was signed for another ${where}: signature-signer`, async () => {
        const office = await Office.open(path);
        const agent = await office.agent("agent");
        const { payment, salt } = await agent.sign(SHOP, 5n);
        const refusal = await refusalOf(async () =>
          office.processor.accept(await signAs(agent, payment, salt, domain)),
        );
        expect(refusal.code).to.equal("signature-signer");
        await office.store.close();
      });
    }

    const forms: [name: string, code: string, alter: (signature: Signature) => string][] = [
      [
        "s in the upper half",
        "signature-high-s",
        ({ r, s, v }) => `${r}${headHex(CURVE_ORDER - BigInt(s)).slice(2)}${v === 27 ? "1c" : "1b"}`,
      ],
      ["64 bytes (EIP-2098)", "signature-length", ({ compactSerialized }) => compactSerialized],
      ["66 bytes", "signature-length", ({ serialized }) => `${serialized}00`],
      ["v of 0 or 1", "signature-v", ({ r, s, v }) => `${r}${s.slice(2)}0${v - 27}`],
      ["v of 29", "signature-v", ({ r, s }) => `${r}${s.slice(2)}1d`],
      ["r of 0", "signature-invalid", ({ s, v }) => `${ZeroHash}${s.slice(2)}${v.toString(16)}`],
      ["s of 0", "signature-invalid", ({ r, v }) => `${r}${ZeroHash.slice(2)}${v.toString(16)}`],
    ];
    for (const [name, code, alter] of forms) {
      it(`includes a signature with ${name}: ${code}`, async () => {
        const office = await Office.open(path);
        const agent = await office.agent("agent");
        const before = await office.snapshot();
        const request = await agent.sign(SHOP, 5n);
        const signature = alter(Signature.from(request.signature)) as Hex;
        expect((await refusalOf(() => office.processor.accept({ ...request, signature }))).code).to.equal(code);
        expect(await office.snapshot()).to.equal(before);
        expect((await office.processor.accept(request)).receipt.seq).to.equal(1n);
        await office.store.close();
      });
    }
  });

  describe("the ledger's pages", () => {
    it("continue over several pages and a restart in the middle of one", async () => {
      let office = await Office.open(path);
      let agent = await office.agent("agent");
      for (let seq = 1n; seq <= 24n; ++seq) {
        if (seq === 11n || seq === 15n) {
          await office.store.close();
          const { state } = agent.ledger;
          office = await Office.open(path);
          agent = await office.agent("agent");
          for (const { payment } of await office.store.payments(agent.address, 1n, seq - 1n))
            agent.ledger.append(payment.line);
          expect(agent.ledger.state).to.deep.equal(state);
        }
        await agent.pay(SHOP, seq);
        const { position } = await office.processor.tail(agent.address);
        expect({ ...position, pending: null }).to.deep.equal(agent.ledger.state);
      }
      expect((await office.processor.status(agent.address)).accepted).to.deep.equal({ seq: 24n, spent: 300n });
      await office.store.close();
    });

    it("keep their salt: a change in the middle of a page is refused, with a new page it is taken", async () => {
      const office = await Office.open(path);
      const agent = await office.agent("agent");
      for (let seq = 1; seq <= 10; ++seq) await agent.pay(SHOP, 1n);
      const { payment, salt } = await agent.sign(SHOP, 1n);
      const changed = await signAs(agent, payment, salt + 1n);
      expect((await refusalOf(() => office.processor.accept(changed))).code).to.equal("head-mismatch");
      expect((await office.processor.accept(await signAs(agent, payment, salt))).receipt.seq).to.equal(11n);
      const salts = (await office.store.payments(agent.address, 1n, 11n)).map((kept) => kept.salt);
      expect(new Set(salts.slice(0, 7)).size).to.equal(1);
      expect(new Set(salts.slice(7)).size).to.equal(1);
      expect(salts[0]).not.to.equal(salts[7]);
      await office.store.close();
    });
  });

  it("takes many agents' payments that arrive at once, in groups, without mixing them up", async () => {
    const office = await Office.open(path);
    const agents = await Promise.all(Array.from({ length: 100 }, (_, i) => office.agent(`crowd ${i}`)));
    const answers = await Promise.all(agents.map((agent, i) => agent.pay(SHOP, BigInt(i + 1))));
    answers.forEach(({ receipt }, i) => {
      expect(receipt).to.include({ agent: agents[i]!.address, amount: BigInt(i + 1) });
    });
    expect((await office.store.counts()).payments).to.equal(100);
    await office.store.close();
  });

  describe("on a chain", () => {
    let rail: TestRail;
    before(async () => {
      rail = await TestRail.start();
    });
    after(() => rail.stop());

    async function openOnChain(mandate: Mandate, agent: ReturnType<typeof keyOf>): Promise<void> {
      await rail.fund(mandate.budget);
      const signatures = await Promise.all(
        [rail.owner, agent].map((signer) => signMandate(signer, rail.domain, mandate)),
      );
      const registry = rail.chain.registry.connect(rail.owner);
      await (await registry.open({ ...mandate, payees: [...mandate.payees] }, signatures[0]!, signatures[1]!)).wait();
    }

    it("K3: takes up no mandate that is not open on chain, and gives no receipt on it", async () => {
      const mandate = rail.draft(addressOf("never opened"));
      const refusal = await refusalOf(() => rail.processor.register(mandate, OPEN_TERMS));
      expect({ code: refusal.code, details: refusal.details }).to.deep.equal({
        code: "mandate-not-open",
        details: { value: "none", limit: "open" },
      });
      expect(await rail.store.mandate(mandate.agent)).to.equal(undefined);
    });

    const contradictions: [what: string, code: string, change: (mandate: Mandate) => Partial<Mandate>, terms: Terms][] =
      [
        ["another processor", "wrong-processor", () => ({ processor: addressOf("elsewhere") }), OPEN_TERMS],
        [
          "other terms than the signed ones",
          "terms-mismatch",
          () => ({}),
          { ...OPEN_TERMS, purpose: "something else" },
        ],
        ["a payee list that is not the policy's", "policy-mismatch", () => ({ payees: [SHOP] }), OPEN_TERMS],
        ["a cap that is not the policy's", "policy-mismatch", () => ({ paymentCap: 999n }), OPEN_TERMS],
        ["a larger budget than on chain", "mandate-conflict", () => ({ budget: 100_001n }), OPEN_TERMS],
        ["a later end than on chain", "mandate-conflict", (m) => ({ validUntil: m.validUntil + 1n }), OPEN_TERMS],
        ["another owner than on chain", "mandate-conflict", () => ({ owner: SHOP }), OPEN_TERMS],
        ["another token than on chain", "mandate-conflict", () => ({ token: SHOP }), OPEN_TERMS],
        [
          "other payees than on chain",
          "mandate-conflict",
          () => ({ payees: [SHOP], policyRoot: headHex(policyRoot([SHOP], 1_000n)) }),
          OPEN_TERMS,
        ],
      ];
    for (const [what, code, change, terms] of contradictions) {
      it(`refuses to take up a mandate with ${what}: ${code}`, async () => {
        const agent = keyOf(`contradiction ${what}`);
        const mandate = rail.draft(agent.address as Hex);
        await openOnChain(mandate, agent);
        const refusal = await refusalOf(() => rail.processor.register({ ...mandate, ...change(mandate) }, terms));
        expect(refusal.code).to.equal(code);
        expect(refusal.details["value"]).not.to.equal(refusal.details["limit"]);
        expect(await rail.store.mandate(mandate.agent)).to.equal(undefined);
        await rail.processor.register(mandate, OPEN_TERMS);
        expect((await rail.store.mandateOf(mandate.agent)).mandate).to.deep.equal(mandate);
      });
    }

    it("takes a mandate up once: repeating it changes nothing, and another one for the same agent conflicts", async () => {
      const agent = keyOf("repeated");
      const mandate = rail.draft(agent.address as Hex);
      await openOnChain(mandate, agent);
      const record = await rail.processor.register(mandate, OPEN_TERMS);
      expect(await rail.processor.register(mandate, OPEN_TERMS)).to.deep.equal(record);
      const richer = { ...mandate, budget: mandate.budget + 1n };
      expect((await refusalOf(() => rail.processor.register(richer, OPEN_TERMS))).code).to.equal("mandate-conflict");
      const otherTerms = { ...OPEN_TERMS, purpose: "something else" };
      expect((await refusalOf(() => rail.processor.register(mandate, otherTerms))).code).to.equal("terms-mismatch");
      expect(await rail.store.mandateOf(mandate.agent)).to.deep.equal(record);
    });

    it("stops a mandate at once on the owner's signature, and on nobody else's", async () => {
      const agent = await rail.open();
      await agent.pay(SHOP, 1n);
      const revocation = { agent: agent.address, afterSeq: 1n };
      for (const signer of [agent.wallet, rail.processorKey]) {
        const signature = await signRevocation(signer, rail.domain, revocation);
        expect((await refusalOf(() => rail.processor.revoke(revocation, signature))).code).to.equal("signature-signer");
      }
      const ofOther = await signRevocation(rail.owner, rail.domain, { ...revocation, agent: SHOP });
      expect((await refusalOf(() => rail.processor.revoke(revocation, ofOther))).code).to.equal("signature-signer");
      await agent.pay(SHOP, 1n);
      await rail.processor.revoke(revocation, await signRevocation(rail.owner, rail.domain, revocation));
      const refusal = await refusalOf(() => agent.pay(SHOP, 1n));
      expect(refusal.code).to.equal("mandate-revoked");
      expect(refusal.advice).to.match(/ask the owner/);
    });

    it("follows a revocation that only the chain has seen", async () => {
      const agent = await rail.open();
      await rail.processor.refresh();
      await agent.pay(SHOP, 1n);
      await (await rail.chain.registry.connect(rail.owner).revoke(agent.address, 1n)).wait();
      const { revokedAt } = await rail.chain.mandate(agent.address);
      await rail.processor.refresh();
      expect((await rail.processor.status(agent.address)).revokedAt).to.equal(revokedAt);
      expect((await refusalOf(() => agent.pay(SHOP, 1n))).code).to.equal("mandate-revoked");
    });

    it("P12 accepted_implies_settleable: settles what it accepted before the revocation", async () => {
      for (const { state, error } of await rail.settler.run()) expect(state, error ?? "").to.equal("settled");
      expect((await rail.store.counts()).unbatched).to.equal(0);
    });
  });
});
