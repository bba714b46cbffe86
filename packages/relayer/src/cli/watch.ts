import { mkdirSync, readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import { setTimeout } from "node:timers/promises";
import { join } from "node:path";

import { BursarError, formatAmount, problem, type Address } from "@bursar/protocol";
import { InvalidArgumentError, Option, type Command } from "commander";

import { createLogger } from "../log.ts";
import {
  CHALLENGE_POLICIES,
  createIntake,
  createWatch,
  startWatching,
  WATCH_DEFAULTS,
  WatchBook,
  watchOnce,
  type ChallengePolicy,
  type Taken,
  type WatchConfig,
  type WatchParts,
} from "../watcher/index.ts";
import { address, amount, between } from "./options.ts";
import { progress, report, short, table, time, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import { now, type Session } from "./session.ts";

interface WatchScene extends Scene {
  readonly interrupted: () => Promise<void>;
}

interface WatchOptions {
  owner: Address[];
  receipts: string[];
  challenge: ChallengePolicy;
  sweep: Address[];
  sweepAbove: bigint;
  low: number;
  every: number;
  fromBlock: number;
  webhook?: string;
  host: string;
  port?: number;
  once?: boolean;
  logLevel: string;
}

const SECRET = "BURSAR_WEBHOOK_SECRET";
const TOKEN = "BURSAR_WATCH_TOKEN";
const SHORTEST_SECRET = 16;

/** Adds `bursar watch`, `bursar watch add|status`. */
export function addWatchCommands(program: Command, { output, within, interrupted }: WatchScene): void {
  const watch = program
    .command("watch")
    .description("watch receipts for payees and mandates for owners: claims, challenges and alerts by itself")
    .option("--owner <address...>", "owners whose mandates are watched, and closed when they can be", addresses, [])
    .option("--receipts <file...>", "databases of the payee SDK (SqliteReceipts), read as they grow", texts, [])
    .addOption(
      new Option("--challenge <policy>", "of a settled ledger; takes a deposit of 1 token")
        .choices(CHALLENGE_POLICIES)
        .default(WATCH_DEFAULTS.challenge),
    )
    .option("--sweep <payee...>", "payees whose credits are paid out to them", addresses, [])
    .addOption(
      new Option("--sweep-above <amount>", "credits from this amount on")
        .argParser(amount)
        .default(WATCH_DEFAULTS.sweepAbove, "1"),
    )
    .option("--low <percent>", "of a budget: tell when less remains", between(0, 100), WATCH_DEFAULTS.low)
    .option("--every <seconds>", "between rounds", between(1, 3_600), WATCH_DEFAULTS.every)
    .option("--from-block <number>", "the contracts' first block", between(0, Number.MAX_SAFE_INTEGER), 0)
    .addOption(
      new Option("--webhook <url>", `where alerts are posted, signed with ${SECRET}`)
        .env("BURSAR_WEBHOOK_URL")
        .argParser(webUrl),
    )
    .option("--host <address>", "where receipts are taken over HTTP", "127.0.0.1")
    .option("--port <number>", `of it; none are taken without it; callers show ${TOKEN}`, between(0, 65_535))
    .option("--once", "make one round, wait until what it began is final, and end")
    .addOption(
      new Option("--log-level <level>", "what is logged")
        .env("BURSAR_LOG_LEVEL")
        .choices(["fatal", "error", "warn", "info", "debug", "silent"])
        .default("info"),
    )
    .action(within((session, options: WatchOptions) => run(session, output, options, interrupted)));
  watch
    .command("add")
    .argument("[file]", "JSON, or a line of JSON for each; standard input without it")
    .description("take receipts: payments with their receipts, as the payee SDK exports them or agents send them")
    .action(within((session, file?: string) => add(session, output, file)));
  watch
    .command("status")
    .description("what is watched, what is at risk, and until when")
    .action(within((session) => status(session, output)));
}

const addresses = (text: string, before: Address[]): Address[] => [...before, address(text)];
const texts = (text: string, before: string[]): string[] => [...before, text];

/** One book for each registry, beside the processor's. */
function openBook({ options, chainId, rail }: Session): WatchBook {
  mkdirSync(options.home, { recursive: true, mode: 0o700 });
  return new WatchBook(join(options.home, `watcher-${chainId}-${rail.registry.slice(2, 10)}.db`), now);
}

async function run(
  session: Session,
  output: Output,
  options: WatchOptions,
  interrupted: () => Promise<void>,
): Promise<void> {
  const config = configOf(options);
  const book = openBook(session);
  try {
    book.lock();
    const parts: WatchParts = {
      config,
      chain: session.chain,
      provider: session.provider,
      book,
      signer: await sender(session),
      maxFeePerGas: session.maxFeePerGas,
      logger: createLogger(options.logLevel, process.stderr),
      now,
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    };
    if (options.once) {
      await watchOnce(createWatch(parts));
      tell(output, book);
      return;
    }
    const watching = await startWatching(parts);
    progress(output, `watching as ${parts.signer.address}`);
    if (watching.url !== null) progress(output, `receipts are taken at ${watching.url}/receipts`);
    await interrupted();
    await watching.stop();
  } finally {
    book.close();
  }
}

/** Without money for gas it still watches and tells; a local chain gives some. */
async function sender(session: Session) {
  if (session.local) return session.account("watcher");
  return (await session.keys.loadOrCreate("watcher")).connect(session.provider);
}

function configOf(options: WatchOptions): WatchConfig {
  const { owner, receipts, webhook, host, port, ...rest } = options;
  const { challenge, sweep, sweepAbove, low, every, fromBlock } = rest;
  return {
    ...WATCH_DEFAULTS,
    owners: owner,
    payeeDatabases: receipts,
    challenge,
    sweep,
    sweepAbove,
    low,
    every,
    fromBlock,
    webhook: webhook === undefined ? null : { url: webhook, secret: secretFrom(SECRET) },
    counter: port === undefined ? null : { host, port, token: secretFrom(TOKEN) },
  };
}

function webUrl(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text;
  throw new InvalidArgumentError(`«${text}» is no http or https URL.`);
}

/** Secrets have no flag, so that no process list shows them. */
function secretFrom(name: string): string {
  const secret = process.env[name] ?? "";
  if (secret.length >= SHORTEST_SECRET) return secret;
  throw new BursarError(
    "malformed-input",
    `${name} has ${secret.length} characters.`,
    { value: secret.length, limit: SHORTEST_SECRET },
    `Set ${name} to at least ${SHORTEST_SECRET} characters.`,
  );
}

/** What became of one receipt of a file. */
type Outcome = Taken | { readonly entry: number; readonly code: string; readonly message: string };

async function add(session: Session, output: Output, file: string | undefined): Promise<void> {
  const entries = entriesOf(file === undefined ? await text(process.stdin) : readFileSync(file, "utf8"));
  const book = openBook(session);
  try {
    const { chain, provider } = session;
    const { intake } = createIntake({ chain, provider, book }, 0);
    const outcomes: Outcome[] = [];
    for (const [index, entry] of entries.entries()) {
      outcomes.push(await intake.take(entry).catch((error: unknown) => refusalOf(index + 1, error)));
    }
    tellTaken(output, outcomes);
  } finally {
    book.close();
  }
}

function refusalOf(entry: number, error: unknown): Outcome {
  if (!(error instanceof BursarError) || error.code === "chain-unavailable") throw error;
  return { entry, code: problem(error).code, message: error.message };
}

/** One good receipt is kept whatever the others are; one bad one is told by the exit code. */
function tellTaken(output: Output, outcomes: readonly Outcome[]): void {
  const refused = outcomes.filter((outcome) => "code" in outcome);
  const taken = outcomes.filter((outcome) => "id" in outcome);
  const kept = taken.filter((outcome) => outcome.kept).length;
  report(
    output,
    { kept, known: taken.length - kept, refused, receipts: taken },
    [
      `${kept} kept, ${taken.length - kept} known already, ${refused.length} refused`,
      ...refused.map(({ entry, code, message }) => `entry ${entry}: ${code}: ${message}`),
    ].join("\n"),
  );
  if (refused.length === 0) return;
  throw new BursarError("malformed-input", `${refused.length} of ${outcomes.length} receipts are not watched.`, {
    value: refused.length,
    limit: outcomes.length,
  });
}

/** A JSON value, a list of them, or one in each line. @throws BursarError `malformed-input` */
function entriesOf(content: string): unknown[] {
  const whole = parsed(content);
  if (whole !== undefined) return Array.isArray(whole) ? (whole as unknown[]) : [whole];
  const lines = content.split("\n").filter((line) => line.trim() !== "");
  return lines.map((line, index) => {
    const entry = parsed(line);
    if (entry !== undefined) return entry;
    throw new BursarError("malformed-input", `Line ${index + 1} is no JSON.`, { value: line.slice(0, 80) });
  });
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json) as unknown;
  } catch {
    return undefined;
  }
}

function status(session: Session, output: Output): Promise<void> {
  const book = openBook(session);
  try {
    tell(output, book);
  } finally {
    book.close();
  }
  return Promise.resolve();
}

function tell(output: Output, book: WatchBook): void {
  const open = book.open();
  const totals = book.totals();
  const mandates = book.mandates();
  const pending = book.pending().map(({ id, kind, subjects }) => ({ id, kind, subjects }));
  const receipts = open.map(({ id, processor, token, payment, state, until, note }) => ({
    id,
    state,
    until,
    units: payment.line.amount,
    agent: payment.agent,
    seq: payment.seq,
    payee: payment.line.payee,
    processor,
    token,
    note,
  }));
  const atRisk = receipts.reduce((sum, { units }) => sum + units, 0n);
  const sums = totals.map(({ state, receipts: count, units }) => `${count} ${state} (${formatAmount(units)})`);
  const lines = [
    sums.length === 0 ? "no receipts" : sums.join(", "),
    ...(receipts.length === 0 ? [] : [`at risk: ${formatAmount(atRisk)}`, receiptTable(receipts)]),
    ...(mandates.length === 0 ? [] : [mandateTable(mandates)]),
    ...(pending.length === 0 ? [] : [`${pending.length} transactions under way`]),
    ...(book.undelivered() === 0 ? [] : [`${book.undelivered()} alerts not delivered`]),
  ];
  report(output, { totals, atRisk, receipts, mandates, pending, undelivered: book.undelivered() }, lines.join("\n"));
}

function receiptTable(
  receipts: readonly {
    state: string;
    until: bigint | null;
    units: bigint;
    agent: string;
    seq: bigint;
    note: string | null;
  }[],
): string {
  return table(
    ["state", "until", "amount", "agent", "seq", "note"],
    receipts.map(({ state, until, units, agent, seq, note }) => [
      state,
      until === null ? "" : time(until),
      formatAmount(units),
      short(agent),
      String(seq),
      note ?? "",
    ]),
  );
}

function mandateTable(mandates: ReturnType<WatchBook["mandates"]>): string {
  return table(
    ["mandate", "state", "remaining", "can be closed"],
    mandates.map(({ agent, state, remaining, closesAt }) => [
      short(agent),
      state,
      formatAmount(remaining),
      state === "closed" ? "" : time(closesAt),
    ]),
  );
}
