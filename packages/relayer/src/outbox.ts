import { BursarError, type Hex } from "@bursar/protocol";
import {
  keccak256,
  Transaction,
  type Provider,
  type Signer,
  type TransactionReceipt,
  type TransactionRequest,
} from "ethers";

import type { OutboxEntry, Store } from "./store.ts";

export interface OutboxOptions {
  store: Store;
  provider: Provider;
  /** The only sender of this key's transactions: one lane, so nonces are never contested. */
  signer: Signer;
  /** Blocks on top of a transaction's own before it counts as final; 1 means its own block is enough. */
  confirmations: number;
  /** Seconds without inclusion after which the transaction is replaced at a higher fee. */
  replaceAfter: bigint;
  /** Milliseconds between looks at the chain. */
  pollInterval: number;
  /** Unix seconds. */
  now: () => bigint;
  sleep: (milliseconds: number) => Promise<void>;
}

/**
 * Sends one transaction for each batch and follows it to its end. A transaction is signed and recorded before it is
 * broadcast, so that after a crash the same bytes are sent again and never a second payment; a replacement keeps the
 * nonce, so that at most one of them is mined.
 */
export class Outbox {
  readonly #options: OutboxOptions;

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /**
   * Sends `request` for `batch` unless it was sent before, and waits until it is final.
   * @throws {@link BursarError} `transaction-failed` when it was mined and failed.
   */
  async deliver(batch: number, request: TransactionRequest): Promise<TransactionReceipt> {
    const { store, sleep, pollInterval } = this.#options;
    if (store.transactions(batch).length === 0) await this.#sign(batch, request);
    for (;;) {
      const receipt = await this.#patiently(() => this.#look(batch));
      if (receipt?.status === 0) {
        throw new BursarError("transaction-failed", `Transaction ${receipt.hash} was mined and reverted.`, {
          value: receipt.hash,
        });
      }
      if (receipt) return receipt;
      await sleep(pollInterval);
    }
  }

  /** @returns The receipt once it is final; keeps the transaction alive until then. */
  async #look(batch: number): Promise<TransactionReceipt | undefined> {
    const { store, provider, confirmations, replaceAfter, now } = this.#options;
    const sent = store.transactions(batch);
    for (const { hash } of sent) {
      const receipt = await provider.getTransactionReceipt(hash);
      if (receipt) return (await receipt.confirmations()) >= confirmations ? receipt : undefined;
    }
    const [newest] = sent;
    if (!newest) return undefined;
    if (now() - newest.sentAt >= replaceAfter) await this.#replace(newest);
    else if (!(await provider.getTransaction(newest.hash))) await this.#broadcast(newest.raw);
    return undefined;
  }

  async #sign(batch: number, request: TransactionRequest): Promise<void> {
    const { store, provider, signer } = this.#options;
    const from = await signer.getAddress();
    const fees = await provider.getFeeData();
    const priority = fees.maxPriorityFeePerGas ?? 1_000_000_000n;
    await this.#record(batch, {
      ...request,
      from,
      type: 2,
      chainId: (await provider.getNetwork()).chainId,
      nonce: await provider.getTransactionCount(from, "latest"),
      gasLimit: ((await provider.estimateGas({ ...request, from })) * 5n) / 4n,
      maxPriorityFeePerGas: priority,
      maxFeePerGas: fees.maxFeePerGas ?? 2n * priority,
    });
    const [entry] = store.transactions(batch);
    if (entry) await this.#broadcast(entry.raw);
  }

  /** The same call at the same nonce, at fees a quarter higher: nodes ask for at least a tenth. */
  async #replace(entry: OutboxEntry): Promise<void> {
    const { to, data, chainId, gasLimit, nonce } = Transaction.from(entry.raw);
    const raised = (fee: bigint): bigint => (fee * 5n) / 4n + 1n;
    await this.#record(entry.batch, {
      to,
      data,
      chainId,
      gasLimit,
      nonce,
      type: 2,
      maxFeePerGas: raised(entry.maxFeePerGas),
      maxPriorityFeePerGas: raised(entry.maxPriorityFeePerGas),
    });
    const [replacement] = this.#options.store.transactions(entry.batch);
    if (replacement) await this.#broadcast(replacement.raw);
  }

  async #record(batch: number, transaction: TransactionRequest): Promise<void> {
    const { store, signer, now } = this.#options;
    const raw = (await signer.signTransaction(transaction)) as Hex;
    store.addTransaction({
      batch,
      nonce: Number(transaction.nonce),
      maxFeePerGas: BigInt(transaction.maxFeePerGas ?? 0),
      maxPriorityFeePerGas: BigInt(transaction.maxPriorityFeePerGas ?? 0),
      raw,
      hash: keccak256(raw) as Hex,
      sentAt: now(),
    });
  }

  /** A node that knows the transaction already, or has mined its nonce, says so with an error: the next look tells. */
  async #broadcast(raw: Hex): Promise<void> {
    try {
      await this.#options.provider.broadcastTransaction(raw);
    } catch (error) {
      if (isUnreachable(error)) throw error;
    }
  }

  /** While the chain cannot be reached nothing is lost: wait and look again. */
  async #patiently<T>(look: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await look();
      } catch (error) {
        if (!isUnreachable(error)) throw error;
        await this.#options.sleep(this.#options.pollInterval);
      }
    }
  }
}

/** Whether `error` says that no answer came, rather than a refusal. */
export function isUnreachable(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return code === "NETWORK_ERROR" || code === "TIMEOUT" || code === "SERVER_ERROR" || code === "ECONNREFUSED";
}
