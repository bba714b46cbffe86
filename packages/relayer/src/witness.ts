import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, mkdirSync, openSync, readSync, writeSync } from "node:fs";
import { dirname } from "node:path";

import { BursarError, type Hex } from "@bursar/protocol";

/** A payment that a receipt was given for, by the receipt's number. */
export interface Witnessed {
  readonly logIndex: bigint;
  /** EIP-712 digest of the payment. */
  readonly digest: Hex;
}

/** Number, digest, and the first bytes of the SHA-256 of both. */
const RECORD = 48;
const DIGEST = 8;
const CHECK = 40;

/**
 * The receipt with the highest number that this process has told, in a file that is no part of the books: books that lack
 * it were put back to an earlier time. It is written before each answer and never synced, which costs microseconds and
 * survives the process, however that ends. Two records take turns, so that one that was torn leaves the one before it.
 */
export class Witness {
  readonly #file: number;
  readonly #bytes = Buffer.alloc(RECORD);
  #last: Witnessed | null;
  #next: 0 | 1;

  private constructor(file: number, records: readonly (Witnessed | null)[]) {
    const [first = null, second = null] = records;
    this.#file = file;
    const secondIsLast = second !== null && (first === null || second.logIndex > first.logIndex);
    this.#last = secondIsLast ? second : first;
    this.#next = secondIsLast ? 0 : 1;
  }

  /**
   * @param path - its file, made if it is missing; one for each process and each set of books.
   * @throws BursarError `store-unavailable` for a file that is damaged.
   */
  static open(path: string): Witness {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const file = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    const { size } = fstatSync(file);
    const records = [0, 1].map((turn) => readRecord(file, turn));
    if (size > 0 && records.every((record) => record === null)) {
      closeSync(file);
      throw new BursarError(
        "store-unavailable",
        `${path} is damaged: it tells no receipt.`,
        { value: path },
        "Bring it back from a copy. Without it nobody notices that books were put back: remove it only if these were not.",
      );
    }
    return new Witness(file, records);
  }

  /** What was noted last, or null before the first receipt. */
  get last(): Witnessed | null {
    return this.#last;
  }

  /** Keeps a receipt if none with a higher number was told. */
  note({ logIndex, digest }: Witnessed): void {
    if (this.#last !== null && logIndex <= this.#last.logIndex) return;
    this.#bytes.writeBigUInt64BE(logIndex);
    this.#bytes.write(digest.slice(2), DIGEST, "hex");
    checksum(this.#bytes).copy(this.#bytes, CHECK);
    writeSync(this.#file, this.#bytes, 0, RECORD, this.#next * RECORD);
    this.#last = { logIndex, digest };
    this.#next = this.#next === 0 ? 1 : 0;
  }

  close(): void {
    closeSync(this.#file);
  }
}

function readRecord(file: number, turn: number): Witnessed | null {
  const bytes = Buffer.alloc(RECORD);
  const read = readSync(file, bytes, 0, RECORD, turn * RECORD);
  if (read < RECORD || !checksum(bytes).equals(bytes.subarray(CHECK))) return null;
  return { logIndex: bytes.readBigUInt64BE(), digest: `0x${bytes.toString("hex", DIGEST, CHECK)}` };
}

const checksum = (bytes: Buffer): Buffer =>
  createHash("sha256")
    .update(bytes.subarray(0, CHECK))
    .digest()
    .subarray(0, RECORD - CHECK);
