import { formatAmount } from "@bursar/protocol";

import type { LedgerEntry } from "./records.ts";

const COLUMNS: readonly [name: string, value: (entry: LedgerEntry) => string | number | bigint | null][] = [
  ["position", ({ position }) => position],
  ["time", ({ at }) => new Date(Number(at) * 1_000).toISOString()],
  ["kind", ({ kind }) => kind],
  ["status", ({ status }) => status],
  ["rail", ({ rail }) => rail],
  ["owner", ({ owner }) => owner],
  ["agent", ({ agent }) => agent],
  ["purpose", ({ purpose }) => purpose],
  ["seq", ({ seq }) => seq],
  ["payee", ({ payee }) => payee],
  ["amount", ({ amount }) => formatAmount(amount)],
  ["ref", ({ ref }) => ref],
  ["code", ({ code }) => code],
  ["reason", ({ reason }) => reason],
  ["advice", ({ advice }) => advice],
  ["batch", ({ batch }) => batch],
  ["transaction", ({ transaction }) => transaction],
];

/**
 * A ledger as CSV (RFC 4180), a page at a time. Texts that a spreadsheet would run as a formula begin with `'`.
 *
 * @param page - entries before a position, newest first; an empty page is the end.
 */
export async function* csvLines(
  page: (before?: number) => Promise<readonly LedgerEntry[]>,
): AsyncGenerator<string, void, undefined> {
  yield `${COLUMNS.map(([name]) => name).join(",")}\r\n`;
  for (let entries = await page(); entries.length > 0; entries = await page(entries.at(-1)!.position)) {
    for (const entry of entries) yield `${COLUMNS.map(([, value]) => field(value(entry))).join(",")}\r\n`;
  }
}

function field(value: string | number | bigint | null): string {
  if (typeof value !== "string") return value === null ? "" : String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
