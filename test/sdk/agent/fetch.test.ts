import {
  decodePaymentHeader,
  encodePaymentRequired,
  headHex,
  policyRoot,
  requestRef,
  signQuote,
  verifyPaid,
  type Hex,
  type Mandate,
  type PaymentTerms,
} from "@bursar/protocol";
import { explain, PaidNotServed, type FetchOptions } from "@bursar/sdk/agent";
import { expect } from "chai";
import { id } from "ethers";

import { addressOf, DOMAIN, keyOf, NOW, refusalOf } from "../../relayer/office.ts";
import { ask, cut, Market, PAYEE, termsFor } from "./market.ts";

interface Case {
  readonly asks?: Partial<PaymentTerms>;
  readonly options?: FetchOptions;
  readonly price?: bigint;
  readonly overrides?: Partial<Mandate>;
}

interface Demand {
  readonly accepts: readonly object[];
}

const base64 = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64");
const demandOf = (terms: PaymentTerms): Demand =>
  JSON.parse(Buffer.from(encodePaymentRequired(terms), "base64").toString()) as Demand;

async function notServed(attempt: () => Promise<unknown>): Promise<PaidNotServed> {
  const error = await refusalOf(attempt);
  if (error instanceof PaidNotServed) return error;
  throw error;
}

describe("an agent's fetch", () => {
  let market: Market;
  beforeEach(async () => {
    market = await Market.open();
  });
  afterEach(() => market.close());

  it("pays what a service asks and comes back with its answer", async () => {
    const [shop, agent] = [await market.shop(), await market.agent("alice")];
    const answer = await agent.fetch(`${shop.url}/weather?city=Ulm#today`);
    expect(answer.status).to.equal(200);
    expect(await answer.json()).to.deep.equal({ bought: "/weather?city=Ulm", body: "" });
    expect(await market.paid(agent)).to.have.length(1);
    expect(shop.headers).to.have.length(1);
  });

  it("lets free answers through, and 402 answers in other schemes", async () => {
    const agent = await market.agent("alice");
    const other = { x402Version: 2, resource: { url: "x" }, accepts: [{ scheme: "exact" }] };
    const header = base64(other);
    const shop = await market.shop({
      instead: (_paid, request, reply) => {
        if (request.url === "/free") return reply.send("free");
        return request.url === "/other" ? ask(reply, header) : reply.status(402).send("");
      },
    });
    expect(await (await agent.fetch(`${shop.url}/free`)).text()).to.equal("free");
    for (const path of ["/other", "/nothing"]) expect((await agent.fetch(shop.url + path)).status).to.equal(402);
    expect(await market.paid(agent)).to.have.length(0);
  });

  it("refuses a demand that is damaged", async () => {
    const agent = await market.agent("alice");
    const damaged = ["%%%", base64({}), base64({ accepts: [{ scheme: "bursar" }] })];
    for (const header of damaged) {
      const shop = await market.shop({ instead: (_paid, _request, reply) => ask(reply, header) });
      expect((await refusalOf(() => agent.fetch(shop.url))).code).to.equal("malformed-input");
    }
  });

  it("finds its own way of paying among several", async () => {
    const shop = await market.shop({
      instead: (paid, request, reply) => {
        if (paid) return undefined;
        const url = `${shop.url}${request.url}`;
        const own = termsFor(url, requestRef({ method: "GET", url }));
        const elsewhere = { ...own, domain: { ...DOMAIN, chainId: 8_453n }, amount: 1n };
        const [one, other] = [own, elsewhere].map((terms) => demandOf(terms)) as [Demand, Demand];
        const accepts = [{ scheme: "exact", network: "eip155:1" }, ...other.accepts, ...one.accepts];
        return ask(reply, base64({ ...one, accepts }));
      },
    });
    const agent = await market.agent("alice");
    expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
    expect((await market.paid(agent))[0]).to.include({ amount: 100n });
  });

  describe("sends a body twice as it was", () => {
    const text = "grüße";
    const bodies: Record<string, () => RequestInit> = {
      text: () => ({ body: text }),
      bytes: () => ({ body: new TextEncoder().encode(text) }),
      "a blob": () => ({ body: new Blob([text]) }),
      "a stream": () => ({ body: new Blob([text]).stream() }),
      "a form": () => ({ body: new URLSearchParams({ text }) }),
      "a form with a file": () => {
        const form = new FormData();
        form.set("file", new Blob([text]), "name.txt");
        return { body: form };
      },
      "nothing at all": () => ({}),
      "an empty text": () => ({ body: "" }),
    };
    for (const [name, make] of Object.entries(bodies)) {
      it(name, async () => {
        const [shop, agent] = [await market.shop(), await market.agent("alice")];
        const answer = await agent.fetch(`${shop.url}/translate`, { method: "POST", ...make() });
        expect(answer.status).to.equal(200);
        const { body } = (await answer.json()) as { body: string };
        if ("body" in make() && name !== "an empty text") {
          expect(decodeURIComponent(body)).to.include(text);
        } else expect(body).to.equal("");
      });
    }

    it("of a Request", async () => {
      const [shop, agent] = [await market.shop(), await market.agent("alice")];
      const answer = await agent.fetch(new Request(`${shop.url}/t`, { method: "PUT", body: text }), {
        headers: { "x-trace": "1" },
      });
      expect(await answer.json()).to.include({ body: text });
    });

    it("up to a limit", async () => {
      const [shop, agent] = [await market.shop(), await market.agent("alice", { maxBody: 10 })];
      const error = await refusalOf(() => agent.fetch(shop.url, { method: "POST", body: "12345678901" }));
      expect(error).to.include({ code: "body-too-large" });
      expect(error.details).to.include({ limit: "10" });
      expect((await agent.fetch(shop.url, { method: "POST", body: "1234567890" })).status).to.equal(200);
    });
  });

  describe("signs nothing", () => {
    const named = [addressOf("somebody")];
    const list = { payees: named, policyRoot: headHex(policyRoot(named, 1_000n)) };
    const line = { payee: PAYEE, amount: 1n, ref: id("another") as Hex };
    const quote = { ...line, host: "api.example", category: "data", expiresAt: NOW };
    const cases: Record<string, Case> = {
      "price-above-limit": { options: { maxPrice: "0.000099" } },
      "above-payment-cap": { price: 1_001n },
      "above-budget": { price: 901n, overrides: { budget: 900n } },
      "wrong-chain": { asks: { domain: { ...DOMAIN, chainId: 1n } } },
      "wrong-contract": { asks: { domain: { ...DOMAIN, registry: PAYEE } } },
      "wrong-token": { asks: { token: PAYEE } },
      "processor-not-accepted": { asks: { processors: [PAYEE] } },
      "payee-not-allowed": { overrides: list },
      "payment-mismatch": { asks: { ref: id("another") as Hex } },
      "quote-mismatch": { options: { quote: { quote, signature: "0x" } } },
    };
    for (const [code, { asks, options, price = 100n, overrides = {} }] of Object.entries(cases)) {
      it(`for ${code}, and says what to do`, async () => {
        const shop = await market.shop({ price, asks: (terms) => ({ ...terms, ...asks }) });
        const agent = await market.agent("alice", { overrides });
        const error = await refusalOf(() => agent.fetch(shop.url, {}, options));
        expect(error.code).to.equal(code);
        expect(explain(error)).to.match(new RegExp(`^error: ${code}\nwhat: [^]+\nadvice: .{10}`));
        expect(market.line.sent).to.have.length(0);
        expect(shop.headers).to.have.length(0);
      });
    }

    it("when the body that the payee saw is another one than was sent", async () => {
      const shop = await market.shop({
        asks: (terms) => ({ ...terms, ref: id("the body was changed on its way") as Hex }),
      });
      const agent = await market.agent("alice");
      const error = await refusalOf(() => agent.fetch(shop.url, { method: "POST", body: "x" }));
      expect(error).to.include({ code: "payment-mismatch" });
    });
  });

  it("binds a quote id, and shows the payee's offer to the processor", async () => {
    const shop = await market.shop({
      instead: (paid, request, reply) => {
        const url = `${shop.url}${request.url}`;
        const terms = termsFor(url, requestRef({ method: "GET", url, quote: "q-1" }));
        return paid ? reply.send("ok") : ask(reply, encodePaymentRequired(terms));
      },
    });
    const agent = await market.agent("alice");
    const url = `${shop.url}/`;
    expect((await refusalOf(() => agent.fetch(url))).code).to.equal("payment-mismatch");
    const ref = requestRef({ method: "GET", url, quote: "q-1" });
    const line = { payee: PAYEE, amount: 100n, ref };
    const quote = { ...line, host: "api.example", category: "data", expiresAt: NOW + 60n };
    const signature = await signQuote(keyOf("payee"), DOMAIN, quote);
    const answer = await agent.fetch(url, {}, { quoteId: "q-1", quote: { quote, signature } });
    expect(await answer.text()).to.equal("ok");
    const { quote: shown } = JSON.parse(market.line.sent[0]!) as { quote: { signature: Hex } };
    expect(shown.signature).to.equal(signature);
  });

  it("passes on the offer in the 402 answer if it is for this very request", async () => {
    const shop = await market.shop({
      instead: (paid, request, reply) => {
        if (paid) return undefined;
        const url = `${shop.url}${request.url}`;
        const ref = requestRef({ method: "GET", url });
        const amount = request.url === "/other" ? 99n : 100n;
        const quote = { payee: PAYEE, amount, ref, host: "api.example", category: "data", expiresAt: NOW + 60n };
        return ask(reply, encodePaymentRequired({ ...termsFor(url, ref), quote: { quote, signature: "0x1234" } }));
      },
    });
    const agent = await market.agent("alice");
    for (const path of ["/own", "/other"]) expect((await agent.fetch(shop.url + path)).status).to.equal(200);
    const sent = market.line.sent.map((body) => JSON.parse(body) as { quote?: { signature: Hex } });
    expect(sent.map(({ quote }) => quote?.signature)).to.deep.equal(["0x1234", undefined]);
  });

  it("makes 50 ordered payments for 50 requests at once, each for its own", async () => {
    const [shop, agent] = [await market.shop(), await market.agent("alice")];
    const answers = await Promise.all(
      Array.from({ length: 50 }, async (_, index): Promise<unknown> =>
        (await agent.fetch(`${shop.url}/item/${index}`)).json(),
      ),
    );
    expect(answers).to.deep.equal(Array.from({ length: 50 }, (_, index) => ({ bought: `/item/${index}`, body: "" })));
    const paid = await market.paid(agent);
    expect(paid.map(({ seq }) => seq)).to.deep.equal(Array.from({ length: 50 }, (_, index) => BigInt(index + 1)));
    expect(new Set(paid.map(({ ref }) => ref)).size).to.equal(50);
    expect(new Set(shop.served.map(({ seq }) => seq)).size).to.equal(50);
  });

  it("serves a storm of equal requests one payment each, and stops at the budget", async () => {
    const shop = await market.shop();
    const agent = await market.agent("alice", { overrides: { budget: 1_050n } });
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => agent.fetch(`${shop.url}/same`)));
    const failed = outcomes.filter((outcome) => outcome.status === "rejected");
    expect(failed).to.have.length(10);
    for (const { reason } of failed) expect(reason).to.include({ code: "above-budget" });
    expect(await market.paid(agent)).to.have.length(10);
    expect(shop.served).to.have.length(10);
  });

  describe("after it has paid", () => {
    it("sends the same header again when the payee's connection ends", async () => {
      let cuts = 2;
      const shop = await market.shop({
        instead: (paid, request, reply) => (paid && cuts-- > 0 ? cut(request, reply) : undefined),
      });
      const agent = await market.agent("alice");
      expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
      expect(shop.headers).to.have.length(3);
      expect(new Set(shop.headers).size).to.equal(1);
      expect(await market.paid(agent)).to.have.length(1);
    });

    it("gives up with the payment and the receipt as evidence, and the next same call takes them", async () => {
      let down = true;
      const shop = await market.shop({
        instead: (paid, request, reply) => (paid && down ? cut(request, reply) : undefined),
      });
      const agent = await market.agent("alice");
      const error = await notServed(() => agent.fetch(`${shop.url}/`));
      expect(error.code).to.equal("paid-not-served");
      expect(explain(error)).to.include("paid: yes, payment 1 of 0.0001");
      expect(decodePaymentHeader(error.header)).to.deep.equal(error.paid);
      const { line } = error.paid.payment.payment;
      verifyPaid(error.paid, { domain: DOMAIN, ...line, processor: addressOf("processor"), now: NOW });
      down = false;
      expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
      expect(await market.paid(agent)).to.have.length(1);
      expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
      expect(await market.paid(agent)).to.have.length(2);
    });

    it("tells the caller of a server error and keeps the payment for the next same call", async () => {
      let broken = true;
      const shop = await market.shop({
        instead: (paid, _request, reply) => (paid && broken ? reply.status(500).send("oh") : undefined),
      });
      const agent = await market.agent("alice");
      expect((await agent.fetch(`${shop.url}/`)).status).to.equal(500);
      broken = false;
      expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
      expect(await market.paid(agent)).to.have.length(1);
    });

    it("does not pay again when asked again", async () => {
      const shop = await market.shop({
        instead: (paid, _request, reply) => (paid ? reply.status(402).send({ code: "receipt-expired" }) : undefined),
      });
      const agent = await market.agent("alice");
      const error = await notServed(() => agent.fetch(`${shop.url}/`));
      expect(error.details).to.include({ reason: "asked-again" });
      expect(await error.response?.json()).to.deep.equal({ code: "receipt-expired" });
      expect(await market.paid(agent)).to.have.length(1);
    });

    it("waits while the payee waits for the settlement, with the same header", async () => {
      const waits: number[] = [];
      let pending = 3;
      const shop = await market.shop({
        instead: (paid, _request, reply) => {
          if (!paid || pending === 0) return undefined;
          const status = pending-- === 2 ? 503 : 402;
          const answer = reply.status(status).header("retry-after", "7");
          return answer.send({ code: "settlement-pending" });
        },
      });
      const agent = await market.agent("alice", {
        patience: { attempts: 5, longest: 10_000 },
        surroundings: { sleep: (milliseconds) => Promise.resolve(void waits.push(milliseconds)) },
      });
      expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
      expect(waits).to.deep.equal([7_000, 7_000, 7_000]);
      expect(new Set(shop.headers).size).to.equal(1);
      expect(await market.paid(agent)).to.have.length(1);
    });

    it("shows the payment again after any 503 that says when, and leaves other server errors to the caller", async () => {
      const codes = ["exposure-exceeded", "store-unavailable", undefined];
      const shop = await market.shop({
        instead: (paid, _request, reply) =>
          paid && codes.length > 0
            ? reply.status(503).header("retry-after", "1").send({ code: codes.shift() })
            : undefined,
      });
      const agent = await market.agent("alice");
      expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
      expect(new Set(shop.headers).size).to.equal(1);
      expect(await market.paid(agent)).to.have.length(1);
    });

    it("does not wait for ever", async () => {
      const shop = await market.shop({
        instead: (paid, _request, reply) =>
          paid ? reply.status(402).header("retry-after", "9999").send({ code: "settlement-pending" }) : undefined,
      });
      const agent = await market.agent("alice");
      const error = await notServed(() => agent.fetch(`${shop.url}/`));
      expect(error.details).to.include({ reason: "settlement-pending" });
      expect(shop.headers).to.have.length(4);
    });

    it("can be stopped while it waits, and the payment is not lost", async () => {
      const stop = new AbortController();
      let pending = true;
      const shop = await market.shop({
        instead: (paid, _request, reply) => {
          if (!paid || !pending) return undefined;
          stop.abort(new Error("enough"));
          return reply.status(402).header("retry-after", "9").send({ code: "settlement-pending" });
        },
      });
      const agent = await market.agent("alice", { patience: { longest: 60_000 } });
      const failure = await agent.fetch(`${shop.url}/`, { signal: stop.signal }).catch((error: unknown) => error);
      expect(String(failure)).to.include("enough");
      pending = false;
      expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
      expect(await market.paid(agent)).to.have.length(1);
    });

    it("follows no redirect, wherever it leads", async () => {
      const thief = await market.shop();
      for (const status of [301, 302, 303, 307, 308]) {
        const shop = await market.shop({
          instead: (paid, _request, reply) => (paid ? reply.redirect(`${thief.url}/x`, status) : undefined),
        });
        const agent = await market.agent("alice");
        const error = await notServed(() => agent.fetch(`${shop.url}/`));
        expect(error.details).to.include({ reason: "redirected" });
        expect(error.message).to.include(thief.url);
      }
      expect(thief.headers).to.have.length(0);
    });
  });

  describe("where a redirect asks", () => {
    it("pays the final URL of the same origin", async () => {
      const shop = await market.shop({
        instead: (_paid, request, reply) => (request.url === "/old" ? reply.redirect("/new", 301) : undefined),
      });
      const agent = await market.agent("alice");
      expect(await (await agent.fetch(`${shop.url}/old`)).json()).to.include({ bought: "/new" });
    });

    it("pays no other origin, and no request that may have become another", async () => {
      const [agent, other] = [await market.agent("alice"), await market.shop()];
      const shop = await market.shop({
        instead: (_paid, request, reply) => {
          if (request.url === "/away") return reply.redirect(`${other.url}/`, 307);
          return request.url === "/post" ? reply.redirect("/other", 307) : undefined;
        },
      });
      expect((await refusalOf(() => agent.fetch(`${shop.url}/away`))).code).to.equal("redirected");
      const post = { method: "POST", body: "x" };
      expect((await refusalOf(() => agent.fetch(`${shop.url}/post`, post))).code).to.equal("redirected");
      expect(market.line.sent).to.have.length(0);
    });

    it("leaves a redirect to a caller that handles it", async () => {
      const shop = await market.shop({ instead: (_paid, _request, reply) => reply.redirect("/x", 302) });
      expect((await (await market.agent("alice")).fetch(shop.url, { redirect: "manual" })).status).to.equal(302);
    });
  });

  it("goes on through a processor that is down for a while", async () => {
    const [shop, agent] = [await market.shop(), await market.agent("alice")];
    market.line.faults.push("lost", "unanswered", { status: 502, body: "" });
    expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
    expect(await market.paid(agent)).to.have.length(1);
  });

  it("uses the payment of a call that ended in the processor's silence when it is made again", async () => {
    const [shop, agent] = [await market.shop(), await market.agent("alice")];
    market.line.faults.push("unanswered", "lost", "lost", "lost");
    expect((await refusalOf(() => agent.fetch(`${shop.url}/a`))).code).to.equal("processor-unavailable");
    expect((await agent.fetch(`${shop.url}/b`)).status).to.equal(200);
    expect((await agent.fetch(`${shop.url}/a`)).status).to.equal(200);
    expect(await market.paid(agent)).to.have.length(2);
    expect(shop.served.map(({ seq, url }) => [seq, url])).to.deep.equal([
      [2n, "/b"],
      [1n, "/a"],
    ]);
  });

  it("passes a failure of the first request on", async () => {
    const agent = await market.agent("alice");
    const failure = await agent.fetch("http://127.0.0.1:1/").catch((error: unknown) => error);
    expect(failure).to.be.instanceOf(TypeError);
    expect(explain(failure)).to.include("Nothing is known about a payment");
  });

  describe("estimates", () => {
    it("the price and what would be left, without paying", async () => {
      const [shop, agent] = [await market.shop(), await market.agent("alice")];
      const estimate = await agent.estimate(`${shop.url}/`);
      expect(estimate).to.include({ price: 100n, allowed: true, refusal: null, remaining: 99_900n });
      expect(await market.paid(agent)).to.have.length(0);
      expect(await agent.remaining()).to.equal(100_000n);
      expect((await agent.fetch(`${shop.url}/`)).status).to.equal(200);
    });

    it("what the processor would refuse, without a refusal in its books", async () => {
      const terms = { version: 1 as const, purpose: "p", categories: [], hosts: [], limits: { unitsPerCall: "99" } };
      const [shop, agent] = [await market.shop(), await market.agent("alice", { terms })];
      const { price, allowed, refusal } = await agent.estimate(`${shop.url}/`);
      expect({ price, allowed, code: refusal?.code }).to.deep.equal({
        price: 100n,
        allowed: false,
        code: "above-price",
      });
      expect(await market.office.store.refusals(agent.address)).to.have.length(0);
    });

    it("what is refused here", async () => {
      const [shop, agent] = [await market.shop({ price: 2_000n }), await market.agent("alice")];
      expect((await agent.estimate(`${shop.url}/`)).refusal?.code).to.equal("above-payment-cap");
      expect((await agent.estimate(`${shop.url}/`, {}, { maxPrice: 5n })).refusal?.code).to.equal("price-above-limit");
    });

    it("nothing for what is free", async () => {
      const shop = await market.shop({ instead: (_paid, _request, reply) => reply.send("free") });
      expect(await (await market.agent("alice")).estimate(shop.url)).to.include({ price: 0n, allowed: true });
    });
  });
});
