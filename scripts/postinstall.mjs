// npm skips optional packages whose `engines` exclude the Node that npm itself runs on. Hardhat's native
// engine is such a package, so on a machine whose own Node is older than 22 it would be missing. Lifecycle
// scripts run with the pinned Node 24 first on PATH: installing once more from the lock file, under that
// Node, adds what was skipped and changes nothing else.
import { execSync } from "node:child_process";

const run = (command) => execSync(command, { stdio: "inherit" });
const engineLoads = "node --input-type=module -e \"import '@nomicfoundation/edr'\"";

try {
  execSync(engineLoads, { stdio: "ignore" });
} catch {
  run("npm install --ignore-scripts --no-save --no-audit --no-fund");
  run(engineLoads);
}
