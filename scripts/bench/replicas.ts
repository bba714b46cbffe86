import { fork, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";

import { Store, type Decisions } from "@bursar/relayer";
import { loadPageHash } from "@bursar/relayer";
import { hashPayment, type Hex } from "@bursar/protocol";

import type { Outcome } from "../load/generator.ts";
import { Generators } from "../load/generators.ts";
import { createDatabase, startPostgres, type LocalPostgres } from "../load/postgres.ts";
import { usageOf } from "../load/processes.ts";
import { DOMAIN, PAYEE, paymentsOf, recordOf, walletOf } from "./load.ts";

/** What replicas on one PostgreSQL accept; CPU in microseconds a payment. */
export interface ReplicasReport {
  /** Cores that each replica has to itself, or 0 where nothing could be pinned. */
  readonly share: number;
  /** With each agent at one replica, one replica and two. */
  readonly sticky: readonly [Run, Run];
  /** Two replicas, each payment of an agent at another one. */
  readonly roaming: Run;
  /** Payments a second that the books alone take from one writer and from two, each in groups of 64. */
  readonly books: readonly [number, number];
}

export interface Run {
  readonly replicas: number;
  readonly rate: number;
  readonly cpu: { readonly replicas: number; readonly database: number; readonly generator: number };
  /** Cores that the replicas used together, on average. */
  readonly cores: number;
  /** Payments in a commit, and milliseconds that it took. */
  readonly group: number;
  readonly commit: number;
}

const AGENTS = 128;
const GROUP = 64;
/** More than is ever accepted: the generator never waits. */
const ENDLESS = 1_000_000;
const PROGRAM = fileURLToPath(new URL("processor-process.ts", import.meta.url));

/**
 * Measures one replica against two that have as much CPU each. Where there are four cores, a replica has one to itself;
 * where there are two, replicas share one, and a process that only burns takes the half that a single one is not to have.
 * PostgreSQL and the generator have the others.
 */
export async function measureReplicas(payments: number, say: (text: string) => void): Promise<ReplicasReport> {
  const cores = availableParallelism();
  const pinned = cores > 1 && spawnSync("taskset", ["--version"]).status === 0;
  const share = pinned ? (cores >= 4 ? 1 : 0.5) : 0;
  const postgres = await startPostgres();
  const rest = cores >= 4 ? `2-${cores - 1}` : "1";
  if (pinned) spawnSync("taskset", ["-acp", rest, String(postgres.pid)]);
  const measure = (replicas: number, roam: boolean): Promise<Run> => {
    say(`${replicas} of them${roam ? ", roaming" : ""}`);
    return run({ postgres, replicas, roam, payments, share, rest });
  };
  try {
    await measure(1, false);
    const one = await measure(1, false);
    const two = await measure(2, false);
    const roaming = await measure(2, true);
    say("the books alone");
    const books = [await booksAlone(postgres, 1, payments), await booksAlone(postgres, 2, payments)] as const;
    return { share, sticky: [one, two], roaming, books };
  } finally {
    await postgres.stop();
  }
}

let databases = 0;

interface Setting {
  readonly postgres: LocalPostgres;
  readonly replicas: number;
  readonly roam: boolean;
  readonly payments: number;
  readonly share: number;
  readonly rest: string;
}

async function run({ postgres, replicas, roam, payments, share, rest }: Setting): Promise<Run> {
  const url = await createDatabase(postgres.url, `replicas_${++databases}`);
  const started: { child: ChildProcess; url: string }[] = [];
  for (let i = 0; i < replicas; ++i) started.push(await start(url, share === 0 ? null : share === 1 ? i : 0));
  const burner =
    share === 0.5 && replicas === 1
      ? spawn("taskset", ["-c", "0", process.execPath, "-e", "for(;;);"], { stdio: "ignore" })
      : undefined;
  const generators = await Generators.prepare(
    [
      {
        domain: DOMAIN,
        keys: Array.from({ length: AGENTS }, (_, i) => walletOf(i).privateKey as Hex),
        payees: [PAYEE],
        urls: started.map((one) => one.url),
        ...{ roam, payments, rate: ENDLESS, ahead: payments, told: null },
      },
    ],
    share === 0 ? [] : ["taskset", "-c", rest],
  );
  const used = async (): Promise<{ replicas: number; database: number; generator: number }> => {
    const usages = await Promise.all(started.map(({ child }) => usage(child)));
    const server = usageOf(postgres.pid);
    return {
      replicas: usages.reduce((sum, { cpu }) => sum + cpu, 0),
      database: server === undefined ? NaN : (server.own + server.started) * 1e6,
      generator: (usageOf(generators.pids[0]!)?.own ?? NaN) * 1e6,
    };
  };
  const before = await used();
  let generator = before.generator;
  const watching = setInterval(() => (generator = (usageOf(generators.pids[0]!)?.own ?? generator / 1e6) * 1e6), 50);
  const [outcome] = (await generators.run()) as [Outcome];
  clearInterval(watching);
  const after = await used();
  const told = await Promise.all(started.map(({ child }) => usage(child)));
  burner?.kill("SIGKILL");
  for (const { child } of started) {
    child.kill();
    await once(child, "close");
  }
  if (outcome.receipts !== payments) throw new Error(`${payments - outcome.receipts} payments have no receipt`);
  const commits = told.reduce((sum, one) => sum + one.commits, 0);
  return {
    replicas,
    rate: (payments * 1_000) / outcome.lasted,
    cpu: {
      replicas: (after.replicas - before.replicas) / payments,
      database: (after.database - before.database) / payments,
      generator: (generator - before.generator) / payments,
    },
    cores: (after.replicas - before.replicas) / 1e3 / outcome.lasted,
    group: payments / commits,
    commit: told.reduce((sum, one) => sum + one.committing, 0) / commits,
  };
}

async function start(database: string, core: number | null): Promise<{ child: ChildProcess; url: string }> {
  const child = fork(PROGRAM, [database, String(AGENTS)], {
    ...(core === null ? {} : { execPath: "taskset" }),
    execArgv: [...(core === null ? [] : ["-c", String(core), process.execPath]), "--import", "tsx"],
  });
  const [{ url }] = (await once(child, "message")) as [{ url: string }];
  return { child, url };
}

interface Used {
  readonly cpu: number;
  readonly commits: number;
  readonly committing: number;
}

async function usage(child: ChildProcess): Promise<Used> {
  child.send("usage");
  const [answer] = (await once(child, "message")) as [Used];
  return answer;
}

/** What the database allows when nothing else is to be done: writers that only lock, number, insert and commit. */
async function booksAlone(postgres: LocalPostgres, writers: number, payments: number): Promise<number> {
  const store = await Store.open(await createDatabase(postgres.url, `replicas_${++databases}`));
  const hashPage = await loadPageHash();
  await store.transact(async () => {
    for (let agent = 0; agent < AGENTS; ++agent) await store.addMandate(recordOf(agent));
  });
  const rounds = Math.ceil(payments / GROUP / writers);
  const queues = Array.from({ length: writers }, (_, writer) => decisionsOf(writer, rounds, hashPage));
  const began = performance.now();
  await Promise.all(
    queues.map(async (queue) => {
      for (const decisions of queue) {
        await store.transact(async () => {
          await store.lockMandates(decisions.payments.map(({ agent }) => agent));
          await store.record(decisions);
        });
      }
    }),
  );
  const seconds = (performance.now() - began) / 1_000;
  await store.close();
  return (rounds * GROUP * writers) / seconds;
}

function decisionsOf(writer: number, rounds: number, hashPage: Awaited<ReturnType<typeof loadPageHash>>): Decisions[] {
  const signers = Array.from({ length: GROUP }, (_, i) => paymentsOf(writer * GROUP + i, hashPage));
  return Array.from({ length: rounds }, () => ({
    ...{ holds: [], directs: [], refusals: [] },
    payments: signers.map((signer) => {
      const { agent, payment, signature, salt } = signer.next().value;
      const digest = hashPayment(DOMAIN, payment);
      return { agent, payment, signature, salt, digest, acceptedAt: 0n, settleBy: 3_600n };
    }),
  }));
}
