/** Something that is done again and again while a service runs. */
export interface Chore {
  readonly name: string;
  /** Milliseconds from the end of one time to the beginning of the next. */
  readonly every: number;
  readonly run: () => Promise<unknown>;
}

export interface RoundsOptions {
  readonly chores: readonly Chore[];
  /** A chore that failed is done again at its next time. */
  readonly failed: (name: string, error: unknown) => void;
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly sleep: (milliseconds: number, signal: AbortSignal) => Promise<unknown>;
}

/** Chores side by side, each never twice at once: one that waits for the chain holds up no other. */
export class Rounds {
  readonly #options: RoundsOptions;
  readonly #stopping = new AbortController();
  #running: Promise<unknown> | null = null;

  constructor(options: RoundsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running ??= Promise.all(this.#options.chores.map((chore) => this.#repeat(chore)));
  }

  /** Resolves when what is being done is done, or after `patience` milliseconds. Nothing new is begun. */
  async stop(patience: number): Promise<void> {
    this.#stopping.abort();
    const late = new AbortController();
    await Promise.race([this.#running, this.#options.sleep(patience, late.signal)]);
    late.abort();
  }

  async #repeat({ name, every, run }: Chore): Promise<void> {
    const { failed, sleep } = this.#options;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await run();
      } catch (error) {
        failed(name, error);
      }
      await sleep(every, signal);
    }
  }
}
