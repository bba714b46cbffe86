import { parseArgs } from "node:util";

import { BursarError } from "@bursar/protocol";
import {
  applyBeacon,
  beginCeremony,
  buildCircuit,
  checkPhase1,
  circuitIdOf,
  circuitSize,
  contribute,
  exportKey,
  keyFolder,
  verifyCeremony,
  writeVerifier,
  type BuiltCircuit,
  type Phase1,
} from "@bursar/prover";

const USAGE = `usage: npm run ceremony -- <command> [options]

  ptau <file>                              check a phase-1 file against its published hash
  begin <circuit> <ptau> <to>              write a circuit's first key
  contribute <from> <to> --name <you>      multiply a fresh secret into a key
  beacon <from> <to> --value <hex>         end the contributions with public randomness
  verify <circuit> <ptau> <key>            check a key from its beginning, and list its contributions
  export <circuit> <ptau> <key> <keys>     verify, then write <keys>/<circuit>/ and contracts/verifiers/

  --sha256 <hex>, --blake2b <hex>          hash of a phase-1 file that circuits/phase1.json does not list
  --entropy <text>                         mixed into a contribution besides the machine's randomness
  --iterations <n>                         2^n rounds of SHA-256 over the beacon (10)
  --json                                   print results and errors as JSON

Exit codes: 0 done, 1 refused, 2 wrong usage. The steps and who does what: docs/ceremony.md.`;

const COMMANDS: Record<string, { parameters: number; run: (...parameters: string[]) => Promise<object> }> = {
  ptau: { parameters: 1, run: async (file) => ({ file, hash: await checkPhase1(phase1(file)) }) },
  begin: {
    parameters: 3,
    run: async (name, ptau, to) => {
      await beginCeremony((await circuit(name)).r1cs, phase1(ptau), to);
      return { key: to };
    },
  },
  contribute: {
    parameters: 2,
    run: async (from, to) => ({
      key: to,
      contribution: await contribute(from, to, values.name ?? "", values.entropy),
    }),
  },
  beacon: {
    parameters: 2,
    run: async (from, to) => ({
      key: to,
      contribution: await applyBeacon(from, to, values.value ?? "", Number(values.iterations)),
    }),
  },
  verify: {
    parameters: 3,
    run: async (name, ptau, key) => ({
      key,
      contributions: await verifyCeremony((await circuit(name)).r1cs, phase1(ptau), key),
    }),
  },
  export: {
    parameters: 4,
    run: async (name, ptau, key, keys) => {
      const size = circuitSize(name);
      const exported = await exportKey(await circuit(name), phase1(ptau), key, keyFolder(size, keys), progress);
      return {
        keys,
        verifier: await writeVerifier(exported, false),
        circuitId: circuitIdOf(exported.verificationKey),
      };
    },
  },
};

const { values, positionals } = readArguments();
const [name = "", ...parameters] = positionals;
const command = COMMANDS[name];
if (values.help) {
  console.log(USAGE);
} else if (command?.parameters !== parameters.length) {
  console.error(USAGE);
  process.exitCode = 2;
} else {
  try {
    print(await command.run(...parameters));
  } catch (error) {
    refuse(error);
  }
}
// snarkjs keeps worker threads for as long as the process lives.
process.exit();

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        name: { type: "string" },
        value: { type: "string" },
        entropy: { type: "string" },
        iterations: { type: "string", default: "10" },
        sha256: { type: "string" },
        blake2b: { type: "string" },
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    process.exit(2);
  }
}

function phase1(path: string): Phase1 {
  if (values.sha256) return { path, hash: { algorithm: "sha256", digest: values.sha256 } };
  if (values.blake2b) return { path, hash: { algorithm: "blake2b512", digest: values.blake2b } };
  return { path };
}

function circuit(name: string): Promise<BuiltCircuit> {
  return buildCircuit(circuitSize(name), progress);
}

function progress(message: string): void {
  if (!values.json) console.error(message);
}

function print(result: object): void {
  if (values.json) {
    console.log(JSON.stringify(result));
    return;
  }
  for (const [key, value] of Object.entries(result)) {
    const lines = Array.isArray(value)
      ? value.map((item) => `\n  ${Object.values(item as object).join(" ")}`)
      : [value];
    console.log(`${key}: ${lines.join("")}`);
  }
}

function refuse(error: unknown): void {
  if (!(error instanceof BursarError)) throw error;
  const { code, message, details, advice } = error;
  if (values.json) console.log(JSON.stringify({ code, message, details, advice }));
  else
    console.error(
      [`${code}: ${message}`, ...Object.entries(details).map(([key, value]) => `${key} ${value};`), advice ?? ""]
        .join(" ")
        .trim(),
    );
  process.exitCode = 1;
}
