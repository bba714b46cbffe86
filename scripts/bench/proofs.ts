import { readFileSync } from "node:fs";

import { allowList, BursarError, poseidon } from "@bursar/protocol";
import {
  buildCircuit,
  capacity,
  chooseBackend,
  inclusionSize,
  layOut,
  Prover,
  showLine,
  type BackendChoice,
  type CircuitSize,
} from "@bursar/prover";

export interface ProofReport {
  circuit: string;
  backend: BackendChoice["name"];
  constraints: number;
  payments: number;
  /** Witness, proof and its verification, the prover warm, in milliseconds. */
  milliseconds: number;
  /** Payments that one prover proves a second, batch after full batch. */
  rate: number;
  /** Peak memory of the prover's process, and of rapidsnark beside it, in MiB. */
  memory: number;
  /** The same time in hashes of two field elements by poseidon-lite on one core. */
  poseidons: number;
}

const SNARKJS: BackendChoice = { name: "snarkjs" };

/** snarkjs, and rapidsnark where it is found. */
export function backends(): BackendChoice[] {
  try {
    return [SNARKJS, chooseBackend({ ...process.env, BURSAR_PROVER: "rapidsnark" })];
  } catch (error) {
    if (error instanceof BursarError && error.code === "prover-missing") return [SNARKJS];
    throw error;
  }
}

export async function measureProof(size: CircuitSize, backend: BackendChoice = SNARKJS): Promise<ProofReport> {
  const slots = size.pages * 7;
  const statement = layOut(
    size,
    Array.from({ length: size.segments }, (_, row) => ({
      agent: `0x${(row + 1).toString(16).padStart(40, "0")}`,
      base: BigInt(row + 1),
      seq: 0n,
      allow: allowList([]),
      paymentCap: 1_000n,
      salts: Array.from({ length: size.pages }, (_, page) => BigInt(page)),
      lines: Array.from({ length: slots }, (_, i) => ({
        payee: `0x${(i + 9).toString(16).padStart(40, "0")}`,
        amount: BigInt(i + 1),
      })),
    })),
  );
  return measure(size, backend, (prover) => prover.prove(size, statement, 1n));
}

/** Shows the last line of the longest part that a batch of this size can settle. */
export async function measureInclusion(batch: CircuitSize, backend: BackendChoice = SNARKJS): Promise<ProofReport> {
  const size = inclusionSize(batch);
  const lines = Array.from({ length: capacity(size) }, (_, i) => ({
    payee: `0x${(i + 9).toString(16).padStart(40, "0")}` as const,
    amount: BigInt(i + 1),
  }));
  const salts = Array.from({ length: size.segments * size.pages }, (_, page) => BigInt(page));
  const statement = showLine(size, { base: 1n, lines, salts }, lines.length - 1);
  return measure(size, backend, (prover) => prover.proveInclusion(size, statement));
}

/** Proofs before the measured one: so many until the witness generator is optimised. */
const WARMING = 3;

async function measure(
  size: CircuitSize,
  backend: BackendChoice,
  prove: (prover: Prover) => Promise<unknown>,
): Promise<ProofReport> {
  const { constraints } = await buildCircuit(size);
  const prover = new Prover(undefined, { backend });
  try {
    for (let i = 0; i < WARMING; ++i) await prove(prover);
    let beside = 0;
    const watch = setInterval(() => (beside = Math.max(beside, ...childrenOf(prover.pid!).map(peakOf))), 20);
    const began = performance.now();
    await prove(prover);
    const milliseconds = performance.now() - began;
    clearInterval(watch);
    return {
      circuit: size.name,
      backend: backend.name,
      constraints,
      payments: capacity(size),
      milliseconds,
      rate: (capacity(size) * 1_000) / milliseconds,
      memory: peakOf(prover.pid!) + beside,
      poseidons: milliseconds / poseidonTime(),
    };
  } finally {
    prover.close();
  }
}

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  return text.split(" ").filter(Boolean).map(Number);
}

/** The most memory that a process has held, in MiB; 0 once it has ended. */
function peakOf(pid: number): number {
  try {
    const [, kilobytes = "0"] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    return Number(kilobytes) / 1_024;
  } catch {
    return 0;
  }
}

/** Milliseconds of one hash. */
function poseidonTime(): number {
  const count = 2_000;
  for (let i = 0; i < 200; ++i) poseidon([BigInt(i), 1n]);
  const began = performance.now();
  for (let i = 0; i < count; ++i) poseidon([BigInt(i), 2n]);
  return (performance.now() - began) / count;
}
