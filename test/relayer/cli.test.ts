import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { signReceipt, type Address, type Hex, type Problem } from "@bursar/protocol";
import { claimId, Keyring, Store } from "@bursar/relayer";
import { expect } from "chai";
import type { JsonRpcProvider } from "ethers";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { LocalNode } from "../../scripts/demo/node.ts";
import { Challenges__factory, TestUSD__factory } from "../../typechain-types/index.ts";
import { addressOf } from "./office.ts";

const SHOP = addressOf("shop");

interface Run {
  code: number;
  out: string;
  err: string;
}

interface Deployed {
  registry: Address;
  challenges: Address;
  tokens: Record<string, Address>;
}

describe("the command line", function () {
  this.timeout(60_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-cli-"));
  let node: LocalNode;
  let provider: JsonRpcProvider;

  before(async () => {
    node = await LocalNode.start();
    provider = node.provider();
  });
  after(() => {
    provider.destroy();
    node.stop();
    rmSync(folder, { recursive: true });
  });

  const place = (rpc = node.url): string[] => [
    ...["--rpc", rpc],
    ...["--home", join(folder, "home")],
    ...["--deployments", join(folder, "deployments")],
  ];

  const bursar = (...argv: string[]): Promise<Run> => bursarAt(node.url, ...argv);

  async function bursarAt(rpc: string, ...argv: string[]): Promise<Run> {
    const run: Run = { code: -1, out: "", err: "" };
    run.code = await main([...place(rpc), ...argv], {
      out: (text) => (run.out += `${text}\n`),
      err: (text) => (run.err += `${text}\n`),
    });
    return run;
  }

  /** Runs a command that must succeed, and gives its JSON. */
  async function answer<T>(...argv: string[]): Promise<T> {
    const { code, out, err } = await bursar("--json", ...argv);
    expect(code, err).to.equal(0);
    expect(out.trim().split("\n")).to.have.length(1);
    return JSON.parse(out) as T;
  }

  /** Starts a command in a process of its own and kills it as soon as `moment` has come. */
  async function killedAt(moment: () => boolean | Promise<boolean>, ...argv: string[]): Promise<void> {
    const bin = fileURLToPath(new URL("../../packages/relayer/bin/bursar.js", import.meta.url));
    const child = spawn(process.execPath, [bin, ...place(), ...argv], { stdio: "ignore" });
    const ended = new Promise<NodeJS.Signals | null>((resolve) =>
      child.once("close", (_code, signal) => resolve(signal)),
    );
    while (child.exitCode === null && !(await moment())) await new Promise((done) => setTimeout(done, 20));
    child.kill("SIGKILL");
    expect(await ended).to.equal("SIGKILL");
  }

  interface Batch {
    id: number;
    state: string;
    payments: number;
    total: string;
    transaction: string | null;
  }
  interface Mandate {
    mandate: { agent: string; budget: string };
    registered: boolean;
  }

  const openMandate = (...options: string[]): Promise<Mandate> =>
    answer<Mandate>("mandate", "open", "--budget", "0.01", "--cap", "0.001", "--purpose", "tests", "--yes", ...options);
  const pay = (agent: string, amount: string, ...options: string[]): Promise<Run> =>
    bursar("pay", agent, SHOP, amount, "--memo", "tea", ...options);
  const batches = async (): Promise<Batch[]> => (await answer<{ batches: Batch[] }>("status")).batches;

  const COMMANDS = [
    [],
    ["deploy"],
    ["deposit"],
    ["bond"],
    ["bond", "post"],
    ["bond", "show"],
    ["bond", "leave"],
    ["bond", "stay"],
    ["bond", "withdraw"],
    ["dispute"],
    ["dispute", "file"],
    ["dispute", "answer"],
    ["dispute", "refund"],
    ["dispute", "escalate"],
    ["dispute", "resolve"],
    ["dispute", "show"],
    ["dispute", "list"],
    ["dispute", "collect"],
    ["dispute", "release"],
    ["dispute", "hold"],
    ["dispute", "key"],
    ["dispute", "evidence"],
    ["dispute", "evidence", "make"],
    ["dispute", "evidence", "check"],
    ["dispute", "evidence", "deliver"],
    ["dispute", "evidence", "send"],
    ["dispute", "evidence", "get"],
    ["arbiter"],
    ["arbiter", "bond"],
    ["arbiter", "notice"],
    ["arbiter", "unbond"],
    ["arbiter", "withdraw"],
    ["arbiter", "show"],
    ["arbiter", "cases"],
    ["arbiter", "rule"],
    ["arbiter", "expire"],
    ["arbiter", "deliver"],
    ["payee"],
    ["payee", "add"],
    ["payee", "approve"],
    ["payee", "list"],
    ["mandate"],
    ["mandate", "open"],
    ["mandate", "show"],
    ["mandate", "revoke"],
    ["mandate", "close"],
    ["withdraw"],
    ["intent"],
    ["intent", "draft"],
    ["intent", "show"],
    ["intent", "sign"],
    ["intent", "list"],
    ["pay"],
    ["plan"],
    ["batch"],
    ["prove"],
    ["settle"],
    ["answer"],
    ["receipts"],
    ["receipts", "restore"],
    ["books"],
    ["books", "check"],
    ["books", "accept-loss"],
    ["payout"],
    ["status"],
    ["ledger"],
    ["key"],
    ["key", "create"],
    ["key", "list"],
    ["key", "revoke"],
    ["watch"],
    ["watch", "add"],
    ["watch", "status"],
    ["serve"],
    ["config"],
  ];
  for (const command of COMMANDS) {
    it(`explains itself: bursar ${[...command, "--help"].join(" ")}`, async () => {
      const { code, out, err } = await bursar(...command, "--help");
      expect([code, err]).to.deep.equal([0, ""]);
      expect(out).to.match(new RegExp(`^Usage: ${["bursar", ...command].join(" ")}\\b`));
    });
  }

  it("has every command that it lists explained above", async () => {
    const listed = async (...group: string[]): Promise<string[][]> => {
      const { out } = await bursar(...group, "--help");
      const names = [...out.slice(out.indexOf("Commands:")).matchAll(/^ {2}([a-z-]+) /gm)].map(([, name]) => name!);
      return names.filter((name) => name !== "help").map((name) => [...group, name]);
    };
    const names = ["bond", "dispute", "arbiter", "payee", "mandate", "intent", "key", "watch", "receipts", "books"];
    const groups = await Promise.all(names.map((group) => listed(group)));
    const found = [[], ...(await listed()), ...groups.flat(), ...(await listed("dispute", "evidence"))];
    expect(found.map(String).sort()).to.deep.equal(COMMANDS.map(String).sort());
  });

  for (const wrong of [
    ["unknown"],
    ["deposit"],
    ["pay", SHOP],
    ["status", "--colour"],
    ["mandate", "open", "--yes"],
    ["--settle-within", "5", "status"],
    ["serve", "--port", "x"],
  ]) {
    it(`ends with 2 for wrong usage: bursar ${wrong.join(" ")}`, async () => {
      const { code, out, err } = await bursar(...wrong);
      expect([code, out]).to.deep.equal([2, ""]);
      expect(err).to.match(/^error: /);
    });
  }

  it("ends with 3 and one line when the chain is down", async () => {
    for (const command of [["status"], ["deploy"], ["settle"]]) {
      const run = await bursarAt("http://127.0.0.1:1", ...command);
      expect(run).to.include({ code: 3, out: "" });
      expect(run.err).to.match(/^bursar: chain-unavailable: .*--rpc.*\n$/);
    }
  });

  it("ends with 1 and advice before anything is deployed", async () => {
    const run = await bursar("status");
    expect(run).to.include({ code: 1, out: "" });
    expect(run.err).to.match(/^bursar: wrong-chain: .* Run `bursar deploy`\.\n$/);
  });

  it("deploys, and a second time changes nothing", async () => {
    const first = await answer<{ registry: string }>("deploy");
    const block = await provider.getBlockNumber();
    const second = await answer<{ registry: string }>("deploy");
    expect(second).to.deep.equal(first);
    expect(await provider.getBlockNumber()).to.equal(block);
    const { out } = await bursar("deploy");
    expect(out).to.contain(first.registry);
  });

  it("does not open a mandate that the owner cannot cover", async () => {
    const poor = await bursar("mandate", "open", "--budget", "5", "--cap", "1", "--purpose", "tests", "--yes");
    expect(poor).to.include({ code: 1, out: "" });
    expect(poor.err).to.contain("bursar: above-budget:").and.to.contain("Run `bursar deposit` first.");
  });

  it("deposits", async () => {
    expect(await answer("deposit", "12.50")).to.include({ free: "12500000" });
    const { out } = await bursar("deposit", "0.5");
    expect(out).to.match(/^0x[0-9a-fA-F]{40} has 13 free in the escrow\.\n$/);
    expect(await bursar("deposit", "1e3")).to.include({ code: 2, out: "" });
  });

  it("keeps payees", async () => {
    await answer("payee", "add", SHOP.toLowerCase(), "--name", "Shop", "--host", "shop.example", "--category", "tea");
    expect(await answer("payee", "list")).to.deep.equal([
      { address: SHOP, name: "Shop", host: "shop.example", category: "tea", state: "approved" },
    ]);
  });

  it("opens no mandate without a bond behind its processor, and posts one", async () => {
    const bare = await bursar("mandate", "open", "--budget", "1", "--cap", "1", "--purpose", "tests", "--yes");
    expect(bare).to.include({ code: 1, out: "" });
    expect(bare.err).to.match(/bursar: bond-too-small: The bond of .* is 0; the least is 10000\. .*bursar bond post/);
    expect((await bursar("bond", "show")).out).to.contain("no: `bursar bond post` does it");
    const posted = await answer("bond", "post", "10000", "--uri", "https://pay.example");
    expect(posted).to.include({ registered: true, uri: "https://pay.example", bond: "10000000000", covered: "0" });
    const { out } = await bursar("bond", "post", "5");
    expect(out).to.match(/bond +10005 of at least 10000\n.*stands behind +0 of at most 30015\n/);
    const large = await bursar("mandate", "open", "--budget", "30016", "--cap", "1", "--purpose", "tests", "--yes");
    expect(large.err).to.contain("above-budget");
  });

  it("asks to leave, stays, and takes out no bond that may still be needed", async () => {
    expect(await answer("bond", "leave"))
      .to.have.property("withdrawableAt")
      .that.is.a("string");
    const early = await bursar("bond", "withdraw", SHOP);
    expect(early.err).to.match(/^bursar: transaction-failed: The contract refuses: BondStillCovers\(/);
    expect(await answer("bond", "stay")).to.include({ withdrawableAt: null });
    expect((await bursar("bond", "withdraw", SHOP)).err).to.contain("NotUnbonding(");
  });

  it("opens a mandate, shows it, and says in plain words who enforces what", async () => {
    const opened = await openMandate("--category", "tea");
    expect(opened).to.include({ registered: true });
    const shown = await answer<{ onChain: object; accepted: object }>("mandate", "show", opened.mandate.agent);
    expect(shown.onChain).to.include({ state: "open", budget: "10000", paymentCap: "1000" });
    expect(shown.accepted).to.deep.equal({ seq: "0", spent: "0" });
    const spoken = await bursar("mandate", "open", "--budget", "1", "--cap", "1", "--purpose", "tests", "--yes");
    expect(spoken.err).to.match(/Contract and proof enforce these. The processor alone enforces:/);
    expect(await bursar("mandate", "show", SHOP)).to.include({ code: 1, out: "" });
  });

  it("pays; refuses over the cap with 1, one line and advice, and with --json as Problem Details", async () => {
    const { agent } = (await openMandate()).mandate;
    expect((await pay(agent, "0.001")).out).to.match(/^Accepted: payment 1 of 0\.001 /);
    const over = await pay(agent, "0.001001");
    expect(over).to.include({ code: 1, out: "" });
    expect(over.err).to.match(/^bursar: above-payment-cap: 0\.001001 is above the cap of 0\.001 .*\n$/);
    const { code, out, err } = await pay(agent, "0.001001", "--json");
    expect([code, out]).to.deep.equal([1, ""]);
    expect(JSON.parse(err) as Problem).to.deep.include({
      code: "above-payment-cap",
      status: 403,
      details: { value: "1001", limit: "1000" },
    });
    expect((await pay(agent, "0.0005")).out).to.match(/^Accepted: payment 2 of 0\.0005 /);
    expect(await bursar("pay", agent, SHOP, "0.0005")).to.include({ code: 1 });
    expect(await bursar("pay", SHOP, SHOP, "0.0005", "--memo", "tea")).to.include({ code: 3 });
  });

  it("plans: what a batch would be, its cost at a price of gas and of ether, and when it pays; and changes nothing", async () => {
    interface Plan {
      gasPrice: string;
      ethPrice: string | null;
      batches: Record<string, unknown>[];
    }
    const {
      gasPrice,
      ethPrice,
      batches: planned,
    } = await answer<Plan>("plan", "--gas-price", "2.5", "--eth-price", "3000");
    expect([gasPrice, ethPrice]).to.deep.equal(["2500000000", "3000"]);
    const [forecast] = planned;
    expect(forecast).to.deep.include({ circuit: "tiny", mandates: 1, payments: 2, fillPercent: 7, reason: null });
    expect(forecast).to.deep.include({ turning: 0, staying: 1, known: 0, fresh: 1, breakEven: "9" });
    const gas = BigInt(forecast!["gas"] as string);
    expect(forecast!["cost"]).to.equal(String(gas * 2_500_000_000n));
    expect(forecast!["gasPerPayment"]).to.equal(String(gas / 2n));
    expect(Number(forecast!["dollars"])).to.be.closeTo((Number(gas) * 2.5 * 3_000) / 1e9, 1e-6);
    const promise = BigInt(Math.floor(Date.now() / 1_000) + 3_600);
    expect(promise - BigInt(forecast!["startBy"] as string)).to.satisfy((left: bigint) => left > 300n && left < 600n);
    const { out } = await bursar("plan");
    expect(out).to.match(
      /^circuit .*\ntiny +1 +2 \(7 %\) .* ETH .* 9 payments +it can wait until 20.*\nAt [\d.]+ gwei\./,
    );
    expect((await bursar("plan", "--eth-price", "3000")).out).to.match(/ \$[\d.]+ /);
    expect(await bursar("plan", "--gas-price", "-1")).to.include({ code: 2, out: "" });
    expect(await batches()).to.deep.equal([]);
  });

  it("batches, settles, reports and pays out", async () => {
    const proved = await answer<Batch>("batch");
    expect(proved).to.deep.include({ state: "proved", payments: 2, total: "1500" });
    const [settled] = await answer<Batch[]>("settle");
    expect(settled).to.include({ id: proved.id, state: "settled" });
    expect((await provider.getTransactionReceipt(settled!.transaction!))?.status).to.equal(1);
    expect(await answer("settle")).to.deep.equal([]);
    expect((await bursar("batch")).out).to.equal("No payment waits.\n");
    expect((await bursar("plan")).out).to.equal("No payment waits.\n");

    const entries = await answer<{ kind: string; status: string; amount: string }[]>("ledger");
    expect(entries.map(({ kind, status, amount }) => [kind, status, amount])).to.deep.equal([
      ["accepted", "settled", "500"],
      ["refused", "refused", "1001"],
      ["accepted", "settled", "1000"],
    ]);
    expect(await answer("ledger", "--limit", "1", "--before", "3", "--payee", SHOP)).to.have.length(1);
    const { out } = await bursar("ledger");
    expect(out).to.contain("Shop").and.to.contain("above the cap");
    expect((await bursar("status")).out).to.match(/^\d+ mandates, 2 payments accepted \(0 in no batch\), 1 refused\n/);

    expect(await answer("payout", SHOP)).to.include({ paid: "1500" });
    expect((await bursar("payout", SHOP)).out).to.equal(`${SHOP} has no credit.\n`);
  });

  it("answers challenges of what was settled, and says which it cannot answer", async () => {
    const { registry, challenges, tokens } = await answer<Deployed>("deploy");
    expect((await bursar("answer")).out).to.equal("No challenge is open.\n");
    const store = await Store.open(join(folder, "home", `processor-31337-${registry.slice(2, 10)}.db`));
    const { agent } = (await store.batches(["settled"]))[0]!.rows[0]!;
    const key = await new Keyring(join(folder, "home", "keys"), "", true).load("processor");
    const challenger = await provider.getSigner(3);
    const dollar = TestUSD__factory.connect(tokens["tUSD"]!, challenger);
    await (await dollar.mint(challenger.address, 2_000_000n)).wait();
    await (await dollar.approve(challenges, 2_000_000n)).wait();
    const challenge = async (seq: bigint): Promise<Hex> => {
      const { payment, signature: agentSignature, settleBy, logIndex } = (await store.payment(agent, seq))!;
      const receipt = { agent, seq, ...payment.line, head: payment.head, settleBy, logIndex };
      const processorSignature = await signReceipt(key, { chainId: 31_337n, registry }, receipt);
      const signed = { ...payment, agent, settleBy, logIndex, agentSignature, processorSignature, payees: [] };
      await (await Challenges__factory.connect(challenges, challenger).challenge(signed)).wait();
      return claimId(agent, payment);
    };
    const first = await challenge(1n);
    expect(await answer("answer")).to.deep.equal({ answered: [first], unanswered: [] });
    expect(await answer("answer")).to.deep.equal({ answered: [], unanswered: [] });

    const second = await challenge(2n);
    const inBatch = async (batch: number | null): Promise<void> => {
      await store.database.run("UPDATE payment SET batch = ? WHERE agent = ? AND seq = 2", batch, agent);
    };
    await inBatch(null);
    const lost = await bursar("answer");
    expect(lost.code).to.equal(3);
    expect(lost.out)
      .to.match(/^0 challenges answered, 1 not\n/)
      .and.to.contain(agent);
    expect(lost.err).to.match(/bursar: books-behind: .* Restore the books /);
    await inBatch((await store.payment(agent, 1n))!.batch);
    expect(await answer("answer")).to.deep.equal({ answered: [second], unanswered: [] });
    await store.close();
  });

  it("resends a payment whose answer was lost, and settles it once", async () => {
    const { agent } = (await openMandate()).mandate;
    const before = (await answer<{ payments: number }>("status")).payments;
    const unanswered = await pay(agent, "0.0003", "--processor-url", "http://127.0.0.1:1");
    expect(unanswered).to.include({ code: 3, out: "" });
    const another = await pay(agent, "0.0004");
    expect(another.err).to.match(/^bursar: sequence-taken: /);
    expect((await pay(agent, "0.0003")).out).to.match(/^Accepted: payment 1 of 0\.0003 /);
    expect((await answer<{ payments: number }>("status")).payments).to.equal(before + 1);
  });

  it("P14 status_is_chain_truth: after kill -9 while proving and while waiting for the block, settles the batch once", async () => {
    await killedAt(async () => (await batches()).some(({ state }) => state === "proving"), "batch");
    const [planned] = (await batches()).filter(({ state }) => state === "proving");
    const proved = await answer<Batch>("batch");
    expect(proved).to.include({ id: planned!.id, state: "proved" });

    await provider.send("evm_setAutomine", [false]);
    await killedAt(
      async () => (await batches()).some(({ transaction, state }) => state === "submitted" && transaction !== null),
      "settle",
    );
    const [submitted] = (await batches()).filter(({ state }) => state === "submitted");
    await provider.send("evm_setAutomine", [true]);
    await provider.send("evm_mine", []);
    const [settled] = await answer<Batch[]>("settle");
    expect(settled).to.include({ id: proved.id, state: "settled", transaction: submitted!.transaction });
    expect(await answer("payout", SHOP)).to.include({ paid: "300" });
  });

  it("shows what a service would run with, flags over environment over file over defaults", async () => {
    const file = join(folder, "bursar.json");
    const shown = async (...argv: string[]): Promise<Record<string, [unknown, string]>> => {
      const settings = await answer<{ name: string; value: unknown; source: string }[]>(...argv);
      return Object.fromEntries(settings.map(({ name, value, source }) => [name, [value, source]]));
    };
    writeFileSync(file, JSON.stringify({ port: 1, burst: 2, host: "0.0.0.0", origins: ["https://app.example"] }));
    process.env["BURSAR_BURST"] = "3";
    process.env["BURSAR_HOST"] = "127.0.0.2";
    const settings = await shown("--config", file, "config", "--host", "127.0.0.3");
    delete process.env["BURSAR_BURST"];
    delete process.env["BURSAR_HOST"];
    expect(settings).to.deep.include({
      host: ["127.0.0.3", "cli"],
      burst: [3, "env"],
      port: [1, "config"],
      origins: [["https://app.example"], "config"],
      settleEvery: [300, "default"],
    });
    for (const [wrong, word] of [
      [{ prot: 1 }, /«prot» is no option/],
      [{ port: 70_000 }, /port: «70000» is no whole number from 0 to 65535/],
      [{ origins: ["app.example"] }, /«app.example» is no origin/],
      [[], /no JSON object/],
    ] as const) {
      writeFileSync(file, JSON.stringify(wrong));
      const { code, err } = await bursar("--config", file, "config");
      expect(code).to.equal(2);
      expect(err).to.match(word);
    }
    expect(await bursar("--config", join(folder, "none.json"), "config")).to.include({ code: 2 });
  });

  it("makes API keys, shows each once, lists and revokes them", async () => {
    const made = await answer<{ id: number; key: string }>("key", "create", "accounting", "--account", SHOP);
    expect(made.key).to.match(/^bk_[A-Za-z0-9_-]{43}$/);
    const listed = async (): Promise<unknown[]> => answer("key", "list");
    expect(JSON.stringify(await listed())).not.to.contain(made.key);
    expect((await listed())[0]).to.include({ id: made.id, name: "accounting", scope: SHOP, revokedAt: null });
    await answer("key", "revoke", String(made.id));
    expect((await listed())[0])
      .to.have.property("revokedAt")
      .that.is.a("string");
    expect((await bursar("key", "revoke", "99")).err).to.match(/not-found/);
  });

  it("exports the ledger as CSV, filtered", async () => {
    const { out } = await bursar("ledger", "--csv", "--kind", "refused");
    const lines = out.trim().split("\n");
    expect(lines[0]).to.match(/^position,time,kind,status,rail,owner,agent,purpose,seq,payee,amount,/);
    expect(lines.length).to.be.greaterThan(1);
    for (const line of lines.slice(1)) expect(line).to.contain(",refused,refused,proved,");
    expect(await answer<unknown[]>("ledger", "--until", "2020-01-01")).to.deep.equal([]);
    expect(await bursar("ledger", "--since", "yesterday")).to.include({ code: 2 });
  });

  it("revokes: the agent can pay no more", async () => {
    const { agent } = (await openMandate()).mandate;
    await pay(agent, "0.0001");
    expect(await answer("mandate", "revoke", agent)).to.include({ agent, afterSeq: "1" });
    const refused = await pay(agent, "0.0001");
    expect(refused).to.include({ code: 1, out: "" });
    expect(refused.err).to.match(/^bursar: mandate-revoked: .* ask the owner/);
    expect((await answer<{ onChain: object }>("mandate", "show", agent)).onChain).to.include({ state: "revoked" });
  });

  it("P4 owner_always_exits: ends a mandate together with its processor, returns the rest after the hour, and pays it out", async () => {
    const { agent } = (await openMandate()).mandate;
    await pay(agent, "0.0001");
    const noticed = await answer<{ state: string; closesAt: string }>("mandate", "close", agent);
    expect(noticed).to.include({ agent, seq: "1", state: "noticed" });
    expect((await pay(agent, "0.0001")).err).to.match(/^bursar: mandate-revoked: /);
    expect((await bursar("mandate", "close", agent)).out).to.match(/is stopped\. Run this again from 20/);

    await provider.send("evm_setNextBlockTimestamp", [Number(noticed.closesAt)]);
    await provider.send("evm_mine", []);
    const before = await answer<{ free: string }>("mandate", "close", agent);
    expect(before).to.include({ state: "closed" });
    expect(await answer("mandate", "close", agent)).to.include({ state: "closed", free: before.free });
    const left = await answer<{ free: string }>("withdraw", "0.0099");
    expect(BigInt(left.free)).to.equal(BigInt(before.free) - 9_900n);
    expect((await bursar("withdraw", "1000")).err).to.match(/^bursar: insufficient-funds: /);
    expect((await bursar("mandate", "close", SHOP)).err).to.match(/^bursar: mandate-unknown: /);
  });

  it("keeps keys for a public chain only with a password", async () => {
    expect(() => new Keyring(join(folder, "public"), "", false)).to.throw(/need a password/);
    const keys = new Keyring(join(folder, "guarded"), "right", true);
    const made = await keys.create("owner");
    expect((await keys.load("owner")).address).to.equal(made.address);
    const wrong = new Keyring(join(folder, "guarded"), "wrong", true);
    const refusal: unknown = await wrong.load("owner").catch((error: unknown) => error);
    expect(refusal).to.include({ code: "key-corrupt" });
  });
});
