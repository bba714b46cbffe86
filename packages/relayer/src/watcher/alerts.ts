import { createHmac } from "node:crypto";

import type { Logger } from "pino";

import type { WatchBook } from "./book.ts";

export type AlertLevel = "info" | "warning" | "critical";

/** Something that a person, or a program of theirs, should know. */
export interface Alert {
  /** Names it for ever: whoever gets it twice drops the second. */
  readonly id: string;
  readonly kind: string;
  readonly level: AlertLevel;
  /** Unix seconds. */
  readonly at: bigint;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

export interface AlertsOptions {
  readonly book: WatchBook;
  /** Where they are posted, and the secret that signs them; null logs them only. */
  readonly webhook: { readonly url: string; readonly secret: string } | null;
  readonly logger: Logger;
  /** Unix seconds. */
  readonly now: () => bigint;
}

/** Header of a posted alert: `t=<Unix seconds>,v1=<HMAC-SHA256 of "<t>.<body>" in hexadecimal>`. */
export const ALERT_SIGNATURE_HEADER = "bursar-signature";
/** Header with the alert's id. */
export const ALERT_ID_HEADER = "bursar-alert";

const TIMEOUT = 10_000;
const AT_ONCE = 20;
/** Seconds until a second attempt, doubled with each. */
const FIRST_DELAY = 5;
const LONGEST_DELAY = 3_600;

/**
 * Keeps alerts on disk until the webhook has taken them: each is delivered at least once, in the order in which they were
 * raised unless one is refused, and under the same id each time.
 */
export class Alerts {
  readonly #options: AlertsOptions;

  constructor(options: AlertsOptions) {
    this.#options = options;
  }

  /** Raises an alert, unless one of this id was raised before. Without a webhook the log is where it goes. */
  raise(alert: Omit<Alert, "at">): void {
    const { book, webhook, logger, now } = this.#options;
    if (!book.addAlert({ ...alert, at: now() })) return;
    if (webhook === null) book.delivered(alert.id);
    const { level, message, ...rest } = alert;
    logger[LOG_LEVELS[level]]({ alert: rest }, message);
  }

  /** Posts what is due, once each. @returns how many were taken. */
  async deliver(): Promise<number> {
    const { book, webhook } = this.#options;
    if (webhook === null) return 0;
    let taken = 0;
    for (let due = book.dueAlerts(AT_ONCE); due.length > 0; due = book.dueAlerts(AT_ONCE)) {
      for (const alert of due) if (await this.#post(alert, webhook)) ++taken;
    }
    return taken;
  }

  async #post(
    { id, body, attempts }: { id: string; body: string; attempts: number },
    { url, secret }: { url: string; secret: string },
  ): Promise<boolean> {
    const { book, logger, now } = this.#options;
    const headers = {
      "content-type": "application/json",
      [ALERT_ID_HEADER]: id,
      [ALERT_SIGNATURE_HEADER]: signAlert(secret, now(), body),
    };
    const refused = await postTo(url, headers, body);
    if (refused === null) {
      book.delivered(id);
      return true;
    }
    const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.min(attempts, 20));
    book.postpone(id, delay);
    logger.warn({ alert: id, reason: refused, delay }, "the webhook did not take an alert");
    return false;
  }
}

/** Value of {@link ALERT_SIGNATURE_HEADER} for a body sent at `time` (Unix seconds). */
export function signAlert(secret: string, time: bigint, body: string): string {
  return `t=${time},v1=${createHmac("sha256", secret).update(`${time}.${body}`).digest("hex")}`;
}

/** @returns null if it was taken, else why not. A redirection is no answer: it could lead anywhere. */
async function postTo(url: string, headers: Record<string, string>, body: string): Promise<string | null> {
  try {
    const signal = AbortSignal.timeout(TIMEOUT);
    const response = await fetch(url, { method: "POST", headers, body, signal, redirect: "manual" });
    await response.body?.cancel();
    return response.ok ? null : `status ${response.status}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const LOG_LEVELS = { info: "info", warning: "warn", critical: "error" } as const;
