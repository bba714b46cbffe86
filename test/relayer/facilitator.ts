import {
  directDomainName,
  problem,
  signDebit,
  signTransfer,
  toWire,
  type Address,
  type Debit,
  type DirectDomain,
  type Hex,
  type TransferAuthorization,
} from "@bursar/protocol";
import { Chain, DirectSettler, Outbox, receiptKey } from "@bursar/relayer";
import fastify, { type FastifyInstance } from "fastify";
import { hexlify, id, JsonRpcProvider, randomBytes, type JsonRpcPayload, type JsonRpcResult } from "ethers";

import { aep2Routes } from "../../packages/relayer/src/http/aep2.ts";
import { x402Routes } from "../../packages/relayer/src/http/x402.ts";
import type { PayingAgent, TestRail } from "../integration/rail.ts";

/** A connection that can be cut. */
class Wire extends JsonRpcProvider {
  cut = false;
  override _send(payload: JsonRpcPayload | JsonRpcPayload[]): Promise<JsonRpcResult[]> {
    if (this.cut) return Promise.reject(Object.assign(new Error("the wire is cut"), { code: "ECONNREFUSED" }));
    return super._send(payload);
  }
}

export interface Answer {
  status: number;
  body: Record<string, unknown> & { extra?: { code?: string } };
}

/** What an x402 payee asks for, with what a test changes. */
export interface Terms {
  payTo: Address;
  amount: bigint;
  [field: string]: unknown;
}

/** The processor's routes for stock clients, on a test rail, over HTTP. */
export class Facilitator {
  readonly rail: TestRail;
  readonly wire: Wire;
  readonly settler: DirectSettler;
  readonly direct: DirectDomain;
  readonly server: FastifyInstance;
  url = "";

  private constructor(rail: TestRail, timeout: number) {
    const { store, processor, domain, processorKey } = rail;
    const address = processorKey.address as Address;
    const now = (): bigint => rail.now();
    this.rail = rail;
    this.direct = { chainId: domain.chainId, direct: rail.chain.direct };
    this.wire = new Wire(rail.node.url, 31_337, { staticNetwork: true, cacheTimeout: -1, pollingInterval: 50 });
    const outbox = new Outbox({
      store,
      provider: this.wire,
      signer: processorKey.connect(this.wire),
      finality: 1,
      replaceAfter: 60n,
      pollInterval: 20,
      now,
      sleep: (ms) => new Promise((done) => setTimeout(done, ms)),
    });
    const gateway = new Chain(rail.chain.rail, this.wire);
    this.settler = new DirectSettler({ store, gateway, outbox, sender: address });
    this.server = fastify();
    this.server.setValidatorCompiler(() => () => true);
    this.server.setErrorHandler((error, _request, reply) => {
      const body = problem(error);
      return reply.status(body.status).type("application/problem+json").send(body);
    });
    const { tokens } = rail.chain.rail;
    const { settler, direct } = this;
    x402Routes({
      processor,
      settler,
      store,
      domain,
      direct: direct.direct,
      tokens,
      address,
      timeout,
      now,
    })(this.server);
    aep2Routes({
      processor,
      settler,
      store,
      domain: direct,
      key: receiptKey(processorKey),
      settleWithin: 3_600n,
    })(this.server);
  }

  /** @param timeout - milliseconds that `settle` waits for the chain. */
  static async open(rail: TestRail, timeout = 20_000): Promise<Facilitator> {
    const facilitator = new Facilitator(rail, timeout);
    facilitator.url = await facilitator.server.listen({ host: "127.0.0.1", port: 0 });
    return facilitator;
  }

  async close(): Promise<void> {
    await this.server.close();
    this.wire.destroy();
  }

  async http(method: "GET" | "POST", path: string, body?: unknown): Promise<Answer> {
    const response = await fetch(`${this.url}${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { headers: { "content-type": "application/json" }, body: JSON.stringify(toWire(body)) }),
    });
    return { status: response.status, body: (await response.json()) as Answer["body"] };
  }

  /** What a payee asks for a payment in the rail's token, in scheme `exact`. */
  requirements(terms: Terms): Record<string, unknown> {
    return {
      scheme: "exact",
      network: `eip155:${this.direct.chainId}`,
      asset: this.direct.direct,
      maxTimeoutSeconds: 300,
      extra: { name: directDomainName(this.rail.token), version: "1" },
      ...terms,
    };
  }

  /** A request to verify or settle, as a stock resource server sends it for a payment of `agent`. */
  async exact(
    agent: PayingAgent,
    terms: Terms,
    changes: Partial<TransferAuthorization> & { token?: Address; domain?: Partial<DirectDomain> } = {},
  ): Promise<{
    x402Version: 2;
    paymentPayload: Record<string, unknown>;
    paymentRequirements: Record<string, unknown>;
  }> {
    const { token = this.rail.token, domain, ...rest } = changes;
    const paymentRequirements = this.requirements(terms);
    const authorization: TransferAuthorization = {
      from: agent.address,
      to: terms.payTo,
      value: terms.amount,
      validAfter: 0n,
      validBefore: this.rail.now() + 300n,
      nonce: hexlify(randomBytes(32)) as Hex,
      ...rest,
    };
    const signature = await signTransfer(agent.wallet, { ...this.direct, ...domain }, token, authorization);
    const resource = { url: "https://anything.example/", description: "", mimeType: "" };
    const payload = { signature, authorization };
    return {
      x402Version: 2,
      paymentPayload: { x402Version: 2, resource, accepted: paymentRequirements, payload },
      paymentRequirements,
    };
  }

  /** The body of `POST /enqueue` as the public AEP2 client makes it, with what a test changes before signing. */
  async debit(agent: PayingAgent, payee: Address, amount: bigint, changes: Partial<Debit> = {}) {
    const mandate: Debit = {
      owner: agent.address,
      token: this.rail.token,
      payee,
      amount,
      nonce: BigInt(hexlify(randomBytes(16))),
      deadline: this.rail.now() + 600n,
      ref: id(`call ${Math.random()}`) as Hex,
      ...changes,
    };
    const payerSig = await signDebit(agent.wallet, this.direct, mandate);
    return { mandate: { ...toWire(mandate), deadline: Number(mandate.deadline) }, payerSig };
  }

  credit(payee: Address): Promise<bigint> {
    return this.rail.chain.escrow.creditOf(this.rail.token, payee);
  }
}
