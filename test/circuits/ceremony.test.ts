import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { BursarError } from "@bursar/protocol";
import {
  applyBeacon,
  beginCeremony,
  checkPhase1,
  circuitIdOf,
  contribute,
  DEVELOPMENT_SEED,
  exportKey,
  hashFile,
  openCircuit,
  readR1cs,
  ROOT,
  verifierName,
  verifierSource,
  verifyCeremony,
  writeDevelopmentKey,
  type CircuitSize,
  type Phase1,
} from "@bursar/prover";
import { expect } from "chai";
import solc from "solc";
import { curves, groth16, powersOfTau } from "snarkjs";

const require = createRequire(import.meta.url);
const compiler = solc as { compile(input: string): string };

/** Three public signals, as Batch has, and a handful of constraints, so that a whole ceremony takes seconds. */
const SOURCE = `pragma circom 2.2.3;
template Toy() {
  signal input z;
  signal input x;
  signal output T;
  signal output C;
  C <== x * x;
  T <== C * z;
}
component main {public [z]} = Toy();
`;
const SIZE: CircuitSize = { name: "toy", segments: 1, pages: 1, power: 3 };
const BEACON = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";

async function refusal(attempt: Promise<unknown>): Promise<BursarError> {
  const error: unknown = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).to.be.instanceOf(BursarError);
  return error as BursarError;
}

describe("A key ceremony", function () {
  this.timeout(120_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-ceremony-"));
  const at = (file: string): string => join(folder, file);
  const circuit = { size: SIZE, r1cs: at("toy.r1cs"), wasm: at("toy.wasm"), constraints: 2 };
  let phase1: Phase1;
  let hashes: string[];

  before(async () => {
    writeFileSync(at("toy.circom"), SOURCE);
    const circom = require.resolve("circom2/cli.js");
    await promisify(execFile)(process.execPath, [circom, "toy.circom", "--O2", "--r1cs", "--wasm"], { cwd: folder });
    renameSync(at("toy_js/toy.wasm"), circuit.wasm);
    circuit.constraints = readR1cs(readFileSync(circuit.r1cs)).constraints.length;

    const curve = await curves.getCurveFromName("bn128");
    await powersOfTau.newAccumulator(curve, 4, at("0.ptau"));
    await powersOfTau.contribute(at("0.ptau"), at("1.ptau"), "somebody", "entropy");
    await powersOfTau.preparePhase2(at("1.ptau"), at("final.ptau"));
    const digest = await hashFile("blake2b512", at("final.ptau"));
    phase1 = { path: at("final.ptau"), hash: { algorithm: "blake2b512", digest } };

    await beginCeremony(circuit.r1cs, phase1, at("0.zkey"));
    hashes = [
      await contribute(at("0.zkey"), at("1.zkey"), "Ada"),
      await contribute(at("1.zkey"), at("2.zkey"), "Ben", "dice"),
      await applyBeacon(at("2.zkey"), at("final.zkey"), BEACON, 10),
    ];
  });
  after(async () => {
    rmSync(folder, { recursive: true });
    await (await curves.getCurveFromName("bn128")).terminate();
  });

  it("lists every contribution with the hash that its contributor was told", async () => {
    expect(await verifyCeremony(circuit.r1cs, phase1, at("final.zkey"))).to.deep.equal([
      { name: "Ada", hash: hashes[0], beacon: false },
      { name: "Ben", hash: hashes[1], beacon: false },
      { name: "beacon", hash: hashes[2], beacon: true },
    ]);
  });

  it("gives everybody another key: the machine's randomness is always in it", async () => {
    const again = await contribute(at("1.zkey"), at("2-again.zkey"), "Ben", "dice");
    expect(again).not.to.equal(hashes[1]);
  });

  it("exports a key that proves, and a verifier without limit of chains that compiles", async () => {
    const exported = await exportKey(circuit, phase1, at("final.zkey"), at("keys/toy"));
    expect(await openCircuit(SIZE, at("keys/toy"))).to.deep.equal(exported);
    const { proof, publicSignals } = await groth16.fullProve({ z: 3, x: 5 }, exported.wasm, exported.zkey);
    expect(publicSignals).to.deep.equal(["75", "25", "3"]);
    expect(await groth16.verify(exported.verificationKey, publicSignals, proof)).to.equal(true);
    expect(await groth16.verify(exported.verificationKey, ["76", "25", "3"], proof)).to.equal(false);

    const name = verifierName(SIZE, false);
    expect(name).to.equal("ToyCeremonyBatchVerifier");
    const source = await verifierSource({ name, ...exported, development: false });
    expect(source).to.include(`circuitId = ${circuitIdOf(exported.verificationKey)}`);
    expect(source).to.include("isDevelopmentKey = false").and.not.to.include("block.chainid");
    expect(errorsOf(name, source)).to.deep.equal([]);
  });

  describe("refuses", () => {
    it("a phase-1 file that is not a published one, and names both hashes", async () => {
      const error = await refusal(checkPhase1({ path: phase1.path }));
      expect(error.code).to.equal("key-corrupt");
      expect(error.details["value"]).to.equal(phase1.hash!.digest);
      expect(error.details["limit"]).to.include("circuits/phase1.json");
    });

    it("a phase-1 file with one byte altered, at every step that takes it", async () => {
      const bytes = readFileSync(phase1.path);
      bytes[bytes.length - 1]! ^= 1;
      writeFileSync(at("altered.ptau"), bytes);
      const altered = { ...phase1, path: at("altered.ptau") };
      for (const attempt of [
        () => checkPhase1(altered),
        () => beginCeremony(circuit.r1cs, altered, at("never.zkey")),
        () => verifyCeremony(circuit.r1cs, altered, at("final.zkey")),
        () => exportKey(circuit, altered, at("final.zkey"), at("keys/never")),
      ]) {
        const { code, details } = await refusal(attempt());
        expect(code).to.equal("key-corrupt");
        expect(details["limit"]).to.equal(phase1.hash!.digest);
      }
      expect(existsSync(at("never.zkey"))).to.equal(false);
    });

    it("a phase-1 file by its SHA-256 as well", async () => {
      const digest = await hashFile("sha256", phase1.path);
      const hash = { algorithm: "sha256", digest } as const;
      expect(await checkPhase1({ ...phase1, hash: { ...hash, digest: digest.toUpperCase() } })).to.equal(digest);
      expect((await refusal(checkPhase1({ ...phase1, hash: { ...hash, digest: "00" } }))).code).to.equal("key-corrupt");
    });

    it("a phase-1 file that is too small for the circuit", async () => {
      await powersOfTau.newAccumulator(await curves.getCurveFromName("bn128"), 1, at("small-0.ptau"));
      await powersOfTau.preparePhase2(at("small-0.ptau"), at("small.ptau"));
      const digest = await hashFile("sha256", at("small.ptau"));
      const small: Phase1 = { path: at("small.ptau"), hash: { algorithm: "sha256", digest } };
      expect((await refusal(beginCeremony(circuit.r1cs, small, at("never.zkey")))).code).to.equal("malformed-input");
    });

    it("files that are missing", async () => {
      for (const attempt of [
        () => checkPhase1({ path: at("nowhere") }),
        () => contribute(at("nowhere"), at("never.zkey"), "Ada"),
        () => verifyCeremony(circuit.r1cs, phase1, at("nowhere")),
      ]) {
        expect((await refusal(attempt())).code).to.equal("key-missing");
      }
    });

    it("to replace a file", async () => {
      const error = await refusal(contribute(at("0.zkey"), at("1.zkey"), "Eve"));
      expect(error.code).to.equal("malformed-input");
      expect(await verifyCeremony(circuit.r1cs, phase1, at("1.zkey"))).to.have.length(1);
    });

    it("a contributor without a name, a short beacon, too few iterations", async () => {
      for (const attempt of [
        () => contribute(at("0.zkey"), at("never.zkey"), ""),
        () => applyBeacon(at("1.zkey"), at("never.zkey"), "0102", 10),
        () => applyBeacon(at("1.zkey"), at("never.zkey"), BEACON, 9),
      ]) {
        expect((await refusal(attempt())).code).to.equal("malformed-input");
      }
    });

    it("to export a key to which nobody contributed: its delta is the generator", async () => {
      const error = await refusal(exportKey(circuit, phase1, at("0.zkey"), at("keys/never")));
      expect(error.message).to.include("nobody contributed");
      expect(error.details).to.include({ value: "0", limit: "1" });
    });

    it("to export a key that only a beacon made: its secret is public", async () => {
      await applyBeacon(at("0.zkey"), at("beacon.zkey"), BEACON, 10);
      const error = await refusal(exportKey(circuit, phase1, at("beacon.zkey"), at("keys/never")));
      expect(error.message).to.include("nobody contributed");
    });

    it("to export a key that no beacon ends", async () => {
      const error = await refusal(exportKey(circuit, phase1, at("2.zkey"), at("keys/never")));
      expect(error.message).to.include("no beacon");
    });

    it("to export a development key", async () => {
      await writeDevelopmentKey(circuit.r1cs, at("development.zkey"), DEVELOPMENT_SEED);
      const error = await refusal(exportKey(circuit, phase1, at("development.zkey"), at("keys/never")));
      expect(error.message).to.include("does not follow");
      expect(existsSync(at("keys/never"))).to.equal(false);
    });

    for (const section of [5, 9]) {
      it(`a key in which two points of section ${section} changed places`, async () => {
        const key = readFileSync(at("final.zkey"));
        const { start } = sectionOf(key, section);
        const [first, second] = [0, 64].map((offset) => Buffer.from(key.subarray(start + offset, start + offset + 64)));
        expect(first).not.to.deep.equal(second);
        key.set(second!, start);
        key.set(first!, start + 64);
        const path = at(`exchanged-${section}.zkey`);
        writeFileSync(path, key);
        expect((await refusal(verifyCeremony(circuit.r1cs, phase1, path))).code).to.equal("key-corrupt");
      });
    }

    it("an exported key that was altered, and says that it comes from a ceremony", async () => {
      const exported = await exportKey(circuit, phase1, at("final.zkey"), at("keys/altered"));
      copyFileSync(at("2.zkey"), exported.zkey);
      const error = await refusal(openCircuit(SIZE, at("keys/altered")));
      expect(error.code).to.equal("key-corrupt");
      expect(error.advice).to.include("docs/ceremony.md");
    });
  });

  describe("as a command", () => {
    const run = (...parameters: string[]): Promise<{ code: number; stdout: string; stderr: string }> =>
      promisify(execFile)(process.execPath, ["--import", "tsx", "scripts/ceremony.ts", ...parameters], { cwd: ROOT })
        .then((output) => ({ code: 0, ...output }))
        .catch((error: unknown) => error as { code: number; stdout: string; stderr: string });

    it("prints the hash of a phase-1 file", async () => {
      const { digest } = phase1.hash!;
      const { code, stdout } = await run("ptau", phase1.path, "--blake2b", digest, "--json");
      expect(code).to.equal(0);
      expect(JSON.parse(stdout)).to.deep.equal({ file: phase1.path, hash: digest });
    });

    it("contributes, ends with a beacon, and prints the hashes to publish", async () => {
      const added = await run("contribute", at("1.zkey"), at("cli.zkey"), "--name", "Cleo", "--json");
      const ended = await run("beacon", at("cli.zkey"), at("cli-final.zkey"), "--value", BEACON, "--json");
      const printed = [added, ended].map(({ stdout }) => (JSON.parse(stdout) as { contribution: string }).contribution);
      const contributions = await verifyCeremony(circuit.r1cs, phase1, at("cli-final.zkey"));
      expect(contributions.map(({ name }) => name)).to.deep.equal(["Ada", "Cleo", "beacon"]);
      expect(contributions.slice(1).map(({ hash }) => hash)).to.deep.equal(printed);
    });

    it("refuses in one line and exits with 1", async () => {
      const { code, stderr } = await run("ptau", phase1.path);
      expect(code).to.equal(1);
      expect(stderr.trim().split("\n")).to.have.length(1);
      expect(stderr).to.include("key-corrupt").and.to.include(phase1.hash!.digest);
    });

    it("shows its usage and exits with 2 when it is called wrongly", async () => {
      for (const wrong of [[], ["begin"], ["--nothing"]]) {
        const { code, stderr } = await run(...wrong);
        expect(code).to.equal(2);
        expect(stderr).to.include("usage: npm run ceremony");
      }
    });
  });
});

/** Where a section of a key stands. */
function sectionOf(key: Buffer, id: number): { start: number } {
  for (let at = 12; at < key.length;) {
    const size = Number(key.readBigUInt64LE(at + 4));
    if (key.readUInt32LE(at) === id) return { start: at + 12 };
    at += 12 + size;
  }
  throw new Error(`no section ${id}`);
}

function errorsOf(name: string, source: string): string[] {
  const path = "contracts/interfaces/IBatchVerifier.sol";
  const input = {
    language: "Solidity",
    sources: {
      [`contracts/verifiers/${name}.sol`]: { content: source },
      [path]: { content: readFileSync(join(ROOT, path), "utf8") },
    },
    settings: { outputSelection: { "*": { "*": ["evm.bytecode.object"] } } },
  };
  const output = JSON.parse(compiler.compile(JSON.stringify(input))) as {
    errors?: { severity: string; formattedMessage: string }[];
  };
  return (output.errors ?? [])
    .filter(({ severity }) => severity === "error")
    .map(({ formattedMessage }) => formattedMessage);
}
