/** Shows one fixed payment to a paywall over an SQLite file; the handler kills the process, as `kill -9` would. */
import { SqliteReceipts } from "@bursar/sdk/payee/sqlite";
import { Wallet } from "ethers";

import { Buyer, Ledger, stall } from "./stand.ts";

const [path, key] = process.argv.slice(2);
const mandates = new Ledger();
const buyer = new Buyer(mandates, {}, new Wallet(key!));
const url = "https://api.example.com/weather";
const paywall = stall(mandates, { receipts: new SqliteReceipts(path!) });
const header = buyer.header({ url, amount: 250n });
const admission = await paywall.admit({ method: "GET", url, header, price: "0.00025" });
if (admission.kind === "serve") {
  process.stdout.write("handler\n", () => process.kill(process.pid, "SIGKILL"));
} else {
  const { code } = JSON.parse(admission.body ?? "{}") as { code: string };
  process.stdout.write(`${admission.status} ${code}\n`);
}
