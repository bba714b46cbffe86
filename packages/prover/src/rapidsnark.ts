import { execFile, type ChildProcess, type PromiseWithChild } from "node:child_process";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

import { BursarError } from "@bursar/protocol";

import type { Backend } from "./backend.ts";
import { messageOf } from "./witness.ts";

/** Bytes that the program may say. */
const MAX_OUTPUT = 1 << 20;

/**
 * rapidsnark, or what speaks its command line: `program circuit.zkey witness.wtns proof.json public.json`. It ends with this
 * process at the latest, and no file outlives its proof.
 */
export class Rapidsnark implements Backend {
  readonly #program: string;
  readonly #folder: string;
  #running: ChildProcess | undefined;

  /** @param folder - for the files of one proof at a time, readable by nobody else: a witness tells who paid whom. */
  constructor(program: string, folder: string) {
    this.#program = program;
    this.#folder = folder;
    process.on("exit", () => this.#kill());
  }

  async prove(zkey: string, witness: Uint8Array): Promise<unknown> {
    const files = ["witness.wtns", "proof.json", "public.json"].map((name) => join(this.#folder, name));
    const [wtns, proof, signals] = files as [string, string, string];
    try {
      await writeFile(wtns, witness, { mode: 0o600 });
      await this.#run([zkey, ...files]);
      return { proof: await readJson(proof), publicSignals: await readJson(signals) };
    } finally {
      await Promise.all(files.map((file) => rm(file, { force: true })));
    }
  }

  async #run(files: readonly string[]): Promise<void> {
    // A group of its own, so that an interrupt from the terminal leaves it to finish, and it ends with all that it started.
    const options = { detached: true, maxBuffer: MAX_OUTPUT, killSignal: "SIGKILL", env: publicEnvironment() } as const;
    const run = promisify(execFile)(this.#program, files, options) as PromiseWithChild<unknown>;
    this.#running = run.child;
    try {
      await run;
    } catch (error) {
      throw this.#failure(error as ExecError);
    } finally {
      this.#running = undefined;
    }
  }

  #failure({ code, signal, stderr, message }: ExecError): BursarError {
    const program = this.#program;
    if (code === "ENOENT" || code === "EACCES" || code === "ENOEXEC") {
      return new BursarError("prover-missing", `${program} cannot be started: ${code}.`, { value: program });
    }
    const said = (stderr ?? "").trim().slice(-500) || message.slice(0, 500);
    return new BursarError(
      "prover-failed",
      `rapidsnark ended (${signal ?? code}) without a proof: ${said}`,
      { value: program },
      "Check the memory and the program; the proof can be tried again.",
    );
  }

  /** Ends the program, if it runs, and everything in its group. */
  #kill(): void {
    const pid = this.#running?.pid;
    if (pid === undefined) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // It has ended.
    }
  }
}

interface ExecError extends Error {
  /** Exit code, or what the system said. */
  readonly code: number | string | null;
  readonly signal?: string | null;
  readonly stderr?: string;
}

/** The program proves; it has no need of the processor's passwords. */
function publicEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("BURSAR_")));
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    throw new BursarError("prover-failed", `rapidsnark wrote nothing that can be read: ${messageOf(error)}`);
  }
}
