import { writeSync } from "node:fs";

import { Office } from "./office.ts";

/**
 * Accepts payments at the path given, without end, and tells each receipt only when it has it. The parent kills it at
 * some moment: whatever was told must then be in the books.
 */
const [path = ""] = process.argv.slice(2);
const office = await Office.open(path);
const agent = await office.agent("steady", { budget: 1_000_000n });
for (;;) {
  const { receipt } = await agent.pay(agent.address, 1n);
  writeSync(1, `${receipt.seq} ${receipt.logIndex} ${receipt.head}\n`);
}
