import { offsetOf, PAGE_LINES, type Address } from "@bursar/protocol";
import { capacity, circuitSize, segmentSlots, segmentsOf, type BatchRow, type CircuitSize } from "@bursar/prover";
import {
  draftAll,
  draftBatches,
  isDue,
  MARGIN,
  paced,
  settlementGas,
  TRANSACTION,
  withinLimits,
  type Draft,
  type PacedSize,
  type Situation,
  type Waiting,
} from "@bursar/relayer";
import { expect } from "chai";
import fc from "fast-check";

const NOW = 1_800_000_000;
const MAX_WAIT = 300;
const [TINY, DEFAULT, LARGE] = ["tiny", "default", "large"].map((name) => circuitSize(name)) as [
  CircuitSize,
  CircuitSize,
  CircuitSize,
];

const addressAt = (index: number): Address => `0x${(index + 1).toString(16).padStart(40, "0")}`;
const TOKENS = [addressAt(0xaaaa), addressAt(0xbbbb)] as const;

const pace = (...sizes: CircuitSize[]): PacedSize[] => paced(sizes, new Map());
const at = (sizes: readonly PacedSize[], now = NOW): Situation => ({ sizes, now, maxWait: MAX_WAIT });

/** `count` payments after payment `from`, accepted `age` seconds ago, that must be settled `left` seconds from now. */
function waits(index: number, count: number, { from = 0, age = 0, left = 3_600, token = 0 } = {}): Waiting {
  return {
    agent: addressAt(index),
    token: TOKENS[token]!,
    from: BigInt(from),
    to: BigInt(from + count),
    settleBy: BigInt(NOW + left),
    acceptedAt: BigInt(NOW - age),
  };
}

const slotsOf = ({ from, to }: Waiting): number => Number(offsetOf(from) + to - from);
const segmentsIn = (size: CircuitSize, { parts }: Pick<Draft, "parts">): number =>
  parts.reduce((sum, { slots }) => sum + segmentsOf(size, slots), 0);

const anyWaiting = fc
  .array(
    fc.record({
      count: fc.integer({ min: 1, max: 60 }),
      from: fc.nat(20),
      age: fc.nat(900),
      left: fc.integer({ min: -600, max: 3_600 }),
      token: fc.nat(1),
    }),
    { maxLength: 30 },
  )
  .map((all) => all.map(({ count, ...rest }, index) => waits(index, count, rest)));

describe("a plan of batches", function () {
  this.timeout(120_000);

  it("puts each mandate in one batch at most, with others of its token, and fits each circuit", () => {
    fc.assert(
      fc.property(anyWaiting, (waiting) => {
        const drafts = draftAll(waiting, at(pace(TINY, DEFAULT)));
        const planned = drafts.flatMap(({ token, parts }) => parts.map(({ agent }) => ({ agent, token })));
        const expected = waiting.map(({ agent, token }) => ({ agent, token }));
        expect(planned).to.have.deep.members(expected);
        for (const draft of drafts) {
          expect(segmentsIn(draft.size, draft)).to.be.within(1, draft.size.segments);
          for (const { agent, slots } of draft.parts) {
            const one = waiting.find((candidate) => candidate.agent === agent)!;
            expect(slots)
              .to.be.greaterThan(Number(offsetOf(one.from)))
              .and.at.most(slotsOf(one));
            if (slots < slotsOf(one)) expect(slots % segmentSlots(draft.size), "cut within a segment").to.equal(0);
          }
        }
      }),
    );
  });

  it("takes all of a token into the smallest circuit that holds it", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 80 }), { minLength: 1, maxLength: 20 }), (counts) => {
        const waiting = counts.map((count, index) => waits(index, count));
        const [draft] = draftBatches(waiting, at(pace(LARGE, TINY, DEFAULT)));
        const holds = (size: CircuitSize): boolean =>
          counts.reduce((sum, count) => sum + segmentsOf(size, count), 0) <= size.segments;
        const smallest = [TINY, DEFAULT, LARGE].find(holds);
        expect(draft!.size.name).to.equal((smallest ?? LARGE).name);
        if (smallest) expect(draft!.parts.map(({ slots }) => slots)).to.have.members(counts);
      }),
    );
  });

  it("takes a smaller circuit where the largest would be too late for the most urgent promise", () => {
    const sizes = paced([TINY, DEFAULT, LARGE], new Map([["large", 100_000]]));
    const queue = (left: number): Waiting[] => Array.from({ length: 40 }, (_, i) => waits(i, 35, { left: left + i }));
    expect(draftBatches(queue(131), at(sizes))[0]!.size.name).to.equal("large");
    const hurried = draftBatches(queue(129), at(sizes))[0]!;
    expect(hurried.size.name).to.equal("default");
    expect(hurried.parts.map(({ agent }) => agent)).to.have.members([0, 1, 2, 3, 4].map(addressAt));
    expect(draftBatches(queue(-1), at(sizes))[0]!.size.name, "all are late: what settles most").to.equal("large");
  });

  it("lets no full mandate push out one that has waited long enough: waiting is bounded", () => {
    fc.assert(
      fc.property(anyWaiting, (waiting) => {
        for (const draft of draftBatches(waiting, at(pace(TINY)))) {
          const ofToken = waiting.filter(({ token }) => token === draft.token);
          const share = new Map(draft.parts.map(({ agent, slots }) => [agent, slots]));
          const isAged = ({ acceptedAt }: Waiting): boolean => Number(acceptedAt) + MAX_WAIT <= NOW;
          const left = ofToken.filter((one) => isAged(one) && (share.get(one.agent) ?? 0) < slotsOf(one));
          const oldestLeft = Math.min(...left.map(({ acceptedAt }) => Number(acceptedAt)));
          if (left.length === 0 || draft.reason === "deadline") continue;
          for (const one of ofToken.filter(({ agent }) => share.has(agent)))
            expect(Number(one.acceptedAt), "a younger one went first").to.be.at.most(oldestLeft);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("fills a circuit with full segments before others while nothing presses", () => {
    const waiting = [waits(0, 1, { left: 3_000 }), waits(1, 28, { left: 3_100 }), waits(2, 14, { left: 3_200 })];
    const [draft] = draftBatches(waiting, at(pace(TINY)));
    expect(draft!.parts).to.deep.equal([{ agent: addressAt(1), slots: 28 }]);
    const [next] = draftBatches([waiting[0]!, waiting[2]!], at(pace(TINY)));
    expect(next!.parts.map(({ agent }) => agent)).to.have.members([addressAt(0), addressAt(2)]);
  });

  interface Arrival {
    readonly second: number;
    readonly mandate: number;
    readonly count: number;
    /** Seconds until settlement that the receipts promise. */
    readonly promised: number;
  }

  interface Run {
    /** Mandates in a batch that ended after their promise, less the margin. */
    readonly late: Address[];
    /** At some moment no order of batches could have kept every promise, through what had just arrived. */
    readonly overloaded: boolean;
    /** The same, though nothing had arrived: an earlier choice was wrong. */
    readonly lost: boolean;
    readonly batches: number;
  }

  /** Gas is dear, so that batches wait as long as they can, and then follow each other. */
  function run(size: PacedSize, maxWait: number, arrivals: readonly Arrival[]): Run {
    let [now, batches, overloaded, lost] = [NOW, 0, false, false];
    let waiting: Waiting[] = [];
    const coming = [...arrivals].sort((a, b) => a.second - b.second);
    const late: Address[] = [];
    while (coming.length + waiting.length > 0) {
      lost ||= !overloaded && cannotKeepAll(waiting, size, now);
      while (coming[0] && NOW + coming[0].second <= now) waiting = arrive(waiting, coming.shift()!);
      overloaded ||= cannotKeepAll(waiting, size, now);
      const drafts = draftBatches(waiting, { sizes: [size], now, maxWait });
      const draft = drafts.find((one) => isDue(one, { isCheap: false }));
      if (!draft) {
        ++now;
        continue;
      }
      now += size.seconds;
      ++batches;
      for (const { agent, slots } of draft.parts) {
        const one = waiting.find((candidate) => candidate.agent === agent)!;
        if (now > Number(one.settleBy) - MARGIN) late.push(agent);
        const from = one.from - offsetOf(one.from) + BigInt(slots);
        waiting = waiting.filter((other) => other !== one);
        if (from < one.to) waiting.push({ ...one, from });
      }
    }
    return { late, overloaded, lost, batches };
  }

  function arrive(waiting: readonly Waiting[], { second, mandate, count, promised }: Arrival): Waiting[] {
    const agent = addressAt(mandate);
    const acceptedAt = BigInt(NOW + second);
    const settleBy = acceptedAt + BigInt(promised);
    const known = waiting.find((one) => one.agent === agent);
    const token = TOKENS[mandate % 2]!;
    if (!known) return [...waiting, { agent, token, from: 0n, to: BigInt(count), acceptedAt, settleBy }];
    const earliest = known.settleBy < settleBy ? known.settleBy : settleBy;
    const more = { ...known, to: known.to + BigInt(count), settleBy: earliest };
    return waiting.map((one) => (one === known ? more : one));
  }

  function cannotKeepAll(waiting: readonly Waiting[], { size, seconds }: PacedSize, now: number): boolean {
    return waiting.some(({ settleBy }) => {
      const batches = TOKENS.map((token) => {
        const urgent = waiting.filter((one) => one.token === token && one.settleBy <= settleBy);
        return Math.ceil(urgent.reduce((sum, one) => sum + segmentsOf(size, slotsOf(one)), 0) / size.segments);
      }).reduce((a, b) => a + b);
      return now + batches * seconds > Number(settleBy) - MARGIN;
    });
  }

  it("keeps every promise while the circuit can, however dear gas is, and however small a mandate is", () => {
    const arrivals = fc.array(
      fc.record({
        second: fc.nat(900),
        mandate: fc.nat(60),
        count: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 120 })),
        promised: fc.constantFrom(600, 900, 1_800),
      }),
      { minLength: 1, maxLength: 100 },
    );
    const seen = { kept: 0, overloaded: 0 };
    fc.assert(
      fc.property(arrivals, fc.constantFrom(5, 20, 60), fc.constantFrom(60, 3_600), (all, seconds, maxWait) => {
        const { late, overloaded, lost } = run({ size: DEFAULT, seconds }, maxWait, all);
        expect(lost).to.equal(false);
        if (!overloaded) expect(late).to.deep.equal([]);
        ++seen[overloaded ? "overloaded" : "kept"];
      }),
      { numRuns: 100 },
    );
    expect(seen.kept).to.be.greaterThan(25);
  });

  it("waits for cheap gas in as few batches as it can", () => {
    const arrivals = Array.from({ length: 30 }, (_, i) => ({
      second: i * 5,
      mandate: 2 * i,
      count: 35,
      promised: 900,
    }));
    const { late, batches } = run({ size: LARGE, seconds: 40 }, MAX_WAIT, arrivals);
    expect(late).to.deep.equal([]);
    expect(batches).to.equal(2);
  });

  it("is due when a promise ends, when it is full and when a payment waited, the last two only if gas is cheap", () => {
    const reasonOf = (waiting: Waiting[]): Draft["reason"] => draftBatches(waiting, at(pace(TINY, DEFAULT)))[0]!.reason;
    expect(reasonOf([waits(0, 1)])).to.equal(null);
    expect(reasonOf([waits(0, 1, { age: MAX_WAIT - 1 })])).to.equal(null);
    expect(reasonOf([waits(0, 1, { age: MAX_WAIT })])).to.equal("age");
    expect(reasonOf([waits(0, capacity(DEFAULT))])).to.equal("full");
    expect(reasonOf([waits(0, 1, { left: MARGIN + 1 })])).to.equal("deadline");
    expect(reasonOf([waits(0, 1, { left: -1 })])).to.equal("deadline");
    for (const [reason, dear, cheap] of [
      ["deadline", true, true],
      ["full", false, true],
      ["age", false, true],
      [null, false, false],
    ] as const) {
      expect([isDue({ reason }, { isCheap: false }), isDue({ reason }, { isCheap: true })]).to.deep.equal([
        dear,
        cheap,
      ]);
    }
  });

  it("begins earlier the more waits, also in other tokens", () => {
    const sizes = [{ size: TINY, seconds: 10 }];
    const startBy = (...waiting: Waiting[]): number =>
      NOW + 3_600 - MARGIN - draftBatches(waiting, at(sizes))[0]!.startBy;
    expect(startBy(waits(0, 1))).to.equal(20);
    expect(startBy(waits(0, 1), waits(1, 1), waits(2, 1))).to.equal(30);
    expect(startBy(waits(0, 1), waits(1, 1, { token: 1, left: 3_599 }))).to.be.at.least(20);
    expect(startBy(waits(1, 1), waits(2, 1, { token: 1 }))).to.equal(30);
  });

  it("goes by the slowest recent proof of a circuit, and by an estimate until there is one", () => {
    const [tiny, large] = paced([TINY, LARGE], new Map([["tiny", 9_000]]));
    expect(tiny!.seconds).to.equal(39);
    expect(large!.seconds).to.be.within(40, 90);
  });
});

describe("the limits of a transaction", () => {
  const row = (index: number, seq: number, payees: readonly number[]): BatchRow => ({
    agent: addressAt(index),
    base: 1n,
    seq: BigInt(seq),
    allow: [0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n],
    paymentCap: 1n,
    salts: Array.from({ length: Math.ceil(payees.length / PAGE_LINES) }, (_, page) => BigInt(page)),
    lines: payees.map((payee) => ({ payee: addressAt(0x10000 + payee), amount: 1n })),
  });

  it("leave a batch alone that is within them: 2,800 payments of 80 mandates to 300 payees", () => {
    const rows = Array.from({ length: 80 }, (_, r) =>
      row(
        r,
        0,
        Array.from({ length: 35 }, (_, i) => (r * 35 + i) % 300),
      ),
    );
    expect(withinLimits(rows, TRANSACTION)).to.deep.equal(rows);
  });

  it("cut the last of its payments where their payees are too many, and never the first", () => {
    const rows = fc.array(
      fc.record({ seq: fc.nat(6), payees: fc.array(fc.nat(60), { minLength: 7, maxLength: 40 }) }),
      { minLength: 1, maxLength: 10 },
    );
    const gas = fc.bigInt({ min: 400_000n, max: 2_000_000n });
    const bytes = fc.integer({ min: 2_000, max: 20_000 });
    fc.assert(
      fc.property(rows, gas, bytes, (all, gas, bytes) => {
        const before = all.map(({ seq, payees }, index) => row(index, seq, payees));
        const after = withinLimits(before, { gas, bytes });
        expect(after[0]!.agent).to.equal(before[0]!.agent);
        const paid = after.flatMap(({ seq, lines }) => lines.slice(Number(seq % 7n)).map(({ payee }) => payee));
        const credits = new Set(paid).size;
        const used = settlementGas({ turning: after.length, staying: 0, known: 0, fresh: credits });
        expect(used <= gas && 500 + after.length * 288 + credits * 64 <= bytes + 20).to.equal(true);
        for (const one of after) {
          const whole = before.find(({ agent }) => agent === one.agent)!;
          expect(one.lines).to.deep.equal(whole.lines.slice(0, one.lines.length));
          expect(one.lines.length).to.be.greaterThan(Number(one.seq % 7n));
          expect(one.salts).to.deep.equal(whole.salts.slice(0, Math.ceil(one.lines.length / PAGE_LINES)));
        }
      }),
    );
  });
});
