import { BursarError, type Address, type Hex } from "@bursar/protocol";
import { Contract, ContractFactory, isError } from "ethers";

import { readArtifact } from "./artifact.ts";
import { ensureContract, type Step } from "./context.ts";

/** One verifier for each circuit; a development key refuses every chain that is not local. */
export const verifiers: Step = {
  title: "Verifiers",
  async run(context) {
    const { settings, signer, provider, deployment, save } = context;
    if (settings.verifiers.length === 0) {
      throw new BursarError(
        "key-missing",
        "No verifier is named.",
        {},
        "Name the ceremony's verifiers in BURSAR_VERIFIERS.",
      );
    }
    const circuits: Record<string, Hex> = {};
    for (const name of settings.verifiers) {
      const { abi, bytecode } = readArtifact(`verifiers/${name}`);
      const address = await ensureContract(context, name, new ContractFactory(abi, bytecode, signer), []);
      circuits[circuitOf(name)] = await circuitIdAt(name, address, new Contract(address, abi, provider));
    }
    deployment.circuits = circuits;
    save();
  },
};

/** `DefaultBatchVerifier` and `DefaultCeremonyBatchVerifier` verify the circuit `default`. */
export function circuitOf(verifier: string): string {
  return verifier.replace(/(Ceremony)?BatchVerifier$/, "").toLowerCase();
}

/** @throws BursarError `wrong-contract` when no verifier stands at the address. */
async function circuitIdAt(name: string, address: Address, verifier: Contract): Promise<Hex> {
  try {
    return (await verifier.getFunction("circuitId")()) as Hex;
  } catch (error) {
    if (!isError(error, "CALL_EXCEPTION") && !isError(error, "BAD_DATA")) throw error;
    throw new BursarError(
      "wrong-contract",
      `${name} is recorded at ${address}, where no verifier stands.`,
      { value: address, limit: name },
      "Correct the record below deployments/, or remove it to deploy anew.",
    );
  }
}
