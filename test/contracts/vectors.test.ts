import { readFileSync } from "node:fs";

import { challenge, FIELD, toField, type Hex } from "@bursar/protocol";
import { expect } from "chai";
import { keccak256 } from "ethers";
import fc from "fast-check";

import { EncodingProbe__factory, type EncodingProbe } from "../../typechain-types/index.ts";
import { deployer } from "./fixture.ts";

type Json = Record<string, never> & { [key: string]: Json } & Json[] & string;
const vectors = (name: string): Json =>
  JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf8")) as Json;

describe("Solidity reads the shared vectors", () => {
  let probe: EncodingProbe;
  before(async () => {
    probe = await new EncodingProbe__factory(deployer).deploy();
  });

  const typed = vectors("typed-data");
  const digestOf = (structHash: string): string =>
    keccak256(`0x1901${String(typed["domainSeparator"]).slice(2)}${structHash.slice(2)}`);

  it("mandates: digest and payees hash", async () => {
    for (const { mandate, digest, payeesHash } of typed["mandates"] as unknown as {
      mandate: Json;
      digest: Hex;
      payeesHash: Hex;
    }[]) {
      expect(digestOf(await probe.hashMandate(mandate as never))).to.equal(digest);
      expect(await probe.hashPayees(mandate["payees"] as never)).to.equal(payeesHash);
    }
  });
  it("payments and lines", async () => {
    const payments = typed["payments"] as unknown as {
      payment: { seq: string; spent: string; head: string; line: Json };
      lineHash: Hex;
      digest: Hex;
    }[];
    expect(payments.length).to.be.greaterThan(0);
    for (const { payment, lineHash, digest } of payments) {
      const hash = await probe.hashLine(payment.line as never);
      expect(hash).to.equal(lineHash);
      expect(digestOf(await probe.hashPayment(payment.seq, payment.spent, payment.head, hash))).to.equal(digest);
    }
  });
  it("receipts, revocations and closes", async () => {
    for (const { receipt, digest } of typed["receipts"] as unknown as { receipt: Json; digest: Hex }[]) {
      expect(digestOf(await probe.hashReceipt(receipt as never))).to.equal(digest);
    }
    for (const { revocation, digest } of typed["revocations"] as unknown as {
      revocation: { agent: string; afterSeq: string };
      digest: Hex;
    }[]) {
      expect(digestOf(await probe.hashRevocation(revocation.agent, revocation.afterSeq))).to.equal(digest);
    }
    for (const { close, digest } of typed["closes"] as unknown as {
      close: { agent: string; seq: string };
      digest: Hex;
    }[]) {
      expect(digestOf(await probe.hashClose(close.agent, close.seq))).to.equal(digest);
    }
  });
  it("the genesis of each ledger", async () => {
    const { domain, genesis } = vectors("ledger") as unknown as {
      domain: { registry: string };
      genesis: { agent: string; genesis: string }[];
    };
    for (const { agent, genesis: head } of genesis)
      expect(await probe.genesis(domain.registry, agent)).to.equal(BigInt(head));
  });
  it("signatures: takes what the vectors take, and refuses what they refuse", async () => {
    const { accepted, refused } = vectors("signatures") as unknown as Record<
      "accepted" | "refused",
      { digest: string; signature: string; signer: string; name: string }[]
    >;
    for (const { digest, signature, signer } of accepted) await probe.requireSigner(signer, digest, signature);
    expect(refused.length).to.be.greaterThan(4);
    const { digest: first, signer } = vectors("signatures") as unknown as { digest: string; signer: string };
    for (const { digest = first, signature, name } of refused) {
      await expect(probe.requireSigner(signer, digest, signature), name).to.be.revertedWithCustomError(
        probe,
        "WrongSigner",
      );
    }
  });
  it("batches: packed rows, E, Num and Den, and T", async () => {
    interface VectorBatch {
      rows: { agent: string; seq: string; debit: string; count: string; packed: string; values: string[] }[];
      credits: { payee: string; amount: string }[];
      transcript: Hex;
      z: string;
      E: string;
      num: string;
      den: string;
      T: string;
    }
    for (const { rows, credits, z, E, num, den, T, transcript } of (
      vectors("batch") as unknown as { batches: VectorBatch[] }
    ).batches) {
      for (const { debit, count, seq, packed } of rows)
        expect(await probe.packRow(debit, count, seq)).to.equal(BigInt(packed));
      const rowWords = rows.flatMap(({ agent, seq, values }) => [agent, seq, ...values]);
      const creditWords = credits.flatMap(({ payee, amount }) => [payee, amount]);
      expect(challenge(transcript)).to.equal(BigInt(z));
      expect(await probe.evaluateRows(rowWords, z)).to.equal(BigInt(E));
      expect([...(await probe.sumCredits(creditWords, z))]).to.deep.equal([BigInt(num), BigInt(den)]);
      expect(await probe.agrees(T, E, num, den)).to.equal(true);
      expect(await probe.agrees(toField(BigInt(T) + 1n), E, num, den)).to.equal(false);
    }
  });
  it("property: E, Num and Den are those of the specification for any rows and credits", async () => {
    const element = fc.bigInt({ min: 0n, max: FIELD - 1n });
    const word = fc.bigInt({ min: 0n, max: 2n ** 160n - 1n });
    await fc.assert(
      fc.asyncProperty(
        element,
        fc.array(fc.array(element, { minLength: 7, maxLength: 7 }), { maxLength: 5 }),
        fc.array(fc.tuple(word, word), { maxLength: 6 }),
        async (z, rows, credits) => {
          const expectedE = rows.flatMap((row) => row.slice(2)).reduce((e, value) => toField(e * z + value), 1n);
          const [num, den] = credits.reduce<[bigint, bigint]>(
            ([n, d], [payee, amount]) => [toField(n * (z + payee) + amount * d), toField(d * (z + payee))],
            [0n, 1n],
          );
          expect(await probe.evaluateRows(rows.flat(), z)).to.equal(expectedE);
          expect([...(await probe.sumCredits(credits.flat(), z))]).to.deep.equal([num, den]);
        },
      ),
      { numRuns: 200 },
    );
  });
  it("a zero denominator agrees with nothing", async () => {
    const [num, den] = await probe.sumCredits([5n, 7n], FIELD - 5n);
    expect(den).to.equal(0n);
    expect(await probe.agrees(1n, 1n, num, den)).to.equal(false);
    expect(await probe.agrees(1n, 1n, 0n, 0n)).to.equal(false);
  });
});
