import type { Network } from "./arithmetic.ts";

/** Assumed, not looked up: everything in dollars follows from these and from the measured gas and bytes. */
export const ASSUMED: { readonly on: string; readonly etherPrice: number; readonly networks: readonly Network[] } = {
  on: "November 2026",
  etherPrice: 3_000,
  networks: [
    { name: "Ethereum", gasPrice: 1, bytePrice: 0 },
    // OP Stack since Fjord: 16 · baseFeeScalar · L1 base fee + blobBaseFeeScalar · blob base fee, at 1 and 0.01 gwei.
    { name: "Base", gasPrice: 0.005, bytePrice: 0.05 },
    { name: "Arbitrum One", gasPrice: 0.01, bytePrice: 0.1 },
  ],
};

/**
 * Gas of x402's own contract, from contracts/evm/snapshots/X402BatchSettlementGasTest.json of x402-foundation/x402, read in
 * November 2026: execution alone, without the 21,000 and the calldata of a transaction, its channels touched before in the
 * same test.
 */
export const PUBLISHED = {
  source:
    "https://github.com/x402-foundation/x402/blob/5dc34292c9381881c2f57e4d87ae14b59acc9cef/contracts/evm/snapshots/X402BatchSettlementGasTest.json",
  claimOne: 40_252,
  claimTen: 192_043,
  settle: 31_204,
  deposit: 111_738,
  transfer: 25_745,
};
