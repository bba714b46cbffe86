/** Poseidon of nine inputs over BN254's scalar field, with circomlib's parameters. */
export interface Poseidon {
  /** The hash of nine field elements. @throws RangeError unless there are nine, each in the field. */
  hash9(inputs: readonly bigint[]): bigint;
  /**
   * Writes the hash of nine field elements of 32 bytes each, big-endian, to the first 32 bytes of `out`.
   * @throws RangeError unless `inputs` has 288 bytes, `out` 32 at least and each element is in the field.
   */
  hash9Bytes(inputs: Uint8Array, out: Uint8Array): void;
}

const INPUTS = 9;
const WORD = 32;

/** What `assembly/index.ts` exports. */
interface Exports {
  readonly memory: WebAssembly.Memory;
  readonly INPUT: WebAssembly.Global;
  readonly OUTPUT: WebAssembly.Global;
  /** -1, or the index of the first input that is not in the field. */
  readonly hash: () => number;
}

/**
 * Makes the hash of its compiled bytes, in Node and in browsers.
 *
 * @param wasm what `buildPoseidon` writes.
 */
export async function instantiatePoseidon(wasm: BufferSource): Promise<Poseidon> {
  const { instance } = await WebAssembly.instantiate(wasm);
  const { memory, INPUT, OUTPUT, hash } = instance.exports as unknown as Exports;
  // The memory never grows, so the views stay valid.
  const input = new Uint8Array(memory.buffer, INPUT.value as number, INPUTS * WORD);
  const output = new Uint8Array(memory.buffer, OUTPUT.value as number, WORD);
  const inputWords = new DataView(memory.buffer, INPUT.value as number, INPUTS * WORD);
  const outputWords = new DataView(memory.buffer, OUTPUT.value as number, WORD);

  const run = (): void => {
    const refused = hash();
    if (refused >= 0) throw new RangeError(`poseidon input ${refused} is not below the field order`);
  };

  return {
    hash9(inputs) {
      if (inputs.length !== INPUTS) throw new RangeError(`hash9 takes 9 inputs, not ${inputs.length}`);
      for (let i = 0; i < INPUTS; i++) {
        const value = inputs[i]!;
        if (value < 0n || value >> 256n !== 0n) {
          throw new RangeError(`poseidon input ${i} is not below the field order`);
        }
        const at = i * WORD;
        inputWords.setBigUint64(at, value >> 192n);
        inputWords.setBigUint64(at + 8, value >> 128n);
        inputWords.setBigUint64(at + 16, value >> 64n);
        inputWords.setBigUint64(at + 24, value);
      }
      run();
      return (
        (outputWords.getBigUint64(0) << 192n) |
        (outputWords.getBigUint64(8) << 128n) |
        (outputWords.getBigUint64(16) << 64n) |
        outputWords.getBigUint64(24)
      );
    },
    hash9Bytes(inputs, out) {
      if (inputs.length !== INPUTS * WORD) throw new RangeError(`hash9Bytes takes 288 bytes, not ${inputs.length}`);
      if (out.length < WORD) throw new RangeError(`hash9Bytes writes 32 bytes, not ${out.length}`);
      input.set(inputs);
      run();
      out.set(output);
    },
  };
}
