import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { ROOT } from "@bursar/prover";

import { measureGrowth, type GrowthPoint, type GrowthReport } from "./bench/growth.ts";
import { drawChart } from "./bench/peers/chart.ts";
import { measureReplicas, type ReplicasReport, type Run } from "./bench/replicas.ts";
import {
  acceptingOf,
  scaleOf,
  shareOf,
  type Blockspace,
  type ProverCosts,
  type Shape,
  type UnitCosts,
} from "./bench/scale.ts";

const USAGE = `usage: npm run bench:scale -- [--replicas] [--sample <number>] [--payments <number>] [--mandates <number>] [--json]

Measures what replicas on one PostgreSQL accept, and what a payment costs as the books grow, on this machine; computes from
that what 10^9 payments a day take, and writes docs/scale.md with its chart (about ten minutes).
--replicas measures replicas alone and writes nothing.
--sample is how many payments replicas are measured over, 20000 unless given.
--payments and --mandates are how far the books grow, 1000000 and 10000 unless given.`;

const { values } = parseArgs({
  options: {
    replicas: { type: "boolean" },
    sample: { type: "string", default: "20000" },
    payments: { type: "string", default: "1000000" },
    mandates: { type: "string", default: "10000" },
    json: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  },
});

const DAY = 1e9;

/** From docs/benchmarks.md and docs/peers.md: gas is exact, proofs are of two cores. */
const GAS = { row: 26_832, credit: 6_590, rest: 205_278 + 80_500 };
const PROVERS: readonly ProverCosts[] = [
  { name: "snarkjs, 700", payments: 700, segments: 20, seconds: 13.2 },
  { name: "rapidsnark, 700", payments: 700, segments: 20, seconds: 2.3 },
];
/** The optional circuit: its gas is as exact, its proof was not measured by rapidsnark. */
const HUGE: ProverCosts = { name: "2,800", payments: 2_800, segments: 100, seconds: NaN };
const SHAPES: readonly Shape[] = [
  { name: "35 payments a mandate, 20 payees", each: 35, payees: 20 },
  { name: "7 payments a mandate, 20 payees", each: 7, payees: 20 },
  { name: "1 payment a mandate, 20 payees", each: 1, payees: 20 },
];
const GREAT: readonly Shape[] = [
  { name: "140 payments a mandate, 20 payees", each: 140, payees: 20 },
  { name: "28 payments a mandate, 5 payees", each: 28, payees: 5 },
];
/** Assumed, not looked up: gas limits of blocks move. */
const CHAINS: readonly Blockspace[] = [
  { name: "60 M gas every 12 s (as Ethereum)", gas: 60e6, seconds: 12 },
  { name: "150 M gas every 2 s (as a large rollup)", gas: 150e6, seconds: 2 },
];

interface Report {
  readonly replicas: ReplicasReport;
  readonly growth: readonly GrowthReport[];
}

if (values.help) {
  console.log(USAGE);
} else if (values.replicas) {
  const replicas = await measureReplicas(Number(values.sample), say);
  console.log(values.json ? JSON.stringify(replicas, null, 2) : replicasPart(replicas));
} else {
  const replicas = await measureReplicas(Number(values.sample), say);
  const most = { payments: Number(values.payments), mandates: Number(values.mandates) };
  const growth = [await measureGrowth("sqlite", most, say), await measureGrowth("postgres", most, say)];
  if (values.json) console.log(JSON.stringify({ replicas, growth }, null, 2));
  writeFileSync(`${ROOT}/docs/scale.md`, page({ replicas, growth }));
  writeFileSync(`${ROOT}/docs/charts/scale.svg`, chart(growth));
}
process.exit(0);

function say(text: string): void {
  console.error(`… ${text}`);
}

function page(report: Report): string {
  return `# Scale
Written by \`npm run bench:scale\`, which measures again on the machine it runs on. Times are ratios; gas is exact.

## Replicas
${replicasPart(report.replicas)}

## As the books grow
${growthPart(report.growth)}

## 10^9 payments a day
${dayPart(report)}
`;
}

function replicasPart({ share, sticky: [one, two], roaming, books }: ReplicasReport): string {
  const row = (name: string, run: Run): string =>
    `| ${name} | ${run.rate.toFixed(0)} | ${run.cores.toFixed(2)} | ${us(run.cpu.replicas)} | ${us(run.cpu.database)} | ${us(run.cpu.generator)} | ${run.group.toFixed(0)} | ${run.commit.toFixed(1)} ms |`;
  const each =
    share === 0
      ? "Nothing could be pinned here: replicas, PostgreSQL and generator share all cores"
      : `Each replica has ${share === 1 ? "a core" : "half a core"}, PostgreSQL and the generator have the rest of the machine`;
  const perCpu = (run: Run): number => 1e6 / (run.cpu.replicas + run.cpu.database);
  return `${each}.

| | accepted a second | cores that the replicas used | CPU of replicas a payment | of PostgreSQL | of the generator | payments a commit | a commit |
| --- | --- | --- | --- | --- | --- | --- | --- |
${row("one replica", one)}
${row("two", two)}
${row("two, an agent's payments to both in turn", roaming)}

Two accept **${(two.rate / one.rate).toFixed(2)} times** what one does, with ${(two.cores / one.cores).toFixed(2)} times its CPU. A second of CPU of replicas and PostgreSQL
together pays for ${perCpu(one).toFixed(0)} payments with one, ${perCpu(two).toFixed(0)} with two, and ${perCpu(roaming).toFixed(0)} where an agent's payments go to both in turn: a replica then
reads again what the other one wrote. So keep an agent's connection at one replica.

What replicas share is one row that numbers the receipts, locked from the insert to the commit. The books alone, without
signatures and HTTP, take ${books[0].toFixed(0)} payments a second from one writer and ${books[1].toFixed(0)} from two, in groups of 64: that is the limit
of one database, however many replicas there are.`;
}

function growthPart(reports: readonly GrowthReport[]): string {
  const table = (points: readonly GrowthPoint[], of: "payments" | "mandates", engine: string): string => {
    const first = points[0]!;
    const ratio = (value: number, base: number): string => (base > 0 ? (value / base).toFixed(2) : "–");
    const row = (point: GrowthPoint): string =>
      `| ${point[of].toLocaleString("en")} | ${us(point.cpu)} | ${ratio(point.cpu, first.cpu)} | ${engine === "sqlite" ? "" : `${us(point.database)} | ${ratio(point.database, first.database)} | `}${point.commit.toFixed(1)} ms | ${point.planning.toFixed(0)} ms | ${point.backlog.toFixed(1)} ms | ${point.disk.toFixed(0)} | ${point.memory.toFixed(0)} MiB |`;
    const database = engine === "sqlite" ? "" : "CPU of PostgreSQL | ratio | ";
    return `| ${of} | CPU a payment | ratio | ${database}a commit | choosing a batch | telling the backlog | bytes a payment | memory |
|${" --- |".repeat(engine === "sqlite" ? 8 : 10)}
${points.map(row).join("\n")}`;
  };
  const parts = reports.map(
    ({ engine, payments, mandates }) =>
      `### ${engine === "sqlite" ? "SQLite" : "PostgreSQL"}
${table(payments, "payments", engine)}

${table(mandates, "mandates", engine)}`,
  );
  return `What one more payment costs in books that hold so many settled ones, of 100 mandates; then with so many mandates, and 70,000
payments. Small books have their tables' fixed size in the bytes of each payment. The memory is that of the measuring process.

![CPU a payment as the books grow](charts/scale.svg)

${parts.join("\n\n")}`;
}

function chart(reports: readonly GrowthReport[]): string {
  const named = { sqlite: "SQLite", postgres: "PostgreSQL" };
  return drawChart({
    title: "What one more payment costs as the books grow",
    subtitle: "CPU of processor and database, as a ratio to the smallest books",
    x: "payments, or mandates, in the books",
    y: "ratio",
    series: reports.flatMap(({ engine, payments, mandates }) => [
      { name: `${named[engine]}, payments`, points: ratios(payments, "payments"), main: true },
      { name: `${named[engine]}, mandates`, points: ratios(mandates, "mandates") },
    ]),
  });
}

function ratios(points: readonly GrowthPoint[], of: "payments" | "mandates"): { x: number; y: number }[] {
  const all = ({ cpu, database }: GrowthPoint): number => cpu + database;
  return points.map((point) => ({ x: point[of], y: all(point) / all(points[0]!) }));
}

function dayPart({ replicas, growth }: Report): string {
  const [one] = replicas.sticky;
  const largest = growth.find(({ engine }) => engine === "postgres")!.payments.at(-1)!;
  const unit: UnitCosts = {
    ...{ accept: one.cpu.replicas, database: one.cpu.database, bytes: largest.disk, group: one.group },
    ...GAS,
  };
  const { rate, cores, databaseCores, commits, bytes } = acceptingOf(DAY, unit);
  const writers = Math.ceil(rate / replicas.books[1]);
  const row = (shape: Shape, prover: ProverCosts): string => {
    const scale = scaleOf(DAY, shape, prover, unit);
    const proving = Number.isNaN(prover.seconds) ? "not measured" : scale.provingCores.toFixed(0);
    const shares = CHAINS.map((chain) => `${(shareOf(scale, chain) * 100).toFixed(0)} %`);
    return `| ${prover.name} | ${shape.name} | ${scale.rows} × ${scale.payments / scale.rows} | ${scale.gasEach.toFixed(0)} | ${((scale.gasEach * DAY) / 1e12).toFixed(2)} T | ${(scale.batches / 1e6).toFixed(2)} M | ${proving} | ${shares.join(" | ")} |`;
  };
  return `On paper: ${rate.toFixed(0)} payments a second, all day, and no peaks; multiply by what your peak is above the mean.

| part | unit cost | in all |
| --- | --- | --- |
| accepting | ${us(unit.accept)} of CPU | ${cores.toFixed(1)} cores |
| PostgreSQL | ${us(unit.database)} of CPU | ${databaseCores.toFixed(1)} cores |
| commits | one for ${unit.group.toFixed(0)} payments | ${commits.toFixed(0)} a second |
| books | ${unit.bytes.toFixed(0)} bytes | ${(bytes / 1e9).toFixed(0)} GB a day |

Proving and settling, by what a batch is made of: cores are those that prove all day, the shares those of all gas that a chain has.

| circuit and prover | shape | mandates × payments | gas a payment | gas a day | batches a day | proving cores | ${CHAINS.map(({ name }) => name).join(" | ")} |
| --- | --- | --- | --- | --- | --- | --- | ${CHAINS.map(() => "---").join(" | ")} |
${[...PROVERS.flatMap((prover) => SHAPES.map((shape) => row(shape, prover))), ...GREAT.map((shape) => row(shape, HUGE))].join("\n")}

Gas of a batch is ${GAS.row} a mandate, ${GAS.credit} a known payee and ${GAS.rest} besides; seconds and sizes of proofs are those of
docs/benchmarks.md and docs/prover.md, at two cores a proof.

**Blockspace breaks first.** No chain is to be had whole, so 10^9 payments need many payments of a mandate in each batch, and several
chains. Proving comes next, and takes machines and nothing else: proofs do not wait for one another. Accepting is the least of it.

**Sharding** needs no change of the protocol. A mandate names one processor on one registry of one chain, and mandates share nothing:
another processor with books of its own takes other mandates. By the measured limit of one database, ${writers} of them carry the
mean${writers > 1 ? " between them" : ""}. A registry on another chain adds blockspace, and holds its owners' money there. One processor's
receipts are numbered without a gap in one database: that is what does not spread.

**Not measured:** books above ${largest.payments.toLocaleString("en")} payments, more than two replicas, a database on another machine or with a replica that
confirms commits, payments of one mandate to more payees than a batch has, a public chain. Old payments are never deleted, so the books grow
as above; what must be kept to answer challenges ends with the mandate's claim window.`;
}

function us(microseconds: number): string {
  return `${microseconds.toFixed(0)} µs`;
}
