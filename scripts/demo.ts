import { mkdtempSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

import { BursarError, formatAmount, requestRef, type Address } from "@bursar/protocol";
import { Prover } from "@bursar/prover";
import {
  Chain,
  createLogger,
  postBond,
  railOf,
  register,
  SERVICE_DEFAULTS,
  startService,
  Store,
} from "@bursar/relayer";
import { draftIntent, openMandate, type Agent } from "@bursar/sdk/agent";
import { chainMandates, MemoryReceipts, Paywall } from "@bursar/sdk/payee";
import { paid } from "@bursar/sdk/payee/express";
import { NonceManager, parseEther, Wallet } from "ethers";
import express from "express";

import { deploy, settingsOf } from "../deploy/index.ts";
import { ledgerTable, table } from "../packages/relayer/src/cli/report.ts";
import { TestUSD__factory } from "../typechain-types/index.ts";
import { LocalNode } from "./demo/node.ts";

const CALLS_PER_AGENT = 28;
const BUDGET = 30_000n;
const CAP = 1_000n;
const BOND = 10_000_000_000n;

const SERVICES = [
  {
    name: "Weather",
    host: "api.weather.example",
    category: "weather",
    price: 250n,
    answer: (topic: string) => ({ city: topic, celsius: 7 }),
  },
  {
    name: "Maps",
    host: "tiles.maps.example",
    category: "maps",
    price: 400n,
    answer: (topic: string) => ({ route: topic, km: 12.5 }),
  },
  {
    name: "Search",
    host: "q.search.example",
    category: "search",
    price: 900n,
    answer: (topic: string) => ({ query: topic, hits: 3 }),
  },
] as const;
const CASINO = {
  name: "Casino",
  host: "play.casino.example",
  category: "gambling",
  price: 500n,
  answer: () => ({ luck: "none" }),
} as const;

const INTENT = draftIntent({
  purpose: "Plan a week of deliveries: weather, routes and opening hours",
  budget: BUDGET,
  paymentCap: CAP,
  duration: "1d",
  categories: ["weather", "maps", "search"],
  hosts: ["*.weather.example", "*.maps.example", "*.search.example"],
});

const say = (text = ""): void => console.log(text);
const began = performance.now();
const step = (title: string): void => say(`\n── ${title} (${((performance.now() - began) / 1_000).toFixed(1)} s)`);

const folder = mkdtempSync(join(tmpdir(), "bursar-demo-"));
const closing: (() => unknown)[] = [() => rmSync(folder, { recursive: true })];

try {
  await demo();
} finally {
  for (const close of closing.reverse()) await close();
}

async function demo(): Promise<void> {
  step("A local chain, and the contracts on it");
  const node = await LocalNode.start();
  closing.push(() => node.stop());
  const provider = node.provider();
  closing.push(() => provider.destroy());
  const account = async (index: number) => new NonceManager(await provider.getSigner(index));
  const [deployer, owner, sender] = [await account(0), await account(1), await account(2)];
  const processorKey = Wallet.createRandom(provider);
  await (await sender.sendTransaction({ to: processorKey.address, value: parseEther("10") })).wait();
  const deployment = await deploy(deployer, provider, { settings: settingsOf(31_337n, process.env), folder, log: say });
  const rail = railOf(deployment, 31_337n, deployment.genesis);
  const chain = new Chain(rail, provider);
  const domain = { chainId: rail.chainId, registry: rail.registry };
  const token = rail.tokens["tUSD"]!;

  step("The owner deposits");
  const ownerAddress = (await owner.getAddress()) as Address;
  const dollar = TestUSD__factory.connect(token, owner);
  await (await dollar.mint(ownerAddress, 1_000_000n)).wait();
  await (await dollar.approve(rail.escrow, 1_000_000n)).wait();
  await (await chain.escrow.connect(owner).deposit(token, 1_000_000n, ownerAddress)).wait();
  say(`${ownerAddress} has ${formatAmount(await chain.escrow.freeOf(token, ownerAddress))} tUSD in the escrow.`);

  step("The processor posts its bond, and serves; so do services that are paid per call");
  await register(chain, processorKey, "http://127.0.0.1");
  await (await TestUSD__factory.connect(token, processorKey).mint(processorKey.address, BOND)).wait();
  await postBond(chain, processorKey, { processor: processorKey.address as Address, token, units: BOND });
  say(`${processorKey.address} has ${formatAmount(BOND)} tUSD behind its receipts.`);
  const store = await Store.open(join(folder, "processor.db"));
  closing.push(() => store.close());
  const prover = new Prover();
  closing.push(() => prover.close());
  const service = await startService({
    config: { ...SERVICE_DEFAULTS, port: 0, settleEvery: 0, maxSkew: null },
    chain,
    provider,
    store,
    signer: processorKey,
    prover,
    logger: createLogger("silent", process.stdout),
    now: () => BigInt(Math.floor(Date.now() / 1_000)),
    sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
  });
  closing.push(() => service.stop());
  const processors = [processorKey.address];
  const mandates = chainMandates(node.url, rail.registry, { finality: 1 });
  const services = await Promise.all(
    [...SERVICES, CASINO].map(async ({ name, host, category, price, answer }) => {
      const payee = Wallet.createRandom().address as Address;
      await store.putPayee({ address: payee, name, host, category });
      const paywall = new Paywall({ payee, domain, token, processors, receipts: new MemoryReceipts(), mandates });
      const app = express();
      app.get("/v1/:topic", paid(paywall, price), (request, response) =>
        response.json(answer(String(request.params.topic))),
      );
      const url = await listen(app);
      return { name, host, price, payee, url };
    }),
  );
  const casino = services.at(-1)!;
  const onMission = services.slice(0, -1);
  for (const { name, url, price, host } of services)
    say(`${name.padEnd(8)} ${url} as ${host}, ${formatAmount(price)} a call`);

  step("Four agents draft their intents; the owner signs each once");
  const agents = await Promise.all(
    Array.from({ length: 4 }, async (_, n) => {
      const opening = await openMandate({ processor: service.url, intent: INTENT, owner });
      if (n === 0) {
        say(`The owner reads, at ${opening.signUrl} or here:`);
        const rows = opening.clauses.map(({ subject, words, enforcedBy }) => [subject, words, enforcedBy]);
        say(table(["what", "allowed", "enforced by"], rows));
      }
      return opening.wait({ interval: 100 });
    }),
  );

  step(`${agents.length} agents buy ${agents.length * CALLS_PER_AGENT} calls`);
  const buying = performance.now();
  await Promise.all(
    agents.map(async (agent, a) => {
      for (let call = 0; call < CALLS_PER_AGENT; ++call) {
        const seller = onMission[(a + call) % onMission.length]!;
        await buy(agent, `${seller.url}/v1/stop-${call}`);
      }
    }),
  );
  const seconds = (performance.now() - buying) / 1_000;
  say(
    `${agents.length * CALLS_PER_AGENT} paid calls in ${seconds.toFixed(1)} s; each payment was signed, decided, recorded, receipted and verified.`,
  );

  step("What the mandate does not allow is refused, whoever asks");
  const [ada] = agents as [Agent];
  const search = onMission[2]!;
  await refused("off mission", () => buy(ada, `${casino.url}/v1/roulette`));
  await refused("over the cap", () =>
    ada.pay({ payee: search.payee, amount: CAP + 1n, ref: requestRef({ method: "GET", url: `${search.url}/v1/all` }) }),
  );
  await refused("over the budget", async () => {
    for (let more = 0; ; ++more) await buy(ada, `${search.url}/v1/more-${more}`);
  });

  step("Plan, prove, settle");
  const { settler } = service;
  const planned = await settler.plan();
  if (!planned) throw new Error("no payment waits");
  say(
    `Batch ${planned.id}: ${planned.payments} payments of ${planned.rows.length} mandates, circuit ${planned.circuit}.`,
  );
  const proved = await settler.prove(planned.id);
  say(`Proved in ${((proved.provedInMs ?? 0) / 1_000).toFixed(1)} s.`);
  const settled = await settler.finish(planned.id);
  if (settled.state !== "settled") throw new Error(`the batch ${settled.state}: ${settled.error}`);
  say(`Settled in one transaction: ${settled.transaction}, block ${settled.block}, ${settled.gasUsed} gas.`);

  step("The payees are paid out");
  for (const { name, payee } of onMission) {
    await (await chain.escrow.connect(sender).sweepCredit(token, payee)).wait();
    say(`${name.padEnd(8)} received ${formatAmount(await dollar.balanceOf(payee))} tUSD`);
  }

  step("The ledger (newest first; the last 12 of each kind)");
  const entries = await store.ledger({ limit: 1_000 });
  const shown = [
    ...entries.filter(({ kind }) => kind === "refused"),
    ...entries.filter(({ kind }) => kind === "accepted").slice(0, 12),
  ];
  const names = new Map((await store.payees()).map(({ address, name }) => [address as string, name]));
  say(ledgerTable(shown, (payee) => names.get(payee) ?? payee));

  step("What it cost");
  const gas = settled.gasUsed! / BigInt(settled.payments);
  await (await dollar.mint(ownerAddress, 2n)).wait();
  const transfer = (await (await dollar.transfer(onMission[0]!.payee, 1n)).wait())!.gasUsed;
  say(
    table(
      ["way to pay", "transactions", "gas", "gas a payment"],
      [
        ["Bursar, one proof", "1", String(settled.gasUsed), String(gas)],
        [
          "single ERC-20 transfers",
          String(settled.payments),
          String(transfer * BigInt(settled.payments)),
          String(transfer),
        ],
      ],
    ),
  );
  say(
    `\n${(Number(transfer) / Number(gas)).toFixed(1)} times less gas a payment. Done in ${((performance.now() - began) / 1_000).toFixed(0)} s.`,
  );
}

/** Calls a paid service as any other. */
async function buy(agent: Agent, url: string): Promise<unknown> {
  const response = await agent.fetch(url);
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  return response.json();
}

/** The URL of an app that listens until the end. */
function listen(app: express.Express): Promise<string> {
  return new Promise((resolve) => {
    const server: Server = app.listen(0, "127.0.0.1", () => {
      closing.push(() => server.close());
      resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    });
  });
}

/** Shows a refusal; anything else is a failure of the demo. */
async function refused(what: string, attempt: () => Promise<unknown>): Promise<void> {
  try {
    await attempt();
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    say(`${what}: refused, ${error.code}\n  ${error.message}\n  advice: ${error.advice ?? "-"}`);
    return;
  }
  throw new Error(`${what} was not refused`);
}
