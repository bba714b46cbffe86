import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Witness } from "@bursar/relayer";
import { memoryBook, memoryReceipts, type AgentSettings } from "@bursar/sdk/agent";
import { fileReceipts } from "@bursar/sdk/agent/node";
import { expect } from "chai";
import { id } from "ethers";

import { copyBooks } from "../../relayer/backups.ts";
import { Office, refusalOf } from "../../relayer/office.ts";
import { Market, PAYEE } from "./market.ts";

const bill = (amount: bigint): { payee: string; amount: bigint; ref: string } => ({
  payee: PAYEE,
  amount,
  ref: id(`bill ${amount}`),
});

describe("agents of a processor whose books were restored from a backup", function () {
  this.timeout(60_000);
  let folder: string;
  let market: Market;
  let witness: Witness;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "bursar-agents-"));
    await open("books.db");
  });
  afterEach(async () => {
    await close();
    rmSync(folder, { recursive: true });
  });

  async function open(books: string): Promise<void> {
    witness = Witness.open(join(folder, "witness"));
    market = await Market.open(await Office.open(join(folder, books), { witness }));
  }

  async function close(): Promise<void> {
    await market.close();
    witness.close();
  }

  interface Kept {
    readonly alice: AgentSettings;
    readonly bob: AgentSettings;
  }

  const keeping = (name: string): AgentSettings => ({
    book: memoryBook(),
    receipts: name === "alice" ? memoryReceipts() : fileReceipts(join(folder, `${name}.jsonl`)),
  });

  /** Both pay before the backup and after it, and the backup comes back. */
  async function putBack(): Promise<Kept> {
    const kept = { alice: keeping("alice"), bob: keeping("bob") };
    await (await market.agent("alice", kept.alice)).pay(bill(1n));
    await close();
    await copyBooks(join(folder, "books.db"), join(folder, "backup.db"));
    await open("books.db");
    for (let n = 2n; n <= 10n; ++n) await (await market.agent("alice", kept.alice)).pay(bill(n));
    // The backup does not know this agent at all.
    for (let n = 1n; n <= 3n; ++n) await (await market.agent("bob", kept.bob)).pay(bill(n));
    await close();
    await open("backup.db");
    return kept;
  }

  it("hand back by themselves what it has forgotten, and go on when all have", async () => {
    const kept = await putBack();
    const alice = await market.agent("alice", kept.alice);
    const refusal = await refusalOf(() => alice.pay(bill(11n)));
    expect(refusal.code).to.equal("books-behind");
    expect(refusal.details).to.deep.equal({ value: "10", limit: "13" });
    expect(await market.paid(alice)).to.have.length(10);
    const bob = await market.agent("bob", kept.bob);
    expect((await bob.pay(bill(4n))).receipt.receipt).to.include({ seq: 4n, logIndex: 13n });
    // What waited goes first, and is what the same purchase gets.
    expect((await alice.pay(bill(11n))).receipt.receipt).to.include({ seq: 11n, logIndex: 14n });
    expect(await market.paid(alice)).to.have.length(11);
  });

  it("do so on recovery too, where they have nothing to pay", async () => {
    const kept = await putBack();
    await (await market.agent("bob", kept.bob)).recover();
    await (await market.agent("alice", kept.alice)).recover();
    expect(await market.office.processor.completeness()).to.deep.equal({ promised: 13, missing: 0 });
  });

  it("keep receipts until their page is settled", async () => {
    const kept = await putBack();
    const alice = await market.agent("alice", kept.alice);
    await alice.recover();
    await alice.sync();
    expect(await kept.alice.receipts!.all()).to.have.length(10);
    const { payment } = (await kept.alice.receipts!.all())[6]!;
    const settled = { base: BigInt(payment.payment.head), seq: 8n, spent: payment.payment.spent };
    await market.office.store.setSettled(alice.address, settled);
    await alice.sync();
    expect((await kept.alice.receipts!.all()).map((paid) => paid.payment.payment.seq)).to.deep.equal([8n, 9n, 10n]);
  });
});
