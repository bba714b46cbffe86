#!/usr/bin/env node
// Speaks rapidsnark's command line, and proves with snarkjs: a real proof over a real process boundary where no rapidsnark is.
import { writeFileSync } from "node:fs";

import { groth16 } from "snarkjs";

const [zkey, witness, proofFile, signalsFile] = process.argv.slice(2);
const { proof, publicSignals } = await groth16.prove(zkey, witness);
writeFileSync(proofFile, JSON.stringify(proof));
writeFileSync(signalsFile, JSON.stringify(publicSignals));
process.exit();
