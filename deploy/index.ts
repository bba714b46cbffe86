import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { parseAddress, type Address } from "@bursar/protocol";
import type { Provider, Signer } from "ethers";

import type { Deployment } from "../packages/relayer/src/deployment.ts";
import { inclusionOf, verifiers } from "./01-verifiers.ts";
import { core } from "./02-core.ts";
import { tokens } from "./03-tokens.ts";
import { validate } from "./04-validate.ts";
import { LOCAL_CHAINS, openContext, type Settings, type Step } from "./context.ts";

export { LOCAL_CHAINS, type Settings } from "./context.ts";

/** All steps in their order. Each may be run again: it does what is missing. */
export const STEPS: readonly Step[] = [verifiers, core, tokens, validate];

const HOUR = 3_600n;

/** The windows of protocol.md 6. */
export const WINDOWS: Settings["windows"] = {
  settleBy: HOUR,
  grace: 2n * HOUR,
  acknowledge: HOUR,
  cure: 24n * HOUR,
  claim: 72n * HOUR,
};

/** The development verifiers that are built in this checkout. */
export const DEVELOPMENT_VERIFIERS = ["TinyBatchVerifier", "DefaultBatchVerifier", "LargeBatchVerifier"];

/**
 * Settings from the environment: `BURSAR_VERIFIERS` (names, comma-separated) and `BURSAR_TOKENS` (`SYMBOL=address`,
 * comma-separated), `BURSAR_GATE` (an identity gate); on a local chain the development verifiers unless others are named.
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
    tokens: Object.fromEntries(
      list(environment["BURSAR_TOKENS"]).map((entry) => entry.split("=") as [string, Address]),
    ),
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
