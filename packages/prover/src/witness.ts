import { readFile } from "node:fs/promises";

import { BursarError } from "@bursar/protocol";
import { WitnessCalculatorBuilder, type WitnessCalculator } from "circom_runtime";

/** Keeps the witness generators of circuits: compiled and optimised, one takes a third of the time of a fresh one. */
export class Witnesses {
  readonly #calculators = new Map<string, WitnessCalculator>();

  /**
   * The bytes of a .wtns file.
   * @param wasm - path of the generator.
   * @throws BursarError `proof-invalid` when no witness satisfies the circuit with these inputs
   */
  async calculate(wasm: string, input: object): Promise<Uint8Array> {
    const calculator = this.#calculators.get(wasm) ?? (await open(wasm));
    // One that failed keeps what it said, and would say it again: it is not used a second time.
    this.#calculators.delete(wasm);
    let witness: Uint8Array;
    try {
      witness = await calculator.calculateWTNSBin(input);
    } catch (error) {
      throw new BursarError("proof-invalid", `The statement cannot be proved: ${messageOf(error)}`);
    }
    this.#calculators.set(wasm, calculator);
    return witness;
  }
}

/** The memory that circom_runtime sets aside is for modules of circom 1; those of circom 2 bring their own. */
async function open(wasm: string): Promise<WitnessCalculator> {
  return WitnessCalculatorBuilder(await readFile(wasm), { memorySize: 1 });
}

/** What was thrown, in words. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
