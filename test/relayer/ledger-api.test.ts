import type { Hex } from "@bursar/protocol";
import { ApiKeys, createServer, csvLines, type LedgerEntry } from "@bursar/relayer";
import { expect } from "chai";
import { ZeroHash } from "ethers";

import type { PayingAgent } from "../integration/rail.ts";
import { accessOf, addressOf, ANYTHING, keyOf, NOW, Office, refusalOf } from "./office.ts";

const SHOP = addressOf("shop");
const CAFE = addressOf("cafe");
const MANY = 2_345;

interface Page {
  entries: { position: number; agent: string; payee: string; kind: string; amount: string; at: string }[];
  next: number | null;
}

describe("the ledger over HTTP", function () {
  this.timeout(60_000);
  let office: Office;
  let server: ReturnType<typeof createServer>;
  let url: string;
  let key: string;
  let ann: PayingAgent;
  let bob: PayingAgent;

  beforeEach(async () => {
    office = await Office.open();
    const keys = new ApiKeys(office.store.database, () => office.clock);
    key = (await keys.create("operator", "operator")).key;
    server = createServer(office.processor, { keys });
    url = await server.listen({ host: "127.0.0.1", port: 0 });
    ann = await office.agent("ann");
    bob = await office.agent("bob", { owner: addressOf("other owner") });
    await ann.pay(SHOP, 1n);
    await bob.pay(CAFE, 2n);
    office.clock += 100n;
    await ann.pay(CAFE, 3n);
    await refusalOf(() => ann.pay(SHOP, 5_000n));
    office.clock += 100n;
    await bob.pay(SHOP, 4n);
  });
  afterEach(async () => {
    await server.close();
    await office.store.close();
  });

  const read = async (query: string, authorization = `Bearer ${key}`): Promise<Page> => {
    const response = await fetch(`${url}/ledger${query}`, { headers: { authorization } });
    expect(response.status, query).to.equal(200);
    return (await response.json()) as Page;
  };
  const amounts = async (query: string, authorization?: string): Promise<string> =>
    (await read(query, authorization)).entries.map(({ amount }) => amount).join(" ");

  it("filters by each party, kind, status, rail and time, alone and together", async () => {
    const expected: [query: string, amounts: string][] = [
      ["", "4 5000 3 2 1"],
      [`?agent=${ann.address}`, "5000 3 1"],
      [`?agent=${ann.address.toLowerCase()}`, "5000 3 1"],
      [`?owner=${addressOf("other owner")}`, "4 2"],
      [`?payee=${SHOP}`, "4 5000 1"],
      ["?kind=accepted", "4 3 2 1"],
      ["?kind=refused", "5000"],
      ["?status=refused", "5000"],
      ["?status=accepted", "4 3 2 1"],
      ["?status=settled", ""],
      ["?rail=proved", "4 5000 3 2 1"],
      ["?rail=exact", ""],
      [`?since=${NOW + 100n}`, "4 5000 3"],
      [`?until=${NOW + 100n}`, "5000 3 2 1"],
      [`?since=${NOW + 1n}&until=${NOW + 199n}`, "5000 3"],
      [`?agent=${ann.address}&payee=${SHOP}&kind=accepted`, "1"],
      [`?agent=${ann.address}&owner=${addressOf("other owner")}`, ""],
    ];
    for (const [query, found] of expected) expect(await amounts(query), query).to.equal(found);
  });

  it("shows an account its own part whatever it asks for", async () => {
    const as = (name: string): Promise<string> => accessOf(keyOf(name), office.domain, office.clock);
    expect(await amounts("", await as("ann"))).to.equal("5000 3 1");
    expect(await amounts("", await as("owner"))).to.equal("5000 3 1");
    expect(await amounts("", await as("other owner"))).to.equal("4 2");
    expect(await amounts("", await as("cafe"))).to.equal("3 2");
    expect(await amounts("", await as("stranger"))).to.equal("");
    expect(await amounts(`?agent=${bob.address}`, await as("ann"))).to.equal("");
    expect(await amounts(`?owner=${addressOf("owner")}`, await as("cafe"))).to.equal("3");
    expect(await amounts(`?payee=${SHOP}`, await as("bob"))).to.equal("4");
  });

  it("pages to the end, each row once, while new rows come", async () => {
    const seen: number[] = [];
    let next: number | null = null;
    do {
      const page: Page = await read(`?limit=2${next === null ? "" : `&before=${next}`}`);
      seen.push(...page.entries.map(({ position }) => position));
      next = page.next;
      await ann.pay(SHOP, 1n);
    } while (next !== null);
    expect(seen).to.deep.equal([5, 4, 3, 2, 1]);
  });

  it("refuses what is no filter, and numbers in any form but one", async () => {
    for (const query of [
      "?colour=blue",
      "?agent=ann",
      `?agent=${ann.address}&agent=${bob.address}`,
      "?agent=0x0000000000000000000000000000000000000000",
      "?kind=ACCEPTED",
      "?rail=",
      "?format=xml",
      ...["0", "1001", "-1", "1e1", "0x1", "01", "+1", " 1", "%EF%BC%91", ""].map((limit) => `?limit=${limit}`),
      ...["0", "-1", "1e1", "0x1", "01", "99999999999999999"].map((before) => `?before=${before}`),
      ...["-1", "1e1", "0x1", "01", "1.5", "yesterday"].map((since) => `?since=${since}`),
    ]) {
      const response = await fetch(`${url}/ledger${query}`, { headers: { authorization: `Bearer ${key}` } });
      expect(response.status, query).to.equal(400);
      expect(await response.json()).to.include({ code: "malformed-input" });
    }
  });

  it("exports all of a large ledger as CSV, from where it is told", async () => {
    const line = { payee: SHOP, amount: 1n, ref: ZeroHash as Hex };
    const rest = { signature: "0x" as Hex, digest: ZeroHash as Hex, salt: 1n, settleBy: NOW, acceptedAt: NOW };
    for (let seq = 3n; seq < 3n + BigInt(MANY); seq += 100n) {
      const left = 3 + MANY - Number(seq);
      const payments = Array.from({ length: Math.min(100, left) }, (_, i) => {
        const next = seq + BigInt(i);
        return { agent: ann.address, payment: { seq: next, spent: next, head: ZeroHash as Hex, line }, ...rest };
      });
      await office.store.transact(() => office.store.record({ holds: [], payments, directs: [], refusals: [] }));
    }
    const csv = async (query: string): Promise<string[]> => {
      const response = await fetch(`${url}/ledger?format=csv${query}`, { headers: { authorization: `Bearer ${key}` } });
      return (await response.text()).split("\r\n");
    };
    const [header, ...rows] = await csv("");
    expect(header).to.equal(
      "position,time,kind,status,rail,owner,agent,purpose,seq,payee,amount,ref,code,reason,advice,batch,transaction",
    );
    expect(rows.pop()).to.equal("");
    const positions = rows.map((row) => Number(row.split(",")[0]));
    expect(positions).to.deep.equal(Array.from({ length: MANY + 5 }, (_, index) => MANY + 5 - index));
    expect(await csv("&before=6")).to.have.length(7);
    expect(await csv(`&agent=${bob.address}`)).to.have.length(4);
  });
});

async function all(lines: AsyncIterable<string>): Promise<string[]> {
  const read: string[] = [];
  for await (const line of lines) read.push(line);
  return read;
}

describe("a ledger as CSV", () => {
  const entry: LedgerEntry = {
    position: 1,
    kind: "refused",
    rail: "proved",
    agent: SHOP,
    owner: SHOP,
    purpose: ANYTHING.purpose,
    seq: null,
    payee: CAFE,
    amount: 1_500_000n,
    ref: ZeroHash as Hex,
    at: NOW,
    status: "refused",
    code: "above-budget",
    reason: null,
    advice: null,
    batch: null,
    transaction: null,
  };

  for (const [what, text, written] of [
    ["a formula", "=1+1", "'=1+1"],
    ["a sum", "+1", "'+1"],
    ["a difference", "-1", "'-1"],
    ["a function", "@SUM(A1)", "'@SUM(A1)"],
    ["a formula behind a tab", "\t=1", "'\t=1"],
    ["a formula behind a line break", "\r=1", '"\'\r=1"'],
    ["a comma", "tea, milk", '"tea, milk"'],
    ["quotes", 'the "best"', '"the ""best"""'],
    ["lines", "one\r\ntwo", '"one\r\ntwo"'],
    ["a formula that breaks out of quotes", '=HYPERLINK("x","y")', '"\'=HYPERLINK(""x"",""y"")"'],
    ["plain words", "why = not @ all - or", "why = not @ all - or"],
  ] as const) {
    it(`writes ${what} as text`, async () => {
      const pages = [[{ ...entry, reason: text }], []];
      const [, row] = await all(csvLines(() => Promise.resolve(pages.shift()!)));
      expect(row).to.equal(
        `1,2027-01-15T08:00:00.000Z,refused,refused,proved,${SHOP},${SHOP},${ANYTHING.purpose},,${CAFE},1.5,` +
          `${ZeroHash},above-budget,${written},,,\r\n`,
      );
    });
  }

  it("reads a page at a time, each from where the last one ended", async () => {
    const asked: (number | undefined)[] = [];
    const lines = csvLines((before) => {
      asked.push(before);
      const from = before ?? 5;
      return Promise.resolve(from <= 1 ? [] : [{ ...entry, position: from - 1 }]);
    });
    await lines.next();
    await lines.next();
    expect(asked).to.deep.equal([undefined]);
    expect(await all(lines)).to.have.length(3);
    expect(asked).to.deep.equal([undefined, 4, 3, 2, 1]);
  });
});
