import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import {
  AgentLedger,
  BursarError,
  ERRORS,
  formatAmount,
  headHex,
  holdOf,
  parseAddress,
  parseAmount,
  parseLedgerState,
  parseWire,
  policyRoot,
  requestRef,
  signedReceiptSchema,
  signMandate,
  signPayment,
  signRevocation,
  bytes32Schema,
  termsHash,
  termsSchema,
  toWire,
  type Address,
  type Hex,
  type Mandate,
  type Problem,
  type SignedPayment,
  type SignedReceipt,
  type Terms,
} from "@bursar/protocol";
import { Prover } from "@bursar/prover";
import { concat, keccak256, parseUnits, toUtf8Bytes, type Wallet } from "ethers";

import { deploy, settingsOf } from "../../../../deploy/index.ts";
import { TestUSD__factory } from "../../../../typechain-types/index.ts";
import { setTimeout } from "node:timers/promises";

import type { Command } from "commander";

import { ApiKeys, type KeyScope } from "../api-keys.ts";
import { bondShortage } from "../bonding.ts";
import { parseEth } from "../fees.ts";
import { csvLines } from "../ledger-csv.ts";
import { createLogger } from "../log.ts";
import { visible } from "../plain-text.ts";
import { Profiles } from "../profiles.ts";
import type { BatchRecord, LedgerEntry, LedgerFilter, PayeeProfile } from "../records.ts";
import type { Store } from "../store.ts";
import { SERVICE_DEFAULTS, startService } from "../service.ts";
import { explained } from "./bonds.ts";
import { ledgerTable, progress, report, short, table, time, type Output } from "./report.ts";
import { below, now, type Session } from "./session.ts";

export async function deployRail(session: Session, output: Output): Promise<void> {
  const signer = await session.account("deployer");
  const settings = settingsOf(session.chainId, process.env);
  const { disputes } = settings;
  // On a local chain the key «arbiter» of this machine decides, unless others are named.
  if (session.local && disputes?.arbiters.length === 0) {
    settings.disputes = { ...disputes, arbiters: [(await session.keys.loadOrCreate("arbiter")).address as Address] };
  }
  const deployment = await deploy(signer, session.provider, {
    settings,
    folder: session.options.deployments,
    begin: (title) => progress(output, title),
    log: (message) => progress(output, `  ${message}`),
  });
  const { escrow, registry, settlement, tokens, circuits } = deployment;
  report(
    output,
    deployment,
    table(
      ["what", "where"],
      [
        ["Escrow", escrow ?? ""],
        ["MandateRegistry", registry ?? ""],
        ["BatchSettlement", settlement ?? ""],
        ["Disputes", deployment.disputes ?? "none: name arbiters in BURSAR_ARBITERS"],
        ...Object.entries(tokens).map(([symbol, token]) => [symbol, token]),
        ...Object.entries(circuits).map(([name, circuitId]) => [`circuit ${name}`, circuitId]),
      ],
    ),
  );
}

export async function deposit(session: Session, output: Output, units: bigint, tokenName?: string): Promise<void> {
  const { chain } = session;
  const token = session.token(tokenName);
  const owner = await session.sender("owner");
  const address = await owner.getAddress();
  const amount = units * (await chain.escrow.unitScale(token));
  const erc20 = TestUSD__factory.connect(token, owner);
  if (session.local && (await erc20.balanceOf(address)) < amount) await (await erc20.mint(address, amount)).wait();
  await (await erc20.approve(session.rail.escrow, amount)).wait();
  const receipt = await (await chain.escrow.connect(owner).deposit(token, amount, address)).wait();
  const free = await chain.escrow.freeOf(token, address);
  report(
    output,
    { owner: address, token, free, transaction: receipt?.hash },
    `${address} has ${formatAmount(free)} free in the escrow.`,
  );
}

export async function addPayee(session: Session, output: Output, profile: PayeeProfile): Promise<void> {
  await (await session.store()).putPayee(profile);
  report(output, profile, `${profile.name} is ${profile.address} at ${profile.host}, category ${profile.category}.`);
  return Promise.resolve();
}

export async function approvePayee(session: Session, output: Output, payee: Address): Promise<void> {
  const store = await session.store();
  const profile = await store.transact(async () => {
    const approved = await new Profiles(store.database).approve(payee);
    await store.putPayee(approved);
    return approved;
  });
  report(output, profile, `${profile.name} is ${payee} at ${profile.host}, category ${profile.category}.`);
  return Promise.resolve();
}

export async function listPayees(session: Session, output: Output): Promise<void> {
  const known = (await (await session.store()).payees()).map((profile) => ({ ...profile, state: "approved" }));
  const waiting = (await new Profiles((await session.store()).database).waiting()).map((profile) => ({
    ...profile,
    state: "pending",
  }));
  const payees = [...known, ...waiting];
  report(
    output,
    payees,
    table(
      ["name", "address", "host", "category", "state"],
      payees.map((p) => [visible(p.name), p.address, p.host, p.category, p.state]),
    ),
  );
  return Promise.resolve();
}

export interface MandateDraft {
  budget: string;
  cap: string;
  purpose: string;
  hours: string;
  host: string[];
  category: string[];
  payee: string[];
  holdback?: number;
  processor?: string;
  token?: string;
}

export async function openMandate(
  session: Session,
  output: Output,
  draft: MandateDraft,
  confirm: (question: string) => Promise<boolean>,
): Promise<void> {
  const terms = parseWire(termsSchema, {
    version: 1,
    purpose: draft.purpose,
    categories: draft.category,
    hosts: draft.host,
    ...disputeTerms(session, draft.holdback),
  });
  const owner = await session.account("owner");
  const processor = await session.processor();
  const agent = await session.keys.create();
  const mandate = await draftMandate(session, draft, terms, owner.address as Address, agent.address as Address);
  if (!output.json) output.err(plainWords(mandate, terms));
  if (!(await confirm("Sign this once, as the owner?"))) {
    throw new BursarError("malformed-input", "The owner did not sign.", {});
  }
  const signatures = await Promise.all([owner, agent].map((signer) => signMandate(signer, session.domain, mandate)));
  const { chain } = session;
  const free = await chain.escrow.freeOf(mandate.token, owner.address);
  const needed = mandate.budget * (await chain.escrow.unitScale(mandate.token));
  if (free < needed) {
    throw new BursarError(
      "above-budget",
      `The owner has ${free} base units free; the budget needs ${needed}.`,
      { value: needed, limit: free },
      "Run `bursar deposit` first.",
    );
  }
  const shortage = await bondShortage(chain, mandate);
  if (shortage) throw shortage;
  const transaction = await explained(
    session,
    chain.registry.connect(owner).open({ ...mandate, payees: [...mandate.payees] }, signatures[0]!, signatures[1]!),
  );
  const own = mandate.processor === (await session.keys.load("processor")).address;
  if (own) await processor.register(mandate, terms);
  report(
    output,
    { mandate, terms, transaction, registered: own },
    `Mandate of agent ${mandate.agent} is open (transaction ${transaction}).` +
      (own ? "" : ` Register it with its processor: POST /mandates.`),
  );
}

function disputeTerms(session: Session, holdback: number | undefined): Pick<Terms, "dispute"> {
  if (holdback === undefined) return {};
  const { disputes } = session.rail;
  if (disputes !== undefined) return { dispute: { module: disputes, holdback: String(holdback) } };
  throw new BursarError(
    "wrong-chain",
    "No payment can be disputed on this chain.",
    { value: session.chainId },
    "Name arbiters in BURSAR_ARBITERS and run `bursar deploy`.",
  );
}

async function draftMandate(
  session: Session,
  draft: MandateDraft,
  terms: Terms,
  owner: Address,
  agent: Address,
): Promise<Mandate> {
  const payees = draft.payee.map((payee) => parseAddress(payee));
  const paymentCap = parseAmount(draft.cap);
  if (!/^\d{1,4}$/.test(draft.hours) || Number(draft.hours) < 1) {
    throw new BursarError("malformed-input", `--hours is «${draft.hours}».`, { value: draft.hours, limit: "1..2160" });
  }
  return {
    owner,
    agent,
    token: session.token(draft.token),
    budget: parseAmount(draft.budget),
    paymentCap,
    validUntil: now() + BigInt(draft.hours) * 3_600n,
    processor: draft.processor
      ? parseAddress(draft.processor)
      : ((await session.keys.loadOrCreate("processor")).address as Address),
    payees,
    policyRoot: headHex(policyRoot(payees, paymentCap)),
    termsHash: termsHash(terms),
  };
}

/** What a mandate allows, for the person who signs it. */
export function plainWords(mandate: Mandate, terms: Terms): string {
  const listed = (items: readonly string[], none: string): string => (items.length > 0 ? items.join(", ") : none);
  return [
    `The agent ${mandate.agent} may spend`,
    `  in all          ${formatAmount(mandate.budget)}`,
    `  in one payment  ${formatAmount(mandate.paymentCap)}`,
    `  until           ${time(mandate.validUntil)}`,
    `  for             ${terms.purpose}`,
    `  to              ${listed(mandate.payees, "anyone")}`,
    "Contract and proof enforce these. The processor alone enforces:",
    `  hosts           ${listed(terms.hosts, "any")}`,
    `  categories      ${listed(terms.categories, "any")}`,
    `  processor       ${mandate.processor}`,
    ...(terms.dispute === undefined
      ? []
      : [`  disputes        payments wait ${terms.dispute.holdback} seconds in holds of ${terms.dispute.module}`]),
  ].join("\n");
}

export async function showMandate(session: Session, output: Output, agent: Address): Promise<void> {
  const onChain = await session.chain.mandate(agent);
  const record = await (await session.store()).mandate(agent);
  if (onChain.state === "none") {
    throw new BursarError("mandate-unknown", `No mandate of ${agent} on this chain.`, { value: agent });
  }
  const accepted = record ? (await (await session.processor()).status(agent)).accepted : null;
  const lines = [
    ["state", onChain.state],
    ["owner", onChain.owner],
    ["processor", onChain.processor],
    ["budget", formatAmount(onChain.budget)],
    ["payment cap", formatAmount(onChain.paymentCap)],
    ["valid until", time(onChain.validUntil)],
    ["purpose", record?.terms.purpose ?? "not known to this processor"],
    [
      "accepted",
      accepted ? `${formatAmount(accepted.spent)} in ${accepted.seq} payments` : "not known to this processor",
    ],
    ["settled", `${formatAmount(onChain.spent)} in ${onChain.seq} payments`],
    ["remaining", formatAmount(onChain.budget - (accepted?.spent ?? onChain.spent))],
  ];
  report(output, { agent, onChain, terms: record?.terms ?? null, accepted }, table(["mandate", agent], lines));
}

export async function revokeMandate(session: Session, output: Output, agent: Address): Promise<void> {
  const { chain, domain } = session;
  const store = await session.store();
  const owner = await session.account("owner");
  const processor = await session.processor();
  const known = (await store.mandate(agent)) !== undefined;
  const afterSeq = known ? (await processor.tail(agent)).position.seq : (await chain.mandate(agent)).seq;
  const revocation = { agent, afterSeq };
  if (known) await processor.revoke(revocation, await signRevocation(owner, domain, revocation));
  const mined = await (await chain.registry.connect(owner).revoke(agent, afterSeq)).wait();
  const { closesAt } = await chain.mandate(agent);
  report(
    output,
    { agent, afterSeq, closesAt, transaction: mined?.hash },
    `Revoked after payment ${afterSeq}. What is left can be closed back to the owner from ${time(closesAt)}.`,
  );
}

export interface Purchase {
  ref?: string;
  url?: string;
  method: string;
  memo?: string;
  processorUrl?: string;
}

export async function pay(
  session: Session,
  output: Output,
  agent: Address,
  payee: Address,
  amount: bigint,
  purchase: Purchase,
): Promise<void> {
  const wallet = await session.keys.load(agent);
  const path = join(
    session.options.home,
    "ledgers",
    `${session.chainId}-${session.rail.registry.slice(2, 10)}-${agent}.json`,
  );
  const state = existsSync(path) ? { state: parseLedgerState(JSON.parse(readFileSync(path, "utf8"))) } : {};
  const ledger = new AgentLedger({ domain: session.domain, agent, secret: saltSecret(wallet), ...state });
  const dispute = (await (await session.store()).mandate(agent))?.terms.dispute;
  const hold = dispute && { payee, holdback: BigInt(dispute.holdback) };
  const account = hold === undefined ? payee : holdOf(dispute!.module, agent, payee, hold.holdback);
  const { payment, salt } = ledger.draft({ payee: account, amount, ref: refOf(purchase) });
  keep(path, ledger);
  const signature = await signPayment(wallet, session.domain, payment);
  const send = purchase.processorUrl ? overHttp(purchase.processorUrl) : await inProcess(session);
  try {
    const answer = await send({ agent, payment, signature, salt, ...(hold === undefined ? {} : { hold }) });
    ledger.commit();
    keep(path, ledger);
    report(
      output,
      answer,
      `Accepted: payment ${payment.seq} of ${formatAmount(amount)} to ${payee}; settles by ${time(answer.receipt.settleBy)}.`,
    );
  } catch (error) {
    // What is not decided yet is sent again as it is.
    if (error instanceof BursarError && ERRORS[error.code].status < 500) {
      ledger.discard();
      keep(path, ledger);
    }
    throw error;
  }
}

type Send = (request: SignedPayment) => Promise<SignedReceipt>;

async function inProcess(session: Session): Promise<Send> {
  const processor = await session.processor();
  return (request) => processor.accept(request);
}

/** A refusal is an answer; anything else leaves the payment's fate unknown, and it must be sent again as it is. */
function overHttp(url: string): Send {
  return async (request) => {
    const response = await fetch(below(url, "/payments"), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(toWire(request)),
    }).catch((error: unknown) => {
      throw unanswered(url, (error as Error).message);
    });
    const body: unknown = await response.json();
    if (response.ok) return parseWire(signedReceiptSchema, body);
    const { code, detail, details, advice } = body as Problem;
    if (response.status >= 500) throw unanswered(url, detail);
    throw new BursarError(code, detail, details, advice);
  };
}

function unanswered(url: string, reason: string): BursarError {
  return new BursarError(
    "chain-unavailable",
    `The processor at ${url} gave no answer: ${reason}`,
    { value: url },
    "Repeat the same command: it resends the same payment.",
  );
}

function refOf({ ref, url, method, memo }: Purchase): Hex {
  if (ref !== undefined) return parseWire(bytes32Schema, ref);
  if (url !== undefined) return requestRef({ method, url });
  if (memo !== undefined) return keccak256(toUtf8Bytes(memo)) as Hex;
  throw new BursarError("malformed-input", "What is bought is missing.", {}, "Pass --url, --memo or --ref.");
}

/** The secret behind the page salts follows from the session key, so that one file restores the agent. */
function saltSecret(wallet: Wallet): Hex {
  return keccak256(concat([toUtf8Bytes("bursar.salt"), wallet.privateKey])) as Hex;
}

function keep(path: string, ledger: AgentLedger): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  writeFileSync(`${path}.new`, JSON.stringify(toWire(ledger.state)), { mode: 0o600, flush: true });
  renameSync(`${path}.new`, path);
}

export async function batch(session: Session, output: Output): Promise<void> {
  const prover = new Prover();
  try {
    const settler = await session.settler(prover);
    const planned = (await (await session.store()).batches(["planned", "proving"]))[0] ?? (await settler.plan());
    if (!planned) {
      report(output, null, "No payment waits.");
      return;
    }
    progress(
      output,
      `proving ${planned.payments} payments of ${planned.rows.length} mandates in circuit ${planned.circuit}`,
    );
    const proved = await settler.prove(planned.id);
    report(
      output,
      proved,
      `Batch ${proved.id} is proved (${proved.payments} payments, ${proved.provedInMs} ms). Run \`bursar settle\`.`,
    );
  } finally {
    prover.close();
  }
}

export async function settle(session: Session, output: Output): Promise<void> {
  const prover = new Prover();
  try {
    const settler = await session.settler(prover);
    const open = await (await session.store()).batches(["planned", "proving", "proved", "submitted"]);
    const ended: BatchRecord[] = [];
    for (const { id, state } of open) {
      progress(output, `batch ${id} is ${state}`);
      ended.push(await settler.finish(id));
    }
    report(output, ended, ended.length === 0 ? "No batch is under way." : batchTable(ended));
  } finally {
    prover.close();
  }
}

export async function payout(session: Session, output: Output, payee: Address, tokenName?: string): Promise<void> {
  const { chain } = session;
  const token = session.token(tokenName);
  const credit = await chain.escrow.creditOf(token, payee);
  if (credit === 0n) {
    report(output, { payee, token, paid: 0n }, `${payee} has no credit.`);
    return;
  }
  const sender = await session.account("sweeper");
  const mined = await (await chain.escrow.connect(sender).sweepCredit(token, payee)).wait();
  report(
    output,
    { payee, token, paid: credit, transaction: mined?.hash },
    `${payee} was paid ${formatAmount(credit / (await chain.escrow.unitScale(token)))}.`,
  );
}

export async function status(session: Session, output: Output): Promise<void> {
  const counts = await (await session.store()).counts();
  const batches = await (await session.store()).batches();
  const queue = await session.queue({ watch: false });
  const [jobs, dead] = [await queue.counts(), await queue.dead()];
  const text = [
    `${counts.mandates} mandates, ${counts.payments} payments accepted (${counts.unbatched} in no batch), ${counts.refusals} refused`,
    batches.length === 0 ? "no batches" : batchTable(batches),
    `${jobs.waiting} batches wait to be proved, ${jobs.active} are being proved, ${jobs.dead} were given up`,
    ...dead.map(({ batch, reason }) => `batch ${batch} was given up: ${reason}; see \`bursar prove --retry ${batch}\``),
  ].join("\n");
  report(output, { ...counts, batches, proofs: { ...jobs, givenUp: dead } }, text);
  return Promise.resolve();
}

export async function ledger(session: Session, output: Output, filter: LedgerFilter, csv: boolean): Promise<void> {
  const store = await session.store();
  if (csv) {
    const lines = csvLines((before = filter.before) => store.ledger({ ...filter, before, limit: 1_000 }));
    for await (const line of lines) output.out(line.trimEnd());
    return;
  }
  const entries = await store.ledger(filter);
  const names = await payeeNames(store, entries);
  report(
    output,
    entries,
    ledgerTable(entries, (payee) => names.get(payee) ?? short(payee)),
  );
}

/** What the payees of some lines are called, or the payees whose holds were paid. */
async function payeeNames(store: Store, entries: readonly LedgerEntry[]): Promise<Map<string, string>> {
  const names = new Map<string, string>();
  for (const payee of new Set(entries.map((entry) => entry.payee))) {
    const profile = await store.payee(await store.holderOf(payee));
    if (profile) names.set(payee, profile.name);
  }
  return names;
}

export async function createKey(session: Session, output: Output, name: string, scope: KeyScope): Promise<void> {
  const created = await new ApiKeys((await session.store()).database, now).create(name, scope);
  report(output, { ...created, name, scope }, `Key ${created.id} of ${scope}. It is shown once:\n${created.key}`);
  return Promise.resolve();
}

export async function listKeys(session: Session, output: Output): Promise<void> {
  const keys = await new ApiKeys((await session.store()).database, now).list();
  const rows = keys.map((key) => [
    String(key.id),
    key.name,
    key.scope,
    time(key.createdAt),
    key.revokedAt === null ? "" : time(key.revokedAt),
  ]);
  report(output, keys, table(["id", "name", "may read", "created", "revoked"], rows));
  return Promise.resolve();
}

export async function revokeKey(session: Session, output: Output, id: number): Promise<void> {
  await new ApiKeys((await session.store()).database, now).revoke(id);
  report(output, { id }, `Key ${id} is revoked.`);
  return Promise.resolve();
}

/** Options of `bursar serve`, as commander gives them. */
export interface ServeOptions {
  readonly host: string;
  readonly port: number;
  readonly metricsHost: string;
  readonly metricsPort?: number;
  readonly publicUrl: string;
  readonly settleEvery: number;
  readonly settleBelow?: string;
  readonly provers: number;
  readonly replaceAfter: number;
  readonly gasBudgetEthPerDay?: string;
  readonly minBalanceEth?: string;
  readonly paymentsPerSecond: number;
  readonly burst: number;
  readonly requestsPerSecond: number;
  readonly trustedProxies: readonly string[];
  readonly origins: readonly string[];
  readonly bodyLimit: number;
  readonly maxConnections: number;
  readonly logLevel: string;
  /** A list of chains, in place of one. */
  readonly chains?: string;
}

/** Serves until SIGINT or SIGTERM; a second one ends it at once. */
export async function serve(session: Session, output: Output, options: ServeOptions): Promise<void> {
  const {
    logLevel,
    provers: count,
    metricsPort = null,
    replaceAfter,
    gasBudgetEthPerDay,
    minBalanceEth,
    ...rest
  } = options;
  const settleBelow = options.settleBelow === undefined ? null : parseUnits(options.settleBelow, "gwei");
  const { settleWithin } = session.options;
  const { finality, maxFeePerGas, alarms } = session;
  const maxSkew = session.local ? null : SERVICE_DEFAULTS.maxSkew;
  const wei = (eth: string | undefined): bigint | undefined => (eth === undefined ? undefined : parseEth(eth));
  const bounds = { maxFeePerGas, gasBudget: wei(gasBudgetEthPerDay), minBalance: wei(minBalanceEth) };
  const config = {
    ...rest,
    settleBelow,
    metricsPort,
    replaceAfter: BigInt(replaceAfter),
    settleWithin,
    finality,
    maxSkew,
    ...bounds,
  };
  const provers = Array.from({ length: count }, () => new Prover());
  // Challenges are answered here, wherever batches are proved.
  const prover = provers[0] ?? new Prover();
  try {
    const service = await startService({
      config,
      chain: session.chain,
      provider: session.provider,
      store: await session.store(),
      witness: session.witness(),
      signer: await session.account("processor"),
      prover,
      provers,
      alarms,
      logger: createLogger(logLevel, process.stdout),
      now,
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    });
    progress(output, `listening on ${service.url}`);
    if (service.metricsUrl !== null) progress(output, `metrics on ${service.metricsUrl}/metrics`);
    await interrupted();
    progress(output, "finishing what was begun; interrupt again to end at once");
    await service.stop();
  } finally {
    for (const one of [prover, ...provers]) one.close();
  }
}

/** Resolves at SIGINT or SIGTERM; a second one ends the process. */
export function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.once(signal, () => {
        process.once(signal, () => process.exit(1));
        resolve();
      });
    }
  });
}

/** What a service would run with; secrets are in none of it. */
export function showConfig(output: Output, commands: readonly Command[]): void {
  const settings = commands.flatMap((command) =>
    command.options
      .map((option) => option.attributeName())
      .filter((name) => name !== "json" && name !== "config")
      .map((name) => ({
        name,
        value: withoutSecrets(name, command.getOptionValue(name)),
        source: command.getOptionValueSource(name) ?? "default",
      })),
  );
  const rows = settings.map(({ name, value, source }) => [name, shown(value), source]);
  report(output, settings, table(["option", "value", "from"], rows));
}

/** Providers put their key into the URL of the chain, databases a password: all but the host may be a secret. */
function withoutSecrets(name: string, value: unknown): unknown {
  if (name === "chains" && String(value).trimStart().startsWith("[")) return "[hidden]";
  if (!["rpc", "database"].includes(name) || value === undefined) return value;
  const shown = (Array.isArray(value) ? (value as string[]) : [value as string]).map((one) => {
    if (!URL.canParse(one)) return one;
    const { protocol, host, pathname, search, username, password } = new URL(one);
    const plain = pathname + search + username + password === "/";
    return plain ? one : `${protocol}//${host}/[hidden]`;
  });
  return shown.length === 1 ? shown[0] : shown;
}

function shown(value: unknown): string {
  return typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value);
}

function batchTable(batches: readonly BatchRecord[]): string {
  return table(
    ["batch", "state", "circuit", "mandates", "payments", "total", "gas", "gas/payment", "transaction", "error"],
    batches.map((b) => [
      String(b.id),
      b.state,
      b.circuit,
      String(b.rows.length),
      String(b.payments),
      formatAmount(b.total),
      b.gasUsed === null ? "" : String(b.gasUsed),
      b.gasUsed === null ? "" : String(b.gasUsed / BigInt(b.payments)),
      b.transaction ?? "",
      b.error ?? "",
    ]),
  );
}
