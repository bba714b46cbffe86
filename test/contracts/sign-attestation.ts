import type { Address } from "@bursar/protocol";
import type { Signer } from "ethers";

export interface Attestation {
  subject: Address;
  issuedAt: bigint;
  expiresAt: bigint;
}

/** An attester's word about an account, for one gate on one chain. */
export async function signAttestation(
  signer: Signer,
  { chainId, gate }: { chainId: bigint; gate: Address },
  attestation: Attestation,
): Promise<string> {
  const types = {
    Attestation: [
      { name: "subject", type: "address" },
      { name: "issuedAt", type: "uint64" },
      { name: "expiresAt", type: "uint64" },
    ],
  };
  const domain = { name: "AttestedGate", version: "1", chainId, verifyingContract: gate };
  return signer.signTypedData(domain, types, attestation);
}
