import { BursarError, type Hex } from "@bursar/protocol";
import { Contract, ContractFactory } from "ethers";

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
      circuits[circuitOf(name)] = (await new Contract(address, abi, provider).getFunction("circuitId")()) as Hex;
    }
    deployment.circuits = circuits;
    save();
  },
};

/** `DefaultBatchVerifier` and `DefaultCeremonyBatchVerifier` verify the circuit `default`. */
export function circuitOf(verifier: string): string {
  return verifier.replace(/(Ceremony)?BatchVerifier$/, "").toLowerCase();
}
