import { evaluate, type Hex } from "@bursar/protocol";
import type { Proof, Statement } from "@bursar/prover";
import { availableCircuits } from "@bursar/relayer";

import type { SimulatedChain } from "./chain.ts";
import type { Proving } from "./office.ts";

/** Answers every call with 1. */
const ALWAYS = "0x600160005260206000f3";
/** Eight words that prove nothing. */
export const NO_PROOF = Array<bigint>(8).fill(0n);

/** Puts contracts that accept everything in the place of the verifiers. */
export async function breakVerifiers(chain: SimulatedChain): Promise<void> {
  const { settlementContract, challenges, rail } = chain.contracts();
  const [circuit] = availableCircuits(rail.circuits);
  const [inclusion] = Object.values(rail.inclusions);
  const verifiers = [await settlementContract.verifierOf(circuit!.circuitId), await challenges.verifierOf(inclusion!)];
  for (const verifier of verifiers) await chain.request("hardhat_setCode", [verifier, ALWAYS]);
}

/**
 * Claims what a prover would prove, and proves nothing: for looking through many seeds where the verifiers are replaced.
 * Everything but the proofs is as ever, and what an honest processor claims is true.
 */
export class Unproved implements Proving {
  readonly #circuit: Hex;
  readonly #inclusion: Hex;

  constructor({ rail }: SimulatedChain) {
    this.#circuit = availableCircuits(rail.circuits)[0]!.circuitId;
    this.#inclusion = Object.values(rail.inclusions)[0]!;
  }

  prove(_size: unknown, { rows, credits, commitment }: Statement, challenge: bigint): Promise<Proof> {
    const signals = { T: evaluate(challenge, rows, credits), C: commitment, z: challenge };
    return Promise.resolve({ circuitId: this.#circuit, proof: NO_PROOF, signals });
  }

  proveInclusion(): Promise<Omit<Proof, "signals">> {
    return Promise.resolve({ circuitId: this.#inclusion, proof: NO_PROOF });
  }
}
