import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { addressSchema, bytes32Schema, BursarError, parseWire, toWire, uint256Schema } from "@bursar/protocol";
import { z } from "zod";

const contractSchema = z.strictObject({
  address: addressSchema,
  /** keccak256 of the creation code with its arguments: another one is another contract. */
  initCodeHash: bytes32Schema,
  nonce: z.number().int().nonnegative(),
});

const deploymentSchema = z.strictObject({
  chainId: uint256Schema,
  /** Hash of block 0: a restarted local chain is another chain. */
  genesis: bytes32Schema,
  /** By name, in the order of their deployment. */
  contracts: z.record(z.string(), contractSchema),
  /** Key identifier of each circuit's verifier. */
  circuits: z.record(z.string(), bytes32Schema),
  /** The same of the circuits that answer challenges. */
  inclusions: z.record(z.string(), bytes32Schema).default({}),
  escrow: addressSchema.optional(),
  registry: addressSchema.optional(),
  settlement: addressSchema.optional(),
  direct: addressSchema.optional(),
  processors: addressSchema.optional(),
  claims: addressSchema.optional(),
  challenges: addressSchema.optional(),
  gate: addressSchema.optional(),
  /** Where payments are disputed, and who decides; absent where nothing can be. */
  disputes: addressSchema.optional(),
  arbiter: addressSchema.optional(),
  /** Tokens registered at deployment, by symbol. */
  tokens: z.record(z.string(), addressSchema),
});

/** What stands on one chain. */
export type Deployment = z.output<typeof deploymentSchema>;

/** The file that records what stands on a chain. */
export function deploymentPath(folder: string, chainId: bigint): string {
  return join(folder, `${chainId}.json`);
}

/** @throws BursarError `malformed-input` for a file that is not such a record. */
export function readDeployment(path: string): Deployment | undefined {
  if (!existsSync(path)) return undefined;
  return parseWire(deploymentSchema, parseJson(path));
}

function parseJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as unknown;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new BursarError("malformed-input", `${path} holds no JSON: ${error.message}`, { value: path });
  }
}

/** Replaces the record at once, so that a crash leaves the old one or the new one. */
export function writeDeployment(path: string, deployment: Deployment): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.new`, `${JSON.stringify(toWire(deployment), null, 2)}\n`, { flush: true });
  renameSync(`${path}.new`, path);
}

/** A finished deployment: the addresses that every user needs. */
export interface Rail {
  readonly chainId: bigint;
  readonly escrow: `0x${string}`;
  readonly registry: `0x${string}`;
  readonly settlement: `0x${string}`;
  readonly direct: `0x${string}`;
  readonly processors: `0x${string}`;
  readonly claims: `0x${string}`;
  readonly challenges: `0x${string}`;
  /** Absent where no payment can be disputed. */
  readonly disputes?: `0x${string}`;
  readonly arbiter?: `0x${string}`;
  readonly circuits: Deployment["circuits"];
  readonly inclusions: Deployment["inclusions"];
  readonly tokens: Deployment["tokens"];
}

/** @throws BursarError `wrong-chain` when nothing, or not everything, is deployed on the chain. */
export function railOf(deployment: Deployment | undefined, chainId: bigint, genesis: string): Rail {
  const { escrow, registry, settlement, direct, processors, claims, challenges } = deployment ?? {};
  const core = escrow && registry && settlement && direct;
  const trust = processors && claims && challenges;
  if (!deployment || !core || !trust || deployment.genesis !== genesis) {
    throw new BursarError(
      "wrong-chain",
      `No deployment is recorded for this chain ${chainId}.`,
      { value: chainId },
      "Run `bursar deploy`.",
    );
  }
  const { disputes, arbiter, circuits, inclusions, tokens } = deployment;
  return {
    chainId,
    escrow,
    registry,
    settlement,
    direct,
    processors,
    claims,
    challenges,
    ...(disputes === undefined || arbiter === undefined ? {} : { disputes, arbiter }),
    circuits,
    inclusions,
    tokens,
  };
}
