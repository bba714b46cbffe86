import { expect } from "chai";
import canonicalize from "canonicalize";
import { id, keccak256, toUtf8Bytes, TypedDataEncoder, Wallet } from "ethers";
import {
  canonicalEvidence,
  canonicalTerms,
  describeMandate,
  deliverySchema,
  domainSchema,
  eip712Domain,
  hashDelivery,
  hashEvidence,
  holdOf,
  mandateSchema,
  parseWire,
  signDelivery,
  termsHash,
  TYPES,
  verifySignature,
  type Address,
  type Evidence,
  type Terms,
} from "@bursar/protocol";
import vectors from "../vectors/typed-data.json" with { type: "json" };
import { keccakOf, refusal, word } from "./reference.ts";

const domain = parseWire(domainSchema, vectors.domain);
const payee = new Wallet(word("payee"));
const module = new Wallet(word("module")).address as Address;
const agent = new Wallet(word("agent")).address as Address;

describe("a delivery", () => {
  const wire = { agent, seq: "7", ref: word("ref"), bodyHash: word("body"), deliveredAt: "1700000000" };
  const delivery = parseWire(deliverySchema, wire);

  it("hashes as its type says", () => {
    const type = "Delivery(address agent,uint64 seq,bytes32 ref,bytes32 bodyHash,uint64 deliveredAt)";
    const struct = keccakOf(
      ["bytes32", "address", "uint64", "bytes32", "bytes32", "uint64"],
      [id(type), delivery.agent, delivery.seq, delivery.ref, delivery.bodyHash, delivery.deliveredAt],
    );
    expect(TypedDataEncoder.hashStruct("Delivery", { Delivery: TYPES.Delivery }, delivery)).to.equal(struct);
    expect(hashDelivery(domain, delivery)).to.equal(
      TypedDataEncoder.hash(eip712Domain(domain), { Delivery: TYPES.Delivery }, delivery),
    );
  });

  it("is signed so that the payee is recovered", async () => {
    const signature = await signDelivery(payee, domain, delivery);
    verifySignature(hashDelivery(domain, delivery), signature, payee.address as Address);
    refusal("signature-signer", () => {
      verifySignature(hashDelivery(domain, { ...delivery, seq: 8n }), signature, payee.address as Address);
    });
  });
});

describe("a hold", () => {
  it("is another account for each module, agent, payee and holdback", () => {
    const accounts = [
      holdOf(module, agent, payee.address as Address, 60n),
      holdOf(agent, module, payee.address as Address, 60n),
      holdOf(module, payee.address as Address, agent, 60n),
      holdOf(module, agent, payee.address as Address, 61n),
    ];
    expect(new Set(accounts).size).to.equal(accounts.length);
  });

  it("waits between no time and seven days", () => {
    for (const holdback of [-1n, 604_801n]) {
      refusal("malformed-input", () => holdOf(module, agent, payee.address as Address, holdback));
    }
    expect(() => holdOf(module, agent, payee.address as Address, 604_800n)).not.to.throw();
  });
});

describe("terms with a dispute module", () => {
  const terms: Terms = { version: 1, purpose: "p", categories: [], hosts: [] };
  const mandate = parseWire(mandateSchema, vectors.mandates[0]!.mandate);
  const clause = (holdback: string) =>
    describeMandate(mandate, { ...terms, dispute: { module, holdback } }).find(({ subject }) => subject === "disputes");

  it("hash otherwise than without, and with any change of it", () => {
    const holdbacks = ["0", "3600", "604800"].map((holdback) => termsHash({ ...terms, dispute: { module, holdback } }));
    expect(new Set([termsHash(terms), ...holdbacks]).size).to.equal(4);
    expect(canonicalTerms(terms)).to.equal('{"categories":[],"hosts":[],"purpose":"p","version":1}');
  });

  it("hold back at most seven days, written as a canonical decimal", () => {
    for (const holdback of ["604801", "-1", "060", "1.5", ""]) {
      refusal("malformed-input", () => termsHash({ ...terms, dispute: { module, holdback } }));
    }
  });

  it("are told in plain words", () => {
    expect(clause("86400")).to.deep.equal({
      subject: "disputes",
      words: `payments wait 1 day at ${module}, where they can be disputed`,
      enforcedBy: "processor",
    });
    expect(clause("5400")?.words).to.contain("wait 90 minutes at");
    expect(clause("0")?.words).to.contain("without a wait");
    expect(describeMandate(mandate, terms).map(({ subject }) => subject)).not.to.include("disputes");
  });
});

describe("evidence", () => {
  const [receipt, payment] = [vectors.receipts[0]!, vectors.payments[0]!];
  const evidence: Evidence = {
    version: 1,
    domain: vectors.domain,
    agent,
    payee: payee.address,
    purchase: {
      payment: payment.payment,
      signature: payment.signature,
      receipt: receipt.receipt,
      receiptSignature: receipt.signature,
    },
    statement: "Nothing came.",
  };

  it("has the hash of its canonical JSON, in any order of its fields", () => {
    const text = canonicalEvidence(evidence);
    expect(text).to.equal(canonicalize(evidence));
    expect(hashEvidence(evidence)).to.equal(keccak256(toUtf8Bytes(text)));
    const turned = Object.fromEntries(Object.entries(evidence).toReversed()) as Evidence;
    expect(hashEvidence(turned)).to.equal(hashEvidence(evidence));
    expect(hashEvidence({ ...evidence, statement: "Something came." })).not.to.equal(hashEvidence(evidence));
  });

  it("takes a quote, a delivery and an earlier payment along", () => {
    const quote = { quote: vectors.quotes[0]!.quote, signature: vectors.quotes[0]!.signature };
    const delivery = {
      delivery: { agent, seq: "1", ref: word("ref"), bodyHash: word("body"), deliveredAt: "1" },
      signature: payment.signature,
    };
    expect(() => hashEvidence({ ...evidence, quote, delivery, earlier: evidence.purchase })).not.to.throw();
  });

  it("is refused in another form", () => {
    for (const change of [{ version: 2 }, { agent: "0x" }, { more: 1 }, { statement: "x".repeat(10_001) }]) {
      refusal("malformed-input", () => hashEvidence({ ...evidence, ...change } as Evidence));
    }
  });
});
