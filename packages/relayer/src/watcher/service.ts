import { BursarError, type Address } from "@bursar/protocol";
import { chainMandates } from "@bursar/sdk/payee";
import type { BaseWallet, JsonRpcApiProvider } from "ethers";
import type { Logger } from "pino";

import type { Chain } from "../chain.ts";
import { Outbox } from "../outbox.ts";
import { Rounds } from "../rounds.ts";
import { Actions } from "./actions.ts";
import { Alerts } from "./alerts.ts";
import type { WatchBook } from "./book.ts";
import { createCounter } from "./counter.ts";
import type { ChallengePolicy } from "./follow.ts";
import { Intake } from "./intake.ts";
import { Lookout } from "./lookout.ts";
import { Owners } from "./owners.ts";
import { PayeeDatabase } from "./payee-database.ts";
import { Watcher } from "./watcher.ts";

/** What whoever runs a watcher decides. */
export interface WatchConfig {
  /** Owners whose mandates are watched. */
  readonly owners: readonly Address[];
  /** Files of the payee SDK's `SqliteReceipts`. */
  readonly payeeDatabases: readonly string[];
  readonly challenge: ChallengePolicy;
  /** Payees whose credits are paid out to them, from so many units on. */
  readonly sweep: readonly Address[];
  readonly sweepAbove: bigint;
  /** Percent of a budget below which what remains is low. */
  readonly low: number;
  /** The contracts' first block. */
  readonly fromBlock: number;
  /** Seconds between rounds. */
  readonly every: number;
  /** Seconds after which a transaction is replaced at a higher fee. */
  readonly replaceAfter: bigint;
  readonly webhook: { readonly url: string; readonly secret: string } | null;
  /** Where receipts are handed in over HTTP, by whoever knows the token; null takes none. */
  readonly counter: { readonly host: string; readonly port: number; readonly token: string } | null;
}

export const WATCH_DEFAULTS: WatchConfig = {
  owners: [],
  payeeDatabases: [],
  challenge: "certain",
  sweep: [],
  sweepAbove: 1_000_000n,
  low: 20,
  fromBlock: 0,
  every: 60,
  replaceAfter: 60n,
  webhook: null,
  counter: null,
};

export interface WatchParts {
  readonly config: WatchConfig;
  readonly chain: Chain;
  readonly provider: JsonRpcApiProvider;
  readonly book: WatchBook;
  /** Sends transactions, and owns nothing but the money for gas and deposits. */
  readonly signer: BaseWallet;
  /** Wei a gas that no transaction pays more than. */
  readonly maxFeePerGas?: bigint | undefined;
  readonly logger: Logger;
  /** Unix seconds. */
  readonly now: () => bigint;
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly sleep: (milliseconds: number, signal?: AbortSignal) => Promise<unknown>;
}

export interface Watch {
  readonly watcher: Watcher;
  readonly intake: Intake;
  readonly alerts: Alerts;
}

/** Seconds without an answer of the chain after which somebody is told. */
const SILENCE = 600n;
/** Milliseconds that a chore may take to end when the watcher stops; what it does is recorded step by step. */
const PATIENCE = 10_000;

/** Takes receipts for a book; with the chain alone, to check them. */
export function createIntake(
  { chain, provider, book }: Pick<WatchParts, "chain" | "provider" | "book">,
  fromBlock: number,
): { lookout: Lookout; intake: Intake } {
  const { chainId, registry } = chain.rail;
  const lookout = new Lookout(chain, fromBlock);
  const mandates = chainMandates(provider, registry, { finality: chain.finality, fromBlock });
  return { lookout, intake: new Intake({ domain: { chainId, registry }, book, lookout, mandates }) };
}

/** Puts a watcher together; nothing runs yet. */
export function createWatch(parts: WatchParts): Watch {
  const { config, chain, provider, book, signer, maxFeePerGas, logger, now, sleep } = parts;
  const { owners, challenge, sweep, sweepAbove, low, fromBlock, replaceAfter, webhook } = config;
  const { lookout, intake } = createIntake(parts, fromBlock);
  const alerts = new Alerts({ book, webhook, logger, now });
  const account = signer.address as Address;
  const outbox = new Outbox({
    store: book,
    provider,
    signer,
    finality: chain.finality,
    maxFeePerGas,
    replaceAfter,
    pollInterval: 250,
    now,
    sleep: async (milliseconds) => {
      await sleep(milliseconds);
    },
  });
  const actions = new Actions({ book, chain, outbox, account, alerts, logger, now });
  const { chainId, registry } = chain.rail;
  const payeeDatabases = config.payeeDatabases.map(
    (path) => new PayeeDatabase({ path, domain: { chainId, registry }, book, intake, alerts }),
  );
  const watcher = new Watcher({
    book,
    lookout,
    actions,
    alerts,
    owners: new Owners({ book, lookout, actions, alerts, owners, low }),
    payeeDatabases,
    account,
    challenge,
    sweep,
    sweepAbove,
    logger,
  });
  return { watcher, intake, alerts };
}

/** One round to its end: what it began is final, and its alerts were posted once. @throws BursarError `chain-unavailable` */
export async function watchOnce({ watcher, alerts }: Watch): Promise<void> {
  try {
    await watcher.run();
    await watcher.idle();
    await watcher.run();
  } finally {
    await alerts.deliver();
  }
}

export interface Watching {
  /** Where receipts are handed in, or null. */
  readonly url: string | null;
  /** Ends after what is being done; what is unfinished goes on at the next start. */
  stop(): Promise<void>;
}

/** Watches until it is stopped. */
export async function startWatching(parts: WatchParts): Promise<Watching> {
  const { config, logger, now } = parts;
  const { watcher, intake, alerts } = createWatch(parts);
  let silentSince: bigint | null = null;
  const rounds = new Rounds({
    chores: [
      {
        name: "watch",
        every: config.every * 1_000,
        run: async () => {
          await watcher.run();
          silentSince = null;
        },
      },
      { name: "alerts", every: 1_000, run: () => alerts.deliver() },
    ],
    failed: (chore, error) => {
      const { code, message } = error as { code?: unknown; message: string };
      logger.warn({ chore, code, reason: message }, "will be tried again");
      if (!(error instanceof BursarError) || error.code !== "chain-unavailable") return;
      silentSince ??= now();
      if (now() - silentSince >= SILENCE) tellSilence(alerts, silentSince);
    },
    sleep: (milliseconds, signal) => parts.sleep(milliseconds, signal),
  });
  const counter = config.counter && createCounter({ intake, token: config.counter.token, logger });
  try {
    const url = (await counter?.listen({ host: config.counter!.host, port: config.counter!.port })) ?? null;
    rounds.start();
    return {
      url,
      stop: async () => {
        await counter?.close();
        await rounds.stop(PATIENCE);
      },
    };
  } catch (error) {
    await counter?.close();
    throw error;
  }
}

function tellSilence(alerts: Alerts, since: bigint): void {
  alerts.raise({
    id: `chain-unreachable:${since}`,
    kind: "chain-unreachable",
    level: "critical",
    message: "The chain has not answered for ten minutes: nothing is watched.",
    details: { since },
  });
}
