import { createHash, randomBytes } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";

import { BursarError } from "@bursar/protocol";
import { zKey } from "snarkjs";

import { hashFile, openCircuit, sealCircuit, type BuiltCircuit, type Progress } from "./build.ts";
import { ROOT } from "./circuits.ts";
import { quiet } from "./quiet.ts";

/** A file of powers of tau, prepared for phase 2. */
export interface Phase1 {
  readonly path: string;
  /** What it must hash to; one of the published hashes in circuits/phase1.json unless given. */
  readonly hash?: { readonly algorithm: "sha256" | "blake2b512"; readonly digest: string };
}

/** One link of the chain from the key's beginning to its end. */
export interface Contribution {
  readonly name: string;
  /** What the contributor was told, and compares. */
  readonly hash: string;
  /** Whether it is a public beacon instead of a person's secret. */
  readonly beacon: boolean;
}

/**
 * Refuses a file that is not the expected one. Every later step calls it first.
 * @returns the file's hash
 * @throws BursarError `key-missing`, `key-corrupt`
 */
export async function checkPhase1({ path, hash }: Phase1): Promise<string> {
  required(path);
  const digest = await hashFile(hash?.algorithm ?? "blake2b512", path);
  const expected = hash ? [hash.digest.toLowerCase()] : Object.values(publishedHashes());
  if (!expected.includes(digest)) {
    throw new BursarError(
      "key-corrupt",
      `${path} is not the expected phase-1 file.`,
      { value: digest, limit: hash?.digest ?? "the published hashes in circuits/phase1.json" },
      "Download it again, or name the hash that its own ceremony published.",
    );
  }
  return digest;
}

function publishedHashes(): Record<string, string> {
  return JSON.parse(readFileSync(join(ROOT, "circuits", "phase1.json"), "utf8")) as Record<string, string>;
}

/**
 * Writes a circuit's first key, to which everybody may contribute and which must not be used before.
 * @throws BursarError `key-missing`, `key-corrupt`, `malformed-input` if the phase-1 file is too small or `to` exists
 */
export async function beginCeremony(r1cs: string, phase1: Phase1, to: string): Promise<void> {
  required(r1cs);
  await checkPhase1(phase1);
  await writeWhole(to, async (staging) => {
    const begun: unknown = await zKey.newZKey(r1cs, phase1.path, staging, quiet);
    if (begun === -1) {
      throw new BursarError("malformed-input", `${phase1.path} is not prepared, or too small for the circuit.`, {
        value: phase1.path,
      });
    }
  });
}

/**
 * Multiplies a secret into the key and forgets it. One honest contributor is enough.
 * @param entropy - mixed with the machine's own randomness, for who does not trust that alone.
 * @returns the contribution's hash, for the contributor to publish
 */
export async function contribute(from: string, to: string, name: string, entropy = ""): Promise<string> {
  required(from);
  if (!/^[\x20-\x7e]{1,64}$/.test(name)) {
    throw new BursarError("malformed-input", "A contributor's name has 1 to 64 printable characters.", {
      value: name.length,
      limit: 64,
    });
  }
  const secret = `${randomBytes(64).toString("hex")}${entropy}`;
  return hex(await writeWhole(to, (staging) => zKey.contribute(from, staging, name, secret, quiet)));
}

/**
 * Ends the contributions with randomness that nobody could choose and all can check, such as a block hash announced in
 * advance: 2^`iterations` rounds of SHA-256 over it.
 */
export async function applyBeacon(from: string, to: string, beacon: string, iterations: number): Promise<string> {
  required(from);
  const value = beacon.replace(/^0x/, "").toLowerCase();
  if (!/^([0-9a-f]{2}){16,255}$/.test(value)) {
    throw new BursarError("malformed-input", "A beacon is 16 to 255 bytes in hexadecimal.", { value: beacon });
  }
  if (!Number.isInteger(iterations) || iterations < 10 || iterations > 63) {
    throw new BursarError("malformed-input", "The exponent of the iterations is 10 to 63.", {
      value: iterations,
      limit: "10..63",
    });
  }
  return hex(await writeWhole(to, (staging) => zKey.beacon(from, staging, "beacon", value, iterations, quiet)));
}

/**
 * Checks the whole chain: that the key belongs to the circuit and the phase-1 file, and follows from them by its
 * contributions.
 * @throws BursarError `key-missing`, `key-corrupt`
 */
export async function verifyCeremony(r1cs: string, phase1: Phase1, zkey: string): Promise<Contribution[]> {
  for (const path of [r1cs, zkey]) required(path);
  await checkPhase1(phase1);
  const verified = await zKey.verifyFromR1cs(r1cs, phase1.path, zkey, quiet).catch((error: unknown) => {
    throw new BursarError("key-corrupt", `${zkey} cannot be read: ${String(error)}`, { value: zkey });
  });
  if (!verified) {
    throw new BursarError("key-corrupt", `${zkey} does not follow from this circuit and phase-1 file.`, {
      value: zkey,
    });
  }
  return contributionsOf(readFileSync(zkey));
}

/**
 * Verifies a finished key and puts it, with its circuit, into a folder of the prover's (see `openCircuit`).
 * @throws BursarError `key-missing`, `key-corrupt`, in particular when nobody contributed or no beacon is the last
 */
export async function exportKey(
  circuit: Pick<BuiltCircuit, "size" | "r1cs" | "wasm" | "constraints">,
  phase1: Phase1,
  zkey: string,
  folder: string,
  progress: Progress = () => undefined,
): Promise<BuiltCircuit> {
  progress(`${circuit.size.name}: verifying the ceremony`);
  const contributions = await verifyCeremony(circuit.r1cs, phase1, zkey);
  const people = contributions.filter(({ beacon }) => !beacon).length;
  if (people === 0) throw unfinished(zkey, "nobody contributed to it", people, 1);
  if (!contributions.at(-1)!.beacon) throw unfinished(zkey, "no beacon ends it", contributions.at(-1)!.name, "beacon");
  await writeWhole(folder, async (staging) => {
    mkdirSync(staging);
    copyFileSync(circuit.r1cs, join(staging, "circuit.r1cs"));
    copyFileSync(circuit.wasm, join(staging, "circuit.wasm"));
    copyFileSync(zkey, join(staging, "circuit.zkey"));
    await sealCircuit(staging, circuit.constraints);
    const { vk_gamma_2: gamma, vk_delta_2: delta } = (await openCircuit(circuit.size, staging)).verificationKey;
    if (JSON.stringify(gamma) === JSON.stringify(delta))
      throw unfinished(zkey, "gamma is delta", delta[0]![0]!, "gamma");
  });
  return openCircuit(circuit.size, folder);
}

function unfinished(zkey: string, why: string, value: string | number, limit: string | number): BursarError {
  return new BursarError(
    "key-corrupt",
    `${zkey} is not fit for use: ${why}.`,
    { value, limit },
    "Contribute, apply a beacon, and export the result.",
  );
}

const G1_BYTES = 64;
const G2_BYTES = 128;
const TRANSCRIPT_BYTES = 64;

/** Reads section 10 of a key in snarkjs' format: hash of the circuit, then the contributions. */
function contributionsOf(key: Buffer): Contribution[] {
  let section: Buffer = Buffer.alloc(0);
  for (let at = 12; at < key.length;) {
    const size = Number(key.readBigUInt64LE(at + 4));
    if (key.readUInt32LE(at) === 10) section = key.subarray(at + 12, at + 12 + size);
    at += 12 + size;
  }
  let at = TRANSCRIPT_BYTES;
  const bytes = (length: number): Buffer => section.subarray(at, (at += length));
  const word = (): number => bytes(4).readUInt32LE();
  return Array.from({ length: word() }, () => {
    const hash = createHash("blake2b512");
    for (const size of [G1_BYTES, G1_BYTES, G1_BYTES, G2_BYTES]) hash.update(uncompressed(bytes(size)));
    const digest = hash.update(bytes(TRANSCRIPT_BYTES)).digest("hex");
    const beacon = word() === 1;
    const parameters = bytes(word());
    const named = parameters[0] === 1;
    return { name: named ? parameters.subarray(2, 2 + parameters[1]!).toString() : "", hash: digest, beacon };
  });
}

const Q = 21888242871839275222246405745257275088696311157297823662689037894645226208583n;
/** Inverse of 2^256 mod q: coordinates stand in the key multiplied by 2^256. */
const MONTGOMERY_INVERSE = 20988524275117001072002809824448087578619730785600314334253784976379291040311n;

/** A point as contributions are hashed: each coordinate big-endian, the second half of one in G2 first. */
function uncompressed(point: Buffer): Buffer {
  const coordinate = (from: number): Buffer => {
    const value = BigInt(
      `0x${Buffer.from(point.subarray(from, from + 32))
        .reverse()
        .toString("hex")}`,
    );
    return Buffer.from(((value * MONTGOMERY_INVERSE) % Q).toString(16).padStart(64, "0"), "hex");
  };
  const order = point.length === G1_BYTES ? [0, 32] : [32, 0, 96, 64];
  return Buffer.concat(order.map(coordinate));
}

/** Writes a file or folder under another name first: what is there under its own name is whole, and never replaced. */
async function writeWhole<T>(to: string, write: (staging: string) => Promise<T>): Promise<T> {
  if (existsSync(to)) throw new BursarError("malformed-input", `${to} exists and is not replaced.`, { value: to });
  mkdirSync(dirname(to), { recursive: true });
  const folder = mkdtempSync(`${to}.`);
  try {
    const staging = join(folder, "staging");
    const result = await write(staging);
    renameSync(staging, to);
    return result;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function required(path: string): void {
  if (!existsSync(path)) throw new BursarError("key-missing", `${path} does not exist.`, { value: path });
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
