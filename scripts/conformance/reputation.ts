import type { Address } from "@bursar/protocol";
import { ZeroHash, type AbstractSigner } from "ethers";

import { IReputation__factory, type IReputation } from "../../typechain-types/index.ts";
import {
  DEPLOYED,
  interfaceIdOf,
  interfaces,
  randomAddress,
  refused,
  same,
  Untested,
  type Bench,
  type Requirement,
} from "./bench.ts";
import { Stage, type Actor, type SignedPurchase } from "./stage.ts";

export interface ReputationSubject {
  readonly bench: Bench;
  readonly address: Address;
  /** The registry whose payments count. */
  readonly registry?: Address | undefined;
}

const abi = IReputation__factory.createInterface();

interface Scene {
  stage: Stage;
  actor: Actor;
  payee: Address;
  /** The contract, as the owner calls it. */
  reputation: IReputation;
}

async function scene({ bench, address, registry }: ReputationSubject): Promise<Scene> {
  if (registry === undefined) throw new Untested("no --registry is given");
  const stage = await Stage.set(bench, registry);
  const reputation = IReputation__factory.connect(address, stage.owner.sender);
  return { stage, actor: await stage.open(), payee: randomAddress(), reputation };
}

const asPayment = ({ payment, receipt, agentSignature, processorSignature }: SignedPurchase) => ({
  ...payment,
  agent: receipt.agent,
  settleBy: receipt.settleBy,
  logIndex: receipt.logIndex,
  agentSignature,
  processorSignature,
  payees: [],
});

const rate = (reputation: IReputation, purchase: SignedPurchase, value: bigint, tag = "", by?: AbstractSigner) =>
  (by ? reputation.connect(by) : reputation).rate(asPayment(purchase), value, tag, "", "", ZeroHash);

/** Count and mean, in whole values. */
async function expectSummary(
  reputation: IReputation,
  payee: Address,
  clients: Address[],
  tag: string,
  [count, mean]: [bigint, bigint],
): Promise<void> {
  const [said, value, decimals] = await reputation.getSummary(BigInt(payee), clients, tag, "");
  same(`the count of getSummary(${clients.join(" ")}, "${tag}")`, said, count);
  if (count > 0n) same(`the mean of getSummary(${clients.join(" ")}, "${tag}")`, value / 10n ** decimals, mean);
}

const names = [
  "rate",
  "revokeFeedback",
  "getSummary",
  "readFeedback",
  "getClients",
  "getLastIndex",
  "isRated",
] as const;

/** What every `IReputation` has to keep. */
export const REPUTATION: readonly Requirement<ReputationSubject>[] = [
  DEPLOYED,
  interfaces({ IReputation: interfaceIdOf(names.map((name) => abi.getFunction(name as "rate").selector)) }),
  {
    name: "empty-at-first",
    says: "Of a payee that nobody rated it says nothing: no client, no word, a count of 0.",
    run: async ({ bench, address }) => {
      const reputation = IReputation__factory.connect(address, bench.provider);
      const payee = randomAddress();
      same("getClients", [...(await reputation.getClients(BigInt(payee)))].length, 0);
      same("getLastIndex", await reputation.getLastIndex(BigInt(payee), randomAddress()), 0n);
      await expectSummary(reputation, payee, [], "", [0n, 0n]);
    },
  },
  {
    name: "takes-paid-words",
    says: "The owner rates the payee of a settled payment; the word is readable at index 1 as the owner's.",
    local: true,
    run: async (subject) => {
      const { stage, actor, payee, reputation } = await scene(subject);
      await rate(reputation, await stage.pay(actor, payee), 80n, "starred");
      const [value, decimals, tag1, tag2, revoked] = await reputation.readFeedback(
        BigInt(payee),
        stage.owner.address,
        1n,
      );
      same("the word", [value / 10n ** decimals, tag1, tag2, revoked].join(" "), "80 starred  false");
      same("getClients", [...(await reputation.getClients(BigInt(payee)))].join(" "), stage.owner.address);
      same("getLastIndex", await reputation.getLastIndex(BigInt(payee), stage.owner.address), 1n);
    },
  },
  {
    name: "speaks-for-the-owner",
    says: "The agent may rate, and what it says is its owner's word.",
    local: true,
    run: async (subject) => {
      const { stage, actor, payee, reputation } = await scene(subject);
      await rate(reputation, await stage.pay(actor, payee), 70n, "", actor.agent.sender);
      same("getLastIndex", await reputation.getLastIndex(BigInt(payee), stage.owner.address), 1n);
    },
  },
  {
    name: "buyers-only",
    says: "Nobody else rates: not the payee, the processor or a stranger.",
    local: true,
    run: async (subject) => {
      const { stage, actor, payee, reputation } = await scene(subject);
      const purchase = await stage.pay(actor, payee);
      for (const account of [payee, stage.processor.address, randomAddress()])
        await refused(`a word of ${account}`, rate(reputation, purchase, 100n, "", await stage.bench.as(account)));
    },
  },
  {
    name: "settled-only",
    says: "A payment is not rated before it is settled.",
    local: true,
    run: async (subject) => {
      const { stage, actor, payee, reputation } = await scene(subject);
      await refused(
        "a word of a payment that is not settled",
        rate(reputation, await stage.sign(actor, payee, 5n), 1n),
      );
    },
  },
  {
    name: "signed-only",
    says: "A payment needs the agent's signature and its processor's receipt, over that payee.",
    local: true,
    run: async (subject) => {
      const { stage, actor, payee, reputation } = await scene(subject);
      const good = await stage.pay(actor, payee);
      const { payment, receipt, agentSignature, processorSignature } = good;
      const line = { ...payment.line, payee: randomAddress() };
      for (const [what, forged] of [
        ["another payee", { ...good, payment: { ...payment, line }, receipt: { ...receipt, payee: line.payee } }],
        ["the agent's signature twice", { ...good, processorSignature: agentSignature }],
        ["the receipt's signature twice", { ...good, agentSignature: processorSignature }],
      ] as const)
        await refused(`a payment with ${what}`, rate(reputation, forged, 100n));
    },
  },
  {
    name: "one-word-a-payment",
    says: "A payment is rated once, by whichever of the two; isRated says so.",
    local: true,
    run: async (subject) => {
      const { stage, actor, payee, reputation } = await scene(subject);
      const purchase = await stage.pay(actor, payee);
      await rate(reputation, purchase, 80n);
      same("isRated", await reputation.isRated(actor.agent.address, 1n), true);
      await refused("a second word of the owner", rate(reputation, purchase, 90n));
      await refused("a second word by the agent", rate(reputation, purchase, 90n, "", actor.agent.sender));
    },
  },
  {
    name: "true-mean",
    says: "A summary is the mean of the words, by clients and by tags.",
    local: true,
    run: async (subject) => {
      const { stage, actor, payee, reputation } = await scene(subject);
      for (const [value, tag] of [
        [90n, "starred"],
        [30n, "starred"],
        [60n, "uptime"],
      ] as const)
        await rate(reputation, await stage.pay(actor, payee), value, tag);
      await expectSummary(reputation, payee, [], "", [3n, 60n]);
      await expectSummary(reputation, payee, [stage.owner.address], "", [3n, 60n]);
      await expectSummary(reputation, payee, [randomAddress()], "", [0n, 0n]);
      await expectSummary(reputation, payee, [], "uptime", [1n, 60n]);
    },
  },
  {
    name: "takes-back",
    says: "A client alone takes its word back; then it counts no more, and stays readable as revoked.",
    local: true,
    run: async (subject) => {
      const { stage, actor, payee, reputation } = await scene(subject);
      await rate(reputation, await stage.pay(actor, payee), 50n);
      const stranger = reputation.connect(await stage.bench.as(payee));
      await refused("a revocation by the payee", stranger.revokeFeedback(BigInt(payee), 1n));
      await reputation.revokeFeedback(BigInt(payee), 1n);
      const [, , , , revoked] = await reputation.readFeedback(BigInt(payee), stage.owner.address, 1n);
      same("isRevoked", revoked, true);
      await expectSummary(reputation, payee, [], "", [0n, 0n]);
    },
  },
];
