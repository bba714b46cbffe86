import { loadPageHash } from "@bursar/relayer";
import { Prover } from "@bursar/prover";

import { SimulatedChain } from "../test/simulator/chain.ts";
import { simulate, SimulationFailed } from "../test/simulator/simulate.ts";

const chain = await SimulatedChain.start();
const prover = new Prover();
const hashPage = await loadPageHash();
for (let seed = Number(process.argv[2] ?? 1); seed <= Number(process.argv[3] ?? process.argv[2] ?? 1); ++seed) {
  const t = performance.now();
  try {
    const o = await simulate(seed, { chain, prover, hashPage, ...(process.argv[4] ? { hear: console.log } : {}) });
    console.log(seed, o.cast.join(), o.steps, o.checks, o.payments, o.proofs, Math.round(performance.now() - t), "ms");
  } catch (e) {
    if (!(e instanceof SimulationFailed)) throw e;
    if (!process.argv[4]) console.log(e.log.slice(-25).join("\n"));
    console.log(e.message, e.cause);
  }
}
prover.close();
process.exit(0);
