import { createWriteStream, type WriteStream } from "node:fs";
import { Agent, request } from "node:http";
import { setTimeout } from "node:timers/promises";

import {
  AgentLedger,
  hashPayment,
  signWithKey,
  toWire,
  type Address,
  type Domain,
  type Hex,
  type Line,
} from "@bursar/protocol";
import { loadPageHash } from "@bursar/relayer";
import { id, Wallet } from "ethers";

/** What one generator does. */
export interface Order {
  readonly domain: Domain;
  /** Private keys of its agents. */
  readonly keys: readonly Hex[];
  readonly payees: readonly Address[];
  /** Processes of the processor, any of which may be asked. */
  readonly urls: readonly string[];
  /** Whether an agent asks another one each time, or only when the last did not answer. */
  readonly roam: boolean;
  /** Payments a second. */
  readonly rate: number;
  /** In all. */
  readonly payments: number;
  /** Payments that are signed before the first is sent. */
  readonly ahead: number;
  /** File that every receipt is written to as it came, after the agent and the number of its payment. */
  readonly told: string | null;
}

/** How far a generator is; sent once a second. */
export interface Progress {
  readonly sent: number;
  readonly answered: number;
}

/** What a generator has seen. */
export interface Outcome {
  readonly sent: number;
  readonly receipts: number;
  /** Codes of refusals, and how often. */
  readonly refused: Readonly<Record<string, number>>;
  /** Requests that were sent again because no answer came. */
  readonly repeated: number;
  /** Milliseconds from when a payment was due until its receipt was there. */
  readonly latencies: Float64Array;
  /** Milliseconds from the first payment's time to the last answer. */
  readonly lasted: number;
}

/** The amount of an agent's payment: from 1 to 100 units, so that sums of the wrong payments do not agree by chance. */
const amountOf = (agent: number, seq: number): bigint => BigInt(1 + ((agent * 37 + seq * 61) % 100));

/** Codes that say to send the same payment again. */
const AGAIN = ["store-unavailable", "chain-unavailable", "too-many-requests", "busy"];
/** Milliseconds until it is sent again. */
const PAUSE = 50;
/** How often it is, before the agent gives up. */
const TRIES = 600;

/** A payment on its way. */
interface Signed {
  readonly body: string;
  readonly agent: Address;
  readonly number: number;
  readonly seq: number;
  readonly due: number;
}

/** One agent: it signs its payments in order, and sends the next when the last was answered. */
class Payer {
  readonly #domain: Domain;
  readonly #key: Hex;
  readonly #agent: Address;
  readonly #number: number;
  readonly #payees: readonly Address[];
  readonly #ledger: AgentLedger;
  readonly #signed: string[] = [];
  readonly #due: number[] = [];
  readonly #send: (payment: Signed) => Promise<boolean>;
  #seq = 0;
  #sent = 0;
  #working: Promise<void> = Promise.resolve();
  #idle = true;

  constructor(
    { domain, payees }: Order,
    number: number,
    key: Hex,
    hashPage: Awaited<ReturnType<typeof loadPageHash>>,
    send: (payment: Signed) => Promise<boolean>,
  ) {
    this.#domain = domain;
    this.#key = key;
    this.#agent = new Wallet(key).address as Address;
    this.#number = number;
    this.#payees = payees;
    this.#send = send;
    this.#ledger = new AgentLedger({ domain, agent: this.#agent, secret: id(key) as Hex, hashPage });
  }

  sign(): void {
    const seq = ++this.#seq;
    const payee = this.#payees[(this.#number + seq) % this.#payees.length]!;
    const line: Line = { payee, amount: amountOf(this.#number, seq), ref: id(`${this.#number} ${seq}`) as Hex };
    const { payment, salt } = this.#ledger.append(line);
    const signature = signWithKey(hashPayment(this.#domain, payment), this.#key);
    this.#signed.push(JSON.stringify(toWire({ agent: this.#agent, payment, signature, salt })));
  }

  /** A payment falls due. */
  pay(due: number): void {
    this.#due.push(due);
    if (!this.#idle) return;
    this.#idle = false;
    this.#working = this.#work();
  }

  /** Resolves when all that fell due is answered. */
  get done(): Promise<void> {
    return this.#working;
  }

  async #work(): Promise<void> {
    for (let due = this.#due.shift(); due !== undefined; due = this.#due.shift()) {
      if (this.#signed.length === 0) this.sign();
      // Nothing can follow a payment that has no receipt.
      const [body, seq] = [this.#signed.shift()!, ++this.#sent];
      if (!(await this.#send({ body, seq, due, agent: this.#agent, number: this.#number }))) return;
    }
    this.#idle = true;
  }
}

/** Sends payments at their times, whether the ones before are answered or not: an open load. */
class Generator {
  readonly #order: Order;
  readonly #payers: readonly Payer[];
  readonly #sockets: Agent;
  readonly #latencies: number[] = [];
  readonly #refused: Record<string, number> = {};
  readonly #told: WriteStream | null;
  #sent = 0;
  #repeated = 0;
  /** Of an agent's requests: which process they go to. */
  readonly #turns: number[];

  constructor(order: Order, hashPage: Awaited<ReturnType<typeof loadPageHash>>) {
    this.#order = order;
    this.#sockets = new Agent({ keepAlive: true, maxSockets: order.keys.length });
    this.#told = order.told === null ? null : createWriteStream(order.told);
    this.#turns = order.keys.map((_key, i) => i);
    const send = (payment: Signed): Promise<boolean> => this.#deliver(payment);
    this.#payers = order.keys.map((key, i) => new Payer(order, i, key, hashPage, send));
    for (let i = 0; i < Math.min(order.ahead, order.payments); ++i) this.#payers[i % order.keys.length]!.sign();
  }

  get progress(): Progress {
    return { sent: this.#sent, answered: this.#latencies.length };
  }

  async run(): Promise<Outcome> {
    const { rate, payments } = this.#order;
    const began = performance.now();
    for (let i = 0; i < payments; ++i) {
      const due = began + (i * 1_000) / rate;
      const early = due - performance.now();
      if (early > 0) await setTimeout(early);
      this.#payers[i % this.#payers.length]!.pay(due);
    }
    await Promise.all(this.#payers.map(({ done }) => done));
    const lasted = performance.now() - began;
    this.#sockets.destroy();
    await new Promise<void>((resolve) => (this.#told === null ? resolve() : this.#told.end(resolve)));
    const latencies = Float64Array.from(this.#latencies);
    const [sent, receipts, refused, repeated] = [this.#sent, latencies.length, this.#refused, this.#repeated];
    return { sent, receipts, refused, repeated, latencies, lasted };
  }

  /** Sends one payment until it is answered. @returns whether it has a receipt. */
  async #deliver({ body, seq, agent, number, due }: Signed): Promise<boolean> {
    const { urls, roam } = this.#order;
    if (roam) ++this.#turns[number]!;
    ++this.#sent;
    let code = "no-answer";
    for (let tries = 0; tries < TRIES; ++tries) {
      const answer = await this.#post(urls[this.#turns[number]! % urls.length]!, body);
      if (answer?.status === 200) {
        this.#latencies.push(performance.now() - due);
        this.#told?.write(`${agent} ${seq} ${answer.text}\n`);
        return true;
      }
      code = answer === null ? "no-answer" : codeOf(answer.text);
      if (answer !== null && !AGAIN.includes(code)) break;
      ++this.#repeated;
      ++this.#turns[number]!;
      await setTimeout(PAUSE);
    }
    this.#refused[code] = (this.#refused[code] ?? 0) + 1;
    return false;
  }

  #post(service: string, body: string): Promise<{ status: number; text: string } | null> {
    const url = `${service}/payments`;
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    return new Promise((resolve) => {
      const nothing = (): void => resolve(null);
      const sent = request(url, { method: "POST", agent: this.#sockets, headers }, (answer) => {
        let text = "";
        answer.on("data", (chunk: Buffer) => (text += String(chunk)));
        answer.on("end", () => resolve({ status: answer.statusCode ?? 0, text })).on("error", nothing);
        answer.on("aborted", nothing);
      });
      sent.on("error", nothing);
      sent.end(body);
    });
  }
}

function codeOf(text: string): string {
  try {
    return String((JSON.parse(text) as { code?: unknown }).code);
  } catch {
    return "not-understood";
  }
}

if (process.send !== undefined) {
  const say = (message: object): boolean => process.send!(message);
  const hashPage = await loadPageHash();
  process.once("message", (order: Order) => {
    const generator = new Generator(order, hashPage);
    process.once("message", () => {
      const ticker = setInterval(() => say({ progress: generator.progress }), 1_000);
      void generator.run().then((outcome) => {
        clearInterval(ticker);
        say({ outcome });
        process.disconnect();
      });
    });
    say({ ready: true });
  });
  say({ started: true });
}
