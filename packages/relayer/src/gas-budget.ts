import type { Address, Hex } from "@bursar/protocol";
import { Transaction, type JsonRpcApiProvider } from "ethers";
import { z } from "zod";

import type { Alarms } from "./alarms.ts";
import type { OutboxBook } from "./outbox-book.ts";
import type { OutboxEntry } from "./records.ts";

export interface GasBudgetOptions {
  readonly store: Pick<OutboxBook, "transactionsSince">;
  readonly provider: JsonRpcApiProvider;
  /** Pays for the gas. */
  readonly account: Address;
  /** Wei in any 24 hours; any amount without it. */
  readonly perDay?: bigint | undefined;
  /** Wei that should stay on the account. */
  readonly minBalance?: bigint | undefined;
  readonly alarms: Alarms;
  /** Unix seconds. */
  readonly now: () => bigint;
}

/** Seconds. */
const DAY = 86_400n;

/** What a mined transaction cost; rollups of the OP Stack charge for their data besides (`l1Fee`). */
const receiptSchema = z
  .object({
    gasUsed: z.string().transform(BigInt),
    effectiveGasPrice: z.string().transform(BigInt),
    l1Fee: z.string().transform(BigInt).nullish(),
  })
  .nullable();

/**
 * Says whether a transaction that may wait is to be sent now. What was spent is read from the book and the chain, never
 * counted in memory: it outlives a restart, and processes that share a book share the budget.
 */
export class GasBudget {
  readonly #options: GasBudgetOptions;
  /** Wei by transaction, of those that were mined. */
  readonly #costs = new Map<Hex, bigint>();

  constructor(options: GasBudgetOptions) {
    this.#options = options;
  }

  /**
   * Whether something that costs at most so many wei fits into the budget and leaves the account what it should hold; raises
   * and ends the alarms of both.
   */
  async allows(cost: bigint): Promise<boolean> {
    const { perDay, account, alarms } = this.#options;
    const rich = await this.watchBalance();
    if (perDay === undefined) return rich;
    const value = (await this.spent()) + cost;
    if (value <= perDay) {
      alarms.clear("gas-budget-spent", account);
      return rich;
    }
    alarms.raise({
      code: "gas-budget-spent",
      about: account,
      message: `What ${account} spends on gas in 24 hours would be above its budget: what may wait does.`,
      value,
      limit: perDay,
    });
    return false;
  }

  /** Looks at the account's balance. @returns whether it holds what it should. */
  async watchBalance(): Promise<boolean> {
    const { provider, account, minBalance, alarms } = this.#options;
    if (minBalance === undefined) return true;
    const value = await provider.getBalance(account);
    if (value >= minBalance) {
      alarms.clear("balance-low", account);
      return true;
    }
    const message = `The account ${account} holds less than it should: what may wait does.`;
    alarms.raise({ code: "balance-low", about: account, message, value, limit: minBalance });
    return false;
  }

  /** Wei of the last 24 hours: what was mined at its price, and what was not at the most that it can cost. */
  async spent(): Promise<bigint> {
    const { store, now } = this.#options;
    const entries = await store.transactionsSince(now() - DAY);
    const nonces = [...new Set(entries.map(({ nonce }) => nonce))];
    const replacements = nonces.map((nonce) => entries.filter((entry) => entry.nonce === nonce));
    const costs = await Promise.all(replacements.map((group) => this.#costOf(group)));
    this.#forgetAllBut(entries);
    return costs.reduce((sum, cost) => sum + cost, 0n);
  }

  /** Of transactions with the same nonce one at most is mined. */
  async #costOf(replacements: readonly OutboxEntry[]): Promise<bigint> {
    for (const { hash } of replacements) {
      const cost = this.#costs.get(hash) ?? (await minedCost(this.#options.provider, hash));
      if (cost === undefined) continue;
      this.#costs.set(hash, cost);
      return cost;
    }
    const most = replacements.map(({ raw }) => mostCost(Transaction.from(raw)));
    return most.reduce((a, b) => (a > b ? a : b), 0n);
  }

  #forgetAllBut(entries: readonly OutboxEntry[]): void {
    const kept = new Set(entries.map(({ hash }) => hash));
    for (const hash of this.#costs.keys()) if (!kept.has(hash)) this.#costs.delete(hash);
  }
}

/** Wei that a transaction took, or undefined while it is not mined. */
export async function minedCost(provider: JsonRpcApiProvider, hash: Hex): Promise<bigint | undefined> {
  const answer: unknown = await provider.send("eth_getTransactionReceipt", [hash]);
  const receipt = receiptSchema.parse(answer);
  return receipt === null ? undefined : receipt.gasUsed * receipt.effectiveGasPrice + (receipt.l1Fee ?? 0n);
}

/** Wei that a transaction can take for gas. */
export function mostCost({ gasLimit, maxFeePerGas }: { gasLimit: bigint; maxFeePerGas: bigint | null }): bigint {
  return gasLimit * (maxFeePerGas ?? 0n);
}
