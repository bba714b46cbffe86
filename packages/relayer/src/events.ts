import type { ErrorCode } from "@bursar/protocol";

import type { PaymentRail } from "./records.ts";

/** What a processor tells whoever counts; it never waits for them. */
export interface ProcessorEvents {
  /** A payment was accepted and is on disk. */
  accepted(rail: PaymentRail): void;
  /** A payment was refused. */
  refused(rail: PaymentRail, code: ErrorCode): void;
  /** Requests that shared one commit, and how long it took, fsync included. */
  committed(requests: number, milliseconds: number): void;
}

export const silent: ProcessorEvents = {
  accepted: () => undefined,
  refused: () => undefined,
  committed: () => undefined,
};
