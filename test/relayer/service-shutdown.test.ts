import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { AgentLedger, signPayment, toWire, type Address, type Domain, type Hex } from "@bursar/protocol";
import { Keyring } from "@bursar/relayer";
import { expect } from "chai";
import { id, ZeroHash, type Wallet } from "ethers";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { TestRail } from "../integration/rail.ts";
import { addressOf } from "./office.ts";

const BIN = fileURLToPath(new URL("../../packages/relayer/bin/bursar.js", import.meta.url));

/** One `bursar serve` in a process of its own. */
class Serving {
  readonly child: ChildProcess;
  readonly url: string;
  /** Exit code and signal. */
  readonly ended: Promise<unknown[]>;

  private constructor(child: ChildProcess, url: string, ended: Promise<unknown[]>) {
    this.child = child;
    this.url = url;
    this.ended = ended;
  }

  static async start(place: readonly string[]): Promise<Serving> {
    const options = ["serve", "--port", "0", "--settle-every", "0", "--log-level", "silent"];
    const child = spawn(process.execPath, [BIN, ...place, ...options], { stdio: ["ignore", "ignore", "pipe"] });
    const ended = once(child, "close");
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => (said += String(chunk)));
    while (!said.includes("listening on")) {
      if (child.exitCode !== null) throw new Error(said);
      await setTimeout(20);
    }
    return new Serving(child, /listening on (\S+)/.exec(said)![1]!, ended);
  }
}

describe("bursar serve, when it is told to end", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let place: string[];
  const agents: Wallet[] = [];

  before(async () => {
    rail = await TestRail.start();
    place = [
      ...["--rpc", rail.node.url],
      ...["--home", join(rail.folder, "home")],
      ...["--deployments", join(rail.folder, "deployments")],
    ];
    await bursar("deploy");
    await bursar("bond", "post", "10000");
    await bursar("deposit", "100");
    const keys = new Keyring(join(rail.folder, "home", "keys"), "", true);
    for (let count = 0; count < 3; ++count) {
      const options = ["--budget", "10", "--cap", "1", "--purpose", "a storm", "--yes"];
      const opened = (await bursar("mandate", "open", ...options)) as { mandate: { agent: Address } };
      agents.push(await keys.load(opened.mandate.agent));
    }
  });
  after(() => rail.stop());

  async function bursar(...argv: string[]): Promise<unknown> {
    let [out, err] = ["", ""];
    const code = await main([...place, "--json", ...argv], {
      out: (text) => (out += text),
      err: (text) => (err += text),
    });
    expect(code, err).to.equal(0);
    return JSON.parse(out) as unknown;
  }

  const send = (url: string, body: string): Promise<Response> =>
    fetch(`${url}/payments`, { method: "POST", headers: { "content-type": "application/json" }, body });

  /** Pays until there is no answer, or another than a receipt. @returns each payment with its answer. */
  async function payOn(url: string, domain: Domain, wallet: Wallet): Promise<{ body: string; receipt: string }[]> {
    const agent = wallet.address as Address;
    const ledger = new AgentLedger({ domain, agent, secret: id(agent) as Hex });
    const paid: { body: string; receipt: string }[] = [];
    for (;;) {
      const { payment, salt } = ledger.draft({ payee: addressOf("shop"), amount: 1n, ref: ZeroHash as Hex });
      const signature = await signPayment(wallet, domain, payment);
      const body = JSON.stringify(toWire({ agent, payment, salt, signature }));
      const answer = await send(url, body).then(
        async (response) => ({ status: response.status, text: await response.text() }),
        () => null,
      );
      if (answer?.status !== 200) {
        if (answer !== null) expect(answer.status).to.equal(503);
        return paid;
      }
      ledger.commit();
      paid.push({ body, receipt: answer.text });
    }
  }

  it("P10 same_request_same_answer: ends with 0 in a storm of payments; every one it answered is in the books, and has the same receipt after a restart", async () => {
    const first = await Serving.start(place);
    const info = (await (await fetch(`${first.url}/info`)).json()) as { chainId: string; registry: Address };
    const domain = { chainId: BigInt(info.chainId), registry: info.registry };
    const storm = Promise.all(agents.map((agent) => payOn(first.url, domain, agent)));
    await setTimeout(1_000);
    first.child.kill("SIGTERM");
    expect(await first.ended).to.deep.equal([0, null]);
    const paid = (await storm).flat();
    expect(paid.length).to.be.greaterThan(agents.length);

    const second = await Serving.start(place);
    for (const { body, receipt } of paid) {
      const again = await send(second.url, body);
      expect([again.status, await again.text()]).to.deep.equal([200, receipt]);
    }
    const { payments } = (await bursar("status")) as { payments: number };
    expect(payments).to.be.within(paid.length, paid.length + agents.length);
    second.child.kill("SIGINT");
    expect(await second.ended).to.deep.equal([0, null]);
  });

  it("waits for a request that is still being sent, answers it, and takes no other", async () => {
    const serving = await Serving.start(place);
    const { hostname, port } = new URL(serving.url);
    const slow = connect(Number(port), hostname);
    let said = "";
    slow.on("data", (chunk: Buffer) => (said += String(chunk)));
    const head = "POST /payments HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
    slow.write(`${head}{`);
    await fetch(`${serving.url}/health`);
    serving.child.kill("SIGTERM");
    while (
      await fetch(`${serving.url}/health`).then(
        () => true,
        () => false,
      )
    )
      await setTimeout(20);
    expect(serving.child.exitCode).to.equal(null);
    slow.write("}");
    expect(await serving.ended).to.deep.equal([0, null]);
    expect(said).to.match(/^HTTP\/1\.1 400 .*"code":"malformed-input"/s);
  });

  it("ends at once, with 1, when it is told a second time", async () => {
    const serving = await Serving.start(place);
    const { hostname, port } = new URL(serving.url);
    const slow = connect(Number(port), hostname);
    slow.on("error", () => undefined);
    slow.write("POST /payments HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{");
    await fetch(`${serving.url}/health`);
    serving.child.kill("SIGTERM");
    while (
      await fetch(`${serving.url}/health`).then(
        () => true,
        () => false,
      )
    )
      await setTimeout(20);
    expect(serving.child.exitCode).to.equal(null);
    serving.child.kill("SIGTERM");
    expect(await serving.ended).to.deep.equal([1, null]);
  });
});
