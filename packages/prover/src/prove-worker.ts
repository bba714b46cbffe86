import { groth16 } from "snarkjs";

import type { Answer, Job } from "./prove.ts";
import { quiet } from "./quiet.ts";

process.on("message", (job: Job) => {
  void answer(job).then((result) => process.send?.(result));
});
process.on("disconnect", () => process.exit());

async function answer({ input, wasm, zkey, verificationKey }: Job): Promise<Answer> {
  try {
    const { proof, publicSignals } = await groth16.fullProve(input, wasm, zkey);
    const verified = await groth16.verify(verificationKey, publicSignals, proof, quiet);
    return { proof, publicSignals, verified };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}
