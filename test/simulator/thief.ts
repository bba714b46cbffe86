import { challenge, evaluate, hashLine, transcript, type Credit } from "@bursar/protocol";
import { layOut, type Statement } from "@bursar/prover";

import { hold } from "./broken.ts";
import type { ProcessorActor } from "./cast.ts";
import { NO_PROOF } from "./unproved.ts";
import type { World } from "./world.ts";

/** Settles what a processor has accepted, and has all of it credited to the processor. */
export async function steal(world: World, { office, wallet, address }: ProcessorActor): Promise<void> {
  const { domain, store, settler } = office;
  const batch = await settler.plan();
  hold("the test itself", batch !== undefined, () => "there is nothing to steal");
  const { circuit, parts } = await settler.settled(batch.id);
  const { rows, commitment }: Statement = layOut(circuit.size, parts);
  const debits = rows.reduce((sum, { debit }) => sum + debit, 0n);
  const credits: Credit[] = [{ payee: address, amount: debits }];
  const { chainId } = domain;
  const { circuitId } = circuit;
  const z = challenge(
    transcript({ chainId, settlement: world.chain.rail.settlement, circuitId, commitment, rows, credits }),
  );
  const signed = await Promise.all(
    rows.map(async (row) => {
      const { payment, signature } = (await store.payment(row.agent, row.seq + row.count))!;
      return { ...row, lineHash: hashLine(payment.line), signature };
    }),
  );
  const evaluation = evaluate(z, rows, credits);
  const call = { circuitId, rows: signed, credits, commitment, evaluation, proof: NO_PROOF };
  await (await wallet.sendTransaction({ to: world.chain.rail.settlement, data: office.chain.encode(call) })).wait();
}
