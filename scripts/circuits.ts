import { parseArgs } from "node:util";

import {
  buildCircuit,
  capacity,
  circuitIdOf,
  circuitSize,
  circuitSizes,
  writeVerifier,
  type CircuitSize,
} from "@bursar/prover";

const USAGE = `usage: npm run circuits -- [--all] [--json] [name ...]

Compiles circuits, makes their development keys and generates their verifiers; what is there already is kept.
Without a name: tiny and default. --all adds the large one (minutes, some hundred MB of memory).`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { all: { type: "boolean" }, json: { type: "boolean" }, help: { type: "boolean", short: "h" } },
});

if (values.help) {
  console.log(USAGE);
} else {
  const names = values.all
    ? circuitSizes().map(({ name }) => name)
    : positionals.length > 0
      ? positionals
      : ["tiny", "default"];
  const built = [];
  for (const size of names.map(circuitSize)) built.push(await build(size));
  if (values.json) console.log(JSON.stringify(built));
  else
    for (const { name, constraints, payments } of built)
      console.log(
        `${name}: ${constraints} constraints, ${payments} payments, ${Math.round(constraints / payments)} each`,
      );
  // snarkjs keeps worker threads for as long as the process lives.
  process.exit();
}

async function build(
  size: CircuitSize,
): Promise<{ name: string; constraints: number; payments: number; circuitId: string }> {
  const circuit = await buildCircuit(size, (message) => {
    if (!values.json) console.error(message);
  });
  await writeVerifier(circuit, true);
  const { verificationKey, constraints } = circuit;
  return { name: size.name, constraints, payments: capacity(size), circuitId: circuitIdOf(verificationKey) };
}
