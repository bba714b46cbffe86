import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

import { BursarError } from "@bursar/protocol";
import { Prover } from "@bursar/prover";
import { parseUnits } from "ethers";
import type { Command } from "commander";

import { LOCAL_CHAINS } from "../../../../deploy/index.ts";
import { readChains, type ChainConfig } from "../chains-config.ts";
import { readDeployment } from "../deployment.ts";
import { doorPath } from "../http/front.ts";
import { Keyring } from "../keyring.ts";
import { createLogger } from "../log.ts";
import { SERVICE_DEFAULTS, type ServiceConfig } from "../service.ts";
import { startServices, type ServedChain } from "../services.ts";
import { interrupted, type ServeOptions } from "./commands.ts";
import { progress, type Output } from "./report.ts";
import { now, Session, type SessionOptions } from "./session.ts";

/** What the list of chains says for each of them, and so no option for all. */
const OF_ONE = ["rpc", "database", "finality", "maxFeeGwei", "replaceAfter", "gasBudgetEthPerDay", "minBalanceEth"];

/** @throws BursarError `malformed-input` for an option that would be passed over. */
export function expectOnlyChains(commands: readonly Command[]): void {
  for (const command of commands) {
    const passedOver = OF_ONE.find((name) => !["default", undefined].includes(command.getOptionValueSource(name)));
    if (passedOver === undefined) continue;
    throw new BursarError(
      "malformed-input",
      `--chains says ${passedOver} for each chain.`,
      { value: passedOver },
      "Say it in the list of chains alone.",
    );
  }
}

/** Serves several chains until SIGINT or SIGTERM; a second one ends it at once. */
export async function serveChains(common: SessionOptions, output: Output, options: ServeOptions): Promise<void> {
  const configs = readChains(options.chains!);
  const isLocal = configs.every(({ chainId }) => LOCAL_CHAINS.includes(chainId));
  // Before the chains ask for it side by side.
  await new Keyring(join(common.home, "keys"), common.password, isLocal).loadOrCreate("processor");
  const config = {
    ...SERVICE_DEFAULTS,
    ...options,
    settleBelow: options.settleBelow === undefined ? null : parseUnits(options.settleBelow, "gwei"),
    metricsPort: options.metricsPort ?? null,
    replaceAfter: SERVICE_DEFAULTS.replaceAfter,
    settleWithin: common.settleWithin,
  };
  const prover = new Prover();
  try {
    const services = await startServices({
      config,
      chains: configs.map((chain) => served(chain, { common, config, prover })),
      logger: createLogger(options.logLevel, process.stdout),
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    });
    progress(output, `listening on ${services.url}`);
    for (const { name } of configs) progress(output, `  ${services.url}${doorPath(name)}`);
    if (services.metricsUrl !== null) progress(output, `metrics on ${services.metricsUrl}/metrics`);
    await interrupted();
    progress(output, "finishing what was begun; interrupt again to end at once");
    await services.stop();
  } finally {
    prover.close();
  }
}

interface Shared {
  readonly common: SessionOptions;
  readonly config: ServiceConfig;
  readonly prover: Prover;
}

function served(chain: ChainConfig, { common, config, prover }: Shared): ServedChain {
  const { name, chainId, finality, replaceAfter, maxFeePerGas, gasBudget, minBalance } = chain;
  return {
    name,
    chainId,
    registry: registryOf(chain),
    open: async () => {
      const { rpc, store, deployment } = chain;
      const session = await Session.open({ ...common, rpc, database: store, deployment, finality });
      try {
        expectChain(chain, session);
        const maxSkew = session.local ? null : SERVICE_DEFAULTS.maxSkew;
        const own = { finality, replaceAfter, maxFeePerGas, gasBudget, minBalance, maxSkew };
        return {
          config: { ...config, ...own, publicUrl: config.publicUrl.replace(/\/$/, "") + doorPath(name) },
          chain: session.chain,
          provider: session.provider,
          store: await session.store(),
          signer: await session.account("processor"),
          prover,
          alarms: session.alarms,
          now,
          close: () => session.close(),
        };
      } catch (error) {
        await session.close();
        throw error;
      }
    },
  };
}

/** What is recorded on this machine has to be right before anything is asked. */
function registryOf({ name, chainId, deployment }: ChainConfig): ServedChain["registry"] {
  const recorded = readDeployment(deployment);
  if (recorded?.registry !== undefined && recorded.chainId === chainId) return recorded.registry;
  throw new BursarError(
    "malformed-input",
    `${name}: ${deployment} records no deployment on chain ${chainId}.`,
    { value: String(recorded?.chainId ?? "none"), limit: String(chainId) },
    "Run `bursar deploy` on that chain, or name the file of its deployment.",
  );
}

function expectChain({ name, chainId }: ChainConfig, session: Session): void {
  if (session.chainId === chainId) return;
  throw new BursarError(
    "wrong-chain",
    `The nodes of ${name} are on chain ${session.chainId}.`,
    { value: session.chainId, limit: chainId },
    "Name nodes of the right chain.",
  );
}
