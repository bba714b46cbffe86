import { capacity, type CircuitSize } from "@bursar/prover";

import {
  cheaperRange,
  countsToCompare,
  dollars,
  interpolate,
  predictBatches,
  type BatchCosts,
  type Network,
} from "./arithmetic.ts";
import { ASSUMED, PUBLISHED } from "./assumptions.ts";
import type { Chart, Series } from "./chart.ts";
import type { PeerReport, Point, Run, WorkloadReport } from "./measure.ts";
import { MOST_ITEMS, SINGLES } from "./schemes.ts";
import type { Workload } from "./workload.ts";

/** All that a run measured. */
export interface Report {
  readonly sizes: readonly CircuitSize[];
  readonly costs: BatchCosts;
  /** Gas of our first settlement ever: one payment a pair of the first workload. */
  readonly first: bigint;
  /** The first is the one that the first time, payouts, dollars and targets are shown for. */
  readonly workloads: readonly WorkloadReport[];
  readonly payments: readonly Run[];
  readonly mandates: readonly Run[];
  /** Payments of each mandate in {@link mandates}. */
  readonly each: number;
}

const OURS = "Bursar";
const LEAN = "channel vouchers, lean";
const SHAPE = "channel vouchers, x402's shape";

const each = ({ gas, payments }: { gas: number; payments: number }): number => gas / payments;
const whole = (value: number): string => (value < 10 ? value.toFixed(1) : String(Math.round(value)));
const row = (cells: readonly (string | number)[]): string => `| ${cells.join(" | ")} |`;
const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string =>
  [row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n");
const near = (points: readonly Point[], payments: number): Point =>
  points.reduce((a, b) => (Math.abs(b.payments - payments) < Math.abs(a.payments - payments) ? b : a));
const circuitsOf = ({ circuits }: Point): string =>
  [...new Set(circuits)].map((name) => `${circuits.filter((one) => one === name).length} ${name}`).join(", ");
const sidesOf = ({ agents, payees }: Workload): string =>
  `${agents} ${agents === 1 ? "agent" : "agents"}, ${payees} ${payees === 1 ? "payee" : "payees"}`;
const chartFile = ({ name }: Workload): string => `gas-${name.replaceAll(" ", "")}.svg`;

/** Gas that the unit costs say. */
const predictOurs = ({ sizes, costs }: Report, workload: Pick<Workload, "agents" | "payees">) => {
  return (count: number): number => predictBatches(workload, count, sizes, costs);
};
/** The charts by the names of their files. */
export function chartsOf(report: Report): Record<string, Chart> {
  const charts = report.workloads.map(({ workload, ours, peers }): [string, Chart] => [
    chartFile(workload),
    {
      title: `Gas a payment, ${workload.name}`,
      subtitle: `${sidesOf(workload)}, measured on one local node; slots warm, payouts not counted; in brackets where ${OURS} is cheaper`,
      x: "payments between two settlements",
      y: "gas a payment",
      series: [
        seriesOf({ name: OURS, points: ours.points }, true),
        ...peers.map((peer) => seriesOf({ ...peer, name: `${peer.name} (${rangeOf(report, workload, peer)})` }, false)),
      ],
    },
  ]);
  return Object.fromEntries([
    ...charts,
    ["flat-payments.svg", flatPayments(report)],
    ["flat-mandates.svg", flatMandates(report)],
  ]);
}

function seriesOf({ name, points }: Pick<PeerReport, "name" | "points">, main: boolean): Series {
  return { name, main, points: points.map((point) => ({ x: point.payments, y: each(point) })) };
}

const decades = (from: number, to: number): number[] =>
  [1, 2, 5]
    .flatMap((step) => [10, 100, 1_000, 10_000, 100_000, 1_000_000].map((power) => step * power))
    .filter((count) => count >= from && count <= to)
    .sort((a, b) => a - b);

function flatPayments(report: Report): Chart {
  const { workload } = report.workloads[0]!;
  const derived = decades(report.payments[0]!.payments, 1_000_000).map((x) => ({ x, y: derivedOfPayments(report, x) }));
  const measured = report.payments.map((run) => ({ x: run.payments, y: each(run) }));
  return flat(`Gas a payment over payments settled, ${workload.name}`, "payments settled in full batches", [
    { name: "derived", points: derived, derived: true },
    { name: "measured", points: measured, main: true },
  ]);
}

function flatMandates(report: Report): Chart {
  const derived = decades(report.mandates[0]!.mandates, 10_000).map((x) => ({ x, y: derivedOfMandates(report, x) }));
  const measured = report.mandates.map((run) => ({ x: run.mandates, y: each(run) }));
  return flat(`Gas a payment over mandates, ${report.each} payments each`, "mandates settled in one go", [
    { name: "derived", points: derived, derived: true },
    { name: "measured", points: measured, main: true },
  ]);
}

/** Gas a payment of full batches, each of all agents, until `count` payments are settled; the last may be part empty. */
function derivedOfPayments(report: Report, count: number): number {
  const { workload } = report.workloads[0]!;
  const full = Math.max(...report.sizes.map(capacity));
  return (predictOurs(report, workload)(full) * Math.ceil(count / full)) / count;
}

/** Gas a payment of so many mandates that fill a segment each. */
function derivedOfMandates(report: Report, agents: number): number {
  const payments = agents * report.each;
  return predictOurs(report, { ...report.workloads[0]!.workload, agents })(payments) / payments;
}

function flat(title: string, x: string, series: Series[]): Chart {
  const subtitle = "measured: batches in a row on a local node; derived: from the cost of a batch, a row and a credit";
  return { title, subtitle, x, y: "gas a payment", series };
}

/** The page, docs/peers.md. */
export function pageOf(report: Report): string {
  const { workloads, sizes, costs } = report;
  return `# Beside the peers
Written by \`npm run bench:peers\`, which measures everything again: one local node, one token, the same agents, payees and
payments for all. Gas and bytes are exact. Circuits at hand: ${sizes.map((size) => `\`${size.name}\``).join(", ")}; a
batch takes the smallest that holds it, several batches when none does.

What stands beside Bursar, from [contracts/mocks/peers](../contracts/mocks/peers), written for this page, lean, without what a settlement does not need:

${table(
  ["scheme", "what is signed", "what settles", "what it leaves to trust, or out"],
  [
    ["ERC-20 transfer", "a transaction a payment", "itself", "the agent holds the money and its gas"],
    ["EIP-3009", "an authorization a payment", "a transaction each, or 200 in a loop", "the agent holds the money"],
    [
      "debit wallet, as AEP2",
      "a debit a payment",
      "a transaction each, or 200 at once; payees are credited, AEP2's own pays each by a transfer, which costs more",
      "the deposit must outlast the debits",
    ],
    [
      LEAN,
      "the total owed to one payee",
      "the latest voucher of every pair that paid; one credit a payee",
      "withdrawals; a deposit for each pair is locked",
    ],
    [
      SHAPE,
      "the same, over the hash of the channel's terms",
      "as x402's `batch-settlement`: terms in the calldata, the payees' side agrees, an event a channel",
      "refunds and withdrawals; a deposit for each pair is locked",
    ],
    [OURS, "a payment", "one proof for all; a row an agent, a credit a payee", "see [security.md](security.md)"],
  ],
)}

All figures are of a steady state: every pair has paid, every payee holds the token and has a credit. The first time and the
payout of credits are apart, below. A scheme of a transaction a payment was measured over ${SINGLES} of them, and its other counts
follow from that; every other figure is of real transactions, ${MOST_ITEMS} items in one at most.

${workloads.map((workload) => workloadSection(workload)).join("\n\n")}

## From how many payments
Where Bursar costs less gas than each peer, by the number of payments between two settlements. Below, the fixed cost of a
proof is shared by too few; above, where there is an end, vouchers win again: they cost by the pair, whatever was paid, so
the longer a payee waits the less they cost, and between one agent and one payee nothing beats them. Computed for every count to 3,000, then in steps of 1 % to a million.

${table(
  ["", ...workloads.map(({ workload }) => workload.name)],
  workloads[0]!.peers.map(({ name }, peer) => [
    name,
    ...workloads.map((one) => rangeOf(report, one.workload, one.peers[peer]!)),
  ]),
)}

A peer's cost between the measured counts is on the straight line through them. Ours follows from measured unit costs, ${Math.round(costs.batch)} gas a
batch, ${Math.round(costs.row)} a row, ${Math.round(costs.credit)} a credit; against the measured points they are off by at most ${workloads.map((one) => `${(worstError(report, one) * 100).toFixed(1)} % (${one.workload.name})`).join(", ")}.

${flatSection(report)}

${firstSection(report)}

${publishedSection(workloads[0]!)}

${dollarSection(workloads[0]!)}

${targetSection(workloads[0]!)}
`;
}

function workloadSection({ workload, ours, peers }: WorkloadReport): string {
  const counts = ours.points.map(({ payments }) => payments);
  const line = (name: string, points: readonly Point[]): string[] => [
    name,
    ...points.map((point) => whole(each(point))),
  ];
  return `## ${workload.name}
${sidesOf(workload)}. Gas a payment, by payments between two settlements:

![Gas a payment, ${workload.name}](charts/${chartFile(workload)})

${table(
  ["", ...counts.map(String)],
  [
    line(`**${OURS}**`, ours.points),
    ["its batches", ...ours.points.map(circuitsOf)],
    ...peers.map(({ name, points }) => line(name, points)),
  ],
)}`;
}

function rangeOf(report: Report, workload: Workload, peer: PeerReport): string {
  const counts = countsToCompare();
  const range = cheaperRange(counts, predictOurs(report, workload), (count) =>
    interpolate([peer.one, ...peer.points], count),
  );
  if (!range) return "never";
  return range.to === counts.at(-1) ? `from ${range.from}` : `${range.from} to ${range.to}`;
}

/** The greatest difference between a measured point of ours and what the unit costs say. */
function worstError(report: Report, { workload, ours }: WorkloadReport): number {
  const predict = predictOurs(report, workload);
  return Math.max(...ours.points.map(({ payments, gas }) => Math.abs(predict(payments) / gas - 1)));
}

function flatSection(report: Report): string {
  const { workload } = report.workloads[0]!;
  const rows = (
    measured: readonly (readonly [number, number])[],
    further: readonly number[],
    derived: (count: number) => number,
  ): string[][] => [
    ...measured.map(([count, gas]) => [String(count), whole(gas), whole(derived(count))]),
    ...further.map((count) => [String(count), "", whole(derived(count))]),
  ];
  const payments = report.payments.map((run) => [run.payments, each(run)] as const);
  const mandates = report.mandates.map((run) => [run.mandates, each(run)] as const);
  return `## Flat
A batch costs the same whichever it is, so a payment costs the same however many there were. Full batches of ${workload.agents} agents to
${workload.payees} payees in a row, measured, and what the unit costs say of more; where the last batch is part empty a payment costs more:

![Gas a payment over payments settled](charts/flat-payments.svg)

${table(
  ["payments settled", "measured", "derived"],
  rows(payments, [1_000, 10_000, 100_000, 1_000_000], (count) => derivedOfPayments(report, count)),
)}

The same over mandates that make ${report.each} payments each, which is one segment of the circuit, to ${workload.payees} payees:

![Gas a payment over mandates](charts/flat-mandates.svg)

${table(
  ["mandates", "measured", "derived"],
  rows(mandates, [1_000, 10_000], (count) => derivedOfMandates(report, count)),
)}`;
}

function firstSection(report: Report): string {
  const { workload, ours, peers } = report.workloads[0]!;
  const pairs = workload.agents * workload.payees;
  const again = (points: readonly Point[]): string => String(near(points, pairs).gas);
  const credited = peers.filter(({ payOut }) => payOut !== undefined && payOut > 0);
  return `## The first time, and the payout
${workload.name}, one payment a pair: ${pairs} payments. Set-up is approvals, deposits and openings in all: one deposit a pair for
channels, one an agent for the wallet, one in all and an opening a mandate for Bursar.

${table(
  ["", "set-up", "first settlement", "the same again"],
  [
    [OURS, String(ours.setUp), String(report.first), again(ours.points)],
    ...peers
      .filter(({ setUp, first }) => setUp > 0 && first !== undefined)
      .map(({ name, setUp, first, points }) => [name, String(setUp), String(first), again(points)]),
  ],
)}

ERC-20 and EIP-3009 need no set-up here. A payee that never held the token costs whoever first pays it 17,100 gas more.

Bursar, the wallet and the channels credit payees; a payee, or anyone for it, takes the credit out when it wishes, by one
transfer:

${table(
  [
    "",
    "gas a payout",
    ...[200, 2_000].map(
      (count) => `gas a payment at ${near(ours.points, count).payments}, every payee paid out each time`,
    ),
  ],
  [{ name: OURS, points: ours.points, payOut: ours.payOut }, ...credited].map(({ name, points, payOut }) => [
    name,
    String(Math.round(payOut!)),
    ...[200, 2_000].map((count) => {
      const point = near(points, count);
      return whole((point.gas + payOut! * workload.payees) / point.payments);
    }),
  ]),
)}`;
}

function publishedSection({ peers }: WorkloadReport): string {
  const shape = peers.find(({ name }) => name === SHAPE)!;
  const lean = peers.find(({ name }) => name === LEAN)!;
  const further = (PUBLISHED.claimTen - PUBLISHED.claimOne) / 9;
  const furtherOf = ({ one, points }: PeerReport): number => (points[0]!.gas - one.gas) / (points[0]!.payments - 1);
  return `## Published figures
x402's own contract, [its gas snapshot](${PUBLISHED.source}), read in ${ASSUMED.on}. It counts
execution alone, without the 21,000 and the calldata of a transaction, and its channels were touched before in the same test, which
leaves out about 5,000 a channel; its claim of one credits a new payee, which adds 17,100. Ours are whole transactions at a steady
state. On Base a payout was [seen at about 57,000](https://github.com/x402-foundation/x402/pull/2375).

${table(
  ["", "published", "x402's shape, here", "lean, here"],
  [
    ["each further channel in a claim", Math.round(further), Math.round(furtherOf(shape)), Math.round(furtherOf(lean))],
    ["claim of one channel", PUBLISHED.claimOne, Math.round(shape.one.gas), Math.round(lean.one.gas)],
    ["payout of a payee", PUBLISHED.settle, Math.round(shape.payOut!), Math.round(lean.payOut!)],
    ["ERC-20 transfer", PUBLISHED.transfer, Math.round(peers[0]!.one.gas), ""],
  ],
)}`;
}

function dollarSection({ workload, ours, peers }: WorkloadReport): string {
  const { networks, etherPrice, on } = ASSUMED;
  const schemes = [{ name: `**${OURS}**`, points: ours.points }, ...peers];
  const cost = (network: Network, points: readonly Point[]): number => {
    const point = near(points, 2_000);
    return dollars(network, etherPrice, point.gas, point.bytes) / point.payments;
  };
  const { payments } = near(ours.points, 2_000);
  return `## Dollars
Assumed, ${on}: ether at $${etherPrice}; ${networks.map(({ name, gasPrice, bytePrice }) => `${name} ${gasPrice} gwei a gas${bytePrice ? ` and ${bytePrice} gwei a byte for Ethereum` : ""}`).join("; ")}.
Bytes are what does not compress: the calldata's bytes that are not zero, and 110 for a transaction's signature and fields. With
other prices, change [the assumptions](../scripts/bench/peers/assumptions.ts). ${workload.name}, settled every ${payments} payments, payouts not counted:

${table(
  ["", "bytes a payment", ...networks.flatMap(({ name }) => [`${name}: a payment`, "1,000,000"])],
  schemes.map(({ name, points }) => [
    name,
    whole(near(points, 2_000).bytes / payments),
    ...networks.flatMap((network) => {
      const one = cost(network, points);
      return [`$${one.toPrecision(2)}`, `$${money(one * 1e6)}`];
    }),
  ]),
)}`;
}

const money = (value: number): string => (value < 100 ? value.toFixed(2) : Math.round(value).toLocaleString("en"));

function targetSection({ ours, peers }: WorkloadReport): string {
  const point = near(ours.points, 2_000);
  const mine = each(point);
  const times = (name: string): number => each(near(peers.find((peer) => peer.name === name)!.points, 2_000)) / mine;
  const verdict = (met: boolean): string => (met ? "met" : "**not met**");
  return `## Targets
${table(
  ["20 x 20, about 2,000 payments", "target", "measured", ""],
  [
    [`gas a payment at ${point.payments} (${circuitsOf(point)})`, "under 500", whole(mine), verdict(mine < 500)],
    [
      "vouchers in x402's shape cost",
      "8 times as much",
      `${times(SHAPE).toFixed(1)} times`,
      verdict(times(SHAPE) >= 8),
    ],
    ["lean vouchers cost", "8 times as much", `${times(LEAN).toFixed(1)} times`, verdict(times(LEAN) >= 8)],
  ],
)}`;
}
