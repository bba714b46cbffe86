import { readFileSync } from "node:fs";
import { join } from "node:path";

import { BursarError, parseWire } from "@bursar/protocol";
import { z } from "zod";

import { parseEth, parseGwei } from "./fees.ts";
import { finalityOf, parseFinality, type Finality } from "./finality.ts";

/** One chain that a service works on, with the contracts there. */
export interface ChainConfig {
  /** What logs and metrics call it; the chain id unless given. */
  readonly name: string;
  readonly chainId: bigint;
  /** JSON-RPC URLs of its nodes, the preferred ones first. */
  readonly rpc: readonly string[];
  /** File that records what is deployed. */
  readonly deployment: string;
  /** Where its books are: each chain's contracts have their own. */
  readonly store: string;
  readonly finality: Finality;
  /** Seconds without inclusion until a transaction is replaced. */
  readonly replaceAfter: bigint;
  /** Wei a gas. */
  readonly maxFeePerGas?: bigint;
  /** Wei in any 24 hours. */
  readonly gasBudget?: bigint;
  /** Wei that should stay on the account. */
  readonly minBalance?: bigint;
}

/** Nodes of one chain, and chains of one service. */
const [MOST_NODES, MOST_CHAINS] = [8, 64];

/** What `read` makes of a text; what it refuses is wrong at this place. */
const reads = <T>(read: (text: string) => T) =>
  z.string().transform((text, context): T => {
    try {
      return read(text);
    } catch (error) {
      if (!(error instanceof BursarError)) throw error;
      context.addIssue(error.message);
      return z.NEVER;
    }
  });

/** Without its value: a URL may hold a provider's key. */
const nodeSchema = z.string().refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol), {
  error: "not an http or https URL",
});

const chainSchema = z
  .strictObject({
    name: z
      .string()
      .regex(/^[a-z0-9-]{1,32}$/, "not 1 to 32 of a-z, 0-9 and -")
      .optional(),
    chainId: z.int().positive(),
    rpc: z.array(nodeSchema).min(1).max(MOST_NODES),
    deployment: z.string().min(1).optional(),
    store: z.string().min(1),
    finality: z.union([z.int().transform(String).pipe(reads(parseFinality)), reads(parseFinality)]).optional(),
    replaceAfter: z.int().min(5).max(86_400).default(60),
    maxFeeGwei: reads(parseGwei).optional(),
    gasBudgetEthPerDay: reads(parseEth).optional(),
    minBalanceEth: reads(parseEth).optional(),
  })
  .transform(({ chainId, replaceAfter, maxFeeGwei, gasBudgetEthPerDay, minBalanceEth, ...chain }): ChainConfig => {
    return {
      name: chain.name ?? String(chainId),
      chainId: BigInt(chainId),
      rpc: chain.rpc,
      deployment: chain.deployment ?? join("deployments", `${chainId}.json`),
      store: chain.store,
      finality: chain.finality ?? finalityOf(BigInt(chainId)),
      replaceAfter: BigInt(replaceAfter),
      ...(maxFeeGwei === undefined ? {} : { maxFeePerGas: maxFeeGwei }),
      ...(gasBudgetEthPerDay === undefined ? {} : { gasBudget: gasBudgetEthPerDay }),
      ...(minBalanceEth === undefined ? {} : { minBalance: minBalanceEth }),
    };
  });

/** Two of a service must not share books, contracts or a name, nor may a chain name a node twice. */
const chainsSchema = z
  .array(chainSchema)
  .min(1)
  .max(MOST_CHAINS)
  .superRefine((chains, context) => {
    for (const field of ["name", "deployment", "store"] as const) {
      for (const i of repeated(chains.map((chain) => chain[field]))) {
        context.addIssue({ code: "custom", path: [i, field], message: "another chain has the same" });
      }
    }
    for (const [i, { rpc }] of chains.entries()) {
      for (const j of repeated(rpc)) {
        context.addIssue({ code: "custom", path: [i, "rpc", j], message: "named twice" });
      }
    }
  });

/**
 * Reads the chains of a service from a JSON file, or from the JSON itself where it comes in a variable. `${NAME}` in a text
 * stands for a variable of the environment, so that the file holds no provider's key.
 *
 * @param source - a path, or a JSON array.
 * @throws {@link BursarError} `malformed-input`, with one detail a wrong field.
 */
export function readChains(
  source: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): ChainConfig[] {
  const isInline = source.trimStart().startsWith("[");
  return parseWire(chainsSchema, filledIn(parseJson(source, isInline), environment));
}

function parseJson(source: string, isInline: boolean): unknown {
  try {
    return JSON.parse(isInline ? source : readFileSync(source, "utf8")) as unknown;
  } catch (error) {
    const what = isInline ? "The list of chains" : source;
    // A parser repeats what it read, and that may be a secret.
    const why = error instanceof SyntaxError ? "it is no JSON" : (error as Error).message;
    throw new BursarError("malformed-input", `${what} cannot be read: ${why}.`, isInline ? {} : { value: source });
  }
}

function filledIn(value: unknown, environment: Readonly<Record<string, string | undefined>>): unknown {
  if (Array.isArray(value)) return value.map((one) => filledIn(one, environment));
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, filledIn(one, environment)]));
  }
  if (typeof value !== "string") return value;
  return value.replaceAll(/\$\{([A-Z][A-Z0-9_]*)\}/g, (_, name: string) => {
    const text = environment[name];
    if (text !== undefined && text !== "") return text;
    throw new BursarError("malformed-input", `The variable ${name} is not set.`, { value: name });
  });
}

/** Places of values that stood there before. */
function repeated(values: readonly string[]): number[] {
  return values.flatMap((value, i) => (values.indexOf(value) < i ? [i] : []));
}
