import {
  AgentLedger,
  allowList,
  challenge,
  hashLine,
  signPayment,
  transcript,
  type Address,
  type Credit,
  type Hex,
} from "@bursar/protocol";
import { circuitIdOf, circuitSizes, layOut, openCircuit, Prover, type CircuitSize } from "@bursar/prover";
import { hexlify, id, randomBytes, Signature, ZeroAddress, ZeroHash } from "ethers";

import { ISettlement__factory, MandateRegistry__factory, type ISettlement } from "../../typechain-types/index.ts";
import {
  DEPLOYED,
  randomAddress,
  refused,
  same,
  Untested,
  type Bench,
  type Impersonated,
  type Outcome,
  type Requirement,
} from "./bench.ts";
import { Stage } from "./stage.ts";

export interface SettlementSubject {
  readonly bench: Bench;
  readonly address: Address;
}

interface Batch {
  readonly circuitId: Hex;
  readonly rows: Parameters<ISettlement["settle"]>[1];
  readonly credits: readonly Credit[];
  readonly commitment: bigint;
  readonly evaluation: bigint;
  readonly proof: readonly bigint[];
}

/** A stage with a batch on it that is proved and not settled, or why there is none. */
interface Ready extends SettlementSubject {
  readonly proved: { stage: Stage; batch: Batch; bound: Hex } | string;
}

const AMOUNTS = [10n, 20n, 30n];

function send({ circuitId, rows, credits, commitment, evaluation, proof }: Batch, by: ISettlement) {
  return by.settle(circuitId, rows, [...credits], commitment, evaluation, [...proof] as never);
}

/** The smallest circuit that both this checkout and the contract know. */
async function commonCircuit({ bench, address }: SettlementSubject): Promise<{ size: CircuitSize; circuitId: Hex }> {
  const settlement = ISettlement__factory.connect(address, bench.provider);
  for (const size of circuitSizes()) {
    const built = await openCircuit(size).catch(() => undefined);
    if (!built) continue;
    const circuitId = circuitIdOf(built.verificationKey);
    if ((await settlement.verifierOf(circuitId)) !== ZeroAddress) return { size, circuitId };
  }
  throw new Untested("no circuit that is built here has a verifier there");
}

/** Three payments of a fresh mandate to two payees, proved for this contract. */
async function prove(subject: SettlementSubject): Promise<Exclude<Ready["proved"], string>> {
  const { bench, address } = subject;
  const { size, circuitId } = await commonCircuit(subject);
  const at = (await ISettlement__factory.connect(address, bench.provider).registry()) as Address;
  const stage = await Stage.set(bench, at);
  const { agent, mandate } = await stage.open();
  const payees = [randomAddress(), randomAddress()];
  const secret = id(hexlify(randomBytes(32))) as Hex;
  const ledger = new AgentLedger({ domain: stage.domain, agent: agent.address, secret });
  const drafts = AMOUNTS.map((amount, i) => ledger.append({ payee: payees[i % 2]!, amount, ref: ZeroHash as Hex }));
  const { payment } = drafts.at(-1)!;
  const { r, s, v } = Signature.from(await signPayment(agent.key, stage.domain, payment));
  const { base, seq } = await stage.registry.positionOf(agent.address);
  const statement = layOut(size, [
    {
      agent: agent.address,
      base,
      seq,
      allow: allowList(mandate.payees),
      paymentCap: mandate.paymentCap,
      salts: [drafts[0]!.salt],
      lines: drafts.map((one) => one.payment.line),
    },
  ]);
  const { commitment, credits } = statement;
  const rows = statement.rows.map((row) => ({ ...row, lineHash: hashLine(payment.line), r, s, v }));
  const bound = transcript({ chainId: bench.chainId, settlement: address, circuitId, commitment, rows, credits });
  const prover = new Prover();
  try {
    const { proof, signals } = await prover.prove(size, statement, challenge(bound));
    return { stage, batch: { circuitId, rows, credits, commitment, evaluation: signals.T, proof }, bound };
  } finally {
    prover.close();
  }
}

function ready({ proved }: Ready): { stage: Stage; batch: Batch; bound: Hex } {
  if (typeof proved === "string") throw new Untested(proved);
  return proved;
}

const asked = ({ address, bench }: Ready, by?: Impersonated): ISettlement =>
  ISettlement__factory.connect(address, by ?? bench.provider);

/** What every `ISettlement` has to keep. */
export const SETTLEMENT: readonly Requirement<Ready>[] = [
  DEPLOYED,
  {
    name: "bound",
    says: "It is the settlement contract of its registry, so that it and no other moves what mandates lock.",
    run: async (subject) => {
      const registry = MandateRegistry__factory.connect(await asked(subject).registry(), subject.bench.provider);
      same("the registry's settlement", await registry.settlement(), subject.address);
    },
  },
  {
    name: "known-circuits-only",
    says: "A circuit that is not built in has no verifier.",
    run: async (subject) =>
      same("the verifier of an unknown circuit", await asked(subject).verifierOf(id("?")), ZeroAddress),
  },
  {
    name: "counts-from-one",
    says: "No batch has the number 0, nor one above the count.",
    run: async (subject) => {
      const count = await asked(subject).batchCount();
      for (const batch of [0n, count + 1n])
        same(`transcriptOf(${batch})`, await asked(subject).transcriptOf(batch), ZeroHash);
    },
  },
  {
    name: "settles",
    says: "A proved batch of its processor moves the mandate and credits each payee, and is counted.",
    local: true,
    run: async (subject) => {
      const { stage, batch } = ready(subject);
      const settlement = asked(subject, stage.processor.sender);
      const count = await settlement.batchCount();
      await send(batch, settlement);
      same("batchCount", await settlement.batchCount(), count + 1n);
      const credits = await Promise.all(batch.credits.map(({ payee }) => stage.creditOf(payee)));
      same("the credits", credits.join(" "), batch.credits.map(({ amount }) => amount).join(" "));
      const agent = (batch.rows as { agent: string }[])[0]!.agent;
      const { seq, spent } = await stage.registry.positionOf(agent);
      same("payments and units settled", `${seq} ${spent}`, "3 60");
    },
  },
  {
    name: "keeps-the-transcript",
    says: "It keeps the transcript of the batch as docs/spec/encoding.md computes it: challenges rest on it.",
    local: true,
    run: async (subject) => {
      const { stage, batch, bound } = ready(subject);
      const settlement = asked(subject, stage.processor.sender);
      await send(batch, settlement);
      same("transcriptOf", await settlement.transcriptOf(await settlement.batchCount()), bound);
    },
  },
  {
    name: "true-proofs-only",
    says: "It takes no other proof, commitment or evaluation.",
    local: true,
    run: async (subject) => {
      const { stage, batch } = ready(subject);
      const settlement = asked(subject, stage.processor.sender);
      const [a0, a1, ...rest] = batch.proof as [bigint, bigint, ...bigint[]];
      const c = rest.slice(4);
      for (const [what, changed] of [
        // A point of the curve, but another: so the pairing itself has to say no.
        ["a proof with another point", { ...batch, proof: [c[0]!, c[1]!, ...rest] }],
        ["a proof of zeros", { ...batch, proof: batch.proof.map(() => 0n) }],
        ["a proof with one point negated", { ...batch, proof: [a0, PRIME - a1, ...rest] }],
        ["another commitment", { ...batch, commitment: batch.commitment ^ 1n }],
        ["another evaluation", { ...batch, evaluation: batch.evaluation ^ 1n }],
      ] as const)
        await refused(what, send(changed, settlement));
    },
  },
  {
    name: "binds-the-credits",
    says: "It pays no other payee and splits no other way than the proof says.",
    local: true,
    run: async (subject) => {
      const { stage, batch } = ready(subject);
      const settlement = asked(subject, stage.processor.sender);
      const [first, second] = batch.credits as [Credit, Credit];
      for (const [what, credits] of [
        ["another payee", [{ ...first, payee: randomAddress() }, second]],
        [
          "another split",
          [
            { ...first, amount: first.amount + 1n },
            { ...second, amount: second.amount - 1n },
          ],
        ],
        ["a credit left out", [first]],
        ["more than the debits", [{ ...first, amount: first.amount + 1n }, second]],
      ] as const)
        await refused(what, send({ ...batch, credits }, settlement));
    },
  },
  {
    name: "processor-only",
    says: "Nobody but the processor that the mandate names settles it, with whatever proof.",
    local: true,
    run: async (subject) => {
      const { stage, batch } = ready(subject);
      for (const account of [stage.owner.address, randomAddress()])
        await refused(`a batch of ${account}`, send(batch, asked(subject, await subject.bench.as(account))));
    },
  },
  {
    name: "once",
    says: "A batch settles once.",
    local: true,
    run: async (subject) => {
      const { stage, batch } = ready(subject);
      const settlement = asked(subject, stage.processor.sender);
      await send(batch, settlement);
      await refused("the same batch again", send(batch, settlement));
    },
  },
];

/** The field of the curve's coordinates. */
const PRIME = 21888242871839275222246405745257275088696311157297823662689037894645226208583n;

/** Proves one batch, and looks what the contract makes of it. */
export async function judgeSettlement(subject: SettlementSubject): Promise<Outcome[]> {
  const { bench } = subject;
  const snapshot = bench.local ? await bench.provider.send("evm_snapshot", []) : null;
  try {
    const proved = bench.local ? await prove(subject).catch((error: unknown) => (error as Error).message) : "";
    return await bench.judge(SETTLEMENT, { ...subject, proved });
  } finally {
    if (snapshot !== null) await bench.provider.send("evm_revert", [snapshot]);
  }
}
