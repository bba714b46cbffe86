import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

import { loadPageHash, startTracing, Store } from "@bursar/relayer";

import { processorOn, recordOf, signAll } from "./load.ts";

const [AGENTS, EACH, ROUNDS] = [64, 40, 5];

/**
 * What traces cost a payment: microseconds of CPU to accept one with every payment traced and sent to a collector, beside the
 * same without. Run it alone: `node --import tsx scripts/bench/tracing.ts`.
 */
const collector = createServer((request, response) => request.resume().on("end", () => response.end("{}")));
await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
const hashPage = await loadPageHash();
const url = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = url;

await microseconds();
const rounds: { off: number; on: number }[] = [];
for (let round = 0; round < ROUNDS; ++round) {
  const off = await microseconds();
  const tracing = await startTracing();
  const on = await microseconds();
  await tracing!.stop();
  rounds.push({ off, on });
}
collector.closeAllConnections();
collector.close();
const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
const [off, on] = [median(rounds.map((round) => round.off)), median(rounds.map((round) => round.on))];
console.log(`off ${off.toFixed(0)} µs, on ${on.toFixed(0)} µs: ${(on / off).toFixed(2)} times`);

/** Of CPU a payment, fresh books and all. */
async function microseconds(): Promise<number> {
  const store = await Store.open(":memory:");
  for (let agent = 0; agent < AGENTS; ++agent) await store.addMandate(recordOf(agent));
  const processor = processorOn({ store, hashPage });
  const queues = signAll(AGENTS, EACH, hashPage);
  const before = process.cpuUsage();
  await Promise.all(
    queues.map(async (queue) => {
      for (const signed of queue) await processor.accept(signed);
    }),
  );
  const { user, system } = process.cpuUsage(before);
  await store.close();
  return (user + system) / (AGENTS * EACH);
}
