import { BursarError, type Hex } from "@bursar/protocol";
import { Prover } from "@bursar/prover";
import { InvalidArgumentError, Option, type Command } from "commander";

import { ProofWorker, type ProofNews } from "../proof-worker.ts";
import { availableCircuits, type Circuit } from "../settler.ts";
import { interrupted } from "./commands.ts";
import { between } from "./options.ts";
import { progress, report, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import type { Session } from "./session.ts";

interface ProveOptions {
  readonly worker?: true;
  readonly retry?: number;
  readonly once?: true;
  readonly concurrency: number;
  readonly circuits?: readonly string[];
}

/** Adds `bursar prove`. */
export function addProveCommand(program: Command, { output, within }: Scene): void {
  program
    .command("prove")
    .description("prove batches that a service has planned, on any machine that reaches its database; takes no key")
    .addOption(new Option("--worker", "take batches, the most urgent first, until interrupted").conflicts("retry"))
    .option("--once", "end when none waits")
    .option("--concurrency <number>", "proofs at once", between(1, 64), 1)
    .option("--circuits <list>", "only of these, with commas; all that the deployment has unless given", names)
    .option("--retry <batch>", "have a batch tried again that was given up", between(1, Number.MAX_SAFE_INTEGER))
    .action(
      within((session, options: ProveOptions, command: Command) => {
        if (options.retry !== undefined) return retry(session, output, options.retry);
        if (options.worker) return work(session, output, options);
        return command.error("error: nothing is asked for; say --worker, or --retry and a batch");
      }),
    );
}

function names(text: string): string[] {
  const list = text.split(",").map((name) => name.trim());
  if (list.every((name) => /^[a-z0-9-]+$/.test(name))) return list;
  throw new InvalidArgumentError(`«${text}» is no list of circuits.`);
}

async function retry(session: Session, output: Output, batch: number): Promise<void> {
  const queue = await session.queue({ watch: false });
  if (!(await queue.retry(batch))) {
    throw new BursarError(
      "malformed-input",
      `Batch ${batch} was not given up.`,
      { value: batch },
      "See `bursar status`.",
    );
  }
  report(output, { batch }, `Batch ${batch} waits to be proved again.`);
}

/** Milliseconds that proofs may take that are under way when the worker is interrupted. */
const PATIENCE = 30_000;

async function work(session: Session, output: Output, options: ProveOptions): Promise<void> {
  const circuits = chosen(session.rail.circuits, options.circuits);
  const [queue, proofs] = [await session.queue(), await session.proofs()];
  const counts = { proved: 0, failed: 0 };
  const told = (news: ProofNews): void => {
    if (news.kind === "proved" || news.kind === "failed") ++counts[news.kind];
    tell(output, news);
  };
  const provers = Array.from({ length: options.concurrency }, () => new Prover());
  const workers = provers.map((prover) => new ProofWorker({ queue, proofs, prover, circuits, told }));
  progress(output, `proving batches of ${circuits.map(({ size }) => size.name).join(", ")}`);
  try {
    if (options.once) await Promise.all(workers.map(drain));
    else {
      for (const worker of workers) worker.start();
      await interrupted();
      progress(output, "finishing what was begun; interrupt again to end at once");
      await Promise.all(workers.map((worker) => worker.stop(PATIENCE)));
    }
  } finally {
    for (const prover of provers) prover.close();
  }
  report(output, counts, `${counts.proved} batches proved, ${counts.failed} attempts failed.`);
}

async function drain(worker: ProofWorker): Promise<void> {
  while (await worker.next());
}

function chosen(deployed: Readonly<Record<string, Hex>>, wanted: readonly string[] | undefined): Circuit[] {
  const circuits = availableCircuits(deployed);
  const unknown = wanted?.find((name) => !(name in deployed));
  if (unknown === undefined) return circuits.filter(({ size }) => wanted?.includes(size.name) ?? true);
  const limit = Object.keys(deployed).join(" ");
  throw new BursarError("malformed-input", `The deployment has no circuit «${unknown}».`, { value: unknown, limit });
}

/** One line for each step: of JSON, or for a person. */
function tell(output: Output, { kind, ...news }: ProofNews): void {
  const { error, ...about } = { error: undefined, ...news };
  const why = error === undefined ? {} : { code: (error as { code?: unknown }).code, reason: error.message };
  if (output.json) output.err(JSON.stringify({ proof: kind, ...about, ...why }));
  else {
    const parts = Object.entries({ ...about, ...why }).map(([name, value]) => `${name} ${String(value)}`);
    progress(output, `${kind}: ${parts.join(", ")}`);
  }
}
