import { request as httpRequest } from "node:http";

import {
  parseWire,
  signedReceiptSchema,
  signMandate,
  signRevocation,
  toWire,
  verifyPaid,
  type Address,
  type Problem,
  type SignedPayment,
  type Terms,
} from "@bursar/protocol";
import { createServer } from "@bursar/relayer";
import { expect } from "chai";
import { getAddress, ZeroHash, type Signer } from "ethers";

import { OPEN_TERMS, TestRail, type PayingAgent } from "../integration/rail.ts";
import { accessOf, addressOf, keyOf, Office, signAs } from "./office.ts";

const SHOP = addressOf("shop");

/** A JSON value whose fields a test may set to anything. */
type Body = Record<string, unknown> & { payment: Record<string, unknown> & { line: Record<string, unknown> } };

describe("the processor over HTTP", function () {
  this.timeout(60_000);
  let rail: TestRail;
  let server: ReturnType<typeof createServer>;
  let url: string;

  before(async () => {
    rail = await TestRail.start();
    server = createServer(rail.processor);
    url = await server.listen({ host: "127.0.0.1", port: 0 });
  });
  after(async () => {
    await server.close();
    await rail.stop();
  });

  async function post(path: string, body: unknown): Promise<Response> {
    return fetch(`${url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: typeof body === "string" ? body : JSON.stringify(toWire(body)),
    });
  }

  async function get(path: string, reader: Signer & { address: string }): Promise<Response> {
    return fetch(`${url}${path}`, { headers: { authorization: await accessOf(reader, rail.domain, rail.now()) } });
  }

  /** The Problem Details of a refusal, after checking its form. */
  async function problemOf(response: Response, status: number): Promise<Problem> {
    expect(response.status).to.equal(status);
    expect(response.headers.get("content-type")).to.match(/^application\/problem\+json\b/);
    const problem = (await response.json()) as Problem;
    expect(problem.status).to.equal(status);
    expect(problem.title).to.be.a("string").and.not.equal("");
    expect(problem.detail).to.be.a("string").and.not.equal("");
    expect(problem.details).to.be.an("object");
    expect(JSON.stringify(problem)).not.to.match(/node_modules|\.ts\b| {4}at |sqlite|127\.0\.0\.1/i);
    return problem;
  }

  const bodyOf = (request: SignedPayment): Body => JSON.parse(JSON.stringify(toWire(request))) as Body;

  describe("answers", () => {
    it("POST /mandates with 201 and the mandate's state, again alike", async () => {
      const key = keyOf("registered over HTTP");
      const mandate = rail.draft(key.address as Address);
      await rail.fund(mandate.budget);
      const [byOwner, byAgent] = await Promise.all(
        [rail.owner, key].map((signer) => signMandate(signer, rail.domain, mandate)),
      );
      await (await rail.chain.registry.connect(rail.owner).open({ ...mandate, payees: [] }, byOwner!, byAgent!)).wait();
      for (let attempt = 0; attempt < 2; ++attempt) {
        const response = await post("/mandates", { mandate, terms: OPEN_TERMS });
        expect(response.status).to.equal(201);
        expect(await response.json()).to.deep.equal({ agent: key.address, state: "open" });
      }
    });

    it("POST /payments with a receipt that the payee verifies, and with the same bytes again", async () => {
      const agent = await rail.open();
      const payment = await agent.sign(SHOP, 5n);
      const first = await post("/payments", payment);
      expect(first.status).to.equal(200);
      const text = await first.text();
      const receipt = parseWire(signedReceiptSchema, JSON.parse(text));
      verifyPaid(
        { domain: rail.domain, payment, receipt },
        {
          domain: rail.domain,
          payee: SHOP,
          amount: 5n,
          ref: ZeroHash as `0x${string}`,
          processor: rail.processorKey.address as Address,
          now: rail.now(),
        },
      );
      expect(await (await post("/payments", payment)).text()).to.equal(text);
    });

    it("POST /payments/check like POST /payments, without effect", async () => {
      const agent = await rail.open();
      const good = await agent.sign(SHOP, 5n);
      const checked = await post("/payments/check", good);
      expect([checked.status, await checked.json()]).to.deep.equal([200, { accepted: true, remaining: "99995" }]);
      agent.ledger.discard();
      const bad = await post("/payments/check", await agent.sign(SHOP, 1_001n));
      expect((await problemOf(bad, 403)).code).to.equal("above-payment-cap");
      expect((await rail.processor.status(agent.address)).accepted.seq).to.equal(0n);
      expect(await rail.store.refusals(agent.address)).to.deep.equal([]);
    });

    it("GET /mandates/:agent with what is accepted, settled and left", async () => {
      const agent = await rail.open();
      await agent.pay(SHOP, 7n);
      const response = await get(`/mandates/${agent.address}`, agent.wallet);
      expect(await response.json()).to.deep.include({
        state: "open",
        accepted: { seq: "1", spent: "7" },
        remaining: "99993",
        revokedAt: null,
      });
    });

    it("POST /revocations by stopping the mandate", async () => {
      const agent = await rail.open();
      const revocation = { agent: agent.address, afterSeq: 0n };
      const forged = await signRevocation(agent.wallet, rail.domain, revocation);
      const refused = await post("/revocations", { revocation, signature: forged });
      expect((await problemOf(refused, 422)).code).to.equal("signature-signer");
      const signature = await signRevocation(rail.owner, rail.domain, revocation);
      const response = await post("/revocations", { revocation, signature });
      expect(response.status).to.equal(200);
      expect(await response.json()).to.deep.equal({ agent: agent.address, state: "revoked" });
      const late = await post("/payments", await agent.sign(SHOP, 1n));
      expect((await problemOf(late, 409)).code).to.equal("mandate-revoked");
    });

    it("K15: GET /health with ok and nothing else, in body and headers", async () => {
      const response = await fetch(`${url}/health`);
      expect([response.status, await response.json()]).to.deep.equal([200, { status: "ok" }]);
      expect([...response.headers.keys()].sort()).to.deep.equal([
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
      ]);
    });
  });

  describe("refuses as Problem Details", () => {
    let agent: PayingAgent;
    let good: SignedPayment;
    before(async () => {
      agent = await rail.open({ budget: 1_500n });
      good = await agent.sign(SHOP, 5n);
    });
    afterEach(async () => expect((await rail.processor.status(agent.address)).accepted.seq).to.equal(0n));

    for (const [what, body] of [
      ["nothing", ""],
      ["half a JSON text", '{"agent":'],
      ["a JSON number", "7"],
      ["null", "null"],
      ["a list", "[]"],
      ["a duplicate prototype", '{"__proto__":{"agent":"0x00"}}'],
      ["30,000 nested lists", `${"[".repeat(30_000)}${"]".repeat(30_000)}`],
      ["10,000 nested objects", `${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`],
    ] as const) {
      it(`${what} as a body: 400`, async () => {
        for (const path of ["/payments", "/payments/check", "/mandates", "/revocations"])
          expect((await problemOf(await post(path, body), 400)).code).to.equal("malformed-input");
      });
    }

    it("a body of 10 MB: 413, before it is read", async () => {
      const response = await new Promise<Response>((resolve, reject) => {
        const asked = httpRequest(`${url}/payments`, {
          method: "POST",
          headers: { "content-type": "application/json", "content-length": 10_000_000 },
        });
        asked.on("response", (answer) => {
          let text = "";
          answer.on("data", (chunk: Buffer) => (text += String(chunk)));
          answer.on("end", () => {
            asked.destroy();
            resolve(
              new Response(text, {
                status: answer.statusCode!,
                headers: { "content-type": answer.headers["content-type"]! },
              }),
            );
          });
        });
        asked.on("error", reject);
        asked.flushHeaders();
      });
      const problem = await problemOf(response, 413);
      expect(problem).to.deep.include({ code: "body-too-large", details: { limit: "65536" } });
    });

    it("another content type: 415", async () => {
      const response = await fetch(`${url}/payments`, {
        method: "POST",
        headers: { "content-type": "application/xml" },
        body: "<pay/>",
      });
      expect((await problemOf(response, 415)).code).to.equal("unsupported-media-type");
    });

    it("unknown routes and methods: 404, without repeating the query", async () => {
      for (const [method, path] of [
        ["GET", "/"],
        ["GET", "/payments"],
        ["DELETE", "/mandates"],
        ["OPTIONS", "/payments"],
        ["GET", "/metrics?token=secret"],
        ["GET", "/debug"],
        ["GET", "/%2e%2e/etc/passwd"],
      ] as const) {
        const problem = await problemOf(await fetch(`${url}${path}`, { method }), 404);
        expect(problem.detail).not.to.contain("secret");
      }
    });

    it("who does not say who asks: 401; what is another's and what does not exist, alike: 403", async () => {
      const agent = await rail.open();
      await agent.pay(SHOP, 7n);
      const stranger = keyOf("stranger");
      const answers: string[] = [];
      for (const path of [agent.address, addressOf("nobody")].flatMap((one) => [
        `/mandates/${one}`,
        `/mandates/${one}/tail`,
        `/payments/${one}/1`,
      ])) {
        const unnamed = await problemOf(await fetch(`${url}${path}`), 401);
        expect(unnamed.advice).to.match(/Authorization: Bursar/);
        const foreign = await problemOf(await get(path, stranger), 403);
        expect(foreign.code).to.equal("forbidden");
        answers.push(JSON.stringify(foreign));
      }
      expect(new Set(answers).size).to.equal(1);
      expect((await problemOf(await get("/mandates/nobody", stranger), 400)).code).to.equal("malformed-input");
    });

    it("K4: another checksum than the address has; lower case, upper case and EIP-55 are one address", async () => {
      const checksummed = getAddress(SHOP);
      const digits = checksummed.slice(2);
      const swapped = Array.from(digits, (c) => (c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase())).join("");
      const ask = (payee: string): Promise<Response> => {
        const body = bodyOf(good);
        body.payment.line["payee"] = payee;
        return post("/payments/check", body);
      };
      for (const form of [
        checksummed,
        `0x${digits.toLowerCase()}`,
        `0x${digits.toUpperCase()}`,
        `0X${digits.toUpperCase()}`,
      ])
        expect((await ask(form)).status, form).to.equal(200);
      for (const form of [
        `0x${swapped}`,
        digits,
        `0x${digits}0`,
        `0x${digits.slice(1)}`,
        ` ${checksummed}`,
        `0x${"0".repeat(40)}`,
      ]) {
        const problem = await problemOf(await ask(form), 400);
        expect(problem.details, form).to.have.property("payment.line.payee");
      }
    });

    for (const field of ["seq", "spent", "amount", "salt"]) {
      it(`K5: every form of ${field} but the canonical decimal string`, async () => {
        const set = (value: unknown): Body => {
          const body = bodyOf(good);
          const [holder] = field === "amount" ? [body.payment.line] : field === "salt" ? [body] : [body.payment];
          holder[field] = value;
          return body;
        };
        const forms = [
          "0x1",
          " 1",
          "1 ",
          "+1",
          "-1",
          "-0",
          "1e2",
          "1.0",
          "01",
          "",
          "１",
          "٣",
          "1_0",
          "NaN",
          "Infinity",
        ];
        for (const value of [...forms, 1, 1.5, null, true, ["1"], { value: "1" }, `${2n ** 256n}`]) {
          const problem = await problemOf(await post("/payments", set(value)), 400);
          expect(Object.keys(problem.details).join(), JSON.stringify(value)).to.contain(field);
        }
        await problemOf(await post("/payments", set(undefined)), 400);
      });
    }

    it("K6: amounts of 0 and above 2^40 − 1, and fields that it does not know", async () => {
      for (const [field, value] of [
        ["amount", "0"],
        ["amount", `${2n ** 40n}`],
        ["memo", "hello"],
      ] as const) {
        const body = bodyOf(good);
        body.payment.line[field] = value;
        expect((await problemOf(await post("/payments", body), 400)).code).to.equal("malformed-input");
      }
    });

    it("a head and a policy root that are not below the field order: 400", async () => {
      const body = bodyOf(good);
      body.payment["head"] = `0x${"ff".repeat(32)}`;
      expect((await problemOf(await post("/payments", body), 400)).details).to.have.property("payment.head");
      const mandate = { ...rail.draft(SHOP), policyRoot: `0x${"ff".repeat(32)}` };
      const response = await post("/mandates", { mandate, terms: OPEN_TERMS });
      expect((await problemOf(response, 400)).details).to.have.property("mandate.policyRoot");
    });

    it("what the decision refuses, with the status of its code, value, limit and advice", async () => {
      const mission: Terms = { ...OPEN_TERMS, categories: ["maps"] };
      const limited = await rail.open({}, mission);
      const { payment, salt } = good;
      const changed = async (changes: Partial<typeof payment>): Promise<SignedPayment> =>
        signAs(agent, { ...payment, ...changes }, salt, rail.domain);
      const cases: [status: number, code: string, request: SignedPayment][] = [
        [409, "sequence-gap", await changed({ seq: 2n })],
        [409, "spent-mismatch", await changed({ spent: 6n })],
        [409, "head-mismatch", await changed({ head: ZeroHash as `0x${string}` })],
        [403, "payee-unknown", await limited.sign(SHOP, 1n)],
        [
          422,
          "signature-signer",
          await signAs({ wallet: rail.processorKey, address: agent.address }, payment, salt, rail.domain),
        ],
        [422, "signature-length", { ...good, signature: good.signature.slice(0, -2) as `0x${string}` }],
        [422, "signature-v", { ...good, signature: `${good.signature.slice(0, -2)}00` as `0x${string}` }],
        [
          404,
          "mandate-unknown",
          await signAs({ wallet: keyOf("nobody"), address: addressOf("nobody") }, payment, salt, rail.domain),
        ],
      ];
      for (const [status, code, request] of cases) {
        const problem = await problemOf(await post("/payments", request), status);
        expect(problem.code).to.equal(code);
        expect(problem.type).to.equal(`urn:bursar:problem:${code}`);
        if (status === 409 || status === 403) expect(problem.advice).to.be.a("string");
        if (status === 409) expect(problem.details).to.include.keys("value", "limit");
      }
    });

    it("a mandate that is not open or not this processor's", async () => {
      const mandate = rail.draft(SHOP);
      const closed = await problemOf(await post("/mandates", { mandate, terms: OPEN_TERMS }), 409);
      expect(closed.code).to.equal("mandate-not-open");
      const elsewhere = { mandate: { ...mandate, processor: SHOP }, terms: OPEN_TERMS };
      expect((await problemOf(await post("/mandates", elsewhere), 422)).code).to.equal("wrong-processor");
    });
  });

  it("K15: tells nothing of an internal failure", async () => {
    const office = await Office.open();
    await office.store.close();
    const broken = createServer(office.processor);
    const address = await broken.listen({ host: "127.0.0.1", port: 0 });
    const path = `${address}/mandates/${SHOP}`;
    const access = await accessOf(keyOf("shop"), office.domain, office.clock);
    const problem = await problemOf(await fetch(path, { headers: { authorization: access } }), 500);
    expect(problem).to.deep.equal({
      type: "urn:bursar:problem:internal-error",
      status: 500,
      title: "Internal error",
      detail: "Internal error",
      code: "internal-error",
      details: {},
    });
    await broken.close();
  });
});
