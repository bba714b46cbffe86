import { Database } from "./database.ts";
import { PostgresEngine, type PostgresOptions } from "./postgres.ts";
import { SqliteEngine } from "./sqlite.ts";

/**
 * Opens the database that a URL names: `postgres://…`, which several processes share, or the path of an SQLite file,
 * created if missing; `:memory:` for one that is not kept.
 */
export function openDatabase(url: string, options: PostgresOptions = {}): Database {
  return new Database(/^postgres(ql)?:\/\//.test(url) ? new PostgresEngine(url, options) : new SqliteEngine(url));
}
