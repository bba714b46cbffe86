import { createHash } from "node:crypto";
import { appendFileSync, copyFileSync, cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { allowList, BursarError, evaluate, FIELD } from "@bursar/protocol";
import {
  buildCircuit,
  circuitFolder,
  circuitIdOf,
  circuitSize,
  DEVELOPMENT_SEED,
  keyFolder,
  layOut,
  openCircuit,
  Prover,
  segmentSlots,
  verifierSource,
  writeDevelopmentKey,
  type BuiltCircuit,
  type Statement,
} from "@bursar/prover";
import { expect } from "chai";
import { curves, groth16 } from "snarkjs";

const TINY = circuitSize("tiny");
const Z = 123_456_789n;

const statement = (): Statement =>
  layOut(TINY, [
    {
      agent: "0x00000000000000000000000000000000000000A1",
      base: 5n,
      seq: 0n,
      allow: allowList([]),
      paymentCap: 100n,
      salts: [9n],
      lines: [{ payee: "0x0000000000000000000000000000000000000051", amount: 7n }],
    },
  ]);

async function refusal(attempt: Promise<unknown>): Promise<BursarError> {
  const error: unknown = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).to.be.instanceOf(BursarError);
  return error as BursarError;
}

describe("Keys and proofs", function () {
  this.timeout(300_000);
  const folder = mkdtempSync(join(tmpdir(), "bursar-keys-"));
  let tiny: BuiltCircuit;

  before(async () => {
    tiny = await buildCircuit(TINY);
  });
  after(async () => {
    rmSync(folder, { recursive: true });
    await (await curves.getCurveFromName("bn128")).terminate();
  });

  describe("the development key", () => {
    it("is the same, byte for byte, whenever it is made; another seed makes another", async () => {
      const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
      await writeDevelopmentKey(tiny.r1cs, join(folder, "again.zkey"), DEVELOPMENT_SEED);
      expect(sha256(join(folder, "again.zkey"))).to.equal(sha256(tiny.zkey));
      await writeDevelopmentKey(tiny.r1cs, join(folder, "other.zkey"), "another seed");
      expect(sha256(join(folder, "other.zkey"))).not.to.equal(sha256(tiny.zkey));
    });

    it("has gamma and delta that differ from each other and from the generator", () => {
      const { vk_gamma_2: gamma, vk_delta_2: delta, vk_beta_2: beta } = tiny.verificationKey;
      const generator = "10857046999023057135944570762232829481370756359578518086990519993285655852781";
      expect(gamma).not.to.deep.equal(delta);
      for (const point of [gamma, delta, beta]) expect(point[0]![0]).not.to.equal(generator);
    });
  });

  describe("a circuit's files", () => {
    it("are refused when missing, with the command that makes them", async () => {
      const error = await refusal(openCircuit({ ...TINY, pages: 3 }));
      expect(error.code).to.equal("key-missing");
      expect(error.advice).to.include("npm run circuits -- tiny");
    });

    it("are refused when missing from a folder of a ceremony's keys, and not looked for elsewhere", async () => {
      const error = await refusal(openCircuit(TINY, keyFolder(TINY, join(folder, "nowhere"))));
      expect(error.code).to.equal("key-missing");
      expect(error.details["value"]).to.equal(join(folder, "nowhere", "tiny"));
      expect(error.advice).to.include("docs/ceremony.md");
    });

    for (const file of ["circuit.zkey", "circuit.wasm", "verification-key.json"]) {
      it(`are refused when ${file} was altered, with both hashes`, async () => {
        const copy = join(folder, `copy-${file}`);
        cpSync(circuitFolder(TINY), copy, { recursive: true });
        appendFileSync(join(copy, file), "x");
        const error = await refusal(openCircuit(TINY, copy));
        expect(error.code).to.equal("key-corrupt");
        expect(error.details["value"]).not.to.equal(error.details["limit"]);
      });
    }

    it("are refused when one is gone", async () => {
      const copy = join(folder, "incomplete");
      cpSync(circuitFolder(TINY), copy, { recursive: true });
      rmSync(join(copy, "circuit.zkey"));
      expect((await refusal(openCircuit(TINY, copy))).code).to.equal("key-corrupt");
    });
  });

  describe("a proof", () => {
    const prover = new Prover();
    after(() => prover.close());

    it("proves the statement at its challenge, and names its key", async () => {
      const { commitment } = statement();
      const proved = await prover.prove(TINY, statement(), Z);
      expect(proved.signals).to.include({ C: commitment, z: Z });
      expect(proved.circuitId).to.equal(circuitIdOf(tiny.verificationKey));
      expect(proved.proof).to.have.length(8);
    });

    it("proves as many payments as the default circuit takes", async () => {
      const size = circuitSize("default");
      await buildCircuit(size);
      const lines = Array.from({ length: segmentSlots(size) }, (_, i) => ({
        payee: `0x${(0x51 + (i % 20)).toString(16).padStart(40, "0")}` as const,
        amount: BigInt(i + 1),
      }));
      const rows = Array.from({ length: size.segments }, (_, i) => ({
        agent: `0x${(0xa1 + i).toString(16).padStart(40, "0")}` as const,
        base: BigInt(i + 1),
        seq: 0n,
        allow: allowList([]),
        paymentCap: 100n,
        salts: Array.from({ length: size.pages }, (__, page) => BigInt(page)),
        lines,
      }));
      const full = layOut(size, rows);
      const { signals } = await prover.prove(size, full, Z);
      expect(signals).to.deep.equal({ T: evaluate(Z, full.rows, full.credits), C: full.commitment, z: Z });
    });

    it("is refused with any other signal, and by another key", async () => {
      const { input } = statement();
      const { proof, publicSignals } = await groth16.fullProve({ ...input, z: Z }, tiny.wasm, tiny.zkey);
      expect(await groth16.verify(tiny.verificationKey, publicSignals, proof)).to.equal(true);
      for (const index of [0, 1, 2]) {
        const altered = publicSignals.map((signal, i) =>
          i === index ? String((BigInt(signal) + 1n) % FIELD) : signal,
        );
        expect(await groth16.verify(tiny.verificationKey, altered, proof)).to.equal(false);
      }
      const { verificationKey: other } = await buildCircuit(circuitSize("default"));
      expect(await groth16.verify(other, publicSignals, proof)).to.equal(false);
    });

    it("is refused when the statement does not hold, and the next one is proved", async () => {
      const honest = statement();
      const forged = { ...honest, input: { ...honest.input, cap: honest.input.cap.map(() => 1n) } };
      expect((await refusal(prover.prove(TINY, forged, Z))).code).to.equal("proof-invalid");
      expect((await prover.prove(TINY, honest, Z)).signals.z).to.equal(Z);
    });

    it("is refused when it is not of the statement's commitment", async () => {
      const error = await refusal(prover.prove(TINY, { ...statement(), commitment: 1n }, Z));
      expect(error.code).to.equal("proof-invalid");
    });

    it("is made one after another, each at its own challenge", async () => {
      const proofs = await Promise.all([1n, 2n].map((z) => prover.prove(TINY, statement(), z)));
      expect(proofs.map(({ signals }) => signals.z)).to.deep.equal([1n, 2n]);
    });

    it("is given up when the prover is closed, and can be made again", async () => {
      await prover.prove(TINY, statement(), Z);
      const givenUp = refusal(prover.prove(TINY, statement(), Z));
      setTimeout(() => prover.close(), 100);
      const error = await givenUp;
      expect(error.code).to.equal("prover-failed");
      expect(error.advice).to.include("proved again");
      expect((await prover.prove(TINY, statement(), Z)).signals.z).to.equal(Z);
    });

    it("fails with a typed error when the key is gone meanwhile", async () => {
      const copy = join(folder, "vanishing");
      cpSync(circuitFolder(TINY), copy, { recursive: true });
      const opened = await openCircuit(TINY, copy);
      rmSync(opened.zkey);
      const bereft = new Prover(() => Promise.resolve(opened));
      expect((await refusal(bereft.prove(TINY, statement(), Z))).code).to.equal("prover-failed");
      bereft.close();
      copyFileSync(tiny.zkey, opened.zkey);
    });
  });

  describe("a verifier's source", () => {
    const source = (development: boolean): Promise<string> =>
      verifierSource({ name: "SomeVerifier", zkey: tiny.zkey, verificationKey: tiny.verificationKey, development });

    it("names the key and says that it is for development, and refuses other chains twice", async () => {
      const text = await source(true);
      expect(text).to.include(`circuitId = ${circuitIdOf(tiny.verificationKey)}`);
      expect(text).to.include("DEVELOPMENT KEY");
      expect(text.match(/revert DevelopmentKey\(block\.chainid\)/g)).to.have.length(2);
    });

    it("has no such limit for a key from a ceremony", async () => {
      const text = await source(false);
      expect(text).to.include("isDevelopmentKey = false");
      expect(text).not.to.include("DevelopmentKey(");
    });
  });
});
