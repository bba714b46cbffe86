export {
  ALERT_ID_HEADER,
  ALERT_SIGNATURE_HEADER,
  Alerts,
  signAlert,
  type Alert,
  type AlertLevel,
  type AlertsOptions,
} from "./alerts.ts";
export { WatchBook, type Action, type ActionKind, type OwnedMandate, type WatchedRecord } from "./book.ts";
export { CHALLENGE_POLICIES, follow, type ChallengePolicy, type ReceiptState, type Step } from "./follow.ts";
export { type Intake, type Taken } from "./intake.ts";
export { type ReceiptedPayment, type Watched } from "./receipt.ts";
export {
  createIntake,
  createWatch,
  startWatching,
  WATCH_DEFAULTS,
  watchOnce,
  type Watch,
  type WatchConfig,
  type Watching,
  type WatchParts,
} from "./service.ts";
export { type Watcher } from "./watcher.ts";
