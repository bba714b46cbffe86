import { writeSync } from "node:fs";

import { AgentLedger, signWithKey, hashPayment, type Hex, type SignedPayment } from "@bursar/protocol";
import { id, ZeroHash } from "ethers";

import { Books } from "./books.ts";

/**
 * Four agents that pay side by side from the books at the path given, without end. Each begins with the last payment in
 * the books, as a client would whose answer was lost, and tells every receipt that it gets. The parent kills it at some
 * moment: whatever was told must be in the books, and be told again byte for byte.
 */
const [path = ""] = process.argv.slice(2);
const { domain, store, processor, open } = await Books.open(path);
const payee = "0x00000000000000000000000000000000000000D4";

async function payOn(name: string): Promise<never> {
  const { address: agent, privateKey } = await open(name);
  const last = await store.lastPayment(agent);
  if (last !== undefined) await tell(last);
  const state = { ...(await processor.tail(agent)).position, pending: null };
  const ledger = new AgentLedger({ domain, agent, secret: id(agent) as Hex, state });
  for (;;) {
    const { payment, salt } = ledger.draft({ payee, amount: 1n, ref: ZeroHash as Hex });
    await tell({ agent, payment, salt, signature: signWithKey(hashPayment(domain, payment), privateKey) });
    ledger.commit();
  }
}

async function tell(request: SignedPayment): Promise<void> {
  const { receipt, signature } = await processor.accept(request);
  writeSync(1, `${receipt.agent} ${receipt.seq} ${signature}\n`);
}

writeSync(1, "ready\n");
await Promise.all(["Ada", "Ben", "Cleo", "Dan"].map(payOn));
