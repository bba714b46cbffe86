import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { ROOT } from "@bursar/prover";

const require = createRequire(import.meta.url);
const solc = require("solc") as {
  compile: (input: string, callbacks: { import: (path: string) => { contents: string } | { error: string } }) => string;
};

interface Output {
  errors?: { severity: string; formattedMessage: string }[];
  sources?: Record<string, { ast: unknown }>;
  contracts?: Record<string, Record<string, { evm: { bytecode: { object: string } } }>>;
}

/** Thrown where a source is refused, as a mutant may be that is none. */
export class DoesNotCompile extends Error {}

/** A source of this project by its path, or one of a package. */
export function sourceOf(path: string): string {
  const own = join(ROOT, path);
  return readFileSync(existsSync(own) ? own : join(ROOT, "node_modules", path), "utf8");
}

export const treeOf = (file: string): unknown =>
  run({ [file]: sourceOf(file) }, { [file]: { "": ["ast"] } }).sources![file]!.ast;

/** Creation code of each of `builds`, with one source replaced. It is compiled the fast way. */
export function creationCodes(builds: readonly string[], changed: Record<string, string>): Map<string, string> {
  const places = builds.map((build) => build.split(":") as [file: string, name: string]);
  const sources = { ...Object.fromEntries(places.map(([file]) => [file, sourceOf(file)])), ...changed };
  const selection: Record<string, Record<string, string[]>> = {};
  for (const [file, name] of places) selection[file] = { ...selection[file], [name]: ["evm.bytecode.object"] };
  const { contracts } = run(sources, selection);
  return new Map(places.map(([file, name]) => [name, `0x${contracts![file]![name]!.evm.bytecode.object}`]));
}

/** No step of the optimizer runs on the code as a whole; what is left costs no time and makes it a third smaller. */
const FAST = { enabled: true, runs: 1, details: { yul: true, yulDetails: { optimizerSteps: "" } } };

function run(sources: Record<string, string>, outputSelection: object): Output {
  const input = {
    language: "Solidity",
    sources: Object.fromEntries(Object.entries(sources).map(([file, content]) => [file, { content }])),
    settings: { evmVersion: "cancun", viaIR: true, optimizer: FAST, outputSelection },
  };
  const find = (path: string): { contents: string } => ({ contents: sources[path] ?? sourceOf(path) });
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: find })) as Output;
  const errors = (output.errors ?? []).filter(({ severity }) => severity === "error");
  if (errors.length > 0) throw new DoesNotCompile(errors.map((each) => each.formattedMessage).join("\n"));
  return output;
}
