import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { readChains } from "@bursar/relayer";
import { expect } from "chai";

import { refusalOf } from "./office.ts";

const BASE = { chainId: 8_453, rpc: ["https://a.example/key"], store: "base.db" };

describe("the chains of a service", () => {
  const read = (...chains: unknown[]): ReturnType<typeof readChains> => readChains(JSON.stringify(chains), {});
  const wrong = async (...chains: unknown[]): Promise<Record<string, string>> => {
    const refusal = await refusalOf(() => read(...chains));
    expect(refusal.code).to.equal("malformed-input");
    return refusal.details;
  };

  it("need an id, nodes and a place for the books; the rest has defaults of the chain", () => {
    expect(read(BASE)).to.deep.equal([
      {
        name: "8453",
        chainId: 8_453n,
        rpc: ["https://a.example/key"],
        deployment: "deployments/8453.json",
        store: "base.db",
        finality: "safe",
        replaceAfter: 60n,
      },
    ]);
  });

  it("are read whole: rule, fees and money", () => {
    const [chain] = read({
      ...BASE,
      name: "base-main",
      rpc: ["https://a.example/1", "http://b.example"],
      deployment: "elsewhere.json",
      finality: "finalized",
      replaceAfter: 30,
      maxFeeGwei: "0.5",
      gasBudgetEthPerDay: "0.25",
      minBalanceEth: "0.05",
    });
    expect(chain).to.deep.equal({
      name: "base-main",
      chainId: 8_453n,
      rpc: ["https://a.example/1", "http://b.example"],
      deployment: "elsewhere.json",
      store: "base.db",
      finality: "finalized",
      replaceAfter: 30n,
      maxFeePerGas: 500_000_000n,
      gasBudget: 250_000_000_000_000_000n,
      minBalance: 50_000_000_000_000_000n,
    });
    for (const finality of [12, "12"]) expect(read({ ...BASE, finality })[0]!.finality).to.equal(12);
  });

  it("may be the same chain twice, with other contracts and other books", () => {
    const twice = read(BASE, { ...BASE, name: "base-2", deployment: "second.json", store: "second.db" });
    expect(twice.map(({ chainId }) => chainId)).to.deep.equal([8_453n, 8_453n]);
  });

  it("share no books, no contracts and no name", async () => {
    expect(Object.keys(await wrong(BASE, BASE))).to.have.members(["1.name", "1.deployment", "1.store"]);
    const other = { ...BASE, chainId: 1, store: "other.db" };
    expect(await wrong(BASE, { ...other, name: "8453" })).to.have.keys("1.name");
    expect(await wrong(BASE, { ...other, deployment: "deployments/8453.json" })).to.have.keys("1.deployment");
    expect(await wrong(BASE, { ...other, store: "base.db" })).to.have.keys("1.store");
  });

  for (const [field, value] of [
    ["chainId", 0],
    ["chainId", "8453"],
    ["rpc", []],
    ["rpc", Array.from({ length: 9 }, (_, i) => `https://${i}.example`)],
    ["store", ""],
    ["name", "Base!"],
    ["finality", 0],
    ["finality", 1.5],
    ["finality", "latest"],
    ["replaceAfter", 4],
    ["maxFeeGwei", 0.5],
    ["maxFeeGwei", "0"],
    ["gasBudgetEthPerDay", "a lot"],
    ["minBalanceEth", "-1"],
  ] as const) {
    it(`are refused for ${field} ${JSON.stringify(value).slice(0, 20)}`, async () => {
      expect(await wrong({ ...BASE, [field]: value })).to.have.keys(`0.${field}`);
    });
  }

  it("are refused without a field, with one too many, twice the same node, and when there are none", async () => {
    for (const field of ["chainId", "rpc", "store"])
      expect(await wrong({ ...BASE, [field]: undefined })).to.have.keys(`0.${field}`);
    expect(await wrong({ ...BASE, confirmations: 3 })).to.have.keys("0");
    expect(await wrong({ ...BASE, rpc: ["http://a.example", "http://a.example"] })).to.have.keys("0.rpc.1");
    expect(await wrong()).to.have.keys("input");
  });

  it("are refused without telling what a URL holds", async () => {
    for (const rpc of ["provider-key", "wss://a.example/provider-key"]) {
      const refusal = await refusalOf(() => read({ ...BASE, rpc: [rpc] }));
      expect(refusal.details).to.have.keys("0.rpc.0");
      expect(refusal.message).not.to.contain("provider-key");
    }
    const broken = await refusalOf(() => readChains('[{"rpc": provider-key'));
    expect(broken.code).to.equal("malformed-input");
    expect(broken.message).not.to.contain("provider-key");
  });

  it("take what is secret from the environment", async () => {
    const text = JSON.stringify([
      { ...BASE, rpc: ["https://a.example/${A_KEY}"], store: "postgres://${DB_USER}@db/base" },
    ]);
    const [chain] = readChains(text, { A_KEY: "k1", DB_USER: "bursar" });
    expect([chain!.rpc, chain!.store]).to.deep.equal([["https://a.example/k1"], "postgres://bursar@db/base"]);
    for (const environment of [{ DB_USER: "bursar" }, { A_KEY: "", DB_USER: "bursar" }]) {
      const refusal = await refusalOf(() => readChains(text, environment));
      expect([refusal.code, refusal.details]).to.deep.equal(["malformed-input", { value: "A_KEY" }]);
    }
  });

  it("stand in a file, or in a variable as they are", async () => {
    const folder = mkdtempSync(join(tmpdir(), "bursar-chains-"));
    try {
      const path = join(folder, "chains.json");
      writeFileSync(path, JSON.stringify([BASE]));
      expect(readChains(path, {})).to.deep.equal(read(BASE));
      writeFileSync(path, "{");
      expect((await refusalOf(() => readChains(path))).details).to.deep.equal({ value: path });
      expect((await refusalOf(() => readChains(join(folder, "none.json")))).code).to.equal("malformed-input");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
