import { BursarError } from "@bursar/protocol";
import { JsonRpcProvider, ZeroHash, type JsonRpcError, type JsonRpcPayload, type JsonRpcResult } from "ethers";
import { z } from "zod";

import { Alarms, type AlarmCode } from "./alarms.ts";
import { isLimit, isOfTheNode, unavailable } from "./unreachable.ts";

export interface ConnectOptions {
  /** The chain that every node must be on; that of the first node that answers without it. */
  readonly chainId?: bigint | undefined;
  /** Told of nodes that are left out, and of their return. */
  readonly alarms?: Alarms | undefined;
  /** Milliseconds until a node that does not answer is given up. */
  readonly timeout?: number | undefined;
  /** Milliseconds between looks at all nodes, while there is something to ask them. */
  readonly lookEvery?: number | undefined;
  /** Milliseconds since any moment. */
  readonly clock?: (() => number) | undefined;
}

/** What stands behind a URL. */
interface Identity {
  readonly chainId: bigint;
  /** Hash of block 0. */
  readonly genesis: string;
}

type Answer = JsonRpcResult | JsonRpcError;

/** Only `good` nodes are asked; the others are looked at until they are. */
type State = "good" | "down" | "behind" | "wrong";

const TIMEOUT = 10_000;
const LOOK_EVERY = 5_000;
/** Seconds that a node's newest block may be older than the newest one seen. */
const LAG = 30;
/** Milliseconds for which a node that limits requests is spared, if it does not say for how long, and at most. */
const REST = 10_000;
const LONGEST_REST = 300_000;

/** No usable answer came; it names no URL, which may hold a key. */
class NoAnswer extends Error {
  readonly code = "NETWORK_ERROR";
  readonly shortMessage: string;
  /** Milliseconds for which the node asks to be spared. */
  readonly rest: number | undefined;

  constructor(reason: string, rest?: number) {
    super(reason);
    this.shortMessage = reason;
    this.rest = rest;
  }
}

const answerSchema = z.looseObject({ id: z.number() }).refine((answer) => "result" in answer || "error" in answer);
const headSchema = z.object({ timestamp: z.string().transform(Number), hash: z.string() });
/** Some nodes no longer have it. */
const genesisSchema = headSchema.nullable().transform((block) => block?.hash ?? ZeroHash);

/** One JSON-RPC URL. */
class RpcNode {
  /** Tells of no URL: that may hold a key. */
  readonly name: string;
  state: State = "good";
  /** Milliseconds of the clock until which it is spared. */
  restsUntil = -Infinity;
  #genesis: string | undefined;
  readonly #url: string;
  readonly #headers: Record<string, string> = { "content-type": "application/json" };
  readonly #timeout: number;

  constructor(name: string, url: string, timeout: number) {
    this.name = name;
    const parsed = new URL(url);
    if (parsed.username !== "" || parsed.password !== "") {
      const account = [parsed.username, parsed.password].map(decodeURIComponent).join(":");
      this.#headers["authorization"] = `Basic ${Buffer.from(account).toString("base64")}`;
      parsed.username = parsed.password = "";
    }
    this.#url = parsed.href;
    this.#timeout = timeout;
  }

  /** @throws NoAnswer when there is no JSON-RPC answer to this payload. */
  async post(payload: JsonRpcPayload): Promise<Answer> {
    const { body, status, retryAfter } = await this.#request(JSON.stringify(payload));
    if (status !== 200) throw new NoAnswer(`HTTP ${status}`, status === 429 ? restOf(retryAfter) : undefined);
    const parsed = answerSchema.safeParse(body);
    if (!parsed.success || parsed.data.id !== payload.id) throw new NoAnswer("no JSON-RPC answer");
    return body as Answer;
  }

  /** Where it is, and the time of its newest block (Unix seconds). @throws NoAnswer */
  async look(): Promise<Identity & { time: number }> {
    const [chainId, newest] = await Promise.all([
      this.#ask("eth_chainId", []),
      this.#ask("eth_getBlockByNumber", ["latest", false]),
    ]);
    this.#genesis ??= genesisSchema.parse(await this.#ask("eth_getBlockByNumber", ["0x0", false]));
    return {
      chainId: BigInt(z.string().parse(chainId)),
      genesis: this.#genesis,
      time: headSchema.parse(newest).timestamp,
    };
  }

  /** After a time away it may be another chain. */
  forget(): void {
    this.#genesis = undefined;
  }

  async #ask(method: string, params: unknown[]): Promise<unknown> {
    const answer = await this.post({ jsonrpc: "2.0", id: 1, method, params });
    if ("error" in answer) throw new NoAnswer(String(answer.error.message), isLimit(answer.error) ? REST : undefined);
    return answer.result as unknown;
  }

  async #request(body: string): Promise<{ body: unknown; status: number; retryAfter: string | null }> {
    try {
      const signal = AbortSignal.timeout(this.#timeout);
      const response = await fetch(this.#url, { method: "POST", headers: this.#headers, body, signal });
      const text = await response.text();
      const { status, headers } = response;
      return { status, retryAfter: headers.get("retry-after"), body: status === 200 ? parse(text) : undefined };
    } catch (error) {
      const { name, cause } = error as { name: string; cause?: { code?: string } };
      throw new NoAnswer(
        name === "TimeoutError" ? `no answer in ${this.#timeout} ms` : (cause?.code ?? "no connection"),
      );
    }
  }
}

/**
 * One provider over several nodes of a chain. They are asked in their order: the first that is well answers; one that is
 * unreachable, slow, limits requests or answers no JSON-RPC is left out until a look finds it well again. Nodes that lag behind
 * or sit on another chain are never asked. Transactions go to all.
 *
 * Each request travels alone (no JSON-RPC batches), so that a failover repeats nothing that had its answer.
 */
export class FailoverProvider extends JsonRpcProvider {
  readonly #nodes: readonly RpcNode[];
  readonly #identity: Identity;
  readonly #alarms: Alarms;
  readonly #lookEvery: number;
  readonly #clock: () => number;
  #looking: Promise<void> | undefined;
  #nextLook = 0;
  /** Why the last node that failed did. */
  #fault = new NoAnswer("no node is well");
  /** Time of the newest block that any node showed (Unix seconds). */
  #newest = 0;

  private constructor(urls: readonly string[], identity: Identity, nodes: readonly RpcNode[], options: ConnectOptions) {
    const { alarms = new Alarms(), lookEvery = LOOK_EVERY, clock = () => performance.now() } = options;
    const ethers = { staticNetwork: true, cacheTimeout: -1, pollingInterval: 250, batchMaxCount: 1 };
    super(urls[0], identity.chainId, ethers);
    this.#identity = identity;
    this.#nodes = nodes;
    this.#alarms = alarms;
    this.#lookEvery = lookEvery;
    this.#clock = clock;
  }

  /**
   * Looks at all nodes before anything is asked. One that does not answer is left out until it does.
   * @throws {@link BursarError} `chain-unavailable` when none answers; `wrong-chain` when one is on another chain.
   */
  static async open(
    urls: readonly string[],
    options: ConnectOptions,
  ): Promise<{ provider: FailoverProvider; chainId: bigint; genesis: string }> {
    const nodes = urls.map((url, i) => new RpcNode(nameOf(urls, i), url, options.timeout ?? TIMEOUT));
    const looks = await Promise.allSettled(nodes.map((node) => node.look()));
    const found = looks.find((look) => look.status === "fulfilled")?.value;
    if (!found) throw unavailable(looks.find((look) => look.status === "rejected")?.reason);
    const { chainId = found.chainId } = options;
    const identity = { chainId, genesis: found.genesis };
    for (const [i, look] of looks.entries()) {
      if (look.status === "fulfilled" && !isSame(look.value, identity))
        throw wrongChain(nodes[i]!, look.value, identity);
    }
    const provider = new FailoverProvider(urls, identity, nodes, options);
    provider.#judge(looks);
    return { provider, ...identity };
  }

  /** ethers reads errors out of what it takes for results. */
  override async _send(payload: JsonRpcPayload | JsonRpcPayload[]): Promise<JsonRpcResult[]> {
    this.#lookNowAndThen();
    const answers = [payload].flat().map((one) => (BROADCAST.has(one.method) ? this.#broadcast(one) : this.#ask(one)));
    return (await Promise.all(answers)) as JsonRpcResult[];
  }

  /** The first answer that is about the request, in the order of the nodes; else what the last of them said. */
  async #ask(payload: JsonRpcPayload): Promise<Answer> {
    let last: Answer | undefined;
    const nodes = await this.#candidates();
    for (const node of REPEATABLE.test(payload.method) ? nodes : nodes.slice(0, 1)) {
      try {
        const answer = await node.post(payload);
        if (!("error" in answer) || !isOfTheNode(answer.error, payload.method)) return answer;
        last = answer;
        if (isLimit(answer.error)) this.#rest(node, REST);
      } catch (error) {
        this.#fail(node, error);
      }
    }
    if (last) return last;
    throw this.#fault;
  }

  /** To every node of this chain: one that takes it is enough. */
  async #broadcast(payload: JsonRpcPayload): Promise<Answer> {
    const refusals: JsonRpcError[] = [];
    const nodes = this.#nodes.filter(({ state }) => state !== "wrong");
    const sent = nodes.map(async (node) => {
      const answer = await node.post(payload).catch((error: unknown) => {
        this.#fail(node, error);
        throw error;
      });
      if (!("error" in answer)) return answer;
      refusals.push(answer);
      throw new NoAnswer("the node refuses");
    });
    try {
      return await Promise.any(sent);
    } catch (error) {
      const refusal = refusals.find((answer) => !isOfTheNode(answer.error)) ?? refusals[0];
      if (refusal) return refusal;
      throw asNoAnswer((error as AggregateError).errors[0]);
    }
  }

  /** Those that are well, if need be after another look; where all of them limit requests, they are asked nevertheless. */
  async #candidates(): Promise<RpcNode[]> {
    const isWell = ({ state }: RpcNode): boolean => state === "good";
    if (!this.#nodes.some(isWell)) await this.look();
    const well = this.#nodes.filter(isWell);
    const rested = well.filter((node) => this.#isRested(node));
    return rested.length > 0 ? rested : well;
  }

  #isRested({ restsUntil }: RpcNode): boolean {
    return restsUntil <= this.#clock();
  }

  #fail(node: RpcNode, error: unknown): void {
    if (!(error instanceof NoAnswer)) throw error;
    this.#fault = error;
    if (error.rest !== undefined) this.#rest(node, error.rest);
    else {
      node.forget();
      this.#mark(node, "down", "node-unreachable", `The node ${node.name} does not answer: ${error.message}`);
    }
  }

  #rest(node: RpcNode, milliseconds: number): void {
    node.restsUntil = this.#clock() + milliseconds;
    const value = Math.ceil(milliseconds / 1_000);
    const message = `The node ${node.name} limits requests: it is spared for ${value} s.`;
    this.#alarms.raise({ code: "node-limited", about: node.name, message, value });
  }

  /** Beside what is asked. A single one that is well has none to be compared with. */
  #lookNowAndThen(): void {
    const isAlone = this.#nodes.length === 1 && this.#nodes[0]!.state === "good";
    if (!isAlone && this.#clock() >= this.#nextLook) void this.look();
  }

  /** Looks at all nodes: which are well, and on the same height. */
  look(): Promise<void> {
    this.#looking ??= Promise.allSettled(this.#nodes.map((node) => node.look()))
      .then((looks) => this.#judge(looks))
      .finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  #judge(looks: readonly PromiseSettledResult<Identity & { time: number }>[]): void {
    this.#nextLook = this.#clock() + this.#lookEvery;
    for (const look of looks) {
      const isOurs = look.status === "fulfilled" && isSame(look.value, this.#identity);
      if (isOurs) this.#newest = Math.max(this.#newest, look.value.time);
    }
    for (const [i, look] of looks.entries()) {
      const node = this.#nodes[i]!;
      if (look.status === "rejected") this.#fail(node, asNoAnswer(look.reason));
      else if (!isSame(look.value, this.#identity)) {
        node.forget();
        this.#mark(node, "wrong", "node-wrong-chain", wrongChain(node, look.value, this.#identity).message);
      } else if (looks.length > 1 && look.value.time + LAG < this.#newest) {
        const late = this.#newest - look.value.time;
        this.#mark(node, "behind", "node-behind", `The node ${node.name} is ${late} s behind.`);
      } else this.#mark(node, "good");
    }
  }

  /** A node has one trouble at a time: the alarm about another one is over. */
  #mark(node: RpcNode, state: State, trouble?: AlarmCode, message = ""): void {
    node.state = state;
    if (this.#isRested(node)) this.#alarms.clear("node-limited", node.name);
    for (const code of TROUBLES) if (code !== trouble) this.#alarms.clear(code, node.name);
    if (trouble) this.#alarms.raise({ code: trouble, about: node.name, message, value: state });
  }
}

/** Repeating these does no harm, and each node that has it is one more that spreads it. */
const BROADCAST = new Set(["eth_sendRawTransaction"]);
/** Asking another node does no harm either: all but what makes a node sign, or moves a local chain. */
const REPEATABLE = /^(eth_(?!sendTransaction)|net_|web3_)/;
const TROUBLES = ["node-unreachable", "node-behind", "node-wrong-chain"] as const;

/**
 * Connects without polling for a chain that is not there.
 * @param urls - of nodes of one chain, the preferred ones first.
 * @throws {@link BursarError} `chain-unavailable` when none answers; `wrong-chain` when they are not all on the same chain.
 */
export async function connect(
  urls: string | readonly string[],
  options: ConnectOptions = {},
): Promise<{ provider: FailoverProvider; chainId: bigint; genesis: string }> {
  return FailoverProvider.open([urls].flat(), options);
}

function wrongChain(node: RpcNode, found: Identity, expected: Identity): BursarError {
  const [value, limit] =
    found.chainId === expected.chainId ? [found.genesis, expected.genesis] : [found.chainId, expected.chainId];
  return new BursarError(
    "wrong-chain",
    `The node ${node.name} is on another chain: ${value} instead of ${limit}.`,
    { value, limit },
    "Take it out of --rpc: all nodes there must be of one chain.",
  );
}

/** The host, with its place in the list where several nodes stand behind it. */
function nameOf(urls: readonly string[], i: number): string {
  const hosts = urls.map((url) => new URL(url).host);
  const host = hosts[i]!;
  return hosts.indexOf(host) === hosts.lastIndexOf(host) ? host : `${host} (${i + 1})`;
}

function isSame(a: Identity, b: Identity): boolean {
  return a.chainId === b.chainId && a.genesis === b.genesis;
}

/** A look that ends in anything else than an answer in its form is none. */
function asNoAnswer(error: unknown): NoAnswer {
  return error instanceof NoAnswer ? error : new NoAnswer("no block in the documented form");
}

/** `Retry-After` in seconds (RFC 9110) as milliseconds, within bounds. */
function restOf(retryAfter: string | null): number {
  const seconds = Number(retryAfter ?? "");
  return seconds > 0 ? Math.min(seconds * 1_000, LONGEST_REST) : REST;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
