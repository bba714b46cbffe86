import { expect } from "chai";
import fc from "fast-check";
import { FIELD, inverse, isField, poseidon, toField } from "@bursar/protocol";
import { circomPoseidon, R } from "./reference.ts";

const element = fc.oneof(fc.bigInt({ min: 0n, max: R - 1n }), fc.constantFrom(0n, 1n, R - 1n));

describe("the field", () => {
  it("has BN254's scalar order", () => expect(FIELD).to.equal(R));

  it("ends below its order", () => {
    expect([-1n, 0n, R - 1n, R].map(isField)).to.deep.equal([false, true, true, false]);
  });

  it("reduces negative values into itself", () => {
    expect([-1n, R, -R - 1n].map(toField)).to.deep.equal([R - 1n, 0n, R - 1n]);
  });

  it("inverts every value but zero", () => {
    fc.assert(
      fc.property(
        element.filter((value) => value !== 0n),
        (value) => (inverse(value) * value) % R === 1n,
      ),
    );
    expect(() => inverse(0n)).to.throw(RangeError);
    expect(() => inverse(R)).to.throw(RangeError);
  });
});

describe("poseidon", () => {
  for (let count = 1; count <= 16; count++) {
    it(`is circomlib's for ${count} inputs`, () => {
      const inputs = fc.array(element, { minLength: count, maxLength: count });
      fc.assert(
        fc.property(inputs, (values) => poseidon(values) === circomPoseidon(values)),
        { numRuns: 10 },
      );
    });
  }

  it("refuses no inputs and 17 inputs", () => {
    expect(() => poseidon([])).to.throw(RangeError, "not 0");
    expect(() => poseidon(Array<bigint>(17).fill(0n))).to.throw(RangeError, "not 17");
  });

  it("refuses a value outside the field instead of reducing it", () => {
    expect(() => poseidon([R])).to.throw(RangeError);
    expect(() => poseidon([1n, -1n])).to.throw(RangeError);
  });

  it("leaves its inputs as they are", () => {
    const inputs = [1n, 2n, 3n];
    poseidon(inputs);
    expect(inputs).to.deep.equal([1n, 2n, 3n]);
  });
});
