import { rmSync } from "node:fs";

import { BursarError } from "@bursar/protocol";
import { groth16 } from "snarkjs";

import type { Backend, BackendChoice } from "./backend.ts";
import type { Answer, Job } from "./prove.ts";
import { Rapidsnark } from "./rapidsnark.ts";
import { verified } from "./verify.ts";
import { messageOf, Witnesses } from "./witness.ts";

const folder = process.argv[2]!;
const backend = backendOf(JSON.parse(process.argv[3]!) as BackendChoice);
const witnesses = new Witnesses();

process.on("message", (job: Job) => {
  void answer(job).then((result) => process.send?.(result));
});
// Its parent says when it ends, not who interrupts the parent.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => undefined);
process.on("disconnect", () => process.exit());
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

function backendOf(choice: BackendChoice): Backend {
  if (choice.name === "rapidsnark") return new Rapidsnark(choice.program, folder);
  return { prove: (zkey, witness) => groth16.prove(zkey, witness) };
}

async function answer({ input, wasm, zkey, verificationKey }: Job): Promise<Answer> {
  try {
    const witness = await witnesses.calculate(wasm, input);
    return await verified(verificationKey, await backend.prove(zkey, witness));
  } catch (error) {
    const { code, message, details, advice } =
      error instanceof BursarError ? error : new BursarError("prover-failed", messageOf(error));
    return { refused: { code, message, details, advice } };
  }
}
