import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** How a node, or the gateway before it, can be unwell. */
export type Trouble =
  | "resets"
  | "answers 429"
  | "answers 500"
  | "answers 503"
  | "answers HTML"
  | "answers other JSON"
  | "hangs"
  | "limits requests"
  | "lacks the block";

/** A request as it came. */
interface Asked {
  readonly id: number;
  readonly method: string;
  readonly params: unknown[];
}

const refusal =
  (code: number, message: string) =>
  (id: number): object => ({ jsonrpc: "2.0", id, error: { code, message } });

/** What is answered in trouble, to the request of an id. */
const ANSWERS: Record<
  Exclude<Trouble, "resets" | "hangs">,
  { status: number; headers?: Record<string, string>; body: string | ((id: number) => object) }
> = {
  "answers 429": { status: 429, headers: { "retry-after": "7" }, body: "slow down" },
  "answers 500": { status: 500, body: "" },
  "answers 503": { status: 503, body: "busy" },
  "answers HTML": { status: 200, body: "<html>maintenance</html>" },
  "answers other JSON": { status: 200, body: () => ({ status: "ok" }) },
  "limits requests": { status: 200, body: refusal(-32_005, "daily request count exceeded") },
  "lacks the block": { status: 200, body: refusal(-32_000, "header not found") },
};

/** A gateway before a real node that can be unwell in the ways in which gateways are, and writes down what it was asked. */
export class NodeFront {
  trouble: Trouble | null = null;
  /** Where its newest block is, for one that stands still. */
  standsAt: number | null = null;
  /** How many blocks the final one is behind the newest. */
  finalAfter: number | null = null;
  /** Methods in the order in which they were asked. */
  readonly asked: string[] = [];
  /** Where requests go. */
  target: string;
  #server: Server;
  #port = 0;

  private constructor(target: string) {
    this.target = target;
    this.#server = createServer();
  }

  static async before(target: string): Promise<NodeFront> {
    const front = new NodeFront(target);
    await front.listen();
    return front;
  }

  /** With a provider's key, as they are sold. */
  get url(): string {
    return `http://127.0.0.1:${this.#port}/v3/provider-key`;
  }

  get host(): string {
    return `127.0.0.1:${this.#port}`;
  }

  count(method: string): number {
    return this.asked.filter((one) => one === method).length;
  }

  async listen(): Promise<void> {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => request.socket.destroy());
    });
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = JSON.parse(Buffer.concat((await request.toArray()) as Buffer[]).toString()) as Asked;
    this.asked.push(asked.method);
    if (this.trouble === "resets") request.socket.destroy();
    else if (this.trouble === null) response.end(await this.#ask(asked));
    else if (this.trouble !== "hangs") {
      const { status, headers = {}, body } = ANSWERS[this.trouble];
      response.writeHead(status, headers).end(typeof body === "string" ? body : JSON.stringify(body(asked.id)));
    }
  }

  async #ask(asked: Asked): Promise<string> {
    const body = JSON.stringify({ jsonrpc: "2.0", ...asked, params: await this.#placed(asked) });
    const response = await fetch(this.target, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    return response.text();
  }

  /** One that stands still has an older block for its newest; a chain with finality has one for its final. */
  async #placed({ method, params }: Asked): Promise<unknown[]> {
    if (method !== "eth_getBlockByNumber") return params;
    const [tag, ...rest] = params;
    if (tag === "latest" && this.standsAt !== null) return [`0x${this.standsAt.toString(16)}`, ...rest];
    if ((tag === "safe" || tag === "finalized") && this.finalAfter !== null) {
      const newest = JSON.parse(await this.#ask({ id: 1, method: "eth_blockNumber", params: [] })) as {
        result: string;
      };
      return [`0x${Math.max(0, Number(newest.result) - this.finalAfter).toString(16)}`, ...rest];
    }
    return params;
  }
}
