/** What a service needs to be paid. The stores for SQLite and Redis and the adapters have entry points of their own. */
export { PAYMENT_RESPONSE_HEADER, type Ask } from "./ask.ts";
export {
  chainMandates,
  type ChainMandatesOptions,
  type MandateSnapshot,
  type MandateSource,
  type MandateState,
} from "./mandates.ts";
export { MemoryReceipts } from "./memory.ts";
export {
  Paywall,
  type HoldOptions,
  type Paid,
  type PaidCall,
  type PaywallOptions,
  type QuoteRequest,
  type RouteOptions,
  type Serve,
  type Serving,
} from "./paywall.ts";
export type { Amount, Price } from "./price.ts";
export type { QuoteOptions } from "./quote.ts";
export {
  LATE_WINDOW,
  readRecord,
  type ExposureLimits,
  type Marked,
  type ReceiptKey,
  type ReceiptRecord,
  type ReceiptStore,
  type RefundRecord,
  type UsedReceipt,
} from "./receipts.ts";
export { refundRef, type Refund, type RefundOptions, type RefundPayer } from "./refund.ts";
