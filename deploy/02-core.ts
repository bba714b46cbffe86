import type { Address } from "@bursar/protocol";
import { getCreateAddress, keccak256 } from "ethers";

import { Bursar__factory, OpenGate__factory, Trust__factory } from "../typechain-types/index.ts";
import { inclusionOf } from "./01-verifiers.ts";
import { ensureContract, type Context, type Step } from "./context.ts";

/**
 * Everything that holds or moves money, in two transactions: what stands behind receipts, made for the address of the
 * core; then the core, which refuses a Trust that is not its own. Bound to each other for ever.
 */
export const core: Step = {
  title: "Core",
  async run(context) {
    const { settings, signer, deployment, save } = context;
    const addresses = (names: readonly string[]): Address[] => names.map((name) => deployment.contracts[name]!.address);
    const gate = settings.gate ?? (await ensureContract(context, "OpenGate", new OpenGate__factory(signer), []));
    const verifiers = addresses(settings.verifiers);
    const factory = new Bursar__factory(signer);
    const bursarAddress = await bursarAddressOf(context, async (trust) => {
      const { data } = await factory.getDeployTransaction(settings.windows, verifiers, trust, gate);
      return keccak256(data);
    });
    const inclusions = addresses(settings.verifiers.map(inclusionOf));
    const trust = await ensureContract(context, "Trust", new Trust__factory(signer), [bursarAddress, inclusions]);
    const address = await ensureContract(context, "Bursar", factory, [settings.windows, verifiers, trust, gate]);
    const bursar = Bursar__factory.connect(address, signer);
    const backing = Trust__factory.connect(trust, signer);
    deployment.escrow = (await bursar.escrow()) as Address;
    deployment.registry = (await bursar.registry()) as Address;
    deployment.settlement = (await bursar.settlement()) as Address;
    deployment.direct = (await bursar.direct()) as Address;
    deployment.processors = (await backing.processors()) as Address;
    deployment.claims = (await backing.claims()) as Address;
    deployment.challenges = (await backing.challenges()) as Address;
    deployment.gate = gate;
    save();
  },
};

/**
 * Where the core stands, or will: one creation of the deployer after its Trust.
 * @param meant - hash of the core's creation code with this Trust.
 */
async function bursarAddressOf(
  { deployment, provider, signer }: Context,
  meant: (trust: Address) => Promise<string>,
): Promise<Address> {
  const from = await signer.getAddress();
  const trust = deployment.contracts["Trust"];
  const bursar = deployment.contracts["Bursar"];
  const sent = await provider.getTransactionCount(from, "pending");
  // A Trust whose core was never sent is of use only while the next nonce is the core's.
  const isRecorded = trust && bursar?.nonce === trust.nonce + 1 && bursar.initCodeHash === (await meant(trust.address));
  if (trust && (sent === trust.nonce + 1 || isRecorded)) {
    return getCreateAddress({ from, nonce: trust.nonce + 1 }) as Address;
  }
  return getCreateAddress({ from, nonce: sent + 1 }) as Address;
}
