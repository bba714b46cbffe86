import {
  addressSchema,
  BursarError,
  ledgerStateSchema,
  parseWire,
  signedPaymentSchema,
  signedQuoteSchema,
  toWire,
  uint256Schema,
  type Address,
  type Domain,
  type LedgerState,
  type SignedPayment,
} from "@bursar/protocol";
import { z } from "zod";

/**
 * Where an agent keeps its ledger, one book for each agent. A payment is written here before it leaves the machine: an
 * agent that comes back with its book never signs two payments for one number.
 */
export interface LedgerBook {
  /** What was written last, or null. */
  read(): Promise<string | null>;
  /** Resolves when the text will survive a crash. */
  write(text: string): Promise<void>;
  /** Runs `work` while nobody else, in this process or another, uses the book. */
  exclusive<T>(work: () => Promise<T>): Promise<T>;
}

/** A book that is gone with the process: what was spent is then read back from the processor, see `Agent.recover`. */
export function memoryBook(): LedgerBook {
  let kept: string | null = null;
  return {
    read: () => Promise.resolve(kept),
    write: (text) => {
      kept = text;
      return Promise.resolve();
    },
    exclusive: inTurn(),
  };
}

/** A place for texts by name, such as a wrapped `localStorage` or {@link indexedDbStorage}. */
export interface TextStorage {
  get(name: string): string | null | undefined | Promise<string | null | undefined>;
  set(name: string, text: string): unknown;
}

/**
 * A book in a browser's storage. Where the browser has Web Locks the tabs that share the storage take turns; elsewhere
 * use a storage of one tab alone.
 */
export function storageBook(storage: TextStorage, name: string): LedgerBook {
  const turn = inTurn();
  return {
    read: async () => (await storage.get(name)) ?? null,
    write: async (text) => {
      await storage.set(name, text);
    },
    exclusive: (work) => turn(() => underWebLock(`bursar:${name}`, work)),
  };
}

/** Texts in an IndexedDB database, written through to disk. */
export function indexedDbStorage(database = "bursar"): TextStorage {
  const STORE = "texts";
  const opened = (): Promise<IDBDatabase> => {
    const request = indexedDB.open(database, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error(`the database ${database} is blocked`));
    });
  };
  const run = async <T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> => {
    const db = await opened();
    try {
      return await new Promise<T>((resolve, reject) => {
        const transaction = db.transaction(STORE, mode, { durability: "strict" });
        const request = act(transaction.objectStore(STORE));
        transaction.oncomplete = () => resolve(request.result);
        transaction.onabort = () => reject(transaction.error);
      });
    } finally {
      db.close();
    }
  };
  return {
    get: async (name) => (await run<unknown>("readonly", (store) => store.get(name))) as string | undefined,
    set: (name, text) => run("readwrite", (store) => store.put(text, name)),
  };
}

/** Runs what it is given one after the other. */
export function inTurn(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const run = last.then(work);
    last = run.catch(() => undefined);
    return run;
  };
}

async function underWebLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const locks = (globalThis.navigator as Partial<Navigator> | undefined)?.locks;
  return locks === undefined ? work() : locks.request(name, work);
}

/** What stands in a book. */
export interface BookRecord {
  readonly state: LedgerState;
  /** What belongs to the pending payment. */
  readonly extras: Extras;
}

/** What goes with a payment besides its signature: the payee's offer, and whose hold is paid. */
export type Extras = Pick<SignedPayment, "quote" | "hold">;

const recordSchema = z.strictObject({
  version: z.literal(1),
  chainId: uint256Schema,
  registry: addressSchema,
  agent: addressSchema,
  state: ledgerStateSchema,
  quote: signedQuoteSchema.optional(),
  hold: signedPaymentSchema.shape.hold,
});

/** A book's text. */
export function writeRecord({ chainId, registry }: Domain, agent: Address, { state, extras }: BookRecord): string {
  return JSON.stringify(toWire({ chainId, registry, agent, state, ...extras, version: 1 }));
}

/** Reads a book's text. @throws BursarError `malformed-input` for a damaged book or one of another agent. */
export function readRecord(domain: Domain, agent: Address, text: string): BookRecord {
  const { state, quote, hold, ...owner } = parseWire(recordSchema, jsonOf(text));
  if (owner.agent !== agent || owner.chainId !== domain.chainId || owner.registry !== domain.registry) {
    throw new BursarError(
      "malformed-input",
      `The book is the ledger of ${owner.agent} on chain ${owner.chainId}.`,
      { value: owner.agent, limit: agent },
      "Give each agent a book of its own.",
    );
  }
  return { state, extras: { ...(quote && { quote }), ...(hold && { hold }) } };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new BursarError(
      "malformed-input",
      "The ledger's book is damaged.",
      { value: text.slice(0, 80) },
      "Move it away: the agent then reads its ledger back from the processor.",
    );
  }
}
