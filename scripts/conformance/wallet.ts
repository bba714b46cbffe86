import {
  hashMandate,
  policyRoot,
  headHex,
  signForWallet,
  signMandate,
  type Address,
  type Hex,
  type Mandate,
} from "@bursar/protocol";
import { concat, hexlify, id, randomBytes, toBeHex, Wallet, ZeroHash } from "ethers";

import { IWallet__factory } from "../../typechain-types/index.ts";
import { DEPLOYED, interfaces, randomAddress, require, same, Untested, type Bench, type Requirement } from "./bench.ts";

export interface WalletSubject {
  readonly bench: Bench;
  readonly address: Address;
  /** The wallet's key, if the suite may sign with it. */
  readonly key?: Wallet | undefined;
  /** The wallet's own EIP-712 domain for ERC-7739; a `KeyWallet`'s unless given. */
  readonly name?: string | undefined;
  readonly version?: string | undefined;
  /** Instead of a key: a message and a signature that the wallet takes. */
  readonly sample?: { readonly digest: Hex; readonly signature: Hex } | undefined;
}

const MAGIC = 0x1626ba7en << 224n;
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
/** More than a mandate's opening may cost. */
const GAS = 1_000_000n;

const abi = IWallet__factory.createInterface();

/** Whether the core would take the signature. */
async function takes({ bench, address }: WalletSubject, digest: Hex, signature: string): Promise<boolean> {
  const data = abi.encodeFunctionData("isValidSignature", [digest, signature]);
  const { answered, length, word } = await bench.ask(address, data, GAS);
  return answered && length >= 32n && word === MAGIC;
}

/** A mandate that nobody will open, with its digest, for a wallet. */
function draft({ bench, address }: WalletSubject): {
  mandate: Mandate;
  domain: { chainId: bigint; registry: Address };
  digest: Hex;
} {
  const domain = { chainId: bench.chainId, registry: randomAddress() };
  const mandate: Mandate = {
    owner: address,
    agent: randomAddress(),
    token: randomAddress(),
    budget: 1n,
    paymentCap: 1n,
    validUntil: 1n,
    processor: randomAddress(),
    payees: [],
    policyRoot: headHex(policyRoot([], 1n)),
    termsHash: ZeroHash as Hex,
  };
  return { mandate, domain, digest: hashMandate(domain, mandate) };
}

/** A message and a signature that the wallet must take: the one given, or one by its key. */
async function signed(subject: WalletSubject): Promise<{ digest: Hex; signature: Hex }> {
  if (subject.sample) return subject.sample;
  const { mandate, domain, digest } = draft(subject);
  return { digest, signature: await nested(subject, keyOf(subject), subject.address, domain, mandate) };
}

function nested(
  { name, version }: WalletSubject,
  key: Wallet,
  wallet: Address,
  domain: { chainId: bigint; registry: Address },
  mandate: Mandate,
): Promise<Hex> {
  const own = { wallet, ...(name === undefined ? {} : { name }), ...(version === undefined ? {} : { version }) };
  return signForWallet(key, own, domain, "Mandate", mandate);
}

function keyOf({ key }: WalletSubject): Wallet {
  if (key) return key;
  throw new Untested("no key is given: set BURSAR_SIGNER_KEY");
}

/** @throws {@link Untested} if the wallet does not take the good signature, which is a failure of its own. */
async function accepted(subject: WalletSubject): Promise<{ digest: Hex; signature: Hex }> {
  const good = await signed(subject);
  if (!(await takes(subject, good.digest, good.signature))) throw new Untested("the good signature is not taken");
  return good;
}

/** What every `IWallet` has to keep. */
export const WALLET: readonly Requirement<WalletSubject>[] = [
  DEPLOYED,
  interfaces({ IERC1271: abi.getFunction("isValidSignature").selector, IWallet: abi.getFunction("signer").selector }),
  {
    name: "names-its-signer",
    says: "signer() is the key that signs for it.",
    run: async (subject) => {
      const { bench, address } = subject;
      const key = keyOf(subject);
      same("signer()", await IWallet__factory.connect(address, bench.provider).getFunction("signer")(), key.address);
    },
  },
  {
    name: "signs",
    says: "It takes a signature of its key, by static call and within 1,000,000 gas, with the magic word of ERC-1271.",
    run: async (subject) => {
      const { digest, signature } = await signed(subject);
      require(await takes(subject, digest, signature), "isValidSignature does not answer 0x1626ba7e");
    },
  },
  {
    name: "refuses-garbage",
    says: "It takes no empty, short, zero, random or very long signature.",
    run: async (subject) => {
      const digest = id("garbage") as Hex;
      const samples = [0, 1, 64, 65, 66, 97, 2_000, 20_000].map((length) => hexlify(randomBytes(length)));
      for (const garbage of [...samples, `0x${"00".repeat(65)}`, `0x${"00".repeat(64)}1b`, `0x${"ff".repeat(65)}`])
        require(!(await takes(subject, digest, garbage)), `${garbage.slice(0, 20)}… is taken`);
    },
  },
  {
    name: "binds-the-message",
    says: "It takes a signature for its own message alone.",
    run: async (subject) => {
      const { digest, signature } = await accepted(subject);
      for (const other of [id("other"), ZeroHash, toBeHex(BigInt(digest) ^ 1n, 32)])
        require(!(await takes(subject, other as Hex, signature)), `the signature is taken for ${other} too`);
    },
  },
  {
    name: "one-form",
    says: "It takes one signature for a message: not its mirror image (s in the upper half order), nor v as 0 or 1.",
    run: async (subject) => {
      const { digest, signature } = await accepted(subject);
      const [r, s, v] = [
        signature.slice(0, 66),
        BigInt(`0x${signature.slice(66, 130)}`),
        Number(`0x${signature.slice(130, 132)}`),
      ];
      if (v !== 27 && v !== 28) throw new Untested("the signature does not begin with r, s and v");
      const rest = `0x${signature.slice(132)}`;
      const mirror = concat([r, toBeHex(ORDER - s, 32), toBeHex(55 - v, 1), rest]);
      require(!(await takes(subject, digest, mirror)), "the mirror image is taken");
      const low = concat([r, toBeHex(s, 32), toBeHex(v - 27, 1), rest]);
      require(!(await takes(subject, digest, low)), `v = ${v - 27} is taken`);
    },
  },
  {
    name: "binds-the-key",
    says: "It takes no other key's signature in the same form.",
    run: async (subject) => {
      keyOf(subject);
      const { mandate, domain, digest } = draft(subject);
      const thief = new Wallet(hexlify(randomBytes(32)));
      const signature = await nested(subject, thief, subject.address, domain, mandate);
      require(!(await takes(subject, digest, signature)), "another key's signature is taken");
    },
  },
  {
    name: "binds-the-wallet",
    says: "It takes nothing that its key signed for itself or for another wallet.",
    run: async (subject) => {
      const key = keyOf(subject);
      const { mandate, domain, digest } = draft(subject);
      const own = await signMandate(key, domain, mandate);
      require(!(await takes(subject, digest, own)), "what the key signed for its own account is taken");
      const foreign = await nested(subject, key, randomAddress(), domain, mandate);
      require(!(await takes(subject, digest, foreign)), "what the key signed for another wallet is taken");
    },
  },
];
