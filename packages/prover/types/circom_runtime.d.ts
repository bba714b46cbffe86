declare module "circom_runtime" {
  export interface WitnessCalculator {
    /** The bytes of a .wtns file. Throws for inputs that some constraint refuses. */
    calculateWTNSBin(input: object): Promise<Uint8Array>;
  }
  /** @param options.memorySize - pages of a memory that only modules of circom 1 use. */
  export function WitnessCalculatorBuilder(
    wasm: Uint8Array,
    options: { memorySize: number },
  ): Promise<WitnessCalculator>;
}
