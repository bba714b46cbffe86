import { fork, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";

import { BursarError, type Hex } from "@bursar/protocol";
import type { Groth16Proof, VerificationKey } from "snarkjs";

import { keyFolder, openCircuit, type BuiltCircuit } from "./build.ts";
import type { CircuitSize } from "./circuits.ts";
import type { InclusionStatement } from "./inclusion.ts";
import type { Statement } from "./statement.ts";
import { circuitIdOf } from "./verifier.ts";

/** A proof as the contract takes it. */
export interface Proof {
  /** Names the verification key. */
  readonly circuitId: Hex;
  /** a (x, y), b (x1, x0, y1, y0), c (x, y). */
  readonly proof: readonly bigint[];
  readonly signals: { readonly T: bigint; readonly C: bigint; readonly z: bigint };
}

/** What the worker is asked. */
export interface Job {
  readonly input: object;
  readonly wasm: string;
  readonly zkey: string;
  readonly verificationKey: VerificationKey;
}

/** What the worker answers. */
export type Answer = { proof: Groth16Proof; publicSignals: string[]; verified: boolean } | { error: string };

/**
 * Proves one statement after another in a process of its own, so that payments are accepted meanwhile and a prover that
 * runs out of memory takes nothing with it. (snarkjs starts worker threads itself and cannot run in one.) Nothing leaves
 * it that its own verification key does not accept.
 */
export class Prover {
  #worker: ChildProcess | undefined;
  #last: Promise<unknown> = Promise.resolve();
  readonly #circuits = new Map<string, Promise<BuiltCircuit>>();
  readonly #open: (size: CircuitSize) => Promise<BuiltCircuit>;

  /** @param open - finds the files of a circuit; below BURSAR_KEYS, or in the development build, unless given. */
  constructor(
    open = (size: CircuitSize): Promise<BuiltCircuit> => openCircuit(size, keyFolder(size, process.env["BURSAR_KEYS"])),
  ) {
    this.#open = open;
  }

  /**
   * Proves that `statement` holds at the challenge.
   * @throws BursarError `key-missing`, `key-corrupt`, `proof-invalid`
   */
  prove(size: CircuitSize, statement: Statement, challenge: bigint): Promise<Proof> {
    return this.#next(() => this.#prove(size, statement, challenge));
  }

  /**
   * Proves that a line is in what was settled.
   * @throws BursarError `key-missing`, `key-corrupt`, `proof-invalid`
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
   * Opens a circuit's files before a proof is needed.
   * @returns what names its key on chain.
   * @throws BursarError `key-missing`, `key-corrupt`
   */
  async ready(size: CircuitSize): Promise<Hex> {
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

  /** Ends the worker; a proof under way is given up. */
  close(): void {
    this.#worker?.kill("SIGKILL");
    this.#worker = undefined;
  }

  async #prove(size: CircuitSize, { input, commitment }: Statement, challenge: bigint): Promise<Proof> {
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
    if ("error" in answer) throw new BursarError("proof-invalid", `The statement cannot be proved: ${answer.error}`);
    const signals = answer.publicSignals.map(BigInt);
    if (!answer.verified || !meant(signals)) {
      throw new BursarError("proof-invalid", `The proof of circuit ${size.name} does not verify.`, {
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

  #ask(job: Job): Promise<Answer> {
    const worker = (this.#worker ??= startWorker());
    return new Promise<Answer>((resolve, reject) => {
      const onMessage = (answer: Answer): void => {
        worker.off("exit", onExit);
        resolve(answer);
      };
      const onExit = (code: number | null): void => {
        worker.off("message", onMessage);
        this.#worker = undefined;
        reject(
          new BursarError(
            "proof-invalid",
            `The prover ended (${code ?? "killed"}) before it answered.`,
            {},
            "Check the memory; the batch can be proved again.",
          ),
        );
      };
      worker.once("message", onMessage).once("exit", onExit);
      worker.send(job);
    });
  }
}

function startWorker(): ChildProcess {
  return fork(fileURLToPath(new URL("./prove-worker.ts", import.meta.url)), {
    execArgv: ["--import", import.meta.resolve("tsx")],
    serialization: "advanced",
  });
}

function wordsOf({ pi_a, pi_b, pi_c }: Groth16Proof): bigint[] {
  return [pi_a[0]!, pi_a[1]!, pi_b[0]![1]!, pi_b[0]![0]!, pi_b[1]![1]!, pi_b[1]![0]!, pi_c[0]!, pi_c[1]!].map(BigInt);
}
