import type { Hex } from "@bursar/protocol";

import { addressOf, Office } from "./office.ts";

/** A key whose machine loses power the moment it is asked for a receipt: after the commit, before the answer. */
const key = {
  address: addressOf("processor"),
  sign: (): Hex => {
    process.kill(process.pid, "SIGKILL");
    throw new Error("it outlived its death");
  },
};

const [path = ""] = process.argv.slice(2);
const office = await Office.open(path, { key });
const agent = await office.agent("cut off");
await agent.pay(addressOf("shop"), 5n);
