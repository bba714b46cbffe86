import { randomBytes } from "node:crypto";
import { appendFile, link, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout } from "node:timers/promises";

import { inTurn, type LedgerBook } from "./book.ts";
import { freshKey, openKey, sealKey, type SessionKey } from "./key.ts";
import { readPaid, writePaid, type ReceiptBook } from "./receipt-book.ts";

/** Milliseconds between two looks at a lock that another process holds. */
const LOCK_INTERVAL = 20;
const SQLITE_BUSY = 5;

/**
 * The session key in an encrypted file (Web3 Secret Storage, version 3; mode 0600), made if it is missing. One file for
 * each mandate.
 *
 * @param options.work - scrypt's work factor for a new file; 131,072 unless given.
 * @throws BursarError `key-corrupt` when file and password do not fit.
 */
export async function keyFile(path: string, password: string, options: { work?: number } = {}): Promise<SessionKey> {
  const sealed = await readText(path);
  if (sealed !== null) return openKey(sealed, password);
  const fresh = freshKey();
  const temporary = `${path}.${randomBytes(6).toString("hex")}`;
  await writeDurably(temporary, await sealKey(fresh, password, options));
  try {
    await link(temporary, path);
    await syncFolder(path);
    return fresh;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return await openKey((await readText(path)) ?? "", password);
  } finally {
    await rm(temporary, { force: true });
  }
}

/**
 * A book in a file (mode 0600), replaced as a whole and synced to disk at each change. Processes that share it take
 * turns, by a lock in `<path>.lock` that ends with its holder.
 */
export function fileBook(path: string): LedgerBook {
  const turn = inTurn();
  return {
    read: () => readText(path),
    write: async (text) => {
      await writeDurably(`${path}.new`, text);
      await rename(`${path}.new`, path);
      await syncFolder(path);
    },
    exclusive: (work) =>
      turn(async () => {
        await mkdir(dirname(resolve(path)), { recursive: true, mode: 0o700 });
        const lock = new DatabaseSync(`${path}.lock`);
        try {
          while (!held(lock)) await setTimeout(LOCK_INTERVAL);
          return await work();
        } finally {
          lock.close();
        }
      }),
  };
}

/**
 * A book of receipts in a file (mode 0600), one line of JSON each; `bursar receipts restore` reads it too. It is not synced
 * with each payment: it is needed only when the processor loses the same payments at the same time.
 */
export function fileReceipts(path: string): ReceiptBook {
  const turn = inTurn();
  const all = async () => readPaid((await readText(path)) ?? "");
  return {
    add: (paid) =>
      turn(async () => {
        await mkdir(dirname(resolve(path)), { recursive: true, mode: 0o700 });
        await appendFile(path, writePaid(paid), { mode: 0o600 });
      }),
    all: () => turn(all),
    forget: (seq) =>
      turn(async () => {
        const before = await all();
        const kept = before.filter(({ payment }) => payment.payment.seq >= seq);
        if (kept.length === before.length) return;
        await writeDurably(`${path}.new`, kept.map(writePaid).join(""));
        await rename(`${path}.new`, path);
      }),
  };
}

/** The operating system drops the lock with the process, however it ends. */
function held(lock: DatabaseSync): boolean {
  try {
    lock.exec("BEGIN EXCLUSIVE");
    return true;
  } catch (error) {
    if ((error as { errcode?: unknown }).errcode === SQLITE_BUSY) return false;
    throw error;
  }
}

async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  await mkdir(dirname(resolve(path)), { recursive: true, mode: 0o700 });
  const file = await open(path, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(resolve(path)), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
