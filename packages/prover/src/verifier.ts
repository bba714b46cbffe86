import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

import type { Hex } from "@bursar/protocol";
import { AbiCoder, keccak256 } from "ethers";
import { zKey, type VerificationKey } from "snarkjs";

import type { BuiltCircuit } from "./build.ts";
import { ROOT, type CircuitSize } from "./circuits.ts";
import { quiet } from "./quiet.ts";

const require = createRequire(import.meta.url);

/** Names a verification key on chain: keccak256 of its words, see docs/spec/encoding.md. */
export function circuitIdOf(key: VerificationKey): Hex {
  const g1 = ([x, y]: string[]): string[] => [x!, y!];
  const g2 = ([x, y]: string[][]): string[] => [x![1]!, x![0]!, y![1]!, y![0]!];
  const words = [
    g1(key.vk_alpha_1),
    g2(key.vk_beta_2),
    g2(key.vk_gamma_2),
    g2(key.vk_delta_2),
    ...key.IC.map(g1),
  ].flat();
  return keccak256(
    AbiCoder.defaultAbiCoder().encode(
      words.map(() => "uint256"),
      words,
    ),
  ) as Hex;
}

/** Contract of a circuit's verifier; a ceremony's never has the name of a development one. */
export function verifierName({ name, template = "Batch" }: CircuitSize, development: boolean): string {
  const [first = ""] = name.split("-");
  const circuit = `${first.slice(0, 1).toUpperCase()}${first.slice(1)}`;
  return `${circuit}${development ? "" : "Ceremony"}${template}Verifier`;
}

export interface VerifierOptions {
  /** Name of the contract. */
  readonly name: string;
  readonly zkey: string;
  readonly verificationKey: VerificationKey;
  /** Whether the key's trapdoor is known: such a verifier works on local chains only. */
  readonly development: boolean;
}

/** Solidity source of a verifier for a key, by the template's interface: snarkjs' verifier inside, GPL-3.0 as that is. */
export async function verifierSource({ name, zkey, verificationKey, development }: VerifierOptions): Promise<string> {
  const template = readFileSync(
    join(dirname(require.resolve("snarkjs")), "../templates/verifier_groth16.sol.ejs"),
    "utf8",
  );
  const kind = name.endsWith("InclusionVerifier") ? "IInclusionVerifier" : "IBatchVerifier";
  const generated = await zKey.exportSolidityVerifier(zkey, { groth16: template }, quiet);
  return [
    [
      "pragma solidity >=0.7.0 <0.9.0;",
      `pragma solidity 0.8.37;\n\nimport {${kind}} from "../interfaces/${kind}.sol";\n`,
    ],
    [
      "contract Groth16Verifier {",
      `${title(name, development)}contract ${name} is ${kind} {\n${members(kind, verificationKey, development)}`,
    ],
    ["function verifyProof(", "function _verifyProof("],
    ["public view returns (bool)", "private view returns (bool)"],
  ].reduce((source, [from, to]) => replaceOnce(source, from!, to!), generated);
}

function title(name: string, development: boolean): string {
  const warning = development
    ? "\n/// @notice DEVELOPMENT KEY: its trapdoor is public, anyone can forge proofs. It refuses every chain that is not local."
    : "";
  return `/// @title ${name}${warning}\n`;
}

function members(kind: string, key: VerificationKey, development: boolean): string {
  const refuse = "        if (block.chainid != 31337 && block.chainid != 1337) revert DevelopmentKey(block.chainid);\n";
  return `    /// @inheritdoc ${kind}
    bytes32 public constant circuitId = ${circuitIdOf(key)};
    /// @inheritdoc ${kind}
    bool public constant isDevelopmentKey = ${development};
${development ? `\n    constructor() {\n${refuse}    }\n` : ""}
    /// @inheritdoc ${kind}
    function verify(uint256[8] calldata proof, uint256[${key.IC.length - 1}] calldata signals) external view returns (bool) {
${development ? refuse : ""}        uint256[2] calldata a;
        uint256[2][2] calldata b;
        uint256[2] calldata c;
        assembly {
            a := proof
            b := add(proof, 64)
            c := add(proof, 192)
        }
        return _verifyProof(a, b, c, signals);
    }
`;
}

/** Generates a circuit's verifier below contracts/verifiers/. @returns the contract's name */
export async function writeVerifier(
  { size, zkey, verificationKey }: BuiltCircuit,
  development: boolean,
): Promise<string> {
  const name = verifierName(size, development);
  const folder = join(ROOT, "contracts", "verifiers");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.sol`), await verifierSource({ name, zkey, verificationKey, development }));
  return name;
}

/** A template that changed is noticed here, not on chain. */
function replaceOnce(source: string, from: string, to: string): string {
  if (source.split(from).length !== 2) throw new Error(`the verifier template does not contain «${from}» once`);
  return source.replace(from, () => to);
}
