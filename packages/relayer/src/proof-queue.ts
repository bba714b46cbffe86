import type { Address, Hex } from "@bursar/protocol";

/** A batch that waits for its proof, and what a worker must agree with to prove it. */
export interface ProofJob {
  readonly batch: number;
  readonly circuit: string;
  /** Names the verification key on chain. */
  readonly circuitId: Hex;
  readonly chainId: number;
  readonly settlement: Address;
  /** Unix seconds of the first receipt in it that falls due: the earliest is proved first. */
  readonly settleBy: number;
}

/** A job that one worker has, until it is done with it or does not renew it in time. */
export interface HeldJob extends ProofJob {
  /** Counts from 1. */
  readonly attempt: number;
  /** Keeps the job for another term. @returns whether it is still this worker's. */
  renew(): Promise<boolean>;
  /** The job is done: within a transaction, if that commits. Nothing changes if it is no longer this worker's. */
  complete(): Promise<void>;
  /** It is tried again after a while, or never where that was the last attempt or it cannot go well. */
  fail(reason: string, forGood: boolean): Promise<void>;
  /** Gives it back as if it had never been taken. */
  release(): Promise<void>;
}

/** A job that nobody tries again by itself. */
export interface DeadJob {
  readonly batch: number;
  readonly circuit: string;
  readonly reason: string;
}

export type ProofJobState = "waiting" | "active" | "dead";

/**
 * Batches on their way to whoever proves them. A job is given to one worker at a time, and again to another when the first
 * is not heard of: its proof is wanted at least once, and the books take the first.
 */
export interface ProofQueue {
  /** Seconds for which a worker has a job without renewing it. */
  readonly term: number;
  /** Within a transaction: the job is there if that commits. A batch has one job: a second changes nothing. */
  send(job: ProofJob): Promise<void>;
  /** Takes away the job of a batch that needs no proof any more. */
  cancel(job: Pick<ProofJob, "batch" | "circuit">): Promise<void>;
  /** The most urgent job of these circuits, if one waits. */
  take(circuits: readonly string[]): Promise<HeldJob | undefined>;
  counts(): Promise<Record<ProofJobState, number>>;
  dead(): Promise<DeadJob[]>;
  /** Has a dead job tried again from the start. @returns whether there was one. */
  retry(batch: number): Promise<boolean>;
  close(): Promise<void>;
}

export interface ProofQueueOptions {
  /** Times that a job is tried; 5 unless given. */
  readonly attempts?: number;
  /** Seconds after which a worker that is not heard of has lost its job, at least 10; 30 unless given. */
  readonly term?: number;
  /** Seconds before the second attempt, doubled before each further one up to five minutes; 5 unless given. */
  readonly backoff?: number;
  /** Whether this process looks for jobs whose workers are gone; true unless given. */
  readonly watch?: boolean;
}

export const QUEUE_DEFAULTS: Required<ProofQueueOptions> = { attempts: 5, term: 30, backoff: 5, watch: true };
/** Seconds before any further attempt, at most. */
export const LONGEST_BACKOFF = 300;

/** Said of a job whose worker is not heard of. */
export const UNHEARD = "the worker was not heard of any more";
