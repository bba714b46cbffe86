import type { Address } from "@bursar/protocol";
import { InvalidArgumentError, Option, type Command } from "commander";
import { formatEther, parseEther } from "ethers";

import { account, sent } from "./disputes.ts";
import { address } from "./options.ts";
import { report, table, time, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import type { Session } from "./session.ts";

interface As {
  as: string;
}

/** What an arbiter may say, by its number. */
const RULINGS = ["none", "payee", "owner"] as const;
const STATES = ["waiting", "appealable", "solved"] as const;

const coins = (text: string): bigint => {
  try {
    const wei = parseEther(text);
    if (wei > 0n) return wei;
  } catch {
    // told below
  }
  throw new InvalidArgumentError(`«${text}» is no amount of the chain's coin, such as 0.1.`);
};
const whole = (text: string): bigint => {
  if (/^[1-9]\d{0,18}$/.test(text)) return BigInt(text);
  throw new InvalidArgumentError(`«${text}» is no whole number from 1.`);
};
const by = (): Option => new Option("--as <key>", "whose key acts, by its name here").default("arbiter");

/** Adds `bursar arbiter …`: what the arbiters of the deployment do. */
export function addArbiterCommands(program: Command, { output, within }: Scene): void {
  const arbiter = program
    .command("arbiter")
    .description("who decides disputes that no rule ends: bonds, cases, rulings");
  arbiter
    .command("bond")
    .argument("<amount>", "of the chain's coin, such as 0.1", coins)
    .description("add to the arbiter's bond, and take back its notice")
    .addOption(by())
    .action(
      within(async (session, value: bigint, { as }: As) => {
        const contract = session.chain.arbiter.connect(await account(session, as));
        await sent(session, contract.postBond({ value }));
        await show(session, output, { as });
      }),
    );
  const simple = (name: string, description: string, call: "giveNotice" | "takeBond"): void => {
    arbiter
      .command(name)
      .description(description)
      .addOption(by())
      .action(
        within(async (session, { as }: As) => {
          await sent(session, session.chain.arbiter.connect(await account(session, as))[call]());
          await show(session, output, { as });
        }),
      );
  };
  simple("notice", "take no new cases; the bond can be taken after seven days", "giveNotice");
  simple("unbond", "take the bond out after the notice, with no case open", "takeBond");
  arbiter
    .command("withdraw")
    .argument("<to>", "who gets the coins", address)
    .description("take what the key is owed: fees, missed stakes, an unbonded bond")
    .addOption(by())
    .action(
      within(async (session, to: Address, { as }: As) => {
        await sent(session, session.chain.arbiter.connect(await account(session, as)).withdraw(to));
        await show(session, output, { as });
      }),
    );
  arbiter
    .command("show")
    .argument("[arbiter]", "another one than --as", address)
    .description("bond, open cases, what is owed")
    .addOption(by())
    .action(within((session, other: Address | undefined, { as }: As) => show(session, output, { as, other })));
  addCaseCommands(arbiter, { output, within });
}

function addCaseCommands(arbiter: Command, { output, within }: Scene): void {
  arbiter
    .command("cases")
    .description("cases, newest first, each with its dispute")
    .option("--open", "only those that wait for a ruling")
    .action(within((session, { open = false }: { open?: boolean }) => cases(session, output, open)));
  arbiter
    .command("rule")
    .argument("<case>", "its number, see `bursar arbiter cases`", whole)
    .argument("<for>", "payee, owner or none", (text) => {
      const ruling = (RULINGS as readonly string[]).indexOf(text);
      if (ruling >= 0) return BigInt(ruling);
      throw new InvalidArgumentError(`«${text}» is none of ${RULINGS.join(", ")}.`);
    })
    .description("give the ruling: it pays the payee or refunds the owner, and earns the fee")
    .addOption(by())
    .action(
      within(async (session, id: bigint, ruling: bigint, { as }: As) => {
        const one = await session.chain.arbiter.caseOf(id);
        const contract = session.chain.arbiter.connect(await account(session, as));
        if (!(one.status === 2n && one.ruling === ruling)) await sent(session, contract.giveRuling(id, ruling));
        await showCase(session, output, id);
      }),
    );
  for (const [name, description] of [
    ["expire", "end a case whose arbiter is late: fee and stake go to who escalated; anyone may"],
    ["deliver", "give a ruling to its dispute again, should it not have taken it; anyone may"],
  ] as const) {
    arbiter
      .command(name)
      .argument("<case>", "its number", whole)
      .description(description)
      .action(
        within(async (session, id: bigint) => {
          await sent(session, session.chain.arbiter.connect(await session.account("sweeper"))[name](id));
          await showCase(session, output, id);
        }),
      );
  }
}

async function show(session: Session, output: Output, { as, other }: { as: string; other?: Address | undefined }) {
  const { arbiter } = session.chain;
  const who = other ?? ((await session.keys.load(as)).address as Address);
  const [state, owed, stake, fee] = await Promise.all([
    arbiter.arbiterOf(who),
    arbiter.owedTo(who),
    arbiter.stake(),
    arbiter.fee(),
  ]);
  const { listed, bond, open, leavesAt } = state;
  report(
    output,
    { arbiter: who, listed, bond, open, leavesAt: leavesAt === 0n ? null : leavesAt, owed, stake, fee },
    table(
      ["arbiter", who],
      [
        ["listed", listed ? "yes" : "no: it cannot rule here"],
        ["bond", `${formatEther(bond)}, ${formatEther(stake)} for each case`],
        ["open cases", String(open)],
        ["fee of a case", formatEther(fee)],
        ["leaves", leavesAt === 0n ? "no notice given" : time(leavesAt)],
        ["owed", formatEther(owed)],
      ],
    ),
  );
}

async function cases(session: Session, output: Output, open: boolean): Promise<void> {
  const found: Awaited<ReturnType<typeof readCase>>[] = [];
  for (let id = await session.chain.arbiter.caseCount(); id > 0n && found.length < 100; id--) {
    const one = await readCase(session, id);
    if (!open || one.state === "waiting") found.push(one);
  }
  const rows = found.map(({ id, dispute, arbiter, state, ruling, deadline }) => [
    String(id),
    String(dispute ?? "of another contract"),
    arbiter,
    state,
    state === "waiting" ? "" : ruling,
    time(deadline),
  ]);
  report(output, found, table(["case", "dispute", "arbiter", "state", "for", "until"], rows));
}

async function showCase(session: Session, output: Output, id: bigint): Promise<void> {
  const one = await readCase(session, id);
  const said = one.state === "waiting" ? "waits" : `is solved, for: ${one.ruling}`;
  report(output, one, `Case ${id} (dispute ${one.dispute ?? "of another contract"}) ${said}.`);
}

async function readCase(session: Session, id: bigint) {
  const { arbiter, disputes } = session.chain;
  const [one, dispute] = await Promise.all([arbiter.caseOf(id), disputes.escalatedOf(id)]);
  return {
    id,
    dispute: dispute === 0n ? null : dispute,
    arbiter: one.arbiter as Address,
    state: STATES[Number(one.status)] ?? "waiting",
    ruling: RULINGS[Number(one.ruling)] ?? "none",
    deadline: one.deadline,
    payer: one.payer as Address,
  };
}
