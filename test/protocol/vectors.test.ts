import { expect } from "chai";
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

function check(folder: string) {
  const args = ["--import", "tsx", "scripts/vectors.ts", "--check", "--folder", folder];
  return spawnSync(process.execPath, args, { cwd: ROOT, encoding: "utf8" });
}

describe("the vectors in test/vectors", () => {
  it("are what scripts/vectors.ts writes", () => {
    const { status, stderr } = check(join(ROOT, "test/vectors"));
    expect(stderr).to.equal("");
    expect(status).to.equal(0);
  }).timeout(60_000);

  it("are reported when one is changed or missing", () => {
    const folder = mkdtempSync(join(tmpdir(), "vectors-"));
    try {
      cpSync(join(ROOT, "test/vectors"), folder, { recursive: true });
      writeFileSync(join(folder, "policy.json"), "{}\n");
      rmSync(join(folder, "terms.json"));
      const { status, stderr } = check(folder);
      expect(status).to.equal(1);
      expect(stderr).to.include("policy.json").and.to.include("terms.json").and.not.to.include("ledger.json");
    } finally {
      rmSync(folder, { recursive: true });
    }
  }).timeout(60_000);
});
