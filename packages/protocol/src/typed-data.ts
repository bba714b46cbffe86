import { concat, keccak256, TypedDataEncoder, type Signer, type TypedDataDomain, type TypedDataField } from "ethers";
import type { Domain, Hex, Line, Mandate, Payment, Receipt, Revocation } from "./types.ts";

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
} satisfies Record<string, TypedDataField[]>;

/** The types reachable from each signed message: what a wallet is given. */
const MESSAGE_TYPES = {
  Mandate: { Mandate: TYPES.Mandate },
  Payment: { Payment: TYPES.Payment, Line: TYPES.Line },
  Receipt: { Receipt: TYPES.Receipt },
  Revocation: { Revocation: TYPES.Revocation },
};

const ENCODERS = {
  Mandate: TypedDataEncoder.from(MESSAGE_TYPES.Mandate),
  Payment: TypedDataEncoder.from(MESSAGE_TYPES.Payment),
  Receipt: TypedDataEncoder.from(MESSAGE_TYPES.Receipt),
  Revocation: TypedDataEncoder.from(MESSAGE_TYPES.Revocation),
};
const LINE_ENCODER = TypedDataEncoder.from({ Line: TYPES.Line });

/** The EIP-712 domain of all messages: the MandateRegistry verifies them. */
export function eip712Domain(domain: Domain): TypedDataDomain {
  return { name: "Bursar", version: "1", chainId: domain.chainId, verifyingContract: domain.registry };
}

/** EIP-712 digest of a mandate; the owner and the agent sign it. */
export function hashMandate(domain: Domain, mandate: Mandate): Hex {
  return digest(domain, ENCODERS.Mandate.hash(mandate));
}

/** EIP-712 digest of a payment; the agent signs it. */
export function hashPayment(domain: Domain, payment: Payment): Hex {
  return digest(domain, ENCODERS.Payment.hash(payment));
}

/** EIP-712 digest of a receipt; the processor signs it. */
export function hashReceipt(domain: Domain, receipt: Receipt): Hex {
  return digest(domain, ENCODERS.Receipt.hash(receipt));
}

/** EIP-712 digest of a revocation; the owner signs it. */
export function hashRevocation(domain: Domain, revocation: Revocation): Hex {
  return digest(domain, ENCODERS.Revocation.hash(revocation));
}

/** Struct hash of a line: all of it that a settlement row carries. No domain. */
export function hashLine(line: Line): Hex {
  return LINE_ENCODER.hash(line) as Hex;
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

function digest(domain: Domain, structHash: string): Hex {
  return keccak256(concat(["0x1901", TypedDataEncoder.hashDomain(eip712Domain(domain)), structHash])) as Hex;
}

async function sign(signer: Signer, domain: Domain, type: keyof typeof MESSAGE_TYPES, message: object): Promise<Hex> {
  return (await signer.signTypedData(eip712Domain(domain), MESSAGE_TYPES[type], message)) as Hex;
}
