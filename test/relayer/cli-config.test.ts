import { readFileSync } from "node:fs";

import { expect } from "chai";

import { main } from "../../packages/relayer/src/cli/main.ts";
import { commonOptions, serviceOptions } from "../../packages/relayer/src/cli/options.ts";

const shown = (value: string | number | string[] = ""): string => [value].flat().join(",");

describe("the configuration of a service", () => {
  interface Setting {
    name: string;
    value?: unknown;
    source: string;
  }

  async function config(...argv: string[]): Promise<{ text: string; settings: Setting[] }> {
    let [text, err] = ["", ""];
    const streams = { out: (line: string) => (text += line), err: (line: string) => (err += line) };
    expect(await main(["--json", ...(argv.includes("config") ? argv : [...argv, "config"])], streams), err).to.equal(0);
    return { text, settings: JSON.parse(text) as Setting[] };
  }

  it("is told in docs/operator.md, each option with its variable and its default", () => {
    const page = readFileSync(new URL("../../docs/operator.md", import.meta.url), "utf8");
    const told = [...page.matchAll(/^\| `(--[a-z-]+)` \| `(BURSAR_[A-Z_]+)` \| (?:`([^`]*)`)? ?\|/gm)];
    const options = [...commonOptions(), ...serviceOptions()];
    expect(told.map(([, flag, variable, value = ""]) => [flag, variable, value])).to.deep.equal(
      options.map((option) => [
        option.long,
        option.envVar,
        shown(option.defaultValue as string | number | string[] | undefined),
      ]),
    );
  });

  it("is shown without what a provider's URL keeps secret", async () => {
    for (const rpc of [
      "https://eth.example/v3/provider-key",
      "https://provider-key@eth.example",
      "https://user:provider-key@eth.example/",
      "https://eth.example/?key=provider-key",
    ]) {
      const { text, settings } = await config("--rpc", rpc);
      expect(text, rpc).not.to.contain("provider-key");
      const { value } = settings.find(({ name }) => name === "rpc")!;
      expect(value).to.equal(`${new URL(rpc).protocol}//eth.example/[hidden]`);
    }
    const several = await config("--rpc", "https://eth.example/v3/provider-key,http://127.0.0.1:8545");
    expect(several.text).not.to.contain("provider-key");
    const nodes = ["https://eth.example/[hidden]", "http://127.0.0.1:8545"];
    expect(several.settings[0]).to.deep.equal({ name: "rpc", value: nodes, source: "cli" });
    const { settings } = await config("--rpc", "http://127.0.0.1:8545");
    expect(settings[0]).to.deep.equal({ name: "rpc", value: "http://127.0.0.1:8545", source: "cli" });
  });

  it("takes nodes with commas or one by one, by http or https", async () => {
    const { settings } = await config("--rpc", "http://a.example,http://b.example", "--rpc", "http://c.example");
    expect(settings[0]!.value).to.deep.equal(["http://a.example", "http://b.example", "http://c.example"]);
    for (const wrong of ["wss://eth.example/provider-key", "provider-key", "http://a.example,provider-key"]) {
      let err = "";
      const said = { out: () => undefined, err: (text: string) => void (err += text) };
      expect(await main(["--rpc", wrong, "config"], said), wrong).to.equal(2);
      expect(err).to.contain("is no http or https URL");
    }
  });

  it("takes rules of finality and amounts of gas money, and nothing else", async () => {
    const { settings } = await config(
      ...["--finality", "safe", "--max-fee-gwei", "0.5", "config"],
      ...["--gas-budget-eth-per-day", "0.25", "--min-balance-eth", "1"],
    );
    const values = Object.fromEntries(settings.map(({ name, value }) => [name, value]));
    expect(values).to.include({
      finality: "safe",
      maxFeeGwei: "0.5",
      gasBudgetEthPerDay: "0.25",
      minBalanceEth: "1",
    });
    for (const wrong of [
      ["--finality", "0"],
      ["--finality", "10001"],
      ["--finality", "latest"],
      ["--max-fee-gwei", "0"],
      ["--max-fee-gwei", "0.0000000001"],
      ["--max-fee-gwei", "-1"],
    ]) {
      expect(
        await main([...wrong, "config"], { out: () => undefined, err: () => undefined }),
        wrong.join(" "),
      ).to.equal(2);
    }
  });

  it("takes addresses and networks for proxies, and nothing else", async () => {
    const { settings } = await config("config", "--trusted-proxies", "127.0.0.1,10.0.0.0/8,::1,fd00::/8");
    expect(settings).to.deep.include({
      name: "trustedProxies",
      value: ["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"],
      source: "cli",
    });
    for (const wrong of ["proxy.example", "10.0.0.0/33", "::1/129", "10.0.0.0/8/8", "10.0.0.0/", "loopback", "*"]) {
      let err = "";
      const said = { out: () => undefined, err: (text: string) => void (err += text) };
      expect(await main(["config", "--trusted-proxies", wrong], said), wrong).to.equal(2);
      expect(err).to.contain(wrong);
    }
  });

  it("has no place for the password of the keys", async () => {
    const before = process.env["BURSAR_PASSWORD"];
    process.env["BURSAR_PASSWORD"] = "open-sesame";
    try {
      expect((await config()).text).not.to.contain("open-sesame");
      const shown = await main(["--password", "open-sesame", "config"], { out: () => undefined, err: () => undefined });
      expect(shown).to.equal(2);
    } finally {
      if (before === undefined) delete process.env["BURSAR_PASSWORD"];
      else process.env["BURSAR_PASSWORD"] = before;
    }
  });
});
