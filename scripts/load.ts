import { parseArgs } from "node:util";

import { LOAD_DEFAULTS, runLoad, type LoadReport } from "./load/run.ts";

const USAGE = `usage: npm run load -- [options]

Starts a local chain and the service, lets agents pay at a given rate, waits until everything is settled, and holds every
receipt against the books and the chain: nothing lost, nothing twice. Ends with 1 if anything does not agree.

--agents <number>       agents, each with a mandate (${LOAD_DEFAULTS.agents})
--payees <number>       payees (${LOAD_DEFAULTS.payees})
--rate <number>         payments a second, of all agents together (${LOAD_DEFAULTS.rate})
--seconds <number>      how long (${LOAD_DEFAULTS.seconds})
--replicas <number>     processes of the service; several share a PostgreSQL that is started for them (${LOAD_DEFAULTS.replicas})
--database <url>        an empty PostgreSQL database, or an SQLite file that is not there yet, for the books
--settle-every <number> seconds between batches; 0 settles nothing, and holds receipts against the books alone (${LOAD_DEFAULTS.settleEvery})
--generators <number>   processes that send payments (${LOAD_DEFAULTS.generators})
--roam                  send each payment of an agent to another replica, not only when the last did not answer
--kill                  kill -9 a process of the service every few seconds
--json                  the report as JSON
--help                  this`;

const { values } = parseArgs({
  options: {
    agents: { type: "string" },
    payees: { type: "string" },
    rate: { type: "string" },
    seconds: { type: "string" },
    replicas: { type: "string" },
    generators: { type: "string" },
    "settle-every": { type: "string" },
    database: { type: "string" },
    roam: { type: "boolean", default: false },
    kill: { type: "boolean", default: false },
    json: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  },
});

if (values.help) {
  console.log(USAGE);
} else {
  const { agents, payees, rate, seconds, replicas, generators } = LOAD_DEFAULTS;
  const report = await runLoad(
    {
      agents: count("agents", agents),
      payees: count("payees", payees),
      rate: count("rate", rate),
      seconds: count("seconds", seconds),
      replicas: count("replicas", replicas),
      generators: count("generators", generators),
      settleEvery: count("settle-every", LOAD_DEFAULTS.settleEvery, 0),
      roam: values.roam,
      kill: values.kill,
      database: values.database,
    },
    (text) => console.error(`… ${text}`),
  );
  console.log(values.json ? JSON.stringify(report, bigintsAsText, 2) : page(report));
  process.exitCode = failed(report) ? 1 : 0;
}

function count(name: keyof typeof values, otherwise: number, least = 1): number {
  const text = values[name];
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (Number.isInteger(value) && value >= least) return value;
  console.error(`--${name} is a whole number from ${least}, not «${text}»\n\n${USAGE}`);
  process.exit(2);
}

function failed({ reconciliation, refused, sent, accepted }: LoadReport): boolean {
  return reconciliation.faults.length > 0 || Object.keys(refused).length > 0 || sent !== accepted;
}

function bigintsAsText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}

function page(report: LoadReport): string {
  const { options, latency, cpu, reconciliation } = report;
  const ms = (value: number): string => `${value.toFixed(1)} ms`;
  const us = (value: number | undefined): string => (value === undefined ? "not told" : `${value.toFixed(0)} µs`);
  const refusals = Object.entries(report.refused).map(([code, times]) => `${times} ${code}`);
  const database = cpu.database === undefined ? "" : `, database ${us(cpu.database)}`;
  const lines: [string, string][] = [
    ["payments", `${report.sent} sent, ${report.accepted} receipts, ${refusals.join(", ") || "none"} refused`],
    ["sent again", `${report.repeated} times, ${report.kills} kills`],
    ["rate", `${report.rate.toFixed(0)} a second, of ${options.rate} asked for`],
    ["latency", `p50 ${ms(latency.p50)}, p99 ${ms(latency.p99)}, p99.9 ${ms(latency.p999)}, most ${ms(latency.most)}`],
    ["CPU a payment", `service ${us(cpu.service)}${database}, generator ${us(cpu.generator)}`],
    ["proofs", report.proving === undefined ? "not told" : `${report.proving.toFixed(1)} s of CPU`],
    ["memory", report.memory === undefined ? "not told" : `${report.memory.toFixed(0)} MiB at most, of one process`],
    ["disk", `${report.disk.toFixed(0)} bytes a payment`],
    ["backlog", `${report.backlog} payments when the load ended; settled ${report.settling.toFixed(0)} s later`],
    [
      "reconciled",
      `${reconciliation.receipts} receipts, ${reconciliation.payments} payments in the books, ${reconciliation.settled} settled in ${reconciliation.batches} batches, ${reconciliation.units} units`,
    ],
    ...reconciliation.faults.map((fault): [string, string] => ["FAULT", fault]),
    ["result", verdict(report)],
  ];
  return lines.map(([name, text]) => `${name.padEnd(14)} ${text}`).join("\n");
}

function verdict(report: LoadReport): string {
  if (failed(report)) return "NOT ALL AGREES";
  return report.options.settleEvery > 0
    ? "nothing lost, nothing twice"
    : "nothing lost, nothing twice in the books; nothing was to be settled";
}
