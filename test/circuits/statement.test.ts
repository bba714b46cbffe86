import { allowList, BursarError, pageHash, lineToField, policyRoot, type Address } from "@bursar/protocol";
import { capacity, circuitSize, circuitSizes, layOut, segmentsOf, segmentSlots, type BatchRow } from "@bursar/prover";
import { expect } from "chai";
import fc from "fast-check";

const SIZE = circuitSize("tiny");
const AGENT: Address = "0x00000000000000000000000000000000000000A1";
const payeeOf = (n: number): Address => `0x${n.toString(16).padStart(40, "0")}`;

function rowOf(change: Partial<BatchRow> & { amounts?: readonly bigint[] } = {}): BatchRow {
  const { amounts = [5n, 6n], ...rest } = change;
  const lines = amounts.map((amount, i) => ({ payee: payeeOf(0x51 + (i % 3)), amount }));
  return {
    agent: AGENT,
    base: 9n,
    seq: 0n,
    allow: allowList([]),
    paymentCap: 1_000n,
    salts: Array.from({ length: Math.ceil(lines.length / 7) }, (_, page) => BigInt(page + 1)),
    lines,
    ...rest,
  };
}

function refusal(rows: readonly BatchRow[]): BursarError {
  try {
    layOut(SIZE, rows);
  } catch (error) {
    expect(error).to.be.instanceOf(BursarError);
    return error as BursarError;
  }
  throw new Error("the batch was laid out");
}

describe("The layout of a batch", () => {
  describe("refuses, with the value and the limit,", () => {
    const cases: [string, BatchRow[], string, object][] = [
      ["no rows", [], "batch-does-not-fit", { value: "0", limit: "2" }],
      ["more rows than segments", [rowOf(), rowOf(), rowOf()], "batch-does-not-fit", { value: "3", limit: "2" }],
      [
        "a row of more lines than all segments hold",
        [rowOf({ amounts: Array<bigint>(capacity(SIZE) + 1).fill(1n) })],
        "batch-does-not-fit",
        { value: "3", limit: "2" },
      ],
      ["a row without a new payment", [rowOf({ seq: 2n })], "batch-does-not-fit", { value: "0", limit: "1" }],
      ["a page without its salt", [rowOf({ salts: [] })], "malformed-input", { value: "0", limit: "1" }],
      ["a salt without its page", [rowOf({ salts: [1n, 2n] })], "malformed-input", { value: "2", limit: "1" }],
      ["an amount of 0", [rowOf({ amounts: [1n, 0n] })], "amount-zero", {}],
      ["an amount of 2^40", [rowOf({ amounts: [2n ** 40n] })], "amount-too-large", {}],
      [
        "an amount above the cap",
        [rowOf({ amounts: [1_001n] })],
        "above-payment-cap",
        { value: "1001", limit: "1000" },
      ],
      [
        "a payee off the list",
        [rowOf({ allow: allowList([payeeOf(0x51)]) })],
        "payee-not-allowed",
        { value: payeeOf(0x52) },
      ],
    ];
    for (const [name, rows, code, details] of cases) {
      it(name, () => {
        const error = refusal(rows);
        expect(error.code).to.equal(code);
        expect(error.details).to.include(details);
      });
    }
  });

  it("takes as many segments as a row's line slots need, and the circuits are as large as they say", () => {
    expect([1, 14, 15, 28, 29].map((slots) => segmentsOf(SIZE, slots))).to.deep.equal([1, 1, 2, 2, 3]);
    expect(segmentSlots(SIZE)).to.equal(14);
    expect(circuitSizes().map((size) => [size.name, capacity(size)])).to.deep.equal([
      ["tiny", 28],
      ["default", 175],
      ["large", 700],
      ["huge", 2_800],
    ]);
  });

  it("credits each payee once, in the order of addresses, however its address is written", () => {
    const lower: Address = "0x00000000000000000000000000000000000000ab";
    const upper: Address = "0x00000000000000000000000000000000000000AB";
    const lines = [
      { payee: lower, amount: 3n },
      { payee: payeeOf(1), amount: 4n },
      { payee: upper, amount: 5n },
    ];
    const { credits } = layOut(SIZE, [rowOf({ lines })]);
    expect(credits.map(({ payee, amount }) => [BigInt(payee), amount])).to.deep.equal([
      [1n, 4n],
      [0xabn, 8n],
    ]);
  });

  it("claims one row for a mandate over two segments, from its stored base to its last page", () => {
    const row = rowOf({ amounts: Array.from({ length: 16 }, (_, i) => BigInt(i + 1)), seq: 10n });
    const { rows, input } = layOut(SIZE, [row]);
    const hashed = [0, 1].reduce(
      (prev, page) => pageHash(prev, row.lines.slice(7 * page, 7 * page + 7).map(lineToField), row.salts[page]!),
      row.base,
    );
    expect(rows).to.deep.equal([
      {
        agent: AGENT,
        seq: 10n,
        base: 9n,
        head: pageHash(hashed, row.lines.slice(14).map(lineToField), row.salts[2]!),
        newBase: hashed,
        policyRoot: policyRoot([], row.paymentCap),
        debit: 136n - 6n,
        count: 13n,
        offset: 3n,
      },
    ]);
    expect(input.continues).to.deep.equal([1n, 0n]);
  });

  it("credits what it debits and counts what it settles, whatever the rows", () => {
    const anyRow = fc
      .record({
        amounts: fc.array(fc.bigInt({ min: 1n, max: 1_000n }), { minLength: 1, maxLength: 14 }),
        seq: fc.bigInt({ min: 0n, max: 1_000n }),
      })
      .filter(({ amounts, seq }) => amounts.length > Number(seq % 7n));
    fc.assert(
      fc.property(fc.array(anyRow, { minLength: 1, maxLength: 2 }), (specs) => {
        const { rows, credits } = layOut(SIZE, specs.map(rowOf));
        const sum = (values: readonly bigint[]): bigint => values.reduce((total, value) => total + value, 0n);
        expect(sum(credits.map(({ amount }) => amount))).to.equal(sum(rows.map(({ debit }) => debit)));
        rows.forEach(({ count, offset, newBase, head, base }, i) => {
          const { amounts, seq } = specs[i]!;
          expect(offset).to.equal(seq % 7n);
          expect(count + offset).to.equal(BigInt(amounts.length));
          expect(newBase === head).to.equal(amounts.length % 7 === 0);
          expect(newBase === base).to.equal(amounts.length < 7);
        });
      }),
      { numRuns: 25 },
    );
  });
});
