import { expect } from "chai";
import { concat, id, keccak256, TypedDataEncoder, Wallet } from "ethers";
import fc from "fast-check";
import {
  closeSchema,
  deliverySchema,
  domainSchema,
  eip712Domain,
  hashAccess,
  hashClose,
  hashDelivery,
  hashLine,
  hashMandate,
  hashPayment,
  hashProfile,
  hashQuote,
  hashReceipt,
  hashRevocation,
  lineSchema,
  mandateSchema,
  MAX_AMOUNT,
  MAX_TOTAL,
  parseAddress,
  parseWire,
  paymentSchema,
  quoteSchema,
  receiptSchema,
  recoverStrict,
  revocationSchema,
  signMandate,
  signPayment,
  signReceipt,
  signRevocation,
  TYPES,
  verifySignature,
  type Address,
  type Hex,
  type Payment,
} from "@bursar/protocol";
import vectors from "../vectors/typed-data.json" with { type: "json" };
import { keccakOf, word } from "./reference.ts";

const domain = parseWire(domainSchema, vectors.domain);

/** The type strings, as docs/spec/encoding.md gives them. */
const LINE = "Line(address payee,uint40 amount,bytes32 ref)";
const SPEC = {
  Mandate:
    "Mandate(address owner,address agent,address token,uint64 budget,uint40 paymentCap,uint64 validUntil,address processor,address[] payees,bytes32 policyRoot,bytes32 termsHash)",
  Payment: `Payment(uint64 seq,uint64 spent,bytes32 head,Line line)${LINE}`,
  Line: LINE,
  Receipt:
    "Receipt(address agent,uint64 seq,address payee,uint40 amount,bytes32 ref,bytes32 head,uint64 settleBy,uint64 logIndex)",
  Revocation: "Revocation(address agent,uint64 afterSeq)",
  Close: "Close(address agent,uint64 seq)",
  Delivery: "Delivery(address agent,uint64 seq,bytes32 ref,bytes32 bodyHash,uint64 deliveredAt)",
  Access: "Access(address account,uint64 expiresAt)",
  Profile: "Profile(address payee,string name,string host,string category,uint64 issuedAt)",
  Quote: "Quote(address payee,uint40 amount,bytes32 ref,string host,string category,uint64 expiresAt)",
};

/** An EIP-712 digest put together by hand. */
function digestOf(types: readonly string[], values: readonly unknown[]): string {
  const separator = keccakOf(
    ["bytes32", "bytes32", "bytes32", "uint256", "address"],
    [
      id("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
      id("Bursar"),
      id("1"),
      domain.chainId,
      domain.registry,
    ],
  );
  return keccak256(concat(["0x1901", separator, keccakOf(types, values)]));
}

describe("typed data", () => {
  it("has the type hashes of the specification", () => {
    expect(Object.keys(vectors.typeHashes)).to.have.members(Object.keys(SPEC));
    for (const [name, text] of Object.entries(SPEC)) {
      expect(vectors.typeHashes[name as keyof typeof SPEC]).to.equal(id(text));
    }
  });

  for (const { name, mandate, digest, payeesHash, ownerSignature, agentSignature } of vectors.mandates) {
    it(`a mandate hashes as written: ${name}`, () => {
      const m = parseWire(mandateSchema, mandate);
      expect(hashMandate(domain, m)).to.equal(digest);
      const types = [
        "bytes32",
        "address",
        "address",
        "address",
        "uint64",
        "uint40",
        "uint64",
        "address",
        "bytes32",
        "bytes32",
        "bytes32",
      ];
      const payees = keccak256(concat(m.payees.map((payee) => `0x${"0".repeat(24)}${payee.slice(2)}`)));
      expect(payees).to.equal(payeesHash);
      const values = [
        id(SPEC.Mandate),
        m.owner,
        m.agent,
        m.token,
        m.budget,
        m.paymentCap,
        m.validUntil,
        m.processor,
        payees,
        m.policyRoot,
        m.termsHash,
      ];
      expect(digestOf(types, values)).to.equal(digest);
      expect(recoverStrict(digest as Hex, ownerSignature as Hex)).to.equal(m.owner);
      expect(recoverStrict(digest as Hex, agentSignature as Hex)).to.equal(m.agent);
    });
  }

  for (const { name, payment, lineHash, digest, signature, ...elsewhere } of vectors.payments) {
    it(`a payment hashes as written: ${name}`, () => {
      const p = parseWire(paymentSchema, payment);
      expect(hashLine(p.line)).to.equal(lineHash);
      expect(
        keccakOf(["bytes32", "address", "uint40", "bytes32"], [id(LINE), p.line.payee, p.line.amount, p.line.ref]),
      ).to.equal(lineHash);
      expect(hashPayment(domain, p)).to.equal(digest);
      expect(
        digestOf(
          ["bytes32", "uint64", "uint64", "bytes32", "bytes32"],
          [id(SPEC.Payment), p.seq, p.spent, p.head, lineHash],
        ),
      ).to.equal(digest);
      expect(recoverStrict(digest as Hex, signature as Hex)).to.equal(vectors.signers.agent);
      expect(hashPayment(parseWire(domainSchema, vectors.otherChain), p)).to.equal(elsewhere.digestOnOtherChain);
      expect(hashPayment(parseWire(domainSchema, vectors.otherContract), p)).to.equal(elsewhere.digestOnOtherContract);
    });
  }

  for (const { name, access, digest, signature } of vectors.accesses) {
    it(`an access hashes as written: ${name}`, () => {
      const { account, expiresAt } = access;
      const message = { account: parseAddress(account), expiresAt: BigInt(expiresAt) };
      expect(hashAccess(domain, message)).to.equal(digest);
      expect(digestOf(["bytes32", "address", "uint64"], [id(SPEC.Access), account, expiresAt])).to.equal(digest);
      expect(recoverStrict(digest as Hex, signature as Hex)).to.equal(vectors.signers.agent);
    });
  }

  for (const { name, profile, digest, signature } of vectors.profiles) {
    it(`a profile hashes as written: ${name}`, () => {
      const { payee, name: title, host, category, issuedAt } = profile;
      const message = { ...profile, payee: parseAddress(payee), issuedAt: BigInt(issuedAt) };
      expect(hashProfile(domain, message)).to.equal(digest);
      const types = ["bytes32", "address", "bytes32", "bytes32", "bytes32", "uint64"];
      expect(digestOf(types, [id(SPEC.Profile), payee, id(title), id(host), id(category), issuedAt])).to.equal(digest);
      expect(recoverStrict(digest as Hex, signature as Hex)).to.equal(vectors.signers.owner);
    });
  }

  for (const { name, quote, digest, signature } of vectors.quotes) {
    it(`a quote hashes as written: ${name}`, () => {
      const message = parseWire(quoteSchema, quote);
      expect(hashQuote(domain, message)).to.equal(digest);
      const { payee, amount, ref, host, category, expiresAt } = quote;
      const types = ["bytes32", "address", "uint40", "bytes32", "bytes32", "bytes32", "uint64"];
      const values = [id(SPEC.Quote), payee, amount, ref, id(host), id(category), expiresAt];
      expect(digestOf(types, values)).to.equal(digest);
      expect(recoverStrict(digest as Hex, signature as Hex)).to.equal(vectors.signers.owner);
    });
  }

  for (const { name, receipt, digest, signature } of vectors.receipts) {
    it(`a receipt hashes as written: ${name}`, () => {
      const r = parseWire(receiptSchema, receipt);
      const types = ["bytes32", "address", "uint64", "address", "uint40", "bytes32", "bytes32", "uint64", "uint64"];
      expect(hashReceipt(domain, r)).to.equal(digest);
      expect(
        digestOf(types, [id(SPEC.Receipt), r.agent, r.seq, r.payee, r.amount, r.ref, r.head, r.settleBy, r.logIndex]),
      ).to.equal(digest);
      expect(recoverStrict(digest as Hex, signature as Hex)).to.equal(vectors.signers.processor);
    });
  }

  for (const { name, revocation, digest, signature } of vectors.revocations) {
    it(`a revocation hashes as written: ${name}`, () => {
      const r = parseWire(revocationSchema, revocation);
      expect(hashRevocation(domain, r)).to.equal(digest);
      expect(digestOf(["bytes32", "address", "uint64"], [id(SPEC.Revocation), r.agent, r.afterSeq])).to.equal(digest);
      expect(recoverStrict(digest as Hex, signature as Hex)).to.equal(vectors.signers.owner);
    });
  }

  for (const { name, close, digest, signature } of vectors.closes) {
    it(`a close hashes as written: ${name}`, () => {
      const { agent, seq } = parseWire(closeSchema, close);
      expect(hashClose(domain, { agent, seq })).to.equal(digest);
      expect(digestOf(["bytes32", "address", "uint64"], [id(SPEC.Close), agent, seq])).to.equal(digest);
      expect(recoverStrict(digest as Hex, signature as Hex)).to.equal(vectors.signers.owner);
    });
  }

  for (const { name, delivery, digest, signature } of vectors.deliveries) {
    it(`a delivery hashes as written: ${name}`, () => {
      const d = parseWire(deliverySchema, delivery);
      expect(hashDelivery(domain, d)).to.equal(digest);
      const types = ["bytes32", "address", "uint64", "bytes32", "bytes32", "uint64"];
      const values = [id(SPEC.Delivery), d.agent, d.seq, d.ref, d.bodyHash, d.deliveredAt];
      expect(digestOf(types, values)).to.equal(digest);
      expect(recoverStrict(digest as Hex, signature as Hex)).to.equal(vectors.signers.owner);
    });
  }

  it("is ethers' typed data for any payment", () => {
    const address = fc
      .bigInt({ min: 1n, max: 2n ** 160n - 1n })
      .map((value) => parseAddress(`0x${value.toString(16).padStart(40, "0")}`));
    const word32 = fc
      .bigInt({ min: 0n, max: 2n ** 256n - 1n })
      .map((value): Hex => `0x${value.toString(16).padStart(64, "0")}`);
    const uint64 = fc.bigInt({ min: 0n, max: MAX_TOTAL });
    const payments = fc.record({
      seq: uint64,
      spent: uint64,
      head: word32,
      line: fc.record({ payee: address, amount: fc.bigInt({ min: 0n, max: MAX_AMOUNT }), ref: word32 }),
    });
    fc.assert(
      fc.property(payments, (payment) => {
        const types = { Payment: TYPES.Payment, Line: TYPES.Line };
        expect(hashPayment(domain, payment)).to.equal(TypedDataEncoder.hash(eip712Domain(domain), types, payment));
      }),
    );
  });

  it("changes its digest with every field of a payment, the chain and the contract", () => {
    const payment = parseWire(paymentSchema, vectors.payments[0]!.payment);
    const changed: Payment[] = [
      { ...payment, seq: payment.seq + 1n },
      { ...payment, spent: payment.spent + 1n },
      { ...payment, head: word("head") },
      { ...payment, line: { ...payment.line, payee: parseAddress(vectors.signers.owner) } },
      { ...payment, line: { ...payment.line, amount: payment.line.amount + 1n } },
      { ...payment, line: { ...payment.line, ref: word("ref") } },
    ];
    const digests = [payment, ...changed].map((message) => hashPayment(domain, message));
    digests.push(hashPayment({ ...domain, chainId: 1n }, payment));
    digests.push(hashPayment({ ...domain, registry: parseAddress(vectors.signers.owner) }, payment));
    expect(new Set(digests).size).to.equal(digests.length);
  });

  it("refuses a value that its field cannot hold", () => {
    const line = parseWire(lineSchema, vectors.payments[0]!.payment.line);
    expect(() => hashLine({ ...line, amount: 2n ** 40n })).to.throw(/out-of-bounds|is not a uint/);
  });

  it("is signed so that the signer is recovered", async () => {
    const signer = new Wallet(word("a signer"));
    const expected = signer.address as Address;
    const mandate = parseWire(mandateSchema, vectors.mandates[0]!.mandate);
    const payment = parseWire(paymentSchema, vectors.payments[0]!.payment);
    const receipt = parseWire(receiptSchema, vectors.receipts[0]!.receipt);
    const revocation = parseWire(revocationSchema, vectors.revocations[0]!.revocation);
    verifySignature(hashMandate(domain, mandate), await signMandate(signer, domain, mandate), expected);
    verifySignature(hashPayment(domain, payment), await signPayment(signer, domain, payment), expected);
    verifySignature(hashReceipt(domain, receipt), await signReceipt(signer, domain, receipt), expected);
    verifySignature(hashRevocation(domain, revocation), await signRevocation(signer, domain, revocation), expected);
  });
});
