import { spawnSync } from "node:child_process";

/**
 * The path of a program that a suite runs for real. Where it is missing it is installed from Debian's packages, which
 * takes root; elsewhere the error says what to install.
 */
export function provide(program: "chromium" | "redis-server"): string {
  const found = which(program);
  if (found !== undefined) return found;
  const install = ["apt-get", "install", "-y", "--no-install-recommends", program];
  if (process.getuid?.() === 0 && which("apt-get") !== undefined) {
    for (const command of [["apt-get", "update"], install]) {
      const { status, stderr } = spawnSync(command[0]!, command.slice(1), {
        env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      });
      if (status !== 0) throw new Error(`${command.join(" ")} failed: ${String(stderr)}`);
    }
  }
  const installed = which(program);
  if (installed === undefined) {
    throw new Error(`This suite runs ${program}. Install it first, on Debian with: sudo ${install.join(" ")}`);
  }
  return installed;
}

function which(program: string): string | undefined {
  const { status, stdout } = spawnSync("which", [program]);
  return status === 0 ? String(stdout).trim() : undefined;
}
