import { createHash } from "node:crypto";

import { createDatabase, startPostgres, type LocalPostgres } from "../../scripts/load/postgres.ts";

/** The suite runs on this engine: `sqlite`, or `postgres` where BURSAR_TEST_STORE says so. */
export const ENGINE = process.env["BURSAR_TEST_STORE"] === "postgres" ? "postgres" : "sqlite";

/** Of the server that this process or one above it has started. */
const SERVER = "BURSAR_TEST_POSTGRES";

let starting: Promise<LocalPostgres> | undefined;

/**
 * Where books stand in this run: the SQLite file `path` itself, or the PostgreSQL database that stands for it, on a server
 * that is started with the first and ends with the process. One path is always one database; `:memory:` a fresh one.
 */
export async function storeUrl(path: string): Promise<string> {
  return ENGINE === "sqlite" ? path : postgresUrl(path);
}

let fresh = 0;

/** A PostgreSQL database of its own for each path. */
export async function postgresUrl(path: string): Promise<string> {
  const server = process.env[SERVER] ?? (await startShared()).url;
  const key = path === ":memory:" ? `${process.pid} ${++fresh}` : path;
  return createDatabase(server, `books_${createHash("sha256").update(key).digest("hex").slice(0, 24)}`);
}

async function startShared(): Promise<LocalPostgres> {
  const server = await (starting ??= startPostgres());
  process.env[SERVER] = server.url;
  return server;
}

// Within a test file this is mocha's own hook; a process that a test starts has none, and uses that test's server.
if (typeof after === "function") after(async () => (await starting)?.stop());

/** Before mocha's first test: processes that the tests start use the same server. */
export async function mochaGlobalSetup(): Promise<void> {
  if (ENGINE === "postgres") await startShared();
}

export async function mochaGlobalTeardown(): Promise<void> {
  await (await starting)?.stop();
}
