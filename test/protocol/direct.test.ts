import {
  debitDomain,
  debitPayment,
  debitReceiptDigest,
  DEBIT_TYPES,
  decodeDebitHeader,
  directDomainName,
  encodeDebitHeader,
  hashDebit,
  hashTransfer,
  parseWire,
  recoverStrict,
  signDebit,
  signedDebitSchema,
  signedTransferSchema,
  signTransfer,
  toWire,
  transferDomain,
  transferPayment,
  TRANSFER_TYPES,
  unitsOf,
  verifyDebitMandate,
  verifyDebitReceipt,
  type Address,
  type Debit,
  type DebitExpectation,
  type DebitReceipt,
  type DirectDomain,
  type Hex,
  type TransferAuthorization,
} from "@bursar/protocol";
import { expect } from "chai";
import { getBytes, keccak256, solidityPacked, TypedDataEncoder, verifyMessage, Wallet } from "ethers";
import { addressOf, refusal, word } from "./reference.ts";

const agent = new Wallet(word("agent"));
const processor = new Wallet(word("processor"));
const token = addressOf("token");
const payee = addressOf("payee");
const domain: DirectDomain = { chainId: 31_337n, direct: addressOf("direct") };
const now = 1_800_000_000n;
const BIG = 2n ** 256n - 1n;

const transfer: TransferAuthorization = {
  from: agent.address as Address,
  to: payee,
  value: 2_500n,
  validAfter: 0n,
  validBefore: now + 60n,
  nonce: word("nonce"),
};
const debit: Debit = {
  owner: agent.address as Address,
  token,
  payee,
  amount: 2_500n,
  nonce: 777n,
  deadline: now + 600n,
  ref: word("call"),
};

/** What the public AEP2 client sends: every number a string, but the deadline. */
function wireDebit(changes: Record<string, unknown> = {}): { mandate: Record<string, unknown>; payerSig: string } {
  return {
    mandate: { ...toWire(debit), deadline: Number(debit.deadline), ...changes },
    payerSig: `0x${"11".repeat(64)}1b`,
  };
}

describe("direct payments", () => {
  describe("hashing", () => {
    it("digests transfers as EIP-712 says, at the edges too", () => {
      for (const changes of [{}, { value: BIG, validAfter: BIG, validBefore: BIG }, { value: 0n, validBefore: 0n }]) {
        const message = { ...transfer, ...changes };
        expect(hashTransfer(domain, token, message)).to.equal(
          TypedDataEncoder.hash(transferDomain(domain, token), TRANSFER_TYPES, message),
        );
      }
    });

    it("digests debits as EIP-712 says, at the edges too", () => {
      for (const changes of [{}, { amount: BIG, nonce: BIG, deadline: BIG }, { nonce: 0n }]) {
        const message = { ...debit, ...changes };
        expect(hashDebit(domain, message)).to.equal(TypedDataEncoder.hash(debitDomain(domain), DEBIT_TYPES, message));
      }
    });

    it("refuses what is no uint256", () => {
      expect(() => hashTransfer(domain, token, { ...transfer, value: BIG + 1n })).to.throw(RangeError);
      expect(() => hashDebit(domain, { ...debit, nonce: -1n })).to.throw(RangeError);
    });

    it("binds chain, contract and token", () => {
      const digests = [
        hashTransfer(domain, token, transfer),
        hashTransfer({ ...domain, chainId: 1n }, token, transfer),
        hashTransfer({ ...domain, direct: addressOf("other") }, token, transfer),
        hashTransfer(domain, addressOf("other"), transfer),
      ];
      expect(new Set(digests).size).to.equal(4);
    });

    it("names the domain by the token's EIP-55 address, in whatever case it comes", () => {
      expect(directDomainName(token)).to.equal(`Bursar ${token}`);
      expect(directDomainName(token.toLowerCase() as Address)).to.equal(`Bursar ${token}`);
    });

    it("signs what it hashes", async () => {
      const signed = await signTransfer(agent, domain, token, transfer);
      expect(recoverStrict(hashTransfer(domain, token, transfer), signed)).to.equal(agent.address);
      expect(recoverStrict(hashDebit(domain, debit), await signDebit(agent, domain, debit))).to.equal(agent.address);
    });
  });

  describe("amounts", () => {
    it("turns base units into units", () => {
      expect(unitsOf(2_500n, 1n)).to.equal(2_500n);
      expect(unitsOf(3n * 10n ** 12n, 10n ** 12n)).to.equal(3n);
    });

    it("refuses a fraction of a unit, nothing, and too much", () => {
      expect(refusal("fractional-units", () => unitsOf(10n ** 12n + 1n, 10n ** 12n)).details).to.deep.equal({
        value: (10n ** 12n + 1n).toString(),
        limit: (10n ** 12n).toString(),
      });
      refusal("amount-zero", () => unitsOf(0n, 1n));
      refusal("amount-too-large", () => unitsOf(2n ** 40n, 1n));
    });
  });

  describe("as the processor takes them", () => {
    const signature: Hex = `0x${"11".repeat(64)}1b`;

    it("takes a transfer: exclusive times, no reference", () => {
      expect(transferPayment(domain, { token, unitScale: 5n }, { authorization: transfer, signature })).to.deep.equal({
        kind: "exact",
        agent: agent.address,
        token,
        payee,
        amount: 500n,
        nonce: word("nonce"),
        validAfter: 0n,
        validBefore: now + 60n,
        ref: `0x${"00".repeat(32)}`,
        digest: hashTransfer(domain, token, transfer),
        signature,
      });
    });

    it("takes a debit: the deadline itself still counts", () => {
      expect(debitPayment(domain, 1n, { mandate: debit, payerSig: signature })).to.deep.equal({
        kind: "aep2",
        agent: agent.address,
        token,
        payee,
        amount: 2_500n,
        nonce: `0x${"0".repeat(61)}309`,
        validAfter: 0n,
        validBefore: now + 601n,
        ref: word("call"),
        digest: hashDebit(domain, debit),
        signature,
      });
    });
  });

  describe("on the wire", () => {
    it("reads what the stock clients send", () => {
      expect(parseWire(signedDebitSchema, wireDebit()).mandate).to.deep.equal(debit);
      const wire = { signature: `0x${"11".repeat(64)}1b`, authorization: toWire(transfer) };
      expect(parseWire(signedTransferSchema, wire).authorization).to.deep.equal(transfer);
    });

    it("K5: reads one form of a nonce, and refuses the others", () => {
      for (const nonce of [
        777,
        "0x309",
        "0x0309",
        "0777",
        " 777",
        "777 ",
        "7.77e2",
        "777.0",
        "+777",
        "-777",
        "",
        "７７７",
      ]) {
        refusal("malformed-input", () => parseWire(signedDebitSchema, wireDebit({ nonce })));
      }
      expect(parseWire(signedDebitSchema, wireDebit({ nonce: "777" })).mandate.nonce).to.equal(777n);
    });

    it("K4: reads an address in any case into one, and refuses a wrong checksum", () => {
      const digits = payee.slice(2);
      for (const text of [payee, payee.toLowerCase(), `0X${digits.toUpperCase()}`]) {
        expect(parseWire(signedDebitSchema, wireDebit({ payee: text })).mandate.payee).to.equal(payee);
      }
      const wrong = `0x${Array.from(digits, (c) => (c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase())).join("")}`;
      refusal("malformed-input", () => parseWire(signedDebitSchema, wireDebit({ payee: wrong })));
    });

    it("reads a deadline as a number or a decimal string, and in no other form", () => {
      expect(parseWire(signedDebitSchema, wireDebit({ deadline: "1800000600" })).mandate).to.deep.equal(debit);
      for (const deadline of [1.5, -1, 2 ** 53, "0x1", "01", " 1", "1e9", null, true]) {
        refusal("malformed-input", () => parseWire(signedDebitSchema, wireDebit({ deadline })));
      }
    });

    it("refuses amounts and times of a transfer that are not canonical strings, and fields that it does not know", () => {
      const good = { signature: `0x${"11".repeat(64)}1b`, authorization: toWire(transfer) };
      for (const changes of [
        { value: 2500 },
        { value: "0x9c4" },
        { validBefore: 1 },
        { nonce: "777" },
        { more: "1" },
      ]) {
        refusal("malformed-input", () =>
          parseWire(signedTransferSchema, { ...good, authorization: { ...good.authorization, ...changes } }),
        );
      }
    });

    it("carries a debit in its header", async () => {
      const signed = { mandate: debit, payerSig: await signDebit(agent, domain, debit) };
      expect(decodeDebitHeader(encodeDebitHeader(signed))).to.deep.equal(signed);
      const plain = JSON.parse(Buffer.from(encodeDebitHeader(signed), "base64").toString()) as { mandate: object };
      expect(plain.mandate).to.include({ amount: "2500", nonce: "777", deadline: Number(debit.deadline) });
      for (const header of ["", "!", Buffer.from("no json").toString("base64"), "A".repeat(20_000)]) {
        refusal("malformed-input", () => decodeDebitHeader(header));
      }
      expect(() => encodeDebitHeader({ ...signed, mandate: { ...debit, deadline: 2n ** 60n } })).to.throw(RangeError);
    });
  });

  describe("a payee's check", () => {
    const expected: DebitExpectation = { domain, token, payee, amount: 2_500n, now };

    it("passes a debit for this payee, token and price, until its deadline", async () => {
      const signed = { mandate: debit, payerSig: await signDebit(agent, domain, debit) };
      expect(verifyDebitMandate(signed, expected)).to.equal(hashDebit(domain, debit));
      verifyDebitMandate(signed, { ...expected, now: debit.deadline, ref: debit.ref });
    });

    it("refuses every other one", async () => {
      const signed = { mandate: debit, payerSig: await signDebit(agent, domain, debit) };
      const other = addressOf("other");
      refusal("wrong-token", () => verifyDebitMandate(signed, { ...expected, token: other }));
      refusal("payment-mismatch", () => verifyDebitMandate(signed, { ...expected, payee: other }));
      refusal("payment-mismatch", () => verifyDebitMandate(signed, { ...expected, amount: 2_501n }));
      refusal("payment-mismatch", () => verifyDebitMandate(signed, { ...expected, ref: word("other call") }));
      refusal("authorization-expired", () => verifyDebitMandate(signed, { ...expected, now: debit.deadline + 1n }));
      refusal("signature-signer", () =>
        verifyDebitMandate(signed, { ...expected, domain: { ...domain, chainId: 1n } }),
      );
    });

    it("K13: passes the processor's receipt, and no other", async () => {
      const mandateDigest = hashDebit(domain, debit);
      const deadline = now + 3_600n;
      const message = getBytes(keccak256(solidityPacked(["bytes32", "uint256"], [mandateDigest, deadline])));
      const receipt: DebitReceipt = {
        sp: processor.address as Address,
        mandateDigest,
        enqueueDeadline: Number(deadline),
        spEnqueueSig: (await processor.signMessage(message)) as Hex,
      };
      const terms = { processor: processor.address as Address, mandateDigest, now };
      verifyDebitReceipt(receipt, terms);
      expect(recoverStrict(debitReceiptDigest(mandateDigest, deadline), receipt.spEnqueueSig)).to.equal(
        verifyMessage(message, receipt.spEnqueueSig),
      );
      refusal("receipt-mismatch", () => verifyDebitReceipt(receipt, { ...terms, mandateDigest: word("other") }));
      refusal("receipt-invalid", () => verifyDebitReceipt(receipt, { ...terms, processor: payee }));
      refusal("receipt-expired", () => verifyDebitReceipt(receipt, { ...terms, now: deadline }));
      refusal("receipt-too-long", () => verifyDebitReceipt(receipt, { ...terms, maxSettleIn: 3_599n }));
      refusal("receipt-invalid", () =>
        verifyDebitReceipt({ ...receipt, enqueueDeadline: Number(deadline) + 1 }, terms),
      );
      const forged = { ...receipt, spEnqueueSig: (await agent.signMessage(message)) as Hex };
      expect(refusal("receipt-invalid", () => verifyDebitReceipt(forged, terms)).details["reason"]).to.equal(
        "signature-signer",
      );
    });
  });
});
