import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { allowList, BursarError, evaluate } from "@bursar/protocol";
import {
  buildCircuit,
  chooseBackend,
  circuitIdOf,
  circuitSize,
  inclusionSize,
  layOut,
  Prover,
  ROOT,
  showLine,
  type BackendChoice,
  type BuiltCircuit,
  type ProverOptions,
  type Statement,
} from "@bursar/prover";
import { expect } from "chai";
import { curves, groth16, type Groth16Proof } from "snarkjs";

const SIZE = circuitSize("tiny");
const INCLUSION = inclusionSize(SIZE);
const Z = 0xabcdefn;
const BASE_FIELD = 21888242871839275222246405745257275088696311157297823662689037894645226208583n;

const PART = {
  base: 1n,
  lines: [5n, 6n, 7n].map((amount) => ({ payee: "0x0000000000000000000000000000000000000051", amount }) as const),
  salts: [9n],
};

function statement(amount = 5n): Statement {
  const [first, ...rest] = PART.lines;
  return layOut(SIZE, [
    {
      ...PART,
      agent: "0x00000000000000000000000000000000000000A1",
      seq: 0n,
      allow: allowList([]),
      paymentCap: 100n,
      lines: [{ ...first!, amount }, ...rest],
    },
  ]);
}

/** Proofs and witnesses of a prover have no place to stay: all are below a folder of the test's own. */
const scratch = mkdtempSync(join(tmpdir(), "bursar-backends-"));
let programs = 0;

/** A program with this body that is given `zkey`, `witness`, `proof` and `signals`. */
function program(body: string): string {
  const path = join(scratch, `program-${++programs}`);
  const lines = [
    `#!${process.execPath}`,
    `const { writeFileSync: write, readFileSync: read, existsSync: exists } = require("node:fs");`,
    `const [zkey, witness, proof, signals] = process.argv.slice(2);`,
    body,
  ];
  writeFileSync(path, lines.join("\n"), { mode: 0o755 });
  return path;
}

async function refusal(attempt: Promise<unknown> | (() => unknown)): Promise<BursarError> {
  try {
    await (typeof attempt === "function" ? attempt() : attempt);
  } catch (error) {
    expect(error).to.be.instanceOf(BursarError);
    return error as BursarError;
  }
  throw new Error("nothing was refused");
}

const SPEAKER = fileURLToPath(new URL("rapidsnark.mjs", import.meta.url));

/** The rapidsnark of this machine, if there is one. */
function installed(): BackendChoice | null {
  try {
    return chooseBackend({ ...process.env, BURSAR_PROVER: "rapidsnark" });
  } catch {
    return null;
  }
}

const BACKENDS: readonly (readonly [string, BackendChoice | null])[] = [
  ["snarkjs", { name: "snarkjs" }],
  ["a program that speaks rapidsnark's command line", { name: "rapidsnark", program: SPEAKER }],
  ["rapidsnark, skipped where it is neither in BURSAR_RAPIDSNARK nor on PATH nor built", installed()],
];

describe("Prover backends", function () {
  this.timeout(300_000);
  let circuit: BuiltCircuit;
  let inclusion: BuiltCircuit;
  const open: Prover[] = [];
  const { TMPDIR } = process.env;

  const proverWith = (backend: BackendChoice, options: ProverOptions = {}): Prover => {
    const prover = new Prover(undefined, { backend, ...options });
    open.push(prover);
    return prover;
  };
  /** What the provers have left in their folders. */
  const left = (): string[] => {
    const folders = readdirSync(scratch).filter((name) => name.startsWith("bursar-prover-"));
    return folders.flatMap((folder) => readdirSync(join(scratch, folder)));
  };

  before(async () => {
    process.env["TMPDIR"] = scratch;
    circuit = await buildCircuit(SIZE);
    inclusion = await buildCircuit(INCLUSION);
  });
  afterEach(() => {
    for (const prover of open.splice(0)) prover.close();
  });
  after(async () => {
    if (TMPDIR === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = TMPDIR;
    rmSync(scratch, { recursive: true, force: true });
    await (await curves.getCurveFromName("bn128")).terminate();
  });

  for (const [name, backend] of BACKENDS) {
    describe(name, () => {
      let prover: Prover;
      before(function () {
        if (!backend) return this.skip();
        prover = new Prover(undefined, { backend });
      });
      after(() => backend && prover.close());

      it("proves a batch, and the proof verifies with the statement's public signals", async () => {
        const { rows, credits, commitment } = statement();
        const { circuitId, proof, signals } = await prover.prove(SIZE, statement(), Z);
        expect(circuitId).to.equal(circuitIdOf(circuit.verificationKey));
        expect(signals).to.deep.equal({ T: evaluate(Z, rows, credits), C: commitment, z: Z });
        const publicSignals = [signals.T, signals.C, signals.z].map(String);
        expect(await groth16.verify(circuit.verificationKey, publicSignals, groth16Proof(proof))).to.equal(true);
      });

      it("proves an inclusion, and the proof verifies with the line's public signals", async () => {
        const shown = showLine(INCLUSION, PART, 1);
        const { circuitId, proof } = await prover.proveInclusion(INCLUSION, shown);
        expect(circuitId).to.equal(circuitIdOf(inclusion.verificationKey));
        const { base, head, line, index } = shown.input;
        const publicSignals = [base, head, line, index].map(String);
        expect(await groth16.verify(inclusion.verificationKey, publicSignals, groth16Proof(proof))).to.equal(true);
      });

      it("makes another proof of the same statement each time", async () => {
        const [one, two] = [await prover.prove(SIZE, statement(), Z), await prover.prove(SIZE, statement(), Z)];
        expect(one.signals).to.deep.equal(two.signals);
        expect(one.proof).not.to.deep.equal(two.proof);
      });

      it("refuses a statement that does not hold, and proves the next one", async () => {
        const honest = statement();
        const forged = { ...honest, input: { ...honest.input, cap: honest.input.cap.map(() => 1n) } };
        expect((await refusal(prover.prove(SIZE, forged, Z))).code).to.equal("proof-invalid");
        expect((await prover.prove(SIZE, honest, Z)).signals.z).to.equal(Z);
      });

      it("refuses a statement with another commitment than its own", async () => {
        const { code } = await refusal(prover.prove(SIZE, { ...statement(), commitment: 1n }, Z));
        expect(code).to.equal("proof-invalid");
      });

      it("says that it failed when the key is gone, and leaves no file", async () => {
        const bereft = new Prover(() => Promise.resolve({ ...circuit, zkey: join(scratch, "no.zkey") }), {
          backend: backend!,
        });
        open.push(bereft);
        expect((await refusal(bereft.prove(SIZE, statement(), Z))).code).to.equal("prover-failed");
        expect(left()).to.deep.equal([]);
      });

      it("leaves no file", async () => {
        await prover.prove(SIZE, statement(), Z);
        expect(left()).to.deep.equal([]);
      });
    });
  }

  describe("a program that lies", () => {
    let honest: { proof: Groth16Proof; publicSignals: string[] };
    let other: { proof: Groth16Proof; publicSignals: string[] };

    let prover: Prover;
    const [proofs, signalsOf] = [join(scratch, "proof"), join(scratch, "signals")];

    before(async () => {
      const proved = (of: Statement): Promise<typeof honest> =>
        groth16.fullProve({ ...of.input, z: Z }, circuit.wasm, circuit.zkey);
      honest = await proved(statement());
      other = await proved(statement(6n));
      const copy = `write(proof, read(${JSON.stringify(proofs)})); write(signals, read(${JSON.stringify(signalsOf)}));`;
      prover = new Prover(undefined, { backend: { name: "rapidsnark", program: program(copy) } });
    });
    after(() => prover.close());

    /** Proves with a program that answers this, whatever it is asked. */
    const asked = (proof: unknown, signals: unknown): ReturnType<Prover["prove"]> => {
      writeFileSync(proofs, text(proof));
      writeFileSync(signalsOf, text(signals));
      return prover.prove(SIZE, statement(), Z);
    };
    const answering = (proof: unknown, signals: unknown): Promise<BursarError> => refusal(asked(proof, signals));
    const text = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));

    it("is believed when it answers what is true, so that what follows is refused for the lie alone", async () => {
      expect((await asked(honest.proof, honest.publicSignals)).proof).to.deep.equal(wordsOf(honest.proof));
    });

    it("is caught with a valid proof of another statement", async () => {
      const { code, message } = await answering(other.proof, other.publicSignals);
      expect([code, message]).to.deep.equal(["proof-invalid", "The proof of circuit tiny is of another statement."]);
    });
    it("is caught with another statement's proof under this one's signals, and the other way round", async () => {
      for (const [proof, signals] of [
        [other.proof, honest.publicSignals],
        [honest.proof, other.publicSignals],
      ] as const) {
        const { code, message } = await answering(proof, signals);
        expect([code, message]).to.deep.equal(["proof-invalid", "The proof does not verify."]);
      }
    });
    it("is caught with one signal altered, missing or too many", async () => {
      const { publicSignals: signals } = honest;
      for (const index of [0, 1, 2]) {
        const altered = signals.map((signal, i) => (i === index ? String(BigInt(signal) + 1n) : signal));
        expect((await answering(honest.proof, altered)).code).to.equal("proof-invalid");
      }
      expect((await answering(honest.proof, signals.slice(0, 2))).code).to.equal("proof-invalid");
      expect((await answering(honest.proof, [...signals, "1"])).code).to.equal("proof-invalid");
    });
    it("is caught with the same points in numbers that the chain refuses", async () => {
      const { pi_a: a, pi_b: b, pi_c: c } = honest.proof;
      const shifted = { ...honest.proof, pi_a: [String(BigInt(a[0]!) + BASE_FIELD), a[1]!, "1"] };
      expect(await groth16.verify(circuit.verificationKey, honest.publicSignals, shifted), "snarkjs").to.equal(true);
      const projective = { ...honest.proof, pi_c: [...scaled(c), "2"] };
      expect(await groth16.verify(circuit.verificationKey, honest.publicSignals, projective), "snarkjs").to.equal(true);
      for (const proof of [shifted, projective, { ...honest.proof, pi_b: [b[0], b[1], ["1", "1"]] }]) {
        const { code, message } = await answering(proof, honest.publicSignals);
        expect([code, message]).to.deep.equal(["proof-invalid", "What the prover wrote is no proof."]);
      }
    });
    it("is caught with anything else", async () => {
      for (const garbage of [
        null,
        [],
        {},
        { ...honest.proof, pi_b: "1" },
        { ...honest.proof, pi_a: ["-1", "2", "1"] },
      ]) {
        expect((await answering(garbage, honest.publicSignals)).code).to.equal("proof-invalid");
      }
      for (const garbage of [null, {}, [1, 2, 3], ["a", "b", "c"]]) {
        expect((await answering(honest.proof, garbage)).code).to.equal("proof-invalid");
      }
      expect((await answering("{ not JSON", honest.publicSignals)).code).to.equal("prover-failed");
      expect((await answering(honest.proof, "")).code).to.equal("prover-failed");
      expect(left()).to.deep.equal([]);
    });
  });

  describe("a program that fails", () => {
    const failing = (body: string, options: ProverOptions = {}): Promise<BursarError> =>
      refusal(proverWith({ name: "rapidsnark", program: program(body) }, options).prove(SIZE, statement(), Z));

    it("that ends with an error, is killed or writes nothing is told as such, and leaves no file", async () => {
      const crashed = await failing(`console.error("no memory for the points"); process.exit(3);`);
      expect([crashed.code, crashed.message]).to.deep.equal([
        "prover-failed",
        "rapidsnark ended (3) without a proof: no memory for the points",
      ]);
      const killed = await failing(`write(proof, "half"); process.kill(process.pid, "SIGKILL");`);
      expect(killed.code).to.equal("prover-failed");
      expect(killed.message).to.include("SIGKILL");
      expect(killed.advice).to.include("tried again");
      expect((await failing("")).code).to.equal("prover-failed");
      expect(left()).to.deep.equal([]);
    });

    it("that talks much is remembered by its last words", async () => {
      const { message } = await failing(`write(2, "x".repeat(5_000_000)); write(2, "the end"); process.exit(1);`);
      expect(message)
        .to.match(/the end$/)
        .and.to.have.length.below(1_000);
    });

    it("that hangs is given up after the time that it has, ended with what it started, and its files removed", async () => {
      const pids = join(scratch, "pids");
      const body = `
        const child = require("node:child_process").spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]);
        write(${JSON.stringify(pids)}, process.pid + " " + child.pid + " " + require("node:path").dirname(witness));
        setInterval(() => {}, 1000);`;
      const { code, message } = await failing(body, { within: 12 });
      expect([code, message]).to.deep.equal(["prover-failed", "The prover did not answer within 12 s."]);
      const [own, child, folder] = readFileSync(pids, "utf8").split(" ");
      await until(() => !existsSync(folder!) && !isAlive(Number(own)) && !isAlive(Number(child)));
    });

    it("is given up with the prover that asked it", async () => {
      const pids = join(scratch, "given-up");
      const hanging = program(`write(${JSON.stringify(pids)}, String(process.pid)); setInterval(() => {}, 1000);`);
      const prover = proverWith({ name: "rapidsnark", program: hanging });
      const givenUp = refusal(prover.prove(SIZE, statement(), Z));
      await until(() => existsSync(pids) && readFileSync(pids, "utf8") !== "");
      prover.close();
      expect((await givenUp).code).to.equal("prover-failed");
      await until(() => !isAlive(Number(readFileSync(pids, "utf8"))));
      await until(() => !readdirSync(scratch).some((name) => name.startsWith("bursar-prover-")));
    });

    it("is told nothing of the processor's secrets", async () => {
      process.env["BURSAR_PASSWORD"] = "secret";
      try {
        const body = `console.error(Object.keys(process.env).filter((name) => /^PATH|^BURSAR/.test(name)).join());`;
        expect((await failing(`${body} process.exit(1);`)).message).to.match(/: PATH$/);
      } finally {
        delete process.env["BURSAR_PASSWORD"];
      }
    });

    it("keeps a witness where nobody else can read it", async () => {
      const body = `const { mode } = require("node:fs").statSync(require("node:path").dirname(witness));
        console.error((mode & 0o777).toString(8), (require("node:fs").statSync(witness).mode & 0o777).toString(8));
        process.exit(1);`;
      expect((await failing(body)).message).to.match(/: 700 600$/);
    });
  });

  describe("a prover whose own process ends", () => {
    it("while it waits is started again for the next proof", async () => {
      const prover = proverWith({ name: "snarkjs" });
      await prover.prove(SIZE, statement(), Z);
      const { pid } = prover;
      process.kill(pid!, "SIGKILL");
      await until(() => prover.pid === undefined);
      expect((await prover.prove(SIZE, statement(), Z)).signals.z).to.equal(Z);
      expect(prover.pid).not.to.equal(pid);
    });

    it("while it proves says so, leaves no file, and proves again", async () => {
      const started = join(scratch, "started");
      const slow = program(`write(${JSON.stringify(started)}, String(process.pid)); setTimeout(() => {}, 60_000);`);
      const prover = proverWith({ name: "rapidsnark", program: slow });
      const cut = refusal(prover.prove(SIZE, statement(), Z));
      await until(() => existsSync(started) && readFileSync(started, "utf8") !== "");
      process.kill(prover.pid!, "SIGKILL");
      const error = await cut;
      expect([error.code, error.message]).to.deep.equal([
        "prover-failed",
        "The prover ended (SIGKILL) before it answered.",
      ]);
      expect(left()).to.deep.equal([]);
      process.kill(Number(readFileSync(started, "utf8")), "SIGKILL");
    });

    it("goes on when its parent is interrupted from the terminal", async () => {
      const prover = proverWith({ name: "rapidsnark", program: SPEAKER });
      await prover.prove(SIZE, statement(), Z);
      const proof = prover.prove(SIZE, statement(), Z);
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.kill(prover.pid!, signal);
      expect((await proof).signals.z).to.equal(Z);
    });
  });

  describe("the choice", () => {
    it("is snarkjs where nothing is said, whatever programs there are", () => {
      for (const BURSAR_PROVER of [undefined, "", "snarkjs"]) {
        const environment = { BURSAR_PROVER, BURSAR_RAPIDSNARK: SPEAKER, PATH: dirname(SPEAKER) };
        expect(chooseBackend(environment)).to.deep.equal({ name: "snarkjs" });
      }
    });
    it("is refused for another name", async () => {
      const { code, details } = await refusal(() => chooseBackend({ BURSAR_PROVER: "rapid" }));
      expect(code).to.equal("malformed-input");
      expect(details).to.deep.equal({ value: "rapid", limit: "snarkjs rapidsnark" });
    });
    it("takes the program that BURSAR_RAPIDSNARK names, and no other, as an absolute path", async () => {
      const named = { BURSAR_PROVER: "rapidsnark", BURSAR_RAPIDSNARK: "test/circuits/rapidsnark.mjs", PATH: "" };
      expect(chooseBackend(named)).to.deep.equal({ name: "rapidsnark", program: SPEAKER });
      const onPath = join(scratch, "bin");
      mkdirSync(onPath);
      symlinkSync(SPEAKER, join(onPath, "rapidsnark"));
      const gone = { BURSAR_PROVER: "rapidsnark", BURSAR_RAPIDSNARK: join(scratch, "none"), PATH: onPath };
      const error = await refusal(() => chooseBackend(gone));
      expect([error.code, error.details["value"]]).to.deep.equal(["prover-missing", join(scratch, "none")]);
      expect(error.advice).to.include("npm run rapidsnark").and.to.include("BURSAR_PROVER=snarkjs");
    });
    it("finds rapidsnark on PATH, past what is no program", () => {
      const [folder, file, link] = ["folder", "file", "link"].map((name) => join(scratch, `on-path-${name}`));
      for (const path of [folder!, file!, link!]) mkdirSync(path);
      mkdirSync(join(folder!, "rapidsnark"));
      writeFileSync(join(file!, "rapidsnark"), "no program", { mode: 0o644 });
      symlinkSync(SPEAKER, join(link!, "rapidsnark"));
      const PATH = [join(scratch, "nowhere"), folder!, file!, link!].join(delimiter);
      const choice = chooseBackend({ BURSAR_PROVER: "rapidsnark", PATH });
      expect(choice).to.deep.equal({ name: "rapidsnark", program: join(link!, "rapidsnark") });
    });
    it("is made before a proof is needed, and at the latest with it", async () => {
      const [{ BURSAR_PROVER, BURSAR_RAPIDSNARK }, prover] = [process.env, new Prover()];
      Object.assign(process.env, { BURSAR_PROVER: "rapidsnark", BURSAR_RAPIDSNARK: join(scratch, "none") });
      try {
        expect((await refusal(prover.ready(SIZE))).code).to.equal("prover-missing");
        expect((await refusal(prover.prove(SIZE, statement(), Z))).code).to.equal("prover-missing");
      } finally {
        delete process.env["BURSAR_PROVER"];
        delete process.env["BURSAR_RAPIDSNARK"];
        Object.assign(process.env, BURSAR_PROVER && { BURSAR_PROVER }, BURSAR_RAPIDSNARK && { BURSAR_RAPIDSNARK });
      }
    });
    it("is told when the program went away since", async () => {
      const { code } = await refusal(
        proverWith({ name: "rapidsnark", program: join(scratch, "gone") }).prove(SIZE, statement(), Z),
      );
      expect(code).to.equal("prover-missing");
    });
    it("takes a time from BURSAR_PROVE_WITHIN, and refuses what is none", async () => {
      for (const value of ["0", "-1", "soon", "1e9", ""]) {
        process.env["BURSAR_PROVE_WITHIN"] = value;
        try {
          const { code, details } = await refusal(new Prover().ready(SIZE));
          expect([code, details["value"]]).to.deep.equal(["malformed-input", value]);
        } finally {
          delete process.env["BURSAR_PROVE_WITHIN"];
        }
      }
    });
  });

  describe("npm run rapidsnark", () => {
    const run = (...parameters: string[]): { status: number | null; stderr: string } =>
      spawnSync(process.execPath, ["--import", "tsx", "scripts/rapidsnark.ts", ...parameters], {
        cwd: ROOT,
        encoding: "utf8",
      });

    it("asks for the source", () => {
      const { status, stderr } = run();
      expect(status).to.equal(2);
      expect(stderr).to.match(/^--source is missing\./);
    });
    it("builds no other revision than the one that was tested, and says where to get it", function () {
      if (process.platform !== "linux" || process.arch !== "x64") return this.skip();
      const empty = join(scratch, "repository");
      spawnSync("git", ["init", "--quiet", empty]);
      for (const [source, why] of [
        [empty, /repository has no commit 3ea6c4d[0-9a-f]{33}\. Clone https:\/\/github\.com\/iden3\/rapidsnark/],
        [join(scratch, "nowhere"), /nowhere is not there\. Clone/],
      ] as const) {
        const { status, stderr } = run("--source", source);
        expect(status).to.equal(1);
        expect(stderr).to.match(why);
      }
    });
  });
});

/** A proof as snarkjs takes it, from the contract's words. */
function groth16Proof(words: readonly bigint[]): Groth16Proof {
  const [ax, ay, bx1, bx0, by1, by0, cx, cy] = words.map(String) as [string, ...string[]];
  return {
    pi_a: [ax, ay!, "1"],
    pi_b: [
      [bx0!, bx1!],
      [by0!, by1!],
      ["1", "0"],
    ],
    pi_c: [cx!, cy!, "1"],
  };
}

function wordsOf({ pi_a: a, pi_b: b, pi_c: c }: Groth16Proof): bigint[] {
  return [a[0], a[1], b[0]![1], b[0]![0], b[1]![1], b[1]![0], c[0], c[1]].map((digits) => BigInt(digits!));
}

/** The same point of G1 in Jacobian coordinates with z = 2. */
const scaled = ([x, y]: readonly string[]): string[] =>
  [BigInt(x!) * 4n, BigInt(y!) * 8n].map((value) => String(value % BASE_FIELD));

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // One that has ended and that nobody has waited for yet is still listed.
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/** Waits for what must come within a minute. */
async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); ++tries) {
    if (tries > 3_000) throw new Error(`in vain: ${condition.toString()}`);
    await setTimeout(20);
  }
}
