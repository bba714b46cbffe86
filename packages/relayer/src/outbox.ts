import { BursarError, type Address, type Hex } from "@bursar/protocol";
import {
  isCallException,
  isError,
  keccak256,
  Transaction,
  type JsonRpcApiProvider,
  type Signer,
  type TransactionReceipt,
  type TransactionRequest,
} from "ethers";

import { Alarms } from "./alarms.ts";
import { firstFees, raisedFees, readMarket, type Fees } from "./fees.ts";
import { finalBlockOf, type Finality } from "./finality.ts";
import { GasBudget, minedCost, mostCost } from "./gas-budget.ts";
import { ALONE, type Lease } from "./lease.ts";
import type { OutboxBook } from "./outbox-book.ts";
import type { OutboxEntry } from "./records.ts";
import { tracedWithin } from "./trace.ts";
import { isUnreachable } from "./unreachable.ts";

export interface OutboxOptions {
  store: OutboxBook;
  provider: JsonRpcApiProvider;
  /** The only sender of this key's transactions: one lane, so nonces are never contested. */
  signer: Signer;
  /** When a transaction counts as final; 1 means its own block is enough. */
  finality: Finality;
  /** Seconds without inclusion after which the transaction is replaced at a higher fee. */
  replaceAfter: bigint;
  /** Milliseconds between looks at the chain. */
  pollInterval: number;
  /** Unix seconds. */
  now: () => bigint;
  sleep: (milliseconds: number) => Promise<void>;
  /** Wei a gas that no transaction pays more than, however long it waits; no bound without it. */
  maxFeePerGas?: bigint | undefined;
  /** Wei for gas in any 24 hours, above which what may wait does; no bound without it. */
  gasBudget?: bigint | undefined;
  /** Wei that should stay on the account, below which what may wait does. */
  minBalance?: bigint | undefined;
  /** Told of what an operator should know. */
  alarms?: Alarms | undefined;
  /** Told of each transaction that is final: its job, and what it cost in wei. */
  paid?: ((job: string, cost: bigint) => void) | undefined;
  /** Of whoever sends with this key, where several processes do: the others watch what it sends and sign nothing. */
  lease?: Pick<Lease, "run"> | undefined;
}

/** How a transaction stands: on chain and perhaps final, not to be begun yet, or on its way (undefined). */
type Look = { readonly receipt: TransactionReceipt; readonly final: boolean } | "held" | undefined;

/**
 * Sends one transaction for each job, such as settling a batch, and follows it to its end. A transaction is signed and recorded before it is
 * broadcast, so that after a crash the same bytes are sent again and never a second payment; a replacement keeps the
 * nonce, so that at most one of them is mined. All are of type 2 (EIP-1559): none carries a blob.
 */
export class Outbox {
  readonly #options: OutboxOptions;
  readonly #alarms: Alarms;
  #lane: Promise<unknown> = Promise.resolve();
  #budget: GasBudget | undefined;

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.#alarms = options.alarms ?? new Alarms();
  }

  /**
   * Sends `request` for `job` unless it was sent before, and waits until it is final. Of several jobs one at a time has a
   * transaction that is not mined yet, in the order of the calls; one that waits for money lets the others pass.
   * @param mayWaitUntil - Unix seconds until which it waits for the gas budget and the account's balance; without it, it goes
   * at once, as what has a deadline on chain must.
   * @throws {@link BursarError} `transaction-failed` when it was mined and reverted, or would be; `insufficient-funds` when
   * the account cannot pay the gas: it is recorded, and the next call goes on; `lease-lost`.
   */
  async deliver(job: string, request: TransactionRequest, mayWaitUntil = 0n): Promise<TransactionReceipt> {
    await tracedWithin("submission", {}, () => this.#submit(job, request, mayWaitUntil));
    const receipt = await this.#untilFinal(job, request);
    await this.#tellCost(job, receipt.hash as Hex);
    this.#alarms.clear("nonce-taken", job);
    if (receipt.status === 0) {
      throw new BursarError("transaction-failed", `Transaction ${receipt.hash} was mined and reverted.`, {
        value: receipt.hash,
      });
    }
    return receipt;
  }

  async #submit(job: string, request: TransactionRequest, mayWaitUntil: bigint): Promise<void> {
    const { sleep, pollInterval } = this.#options;
    while (!(await this.#inTurn(() => this.#untilMined(job, request, mayWaitUntil)))) await sleep(HELD * pollInterval);
  }

  async #tellCost(job: string, hash: Hex): Promise<void> {
    const { paid, provider } = this.#options;
    if (paid === undefined) return;
    const cost = await this.#patiently(() => minedCost(provider, hash));
    if (cost !== undefined) paid(job, cost);
  }

  /** Whether a transaction of the job was ever signed: then its end has to be awaited. */
  async begun(job: string): Promise<boolean> {
    return (await this.#options.store.transactions(job)).length > 0;
  }

  /** Raises and ends the alarm about the account's balance. @throws {@link BursarError} ethers' errors when no answer comes. */
  async watchBalance(): Promise<void> {
    await (await this.#money()).watchBalance();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#lane.then(work);
    this.#lane = turn.catch(() => undefined);
    return turn;
  }

  /** @returns false when it is not to be begun yet. */
  async #untilMined(job: string, request: TransactionRequest, mayWaitUntil: bigint): Promise<boolean> {
    const { sleep, pollInterval } = this.#options;
    for (;;) {
      const look = await this.#patiently(() => this.#look(job, request, mayWaitUntil));
      if (look !== undefined) return look !== "held";
      await sleep(pollInterval);
    }
  }

  async #untilFinal(job: string, request: TransactionRequest): Promise<TransactionReceipt> {
    const { sleep, pollInterval } = this.#options;
    for (;;) {
      const look = await this.#patiently(() => this.#look(job, request, 0n));
      if (look !== undefined && look !== "held" && look.final) return look.receipt;
      await sleep(pollInterval);
    }
  }

  /**
   * Looks where the job stands and keeps a transaction of it alive. The final block is read before the receipts: a receipt in
   * it was final when it was read.
   */
  async #look(job: string, request: TransactionRequest, mayWaitUntil: bigint): Promise<Look> {
    const { store, provider, signer, finality, replaceAfter, now } = this.#options;
    const final = await finalBlockOf(provider, finality);
    const sent = await store.transactions(job);
    const receipt = await this.#mined(sent);
    if (receipt) return { receipt, final: receipt.blockNumber <= final };
    const nonce = await provider.getTransactionCount(signer.getAddress(), "latest");
    const [newest] = sent;
    if (!newest) return this.#begin(job, request, nonce, mayWaitUntil);
    if (nonce >= newest.nonce) this.#alarms.clear("nonce-gap", job);
    if (nonce > newest.nonce) await this.#renew(job, request, newest);
    else if (nonce < newest.nonce) await this.#closeGap(nonce, newest);
    else if (now() - newest.sentAt >= replaceAfter) await this.#replace(newest);
    else await this.#keepAlive(newest);
    return undefined;
  }

  /**
   * The receipt of a job. Of several that were mined, which takes a reorganisation or a nonce used by something else, the one
   * that succeeded counts: the contract lets no second.
   */
  async #mined(sent: readonly OutboxEntry[]): Promise<TransactionReceipt | undefined> {
    const { provider } = this.#options;
    const receipts = await Promise.all(sent.map(({ hash }) => provider.getTransactionReceipt(hash)));
    return (
      receipts.find((receipt) => receipt?.status === 1) ?? receipts.find((receipt) => receipt !== null) ?? undefined
    );
  }

  /** Signs a job's first transaction, unless fees are above the cap or it waits for money. */
  async #begin(
    job: string,
    request: TransactionRequest,
    nonce: number,
    mayWaitUntil: bigint,
  ): Promise<"held" | undefined> {
    const { now } = this.#options;
    const transaction = await this.#prepare(request, nonce);
    if (!transaction) return undefined;
    const money = await this.#money();
    if (!(await money.allows(mostCost(transaction))) && now() < mayWaitUntil) return "held";
    await this.#send(job, transaction);
    return undefined;
  }

  /**
   * The nonce was used by something else. Only once that is final is the job signed anew at the next one: until then a
   * reorganisation could bring the first transaction back, and both would be mined.
   */
  async #renew(job: string, request: TransactionRequest, { nonce, hash }: OutboxEntry): Promise<void> {
    const { store, provider, signer, finality } = this.#options;
    const final = await finalBlockOf(provider, finality);
    if ((await provider.getTransactionCount(signer.getAddress(), final)) <= nonce) return;
    if (await this.#mined(await store.transactions(job))) return;
    const account = await signer.getAddress();
    this.#alarms.raise({
      code: "nonce-taken",
      about: job,
      message: `Something else sent with the key of ${account}: ${hash} can never be mined, and is sent anew.`,
      value: nonce,
    });
    const transaction = await this.#prepare(request, await provider.getTransactionCount(account, "latest"));
    if (transaction) await this.#send(job, transaction);
  }

  /** Before a transaction can be mined, the one with the nonce before it must: our own again, or an empty one. */
  async #closeGap(missing: number, newest: OutboxEntry): Promise<void> {
    const { store, signer, replaceAfter, now } = this.#options;
    const account = (await signer.getAddress()) as Address;
    const isStuck = now() - newest.sentAt >= replaceAfter;
    if (isStuck) {
      const message = `Transaction ${missing} of ${account} is missing on chain: ${newest.hash} waits for it.`;
      this.#alarms.raise({ code: "nonce-gap", about: newest.job, message, value: missing, limit: newest.nonce });
    }
    const recorded = await store.transactionsAt(missing);
    const ours = recorded.find(({ raw }) => Transaction.from(raw).from === account);
    if (ours && now() - ours.sentAt >= replaceAfter) await this.#replace(ours);
    else if (ours) await this.#keepAlive(ours);
    else if (isStuck) {
      const empty = await this.#prepare({ to: account, data: "0x" }, missing);
      if (empty) await this.#send(`gap:${missing}`, empty);
    }
  }

  /** @returns undefined while fees are above the cap. */
  async #prepare(request: TransactionRequest, nonce: number): Promise<Unsigned | undefined> {
    const { provider, signer, maxFeePerGas: cap } = this.#options;
    const market = await readMarket(provider);
    const fees = firstFees(market, cap);
    if (!this.#isBelowCap(fees, market.baseFee + market.priority)) return undefined;
    const from = await signer.getAddress();
    const gasLimit = ((await this.#estimateGas({ ...request, from })) * 5n) / 4n;
    const { chainId } = await provider.getNetwork();
    return { ...request, from, type: 2, chainId, nonce, gasLimit, ...fees };
  }

  #isBelowCap(fees: Fees | null, value: bigint): fees is Fees {
    const limit = this.#options.maxFeePerGas;
    if (fees !== null || limit === undefined) {
      this.#alarms.clear("fee-above-cap", "fees");
      return true;
    }
    const message = `Blocks take ${value} wei a gas, the cap is ${limit}: nothing new is sent until they take less.`;
    this.#alarms.raise({ code: "fee-above-cap", about: "fees", message, value, limit });
    return false;
  }

  async #estimateGas(request: TransactionRequest): Promise<bigint> {
    try {
      return await this.#options.provider.estimateGas(request);
    } catch (error) {
      if (!isCallException(error) || isUnreachable(error)) throw error;
      throw new BursarError("transaction-failed", `The transaction would revert: ${error.shortMessage}`, {
        value: error.data ?? "0x",
      });
    }
  }

  /** The same call at the same nonce, at higher fees as far as the cap goes. */
  async #replace(entry: OutboxEntry): Promise<void> {
    const { provider, maxFeePerGas: cap } = this.#options;
    const market = await readMarket(provider);
    const fees = raisedFees(entry, market, cap);
    if (!this.#isBelowCap(fees, (entry.maxFeePerGas * 9n) / 8n)) return this.#keepAlive(entry);
    const { to, data, chainId, gasLimit, nonce } = Transaction.from(entry.raw);
    await this.#send(entry.job, { to, data, chainId, gasLimit, nonce, type: 2, ...fees });
  }

  /** Signs, records, and only then broadcasts. */
  async #send(job: string, transaction: Unsigned): Promise<void> {
    const { store, signer, now, lease = ALONE } = this.#options;
    const { nonce, maxFeePerGas, maxPriorityFeePerGas } = transaction;
    await lease.run(async () => {
      const raw = (await signer.signTransaction(transaction)) as Hex;
      const hash = keccak256(raw) as Hex;
      await store.addTransaction({ job, nonce, maxFeePerGas, maxPriorityFeePerGas, raw, hash, sentAt: now() });
      await this.#broadcast(raw);
    });
  }

  async #keepAlive({ hash, raw }: OutboxEntry): Promise<void> {
    if (!(await this.#options.provider.getTransaction(hash))) await this.#broadcast(raw);
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

  async #money(): Promise<GasBudget> {
    const { store, provider, signer, gasBudget: perDay, minBalance, now } = this.#options;
    const account = (await signer.getAddress()) as Address;
    this.#budget ??= new GasBudget({ store, provider, account, perDay, minBalance, alarms: this.#alarms, now });
    return this.#budget;
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

/** A type 2 transaction without its signature. */
type Unsigned = TransactionRequest & Fees & { readonly type: 2; readonly nonce: number; readonly gasLimit: bigint };

/** Looks of one that waits for money are so many times rarer. */
const HELD = 10;
