import { copyFileSync } from "node:fs";

import pg from "pg";

import { ENGINE, storeUrl } from "./databases.ts";

/** Copies books that nobody has open, as an operator's backup does: the file, or the database as a whole. */
export async function copyBooks(from: string, to: string): Promise<void> {
  if (ENGINE === "sqlite") {
    copyFileSync(from, to);
    return;
  }
  const [template, copy] = [new URL(await storeUrl(from)), new URL(await storeUrl(to))];
  const client = new pg.Client(new URL("/postgres", template).href);
  await client.connect();
  try {
    await client.query(`DROP DATABASE ${copy.pathname.slice(1)}`);
    await client.query(`CREATE DATABASE ${copy.pathname.slice(1)} TEMPLATE ${template.pathname.slice(1)}`);
  } finally {
    await client.end();
  }
}
