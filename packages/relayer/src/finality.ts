import { BursarError } from "@bursar/protocol";
import { isError, type Provider } from "ethers";

import { isUnreachable } from "./unreachable.ts";

/** From which block on something counts: a number of blocks, its own included, or a tag that the chain's nodes keep. */
export type Finality = number | "safe" | "finalized";

/** Blocks that can be named as a rule. */
const MOST_BLOCKS = 10_000;

/**
 * What counts as final on a chain unless the operator says otherwise; on chains that are not listed, `finalized`. What a
 * processor takes for final it signs receipts on, so the rule is each chain's own and never a guess at a number of blocks.
 *
 * - Ethereum and its test networks: `finalized`, two epochs of 32 slots (consensus-specs, Casper FFG). `safe` is weaker: with
 *   the fast confirmation rule (consensus-specs, phase0/fast-confirmation.md) it is one or two slots old.
 * - OP Stack (OP Mainnet, Base): `safe`, the newest block derived from data in an L1 block (OP Stack specification, derivation);
 *   only a reorganisation of L1 takes it back. `finalized` is 20 to 30 minutes old.
 * - Arbitrum One: `safe`, the newest block whose batch is in a safe L1 block (Nitro, release 2.0.10).
 * - Polygon PoS: `finalized`, the last milestone (PIP-11), seconds old.
 * - Gnosis: `finalized`, as Ethereum. BNB Smart Chain: `finalized`, its fast finality (BEP-126), seconds old.
 * - Avalanche C-Chain: 1, an accepted block is never reorganised (Snowman consensus).
 * - Local chains: 1.
 */
const RULES: ReadonlyMap<bigint, Finality> = new Map<bigint, Finality>([
  [1n, "finalized"],
  [11_155_111n, "finalized"],
  [560_048n, "finalized"],
  [10n, "safe"],
  [11_155_420n, "safe"],
  [8_453n, "safe"],
  [84_532n, "safe"],
  [42_161n, "safe"],
  [421_614n, "safe"],
  [137n, "finalized"],
  [80_002n, "finalized"],
  [100n, "finalized"],
  [56n, "finalized"],
  [43_114n, 1],
  [43_113n, 1],
  [31_337n, 1],
  [1_337n, 1],
]);

/** The rule of a chain of which the operator says nothing. */
export function finalityOf(chainId: bigint): Finality {
  return RULES.get(chainId) ?? "finalized";
}

/** @throws {@link BursarError} `malformed-input` unless it is `safe`, `finalized` or 1 to 10000. */
export function parseFinality(text: string): Finality {
  if (text === "safe" || text === "finalized") return text;
  const blocks = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (blocks >= 1 && blocks <= MOST_BLOCKS) return blocks;
  throw new BursarError("malformed-input", `«${text}» is neither safe, finalized nor 1 to ${MOST_BLOCKS} blocks.`, {
    value: text,
    limit: MOST_BLOCKS,
  });
}

/**
 * The newest block that is final.
 * @throws {@link BursarError} `chain-unavailable` when the node knows none by that tag; ethers' errors when it does not answer.
 */
export async function finalBlockOf(provider: Provider, finality: Finality): Promise<number> {
  if (typeof finality === "number") return Math.max(0, (await provider.getBlockNumber()) - (finality - 1));
  const block = await provider.getBlock(finality).catch((error: unknown) => {
    if (isUnreachable(error) || !isError(error, "UNKNOWN_ERROR")) throw error;
    return null;
  });
  if (block) return block.number;
  throw new BursarError(
    "chain-unavailable",
    `The node knows no block that is ${finality}.`,
    { value: finality },
    "Ask a node that does, or name a number of blocks in --finality.",
  );
}
