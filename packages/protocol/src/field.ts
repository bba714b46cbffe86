import * as lite from "poseidon-lite";

/** Order `r` of BN254's scalar field: every circuit value and every head is below it. */
export const FIELD = 21888242871839275222246405745257275088548364400416034343698204186575808495617n;

const BY_ARITY = [
  lite.poseidon1,
  lite.poseidon2,
  lite.poseidon3,
  lite.poseidon4,
  lite.poseidon5,
  lite.poseidon6,
  lite.poseidon7,
  lite.poseidon8,
  lite.poseidon9,
  lite.poseidon10,
  lite.poseidon11,
  lite.poseidon12,
  lite.poseidon13,
  lite.poseidon14,
  lite.poseidon15,
  lite.poseidon16,
] as const;

/** Whether `value` is a canonical field element, 0 … r−1. */
export function isField(value: bigint): boolean {
  return value >= 0n && value < FIELD;
}

/** `value mod r`, in 0 … r−1 for negative values too. */
export function toField(value: bigint): bigint {
  const rest = value % FIELD;
  return rest < 0n ? rest + FIELD : rest;
}

/**
 * circomlib's Poseidon over BN254 with one output.
 *
 * @param inputs 1 to 16 field elements; a value outside 0 … r−1 is refused, never reduced, so that two different
 * inputs cannot give one hash.
 * @throws RangeError on a wrong number of inputs or an input that is not in the field.
 */
export function poseidon(inputs: readonly bigint[]): bigint {
  const hash = BY_ARITY[inputs.length - 1];
  if (hash === undefined) throw new RangeError(`poseidon takes 1 to 16 inputs, not ${inputs.length}`);
  for (const input of inputs) {
    if (!isField(input)) throw new RangeError(`poseidon input ${input} is not below the field order`);
  }
  return hash([...inputs]);
}

/** The inverse of `value` in the field. @throws RangeError for zero, which has none. */
export function inverse(value: bigint): bigint {
  let [r0, r1] = [FIELD, toField(value)];
  let [t0, t1] = [0n, 1n];
  if (r1 === 0n) throw new RangeError("zero has no inverse in the field");
  while (r1 !== 0n) {
    const quotient = r0 / r1;
    [r0, r1] = [r1, r0 - quotient * r1];
    [t0, t1] = [t1, t0 - quotient * t1];
  }
  return toField(t0);
}
