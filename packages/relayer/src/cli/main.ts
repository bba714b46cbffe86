import { createInterface } from "node:readline/promises";

import { BursarError, parseAddress, parseAmount, type Address } from "@bursar/protocol";
import { Command, CommanderError, Option } from "commander";

import * as commands from "./commands.ts";
import { addIntentCommands } from "./intents.ts";
import { EXIT, fail, type Output } from "./report.ts";
import { Session, type SessionOptions } from "./session.ts";

/** What a command runs in. */
export interface Scene {
  output: Output;
  options: SessionOptions;
  /** Asks the person; true without asking where nobody is there to answer and `--yes` was given. */
  confirm: (question: string) => Promise<boolean>;
}

/**
 * Runs one `bursar` command.
 * @returns the exit code: 0 done, 1 refused or failed, 2 wrong usage, 3 chain or key not available.
 */
export async function main(
  argv: readonly string[],
  streams: Pick<Output, "out" | "err"> = consoleStreams,
): Promise<number> {
  const output: Output = { ...streams, json: argv.includes("--json") };
  const program = build(output);
  try {
    await program.parseAsync([...argv], { from: "user" });
    return EXIT.done;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    return fail(output, error);
  }
}

const consoleStreams = {
  out: (text: string) => void process.stdout.write(`${text}\n`),
  err: (text: string) => void process.stderr.write(`${text}\n`),
};

function build(output: Output): Command {
  const program = new Command("bursar")
    .description("Payments for AI agents: one signed intent, many small payments, one proof.")
    .exitOverride()
    .configureOutput({ writeOut: (text) => output.out(text.trimEnd()), writeErr: (text) => output.err(text.trimEnd()) })
    .addOption(
      new Option("--rpc <url>", "JSON-RPC of the chain").env("BURSAR_RPC_URL").default("http://127.0.0.1:8545"),
    )
    .addOption(new Option("--home <folder>", "keys, ledgers, database").env("BURSAR_HOME").default(".bursar"))
    .addOption(
      new Option("--deployments <folder>", "records of what is deployed")
        .env("BURSAR_DEPLOYMENTS")
        .default("deployments"),
    )
    .addOption(
      new Option("--settle-within <seconds>", "what receipts promise: 600 to 86400")
        .env("BURSAR_SETTLE_WITHIN")
        .default("3600"),
    )
    .addOption(
      new Option("--confirmations <blocks>", "blocks until a settlement is final")
        .env("BURSAR_CONFIRMATIONS")
        .default("1"),
    )
    .option("--json", "print results and errors as JSON")
    .addHelpText(
      "after",
      "\nKeys are encrypted with BURSAR_PASSWORD; only a local chain may go without.\nExit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 chain or key not available.",
    );

  const within =
    <A extends unknown[]>(work: (session: Session, ...args: A) => Promise<void>) =>
    async (...args: A) => {
      const session = await Session.open(sessionOptions(program));
      try {
        await work(session, ...args);
      } finally {
        session.close();
      }
    };

  program
    .command("deploy")
    .description("deploy or complete the contracts, then validate them")
    .action(within((session) => commands.deployRail(session, output)));

  program
    .command("deposit <amount>")
    .description("deposit tokens of the owner into the escrow, such as 12.50; a local chain mints them")
    .option("--token <symbol or address>", "which token")
    .action(
      within((session, amount: string, { token }: { token?: string }) =>
        commands.deposit(session, output, parseAmount(amount), token),
      ),
    );

  const payee = program.command("payee").description("payees that this processor knows");
  payee
    .command("add <address>")
    .description("register or change a payee's profile, against which host and category limits are checked")
    .requiredOption("--name <name>")
    .requiredOption("--host <host>")
    .requiredOption("--category <category>")
    .action(
      within((session, address: string, profile: { name: string; host: string; category: string }) =>
        commands.addPayee(session, output, { address: parseAddress(address), ...profile }),
      ),
    );
  payee
    .command("list")
    .description("list them")
    .action(within((session) => commands.listPayees(session, output)));

  const mandate = program.command("mandate").description("what an owner allows an agent");
  mandate
    .command("open")
    .description("draft a mandate for a fresh agent key, show it, sign it once, open it on chain")
    .requiredOption("--budget <amount>", "in all, such as 5.00")
    .requiredOption("--cap <amount>", "for one payment, such as 0.01")
    .requiredOption("--purpose <text>", "why the agent may spend")
    .option("--hours <number>", "how long", "24")
    .option("--host <glob...>", "hosts it may buy from (enforced by the processor)", [])
    .option("--category <name...>", "categories it may buy (enforced by the processor)", [])
    .option("--payee <address...>", "at most 8 payees, none means anyone (enforced by contract and proof)", [])
    .option("--processor <address>", "who checks and settles; this machine's processor key by default")
    .option("--token <symbol or address>", "which token")
    .option("--yes", "sign without asking")
    .action(
      within((session, draft: commands.MandateDraft & { yes?: boolean }) =>
        commands.openMandate(session, output, draft, draft.yes ? () => Promise.resolve(true) : confirm(output)),
      ),
    );
  mandate
    .command("show <agent>")
    .description("what was signed and what is left")
    .action(within((session, agent: string) => commands.showMandate(session, output, parseAddress(agent))));
  mandate
    .command("revoke <agent>")
    .description("stop the agent now, and on chain")
    .action(within((session, agent: string) => commands.revokeMandate(session, output, parseAddress(agent))));

  addIntentCommands(program, { output, within, confirm: confirm(output) });

  program
    .command("pay <agent> <payee> <amount>")
    .description("sign the agent's next payment and have it accepted; the same command again resends an unanswered one")
    .option("--ref <bytes32>", "what is bought, as a hash")
    .option("--url <url>", "what is bought, as a request (GET unless --method)")
    .option("--method <method>", "of that request", "GET")
    .option("--memo <text>", "what is bought, as a text that is hashed")
    .option("--processor-url <url>", "send it over HTTP instead of to this machine's database")
    .action(
      within((session, agent: string, to: string, amount: string, purchase: commands.Purchase) =>
        commands.pay(session, output, parseAddress(agent), parseAddress(to), parseAmount(amount), purchase),
      ),
    );

  program
    .command("batch")
    .description("plan and prove the next batch")
    .action(within((session) => commands.batch(session, output)));
  program
    .command("settle")
    .description("bring every unfinished batch to its end on chain; resumes after a crash")
    .action(within((session) => commands.settle(session, output)));
  program
    .command("payout <payee>")
    .description("pay a payee what it has been credited; anyone may")
    .option("--token <symbol or address>", "which token")
    .action(
      within((session, address: string, { token }: { token?: string }) =>
        commands.payout(session, output, parseAddress(address), token),
      ),
    );
  program
    .command("status")
    .description("mandates, payments and batches")
    .action(within((session) => commands.status(session, output)));
  program
    .command("ledger")
    .description("who paid whom, what was refused and why, newest first")
    .option("--agent <address>", "only this agent", address)
    .option("--payee <address>", "only this payee", address)
    .option("--before <position>", "older than this position", whole)
    .option("--limit <number>", "at most so many", whole, 100)
    .action(
      within((session, filter: { agent?: Address; payee?: Address; before?: number; limit: number }) =>
        commands.ledger(session, output, filter),
      ),
    );
  program
    .command("serve")
    .description("take payments over HTTP and settle them regularly, until interrupted")
    .option("--port <number>", "on 127.0.0.1", whole, 8402)
    .option("--settle-every <seconds>", "0 leaves settling to `bursar batch` and `bursar settle`", whole, 300)
    .action(
      within((session, { port, settleEvery }: { port: number; settleEvery: number }) =>
        commands.serve(session, output, port, settleEvery),
      ),
    );

  return program;
}

function sessionOptions(program: Command): SessionOptions {
  const { rpc, home, deployments, settleWithin, confirmations } = program.opts<Record<string, string>>();
  return {
    rpc: rpc!,
    home: home!,
    deployments: deployments!,
    password: process.env["BURSAR_PASSWORD"] ?? "",
    settleWithin: BigInt(bounded("--settle-within", settleWithin!, 600, 86_400)),
    confirmations: bounded("--confirmations", confirmations!, 1, 10_000),
  };
}

const address = (text: string): Address => parseAddress(text);
const whole = (text: string): number => bounded("number", text, 0, Number.MAX_SAFE_INTEGER);

function bounded(name: string, text: string, minimum: number, maximum: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (value >= minimum && value <= maximum) return value;
  throw new BursarError(
    "malformed-input",
    `${name} is «${text}»; a whole number from ${minimum} to ${maximum} is needed.`,
    {
      value: text,
      limit: `${minimum}..${maximum}`,
    },
  );
}

function confirm(output: Output): (question: string) => Promise<boolean> {
  return async (question) => {
    if (!process.stdin.isTTY) {
      throw new BursarError("malformed-input", "Nobody is there to confirm.", {}, "Read the summary and pass --yes.");
    }
    const reader = createInterface({ input: process.stdin, output: process.stderr });
    try {
      return /^y(es)?$/i.test(await reader.question(`${question} [y/N] `));
    } finally {
      reader.close();
      output.err("");
    }
  };
}
