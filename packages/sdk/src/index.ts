export * from "./agent/index.ts";
export * from "./payee/index.ts";
