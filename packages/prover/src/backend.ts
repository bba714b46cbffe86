import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";

import { BursarError } from "@bursar/protocol";

import { ROOT } from "./circuits.ts";

/** Makes a Groth16 proof of a witness. Nothing that one answers is believed before it is verified. */
export interface Backend {
  /**
   * @param zkey - path of the proving key.
   * @param witness - the bytes of a .wtns file.
   * @returns `{ proof, publicSignals }` in the form of {@link Proved}, as far as the backend is honest.
   * @throws BursarError `prover-missing`, `prover-failed`
   */
  prove(zkey: string, witness: Uint8Array): Promise<unknown>;
}

/** Which backend proves: snarkjs in this process, or rapidsnark, a program at an absolute path. */
export type BackendChoice = { readonly name: "snarkjs" } | { readonly name: "rapidsnark"; readonly program: string };

/** Where `npm run rapidsnark` leaves the program. */
export const BUILT_RAPIDSNARK = join(ROOT, "build", "rapidsnark", "rapidsnark");

const GET_RAPIDSNARK =
  "Build it with `npm run rapidsnark`, name it in BURSAR_RAPIDSNARK, or prove with BURSAR_PROVER=snarkjs; see docs/prover.md.";

/**
 * The backend that the environment asks for: BURSAR_PROVER is `snarkjs`, as without it, or `rapidsnark`.
 * @throws BursarError `malformed-input` for another name, `prover-missing`
 */
export function chooseBackend(environment: NodeJS.ProcessEnv): BackendChoice {
  const name = environment["BURSAR_PROVER"] || "snarkjs";
  if (name === "snarkjs") return { name };
  if (name === "rapidsnark") return { name, program: findRapidsnark(environment) };
  throw new BursarError("malformed-input", `BURSAR_PROVER names no prover: «${name}».`, {
    value: name,
    limit: "snarkjs rapidsnark",
  });
}

/**
 * Path of the program: BURSAR_RAPIDSNARK, else `rapidsnark` on PATH, else what was built here. What iden3 calls its program,
 * `prover`, is not looked for on PATH: too many programs have that name.
 * @throws BursarError `prover-missing`
 */
function findRapidsnark(environment: NodeJS.ProcessEnv): string {
  const configured = environment["BURSAR_RAPIDSNARK"];
  const folders = (environment["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
  const candidates = configured
    ? [resolve(configured)]
    : [...folders.map((folder) => resolve(folder, "rapidsnark")), BUILT_RAPIDSNARK];
  const found = candidates.find(isProgram);
  if (found) return found;
  const where = configured ? "where BURSAR_RAPIDSNARK says" : "on PATH";
  throw new BursarError(
    "prover-missing",
    `There is no program rapidsnark ${where}.`,
    configured ? { value: configured } : {},
    GET_RAPIDSNARK,
  );
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
