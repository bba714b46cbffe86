import { expect } from "chai";
import { computeAddress, concat, Signature, SigningKey, toBeHex, Wallet } from "ethers";
import fc from "fast-check";
import { HALF_ORDER, recoverStrict, verifySignature, type Address, type ErrorCode, type Hex } from "@bursar/protocol";
import vectors from "../vectors/signatures.json" with { type: "json" };
import { refusal, word } from "./reference.ts";

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

describe("a strict signature", () => {
  it("has s in the lower half of the curve order", () => expect(HALF_ORDER).to.equal(ORDER / 2n));

  it("is exercised with both values of v", () => {
    expect(new Set(vectors.accepted.map(({ signature }) => signature.slice(-2)))).to.deep.equal(new Set(["1b", "1c"]));
  });

  for (const { name, digest, signature, signer } of vectors.accepted) {
    it(`is accepted: ${name}`, () => {
      expect(recoverStrict(digest as Hex, signature as Hex)).to.equal(signer);
      verifySignature(digest as Hex, signature as Hex, signer.toLowerCase() as Address);
    });
  }

  for (const { name, signature, code } of vectors.refused) {
    it(`is refused with ${code}: ${name}`, () => {
      refusal(code as ErrorCode, () =>
        verifySignature(vectors.digest as Hex, signature as Hex, vectors.signer as Address),
      );
    });
  }

  it("refuses what is not hexadecimal", () => {
    for (const text of ["", "0x1", `0x${"g".repeat(130)}`, "signature"]) {
      refusal("signature-length", () => recoverStrict(word("digest"), text as Hex));
    }
  });

  it("names the signer that it found and the one expected", () => {
    const { signature, digest, signer } = vectors.accepted[0]!;
    const expected = new Wallet(word("someone else")).address as Address;
    const { details } = refusal("signature-signer", () => verifySignature(digest as Hex, signature as Hex, expected));
    expect(details).to.deep.equal({ value: signer, limit: expected });
  });

  it("is accepted exactly when it is 65 bytes with low s and v 27 or 28, and then recovers ethers' signer", () => {
    const key = fc.bigInt({ min: 1n, max: ORDER - 1n }).map((value) => new SigningKey(toBeHex(value, 32)));
    const digest = fc.bigInt({ min: 0n, max: 2n ** 256n - 1n }).map((value) => toBeHex(value, 32) as Hex);
    const v = fc.oneof(fc.constantFrom(0, 1, 26, 27, 28, 29), fc.nat(255));
    fc.assert(
      fc.property(key, digest, v, fc.boolean(), fc.constantFrom(-1, 0, 1), (signer, hash, vByte, high, extra) => {
        const { r, s } = signer.sign(hash);
        const sWord = toBeHex(high ? ORDER - BigInt(s) : s, 32);
        const bytes = concat([r, sWord, toBeHex(vByte, 1)]);
        const signature = (extra === 0 ? bytes : extra > 0 ? `${bytes}00` : bytes.slice(0, -2)) as Hex;
        if (extra === 0 && !high && (vByte === 27 || vByte === 28)) {
          expect(recoverStrict(hash, signature)).to.equal(
            computeAddress(SigningKey.recoverPublicKey(hash, Signature.from(bytes))),
          );
        } else {
          refusal(extra !== 0 ? "signature-length" : high ? "signature-high-s" : "signature-v", () =>
            recoverStrict(hash, signature),
          );
        }
      }),
    );
  });
});
