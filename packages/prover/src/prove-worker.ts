import { groth16 } from "snarkjs";

interface Job {
  input: object;
  wasm: string;
  zkey: string;
}

process.on("message", (job: Job) => {
  groth16.fullProve(job.input, job.wasm, job.zkey).then(
    (proved) => process.send?.(proved),
    (error: unknown) => process.send?.({ error: error instanceof Error ? error.message : String(error) }),
  );
});
process.on("disconnect", () => process.exit());
