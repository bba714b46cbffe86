import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

interface Attribute {
  readonly key: string;
  readonly value: { readonly stringValue?: string; readonly intValue?: number; readonly doubleValue?: number };
}

/** A span as OTLP/HTTP in JSON carries it. */
interface WireSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly attributes: readonly Attribute[];
  readonly links?: readonly { readonly traceId: string; readonly spanId: string }[];
  readonly status: { readonly code?: number; readonly message?: string };
}

export interface CollectedSpan extends Omit<WireSpan, "attributes"> {
  readonly attributes: Readonly<Record<string, string | number | undefined>>;
  /** Of the process that made it. */
  readonly resource: Readonly<Record<string, string | number | undefined>>;
}

/** Takes spans over OTLP/HTTP, as a collector of OpenTelemetry does. */
export class Collector {
  readonly spans: CollectedSpan[] = [];
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<Collector> {
    const server = createServer();
    const collector = new Collector(server);
    server.on("request", (request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += String(chunk)));
      request.on("end", () => {
        if (request.method !== "POST" || request.url !== "/v1/traces") return void response.writeHead(404).end();
        collector.#take(body);
        response.writeHead(200, { "content-type": "application/json" }).end("{}");
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return collector;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Of one trace, in the order in which they ended. */
  trace(traceId: string): CollectedSpan[] {
    return this.spans.filter((span) => span.traceId === traceId);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  #take(body: string): void {
    interface Export {
      readonly resourceSpans: readonly {
        readonly resource: { readonly attributes: readonly Attribute[] };
        readonly scopeSpans: readonly { readonly spans: readonly WireSpan[] }[];
      }[];
    }
    for (const { resource, scopeSpans } of (JSON.parse(body) as Export).resourceSpans) {
      for (const { spans } of scopeSpans) {
        for (const span of spans) {
          this.spans.push({ ...span, attributes: read(span.attributes), resource: read(resource.attributes) });
        }
      }
    }
  }
}

function read(attributes: readonly Attribute[]): Record<string, string | number | undefined> {
  return Object.fromEntries(
    attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue ?? value.doubleValue]),
  );
}
