import {
  assertPolicyAgrees,
  BursarError,
  termsHash,
  type Address,
  type Domain,
  type ErrorCode,
  type Mandate,
  type Terms,
} from "@bursar/protocol";

import type { ProcessorInfo } from "./processor-client.ts";

/** Who an agent means to deal with, known from elsewhere than the processor's own word. */
export interface Expected {
  readonly chainId?: bigint;
  readonly registry?: Address;
  readonly processor?: Address;
}

/** @throws BursarError `wrong-chain`, `wrong-contract`, `wrong-processor` */
export function assertExpected(info: ProcessorInfo, expected: Expected): Domain {
  same("wrong-chain", "The processor serves another chain", info.chainId, expected.chainId);
  same("wrong-contract", "The processor serves another registry", info.registry, expected.registry);
  same("wrong-processor", "Another processor answers here", info.processor, expected.processor);
  return { chainId: info.chainId, registry: info.registry };
}

/**
 * Refuses a mandate that does not hang together or is not this agent's.
 *
 * @throws BursarError `policy-mismatch`, `terms-mismatch`, `mandate-conflict`, `wrong-processor`
 */
export function assertMandate(mandate: Mandate, terms: Terms, agent: Address, processor?: Address): void {
  assertPolicyAgrees(mandate);
  same("terms-mismatch", "The terms are not those of the mandate", mandate.termsHash, termsHash(terms));
  same("mandate-conflict", "The mandate is of another agent", mandate.agent, agent);
  same("wrong-processor", "The mandate names another processor", mandate.processor, processor);
}

function same<T extends string | bigint>(code: ErrorCode, message: string, value: T, limit: T | undefined): void {
  if (limit === undefined || BigInt(value) === BigInt(limit)) return;
  throw new BursarError(
    code,
    `${message}: ${value}, not ${limit}.`,
    { value, limit },
    "Check the processor's URL and the address that you expect; do not sign.",
  );
}
