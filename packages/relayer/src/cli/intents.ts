import {
  accessHeader,
  addressSchema,
  assertPolicyAgrees,
  BursarError,
  composeMandate,
  describeMandate,
  formatAmount,
  parseAddress,
  parseAmount,
  parseIntent,
  parseWire,
  signAccess,
  signMandate,
  signRevocation,
  termsHash,
  toWire,
  type Address,
  type Clause,
  type Intent,
  type Mandate,
  type Problem,
  type Terms,
} from "@bursar/protocol";
import type { Command } from "commander";
import { z } from "zod";

import { intentViewSchema } from "../http/intents.ts";
import { IntentBook, Intents, type IntentRequest, type IntentView, type OwnerAnswer } from "../intents.ts";
import { visible } from "../plain-text.ts";
import { report, short, table, time, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import { now, type Session } from "./session.ts";

/** What the group of commands runs in. */
export interface IntentScene extends Scene {
  readonly confirm: (question: string) => Promise<boolean>;
}

/** Adds `bursar intent draft|show|sign|list`. */
export function addIntentCommands(program: Command, { output, within, confirm }: IntentScene): void {
  const intent = program.command("intent").description("an agent asks for a mandate; its owner reads and signs once");
  const elsewhere = ["--processor-url <url>", "a processor's API, instead of this machine's database"] as const;

  intent
    .command("draft")
    .description("ask for a mandate as a fresh agent")
    .requiredOption("--budget <amount>", "in all, such as 5.00")
    .requiredOption("--cap <amount>", "for one payment, such as 0.01")
    .requiredOption("--purpose <text>", "why the agent may spend")
    .option("--days <number>", "how long, 1 to 90", "7")
    .option("--payee <address...>", "at most 8 payees, none means anyone (enforced by contract and proof)", [])
    .option("--host <glob...>", "hosts it may buy from (this and all below: enforced by the processor)", [])
    .option("--category <name...>", "categories it may buy", [])
    .option("--max-price <amount>", "for one call")
    .option("--per-day <amount>", "in any 24 hours")
    .option("--per-minute <number>", "payments in any 60 seconds")
    .option("--recurring <amount/period>", "an allowance that renews, such as 5.00/week, 1/day or 0.50/12h")
    .option("--replaces <agent>", "the owner's older mandate that this one takes the place of")
    .option("--owner <address>", "who is asked; this machine's owner key by default")
    .option("--processor <address>", "who checks and settles; the processor that is asked by default")
    .option("--token <symbol or address>", "which token")
    .option(...elsewhere)
    .option("--print", "print intent, mandate and signature, and send nothing")
    .action(within((session, options: DraftOptions) => draftIntent(session, output, options)));
  intent
    .command("show <agent>")
    .description("what an intent says and what must still happen")
    .option(...elsewhere)
    .action(
      within((session, agent: string, { processorUrl }: Elsewhere) =>
        showIntent(session, output, parseAddress(agent), processorUrl),
      ),
    );
  intent
    .command("sign <agent>")
    .description("read an intent in plain words and sign it once, as the owner")
    .option("--end-old", "with --replaces: also sign the end of the old mandate on chain")
    .option(...elsewhere)
    .option("--yes", "sign without asking")
    .action(
      within((session, agent: string, options: SignOptions) =>
        signIntent(session, output, parseAddress(agent), options, options.yes ? agreed : confirm),
      ),
    );
  intent
    .command("list")
    .description("the intents in this machine's database, newest first")
    .action(within((session) => listIntents(session, output)));
}

interface Elsewhere {
  processorUrl?: string;
}

export interface DraftOptions extends Elsewhere {
  budget: string;
  cap: string;
  purpose: string;
  days: string;
  payee: string[];
  host: string[];
  category: string[];
  maxPrice?: string;
  perDay?: string;
  perMinute?: string;
  recurring?: string;
  replaces?: string;
  owner?: string;
  processor?: string;
  token?: string;
  print?: boolean;
}

export interface SignOptions extends Elsewhere {
  endOld?: boolean;
  yes?: boolean;
}

const agreed = (): Promise<boolean> => Promise.resolve(true);

async function draftIntent(session: Session, output: Output, options: DraftOptions): Promise<void> {
  const intent = intentOf(options);
  const desk = await deskOf(session, options.processorUrl);
  const wallet = await session.keys.create();
  const parties = {
    owner: options.owner ? parseAddress(options.owner) : addressOf(await session.keys.loadOrCreate("owner")),
    agent: addressOf(wallet),
    token: session.token(options.token),
    processor: options.processor ? parseAddress(options.processor) : await desk.processor(),
    now: now(),
  };
  const { mandate, terms } = composeMandate(intent, parties);
  const agentSignature = await signMandate(wallet, session.domain, mandate);
  if (options.print) {
    const drafted = { intent, mandate, terms, agentSignature };
    report(output, drafted, JSON.stringify(toWire(drafted), null, 2));
    return;
  }
  const view = await desk.draft({ intent, mandate, agentSignature });
  report(output, view, [summary(view, session), `Ask the owner to sign: ${view.signUrl ?? ""}`].join("\n"));
}

async function showIntent(session: Session, output: Output, agent: Address, url?: string): Promise<void> {
  const view = await (await deskOf(session, url)).view(agent);
  report(output, view, summary(view, session));
}

async function signIntent(
  session: Session,
  output: Output,
  agent: Address,
  { processorUrl, endOld }: SignOptions,
  confirm: (question: string) => Promise<boolean>,
): Promise<void> {
  const desk = await deskOf(session, processorUrl);
  const view = await desk.view(agent);
  const owner = await session.keys.load("owner");
  const { mandate, terms } = agreeing(view, agent, addressOf(owner));
  if (!output.json) output.err(summary(view, session));
  if (!(await confirm("Sign this once, as the owner?"))) {
    throw new BursarError("malformed-input", "The owner did not sign.", {});
  }
  const ownerSignature = await signMandate(owner, session.domain, mandate);
  const old = endOld ? view.replaces?.revocation : undefined;
  if (endOld && (old === undefined || old.agent !== terms.replaces)) {
    throw new BursarError("malformed-input", "This intent replaces no other mandate.", { value: "--end-old" });
  }
  const signed = await desk.sign(agent, {
    ownerSignature,
    ...(old && { revocationSignature: await signRevocation(owner, session.domain, old), afterSeq: old.afterSeq }),
  });
  const note = signed.failure ? ` ${signed.failure}` : "";
  report(output, signed, `Signed: the mandate of agent ${agent} is ${signed.state}.${note}`);
}

async function listIntents(session: Session, output: Output): Promise<void> {
  const views = await localIntents(session).then((intents) => intents.list());
  const rows = views.map(({ agent, state, mandate, terms, symbol }) => [
    agent,
    state,
    short(mandate.owner),
    `${formatAmount(mandate.budget)} ${symbol}`,
    visible(terms.purpose).slice(0, 60),
  ]);
  report(output, views, table(["agent", "state", "owner", "budget", "purpose"], rows));
}

/** The mandate and terms, if they are one and for this owner: a processor elsewhere is not trusted with that. */
function agreeing(view: ShownIntent, agent: Address, owner: Address): { mandate: Mandate; terms: Terms } {
  const { mandate, terms, state } = view;
  if (mandate === undefined || terms === undefined || state !== "awaiting-signature") {
    throw new BursarError("intent-not-signable", `The intent of ${agent} is ${state}.`, {
      value: state,
      limit: "awaiting-signature",
    });
  }
  assertPolicyAgrees(mandate);
  const expected = [
    ["terms-mismatch", "The terms are not those of the mandate", termsHash(terms), mandate.termsHash],
    ["intent-mismatch", "The mandate is for another agent", mandate.agent, agent],
    ["signature-signer", "The mandate asks another owner than the key «owner»", owner, mandate.owner],
  ] as const;
  for (const [code, message, value, limit] of expected) {
    if (value !== limit) throw new BursarError(code, `${message}: ${value}, ${limit}.`, { value, limit });
  }
  return { mandate, terms };
}

function intentOf(options: DraftOptions): Intent {
  const { maxPrice, perDay, perMinute, recurring, replaces } = options;
  const units = (amount: string): string => parseAmount(amount).toString();
  const limits = {
    ...(maxPrice === undefined ? {} : { unitsPerCall: units(maxPrice) }),
    ...(perDay === undefined ? {} : { unitsPerDay: units(perDay) }),
    ...(perMinute === undefined ? {} : { paymentsPerMinute: perMinute }),
  };
  if (!/^[1-9]\d?$/.test(options.days)) {
    throw new BursarError("malformed-input", `--days is «${options.days}».`, { value: options.days, limit: "1..90" });
  }
  return parseIntent({
    purpose: options.purpose,
    budget: units(options.budget),
    paymentCap: units(options.cap),
    duration: (Number(options.days) * 86_400).toString(),
    categories: options.category,
    hosts: options.host,
    payees: options.payee,
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(recurring === undefined ? {} : { recurring: allowance(recurring) }),
    ...(replaces === undefined ? {} : { replaces }),
  });
}

const SECONDS: Readonly<Record<string, number>> = { m: 60, h: 3_600, d: 86_400, w: 604_800 };
const PERIOD = /^([\d.]+)\/(\d{0,4}) ?(m|h|d|w|minute|hour|day|week)s?$/;

/** `5.00/week` or `0.50/12h`. */
function allowance(text: string): { units: string; seconds: string } {
  const [, amount, count, unit] = PERIOD.exec(text) ?? [];
  const seconds = Number(count || 1) * (SECONDS[unit?.[0] ?? ""] ?? 0);
  if (amount === undefined || seconds === 0) {
    throw new BursarError("malformed-input", `--recurring is «${text}».`, {
      value: text,
      limit: "<amount>/<period>, such as 5.00/week or 0.50/12h",
    });
  }
  return { units: parseAmount(amount).toString(), seconds: seconds.toString() };
}

/** An intent in plain words, from the mandate and the terms themselves. */
function summary(view: ShownIntent, session: Session): string {
  const { agent, state, mandate, terms, missing, free, failure } = view;
  if (!mandate || !terms) return `The intent of ${agent} is ${state}.`;
  const { tokens } = session.rail;
  const symbol = Object.keys(tokens).find((name) => tokens[name] === mandate.token) ?? mandate.token;
  const money = (units: bigint): string => `${formatAmount(units)} ${symbol}`;
  const clauses = describeMandate(mandate, terms, symbol);
  const by = (title: string, enforcer: Clause["enforcedBy"]): string[] => [
    title,
    ...clauses
      .filter(({ enforcedBy, subject }) => enforcedBy === enforcer && subject !== "purpose")
      .map(({ subject, words }) => `  ${subject.padEnd(13)}${visible(words)}`),
  ];
  const lacking = missing && missing.funds > 0n ? [`  missing      ${money(missing.funds)}: deposit it first`] : [];
  return [
    `The agent ${agent} asks to spend, in its own words for:`,
    `  ${visible(terms.purpose)}`,
    ...by("Contract and proof enforce:", "contract and proof"),
    ...by(`The processor ${mandate.processor} alone enforces:`, "processor"),
    "Whose money:",
    `  owner        ${mandate.owner}`,
    ...(free == null ? [] : [`  free         ${money(free)}`]),
    ...lacking,
    `State: ${state}${view.expiresAt == null ? "" : `, forgotten at ${time(view.expiresAt)} unless signed`}`,
    ...(failure ? [`The last attempt did not succeed: ${visible(failure)}`] : []),
  ].join("\n");
}

/** An intent as a processor shows it: without mandate and terms to strangers. */
type ShownIntent = Pick<IntentView, "agent" | "state"> & {
  [K in "mandate" | "terms" | "missing" | "signUrl"]?: IntentView[K] | undefined;
} & { [K in "free" | "expiresAt" | "failure" | "replaces"]?: IntentView[K] | undefined };

/** Where intents are kept: in this machine's database, or at a processor's API. */
interface Desk {
  processor(): Promise<Address>;
  draft(draft: IntentRequest): Promise<ShownIntent>;
  view(agent: Address): Promise<ShownIntent>;
  sign(agent: Address, answer: OwnerAnswer): Promise<ShownIntent>;
}

async function deskOf(session: Session, url: string | undefined): Promise<Desk> {
  if (url !== undefined) return remoteDesk(session, url);
  const intents = await localIntents(session);
  return {
    processor: async () => addressOf(await session.keys.loadOrCreate("processor")),
    draft: (draft) => intents.draft(draft),
    view: (agent) => intents.view(agent),
    sign: (agent, answer) => intents.sign(agent, answer),
  };
}

/** Milliseconds that a command waits for the chain. */
const PATIENCE = 300_000;

async function localIntents(session: Session): Promise<Intents> {
  const { domain, chain } = session;
  const store = await session.store();
  return new Intents({
    domain,
    chain,
    book: new IntentBook(store.database),
    processor: await session.processor(),
    patience: PATIENCE,
    deliver: async (job, request) => {
      return (await session.outbox()).deliver(job, request);
    },
    now,
  });
}

function remoteDesk(session: Session, url: string): Desk {
  const shown = (body: unknown): ShownIntent => parseWire(intentViewSchema, body);
  return {
    processor: async () => parseWire(z.object({ processor: addressSchema }), await call(url, "GET", "/info")).processor,
    draft: async (draft) => shown(await call(url, "POST", "/intents", draft)),
    view: async (agent) => {
      const headers = await ownersAccess(session);
      return shown(await call(url, "GET", `/intents/${agent}`, undefined, headers));
    },
    sign: async (agent, answer) => shown(await call(url, "POST", `/intents/${agent}/signature`, answer)),
  };
}

/** Shows that this machine's owner asks, if it has the owner's key. */
async function ownersAccess({ keys, domain }: Session): Promise<Record<string, string>> {
  if (!keys.has("owner")) return {};
  const owner = await keys.load("owner");
  const access = { account: addressOf(owner), expiresAt: now() + 300n };
  return { authorization: accessHeader(access, await signAccess(owner, domain, access)) };
}

async function call(
  url: string,
  method: "GET" | "POST",
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<unknown> {
  const response = await fetch(`${url.replace(/\/$/, "")}${path}`, {
    method,
    headers: { ...headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    ...(body === undefined ? {} : { body: JSON.stringify(toWire(body)) }),
  }).catch((error: unknown) => {
    throw unanswered(url, (error as Error).message);
  });
  const answer: unknown = await response.json().catch(() => {
    throw unanswered(url, `status ${response.status} without JSON`);
  });
  if (response.ok) return answer;
  const { code, detail, details, advice } = answer as Problem;
  throw new BursarError(code, detail, details, advice);
}

function unanswered(url: string, reason: string): BursarError {
  return new BursarError(
    "chain-unavailable",
    `The processor at ${url} gave no answer: ${reason}`,
    { value: url },
    "Repeat the same command.",
  );
}

const addressOf = ({ address }: { address: string }): Address => address as Address;
