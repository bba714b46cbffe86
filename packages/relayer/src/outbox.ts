import { BursarError, type Hex } from "@bursar/protocol";
import {
  isCallException,
  isError,
  keccak256,
  Transaction,
  type Provider,
  type Signer,
  type TransactionReceipt,
  type TransactionRequest,
} from "ethers";

import type { OutboxBook } from "./outbox-book.ts";
import type { OutboxEntry } from "./records.ts";

export interface OutboxOptions {
  store: OutboxBook;
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
 * Sends one transaction for each job, such as settling a batch, and follows it to its end. A transaction is signed and recorded before it is
 * broadcast, so that after a crash the same bytes are sent again and never a second payment; a replacement keeps the
 * nonce, so that at most one of them is mined.
 */
export class Outbox {
  readonly #options: OutboxOptions;
  #lane: Promise<unknown> = Promise.resolve();

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /**
   * Sends `request` for `job` unless it was sent before, and waits until it is final. Of several jobs one at a time has a
   * transaction that is not mined yet, in the order of the calls.
   * @throws {@link BursarError} `transaction-failed` when it was mined and reverted, or would be; `insufficient-funds` when
   * the account cannot pay the gas: it is recorded, and the next call goes on.
   */
  async deliver(job: string, request: TransactionRequest): Promise<TransactionReceipt> {
    const mined = this.#lane.then(() => this.#until(job, request, 1));
    this.#lane = mined.catch(() => undefined);
    await mined;
    const receipt = await this.#until(job, request, this.#options.confirmations);
    if (receipt.status === 0) {
      throw new BursarError("transaction-failed", `Transaction ${receipt.hash} was mined and reverted.`, {
        value: receipt.hash,
      });
    }
    return receipt;
  }

  /** Whether a transaction of the job was ever signed: then its end has to be awaited. */
  async begun(job: string): Promise<boolean> {
    return (await this.#options.store.transactions(job)).length > 0;
  }

  async #until(job: string, request: TransactionRequest, confirmations: number): Promise<TransactionReceipt> {
    const { sleep, pollInterval } = this.#options;
    for (;;) {
      const receipt = await this.#patiently(() => this.#look(job, request, confirmations));
      if (receipt) return receipt;
      await sleep(pollInterval);
    }
  }

  /**
   * @returns The receipt once it is final; until then keeps a transaction alive. Of several that were mined, which takes a
   * reorganisation or a nonce used by something else, the one that succeeded counts: the contract lets no second.
   */
  async #look(
    job: string,
    request: TransactionRequest,
    confirmations: number,
  ): Promise<TransactionReceipt | undefined> {
    const { store, provider, signer, replaceAfter, now } = this.#options;
    const sent = await store.transactions(job);
    const [newest] = sent;
    const nonceBefore = await provider.getTransactionCount(signer.getAddress(), "latest");
    const receipts = await Promise.all(sent.map(({ hash }) => provider.getTransactionReceipt(hash)));
    const mined = receipts.find((receipt) => receipt?.status === 1) ?? receipts.find((receipt) => receipt);
    if (mined) return (await mined.confirmations()) >= confirmations ? mined : undefined;
    const nonce = await provider.getTransactionCount(signer.getAddress(), "latest");
    if (!newest) await this.#sign(job, request, nonce);
    else if (nonce > newest.nonce) {
      // Used already before the receipts were read: by something else, not by a block that came meanwhile.
      if (nonceBefore > newest.nonce) await this.#sign(job, request, nonce);
    } else if (now() - newest.sentAt >= replaceAfter) await this.#replace(newest);
    else if (!(await provider.getTransaction(newest.hash))) await this.#broadcast(newest.raw);
    return undefined;
  }

  async #sign(job: string, request: TransactionRequest, nonce: number): Promise<void> {
    const { provider, signer } = this.#options;
    const from = await signer.getAddress();
    const fees = await provider.getFeeData();
    const priority = fees.maxPriorityFeePerGas ?? 1_000_000_000n;
    await this.#send(job, {
      ...request,
      from,
      type: 2,
      chainId: (await provider.getNetwork()).chainId,
      nonce,
      gasLimit: ((await this.#estimateGas({ ...request, from })) * 5n) / 4n,
      maxPriorityFeePerGas: priority,
      maxFeePerGas: fees.maxFeePerGas ?? 2n * priority,
    });
  }

  async #estimateGas(request: TransactionRequest): Promise<bigint> {
    try {
      return await this.#options.provider.estimateGas(request);
    } catch (error) {
      if (!isCallException(error)) throw error;
      throw new BursarError("transaction-failed", `The transaction would revert: ${error.shortMessage}`, {
        value: error.data ?? "0x",
      });
    }
  }

  /** The same call at the same nonce, at fees a quarter higher: nodes ask for at least a tenth. */
  async #replace(entry: OutboxEntry): Promise<void> {
    const { to, data, chainId, gasLimit, nonce } = Transaction.from(entry.raw);
    const raised = (fee: bigint): bigint => (fee * 5n) / 4n + 1n;
    await this.#send(entry.job, {
      to,
      data,
      chainId,
      gasLimit,
      nonce,
      type: 2,
      maxFeePerGas: raised(entry.maxFeePerGas),
      maxPriorityFeePerGas: raised(entry.maxPriorityFeePerGas),
    });
  }

  /** Signs, records, and only then broadcasts. */
  async #send(job: string, transaction: TransactionRequest): Promise<void> {
    const { store, signer, now } = this.#options;
    const raw = (await signer.signTransaction(transaction)) as Hex;
    await store.addTransaction({
      job,
      nonce: Number(transaction.nonce),
      maxFeePerGas: BigInt(transaction.maxFeePerGas ?? 0),
      maxPriorityFeePerGas: BigInt(transaction.maxPriorityFeePerGas ?? 0),
      raw,
      hash: keccak256(raw) as Hex,
      sentAt: now(),
    });
    await this.#broadcast(raw);
  }

  /** A node that knows the transaction already, or has mined its nonce, says so with an error: the next look tells. */
  async #broadcast(raw: Hex): Promise<void> {
    try {
      await this.#options.provider.broadcastTransaction(raw);
    } catch (error) {
      if (isUnreachable(error)) throw error;
      if (!isError(error, "INSUFFICIENT_FUNDS")) return;
      const account = await this.#options.signer.getAddress();
      throw new BursarError(
        "insufficient-funds",
        `The account ${account} has too little for gas.`,
        { value: account },
        `Send some to ${account}: what waits is sent again by itself.`,
      );
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

/** Whether `error` says that no answer came, or none from a node, rather than a refusal. */
export function isUnreachable(error: unknown): boolean {
  const { code, operation } = (error ?? {}) as { code?: unknown; operation?: unknown };
  if (code === "UNSUPPORTED_OPERATION") return operation === "bodyJson";
  return typeof code === "string" && UNREACHABLE.has(code);
}

/** Codes of ethers, then of the sockets below it. */
const UNREACHABLE = new Set([
  "NETWORK_ERROR",
  "TIMEOUT",
  "SERVER_ERROR",
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
]);
