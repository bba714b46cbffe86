import { offsetOf, type Address } from "@bursar/protocol";
import { capacity } from "@bursar/prover";
import type { Command } from "commander";
import { formatEther, formatUnits, parseUnits } from "ethers";

import { draftAll, type Draft } from "../batching.ts";
import { gasPriceOf, reach } from "../chain.ts";
import { breakEven, settlementGas, shapeOf, TRANSFER_GAS, type Shape } from "../cost.ts";
import { rowsOf, situationOf } from "../planner.ts";
import { availableCircuits } from "../settler.ts";
import type { Store } from "../store.ts";
import { decimal, settleEvery } from "./options.ts";
import { report, table, time, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import { now, type Session } from "./session.ts";

interface PlanOptions {
  settleEvery: number;
  /** Gwei for a unit of gas. */
  gasPrice?: string;
  /** Dollars for an ether. */
  ethPrice?: string;
}

/** What a batch would be, and what it would cost. */
interface Forecast extends Shape {
  readonly circuit: string;
  readonly token: Address;
  readonly reason: Draft["reason"];
  /** Unix seconds until which the batch can wait. */
  readonly startBy: bigint;
  readonly mandates: number;
  readonly payments: number;
  /** Of the circuit's slots that payments fill. */
  readonly fillPercent: number;
  readonly gas: bigint;
  readonly gasPerPayment: bigint;
  /** Gas of an ERC-20 transfer for each payment. */
  readonly transfersGas: bigint;
  /** Payments from which on it takes less. */
  readonly breakEven: bigint;
  /** Wei. */
  readonly cost: bigint;
  readonly costPerPayment: bigint;
  /** Dollars, if the price of an ether is known. */
  readonly dollars?: string;
  readonly dollarsPerPayment?: string;
}

/** Adds `bursar plan`. */
export function addPlanCommand(program: Command, { output, within }: Scene): void {
  program
    .command("plan")
    .description("what would be settled now, what it would cost, and whether it pays; changes nothing")
    .option("--gas-price <gwei>", "for a unit of gas; the chain's own now, unless given", decimal)
    .option("--eth-price <dollars>", "for an ether: costs in dollars besides", decimal)
    .addOption(settleEvery())
    .action(within((session, options: PlanOptions) => plan(session, output, options)));
}

async function plan(session: Session, output: Output, options: PlanOptions): Promise<void> {
  const { provider, rail } = session;
  const store = await session.store();
  const sizes = availableCircuits(rail.circuits).map(({ size }) => size);
  const situation = await situationOf(store, sizes, now(), options.settleEvery);
  const gasPrice =
    options.gasPrice === undefined ? await reach(() => gasPriceOf(provider)) : parseUnits(options.gasPrice, "gwei");
  const drafts = draftAll(await store.unbatched(), situation);
  const batches = await forecast(store, drafts, { gasPrice, ethPrice: options.ethPrice });
  report(output, { gasPrice, ethPrice: options.ethPrice ?? null, batches }, describe(batches, gasPrice));
}

async function forecast(
  store: Store,
  drafts: readonly Draft[],
  prices: { gasPrice: bigint; ethPrice: string | undefined },
): Promise<Forecast[]> {
  const credited = new Map<Address, Set<Address>>();
  const forecasts: Forecast[] = [];
  for (const draft of drafts) {
    const { token, size, reason, startBy } = draft;
    const payees = credited.get(token) ?? (await store.credited(token));
    credited.set(token, payees);
    const rows = await rowsOf(store, draft);
    const shape = shapeOf(rows, payees);
    const lines = rows.flatMap(({ seq, lines }) => lines.slice(Number(offsetOf(seq))));
    for (const { payee } of lines) payees.add(payee);
    forecasts.push({
      ...{ circuit: size.name, token, reason, startBy: BigInt(Math.floor(startBy)) },
      ...{ mandates: rows.length, payments: lines.length },
      fillPercent: Math.round((100 * lines.length) / capacity(size)),
      ...shape,
      ...costOf(shape, BigInt(lines.length), prices),
    });
  }
  return forecasts;
}

function costOf(
  shape: Shape,
  payments: bigint,
  { gasPrice, ethPrice }: { gasPrice: bigint; ethPrice?: string | undefined },
) {
  const gas = settlementGas(shape);
  const cost = gas * gasPrice;
  const dollars = (wei: bigint): string => formatUnits(wei * parseUnits(ethPrice ?? "0", 9), 27);
  return {
    gas,
    gasPerPayment: gas / payments,
    transfersGas: TRANSFER_GAS * payments,
    breakEven: breakEven(shape),
    cost,
    costPerPayment: cost / payments,
    ...(ethPrice === undefined ? {} : { dollars: dollars(cost), dollarsPerPayment: dollars(cost / payments) }),
  };
}

const REASONS = { deadline: "now: a promise ends", full: "now: it is full", age: "now: it waited" } as const;

function describe(batches: readonly Forecast[], gasPrice: bigint): string {
  if (batches.length === 0) return "No payment waits.";
  const money = ({ cost, dollars }: Pick<Forecast, "cost" | "dollars">): string =>
    dollars === undefined ? `${digits(formatEther(cost))} ETH` : `$${digits(dollars)}`;
  const rows = batches.map((one) => [
    one.circuit,
    String(one.mandates),
    `${one.payments} (${one.fillPercent} %)`,
    String(one.gas),
    money(one),
    money({ cost: one.costPerPayment, ...(one.dollarsPerPayment && { dollars: one.dollarsPerPayment }) }),
    `${(Number(one.transfersGas) / Number(one.gas)).toFixed(1)} times as much`,
    `${one.breakEven} payments`,
    one.reason === null ? `it can wait until ${time(one.startBy)}` : REASONS[one.reason],
  ]);
  const header = ["circuit", "mandates", "payments", "gas", "cost", "a payment", "as transfers", "pays from", "when"];
  return `${table(header, rows)}\nAt ${formatUnits(gasPrice, "gwei")} gwei. A batch pays for itself when the fees of its payments are its cost.`;
}

/** Three digits that count. */
const digits = (decimals: string): string => String(Number(Number(decimals).toPrecision(3)));
