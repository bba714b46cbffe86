import { parseAddress, type Address, type Hex } from "@bursar/protocol";
import { Prover } from "@bursar/prover";
import type { Command } from "commander";

import { Answers } from "../answers.ts";
import { report, table, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import type { Session } from "./session.ts";

interface Unanswered {
  readonly id: Hex;
  readonly agent: Address;
  readonly seq: bigint;
  readonly reason: string;
}

/** Adds `bursar answer`. */
export function addAnswerCommand(program: Command, { output, within }: Scene): void {
  program
    .command("answer")
    .description("answer every open challenge of what was settled, as `bursar serve` does by itself")
    .action(within((session) => answer(session, output)));
}

/** @throws the error of the first challenge that could not be answered, after the report of all. */
async function answer(session: Session, output: Output): Promise<void> {
  const prover = new Prover();
  const unanswered: Unanswered[] = [];
  const errors: Error[] = [];
  try {
    const { address } = await session.keys.loadOrCreate("processor");
    const answers = new Answers({
      store: await session.store(),
      chain: session.chain,
      outbox: await session.outbox(),
      prover,
      settler: await session.settler(prover),
      processor: parseAddress(address),
      failed: (challenge, error) => {
        unanswered.push({ ...challenge, reason: error.message });
        errors.push(error);
      },
    });
    const answered: Hex[] = [];
    for (let more = await answers.run(); more.length > 0; more = await answers.run()) answered.push(...more);
    report(output, { answered, unanswered }, describe(answered, unanswered));
  } finally {
    prover.close();
  }
  if (errors[0]) throw errors[0];
}

function describe(answered: readonly Hex[], unanswered: readonly Unanswered[]): string {
  if (answered.length + unanswered.length === 0) return "No challenge is open.";
  const counts = `${answered.length} challenges answered, ${unanswered.length} not`;
  if (unanswered.length === 0) return counts;
  const rows = unanswered.map(({ agent, seq, reason }) => [agent, String(seq), reason]);
  return `${counts}\n${table(["agent", "seq", "why"], rows)}`;
}
