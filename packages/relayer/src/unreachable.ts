import { BursarError } from "@bursar/protocol";

/** An error as a node answers it (JSON-RPC 2.0, section 5.1). */
export interface RpcError {
  readonly code?: unknown;
  readonly message?: unknown;
  readonly data?: unknown;
}

/** Whether `error` says that no answer came, or that a node speaks of itself, rather than a refusal. */
export function isUnreachable(error: unknown): boolean {
  const { code, operation, error: said, payload, info } = (error ?? {}) as EthersError;
  if (code === "UNSUPPORTED_OPERATION") return operation === "bodyJson";
  if (code === "UNKNOWN_ERROR" || code === "CALL_EXCEPTION") {
    return isOfTheNode(said ?? info?.error ?? {}, (payload ?? info?.payload)?.method);
  }
  return typeof code === "string" && UNREACHABLE.has(code);
}

/** Where ethers keeps what a node said. */
interface EthersError {
  readonly code?: unknown;
  readonly operation?: unknown;
  readonly error?: RpcError;
  readonly payload?: { readonly method?: string };
  readonly info?: { readonly error?: RpcError; readonly payload?: { readonly method?: string } } | null;
}

/**
 * Whether a JSON-RPC error is about the node and not about what was asked, so that another node, or the same one later, may
 * answer: a limit on requests, a block that it does not have yet, a time-out of its own. A contract chooses the text with
 * which it reverts: such an error is never taken for one. Nor is a range of logs that is too wide: asking for less helps.
 */
export function isOfTheNode({ code, message, data }: RpcError, method?: string): boolean {
  const text = typeof message === "string" ? message : "";
  if (code === 3 || isHex(data) || /revert/i.test(text)) return false;
  if (method === "eth_getLogs" && QUERY_TEXT.test(text)) return false;
  return NODE_CODES.has(code) || NODE_TEXT.test(text);
}

/** Whether a node asks to be asked less. */
export function isLimit({ code, message }: RpcError): boolean {
  return code === LIMIT_EXCEEDED || code === 429 || LIMIT_TEXT.test(typeof message === "string" ? message : "");
}

/** What is told when no answer comes. It names no URL: that may hold a provider's key. */
export function unavailable(error: unknown): BursarError {
  return new BursarError(
    "chain-unavailable",
    `The chain does not answer: ${(error as { shortMessage?: string }).shortMessage ?? (error as Error).message}`,
    {},
    "Check --rpc; on a local machine start a node with `npx hardhat node`.",
  );
}

const isHex = (data: unknown): boolean => typeof data === "string" && /^0x[0-9a-f]{8,}$/i.test(data);

/** Limit exceeded (EIP-1474). */
const LIMIT_EXCEEDED = -32_005;

/** Resource unavailable, limit exceeded (EIP-1474); providers that repeat the HTTP status. */
const NODE_CODES = new Set<unknown>([-32_002, LIMIT_EXCEEDED, 429]);
const LIMIT_TEXT = /rate.?limit|too many requests|request limit|limit exceeded|exceeded .*(capacity|limit)/i;
/** What nodes say of logs that are too many; the code is often that of a limit. */
const QUERY_TEXT = /range|results|logs|blocks|response size|time/i;
const NODE_TEXT = new RegExp(
  `${LIMIT_TEXT.source}|header not found|missing trie node|unknown block|block not found|not synced|invalid block tag|timed? ?out|timeout`,
  "i",
);

/** Codes of ethers, then of the sockets below it. */
const UNREACHABLE = new Set([
  "NETWORK_ERROR",
  "TIMEOUT",
  "SERVER_ERROR",
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
]);
