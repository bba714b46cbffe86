import type { Address } from "@bursar/protocol";
import { capacity, circuitSizes, Prover, segmentsOf, type CircuitSize } from "@bursar/prover";
import { hexlify, randomBytes, Signature, Wallet } from "ethers";

import { BenchRail, mined } from "./rail.ts";

export interface GasReport {
  open: bigint;
  deposit: bigint;
  transfer: bigint;
  transferToNew: bigint;
  authorization: bigint;
  verifier: bigint;
  /** Gas of settling `rows` mandates of 21 payments each to `credits` known payees. */
  table: { rows: number; credits: number; gas: bigint }[];
  /** The fullest batch: each payee new, then known. */
  full: {
    circuit: string;
    rows: number;
    credits: number;
    payments: number;
    first: bigint;
    steady: bigint;
    afterPayout: bigint;
  };
  /** Batches between known payees, of the smallest circuit that holds them. */
  workloads: { circuit: string; agents: number; payees: number; payments: number; gas: bigint }[];
}

const COUNTS = [1, 5, 10, 20];
const LINES = 21;
/** Beside the fullest, as far as the largest circuit holds them. The last ends within pages. */
const WORKLOADS = [
  { agents: 20, payees: 20, payments: 700 },
  { agents: 100, payees: 5, payments: 2_800 },
  { agents: 20, payees: 20, payments: 2_000 },
];

export async function measureGas(largest: CircuitSize, say: (text: string) => void): Promise<GasReport> {
  const most = Math.min(Math.max(...COUNTS), largest.segments);
  const counts = COUNTS.filter((count) => count <= most);
  const rail = await BenchRail.start(largest.segments);
  const prover = new Prover();
  const payees = (count: number): Address[] =>
    Array.from({ length: count }, () => Wallet.createRandom().address as Address);
  const sizes = circuitSizes().filter((size) => size.name in rail.chain.rail.circuits);
  const smallest = (rows: number, lines: number): CircuitSize | undefined =>
    sizes.find((size) => rows * segmentsOf(size, lines) <= size.segments && capacity(size) <= capacity(largest));
  try {
    const known = payees(Math.max(...COUNTS));
    const perRow = capacity(largest) / most;
    const full = known.slice(0, 20);
    say(`${largest.name}: ${most} rows of ${perRow} payments, three times`);
    const settleFull = () => rail.settle(prover, largest, most, perRow, full);
    const first = await settleFull();
    const steady = await settleFull();
    for (const payee of full) await mined(rail.chain.escrow.connect(rail.owner).sweepCredit(rail.token, payee));
    const afterPayout = await settleFull();
    const table: GasReport["table"] = [];
    for (const rows of counts) {
      const size = smallest(rows, LINES) ?? largest;
      for (const credits of COUNTS) {
        say(`${rows} rows x ${credits} credits in ${size.name}`);
        table.push({ rows, credits, gas: await rail.settle(prover, size, rows, LINES, known.slice(0, credits)) });
      }
    }
    const workloads: GasReport["workloads"] = [];
    for (const workload of WORKLOADS) {
      const { agents, payments } = workload;
      const size = smallest(agents, payments / agents);
      if (!size) continue;
      say(`${payments} payments, ${agents} x ${workload.payees} in ${size.name}`);
      const to = known.slice(0, workload.payees);
      const gas = await rail.settle(prover, size, agents, payments / agents, to);
      workloads.push({ circuit: size.name, ...workload, gas });
    }
    return {
      open: rail.openGas,
      deposit: rail.depositGas,
      ...(await references(rail)),
      verifier: await verifierGas(rail, largest),
      table,
      workloads,
      full: {
        circuit: largest.name,
        rows: most,
        credits: full.length,
        payments: capacity(largest),
        first,
        steady,
        afterPayout,
      },
    };
  } finally {
    prover.close();
    rail.stop();
  }
}

async function references({
  dollar,
  owner,
  ownerAddress,
  token,
  processor,
}: BenchRail): Promise<Pick<GasReport, "transfer" | "transferToNew" | "authorization">> {
  const holder = Wallet.createRandom().address;
  const transferToNew = (await mined(dollar.transfer(holder, 5n))).gasUsed;
  const transfer = (await mined(dollar.transfer(holder, 5n))).gasUsed;
  const { name, version } = await dollar.eip712Domain();
  const fields = [
    ["from", "address"],
    ["to", "address"],
    ["value", "uint256"],
    ["validAfter", "uint256"],
    ["validBefore", "uint256"],
    ["nonce", "bytes32"],
  ];
  const types = { TransferWithAuthorization: fields.map(([field, type]) => ({ name: field!, type: type! })) };
  const nonce = hexlify(randomBytes(32));
  const message = { from: ownerAddress, to: holder, value: 5n, validAfter: 0n, validBefore: 2n ** 40n, nonce };
  const { v, r, s } = Signature.from(
    await owner.signTypedData({ name, version, chainId: 31_337n, verifyingContract: token }, types, message),
  );
  const sent = dollar
    .connect(processor)
    .transferWithAuthorization(ownerAddress, holder, 5n, 0n, 2n ** 40n, nonce, v, r, s);
  return { transferToNew, transfer, authorization: (await mined(sent)).gasUsed };
}

/** What the pairing check alone takes: a call with points that are on the curve but prove nothing costs the same. */
async function verifierGas({ chain, provider }: BenchRail, { name }: CircuitSize): Promise<bigint> {
  const verifier = await chain.settlementContract.verifierOf(chain.rail.circuits[name]!);
  const { IBatchVerifier__factory } = await import("../../typechain-types/index.ts");
  const g2 = [
    11559732032986387107991004021392285783925812861821192530917403151452391805634n,
    10857046999023057135944570762232829481370756359578518086990519993285655852781n,
    4082367875863433681332203403145435568316851327593401208105741076214120093531n,
    8495653923123431417604973247489272438418190587263600148770280649306958101930n,
  ];
  const data = IBatchVerifier__factory.createInterface().encodeFunctionData("verify", [
    [1n, 2n, ...g2, 1n, 2n] as never,
    [1n, 2n, 3n],
  ]);
  const bytes = Buffer.from(data.slice(2), "hex");
  const calldata = bytes.reduce((sum, byte) => sum + (byte === 0 ? 4 : 16), 0);
  return (await provider.estimateGas({ to: verifier, data })) - 21_000n - BigInt(calldata);
}
