import { expect } from "chai";
import { keccak256, solidityPacked } from "ethers";
import {
  allowList,
  allowsPayee,
  assertPolicyAgrees,
  headHex,
  payeesHash,
  policyRoot,
  type Address,
  type ErrorCode,
} from "@bursar/protocol";
import vectors from "../vectors/policy.json" with { type: "json" };
import { addressOf, circomPoseidon, refusal, word } from "./reference.ts";

describe("the policy", () => {
  for (const { name, payees, paymentCap, allow, policyRoot: root, payeesHash: hash } of vectors.policies) {
    it(`is as specified: ${name}`, () => {
      const list = payees as Address[];
      const padded = Array.from({ length: 8 }, (_, index) => BigInt(payees[index] ?? payees[0] ?? 0));
      expect(allow.map(BigInt)).to.deep.equal(padded);
      expect(allowList(list)).to.deep.equal(padded);
      expect(headHex(circomPoseidon([...padded, BigInt(paymentCap)]))).to.equal(root);
      expect(headHex(policyRoot(list, BigInt(paymentCap)))).to.equal(root);
      expect(payeesHash(list)).to.equal(hash);
      expect(keccak256(solidityPacked(["address[]"], [payees]))).to.equal(hash);
    });
  }

  for (const { name, payees, paymentCap, code } of vectors.refused) {
    it(`is refused: ${name}`, () => {
      refusal(code as ErrorCode, () => policyRoot(payees as Address[], BigInt(paymentCap)));
    });
  }

  it("agrees only with the list and the cap that it was made from", () => {
    const payees = [addressOf("one"), addressOf("two")];
    const mandate = { payees, paymentCap: 100n, policyRoot: headHex(policyRoot(payees, 100n)) };
    assertPolicyAgrees(mandate);
    assertPolicyAgrees({ ...mandate, payees: payees.map((payee) => payee.toLowerCase() as Address) });
    const wrong = [
      { ...mandate, paymentCap: 101n },
      { ...mandate, payees: payees.toReversed() },
      { ...mandate, payees: [] },
      { ...mandate, payees: [...payees, addressOf("three")] },
      { ...mandate, policyRoot: word("root") },
    ];
    for (const other of wrong) refusal("policy-mismatch", () => assertPolicyAgrees(other));
  });

  it("lets anyone be paid with an empty list and only the named with another", () => {
    const payee = addressOf("one");
    expect(allowsPayee([], payee)).to.equal(true);
    expect(allowsPayee([addressOf("two"), payee.toUpperCase().replace("0X", "0x") as Address], payee)).to.equal(true);
    expect(allowsPayee([addressOf("two")], payee)).to.equal(false);
  });
});
