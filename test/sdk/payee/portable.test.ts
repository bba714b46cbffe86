import { expect } from "chai";
import { build } from "esbuild";

/** Bundles an entry point as for a runtime without Node's modules; fails where one is reached. */
async function bundled(entry: string): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: `export * from "${entry}";`, resolveDir: import.meta.dirname, loader: "ts" },
    bundle: true,
    platform: "browser",
    format: "esm",
    target: "es2022",
    write: false,
    logLevel: "silent",
  });
  return outputFiles[0]!.text;
}

describe("the payee SDK outside Node", () => {
  for (const entry of ["@bursar/sdk/payee", "@bursar/sdk/payee/hono", "@bursar/sdk/payee/redis"]) {
    it(`needs none of Node's modules in ${entry}`, async () => {
      expect(await bundled(entry)).not.to.contain("node:");
    });
  }

  it("keeps SQLite to its own entry point", async () => {
    const failure: unknown = await bundled("@bursar/sdk/payee/sqlite").catch((error: unknown) => error);
    expect(String(failure)).to.contain("node:sqlite");
  });
});
