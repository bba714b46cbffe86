import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { AgentLedger, signPayment, toWire, type Address, type Hex } from "@bursar/protocol";
import { Keyring, openProofQueue, Store } from "@bursar/relayer";
import { expect } from "chai";
import { id, ZeroHash, type Wallet } from "ethers";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { postgresUrl } from "../relayer/databases.ts";
import { TestRail } from "./rail.ts";

const SHOP = "0x00000000000000000000000000000000000005A0" as Address;
const BIN = fileURLToPath(new URL("../../packages/relayer/bin/bursar.js", import.meta.url));

/** A `bursar` command in a process of its own, and all that it says. */
class Running {
  readonly child: ChildProcess;
  said = "";

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.child = spawn(process.execPath, ["--import", "tsx", BIN, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    });
    for (const stream of [this.child.stdout!, this.child.stderr!])
      stream.on("data", (chunk: Buffer) => (this.said += String(chunk)));
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Waits until it has said something so often. */
  async says(pattern: RegExp, times = 1): Promise<string> {
    const all = new RegExp(pattern, "g");
    for (;;) {
      const found = [...this.said.matchAll(all)];
      if (found.length >= times) return found[times - 1]![1] ?? "";
      if (this.ended) throw new Error(`it ended without «${pattern.source}»:\n${this.said}`);
      await setTimeout(10);
    }
  }

  async end(signal: NodeJS.Signals): Promise<number | null> {
    if (!this.ended) {
      const exit = once(this.child, "exit");
      this.child.kill(signal);
      await exit;
    }
    return this.child.exitCode;
  }
}

/** A way to a database that can be cut. */
class Wire {
  readonly server: Server;
  readonly #sockets = new Set<Socket>();
  #cut = false;

  constructor(host: string, port: number) {
    this.server = createServer((near) => {
      if (this.#cut) return near.destroy();
      const far = connect(port, host);
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(one);
        one.on("error", () => other.destroy()).on("close", () => other.destroy());
        one.pipe(other);
      }
      return undefined;
    });
  }

  async listen(): Promise<number> {
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    return (this.server.address() as { port: number }).port;
  }

  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  mend(): void {
    this.#cut = false;
  }
}

for (const engine of ["postgres", "sqlite"] as const) {
  describe(`a farm of provers on ${engine}`, function () {
    this.timeout(300_000);
    let rail: TestRail;
    let database: string;
    let store: Store;
    let service: Running;
    let agents: { wallet: Wallet; ledger: AgentLedger }[];
    let domain: { chainId: bigint; registry: Address };
    const workers: Running[] = [];

    const place = (books = database): string[] => [
      ...["--rpc", rail.node.url, "--database", books],
      ...["--home", join(rail.folder, "home"), "--deployments", join(rail.folder, "deployments")],
    ];
    /** A worker has a home of its own: it is on another machine. */
    function worker({ books = database, args = [] as string[], env = {} } = {}): Running {
      const elsewhere = ["--home", join(rail.folder, "elsewhere"), "--deployments", join(rail.folder, "deployments")];
      const at = ["--rpc", rail.node.url, "--database", books, ...elsewhere];
      const running = new Running([...at, "prove", "--worker", ...args], env);
      workers.push(running);
      return running;
    }

    async function bursar(...args: string[]): Promise<unknown> {
      let out = "";
      let err = "";
      const streams = { out: (text: string) => (out += text), err: (text: string) => (err += text) };
      const code = await main([...place(), "--json", ...args], streams);
      if (code !== 0) throw new Error(out + err);
      return JSON.parse(out);
    }

    async function serve(): Promise<Running> {
      const options = ["--port", "0", "--settle-every", "1", "--provers", "0", "--log-level", "error"];
      const running = new Running([...place(), "serve", ...options]);
      await running.says(/listening on (\S+)/);
      return running;
    }

    before(async () => {
      rail = await TestRail.start();
      const path = join(rail.folder, "farm.db");
      database = engine === "postgres" ? await postgresUrl(path) : path;
      await bursar("deploy");
      await bursar("bond", "post", "10000");
      await bursar("deposit", "100");
      const keys = new Keyring(join(rail.folder, "home", "keys"), "", true);
      const names: Address[] = [];
      for (let count = 0; count < 3; ++count) {
        const options = ["--budget", "10", "--cap", "1", "--purpose", "a farm", "--yes"];
        names.push(((await bursar("mandate", "open", ...options)) as { mandate: { agent: Address } }).mandate.agent);
      }
      store = await Store.open(database);
      service = await serve();
      const url = await service.says(/listening on (\S+)/);
      const info = (await (await fetch(`${url}/info`)).json()) as { chainId: string; registry: Address };
      domain = { chainId: BigInt(info.chainId), registry: info.registry };
      agents = await Promise.all(
        names.map(async (agent) => ({
          wallet: await keys.load(agent),
          ledger: new AgentLedger({ domain, agent, secret: id(agent) as Hex }),
        })),
      );
    });
    afterEach(async () => {
      await Promise.all(workers.splice(0).map((running) => running.end("SIGKILL")));
    });
    after(async () => {
      await service.end("SIGKILL");
      await store.close();
      await rail.stop();
    });

    /** Pays with one agent, and waits until the service has planned a batch of it. @returns its number. */
    async function planned(agent: number): Promise<number> {
      const { wallet, ledger } = agents[agent]!;
      const { payment, salt } = ledger.draft({ payee: SHOP, amount: 1n, ref: ZeroHash as Hex });
      const signature = await signPayment(wallet, domain, payment);
      const response = await fetch(`${await service.says(/listening on (\S+)/)}/payments`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(toWire({ agent: wallet.address as Address, payment, signature, salt })),
      });
      expect(response.status, await response.text()).to.equal(200);
      ledger.commit();
      for (;;) {
        const { batch } = (await store.payment(wallet.address as Address, payment.seq))!;
        if (batch !== null) return batch;
        await setTimeout(50);
      }
    }

    async function settled(...batches: readonly number[]): Promise<void> {
      for (const batch of batches) {
        for (;;) {
          const { state, error } = (await store.batch(batch))!;
          if (state === "failed") throw new Error(`batch ${batch}: ${error}`);
          if (state === "settled") break;
          await setTimeout(100);
        }
      }
    }

    it("proves batches that the service plans, several at once, each by one worker, and the service settles them", async () => {
      const batches = [await planned(0), await planned(1), await planned(2)];
      expect(new Set(batches).size).to.equal(3);
      const status = (await bursar("status")) as { proofs: object };
      expect(status.proofs).to.deep.equal({ waiting: 3, active: 0, dead: 0, givenUp: [] });
      const pair = [worker({ args: ["--once"] }), worker({ args: ["--once"] })];
      await settled(...batches);
      for (const running of pair) if (!running.ended) await once(running.child, "exit");
      const proofs = pair.flatMap(({ said }) =>
        [...said.matchAll(/proved: batch (\d+)/g)].map(([, batch]) => Number(batch)),
      );
      expect(proofs.sort((a, b) => a - b)).to.deep.equal(batches);
    });

    it("loses no batch when a worker is killed in the middle of a proof: another proves it", async () => {
      const batch = await planned(0);
      const victim = worker();
      await victim.says(/begun: batch \d+/);
      await victim.end("SIGKILL");
      expect((await store.batch(batch))!.state).to.be.oneOf(["planned", "proving"]);
      const heir = worker();
      await settled(batch);
      expect(heir.said).to.match(new RegExp(`begun: batch ${batch}, circuit tiny, attempt 2`));
    });

    it("settles what was proved while no service ran, and asks again for what was not", async () => {
      const batches = [await planned(0), await planned(1)];
      await service.end("SIGKILL");
      const queue = await openProofQueue(store.database);
      await queue.cancel({ batch: batches[1]!, circuit: "tiny" });
      await queue.close();
      const running = worker();
      await running.says(/proved: batch (\d+)/);
      expect((await store.batch(batches[0]!))!.state).to.equal("proved");
      service = await serve();
      await settled(...batches);
    });

    it("shows a batch that was given up in the status and in the log, and proves it when told to", async () => {
      const batch = await planned(0);
      const liar = join(rail.folder, "liar");
      writeFileSync(liar, '#!/bin/sh\necho "{}" > "$3"\necho "[]" > "$4"\n');
      chmodSync(liar, 0o755);
      const broken = worker({ env: { BURSAR_PROVER: "rapidsnark", BURSAR_RAPIDSNARK: liar } });
      await broken.says(/failed: batch \d+, code proof-invalid/);
      await broken.end("SIGTERM");
      const { proofs } = (await bursar("status")) as { proofs: { dead: number; givenUp: { batch: number }[] } };
      expect([proofs.dead, proofs.givenUp[0]?.batch]).to.deep.equal([1, batch]);
      await service.says(/"batch":\d+,"circuit":"tiny","reason":"[^"]+","msg":"a batch is not proved/);
      expect(await bursar("prove", "--retry", String(batch))).to.deep.equal({ batch });
      worker();
      await settled(batch);
    });

    it("leaves batches alone whose keys a worker has not", async () => {
      const batch = await planned(0);
      const keys = join(rail.folder, "no keys");
      mkdirSync(keys, { recursive: true });
      const keyless = worker({ env: { BURSAR_KEYS: keys } });
      await keyless.says(/keyless: circuit tiny, code key-missing/);
      await setTimeout(2_000);
      expect((await store.batch(batch))!.state).to.equal("planned");
      worker();
      await settled(batch);
      expect(keyless.said).not.to.contain("begun");
    });

    it("finishes the proof that is under way when a worker is told to end", async () => {
      const batch = await planned(0);
      const running = worker();
      await running.says(/begun: batch \d+/);
      expect(await running.end("SIGTERM")).to.equal(0);
      expect(running.said).to.contain(`proved: batch ${batch}`);
      await settled(batch);
    });

    if (engine === "postgres") {
      it("keeps a proof through the loss of the database, and records it when that is back", async () => {
        const { hostname, port, username, password, pathname } = new URL(database);
        const wire = new Wire(hostname, Number(port));
        const near = `postgres://${username}:${password}@127.0.0.1:${await wire.listen()}${pathname}`;
        const batch = await planned(0);
        const running = worker({ books: near });
        try {
          await running.says(/begun: batch \d+/);
          while ((await store.batch(batch))!.state === "planned") await setTimeout(10);
          wire.cut();
          await running.says(/unreached: code store-unavailable/);
          expect((await store.batch(batch))!.state).to.equal("proving");
          wire.mend();
          await running.says(/proved: batch (\d+)/);
          await settled(batch);
        } finally {
          wire.cut();
          wire.server.close();
        }
      });
    }
  });
}
