import type { Hex } from "./types.ts";

/** Bytes of 32-byte words, filled in order: `abi.encode` of static values, without an encoder's overhead. */
export class Words {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #offset = 0;

  constructor(count: number) {
    this.bytes = new Uint8Array(32 * count);
    this.#view = new DataView(this.bytes.buffer);
  }

  /** Exactly `length` bytes in hexadecimal, aligned to the right. @throws RangeError for anything else. */
  hex(value: Hex, length: 20 | 32): this {
    if (value.length !== 2 + 2 * length || !HEXADECIMAL.test(value)) {
      throw new RangeError(`${value} is not ${length} bytes in hexadecimal`);
    }
    writeHex(this.bytes, this.#offset + 32 - length, value);
    this.#offset += 32;
    return this;
  }

  /** An integer of at most `bits` bits. @throws RangeError for any other. */
  uint(value: bigint, bits: 40 | 64): this {
    if (BigInt.asUintN(bits, value) !== value) throw new RangeError(`${value} is not a uint${bits}`);
    this.#view.setBigUint64(this.#offset + 24, value);
    this.#offset += 32;
    return this;
  }

  /** 32 bytes. */
  word(value: Uint8Array): this {
    this.bytes.set(value, this.#offset);
    this.#offset += 32;
    return this;
  }
}

const HEXADECIMAL = /^0x[0-9a-fA-F]*$/;

/** The bytes of `0x` and an even number of hexadecimal digits. */
export function hexToBytes(text: Hex): Uint8Array {
  const bytes = new Uint8Array((text.length - 2) / 2);
  writeHex(bytes, 0, text);
  return bytes;
}

function writeHex(bytes: Uint8Array, offset: number, text: Hex): void {
  for (let i = 2; i < text.length; i += 2) {
    bytes[offset++] = (digit(text.charCodeAt(i)) << 4) | digit(text.charCodeAt(i + 1));
  }
}

/** The value of an ASCII hexadecimal digit. */
function digit(code: number): number {
  return code <= 57 ? code - 48 : (code | 32) - 87;
}
