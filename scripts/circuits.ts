import { parseArgs } from "node:util";

import { BursarError } from "@bursar/protocol";
import {
  buildCircuit,
  capacity,
  circuitIdOf,
  circuitSize,
  circuitSizes,
  inclusionSize,
  writeVerifier,
  type CircuitSize,
} from "@bursar/prover";

const USAGE = `usage: npm run circuits -- [--all] [--json] [name ...]

Compiles circuits, makes their development keys and generates their verifiers; what is there already is kept.
Without a name: tiny and default. --all adds the optional ones, large (a minute, 1 GB of memory) and huge (ten minutes,
3 GB of memory, 1.2 GB of disk).

Exit codes: 0 done, 1 failed, 2 wrong usage.`;

interface Built {
  name: string;
  constraints: number;
  payments: number;
  circuitId: string;
}

const { values, positionals } = readArguments();

if (values.help) {
  console.log(USAGE);
} else {
  const built: Built[] = [];
  for (const size of sizesOf(positionals)) built.push(await build(size));
  if (values.json) console.log(JSON.stringify(built));
  else for (const circuit of built) console.log(describe(circuit));
}
// snarkjs keeps worker threads for as long as the process lives.
process.exit();

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { all: { type: "boolean" }, json: { type: "boolean" }, help: { type: "boolean", short: "h" } },
    });
  } catch (error) {
    return misused((error as Error).message);
  }
}

function sizesOf(names: readonly string[]): CircuitSize[] {
  try {
    const wanted = values.all ? circuitSizes() : (names.length > 0 ? names : ["tiny", "default"]).map(circuitSize);
    // A batch that nobody can be answered about is of no use: each comes with its inclusion circuit.
    return wanted.flatMap((size) => (size.template === "Inclusion" ? [size] : [size, inclusionSize(size)]));
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    return misused(`${error.message} There are: ${error.details["limit"]}.`);
  }
}

function misused(why: string): never {
  console.error(`${why}\n\n${USAGE}`);
  process.exit(2);
}

async function build(size: CircuitSize): Promise<Built> {
  const circuit = await buildCircuit(size, (message) => {
    if (!values.json) console.error(message);
  });
  await writeVerifier(circuit, true);
  const { verificationKey, constraints } = circuit;
  return { name: size.name, constraints, payments: capacity(size), circuitId: circuitIdOf(verificationKey) };
}

function describe({ name, constraints, payments }: Built): string {
  return `${name}: ${constraints} constraints, ${payments} payments, ${Math.round(constraints / payments)} each`;
}
