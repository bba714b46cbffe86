import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Address } from "@bursar/protocol";
import { deploymentPath, readDeployment } from "@bursar/relayer";
import { expect } from "chai";
import { NonceManager, Wallet, type JsonRpcProvider } from "ethers";

import { deploy, settingsOf, type Settings } from "../../deploy/index.ts";
import { LocalNode } from "../../scripts/demo/node.ts";
import { AttestedGate__factory, MandateRegistry__factory } from "../../typechain-types/index.ts";
import { refusalOf } from "../relayer/office.ts";

const LOCAL = 31_337n;

describe("deploying with an identity gate", function () {
  this.timeout(60_000);
  let node: LocalNode;
  let provider: JsonRpcProvider;
  let deployer: NonceManager;
  let folder: string;

  before(async () => {
    node = await LocalNode.start();
    provider = node.provider();
    deployer = new NonceManager(await provider.getSigner(0));
    folder = mkdtempSync(join(tmpdir(), "bursar-gate-"));
  });
  after(() => {
    provider.destroy();
    node.stop();
    rmSync(folder, { recursive: true });
  });

  const settingsWith = (gate: string): Settings => ({
    ...settingsOf(LOCAL, { BURSAR_GATE: gate }),
    verifiers: ["TinyBatchVerifier"],
  });

  it("takes BURSAR_GATE in any case of its letters, and deploys no other", async () => {
    const gate = await new AttestedGate__factory(deployer).deploy([Wallet.createRandom().address]);
    await gate.waitForDeployment();
    const address = (await gate.getAddress()) as Address;
    const settings = settingsWith(address.toLowerCase());
    expect(settings.gate).to.equal(address);
    const deployment = await deploy(deployer, provider, { settings, folder });
    expect(deployment.gate).to.equal(address);
    expect(deployment.contracts).not.to.have.property("OpenGate");
    expect(await MandateRegistry__factory.connect(deployment.registry!, provider).gate()).to.equal(address);
    expect(readDeployment(deploymentPath(folder, LOCAL))!.gate).to.equal(address);
  });
  it("refuses what is no gate, before the core is deployed: nobody could ever open a mandate", async () => {
    const empty = mkdtempSync(join(tmpdir(), "bursar-gate-"));
    try {
      const { registry } = readDeployment(deploymentPath(folder, LOCAL))!;
      for (const gate of [Wallet.createRandom().address, registry!]) {
        const settings = settingsWith(gate);
        const refusal = await refusalOf(() => deploy(deployer, provider, { settings, folder: empty }));
        expect(refusal).to.include({ code: "wrong-contract" });
        expect(refusal.details["value"]).to.equal(gate);
        expect(readDeployment(deploymentPath(empty, LOCAL))!.contracts).not.to.have.property("Bursar");
      }
    } finally {
      rmSync(empty, { recursive: true });
    }
  });
  it("refuses a BURSAR_GATE that is no address: malformed-input", async () => {
    expect((await refusalOf(() => settingsOf(LOCAL, { BURSAR_GATE: "0x1234" }))).code).to.equal("malformed-input");
  });
});
