import {
  allowList,
  commit,
  evaluate,
  evaluateRows,
  FIELD,
  genesis,
  headHex,
  packAmounts,
  rationalSum,
  toField,
  type Address,
  type Credit,
  type Row,
} from "@bursar/protocol";
import {
  buildCircuit,
  capacity,
  circuitSize,
  layOut,
  type BatchRow,
  type CircuitInput,
  type CircuitSize,
} from "@bursar/prover";
import { expect } from "chai";

import { Forger, type Attempt } from "./forge.ts";

const SIZE: CircuitSize = circuitSize("tiny");
const SLOTS = SIZE.pages * 7;
const Z = 0x1234567890abcdef1234567890abcdef1234567890abcdef1234567890abcdefn % FIELD;
const DOMAIN = { chainId: 31_337n, registry: "0x00000000000000000000000000000000000000C3" } as const;

const address = (n: number): Address => `0x${n.toString(16).padStart(40, "0")}`;
const ADA = address(0xa1);
const BEN = address(0xb1);
const [PAYEE, OTHER, THIRD] = [address(0x51), address(0x52), address(0x53)];

/** A mandate's row: `settled` lines of earlier batches on the current page, then `amounts` to PAYEE and OTHER in turn. */
function rowOf(
  agent: Address,
  amounts: readonly bigint[],
  options: { settled?: number; payees?: readonly Address[]; cap?: bigint } = {},
): BatchRow {
  const { settled = 0, payees = [], cap = 1_000n } = options;
  const lines = [...Array<bigint>(settled).fill(3n), ...amounts].map((amount, i) => ({
    payee: i % 2 === 0 ? PAYEE : OTHER,
    amount,
  }));
  const pages = Math.ceil(lines.length / 7);
  return {
    agent,
    base: genesis(DOMAIN, agent),
    seq: BigInt(settled),
    allow: allowList(payees),
    paymentCap: cap,
    salts: Array.from({ length: pages }, (_, page) => BigInt(1_000 + page)),
    lines,
  };
}

/** A copy that may be spoiled. */
function spoil(
  rows: readonly BatchRow[],
  change: (input: CircuitInput) => void = () => undefined,
): CircuitInput & { z: bigint } {
  const { input } = layOut(SIZE, rows);
  const copy = structuredClone(input);
  change(copy);
  return { ...copy, z: Z };
}

/** The contract's check 7, for the rows and credits that it is given. */
function contractAgrees(T: bigint, rows: readonly Row[], credits: readonly Credit[]): boolean {
  const { num, den } = rationalSum(Z, credits);
  return den !== 0n && toField(toField(T - evaluateRows(Z, rows)) * den) === num;
}

describe("Batch(S, G)", function () {
  this.timeout(300_000);
  let forger: Forger;

  before(async () => {
    forger = await Forger.create(SIZE.segments, SIZE.pages);
  });
  after(() => {
    forger.close();
  });

  const attempt = (
    rows: readonly BatchRow[],
    change?: (input: CircuitInput) => void,
    forged?: Record<string, bigint>,
  ): Promise<Attempt> => forger.attempt(spoil(rows, change), forged);

  async function expectRejected(
    rows: readonly BatchRow[],
    change?: (input: CircuitInput) => void,
    forged?: Record<string, bigint>,
  ): Promise<void> {
    const { accepted } = await attempt(rows, change, forged);
    expect(accepted, "the forged witness").to.equal(false);
  }

  /** The rule in question, and no other, stands against it. */
  async function expectOneViolated(rows: readonly BatchRow[], change: (input: CircuitInput) => void): Promise<void> {
    expect((await attempt(rows, change)).violated, "constraints violated").to.equal(1);
  }

  async function expectHonest(rows: readonly BatchRow[]): Promise<void> {
    const { rows: claims, credits, commitment } = layOut(SIZE, rows);
    const { accepted, violated, T, C } = await attempt(rows);
    expect(accepted, `${violated} constraints violated`).to.equal(true);
    expect(C).to.equal(commitment);
    expect(T).to.equal(evaluate(Z, claims, credits));
    expect(contractAgrees(T, claims, credits)).to.equal(true);
  }

  const two = (): BatchRow[] => [
    rowOf(ADA, [5n, 6n, 7n]),
    rowOf(BEN, [8n, 9n], { settled: 3, payees: [PAYEE, OTHER] }),
  ];
  const long = (): BatchRow[] => [
    rowOf(
      ADA,
      Array.from({ length: 20 }, (_, i) => BigInt(i + 1)),
    ),
  ];

  describe("size", () => {
    it("has 5,819 constraints for 28 payments and 31,466 for 175: at most 230 a payment at 2^13, 190 at 2^15", async () => {
      expect(forger.constraints).to.equal(5_819);
      for (const [name, constraints, most] of [
        ["tiny", 5_819, 230],
        ["default", 31_466, 190],
      ] as const) {
        const size = circuitSize(name);
        const built = await buildCircuit(size);
        expect(built.constraints).to.equal(constraints);
        expect(built.constraints / capacity(size)).to.be.at.most(most);
        expect(built.constraints + 4).to.be.at.most(2 ** size.power);
      }
    });
  });

  describe("accepts", () => {
    it("two rows, one with lines settled before and a payee list", () => expectHonest(two()));
    it("one row over two segments", () => expectHonest(long()));
    it("one row and an idle segment", () => expectHonest([rowOf(ADA, [1n])]));
    it("every line slot used", () => expectHonest([rowOf(ADA, Array<bigint>(2 * SLOTS).fill(1_000n))]));
    it("a full page, which moves the next base", () => expectHonest([rowOf(ADA, Array<bigint>(7).fill(1n))]));
    it("a page that an earlier batch left with six lines", () => expectHonest([rowOf(ADA, [1n], { settled: 6 })]));
    it("the largest amount and cap, 2^40 − 1", () =>
      expectHonest([rowOf(ADA, [2n ** 40n - 1n], { cap: 2n ** 40n - 1n })]));
    it("an amount of 1 under a cap of 1", () => expectHonest([rowOf(ADA, [1n], { cap: 1n })]));
    it("eight payees", () =>
      expectHonest([rowOf(ADA, [1n, 2n], { payees: Array.from({ length: 8 }, (_, i) => address(0x51 + i)) })]));
    it("an idle segment before a row", async () => {
      const { input } = layOut(SIZE, [rowOf(ADA, [1n, 2n])]);
      const swapped = Object.fromEntries(
        Object.entries(input).map(([name, values]) => [name, [...(values as unknown[])].reverse()]),
      ) as unknown as CircuitInput;
      const { accepted, T } = await forger.attempt({ ...swapped, z: Z });
      const { rows, credits } = layOut(SIZE, [rowOf(ADA, [1n, 2n])]);
      expect(accepted).to.equal(true);
      expect(T).to.equal(evaluate(Z, rows, credits));
    });
  });

  describe("determines", () => {
    for (const [name, rows, open] of [
      ["a payee list beside an open one", two, ["policy[0].open.inv"]],
      ["a row over two segments", long, ["policy[0].open.inv", "policy[1].open.inv"]],
    ] as const) {
      it(`every signal by the inputs, but the inverse of 0 by which a list is open: ${name}`, async () => {
        expect((await attempt(rows())).undetermined()).to.deep.equal(open);
      });
    }
    it("every signal, and C, of a stream that takes more than one hash", async () => {
      const size = { ...SIZE, segments: 3, pages: 1 };
      const rows = [rowOf(ADA, [5n, 6n], { payees: [PAYEE, OTHER] }), rowOf(BEN, Array<bigint>(9).fill(7n))];
      const { input, commitment, rows: claims, credits } = layOut(size, rows);
      const small = await Forger.create(size.segments, size.pages);
      try {
        const { accepted, undetermined, C, T } = await small.attempt({ ...input, z: Z });
        expect(accepted).to.equal(true);
        expect(undetermined()).to.deep.equal(["policy[1].open.inv", "policy[2].open.inv"]);
        expect(C).to.equal(commitment);
        expect(T).to.equal(evaluate(Z, claims, credits));
      } finally {
        small.close();
      }
    });
  });

  describe("clause 1: flags and continuation", () => {
    it("rejects a used-line flag that is not boolean", () => expectRejected(two(), ({ last }) => (last[0]![2] = 2n)));
    it("rejects two last lines", () => expectRejected(two(), ({ last }) => (last[0]![1] = 1n)));
    it("rejects a skip flag that is not boolean", () => expectRejected(two(), ({ skip }) => (skip[1]![2] = 2n)));
    it("rejects two skip flags", () => expectRejected(two(), ({ skip }) => (skip[1]![0] = 1n)));
    it("rejects flags that cancel: −1 and 1", () =>
      expectRejected(two(), ({ last }) => void ((last[0]![0] = FIELD - 1n), (last[0]![5] = 1n))));
    it("rejects skipping lines that are not used", () =>
      expectOneViolated([rowOf(ADA, [4n])], ({ skip }) => (skip[0]![3] = 1n)));
    it("rejects an unused line that counts as −1", async () => {
      const { violated } = await attempt([rowOf(ADA, [5n, 6n, 7n])], ({ last }) => {
        [last[0]![2], last[0]![4]] = [2n, FIELD - 1n];
      });
      expect(violated, "both flags, and nothing else").to.equal(2);
    });
    it("rejects a line that is used twice, settled once and skipped once", () =>
      expectOneViolated([rowOf(ADA, [5n], { settled: 2 })], ({ last }) => (last[0]![0] = 1n)));
    it("rejects settling a line again in the place of a new one", () =>
      expectOneViolated([rowOf(ADA, [6n], { settled: 1 })], ({ skip }) => {
        [skip[0]![0], skip[0]![1]] = [FIELD - 1n, 1n];
      }));
    it("rejects a continuation flag that is not boolean", () =>
      expectRejected(long(), ({ continues }) => (continues[0] = 2n)));
    it("rejects false continuation: of a segment that is not full", () => {
      const row = rowOf(ADA, [5n, 6n]);
      return expectOneViolated([row, row], ({ continues }) => (continues[0] = 1n));
    });
    it("rejects false continuation: into an idle segment", () =>
      expectOneViolated([rowOf(ADA, Array<bigint>(SLOTS).fill(1n))], ({ continues, base, cap, allow }) => {
        continues[0] = 1n;
        [base[1], cap[1], allow[1]] = [base[0]!, cap[0]!, [...allow[0]!]];
      }));
    it("rejects false continuation: into another base", () =>
      expectOneViolated(long(), ({ base }) => (base[1] = base[1]! + 1n)));
    it("rejects false continuation: under another cap", () =>
      expectOneViolated(long(), ({ cap }) => (cap[1] = cap[1]! + 1n)));
    it("rejects false continuation: under another list", () =>
      expectOneViolated(long(), ({ allow }) => (allow[1]![7] = 5n)));
    it("rejects false continuation: that skips lines", () =>
      expectOneViolated(long(), ({ skip }) => (skip[1]![0] = 1n)));
    it("rejects a last segment that continues", () =>
      expectRejected([rowOf(ADA, Array<bigint>(2 * SLOTS).fill(1n))], ({ continues }) => (continues[1] = 1n)));
  });

  describe("clause 2, P2 no_payment_above_cap_or_off_allowlist: 1 <= amount <= cap < 2^40", () => {
    it("rejects an amount of 0", () => expectRejected(two(), ({ amount }) => (amount[0]![0] = 0n)));
    it("rejects an amount above the cap", () => expectRejected(two(), ({ amount }) => (amount[0]![0] = 1_001n)));
    it("rejects an amount of 2^40", () =>
      expectRejected([rowOf(ADA, [1n], { cap: 2n ** 40n - 1n })], ({ amount }) => (amount[0]![0] = 2n ** 40n)));
    it("rejects a negative amount", () => expectRejected(two(), ({ amount }) => (amount[0]![0] = FIELD - 5n)));
    it("rejects a cap of 2^40, so that packed amounts cannot overlap", () =>
      expectRejected([rowOf(ADA, [1n])], ({ cap }) => (cap[0] = 2n ** 40n)));
    it("rejects an out-of-range amount in an unused slot", () =>
      expectRejected(two(), ({ amount }) => (amount[0]![10] = 2n ** 40n)));
  });

  describe("clause 3, P2 no_payment_above_cap_or_off_allowlist: payees", () => {
    it("rejects a payee off the list", () => expectRejected(two(), ({ payee }) => (payee[1]![4] = BigInt(THIRD))));
    it("commits to the list: another list has another policyRoot", async () => {
      const rows = two();
      const { accepted, T } = await attempt(rows, ({ allow, payee }) => {
        allow[1] = [...allowList([PAYEE, OTHER, THIRD])];
        payee[1]![4] = BigInt(THIRD);
      });
      expect(accepted).to.equal(true);
      const { rows: claims } = layOut(SIZE, rows);
      const [, ...others] = layOut(SIZE, rows).credits;
      const moved = [
        { payee: PAYEE, amount: 12n },
        { payee: THIRD, amount: 9n },
        ...others.map((one) => ({ ...one, amount: 14n })),
      ];
      expect(contractAgrees(T, claims, moved)).to.equal(false);
    });
    it("does not open a list that begins with a payee by a zero further on", () =>
      expectRejected([rowOf(ADA, [1n, 2n], { payees: [PAYEE, OTHER] })], ({ allow, payee }) => {
        allow[0]![7] = 0n;
        payee[0]![0] = BigInt(THIRD);
      }));
  });

  describe("clause 4: pages", () => {
    it("a wrong base: another start gives other heads, which the agent did not sign", async () => {
      const { T, accepted } = await attempt(two(), ({ base }) => (base[0] = base[0]! + 1n));
      const { rows, credits } = layOut(SIZE, two());
      expect(accepted).to.equal(true);
      expect(contractAgrees(T, rows, credits)).to.equal(false);
    });
    it("rejects a forged head", async () => {
      const honest = await attempt(two());
      await expectRejected(two(), undefined, {
        "segment[0].head": honest.signal("segment[0].head") + 1n,
        "commitment.in[1]": honest.signal("segment[0].head") + 1n,
        "segment[0].toHead[0]": honest.signal("segment[0].toHead[0]") + 1n,
      });
    });
    it("rejects a next base that counts a partial page as full", async () => {
      const honest = await attempt(two());
      const moved = honest.signal("segment[0].toHead[0]");
      await expectRejected(two(), undefined, { "segment[0].toBase[0]": moved });
    });
    it("rejects an unused line that is hashed as something", () =>
      expectRejected(two(), undefined, { "segment[0].line[5]": 1n }));
    it("rejects a used line that is hashed as 0: a dropped line", () =>
      expectRejected(two(), undefined, { "segment[0].line[1]": 0n }));
  });

  describe("clause 5: the commitment", () => {
    it("binds every amount, also those settled before", async () => {
      const rows = two();
      const { input, commitment } = layOut(SIZE, rows);
      expect(packAmounts(input.amount.flat())).to.have.length(Math.ceil((2 * SLOTS) / 6));
      const other = structuredClone(input.amount);
      other[1]![0] = other[1]![0]! + 1n;
      const { C } = await attempt(rows, ({ amount }) => (amount[1] = other[1]!));
      expect(C).not.to.equal(commitment);
    });
    it("is Poseidon over the first 16 elements, then 15 at a time", () => {
      const stream = Array.from({ length: 40 }, (_, i) => BigInt(i));
      expect(commit(stream)).to.equal(
        commit([commit([commit(stream.slice(0, 16)), ...stream.slice(16, 31)]), ...stream.slice(31)]),
      );
    });
    it("rejects a forged C", async () => {
      const honest = await attempt(two());
      await expectRejected(two(), undefined, { C: honest.C + 1n });
    });
  });

  describe("clause 6: the evaluation", () => {
    /** A term of 77 where there is none, carried through to T. */
    const withTerm = ({ signal, T }: Attempt, segment: number, line: number): Record<string, bigint> => ({
      [`segment[${segment}].term[${line}]`]: 77n,
      [`segment[${segment}].sum`]: toField(signal(`segment[${segment}].sum`) + 77n),
      T: toField(T + 77n),
    });
    it("rejects a forged T", async () => {
      const honest = await attempt(two());
      await expectRejected(two(), undefined, { T: honest.T + 1n });
    });
    it("rejects a term of a line that is not settled: idle-line payee = −z", async () => {
      const change = ({ payee }: CircuitInput): void => void (payee[0]![9] = FIELD - Z);
      const harmless = await attempt(two(), change);
      expect(harmless.accepted, "the payee alone does no harm").to.equal(true);
      expect(
        (await attempt(two(), change, withTerm(harmless, 0, 9))).violated,
        "term · (1 − settled) = 0 alone",
      ).to.equal(1);
    });
    it("rejects a term of a line that was settled before: payee = −z", async () => {
      const change = ({ payee, allow }: CircuitInput): void => {
        allow[1] = Array<bigint>(8).fill(0n);
        payee[1]![0] = FIELD - Z;
      };
      const harmless = await attempt(two(), change);
      expect(harmless.accepted, "the payee alone does no harm").to.equal(true);
      expect(
        (await attempt(two(), change, withTerm(harmless, 1, 0))).violated,
        "term · (1 − settled) = 0 alone",
      ).to.equal(1);
    });
    it("rejects a settled line whose payee is −z: its term would be free", () =>
      expectRejected(two(), ({ payee }) => (payee[0]![0] = FIELD - Z)));
    it("rejects a row that is evaluated though it goes on", () =>
      expectRejected(long(), undefined, { "finished[0]": 1n }));
    it("rejects a finished row that is left out: a dropped row", () =>
      expectRejected(two(), undefined, { "gained[0]": 0n }));
  });

  describe("attacks that only the contract can see", () => {
    it("a row of count 0 is a row of E, which the contract refuses (EmptyRow)", async () => {
      const rows = [rowOf(ADA, [5n], { settled: 1 })];
      const { accepted, signal } = await attempt(rows, ({ skip }) => void ((skip[0]![0] = 0n), (skip[0]![1] = 1n)));
      expect(accepted).to.equal(true);
      expect(signal("segment[0].count")).to.equal(0n);
      expect(signal("finished[0]")).to.equal(1n);
    });
    it("a double row makes E of two rows: the contract's strictly increasing agents have no such E", async () => {
      const row = rowOf(ADA, [5n, 6n]);
      const { T, accepted } = await attempt([row, row]);
      expect(accepted).to.equal(true);
      const { rows, credits } = layOut(SIZE, [row]);
      expect(contractAgrees(T, rows, credits)).to.equal(false);
      expect(
        contractAgrees(
          T,
          rows,
          credits.map(({ payee, amount }) => ({ payee, amount: 2n * amount })),
        ),
      ).to.equal(false);
    });
    it("a split of a line into another payee and amount: the payee is no address, so no credit matches", async () => {
      const honest = [rowOf(ADA, [5n, 6n])];
      const { head } = layOut(SIZE, honest).rows[0]!;
      const { accepted, T, signal } = await attempt(honest, ({ payee, amount }) => {
        amount[0]![0] = 4n;
        payee[0]![0] = payee[0]![0]! + (1n << 160n);
      });
      expect(accepted, "the line, and so the head, is the same").to.equal(true);
      expect(signal("segment[0].head")).to.equal(head);
      const { rows, credits } = layOut(SIZE, honest);
      const claimed = rows.map((row) => ({ ...row, debit: 10n }));
      for (const forged of [
        credits,
        credits.map((credit) => (credit.payee === PAYEE ? { ...credit, amount: 4n } : credit)),
      ]) {
        expect(contractAgrees(T, claimed, forged)).to.equal(false);
      }
    });
    it("a dropped line: the head with fewer lines is not the one that the agent signed", async () => {
      const { T } = await attempt([rowOf(ADA, [5n, 6n])]);
      const { rows, credits } = layOut(SIZE, [rowOf(ADA, [5n, 6n, 7n])]);
      expect(contractAgrees(T, rows, credits)).to.equal(false);
    });
    it("altered credits of the same sum", async () => {
      const { T } = await attempt(two());
      const { rows, credits } = layOut(SIZE, two());
      expect(credits).to.have.length(2);
      const [one, other] = credits as [Credit, Credit];
      expect(
        contractAgrees(T, rows, [
          { ...one, amount: one.amount + 1n },
          { ...other, amount: other.amount - 1n },
        ]),
      ).to.equal(false);
      expect(contractAgrees(T, rows, [{ ...one, payee: THIRD }, other])).to.equal(false);
    });
  });

  it("takes each head as the contract writes it: below r", () => {
    for (const { head, newBase } of layOut(SIZE, two()).rows) {
      for (const value of [head, newBase]) expect(BigInt(headHex(value))).to.be.lessThan(FIELD);
    }
  });
});
