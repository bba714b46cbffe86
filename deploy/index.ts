import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { BursarError, parseAddress, type Address } from "@bursar/protocol";
import { parseEther, type Provider, type Signer } from "ethers";

import type { Deployment } from "../packages/relayer/src/deployment.ts";
import { inclusionOf, verifiers } from "./01-verifiers.ts";
import { core } from "./02-core.ts";
import { tokens } from "./03-tokens.ts";
import { disputes } from "./04-disputes.ts";
import { validate } from "./05-validate.ts";
import { LOCAL_CHAINS, openContext, type DisputeSettings, type Settings, type Step } from "./context.ts";

export { LOCAL_CHAINS, type Settings } from "./context.ts";

/** All steps in their order. Each may be run again: it does what is missing. */
export const STEPS: readonly Step[] = [verifiers, core, tokens, disputes, validate];

const HOUR = 3_600n;

/** The windows of protocol.md 6. */
export const WINDOWS: Settings["windows"] = {
  settleBy: HOUR,
  grace: 2n * HOUR,
  acknowledge: HOUR,
  cure: 24n * HOUR,
  claim: 72n * HOUR,
};

/** What a dispute costs and how long it may take, unless the environment says otherwise. */
export const DISPUTES: Omit<DisputeSettings, "arbiters"> = {
  fee: parseEther("0.01"),
  stake: parseEther("0.1"),
  ruleWithin: 7n * 24n * HOUR,
  deadlines: { deliver: HOUR, answer: 48n * HOUR, escalate: 48n * HOUR, rule: 14n * 24n * HOUR },
};

/** The development verifiers that are built in this checkout. */
export const DEVELOPMENT_VERIFIERS = [
  "TinyBatchVerifier",
  "DefaultBatchVerifier",
  "LargeBatchVerifier",
  "HugeBatchVerifier",
];

/**
 * Settings from the environment: `BURSAR_VERIFIERS` (names, comma-separated) and `BURSAR_TOKENS` (`SYMBOL=address`,
 * comma-separated), `BURSAR_GATE` (an identity gate); on a local chain the development verifiers unless others are named.
 * For disputes `BURSAR_ARBITERS` (addresses, comma-separated; on a local chain the deployer), `BURSAR_ARBITER_FEE` and
 * `BURSAR_ARBITER_STAKE` (of the chain's coin, such as 0.01), `BURSAR_RULE_WITHIN` (seconds).
 *
 * @throws BursarError `malformed-input`
 */
export function settingsOf(chainId: bigint, environment: NodeJS.ProcessEnv): Settings {
  const named = list(environment["BURSAR_VERIFIERS"]);
  const isBuilt = (name: string): boolean =>
    existsSync(fileURLToPath(new URL(`../artifacts/contracts/verifiers/${name}.sol`, import.meta.url)));
  const built = DEVELOPMENT_VERIFIERS.filter((name) => isBuilt(name) && isBuilt(inclusionOf(name)));
  return {
    verifiers: named.length > 0 || !LOCAL_CHAINS.includes(chainId) ? named : built,
    windows: WINDOWS,
    ...(environment["BURSAR_GATE"] ? { gate: parseAddress(environment["BURSAR_GATE"]) } : {}),
    ...disputesOf(chainId, environment),
    tokens: Object.fromEntries(
      list(environment["BURSAR_TOKENS"]).map((entry) => entry.split("=") as [string, Address]),
    ),
  };
}

function disputesOf(chainId: bigint, environment: NodeJS.ProcessEnv): Pick<Settings, "disputes"> {
  const arbiters = list(environment["BURSAR_ARBITERS"]).map(parseAddress);
  if (arbiters.length === 0 && !LOCAL_CHAINS.includes(chainId)) return {};
  const read = (name: string, parse: (text: string) => bigint, otherwise: bigint): bigint => {
    const text = environment[name] ?? "";
    try {
      return text === "" ? otherwise : parse(text);
    } catch {
      throw new BursarError("malformed-input", `${name} is «${text}».`, { value: text }, "Give a plain number.");
    }
  };
  return {
    disputes: {
      ...DISPUTES,
      arbiters,
      fee: read("BURSAR_ARBITER_FEE", parseEther, DISPUTES.fee),
      stake: read("BURSAR_ARBITER_STAKE", parseEther, DISPUTES.stake),
      ruleWithin: read("BURSAR_RULE_WITHIN", BigInt, DISPUTES.ruleWithin),
    },
  };
}

/** Runs every step; after an interruption, run it again. */
export async function deploy(
  signer: Signer,
  provider: Provider,
  options: { settings: Settings; folder: string; log?: (message: string) => void; begin?: (title: string) => void },
): Promise<Deployment> {
  const context = await openContext(
    signer,
    provider,
    options.settings,
    options.folder,
    options.log ?? (() => undefined),
  );
  for (const step of STEPS) {
    options.begin?.(step.title);
    await step.run(context);
  }
  return context.deployment;
}

function list(value: string | undefined): string[] {
  return (value ?? "").split(",").filter((entry) => entry !== "");
}
