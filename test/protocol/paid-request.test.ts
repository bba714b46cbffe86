import { expect } from "chai";
import { keccak256, toUtf8Bytes, Wallet } from "ethers";
import {
  AgentLedger,
  decodePaymentHeader,
  decodePaymentRequired,
  encodePaymentHeader,
  encodePaymentRequired,
  headHex,
  PAYMENT_HEADER,
  PAYMENT_REQUIRED_HEADER,
  policyRoot,
  requestRef,
  signPayment,
  signQuote,
  signReceipt,
  verifyPaid,
  type Address,
  type Domain,
  type ErrorCode,
  type Mandate,
  type PaidExpectation,
  type PaidRequest,
  type PaymentTerms,
  type Receipt,
} from "@bursar/protocol";
import vectors from "../vectors/wire.json" with { type: "json" };
import { addressOf, keccakOf, refusal, word } from "./reference.ts";

const agent = new Wallet(word("agent"));
const processor = new Wallet(word("processor"));
const stranger = new Wallet(word("stranger"));
const domain: Domain = { chainId: 31337n, registry: addressOf("registry") };
const payee = addressOf("payee");
const token = addressOf("token");
const ref = requestRef({ method: "GET", url: "https://api.example.com/forecast" });
const now = 1_800_000_000n;

async function paidRequest(
  options: { domain?: Domain; receiptSigner?: Wallet; paymentSigner?: Wallet; receipt?: Partial<Receipt> } = {},
): Promise<PaidRequest> {
  const signed = options.domain ?? domain;
  const address = agent.address as Address;
  const { payment, salt } = new AgentLedger({ domain, agent: address, secret: word("secret") }).draft({
    payee,
    amount: 2500n,
    ref,
  });
  const receipt: Receipt = {
    agent: address,
    seq: 1n,
    payee,
    amount: 2500n,
    ref,
    head: payment.head,
    settleBy: now + 3600n,
    logIndex: 0n,
    ...options.receipt,
  };
  return {
    domain: signed,
    payment: {
      agent: address,
      payment,
      signature: await signPayment(options.paymentSigner ?? agent, signed, payment),
      salt,
    },
    receipt: { receipt, signature: await signReceipt(options.receiptSigner ?? processor, signed, receipt) },
  };
}

const mandate: Mandate = {
  owner: addressOf("owner"),
  agent: agent.address as Address,
  token,
  budget: 5_000_000n,
  paymentCap: 20_000n,
  validUntil: now + 86_400n,
  processor: processor.address as Address,
  payees: [payee],
  policyRoot: headHex(policyRoot([payee], 20_000n)),
  termsHash: word("terms"),
};
const expected: PaidExpectation = { domain, payee, amount: 2500n, ref, processor: processor.address as Address, now };

describe("requestRef", () => {
  for (const { name, request, ref: expectedRef } of vectors.requests) {
    it(`binds method, URL, body and quote: ${name}`, () => {
      const { method, url, body = "", quote = "" } = request;
      expect(requestRef({ method, url, body, quote })).to.equal(expectedRef);
      expect(requestRef({ method, url, body: toUtf8Bytes(body), quote })).to.equal(expectedRef);
      const href = new URL(url).href.replace(/#.*/, "");
      const values = [word("bursar.request"), method.toUpperCase(), href, keccak256(toUtf8Bytes(body)), quote];
      expect(keccakOf(["bytes32", "string", "string", "bytes32", "string"], values)).to.equal(expectedRef);
    });
  }

  it("is what an encoder says, for texts of every length around a word", () => {
    for (const length of [0, 1, 31, 32, 33, 63, 64, 65, 300]) {
      const quote = "é".repeat(length >> 1) + "q".repeat(length % 2);
      const url = `https://example.com/${"u".repeat(length)}`;
      const body = Uint8Array.from({ length }, (_, index) => index);
      const values = [word("bursar.request"), "POST", url, keccak256(body), quote];
      expect(requestRef({ method: "post", url, body, quote })).to.equal(
        keccakOf(["bytes32", "string", "string", "bytes32", "string"], values),
      );
    }
  });

  it("is the same for one request in other words and another for every other", () => {
    expect(new Set(vectors.requests.map((one) => one.ref)).size).to.equal(vectors.requests.length - 1);
  });

  it("refuses what is not an absolute http URL, or holds credentials", () => {
    for (const url of [
      "",
      "/forecast",
      "ftp://example.com/",
      "data:,x",
      "https://user@example.com/",
      "https://:pw@example.com/",
    ]) {
      refusal("malformed-input", () => requestRef({ method: "GET", url }));
    }
  });
});

describe("P8 receipt_verifies_offline: a payee's offline check", () => {
  it("accepts a payment and a receipt for its own request", async () => {
    verifyPaid(await paidRequest(), expected);
    verifyPaid(await paidRequest(), { ...expected, onChain: { mandate, token } });
  });

  /** What a dishonest or broken processor or agent may send (K13), and requests that are not the payee's. */
  const refused: [string, ErrorCode, Parameters<typeof paidRequest>[0], Partial<PaidExpectation>][] = [
    ["a payment on another chain", "wrong-chain", { domain: { ...domain, chainId: 1n } }, {}],
    ["a payment for another contract", "wrong-contract", { domain: { ...domain, registry: addressOf("other") } }, {}],
    ["another payee's payment", "payment-mismatch", {}, { payee: addressOf("other") }],
    ["a payment of another amount", "payment-mismatch", {}, { amount: 2501n }],
    ["a payment of more than the price", "payment-mismatch", {}, { amount: 2499n }],
    ["a payment for another request", "payment-mismatch", {}, { ref: word("other") }],
    ["a receipt for another agent", "receipt-mismatch", { receipt: { agent: addressOf("other") } }, {}],
    ["a receipt for another seq", "receipt-mismatch", { receipt: { seq: 2n } }, {}],
    ["a receipt for another payee", "receipt-mismatch", { receipt: { payee: addressOf("other") } }, {}],
    ["a receipt for another amount", "receipt-mismatch", { receipt: { amount: 1n } }, {}],
    ["a receipt for another ref", "receipt-mismatch", { receipt: { ref: word("other") } }, {}],
    ["a receipt for another head", "receipt-mismatch", { receipt: { head: headHex(1n) } }, {}],
    ["a receipt that is due now", "receipt-expired", { receipt: { settleBy: now } }, {}],
    ["a receipt due after more than a day", "receipt-too-long", { receipt: { settleBy: now + 86_401n } }, {}],
    ["a receipt due later than the payee accepts", "receipt-too-long", {}, { maxSettleIn: 3599n }],
    ["a receipt by another key", "receipt-invalid", { receiptSigner: stranger }, {}],
    ["a payment by another key", "signature-signer", { paymentSigner: stranger }, {}],
    [
      "a mandate of another agent",
      "payment-mismatch",
      {},
      { onChain: { mandate: { ...mandate, agent: addressOf("other") }, token } },
    ],
    [
      "a mandate in another token (K6)",
      "payment-mismatch",
      {},
      { onChain: { mandate: { ...mandate, token: addressOf("other") }, token } },
    ],
    [
      "a mandate with another processor",
      "wrong-processor",
      {},
      { onChain: { mandate: { ...mandate, processor: addressOf("other") }, token } },
    ],
    [
      "a mandate that has ended",
      "mandate-expired",
      {},
      { onChain: { mandate: { ...mandate, validUntil: now - 1n }, token } },
    ],
    [
      "a mandate with a lower cap",
      "above-payment-cap",
      {},
      { onChain: { mandate: { ...mandate, paymentCap: 2499n }, token } },
    ],
    [
      "a mandate with a lower budget",
      "above-budget",
      {},
      { onChain: { mandate: { ...mandate, budget: 2499n }, token } },
    ],
    [
      "a mandate for other payees",
      "payee-not-allowed",
      {},
      { onChain: { mandate: { ...mandate, payees: [addressOf("other")] }, token } },
    ],
  ];
  for (const [name, code, made, changed] of refused) {
    it(`refuses ${name}`, async () => {
      const paid = await paidRequest(made);
      refusal(code, () => verifyPaid(paid, { ...expected, ...changed }));
    });
  }

  it("accepts everything up to its limits", async () => {
    verifyPaid(await paidRequest({ receipt: { settleBy: now + 1n } }), expected);
    verifyPaid(await paidRequest({ receipt: { settleBy: now + 86_400n } }), expected);
    verifyPaid(await paidRequest(), { ...expected, maxSettleIn: 3600n });
    const exact = { ...mandate, budget: 2500n, paymentCap: 2500n, validUntil: now, payees: [] };
    verifyPaid(await paidRequest(), { ...expected, onChain: { mandate: exact, token } });
  });

  it("refuses signatures made for another domain although the header claims this one", async () => {
    const elsewhere = await paidRequest({ domain: { ...domain, chainId: 1n } });
    refusal("signature-signer", () => verifyPaid({ ...elsewhere, domain }, expected));
    const paid = await paidRequest();
    refusal("receipt-invalid", () => verifyPaid({ ...paid, receipt: elsewhere.receipt }, expected));
  });

  it("takes receipts of each accepted processor, tells whose one is, and refuses every other (K13)", async () => {
    const paid = await paidRequest();
    const several = [stranger.address as Address, processor.address as Address];
    expect(verifyPaid(paid, { ...expected, processor: several })).to.equal(processor.address);
    expect(verifyPaid(paid, expected)).to.equal(processor.address);
    refusal("processor-not-accepted", () => verifyPaid(paid, { ...expected, processor: [several[0]!] }));
    refusal("processor-not-accepted", () => verifyPaid(paid, { ...expected, processor: [] }));
    const short = { ...paid, receipt: { ...paid.receipt, signature: "0x" as const } };
    refusal("receipt-invalid", () => verifyPaid(short, { ...expected, processor: several }));
    refusal("wrong-processor", () =>
      verifyPaid(paid, {
        ...expected,
        processor: several,
        onChain: { mandate: { ...mandate, processor: several[0]! }, token },
      }),
    );
  });

  it("keeps why a receipt's signature is refused", async () => {
    const paid = await paidRequest();
    const short = { ...paid, receipt: { ...paid.receipt, signature: "0x" as const } };
    expect(refusal("receipt-invalid", () => verifyPaid(short, expected)).details["reason"]).to.equal(
      "signature-length",
    );
    const payment = { ...paid, payment: { ...paid.payment, signature: paid.receipt.signature } };
    refusal("signature-signer", () => verifyPaid(payment, expected));
  });
});

describe("the payment headers (x402 v2)", () => {
  const terms: PaymentTerms = {
    domain,
    token,
    payee,
    amount: 2500n,
    unitScale: 1n,
    ref,
    url: "https://api.example.com/forecast",
    description: "Wetter für morgen",
    processors: [processor.address as Address],
  };
  const json = (header: string) =>
    JSON.parse(Buffer.from(header, "base64").toString("utf8")) as Record<string, unknown>;
  const header = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64");

  it("have x402's names", () => {
    expect([PAYMENT_HEADER, PAYMENT_REQUIRED_HEADER]).to.deep.equal(["PAYMENT-SIGNATURE", "PAYMENT-REQUIRED"]);
  });

  it("carry payment and receipt", async () => {
    const paid = await paidRequest();
    const encoded = encodePaymentHeader(paid);
    expect(decodePaymentHeader(encoded)).to.deep.equal(paid);
    expect(json(encoded)).to.include({ x402Version: 2 });
    expect(json(encoded)).to.have.nested.property("accepted.scheme", "bursar");
    verifyPaid(decodePaymentHeader(encoded), expected);
  });

  it("fit where servers limit a header to 4 KiB", async () => {
    expect(encodePaymentHeader(await paidRequest()).length).to.be.below(4096);
  });

  it("carry what other x402 clients add", async () => {
    const paid = await paidRequest();
    const plain = json(encodePaymentHeader(paid));
    const more = {
      ...plain,
      resource: { url: terms.url },
      extensions: {},
      accepted: { scheme: "bursar", network: "eip155:31337" },
    };
    expect(decodePaymentHeader(header(more))).to.deep.equal(paid);
  });

  it("carry what a payee asks", () => {
    expect(decodePaymentRequired(encodePaymentRequired(terms))).to.deep.equal(terms);
    const least: PaymentTerms = {
      domain,
      token,
      payee,
      amount: 2500n,
      ref,
      url: terms.url,
      processors: terms.processors,
    };
    expect(decodePaymentRequired(encodePaymentRequired(least))).to.deep.equal({ ...least, unitScale: 1n });
    expect(json(encodePaymentRequired(terms))["accepts"]).to.deep.equal([
      {
        scheme: "bursar",
        network: "eip155:31337",
        amount: "2500",
        asset: token,
        payTo: payee,
        maxTimeoutSeconds: 60,
        extra: { registry: domain.registry, unitScale: "1", ref, processors: [processor.address] },
      },
    ]);
  });

  it("carry the payee's signed offer", async () => {
    const quote = {
      payee,
      amount: 2500n,
      ref,
      host: "api.example.com",
      category: "weather",
      expiresAt: now + 300n,
    };
    const signed = { quote, signature: await signQuote(stranger, domain, quote) };
    expect(decodePaymentRequired(encodePaymentRequired({ ...terms, quote: signed }))).to.deep.equal({
      ...terms,
      quote: signed,
    });
  });

  it("ask in base units of the token, and are read in units", () => {
    const encoded = encodePaymentRequired({ ...terms, unitScale: 10n ** 12n });
    expect(json(encoded)).to.have.nested.property("accepts[0].amount", "2500000000000000");
    expect(decodePaymentRequired(encoded).amount).to.equal(2500n);
    const uneven = JSON.parse(
      JSON.stringify(json(encoded)).replace('"2500000000000000"', '"2500000000000001"'),
    ) as unknown;
    refusal("malformed-input", () => decodePaymentRequired(header(uneven)));
  });

  it("are read where another scheme stands first, and refused where none is bursar", () => {
    const asked = json(encodePaymentRequired(terms)) as { accepts: object[] };
    const exact = { scheme: "exact", network: "eip155:8453" };
    expect(decodePaymentRequired(header({ ...asked, accepts: [exact, ...asked.accepts] }))).to.deep.equal(terms);
    refusal("malformed-input", () => decodePaymentRequired(header({ ...asked, accepts: [exact, null] })));
  });

  it("are refused above 16 KiB, however well formed", () => {
    const long = (length: number) => encodePaymentRequired({ ...terms, description: "x".repeat(length) });
    expect(decodePaymentRequired(long(10_000)).description).to.have.length(10_000);
    expect(refusal("malformed-input", () => decodePaymentRequired(long(12_000))).details["limit"]).to.equal("16384");
  });

  it("are refused when they are not canonical base64 of JSON in the documented form", async () => {
    const good = encodePaymentHeader(await paidRequest());
    const payload = json(good);
    const bad = [
      "",
      "%%%",
      `${good} `,
      good.slice(0, -5),
      header("text"),
      header({ ...payload, x402Version: 1 }),
      header({ x402Version: 2 }),
    ];
    bad.push(Buffer.from([0xff, 0xfe]).toString("base64"));
    for (const text of bad) {
      refusal("malformed-input", () => decodePaymentHeader(text));
      refusal("malformed-input", () => decodePaymentRequired(text));
    }
  });
});
