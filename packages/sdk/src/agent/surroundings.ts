/** What the agent takes from the machine that it runs on; each can be replaced. */
export interface Surroundings {
  readonly fetch: typeof globalThis.fetch;
  /** Unix seconds. */
  readonly now: () => bigint;
  /** Resolves after some milliseconds, rejects with the signal's reason. */
  readonly sleep: (milliseconds: number, signal?: AbortSignal) => Promise<void>;
  /** In [0, 1): spreads retries. */
  readonly random: () => number;
}

/** How long to try when there is no answer. */
export interface Patience {
  /** Tries in all. */
  readonly attempts: number;
  /** Milliseconds before the second try; doubles from try to try. */
  readonly pause: number;
  /** The longest pause, and the longest `Retry-After` that is waited for, in milliseconds. */
  readonly longest: number;
  /** Milliseconds for one try. */
  readonly timeout: number;
}

/** About half a minute in all, while nothing answers at once. */
export const PATIENCE: Patience = { attempts: 8, pause: 250, longest: 10_000, timeout: 15_000 };

/** The machine's own. */
export function surroundings(given: Partial<Surroundings> = {}): Surroundings {
  return {
    fetch: (input, init) => globalThis.fetch(input, init),
    now: () => BigInt(Math.floor(Date.now() / 1_000)),
    sleep: pause,
    random: Math.random,
    ...given,
  };
}

/** The pause after try `attempt` (from 1), in milliseconds: what the server asks for, else doubled and spread. */
export function pauseAfter(
  attempt: number,
  { pause: first, longest }: Patience,
  { now, random }: Surroundings,
  retryAfter: string | null = null,
): number {
  const asked = retryAfterOf(retryAfter, now());
  if (asked !== null) return Math.min(asked, longest);
  return Math.min(first * 2 ** (attempt - 1), longest) * (0.5 + random() / 2);
}

/** `signal`, ended after `milliseconds` too. */
export function within(milliseconds: number, signal: AbortSignal | undefined): AbortSignal {
  const limit = AbortSignal.timeout(milliseconds);
  return signal === undefined ? limit : AbortSignal.any([signal, limit]);
}

function retryAfterOf(header: string | null, now: bigint): number | null {
  if (header === null) return null;
  if (/^\d{1,6}$/.test(header)) return Number(header) * 1_000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? null : Math.max(0, date - Number(now) * 1_000);
}

function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", stop, { once: true });
  });
}
