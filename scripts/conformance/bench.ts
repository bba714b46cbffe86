import { type Address, type Hex } from "@bursar/protocol";
import {
  AbiCoder,
  AbstractSigner,
  concat,
  hexlify,
  Interface,
  randomBytes,
  toBeHex,
  Wallet,
  type Provider,
  type TransactionRequest,
  type TransactionResponse,
} from "ethers";

import { Question__factory } from "../../typechain-types/index.ts";

/** A provider whose node takes any request: ethers' JSON-RPC provider, or Hardhat's in a test. */
export type NodeProvider = Provider & { send(method: string, params: unknown[]): Promise<unknown> };

/** A requirement that the contract does not keep. */
export class Unmet extends Error {}

/** A requirement that cannot be looked at: an option is missing, or the chain is not a local one. */
export class Untested extends Error {}

export interface Outcome {
  readonly requirement: string;
  readonly says: string;
  readonly result: "pass" | "fail" | "skip";
  /** Why it failed, or was not tested. */
  readonly reason?: string;
}

/** One thing that a role asks of every implementation. */
export interface Requirement<Subject> {
  readonly name: string;
  readonly says: string;
  /** Sends transactions, moves the clock: only on a local chain, which is put back after. */
  readonly local?: true;
  /** @throws {@link Unmet} with what was seen, or {@link Untested}. */
  readonly run: (subject: Subject) => Promise<void>;
}

/** What a contract answers to a static call, as the core asks it. */
export interface Answer {
  readonly answered: boolean;
  readonly length: bigint;
  readonly word: bigint;
  readonly gasUsed: bigint;
}

/** Sends from an address without its key, as a local node lets one do. */
export class Impersonated extends AbstractSigner<NodeProvider> {
  readonly address: Address;

  constructor(address: Address, provider: NodeProvider) {
    super(provider);
    this.address = address;
  }

  getAddress(): Promise<string> {
    return Promise.resolve(this.address);
  }

  connect(): never {
    throw new Error("it stays where it is");
  }

  override async sendTransaction(transaction: TransactionRequest): Promise<TransactionResponse> {
    const { to, data = "0x", value = 0n } = transaction;
    const from = this.address;
    // A contract that refuses says so here, on whichever node.
    await this.provider.estimateGas({ from, to: to ?? null, data, value });
    const sent = { from, to, data, value: toQuantity(BigInt(value ?? 0n)), gas: toQuantity(GAS) };
    const hash = (await this.provider.send("eth_sendTransaction", [sent])) as string;
    await this.provider.waitForTransaction(hash, 1, 60_000);
    return (await this.provider.getTransaction(hash))!;
  }

  signTransaction = notSigned;
  signMessage = notSigned;
  signTypedData = notSigned;
}

/** An account with its key, which also sends. */
export interface Person {
  readonly key: Wallet;
  readonly address: Address;
  readonly sender: Impersonated;
}

/** Gas of each transaction: enough for a proof, and for a contract that is given a limit of its own. */
const GAS = 8_000_000n;
const RICH = toQuantity(10n ** 21n);

/** A node, and what the suites do with it. */
export class Bench {
  readonly provider: NodeProvider;
  readonly chainId: bigint;
  /** Whether the node lets anybody be impersonated and its state be put back. */
  readonly local: boolean;

  private constructor(provider: NodeProvider, chainId: bigint, local: boolean) {
    this.provider = provider;
    this.chainId = chainId;
    this.local = local;
  }

  static async open(provider: NodeProvider): Promise<Bench> {
    const { chainId } = await provider.getNetwork();
    const local = await provider.send("hardhat_impersonateAccount", [randomAddress()]).then(
      () => true,
      () => false,
    );
    return new Bench(provider, chainId, local);
  }

  /** Runs each requirement on its own; whatever it did to a local chain is undone. */
  async judge<Subject>(requirements: readonly Requirement<Subject>[], subject: Subject): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    for (const { name, says, local, run } of requirements) {
      const outcome = { requirement: name, says };
      if (local && !this.local) {
        outcomes.push({ ...outcome, result: "skip", reason: "needs a local chain, such as `npx hardhat node`" });
        continue;
      }
      if (outcomes.some((one) => one.requirement === DEPLOYED.name && one.result === "fail")) {
        outcomes.push({ ...outcome, result: "skip", reason: "there is no contract" });
        continue;
      }
      const snapshot = this.local ? await this.provider.send("evm_snapshot", []) : null;
      try {
        await run(subject);
        outcomes.push({ ...outcome, result: "pass" });
      } catch (error) {
        const result = error instanceof Untested ? "skip" : "fail";
        outcomes.push({ ...outcome, result, reason: reasonOf(error) });
      } finally {
        if (snapshot !== null) await this.provider.send("evm_revert", [snapshot]);
      }
    }
    return outcomes;
  }

  /** Asks by static call with this much gas, without deploying anything. */
  async ask(target: Address, data: string, gas: bigint): Promise<Answer> {
    const coder = AbiCoder.defaultAbiCoder();
    const question = concat([
      Question__factory.bytecode,
      coder.encode(["address", "uint256", "bytes"], [target, gas, data]),
    ]);
    const answer = await this.provider.call({ data: question });
    const [answered, length, word, gasUsed] = coder
      .decode(["uint256", "uint256", "uint256", "uint256"], answer)
      .toArray() as [bigint, bigint, bigint, bigint];
    return { answered: answered === 1n, length, word, gasUsed };
  }

  async time(): Promise<bigint> {
    return BigInt((await this.provider.getBlock("latest"))!.timestamp);
  }

  async elapse(seconds: bigint): Promise<void> {
    await this.provider.send("evm_increaseTime", [Number(seconds)]);
    await this.provider.send("evm_mine", []);
  }

  /** Whoever it is, with money for gas. */
  async as(address: Address): Promise<Impersonated> {
    await this.provider.send("hardhat_impersonateAccount", [address]);
    await this.provider.send("hardhat_setBalance", [address, RICH]);
    return new Impersonated(address, this.provider);
  }

  async person(): Promise<Person> {
    const key = new Wallet(hexlify(randomBytes(32)));
    const address = key.address as Address;
    return { key, address, sender: this.local ? await this.as(address) : new Impersonated(address, this.provider) };
  }
}

/** The requirement of each role that there is a contract at all. */
export const DEPLOYED: Requirement<{ bench: Bench; address: Address }> = {
  name: "deployed",
  says: "There is a contract at the address.",
  run: async ({ bench, address }) => require((await bench.provider.getCode(address)) !== "0x", `no code at ${address}`),
};

/** The requirement of ERC-165 for a role with these interfaces. */
export function interfaces(ids: Readonly<Record<string, string>>): Requirement<{ bench: Bench; address: Address }> {
  const named = { IERC165: "0x01ffc9a7", ...ids };
  return {
    name: "interfaces",
    says: `It says by ERC-165, with 30,000 gas each, that it has ${Object.keys(named).join(", ")}, and not 0xffffffff.`,
    run: async ({ bench, address }) => {
      const abi = new Interface(["function supportsInterface(bytes4) view returns (bool)"]);
      for (const [name, id] of [...Object.entries(named), ["0xffffffff", "0xffffffff"] as const]) {
        const data = abi.encodeFunctionData("supportsInterface", [id]);
        const { answered, length, word } = await bench.ask(address, data, 30_000n);
        const wanted = id === "0xffffffff" ? 0n : 1n;
        const said = answered && length === 32n ? String(word) : "nothing";
        require(said === String(wanted), `supportsInterface of ${name} (${id}) says ${said}, not ${wanted}`);
      }
    },
  };
}

/** @throws {@link Unmet} unless it holds. */
export function require(holds: boolean, otherwise: string): void {
  if (!holds) throw new Unmet(otherwise);
}

/** @throws {@link Unmet} unless both are the same. */
export function same(what: string, value: unknown, wanted: unknown): void {
  require(String(value) === String(wanted), `${what} is ${String(value)}, not ${String(wanted)}`);
}

/** @throws {@link Unmet} if the contract takes it. */
export async function refused(what: string, attempt: Promise<unknown>): Promise<void> {
  const taken = await attempt.then(
    () => true,
    (error: unknown) => {
      if ((error as { code?: unknown }).code === "CALL_EXCEPTION" || /revert/.test(String(error))) return false;
      throw error;
    },
  );
  require(!taken, `${what} was not refused`);
}

export const randomAddress = (): Address => Wallet.createRandom().address as Address;

/** The XOR of the selectors of an interface's own functions. */
export function interfaceIdOf(selectors: readonly string[]): Hex {
  return toBeHex(
    selectors.reduce((sum, selector) => sum ^ BigInt(selector), 0n),
    4,
  ) as Hex;
}

function toQuantity(value: bigint): string {
  return `0x${value.toString(16)}`;
}

function notSigned(): never {
  throw new Error("an impersonated account has no key");
}

function reasonOf(error: unknown): string {
  const { shortMessage, message } = error as { shortMessage?: string; message: string };
  const { revert } = error as { revert?: { name: string; args: unknown[] } | null };
  if (revert) return `reverted with ${revert.name}(${revert.args.map(String).join(", ")})`;
  return shortMessage ?? message;
}
