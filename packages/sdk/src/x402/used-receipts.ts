import type { Hex } from "@bursar/protocol";

/** Remembers which receipts were served for. Replicas of one service share it. */
export interface UsedReceipts {
  /**
   * Marks a receipt as used, at once for all replicas.
   *
   * @param until - Unix seconds from which on the receipt is refused anyway.
   * @returns false if it was used before.
   */
  use(digest: Hex, until: bigint): boolean | Promise<boolean>;
  /** Gives a receipt back whose request was not served. */
  release(digest: Hex): void | Promise<void>;
}

/** Receipts that a memory holds before it looks for those that are over. */
const ENOUGH = 10_000;

/** Used receipts of one process, for as long as it runs. @param now - Unix seconds. */
export function memoryReceipts(now: () => bigint): UsedReceipts {
  const used = new Map<Hex, bigint>();
  return {
    use(digest, until) {
      if (used.has(digest)) return false;
      if (used.size >= ENOUGH) for (const [old, end] of used) if (end <= now()) used.delete(old);
      used.set(digest, until);
      return true;
    },
    release: (digest) => void used.delete(digest),
  };
}
