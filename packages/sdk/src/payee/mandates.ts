import {
  BursarError,
  parseAddress,
  payeesHash,
  type Address,
  type Domain,
  type Hex,
  type Mandate,
} from "@bursar/protocol";
import { FetchRequest, Interface, JsonRpcProvider, Network, type JsonRpcApiProvider } from "ethers";

/** A mandate's life, as the chain tells it. */
export type MandateState = "none" | "open" | "revoked" | "expired" | "closed" | "fallback";

/** A mandate as it was read from the chain. Amounts in units, times in Unix seconds. */
export interface MandateSnapshot {
  /** Where it was read. */
  readonly domain: Domain;
  readonly mandate: Mandate;
  /** At the newest block: a revocation counts before it is final. */
  readonly state: MandateState;
  /** Payments settled, in final blocks. */
  readonly seq: bigint;
  /** Units of the budget that are not spent on either rail, in final blocks. */
  readonly remaining: bigint;
}

/** Where a payee reads mandates. */
export interface MandateSource {
  /**
   * The mandate of an agent, or null if the chain knows none.
   *
   * @param maxAge seconds that state, seq and remaining may be old.
   * @throws BursarError `opening-pending` for one that is in a block, and not final; `chain-unavailable`.
   */
  mandate(agent: Address, maxAge: number): Promise<MandateSnapshot | null>;
  /**
   * A processor's bond in a token, in units: what stands behind receipts that it signs with its own address. 0 for one that
   * was slashed, or whose registered receipt key is another.
   *
   * @throws BursarError `chain-unavailable`
   */
  bond?(processor: Address, token: Address): Promise<bigint>;
}

export interface ChainMandatesOptions {
  /** From which block on a mandate and its settlements count: `finalized` unless given, or a number of confirmations. */
  readonly finality?: "finalized" | "safe" | number;
  /** The registry's first block: no event is looked for before it. 0 unless given. */
  readonly fromBlock?: number;
  /** Mandates that are kept in mind, 10,000 unless given. */
  readonly most?: number;
  /** Milliseconds for one answer of the node, 5,000 unless given. */
  readonly timeout?: number;
  /** Milliseconds of a clock that never goes back. */
  readonly clock?: () => number;
}

const ABI = new Interface([
  "function mandateOf(address agent) view returns (tuple(uint8 state, address owner, address token, address processor, uint64 budget, uint40 paymentCap, uint40 validUntil, uint40 revokedAt, uint64 revokedAfterSeq, uint40 closesAt, uint64 seq, uint64 spent, uint64 directSpent, uint64 reserved, uint256 base, bytes32 policyRoot, bytes32 payeesHash, bytes32 termsHash))",
  "function processors() view returns (address)",
  "function escrow() view returns (address)",
  "function unitScale(address token) view returns (uint256)",
  "function bondOf(address processor, address token) view returns (uint256)",
  "function processorOf(address processor) view returns (tuple(uint40 registeredAt, uint40 unbondingAt, uint40 coversUntil, bool slashed, address receiptKey, string uri))",
  "event MandateOpened(address indexed agent, address indexed owner, address indexed processor, address token, uint64 budget, uint40 paymentCap, uint40 validUntil, address[] payees, bytes32 policyRoot, bytes32 termsHash)",
]);
const STATES = ["none", "open", "revoked", "expired", "closed", "fallback"] as const;
const ANYONE = payeesHash([]);
/** Blocks of logs that a node is asked for at first, and the fewest. */
const LOG_RANGE = 8_192;
const LEAST_LOG_RANGE = 64;

interface MandateRecord extends Omit<Mandate, "agent" | "payees"> {
  readonly state: bigint;
  readonly payeesHash: Hex;
  readonly seq: bigint;
  readonly spent: bigint;
  readonly directSpent: bigint;
}

interface ProcessorRecord {
  readonly slashed: boolean;
  readonly receiptKey: Address;
}

/** What is known of one agent: its mandate for ever, its state for a time. */
interface Known {
  readonly snapshot: MandateSnapshot;
  readonly readAt: number;
}

/**
 * Mandates from a MandateRegistry. What never changes is kept for ever, at most `most` mandates; the state as long as
 * the caller allows. Questions about one agent that arrive together are asked once.
 *
 * @param rpc URL of a node, or a provider.
 * @param registry address of the MandateRegistry.
 */
export function chainMandates(
  rpc: string | JsonRpcApiProvider,
  registry: string,
  options: ChainMandatesOptions = {},
): MandateSource {
  const { timeout = 5_000 } = options;
  return new ChainMandates(typeof rpc === "string" ? connect(rpc, timeout) : rpc, parseAddress(registry), options);
}

class ChainMandates implements MandateSource {
  readonly #provider: JsonRpcApiProvider;
  readonly #registry: Address;
  readonly #options: Required<Omit<ChainMandatesOptions, "timeout">>;
  readonly #known = new Map<Address, Known>();
  readonly #asking = new Map<Address, Promise<MandateSnapshot | null>>();
  #domain: Domain | null = null;

  constructor(provider: JsonRpcApiProvider, registry: Address, options: ChainMandatesOptions) {
    this.#provider = provider;
    this.#registry = registry;
    this.#options = {
      finality: options.finality ?? "finalized",
      fromBlock: options.fromBlock ?? 0,
      most: options.most ?? 10_000,
      clock: options.clock ?? (() => performance.now()),
    };
  }

  async mandate(agent: Address, maxAge: number): Promise<MandateSnapshot | null> {
    const known = this.#known.get(agent);
    if (known !== undefined && this.#options.clock() - known.readAt <= maxAge * 1_000) return known.snapshot;
    let asking = this.#asking.get(agent);
    if (asking === undefined) {
      asking = this.#ask(agent).finally(() => this.#asking.delete(agent));
      this.#asking.set(agent, asking);
    }
    return asking;
  }

  async bond(processor: Address, token: Address): Promise<bigint> {
    try {
      const block = await this.#finalBlock();
      const [processors, escrow] = await Promise.all([
        this.#call<Address>(this.#registry, "processors", [], block),
        this.#call<Address>(this.#registry, "escrow", [], block),
      ]);
      const [record, bond, scale] = await Promise.all([
        this.#call<ProcessorRecord>(processors, "processorOf", [processor], "latest"),
        this.#call<bigint>(processors, "bondOf", [processor, token], block),
        this.#call<bigint>(escrow, "unitScale", [token], block),
      ]);
      return record.slashed || record.receiptKey !== processor ? 0n : bond / scale;
    } catch (error) {
      throw unavailable(error);
    }
  }

  async #ask(agent: Address): Promise<MandateSnapshot | null> {
    const readAt = this.#options.clock();
    try {
      const snapshot = await this.#read(agent, this.#known.get(agent)?.snapshot.mandate);
      if (snapshot !== null) this.#keep(agent, { snapshot, readAt });
      return snapshot;
    } catch (error) {
      if (error instanceof BursarError) throw error;
      throw unavailable(error);
    }
  }

  async #read(agent: Address, known: Mandate | undefined): Promise<MandateSnapshot | null> {
    const domain = (this.#domain ??= await this.#findDomain());
    const finalBlock = await this.#finalBlock();
    const [final, newest] = await Promise.all([this.#record(agent, finalBlock), this.#record(agent, "latest")]);
    if (final.state === 0n) {
      if (newest.state === 0n) return null;
      throw new BursarError(
        "opening-pending",
        `The mandate of ${agent} is open, and its block is not final.`,
        { value: agent },
        "Repeat the request with the same payment once the block is final.",
      );
    }
    const mandate = known ?? { ...immutable(agent, final), payees: await this.#payees(agent, final, finalBlock) };
    return {
      domain,
      mandate,
      state: STATES[Number(newest.state)] ?? "none",
      seq: final.seq,
      remaining: final.budget - final.spent - final.directSpent,
    };
  }

  async #findDomain(): Promise<Domain> {
    return { chainId: BigInt((await this.#provider.send("eth_chainId", [])) as string), registry: this.#registry };
  }

  async #finalBlock(): Promise<string> {
    const { finality } = this.#options;
    if (typeof finality === "string") {
      const block = (await this.#provider.send("eth_getBlockByNumber", [finality, false])) as { number: string } | null;
      if (block === null) throw new Error(`the node knows no ${finality} block`);
      return block.number;
    }
    const newest = Number((await this.#provider.send("eth_blockNumber", [])) as string);
    return hex(Math.max(0, newest - Math.max(0, finality - 1)));
  }

  #record(agent: Address, block: string): Promise<MandateRecord> {
    return this.#call<MandateRecord>(this.#registry, "mandateOf", [agent], block);
  }

  async #call<T>(to: Address, name: string, values: readonly unknown[], block: string): Promise<T> {
    const data = ABI.encodeFunctionData(name, values);
    const answer = (await this.#provider.send("eth_call", [{ to, data }, block])) as string;
    return ABI.decodeFunctionResult(name, answer)[0] as T;
  }

  /** The hash on chain tells most lists by itself; others stand in the opening's event, newest blocks first. */
  async #payees(agent: Address, record: MandateRecord, finalBlock: string): Promise<readonly Address[]> {
    if (record.payeesHash === ANYONE) return [];
    let range = LOG_RANGE;
    let to = Number(finalBlock);
    while (to >= this.#options.fromBlock) {
      const from = Math.max(this.#options.fromBlock, to - range + 1);
      const logs = await this.#openings(agent, from, to).catch((error: unknown) => {
        if (range <= LEAST_LOG_RANGE) throw error;
        return null;
      });
      if (logs === null) {
        range = Math.max(LEAST_LOG_RANGE, Math.floor(range / 4));
        continue;
      }
      const found = logs.find((payees) => payeesHash(payees) === record.payeesHash);
      if (found !== undefined) return found;
      to = from - 1;
      range *= 2;
    }
    throw new Error(`no event tells the payees of ${agent}`);
  }

  async #openings(agent: Address, from: number, to: number): Promise<(readonly Address[])[]> {
    const topics = ABI.encodeFilterTopics("MandateOpened", [agent]);
    const filter = { address: this.#registry, topics, fromBlock: hex(from), toBlock: hex(to) };
    const logs = (await this.#provider.send("eth_getLogs", [filter])) as { topics: string[]; data: string }[];
    return logs.map((log) => [...(ABI.parseLog(log)?.args["payees"] as Address[])]);
  }

  #keep(agent: Address, known: Known): void {
    this.#known.delete(agent);
    this.#known.set(agent, known);
    if (this.#known.size <= this.#options.most) return;
    const oldest = this.#known.keys().next().value;
    if (oldest !== undefined) this.#known.delete(oldest);
  }
}

function immutable(agent: Address, record: MandateRecord): Omit<Mandate, "payees"> {
  const { owner, token, processor, budget, paymentCap, validUntil, policyRoot, termsHash } = record;
  return { owner, agent, token, processor, budget, paymentCap, validUntil, policyRoot, termsHash };
}

/** Asks with `send` alone, so the network is never looked up: {@link Domain} tells where an answer is from. */
function connect(url: string, timeout: number): JsonRpcApiProvider {
  const request = new FetchRequest(url);
  request.timeout = timeout;
  return new JsonRpcProvider(request, Network.from(1), { staticNetwork: true, cacheTimeout: -1 });
}

const hex = (block: number): string => `0x${block.toString(16)}`;

/** Says nothing of the node's URL, which may hold a key. */
function unavailable(error: unknown): BursarError {
  const reason = (error as { code?: unknown } | null)?.code;
  return new BursarError(
    "chain-unavailable",
    "The payee cannot read mandates and bonds from the chain.",
    typeof reason === "string" ? { reason } : {},
    "Repeat the request with the same payment later; nothing was used.",
  );
}
