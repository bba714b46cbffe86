import { parentPort } from "node:worker_threads";

import { groth16 } from "snarkjs";

interface Job {
  input: object;
  wasm: string;
  zkey: string;
}

parentPort?.on("message", (job: Job) => {
  groth16.fullProve(job.input, job.wasm, job.zkey).then(
    (proved) => parentPort?.postMessage(proved),
    (error: unknown) => parentPort?.postMessage({ error: error instanceof Error ? error.message : String(error) }),
  );
});
