import { parseArgs } from "node:util";

import { BursarError, bytes32Schema, parseAddress, parseWire, type Hex } from "@bursar/protocol";
import { connect, deploymentPath, readDeployment } from "@bursar/relayer";
import { Wallet } from "ethers";

import { Bench, ROLES, type Details, type Outcome, type Role } from "./conformance/index.ts";

const USAGE = `usage: npm run conformance -- --role <role> --address <0x…> [options]

Runs what a role asks of every implementation against a deployed contract. Roles: ${Object.keys(ROLES).join(", ")}.
On a local chain (npx hardhat node, anvil) it also sends transactions, and puts everything back; on any other chain it
only asks, and says what it could not test.

  --rpc-url <url>          JSON-RPC of the chain (http://127.0.0.1:8545)
  --registry <0x…>         identity, reputation: the MandateRegistry; else the recorded deployment's
  --admitted <0x…>         identity: an account that may do business; may be repeated
  --refused <0x…>          identity: an account that may not; may be repeated
  BURSAR_SIGNER_KEY        wallet: the private key of its signer, from the environment
  --wallet-name <text>     wallet: name of its own EIP-712 domain (KeyWallet)
  --wallet-version <text>  wallet: version of that domain (1)
  --digest <0x…>           wallet: instead of a key, a message …
  --signature <0x…>        … and a signature that the wallet takes for it
  --json                   print the outcomes as JSON
  --help

Exit codes: 0 nothing failed, 1 something failed, 2 wrong usage or no chain. Roles and requirements: docs/roles.md.`;

const SYMBOLS = { pass: "✔", fail: "✘", skip: "–" } as const;

const values = readArguments();
if (values.help) console.log(USAGE);
else await main().catch(refuse);

async function main(): Promise<void> {
  const { role, address } = values;
  if (role === undefined || !Object.hasOwn(ROLES, role) || address === undefined) {
    wrongUsage();
    return;
  }
  const details = detailsOf();
  const { provider, chainId } = await connect(values["rpc-url"]);
  try {
    const registry = details.registry ?? readDeployment(deploymentPath("deployments", chainId))?.registry;
    const bench = await Bench.open(provider);
    const outcomes = await ROLES[role as Role](bench, parseAddress(address), { ...details, registry });
    print(role, address, outcomes);
    process.exitCode = outcomes.some(({ result }) => result === "fail") ? 1 : 0;
  } finally {
    provider.destroy();
  }
}

function detailsOf(): Details {
  const { registry, admitted = [], refused = [], digest, signature } = values;
  const key = process.env["BURSAR_SIGNER_KEY"];
  if ((digest === undefined) !== (signature === undefined)) {
    throw new BursarError("malformed-input", "--digest and --signature come together.", {});
  }
  return {
    registry: registry === undefined ? undefined : parseAddress(registry),
    admitted: admitted.map(parseAddress),
    refused: refused.map(parseAddress),
    key: key === undefined ? undefined : new Wallet(key),
    name: values["wallet-name"],
    version: values["wallet-version"],
    sample:
      digest === undefined ? undefined : { digest: parseWire(bytes32Schema, digest), signature: signature as Hex },
  };
}

function print(role: string, address: string, outcomes: readonly Outcome[]): void {
  const counts = { pass: 0, fail: 0, skip: 0 };
  for (const { result } of outcomes) ++counts[result];
  if (values.json) {
    console.log(JSON.stringify({ role, address, ...counts, outcomes }, null, 2));
    return;
  }
  console.log(`${role} at ${address}`);
  for (const { requirement, says, result, reason } of outcomes) {
    console.log(`${SYMBOLS[result]} ${requirement.padEnd(24)} ${says}`);
    if (reason !== undefined) console.log(`  ${result === "skip" ? "not tested" : "failed"}: ${reason}`);
  }
  console.log(`${counts.pass} kept, ${counts.fail} broken, ${counts.skip} not tested`);
}

function readArguments() {
  try {
    return parseArgs({
      options: {
        role: { type: "string" },
        address: { type: "string" },
        "rpc-url": { type: "string", default: "http://127.0.0.1:8545" },
        registry: { type: "string" },
        admitted: { type: "string", multiple: true },
        refused: { type: "string", multiple: true },
        "wallet-name": { type: "string" },
        "wallet-version": { type: "string" },
        digest: { type: "string" },
        signature: { type: "string" },
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    }).values;
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    process.exit(2);
  }
}

function wrongUsage(): void {
  console.error(USAGE);
  process.exitCode = 2;
}

function refuse(error: unknown): void {
  if (!(error instanceof BursarError)) throw error;
  const { code, message, details, advice } = error;
  if (values.json) console.log(JSON.stringify({ code, message, details, advice }));
  else console.error([`${code}: ${message}`, advice ?? ""].join(" ").trim());
  process.exitCode = 2;
}
