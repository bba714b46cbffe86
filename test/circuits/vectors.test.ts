import { readFileSync } from "node:fs";

import { allowList, packRow, toWire, type Address } from "@bursar/protocol";
import { layOut, type BatchRow } from "@bursar/prover";
import { expect } from "chai";

import { Forger } from "./forge.ts";

interface VectorBatch {
  name: string;
  inputs: {
    agent: Address;
    seq: string;
    base: string;
    payees: Address[];
    paymentCap: string;
    salts: string[];
    lines: { payee: Address; amount: string }[];
  }[];
  rows: { agent: Address; base: string; head: string; newBase: string; policyRoot: string; packed: string }[];
  credits: { payee: Address; amount: string }[];
  commitment: string;
  z: string;
  T: string;
}

const vectors = JSON.parse(readFileSync(new URL("../vectors/batch.json", import.meta.url), "utf8")) as {
  circuit: { segments: number; pages: number };
  batches: VectorBatch[];
};

describe("The shared vectors of batches", function () {
  this.timeout(300_000);
  const size = { name: "tiny", power: 13, ...vectors.circuit };
  let forger: Forger;

  before(async () => {
    forger = await Forger.create(size.segments, size.pages);
  });
  after(() => {
    forger.close();
  });

  for (const batch of vectors.batches) {
    const rows = batch.inputs.map((row): BatchRow => ({
      agent: row.agent,
      base: BigInt(row.base),
      seq: BigInt(row.seq),
      allow: allowList(row.payees),
      paymentCap: BigInt(row.paymentCap),
      salts: row.salts.map(BigInt),
      lines: row.lines.map(({ payee, amount }) => ({ payee, amount: BigInt(amount) })),
    }));

    it(`${batch.name}: the layout claims the same rows, credits and commitment`, () => {
      const statement = layOut(size, rows);
      const claimed = statement.rows.map((row) => ({
        agent: row.agent,
        base: row.base,
        head: row.head,
        newBase: row.newBase,
        policyRoot: row.policyRoot,
        packed: packRow(row),
      }));
      expect(toWire(claimed)).to.deep.equal(
        batch.rows.map(({ agent, base, head, newBase, policyRoot, packed }) => ({
          agent,
          base,
          head,
          newBase,
          policyRoot,
          packed,
        })),
      );
      expect(toWire(statement.credits)).to.have.deep.members(batch.credits);
      expect(statement.commitment.toString()).to.equal(batch.commitment);
    });

    it(`${batch.name}: the circuit computes the same C and T`, async () => {
      const { accepted, C, T } = await forger.attempt({ ...layOut(size, rows).input, z: BigInt(batch.z) });
      expect(accepted).to.equal(true);
      expect(C.toString()).to.equal(batch.commitment);
      expect(T.toString()).to.equal(batch.T);
    });
  }
});
