import { BursarError, type Address, type Hex } from "@bursar/protocol";
import { getCreateAddress, id, keccak256, type ContractFactory, type Provider, type Signer } from "ethers";

import {
  deploymentPath,
  readDeployment,
  writeDeployment,
  type Deployment,
} from "../packages/relayer/src/deployment.ts";

/** Chains on which development keys are allowed: Hardhat's and the customary private one. */
export const LOCAL_CHAINS: readonly bigint[] = [31_337n, 1_337n];

/** Selector of `DevelopmentKey(uint256)`. */
const DEVELOPMENT_KEY = id("DevelopmentKey(uint256)").slice(0, 10);

export interface Settings {
  /** Names of the verifier contracts to build in, such as `DefaultBatchVerifier`. */
  verifiers: readonly string[];
  /** Seconds; ranges in protocol.md 6. */
  windows: { settleBy: bigint; grace: bigint; acknowledge: bigint; cure: bigint; claim: bigint };
  /** Who is asked before a mandate is opened: an `IIdentityGate`, or nothing for one that lets everyone in. */
  gate?: Address;
  /** Nothing where payments cannot be disputed. */
  disputes?: DisputeSettings;
  /** Tokens to register, by symbol; on a local chain a test dollar is deployed besides. */
  tokens: Readonly<Record<string, Address>>;
}

/** Amounts in the chain's own coin, its smallest part; seconds. */
export interface DisputeSettings {
  /** Who may rule; none named means the deployer. */
  arbiters: readonly Address[];
  fee: bigint;
  /** What an arbiter's bond must have for each dispute that it takes. */
  stake: bigint;
  ruleWithin: bigint;
  /** Ranges in IDisputeModule. */
  deadlines: { deliver: bigint; answer: bigint; escalate: bigint; rule: bigint };
}

export interface Context {
  readonly signer: Signer;
  readonly provider: Provider;
  readonly settings: Settings;
  readonly local: boolean;
  readonly deployment: Deployment;
  /** Keeps `deployment` on disk. */
  readonly save: () => void;
  readonly log: (message: string) => void;
}

export interface Step {
  readonly title: string;
  run(context: Context): Promise<void>;
}

/** Opens the record of the signer's chain, or begins a new one; a restarted local chain begins anew. */
export async function openContext(
  signer: Signer,
  provider: Provider,
  settings: Settings,
  folder: string,
  log: (message: string) => void,
): Promise<Context> {
  const { chainId } = await provider.getNetwork();
  const block = await provider.getBlock(0);
  const genesis = (block?.hash ?? `0x${"0".repeat(64)}`) as Hex;
  const path = deploymentPath(folder, chainId);
  const recorded = readDeployment(path);
  const local = LOCAL_CHAINS.includes(chainId);
  if (recorded && recorded.genesis !== genesis && !local) {
    throw new BursarError("wrong-chain", "The record is of another chain with the same id.", {
      value: genesis,
      limit: recorded.genesis,
    });
  }
  const deployment: Deployment =
    recorded?.genesis === genesis
      ? recorded
      : { chainId, genesis, contracts: {}, circuits: {}, inclusions: {}, tokens: {} };
  return { signer, provider, settings, local, deployment, log, save: () => writeDeployment(path, deployment) };
}

/**
 * The contract `name`, deployed unless the same code with the same arguments stands already. The address follows from
 * the sender's nonce and is recorded before the transaction is sent, so that an interrupted run finds its contract.
 */
export async function ensureContract(
  context: Context,
  name: string,
  factory: ContractFactory,
  args: readonly unknown[],
): Promise<Address> {
  const { signer, provider, deployment, save, log } = context;
  const transaction = await factory.getDeployTransaction(...args);
  const initCodeHash = keccak256(transaction.data) as Hex;
  const recorded = deployment.contracts[name];
  if (recorded?.initCodeHash === initCodeHash && (await stands(context, recorded.address, recorded.nonce))) {
    log(`${name} stands at ${recorded.address}`);
    return recorded.address;
  }
  const from = await signer.getAddress();
  const nonce = await provider.getTransactionCount(from, "pending");
  const address = getCreateAddress({ from, nonce }) as Address;
  await provider.call({ from, data: transaction.data }).catch((error: unknown) => refuse(name, error));
  deployment.contracts[name] = { address, initCodeHash, nonce };
  save();
  const sent = await signer.sendTransaction({ ...transaction, nonce });
  await sent.wait();
  log(`${name} deployed at ${address}`);
  return address;
}

/** Whether the contract is there, waiting for a transaction that an interrupted run left under way. */
async function stands({ provider, signer }: Context, address: Address, nonce: number): Promise<boolean> {
  const from = await signer.getAddress();
  while ((await provider.getCode(address)) === "0x") {
    if ((await provider.getTransactionCount(from, "pending")) <= nonce) return false;
    if ((await provider.getTransactionCount(from, "latest")) > nonce) return (await provider.getCode(address)) !== "0x";
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  return true;
}

/** A constructor that refuses says why: `DevelopmentKey(uint256)` is the one to expect. */
function refuse(name: string, error: unknown): never {
  const data = (error as { data?: unknown }).data;
  const developmentKey = typeof data === "string" && data.startsWith(DEVELOPMENT_KEY);
  if (developmentKey) {
    throw new BursarError(
      "wrong-chain",
      `${name} holds a development key, whose trapdoor is public: it is refused on every chain that is not local.`,
      { value: BigInt(`0x${data.slice(10)}`), limit: LOCAL_CHAINS.join(" ") },
      "Run the ceremony (docs/ceremony.md) and deploy its verifier.",
    );
  }
  throw new BursarError("transaction-failed", `${name} cannot be deployed: ${(error as Error).message}`, {
    value: name,
  });
}
