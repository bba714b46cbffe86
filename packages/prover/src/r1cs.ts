/** Σ coefficient·wire. */
export type LinearCombination = readonly (readonly [wire: number, coefficient: bigint])[];

/** One constraint a·b = c. */
export interface Constraint {
  a: LinearCombination;
  b: LinearCombination;
  c: LinearCombination;
}

export interface R1cs {
  wires: number;
  /** Outputs and public inputs; wire 0 is the constant 1 and not among them. */
  publicWires: number;
  constraints: Constraint[];
}

/** Reads circom's binary constraint system (iden3 r1cs format, version 1, field BN254). */
export function readR1cs(bytes: Buffer): R1cs {
  const sections = new Map<number, Buffer>();
  for (let at = 12, left = bytes.readUInt32LE(8); left > 0; --left) {
    const size = Number(bytes.readBigUInt64LE(at + 4));
    sections.set(bytes.readUInt32LE(at), bytes.subarray(at + 12, at + 12 + size));
    at += 12 + size;
  }
  const header = sections.get(1)!;
  const width = header.readUInt32LE(0);
  const body = sections.get(2)!;
  let position = 0;
  const word = (): number => body.readUInt32LE((position += 4) - 4);
  // There are millions of coefficients, and few different ones.
  const known = new Map<string, bigint>();
  const element = (): bigint => {
    const text = body.toString("latin1", position, (position += width));
    let value = known.get(text);
    if (value === undefined) {
      value = BigInt(`0x${Buffer.from(text, "latin1").reverse().toString("hex")}`);
      known.set(text, value);
    }
    return value;
  };
  const combination = (): LinearCombination => Array.from({ length: word() }, () => [word(), element()] as const);
  return {
    wires: header.readUInt32LE(width + 4),
    publicWires: header.readUInt32LE(width + 8) + header.readUInt32LE(width + 12),
    constraints: Array.from({ length: header.readUInt32LE(width + 28) }, () => ({
      a: combination(),
      b: combination(),
      c: combination(),
    })),
  };
}
