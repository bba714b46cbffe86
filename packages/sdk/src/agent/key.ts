import {
  accessHeader,
  BursarError,
  eip712Domain,
  parseAddress,
  TYPES,
  type Access,
  type Address,
  type Domain,
  type Hex,
  type Mandate,
  type Payment,
} from "@bursar/protocol";
import {
  concat,
  decryptKeystoreJson,
  encryptKeystoreJson,
  hexlify,
  isHexString,
  keccak256,
  randomBytes,
  toUtf8Bytes,
  Wallet,
  type TypedDataDomain,
  type TypedDataField,
} from "ethers";

/** The agent's session key: an ethers `Wallet`, or any signer of EIP-712 messages with an address of its own. */
export interface AgentKey {
  readonly address: string;
  signTypedData(
    domain: TypedDataDomain,
    types: Record<string, TypedDataField[]>,
    message: Record<string, unknown>,
  ): Promise<string>;
  /**
   * 32 bytes that nobody else knows, behind the salts of the ledger's pages. Needed of a signer that does not sign the
   * same message the same way twice; the others' follows from the key.
   */
  readonly secret?: Hex;
}

/** A key in memory. */
export type SessionKey = AgentKey & { readonly privateKey: string };

/** A fresh key in memory: one key for each mandate. */
export function freshKey(): SessionKey {
  return new Wallet(hexlify(randomBytes(32)));
}

/** A key as encrypted text (Web3 Secret Storage, version 3), to be kept in a file or a browser's storage. */
export function sealKey(key: SessionKey, password: string, { work = 131_072 } = {}): Promise<string> {
  const { address, privateKey } = key;
  return encryptKeystoreJson({ address, privateKey }, password, { scrypt: { N: work } });
}

/** The key in what {@link sealKey} gave. @throws BursarError `key-corrupt` when text and password do not fit. */
export async function openKey(sealed: string, password: string): Promise<SessionKey> {
  try {
    return new Wallet((await decryptKeystoreJson(sealed, password)).privateKey);
  } catch {
    throw new BursarError(
      "key-corrupt",
      "The sealed key cannot be opened.",
      {},
      "Check the password; if the text is damaged, restore it from a backup.",
    );
  }
}

/** @throws BursarError `malformed-input` */
export function addressOf(key: Pick<AgentKey, "address">): Address {
  return parseAddress(key.address);
}

export function signPayment(key: AgentKey, domain: Domain, payment: Payment): Promise<Hex> {
  return sign(key, domain, { Payment: TYPES.Payment, Line: TYPES.Line }, payment);
}

export function signMandate(
  key: Pick<AgentKey, "signTypedData">,
  domain: Domain,
  { payees, ...rest }: Mandate,
): Promise<Hex> {
  return sign(key, domain, { Mandate: TYPES.Mandate }, { ...rest, payees: [...payees] });
}

/** Seconds for which an access is signed. */
const ACCESS = 3_600n;

/** An `Authorization` header that shows who asks, good for an hour. */
export async function newAccess(
  key: AgentKey,
  domain: Domain,
  now: bigint,
): Promise<{ header: string; expiresAt: bigint }> {
  const access: Access = { account: addressOf(key), expiresAt: now + ACCESS };
  const signature = await sign(key, domain, { Access: TYPES.Access }, access);
  return { header: accessHeader(access, signature), expiresAt: access.expiresAt };
}

/**
 * The secret behind the page salts. It follows from the key, so that the key alone restores the agent.
 *
 * @throws BursarError `malformed-input` for a signer without `secret` that signs the same message in two ways.
 */
export async function saltSecret(key: AgentKey, domain: Domain): Promise<Hex> {
  if (key.secret !== undefined) {
    if (isHexString(key.secret, 32)) return key.secret;
    throw new BursarError("malformed-input", "The key's secret is not 32 bytes in hexadecimal.", {});
  }
  if ("privateKey" in key && isHexString(key.privateKey, 32)) {
    return keccak256(concat([toUtf8Bytes("bursar.salt"), key.privateKey])) as Hex;
  }
  const types = { Salt: [{ name: "agent", type: "address" }] };
  const signatures = [
    await sign(key, domain, types, { agent: key.address }),
    await sign(key, domain, types, { agent: key.address }),
  ] as const;
  if (signatures[0] !== signatures[1]) {
    throw new BursarError(
      "malformed-input",
      "The signer does not sign the same message the same way twice, so no secret follows from it.",
      { value: key.address },
      "Give the key a `secret` of 32 random bytes and keep it as carefully as the key.",
    );
  }
  return keccak256(concat([toUtf8Bytes("bursar.salt"), signatures[0]])) as Hex;
}

async function sign(
  key: Pick<AgentKey, "signTypedData">,
  domain: Domain,
  types: Record<string, TypedDataField[]>,
  message: object,
): Promise<Hex> {
  return (await key.signTypedData(eip712Domain(domain), types, { ...message })) as Hex;
}
