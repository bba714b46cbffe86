import {
  BursarError,
  decodePaymentHeader,
  hashQuote,
  PAYMENT_REQUIRED_HEADER,
  requestRef,
  verifySignature,
  decodePaymentRequired,
  type Address,
  type ErrorCode,
  type Line,
  type Problem,
  type SignedQuote,
} from "@bursar/protocol";
import {
  MemoryReceipts,
  Paywall,
  refundRef,
  type PaidCall,
  type PaywallOptions,
  type ReceiptStore,
  type Serve,
} from "@bursar/sdk/payee";
import { SqliteReceipts } from "@bursar/sdk/payee/sqlite";
import { expect } from "chai";
import { AbiCoder, id, keccak256 } from "ethers";

import { addressOf, word } from "../../protocol/reference.ts";
import {
  addressIn,
  Buyer,
  DOMAIN,
  Ledger,
  now,
  OTHER_PROCESSOR,
  OWNER,
  PAYEE,
  PROCESSOR,
  stall,
  STRANGER,
  TOKEN,
} from "./stand.ts";

const url = "https://api.example.com/weather";

/** What a call was answered: `served`, or status and code. */
async function told(paywall: Paywall, call: Partial<PaidCall>): Promise<string> {
  const admission = await paywall.admit({ method: "GET", url, price: 250n, ...call });
  if (admission.kind === "serve") return "served";
  const { code } = JSON.parse(admission.body ?? "{}") as Problem;
  expect(PAYMENT_REQUIRED_HEADER in admission.headers).to.equal(admission.status === 402);
  expect("retry-after" in admission.headers).to.equal(admission.status === 503);
  return `${admission.status} ${code}`;
}

async function served(paywall: Paywall, call: Partial<PaidCall>): Promise<Serve> {
  const admission = await paywall.admit({ method: "GET", url, price: 250n, ...call });
  if (admission.kind === "serve") return admission;
  expect.fail(admission.body ?? "");
}

async function refusalOf(work: Promise<unknown>): Promise<BursarError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof BursarError) return error;
    throw error;
  }
  expect.fail("not refused");
}

describe("a paywall", () => {
  let mandates: Ledger;
  let buyer: Buyer;
  let time: bigint;

  beforeEach(() => {
    mandates = new Ledger();
    buyer = new Buyer(mandates);
    time = now();
  });

  const wall = (options: Partial<PaywallOptions> = {}): Paywall => stall(mandates, { now: () => time, ...options });
  const pay = (amount = 250n, settleBy?: bigint): string =>
    buyer.header({ url, amount }, settleBy === undefined ? {} : { receipt: { settleBy } });

  describe("reads the mandate", () => {
    it("at most 60 seconds old, and only for a payment that is right by itself (P8)", async () => {
      const paywall = wall();
      expect(await told(paywall, {})).to.equal("402 payment-missing");
      expect(await told(paywall, { header: pay(249n) })).to.equal("402 payment-mismatch");
      expect(mandates.asked).to.deep.equal([]);
      expect(await told(paywall, { header: pay() })).to.equal("served");
      expect(mandates.asked).to.deep.equal([60]);
    });

    for (const state of ["revoked", "expired", "closed"] as const) {
      it(`and refuses one that is ${state}, unless this payment has settled`, async () => {
        const paywall = wall();
        const header = pay();
        mandates.change(buyer.address, { state });
        expect(await told(paywall, { header })).to.equal(`402 mandate-${state}`);
        mandates.change(buyer.address, { seq: 1n });
        expect(await told(paywall, { header })).to.equal("served");
        expect(await told(paywall, { header })).to.equal("402 receipt-used");
      });
    }

    it("and refuses what it does not cover", async () => {
      const paywall = wall();
      const cases: [ErrorCode, ConstructorParameters<typeof Buyer>[1]][] = [
        ["above-payment-cap", { paymentCap: 249n }],
        ["above-budget", { budget: 249n, paymentCap: 249n }],
        ["payee-not-allowed", { payees: [addressOf("other")] }],
        ["mandate-expired", { validUntil: time - 1n }],
        ["wrong-processor", { processor: addressIn(OTHER_PROCESSOR) }],
        ["payment-mismatch", { token: addressOf("worthless") }],
      ];
      for (const [code, overrides] of cases) {
        const header = new Buyer(mandates, overrides).header({ url, amount: 250n });
        const expected = code === "above-budget" ? "above-payment-cap" : code;
        expect(await told(paywall, { header }), code).to.equal(`402 ${expected}`);
      }
      const poor = new Buyer(mandates, { budget: 249n });
      expect(await told(paywall, { header: poor.header({ url, amount: 250n }) })).to.equal("402 above-budget");
    });

    it("and refuses a token other than its own, whatever the mandate looks like (K6)", async () => {
      const paywall = wall();
      for (const token of ["worthless", "same symbol"].map(addressOf)) {
        const header = new Buyer(mandates, { token }).header({ url, amount: 250n });
        expect(await told(paywall, { header })).to.equal("402 payment-mismatch");
      }
    });

    it("and takes none from another chain or contract than it is paid on", async () => {
      const paywall = wall();
      const header = pay();
      mandates.change(buyer.address, { domain: { ...DOMAIN, chainId: 1n } });
      expect(await told(paywall, { header })).to.equal("503 chain-unavailable");
      mandates.change(buyer.address, { domain: DOMAIN });
      expect(await told(paywall, { header })).to.equal("served");
    });

    it("and uses nothing up while it cannot", async () => {
      const paywall = wall();
      const header = pay();
      for (const code of ["chain-unavailable", "opening-pending"] as const) {
        mandates.fault = new BursarError(code, "later");
        expect(await told(paywall, { header })).to.equal(`503 ${code}`);
      }
      mandates.fault = null;
      expect(await told(paywall, { header })).to.equal("served");
    });
  });

  describe("lets a processor owe it", () => {
    const exact = (receipts: ReceiptStore): Partial<PaywallOptions> => ({ receipts, maxUnsettled: 500n });

    for (const [name, open] of [
      ["memory", () => new MemoryReceipts()],
      ["SQLite", () => new SqliteReceipts(":memory:")],
    ] as const) {
      it(`no more than the limit, until the chain shows settlements (${name})`, async () => {
        const paywall = wall(exact(open()));
        const headers = [pay(), pay(), pay()];
        expect(await told(paywall, { header: headers[0]! })).to.equal("served");
        expect(await told(paywall, { header: headers[1]! })).to.equal("served");
        expect(await told(paywall, { header: headers[2]! })).to.equal("503 exposure-exceeded");
        expect(await paywall.exposure(PROCESSOR.address)).to.equal(500n);
        mandates.change(buyer.address, { seq: 1n });
        time += 3n;
        expect(await told(paywall, { header: headers[2]! })).to.equal("served");
        expect(await paywall.exposure(PROCESSOR.address)).to.equal(500n);
      });
    }

    it("looks at the chain by itself near the limit, and at most every few seconds", async () => {
      const others = [1, 2].map(() => new Buyer(mandates));
      const paywall = wall(exact(new MemoryReceipts()));
      for (const other of others) await told(paywall, { header: other.header({ url, amount: 250n }) });
      for (const other of others) mandates.change(other.address, { seq: 1n });
      const header = pay();
      mandates.asked.length = 0;
      expect(await told(paywall, { header })).to.equal("503 exposure-exceeded");
      expect(mandates.asked).to.deep.equal([60]);
      time += 3n;
      expect(await told(paywall, { header })).to.equal("served");
      expect(mandates.asked.filter((age) => age === 3)).to.have.length(2);
      expect(await paywall.exposure(PROCESSOR.address)).to.equal(250n);
    });

    it("what the service asks to refresh", async () => {
      const paywall = wall();
      await told(paywall, { header: pay() });
      mandates.change(buyer.address, { seq: 1n });
      await paywall.refresh();
      expect(await paywall.exposure(PROCESSOR.address)).to.equal(0n);
    });

    it("at most 1 % of its bond, and 100 USDC whatever the bond", async () => {
      const bonds: [bigint, bigint][] = [
        [1_000_000n, 10_000n],
        [10n ** 12n, 100_000_000n],
        [0n, 0n],
      ];
      for (const [bond, limit] of bonds) {
        const paywall = wall({ bond: () => Promise.resolve(bond), waitAbove: 10n ** 9n });
        const just = pay(limit === 0n ? 1n : limit);
        const status = limit === 0n ? "503 exposure-exceeded" : "served";
        expect(await told(paywall, { header: just, price: limit === 0n ? 1n : limit })).to.equal(status);
        expect(await told(paywall, { header: pay(1n), price: 1n })).to.equal("503 exposure-exceeded");
      }
    });

    it("nothing while its bond cannot be read", async () => {
      const paywall = wall({ bond: () => Promise.reject(new Error("away")) });
      expect(await told(paywall, { header: pay() })).to.equal("503 chain-unavailable");
    });

    it("for one mandate no more than it has left", async () => {
      const paywall = wall();
      mandates.change(buyer.address, { remaining: 499n });
      expect(await told(paywall, { header: pay() })).to.equal("served");
      expect(await told(paywall, { header: pay() })).to.equal("402 above-budget");
    });

    it("each processor for itself", async () => {
      const paywall = wall(exact(new MemoryReceipts()));
      for (const amount of [250n, 250n]) await told(paywall, { header: pay(amount) });
      const other = new Buyer(mandates, { processor: addressIn(OTHER_PROCESSOR) });
      const processorKey = word("other processor");
      const header = other.header({ url, amount: 250n }, { processorKey });
      expect(await told(paywall, { header })).to.equal("served");
      expect(await paywall.exposure(OTHER_PROCESSOR.address)).to.equal(250n);
    });
  });

  describe("serves after settlement", () => {
    it("what is above 10 USDC: the same payment is repeated until the chain shows it settled", async () => {
      const paywall = wall();
      expect(await told(paywall, { header: pay(10_000_000n), price: "10" })).to.equal("served");
      const header = pay(10_000_001n);
      const call = { header, price: "10.000001" };
      expect(await told(paywall, call)).to.equal("503 settlement-pending");
      mandates.change(buyer.address, { seq: 1n });
      expect(await told(paywall, call)).to.equal("503 settlement-pending");
      mandates.change(buyer.address, { seq: 2n });
      expect(await told(paywall, call)).to.equal("served");
      expect(await told(paywall, call)).to.equal("402 receipt-used");
      expect(await paywall.exposure(PROCESSOR.address)).to.equal(0n);
    });

    it("looks at the chain anew while it waits", async () => {
      const paywall = wall({ waitAbove: 0n });
      await told(paywall, { header: pay() });
      expect(mandates.asked).to.deep.equal([60, 3]);
    });

    it("everything, or one route, if it is told so", async () => {
      const header = pay();
      expect(await told(wall({ serving: "after-settlement" }), { header })).to.equal("503 settlement-pending");
      expect(await told(wall(), { header, serving: "after-settlement" })).to.equal("503 settlement-pending");
      expect(await told(wall({ serving: "after-settlement" }), { header, serving: "at-once" })).to.equal("served");
    });

    it("what was settled late, for a day, and nothing later", async () => {
      const paywall = wall();
      const settleBy = time + 10n;
      const headers = [pay(250n, settleBy), pay(250n, settleBy)];
      time = settleBy;
      expect(await told(paywall, { header: headers[0]! })).to.equal("402 receipt-expired");
      mandates.change(buyer.address, { seq: 2n });
      expect(await told(paywall, { header: headers[0]! })).to.equal("served");
      time = settleBy + 86_400n;
      expect(await told(paywall, { header: headers[1]! })).to.equal("402 receipt-expired");
    });
  });

  describe("signs offers", () => {
    const quotes = { signer: PAYEE, category: "weather" };

    async function offered(paywall: Paywall, price: bigint | string): Promise<SignedQuote> {
      const asked = await paywall.admit({ method: "GET", url, price });
      expect(asked.kind).to.equal("ask");
      const { quote } = decodePaymentRequired(asked.headers[PAYMENT_REQUIRED_HEADER]!);
      return quote!;
    }

    it("into each 402 answer when it has a key", async () => {
      const paywall = wall({ quotes });
      const { quote, signature } = await offered(paywall, "0.5");
      expect(quote).to.deep.equal({
        payee: PAYEE.address,
        amount: 500_000n,
        ref: requestRef({ method: "GET", url }),
        host: "api.example.com",
        category: "weather",
        expiresAt: time + 300n,
      });
      verifySignature(hashQuote(DOMAIN, quote), signature, addressIn(PAYEE));
      expect(await paywall.quote({ method: "GET", url, amount: "0.5" })).to.deep.equal({ quote, signature });
      const other = { host: "eu.example.com", category: "rain", expiresAt: 9n };
      expect((await paywall.quote({ method: "POST", url, body: "x", amount: 1n, ...other })).quote).to.include(other);
    });

    it("and takes the price that it offered until the offer ends, whatever the price is by then", async () => {
      const paywall = wall({ quotes });
      const quote = await offered(paywall, 250n);
      const headers = [1, 2].map(() => buyer.header({ url, amount: 250n }, { quote }));
      expect(await told(paywall, { header: headers[0]!, price: 300n })).to.equal("served");
      expect(await told(paywall, { header: pay(), price: 300n })).to.equal("402 payment-mismatch");
      time += 301n;
      expect(await told(paywall, { header: headers[1]!, price: 300n })).to.equal("402 quote-expired");
      expect(await told(paywall, { header: headers[1]!, price: 250n })).to.equal("served");
    });

    it("and refuses one that is tampered with, for something else, or by somebody else", async () => {
      const paywall = wall({ quotes });
      const good = await offered(paywall, 300n);
      const elsewhere = await paywall.quote({ method: "GET", url: `${url}?day=2`, amount: 250n });
      const foreign = new Paywall({ ...optionsOf(), payee: STRANGER.address, quotes: { ...quotes, signer: STRANGER } });
      const theirs = await foreign.quote({ method: "GET", url, amount: 250n });
      const forged: SignedQuote[] = [
        { ...good, quote: { ...good.quote, amount: 250n } },
        elsewhere,
        { ...elsewhere, quote: { ...elsewhere.quote, ref: good.quote.ref } },
        theirs,
        { ...theirs, quote: { ...theirs.quote, payee: addressIn(PAYEE) } },
        { quote: { ...good.quote, amount: 250n }, signature: "0x" },
      ];
      for (const quote of forged) {
        const header = buyer.header({ url, amount: 250n }, { quote });
        for (const price of [250n, 300n]) expect(await told(paywall, { header, price })).to.equal("402 quote-mismatch");
      }
    });

    it("not without a key, and not with another's", async () => {
      const request = { method: "GET", url, amount: 1n };
      expect((await refusalOf(wall().quote(request))).code).to.equal("malformed-input");
      const wrong = wall({ quotes: { ...quotes, signer: STRANGER } });
      expect((await refusalOf(wrong.quote(request))).code).to.equal("signature-signer");
    });
  });

  describe("refunds", () => {
    /** Somebody who pays, and the lines that it paid. */
    class Payer {
      readonly lines: Line[] = [];
      fault: Error | null = null;
      pay(line: Line) {
        this.lines.push(line);
        if (this.fault !== null) return Promise.reject(this.fault);
        return Promise.resolve({ payment: { payment: { seq: BigInt(this.lines.length) } } });
      }
    }

    for (const [name, open] of [
      ["memory", () => new MemoryReceipts()],
      ["SQLite", () => new SqliteReceipts(":memory:")],
    ] as const) {
      it(`as a payment to the owner of the mandate, once (${name})`, async () => {
        const paywall = wall({ receipts: open() });
        const payer = new Payer();
        const { paid } = await served(paywall, { header: pay() });
        const refund = await paywall.refund(payer, paid!, "0.0001");
        const line = { payee: OWNER, amount: 100n, ref: refundRef(requestRef({ method: "GET", url }), 1n) };
        expect(refund).to.deep.equal({ ...line, seq: 1n });
        expect(await paywall.refund(payer, paid!, 100n)).to.deep.equal(refund);
        expect((await refusalOf(paywall.refund(payer, paid!))).code).to.equal("malformed-input");
        expect(payer.lines).to.deep.equal([line]);
        const key = { domain: DOMAIN, agent: buyer.address, seq: 1n };
        expect((await paywall.receipts.find(key))?.refund).to.deep.equal(refund);
      });
    }

    it("under a reference of its own: keccak256 of the tag, the reference and the number", () => {
      const types = ["bytes32", "bytes32", "uint64"];
      const encoded = AbiCoder.defaultAbiCoder().encode(types, [id("bursar.refund"), word("ref"), 7n]);
      expect(refundRef(word("ref"), 7n)).to.equal(keccak256(encoded));
    });

    it("the whole payment unless told otherwise, and never more", async () => {
      const paywall = wall();
      const payer = new Payer();
      const { paid } = await served(paywall, { header: pay() });
      for (const amount of [0n, 251n]) {
        expect((await refusalOf(paywall.refund(payer, paid!, amount))).code).to.equal("malformed-input");
      }
      expect((await paywall.refund(payer, paid!)).amount).to.equal(250n);
    });

    it("again when the payer refused, and only on demand when nobody knows what it did", async () => {
      const paywall = wall();
      const payer = new Payer();
      const { paid } = await served(paywall, { header: pay() });
      payer.fault = new BursarError("above-budget", "no");
      expect((await refusalOf(paywall.refund(payer, paid!))).code).to.equal("above-budget");
      payer.fault = new BursarError("processor-unavailable", "who knows");
      expect((await refusalOf(paywall.refund(payer, paid!))).code).to.equal("processor-unavailable");
      payer.fault = null;
      expect((await refusalOf(paywall.refund(payer, paid!))).code).to.equal("refund-uncertain");
      expect(payer.lines).to.have.length(2);
      expect((await paywall.refund(payer, paid!, undefined, { again: true })).seq).to.equal(3n);
    });

    it("not at the same time twice", async () => {
      const paywall = wall();
      const payer = new Payer();
      const { paid } = await served(paywall, { header: pay() });
      const both = await Promise.allSettled([paywall.refund(payer, paid!), paywall.refund(payer, paid!)]);
      expect(both.map(({ status }) => status).sort()).to.deep.equal(["fulfilled", "rejected"]);
      expect(payer.lines).to.have.length(1);
    });

    it("only what was paid here", async () => {
      const paywall = wall();
      const paid = decodePaymentHeader(pay());
      expect((await refusalOf(paywall.refund(new Payer(), paid))).code).to.equal("not-found");
      const stranger = decodePaymentHeader(new Buyer().header({ url, amount: 1n }));
      expect((await refusalOf(paywall.refund(new Payer(), stranger))).code).to.equal("mandate-unknown");
    });
  });

  it("says what is wrong with its configuration at once", () => {
    const wrong: Partial<PaywallOptions>[] = [
      { payee: "me" },
      { token: "USDC" },
      { processors: [] },
      { processors: Array<Address>(33).fill(addressIn(PROCESSOR)) },
      { origin: "api.example.com" },
      { origin: "ftp://api.example.com" },
      { origin: "https://api.example.com/?a=1" },
      { maxUnsettled: "lots" },
      { waitAbove: "-1" },
      { domain: { chainId: 1n, registry: "0x1" } },
    ];
    for (const options of wrong)
      expect(() => wall(options), JSON.stringify(Object.keys(options))).to.throw(BursarError);
  });

  it("refuses when its store is closed, and serves nothing", async () => {
    const receipts = new SqliteReceipts(":memory:");
    const paywall = wall({ receipts });
    receipts.close();
    expect(await told(paywall, { header: pay() })).to.equal("503 store-unavailable");
  });

  it("asks in base units of its token", async () => {
    const paywall = wall({ unitScale: 10n ** 12n });
    const asked = await paywall.admit({ method: "GET", url, price: 1n });
    const { accepts } = JSON.parse(Buffer.from(asked.headers[PAYMENT_REQUIRED_HEADER]!, "base64").toString()) as {
      accepts: { amount: string; asset: string }[];
    };
    expect(accepts[0]).to.include({ amount: "1000000000000", asset: TOKEN });
  });

  it("refuses a header that is longer than it allows", async () => {
    const header = pay();
    expect(await told(wall({ maxHeader: header.length - 1 }), { header })).to.equal("400 malformed-input");
    expect(await told(wall({ maxHeader: header.length }), { header })).to.equal("served");
  });

  it("gives a receipt back when told that the handler failed", async () => {
    const paywall = wall();
    const header = pay();
    await (await served(paywall, { header })).failed();
    expect(await told(paywall, { header })).to.equal("served");
    expect(await paywall.exposure(PROCESSOR.address)).to.equal(250n);
  });

  function optionsOf(): PaywallOptions {
    return {
      payee: PAYEE.address,
      domain: DOMAIN,
      token: TOKEN,
      processors: [PROCESSOR.address],
      receipts: new MemoryReceipts(),
      mandates,
    };
  }
});
