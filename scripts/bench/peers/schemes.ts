import type { Address } from "@bursar/protocol";
import { id, MaxUint256, Signature, toBeHex, Wallet, type TransactionRequest } from "ethers";

import {
  AuthorizationBatch__factory,
  ConfiguredChannels__factory,
  DebitWallet__factory,
  LeanChannels__factory,
  type AuthorizationBatch,
  type ConfiguredChannels,
  type DebitWallet,
  type LeanChannels,
} from "../../../typechain-types/index.ts";
import { mined, type BenchRail, type Sent } from "../rail.ts";
import { spread, type PairPayment, type Workload } from "./workload.ts";

/** Items of one transaction, at most: below the gas and the bytes that a transaction may have where they are most. */
export const MOST_ITEMS = 200;

/** Enough of every deposit for all counts. */
const DEPOSIT = 1_000_000_000n;
const FOREVER = 2n ** 40n;

/** A way to settle payments that stands beside ours. */
export interface Scheme {
  readonly name: string;
  /** Signed items of one transaction, at most. */
  readonly most: number;
  /** Settles payments for real. */
  readonly settle: (payments: readonly PairPayment[]) => Promise<Sent[]>;
  /** Pays a payee what was settled for it, where settling only credits. */
  readonly payOut?: (payee: number) => Promise<Sent>;
  /** Gas of what must happen before the first payment, in all. */
  readonly setUp: bigint;
}

/** Agents, payees and the contracts of the peers for one workload, on the rail's own node and with its token. */
export class PeerStage {
  readonly schemes: readonly Scheme[];
  readonly #rail: BenchRail;
  readonly #agents: readonly Wallet[];
  readonly #payees: readonly Address[];
  readonly #contracts: Contracts;
  /** Totals signed by pair, and the next nonce of each agent. */
  readonly #totals = new Map<string, bigint>();
  readonly #nonces = new Map<string, bigint>();

  private constructor(rail: BenchRail, agents: readonly Wallet[], payees: readonly Address[], contracts: Contracts) {
    this.#rail = rail;
    this.#agents = agents;
    this.#payees = payees;
    this.#contracts = contracts;
    const { wallet, lean, configured } = contracts;
    const one = (name: string, settle: Scheme["settle"], setUp = 0n): Scheme => {
      return { name, most: 1, settle, setUp };
    };
    const setUp = contracts.setUp;
    const payOut = (contract: DebitWallet | LeanChannels) => async (payee: number) =>
      this.#byFacilitator(await contract.payOut.populateTransaction(this.#payees[payee]!));
    this.schemes = [
      one("ERC-20 transfer", (payments) => inTurn(payments, (payment) => this.#transfer(payment))),
      one("EIP-3009", (payments) => inTurn(payments, (payment) => this.#authorization(payment))),
      {
        name: "EIP-3009, batched",
        most: MOST_ITEMS,
        settle: (payments) => inTurn(chunks(payments), (some) => this.#authorizations(some)),
        setUp: 0n,
      },
      {
        ...one("debit wallet", (payments) => inTurn(payments, (payment) => this.#debits([payment])), setUp.wallet),
        payOut: payOut(wallet),
      },
      {
        name: "debit wallet, batched",
        most: MOST_ITEMS,
        settle: (payments) => inTurn(chunks(payments), (some) => this.#debits(some)),
        payOut: payOut(wallet),
        setUp: setUp.wallet,
      },
      {
        name: "channel vouchers, lean",
        most: MOST_ITEMS,
        settle: (payments) => inTurn(chunks(this.#byPair(payments, "lean")), (some) => this.#claimLean(some)),
        payOut: payOut(lean),
        setUp: setUp.lean,
      },
      {
        name: "channel vouchers, x402's shape",
        most: MOST_ITEMS,
        settle: (payments) => inTurn(chunks(this.#byPair(payments, "configured")), (some) => this.#claim(some)),
        payOut: async (payee) =>
          this.#byFacilitator(await configured.settle.populateTransaction(this.#payees[payee]!, rail.token)),
        setUp: setUp.configured,
      },
    ];
  }

  static async start(rail: BenchRail, workload: Workload): Promise<PeerStage> {
    const agents = Array.from(
      { length: workload.agents },
      (_, i) => new Wallet(id(`bench.peers.${workload.name}.agent.${i}`), rail.provider),
    );
    const payees = payeesOf(workload);
    for (const agent of agents) {
      await rail.provider.send("hardhat_setBalance", [agent.address, toBeHex(10n ** 18n)]);
      await mined(rail.dollar.mint(agent.address, DEPOSIT * BigInt(payees.length * 2 + 10)));
    }
    for (const payee of payees) await mined(rail.dollar.mint(payee, 1n));
    return new PeerStage(rail, agents, payees, await prepare(rail, agents, payees));
  }

  /**
   * One payment of each pair by every scheme that has slots of its own: afterwards nothing is new to the chain.
   * @returns what that first time took, by scheme.
   */
  async warmUp(workload: Workload): Promise<ReadonlyMap<string, bigint>> {
    const first = new Map<string, bigint>();
    const payments = spread(workload, workload.agents * workload.payees);
    for (const { name, settle, most } of this.schemes) if (most > 1) first.set(name, sum(await settle(payments)));
    return first;
  }

  async #byFacilitator(transaction: TransactionRequest): Promise<Sent> {
    const { gasUsed } = await mined(this.#rail.processor.sendTransaction(transaction));
    return { gas: gasUsed, data: String(transaction.data) };
  }

  async #transfer({ agent, payee, amount }: PairPayment): Promise<Sent> {
    const { dollar } = this.#rail;
    const transaction = await dollar.transfer.populateTransaction(this.#payees[payee]!, amount);
    const { gasUsed } = await mined(this.#agents[agent]!.sendTransaction(transaction));
    return { gas: gasUsed, data: transaction.data };
  }

  async #authorization(payment: PairPayment): Promise<Sent> {
    const { from, to, value, validBefore, nonce, v, r, s } = await this.#authorize(payment);
    return this.#byFacilitator(
      await this.#rail.dollar.transferWithAuthorization.populateTransaction(
        from,
        to,
        value,
        0n,
        validBefore,
        nonce,
        v,
        r,
        s,
      ),
    );
  }

  async #authorizations(payments: readonly PairPayment[]): Promise<Sent> {
    const all = await Promise.all(payments.map((payment) => this.#authorize(payment)));
    return this.#byFacilitator(await this.#contracts.authorizations.transfer.populateTransaction(all));
  }

  async #authorize({ agent, payee, amount }: PairPayment) {
    const signer = this.#agents[agent]!;
    const message = {
      from: signer.address,
      to: this.#payees[payee]!,
      value: amount,
      validAfter: 0n,
      validBefore: FOREVER,
      nonce: id(`${this.#next(`3009.${agent}`)}`),
    };
    const { v, r, s } = await signed(signer, this.#contracts.domains.token, TRANSFER, message);
    return { ...message, v, r, s };
  }

  async #debits(payments: readonly PairPayment[]): Promise<Sent> {
    const { wallet, domains } = this.#contracts;
    const debits = await Promise.all(
      payments.map(async ({ agent, payee, amount }) => {
        const owner = this.#agents[agent]!;
        const nonce = this.#next(`debit.${agent}`);
        const debit = { owner: owner.address, payee: this.#payees[payee]!, amount, nonce, deadline: FOREVER };
        const message = { ...debit, ref: id(`${agent}.${nonce}`) };
        const { r, yParityAndS } = await signed(owner, domains.wallet, DEBIT, message);
        return { ...message, r, vs: yParityAndS };
      }),
    );
    return this.#byFacilitator(await wallet.settle.populateTransaction(debits));
  }

  /** The pairs that were paid, payee by payee, their totals raised. */
  #byPair(payments: readonly PairPayment[], scheme: string): Owed[] {
    const owed = new Map<string, Owed>();
    for (const { agent, payee, amount } of payments) {
      const key = `${scheme}.${agent}.${payee}`;
      const total = (this.#totals.get(key) ?? 0n) + amount;
      this.#totals.set(key, total);
      owed.set(key, { agent, payee, total });
    }
    return [...owed.values()].sort((a, b) => a.payee - b.payee);
  }

  async #claimLean(owed: readonly Owed[]): Promise<Sent> {
    const { lean, domains } = this.#contracts;
    const vouchers = await Promise.all(
      owed.map(async ({ agent, payee, total }) => {
        const payer = this.#agents[agent]!;
        const message = { payer: payer.address, payee: this.#payees[payee]!, total };
        const { r, yParityAndS } = await signed(payer, domains.lean, LEAN_VOUCHER, message);
        return { ...message, r, vs: yParityAndS };
      }),
    );
    const claims = [...new Set(vouchers.map(({ payee }) => payee))].map((payee) => ({
      payee,
      vouchers: vouchers.filter((voucher) => voucher.payee === payee),
    }));
    return this.#byFacilitator(await lean.claim.populateTransaction(claims));
  }

  async #claim(owed: readonly Owed[]): Promise<Sent> {
    const { configured, domains } = this.#contracts;
    const redemptions = await Promise.all(
      owed.map(async ({ agent, payee, total }) => {
        const payer = this.#agents[agent]!;
        const terms = termsOf(this.#rail, payer.address as Address, this.#payees[payee]!);
        const channelId = await configured.idOf(terms);
        const { serialized } = await signed(payer, domains.configured, VOUCHER, { channelId, ceiling: total });
        return { terms, ceiling: total, total, signature: serialized };
      }),
    );
    return this.#byFacilitator(await configured.claim.populateTransaction(redemptions));
  }

  #next(of: string): bigint {
    const nonce = this.#nonces.get(of) ?? 0n;
    this.#nonces.set(of, nonce + 1n);
    return nonce;
  }
}

/** A transaction each is the same for every payment but for the zeros in its calldata: so many are measured. */
export const SINGLES = 100;

export const payeesOf = ({ name, payees }: Pick<Workload, "name" | "payees">): Address[] =>
  Array.from({ length: payees }, (_, i) => new Wallet(id(`bench.${name}.payee.${i}`)).address as Address);

export const sum = (sent: readonly Sent[]): bigint => sent.reduce((total, { gas }) => total + gas, 0n);

interface Owed {
  readonly agent: number;
  readonly payee: number;
  readonly total: bigint;
}

interface Domain {
  readonly name: string;
  readonly version: string;
  readonly chainId: bigint;
  readonly verifyingContract: string;
}

interface Contracts {
  readonly authorizations: AuthorizationBatch;
  readonly wallet: DebitWallet;
  readonly lean: LeanChannels;
  readonly configured: ConfiguredChannels;
  readonly domains: Record<"token" | "wallet" | "lean" | "configured", Domain>;
  /** Gas of approvals and deposits: one an agent, or one a channel. */
  readonly setUp: Record<"wallet" | "lean" | "configured", bigint>;
}

async function prepare(rail: BenchRail, agents: readonly Wallet[], payees: readonly Address[]): Promise<Contracts> {
  const authorizations = await new AuthorizationBatch__factory(rail.owner).deploy(rail.token);
  const wallet = await new DebitWallet__factory(rail.owner).deploy(rail.token);
  const lean = await new LeanChannels__factory(rail.owner).deploy(rail.token);
  const configured = await new ConfiguredChannels__factory(rail.owner).deploy();
  const contracts = [wallet, lean, configured];
  const setUp = { wallet: 0n, lean: 0n, configured: 0n };
  let approvals = 0n;
  for (const agent of agents) {
    for (const contract of contracts)
      approvals += (await mined(rail.dollar.connect(agent).approve(contract, MaxUint256))).gasUsed;
    setUp.wallet += (await mined(wallet.connect(agent).deposit(DEPOSIT))).gasUsed;
    for (const payee of payees) {
      const terms = termsOf(rail, agent.address as Address, payee);
      setUp.lean += (await mined(lean.connect(agent).deposit(payee, DEPOSIT))).gasUsed;
      setUp.configured += (await mined(configured.connect(agent).deposit(terms, DEPOSIT))).gasUsed;
    }
  }
  const each = approvals / BigInt(contracts.length);
  const domainOf = async (contract: DebitWallet | LeanChannels | ConfiguredChannels): Promise<Domain> => {
    const { name, version, chainId, verifyingContract } = await contract.eip712Domain();
    return { name, version, chainId, verifyingContract };
  };
  const { name, version } = await rail.dollar.eip712Domain();
  return {
    authorizations,
    wallet,
    lean,
    configured,
    domains: {
      token: { name, version, chainId: 31_337n, verifyingContract: rail.token },
      wallet: await domainOf(wallet),
      lean: await domainOf(lean),
      configured: await domainOf(configured),
    },
    setUp: { wallet: setUp.wallet + each, lean: setUp.lean + each, configured: setUp.configured + each },
  };
}

/** The facilitator signs for every payee, so that it can claim for all of them at once. */
const termsOf = ({ token, processor }: BenchRail, payer: Address, payee: Address) => ({
  payer,
  payerSigner: payer,
  payee,
  payeeSigner: processor.address,
  token,
  withdrawDelay: 86_400n,
  salt: id("bench"),
});

type Types = Record<string, { name: string; type: string }[]>;

const fields = (text: string): { name: string; type: string }[] =>
  text.split(",").map((field) => {
    const [type, name] = field.split(" ");
    return { name: name!, type: type! };
  });

const TRANSFER = {
  TransferWithAuthorization: fields(
    "address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce",
  ),
};
const DEBIT = {
  Debit: fields("address owner,address payee,uint128 amount,uint64 nonce,uint64 deadline,bytes32 ref"),
};
const LEAN_VOUCHER = { Voucher: fields("address payer,address payee,uint128 total") };
const VOUCHER = { Voucher: fields("bytes32 channelId,uint128 ceiling") };

async function signed(signer: Wallet, domain: Domain, types: Types, message: object): Promise<Signature> {
  return Signature.from(await signer.signTypedData(domain, types, message));
}

function chunks<T>(all: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(all.length / MOST_ITEMS) }, (_, i) =>
    all.slice(i * MOST_ITEMS, (i + 1) * MOST_ITEMS),
  );
}

async function inTurn<T>(all: readonly T[], send: (one: T) => Promise<Sent>): Promise<Sent[]> {
  const sent: Sent[] = [];
  for (const one of all) sent.push(await send(one));
  return sent;
}
