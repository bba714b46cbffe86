import { ERRORS, formatAmount, problem, toWire, BursarError, type Problem } from "@bursar/protocol";

import type { LedgerEntry } from "../records.ts";

/** What a process ends with. */
export const EXIT = { done: 0, refused: 1, usage: 2, unavailable: 3 } as const;

/** Where a command writes: results on one stream, progress and errors on the other. */
export interface Output {
  out: (text: string) => void;
  err: (text: string) => void;
  json: boolean;
}

/** Prints a result: as one line of JSON, or as the text that a person reads. */
export function report(output: Output, value: unknown, text: string): void {
  output.out(output.json ? JSON.stringify(toWire(value)) : text);
}

/** A step of long work, for people only. */
export function progress(output: Output, text: string): void {
  if (!output.json) output.err(`… ${text}`);
}

/** Prints one line, or Problem Details, and gives the exit code. */
export function fail(output: Output, error: unknown): number {
  const details: Problem = problem(error);
  const message = error instanceof BursarError ? error.message : error instanceof Error ? error.message : String(error);
  if (output.json) output.err(JSON.stringify({ ...details, detail: message }));
  else output.err(`bursar: ${details.code}: ${message.split("\n")[0]}${details.advice ? ` ${details.advice}` : ""}`);
  return ERRORS[details.code].status === 503 ? EXIT.unavailable : EXIT.refused;
}

/** Rows under a header, columns as wide as their widest cell. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)));
  return [header, ...rows]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

export const short = (hex: string): string => (hex.length > 14 ? `${hex.slice(0, 8)}…${hex.slice(-4)}` : hex);

export const time = (seconds: bigint): string => new Date(Number(seconds) * 1_000).toISOString().replace(".000Z", "Z");

/** The readable ledger, newest first. `nameOf` names a payee. */
export function ledgerTable(entries: readonly LedgerEntry[], nameOf: (payee: string) => string): string {
  return table(
    ["#", "time", "agent", "seq", "payee", "amount", "status", "batch", "why"],
    entries.map((entry) => [
      String(entry.position),
      time(entry.at),
      short(entry.agent),
      String(entry.seq),
      nameOf(entry.payee),
      formatAmount(entry.amount),
      entry.status,
      entry.batch === null ? "" : String(entry.batch),
      entry.reason ?? "",
    ]),
  );
}
