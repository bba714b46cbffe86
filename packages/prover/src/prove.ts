import { fork, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";

import { BursarError, type Hex } from "@bursar/protocol";
import type { Groth16Proof, VerificationKey } from "snarkjs";

import { keyFolder, openCircuit, type BuiltCircuit } from "./build.ts";
import type { CircuitSize } from "./circuits.ts";
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
    const job = this.#last.then(() => this.#prove(size, statement, challenge));
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
    const { wasm, zkey, verificationKey } = await this.#circuit(size);
    const answer = await this.#ask({ input: { ...input, z: challenge }, wasm, zkey, verificationKey });
    if ("error" in answer) throw new BursarError("proof-invalid", `The statement cannot be proved: ${answer.error}`);
    const { proof, publicSignals, verified } = answer;
    const [T, C, z] = publicSignals.map(BigInt) as [bigint, bigint, bigint];
    if (C !== commitment || z !== challenge || !verified) {
      throw new BursarError("proof-invalid", `The proof of circuit ${size.name} does not verify.`, {
        value: C,
        limit: commitment,
      });
    }
    return { circuitId: circuitIdOf(verificationKey), proof: wordsOf(proof), signals: { T, C, z } };
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
