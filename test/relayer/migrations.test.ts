import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { Store, type Book, type Database } from "@bursar/relayer";
import { expect } from "chai";

import { BOOKS } from "../../packages/relayer/src/books.ts";
import { openDatabase } from "../../packages/relayer/src/open-database.ts";
import { PAYMENTS_BOOK } from "../../packages/relayer/src/schema.ts";
import { storeUrl } from "./databases.ts";
import { addressOf, Office, refusalOf } from "./office.ts";

const PROGRAM = fileURLToPath(new URL("opens-books.ts", import.meta.url));

describe("migrations", function () {
  this.timeout(120_000);
  let folder: string;
  let path: string;
  const open: Database[] = [];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bursar-migrations-"));
    path = join(folder, "books.db");
  });
  afterEach(async () => {
    for (const database of open.splice(0)) await database.close();
    rmSync(folder, { recursive: true });
  });

  async function database(): Promise<Database> {
    const opened = openDatabase(await storeUrl(path));
    open.push(opened);
    return opened;
  }

  /** Books of the first version, with a payment in them. */
  async function oldBooks(): Promise<void> {
    const office = await Office.open(path);
    const agent = await office.agent("Ada");
    await agent.pay(addressOf("shop"), 5n);
    await agent.pay(addressOf("shop"), 6n);
    const { database: books } = office.store;
    await books.run("ALTER TABLE counter DROP COLUMN promised");
    await books.run("ALTER TABLE mandate DROP COLUMN unknown_direct");
    await books.run("DROP TABLE loss");
    await books.run("DROP INDEX payment_waiting");
    await books.run("CREATE INDEX payment_unbatched ON payment (agent, seq) WHERE batch IS NULL");
    await books.run("UPDATE book SET version = 1 WHERE name = 'payments'");
    await office.store.close();
  }

  async function versions(of: Database): Promise<Record<string, unknown>> {
    const rows = await of.all("SELECT name, version FROM book ORDER BY name");
    return Object.fromEntries(rows.map(({ name, version }): [string, unknown] => [String(name), version]));
  }

  it("bring old books to the newest version with every row, and payments go on", async () => {
    await oldBooks();
    const office = await Office.open(path);
    open.push(office.store.database);
    const { length } = PAYMENTS_BOOK.versions;
    expect((await versions(office.store.database))["payments"])
      .to.equal(length)
      .and.to.be.greaterThan(1);
    const [mandate] = await office.store.mandates();
    const payments = await office.store.payments(mandate!.mandate.agent, 1n, 9n);
    expect(payments.map(({ payment, logIndex }) => [payment.spent, logIndex])).to.deep.equal([
      [5n, 0n],
      [11n, 1n],
    ]);
    expect(await office.processor.completeness()).to.deep.equal({ promised: 2, missing: 0 });
    const fresh = await office.agent("Ben");
    expect((await fresh.pay(addressOf("shop"), 1n)).receipt.logIndex).to.equal(2n);
  });

  it("are made once where several processes start at once", async () => {
    await oldBooks();
    const url = await storeUrl(path);
    const runs = Array.from({ length: 3 }, () =>
      promisify(execFile)(process.execPath, ["--import=tsx", PROGRAM, url], { encoding: "utf8" }),
    );
    const said = (await Promise.all(runs)).map(({ stdout }) => JSON.parse(stdout) as [unknown, { payments: number }]);
    for (const [books, counts] of said) {
      expect(books).to.deep.equal(said[0]![0]);
      expect(counts.payments).to.equal(2);
    }
    expect((await versions(await database()))["payments"]).to.equal(PAYMENTS_BOOK.versions.length);
  });

  it("are refused by a program that is older than the books, which stay as they are", async () => {
    await (await Store.open(await storeUrl(path))).close();
    const books = await database();
    await books.run("UPDATE book SET version = 99 WHERE name = 'payments'");
    const before = await versions(books);
    const refusal = await refusalOf(async () => Store.open(await storeUrl(path)));
    expect(refusal.code).to.equal("store-unavailable");
    expect(refusal.details).to.deep.equal({ value: "99", limit: String(PAYMENTS_BOOK.versions.length) });
    expect(await versions(books)).to.deep.equal(before);
  });

  it("are not made among tables that are somebody else's, which stay as they are", async () => {
    const foreign = await database();
    await foreign.run("CREATE TABLE payment (invoice TEXT)");
    await foreign.run("INSERT INTO payment (invoice) VALUES ('theirs')");
    const refusal = await refusalOf(async () => Store.open(await storeUrl(path)));
    expect(refusal.code).to.equal("store-unavailable");
    expect(refusal.message).to.match(/nothing was changed.*payment.* already exists/);
    expect(await foreign.all("SELECT * FROM payment")).to.deep.equal([{ invoice: "theirs" }]);
    let made: unknown = null;
    await foreign.get("SELECT * FROM mandate").then(
      (row) => (made = row),
      () => undefined,
    );
    expect(made).to.equal(null);
  });

  it("that fail in the middle change nothing, and are made whole by the next program", async () => {
    const books = await database();
    await books.open(BOOKS);
    const before = await versions(books);
    const wrong: Book = { name: "payments", versions: [...PAYMENTS_BOOK.versions, HALF] };
    const others: Book = { name: "others", versions: ["CREATE TABLE other (name TEXT PRIMARY KEY) STRICT;"] };
    const refusal = await refusalOf(() => books.open([others, wrong]));
    expect(refusal.code).to.equal("store-unavailable");
    expect(await versions(books)).to.deep.equal(before);
    const right: Book = { ...wrong, versions: [...PAYMENTS_BOOK.versions, HALF.replace("no_table", "payee")] };
    await books.open([others, right]);
    expect(await versions(books)).to.deep.equal({ ...before, others: 1, payments: right.versions.length });
  });
});

/** Its first statement is good. */
const HALF = "CREATE TABLE half (name TEXT PRIMARY KEY) STRICT; ALTER TABLE no_table ADD COLUMN more TEXT;";
