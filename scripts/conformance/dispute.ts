import { signDelivery, signQuote, type Address, type Hex } from "@bursar/protocol";
import { id } from "ethers";

import { IDisputeModule__factory, type IDisputeModule } from "../../typechain-types/index.ts";
import {
  DEPLOYED,
  randomAddress,
  refused,
  require,
  same,
  Untested,
  type Bench,
  type Person,
  type Requirement,
} from "./bench.ts";
import { Stage, type Actor, type SignedPurchase } from "./stage.ts";

export interface DisputeSubject {
  readonly bench: Bench;
  readonly address: Address;
}

const [NOT_DELIVERED, OTHER] = [0n, 3n];
const [FILED, PAID, REFUNDED] = [1n, 4n, 5n];
const [FOR_PAYEE, FOR_OWNER] = [1n, 2n];
const [HOUR, DAY] = [3_600n, 86_400n];
const EVIDENCE = id("evidence");
const AMOUNT = 900n;
const HOLDBACK = DAY;

interface Scene {
  stage: Stage;
  actor: Actor;
  payee: Person;
  hold: { agent: Address; payee: Address; holdback: bigint };
  account: Address;
  /** The module, as the owner calls it. */
  module: IDisputeModule;
}

async function scene({ bench, address }: DisputeSubject, holdback = HOLDBACK): Promise<Scene> {
  const registry = (await IDisputeModule__factory.connect(address, bench.provider).registry()) as Address;
  const stage = await Stage.set(bench, registry);
  const [actor, payee] = [await stage.open(), await bench.person()];
  const module = IDisputeModule__factory.connect(address, stage.owner.sender);
  const hold = { agent: actor.agent.address, payee: payee.address, holdback };
  return {
    stage,
    actor,
    payee,
    hold,
    account: (await module.holdOf(hold.agent, hold.payee, holdback)) as Address,
    module,
  };
}

const asPurchase = ({ payment, receipt, agentSignature, processorSignature }: SignedPurchase) => ({
  receipt,
  spent: payment.spent,
  agentSignature,
  processorSignature,
});

async function file({ module, hold }: Scene, purchase: SignedPurchase, kind = NOT_DELIVERED): Promise<bigint> {
  await module.file(kind, hold, asPurchase(purchase), EVIDENCE);
  return module.disputeIdOf(hold.agent, purchase.receipt.seq);
}

/** Pays the hold, and disputes it as not delivered, or for another reason. */
async function filed(subject: DisputeSubject, kind = NOT_DELIVERED) {
  const one = await scene(subject);
  const purchase = await one.stage.pay(one.actor, one.account, AMOUNT);
  return { ...one, purchase, id: await file(one, purchase, kind) };
}

/** The same, answered by the payee's own word. */
async function answered(subject: DisputeSubject) {
  const one = await filed(subject, OTHER);
  await one.module.connect(one.payee.sender).answer(one.id, EVIDENCE);
  return one;
}

async function past({ stage: { bench }, module }: Scene, dispute: bigint): Promise<void> {
  const { deadline } = await module.disputeOf(dispute);
  const time = await bench.time();
  if (deadline >= time) await bench.elapse(deadline - time + 1n);
}

/** How it ended, and who has the money. */
async function expectEnd(one: Scene, dispute: bigint, status: bigint, [owner, payee]: [bigint, bigint]): Promise<void> {
  same("the status", (await one.module.disputeOf(dispute)).status, status);
  same("the owner's credit", await one.stage.creditOf(one.stage.owner.address), owner);
  same("the payee's credit", await one.stage.creditOf(one.payee.address), payee);
}

/** Escalates as the payee. @throws {@link Untested} if the arbitrator takes no dispute. */
async function escalated(subject: DisputeSubject) {
  const one = await answered(subject);
  const by = one.module.connect(one.payee.sender);
  const value = await one.module.escalationCost(one.id);
  const disputeID = await by.escalate.staticCall(one.id, { value }).catch(() => {
    throw new Untested("the arbitrator takes no dispute now");
  });
  await by.escalate(one.id, { value });
  const arbitrator = await one.stage.bench.as((await one.module.arbitrator()) as Address);
  return { ...one, disputeID, arbitrator };
}

/** What every `IDisputeModule` has to keep. */
export const DISPUTE: readonly Requirement<DisputeSubject>[] = [
  DEPLOYED,
  {
    name: "bounded",
    says: "Its deadlines are in their ranges: deliver 0 … 7 d, answer and escalate 1 h … 14 d, rule 1 … 30 d.",
    run: async ({ bench, address }) => {
      const set = await IDisputeModule__factory.connect(address, bench.provider).deadlines();
      for (const [name, minimum, maximum] of [
        ["deliver", 0n, 7n * DAY],
        ["answer", HOUR, 14n * DAY],
        ["escalate", HOUR, 14n * DAY],
        ["rule", DAY, 30n * DAY],
      ] as const)
        require(set[name] >= minimum && set[name] <= maximum, `${name} is ${set[name]} s, not ${minimum} … ${maximum}`);
    },
  },
  {
    name: "holds-of-its-own",
    says: "Each agent, payee and holdback up to 7 days has a hold of its own; a longer one has none.",
    run: async ({ bench, address }) => {
      const module = IDisputeModule__factory.connect(address, bench.provider);
      const [agent, payee, other] = [randomAddress(), randomAddress(), randomAddress()];
      const holds = [
        await module.holdOf(agent, payee, 0n),
        await module.holdOf(agent, payee, 7n * DAY),
        await module.holdOf(agent, other, 0n),
        await module.holdOf(other, payee, 0n),
      ];
      same("the number of holds", new Set(holds).size, 4);
      same("holdOf, asked again", await module.holdOf(agent, payee, 0n), holds[0]);
      await refused("a holdback of 7 days and a second", module.holdOf(agent, payee, 7n * DAY + 1n));
    },
  },
  {
    name: "pays-after-the-holdback",
    says: "What nobody disputes is the payee's after the holdback, by anyone's call, and nothing of it before.",
    local: true,
    run: async (subject) => {
      const { stage, actor, payee, hold, account, module } = await scene(subject);
      await stage.pay(actor, account, AMOUNT);
      const anyone = module.connect(await stage.bench.as(randomAddress()));
      await anyone.collect(hold);
      await anyone.release(hold, 100n);
      same("the payee's credit before", await stage.creditOf(payee.address), 0n);
      // Rounded up by at most a 64th and a second.
      await stage.bench.elapse(HOLDBACK + HOLDBACK / 64n + 1n);
      await anyone.release(hold, 100n);
      same("the payee's credit after", await stage.creditOf(payee.address), AMOUNT);
    },
  },
  {
    name: "parties-only",
    says: "Only the mandate's owner and its agent dispute a payment.",
    local: true,
    run: async (subject) => {
      const one = await scene(subject);
      const { stage, module, hold, payee } = one;
      const purchase = asPurchase(await stage.pay(one.actor, one.account, AMOUNT));
      for (const account of [payee.address, stage.processor.address, randomAddress()]) {
        const by = module.connect(await stage.bench.as(account));
        await refused(`a dispute by ${account}`, by.file(NOT_DELIVERED, hold, purchase, EVIDENCE));
      }
      await module.connect(one.actor.agent.sender).file(NOT_DELIVERED, hold, purchase, EVIDENCE);
    },
  },
  {
    name: "both-signatures",
    says: "A dispute needs the agent's signature and the processor's receipt, over a payment to that hold.",
    local: true,
    run: async (subject) => {
      const one = await scene(subject);
      const good = asPurchase(await one.stage.pay(one.actor, one.account, AMOUNT));
      const elsewhere = asPurchase(await one.stage.pay(one.actor, one.payee.address, AMOUNT));
      for (const [what, purchase] of [
        ["a payment to another account", elsewhere],
        ["no receipt", { ...good, processorSignature: good.agentSignature }],
        ["no signature of the agent", { ...good, agentSignature: good.processorSignature }],
        ["another amount", { ...good, receipt: { ...good.receipt, amount: AMOUNT + 1n } }],
      ] as const)
        await refused(what, one.module.file(NOT_DELIVERED, one.hold, purchase, EVIDENCE));
    },
  },
  {
    name: "once-a-payment",
    says: "A payment is disputed once.",
    local: true,
    run: async (subject) => {
      const { module, hold, purchase, id: dispute } = await filed(subject);
      same("the status", (await module.disputeOf(dispute)).status, FILED);
      await refused("a second dispute", module.file(OTHER, hold, asPurchase(purchase), EVIDENCE));
    },
  },
  {
    name: "freezes-that-alone",
    says: "A dispute freezes its own payment, and the payee gets the others of the hold.",
    local: true,
    run: async (subject) => {
      const one = await scene(subject);
      const { stage, actor, account, module, hold, payee } = one;
      const first = await stage.pay(actor, account, AMOUNT);
      await stage.pay(actor, account, 77n);
      await file(one, first);
      await stage.bench.elapse(HOLDBACK + HOLDBACK / 64n + 1n);
      await module.release(hold, 100n);
      same("the payee's credit", await stage.creditOf(payee.address), 77n);
      same("what is frozen", (await module.holdStateOf(account)).frozen, AMOUNT);
    },
  },
  {
    name: "refunds-silence",
    says: "What the payee does not answer is refunded to the owner after the deadline, by anyone's call, and not before.",
    local: true,
    run: async (subject) => {
      const one = await filed(subject);
      const anyone = one.module.connect(await one.stage.bench.as(randomAddress()));
      await refused("an end before the deadline", anyone.resolve(one.id));
      await past(one, one.id);
      await anyone.resolve(one.id);
      await expectEnd(one, one.id, REFUNDED, [AMOUNT, 0n]);
      await refused("a second end", anyone.resolve(one.id));
    },
  },
  {
    name: "takes-deliveries",
    says: "The payee's signed delivery of that payment, sent by anyone, answers; then the payee is paid if nobody escalates.",
    local: true,
    run: async (subject) => {
      const one = await filed(subject);
      const { agent, seq, ref } = one.purchase.receipt;
      const delivery = { agent, seq, ref, bodyHash: id("body") as Hex, deliveredAt: await one.stage.bench.time() };
      const anyone = one.module.connect(await one.stage.bench.as(randomAddress()));
      const answer = async (changes: object, by = one.payee): Promise<unknown> => {
        const word = { ...delivery, ...changes };
        return anyone.answerDelivery(one.id, word, await signDelivery(by.key, one.stage.domain, word));
      };
      await refused("a delivery that the agent signed", answer({}, one.actor.agent));
      await refused("a delivery of another payment", answer({ seq: seq + 1n }));
      await refused("a delivery that is too late", answer({ deliveredAt: delivery.deliveredAt + 30n * DAY }));
      await answer({});
      await refused("an end before the deadline", anyone.resolve(one.id));
      await past(one, one.id);
      await anyone.resolve(one.id);
      await expectEnd(one, one.id, PAID, [0n, AMOUNT]);
    },
  },
  {
    name: "refunds-above-the-quote",
    says: "What a payment is above the payee's signed quote is refunded at once.",
    local: true,
    run: async (subject) => {
      const one = await scene(subject);
      const purchase = await one.stage.pay(one.actor, one.account, AMOUNT);
      const { ref, settleBy } = purchase.receipt;
      const quote = { payee: one.payee.address, amount: 600n, ref, host: "", category: "", expiresAt: settleBy };
      const signature = await signQuote(one.payee.key, one.stage.domain, quote);
      const forged = await signQuote(one.actor.agent.key, one.stage.domain, quote);
      const claim = (by: string) => one.module.fileOverQuote(one.hold, asPurchase(purchase), quote, by, EVIDENCE);
      await refused("a quote that the agent signed", claim(forged));
      await claim(signature);
      const dispute = await one.module.disputeIdOf(one.hold.agent, purchase.receipt.seq);
      await expectEnd(one, dispute, REFUNDED, [AMOUNT - 600n, 0n]);
    },
  },
  {
    name: "gives-in",
    says: "The payee alone may give in, and the owner has its money at once.",
    local: true,
    run: async (subject) => {
      const one = await filed(subject);
      await refused("a refund by the owner", one.module.refund(one.id));
      await one.module.connect(one.payee.sender).refund(one.id);
      await expectEnd(one, one.id, REFUNDED, [AMOUNT, 0n]);
    },
  },
  {
    name: "answers-of-the-payee",
    says: "What no rule covers is answered by the payee itself, in time.",
    local: true,
    run: async (subject) => {
      const one = await filed(subject, OTHER);
      await refused("an answer by the owner", one.module.answer(one.id, EVIDENCE));
      await past(one, one.id);
      await refused("a late answer", one.module.connect(one.payee.sender).answer(one.id, EVIDENCE));
    },
  },
  {
    name: "obeys-its-arbitrator",
    says: "Ruling 2 refunds the owner and 1 pays the payee, at once; nobody else rules.",
    local: true,
    run: async (subject) => {
      const { bench } = subject;
      for (const [ruling, status, shares] of [
        [FOR_OWNER, REFUNDED, [AMOUNT, 0n]],
        [FOR_PAYEE, PAID, [0n, AMOUNT]],
      ] as const) {
        const before = await bench.provider.send("evm_snapshot", []);
        const one = await escalated(subject);
        await refused("a ruling by the owner", one.module.rule(one.disputeID, ruling));
        await one.module.connect(one.arbitrator).rule(one.disputeID, ruling);
        await expectEnd(one, one.id, status, [...shares]);
        await bench.provider.send("evm_revert", [before]);
      }
    },
  },
  {
    name: "outlives-its-arbitrator",
    says: "An arbitrator that never rules leaves the answer standing: the payee is paid after the deadline, by anyone's call.",
    local: true,
    run: async (subject) => {
      const one = await escalated(subject);
      const anyone = one.module.connect(await one.stage.bench.as(randomAddress()));
      await refused("an end before the deadline", anyone.resolve(one.id));
      await past(one, one.id);
      await anyone.resolve(one.id);
      await expectEnd(one, one.id, PAID, [0n, AMOUNT]);
      await refused("a ruling after the end", one.module.connect(one.arbitrator).rule(one.disputeID, FOR_OWNER));
    },
  },
];
