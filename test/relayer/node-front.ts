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
    const say = (status: number, body: string): void => void response.writeHead(status).end(body);
    const refuse = (error: { code: number; message: string }): void =>
      say(200, JSON.stringify({ jsonrpc: "2.0", id: asked.id, error }));
    switch (this.trouble) {
      case "resets":
        return void request.socket.destroy();
      case "answers 429":
        return void response.writeHead(429, { "retry-after": "7" }).end("slow down");
      case "answers 500":
        return say(500, "");
      case "answers 503":
        return say(503, "busy");
      case "answers HTML":
        return say(200, "<html>maintenance</html>");
      case "answers other JSON":
        return say(200, JSON.stringify({ status: "ok" }));
      case "hangs":
        return;
      case "limits requests":
        return refuse({ code: -32_005, message: "daily request count exceeded" });
      case "lacks the block":
        return refuse({ code: -32_000, message: "header not found" });
      case null:
        return say(200, await this.#ask(asked));
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
