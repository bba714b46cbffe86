import { mkdirSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { Prover, ROOT, segmentSlots } from "@bursar/prover";

import { drawChart } from "./bench/peers/chart.ts";
import { builtSizes, PeerBench } from "./bench/peers/measure.ts";
import { chartsOf, pageOf, type Report } from "./bench/peers/page.ts";
import type { Workload } from "./bench/peers/workload.ts";
import { BenchRail } from "./bench/rail.ts";

const USAGE = `usage: npm run bench:peers -- [--quick] [--json]

Settles the same payments by Bursar and by its peers on one local node, and writes docs/peers.md and docs/charts.
Builds every circuit first, which takes about a quarter of an hour once. BURSAR_PROVER=rapidsnark proves faster.
--quick takes the tiny circuit and few payments, and writes nothing.`;

const COUNTS = [100, 200, 400, 700, 1_000, 1_400, 2_000, 2_800];
const WORKLOADS: readonly Workload[] = [
  { name: "20 x 20", agents: 20, payees: 20, counts: COUNTS },
  { name: "1 x 1", agents: 1, payees: 1, counts: [100, 700, 1_400, 2_800] },
  { name: "100 x 5", agents: 100, payees: 5, counts: [100, 500, 1_400, 2_800] },
];
const QUICK: readonly Workload[] = [{ name: "2 x 2", agents: 2, payees: 2, counts: [4, 28] }];

const { values } = parseArgs({
  options: { quick: { type: "boolean" }, json: { type: "boolean" }, help: { type: "boolean", short: "h" } },
});
if (values.help) {
  console.log(USAGE);
} else {
  const report = await measure(values.quick ? QUICK : WORKLOADS, values.quick === true);
  const page = pageOf(report);
  const charts = Object.entries(chartsOf(report)).map(([file, chart]) => ({ file, svg: drawChart(chart) }));
  console.log(values.json ? JSON.stringify(report, written) : page);
  if (!values.quick) {
    mkdirSync(`${ROOT}/docs/charts`, { recursive: true });
    for (const { file, svg } of charts) writeFileSync(`${ROOT}/docs/charts/${file}`, svg);
    writeFileSync(`${ROOT}/docs/peers.md`, page);
  }
}

async function measure(workloads: readonly Workload[], isQuick: boolean): Promise<Report> {
  const say = (text: string): void => console.error(`… ${text}`);
  const mandates = Math.max(...workloads.map(({ agents }) => agents));
  const rail = await BenchRail.start(mandates);
  const prover = new Prover();
  try {
    const sizes = builtSizes(rail).filter(({ name }) => !isQuick || name === "tiny");
    const bench = new PeerBench(rail, prover, sizes, say);
    const main = workloads[0]!;
    const first = await bench.firstTime(main);
    const reports = [];
    for (const workload of workloads) reports.push(await bench.measure(workload));
    return {
      sizes,
      first,
      workloads: reports,
      costs: await bench.unitCosts(main),
      payments: await bench.runOfPayments(main, isQuick ? 56 : 7_000),
      mandates: await bench.runOfMandates(main, isQuick ? 1 : 10, mandates),
      each: segmentSlots(bench.largest),
    };
  } finally {
    prover.close();
    rail.stop();
  }
}

function written(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}
