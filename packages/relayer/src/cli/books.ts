import { readFileSync } from "node:fs";

import { BursarError, decodePaymentHeader, parseWire, type Address, type PaidRequest } from "@bursar/protocol";
import type { Command } from "commander";

import type { Processor } from "../processor.ts";
import type { Completeness } from "../receipt-log.ts";
import { paidSchema } from "./evidence.ts";
import { report, table, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import type { Session } from "./session.ts";

/** Receipts that share a commit. */
const AT_ONCE = 64;

interface Confirmed extends Scene {
  readonly confirm: (question: string) => Promise<boolean>;
}

/** Adds `bursar receipts` and `bursar books`. */
export function addBookCommands(program: Command, { output, within, confirm }: Confirmed): void {
  const receipts = program.command("receipts").description("receipts that this processor gave");
  receipts
    .command("restore <file...>")
    .description("take back what restored books have lost: payments with receipts, as agents and payees keep them")
    .action(within((session, files: string[]) => restoreReceipts(session, output, files)));

  const books = program.command("books").description("whether the books hold every receipt that was given");
  books
    .command("check")
    .description("hold them against what this machine has told and against the chain, as `bursar serve` does at start")
    .action(within((session) => checkBooks(session, output)));
  books
    .command("accept-loss")
    .description("sign again although receipts are missing: the bond answers for each of them")
    .option("--yes", "do it without asking")
    .action(
      within((session, { yes = false }: { yes?: boolean }) =>
        acceptLoss(session, output, yes ? () => Promise.resolve(true) : confirm),
      ),
    );
}

async function restoreReceipts(session: Session, output: Output, files: readonly string[]): Promise<void> {
  const processor = await session.processor();
  await processor.reconcile();
  const byAgent = Map.groupBy(files.flatMap(receiptsIn), ({ payment }) => payment.agent);
  const failed: { agent: Address; reason: string }[] = [];
  let taken = 0;
  for (const [agent, paid] of byAgent) {
    try {
      taken += await takeBack(processor, paid);
    } catch (error) {
      if (!(error instanceof BursarError) || error.code === "store-unavailable") throw error;
      failed.push({ agent, reason: `${error.code}: ${error.message}` });
    }
  }
  const completeness = await processor.completeness();
  report(
    output,
    { taken, failed, ...completeness },
    [
      `${taken} receipts are in the books. ${describe(completeness)}`,
      ...(failed.length === 0
        ? []
        : [
            table(
              ["agent", "not taken"],
              failed.map(({ agent, reason }) => [agent, reason]),
            ),
          ]),
    ].join("\n"),
  );
}

async function takeBack(processor: Processor, paid: readonly PaidRequest[]): Promise<number> {
  const ordered = [...paid].sort((a, b) => Number(a.payment.payment.seq - b.payment.payment.seq));
  for (let from = 0; from < ordered.length; from += AT_ONCE) {
    await processor.takeBack(ordered.slice(from, from + AT_ONCE));
  }
  return ordered.length;
}

async function checkBooks(session: Session, output: Output): Promise<void> {
  const processor = await session.processor();
  await processor.reconcile();
  const completeness = await processor.completeness();
  report(output, completeness, describe(completeness));
}

/** @throws BursarError `malformed-input` when nobody confirms. */
async function acceptLoss(
  session: Session,
  output: Output,
  confirm: (question: string) => Promise<boolean>,
): Promise<void> {
  const processor = await session.processor();
  await processor.reconcile();
  const { missing } = await processor.completeness();
  if (missing > 0) {
    if (!output.json) output.err(warning(missing));
    if (!(await confirm(`Give up ${missing} receipts?`))) {
      throw new BursarError("malformed-input", "Nothing was given up.", { value: missing });
    }
  }
  const lost = await processor.acceptLoss();
  report(output, { lost }, lost === 0 ? "No receipt is missing." : `${lost} receipts are given up, for good.`);
}

const warning = (missing: number): string =>
  [
    `${missing} payments with your receipt are in no book of yours. If you go on without them`,
    "  - they are not settled: whoever holds a receipt claims it, and each that is late costs a penalty out of the bond;",
    "  - their numbers are signed again: two receipts on one number are fraud, and anyone who holds both slashes the bond.",
    "Ask the agents and payees of the time after the backup first: `bursar receipts restore`.",
  ].join("\n");

function describe({ promised, missing }: Completeness): string {
  if (missing === 0) return `The books are whole: ${promised} receipts were given, and none is missing.`;
  return `${missing} of ${promised} receipts are missing: nothing is signed before they are back.`;
}

/** One payment as JSON, a line of JSON or a payment header for each, or a list. @throws BursarError `malformed-input` */
function receiptsIn(path: string): PaidRequest[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new BursarError("malformed-input", `${path} cannot be read: ${(error as Error).message}`, { value: path });
  }
  const whole = jsonOf(text);
  if (whole !== undefined) return [whole].flat().map((one) => parseWire(paidSchema, one));
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return lines.map((line) => {
    const json = jsonOf(line);
    return json === undefined ? decodePaymentHeader(line.trim()) : parseWire(paidSchema, json);
  });
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
