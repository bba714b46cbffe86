import { expect } from "chai";
import fc from "fast-check";
import {
  addressSchema,
  amountSchema,
  domainSchema,
  FIELD,
  headHex,
  lineSchema,
  mandateSchema,
  MAX_AMOUNT,
  MAX_TOTAL,
  parseAddress,
  parseWire,
  paymentSchema,
  receiptSchema,
  revocationSchema,
  signatureSchema,
  signedPaymentSchema,
  toWire,
  uint64Schema,
} from "@bursar/protocol";
import typedData from "../vectors/typed-data.json" with { type: "json" };
import vectors from "../vectors/wire.json" with { type: "json" };
import { refusal, word } from "./reference.ts";

const uint = (max: bigint, min = 0n) => fc.oneof(fc.bigInt({ min, max }), fc.constantFrom(min, max));
const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((data) => `0x${Buffer.from(data).toString("hex")}`);
const address = bytes(20)
  .filter((text) => BigInt(text) !== 0n)
  .map(parseAddress);
const field = uint(FIELD - 1n).map(headHex);
const line = fc.record({ payee: address, amount: uint(MAX_AMOUNT, 1n), ref: bytes(32) });
const payment = fc.record({ seq: uint(MAX_TOTAL, 1n), spent: uint(MAX_TOTAL, 1n), head: field, line });
const messages: [string, Parameters<typeof parseWire>[0], fc.Arbitrary<object>][] = [
  ["domain", domainSchema, fc.record({ chainId: uint(2n ** 256n - 1n), registry: address })],
  [
    "mandate",
    mandateSchema,
    fc.record({
      owner: address,
      agent: address,
      token: address,
      budget: uint(MAX_TOTAL, 1n),
      paymentCap: uint(MAX_AMOUNT, 1n),
      validUntil: uint(MAX_TOTAL),
      processor: address,
      payees: fc.array(address, { maxLength: 8 }),
      policyRoot: field,
      termsHash: bytes(32),
    }),
  ],
  ["line", lineSchema, line],
  ["payment", paymentSchema, payment],
  [
    "signed payment",
    signedPaymentSchema,
    fc.record({ agent: address, payment, signature: bytes(65), salt: uint(2n ** 248n - 1n) }),
  ],
  [
    "receipt",
    receiptSchema,
    fc.record({
      agent: address,
      seq: uint(MAX_TOTAL, 1n),
      payee: address,
      amount: uint(MAX_AMOUNT, 1n),
      ref: bytes(32),
      head: field,
      settleBy: uint(MAX_TOTAL),
      logIndex: uint(MAX_TOTAL),
    }),
  ],
  ["revocation", revocationSchema, fc.record({ agent: address, afterSeq: uint(MAX_TOTAL) })],
];

describe("messages on the wire", () => {
  for (const [name, schema, arbitrary] of messages) {
    it(`a ${name} survives the wire`, () => {
      fc.assert(
        fc.property(arbitrary, (message) => {
          expect(parseWire(schema, JSON.parse(JSON.stringify(toWire(message))))).to.deep.equal(message);
        }),
      );
    });

    it(`a ${name} with an unknown or a missing field is refused`, () => {
      const [message] = fc.sample(arbitrary, { numRuns: 1, seed: 1 });
      const wire = toWire(message!) as Record<string, unknown>;
      refusal("malformed-input", () => parseWire(schema, { ...wire, extra: "1" }));
      for (const key of Object.keys(wire)) {
        const rest = Object.fromEntries(Object.entries(wire).filter(([other]) => other !== key));
        expect(refusal("malformed-input", () => parseWire(schema, rest)).details).to.have.property(key);
      }
    });
  }

  it("names every wrong field by its path", () => {
    const wire = structuredClone(typedData.payments[0]!.payment);
    const wrong = { ...wire, seq: "0", line: { ...wire.line, amount: "0x1" } };
    expect(Object.keys(refusal("malformed-input", () => parseWire(paymentSchema, wrong)).details)).to.have.members([
      "seq",
      "line.amount",
    ]);
  });

  it("refuses a head that is not below the field order", () => {
    const wire = typedData.payments[0]!.payment;
    refusal("malformed-input", () => parseWire(paymentSchema, { ...wire, head: headHex(FIELD) }));
    expect(parseWire(paymentSchema, { ...wire, head: headHex(FIELD - 1n) }).head).to.equal(headHex(FIELD - 1n));
  });

  it("refuses nine payees", () => {
    const [mandate] = typedData.mandates.filter(({ name }) => name === "eight payees").map(({ mandate }) => mandate);
    expect(parseWire(mandateSchema, mandate).payees).to.have.length(8);
    refusal("malformed-input", () =>
      parseWire(mandateSchema, { ...mandate, payees: [...mandate!.payees, mandate!.owner] }),
    );
  });

  it("leaves the reason for a bad signature to the signature check", () => {
    expect(signatureSchema.safeParse("0x").success).to.equal(true);
    expect(signatureSchema.safeParse("0x123").success).to.equal(false);
    expect(signatureSchema.safeParse("0xzz").success).to.equal(false);
  });

  it("reads hexadecimal in upper case as the same value", () => {
    const ref = word("ref");
    const wire = { payee: vectors.addresses.eip55, amount: "1", ref: `0x${ref.slice(2).toUpperCase()}` };
    expect(parseWire(lineSchema, wire).ref).to.equal(ref);
  });
});

describe("a number on the wire (K5)", () => {
  for (const text of vectors.numbers.accepted) {
    it(`accepts "${text}"`, () => expect(parseWire(uint64Schema, text).toString()).to.equal(text));
  }
  for (const value of vectors.numbers.refused) {
    it(`refuses ${JSON.stringify(value)}`, () => refusal("malformed-input", () => parseWire(uint64Schema, value)));
  }

  it("an amount is 1 … 2^40 − 1 (K6, K11)", () => {
    expect(["1", String(MAX_AMOUNT)].map((text) => parseWire(amountSchema, text))).to.deep.equal([1n, MAX_AMOUNT]);
    for (const text of ["0", String(MAX_AMOUNT + 1n)]) refusal("malformed-input", () => parseWire(amountSchema, text));
  });
});

describe("an address on the wire (K4)", () => {
  for (const text of vectors.addresses.accepted) {
    it(`reads ${text} into EIP-55`, () => expect(parseAddress(text)).to.equal(vectors.addresses.eip55));
  }
  for (const value of vectors.addresses.refused) {
    it(`refuses ${JSON.stringify(value)}`, () => refusal("malformed-input", () => parseWire(addressSchema, value)));
  }
});
