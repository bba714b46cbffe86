import { BursarError } from "@bursar/protocol";
import { parseUnits, type JsonRpcApiProvider } from "ethers";
import { z } from "zod";

/** Of a type 2 transaction (EIP-1559), in wei a gas. */
export interface Fees {
  readonly maxFeePerGas: bigint;
  readonly maxPriorityFeePerGas: bigint;
}

/** What blocks take. */
export interface Market {
  /** Of the next block, in wei a gas. */
  readonly baseFee: bigint;
  /** What half of the gas in recent blocks paid on top. */
  readonly priority: bigint;
}

/** Blocks that are looked back on: four minutes of Ethereum. */
const BLOCKS = 20;
const MEDIAN = 50;
/** Wei: what a node asks for at least when blocks are empty, by geth's default. */
const LEAST_PRIORITY = 1_000_000n;
/** Nodes keep what has the same nonce unless both fees are this much higher: 10 % at most clients. */
const [RAISE, OF] = [9n, 8n];

const quantitySchema = z
  .string()
  .regex(/^0x[0-9a-f]+$/i)
  .transform(BigInt);
const historySchema = z.object({
  baseFeePerGas: z.array(quantitySchema).min(1),
  gasUsedRatio: z.array(z.number()),
  reward: z.array(z.array(quantitySchema)).nullish(),
});

/**
 * Reads `eth_feeHistory` (execution-apis). The priority is the median over the blocks that held transactions of what half of
 * their gas paid: one block that paid too much moves it little.
 * @throws ethers' errors when no answer comes; ZodError when it is none.
 */
export async function readMarket(provider: JsonRpcApiProvider): Promise<Market> {
  const answer: unknown = await provider.send("eth_feeHistory", [`0x${BLOCKS.toString(16)}`, "latest", [MEDIAN]]);
  const { baseFeePerGas, gasUsedRatio, reward } = historySchema.parse(answer);
  const paid = (reward ?? []).flatMap(([median], i) => (median !== undefined && gasUsedRatio[i] ? [median] : []));
  paid.sort((a, b) => Number(a - b));
  const priority = paid[Math.floor(paid.length / 2)] ?? 0n;
  return { baseFee: baseFeePerGas.at(-1)!, priority: priority > LEAST_PRIORITY ? priority : LEAST_PRIORITY };
}

/**
 * Fees for a first try: room for a base fee that doubles, which takes six full blocks.
 * @param cap - never exceeded, in wei a gas.
 * @returns null where the next block takes more than the cap.
 */
export function firstFees({ baseFee, priority }: Market, cap: bigint | undefined): Fees | null {
  if (cap !== undefined && baseFee + priority > cap) return null;
  return { maxFeePerGas: lower(2n * baseFee + priority, cap), maxPriorityFeePerGas: priority };
}

/**
 * Fees with which a stuck transaction is replaced: an eighth higher, or what blocks take now if that is more.
 * @param cap - never exceeded, in wei a gas.
 * @returns null where an eighth more is above the cap.
 */
export function raisedFees(before: Fees, market: Market, cap: bigint | undefined): Fees | null {
  const least = { max: raise(before.maxFeePerGas), priority: raise(before.maxPriorityFeePerGas) };
  if (cap !== undefined && least.max > cap) return null;
  const maxFeePerGas = lower(higher(least.max, 2n * market.baseFee + market.priority), cap);
  return { maxFeePerGas, maxPriorityFeePerGas: lower(higher(least.priority, market.priority), maxFeePerGas) };
}

const raise = (fee: bigint): bigint => (fee * RAISE) / OF + 1n;
const higher = (a: bigint, b: bigint): bigint => (a > b ? a : b);
const lower = (a: bigint, b: bigint | undefined): bigint => (b === undefined || a < b ? a : b);

/** Wei of gwei, such as `0.05`. @throws {@link BursarError} `malformed-input` */
export function parseGwei(text: string): bigint {
  return parseWei(text, 9);
}

/** Wei of ETH, or whatever the chain pays gas in, such as `0.25`. @throws {@link BursarError} `malformed-input` */
export function parseEth(text: string): bigint {
  return parseWei(text, 18);
}

function parseWei(text: string, decimals: number): bigint {
  const wei = new RegExp(`^\\d{1,9}(\\.\\d{1,${decimals}})?$`).test(text) ? parseUnits(text, decimals) : 0n;
  if (wei > 0n) return wei;
  throw new BursarError("malformed-input", `«${text}» is no amount above 0 with at most ${decimals} decimals.`, {
    value: text,
    limit: decimals,
  });
}
