import { createHmac } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

import { toWire, type Address, type Hex, type PaidRequest } from "@bursar/protocol";
import {
  Chain,
  createLogger,
  createWatch,
  Outbox,
  Processor,
  receiptKey,
  Settler,
  Store,
  WATCH_DEFAULTS,
  WatchBook,
  type Watch,
  type WatchConfig,
  type WatchedRecord,
  type WatchParts,
} from "@bursar/relayer";
import { hexlify, parseEther, randomBytes, Wallet, type JsonRpcProvider } from "ethers";

import { storeUrl } from "../relayer/databases.ts";
import { PayingAgent, type TestRail } from "./rail.ts";

export const pause = (milliseconds: number): Promise<void> => new Promise((done) => setTimeout(done, milliseconds));

/** Lets time pass, on the chain and for everyone who lives on it. */
export async function wait(rail: TestRail, seconds: bigint): Promise<void> {
  rail.skew += seconds;
  await rail.provider.send("evm_increaseTime", [Number(seconds)]);
  await rail.provider.send("evm_mine", []);
}

/** A payment that its processor gave a receipt for, as the payee has it. */
export async function buy(
  { domain, processor }: Pick<TestRail, "domain" | "processor">,
  agent: PayingAgent,
  payee: Address,
  amount = 1_000n,
): Promise<PaidRequest> {
  const payment = await agent.sign(payee, amount);
  const receipt = await processor.accept(payment);
  agent.ledger.commit();
  return { domain, payment, receipt };
}

/** Second books of the same processor, in which the same agent's ledger goes another way. */
export class SecondBooks {
  readonly domain: TestRail["domain"];
  readonly processor: Processor;
  readonly agent: PayingAgent;
  readonly #store: Store;
  readonly #settler: Settler;

  private constructor(rail: TestRail, agent: PayingAgent, store: Store) {
    const { domain, processorKey, chain, provider, circuits, prover } = rail;
    const now = (): bigint => rail.now();
    this.domain = domain;
    this.#store = store;
    const key = receiptKey(processorKey);
    const impossible = chain.contracts;
    this.processor = new Processor({ domain, store, chain, key, settleWithin: 3_600n, impossible, maxSkew: null, now });
    this.agent = new PayingAgent(this, agent.wallet);
    const outbox = new Outbox({
      store,
      provider,
      signer: processorKey,
      finality: 1,
      replaceAfter: 60n,
      pollInterval: 20,
      now,
      sleep: pause,
    });
    const sender = processorKey.address as Address;
    this.#settler = new Settler({ domain, store, circuits, gateway: chain, prover, outbox, sender, now });
  }

  /** Books in which no mandate stands. */
  static async empty(rail: TestRail, agent: PayingAgent): Promise<SecondBooks> {
    const url = await storeUrl(join(rail.folder, `second-${agent.address}.db`));
    return new SecondBooks(rail, agent, await Store.open(url, { now: () => rail.now() }));
  }

  static async open(rail: TestRail, agent: PayingAgent): Promise<SecondBooks> {
    const books = await SecondBooks.empty(rail, agent);
    const { mandate, terms } = await rail.store.mandateOf(agent.address);
    await books.processor.register(mandate, terms);
    return books;
  }

  settle = (): ReturnType<Settler["run"]> => this.#settler.run();

  async close(): Promise<void> {
    await this.#store.close();
  }
}

/** A watcher on a rail, with an account and a book of its own. */
export class WatchPost {
  readonly rail: TestRail;
  readonly account: Wallet;
  readonly path: string;
  readonly config: WatchConfig;
  readonly chain: Chain;
  readonly provider: JsonRpcProvider;
  book: WatchBook;
  watch: Watch;
  log = "";

  private constructor(
    rail: TestRail,
    account: Wallet,
    config: Partial<WatchConfig>,
    provider: JsonRpcProvider,
    confirmations: number,
  ) {
    this.rail = rail;
    this.account = account;
    this.path = join(rail.folder, `watcher-${account.address}.db`);
    this.config = { ...WATCH_DEFAULTS, ...config };
    this.provider = provider;
    this.chain = new Chain(rail.chain.rail, provider, confirmations);
    [this.book, this.watch] = this.#open();
  }

  static async open(
    rail: TestRail,
    config: Partial<WatchConfig> = {},
    provider: JsonRpcProvider = rail.provider,
    confirmations = 1,
  ): Promise<WatchPost> {
    const account = new Wallet(hexlify(randomBytes(32)), provider);
    await (await rail.owner.sendTransaction({ to: account.address, value: parseEther("10") })).wait();
    return new WatchPost(rail, account, config, provider, confirmations);
  }

  get parts(): WatchParts {
    return {
      config: this.config,
      chain: this.chain,
      provider: this.provider,
      book: this.book,
      signer: this.account,
      logger: createLogger("info", { write: (line: string) => void (this.log += line) }),
      now: () => this.rail.now(),
      sleep: (milliseconds) => pause(Math.min(milliseconds, 20)),
    };
  }

  /** As after a restart. */
  reopen(): void {
    this.book.close();
    [this.book, this.watch] = this.#open();
  }

  #open(): [WatchBook, Watch] {
    this.book = new WatchBook(this.path, () => this.rail.now());
    return [this.book, createWatch(this.parts)];
  }

  close(): void {
    this.book.close();
  }

  async take(...paid: PaidRequest[]): Promise<Hex[]> {
    const ids: Hex[] = [];
    for (const one of paid) ids.push((await this.watch.intake.take(toWire(one))).id);
    return ids;
  }

  /** A round, until all that it began is final. */
  async round(): Promise<void> {
    await this.watch.watcher.run();
    await this.watch.watcher.idle();
  }

  /** Rounds until one begins nothing: what was done is seen. */
  async rounds(): Promise<void> {
    for (let before = -1; before !== (await this.sent());) {
      before = await this.sent();
      await this.round();
    }
    await this.round();
  }

  /** Transactions of the watcher's account. */
  sent(): Promise<number> {
    return this.rail.provider.getTransactionCount(this.account.address);
  }

  of(id: Hex): WatchedRecord {
    return this.book.receipt(id)!;
  }

  state(id: Hex): string {
    return this.of(id).state;
  }

  /** Kinds of all alerts, the oldest first. */
  alerts(): string[] {
    return this.book.database
      .all("SELECT body FROM alert ORDER BY position")
      .map((row) => (JSON.parse(String(row["body"])) as { kind: string }).kind);
  }
}

export interface Posted {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** A receiver of alerts, which can be told to refuse. */
export class Webhook {
  readonly posted: Posted[] = [];
  readonly secret = "a secret of the webhook's tests";
  /** Statuses of the next answers; 204 after them. */
  readonly answers: number[] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += String(chunk)));
      request.on("end", () => {
        this.posted.push({ headers: request.headers, body });
        response.writeHead(this.answers.shift() ?? 204).end();
      });
    });
  }

  static async listen(): Promise<Webhook> {
    const webhook = new Webhook();
    await new Promise<void>((done) => webhook.#server.listen(0, "127.0.0.1", done));
    return webhook;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/alerts`;
  }

  /** What a receiver checks, written without the watcher's code. */
  isSigned({ headers, body }: Posted): boolean {
    const [, time, tag] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(headers["bursar-signature"])) ?? [];
    return createHmac("sha256", this.secret).update(`${time}.${body}`).digest("hex") === tag;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
