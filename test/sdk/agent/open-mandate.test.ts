import { headHex, policyRoot, signMandate } from "@bursar/protocol";
import { createServer } from "@bursar/relayer";
import { draftIntent, freshKey, openMandate, type Agent, type OpenMandateOptions } from "@bursar/sdk/agent";
import { expect } from "chai";
import { id } from "ethers";
import type { FastifyInstance } from "fastify";

import { intentRoutes } from "../../../packages/relayer/src/http/intents.ts";
import { TestRail } from "../../integration/rail.ts";
import { Desk } from "../../relayer/intent-desk.ts";
import { addressOf, refusalOf } from "../../relayer/office.ts";

const intent = draftIntent({
  purpose: "weather data for a route",
  budget: "0.005",
  paymentCap: "0.0001",
  duration: "1d",
});

describe("opening a mandate", function () {
  this.timeout(120_000);
  let rail: TestRail;
  let server: FastifyInstance;
  let url: string;

  before(async () => {
    rail = await TestRail.start();
    await rail.fund(1_000_000n);
    const { escrow, settlement, direct } = rail.chain.rail;
    const tokens = { tUSD: { address: rail.token, unitScale: 1n } };
    const intents = intentRoutes({ intents: new Desk(rail).intents, domain: rail.domain, now: () => rail.now() });
    server = createServer(rail.processor, { place: { escrow, settlement, direct, tokens }, routes: [() => intents] });
    url = await server.listen({ host: "127.0.0.1", port: 0 });
  });
  after(async () => {
    await server.close();
    await rail.stop();
  });

  const options = (changes: Partial<OpenMandateOptions> = {}): OpenMandateOptions => ({
    processor: url,
    intent,
    owner: rail.ownerAddress,
    patience: { attempts: 2, pause: 1 },
    ...changes,
  });
  const buys = async (agent: Agent): Promise<void> => {
    const { receipt } = await agent.pay({ payee: addressOf("payee"), amount: "0.0001", ref: id("rain") });
    expect(receipt.receipt).to.include({ seq: 1n, amount: 100n });
    expect(await agent.remaining()).to.equal(4_900n);
  };
  /** A line to the processor on which some answers are changed. */
  const altered =
    (path: string, change: (answer: Record<string, unknown>) => unknown): typeof fetch =>
    async (input, init) => {
      const answer = await fetch(input, init);
      if (new URL(new Request(input).url).pathname !== path) return answer;
      return Response.json(change((await answer.json()) as Record<string, unknown>), { status: answer.status });
    };

  it("leaves a link for the owner, waits for the signature, and then pays", async () => {
    const opening = await openMandate(options());
    expect(opening.signUrl).to.equal(`${url}/intents/${opening.agent.address}/sign`);
    expect(opening.clauses).to.deep.include({
      subject: "budget",
      words: "at most 0.005 tUSD in all",
      enforcedBy: "contract and proof",
    });
    expect((await fetch(opening.signUrl)).headers.get("content-type")).to.include("text/html");
    let open = false;
    const waiting = opening.wait({ interval: 5 }).then((agent) => {
      open = true;
      return agent;
    });
    expect((await refusalOf(() => buys(opening.agent))).code).to.equal("mandate-unknown");
    expect(open).to.equal(false);
    const ownerSignature = await signMandate(rail.owner, rail.domain, opening.agent.mandate);
    const body = JSON.stringify({ ownerSignature });
    const headers = { "content-type": "application/json" };
    await fetch(`${url}/intents/${opening.agent.address}/signature`, { method: "POST", headers, body });
    await buys(await waiting);
  });

  it("is done at once with the owner's signer at hand, with a key that was made before", async () => {
    const key = freshKey();
    const opening = await openMandate(options({ owner: rail.owner, key, token: "tUSD" }));
    expect(opening.agent.address).to.equal(key.address);
    await buys(await opening.wait());
  });

  it("is done at once with the owner's wallet (EIP-1193) at hand", async () => {
    const wallet = {
      request: ({ method, params }: { method: string; params?: unknown[] | Record<string, unknown> }) =>
        method === "eth_requestAccounts" || method === "eth_accounts"
          ? Promise.resolve([rail.ownerAddress])
          : (rail.provider.send(method, (params ?? []) as unknown[]) as Promise<unknown>),
    };
    const opening = await openMandate(options({ owner: wallet, token: rail.token }));
    await buys(await opening.wait());
  });

  it("goes on when the answer to the owner's signature is lost", async () => {
    let losses = 2;
    const opening = await openMandate(
      options({
        owner: rail.owner,
        surroundings: {
          fetch: async (input, init) => {
            const answer = await fetch(input, init);
            if (!new Request(input).url.endsWith("/signature") || losses-- <= 0) return answer;
            throw new TypeError("the connection was lost");
          },
        },
      }),
    );
    expect(losses).to.equal(0);
    await buys(await opening.wait({ interval: 5 }));
  });

  it("tells what the owner lacks", async () => {
    const rich = draftIntent({ purpose: "too much", budget: "100", duration: "1d" });
    const error = await refusalOf(() => openMandate(options({ owner: rail.owner, intent: rich })));
    expect(error.code).to.equal("funds-missing");
  });

  it("can be waited for as long as one likes", async () => {
    const opening = await openMandate(options());
    const stop = new AbortController();
    const waiting = opening.wait({ signal: stop.signal, interval: 60_000 }).catch((error: unknown) => error);
    stop.abort(new Error("no more"));
    expect(String(await waiting)).to.include("no more");
  });

  describe("ends", () => {
    for (const [state, code] of [
      ["revoked", "mandate-revoked"],
      ["expired", "mandate-expired"],
      ["closed", "mandate-closed"],
    ]) {
      it(`when the mandate is ${state}`, async () => {
        const key = freshKey();
        const fetch = altered(`/intents/${key.address}`, (answer) => ({ ...answer, state }));
        const opening = await openMandate(options({ key, surroundings: { fetch } }));
        expect((await refusalOf(() => opening.wait())).code).to.equal(code);
      });
    }

    it("when the intent is forgotten", async () => {
      const opening = await openMandate(options());
      rail.skew = 7_200n;
      const error = await refusalOf(() => opening.wait());
      rail.skew = 0n;
      expect(error.code).to.be.oneOf(["not-found", "unauthorised"]);
    });
  });

  describe("is refused, with nothing for the owner to sign,", () => {
    it("by another processor, registry or chain than expected", async () => {
      const cases = [
        ["wrong-processor", { processor: addressOf("other") }],
        ["wrong-contract", { registry: addressOf("other") }],
        ["wrong-chain", { chainId: 1n }],
      ] as const;
      for (const [code, expected] of cases) {
        expect((await refusalOf(() => openMandate(options({ expected })))).code).to.equal(code);
      }
      const right = { processor: rail.processorKey.address as `0x${string}`, ...rail.domain };
      await openMandate(options({ expected: right }));
    });

    it("in a token that the processor does not settle, or when it must be named", async () => {
      expect((await refusalOf(() => openMandate(options({ token: "EURC" })))).code).to.equal("wrong-token");
      const two = altered("/info", (info) => ({
        ...info,
        tokens: { ...(info["tokens"] as object), EURC: { address: addressOf("euro"), unitScale: "1" } },
      }));
      expect((await refusalOf(() => openMandate(options({ surroundings: { fetch: two } })))).code).to.equal(
        "wrong-token",
      );
      await openMandate(options({ surroundings: { fetch: two }, token: "tUSD" }));
    });

    const payees = [addressOf("thief")];
    const lies: Record<string, [string, (mandate: Record<string, unknown>) => object]> = {
      "a payee list that differs from the policy root": ["policy-mismatch", (mandate) => ({ ...mandate, payees })],
      "other terms": ["terms-mismatch", (mandate) => ({ ...mandate, termsHash: id("others") })],
      "another processor": ["wrong-processor", (mandate) => ({ ...mandate, processor: payees[0] })],
      "another payee": [
        "mandate-conflict",
        (mandate) => ({ ...mandate, payees, policyRoot: headHex(policyRoot(payees, 100n)) }),
      ],
      "a higher budget": ["mandate-conflict", (mandate) => ({ ...mandate, budget: "6000" })],
    };
    for (const [name, [code, lie]] of Object.entries(lies)) {
      it(`when the processor shows the owner ${name}`, async () => {
        let signed = 0;
        const change = (view: Record<string, unknown>): object => ({
          ...view,
          mandate: lie(view["mandate"] as Record<string, unknown>),
        });
        const owner = {
          getAddress: () => rail.owner.getAddress(),
          signTypedData: () => Promise.resolve(`0x${String(++signed)}`),
        } as unknown as typeof rail.owner;
        const fetch = altered("/intents", change);
        expect((await refusalOf(() => openMandate(options({ owner, surroundings: { fetch } })))).code).to.equal(code);
        expect(signed).to.equal(0);
      });
    }

    it("with a link that is none", async () => {
      const fetch = altered("/intents", (view) => ({ ...view, signUrl: "javascript:alert(1)" }));
      expect((await refusalOf(() => openMandate(options({ surroundings: { fetch } })))).code).to.equal(
        "malformed-input",
      );
    });
  });
});
