import { existsSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

import { BursarError } from "@bursar/protocol";
import type { InterfaceAbi } from "ethers";

/**
 * A compiled contract of which no typed factory exists in every checkout, such as a generated verifier.
 * @param source - path below `contracts/` without `.sol`; the contract has the file's name, or the one after a `#`.
 * @throws BursarError `key-missing` when it was not built.
 */
export function readArtifact(source: string): { abi: InterfaceAbi; bytecode: string } {
  const [file = source, contract = basename(source)] = source.split("#");
  const path = fileURLToPath(new URL(`../artifacts/contracts/${file}.sol/${contract}.json`, import.meta.url));
  if (!existsSync(path)) {
    throw new BursarError(
      "key-missing",
      `${basename(source)} is not built.`,
      { value: source },
      "Run `npm run build`.",
    );
  }
  return JSON.parse(readFileSync(path, "utf8")) as { abi: InterfaceAbi; bytecode: string };
}
