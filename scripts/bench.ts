import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { circuitSize, circuitSizes, ROOT } from "@bursar/prover";
import { curves } from "snarkjs";

import { measureAcceptance, type AcceptanceReport } from "./bench/acceptance.ts";
import { measureGas, type GasReport } from "./bench/gas.ts";
import { backends, measureInclusion, measureProof, type ProofReport } from "./bench/proofs.ts";

const USAGE = `usage: npm run bench -- [--quick] [--proofs] [--json] [--payments <number>]

Measures gas, proofs and acceptance on this machine and writes docs/benchmarks.md.
--quick leaves the optional circuits out and writes nothing.
--proofs measures proofs alone and writes nothing.
--payments is how many the processor's memory is watched over, 1000000 unless given.`;

const { values } = parseArgs({
  options: {
    quick: { type: "boolean" },
    proofs: { type: "boolean" },
    payments: { type: "string", default: "1000000" },
    json: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  },
});
const sizes = values.quick ? ["tiny", "default"].map(circuitSize) : circuitSizes();
if (values.help) {
  console.log(USAGE);
} else if (values.proofs) {
  const proofs = await measureProofs();
  console.log(values.json ? JSON.stringify(proofs) : proofTable(proofs));
} else {
  say("acceptance");
  const acceptance = await measureAcceptance(values.quick ? 20_000 : Number(values.payments), say);
  const proofs = await measureProofs();
  const gas = await measureGas(sizes.at(-1)!, say);
  const report = { gas, proofs, acceptance };
  const text = page(report);
  if (values.json)
    console.log(
      JSON.stringify(report, (_key, value: unknown) => (typeof value === "bigint" ? value.toString() : value)),
    );
  else console.log(text);
  if (!values.quick) writeFileSync(`${ROOT}/docs/benchmarks.md`, text);
  await (await curves.getCurveFromName("bn128")).terminate();
}

function say(text: string): void {
  console.error(`… ${text}`);
}

async function measureProofs(): Promise<ProofReport[]> {
  const proofs: ProofReport[] = [];
  for (const size of sizes) {
    for (const backend of backends()) {
      say(`proof of ${size.name} by ${backend.name}`);
      proofs.push(await measureProof(size, backend), await measureInclusion(size, backend));
    }
  }
  return proofs;
}

function proofTable(proofs: readonly ProofReport[]): string {
  // A proof of inclusion shows one payment, however many there are.
  const rateOf = ({ circuit, rate }: ProofReport): string => (circuit.endsWith("-inclusion") ? "" : rate.toFixed(0));
  const lines = proofs.map(
    (p) =>
      `| ${p.circuit} | ${p.backend} | ${p.constraints} | ${p.payments} | ${(p.constraints / p.payments).toFixed(1)} | ${(p.milliseconds / 1_000).toFixed(1)} s | ${rateOf(p)} | ${p.memory.toFixed(0)} MiB | ${Math.round(p.poseidons)} |`,
  );
  return `| circuit | prover | constraints | payments | constraints a payment | witness, proof, check | payments a second | peak memory | in Poseidon hashes of two elements (one core, poseidon-lite) |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
${lines.join("\n")}`;
}

function page({
  gas,
  proofs,
  acceptance,
}: {
  gas: GasReport;
  proofs: ProofReport[];
  acceptance: AcceptanceReport;
}): string {
  const { full } = gas;
  const at = (rows: number, credits: number): bigint =>
    gas.table.find((cell) => cell.rows === rows && cell.credits === credits)!.gas;
  const rowCounts = [...new Set(gas.table.map(({ rows }) => rows))];
  const creditCounts = [...new Set(gas.table.map(({ credits }) => credits))];
  const mostRows = Math.max(...rowCounts);
  const mostCredits = Math.max(...creditCounts);
  const perRow = (at(mostRows, 1) - at(1, 1)) / BigInt(mostRows - 1);
  const perCredit = (at(1, mostCredits) - at(1, 1)) / BigInt(mostCredits - 1);
  const fresh = (full.first - full.steady) / BigInt(full.credits);
  const rest = full.steady - perRow * BigInt(full.rows) - perCredit * BigInt(full.credits);
  const each = (total: bigint, payments = full.payments): bigint => total / BigInt(payments);
  const times = (reference: bigint, total: bigint, payments = full.payments): string =>
    (Number(reference) / Number(each(total, payments))).toFixed(1);
  const workloadRow = ({ payments, agents, payees, circuit, gas: total }: GasReport["workloads"][number]): string =>
    `| ${payments} | ${agents} | ${payees} | ${circuit} | ${total} | **${each(total, payments)}** | ${times(gas.transfer, total, payments)} times as much |`;
  const us = (microseconds: number): string => `${microseconds.toFixed(0)} µs`;
  const recoveries = (microseconds: number): string => ((microseconds * acceptance.recover) / 1e6).toFixed(1);
  const share = (part: bigint): string => `${Math.round((Number(part) * 100) / Number(full.steady))} %`;
  return `# Benchmarks
Written by \`npm run bench\`, which measures everything again on the machine it runs on (about an hour; it builds the
optional circuits first). Gas and constraints are exact. Times are of a machine with 2 shared cores, Node ${process.versions.node.split(".")[0]}: take them as
ratios beside the reference of the same run.

## Gas
The fullest batch, circuit \`${full.circuit}\`: ${full.payments} payments of ${full.rows} agents to ${full.credits} payees, one transaction, one proof.

| | gas in all | gas a payment | an ERC-20 transfer costs |
| --- | --- | --- | --- |
| payees known, as in every batch but their first | ${full.steady} | **${each(full.steady)}** | ${times(gas.transfer, full.steady)} times as much |
| after each payee took its credit out | ${full.afterPayout} | ${each(full.afterPayout)} | ${times(gas.transfer, full.afterPayout)} times |
| all payees new: a storage slot each | ${full.first} | ${each(full.first)} | ${times(gas.transfer, full.first)} times |

Other batches between known payees:

| payments | agents | payees | circuit | gas in all | gas a payment | an ERC-20 transfer costs |
| --- | --- | --- | --- | --- | --- | --- |
${gas.workloads.map(workloadRow).join("\n")}

What dominates it, by differences between batches of the table below:

| part | gas | share |
| --- | --- | --- |
| ${full.rows} rows: signature, four slots read, two written, event, calldata | ${perRow} each | ${share(perRow * BigInt(full.rows))} |
| the proof: pairing check of the verifier | ${gas.verifier} | ${share(gas.verifier)} |
| ${full.credits} credits to known payees | ${perCredit} each | ${share(perCredit * BigInt(full.credits))} |
| transaction, transcript slot, batch event, the rest | ${rest - gas.verifier} | ${share(rest - gas.verifier)} |
| a credit to a new payee, besides | ${fresh} each | |

In the same run:

| | gas |
| --- | --- |
| ERC-20 transfer to a holder | ${gas.transfer} |
| ERC-20 transfer to a new holder | ${gas.transferToNew} |
| EIP-3009 transferWithAuthorization to a holder | ${gas.authorization} |
| \`Escrow.deposit\` | ${gas.deposit} |
| \`MandateRegistry.open\` | ${gas.open} |

\`BatchSettlement.settle\`, rows of 21 payments, payees known:

| rows \\ credits | ${creditCounts.join(" | ")} |
| --- | ${creditCounts.map(() => "---").join(" | ")} |
${rowCounts.map((rows) => `| ${rows} | ${creditCounts.map((credits) => at(rows, credits)).join(" | ")} |`).join("\n")}

## Proofs
${proofTable(proofs)}

A line takes 93 constraints: 80 for the two ranges of its amount, 8 for the payee list, 5 for flags, line and evaluation; its
share of the page hash 60, of the commitment 7, of its row's policy and evaluation the rest. Two things keep it below the target of
230 and 190: flags are one-hot, so that one constraint a slot makes them boolean and ordered at once, and an unused slot carries any
allowed payee and is hashed as zero, so that the payee list needs no extra gate. The \`-inclusion\` circuits show one line of what a batch of
the size before it settled, to answer a challenge.

## Acceptance
One processor, 64 agents side by side: signature, decision, disk sync, receipt. The reference is one recovery by libsecp256k1
in the same run: ${acceptance.recover.toFixed(0)} a second on one core, ${us(1e6 / acceptance.recover)}.

| | measured | target | in recoveries |
| --- | --- | --- | --- |
| accepted over HTTP, load and processor on the same 2 cores | ${acceptance.http.rate.toFixed(0)} a second | 2,500 | |
| CPU of the processor for each of them | ${us(acceptance.http.cpu)} | 5 recoveries | ${recoveries(acceptance.http.cpu)} |
| accepted in process | ${acceptance.inProcess.rate.toFixed(0)} a second | | |
| CPU for each of them | ${us(acceptance.inProcess.cpu)} | | ${recoveries(acceptance.inProcess.cpu)} |
| latency over HTTP at ${acceptance.latency.rate} a second, median | ${acceptance.latency.p50.toFixed(1)} ms | | |
| the same, 99th percentile | ${acceptance.latency.p99.toFixed(1)} ms | 20 ms | |
| a payee's offline check of header, payment and receipt | ${us(acceptance.verification)} | 300 µs | ${recoveries(acceptance.verification)} |
| page hash (Poseidon of 9) | ${us(1e6 / acceptance.pageHash)} | | ${recoveries(1e6 / acceptance.pageHash)} |

In the same run ${acceptance.insert.toFixed(0)} rows were inserted and synced a second, one a transaction.

Resident memory of the processor over ${acceptance.memory.payments} payments:

| payments | MiB |
| --- | --- |
${acceptance.memory.points.map(({ payments, resident }) => `| ${payments} | ${resident.toFixed(0)} |`).join("\n")}
`;
}
