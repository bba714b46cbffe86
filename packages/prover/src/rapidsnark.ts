import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { BursarError } from "@bursar/protocol";

import type { Backend } from "./backend.ts";
import { messageOf } from "./witness.ts";

/** Characters that are kept of what the program says. */
const MAX_WORDS = 500;

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
      return { proof: await this.#read(proof), publicSignals: await this.#read(signals) };
    } finally {
      await Promise.all(files.map((file) => rm(file, { force: true })));
    }
  }

  async #run(files: readonly string[]): Promise<void> {
    // A group of its own, so that an interrupt from the terminal leaves it to finish, and it ends with all that it started.
    const child = spawn(this.#program, files, {
      detached: true,
      env: publicEnvironment(),
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#running = child;
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said = `${said}${text}`.slice(-MAX_WORDS)));
    try {
      const [code, signal] = (await once(child, "close")) as [number | null, string | null];
      if (code !== 0) throw this.#failure(`ended (${signal ?? code}) without a proof: ${said.trim()}`);
    } catch (error) {
      if (error instanceof BursarError) throw error;
      const program = this.#program;
      throw new BursarError("prover-missing", `${program} cannot be started: ${messageOf(error)}`, { value: program });
    } finally {
      this.#running = undefined;
    }
  }

  async #read(path: string): Promise<unknown> {
    try {
      return JSON.parse(await readFile(path, "utf8"));
    } catch (error) {
      throw this.#failure(`wrote nothing that can be read: ${messageOf(error)}`);
    }
  }

  #failure(what: string): BursarError {
    const advice = "Check the memory and the program; the proof can be tried again.";
    return new BursarError("prover-failed", `rapidsnark ${what}`, { value: this.#program }, advice);
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

/** The program proves; it has no need of the processor's passwords. */
function publicEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("BURSAR_")));
}
