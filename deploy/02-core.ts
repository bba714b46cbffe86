import { BursarError, type Address } from "@bursar/protocol";
import { getCreateAddress, toBeHex } from "ethers";

import {
  Bursar__factory,
  IIdentityGate__factory,
  OpenGate__factory,
  Trust__factory,
} from "../typechain-types/index.ts";
import { inclusionOf } from "./01-verifiers.ts";
import { ensureContract, initCodeHashOf, type Context, type Step } from "./context.ts";

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
    const trustArgs = (bursar: Address): unknown[] => [bursar, addresses(settings.verifiers.map(inclusionOf))];
    const bursarArgs = (trust: Address): unknown[] => [settings.windows, addresses(settings.verifiers), trust, gate];
    const meant = await bursarAddressOf(context, trustArgs, bursarArgs);
    const trust = await ensureContract(context, "Trust", new Trust__factory(signer), trustArgs(meant));
    const address = await ensureContract(context, "Bursar", new Bursar__factory(signer), bursarArgs(trust));
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
async function bursarAddressOf(
  { deployment, provider, signer }: Context,
  trustArgs: (bursar: Address) => unknown[],
  bursarArgs: (trust: Address) => unknown[],
): Promise<Address> {
  const from = await signer.getAddress();
  const { Trust: trust, Bursar: bursar } = deployment.contracts;
  const sent = await provider.getTransactionCount(from, "pending");
  if (trust) {
    const address = getCreateAddress({ from, nonce: trust.nonce + 1 }) as Address;
    const sameTrust = trust.initCodeHash === (await initCodeHashOf(new Trust__factory(signer), trustArgs(address)));
    const sameCore =
      bursar?.initCodeHash === (await initCodeHashOf(new Bursar__factory(signer), bursarArgs(trust.address)));
    // A Trust whose core was never sent is of use only while the next nonce is the core's.
    const stands = sameCore && bursar.nonce === trust.nonce + 1;
    if (sameTrust && (stands || sent === trust.nonce + 1)) return address;
  }
  return getCreateAddress({ from, nonce: sent + 1 }) as Address;
}
