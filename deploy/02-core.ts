import { BursarError, type Address } from "@bursar/protocol";
import { getCreateAddress, toBeHex } from "ethers";

import {
  Bursar__factory,
  IIdentityGate__factory,
  OpenGate__factory,
  Trust__factory,
} from "../typechain-types/index.ts";
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
    if (settings.gate) await expectGate(context, settings.gate);
    const gate = settings.gate ?? (await ensureContract(context, "OpenGate", new OpenGate__factory(signer), []));
    const bursarAddress = await bursarAddressOf(context);
    const inclusions = addresses(settings.verifiers.map(inclusionOf));
    const trust = await ensureContract(context, "Trust", new Trust__factory(signer), [bursarAddress, inclusions]);
    const address = await ensureContract(context, "Bursar", new Bursar__factory(signer), [
      settings.windows,
      addresses(settings.verifiers),
      trust,
      gate,
    ]);
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

/** A core asks its gate for ever: one that is none would let nobody open. */
async function expectGate({ provider }: Context, address: Address): Promise<void> {
  const gate = IIdentityGate__factory.connect(address, provider);
  const questions = (["mayOpen", "mayBePaid"] as const).map((name) => gate.interface.getFunction(name).selector);
  const id = toBeHex(BigInt(questions[0]!) ^ BigInt(questions[1]!), 4);
  if (await gate.supportsInterface(id).catch(() => false)) return;
  throw new BursarError(
    "wrong-contract",
    `${address} is no identity gate.`,
    { value: address },
    "Run `npm run conformance -- --role identity --address` with it (docs/roles.md).",
  );
}

/** Where the core stands, or will: one creation of the deployer after its Trust. */
async function bursarAddressOf({ deployment, provider, signer }: Context): Promise<Address> {
  const from = await signer.getAddress();
  const trust = deployment.contracts["Trust"];
  const bursar = deployment.contracts["Bursar"];
  const sent = await provider.getTransactionCount(from, "pending");
  // A Trust whose core was never sent is of use only while the next nonce is the core's.
  if (trust && (sent === trust.nonce + 1 || bursar?.nonce === trust.nonce + 1)) {
    return getCreateAddress({ from, nonce: trust.nonce + 1 }) as Address;
  }
  return getCreateAddress({ from, nonce: sent + 1 }) as Address;
}
