import { spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import type { Hex } from "@bursar/protocol";
import { Witness } from "@bursar/relayer";
import { expect } from "chai";
import { id } from "ethers";

import { refusalOf } from "./office.ts";

const receipt = (logIndex: bigint): { logIndex: bigint; digest: Hex } => ({
  logIndex,
  digest: id(`${logIndex}`) as Hex,
});

describe("a witness of receipts", function () {
  this.timeout(60_000);
  let folder: string;
  let path: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bursar-witness-"));
    path = join(folder, "home", "witness.log");
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  /** What a process that starts now reads. */
  function read(): Witness["last"] {
    const witness = Witness.open(path);
    try {
      return witness.last;
    } finally {
      witness.close();
    }
  }

  function note(...numbers: bigint[]): void {
    const witness = Witness.open(path);
    for (const number of numbers) witness.note(receipt(number));
    witness.close();
  }

  it("remembers the highest number that was told, over restarts", () => {
    expect(read()).to.equal(null);
    for (const [noted, last] of [
      [[0n], 0n],
      [[7n, 3n, 9n, 8n], 9n],
      [[4n], 9n],
      [[10n], 10n],
      [[2n ** 53n - 1n], 2n ** 53n - 1n],
    ] as const) {
      note(...noted);
      expect(read()).to.deep.equal(receipt(last));
    }
  });

  it("falls back to the one before where the last one was torn", () => {
    for (const torn of [1, 47, 48, 60, 95]) {
      rmSync(path, { force: true });
      note(1n, 2n, 3n);
      const [even, odd] = [readFileSync(path).subarray(0, 48), readFileSync(path).subarray(48)];
      const lastIsSecond = odd.readBigUInt64BE() === 3n;
      const bytes = readFileSync(path);
      bytes[(lastIsSecond ? 48 : 0) + (torn % 48)]! ^= 1;
      writeFileSync(path, bytes);
      expect(read(), String(torn)).to.deep.equal(receipt(2n));
      expect(even).not.to.deep.equal(odd);
      note(3n);
      expect(read()).to.deep.equal(receipt(3n));
    }
  });

  it("says so when it tells nothing any more, instead of vouching for any books", async () => {
    note(1n, 2n);
    truncateSync(path, 40);
    const refusal = await refusalOf(() => Witness.open(path));
    expect(refusal.code).to.equal("store-unavailable");
    expect(refusal.message).to.contain(path);
  });

  it("survives kill -9 at any moment with what was told", async () => {
    const program = `
      import { Witness } from ${JSON.stringify(fileURLToPath(import.meta.resolve("@bursar/relayer")))};
      import { writeSync } from "node:fs";
      const witness = Witness.open(${JSON.stringify(path)});
      for (let n = (witness.last?.logIndex ?? -1n) + 1n; ; ++n) {
        witness.note({ logIndex: n, digest: "0x" + n.toString(16).padStart(64, "0") });
        writeSync(1, n + "\\n");
      }`;
    let told = -1n;
    for (let kill = 0; kill < 5; ++kill) {
      const output = join(folder, `output ${kill}`);
      const stdout = openSync(output, "w");
      const child = spawn(process.execPath, ["--import=tsx", "--input-type=module", "--eval", program], {
        stdio: ["ignore", stdout, "inherit"],
      });
      const ended = new Promise((resolve) => child.once("close", resolve));
      while (statSync(output).size === 0) await setTimeout(5);
      await setTimeout(Math.random() * 20);
      child.kill("SIGKILL");
      await ended;
      closeSync(stdout);
      told = BigInt(readFileSync(output, "utf8").split("\n").at(-2)!);
      const { logIndex } = read()!;
      expect(logIndex === told || logIndex === told + 1n, `${logIndex} ${told}`).to.equal(true);
    }
    expect(told > 0n).to.equal(true);
  });
});
