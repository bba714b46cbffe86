import { signRevocation, toWire, type Address } from "@bursar/protocol";
import { createLogger, SERVICE_DEFAULTS, startService, type Service } from "@bursar/relayer";
import { Ajv2020 } from "ajv/dist/2020.js";
import { expect } from "chai";
import { setTimeout } from "node:timers/promises";

import { OPEN_TERMS, TestRail } from "../integration/rail.ts";
import { accessOf, addressOf, keyOf } from "./office.ts";

interface Operation {
  summary?: string;
  security?: Record<string, string[]>[];
  responses: Record<string, { content?: Record<string, { schema: object }> }>;
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { securitySchemes: Record<string, { description: string }> };
}

describe("the OpenAPI document", function () {
  this.timeout(60_000);
  const ajv = new Ajv2020({ strict: false, formats: { uri: true } });
  const shop = keyOf("shop");
  let rail: TestRail;
  let service: Service;
  let document: Document;

  before(async () => {
    rail = await TestRail.start();
    service = await startService({
      config: { ...SERVICE_DEFAULTS, port: 0, settleEvery: 0, maxSkew: null },
      chain: rail.chain,
      provider: rail.provider,
      store: rail.store,
      signer: rail.processorKey,
      prover: rail.prover,
      logger: createLogger("silent", { write: () => undefined }),
      now: () => rail.now(),
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    });
    document = (await (await fetch(`${service.url}/openapi.json`)).json()) as Document;
  });
  after(async () => {
    await service.stop();
    await rail.stop();
  });

  const operations = (): [name: string, operation: Operation][] =>
    Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]): [string, Operation] => [
        `${method.toUpperCase()} ${path}`,
        operation,
      ]),
    );

  /** Asks a route and holds its answer against what the document says of it. */
  async function fits(name: string, path: string, init: RequestInit = {}): Promise<void> {
    const [method, route] = name.split(" ") as [string, string];
    const response = await fetch(`${service.url}${path}`, { ...init, method });
    const text = await response.text();
    const { responses } = document.paths[route]![method.toLowerCase()]!;
    const described = responses[response.status] ?? responses["default"];
    const type = response.headers.get("content-type")!.split(";")[0]!;
    const schema = described?.content?.[type]?.schema;
    expect(schema, `${name} ${response.status} ${type} ${text}`).to.be.an("object");
    const validate = ajv.compile(schema!);
    expect(validate(JSON.parse(text)), `${name} ${JSON.stringify(validate.errors)} ${text}`).to.equal(true);
  }

  const body = (value: unknown): RequestInit => ({
    headers: { "content-type": "application/json" },
    body: JSON.stringify(toWire(value)),
  });
  const answer = (status: number, name: string): boolean =>
    Object.keys(document.paths[name.split(" ")[1]!]![name.split(" ")[0]!.toLowerCase()]!.responses).includes(
      String(status),
    );

  it("says of every operation what it is for, what it answers and what a refusal looks like", () => {
    expect(operations().length).to.be.greaterThan(15);
    for (const [name, { summary, responses }] of operations()) {
      expect(summary, name).to.be.a("string").and.not.equal("");
      expect(responses["default"]?.content, name).to.have.property("application/problem+json");
    }
    expect(answer(201, "POST /mandates")).to.equal(true);
    expect(answer(202, "POST /payees")).to.equal(true);
  });

  it("says who may read: with a signed access or an API key, where it asks for one", () => {
    const guarded = operations().filter(([, { security }]) => security !== undefined);
    expect(guarded.map(([name]) => name).sort()).to.deep.equal([
      "GET /disputes/evidence/{hash}",
      "GET /ledger",
      "GET /mandates/{agent}",
      "GET /mandates/{agent}/tail",
      "GET /payments/{agent}/{seq}",
      "POST /disputes/evidence",
    ]);
    for (const [, { security }] of guarded) expect(security).to.deep.equal([{ access: [] }, { key: [] }]);
    expect(document.components.securitySchemes["access"]!.description).to.match(/^Bursar /);
  });

  it("is true of answers and of refusals", async () => {
    const agent = await rail.open();
    const payment = await agent.sign(shop.address as Address, 5n);
    const revocation = { agent: agent.address, afterSeq: 1n };
    const own = { headers: { authorization: await accessOf(agent.wallet, rail.domain, rail.now()) } };
    await fits("POST /payments/check", "/payments/check", body(payment));
    await fits("POST /payments", "/payments", body(payment));
    const receipt = await rail.processor.accept(payment);
    await fits("POST /receipts", "/receipts", body({ receipts: [{ payment, receipt }] }));
    await fits("POST /receipts", "/receipts", body({ receipts: [] }));
    await fits("POST /payments", "/payments", body({ ...payment, salt: 1n }));
    await fits("POST /payments", "/payments", body({}));
    await fits("POST /payments", "/payments", { body: "<pay/>", headers: { "content-type": "application/xml" } });
    await fits("GET /payments/{agent}/{seq}", `/payments/${agent.address}/1`, own);
    await fits("GET /payments/{agent}/{seq}", `/payments/${agent.address}/2`, own);
    await fits("GET /payments/{agent}/{seq}", `/payments/${agent.address}/1`);
    await fits("GET /mandates/{agent}", `/mandates/${agent.address}`, own);
    await fits("GET /mandates/{agent}/tail", `/mandates/${agent.address}/tail`, own);
    await fits("GET /ledger", "/ledger", own);
    await fits("GET /ledger", "/ledger?limit=0", own);
    await fits("POST /mandates", "/mandates", body({ mandate: rail.draft(addressOf("nobody")), terms: OPEN_TERMS }));
    const signature = await signRevocation(rail.owner, rail.domain, revocation);
    await fits("POST /revocations", "/revocations", body({ revocation, signature }));
    await fits("POST /payments", "/payments", body(payment));
    await fits("GET /payees/{address}", `/payees/${shop.address}`);
    await fits("POST /payees", "/payees", body({}));
    for (const path of ["/health", "/info", "/policy", "/x402/supported"]) await fits(`GET ${path}`, path);
  });
});
