import type { Server } from "node:http";
import type { AddressInfo } from "node:net";

import { directDomainName, requestRef, type Address, type Hex } from "@bursar/protocol";
import { BursarClientScheme, BursarServerScheme, type Payer } from "@bursar/sdk/x402";
import { HTTPFacilitatorClient, x402ResourceServer } from "@x402/core/server";
import type { Network } from "@x402/core/types";
import { ExactEvmScheme } from "@x402/evm";
import { ExactEvmScheme as ExactEvmServer } from "@x402/evm/exact/server";
import { paymentMiddleware } from "@x402/express";
import { decodePaymentResponseHeader, wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { expect } from "chai";
import express from "express";
import { privateKeyToAccount } from "viem/accounts";

import { TestRail, type PayingAgent } from "../integration/rail.ts";
import { Facilitator } from "../relayer/facilitator.ts";

const NETWORK: Network = "eip155:31337";

describe("stock x402 clients and servers", function () {
  this.timeout(120_000);
  let rail: TestRail;
  let facilitator: Facilitator;
  let agent: PayingAgent;
  let payTo: Address;
  let shop: Server;
  let url: string;
  let served: string[] = [];
  let broken = false;

  before(async () => {
    rail = await TestRail.start();
    facilitator = await Facilitator.open(rail);
    agent = await rail.open({ budget: 1_000_000n, paymentCap: 20_000n });
    payTo = rail.payee();
    const token = { address: rail.token, decimals: 6 };
    const resourceServer = new x402ResourceServer(new HTTPFacilitatorClient({ url: `${facilitator.url}/x402` }))
      .register(NETWORK, new ExactEvmServer())
      .register(NETWORK, new BursarServerScheme({ domain: rail.domain, token }));
    const exact = (name: string, version = "1") => ({
      scheme: "exact",
      network: NETWORK,
      payTo,
      price: { asset: rail.chain.direct, amount: "2500", extra: { name, version } },
    });
    const bursar = { scheme: "bursar", network: NETWORK, payTo, price: "$0.01" };
    const name = directDomainName(rail.token);
    const app = express();
    app.use(express.json());
    app.use(
      paymentMiddleware(
        {
          "GET /exact": { accepts: exact(name) },
          "GET /usd-coin": { accepts: exact("USD Coin", "2") },
          "GET /upfront": {
            accepts: {
              ...exact(name),
              extra: { paymentFlow: "upfront" },
            },
          },
          "GET /bursar": { accepts: bursar },
          "POST /bursar": { accepts: bursar },
          "GET /broken": { accepts: bursar },
          "GET /either": { accepts: [exact(name), bursar] },
        },
        resourceServer,
      ),
    );
    app.use((request, response) => {
      if (request.path === "/broken" && broken) return void response.status(500).json({});
      served.push(request.originalUrl);
      response.json({ weather: "sunny", body: request.body as unknown });
    });
    shop = app.listen(0, "127.0.0.1");
    await new Promise((done) => shop.once("listening", done));
    url = `http://127.0.0.1:${(shop.address() as AddressInfo).port}`;
  });
  after(async () => {
    shop.close();
    await facilitator.close();
    await rail.stop();
  });
  beforeEach(() => (served = []));

  /** The stock client with the agent's session key, allowed to sign for DirectSettlement. */
  function exactClient(one: PayingAgent = agent): x402Client {
    return new x402Client()
      .register(NETWORK, new ExactEvmScheme(privateKeyToAccount(one.wallet.privateKey as Hex)))
      .setSpendControls({ allowedAssets: [{ network: NETWORK, asset: rail.chain.direct }] });
  }

  async function payerOf(one: PayingAgent): Promise<Payer> {
    const { mandate } = await rail.store.mandateOf(one.address);
    return {
      domain: rail.domain,
      mandate,
      pay: async (line) => {
        const payment = await one.sign(line.payee, line.amount, line.ref);
        const receipt = await rail.processor.accept(payment);
        one.ledger.commit();
        return { payment, receipt };
      },
    };
  }

  async function bursarClient(one: PayingAgent = agent, given?: Payer): Promise<x402Client> {
    const payer = given ?? (await payerOf(one));
    const dollar = { symbol: "tUSD", decimals: 6 };
    return new x402Client().register(NETWORK, new BursarClientScheme(payer, { dollar }));
  }

  /** A fetch that pays, and keeps the requests that it sent with a payment. */
  function paying(client: x402Client): { pay: typeof fetch; sent: Request[] } {
    const sent: Request[] = [];
    const noting: typeof fetch = (input, init) => {
      const request = new Request(input, init);
      if (request.headers.has("payment-signature")) sent.push(request.clone());
      return fetch(request);
    };
    return { pay: wrapFetchWithPayment(noting, client), sent };
  }

  async function required(
    response: Response,
  ): Promise<{ error?: string; accepts: { extra: Record<string, unknown> }[] }> {
    const header = response.headers.get("payment-required");
    await response.body?.cancel();
    return JSON.parse(Buffer.from(header!, "base64").toString()) as never;
  }

  describe("in scheme exact", () => {
    it("pay from the mandate, and are served after settlement on chain", async () => {
      const before = await facilitator.credit(payTo);
      const response = await paying(exactClient()).pay(`${url}/exact`);
      expect(response.status).to.equal(200);
      expect(await response.json()).to.include({ weather: "sunny" });
      const settled = decodePaymentResponseHeader(response.headers.get("payment-response")!);
      expect(settled).to.include({ success: true, network: NETWORK, payer: agent.address });
      expect((await rail.provider.getTransactionReceipt(settled.transaction))?.status).to.equal(1);
      expect(await facilitator.credit(payTo)).to.equal(before + 2_500n);
      const [line] = await rail.store.ledger({ agent: agent.address });
      expect(line).to.include({ rail: "exact", kind: "accepted", status: "settled", amount: 2_500n, payee: payTo });
    });

    it("draw on the same budget and ledger as the proved rail", async () => {
      const one = await rail.open({ budget: 3_000n, paymentCap: 3_000n });
      await one.pay(rail.payee(), 600n);
      const response = await paying(exactClient(one)).pay(`${url}/exact`);
      expect(response.status).to.equal(402);
      expect((await required(response)).error).to.equal("invalid_exact_evm_insufficient_balance");
      expect(served).to.deep.equal([]);
      expect(await rail.processor.status(one.address)).to.include({ reserved: 0n, remaining: 2_400n });
    });

    it("are served once for one payment, replayed 64 times at once and later", async () => {
      const { pay, sent } = paying(exactClient());
      const before = await facilitator.credit(payTo);
      expect((await pay(`${url}/exact`)).status).to.equal(200);
      const replays = await Promise.all(Array.from({ length: 64 }, () => fetch(sent[0]!.clone())));
      expect(new Set(replays.map(({ status }) => status))).to.deep.equal(new Set([402]));
      expect(await facilitator.credit(payTo)).to.equal(before + 2_500n);
    });

    it("serve 64 simultaneous copies of a fresh payment once", async () => {
      const before = await facilitator.credit(payTo);
      const header = await freshHeader();
      const answers = await Promise.all(
        Array.from({ length: 64 }, () => fetch(`${url}/exact`, { headers: { "payment-signature": header } })),
      );
      expect(answers.filter(({ status }) => status === 200)).to.have.lengthOf(1);
      expect(answers.filter(({ status }) => status === 402)).to.have.lengthOf(63);
      expect(await facilitator.credit(payTo)).to.equal(before + 2_500n);
    });

    it("are told clearly when a shop names the token's own signing domain", async () => {
      const response = await paying(exactClient()).pay(`${url}/usd-coin`);
      expect(response.status).to.equal(402);
      expect((await required(response)).error).to.equal("invalid_exact_evm_token_name_mismatch");
      expect(served).to.deep.equal([]);
    });

    it("are served after settlement where the shop settles first", async () => {
      const response = await paying(exactClient()).pay(`${url}/upfront`);
      expect(response.status).to.equal(200);
      expect(served).to.deep.equal(["/upfront"]);
    });

    /** A payment for /exact that nobody has sent. */
    async function freshHeader(): Promise<string> {
      const response = await fetch(`${url}/exact`);
      const asked = JSON.parse(Buffer.from(response.headers.get("payment-required")!, "base64").toString()) as never;
      const payload = await exactClient().createPaymentPayload(asked);
      return Buffer.from(JSON.stringify(payload)).toString("base64");
    }
  });

  describe("in scheme bursar", () => {
    it("pay at the processor, and are served on its receipt", async () => {
      const response = await paying(await bursarClient()).pay(`${url}/bursar?city=Oslo`);
      expect(response.status).to.equal(200);
      expect(decodePaymentResponseHeader(response.headers.get("payment-response")!)).to.include({
        success: true,
        network: NETWORK,
        payer: agent.address,
        transaction: "",
      });
      const [line] = await rail.store.ledger({ agent: agent.address });
      expect(line).to.include({ rail: "proved", kind: "accepted", amount: 10_000n, payee: payTo });
      expect(line?.ref).to.equal(requestRef({ method: "GET", url: `${url}/bursar?city=Oslo` }));
    });

    it("P8: are served once for a receipt, at once and later", async () => {
      const { pay, sent } = paying(await bursarClient());
      expect((await pay(`${url}/bursar`)).status).to.equal(200);
      const replays = await Promise.all(Array.from({ length: 32 }, () => fetch(sent[0]!.clone())));
      for (const replay of replays) expect(replay.status).to.equal(402);
      expect(served).to.deep.equal(["/bursar"]);
    });

    it("are refused with a payment for another request: URL, method or body", async () => {
      const { pay, sent } = paying(await bursarClient());
      expect((await pay(`${url}/bursar?city=Oslo`)).status).to.equal(200);
      const header = sent[0]!.headers.get("payment-signature")!;
      const post = async (body: object): Promise<Response> =>
        pay(`${url}/bursar`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(body),
        });
      expect((await post({ city: "Oslo" })).status).to.equal(200);
      const posted = sent[1]!.headers.get("payment-signature")!;
      served = [];
      const attempts = [
        fetch(`${url}/bursar?city=Rome`, { headers: { "payment-signature": header } }),
        fetch(`${url}/bursar?city=Oslo`, { method: "POST", headers: { "payment-signature": header } }),
        fetch(`${url}/bursar`, {
          method: "POST",
          headers: { "payment-signature": posted, "content-type": "application/json" },
          body: JSON.stringify({ city: "Rome" }),
        }),
      ];
      for (const attempt of await Promise.all(attempts)) {
        expect(attempt.status).to.equal(402);
        expect((await required(attempt)).error).to.equal("No matching payment requirements");
      }
      expect(served).to.deep.equal([]);
    });

    it("may show a receipt again when the shop failed to serve", async () => {
      const { pay, sent } = paying(await bursarClient());
      broken = true;
      expect((await pay(`${url}/broken`)).status).to.equal(500);
      broken = false;
      expect((await fetch(sent[0]!.clone())).status).to.equal(200);
      expect((await fetch(sent[0]!.clone())).status).to.equal(402);
      expect(served).to.deep.equal(["/broken"]);
    });

    it("K13: serve nothing on a receipt that the processor did not give", async () => {
      const payer = await payerOf(agent);
      const lying = (change: (paid: Awaited<ReturnType<Payer["pay"]>>) => unknown): Payer => ({
        ...payer,
        pay: async (line) => change(await payer.pay(line)) as never,
      });
      const forged = (signature: Hex) =>
        lying(({ payment, receipt }) => ({ payment, receipt: { ...receipt, signature } }));
      const other = await rail.open({ budget: 20_000n, paymentCap: 20_000n });
      const theirs = await (await payerOf(other)).pay({ payee: payTo, amount: 10_000n, ref: `0x${"11".repeat(32)}` });
      const payers = [
        forged(`0x${"11".repeat(64)}1b`),
        lying(({ payment }) => ({ payment, receipt: theirs.receipt })),
        lying(() => theirs),
        lying(({ payment, receipt }) => ({
          payment,
          receipt: { ...receipt, receipt: { ...receipt.receipt, settleBy: receipt.receipt.settleBy + 1n } },
        })),
      ];
      for (const liar of payers) {
        expect((await paying(await bursarClient(agent, liar)).pay(`${url}/bursar`)).status).to.equal(402);
      }
      expect(served).to.deep.equal([]);
    });

    it("do not pay above the client's own cap, or when the payee takes another processor's receipts", async () => {
      const before = (await rail.processor.status(agent.address)).accepted;
      const capped = (await bursarClient()).setSpendControls({ maxAmountPerPayment: "$0.009" });
      await rejected(paying(capped).pay(`${url}/bursar`), /spendControls/);
      const mandate = { ...(await payerOf(agent)).mandate, processor: rail.payee() };
      const elsewhere = await bursarClient(agent, { ...(await payerOf(agent)), mandate });
      await rejected(paying(elsewhere).pay(`${url}/bursar`), /does not take receipts/);
      const unpriced = new x402Client().register(NETWORK, new BursarClientScheme(await payerOf(agent)));
      await rejected(paying(unpriced).pay(`${url}/bursar`), /allowedAssets/);
      expect((await rail.processor.status(agent.address)).accepted).to.deep.equal(before);
    });

    it("choose between both schemes as their owner registered them", async () => {
      const both = (await bursarClient()).register(
        NETWORK,
        new ExactEvmScheme(privateKeyToAccount(agent.wallet.privateKey as Hex)),
      );
      expect((await paying(both).pay(`${url}/either`)).status).to.equal(200);
      expect((await rail.store.ledger({ agent: agent.address }))[0]?.rail).to.equal("proved");
      expect((await paying(exactClient()).pay(`${url}/either`)).status).to.equal(200);
      expect((await rail.store.ledger({ agent: agent.address }))[0]?.rail).to.equal("exact");
    });
  });

  async function rejected(attempt: Promise<unknown>, message: RegExp): Promise<void> {
    const reason = await attempt.then(
      () => "it was not",
      (error: unknown) => (error as Error).message,
    );
    expect(reason).to.match(message);
  }
});
