import { Agent } from "@bursar/sdk/agent";
import { fileBook } from "@bursar/sdk/agent/node";
import { id } from "ethers";

import { addressOf, ANYTHING, DOMAIN, draftMandate, keyOf, NOW } from "../../relayer/office.ts";

/** Pays until it is killed: `pays-forever.ts <processor> <book>`. */
const [processor = "", book = ""] = process.argv.slice(2);
const agent = new Agent({
  key: keyOf("alice"),
  processor,
  domain: DOMAIN,
  mandate: draftMandate(addressOf("alice")),
  terms: ANYTHING,
  book: fileBook(book),
  patience: { attempts: 1_000, pause: 1, longest: 5 },
  surroundings: { now: () => NOW },
});
for (;;) await agent.pay({ payee: addressOf("payee"), amount: 3n, ref: id(String(process.pid)) });
