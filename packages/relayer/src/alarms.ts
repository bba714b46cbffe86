/**
 * What an operator is told of a chain. `node-*`: one of several nodes is left out. `fee-above-cap`: nothing is sent at these
 * fees. `gas-budget-spent`, `balance-low`: what may wait does. `nonce-taken`: something else sends with the key. `nonce-gap`: an
 * earlier transaction of the key is missing. `settlement-vanished`: a block that was final is gone.
 */
export type AlarmCode =
  | "node-unreachable"
  | "node-limited"
  | "node-behind"
  | "node-wrong-chain"
  | "fee-above-cap"
  | "gas-budget-spent"
  | "balance-low"
  | "nonce-taken"
  | "nonce-gap"
  | "settlement-vanished";

export interface Alarm {
  readonly code: AlarmCode;
  /** Which node, account or job: an alarm is one code about one subject. */
  readonly about: string;
  readonly message: string;
  readonly value: bigint | number | string;
  readonly limit?: bigint | number | string;
}

/** `over` is true when what the alarm told of has ended. */
export type AlarmListener = (alarm: Alarm, over: boolean) => void;

/** Tells of each alarm once when it begins and once when it is over, however often its cause is seen. */
export class Alarms {
  readonly #listeners: AlarmListener[] = [];
  readonly #raised = new Map<string, Alarm>();

  /** Those that are not over. */
  get raised(): Alarm[] {
    return [...this.#raised.values()];
  }

  /** `tell` hears at once of those that are not over. */
  listen(tell: AlarmListener): void {
    this.#listeners.push(tell);
    for (const alarm of this.#raised.values()) tell(alarm, false);
  }

  /** An alarm that goes on is told of again only by {@link raised}, with its newest value. */
  raise(alarm: Alarm): void {
    const key = keyOf(alarm.code, alarm.about);
    const isNew = !this.#raised.has(key);
    this.#raised.set(key, alarm);
    if (isNew) for (const tell of this.#listeners) tell(alarm, false);
  }

  clear(code: AlarmCode, about: string): void {
    const key = keyOf(code, about);
    const alarm = this.#raised.get(key);
    if (!alarm) return;
    this.#raised.delete(key);
    for (const tell of this.#listeners) tell(alarm, true);
  }
}

const keyOf = (code: AlarmCode, about: string): string => `${code} ${about}`;
