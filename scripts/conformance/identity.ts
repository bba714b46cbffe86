import type { Address } from "@bursar/protocol";
import { ZeroAddress } from "ethers";

import { IIdentityGate__factory } from "../../typechain-types/index.ts";
import {
  DEPLOYED,
  interfaceIdOf,
  interfaces,
  randomAddress,
  require,
  same,
  Untested,
  type Bench,
  type Requirement,
} from "./bench.ts";

export interface IdentitySubject {
  readonly bench: Bench;
  readonly address: Address;
  /** The registry that asks it, or will. */
  readonly registry?: Address | undefined;
  /** Accounts that it lets do business. */
  readonly admitted: readonly Address[];
  /** Accounts that it does not. */
  readonly refused: readonly Address[];
}

/** What the core gives a gate, see contracts/lib/Gate.sol. */
const GAS = 200_000n;
const PLENTY = 5_000_000n;

const abi = IIdentityGate__factory.createInterface();
const AGENT = randomAddress();
const TOKEN = randomAddress();

const selectorOf = (name: "mayOpen" | "mayBePaid"): string => abi.getFunction(name).selector;

/** Both questions about an account. */
function questions(account: Address): [what: string, data: string][] {
  return [
    [`mayOpen(${account}, …)`, abi.encodeFunctionData("mayOpen", [account, AGENT, TOKEN, 1_000_000n])],
    [`mayBePaid(${account}, …)`, abi.encodeFunctionData("mayBePaid", [account, TOKEN])],
  ];
}

/** Accounts of every kind: known, unknown, none, the gate itself. */
function samples({ address, admitted, refused }: IdentitySubject): Address[] {
  return [...admitted, ...refused, randomAddress(), ZeroAddress as Address, address];
}

async function eachAnswer(
  subject: IdentitySubject,
  check: (what: string, answer: Awaited<ReturnType<Bench["ask"]>>) => void,
): Promise<void> {
  for (const account of samples(subject)) {
    for (const [what, data] of questions(account)) check(what, await subject.bench.ask(subject.address, data, PLENTY));
  }
}

/** @throws {@link Untested} if it answers no static call at all, which is a failure of its own. */
function answered(what: string, holds: boolean): void {
  if (!holds) throw new Untested(`${what} is not answered`);
}

async function expectAnswers(subject: IdentitySubject, accounts: readonly Address[], wanted: bigint): Promise<void> {
  if (accounts.length === 0) throw new Untested(`no --${wanted === 1n ? "admitted" : "refused"} account is given`);
  for (const account of accounts) {
    for (const [what, data] of questions(account)) {
      const answer = await subject.bench.ask(subject.address, data, GAS);
      const yes = answer.answered && answer.length >= 32n && answer.word === 1n;
      same(what, yes ? 1n : 0n, wanted);
    }
  }
}

/** What every `IIdentityGate` has to keep. */
export const IDENTITY: readonly Requirement<IdentitySubject>[] = [
  DEPLOYED,
  interfaces({ IIdentityGate: interfaceIdOf([selectorOf("mayOpen"), selectorOf("mayBePaid")]) }),
  {
    name: "reads-only",
    says: "It answers mayOpen and mayBePaid about any account, by a static call that can write nothing.",
    run: (subject) => eachAnswer(subject, (what, answer) => require(answer.answered, `${what} reverts, or writes`)),
  },
  {
    name: "frugal",
    says: "It answers with the 200,000 gas that it is given.",
    run: (subject) =>
      eachAnswer(subject, (what, answer) => {
        answered(what, answer.answered);
        require(answer.gasUsed <= GAS, `${what} takes ${answer.gasUsed} gas`);
      }),
  },
  {
    name: "plain",
    says: "Each answer is one word, 0 or 1: the core takes everything else for a no.",
    run: (subject) =>
      eachAnswer(subject, (what, { answered: isAnswered, length, word }) => {
        answered(what, isAnswered);
        require(length === 32n && word <= 1n, `${what} answers ${length} bytes, ${word}`);
      }),
  },
  {
    name: "impartial",
    says: "It answers the registry, a processor and anybody else alike: who looks before knows.",
    run: async (subject) => {
      const { bench, address, registry = address } = subject;
      for (const account of samples(subject)) {
        for (const [what, data] of questions(account)) {
          const ask = (from: Address): Promise<string> =>
            bench.provider.call({ from, to: address, data }).catch(() => "a revert");
          const asRegistry = await ask(registry);
          for (const from of [randomAddress(), account]) same(`${what} asked by ${from}`, await ask(from), asRegistry);
        }
      }
    },
  },
  {
    name: "admits",
    says: "The accounts named by --admitted may open and be paid.",
    run: (subject) => expectAnswers(subject, subject.admitted, 1n),
  },
  {
    name: "refuses",
    says: "The accounts named by --refused may neither open nor be paid.",
    run: (subject) => expectAnswers(subject, subject.refused, 0n),
  },
];
