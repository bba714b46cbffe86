import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { encodePaymentHeader, toWire, type Address, type PaidRequest, type SignedReceipt } from "@bursar/protocol";
import { Keyring, Processor, receiptKey, Store } from "@bursar/relayer";
import { expect } from "chai";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { LocalNode } from "../../scripts/demo/node.ts";
import { addressOf } from "./office.ts";

describe("bursar with restored books", function () {
  this.timeout(120_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-restore-cli-"));
  const home = join(folder, "home");
  let node: LocalNode;

  before(async () => {
    node = await LocalNode.start();
  });
  after(() => {
    node.stop();
    rmSync(folder, { recursive: true });
  });

  interface Run {
    code: number;
    out: string;
    err: string;
  }

  async function bursar(...argv: string[]): Promise<Run> {
    const run: Run = { code: -1, out: "", err: "" };
    const place = ["--rpc", node.url, "--home", home, "--deployments", join(folder, "deployments")];
    run.code = await main([...place, ...argv], {
      out: (text) => (run.out += `${text}\n`),
      err: (text) => (run.err += `${text}\n`),
    });
    return run;
  }

  async function answer<T>(...argv: string[]): Promise<T> {
    const { code, out, err } = await bursar("--json", ...argv);
    expect(code, err).to.equal(0);
    return JSON.parse(out) as T;
  }

  it("says what is missing, takes it back from files, and gives up the rest when it is told to", async () => {
    const { registry } = await answer<{ registry: Address }>("deploy");
    await answer("deposit", "1.00");
    await answer("bond", "post", "10000", "--uri", "https://processor.test");
    const open = ["mandate", "open", "--budget", "0.01", "--cap", "0.001", "--purpose", "tests", "--yes"];
    const { agent } = (await answer<{ mandate: { agent: Address } }>(...open)).mandate;
    const pay = (memo: string): Promise<Run> => bursar("pay", agent, addressOf("shop"), "0.0001", "--memo", memo);
    const books = join(home, `processor-31337-${registry.slice(2, 10)}.db`);
    expect((await pay("tea")).code).to.equal(0);
    copyFileSync(books, join(folder, "backup.db"));
    for (const memo of ["cake", "jam", "milk"]) expect((await pay(memo)).code).to.equal(0);
    expect(await answer("books", "check")).to.deep.equal({ promised: 4, missing: 0 });

    // What the agent kept, in the forms that it may be kept in.
    const [cake, jam] = await paidOf(books, registry, agent, [2n, 3n]);
    writeFileSync(join(folder, "cake.json"), JSON.stringify(toWire(cake), null, 2));
    writeFileSync(join(folder, "headers.txt"), `${encodePaymentHeader(jam!)}\n`);
    for (const end of ["", "-wal", "-shm"]) rmSync(books + end, { force: true });
    copyFileSync(join(folder, "backup.db"), books);

    expect((await bursar("books", "check")).out).to.match(/^3 of 4 receipts are missing/);
    const refused = await pay("bread");
    expect(refused.code).to.equal(3);
    expect(refused.err).to.contain("bursar: books-behind: ");
    expect((await bursar("receipts", "restore", join(folder, "headers.txt"))).out).to.match(/sequence-gap/);
    const files = ["cake.json", "headers.txt"].map((file) => join(folder, file));
    expect(await answer("receipts", "restore", ...files)).to.deep.equal({
      taken: 2,
      failed: [],
      promised: 4,
      missing: 1,
    });

    expect((await pay("bread")).code).to.equal(3);
    const unsure = await bursar("books", "accept-loss");
    expect(unsure.code).to.equal(1);
    expect(unsure.err).to.contain("slashes the bond").and.to.contain("--yes");
    expect((await pay("bread")).code).to.equal(3);
    expect(await answer("books", "accept-loss", "--yes")).to.deep.equal({ lost: 1 });
    expect(await answer("books", "accept-loss", "--yes")).to.deep.equal({ lost: 0 });
    // The agent has the number of the lost payment behind it: what it signed does not follow.
    expect((await pay("bread")).err).to.contain("sequence-gap");
  });

  async function paidOf(books: string, registry: Address, agent: Address, seqs: bigint[]): Promise<PaidRequest[]> {
    const domain = { chainId: 31_337n, registry };
    const store = await Store.open(books);
    const key = receiptKey(await new Keyring(join(home, "keys"), "", true).load("processor"));
    const nothing = (): Promise<never> => Promise.reject(new Error("there is no chain"));
    const chain = { mandate: nothing, revocations: nothing };
    const processor = new Processor({ domain, store, chain, key, settleWithin: 3_600n, now: () => 0n });
    try {
      return await Promise.all(
        seqs.map(async (seq) => {
          const { payment, signature, salt } = (await store.payment(agent, seq))!;
          const receipt = (await processor.receipt(agent, seq)) as SignedReceipt;
          return { domain, payment: { agent, payment, signature, salt }, receipt };
        }),
      );
    } finally {
      await store.close();
    }
  }
});
