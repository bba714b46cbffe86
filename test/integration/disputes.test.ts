import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { parseWire, quoteSchema, signQuote, toWire, type Address, type Hex, type Problem } from "@bursar/protocol";
import { Chain, deploymentPath, Keyring, railOf, readDeployment } from "@bursar/relayer";
import { expect } from "chai";
import { parseEther, type JsonRpcProvider } from "ethers";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { LocalNode } from "../../scripts/demo/node.ts";

const DAY = 86_400;
const HOLDBACK = String(DAY);

interface View {
  id: string;
  kind: string;
  state: string;
  units: string;
  caseId: string | null;
  filed?: boolean;
  choices: { who: string; action: string; until: string | null }[];
}

describe("disputes on a chain, from the command line", function () {
  this.timeout(300_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-disputes-"));
  let node: LocalNode;
  let provider: JsonRpcProvider;
  let chain: Chain;
  let agent: Address;
  let payee: Address;
  let token: Address;
  const at = (name: string): string => join(folder, name);

  async function bursar(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
    const run = { code: -1, out: "", err: "" };
    const place = ["--rpc", node.url, "--home", at("home"), "--deployments", at("deployments")];
    run.code = await main([...place, ...argv], {
      out: (text) => (run.out += `${text}\n`),
      err: (text) => (run.err += `${text}\n`),
    });
    return run;
  }
  async function answer<T = View>(...argv: string[]): Promise<T> {
    const { code, out, err } = await bursar("--json", ...argv);
    expect(code, `${argv.join(" ")}: ${err}`).to.equal(0);
    return JSON.parse(out) as T;
  }
  async function refusal(...argv: string[]): Promise<Problem> {
    const { code, err } = await bursar("--json", ...argv);
    expect(code, argv.join(" ")).to.equal(1);
    return JSON.parse(err) as Problem;
  }
  const dispute = (...argv: string[]): Promise<View> => answer("dispute", ...argv);
  const pass = async (seconds: number): Promise<void> => {
    await provider.send("evm_increaseTime", [seconds]);
    await provider.send("evm_mine", []);
  };
  const pay = (amount: string, memo: string): Promise<unknown> => answer("pay", agent, payee, amount, "--memo", memo);
  const evidence = async (seq: number, ...options: string[]): Promise<string> => {
    const path = at(`evidence-${seq}.json`);
    await dispute("evidence", "make", agent, String(seq), "--out", path, ...options);
    return path;
  };
  const credit = (account: string): Promise<bigint> => chain.escrow.creditOf(token, account);
  const accountOf = async (name: string): Promise<Address> =>
    (await answer<{ account: Address }>("dispute", "key", name)).account;

  before(async () => {
    node = await LocalNode.start();
    provider = node.provider();
    await answer("deploy");
    const record = readDeployment(deploymentPath(at("deployments"), 31_337n))!;
    chain = new Chain(railOf(record, 31_337n, record.genesis), provider);
    token = chain.rail.tokens["tUSD"]!;
    await answer("bond", "post", "20000");
    await answer("arbiter", "bond", "0.2");
    payee = await accountOf("payee");
    await answer("payee", "add", payee, "--name", "Shop", "--host", "shop.example", "--category", "data");
    await answer("deposit", "10");
    const opened = await answer<{ mandate: { agent: Address } }>(
      ...["mandate", "open", "--budget", "1", "--cap", "0.1", "--purpose", "tests", "--host", "shop.example"],
      ...["--holdback", HOLDBACK, "--yes"],
    );
    agent = opened.mandate.agent;
  });
  after(() => {
    provider.destroy();
    node.stop();
    rmSync(folder, { recursive: true });
  });

  const goods = ["nothing", "a song", "a dear thing", "a page", "a page", "a book", "bread"];

  it("pays the payee's hold, which the processor knows as the payee's, settles it with a proof and collects it", async () => {
    for (const [index, memo] of goods.entries()) await pay(`0.0${index + 1}`, memo);
    const [newest] = await answer<{ payee: Address }[]>("ledger", "--payee", payee, "--limit", "1");
    const { hold } = await answer<{ hold: Address }>("dispute", "hold", agent, payee);
    expect(newest!.payee).to.equal(hold);
    expect((await bursar("ledger", "--limit", "1")).out).to.contain("Shop");
    const path = await evidence(1);
    expect((await refusal("dispute", "file", path)).detail).to.match(/NotPaid/);
    await answer("batch");
    await answer("settle");
    const before = await answer<{ balance: string; collected: string }>("dispute", "hold", agent, payee);
    expect([before.balance, before.collected]).to.deep.equal(["280000", "0"]);
    for (let again = 0; again < 2; again++) {
      const { collected, parts } = await answer<{ collected: string; parts: unknown[] }>(
        ...["dispute", "collect", agent, payee],
      );
      expect(collected).to.equal("280000");
      expect(parts).to.have.length(1);
    }
  });

  it("P9: lets nobody sweep what waits", async () => {
    const { hold } = await answer<{ hold: Address }>("dispute", "hold", agent, payee);
    expect((await bursar("payout", hold)).code).to.equal(1);
    expect(await chain.escrow.balanceOf(token, hold)).to.equal(280_000n);
  });

  it("checks an evidence file by its signatures and against the chain", async () => {
    const path = await evidence(1);
    const checked = await answer<{ settled: boolean; dispute: string | null }>("dispute", "evidence", "check", path);
    expect(checked).to.include({ settled: true, dispute: null });
    const wire = JSON.parse(readFileSync(path, "utf8")) as { purchase: { payment: { spent: string } } };
    wire.purchase.payment.spent = "1";
    writeFileSync(at("forged.json"), JSON.stringify(wire));
    expect(await refusal("dispute", "evidence", "check", at("forged.json"))).to.include({ code: "signature-signer" });
    expect(await refusal("dispute", "evidence", "check", at("none.json"))).to.include({ code: "malformed-input" });
  });

  it("refunds at once what a price was above the payee's signed quote", async () => {
    const { purchase } = JSON.parse(readFileSync(await evidence(3), "utf8")) as {
      purchase: { receipt: { ref: Hex; settleBy: string } };
    };
    const quote = parseWire(quoteSchema, {
      ...{ payee, amount: "20000", ref: purchase.receipt.ref, host: "shop.example", category: "data" },
      expiresAt: purchase.receipt.settleBy,
    });
    const signer = await new Keyring(join(at("home"), "keys"), "", true).load("payee");
    const domain = { chainId: 31_337n, registry: chain.rail.registry };
    const signed = { quote, signature: await signQuote(signer, domain, quote) };
    writeFileSync(at("quote.json"), JSON.stringify(toWire(signed)));
    const without = await refusal("dispute", "file", await evidence(3), "--kind", "over-quote");
    expect(without).to.include({ code: "malformed-input" });
    const path = await evidence(3, "--quote", at("quote.json"));
    const view = await dispute("file", path, "--kind", "over-quote");
    expect(view).to.include({ id: "1", state: "refunded", units: "10000" });
    expect(await credit(await accountOf("owner"))).to.equal(10_000n);
  });

  it("takes a dispute once for each payment, by the owner or the agent", async () => {
    const path = await evidence(1);
    expect((await refusal("dispute", "file", path, "--as", "payee")).advice).to.contain("--as");
    expect(await dispute("file", path)).to.include({ id: "2", state: "filed", filed: true, units: "10000" });
    expect(await dispute("file", path)).to.include({ id: "2", state: "filed", filed: false });
    const other = await evidence(1, "--statement", "Nothing came.");
    expect((await refusal("dispute", "file", other)).advice).to.contain("bursar dispute show 2");
    const byAgent = await dispute("file", await evidence(2, "--statement", "Noise."), "--as", "agent");
    expect(byAgent).to.include({ id: "3", state: "filed" });
    const checked = await answer<{ stands: string }>("dispute", "evidence", "check", at("evidence-2.json"));
    expect(checked.stands).to.equal("filed");
    const twice = await evidence(5, "--earlier", "4");
    expect(await dispute("file", twice, "--kind", "double-charge")).to.include({ id: "4", state: "filed" });
    expect(await dispute("file", await evidence(6))).to.include({ id: "5", state: "filed" });
    const open = await answer<View[]>("dispute", "list", "--open", "--party", agent);
    expect(open.map((view) => view.id)).to.deep.equal(["5", "4", "3", "2"]);
    expect(await answer<View[]>("dispute", "list", "--party", token)).to.deep.equal([]);
  });

  it("is answered by the payee's signed delivery, and then taken to the arbiter by either side", async () => {
    writeFileSync(at("song"), "la la la");
    for (const [seq, number] of [
      ["2", "3"],
      ["6", "5"],
    ] as const) {
      const delivery = at(`delivery-${seq}.json`);
      await answer("dispute", "evidence", "deliver", agent, seq, "--body", at("song"), "--out", delivery);
      expect(await refusal("dispute", "answer", "2", delivery)).to.include({ code: "transaction-failed" });
      expect(await dispute("answer", number, delivery)).to.include({ state: "answered" });
      expect(await dispute("answer", number, delivery)).to.include({ state: "answered" });
    }
    const stranger = await refusal("dispute", "escalate", "3", "--as", "arbiter");
    expect(stranger.advice).to.contain("--as");
    expect(await dispute("escalate", "3")).to.include({ state: "escalated", caseId: "1" });
    expect(await dispute("escalate", "3")).to.include({ state: "escalated", caseId: "1" });
    expect(await dispute("escalate", "5", "--as", "payee")).to.include({ state: "escalated", caseId: "2" });
    const cases = await answer<{ id: string; dispute: string }[]>("arbiter", "cases", "--open");
    expect(cases.map((one) => [one.id, one.dispute])).to.deep.equal([
      ["2", "5"],
      ["1", "3"],
    ]);
  });

  it("I13: the arbiter's ruling goes to one side, once, and earns the fee", async () => {
    const before = await credit(await accountOf("owner"));
    expect((await refusal("arbiter", "rule", "1", "owner", "--as", "owner")).detail).to.match(/OnlyAssigned/);
    await answer("arbiter", "rule", "1", "owner");
    await answer("arbiter", "rule", "1", "owner");
    expect((await refusal("arbiter", "rule", "1", "payee")).detail).to.match(/NotWaiting/);
    expect(await dispute("show", "3")).to.include({ state: "refunded" });
    expect((await credit(await accountOf("owner"))) - before).to.equal(20_000n);
    const { owed, open } = await answer<{ owed: string; open: string }>("arbiter", "show");
    expect([owed, open]).to.deep.equal([String(parseEther("0.01")), "1"]);
  });

  it("refunds what is not answered in time: not delivered, and charged twice", async () => {
    const before = await credit(await accountOf("owner"));
    const early = await refusal("dispute", "resolve", "2");
    expect(early.detail).to.match(/DeadlineNotOver/);
    await pass(2 * DAY + 2 * 3_600 + 60);
    const { choices } = await dispute("show", "2");
    expect(choices.map(({ who, action }) => `${who} ${action}`)).to.deep.equal(["payee refund", "anyone resolve"]);
    for (const number of ["2", "4"]) {
      expect(await dispute("resolve", number)).to.include({ state: "refunded" });
      expect(await dispute("resolve", number)).to.include({ state: "refunded" });
    }
    expect((await credit(await accountOf("owner"))) - before).to.equal(10_000n + 50_000n);
  });

  it("pays the payee what nobody disputed, once it has waited", async () => {
    await dispute("release", agent, payee);
    // Payments 4 and 7, and of payment 3 what the quote said.
    expect(await credit(payee)).to.equal(40_000n + 70_000n + 20_000n);
    await dispute("release", agent, payee);
    expect(await credit(payee)).to.equal(130_000n);
  });

  it("pays the payee when the arbiter is silent, whose stake goes to who escalated", async () => {
    expect((await refusal("arbiter", "expire", "2")).advice).to.contain("may still rule");
    await pass(7 * DAY);
    await answer("arbiter", "expire", "2");
    expect(await dispute("show", "5")).to.include({ state: "paid" });
    expect(await credit(payee)).to.equal(190_000n);
    const { bond } = await answer<{ bond: string }>("arbiter", "show");
    expect(bond).to.equal(String(parseEther("0.1")));
    const forfeited = await answer<{ owed: string }>("arbiter", "show", payee);
    expect(forfeited.owed).to.equal(String(parseEther("0.11")));
  });

  it("I13: ends with every unit at one side, and nothing frozen", async () => {
    const { hold, balance, frozen } = await answer<{ hold: Address; balance: string; frozen: string }>(
      ...["dispute", "hold", agent, payee],
    );
    expect([balance, frozen]).to.deep.equal(["0", "0"]);
    expect((await credit(payee)) + (await credit(await accountOf("owner")))).to.equal(280_000n);
    expect(await answer<View[]>("dispute", "list", "--open")).to.deep.equal([]);
    expect(hold).to.match(/^0x737562/i);
  });

  it("lets an arbiter leave with its bond and what it earned", async () => {
    expect((await refusal("arbiter", "unbond")).advice).to.contain("notice");
    await answer("arbiter", "notice");
    await pass(7 * DAY);
    await answer("arbiter", "unbond");
    await answer("arbiter", "withdraw", "0x000000000000000000000000000000000000dEaD");
    expect(await provider.getBalance("0x000000000000000000000000000000000000dEaD")).to.equal(parseEther("0.11"));
    expect((await refusal("arbiter", "withdraw", payee)).advice).to.contain("nothing");
  });

  it("says where nothing can be found", async () => {
    expect(await refusal("dispute", "show", "99")).to.include({ code: "not-found" });
    expect(await refusal("dispute", "evidence", "make", agent, "99")).to.include({ code: "not-found" });
    expect(await refusal("dispute", "hold", token, payee)).to.include({ code: "malformed-input" });
    expect((await bursar("dispute", "show", "none")).code).to.equal(2);
  });
});
