import { expect } from "chai";
import { concat, keccak256, toBeHex } from "ethers";
import fc from "fast-check";
import {
  challenge,
  commit,
  evaluate,
  evaluateRows,
  lineToField,
  packAmounts,
  packRow,
  pageHash,
  policyRoot,
  rationalSum,
  rowValues,
  transcript,
  type Address,
  type Credit,
  type Hex,
  type Row,
} from "@bursar/protocol";
import vectors from "../vectors/batch.json" with { type: "json" };
import { addressOf, circomPoseidon, keccakOf, R, refusal, word } from "./reference.ts";

type Vector = (typeof vectors.batches)[number];
const statement = {
  chainId: BigInt(vectors.chainId),
  settlement: vectors.settlement as Address,
  circuitId: vectors.circuitId as Hex,
};
const SLOTS = 7 * vectors.circuit.pages;

const mod = (value: bigint) => ((value % R) + R) % R;
const total = (values: readonly bigint[]) => values.reduce((sum, value) => sum + value, 0n);

/** base^exponent in the field; with exponent r − 2 the inverse. */
function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let square = mod(base), rest = exponent; rest > 0n; rest >>= 1n, square = mod(square * square)) {
    if (rest & 1n) result = mod(result * square);
  }
  return result;
}

function rowsOf({ rows }: Vector): Row[] {
  return rows.map((row) => ({
    agent: row.agent as Address,
    seq: BigInt(row.seq),
    base: BigInt(row.base),
    head: BigInt(row.head),
    newBase: BigInt(row.newBase),
    policyRoot: BigInt(row.policyRoot),
    debit: BigInt(row.debit),
    count: BigInt(row.count),
    offset: BigInt(row.offset),
  }));
}

function creditsOf({ credits }: Vector): Credit[] {
  return credits.map(({ payee, amount }) => ({ payee: payee as Address, amount: BigInt(amount) }));
}

for (const vector of vectors.batches) {
  describe(`the batch of the vectors: ${vector.name}`, () => {
    const rows = rowsOf(vector);
    const credits = creditsOf(vector);
    const z = BigInt(vector.z);

    it("debits what it credits, agents and payees strictly increasing", () => {
      expect(total(rows.map(({ debit }) => debit))).to.equal(total(credits.map(({ amount }) => amount)));
      for (const list of [rows.map(({ agent }) => agent), credits.map(({ payee }) => payee)]) {
        const values = list.map(BigInt);
        expect(values.every((value, index) => index === 0 || values[index - 1]! < value)).to.equal(true);
      }
    });

    it("has rows that follow from their lines", () => {
      vector.inputs.forEach((input, index) => {
        const row = rows[index]!;
        const fields = input.lines.map(({ payee, amount }) =>
          lineToField({ payee: payee as Address, amount: BigInt(amount) }),
        );
        let [prev, base] = [row.base, row.base];
        input.salts.forEach((salt, page) => {
          const lines = fields.slice(7 * page, 7 * page + 7);
          prev = pageHash(prev, lines, BigInt(salt));
          if (lines.length === 7) base = prev;
        });
        const settled = input.lines.slice(Number(row.offset));
        expect(row.head).to.equal(prev);
        expect(row.newBase).to.equal(base);
        expect(row.count).to.equal(BigInt(settled.length));
        expect(row.debit).to.equal(total(settled.map(({ amount }) => BigInt(amount))));
        expect(row.offset).to.equal(row.seq % 7n);
        expect(row.policyRoot).to.equal(policyRoot(input.payees as Address[], BigInt(input.paymentCap)));
        expect(rowValues(row).map(String)).to.deep.equal(vector.rows[index]!.values);
      });
    });

    it("commits to every segment's row values and then to all amounts, six to an element", () => {
      const { segments, stream } = vector;
      expect(segments).to.have.length(vectors.circuit.segments);
      const values = segments.flatMap(({ base, head, newBase, policyRoot: root, packed }) => [
        base,
        head,
        newBase,
        root,
        packed,
      ]);
      expect(stream.slice(0, values.length)).to.deep.equal(values);
      const amounts = segments.flatMap((segment) => segment.amounts).map(BigInt);
      expect(amounts).to.have.length(vectors.circuit.segments * SLOTS);
      const elements = stream.slice(values.length).map(BigInt);
      expect(elements).to.have.length(Math.ceil(amounts.length / 6));
      amounts.forEach((amount, index) => {
        expect((elements[Math.floor(index / 6)]! >> BigInt(40 * (index % 6))) % 2n ** 40n).to.equal(amount);
      });
      const lines = vector.inputs.flatMap((input) => input.lines.map((one) => one.amount));
      expect(amounts.filter((amount) => amount !== 0n).map(String)).to.deep.equal(lines);
    });

    it("has the commitment that circomlib's Poseidon gives", () => {
      const stream = vector.stream.map(BigInt);
      let expected = circomPoseidon(stream.slice(0, 16));
      for (let next = 16; next < stream.length; next += 15)
        expected = circomPoseidon([expected, ...stream.slice(next, next + 15)]);
      expect(expected.toString()).to.equal(vector.commitment);
      expect(commit(stream).toString()).to.equal(vector.commitment);
    });

    it("has the transcript and the challenge of the specification", () => {
      const rowWords = vector.rows.flatMap((row) => [
        row.agent,
        row.seq,
        row.base,
        row.head,
        row.newBase,
        row.policyRoot,
        row.packed,
      ]);
      const creditWords = vector.credits.flatMap(({ payee, amount }) => [payee, amount]);
      const hash = (words: string[]) => keccak256(concat(words.map((value) => toBeHex(BigInt(value), 32))));
      const expected = keccakOf(
        ["bytes32", "uint256", "address", "bytes32", "uint256", "bytes32", "bytes32"],
        [
          word("bursar.batch"),
          vectors.chainId,
          vectors.settlement,
          vectors.circuitId,
          vector.commitment,
          hash(rowWords),
          hash(creditWords),
        ],
      );
      expect(expected).to.equal(vector.transcript);
      const commitment = BigInt(vector.commitment);
      expect(transcript({ ...statement, commitment, rows, credits })).to.equal(vector.transcript);
      expect(challenge(vector.transcript as Hex)).to.equal(z);
      expect(BigInt(vector.transcript) % R).to.equal(z);
    });

    it("has E, Num, Den and T that satisfy the contract's equation", () => {
      const values = vector.rows.flatMap((row) => row.values).map(BigInt);
      const E = mod(total([1n, ...values].map((value, index) => value * power(z, BigInt(values.length - index)))));
      const sum = mod(total(credits.map(({ payee, amount }) => amount * power(z + BigInt(payee), R - 2n))));
      expect(evaluateRows(z, rows)).to.equal(E);
      expect(rationalSum(z, credits)).to.deep.equal({ num: BigInt(vector.num), den: BigInt(vector.den), sum });
      expect(evaluate(z, rows, credits)).to.equal(mod(E + sum));
      expect([E, sum, mod(E + sum)].map(String)).to.deep.equal([vector.E, vector.sum, vector.T]);
      expect(mod((BigInt(vector.T) - E) * BigInt(vector.den))).to.equal(BigInt(vector.num));
    });

    it("has the same sum per payment as per payee", () => {
      const settled = vector.inputs.flatMap((input) => input.lines.slice(Number(BigInt(input.seq) % 7n)));
      const payments = settled.map(({ payee, amount }) => ({ payee: payee as Address, amount: BigInt(amount) }));
      expect(rationalSum(z, payments).sum).to.equal(BigInt(vector.sum));
    });
  });
}

describe("a batch", () => {
  const vector = vectors.batches[0]!;
  const rows = rowsOf(vector);
  const credits = creditsOf(vector);
  const z = BigInt(vector.z);
  const whole = { ...statement, commitment: BigInt(vector.commitment), rows, credits };

  it("changes its transcript with everything that it consists of", () => {
    const [row, ...otherRows] = rows;
    const [credit, ...otherCredits] = credits;
    const changedRow = (change: Partial<Row>) => ({ ...whole, rows: [{ ...row!, ...change }, ...otherRows] });
    const all = [
      whole,
      { ...whole, chainId: 1n },
      { ...whole, settlement: addressOf("other") },
      { ...whole, circuitId: word("other") },
      { ...whole, commitment: 1n },
      { ...whole, rows: otherRows },
      { ...whole, rows: rows.toReversed() },
      { ...whole, credits: otherCredits },
      { ...whole, credits: [{ ...credit!, amount: credit!.amount + 1n }, ...otherCredits] },
      { ...whole, credits: [{ ...credit!, payee: addressOf("other") }, ...otherCredits] },
      changedRow({ agent: addressOf("other") }),
      changedRow({ seq: row!.seq + 7n }),
      changedRow({ base: 1n }),
      changedRow({ head: 1n }),
      changedRow({ newBase: 1n }),
      changedRow({ policyRoot: 1n }),
      changedRow({ debit: row!.debit + 1n }),
      changedRow({ count: row!.count + 1n }),
      changedRow({ offset: row!.offset + 1n }),
    ];
    expect(new Set(all.map(transcript)).size).to.equal(all.length);
  });

  it("binds the number of rows: a row of zeros changes E", () => {
    const zeros: Row = {
      agent: addressOf("zeros"),
      seq: 0n,
      base: 0n,
      head: 0n,
      newBase: 0n,
      policyRoot: 0n,
      debit: 0n,
      count: 0n,
      offset: 0n,
    };
    expect(evaluateRows(z, [])).to.equal(1n);
    expect(evaluateRows(z, [zeros])).to.equal(power(z, 5n));
    expect(evaluateRows(z, [zeros, ...rows])).not.to.equal(evaluateRows(z, rows));
  });

  it("cannot be evaluated where the challenge is the negative of a payee", () => {
    const { details } = refusal("batch-unbalanced", () => rationalSum(R - BigInt(credits[0]!.payee), credits));
    expect(details["value"]).to.equal(String(R - BigInt(credits[0]!.payee)));
  });

  it("sums to zero without credits", () => expect(rationalSum(z, [])).to.deep.equal({ num: 0n, den: 1n, sum: 0n }));

  it("packs debit, count and offset apart", () => {
    const counts = fc.record({
      debit: fc.bigInt({ min: 0n, max: 2n ** 96n - 1n }),
      count: fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }),
      offset: fc.bigInt({ min: 0n, max: 6n }),
    });
    fc.assert(
      fc.property(counts, (row) => {
        const packed = packRow(row);
        expect({ debit: packed % 2n ** 96n, count: (packed >> 96n) % 2n ** 32n, offset: packed >> 128n }).to.deep.equal(
          row,
        );
      }),
    );
  });

  it("refuses to pack what is too wide", () => {
    const row = { debit: 1n, count: 1n, offset: 0n };
    const wrong = [
      { debit: 2n ** 96n },
      { debit: -1n },
      { count: 2n ** 32n },
      { count: -1n },
      { offset: 7n },
      { offset: -1n },
    ];
    for (const change of wrong) expect(() => packRow({ ...row, ...change })).to.throw(RangeError);
    for (const amount of [-1n, 2n ** 40n]) expect(() => packAmounts([amount])).to.throw(RangeError);
  });

  it("commits to a stream of any length as circomlib does, and to nothing not at all", () => {
    for (const length of [1, 15, 16, 17, 31, 32, 46, 47]) {
      const stream = Array.from({ length }, (_, index) => BigInt(index) ** 9n);
      let expected = circomPoseidon(stream.slice(0, 16));
      for (let next = 16; next < length; next += 15)
        expected = circomPoseidon([expected, ...stream.slice(next, next + 15)]);
      expect(commit(stream), String(length)).to.equal(expected);
    }
    expect(() => commit([])).to.throw(RangeError);
  });
});
