import { createServer, loadPageHash, Processor, receiptKey, Store } from "@bursar/relayer";

import { DOMAIN, PROCESSOR, recordOf } from "./load.ts";

/** A processor that serves alone in its process, so that what it uses can be told: `[path, agents]`, then "usage". */
const [path = "", agents = "1"] = process.argv.slice(2);
const store = await Store.open(path);
await store.transact(async () => {
  for (let agent = 0; agent < Number(agents); ++agent) await store.addMandate(recordOf(agent));
});
const nothing = (): Promise<never> => Promise.reject(new Error("the benchmark asks no chain"));
const processor = new Processor({
  domain: DOMAIN,
  store,
  chain: { mandate: nothing, revocations: nothing },
  key: receiptKey(PROCESSOR),
  settleWithin: 3_600n,
  hashPage: await loadPageHash(),
  now: () => BigInt(Math.floor(Date.now() / 1_000)),
});
const server = createServer(processor);
const url = await server.listen({ host: "127.0.0.1", port: 0 });
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  globalThis.gc?.();
  process.send!({ cpu: user + system, memory: process.memoryUsage().rss });
});
process.on("SIGINT", () => process.exit(0));
process.send!({ url });
