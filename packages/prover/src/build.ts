import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";

import { BursarError } from "@bursar/protocol";
import { zKey, type VerificationKey } from "snarkjs";

import { ROOT, type CircuitSize } from "./circuits.ts";
import { DEVELOPMENT_SEED, writeDevelopmentKey } from "./development-key.ts";
import { readR1cs } from "./r1cs.ts";
import { quiet } from "./quiet.ts";

const require = createRequire(import.meta.url);

/** Where the files of one built circuit stand. */
export interface BuiltCircuit {
  readonly size: CircuitSize;
  readonly r1cs: string;
  /** Witness generator. */
  readonly wasm: string;
  readonly zkey: string;
  readonly verificationKey: VerificationKey;
  readonly constraints: number;
}

interface Manifest {
  constraints: number;
  /** sha-256 of each file. */
  files: Record<string, string>;
}

/** Told what is being done, for people. */
export type Progress = (message: string) => void;

/** The folder of a circuit with its development key, named by the hash of all that it is made from. */
export function circuitFolder(size: CircuitSize): string {
  return join(ROOT, "build", "circuits", `${size.name}-${fingerprint(size)}`);
}

/** The folder of the key to prove with: below `keys`, where a ceremony's were exported to, else the development build. */
export function keyFolder(size: CircuitSize, keys: string | undefined): string {
  return keys ? join(keys, size.name) : circuitFolder(size);
}

/**
 * Compiles a circuit and makes its development key, unless both are there. The folder appears whole or not at all.
 */
export async function buildCircuit(size: CircuitSize, progress: Progress = () => undefined): Promise<BuiltCircuit> {
  const folder = circuitFolder(size);
  if (!existsSync(folder)) {
    mkdirSync(dirname(folder), { recursive: true });
    const staging = mkdtempSync(`${folder}.`);
    try {
      progress(`${size.name}: compiling`);
      const constraints = await compile(size, staging);
      let shown = 0;
      await writeDevelopmentKey(
        join(staging, "circuit.r1cs"),
        join(staging, "circuit.zkey"),
        DEVELOPMENT_SEED,
        (fraction) => {
          if (fraction - shown < 0.1) return;
          shown = fraction;
          progress(`${size.name}: development key ${Math.round(fraction * 100)} %`);
        },
      );
      await sealCircuit(staging, constraints);
      // Whoever else built it meanwhile made the same bytes.
      if (!existsSync(folder)) renameSync(staging, folder);
    } finally {
      rmSync(staging, { recursive: true, force: true });
    }
  }
  return openCircuit(size);
}

const FILES = ["circuit.r1cs", "circuit.wasm", "circuit.zkey", "verification-key.json"];

/** Adds the verification key and the hashes of all files to a folder that holds a circuit and its key. */
export async function sealCircuit(folder: string, constraints: number): Promise<void> {
  const key = await zKey.exportVerificationKey(join(folder, "circuit.zkey"), quiet);
  writeFileSync(join(folder, "verification-key.json"), JSON.stringify(key));
  const files = Object.fromEntries(
    await Promise.all(FILES.map(async (file) => [file, await hashFile("sha256", join(folder, file))] as const)),
  );
  writeFileSync(join(folder, "manifest.json"), JSON.stringify({ constraints, files } satisfies Manifest));
}

/**
 * A circuit that was built before, after comparing every file with the hash that was taken when it was made.
 * @throws BursarError `key-missing`, `key-corrupt`
 */
export async function openCircuit(size: CircuitSize, folder: string = circuitFolder(size)): Promise<BuiltCircuit> {
  const development = folder === circuitFolder(size);
  const remedy = development
    ? `Run \`npm run circuits -- ${size.name}\`.`
    : "Export the key of the ceremony again, see docs/ceremony.md.";
  if (!existsSync(join(folder, "manifest.json"))) {
    throw new BursarError("key-missing", `No circuit ${size.name} stands in ${folder}.`, { value: folder }, remedy);
  }
  const { constraints, files } = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8")) as Manifest;
  for (const [file, expected] of Object.entries(files)) {
    const path = join(folder, file);
    const found = existsSync(path) ? await hashFile("sha256", path) : "missing";
    if (found !== expected) {
      throw new BursarError(
        "key-corrupt",
        `${file} of circuit ${size.name} is not what was built.`,
        { value: found, limit: expected },
        `Delete ${folder}. ${remedy}`,
      );
    }
  }
  const verificationKey = JSON.parse(readFileSync(join(folder, "verification-key.json"), "utf8")) as VerificationKey;
  const at = (file: string): string => join(folder, file);
  return {
    size,
    r1cs: at("circuit.r1cs"),
    wasm: at("circuit.wasm"),
    zkey: at("circuit.zkey"),
    verificationKey,
    constraints,
  };
}

/**
 * Compiles a circuit into `circuit.r1cs` and `circuit.wasm` of a folder. The compiler is WebAssembly that
 * sees nothing above its working folder, so the sources are brought there. @returns the number of constraints
 */
async function compile(size: CircuitSize, folder: string): Promise<number> {
  const { name, power } = size;
  cpSync(join(ROOT, "circuits"), join(folder, "circuits"), { recursive: true });
  cpSync(CIRCOMLIB, join(folder, "circomlib"), { recursive: true, dereference: true });
  writeFileSync(join(folder, "circuit.circom"), mainOf(size));
  const circom = require.resolve("circom2/cli.js");
  const flags = ["circuit.circom", "--O2", "--r1cs", "--wasm", "-l", "circuits", "-l", "circomlib"];
  try {
    await promisify(execFile)(process.execPath, [circom, ...flags], { cwd: folder, maxBuffer: 1 << 24 });
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`circom refuses circuit ${name}:\n${stdout}${stderr}`, { cause: error });
  }
  renameSync(join(folder, "circuit_js", "circuit.wasm"), join(folder, "circuit.wasm"));
  for (const scratch of ["circuits", "circomlib", "circuit_js", "circuit.circom"])
    rmSync(join(folder, scratch), { recursive: true });
  const { constraints, publicWires } = readR1cs(readFileSync(join(folder, "circuit.r1cs")));
  if (constraints.length + publicWires + 1 > 2 ** power) {
    throw new Error(`circuit ${name} has ${constraints.length} constraints, too many for its domain of 2^${power}`);
  }
  return constraints.length;
}

const CIRCOMLIB = dirname(require.resolve("circomlib/circuits/poseidon.circom"));

function mainOf({ template, segments, pages }: CircuitSize): string {
  const [file, main] =
    template === "Inclusion"
      ? ["inclusion", `{public [base, head, line, index]} = Inclusion(${segments * pages})`]
      : ["batch", `{public [z]} = Batch(${segments}, ${pages})`];
  return `pragma circom 2.2.3;\ninclude "${file}.circom";\ncomponent main ${main};\n`;
}

function fingerprint(size: CircuitSize): string {
  const hash = createHash("sha256").update(`${mainOf(size)}${DEVELOPMENT_SEED}${KEY_FORMAT}`);
  for (const tool of ["circom2/package.json", "circomlib/package.json"])
    hash.update(readFileSync(require.resolve(tool)));
  const sources = readdirSync(join(ROOT, "circuits"), { recursive: true, encoding: "utf8" });
  for (const file of sources.filter((path) => path.endsWith(".circom")).sort()) {
    hash.update(file).update(readFileSync(join(ROOT, "circuits", file)));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Raised when a change of this package makes other files of the same sources. */
const KEY_FORMAT = 1;

/** Hexadecimal digest of a file of any size. */
export async function hashFile(algorithm: "sha256" | "blake2b512", path: string): Promise<string> {
  const hash = createHash(algorithm);
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
