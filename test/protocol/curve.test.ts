import { expect } from "chai";
import { getBytes, keccak256 } from "ethers";
import fc from "fast-check";

import * as fast from "../../packages/protocol/src/curve-native.ts";
import * as portable from "../../packages/protocol/src/curve.ts";

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
/** Keys below the curve's order. */
const keys = bytes(32).map((key) => key.with(0, key[0]! & 0x7f).with(31, key[31]! | 1));
const digests = bytes(32);

describe("the curve", () => {
  let curves: fast.Curve[];
  before(async () => {
    curves = [await fast.native(), await fast.wasm()];
  });

  it("signs alike in every implementation, deterministically and with s in the lower half", () => {
    fc.assert(
      fc.property(digests, keys, (digest, key) => {
        const signature = portable.signDigest(digest, key);
        expect(fast.signDigest(digest, key)).to.deep.equal(signature);
        for (const curve of curves) {
          const { rs, recovery } = curve.sign(digest, key);
          expect([...rs, 27 + recovery]).to.deep.equal([...signature]);
        }
        expect(signature[32]! & 0x80).to.equal(0);
      }),
      { numRuns: 200 },
    );
  });

  it("recovers alike in every implementation, from good signatures, altered ones and noise", () => {
    const altered = fc.tuple(fc.nat({ max: 63 }), fc.nat({ max: 255 }));
    fc.assert(
      fc.property(digests, keys, fc.option(altered), fc.option(bytes(64)), (digest, key, change, noise) => {
        const signature = portable.signDigest(digest, key);
        const raw = noise ?? (change ? signature.slice(0, 64).with(change[0], change[1]) : signature.slice(0, 64));
        // An s in the upper half never comes this far.
        const rs = raw.with(32, raw[32]! & 0x7f);
        for (const recovery of [0, 1] as const) {
          const expected = portable.recoverPublicKey(digest, rs, recovery);
          for (const { recover } of curves) {
            const found = recover(digest, rs, recovery);
            expect(found && [...found]).to.deep.equal(expected && [...expected]);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it("finds no key behind zeros and values above the order", () => {
    for (const rs of [new Uint8Array(64), new Uint8Array(64).fill(255)]) {
      const digest = new Uint8Array(32).fill(7);
      expect(portable.recoverPublicKey(digest, rs, 0)).to.equal(null);
      for (const { recover } of curves) expect(recover(digest, rs, 0)).to.equal(null);
    }
  });

  it("hashes as Keccak-256 does, whatever was hashed before", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (message) => {
        expect(fast.keccak(message)).to.deep.equal(getBytes(keccak256(message)));
        expect(portable.keccak(message)).to.deep.equal(getBytes(keccak256(message)));
      }),
    );
  });
});
