import { BursarError, type Address, type Domain } from "@bursar/protocol";

import { unknownPayment } from "./memory.ts";
import {
  keyOf,
  railName,
  readRecord,
  readRefund,
  rememberUntil,
  seqText,
  writeRecord,
  writeRefund,
  type ExposureLimits,
  type Marked,
  type ReceiptKey,
  type ReceiptRecord,
  type ReceiptStore,
  type RefundRecord,
  type UsedReceipt,
} from "./receipts.ts";

/** What is used of a client of the package `redis`, connected. */
export interface RedisClient {
  sendCommand(args: readonly string[]): Promise<unknown>;
}

export interface RedisReceiptsOptions {
  /** Begins every key; `bursar` unless given. In braces it keeps all keys in one slot of a cluster. */
  readonly prefix?: string;
  /** Days for which payments and receipts are kept as evidence after they were due; 30 unless given. */
  readonly evidenceDays?: number;
}

/**
 * Uses a receipt. Keys: the used mark, the record, the exposure's hash (the field `all` and one an agent), the agent's
 * open payments by number. Sums stay exact: Lua counts to 2^53.
 */
const MARK = `
local used, record, exposure, open = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local signature, json, usedUntil, recordUntil, settled = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local agent, seq, amount, most, mostOwn, processor = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local all = tonumber(redis.call('HGET', exposure, 'all') or '0')
local known = redis.call('HGET', record, 'signature')
if known and known ~= signature then return {'used', '0', '0'} end
if not known and settled == '0' then
  local own = tonumber(redis.call('HGET', exposure, agent) or '0') + tonumber(amount)
  if own > tonumber(mostOwn) then return {'mandate', string.format('%.0f', own), mostOwn} end
  if all + tonumber(amount) > tonumber(most) then
    return {'processor', string.format('%.0f', all + tonumber(amount)), most}
  end
end
if not redis.call('SET', used, signature, 'NX', 'PXAT', usedUntil) then return {'used', '0', '0'} end
if not known then
  redis.call('HSET', record, 'signature', signature, 'json', json, 'settled', settled, 'refund', 'null')
  redis.call('PEXPIREAT', record, recordUntil)
  if settled == '0' then
    all = redis.call('HINCRBY', exposure, 'all', amount)
    redis.call('HINCRBY', exposure, agent, amount)
    redis.call('ZADD', open, 0, seq .. ':' .. amount .. ':' .. processor)
  end
end
redis.call('HSET', record, 'released', '0')
return {'marked', string.format('%.0f', all), '0'}
`;

/** Frees what an agent's payments up to a number expose. The members sort as their numbers do. */
const SETTLED = `
local open, upTo, agent, prefix, recordPrefix = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
for _, member in ipairs(redis.call('ZRANGEBYLEX', open, '-', '[' .. upTo .. ';')) do
  local seq, amount, processor = string.match(member, '^(%d+):(%d+):(.+)$')
  local exposure = prefix .. processor
  redis.call('HINCRBY', exposure, 'all', '-' .. amount)
  if redis.call('HINCRBY', exposure, agent, '-' .. amount) <= 0 then redis.call('HDEL', exposure, agent) end
  redis.call('ZREM', open, member)
  local record = recordPrefix .. seq
  if redis.call('EXISTS', record) == 1 then redis.call('HSET', record, 'settled', '1') end
end
return 'OK'
`;

const RELEASE = `
if redis.call('EXISTS', KEYS[2]) == 0 then return 'OK' end
redis.call('HSET', KEYS[2], 'released', '1')
redis.call('DEL', KEYS[1])
return 'OK'
`;

const BEGIN_REFUND = `
local refund = redis.call('HGET', KEYS[1], 'refund')
if refund == 'null' then redis.call('HSET', KEYS[1], 'refund', ARGV[1]) end
return refund
`;

const END_REFUND = `
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'refund', ARGV[1]) end
return 'OK'
`;

const DAY = 86_400n;

/**
 * Receipts in Redis 6.2 or later, for replicas on several machines. A mark is as durable as the server is told to be:
 * run it with `appendonly yes` and `appendfsync always`, without eviction, and wait for replicas before a failover.
 */
export class RedisReceipts implements ReceiptStore {
  readonly #client: RedisClient;
  readonly #prefix: string;
  readonly #evidence: bigint;

  /** @param client - connected; with `disableOfflineQueue`, so that an outage refuses requests instead of holding them. */
  constructor(client: RedisClient, { prefix = "bursar", evidenceDays = 30 }: RedisReceiptsOptions = {}) {
    this.#client = client;
    this.#prefix = prefix;
    this.#evidence = BigInt(evidenceDays) * DAY;
  }

  async mark(used: UsedReceipt, limits: ExposureLimits): Promise<Marked> {
    const { paid, processor, settled } = used;
    const key = keyOf(paid);
    const until = rememberUntil(paid);
    const answer = await this.#eval(
      MARK,
      [
        this.#key("used", key),
        this.#key("record", key),
        `${this.#exposurePrefix(key.domain)}${processor}`,
        this.#openKey(key.domain, key.agent),
      ],
      [
        paid.payment.signature,
        writeRecord({ ...used, released: false, refund: null }),
        String(until * 1_000n),
        String((until + this.#evidence) * 1_000n),
        settled ? "1" : "0",
        key.agent,
        seqText(key.seq),
        String(paid.payment.payment.line.amount),
        String(limits.processor),
        String(limits.mandate),
        processor,
      ],
    );
    const [kind, value, limit] = answer as [string, string, string];
    if (kind === "used") return { kind };
    if (kind === "marked") return { kind, exposure: BigInt(value) };
    return { kind: "exceeded", scope: kind as keyof ExposureLimits, value: BigInt(value), limit: BigInt(limit) };
  }

  async release(key: ReceiptKey): Promise<void> {
    await this.#eval(RELEASE, [this.#key("used", key), this.#key("record", key)], []);
  }

  async exposure(domain: Domain, processor: Address): Promise<bigint> {
    const units = await this.#send("HGET", `${this.#exposurePrefix(domain)}${processor}`, "all");
    return BigInt((units as string | null) ?? 0);
  }

  async unsettled(domain: Domain, processor: Address, limit: number): Promise<readonly Address[]> {
    const fields = (await this.#send("HKEYS", `${this.#exposurePrefix(domain)}${processor}`)) as string[];
    return fields.filter((field) => field !== "all").slice(0, limit) as Address[];
  }

  async settled(domain: Domain, agent: Address, seq: bigint): Promise<void> {
    const records = `${this.#prefix}:record:${railName(domain)}:${agent}:`;
    const open = this.#openKey(domain, agent);
    await this.#eval(SETTLED, [open], [seqText(seq), agent, this.#exposurePrefix(domain), records]);
  }

  async find(key: ReceiptKey): Promise<ReceiptRecord | null> {
    return this.#read(this.#key("record", key));
  }

  async beginRefund(key: ReceiptKey, refund: RefundRecord): Promise<RefundRecord | null> {
    const before = await this.#eval(BEGIN_REFUND, [this.#key("record", key)], [writeRefund(refund)]);
    if (before === null) throw unknownPayment(key);
    return readRefund(before as string);
  }

  async endRefund(key: ReceiptKey, refund: RefundRecord | null): Promise<void> {
    await this.#eval(END_REFUND, [this.#key("record", key)], [writeRefund(refund)]);
  }

  async *export(): AsyncGenerator<string, void> {
    const told = new Set<string>();
    let cursor = "0";
    do {
      const page = await this.#send("SCAN", cursor, "MATCH", `${globLiteral(this.#prefix)}:record:*`, "COUNT", "500");
      const [next, names] = page as [string, string[]];
      for (const name of names) {
        if (told.has(name)) continue;
        told.add(name);
        const record = await this.#read(name);
        if (record !== null) yield `${writeRecord(record)}\n`;
      }
      cursor = next;
    } while (cursor !== "0");
  }

  async #read(name: string): Promise<ReceiptRecord | null> {
    const fields = await this.#send("HMGET", name, "json", "settled", "released", "refund");
    const [json, settled, released, refund] = fields as (string | null)[];
    if (json == null) return null;
    return {
      ...readRecord(json),
      settled: settled === "1",
      released: released === "1",
      refund: readRefund(refund ?? "null"),
    };
  }

  #key(kind: "used" | "record", { domain, agent, seq }: ReceiptKey): string {
    return `${this.#prefix}:${kind}:${railName(domain)}:${agent}:${seqText(seq)}`;
  }

  #exposurePrefix(domain: Domain): string {
    return `${this.#prefix}:exposure:${railName(domain)}:`;
  }

  #openKey(domain: Domain, agent: Address): string {
    return `${this.#prefix}:open:${railName(domain)}:${agent}`;
  }

  #eval(script: string, keys: readonly string[], values: readonly string[]): Promise<unknown> {
    return this.#send("EVAL", script, String(keys.length), ...keys, ...values);
  }

  /** @throws BursarError `store-unavailable` for what the client throws. */
  async #send(...args: string[]): Promise<unknown> {
    try {
      return await this.#client.sendCommand(args);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new BursarError(
        "store-unavailable",
        "The payee's receipt store cannot be used.",
        { reason },
        "Repeat the request with the same payment later.",
      );
    }
  }
}

const globLiteral = (text: string): string => text.replace(/[*?[\]\\]/g, String.raw`\$&`);
