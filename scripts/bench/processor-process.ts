import { createServer, loadPageHash, Processor, receiptKey, silent, Store } from "@bursar/relayer";

import { DOMAIN, PROCESSOR, recordOf } from "./load.ts";

/** A processor that serves alone in its process, so that what it uses can be told: `[url, agents]`, then "usage". */
const [url = "", agents = "1"] = process.argv.slice(2);
const store = await Store.open(url);
await store.transact(async () => {
  for (let agent = 0; agent < Number(agents); ++agent) await store.addMandate(recordOf(agent));
});
const nothing = (): Promise<never> => Promise.reject(new Error("the benchmark asks no chain"));
let commits = 0;
let committing = 0;
const processor = new Processor({
  domain: DOMAIN,
  store,
  chain: { mandate: nothing, revocations: nothing },
  key: receiptKey(PROCESSOR),
  settleWithin: 3_600n,
  hashPage: await loadPageHash(),
  events: {
    ...silent,
    committed: (_requests, milliseconds) => {
      ++commits;
      committing += milliseconds;
    },
  },
  now: () => BigInt(Math.floor(Date.now() / 1_000)),
});
const server = createServer(processor);
const listening = await server.listen({ host: "127.0.0.1", port: 0 });
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  globalThis.gc?.();
  process.send!({ cpu: user + system, memory: process.memoryUsage().rss, commits, committing });
});
process.on("SIGINT", () => process.exit(0));
process.send!({ url: listening });
