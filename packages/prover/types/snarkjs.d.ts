declare module "snarkjs" {
  export interface Group {
    g: Uint8Array;
    toRprLEM(into: Uint8Array, offset: number, point: Uint8Array): void;
  }
  export interface Curve {
    Fr: { w: Uint8Array[]; toObject(element: Uint8Array): bigint };
    G1: Group;
    G2: Group;
    /** `code` is the WebAssembly of the curve, kept in a single-threaded one only; it imports its memory. */
    tm: { code: Uint8Array<ArrayBuffer> };
    terminate(): Promise<void>;
  }
  export const curves: { getCurveFromName(name: "bn128", options?: { singleThread: boolean }): Promise<Curve> };

  export interface Groth16Proof {
    pi_a: string[];
    pi_b: string[][];
    pi_c: string[];
  }
  export interface VerificationKey {
    protocol: "groth16";
    nPublic: number;
    vk_alpha_1: string[];
    vk_beta_2: string[][];
    vk_gamma_2: string[][];
    vk_delta_2: string[][];
    IC: string[][];
  }
  export interface Logger {
    info(message: string): void;
    debug(message: string): void;
    warn(message: string): void;
    error(message: string): void;
  }
  export const groth16: {
    prove(zkey: string, witness: string | Uint8Array): Promise<{ proof: Groth16Proof; publicSignals: string[] }>;
    fullProve(input: object, wasm: string, zkey: string): Promise<{ proof: Groth16Proof; publicSignals: string[] }>;
    verify(key: VerificationKey, signals: string[], proof: Groth16Proof, logger?: Logger): Promise<boolean>;
  };
  export const zKey: {
    newZKey(r1cs: string, ptau: string, zkey: string, logger?: Logger): Promise<Uint8Array>;
    contribute(from: string, to: string, name: string, entropy: string, logger?: Logger): Promise<Uint8Array>;
    beacon(
      from: string,
      to: string,
      name: string,
      beacon: string,
      iterations: number,
      logger?: Logger,
    ): Promise<Uint8Array>;
    verifyFromR1cs(r1cs: string, ptau: string, zkey: string, logger?: Logger): Promise<boolean>;
    exportVerificationKey(zkey: string, logger?: Logger): Promise<VerificationKey>;
    exportSolidityVerifier(zkey: string, templates: { groth16: string }, logger?: Logger): Promise<string>;
  };
  export const powersOfTau: {
    newAccumulator(curve: Curve, power: number, ptau: string, logger?: Logger): Promise<Uint8Array>;
    contribute(from: string, to: string, name: string, entropy: string, logger?: Logger): Promise<Uint8Array>;
    beacon(
      from: string,
      to: string,
      name: string,
      beacon: string,
      iterations: number,
      logger?: Logger,
    ): Promise<Uint8Array>;
    preparePhase2(from: string, to: string, logger?: Logger): Promise<void>;
    verify(ptau: string, logger?: Logger): Promise<boolean>;
  };
  export const wtns: {
    calculate(input: object, wasm: string, wtns: string): Promise<void>;
    exportJson(wtns: string): Promise<bigint[]>;
  };
}
