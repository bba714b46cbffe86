import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { fastConstants, plainConstants } from "./constants.ts";
import { limbsOf, packConstants } from "./packing.ts";

const require = createRequire(import.meta.url);
const COMPILER = dirname(require.resolve("assemblyscript/package.json"));
const ASSEMBLY = fileURLToPath(new URL("../assembly/index.ts", import.meta.url));
const BUILD = fileURLToPath(new URL("../../../build", import.meta.url));

const FLAGS = ["-O3", "--noAssert", "--runtime", "stub", "--enable", "simd", "--initialMemory", "3"];

/** Where the compiled hash stands, named by the hash of all that it is made from. */
export function wasmFile(): string {
  return join(BUILD, "poseidon", fingerprint(), "poseidon.wasm");
}

/** Compiles the hash unless it is there, and returns its file. The file appears whole or not at all. */
export async function buildPoseidon(): Promise<string> {
  const file = wasmFile();
  if (existsSync(file)) return file;
  const folder = dirname(file);
  mkdirSync(dirname(folder), { recursive: true });
  const staging = mkdtempSync(`${folder}.`);
  try {
    await compile(staging);
    mkdirSync(folder, { recursive: true });
    // Whoever else built it meanwhile made the same bytes.
    renameSync(join(staging, "poseidon.wasm"), file);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
  return file;
}

/**
 * Compiles `poseidon.wasm` in a folder. The compiler runs as a process of its own: imported where tsx transforms what is
 * imported, it takes six seconds to load, and a third of one otherwise.
 */
async function compile(folder: string): Promise<void> {
  copyFileSync(ASSEMBLY, join(folder, "index.ts"));
  writeFileSync(join(folder, "constants.ts"), constantsSource());
  const command = [join(COMPILER, "bin/asc.js"), "index.ts", "--outFile", "poseidon.wasm", ...FLAGS];
  try {
    await promisify(execFile)(process.execPath, command, { cwd: folder });
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`AssemblyScript refuses Poseidon:\n${stdout}${stderr}`, { cause: error });
  }
}

/** The AssemblyScript module that the constants are part of the WebAssembly by. */
function constantsSource(): string {
  const { coefficients, offsets } = packConstants(fastConstants(plainConstants()));
  const data = (values: readonly bigint[]): string => `memory.data<u32>([${values.flatMap(limbsOf).join()}], 16)`;
  return [
    `export const COUNT: usize = ${coefficients.length};`,
    `export const COEFFICIENTS: usize = ${data(coefficients)};`,
    `export const OFFSETS: usize = ${data(offsets)};`,
    "",
  ].join("\n");
}

function fingerprint(): string {
  const hash = createHash("sha256").update(FLAGS.join(" "));
  const sources = ["build.ts", "constants.ts", "packing.ts"].map((file) => new URL(file, import.meta.url));
  const tools = ["assemblyscript/package.json", "poseidon-lite"].map((name) => require.resolve(name));
  for (const file of [ASSEMBLY, ...sources, ...tools]) hash.update(readFileSync(file));
  return hash.digest("hex").slice(0, 16);
}
