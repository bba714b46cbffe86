import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as setTimeoutPromise } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { BursarError, type Hex } from "@bursar/protocol";
import type { VerificationKey } from "snarkjs";

import { chooseBackend, type BackendChoice } from "./backend.ts";
import { keyFolder, openCircuit, type BuiltCircuit } from "./build.ts";
import type { CircuitSize } from "./circuits.ts";
import type { InclusionStatement } from "./inclusion.ts";
import type { Statement } from "./statement.ts";
import { circuitIdOf } from "./verifier.ts";
import type { Proved } from "./verify.ts";

/** A proof as the contract takes it. */
export interface Proof {
  /** Names the verification key. */
  readonly circuitId: Hex;
  /** a (x, y), b (x1, x0, y1, y0), c (x, y). */
  readonly proof: readonly bigint[];
  readonly signals: { readonly T: bigint; readonly C: bigint; readonly z: bigint };
}

/** What proving needs of a batch's statement: it can be sent anywhere, but tells who paid whom. */
export type ProvableStatement = Pick<Statement, "input" | "commitment">;

/** What the worker is asked. */
export interface Job {
  readonly input: object;
  readonly wasm: string;
  readonly zkey: string;
  readonly verificationKey: VerificationKey;
}

/** What the worker answers: a proof that verifies, or the parts of the error. */
export type Answer =
  Proved | { refused: Pick<BursarError, "code" | "message" | "details"> & { advice: string | undefined } };

export interface ProverOptions {
  /** What BURSAR_PROVER and BURSAR_RAPIDSNARK say, unless given. */
  readonly backend?: BackendChoice;
  /** Seconds after which a proof that has not come is given up; BURSAR_PROVE_WITHIN, or 600, unless given. */
  readonly within?: number;
}

/**
 * Proves one statement after another in a process of its own, so that payments are accepted meanwhile and a prover that
 * runs out of memory takes nothing with it. (snarkjs starts worker threads itself and cannot run in one.) Nothing leaves
 * it that its own verification key does not accept, whichever backend made it.
 */
export class Prover {
  #worker: ChildProcess | undefined;
  #last: Promise<unknown> = Promise.resolve();
  readonly #circuits = new Map<string, Promise<BuiltCircuit>>();
  readonly #open: (size: CircuitSize) => Promise<BuiltCircuit>;
  readonly #options: ProverOptions;

  /** @param open - finds the files of a circuit; below BURSAR_KEYS, or in the development build, unless given. */
  constructor(
    open = (size: CircuitSize): Promise<BuiltCircuit> => openCircuit(size, keyFolder(size, process.env["BURSAR_KEYS"])),
    options: ProverOptions = {},
  ) {
    this.#open = open;
    this.#options = options;
  }

  /**
   * Proves that `statement` holds at the challenge.
   * @throws BursarError `key-missing`, `key-corrupt`; `proof-invalid` for a statement that does not hold or a proof that does
   * not verify; `prover-missing`, and `prover-failed` for what may go well the next time.
   */
  prove(size: CircuitSize, statement: ProvableStatement, challenge: bigint): Promise<Proof> {
    return this.#next(() => this.#prove(size, statement, challenge));
  }

  /**
   * Proves that a line is in what was settled.
   * @throws BursarError `key-missing`, `key-corrupt`; `proof-invalid` for a statement that does not hold or a proof that does
   * not verify; `prover-missing`, and `prover-failed` for what may go well the next time.
   */
  proveInclusion(size: CircuitSize, statement: InclusionStatement): Promise<Omit<Proof, "signals">> {
    return this.#next(async () => {
      const { base, head, line, index } = statement.input;
      const { circuitId, words } = await this.#run(size, statement.input, (signals) =>
        [base, head, line, index].every((value, i) => value === signals[i]),
      );
      return { circuitId, proof: words };
    });
  }

  /**
   * Opens a circuit's files before a proof is needed, and looks for the prover's program.
   * @returns what names its key on chain.
   * @throws BursarError `key-missing`, `key-corrupt`, `prover-missing`, `malformed-input` for what the environment says
   */
  async ready(size: CircuitSize): Promise<Hex> {
    this.#settings();
    return circuitIdOf((await this.#circuit(size)).verificationKey);
  }

  /** One proof at a time. */
  #next<T>(work: () => Promise<T>): Promise<T> {
    const job = this.#last.then(work);
    this.#last = job.catch(() => undefined);
    return job;
  }

  /** Process id of the worker once it runs, for watching its memory. */
  get pid(): number | undefined {
    return this.#worker?.pid;
  }

  /** Ends the worker, with what it runs and its files; a proof under way is given up. */
  close(): void {
    const worker = this.#worker;
    this.#worker = undefined;
    if (!worker?.connected) return;
    worker.disconnect();
    const stuck = setTimeout(() => worker.kill("SIGKILL"), STUCK_AFTER);
    worker.once("exit", () => clearTimeout(stuck));
  }

  async #prove(size: CircuitSize, { input, commitment }: ProvableStatement, challenge: bigint): Promise<Proof> {
    const { circuitId, words, signals } = await this.#run(
      size,
      { ...input, z: challenge },
      ([, C, z]) => C === commitment && z === challenge,
    );
    const [T, C, z] = signals as [bigint, bigint, bigint];
    return { circuitId, proof: words, signals: { T, C, z } };
  }

  /** @param meant - whether the public signals are those of the statement. */
  async #run(size: CircuitSize, input: object, meant: (signals: readonly bigint[]) => boolean) {
    const { wasm, zkey, verificationKey } = await this.#circuit(size);
    const answer = await this.#ask({ input, wasm, zkey, verificationKey });
    if ("refused" in answer) {
      const { code, message, details, advice } = answer.refused;
      throw new BursarError(code, message, details, advice);
    }
    const signals = answer.publicSignals.map(BigInt);
    if (!meant(signals)) {
      throw new BursarError("proof-invalid", `The proof of circuit ${size.name} is of another statement.`, {
        value: signals.join(" "),
      });
    }
    return { circuitId: circuitIdOf(verificationKey), words: wordsOf(answer.proof), signals };
  }

  #circuit(size: CircuitSize): Promise<BuiltCircuit> {
    let opened = this.#circuits.get(size.name);
    if (!opened) {
      opened = this.#open(size);
      this.#circuits.set(size.name, opened);
      opened.catch(() => this.#circuits.delete(size.name));
    }
    return opened;
  }

  /** What the worker answers; it is started where none runs. */
  async #ask(job: Job): Promise<Answer> {
    const { backend, within } = this.#settings();
    const worker = (this.#worker ??= this.#start(backend));
    const over = new AbortController();
    const ended = async (): Promise<never> => {
      const [code, signal] = (await once(worker, "exit", over)) as [number | null, string | null];
      throw failed(`ended (${signal ?? code}) before it answered`);
    };
    const late = async (): Promise<never> => {
      await setTimeoutPromise(within * 1_000, undefined, over);
      this.close();
      throw failed(`did not answer within ${within} s`);
    };
    const unsent = new Promise<never>((_, reject) => {
      worker.send(job, (error) => error && reject(failed(`cannot be asked: ${error.message}`)));
    });
    try {
      const answered = once(worker, "message", over) as Promise<[Answer]>;
      const [answer] = await Promise.race([answered, ended(), late(), unsent]);
      return answer;
    } catch (error) {
      throw error instanceof BursarError ? error : failed(`cannot run: ${String(error)}`);
    } finally {
      over.abort();
    }
  }

  #settings(): Required<ProverOptions> {
    const { backend = chooseBackend(process.env), within = secondsOf(process.env["BURSAR_PROVE_WITHIN"]) } =
      this.#options;
    return { backend, within };
  }

  #start(backend: BackendChoice): ChildProcess {
    const folder = mkdtempSync(join(tmpdir(), "bursar-prover-"));
    const worker = fork(
      fileURLToPath(new URL("./prove-worker.ts", import.meta.url)),
      [folder, JSON.stringify(backend)],
      {
        execArgv: ["--import", import.meta.resolve("tsx")],
        serialization: "advanced",
      },
    );
    const gone = (): void => {
      if (this.#worker === worker) this.#worker = undefined;
      rmSync(folder, { recursive: true, force: true });
    };
    return worker.once("exit", gone).once("error", gone);
  }
}

const failed = (what: string): BursarError =>
  new BursarError("prover-failed", `The prover ${what}.`, {}, "Check the memory; the batch can be proved again.");

/** Milliseconds that an ended worker may go on with a step that cannot be interrupted. */
const STUCK_AFTER = 5_000;

function secondsOf(text = "600"): number {
  const seconds = Number(text);
  if (seconds >= 1 && seconds <= 86_400) return seconds;
  throw new BursarError("malformed-input", "BURSAR_PROVE_WITHIN is not a number of seconds.", {
    value: text,
    limit: "1 to 86400",
  });
}

function wordsOf({ pi_a, pi_b, pi_c }: Proved["proof"]): bigint[] {
  return [pi_a[0], pi_a[1], pi_b[0][1], pi_b[0][0], pi_b[1][1], pi_b[1][0], pi_c[0], pi_c[1]].map(BigInt);
}
