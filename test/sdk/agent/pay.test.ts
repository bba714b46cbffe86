import {
  BursarError,
  headHex,
  policyRoot,
  requestRef,
  signReceipt,
  toWire,
  type Hex,
  type SignedReceipt,
  type Terms,
} from "@bursar/protocol";
import { Agent, memoryBook } from "@bursar/sdk/agent";
import { expect } from "chai";
import { id, ZeroHash } from "ethers";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { addressOf, ANYTHING, DOMAIN, draftMandate, keyOf, NOW, Office, refusalOf } from "../../relayer/office.ts";
import { Market, PAYEE, stateOf } from "./market.ts";

const REF = id("an invoice") as Hex;
const bill = (amount: bigint, ref: string = REF): { payee: string; amount: bigint; ref: string } => ({
  payee: PAYEE,
  amount,
  ref,
});

describe("an agent's payments", () => {
  let market: Market;
  beforeEach(async () => {
    market = await Market.open();
  });
  afterEach(() => market.close());

  it("come back with a receipt that the processor's books know", async () => {
    const agent = await market.agent("alice");
    const { payment, receipt } = await agent.pay({ payee: PAYEE, amount: "0.00025", ref: REF });
    expect(receipt.receipt).to.include({ seq: 1n, payee: PAYEE, amount: 250n, ref: REF, head: payment.payment.head });
    expect(await market.paid(agent)).to.deep.equal([{ seq: 1n, payee: PAYEE, amount: 250n, ref: REF }]);
    expect(await agent.remaining()).to.equal(99_750n);
  });

  it("bind a request in place of a reference", async () => {
    const agent = await market.agent("alice");
    const request = { method: "GET", url: "https://api.example/x" };
    const { payment } = await agent.pay({ payee: PAYEE, amount: 1n, request });
    expect(payment.payment.line.ref).to.equal(requestRef(request));
    for (const purchase of [bill(1n), { ...bill(1n), request }, { payee: PAYEE, amount: 1n }].slice(1)) {
      expect((await refusalOf(() => agent.pay(purchase))).code).to.equal("malformed-input");
    }
  });

  it("go one after the other however many are asked at once, across pages", async () => {
    const agent = await market.agent("alice");
    const amounts = Array.from({ length: 30 }, (_, index) => BigInt(index + 1));
    const paid = await Promise.all(amounts.map((amount) => agent.pay(bill(amount))));
    expect(paid.map(({ payment }) => payment.payment.seq)).to.deep.equal(amounts);
    expect((await market.paid(agent)).map(({ amount }) => amount)).to.deep.equal(amounts);
    expect(market.line.sent).to.have.length(30);
  });

  it("may be equal to each other, and then are two", async () => {
    const agent = await market.agent("alice");
    await Promise.all([agent.pay(bill(5n)), agent.pay(bill(5n))]);
    expect(await market.paid(agent)).to.have.length(2);
  });

  it("are on the book before they leave", async () => {
    const book = memoryBook();
    const agent = await market.agent("alice", { book });
    const pendingAtSending: unknown[] = [];
    market.line.faults.push((body) => {
      void stateOf(book).then(({ pending }) => pendingAtSending.push(pending));
      return { status: 200, body };
    });
    await agent.pay(bill(7n));
    expect(pendingAtSending).to.deep.equal([{ payee: PAYEE, amount: "7", ref: REF }]);
    expect((await stateOf(book)).pending).to.equal(null);
  });

  describe("when an answer is missing", () => {
    const faults = {
      "the request was lost": "lost",
      "the processor recorded it and its answer was lost": "unanswered",
      "a proxy answered 502": () => ({ status: 502, body: "<html>bad gateway</html>" }),
      "a proxy answered 403 in HTML": () => ({ status: 403, body: "<html>no</html>" }),
      "the answer was cut in the middle": (body: string) => ({ status: 200, body: body.slice(0, 40) }),
      "the processor was too busy": () => ({
        status: 429,
        body: JSON.stringify({ code: "too-many-requests", detail: "later" }),
        headers: { "retry-after": "0" },
      }),
      "the processor was going down": () => ({ status: 503, body: JSON.stringify({ code: "shutting-down" }) }),
    } as const;
    for (const [name, fault] of Object.entries(faults)) {
      it(`send the same bytes again: ${name}`, async () => {
        const agent = await market.agent("alice");
        market.line.faults.push(fault, fault);
        await agent.pay(bill(5n));
        expect(new Set(market.line.sent).size).to.equal(1);
        expect(market.line.sent).to.have.length(3);
        expect(await market.paid(agent)).to.deep.equal([{ seq: 1n, ...bill(5n) }]);
      });
    }

    it("give up after a while and keep the payment, which goes before any other then", async () => {
      const book = memoryBook();
      const agent = await market.agent("alice", { book });
      market.line.faults.push("lost", "lost", "lost", "lost");
      const error = await refusalOf(() => agent.pay(bill(5n)));
      expect(error.code).to.equal("processor-unavailable");
      expect(error.details).to.include({ attempts: "4" });
      expect((await stateOf(book)).pending).to.include({ amount: "5" });
      expect(await agent.remaining()).to.equal(99_995n);

      await agent.pay(bill(6n, id("another")));
      expect((await market.paid(agent)).map(({ seq, amount }) => [seq, amount])).to.deep.equal([
        [1n, 5n],
        [2n, 6n],
      ]);
      const first = await agent.pay(bill(5n));
      expect(first.payment.payment.seq, "the purchase that was given up takes its payment").to.equal(1n);
      expect(await market.paid(agent)).to.have.length(2);
      await agent.pay(bill(5n));
      expect(await market.paid(agent), "once").to.have.length(3);
    });

    it("take up the payment when the same is asked again", async () => {
      const agent = await market.agent("alice");
      market.line.faults.push("unanswered", "lost", "lost", "lost");
      await refusalOf(() => agent.pay(bill(5n)));
      const { payment } = await agent.pay(bill(5n));
      expect(payment.payment.seq).to.equal(1n);
      expect(await market.paid(agent)).to.have.length(1);
    });
  });

  describe("that are refused", () => {
    it("free their number, and say why", async () => {
      const terms: Terms = { ...ANYTHING, limits: { unitsPerCall: "50" } };
      const refused: BursarError[] = [];
      const agent = await market.agent("alice", { terms, onRefusal: (error) => refused.push(error) });
      const error = await refusalOf(() => agent.pay(bill(51n)));
      expect(error).to.include({ code: "above-price" });
      expect(error.details).to.include({ value: "51", limit: "50" });
      expect(error.advice).to.be.a("string");
      expect((await agent.pay(bill(50n))).payment.payment.seq).to.equal(1n);
      expect(refused).to.deep.equal([error]);
    });

    const local = {
      "above-payment-cap": { amount: 1_001n, overrides: {} },
      "above-budget": { amount: 900n, overrides: { budget: 899n } },
      "mandate-expired": { amount: 1n, overrides: { validUntil: NOW - 1n } },
      "payee-not-allowed": {
        amount: 1n,
        overrides: {
          payees: [addressOf("somebody")],
          policyRoot: headHex(policyRoot([addressOf("somebody")], 1_000n)),
        },
      },
    };
    for (const [code, { amount, overrides }] of Object.entries(local)) {
      it(`are not even signed: ${code}`, async () => {
        const agent = await market.agent("alice", { overrides });
        const error = await refusalOf(() => agent.pay(bill(amount)));
        expect(error.code).to.equal(code);
        expect(error.advice).to.be.a("string");
        expect(market.line.sent).to.have.length(0);
      });
    }

    it("keep a refusal whose code is not known yet", async () => {
      const agent = await market.agent("alice");
      market.line.faults.push({ status: 422, body: JSON.stringify({ code: "of-tomorrow", detail: "no" }) });
      const error = await refusalOf(() => agent.pay(bill(1n)));
      expect(error).to.include({ code: "forbidden", message: "no" });
      expect(error.details).to.include({ code: "of-tomorrow" });
      expect((await agent.pay(bill(2n))).payment.payment.seq).to.equal(1n);
    });
  });

  describe("with a receipt that is not good", () => {
    const lies: Record<string, (signed: SignedReceipt) => Promise<SignedReceipt> | SignedReceipt> = {
      "receipt-invalid": async ({ receipt }) => ({
        receipt,
        signature: await signReceipt(keyOf("thief"), DOMAIN, receipt),
      }),
      "receipt-mismatch": async ({ receipt }) => {
        const other = { ...receipt, amount: 1n };
        return { receipt: other, signature: await signReceipt(keyOf("processor"), DOMAIN, other) };
      },
      "receipt-too-long": async ({ receipt }) => {
        const other = { ...receipt, settleBy: NOW + 90_000n };
        return { receipt: other, signature: await signReceipt(keyOf("processor"), DOMAIN, other) };
      },
    };
    for (const [code, lie] of Object.entries(lies)) {
      it(`stay pending: ${code}`, async () => {
        const book = memoryBook();
        const honest = await market.agent("alice", { book });
        const told: BursarError[] = [];
        const agent = await market.agent("alice", {
          book,
          onRefusal: (error) => told.push(error),
          surroundings: {
            fetch: async (input, init) => {
              const answer = await fetch(input, init);
              const { receipt, signature } = (await answer.json()) as {
                receipt: Record<string, string>;
                signature: Hex;
              };
              const parsed = Object.fromEntries(
                Object.entries(receipt).map(([name, value]) => [name, /^\d+$/.test(value) ? BigInt(value) : value]),
              );
              return Response.json(toWire(await lie({ receipt: parsed, signature } as unknown as SignedReceipt)));
            },
          },
        });
        const error = await refusalOf(() => agent.pay(bill(5n)));
        expect(error.code).to.equal(code);
        expect(error.details).to.include({ seq: "1" });
        expect((await stateOf(book)).pending).to.include({ amount: "5" });
        expect(told, "it is no refusal").to.deep.equal([]);
        const { payment } = await honest.pay(bill(5n));
        expect(payment.payment.seq).to.equal(1n);
        expect(await market.paid(agent)).to.have.length(1);
      });
    }

    it("stay pending: an answer that is no receipt at all", async () => {
      const agent = await market.agent("alice");
      market.line.faults.push(() => ({ status: 200, body: "{}" }));
      expect((await refusalOf(() => agent.pay(bill(5n)))).code).to.equal("receipt-invalid");
    });

    it("stay pending: the answer to an earlier payment, delivered twice", async () => {
      const agent = await market.agent("alice");
      let first = "";
      market.line.faults.push(
        (body) => ({ status: 200, body: (first = body) }),
        () => ({ status: 200, body: first }),
      );
      await agent.pay(bill(5n));
      expect((await refusalOf(() => agent.pay(bill(6n)))).code).to.equal("receipt-mismatch");
      expect((await agent.pay(bill(6n))).payment.payment.seq).to.equal(2n);
      expect(await market.paid(agent)).to.have.length(2);
    });
  });

  describe("that are no longer wanted", () => {
    it("are not made when the signal ended before", async () => {
      const agent = await market.agent("alice");
      const failure = await agent.pay({ ...bill(1n), signal: AbortSignal.abort() }).catch((error: unknown) => error);
      expect((failure as Error).name).to.equal("AbortError");
      expect(market.line.sent).to.have.length(0);
    });

    it("leave the queue at once, and the others keep their order", async () => {
      const agent = await market.agent("alice");
      const leaving = new AbortController();
      const held = agent.pay(bill(1n));
      const left = agent.pay({ ...bill(2n), signal: leaving.signal }).catch((error: unknown) => error);
      const last = agent.pay(bill(3n));
      leaving.abort(new Error("changed my mind"));
      expect(String(await left)).to.include("changed my mind");
      await Promise.all([held, last]);
      expect((await market.paid(agent)).map(({ amount }) => amount)).to.deep.equal([1n, 3n]);
    });

    it("stay pending when they are already on the way", async () => {
      const leaving = new AbortController();
      const agent = await market.agent("alice", { patience: { attempts: 100, pause: 1, longest: 1 } });
      market.line.faults.push("unanswered", () => {
        leaving.abort(new Error("too slow"));
        return { status: 502, body: "" };
      });
      const failure = await agent.pay({ ...bill(5n), signal: leaving.signal }).catch((error: unknown) => error);
      expect(String(failure)).to.include("too slow");
      const resumed = await agent.resume();
      expect(resumed?.payment.payment.seq).to.equal(1n);
      expect(await market.paid(agent)).to.have.length(1);
      expect(await agent.resume(), "nothing is pending now").to.equal(null);
    });
  });

  describe("after a crash", () => {
    it("are resumed from the book first, with the same line", async () => {
      const book = memoryBook();
      const crashed = await market.agent("alice", { book, patience: { attempts: 1 } });
      market.line.faults.push("unanswered");
      await refusalOf(() => crashed.pay(bill(5n)));
      const agent = await market.agent("alice", { book });
      const { payment } = await agent.pay(bill(6n, id("another")));
      expect(payment.payment.seq).to.equal(2n);
      expect((await market.paid(agent)).map(({ amount }) => amount)).to.deep.equal([5n, 6n]);
      expect(market.line.sent[0]).to.equal(market.line.sent[1]);
    });

    it("forget one that the processor then refuses", async () => {
      const book = memoryBook();
      const told: BursarError[] = [];
      const crashed = await market.agent("alice", { book, patience: { attempts: 1 } });
      market.line.faults.push("lost");
      await refusalOf(() => crashed.pay(bill(5n)));
      market.line.faults.push({ status: 429, body: JSON.stringify({ code: "above-rate", detail: "slow" }) });
      const agent = await market.agent("alice", { book, onRefusal: (error) => told.push(error) });
      await agent.pay(bill(6n));
      expect(told.map(({ code }) => code)).to.deep.equal(["above-rate"]);
      expect(await market.paid(agent)).to.deep.equal([{ seq: 1n, ...bill(6n) }]);
    });

    it("take a receipt whose time is past: the payment stands in the ledger all the same", async () => {
      const book = memoryBook();
      const crashed = await market.agent("alice", { book, patience: { attempts: 1 } });
      market.line.faults.push("unanswered");
      await refusalOf(() => crashed.pay(bill(5n)));
      market.office.clock += 7_200n;
      const resumed = await (await market.agent("alice", { book })).resume();
      expect(resumed?.receipt.receipt.settleBy).to.equal(NOW + 3_600n);
    });

    it("find the processor as it was too", async () => {
      const folder = mkdtempSync(join(tmpdir(), "bursar-agent-"));
      const path = join(folder, "books.db");
      const before = await Market.open(await Office.open(path));
      const book = memoryBook();
      await (await before.agent("alice", { book })).pay(bill(5n));
      await before.close();
      const after = await Market.open(await Office.open(path));
      const agent = await after.agent("alice", { book });
      await agent.pay(bill(6n));
      expect((await after.paid(agent)).map(({ amount }) => amount)).to.deep.equal([5n, 6n]);
      await after.close();
      rmSync(folder, { recursive: true });
    });
  });

  describe("whose book is lost", () => {
    const spend = async (count: number): Promise<void> => {
      const agent = await market.agent("alice");
      for (let amount = 1n; amount <= BigInt(count); amount++) await agent.pay(bill(amount));
    };

    for (const count of [1, 6, 7, 8, 15]) {
      it(`go on after ${count}, from the processor's tail with the agent's own signature on it`, async () => {
        await spend(count);
        const agent = await market.agent("alice");
        const { payment } = await agent.pay(bill(100n));
        expect(payment.payment.seq).to.equal(BigInt(count) + 1n);
        expect(await agent.remaining()).to.equal(100_000n - payment.payment.spent);
      });
    }

    it("can be asked for outright, and nothing is there to recover in a new mandate", async () => {
      const fresh = await market.agent("bob");
      await fresh.recover();
      expect(await fresh.remaining()).to.equal(100_000n);
      await spend(3);
      const agent = await market.agent("alice");
      await agent.recover();
      expect(await agent.remaining()).to.equal(99_994n);
    });

    it("stop at a tail without a signature, unless the processor is trusted", async () => {
      await spend(3);
      market.provesTail = false;
      const agent = await market.agent("alice");
      const error = await refusalOf(() => agent.pay(bill(9n)));
      expect(error).to.include({ code: "head-mismatch" });
      expect(error.message).to.include("no signature");
      expect(await market.paid(agent)).to.have.length(3);
      await agent.recover({ trustProcessor: true });
      expect((await agent.pay(bill(9n))).payment.payment.seq).to.equal(4n);
    });

    const forgeries: Record<string, (tail: Record<string, unknown>) => unknown> = {
      "a line that was never signed": (tail) => ({
        ...tail,
        lines: (tail["lines"] as Record<string, string>[]).map((line) => ({ ...line, payee: addressOf("thief") })),
      }),
      "a total that is too high": (tail) => ({ ...tail, spent: "50" }),
      "a total above the budget": (tail) => ({ ...tail, spent: "100001" }),
      "another payment's signature": (tail) => ({
        ...tail,
        last: { ...(tail["last"] as object), signature: `0x${"11".repeat(64)}1b` },
      }),
      "lines that are not those of the page": (tail) => ({ ...tail, lines: [] }),
      "another base": (tail) => ({ ...tail, base: ZeroHash }),
    };
    for (const [name, forge] of Object.entries(forgeries)) {
      it(`stop at ${name}`, async () => {
        await spend(3);
        const agent = await market.agent("alice", {
          surroundings: {
            fetch: async (input, init) => {
              const answer = await fetch(input, init);
              if (!new Request(input).url.endsWith("/tail")) return answer;
              return Response.json(forge((await answer.json()) as Record<string, unknown>));
            },
          },
        });
        const error = await refusalOf(() => agent.pay(bill(9n)));
        expect(error.code).to.match(/^(head-mismatch|signature-.*|malformed-input)$/);
        expect(await market.paid(agent)).to.have.length(3);
      });
    }

    it("do not go back to a processor that has forgotten payments with receipts", async () => {
      const book = memoryBook();
      await (await market.agent("alice", { book })).pay(bill(5n));
      const restored = await Market.open();
      const agent = await restored.agent("alice", { book });
      expect((await refusalOf(() => agent.pay(bill(6n)))).code).to.equal("books-behind");
      expect(await restored.paid(agent)).to.have.length(0);
      await restored.close();
    });

    it("find a payment again that an older copy of the book has pending", async () => {
      const book = memoryBook();
      const agent = await market.agent("alice", { book, patience: { attempts: 1 } });
      market.line.faults.push("unanswered");
      await refusalOf(() => agent.pay(bill(1n)));
      const copy = memoryBook();
      await copy.write((await book.read())!);
      await agent.pay(bill(2n));
      const old = await market.agent("alice", { book: copy });
      await old.recover();
      expect((await old.pay(bill(1n))).payment.payment.seq).to.equal(1n);
      expect((await old.pay(bill(3n))).payment.payment.seq).to.equal(3n);
      expect(await market.paid(agent)).to.have.length(3);
    });

    it("may be made by two agents of one key, each after the other's", async () => {
      const [one, two] = [await market.agent("alice"), await market.agent("alice")];
      const turns = [one, two, one, two, two];
      for (const [index, agent] of turns.entries()) await agent.pay(bill(BigInt(index + 1)));
      expect((await market.paid(one)).map(({ amount }) => amount)).to.deep.equal([1n, 2n, 3n, 4n, 5n]);
    });
  });

  describe("by other signers", () => {
    const { address, signTypedData } = {
      address: addressOf("alice"),
      signTypedData: keyOf("alice").signTypedData.bind(keyOf("alice")),
    };

    it("work with a signer that signs and has an address, from one start to the next", async () => {
      const book = memoryBook();
      for (const amount of [1n, 2n]) {
        await (await market.agent("alice", { key: { address, signTypedData }, book })).pay(bill(amount));
      }
      expect(await market.paid(await market.agent("alice"))).to.have.length(2);
    });

    it("need a secret where the signer signs the same in two ways", async () => {
      let count = 0;
      const key = {
        address,
        signTypedData: async (...message: Parameters<typeof signTypedData>) =>
          "Salt" in message[1] ? id(String(count++)) : signTypedData(...message),
      };
      expect((await refusalOf(async () => (await market.agent("alice", { key })).pay(bill(1n)))).advice).to.include(
        "secret",
      );
      await (await market.agent("alice", { key: { ...key, secret: REF } })).pay(bill(1n));
      const short = { ...key, secret: "0x12" as Hex };
      expect((await refusalOf(async () => (await market.agent("alice", { key: short })).pay(bill(1n)))).code).to.equal(
        "malformed-input",
      );
    });

    it("send nothing that the signer signed wrongly", async () => {
      const key = { address, signTypedData: keyOf("thief").signTypedData.bind(keyOf("thief")) };
      const agent = await market.agent("alice", { key });
      expect((await refusalOf(() => agent.pay(bill(1n)))).code).to.equal("signature-signer");
      expect(market.line.sent).to.have.length(0);
      expect(await agent.remaining()).to.equal(100_000n);
    });
  });

  it("tell when little is left, once", async () => {
    const low: bigint[] = [];
    const paid: bigint[] = [];
    const agent = await market.agent("alice", {
      overrides: { budget: 1_000n },
      lowAt: 500n,
      onLow: (left) => low.push(left),
      onPayment: ({ payment }) => paid.push(payment.payment.line.amount),
    });
    for (const amount of [400n, 200n, 100n]) await agent.pay(bill(amount));
    expect(low).to.deep.equal([400n]);
    expect(paid).to.deep.equal([400n, 200n, 100n]);
  });

  it("can be read back: status, ledger by pages, and what the processor counts", async () => {
    const agent = await market.agent("alice", { overrides: { budget: 1_000_000n } });
    await Promise.all(Array.from({ length: 120 }, () => agent.pay(bill(1n))));
    expect(await agent.status(120n)).to.include({ status: "accepted", seq: 120n, amount: 1n });
    expect(await agent.status(121n)).to.equal(null);
    const seqs: (bigint | null)[] = [];
    for await (const { seq } of agent.ledger({ kind: "accepted" })) seqs.push(seq);
    expect(seqs).to.deep.equal(Array.from({ length: 120 }, (_, index) => BigInt(120 - index)));
    const status = await agent.sync();
    expect(status).to.include({ state: "open", remaining: 999_880n });
    expect(status.accepted).to.deep.equal({ seq: 120n, spent: 120n });
  });

  it("need a mandate that hangs together and is the key's", () => {
    const mandate = draftMandate(addressOf("alice"));
    const make =
      (change: object, terms = ANYTHING, key = keyOf("alice"), processor = "http://127.0.0.1:1") =>
      () =>
        new Agent({ key, processor, domain: DOMAIN, mandate: { ...mandate, ...change }, terms });
    const cases = [
      ["policy-mismatch", make({ payees: [PAYEE] })],
      ["policy-mismatch", make({ paymentCap: 999n })],
      ["terms-mismatch", make({}, { ...ANYTHING, purpose: "another" })],
      ["mandate-conflict", make({}, ANYTHING, keyOf("bob"))],
      ["malformed-input", make({}, ANYTHING, keyOf("alice"), "ftp://x")],
    ] as const;
    for (const [code, act] of cases) expect(act).to.throw(BursarError).with.property("code", code);
  });

  it("are made by an agent that knows its processor alone", async () => {
    const { office, line } = market;
    await office.agent("alice");
    const options = {
      key: keyOf("alice"),
      processor: line.url,
      surroundings: { now: () => office.clock },
      patience: { attempts: 1 },
    };
    const agent = await Agent.connect({
      ...options,
      expected: { processor: addressOf("processor"), chainId: 31_337n },
    });
    const paid = await agent.pay(bill(3n));
    expect(paid.receipt.receipt.seq).to.equal(1n);
    const cases = [
      ["wrong-processor", { processor: PAYEE }],
      ["wrong-contract", { registry: PAYEE }],
      ["wrong-chain", { chainId: 1n }],
    ] as const;
    for (const [code, expected] of cases) {
      expect((await refusalOf(() => Agent.connect({ ...options, expected }))).code).to.equal(code);
    }
    const stranger = await refusalOf(() => Agent.connect({ ...options, key: keyOf("stranger") }));
    expect(stranger.code).to.be.oneOf(["mandate-unknown", "forbidden"]);
  });
});
