import {
  BursarError,
  evidenceSchema,
  formatAmount,
  parseWire,
  signedDeliverySchema,
  type Address,
  type Evidence,
} from "@bursar/protocol";
import { InvalidArgumentError, Option, type Command } from "commander";
import type { ContractTransactionResponse, Wallet } from "ethers";

import type { Disputes } from "../../../../typechain-types/index.ts";
import {
  checkEvidence,
  DISPUTE_KINDS,
  filingOf,
  listDisputes,
  readDispute,
  type DisputeKind,
  type DisputeView,
} from "../disputes.ts";
import { explainedByAdvice } from "./dispute-errors.ts";
import {
  checkFile,
  getFile,
  makeDelivery,
  makeEvidence,
  readEvidence,
  readJson,
  sendFile,
  type DeliveryOptions,
  type EvidenceOptions,
} from "./evidence.ts";
import { address, between } from "./options.ts";
import { report, short, table, time, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import type { Session } from "./session.ts";

interface As {
  as: string;
}
interface HoldOptions {
  holdback?: number;
}

const whole = (text: string): bigint => {
  if (/^[1-9]\d{0,18}$/.test(text)) return BigInt(text);
  throw new InvalidArgumentError(`«${text}» is no whole number from 1.`);
};
const by = (name: string): Option => new Option("--as <key>", "whose key acts, by its name here").default(name);
const holdback = (): Option =>
  new Option("--holdback <seconds>", "how long it waits; as in the mandate's terms by default").argParser(
    between(0, 604_800),
  );

/** Adds `bursar dispute …`: what owners, agents and payees do about a payment in a hold. */
export function addDisputeCommands(program: Command, scene: Scene): void {
  const { output, within } = scene;
  const dispute = program.command("dispute").description("payments that wait in holds: file, answer, escalate, end");
  addEvidenceCommands(dispute, scene);
  addFilingCommands(dispute, scene);

  dispute
    .command("show")
    .argument("<id>", "of the dispute", whole)
    .description("what it is about, how it stands, and what each side can do until when")
    .action(within((session, id: bigint) => show(session, output, id)));
  dispute
    .command("list")
    .description("disputes, newest first")
    .option("--party <address>", "only of this owner, agent or payee", address)
    .option("--open", "only those that have not ended")
    .action(
      within((session, options: { party?: Address; open?: boolean }) =>
        list(session, output, { party: options.party, open: options.open ?? false }),
      ),
    );
  for (const call of ["collect", "release"] as const) {
    dispute
      .command(call)
      .argument("<agent>", "who paid", address)
      .argument("<payee>", "whose hold it is", address)
      .description(
        call === "collect"
          ? "count what was settled into a hold: from then on it waits; anyone may"
          : "pay the payee what has waited long enough, as credit; anyone may",
      )
      .addOption(holdback())
      .action(
        within((session, agent: Address, payee: Address, options: HoldOptions) =>
          move(session, output, call, { agent, payee }, options),
        ),
      );
  }
  dispute
    .command("hold")
    .argument("<agent>", "who pays", address)
    .argument("<payee>", "whose hold it is", address)
    .description("the account that the agent pays instead of the payee, and what is in it")
    .addOption(holdback())
    .action(
      within((session, agent: Address, payee: Address, options: HoldOptions) =>
        showHold(session, output, { agent, payee }, options),
      ),
    );
  dispute
    .command("key")
    .argument("[name]", "such as payee or arbiter", "payee")
    .description("the account of a key on this machine, which is made if it is missing")
    .action(
      within(async (session, name: string) => {
        const { address: account } = await session.keys.loadOrCreate(name);
        report(output, { name, account }, account);
      }),
    );
}

function addEvidenceCommands(dispute: Command, { output, within }: Scene): void {
  const evidence = dispute.command("evidence").description("files that show what was paid, offered and delivered");
  evidence
    .command("make")
    .argument("<agent>", "who paid", address)
    .argument("<seq>", "number of the payment", whole)
    .description("write the file of one payment with its receipt, from this machine's books or from --paid")
    .option("--payee <address>", "whose hold was paid; one that this machine knows by default", address)
    .addOption(holdback())
    .option("--paid <file>", "payment and receipt as JSON, or the PAYMENT-SIGNATURE header")
    .option("--earlier <seq or file>", "for a double charge: the payment before")
    .option("--quote <file>", "for a price above the quote: the signed quote")
    .option("--delivery <file>", "the payee's signed delivery")
    .option("--statement <text>", "in plain words, for the arbiter")
    .option("--out <file>", "where to; evidence-<hash>.json by default")
    .action(
      within((session, agent: Address, seq: bigint, options: EvidenceOptions) =>
        makeEvidence(session, output, agent, seq, options),
      ),
    );
  evidence
    .command("check")
    .argument("<file>", "of evidence")
    .description("verify each signature, and receipt keys, settlement and hash against the chain")
    .action(within((session, path: string) => checkFile(session, output, path)));
  evidence
    .command("send")
    .argument("<file>", "of evidence")
    .description("leave it at the processor for the other side and the arbiter")
    .requiredOption("--processor-url <url>", "of its API")
    .addOption(by("owner"))
    .action(
      within((session, path: string, options: As & { processorUrl: string }) =>
        sendFile(session, output, path, options),
      ),
    );
  evidence
    .command("get")
    .argument("<hash>", "as in the dispute")
    .description("fetch the file of a hash from the processor, and verify that it has it")
    .requiredOption("--processor-url <url>", "of its API")
    .addOption(by("owner"))
    .option("--out <file>", "where to; evidence-<hash>.json by default")
    .action(
      within((session, hash: string, options: As & { processorUrl: string; out?: string }) =>
        getFile(session, output, hash, options),
      ),
    );
  evidence
    .command("deliver")
    .argument("<agent>", "who paid", address)
    .argument("<seq>", "number of the payment", whole)
    .description("sign, as the payee, that a payment was served")
    .addOption(by("payee"))
    .option("--ref <bytes32>", "what was bought; from this machine's books by default")
    .option("--body <file>", "what was delivered, to be hashed")
    .option("--out <file>", "where to; delivery-<agent>-<seq>.json by default")
    .action(
      within((session, agent: Address, seq: bigint, options: DeliveryOptions) =>
        makeDelivery(session, output, agent, seq, options),
      ),
    );
}

function addFilingCommands(dispute: Command, { output, within }: Scene): void {
  dispute
    .command("file")
    .argument("<evidence>", "file of the payment, see `bursar dispute evidence make`")
    .description("dispute a payment whose money waits in its hold; by the mandate's owner or its agent")
    .addOption(
      new Option("--kind <kind>", "why").choices([...DISPUTE_KINDS]).default("not-delivered" satisfies DisputeKind),
    )
    .addOption(by("owner"))
    .action(
      within((session, path: string, options: As & { kind: DisputeKind }) => file(session, output, path, options)),
    );
  dispute
    .command("answer")
    .argument("<id>", "of the dispute", whole)
    .argument("<file>", "a signed delivery or evidence with one; for the kind «other» evidence")
    .description("answer as the payee; a signed delivery may be sent by anyone")
    .addOption(by("payee"))
    .action(within((session, id: bigint, path: string, { as }: As) => answer(session, output, id, path, as)));
  dispute
    .command("refund")
    .argument("<id>", "of the dispute", whole)
    .description("give in, as the payee")
    .addOption(by("payee"))
    .action(
      within((session, id: bigint, { as }: As) =>
        change(
          session,
          output,
          id,
          as,
          (view) => view.state !== "refunded",
          (module) => module.refund(id),
        ),
      ),
    );
  dispute
    .command("escalate")
    .argument("<id>", "of the dispute", whole)
    .description("take an answered dispute to the arbiter, at its fee; by owner, agent or payee")
    .addOption(by("owner"))
    .action(within((session, id: bigint, { as }: As) => escalate(session, output, id, as)));
  dispute
    .command("resolve")
    .argument("<id>", "of the dispute", whole)
    .description("end a dispute whose deadline is over; anyone may")
    .addOption(by("sweeper"))
    .action(
      within((session, id: bigint, { as }: As) =>
        change(session, output, id, as, isOpen, (module) => module.resolve(id)),
      ),
    );
}

const isOpen = ({ state }: DisputeView): boolean => state !== "paid" && state !== "refunded";

/** Filing the same again shows the dispute that there is. */
async function file(
  session: Session,
  output: Output,
  path: string,
  { kind, as }: As & { kind: DisputeKind },
): Promise<void> {
  const { chain } = session;
  const evidence = readEvidence(path);
  const { dispute, agent, seq, hash } = await checkEvidence(chain, evidence);
  if (dispute !== null) {
    const view = await readDispute(chain, dispute);
    if (view.evidenceHash === hash) {
      report(output, { ...view, filed: false }, describe(view));
      return;
    }
    throw new BursarError(
      "transaction-failed",
      `Payment ${seq} of ${agent} is disputed already, with other evidence: dispute ${dispute}.`,
      { value: dispute, evidenceHash: view.evidenceHash },
      `See \`bursar dispute show ${dispute}\`: a payment is disputed once.`,
    );
  }
  const module = chain.disputes.connect(await account(session, as, agent));
  await sent(session, send(module, kind, evidence));
  const view = await readDispute(chain, await chain.disputes.disputeIdOf(agent, seq));
  report(output, { ...view, filed: true }, describe(view));
}

/** @throws BursarError `malformed-input` where the evidence lacks what the kind is proved by. */
function send(module: Disputes, kind: DisputeKind, evidence: Evidence): Promise<ContractTransactionResponse> {
  const { hold, purchase, earlier, hash } = filingOf(evidence);
  if (kind === "double-charge") {
    if (earlier === null) throw lacking(kind, "an earlier payment", "--earlier");
    return module.fileDoubleCharge(hold, purchase, earlier, hash);
  }
  if (kind === "over-quote") {
    const { quote } = parseWire(evidenceSchema, evidence);
    if (quote === undefined) throw lacking(kind, "a signed quote", "--quote");
    return module.fileOverQuote(hold, purchase, quote.quote, quote.signature, hash);
  }
  return module.file(DISPUTE_KINDS.indexOf(kind), hold, purchase, hash);
}

function lacking(kind: DisputeKind, what: string, option: string): BursarError {
  return new BursarError(
    "malformed-input",
    `«${kind}» is proved by ${what}, and the evidence has none.`,
    { value: kind },
    `Make the evidence again with ${option}.`,
  );
}

async function answer(session: Session, output: Output, id: bigint, path: string, as: string): Promise<void> {
  const { chain } = session;
  const { kind } = await readDispute(chain, id);
  const value = readJson(path);
  const open = ({ state }: DisputeView): boolean => state === "filed";
  if (kind === "other") {
    const { hash } = await checkEvidence(chain, readEvidence(path));
    return change(session, output, id, as, open, (module) => module.answer(id, hash));
  }
  const bare = (value as { delivery?: unknown; signature?: unknown }).signature !== undefined;
  const signed = bare ? parseWire(signedDeliverySchema, value) : parseWire(evidenceSchema, value).delivery;
  if (signed === undefined) throw new BursarError("malformed-input", `${path} has no delivery.`, { value: path });
  return change(session, output, id, as, open, (module) =>
    module.answerDelivery(id, signed.delivery, signed.signature),
  );
}

async function escalate(session: Session, output: Output, id: bigint, as: string): Promise<void> {
  const value = await session.chain.disputes.escalationCost(id);
  const waits = ({ state }: DisputeView): boolean => state !== "escalated";
  return change(session, output, id, as, waits, (module) => module.escalate(id, { value }));
}

/** Sends a transaction unless the dispute is where it leads already, and shows the dispute. */
async function change(
  session: Session,
  output: Output,
  id: bigint,
  as: string,
  needed: (view: DisputeView) => boolean,
  call: (module: Disputes) => Promise<ContractTransactionResponse>,
): Promise<void> {
  const { chain } = session;
  const before = await readDispute(chain, id);
  if (needed(before)) await sent(session, call(chain.disputes.connect(await account(session, as, before.agent))));
  await show(session, output, id);
}

async function show(session: Session, output: Output, id: bigint): Promise<void> {
  const view = await readDispute(session.chain, id);
  report(output, view, describe(view));
}

async function list(
  session: Session,
  output: Output,
  filter: { party: Address | undefined; open: boolean },
): Promise<void> {
  const views = await listDisputes(session.chain, filter);
  const rows = views.map((view) => [
    String(view.id),
    view.kind,
    view.state,
    short(view.agent),
    String(view.seq),
    short(view.payee),
    formatAmount(view.units),
    isOpen(view) ? time(view.deadline) : "",
  ]);
  report(output, views, table(["id", "kind", "state", "agent", "seq", "payee", "amount", "until"], rows));
}

type Pair = Readonly<{ agent: Address; payee: Address }>;

/** The holdback as named, or as the mandate's terms say. @throws BursarError `malformed-input` */
async function holdFor(session: Session, pair: Pair, { holdback }: HoldOptions): Promise<Pair & { holdback: bigint }> {
  const seconds = holdback ?? (await (await session.store()).mandate(pair.agent))?.terms.dispute?.holdback;
  if (seconds !== undefined) return { ...pair, holdback: BigInt(seconds) };
  throw new BursarError(
    "malformed-input",
    `This machine knows no holdback of ${pair.agent}.`,
    { value: pair.agent },
    "Pass --holdback, in seconds.",
  );
}

/** Parts of a hold that one release looks at. */
const PARTS = 100;

async function move(
  session: Session,
  output: Output,
  call: "collect" | "release",
  pair: Pair,
  options: HoldOptions,
): Promise<void> {
  const hold = await holdFor(session, pair, options);
  const module = session.chain.disputes.connect(await session.account("sweeper"));
  await sent(session, call === "collect" ? module.collect(hold) : module.release(hold, PARTS));
  await showHold(session, output, pair, options);
}

async function showHold(session: Session, output: Output, pair: Pair, options: HoldOptions): Promise<void> {
  const { disputes, registry, escrow } = session.chain;
  const hold = await holdFor(session, pair, options);
  const account = await disputes.holdOf(hold.agent, hold.payee, hold.holdback);
  const [state, token] = await Promise.all([disputes.holdStateOf(account), registry.tokenOf(hold.agent)]);
  const [balance, scale] = await Promise.all([escrow.balanceOf(token, account), escrow.unitScale(token)]);
  const { known, frozen, tranches, cursor } = state;
  const parts: { amount: bigint; maturesAt: bigint }[] = [];
  for (let index = cursor; index < tranches && parts.length < PARTS; index++) {
    const { amount, maturesAt } = await disputes.trancheOf(account, index);
    if (amount > 0n) parts.push({ amount, maturesAt });
  }
  const money = (base: bigint): string => formatAmount(base / scale);
  report(
    output,
    { hold: account, ...hold, token, balance, collected: known, frozen, parts },
    table(
      ["hold", account],
      [
        ["not collected", money(balance - known)],
        ["frozen", money(frozen)],
        ...parts.map(({ amount, maturesAt }) => [money(amount), `the payee's from ${time(maturesAt)}`]),
      ],
    ),
  );
}

/** A key of this machine with money for gas; `agent` is the session key of the mandate. @throws BursarError `key-missing` */
export async function account(session: Session, as: string, agent?: Address): Promise<Wallet> {
  const name = as === "agent" && agent !== undefined ? agent : as;
  if (!session.local || name !== "sweeper") {
    if (!session.keys.has(name)) await session.keys.load(name);
  }
  return session.account(name);
}

/** Waits for a transaction. @throws BursarError `transaction-failed` with the contract's own error and what to do. */
export async function sent(session: Session, call: Promise<ContractTransactionResponse>): Promise<void> {
  try {
    await (await call).wait();
  } catch (error) {
    throw error instanceof BursarError ? error : explainedByAdvice(session.chain.explain(error));
  }
}

function describe(view: DisputeView): string {
  const { id, kind, state, agent, seq, owner, payee, units, evidenceHash, answerHash, caseId, choices } = view;
  const choice = (one: DisputeView["choices"][number]): string[] => [
    one.who,
    `${one.action}${one.until === null ? "" : ` until ${time(one.until)}`}${one.from === null ? "" : ` from ${time(one.from)}`}: ${one.effect}`,
  ];
  return table(
    ["dispute", String(id)],
    [
      ["state", `${state}${isOpen(view) ? ` until ${time(view.deadline)}` : ""}`],
      ["kind", kind],
      ["payment", `${seq} of ${agent}`],
      ["amount", formatAmount(units)],
      ["owner", owner],
      ["payee", payee],
      ["evidence", evidenceHash],
      ...(answerHash === null ? [] : [["answer", answerHash]]),
      ...(caseId === null ? [] : [["case", String(caseId)]]),
      ...choices.map(choice),
    ],
  );
}
