import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";

import { PAGE_LINES } from "@bursar/protocol";
import type { CircuitSize } from "@bursar/prover";
import { expect } from "chai";
import fc from "fast-check";

import {
  batchCosts,
  bytesOf,
  cheaperRange,
  countsToCompare,
  dollars,
  interpolate,
  predictBatches,
} from "../../scripts/bench/peers/arithmetic.ts";
import { drawChart } from "../../scripts/bench/peers/chart.ts";
import { countsOf, planBatches, spread } from "../../scripts/bench/peers/workload.ts";

const SMALL: CircuitSize = { name: "small", segments: 2, pages: 2, power: 13 };
const MIDDLE: CircuitSize = { name: "middle", segments: 20, pages: 5, power: 17 };
const GREAT: CircuitSize = { name: "great", segments: 80, pages: 5, power: 19 };
const SIZES = [GREAT, SMALL, MIDDLE];
const names = (counts: readonly number[], sizes: readonly CircuitSize[]): string[] =>
  planBatches(counts, sizes).map(({ size }) => size.name);

describe("payments of a benchmark", () => {
  it("are spread over all pairs before one comes again", () => {
    const pairs = spread({ agents: 20, payees: 20 }, 400).map(({ agent, payee }) => `${agent} ${payee}`);
    expect(new Set(pairs).size).to.equal(400);
    expect(
      new Set(spread({ agents: 100, payees: 5 }, 500).map(({ agent, payee }) => `${agent} ${payee}`)).size,
    ).to.equal(500);
  });

  it("are counted by agent as they are spread", () => {
    for (const count of [1, 99, 100, 101, 250]) {
      const payments = spread({ agents: 100, payees: 5 }, count);
      const counted = countsOf({ agents: 100 }, count);
      for (let agent = 0; agent < 100; ++agent)
        expect(counted[agent]).to.equal(payments.filter((payment) => payment.agent === agent).length);
    }
  });
});

describe("batches of a benchmark", () => {
  it("are of the smallest circuit that holds them", () => {
    expect(names([14, 14], SIZES)).to.deep.equal(["small"]);
    expect(names([15, 14], SIZES)).to.deep.equal(["middle"]);
    expect(names(countsOf({ agents: 20 }, 700), SIZES)).to.deep.equal(["middle"]);
    expect(names(countsOf({ agents: 20 }, 701), SIZES)).to.deep.equal(["great"]);
    expect(names(countsOf({ agents: 20 }, 2_800), SIZES)).to.deep.equal(["great"]);
  });

  it("are several of the largest where none holds them, and the last of the smallest that does", () => {
    expect(names(countsOf({ agents: 20 }, 2_800), [MIDDLE, SMALL])).to.deep.equal(Array(4).fill("middle"));
    expect(names(countsOf({ agents: 100 }, 100), SIZES)).to.deep.equal(["great", "middle"]);
    expect(names([700, 14], [MIDDLE, SMALL])).to.deep.equal(["middle", "small"]);
  });

  it("settle every payment once, in order, within their segments", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 900 }), { minLength: 1, maxLength: 40 }), (counts) => {
        const next = counts.map(() => 0);
        for (const { size, parts } of planBatches(counts, [SMALL, MIDDLE])) {
          const slots = size.pages * PAGE_LINES;
          expect(parts.reduce((sum, { count }) => sum + Math.ceil(count / slots), 0)).to.be.at.most(size.segments);
          for (const { agent, from, count } of parts) {
            expect(from).to.equal(next[agent]);
            next[agent] = from + count;
            if (next[agent] !== counts[agent]) expect(next[agent] % PAGE_LINES).to.equal(0);
          }
        }
        expect(next).to.deep.equal(counts);
      }),
    );
  });
});

describe("the arithmetic of a benchmark", () => {
  const costs = { batch: 1_000, row: 10, credit: 1 };

  it("takes a batch apart into batch, rows and credits", () => {
    expect(batchCosts({ one: 1_011n, rows: 1_051n, credits: 1_015n }, 5)).to.deep.equal(costs);
  });

  it("puts them together again by the plan", () => {
    const twenty = { agents: 20, payees: 20 };
    expect(predictBatches(twenty, 700, [MIDDLE], costs)).to.equal(1_000 + 200 + 20);
    expect(predictBatches(twenty, 1_400, [MIDDLE], costs)).to.equal(2 * (1_000 + 100 + 20));
    expect(predictBatches(twenty, 1, [MIDDLE], costs)).to.equal(1_011);
    expect(predictBatches({ agents: 100, payees: 5 }, 100, [MIDDLE], costs)).to.equal(5 * (1_000 + 200 + 5));
    expect(predictBatches({ agents: 2, payees: 5 }, 6, [MIDDLE], costs)).to.equal(1_000 + 20 + 4);
  });

  it("follows the line through measured points, and goes on with its end", () => {
    const points = [
      { payments: 1, gas: 50 },
      { payments: 101, gas: 1_050 },
      { payments: 201, gas: 1_050 },
    ];
    expect([1, 51, 101, 150, 201, 1_000].map((count) => interpolate(points, count))).to.deep.equal([
      50, 550, 1_050, 1_050, 1_050, 1_050,
    ]);
  });

  it("finds where one is cheaper than the other, if anywhere", () => {
    const counts = countsToCompare();
    const line = (count: number): number => 10 * count;
    expect(cheaperRange(counts, () => 95, line)).to.deep.equal({ from: 10, to: counts.at(-1) });
    expect(cheaperRange(counts, line, () => 95)).to.deep.equal({ from: 1, to: 9 });
    expect(cheaperRange(counts, line, (count) => (count <= 5 || count === 7 ? 0 : 95))).to.deep.equal({
      from: 8,
      to: 9,
    });
    expect(cheaperRange(counts, line, line)).to.equal(null);
  });

  it("counts the bytes of a transaction without the zeros of its calldata", () => {
    expect(bytesOf("0x")).to.equal(110);
    expect(bytesOf("0x00ff0100f0")).to.equal(113);
  });

  it("turns gas and bytes into dollars", () => {
    expect(dollars({ gasPrice: 2, bytePrice: 0.5 }, 3_000, 1_000_000, 1_000)).to.equal(6.0015);
  });
});

describe("a chart", () => {
  const series = (name: string, ys: readonly number[]) => ({
    name,
    points: ys.map((y, i) => ({ x: 10 ** (i + 1), y })),
  });
  const svg = drawChart({
    title: "Gas <a payment>",
    subtitle: "",
    x: "payments",
    y: "gas",
    series: [series("ours", [1_000, 100]), { ...series("theirs", [1_000, 101]), derived: true }],
  });

  it("places equal ratios at equal distances, and what is more higher up", () => {
    const [x1, y1, x2, y2] = /points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+)"/.exec(svg)!.slice(1).map(Number);
    expect([x1, x2]).to.deep.equal([92, 640]);
    expect([y1, y2]).to.deep.equal([76, 440]);
  });

  it("names each line at its end, apart from one another, and escapes what it is given", () => {
    const at = (name: string): number => Number(new RegExp(`y="([\\d.]+)"[^>]*>${name}<`).exec(svg)![1]);
    expect(Math.abs(at("ours") - at("theirs"))).to.be.at.least(16);
    expect(svg).to.include("Gas &lt;a payment>");
  });

  it("dashes what is derived, and gives it no dots", () => {
    expect(svg.match(/stroke-dasharray/g)).to.have.length(1);
    expect(svg.match(/<circle/g)).to.have.length(2);
  });
});

interface QuickReport {
  first: string;
  workloads: { ours: { points: Measured[] }; peers: { name: string; points: Measured[]; payOut?: number }[] }[];
  payments: { payments: number; gas: number }[];
}
interface Measured {
  payments: number;
  gas: number;
  transactions: number;
  circuits: string[];
}

describe("npm run bench:peers -- --quick", function () {
  this.timeout(400_000);
  let report: QuickReport;

  before(async () => {
    const script = fileURLToPath(new URL("../../scripts/bench-peers.ts", import.meta.url));
    report = await new Promise((resolve, reject) => {
      const options = ["--import", "tsx", script, "--quick", "--json"];
      execFile(process.execPath, options, { maxBuffer: 2 ** 24 }, (error, stdout, stderr) => {
        if (error) reject(new Error(stderr));
        else resolve(JSON.parse(stdout) as QuickReport);
      });
    });
  });

  it("settles the same payments by ours and by seven others", () => {
    const { ours, peers } = report.workloads[0]!;
    expect(ours.points.map(({ payments, circuits }) => [payments, circuits])).to.deep.equal([
      [4, ["tiny"]],
      [28, ["tiny"]],
    ]);
    expect(peers.map(({ name }) => name)).to.have.length(7);
    for (const { points } of peers) expect(points.map(({ payments }) => payments)).to.deep.equal([4, 28]);
  });

  it("finds ours as dear for 28 payments as for 4, vouchers too, and what pays one by one seven times as dear", () => {
    const { ours, peers } = report.workloads[0]!;
    const growth = ({ points }: { points: Measured[] }): number => points[1]!.gas / points[0]!.gas;
    expect(growth(ours)).to.be.within(0.97, 1.03);
    const of = (name: string): number => growth(peers.find((peer) => peer.name === name)!);
    expect(of("channel vouchers, lean")).to.be.within(0.97, 1.03);
    expect(of("ERC-20 transfer")).to.be.closeTo(7, 1e-9);
    expect(of("debit wallet, batched")).to.be.above(3);
  });

  it("finds every batch of a row of batches as dear as the first", () => {
    const [one, two] = report.payments;
    expect(two!.payments).to.equal(2 * one!.payments);
    expect(two!.gas / one!.gas).to.be.within(1.97, 2.03);
  });
});
