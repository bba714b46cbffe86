import { BursarError, formatAmount, parseAddress, type Address, type Hex } from "@bursar/protocol";
import type { Command } from "commander";
import type { ContractTransactionResponse } from "ethers";

import { TestUSD__factory } from "../../../../typechain-types/index.ts";
import { mined, postBond, register, standingOf, type Standing } from "../bonding.ts";
import { address, amount } from "./options.ts";
import { report, table, time, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import type { Session } from "./session.ts";

interface BondOptions {
  token?: string;
  uri?: string;
}

/** Adds `bursar bond post|show|leave|stay|withdraw`. */
export function addBondCommands(program: Command, { output, within }: Scene): void {
  const bond = program.command("bond").description("this machine's processor on chain: its registration and its bond");
  const token = ["--token <symbol or address>", "which token"] as const;

  bond
    .command("post")
    .argument("<amount>", "such as 10000", amount)
    .description("register the processor if it is new, and add to its bond; a local chain mints the tokens")
    .option("--uri <url>", "where it serves, told to everyone", "http://127.0.0.1:8402")
    .option(...token)
    .action(within((session, units: bigint, options: BondOptions) => post(session, output, units, options)));
  bond
    .command("show")
    .argument("[processor]", "another one than this machine's", address)
    .description("bond, what it stands behind, and when it can leave")
    .option(...token)
    .action(
      within((session, processor: Address | undefined, options: BondOptions) =>
        show(session, output, processor, options),
      ),
    );
  bond
    .command("leave")
    .description("take no new mandates, and begin the time after which the bond can be taken out")
    .option(...token)
    .action(within((session, options: BondOptions) => change(session, output, "requestUnbonding", options)));
  bond
    .command("stay")
    .description("take `bond leave` back")
    .option(...token)
    .action(within((session, options: BondOptions) => change(session, output, "cancelUnbonding", options)));
  bond
    .command("withdraw")
    .argument("<to>", "whose credit in the escrow it becomes", address)
    .description("take the bond out once it stands behind nothing any more")
    .option(...token)
    .action(within((session, to: Address, options: BondOptions) => withdraw(session, output, to, options)));
}

async function post(session: Session, output: Output, units: bigint, options: BondOptions): Promise<void> {
  const { chain, local } = session;
  const token = session.token(options.token);
  const signer = await session.sender("processor");
  const processor = (await signer.getAddress()) as Address;
  await register(chain, signer, options.uri ?? "");
  if (local) {
    const amount = units * (await chain.escrow.unitScale(token));
    await mined(TestUSD__factory.connect(token, signer).mint(processor, amount));
  }
  await postBond(chain, signer, { processor, token, units });
  await show(session, output, processor, options);
}

async function show(session: Session, output: Output, other: Address | undefined, options: BondOptions): Promise<void> {
  const token = session.token(options.token);
  const processor = other ?? parseAddress((await session.keys.loadOrCreate("processor")).address);
  const standing = await standingOf(session.chain, processor, token);
  report(output, standing, describe(standing, await session.chain.escrow.unitScale(token)));
}

async function change(
  session: Session,
  output: Output,
  call: "requestUnbonding" | "cancelUnbonding",
  options: BondOptions,
): Promise<void> {
  const signer = await session.sender("processor");
  await explained(session, session.chain.processors.connect(signer)[call]());
  await show(session, output, undefined, options);
}

async function withdraw(session: Session, output: Output, to: Address, options: BondOptions): Promise<void> {
  const signer = await session.sender("processor");
  const token = session.token(options.token);
  await explained(session, session.chain.processors.connect(signer).withdrawBond(token, to));
  await show(session, output, undefined, options);
}

/**
 * Waits for a transaction.
 * @returns its hash.
 * @throws BursarError `transaction-failed` with the contract's own error.
 */
export async function explained(session: Session, sent: Promise<ContractTransactionResponse>): Promise<Hex> {
  try {
    return (await (await sent).wait())?.hash as Hex;
  } catch (error) {
    const reason = session.chain.explain(error);
    throw new BursarError("transaction-failed", `The contract refuses: ${reason}`, { value: reason });
  }
}

function describe(standing: Standing, unitScale: bigint): string {
  const money = (base: bigint): string => formatAmount(base / unitScale);
  const { processor, registered, uri, slashed, bond, floor, covered, capacity, withdrawableAt } = standing;
  return table(
    ["what", "is"],
    [
      ["processor", processor],
      ["registered", registered ? `yes, at ${uri}` : "no: `bursar bond post` does it"],
      ["bond", `${money(bond)} of at least ${money(floor)}${slashed ? ", SLASHED" : ""}`],
      ["stands behind", `${money(covered)} of at most ${money(capacity)}`],
      ["can leave", withdrawableAt === null ? "not asked: `bursar bond leave`" : time(withdrawableAt)],
    ],
  );
}
