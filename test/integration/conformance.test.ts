import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import type { Address } from "@bursar/protocol";
import { expect } from "chai";
import { NonceManager, Wallet, type BaseContract, type JsonRpcProvider } from "ethers";

import { deploy, settingsOf } from "../../deploy/index.ts";
import type { Deployment } from "@bursar/relayer";
import { LocalNode } from "../../scripts/demo/node.ts";
import {
  AttestedGate__factory,
  CrookedWallet__factory,
  KeyWallet__factory,
  PaidFeedback__factory,
} from "../../typechain-types/index.ts";

const SCRIPT = fileURLToPath(new URL("../../scripts/conformance.ts", import.meta.url));

interface Report {
  pass: number;
  fail: number;
  skip: number;
  outcomes: { requirement: string; result: string; reason?: string }[];
}

describe("npm run conformance", function () {
  this.timeout(180_000);
  const key = Wallet.createRandom();
  let node: LocalNode;
  let provider: JsonRpcProvider;
  let deployment: Deployment;
  let deployer: NonceManager;
  let folder: string;

  before(async () => {
    node = await LocalNode.start();
    provider = node.provider();
    folder = mkdtempSync(join(tmpdir(), "bursar-conformance-"));
    deployer = new NonceManager(await provider.getSigner(0));
    const settings = { ...settingsOf(31_337n, {}), verifiers: ["TinyBatchVerifier"] };
    deployment = await deploy(deployer, provider, { settings, folder });
  });
  after(() => {
    provider.destroy();
    node.stop();
    rmSync(folder, { recursive: true });
  });

  function run(args: string[], env: NodeJS.ProcessEnv = {}): Promise<{ code: number; out: string; err: string }> {
    return new Promise((resolve) => {
      const child = execFile(
        process.execPath,
        ["--import", import.meta.resolve("tsx"), SCRIPT, ...args],
        { env: { ...process.env, ...env }, cwd: folder },
        (_, out, err) => resolve({ code: child.exitCode ?? -1, out, err }),
      );
    });
  }
  const judge = (role: string, address: string, ...more: string[]): string[] => [
    ...["--role", role, "--address", address, "--rpc-url", node.url],
    ...more,
  ];
  async function standing(contract: BaseContract): Promise<Address> {
    await contract.waitForDeployment();
    return (await contract.getAddress()) as Address;
  }
  const reportOf = (out: string): Report => JSON.parse(out) as Report;

  it("says how it is used, and what is wrong with how it was", async () => {
    const help = await run(["--help"]);
    expect(help.code).to.equal(0);
    for (const role of ["wallet", "settlement", "identity", "dispute", "reputation"]) expect(help.out).to.include(role);
    for (const args of [[], ["--role", "king", "--address", deployment.gate!], ["--role", "wallet"], ["--nonsense"]]) {
      const wrong = await run(args);
      expect([wrong.code, wrong.out]).to.deep.equal([2, ""]);
      expect(wrong.err).to.include("usage:");
    }
    const torn = await run(judge("wallet", deployment.gate!, "--digest", `0x${"11".repeat(32)}`));
    expect(torn.code).to.equal(2);
    expect(torn.err).to.match(/malformed-input: --digest and --signature/);
    const nowhere = await run(["--role", "identity", "--address", deployment.gate!, "--rpc-url", "http://127.0.0.1:1"]);
    expect(nowhere.code).to.equal(2);
    expect(nowhere.err).to.include("chain-unavailable");
  });
  it("prints each requirement of the deployed gate, with what was not tested and why", async () => {
    const { code, out } = await run(judge("identity", deployment.gate!, "--registry", deployment.registry!));
    expect(code).to.equal(0);
    expect(out).to.include(`identity at ${deployment.gate!}`);
    expect(out).to.match(/✔ impartial +It answers the registry/);
    expect(out).to.match(/– admits .*\n {2}not tested: no --admitted account is given/);
    expect(out).to.include("6 kept, 0 broken, 2 not tested");
  });
  it("fails with 1, and says which requirement is broken", async () => {
    const gate = await standing(await new AttestedGate__factory(deployer).deploy([key.address]));
    const args = judge("identity", gate, "--admitted", key.address, "--refused", deployment.gate!);
    const { code, out } = await run([...args, "--registry", deployment.registry!]);
    expect(code).to.equal(1);
    expect(out).to.match(/✘ admits .*\n {2}failed: mayOpen\(0x\w+, …\) is 0, not 1/);
    expect(out).to.include("1 broken");
  });
  it("looks at a wallet by its key from the environment, and prints no key", async () => {
    const wallet = await standing(await new KeyWallet__factory(deployer).deploy(deployment.gate!, key.address));
    const { code, out } = await run(judge("wallet", wallet, "--json"), { BURSAR_SIGNER_KEY: key.privateKey });
    expect(code).to.equal(0);
    expect(reportOf(out)).to.include({ pass: 9, fail: 0, skip: 0 });
    expect(out).not.to.include(key.privateKey.slice(2));
    const crooked = await new CrookedWallet__factory(deployer).deploy(1, deployment.gate!, key.address);
    const broken = await run(judge("wallet", await standing(crooked), "--json"), { BURSAR_SIGNER_KEY: key.privateKey });
    expect(broken.code).to.equal(1);
    expect(reportOf(broken.out).outcomes.filter(({ result }) => result === "fail")).to.have.length(1);
  });
  it("settles, rates and puts everything back, over JSON-RPC", async () => {
    const feedback = await standing(await new PaidFeedback__factory(deployer).deploy(deployment.registry!));
    const before = await provider.getBlockNumber();
    const settled = await run(judge("settlement", deployment.settlement!, "--json"));
    expect(settled.code, settled.out + settled.err).to.equal(0);
    expect(reportOf(settled.out)).to.include({ pass: 10, fail: 0, skip: 0 });
    const rated = await run(judge("reputation", feedback, "--registry", deployment.registry!, "--json"));
    expect(rated.code, rated.out + rated.err).to.equal(0);
    expect(reportOf(rated.out)).to.include({ pass: 11, fail: 0, skip: 0 });
    expect(await provider.getBlockNumber()).to.equal(before);
  });
});
