import type { Output } from "./report.ts";
import type { Session } from "./session.ts";

/** What commands are added with: where they write, and a session that is closed after each. */
export interface Scene {
  readonly output: Output;
  readonly within: <A extends unknown[]>(
    work: (session: Session, ...args: A) => Promise<void>,
  ) => (...args: A) => Promise<void>;
}
