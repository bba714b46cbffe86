import { createInterface } from "node:readline/promises";

import { BursarError, parseAddress, type Address } from "@bursar/protocol";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";

import * as commands from "./commands.ts";
import type { LedgerFilter } from "../records.ts";
import { startTracing } from "../tracing.ts";
import { addAnswerCommand } from "./answers.ts";
import { addArbiterCommands } from "./arbiters.ts";
import { addBondCommands } from "./bonds.ts";
import { addBookCommands } from "./books.ts";
import { addExitCommands } from "./closings.ts";
import { addDisputeCommands } from "./disputes.ts";
import { addIntentCommands } from "./intents.ts";
import { addProveCommand } from "./prove.ts";
import { address, amount, between, commonOptions, moment, readConfigFile, serviceOptions } from "./options.ts";
import { addPlanCommand } from "./plan.ts";
import { EXIT, fail, type Output } from "./report.ts";
import { Session, type SessionOptions } from "./session.ts";
import { expectOnlyChains, serveChains } from "./serve-chains.ts";
import { addWatchCommands } from "./watch.ts";

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
  const tracing = await startTracing();
  try {
    await program.parseAsync([...argv], { from: "user" });
    return EXIT.done;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    return fail(output, error);
  } finally {
    await tracing?.stop();
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
    .option("--json", "print results and errors as JSON")
    .addHelpText(
      "after",
      "\nKeys are encrypted with BURSAR_PASSWORD; only a local chain may go without.\nExit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 chain or key not available.",
    )
    .hook("preAction", (_program, action) => {
      const { config } = program.opts<{ config?: string }>();
      if (config === undefined) return;
      try {
        readConfigFile(config, [program, action]);
      } catch (error) {
        if (!(error instanceof InvalidArgumentError)) throw error;
        program.error(`error: ${error.message}`);
      }
    });
  for (const option of commonOptions()) program.addOption(option);

  const within =
    <A extends unknown[]>(work: (session: Session, ...args: A) => Promise<void>) =>
    async (...args: A) => {
      const session = await Session.open(sessionOptions(program));
      try {
        await work(session, ...args);
      } finally {
        await session.close();
      }
    };

  program
    .command("deploy")
    .description("deploy or complete the contracts, then validate them")
    .action(within((session) => commands.deployRail(session, output)));

  program
    .command("deposit")
    .argument("<amount>", "such as 12.50", amount)
    .description("deposit tokens of the owner into the escrow, such as 12.50; a local chain mints them")
    .option("--token <symbol or address>", "which token")
    .action(
      within((session, units: bigint, { token }: { token?: string }) =>
        commands.deposit(session, output, units, token),
      ),
    );

  addBondCommands(program, { output, within });
  addDisputeCommands(program, { output, within });
  addArbiterCommands(program, { output, within });

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
    .command("approve <address>")
    .description("vouch for the profile that a payee applied with")
    .action(within((session, payee: string) => commands.approvePayee(session, output, parseAddress(payee))));
  payee
    .command("list")
    .description("list them, and who waits to be approved")
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
    .option("--holdback <seconds>", "payments wait so long in holds, where they can be disputed", between(0, 604_800))
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

  addExitCommands(program, mandate, { output, within });
  addIntentCommands(program, { output, within, confirm: confirm(output) });

  program
    .command("pay")
    .argument("<agent>", "who pays", address)
    .argument("<payee>", "who is paid", address)
    .argument("<amount>", "such as 0.25", amount)
    .description("sign the agent's next payment and have it accepted; the same command again resends an unanswered one")
    .option("--ref <bytes32>", "what is bought, as a hash")
    .option("--url <url>", "what is bought, as a request (GET unless --method)")
    .option("--method <method>", "of that request", "GET")
    .option("--memo <text>", "what is bought, as a text that is hashed")
    .option("--processor-url <url>", "send it over HTTP instead of to this machine's database")
    .action(
      within((session, agent: Address, to: Address, units: bigint, purchase: commands.Purchase) =>
        commands.pay(session, output, agent, to, units, purchase),
      ),
    );

  addPlanCommand(program, { output, within });
  program
    .command("batch")
    .description("plan and prove the next batch")
    .action(within((session) => commands.batch(session, output)));
  program
    .command("settle")
    .description("bring every unfinished batch to its end on chain; resumes after a crash")
    .action(within((session) => commands.settle(session, output)));
  addProveCommand(program, { output, within });
  addAnswerCommand(program, { output, within });
  addBookCommands(program, { output, within, confirm: confirm(output) });
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
    .option("--owner <address>", "only mandates of this owner", address)
    .option("--payee <address>", "only this payee", address)
    .addOption(new Option("--kind <kind>", "only these").choices(["accepted", "refused"]))
    .addOption(
      new Option("--status <status>", "only this status").choices([
        "accepted",
        "batched",
        "proving",
        "submitted",
        "settled",
        "claimable",
        "failed",
        "refused",
      ]),
    )
    .addOption(new Option("--rail <rail>", "only this rail").choices(["proved", "exact", "aep2"]))
    .option("--since <time>", "from then on, such as 2026-11-23", moment)
    .option("--until <time>", "up to then", moment)
    .option("--before <position>", "older than this position", between(1, Number.MAX_SAFE_INTEGER))
    .option("--limit <number>", "at most so many", between(1, 100_000), 100)
    .option("--csv", "all that match, as CSV")
    .action(
      within((session, { csv = false, ...filter }: LedgerFilter & { csv?: boolean }) =>
        commands.ledger(session, output, filter, csv),
      ),
    );
  const key = program.command("key").description("API keys: who may read the ledger over HTTP");
  key
    .command("create <name>")
    .description("make a key and show it, once")
    .option("--account <address>", "for what concerns one owner, agent or payee; everything without it", address)
    .action(
      within((session, name: string, { account }: { account?: Address }) =>
        commands.createKey(session, output, name, account ?? "operator"),
      ),
    );
  key
    .command("list")
    .description("list them; the keys themselves are not kept")
    .action(within((session) => commands.listKeys(session, output)));
  key
    .command("revoke")
    .argument("<id>", "see `bursar key list`", between(1, Number.MAX_SAFE_INTEGER))
    .description("end a key at once")
    .action(within((session, id: number) => commands.revokeKey(session, output, id)));

  const serve = program.command("serve").description("run the service until interrupted: API, metrics, settling");
  for (const option of serviceOptions()) serve.addOption(option);
  const serveOne = within((session, options: commands.ServeOptions) => commands.serve(session, output, options));
  serve.action(async (options: commands.ServeOptions) => {
    if (options.chains === undefined) return serveOne(options);
    expectOnlyChains([program, serve]);
    return serveChains(sessionOptions(program), output, options);
  });

  addWatchCommands(program, { output, within, interrupted: commands.interrupted });

  const config = program.command("config").description("show what `bursar serve` would run with, and where it is said");
  for (const option of serviceOptions()) config.addOption(option);
  config.action(() => commands.showConfig(output, [program, config]));

  return program;
}

function sessionOptions(program: Command): SessionOptions {
  const { settleWithin, ...options } = program.opts<Omit<SessionOptions, "settleWithin"> & { settleWithin: number }>();
  return { ...options, settleWithin: BigInt(settleWithin), password: process.env["BURSAR_PASSWORD"] ?? "" };
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
