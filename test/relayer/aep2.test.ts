import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

import {
  debitReceiptSchema,
  decodeDebitHeader,
  hashDebit,
  parseWire,
  verifyDebitMandate,
  verifyDebitReceipt,
  type Address,
  type DebitReceipt,
  type Hex,
} from "@bursar/protocol";
import { expect } from "chai";
import { getBytes, hexlify, id, randomBytes, solidityPackedKeccak256, verifyMessage, Wallet } from "ethers";

import { PayingAgent, TestRail } from "../integration/rail.ts";
import { Facilitator, type Answer } from "./facilitator.ts";

describe("the AEP2 settlement processor", function () {
  this.timeout(120_000);
  let rail: TestRail;
  let facilitator: Facilitator;
  let agent: PayingAgent;
  let payee: Address;

  before(async () => {
    rail = await TestRail.start();
    facilitator = await Facilitator.open(rail);
    agent = await rail.open({ budget: 10_000n });
  });
  after(async () => {
    await facilitator.close();
    await rail.stop();
  });
  beforeEach(() => (payee = rail.payee()));

  const enqueue = (body: unknown): Promise<Answer> => facilitator.http("POST", "/enqueue", body);
  const receiptOf = ({ body }: Answer): DebitReceipt => parseWire(debitReceiptSchema, body["receipt"]);

  /** That it is refused in AEP2's words, with no receipt and no debit in the books. */
  async function refused(body: unknown, status: number, error: string): Promise<Answer> {
    const { directs } = await rail.store.counts();
    const answer = await enqueue(body);
    expect([answer.status, answer.body["error"]]).to.deep.equal([status, error]);
    expect(answer.body).to.include({ status }).and.not.to.have.any.keys("receipt", "success");
    expect(answer.body["message"]).to.be.a("string").and.not.equal("");
    expect((await rail.store.counts()).directs).to.equal(directs);
    return answer;
  }

  it("answers with a receipt that AEP2 clients can check, and settles on chain", async () => {
    const body = await facilitator.debit(agent, payee, 7n);
    const answer = await enqueue(body);
    expect(answer.status).to.equal(200);
    expect(answer.body["success"]).to.equal(true);
    const receipt = receiptOf(answer);
    const record = (await rail.store.direct("aep2", agent.address, hexlify(toBytes32(body.mandate.nonce)) as Hex))!;
    expect(receipt.mandateDigest).to.equal(record.digest);
    expect(receipt.sp).to.equal(rail.processorKey.address);
    // The mandate ends before the processor's own window does.
    expect(receipt.enqueueDeadline).to.equal(body.mandate.deadline);
    const message = solidityPackedKeccak256(["bytes32", "uint256"], [receipt.mandateDigest, receipt.enqueueDeadline]);
    expect(verifyMessage(getBytes(message), receipt.spEnqueueSig)).to.equal(receipt.sp);
    await facilitator.settler.run();
    expect(await facilitator.credit(payee)).to.equal(7n);
    expect(await rail.chain.directContract.debitState(agent.address, body.mandate.nonce)).to.equal(true);
  });

  it("promises settlement within its window where the mandate lasts longer", async () => {
    const deadline = rail.now() + 86_400n;
    const receipt = receiptOf(await enqueue(await facilitator.debit(agent, payee, 1n, { deadline })));
    const { acceptedAt } = (await rail.store.direct("aep2", agent.address, await lastNonce()))!;
    expect(receipt.enqueueDeadline).to.equal(Number(acceptedAt + 3_600n));
  });

  it("enqueues once: 64 at once give one receipt to serve for, and the same receipt with each refusal", async () => {
    const body = await facilitator.debit(agent, payee, 2n);
    const { directs } = await rail.store.counts();
    const answers = await Promise.all(Array.from({ length: 64 }, () => enqueue(body)));
    answers.push(await enqueue(body));
    expect(answers.filter(({ status }) => status === 200)).to.have.lengthOf(1);
    const receipt = answers.find(({ status }) => status === 200)!.body["receipt"];
    for (const again of answers.filter(({ status }) => status !== 200)) {
      expect([again.status, again.body["error"]]).to.deep.equal([409, "DUPLICATE_MANDATE"]);
      expect(again.body["receipt"]).to.deep.equal(receipt);
    }
    expect((await rail.store.counts()).directs).to.equal(directs + 1);
    await facilitator.settler.run();
    expect(await facilitator.credit(payee)).to.equal(2n);
  });

  it("K3: refuses an agent without an open mandate, and keeps nothing", async () => {
    const stranger = new PayingAgent(rail, new Wallet(hexlify(randomBytes(32))));
    const before = await rail.store.counts();
    const { body } = await refused(await facilitator.debit(stranger, payee, 1n), 402, "INSUFFICIENT_BALANCE");
    expect(body["code"]).to.equal("mandate-unknown");
    expect(await rail.store.counts()).to.deep.equal(before);
  });

  it("K5: takes one form of a nonce, and answers 400 to the others: never two receipts", async () => {
    const { mandate, payerSig } = await facilitator.debit(agent, payee, 1n, { nonce: 777n });
    const wrong = [777, "0x309", "0x0309", "0777", " 777", "7.77e2", "777 ", "+777", ""];
    for (const nonce of wrong) await refused({ mandate: { ...mandate, nonce }, payerSig }, 400, "INVALID_REQUEST");
    expect((await enqueue({ mandate, payerSig })).status).to.equal(200);
    for (const nonce of wrong) await refused({ mandate: { ...mandate, nonce }, payerSig }, 400, "INVALID_REQUEST");
  });

  it("K4: takes one payer in any case of its address as the same, and refuses a wrong checksum", async () => {
    const { mandate, payerSig } = await facilitator.debit(agent, payee, 1n);
    const { owner } = mandate;
    const wrong = `0x${owner.slice(2).replace(/[a-fA-F]/, (c) => (c > "F" ? c.toUpperCase() : c.toLowerCase()))}`;
    await refused({ mandate: { ...mandate, owner: wrong }, payerSig }, 400, "INVALID_REQUEST");
    const first = await enqueue({ mandate: { ...mandate, owner: owner.toLowerCase() }, payerSig });
    const second = await enqueue({ mandate: { ...mandate, owner: `0X${owner.slice(2).toUpperCase()}` }, payerSig });
    expect([first.status, second.status]).to.deep.equal([200, 409]);
    expect(second.body["receipt"]).to.deep.equal(first.body["receipt"]);
  });

  it("refuses what the budget, the cap, the token, the time and the signature do not allow", async () => {
    const poor = await rail.open({ budget: 5n, paymentCap: 5n });
    await poor.pay(payee, 3n);
    await refused(await facilitator.debit(poor, payee, 3n), 402, "INSUFFICIENT_BALANCE");
    await refused(await facilitator.debit(agent, payee, 1_001n), 403, "ABOVE_PAYMENT_CAP");
    await refused(await facilitator.debit(agent, payee, 0n), 422, "AMOUNT_ZERO");
    const token = rail.chain.escrow.target as Address;
    await refused(await facilitator.debit(agent, payee, 1n, { token }), 422, "WRONG_TOKEN");
    await refused(await facilitator.debit(agent, payee, 1n, { deadline: rail.now() - 1n }), 400, "EXPIRED_MANDATE");
    const { mandate, payerSig } = await facilitator.debit(agent, payee, 1n);
    await refused({ mandate: { ...mandate, amount: "2" }, payerSig }, 400, "INVALID_SIGNATURE");
    await refused({ mandate, payerSig: `${payerSig.slice(0, -2)}00` }, 400, "INVALID_SIGNATURE");
    for (const body of [{}, { mandate }, { payerSig }, { mandate: { ...mandate, more: 1 }, payerSig }, [], "x"]) {
      await refused(body, 400, "INVALID_REQUEST");
    }
  });

  it("refuses another debit on a nonce that is taken", async () => {
    await enqueue(await facilitator.debit(agent, payee, 1n, { nonce: 41n }));
    await refused(await facilitator.debit(agent, payee, 2n, { nonce: 41n }), 400, "NONCE_USED");
  });

  it("gives the receipt while the chain cannot be reached, and settles once it can", async () => {
    facilitator.wire.cut = true;
    const answer = await enqueue(await facilitator.debit(agent, payee, 5n));
    expect(answer.status).to.equal(200);
    facilitator.wire.cut = false;
    for (let i = 0; i < 50 && (await facilitator.credit(payee)) === 0n; i++) {
      await facilitator.settler.run().catch(() => new Promise((done) => setTimeout(done, 20)));
    }
    expect(await facilitator.credit(payee)).to.equal(5n);
  });

  describe("with a payee as written for the public service", () => {
    let shop: Server;
    let url: string;
    let served = 0;

    /** It keeps no list: it enqueues whatever is for it, and serves when the processor answers with success. */
    before(async () => {
      shop = createServer((request, response) => {
        const send = (status: number, body: unknown): void => {
          response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
        };
        const header = request.headers["x-payment-mandate"];
        if (typeof header !== "string") {
          send(402, { error: "PAYMENT_REQUIRED" });
          return;
        }
        const body = Buffer.from(header, "base64").toString();
        fetch(`${facilitator.url}/enqueue`, { method: "POST", headers: { "Content-Type": "application/json" }, body })
          .then(async (answer) => {
            const data = (await answer.json()) as { receipt: unknown; error?: string; message?: string };
            if (!answer.ok) {
              send(answer.status, { error: data.error, message: data.message });
              return;
            }
            served += 1;
            send(200, { price: 4_000, payment: { status: "enqueued", spReceipt: data.receipt } });
          })
          .catch(() => send(500, { error: "SP_ERROR" }));
      });
      await new Promise<void>((done) => shop.listen(0, "127.0.0.1", done));
      url = `http://127.0.0.1:${(shop.address() as AddressInfo).port}/predict`;
    });
    after(() => shop.close());

    it("serves a client as written for the public service, once for one mandate", async () => {
      const { direct } = facilitator;
      // The public client, with the session key and the addresses as its settings.
      const mandate = {
        owner: agent.address,
        token: rail.token,
        payee,
        amount: "100",
        nonce: BigInt(hexlify(randomBytes(16))).toString(),
        deadline: Math.floor(Date.now() / 1_000) + 600,
        ref: id(`predict-${Date.now()}`),
      };
      const payerSig = await agent.wallet.signTypedData(
        { name: "AEP2DebitWallet", version: "1", chainId: Number(direct.chainId), verifyingContract: direct.direct },
        {
          Mandate: [
            { name: "owner", type: "address" },
            { name: "token", type: "address" },
            { name: "payee", type: "address" },
            { name: "amount", type: "uint256" },
            { name: "nonce", type: "uint256" },
            { name: "deadline", type: "uint256" },
            { name: "ref", type: "bytes32" },
          ],
        },
        mandate,
      );
      const header = Buffer.from(JSON.stringify({ mandate, payerSig })).toString("base64");
      const call = (): Promise<Response> => fetch(url, { headers: { "X-Payment-Mandate": header } });
      const answers = await Promise.all(Array.from({ length: 16 }, call));
      expect(answers.map(({ status }) => status).sort()).to.deep.equal([200, ...Array<number>(15).fill(409)]);
      expect(served).to.equal(1);

      const bought = (await answers.find(({ ok }) => ok)!.json()) as { payment: { spReceipt: unknown } };
      const receipt = parseWire(debitReceiptSchema, bought.payment.spReceipt) as DebitReceipt;
      const signed = decodeDebitHeader(header);
      const now = rail.now();
      const mandateDigest = verifyDebitMandate(signed, { domain: direct, token: rail.token, payee, amount: 100n, now });
      expect(mandateDigest).to.equal(hashDebit(direct, signed.mandate));
      verifyDebitReceipt(receipt, { processor: rail.processorKey.address as Address, mandateDigest, now });
      await facilitator.settler.run();
      expect(await facilitator.credit(payee)).to.equal(100n);
    });
  });

  async function lastNonce(): Promise<Hex> {
    await facilitator.settler.run();
    const [last] = await rail.store.ledger({ agent: agent.address, rail: "aep2", limit: 1 });
    const rows = await rail.store.database.all("SELECT nonce FROM direct WHERE position = ?", last!.position);
    return (rows[0] as { nonce: Hex }).nonce;
  }
});

function toBytes32(nonce: string): Uint8Array {
  return getBytes(`0x${BigInt(nonce).toString(16).padStart(64, "0")}`);
}
