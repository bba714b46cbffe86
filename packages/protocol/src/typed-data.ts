import { id, TypedDataEncoder, type Signer, type TypedDataDomain, type TypedDataField } from "ethers";
import { bytesToHex, keccak } from "#curve";
import { hexToBytes, Words } from "./packing.ts";
import type {
  Access,
  Close,
  Delivery,
  Domain,
  Hex,
  Line,
  Mandate,
  Payment,
  Profile,
  Quote,
  Receipt,
  Revocation,
} from "./types.ts";

/** The EIP-712 struct types. `Payment` contains `Line`; the others stand alone. */
export const TYPES = {
  Mandate: [
    { name: "owner", type: "address" },
    { name: "agent", type: "address" },
    { name: "token", type: "address" },
    { name: "budget", type: "uint64" },
    { name: "paymentCap", type: "uint40" },
    { name: "validUntil", type: "uint64" },
    { name: "processor", type: "address" },
    { name: "payees", type: "address[]" },
    { name: "policyRoot", type: "bytes32" },
    { name: "termsHash", type: "bytes32" },
  ],
  Payment: [
    { name: "seq", type: "uint64" },
    { name: "spent", type: "uint64" },
    { name: "head", type: "bytes32" },
    { name: "line", type: "Line" },
  ],
  Line: [
    { name: "payee", type: "address" },
    { name: "amount", type: "uint40" },
    { name: "ref", type: "bytes32" },
  ],
  Receipt: [
    { name: "agent", type: "address" },
    { name: "seq", type: "uint64" },
    { name: "payee", type: "address" },
    { name: "amount", type: "uint40" },
    { name: "ref", type: "bytes32" },
    { name: "head", type: "bytes32" },
    { name: "settleBy", type: "uint64" },
    { name: "logIndex", type: "uint64" },
  ],
  Revocation: [
    { name: "agent", type: "address" },
    { name: "afterSeq", type: "uint64" },
  ],
  Close: [
    { name: "agent", type: "address" },
    { name: "seq", type: "uint64" },
  ],
  Access: [
    { name: "account", type: "address" },
    { name: "expiresAt", type: "uint64" },
  ],
  Profile: [
    { name: "payee", type: "address" },
    { name: "name", type: "string" },
    { name: "host", type: "string" },
    { name: "category", type: "string" },
    { name: "issuedAt", type: "uint64" },
  ],
  Quote: [
    { name: "payee", type: "address" },
    { name: "amount", type: "uint40" },
    { name: "ref", type: "bytes32" },
    { name: "host", type: "string" },
    { name: "category", type: "string" },
    { name: "expiresAt", type: "uint64" },
  ],
  Delivery: [
    { name: "agent", type: "address" },
    { name: "seq", type: "uint64" },
    { name: "ref", type: "bytes32" },
    { name: "bodyHash", type: "bytes32" },
    { name: "deliveredAt", type: "uint64" },
  ],
} satisfies Record<string, TypedDataField[]>;

/** The types reachable from each signed message: what a wallet is given. */
const MESSAGE_TYPES = {
  Mandate: { Mandate: TYPES.Mandate },
  Payment: { Payment: TYPES.Payment, Line: TYPES.Line },
  Receipt: { Receipt: TYPES.Receipt },
  Revocation: { Revocation: TYPES.Revocation },
  Close: { Close: TYPES.Close },
  Access: { Access: TYPES.Access },
  Profile: { Profile: TYPES.Profile },
  Quote: { Quote: TYPES.Quote },
  Delivery: { Delivery: TYPES.Delivery },
};

/** Encoders of the rarer messages; those of the hot path are packed by hand below, checked against these in tests. */
const ENCODERS = {
  Mandate: TypedDataEncoder.from(MESSAGE_TYPES.Mandate),
  Revocation: TypedDataEncoder.from(MESSAGE_TYPES.Revocation),
  Close: TypedDataEncoder.from(MESSAGE_TYPES.Close),
  Access: TypedDataEncoder.from(MESSAGE_TYPES.Access),
  Profile: TypedDataEncoder.from(MESSAGE_TYPES.Profile),
  Quote: TypedDataEncoder.from(MESSAGE_TYPES.Quote),
  Delivery: TypedDataEncoder.from(MESSAGE_TYPES.Delivery),
};

const typeHash = (type: "Payment" | "Line" | "Receipt", types: Record<string, TypedDataField[]>): Uint8Array =>
  hexToBytes(id(TypedDataEncoder.from(types).encodeType(type)) as Hex);
const PAYMENT_TYPE = typeHash("Payment", MESSAGE_TYPES.Payment);
const LINE_TYPE = typeHash("Line", { Line: TYPES.Line });
const RECEIPT_TYPE = typeHash("Receipt", MESSAGE_TYPES.Receipt);

/** The EIP-712 domain of all messages: the MandateRegistry verifies them. */
export function eip712Domain(domain: Domain): TypedDataDomain {
  return { name: "Bursar", version: "1", chainId: domain.chainId, verifyingContract: domain.registry };
}

/** EIP-712 digest of a mandate; the owner and the agent sign it. */
export function hashMandate(domain: Domain, mandate: Mandate): Hex {
  return digest(domain, hexToBytes(ENCODERS.Mandate.hash(mandate) as Hex));
}

/** EIP-712 digest of a payment; the agent signs it. @throws RangeError for a value that is not of its type. */
export function hashPayment(domain: Domain, { seq, spent, head, line }: Payment): Hex {
  const words = new Words(5).word(PAYMENT_TYPE).uint(seq, 64).uint(spent, 64).hex(head, 32).word(lineHash(line));
  return digest(domain, keccak(words.bytes));
}

/** EIP-712 digest of a receipt; the processor signs it. @throws RangeError for a value that is not of its type. */
export function hashReceipt(domain: Domain, receipt: Receipt): Hex {
  const words = new Words(9)
    .word(RECEIPT_TYPE)
    .hex(receipt.agent, 20)
    .uint(receipt.seq, 64)
    .hex(receipt.payee, 20)
    .uint(receipt.amount, 40)
    .hex(receipt.ref, 32)
    .hex(receipt.head, 32)
    .uint(receipt.settleBy, 64)
    .uint(receipt.logIndex, 64);
  return digest(domain, keccak(words.bytes));
}

/** EIP-712 digest of a revocation; the owner signs it. */
export function hashRevocation(domain: Domain, revocation: Revocation): Hex {
  return digest(domain, hexToBytes(ENCODERS.Revocation.hash(revocation) as Hex));
}

/** EIP-712 digest of a close; the owner and the processor sign it. */
export function hashClose(domain: Domain, close: Close): Hex {
  return digest(domain, hexToBytes(ENCODERS.Close.hash(close) as Hex));
}

/** EIP-712 digest of an access; the account signs it. */
export function hashAccess(domain: Domain, access: Access): Hex {
  return digest(domain, hexToBytes(ENCODERS.Access.hash(access) as Hex));
}

/** EIP-712 digest of a profile; the payee signs it. */
export function hashProfile(domain: Domain, profile: Profile): Hex {
  return digest(domain, hexToBytes(ENCODERS.Profile.hash(profile) as Hex));
}

/** EIP-712 digest of a quote; the payee signs it. */
export function hashQuote(domain: Domain, quote: Quote): Hex {
  return digest(domain, hexToBytes(ENCODERS.Quote.hash(quote) as Hex));
}

/** EIP-712 digest of a delivery; the payee signs it. */
export function hashDelivery(domain: Domain, delivery: Delivery): Hex {
  return digest(domain, hexToBytes(ENCODERS.Delivery.hash(delivery) as Hex));
}

/** Struct hash of a line: all of it that a settlement row carries. No domain. */
export function hashLine(line: Line): Hex {
  return bytesToHex(lineHash(line));
}

/** The owner's, or the agent's, signature of a mandate. */
export function signMandate(signer: Signer, domain: Domain, mandate: Mandate): Promise<Hex> {
  return sign(signer, domain, "Mandate", mandate);
}

/** The agent's signature of a payment. */
export function signPayment(signer: Signer, domain: Domain, payment: Payment): Promise<Hex> {
  return sign(signer, domain, "Payment", payment);
}

/** The processor's signature of a receipt. */
export function signReceipt(signer: Signer, domain: Domain, receipt: Receipt): Promise<Hex> {
  return sign(signer, domain, "Receipt", receipt);
}

/** The owner's signature of a revocation. */
export function signRevocation(signer: Signer, domain: Domain, revocation: Revocation): Promise<Hex> {
  return sign(signer, domain, "Revocation", revocation);
}

/** The owner's, or the processor's, signature of a close. */
export function signClose(signer: Signer, domain: Domain, close: Close): Promise<Hex> {
  return sign(signer, domain, "Close", close);
}

/** An account's signature of an access, see `accessHeader`. */
export function signAccess(signer: Signer, domain: Domain, access: Access): Promise<Hex> {
  return sign(signer, domain, "Access", access);
}

/** The payee's signature of its profile. */
export function signProfile(signer: Signer, domain: Domain, profile: Profile): Promise<Hex> {
  return sign(signer, domain, "Profile", profile);
}

/** The payee's signature of a quote. */
export function signQuote(signer: Signer, domain: Domain, quote: Quote): Promise<Hex> {
  return sign(signer, domain, "Quote", quote);
}

/** The payee's signature of a delivery. */
export function signDelivery(signer: Signer, domain: Domain, delivery: Delivery): Promise<Hex> {
  return sign(signer, domain, "Delivery", delivery);
}

function lineHash({ payee, amount, ref }: Line): Uint8Array {
  return keccak(new Words(4).word(LINE_TYPE).hex(payee, 20).uint(amount, 40).hex(ref, 32).bytes);
}

const separators = new WeakMap<Domain, Uint8Array>();

/** The domain separator, computed once a domain. */
function separatorOf(domain: Domain): Uint8Array {
  let separator = separators.get(domain);
  if (separator === undefined) {
    separator = hexToBytes(TypedDataEncoder.hashDomain(eip712Domain(domain)) as Hex);
    separators.set(domain, separator);
  }
  return separator;
}

function digest(domain: Domain, structHash: Uint8Array): Hex {
  const bytes = new Uint8Array(66);
  bytes[0] = 0x19;
  bytes[1] = 0x01;
  bytes.set(separatorOf(domain), 2);
  bytes.set(structHash, 34);
  return bytesToHex(keccak(bytes));
}

async function sign(signer: Signer, domain: Domain, type: keyof typeof MESSAGE_TYPES, message: object): Promise<Hex> {
  return (await signer.signTypedData(eip712Domain(domain), MESSAGE_TYPES[type], message)) as Hex;
}
