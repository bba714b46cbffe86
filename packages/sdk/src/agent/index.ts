export { Agent } from "./agent.ts";
export type {
  AgentHooks,
  AgentOptions,
  AgentSettings,
  Bought,
  Estimate,
  FetchOptions,
  Purchase,
  Recovery,
} from "./agent.ts";
export { indexedDbStorage, memoryBook, storageBook, type LedgerBook, type TextStorage } from "./book.ts";
export { draftIntent, type Duration, type IntentInput, type Money } from "./draft-intent.ts";
export type { Expected } from "./expectation.ts";
export { explain } from "./explain.ts";
export { freshKey, openKey, sealKey, type AgentKey, type SessionKey } from "./key.ts";
export { openMandate, type OpeningMandate, type OpenMandateOptions, type WaitOptions } from "./open-mandate.ts";
export { PaidNotServed } from "./paid-fetch.ts";
export type { LedgerEntry, LedgerFilter, MandateStatus, PaymentStatus, ProcessorInfo } from "./processor-client.ts";
export { memoryReceipts, type ReceiptBook } from "./receipt-book.ts";
export type { Patience, Surroundings } from "./surroundings.ts";
