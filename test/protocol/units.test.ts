import { expect } from "chai";
import fc from "fast-check";
import {
  assertAmount,
  decimalString,
  formatAmount,
  MAX_AMOUNT,
  MAX_TOTAL,
  parseAmount,
  unitScale,
} from "@bursar/protocol";
import vectors from "../vectors/wire.json" with { type: "json" };
import { refusal } from "./reference.ts";

describe("an amount as people write it", () => {
  for (const { text, units } of vectors.amounts.accepted) {
    it(`"${text}" is ${units} units`, () => {
      expect(parseAmount(text)).to.equal(BigInt(units));
      expect(formatAmount(BigInt(units))).to.equal(text);
    });
  }
  for (const text of vectors.amounts.refused) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      expect(refusal("malformed-input", () => parseAmount(text)).details["value"]).to.equal(text);
    });
  }

  it("survives writing and reading", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: MAX_TOTAL }), (units) => parseAmount(formatAmount(units)) === units),
    );
  });

  it("reads trailing zeros and writes none", () => {
    expect(parseAmount("0.002500")).to.equal(2500n);
    expect(formatAmount(parseAmount("3.000000"))).to.equal("3");
    expect(formatAmount(0n)).to.equal("0");
  });

  it("writes a negative difference with its sign", () => expect(formatAmount(-2500n)).to.equal("-0.0025"));
});

describe("unitScale", () => {
  for (const { decimals, scale } of vectors.unitScales) {
    it(`is ${scale} for ${decimals} decimals`, () => expect(unitScale(decimals)).to.equal(BigInt(scale)));
  }

  it("refuses what no token has", () => {
    for (const decimals of [-1, 25, 1.5, NaN]) refusal("malformed-input", () => unitScale(decimals));
  });
});

describe("decimalString", () => {
  for (const text of vectors.numbers.accepted) {
    it(`reads "${text}"`, () => expect(decimalString(text).toString()).to.equal(text));
  }
  for (const value of vectors.numbers.refused) {
    it(`refuses ${JSON.stringify(value)}`, () => refusal("malformed-input", () => decimalString(value, MAX_TOTAL)));
  }

  it("names the value and the limit", () => {
    expect(refusal("malformed-input", () => decimalString("11", 10n)).details).to.deep.equal({
      value: "11",
      limit: "10",
    });
    expect(decimalString("10", 10n)).to.equal(10n);
  });

  it("reads every number in exactly one form", () => {
    const number = fc.bigInt({ min: 0n, max: MAX_TOTAL });
    fc.assert(
      fc.property(number, fc.string({ minLength: 1, maxLength: 2 }), (value, noise) => {
        expect(decimalString(value.toString())).to.equal(value);
        const other = noise + value.toString();
        if (!/^[1-9][0-9]*$/.test(noise)) refusal("malformed-input", () => decimalString(other));
      }),
    );
  });
});

describe("assertAmount", () => {
  it("accepts one unit and 2^40 − 1", () => {
    assertAmount(1n);
    assertAmount(MAX_AMOUNT);
    expect(MAX_AMOUNT).to.equal(1_099_511_627_775n);
  });

  it("refuses zero, negative and 2^40 with the limit", () => {
    expect(refusal("amount-zero", () => assertAmount(0n)).details).to.deep.equal({ value: "0", limit: "1" });
    refusal("amount-zero", () => assertAmount(-1n));
    expect(refusal("amount-too-large", () => assertAmount(2n ** 40n)).details).to.deep.equal({
      value: "1099511627776",
      limit: "1099511627775",
    });
  });
});
