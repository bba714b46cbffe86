import { AgentLedger, type Address, type Domain, type Hex, type LedgerState } from "@bursar/protocol";

import { inTurn, readRecord, writeRecord, type Extras, type LedgerBook } from "./book.ts";
import { saltSecret, type AgentKey } from "./key.ts";

/** An agent's ledger and the book that it is kept in: one piece of work at a time, each beginning with what the book says. */
export class KeptLedger {
  readonly #domain: Domain;
  readonly #agent: Address;
  readonly #key: AgentKey;
  readonly #book: LedgerBook;
  readonly #turn = inTurn();
  #secret: Promise<Hex> | undefined;
  /** The ledger as it stands in `text`, for as long as the book says the same. */
  #kept: {
    readonly text: string | null;
    readonly ledger: AgentLedger;
    readonly extras: Extras;
  } | null = null;

  constructor(domain: Domain, agent: Address, key: AgentKey, book: LedgerBook) {
    this.#domain = domain;
    this.#agent = agent;
    this.#key = key;
    this.#book = book;
  }

  /** Runs `work` when all before it is done. A signal takes it out of the queue; once begun, `work` sees to it. */
  async run<T>(work: (ledger: AgentLedger) => Promise<T>, signal?: AbortSignal): Promise<T> {
    let begun = false;
    const done = this.#turn(() =>
      this.#book.exclusive(async () => {
        signal?.throwIfAborted();
        begun = true;
        try {
          return await work(await this.#open());
        } catch (error) {
          this.#kept = null;
          throw error;
        }
      }),
    );
    if (signal === undefined) return done;
    return new Promise<T>((resolve, reject) => {
      const leave = (): void => {
        if (!begun) reject(signal.reason);
      };
      signal.addEventListener("abort", leave, { once: true });
      done.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
    });
  }

  /** The ledger as it was seen last, null when it has to be read. */
  get seen(): AgentLedger | null {
    return this.#kept?.ledger ?? null;
  }

  /** What belongs to the pending payment. */
  get pendingExtras(): Extras {
    return this.#kept?.extras ?? {};
  }

  /** Writes the ledger into its book; inside {@link run}. */
  async keep(ledger: AgentLedger, extras: Extras = {}): Promise<void> {
    const text = writeRecord(this.#domain, this.#agent, { state: ledger.state, extras });
    if (text === this.#kept?.text) return;
    await this.#book.write(text);
    this.#kept = { text, ledger, extras };
  }

  async from(state: LedgerState | undefined): Promise<AgentLedger> {
    const secret = await this.secret();
    const own = { domain: this.#domain, agent: this.#agent, secret };
    return new AgentLedger({ ...own, ...(state === undefined ? {} : { state }) });
  }

  /** Behind the salts of the pages. */
  secret(): Promise<Hex> {
    this.#secret ??= saltSecret(this.#key, this.#domain);
    return this.#secret;
  }

  async #open(): Promise<AgentLedger> {
    const text = await this.#book.read();
    if (this.#kept?.text === text) return this.#kept.ledger;
    const record = text === null ? null : readRecord(this.#domain, this.#agent, text);
    const ledger = await this.from(record?.state);
    this.#kept = { text, ledger, extras: record?.extras ?? {} };
    return ledger;
  }
}
