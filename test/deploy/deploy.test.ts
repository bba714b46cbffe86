import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Address } from "@bursar/protocol";
import { deploymentPath, railOf, readDeployment, type Deployment } from "@bursar/relayer";
import { expect } from "chai";
import {
  ContractFactory,
  NonceManager,
  ZeroHash,
  type JsonRpcProvider,
  type Signer,
  type TransactionRequest,
  type TransactionResponse,
} from "ethers";

import { readArtifact } from "../../deploy/artifact.ts";
import { openContext, type Context } from "../../deploy/context.ts";
import { deploy, settingsOf, STEPS, WINDOWS, type Settings } from "../../deploy/index.ts";
import { LocalNode } from "../../scripts/demo/node.ts";
import { BondedArbiter__factory } from "../../typechain-types/index.ts";
import { refusalOf } from "../relayer/office.ts";

const LOCAL = 31_337n;
const PUBLIC = 5_555n;

/** A deployer whose machine dies after it has sent so many transactions, or instead of sending the next one. */
class MortalSigner extends NonceManager {
  #left: number;
  readonly #sendsLast: boolean;

  constructor(signer: Signer, left: number, sendsLast: boolean) {
    super(signer);
    this.#left = left;
    this.#sendsLast = sendsLast;
  }

  override async sendTransaction(transaction: TransactionRequest): Promise<TransactionResponse> {
    const last = --this.#left === 0;
    if (last && !this.#sendsLast) throw new Error("power cut before sending");
    const sent = await super.sendTransaction(transaction);
    if (last) throw new Error("power cut after sending");
    return sent;
  }
}

async function failureOf(attempt: () => Promise<unknown>): Promise<Error> {
  return attempt().then(
    () => {
      throw new Error("it did not fail");
    },
    (error: unknown) => error as Error,
  );
}

describe("deploying", function () {
  this.timeout(180_000);
  const settings: Settings = { ...settingsOf(LOCAL, {}), verifiers: ["TinyBatchVerifier", "DefaultBatchVerifier"] };
  let node: LocalNode;
  let provider: JsonRpcProvider;
  let folder: string;
  let snapshot: unknown;

  before(async () => {
    node = await LocalNode.start();
    provider = node.provider();
  });
  after(() => {
    provider.destroy();
    node.stop();
  });
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "bursar-deploy-"));
    snapshot = await provider.send("evm_snapshot", []);
  });
  afterEach(async () => {
    await provider.send("evm_setAutomine", [true]);
    await provider.send("evm_revert", [snapshot]);
    rmSync(folder, { recursive: true });
  });

  const signer = async (): Promise<Signer> => new NonceManager(await provider.getSigner(0));
  const run = async (by?: Signer, wanted: Settings = settings): Promise<Deployment> =>
    deploy(by ?? (await signer()), provider, { settings: wanted, folder });
  const transactions = (): Promise<number> => provider.getSigner(0).then((one) => one.getNonce("latest"));
  const recordPath = (): string => deploymentPath(folder, LOCAL);
  const context = async (): Promise<Context> =>
    openContext(await signer(), provider, settings, folder, () => undefined);

  it("puts verifiers, core and tokens on chain and records what stands", async () => {
    const deployment = await run();
    expect(readDeployment(recordPath())).to.deep.equal(deployment);
    expect(Object.keys(deployment.circuits)).to.include.members(["tiny", "default"]);
    const { escrow, registry, settlement, direct, tokens } = deployment;
    for (const address of [escrow, registry, settlement, direct, tokens["tUSD"]])
      expect(await provider.getCode(address!)).not.to.equal("0x");
  });

  it("sends nothing the second time", async () => {
    const first = await run();
    const sent = await transactions();
    expect(await run()).to.deep.equal(first);
    expect(await transactions()).to.equal(sent);
  });

  it("resumes after each step", async () => {
    const whole = await run();
    const sent = (await transactions()) - Object.values(whole.contracts)[0]!.nonce;
    await provider.send("evm_revert", [snapshot]);
    snapshot = await provider.send("evm_snapshot", []);
    rmSync(recordPath());
    const before = await transactions();
    for (const step of STEPS) {
      await step.run(await context());
      await step.run(await context());
    }
    expect(readDeployment(recordPath())).to.deep.equal(whole);
    expect((await transactions()) - before).to.equal(sent);
  });

  for (const sendsLast of [false, true]) {
    const when = sendsLast ? "after a transaction was sent, before it was answered" : "before a transaction was sent";
    it(`resumes when it was cut off ${when}, whichever it was, and deploys nothing twice`, async () => {
      const before = await transactions();
      const whole = await run();
      const sent = (await transactions()) - before;
      expect(sent).to.be.at.least(5);
      for (let fatal = 1; fatal <= sent; ++fatal) {
        await provider.send("evm_revert", [snapshot]);
        snapshot = await provider.send("evm_snapshot", []);
        rmSync(recordPath());
        const mortal = new MortalSigner(await provider.getSigner(0), fatal, sendsLast);
        expect((await failureOf(() => run(mortal))).message).to.match(/^power cut/);
        expect(await run(), `cut off at transaction ${fatal}`).to.deep.equal(whole);
        expect((await transactions()) - before).to.equal(sent);
      }
    });
  }

  it("waits for a transaction that an interrupted run left in the pool", async () => {
    await provider.send("evm_setAutomine", [false]);
    const mortal = new MortalSigner(await provider.getSigner(0), 1, true);
    expect((await failureOf(() => run(mortal))).message).to.equal("power cut after sending");
    const resumed = run();
    await new Promise((done) => setTimeout(done, 200));
    await provider.send("evm_mine", []);
    await provider.send("evm_setAutomine", [true]);
    const [first] = Object.values((await resumed).contracts);
    expect(await provider.getCode(first!.address)).not.to.equal("0x");
    const nonces = Object.values((await resumed).contracts).map(({ nonce }) => nonce);
    // Nothing twice: besides the contracts, the test dollar's registration is all that is sent.
    expect(await transactions()).to.equal(first!.nonce + nonces.length + 1);
    expect(new Set(nonces).size).to.equal(nonces.length);
  });

  it("begins anew on a local chain that was restarted", async () => {
    const first = await run();
    const restarted = await LocalNode.start();
    const again = restarted.provider();
    try {
      const by = new NonceManager(await again.getSigner(0));
      const second = await deploy(by, again, { settings, folder });
      expect(await again.getCode(second.registry!)).not.to.equal("0x");
      expect(second.contracts["Bursar"]!.address).to.equal(first.contracts["Bursar"]!.address);
      expect(readDeployment(recordPath())).to.deep.equal(second);
    } finally {
      again.destroy();
      restarted.stop();
    }
  });

  it("deploys a contract again when other settings are meant, and says where it stands now", async () => {
    const first = await run();
    const second = await run(undefined, { ...settings, windows: { ...WINDOWS, grace: 3_600n } });
    expect(second.registry).not.to.equal(first.registry);
    expect(second.circuits).to.deep.equal(first.circuits);
  });

  it("reads a record that knows nothing of disputes, and adds them", async () => {
    const whole = await run();
    const old = JSON.parse(readFileSync(recordPath(), "utf8")) as Record<string, unknown>;
    const contracts = Object.entries(old["contracts"] as object);
    const before = contracts.filter(([name]) => name !== "Disputes" && name !== "BondedArbiter");
    const { disputes, arbiter, ...rest } = old;
    expect([disputes, arbiter]).to.deep.equal([whole.disputes, whole.arbiter]);
    writeFileSync(recordPath(), JSON.stringify({ ...rest, contracts: Object.fromEntries(before) }));
    expect(railOf(readDeployment(recordPath()), LOCAL, whole.genesis)).not.to.have.any.keys("disputes", "arbiter");
    const again = await run();
    expect(again.registry).to.equal(whole.registry);
    expect(await provider.getCode(again.disputes!)).not.to.equal("0x");
  });

  it("deploys no disputes where no arbiters are named off a local chain, and those who are named", async () => {
    expect(settingsOf(PUBLIC, {})).not.to.have.any.keys("disputes");
    const environment = {
      BURSAR_ARBITERS: `${(await provider.getSigner(2)).address},${(await provider.getSigner(3)).address}`,
      BURSAR_ARBITER_FEE: "0.5",
      BURSAR_RULE_WITHIN: "3600",
    };
    const { arbiter } = await run(undefined, { ...settings, ...settingsOf(LOCAL, environment) });
    const bonded = BondedArbiter__factory.connect(arbiter!, provider);
    expect((await bonded.arbiters()).join(",")).to.equal(environment.BURSAR_ARBITERS);
    expect(await bonded.fee()).to.equal(5n * 10n ** 17n);
    expect(await bonded.ruleWithin()).to.equal(3_600n);
    for (const wrong of [{ BURSAR_ARBITER_FEE: "much" }, { BURSAR_RULE_WITHIN: "1h" }, { BURSAR_ARBITERS: "me" }])
      expect(await refusalOf(() => Promise.resolve().then(() => settingsOf(LOCAL, wrong)))).to.include({
        code: "malformed-input",
      });
  });

  it("refuses arbiters who may rule when the module waits no more: malformed-input", async () => {
    const late = { ...settings.disputes!, ruleWithin: settings.disputes!.deadlines.rule };
    expect(await refusalOf(() => run(undefined, { ...settings, disputes: late }))).to.include({
      code: "malformed-input",
    });
  });

  it("refuses a record that is no record: malformed-input", async () => {
    await run();
    const record = JSON.parse(readFileSync(recordPath(), "utf8")) as Record<string, unknown>;
    const wrong = [{ escrow: "0x1" }, { chainId: "0x7a69" }, { genesis: "" }, { unknown: 1 }];
    const texts = wrong.map((change) => JSON.stringify({ ...record, ...change }));
    for (const text of [...texts, "", '{"chainId":', "null"]) {
      writeFileSync(recordPath(), text);
      expect(await refusalOf(() => run())).to.include({ code: "malformed-input" });
    }
  });

  describe("validation", () => {
    const validate = STEPS.at(-1)!;

    it("accepts what was deployed", async () => {
      await run();
      await validate.run(await context());
    });

    const lies: [what: string, change: (meant: Context) => Partial<Context> | undefined, named: RegExp][] = [
      ["another escrow", ({ deployment: d }) => void (d.escrow = d.registry), /^Bursar\.escrow is 0x/],
      ["another registry", ({ deployment: d }) => void (d.registry = d.escrow), /^Bursar\.registry is 0x/],
      ["another settlement", ({ deployment: d }) => void (d.settlement = d.registry), /^Bursar\.settlement is 0x/],
      ["another direct rail", ({ deployment: d }) => void (d.direct = d.settlement), /^Bursar\.direct is 0x/],
      [
        "another key of a circuit",
        ({ deployment: d }) => void (d.circuits["tiny"] = ZeroHash as Address),
        /^TinyBatchVerifier\.circuitId is 0x/,
      ],
      [
        "the verifier of another circuit",
        ({ deployment: d }) => {
          d.contracts["TinyBatchVerifier"] = d.contracts["DefaultBatchVerifier"]!;
          return undefined;
        },
        /^TinyBatchVerifier\.circuitId is 0x/,
      ],
      [
        "another window",
        ({ settings: meant }) => ({ settings: { ...meant, windows: { ...meant.windows, cure: 6n * 3_600n } } }),
        /^windows\.cure is 86400 on chain; 21600 was meant\.$/,
      ],
      ["another arbitrator", ({ deployment: d }) => void (d.arbiter = d.registry), /^Disputes\.arbitrator is 0x/],
      [
        "another fee of the arbiters",
        ({ settings: meant }) => ({ settings: { ...meant, disputes: { ...meant.disputes!, fee: 1n } } }),
        /^BondedArbiter\.fee is 10000000000000000 on chain; 1 was meant\.$/,
      ],
      [
        "a token that is not registered",
        ({ deployment: d }) => void (d.tokens["USDC"] = d.registry!),
        /^Escrow\.tokenOf\(0x/,
      ],
    ];
    for (const [what, change, named] of lies) {
      it(`refuses ${what}: wrong-contract, with both values`, async () => {
        await run();
        const meant = await context();
        const refusal = await refusalOf(() => validate.run({ ...meant, ...change(meant) }));
        expect(refusal).to.include({ code: "wrong-contract" });
        expect(refusal.message).to.match(named);
        expect(refusal.details).to.have.all.keys("value", "limit");
      });
    }

    it("refuses a verifier that is another contract: wrong-contract", async () => {
      const { contracts, tokens } = await run();
      const record = JSON.parse(readFileSync(recordPath(), "utf8")) as {
        contracts: Record<string, { address: string }>;
      };
      record.contracts["TinyBatchVerifier"]!.address = tokens["tUSD"]!;
      writeFileSync(recordPath(), JSON.stringify(record));
      expect(contracts["TinyBatchVerifier"]!.address).not.to.equal(tokens["tUSD"]);
      const refusal = await refusalOf(() => run());
      expect(refusal).to.include({ code: "wrong-contract" });
    });
  });

  describe("development keys", () => {
    let publicNode: LocalNode;
    let publicChain: JsonRpcProvider;
    before(async () => {
      publicNode = await LocalNode.start(Number(PUBLIC));
      publicChain = publicNode.provider();
    });
    after(() => {
      publicChain.destroy();
      publicNode.stop();
    });

    it("are not chosen off a local chain: key-missing until verifiers are named", async () => {
      const by = new NonceManager(await publicChain.getSigner(0));
      const refusal = await refusalOf(() => deploy(by, publicChain, { settings: settingsOf(PUBLIC, {}), folder }));
      expect(refusal).to.include({ code: "key-missing" });
    });

    it("are refused by the deploy scripts off a local chain, with the chain id and before anything is sent", async () => {
      const by = new NonceManager(await publicChain.getSigner(0));
      const named = settingsOf(PUBLIC, { BURSAR_VERIFIERS: "TinyBatchVerifier" });
      const refusal = await refusalOf(() => deploy(by, publicChain, { settings: named, folder }));
      expect(refusal).to.include({ code: "wrong-chain" });
      expect(refusal.details).to.deep.equal({ value: "5555", limit: "31337 1337" });
      expect(refusal.advice).to.match(/ceremony/);
      expect(await publicChain.getTransactionCount(by.getAddress())).to.equal(0);
      expect(readDeployment(deploymentPath(folder, PUBLIC))).to.equal(undefined);
    });

    for (const name of settings.verifiers) {
      it(`are refused by the constructor of ${name} off a local chain: DevelopmentKey(chain id)`, async () => {
        const { abi, bytecode } = readArtifact(`verifiers/${name}`);
        const factory = new ContractFactory(abi, bytecode, await publicChain.getSigner(0));
        const refusal = (await failureOf(() => factory.deploy())) as Error & { data?: string };
        expect(factory.interface.parseError(refusal.data!)).to.deep.include({ name: "DevelopmentKey" });
        expect(factory.interface.parseError(refusal.data!)!.args.toArray()).to.deep.equal([PUBLIC]);
      });
    }

    it("come after the record: one of another chain with the same id is refused with wrong-chain", async () => {
      const record = { chainId: `${PUBLIC}`, genesis: ZeroHash, contracts: {}, circuits: {}, tokens: {} };
      writeFileSync(deploymentPath(folder, PUBLIC), JSON.stringify(record));
      const by = new NonceManager(await publicChain.getSigner(0));
      const refusal = await refusalOf(() => deploy(by, publicChain, { settings: settingsOf(PUBLIC, {}), folder }));
      expect(refusal).to.include({ code: "wrong-chain" });
      expect(refusal.details["limit"]).to.equal(ZeroHash);
    });
  });
});
