export { BursarClientScheme, type BursarClientOptions, type Payer } from "./client.ts";
export { BursarServerScheme, type BursarServerOptions } from "./server.ts";
export { memoryReceipts, type UsedReceipts } from "./used-receipts.ts";
