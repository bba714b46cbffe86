import { readFileSync } from "node:fs";
import { isIP } from "node:net";

import { BursarError, parseAddress, parseAmount, type Address } from "@bursar/protocol";
import { InvalidArgumentError, Option, type Command } from "commander";

import { parseEth, parseGwei } from "../fees.ts";
import { parseFinality } from "../finality.ts";
import { SERVICE_DEFAULTS } from "../service.ts";

/** A wrong value on the command line, in the environment or in the configuration file is wrong usage. */
const reads =
  <T>(read: (text: string) => T) =>
  (text: string): T => {
    try {
      return read(text);
    } catch (error) {
      throw error instanceof BursarError ? new InvalidArgumentError(error.message) : error;
    }
  };

/** An amount as it was written, once it can be read: so it is shown. */
const checked = (read: (text: string) => bigint) =>
  reads((text): string => {
    read(text);
    return text;
  });

export const address = reads((text): Address => parseAddress(text));
export const amount = reads((text): bigint => parseAmount(text));

/** A whole number of a range. */
export function between(minimum: number, maximum: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
    if (value >= minimum && value <= maximum) return value;
    throw new InvalidArgumentError(`«${text}» is no whole number from ${minimum} to ${maximum}.`);
  };
}

/** A positive number with at most nine decimals, such as a price in gwei; as it was written, so that nothing is rounded. */
export function decimal(text: string): string {
  if (/^\d{1,9}(\.\d{1,9})?$/.test(text) && /[1-9]/.test(text)) return text;
  throw new InvalidArgumentError(`«${text}» is no positive number such as 0.05.`);
}

/** A moment as Unix seconds, `2026-11-23` or `2026-11-23T12:00:00Z`. */
export function moment(text: string): bigint {
  if (/^\d{1,12}$/.test(text)) return BigInt(text);
  const milliseconds = Date.parse(text);
  if (Number.isNaN(milliseconds)) throw new InvalidArgumentError(`«${text}» is no date or time.`);
  return BigInt(Math.floor(milliseconds / 1_000));
}

/** JSON-RPC URLs with commas between them; the option given again names more. */
function nodes(text: string, before: readonly string[] | undefined): string[] {
  const urls = text.split(",").map((one) => one.trim());
  const wrong = urls.findIndex((one) => !URL.canParse(one) || !/^https?:$/.test(new URL(one).protocol));
  // It is not said again: it may hold a provider's key.
  if (wrong >= 0) throw new InvalidArgumentError(`Node ${wrong + 1} is no http or https URL.`);
  return before === undefined || before === DEFAULT_NODES ? urls : [...before, ...urls];
}

function url(text: string): string {
  if (URL.canParse(text) && /^(https?|wss?):$/.test(new URL(text).protocol)) return text;
  throw new InvalidArgumentError(`«${text}» is no URL.`);
}

function publicUrl(text: string): string {
  return text === "" ? "" : url(text);
}

/** Origins with commas between them. */
function origins(text: string): string[] {
  const list = text.split(",").filter((origin) => origin !== "");
  const wrong = list.find((origin) => !URL.canParse(origin) || new URL(origin).origin !== origin);
  if (wrong === undefined) return list;
  throw new InvalidArgumentError(`«${wrong}» is no origin, such as https://app.example.`);
}

/** Addresses and networks with commas between them. */
function networks(text: string): string[] {
  const list = text.split(",").filter((network) => network !== "");
  const wrong = list.find((network) => {
    const [address = "", bits = "0", ...rest] = network.split("/");
    return (
      rest.length > 0 || !/^\d{1,3}$/.test(bits) || Number(bits) > (isIP(address) === 6 ? 128 : 32) || !isIP(address)
    );
  });
  if (wrong === undefined) return list;
  throw new InvalidArgumentError(`«${wrong}» is no address or network, such as 10.0.0.0/8.`);
}

const DEFAULT_NODES: readonly string[] = ["http://127.0.0.1:8545"];

const named = (flags: string, description: string, env: string): Option => new Option(flags, description).env(env);

/** What every command reads. */
export const commonOptions = (): Option[] => [
  named("--rpc <urls>", "JSON-RPC of nodes of the chain, the preferred first, with commas", "BURSAR_RPC_URL")
    .default(DEFAULT_NODES)
    .argParser(nodes),
  named("--home <folder>", "keys, ledgers, database", "BURSAR_HOME").default(".bursar"),
  named(
    "--database <url>",
    "of the books: postgres://…, or an SQLite file; one in the home unless given",
    "BURSAR_DATABASE",
  ),
  named("--deployments <folder>", "records of what is deployed", "BURSAR_DEPLOYMENTS").default("deployments"),
  named("--settle-within <seconds>", "what receipts promise: 600 to 86400", "BURSAR_SETTLE_WITHIN")
    .default(Number(SERVICE_DEFAULTS.settleWithin))
    .argParser(between(600, 86_400)),
  named(
    "--finality <rule>",
    "safe, finalized or a number of blocks; the chain's own without it",
    "BURSAR_FINALITY",
  ).argParser(reads(parseFinality)),
  named(
    "--max-fee-gwei <gwei>",
    "a gas that no transaction of processor or watcher pays more than",
    "BURSAR_MAX_FEE_GWEI",
  ).argParser(checked(parseGwei)),
  named("--config <file>", 'JSON file with options by name, such as {"port": 8402}', "BURSAR_CONFIG"),
];

export const settleEvery = (): Option =>
  named(
    "--settle-every <seconds>",
    "that a payment waits for a fuller batch; 0 leaves batches to `bursar batch`",
    "BURSAR_SETTLE_EVERY",
  )
    .default(SERVICE_DEFAULTS.settleEvery)
    .argParser(between(0, 86_400));

/** What a service reads besides. */
export const serviceOptions = (): Option[] => [
  named("--chains <file>", "a list of chains to serve, in place of one: a JSON file, or JSON", "BURSAR_CHAINS"),
  named("--host <address>", "where the API listens", "BURSAR_HOST").default(SERVICE_DEFAULTS.host),
  named("--port <number>", "of the API; 0 takes any that is free", "BURSAR_PORT")
    .default(SERVICE_DEFAULTS.port)
    .argParser(between(0, 65_535)),
  named("--metrics-host <address>", "where metrics are served", "BURSAR_METRICS_HOST").default(
    SERVICE_DEFAULTS.metricsHost,
  ),
  named("--metrics-port <number>", "of the metrics; none are served without it", "BURSAR_METRICS_PORT").argParser(
    between(0, 65_535),
  ),
  named("--public-url <url>", "where the public reaches the API, for signing links", "BURSAR_PUBLIC_URL")
    .default(SERVICE_DEFAULTS.publicUrl)
    .argParser(publicUrl),
  settleEvery(),
  named(
    "--settle-below <gwei>",
    "price of gas above which a batch waits, though not past its promises; any price without it",
    "BURSAR_SETTLE_BELOW",
  ).argParser(decimal),
  named(
    "--provers <number>",
    "proofs at once in this process; 0 leaves them to `bursar prove --worker`",
    "BURSAR_PROVERS",
  )
    .default(1)
    .argParser(between(0, 64)),
  named("--replace-after <seconds>", "until a stuck transaction gets a higher fee", "BURSAR_REPLACE_AFTER")
    .default(Number(SERVICE_DEFAULTS.replaceAfter))
    .argParser(between(5, 86_400)),
  named(
    "--gas-budget-eth-per-day <eth>",
    "for gas, above which what may wait does",
    "BURSAR_GAS_BUDGET_ETH_PER_DAY",
  ).argParser(checked(parseEth)),
  named(
    "--min-balance-eth <eth>",
    "on the account, below which what may wait does",
    "BURSAR_MIN_BALANCE_ETH",
  ).argParser(checked(parseEth)),
  named("--payments-per-second <number>", "of one mandate, in the long run", "BURSAR_PAYMENTS_PER_SECOND")
    .default(SERVICE_DEFAULTS.paymentsPerSecond)
    .argParser(between(1, 1_000_000)),
  named("--burst <number>", "payments of one mandate at once", "BURSAR_BURST")
    .default(SERVICE_DEFAULTS.burst)
    .argParser(between(1, 1_000_000)),
  named("--requests-per-second <number>", "of one client address; 0 for any number", "BURSAR_REQUESTS_PER_SECOND")
    .default(SERVICE_DEFAULTS.requestsPerSecond)
    .argParser(between(0, 1_000_000)),
  named("--trusted-proxies <list>", "whose X-Forwarded-For is believed, with commas", "BURSAR_TRUSTED_PROXIES")
    .default(SERVICE_DEFAULTS.trustedProxies)
    .argParser(networks),
  named("--origins <list>", "web origins that may call, with commas", "BURSAR_ORIGINS")
    .default(SERVICE_DEFAULTS.origins)
    .argParser(origins),
  named("--body-limit <bytes>", "of a request", "BURSAR_BODY_LIMIT")
    .default(SERVICE_DEFAULTS.bodyLimit)
    .argParser(between(4_096, 1_048_576)),
  named("--max-connections <number>", "at once", "BURSAR_MAX_CONNECTIONS")
    .default(SERVICE_DEFAULTS.maxConnections)
    .argParser(between(1, 1_000_000)),
  named("--log-level <level>", "what is logged", "BURSAR_LOG_LEVEL")
    .choices(["fatal", "error", "warn", "info", "debug", "silent"])
    .default("info"),
];

/**
 * Fills in what the configuration file says and neither the command line nor the environment does.
 *
 * @throws InvalidArgumentError for a file that cannot be read, a name that is no option, or a wrong value.
 */
export function readConfigFile(path: string, commands: readonly Command[]): void {
  const known = [...commonOptions(), ...serviceOptions()].map((option) => option.attributeName());
  for (const [name, value] of Object.entries(parse(path))) {
    if (!known.includes(name) || name === "config") {
      throw new InvalidArgumentError(`${path}: «${name}» is no option; there are ${known.join(", ")}.`);
    }
    for (const command of commands) set(command, name, value, path);
  }
}

function set(command: Command, name: string, value: unknown, path: string): void {
  const option = command.options.find((candidate) => candidate.attributeName() === name);
  const source = command.getOptionValueSource(name);
  if (option === undefined || source === "cli" || source === "env") return;
  const text = Array.isArray(value) ? value.join(",") : String(value);
  try {
    const read = option.parseArg as ((text: string, previous: undefined) => unknown) | undefined;
    const parsed = read === undefined ? text : read(text, undefined);
    command.setOptionValueWithSource(name, parsed, "config");
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    throw new InvalidArgumentError(`${path}: ${name}: ${error.message}`);
  }
}

function parse(path: string): object {
  try {
    const value: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
    throw new Error("it is no JSON object");
  } catch (error) {
    throw new InvalidArgumentError(`The configuration ${path} cannot be read: ${(error as Error).message}`);
  }
}
