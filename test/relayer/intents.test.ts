import { signMandate, signRevocation, signAccess, accessHeader, type Address, type Hex } from "@bursar/protocol";
import { Chain, Processor, receiptKey, Store } from "@bursar/relayer";
import { expect } from "chai";
import { ContractFactory, JsonRpcProvider, Signature, Wallet, type TransactionReceipt } from "ethers";
import { join } from "node:path";

import { IntentBook, Intents, type Deliver } from "../../packages/relayer/src/intents.ts";
import { TestRail } from "../integration/rail.ts";
import { Desk, type Asked } from "./intent-desk.ts";
import { addressOf, keyOf } from "./office.ts";

describe("intents", function () {
  this.timeout(120_000);
  let rail: TestRail;
  let desk: Desk;
  const never = new Promise<never>(() => undefined);

  before(async () => {
    rail = await TestRail.start();
    await rail.fund(10_000_000n);
    desk = await Desk.open(rail);
  });
  after(async () => {
    await desk.server.close();
    rail.stop();
  });
  afterEach(() => (rail.skew = 0n));

  const onChain = async (agent: Address): Promise<string> => (await rail.chain.mandate(agent)).state;
  const signed = async (asked: Asked): Promise<{ ownerSignature: Hex }> => ({
    ownerSignature: await desk.ownerSigns(asked),
  });

  describe("drafting", () => {
    it("takes an intent that the agent signed, and says what still has to happen", async () => {
      const asked = await desk.ask({ hosts: ["api.weather.example"], limits: { unitsPerDay: "1000" } });
      const { status, body } = await desk.draft(asked);
      expect(status).to.equal(201);
      expect(body).to.deep.include({
        agent: asked.agent,
        state: "awaiting-signature",
        signUrl: `/intents/${asked.agent}/sign`,
        missing: { agentSignature: false, ownerSignature: true, funds: "0" },
        failure: null,
        replaces: null,
      });
      expect(body.clauses).to.deep.include({
        subject: "hosts",
        words: "api.weather.example",
        enforcedBy: "processor",
      });
      expect((await desk.show(asked.agent)).body).to.deep.equal(body);
      expect(await onChain(asked.agent)).to.equal("none");
    });

    it("is drafted without the agent's signature, which may follow", async () => {
      const asked = await desk.ask();
      const first = await desk.draft(asked, { agentSignature: undefined });
      expect(first.body).to.deep.include({ state: "drafted" });
      expect(first.body.missing).to.deep.equal({ agentSignature: true, ownerSignature: true, funds: "0" });
      const early = await desk.sign(asked.agent, await signed(asked));
      expect([early.status, early.body.code]).to.deep.equal([409, "intent-not-signable"]);
      expect((await desk.draft(asked)).body.state).to.equal("awaiting-signature");
      expect((await desk.draft(asked, { agentSignature: undefined })).body.state).to.equal("awaiting-signature");
    });

    it("answers the same to the same, even later, and refuses another content for the agent", async () => {
      const asked = await desk.asked();
      const { body } = await desk.show(asked.agent);
      rail.skew = 1_200n;
      expect(await desk.draft(asked)).to.deep.equal({ status: 201, body });
      rail.skew = 0n;
      const other = { ...asked.intent, budget: 6_000n };
      const mandate = { ...asked.mandate, budget: 6_000n };
      const agentSignature = await signMandate(asked.wallet, rail.domain, mandate);
      const conflict = await desk.draft(asked, { intent: other, mandate, agentSignature });
      expect([conflict.status, conflict.body.code]).to.deep.equal([409, "intent-conflict"]);
      expect((await desk.show(asked.agent)).body).to.deep.equal(body);
    });

    it("takes one of two drafts that come at once", async () => {
      const asked = await desk.ask();
      const answers = await Promise.all([desk.draft(asked), desk.draft(asked), desk.draft(asked)]);
      expect(answers.map(({ status }) => status)).to.deep.equal([201, 201, 201]);
    });

    const LIES: [string, string, (asked: Asked) => object][] = [
      ["budget", "intent-mismatch", ({ mandate }) => ({ mandate: { ...mandate, budget: 5_001n } })],
      ["payment cap", "intent-mismatch", ({ mandate }) => ({ mandate: { ...mandate, paymentCap: 101n } })],
      ["payees", "intent-mismatch", ({ mandate }) => ({ mandate: { ...mandate, payees: [addressOf("shop")] } })],
      [
        "policy root",
        "policy-mismatch",
        ({ mandate }) => ({ mandate: { ...mandate, policyRoot: `0x${"0".repeat(64)}` } }),
      ],
      ["purpose", "terms-mismatch", ({ intent }) => ({ intent: { ...intent, purpose: "something nicer" } })],
      ["hosts", "terms-mismatch", ({ intent }) => ({ intent: { ...intent, hosts: ["good.example"] } })],
      ["end", "intent-mismatch", ({ mandate }) => ({ mandate: { ...mandate, validUntil: mandate.validUntil + 900n } })],
      ["beginning", "intent-mismatch", ({ mandate }) => ({ mandate: { ...mandate, validUntil: 60n } })],
      ["processor", "wrong-processor", ({ mandate }) => ({ mandate: { ...mandate, processor: addressOf("other") } })],
      ["token", "wrong-token", ({ mandate }) => ({ mandate: { ...mandate, token: addressOf("other") } })],
    ];
    for (const [what, code, lie] of LIES) {
      it(`refuses a mandate with another ${what} than the intent's`, async () => {
        const asked = await desk.ask();
        const { status, body } = await desk.draft(asked, { ...lie(asked), agentSignature: undefined });
        expect(body.code, body.detail).to.equal(code);
        expect(status).to.be.within(400, 499);
        expect((await desk.show(asked.agent)).body.code).to.equal("not-found");
      });
    }

    it("refuses a signature by another key than the agent's", async () => {
      const asked = await desk.ask();
      const { body } = await desk.draft(asked, { agentSignature: await desk.ownerSigns(asked) });
      expect(body.code).to.equal("signature-signer");
    });

    it("refuses an agent whose address another mandate uses", async () => {
      const { wallet } = await rail.open();
      const asked = await desk.ask();
      const agent = wallet.address as Address;
      const mandate = { ...asked.mandate, agent };
      const { body } = await desk.draft(asked, { mandate, agentSignature: undefined });
      expect(body.code).to.equal("mandate-conflict");
    });

    it("forgets what nobody signs within the hour", async () => {
      const asked = await desk.asked();
      rail.skew = 3_599n;
      expect((await desk.show(asked.agent)).status).to.equal(200);
      rail.skew = 3_602n;
      const { status, body } = await desk.show(asked.agent);
      expect([status, body.code]).to.deep.equal([404, "not-found"]);
      expect((await desk.sign(asked.agent, await signed(asked))).status).to.equal(404);
      expect(desk.book.get(asked.agent)).to.equal(undefined);
    });

    it("is expired, and not signable, once the mandate's own time is over", async () => {
      const asked = await desk.asked({ duration: "60" });
      rail.skew = 61n;
      expect((await desk.show(asked.agent)).body).to.deep.equal({ agent: asked.agent, state: "expired" });
      expect((await desk.sign(asked.agent, await signed(asked))).body.code).to.equal("intent-not-signable");
    });

    it("lets only so many wait for one owner, and in all", async () => {
      const book = new IntentBook(new Store(":memory:").database);
      const small = await Desk.open(rail, { book, perOwner: 2, inAll: 3 });
      await small.asked();
      const kept = await small.asked();
      const third = await small.draft(await small.ask());
      expect([third.status, third.body.code, third.body.details["limit"]]).to.deep.equal([
        429,
        "too-many-requests",
        "2",
      ]);
      expect((await small.draft(kept)).status).to.equal(201);
      await small.asked({}, addressOf("another owner"));
      const fourth = await small.draft(await small.ask({}, addressOf("a third owner")));
      expect(fourth.body.details["limit"]).to.equal("3");
      rail.skew = 3_700n;
      await small.asked();
      await small.server.close();
    });

    it("refuses what is not in the documented form", async () => {
      const asked = await desk.ask();
      for (const changes of [{ intent: { ...asked.intent, budget: 5 } }, { mandate: null }, { extra: 1 }]) {
        expect((await desk.draft(asked, changes)).body.code).to.equal("malformed-input");
      }
      expect((await desk.sign(asked.agent, { ownerSignature: "yes" })).body.code).to.equal("malformed-input");
      expect((await desk.http("GET", "/intents/0x12")).body.code).to.equal("malformed-input");
    });
  });

  describe("signing", () => {
    it("opens the mandate on chain from the processor's key, takes it up, and the agent can pay", async () => {
      const asked = await desk.asked();
      const { status, body } = await desk.sign(asked.agent, await signed(asked));
      expect([status, body.state], JSON.stringify(body)).to.deep.equal([200, "open"]);
      expect(body.missing).to.deep.equal({ agentSignature: false, ownerSignature: false, funds: "0" });
      expect(await onChain(asked.agent)).to.equal("open");
      expect(rail.processor.status(asked.agent).terms).to.deep.equal(asked.terms);
      expect(await desk.sign(asked.agent, await signed(asked))).to.deep.equal({ status, body });
      expect((await desk.draft(asked)).body.state).to.equal("open");
    });

    it("takes a signature whose v is 0 or 1, as some wallets answer", async () => {
      const asked = await desk.asked();
      const strict = await desk.ownerSigns(asked);
      const v = Signature.from(strict).yParity;
      const { body } = await desk.sign(asked.agent, { ownerSignature: `${strict.slice(0, 130)}0${v}` });
      expect(body.state).to.equal("open");
    });

    it("refuses a signature by another key, and records nothing", async () => {
      const asked = await desk.asked();
      for (const ownerSignature of [asked.agentSignature, "0x1234"]) {
        const { body } = await desk.sign(asked.agent, { ownerSignature });
        expect(body.code).to.be.oneOf(["signature-signer", "signature-length"]);
      }
      expect(desk.book.get(asked.agent)?.ownerSignature).to.equal(null);
      const { body } = await desk.sign(asked.agent, { ...(await signed(asked)), revocationSignature: "0x12" });
      expect(body.code).to.equal("malformed-input");
    });

    it("opens once for signatures that are posted at once", async () => {
      const asked = await desk.asked();
      const answer = await signed(asked);
      const answers = await Promise.all([1, 2, 3].map(() => desk.sign(asked.agent, answer)));
      expect(answers.map(({ body }) => body.state)).to.deep.equal(["open", "open", "open"]);
      expect(await rail.store.transactions(`open:${asked.agent}`)).to.have.length(1);
    });

    it("says how much is missing, and opens after the deposit", async () => {
      const free = await rail.chain.escrow.freeOf(rail.token, rail.ownerAddress);
      const asked = await desk.asked({ budget: String(free + 250n) });
      expect((await desk.show(asked.agent)).body.missing.funds).to.equal("250");
      const poor = await desk.sign(asked.agent, await signed(asked));
      expect([poor.status, poor.body.code]).to.deep.equal([409, "funds-missing"]);
      expect(poor.body.details).to.deep.equal({ value: String(free), limit: String(free + 250n), missing: "250" });
      expect(poor.body.advice).to.contain("0.00025");
      expect(desk.book.get(asked.agent)?.ownerSignature).to.equal(null);
      await rail.fund(250n);
      expect((await desk.sign(asked.agent, await signed(asked))).body.state).to.equal("open");
      await rail.fund(10_000_000n);
    });

    it("takes one that somebody else opened with the same content as open", async () => {
      const asked = await desk.asked();
      const answer = await signed(asked);
      const registry = rail.chain.registry.connect(rail.owner);
      const { mandate, agentSignature } = asked;
      await (await registry.open({ ...mandate, payees: [] }, answer.ownerSignature, agentSignature)).wait();
      expect((await desk.show(asked.agent)).body).to.deep.equal({ agent: asked.agent, state: "open" });
      const { body } = await desk.sign(asked.agent, answer);
      expect(body.state).to.equal("open");
      expect(await rail.store.transactions(`open:${asked.agent}`)).to.have.length(0);
      expect(rail.processor.status(asked.agent).state).to.equal("open");
    });

    it("takes one that somebody else opens in between as open", async () => {
      const registry = rail.chain.registry.connect(rail.owner);
      const overtaken: Deliver = async (job, request) => {
        await (await rail.owner.sendTransaction(request)).wait();
        return rail.outbox.deliver(job, request);
      };
      const other = await Desk.open(rail, { deliver: overtaken });
      const asked = await other.asked();
      expect((await other.sign(asked.agent, await signed(asked))).body.state).to.equal("open");
      expect(await registry.stateOf(asked.agent)).to.equal(1n);
      await other.server.close();
    });

    it("says so when the contract refuses after all, and the owner may sign again", async () => {
      const withdrawing: Deliver = async (job, request) => {
        const free = await rail.chain.escrow.freeOf(rail.token, rail.ownerAddress);
        await (await rail.chain.escrow.connect(rail.owner).withdraw(rail.token, free, rail.ownerAddress)).wait();
        return rail.outbox.deliver(job, request);
      };
      const other = await Desk.open(rail, { deliver: withdrawing });
      const asked = await other.asked();
      const { body } = await other.sign(asked.agent, await signed(asked));
      expect(body.code, body.detail).to.equal("funds-missing");
      const view = (await other.show(asked.agent)).body;
      expect(view.state).to.equal("awaiting-signature");
      expect(view.failure).to.contain("the budget is 0.005");
      await rail.fund(10_000_000n);
      expect((await desk.sign(asked.agent, await signed(asked))).body.state).to.equal("open");
      await other.server.close();
    });

    it("takes back a signature whose transaction was mined and reverted, and opens at the next", async () => {
      const { escrow } = rail.chain;
      const free = await escrow.freeOf(rail.token, rail.ownerAddress);
      const outrun: Deliver = async (job, request) => {
        await rail.provider.send("evm_setAutomine", [false]);
        const delivered = rail.outbox.deliver(job, request);
        while ((await rail.store.transactions(job)).length === 0) await new Promise((done) => setTimeout(done, 20));
        const first = { gasLimit: 200_000n, maxPriorityFeePerGas: 50_000_000_000n, maxFeePerGas: 100_000_000_000n };
        await escrow.connect(rail.owner).withdraw(rail.token, free, rail.ownerAddress, first);
        await rail.provider.send("evm_setAutomine", [true]);
        await rail.provider.send("evm_mine", []);
        return delivered;
      };
      const other = await Desk.open(rail, { deliver: outrun });
      const asked = await other.asked();
      const { body } = await other.sign(asked.agent, await signed(asked));
      expect(body.code, body.detail).to.equal("funds-missing");
      const [sent] = await rail.store.transactions(`open:${asked.agent}`);
      expect((await rail.provider.getTransactionReceipt(sent!.hash))?.status).to.equal(0);
      expect(other.book.get(asked.agent)).to.include({ ownerSignature: null, attempt: 2 });
      await other.server.close();

      await rail.fund(10_000_000n);
      expect((await desk.sign(asked.agent, await signed(asked))).body.state).to.equal("open");
      expect(await rail.store.transactions(`open:${asked.agent}:2`)).to.have.length(1);
    });

    it("follows the mandate to its end", async () => {
      const asked = await desk.asked();
      await desk.sign(asked.agent, await signed(asked));
      rail.processor.revoke(
        { agent: asked.agent, afterSeq: 0n },
        await signRevocation(rail.owner, rail.domain, { agent: asked.agent, afterSeq: 0n }),
      );
      expect((await desk.show(asked.agent)).body.state).to.equal("revoked");
      const short = await desk.asked({ duration: "600" });
      await desk.sign(short.agent, await signed(short));
      rail.skew = 700n;
      expect((await desk.show(short.agent)).body.state).to.equal("expired");
      rail.skew = 90n * 86_400n;
      expect((await desk.show(short.agent)).body.state).to.equal("closed");
    });

    it("tells strangers the state of a signed intent and nothing else; owner and agent read it all", async () => {
      const asked = await desk.asked();
      await desk.sign(asked.agent, await signed(asked));
      const { agent } = asked;
      expect((await desk.show(agent)).body).to.deep.equal({ agent, state: "open" });
      const page = await (await fetch(`${desk.url}/intents/${agent}/sign`)).text();
      expect(page).to.contain("is open").and.not.to.contain(asked.intent.purpose);
      const access = { account: agent, expiresAt: rail.now() + 600n };
      const authorization = accessHeader(access, await signAccess(asked.wallet, rail.domain, access));
      expect((await desk.show(agent, { authorization })).body.mandate).to.be.an("object");
      const stranger = keyOf("stranger");
      const theirs = { account: stranger.address as Address, expiresAt: rail.now() + 600n };
      const header = accessHeader(theirs, await signAccess(stranger, rail.domain, theirs));
      expect((await desk.show(agent, { authorization: header })).body).to.deep.equal({ agent, state: "open" });
    });
  });

  describe("of an owner that is a contract (ERC-1271)", () => {
    const key = keyOf("wallet key");

    async function account(name: string, argument: unknown): Promise<Address> {
      const artifact = (await import(`../../artifacts/contracts/mocks/OwnerWallets.sol/${name}.json`, {
        with: { type: "json" },
      })) as { default: { abi: []; bytecode: string } };
      const { abi, bytecode } = artifact.default;
      const contract = await new ContractFactory(abi, bytecode, rail.owner).deploy(argument);
      await contract.waitForDeployment();
      const address = (await contract.getAddress()) as Address;
      await (await rail.dollar.mint(rail.ownerAddress, 10_000n)).wait();
      await (await rail.dollar.approve(rail.chain.rail.escrow, 10_000n)).wait();
      await (await rail.chain.escrow.connect(rail.owner).deposit(rail.token, 10_000n, address)).wait();
      return address;
    }

    it("opens when the contract stands behind the signature", async () => {
      const asked = await desk.asked({}, await account("OwnerWallet", key.address));
      const wrong = await desk.sign(asked.agent, { ownerSignature: await desk.ownerSigns(asked) });
      expect(wrong.body.code).to.equal("signature-signer");
      const ownerSignature = await signMandate(key, rail.domain, asked.mandate);
      const { body } = await desk.sign(asked.agent, { ownerSignature });
      expect(body.state, body.detail).to.equal("open");
    });

    ["refuses", "reverts", "burns all gas", "returns 4 bytes", "returns a megabyte", "returns dirty bytes"].forEach(
      (name, answer) => {
        it(`refuses a contract that ${name}`, async () => {
          const asked = await desk.asked({}, await account("BadOwnerWallet", answer));
          const ownerSignature = await signMandate(key, rail.domain, asked.mandate);
          const { body } = await desk.sign(asked.agent, { ownerSignature });
          expect(body.code, body.detail).to.equal("signature-signer");
          expect(desk.book.get(asked.agent)?.ownerSignature).to.equal(null);
        });
      },
    );
  });

  describe("after a crash", () => {
    /** The same books in the hands of a new process. */
    function restarted(deliver: Deliver = (job, request) => rail.outbox.deliver(job, request)): {
      intents: Intents;
      store: Store;
    } {
      const store = new Store(join(rail.folder, "processor.db"), { now: () => rail.now() });
      const { domain, chain, processorKey } = rail;
      const now = (): bigint => rail.now();
      const processor = new Processor({
        domain,
        store,
        chain,
        key: receiptKey(processorKey),
        settleWithin: 3_600n,
        now,
      });
      const book = new IntentBook(store.database);
      return { store, intents: new Intents({ domain, book, processor, chain, deliver, now }) };
    }

    it("goes on between recording and sending", async () => {
      const dying = await Desk.open(rail, { deliver: () => never, patience: 50 });
      const asked = await dying.asked();
      const { status, body } = await dying.sign(asked.agent, await signed(asked));
      expect([status, body.code]).to.deep.equal([503, "opening-pending"]);
      expect((await dying.show(asked.agent)).body).to.deep.equal({ agent: asked.agent, state: "opening" });
      expect(await onChain(asked.agent)).to.equal("none");
      await dying.server.close();

      const { intents, store } = restarted();
      expect(await intents.resume()).to.deep.equal([{ agent: asked.agent, failure: null }]);
      expect((await intents.view(asked.agent)).state).to.equal("open");
      expect(await onChain(asked.agent)).to.equal("open");
      expect(await intents.resume()).to.deep.equal([]);
      store.close();
    });

    it("goes on between sending and taking up", async () => {
      const sent = (job: string, request: Parameters<Deliver>[1]): Promise<TransactionReceipt> =>
        rail.outbox.deliver(job, request).then(() => never);
      const dying = await Desk.open(rail, { deliver: sent, patience: 1_500 });
      const asked = await dying.asked();
      expect((await dying.sign(asked.agent, await signed(asked))).body.code).to.equal("opening-pending");
      while ((await onChain(asked.agent)) !== "open") await new Promise((done) => setTimeout(done, 50));
      expect(rail.store.mandate(asked.agent)).to.equal(undefined);
      await dying.server.close();

      const { intents, store } = restarted(() => Promise.reject(new Error("it was sent already")));
      expect(await intents.resume()).to.deep.equal([{ agent: asked.agent, failure: null }]);
      expect(store.mandate(asked.agent)?.terms).to.deep.equal(asked.terms);
      store.close();
    });

    it("gives up what ended while it was down, and says so", async () => {
      const dying = await Desk.open(rail, { deliver: () => never, patience: 50 });
      const asked = await dying.asked({ duration: "60" });
      await dying.sign(asked.agent, await signed(asked));
      await dying.server.close();
      rail.skew = 120n;
      const { intents, store } = restarted();
      const [ended] = await intents.resume();
      expect(ended?.failure).to.include({ code: "mandate-expired" });
      expect((await intents.view(asked.agent)).state).to.equal("expired");
      store.close();
    });
  });

  describe("while the chain is down", () => {
    it("records the signature of a key, answers 503 with advice, and opens when the chain is back", async () => {
      const asked = await desk.asked();
      const answer = await signed(asked);
      const away = new JsonRpcProvider("http://127.0.0.1:1", 31_337, { staticNetwork: true });
      const down = await Desk.open(rail, { chain: new Chain(rail.chain.rail, away) });
      const wrong = await down.sign(asked.agent, { ownerSignature: asked.agentSignature });
      expect([wrong.status, wrong.body.code]).to.deep.equal([503, "chain-unavailable"]);
      expect(down.book.get(asked.agent)?.ownerSignature).to.equal(null);
      const { status, body } = await down.sign(asked.agent, answer);
      expect([status, body.code]).to.deep.equal([503, "chain-unavailable"]);
      expect(body.detail).to.equal("The signature is recorded, and the chain does not answer.");
      expect(body.advice).to.contain("the mandate opens when the chain answers");
      expect((await down.intents.resume())[0]?.failure).to.include({ code: "chain-unavailable" });
      away.destroy();
      await down.server.close();

      expect(await desk.intents.resume()).to.deep.equal([{ agent: asked.agent, failure: null }]);
      expect((await desk.show(asked.agent)).body.state).to.equal("open");
    });
  });

  describe("in place of another mandate", () => {
    it("stops the old agent at once when the new mandate opens, and says so beforehand", async () => {
      const old = await rail.open();
      await old.pay(rail.payee(), 100n);
      const asked = await desk.asked({ replaces: old.address });
      const { body } = await desk.show(asked.agent);
      expect(body.replaces).to.deep.include({ agent: old.address, revocation: { agent: old.address, afterSeq: "1" } });
      expect(body.clauses.map(({ subject }) => subject)).to.include("replaces");
      expect(rail.processor.status(old.address).state).to.equal("open");
      expect((await desk.sign(asked.agent, await signed(asked))).body.state).to.equal("open");
      expect(rail.processor.status(old.address).state).to.equal("revoked");
      expect(await onChain(old.address)).to.equal("open");
      let refused: unknown;
      await old.pay(rail.payee(), 100n).catch((error: unknown) => (refused = error));
      expect(refused).to.include({ code: "mandate-revoked" });
    });

    it("ends the old one on chain with the second signature, with the first or after it", async () => {
      for (const together of [true, false]) {
        const old = await rail.open();
        const asked = await desk.asked({ replaces: old.address });
        const revocation = { agent: old.address, afterSeq: 0n };
        const second = {
          revocationSignature: await signRevocation(rail.owner, rail.domain, revocation),
          afterSeq: "0",
        };
        const first = await signed(asked);
        if (!together) {
          await desk.sign(asked.agent, first);
          expect(await onChain(old.address)).to.equal("open");
        }
        const { body } = await desk.sign(asked.agent, { ...first, ...second });
        expect([body.state, body.failure]).to.deep.equal(["open", null]);
        expect(body.replaces?.revocationSigned).to.equal(true);
        expect(await onChain(old.address)).to.equal("revoked");
      }
    });

    it("finishes the second signature after a crash", async () => {
      const old = await rail.open();
      const dying = await Desk.open(rail, {
        deliver: (job, request) => (job.startsWith("revoke:") ? never : rail.outbox.deliver(job, request)),
        patience: 3_000,
      });
      const asked = await dying.asked({ replaces: old.address });
      const revocation = { agent: old.address, afterSeq: 0n };
      const revocationSignature = await signRevocation(rail.owner, rail.domain, revocation);
      await dying.sign(asked.agent, { ...(await signed(asked)), revocationSignature });
      await dying.server.close();
      expect(await onChain(old.address)).to.equal("open");
      expect(await desk.intents.resume()).to.deep.equal([{ agent: asked.agent, failure: null }]);
      expect(await onChain(old.address)).to.equal("revoked");
    });

    it("takes an old one that is revoked on chain already as done", async () => {
      const old = await rail.open();
      const asked = await desk.asked({ replaces: old.address });
      await (await rail.chain.registry.connect(rail.owner).revoke(old.address, 0n)).wait();
      const revocationSignature = await signRevocation(rail.owner, rail.domain, { agent: old.address, afterSeq: 0n });
      const { body } = await desk.sign(asked.agent, { ...(await signed(asked)), revocationSignature });
      expect([body.state, body.failure]).to.deep.equal(["open", null]);
    });

    it("refuses one of another owner, one that is unknown, and a revocation by another key", async () => {
      const old = await rail.open();
      const foreign = await desk.draft(await desk.ask({ replaces: old.address }, addressOf("another owner")));
      expect([foreign.status, foreign.body.code]).to.deep.equal([403, "forbidden"]);
      const unknown = await desk.draft(await desk.ask({ replaces: Wallet.createRandom().address }));
      expect([unknown.status, unknown.body.code]).to.deep.equal([404, "mandate-unknown"]);
      const asked = await desk.asked({ replaces: old.address });
      const forged = await signRevocation(asked.wallet, rail.domain, { agent: old.address, afterSeq: 0n });
      const { body } = await desk.sign(asked.agent, { ...(await signed(asked)), revocationSignature: forged });
      expect(body.code).to.equal("signature-signer");
      expect(desk.book.get(asked.agent)?.ownerSignature).to.equal(null);
    });
  });

  it("lists what is in the book, newest first", async () => {
    const asked = await desk.asked();
    const [newest] = await desk.intents.list();
    expect(newest).to.include({ agent: asked.agent, state: "awaiting-signature" });
  });
});
