import { BursarError, type Address, type Hex } from "@bursar/protocol";
import { Contract, ContractFactory, isError } from "ethers";

import { readArtifact } from "./artifact.ts";
import { ensureContract, type Step } from "./context.ts";

/** Two verifiers for each circuit size, of batches and of challenges; a development key refuses every chain that is not local. */
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
    const ensure = async (name: string): Promise<Hex> => {
      const { abi, bytecode } = readArtifact(`verifiers/${name}`);
      const address = await ensureContract(context, name, new ContractFactory(abi, bytecode, signer), []);
      return circuitIdAt(name, address, new Contract(address, abi, provider));
    };
    const circuits: Record<string, Hex> = {};
    const inclusions: Record<string, Hex> = {};
    for (const name of settings.verifiers) {
      circuits[circuitOf(name)] = await ensure(name);
      inclusions[circuitOf(name)] = await ensure(inclusionOf(name));
    }
    deployment.circuits = circuits;
    deployment.inclusions = inclusions;
    save();
  },
};

/** `DefaultBatchVerifier` and `DefaultCeremonyBatchVerifier` verify the circuit `default`. */
export function circuitOf(verifier: string): string {
  return verifier.replace(/(Ceremony)?BatchVerifier$/, "").toLowerCase();
}

/** The verifier that answers challenges of what batches of this one settled. */
export function inclusionOf(verifier: string): string {
  return verifier.replace(/BatchVerifier$/, "InclusionVerifier");
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
