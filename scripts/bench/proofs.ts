import { readFileSync } from "node:fs";

import { allowList, poseidon } from "@bursar/protocol";
import { buildCircuit, capacity, inclusionSize, layOut, Prover, showLine, type CircuitSize } from "@bursar/prover";

export interface ProofReport {
  circuit: string;
  constraints: number;
  payments: number;
  /** Witness and proof, the prover warm, in milliseconds. */
  milliseconds: number;
  /** Peak memory of the prover's process in MiB. */
  memory: number;
  /** The same time in hashes of two field elements by poseidon-lite on one core. */
  poseidons: number;
}

export async function measureProof(size: CircuitSize): Promise<ProofReport> {
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
  return measure(size, (prover) => prover.prove(size, statement, 1n));
}

/** Shows the last line of the longest part that a batch of this size can settle. */
export async function measureInclusion(batch: CircuitSize): Promise<ProofReport> {
  const size = inclusionSize(batch);
  const lines = Array.from({ length: capacity(size) }, (_, i) => ({
    payee: `0x${(i + 9).toString(16).padStart(40, "0")}` as const,
    amount: BigInt(i + 1),
  }));
  const salts = Array.from({ length: size.segments * size.pages }, (_, page) => BigInt(page));
  const statement = showLine(size, { base: 1n, lines, salts }, lines.length - 1);
  return measure(size, (prover) => prover.proveInclusion(size, statement));
}

async function measure(size: CircuitSize, prove: (prover: Prover) => Promise<unknown>): Promise<ProofReport> {
  const { constraints } = await buildCircuit(size);
  const prover = new Prover();
  try {
    await prove(prover);
    const began = performance.now();
    await prove(prover);
    const milliseconds = performance.now() - began;
    const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${prover.pid}/status`, "utf8"))?.[1] ?? "0";
    return {
      circuit: size.name,
      constraints,
      payments: capacity(size),
      milliseconds,
      memory: Number(peak) / 1_024,
      poseidons: milliseconds / poseidonTime(),
    };
  } finally {
    prover.close();
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
