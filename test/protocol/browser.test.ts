import { expect } from "chai";
import { build } from "esbuild";
import { createContext, runInContext } from "node:vm";
import ledger from "../vectors/ledger.json" with { type: "json" };
import typedData from "../vectors/typed-data.json" with { type: "json" };

/** Bundles a module as for a browser; fails if anything that it reaches needs Node. */
async function bundle(source: string): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: import.meta.dirname, loader: "ts" },
    bundle: true,
    platform: "browser",
    format: "iife",
    globalName: "bundle",
    target: "es2022",
    write: false,
    logLevel: "silent",
  });
  return outputFiles[0]!.text;
}

/** Runs a bundle with what a browser has and Node's `process`, `Buffer` and `require` absent. */
function runAsInBrowser(code: string): Record<string, unknown> {
  const names = [
    "TextEncoder",
    "TextDecoder",
    "URL",
    "crypto",
    "atob",
    "btoa",
    "setTimeout",
    "clearTimeout",
    "fetch",
  ] as const;
  const context: Record<string, unknown> = Object.fromEntries(names.map((name) => [name, globalThis[name]]));
  context["self"] = context;
  createContext(context);
  runInContext(`${code}; globalThis.bundle = bundle;`, context);
  return context["bundle"] as Record<string, unknown>;
}

describe("the protocol package in a browser", () => {
  it("needs nothing of Node, and writes the ledger of the vectors", async () => {
    const vector = ledger.ledgers[0]!;
    const code = await bundle(`
      import * as protocol from "@bursar/protocol";
      const { domain, vector, payment } = ${JSON.stringify({ domain: ledger.domain, vector, payment: typedData.payments[0]! })};
      const own = protocol.parseWire(protocol.domainSchema, domain);
      const agent = new protocol.AgentLedger({ domain: own, agent: vector.agent, secret: vector.secret });
      const line = protocol.parseWire(protocol.paymentSchema, vector.payments[0].payment).line;
      export const head = agent.append(line).payment.head;
      export const digest = protocol.hashPayment(own, protocol.parseWire(protocol.paymentSchema, payment.payment));
      export const signer = protocol.recoverStrict(digest, payment.signature);
      export const host = protocol.normalHost("BÜCHER.example:80");
      export const terms = protocol.termsHash({ version: 1, purpose: "p", categories: [], hosts: [] });
      const asked = { domain: own, token: vector.agent, payee: vector.agent, amount: 5n, ref: payment.lineHash, url: "https://a.example/", processors: [vector.agent] };
      export const amount = String(protocol.decodePaymentRequired(protocol.encodePaymentRequired(asked)).amount);
    `);
    const result = runAsInBrowser(code);
    const protocol = await import("@bursar/protocol");
    expect(result).to.include({
      head: vector.payments[0]!.payment.head,
      digest: typedData.payments[0]!.digest,
      signer: typedData.signers.agent,
      host: "xn--bcher-kva.example",
      terms: protocol.termsHash({ version: 1, purpose: "p", categories: [], hosts: [] }),
      amount: "5",
    });
  });

  it("would be refused with an import from Node", async () => {
    const failure = await bundle(`import { readFileSync } from "node:fs"; export const read = readFileSync;`).catch(
      (error: unknown) => error,
    );
    expect(String(failure)).to.include("node:fs");
  });
});
