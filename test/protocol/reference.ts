/** What the package is compared with: other implementations, and the encoding as docs/spec/encoding.md words it. */
import { expect } from "chai";
import { buildPoseidon } from "circomlibjs";
import { AbiCoder, getAddress, id, keccak256 } from "ethers";
import { BursarError, type Address, type ErrorCode, type Hex } from "@bursar/protocol";

const circomlib = await buildPoseidon();

export const R = 21888242871839275222246405745257275088548364400416034343698204186575808495617n;

/** circomlib's Poseidon. */
export function circomPoseidon(inputs: readonly bigint[]): bigint {
  return circomlib.F.toObject(circomlib(inputs));
}

/** `keccak256(abi.encode(...))` as Solidity has it. */
export function keccakOf(types: readonly string[], values: readonly unknown[]): Hex {
  return keccak256(AbiCoder.defaultAbiCoder().encode(types, values)) as Hex;
}

/** Asserts that `run` is refused with `code`, and gives the error. */
export function refusal(code: ErrorCode, run: () => unknown): BursarError {
  try {
    run();
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    expect(error.code).to.equal(code);
    return error;
  }
  expect.fail(`not refused with ${code}`);
}

/** A 32-byte word that a test can name. */
export function word(name: string): Hex {
  return id(name) as Hex;
}

/** An address that a test can name. */
export function addressOf(name: string): Address {
  return getAddress(`0x${id(name).slice(-40)}`) as Address;
}
