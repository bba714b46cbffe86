import { createServer, loadPageHash, silent, Store } from "@bursar/relayer";

import { processorOn, recordOf } from "./load.ts";

/** A processor that serves alone in its process, so that what it uses can be told: `[url, agents]`, then "usage". */
const [url = "", agents = "1"] = process.argv.slice(2);
const store = await Store.open(url);
await store.transact(async () => {
  for (let agent = 0; agent < Number(agents); ++agent) await store.addMandate(recordOf(agent));
});
let commits = 0;
let committing = 0;
const processor = processorOn({
  store,
  hashPage: await loadPageHash(),
  events: {
    ...silent,
    committed: (_requests, milliseconds) => {
      ++commits;
      committing += milliseconds;
    },
  },
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
