import { AbiCoder, keccak256 } from "ethers";
import { BursarError } from "./errors.ts";
import { parseAddress } from "./schemas.ts";
import type { Address } from "./types.ts";
import { MAX_HOLDBACK } from "./units.ts";

/** The first three bytes of each sub-account in the escrow. */
const SUB_ACCOUNT = "737562";

/**
 * The account that an agent pays so that `payee` gets the money after `holdback` seconds, and it can be disputed until
 * then: the dispute module's sub-account in the escrow for these three. Stands in the payment's line as payee.
 *
 * @throws malformed-input for a holdback above seven days.
 */
export function holdOf(module: Address, agent: Address, payee: Address, holdback: bigint): Address {
  if (holdback < 0n || holdback > MAX_HOLDBACK) {
    throw new BursarError(
      "malformed-input",
      `A holdback is 0 to ${MAX_HOLDBACK} seconds.`,
      { value: holdback.toString(), limit: MAX_HOLDBACK.toString() },
      "Choose a holdback of at most seven days.",
    );
  }
  const coder = AbiCoder.defaultAbiCoder();
  const salt = keccak256(coder.encode(["address", "address", "uint40"], [agent, payee, holdback]));
  const account = keccak256(coder.encode(["address", "bytes32"], [module, salt]));
  return parseAddress(`0x${SUB_ACCOUNT}${account.slice(-34)}`);
}
