import {
  BursarError,
  type Address,
  type DirectPayment,
  type Hex,
  type Line,
  type Mandate,
  type Payment,
  type Terms,
} from "@bursar/protocol";

import { Database, type Columns } from "./database.ts";
import { addTransaction, transactionsAt, transactionsOf, transactionsSince, type OutboxBook } from "./outbox-book.ts";
import type {
  AcceptedPayment,
  BatchRecord,
  BatchState,
  DirectKind,
  DirectRecord,
  LedgerEntry,
  LedgerFilter,
  MandateRecord,
  OutboxEntry,
  PayeeProfile,
  PaymentRail,
  PaymentStatus,
  Refusal,
  SettledRow,
} from "./records.ts";
import { SCHEMA } from "./schema.ts";

const text = (row: Columns, column: string): string => String(row[column]);
const whole = (row: Columns, column: string): bigint => BigInt(row[column] as number);
const optional = <T>(value: Columns[string] | undefined, read: (present: string) => T): T | null =>
  value === null || value === undefined ? null : read(String(value));

/** JSON of records whose strings are all hex, with bigints as `<digits>n`. */
const encode = (value: unknown): string =>
  JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? `${item}n` : item));
const decode = (json: string): unknown =>
  JSON.parse(json, (_key, item: unknown) =>
    typeof item === "string" && /^\d+n$/.test(item) ? BigInt(item.slice(0, -1)) : item,
  );

export interface StoreOptions {
  /** Unix seconds; the machine's clock unless given. */
  now?: () => bigint;
  /** Seconds after a receipt's settle-by until its payment can be claimed; 2 h unless given. */
  grace?: bigint;
}

/** Mandates that are kept at hand. */
const KEPT = 10_000;

/** The processor's books of mandates, payments and batches. Amounts are decimal text: SQLite's integers end at 2^63−1. */
export class Store implements OutboxBook {
  readonly database: Database;
  readonly #now: () => bigint;
  readonly #grace: bigint;
  readonly #mandates = new Map<Address, MandateRecord>();
  #next: { position: number; logIndex: number } | null = null;
  #generation = 0;
  #version = 0;
  #transacting = false;

  /** @param path - file of the database, created if missing; `:memory:` for a store that is not kept. */
  constructor(path: string, options: StoreOptions = {}) {
    this.#now = options.now ?? (() => BigInt(Math.floor(Date.now() / 1_000)));
    this.#grace = options.grace ?? 7_200n;
    this.database = new Database(path);
    this.database.create(SCHEMA);
  }

  close(): void {
    this.database.close();
  }

  /** Runs `work` in one transaction: all of it is on disk when this returns, or none. */
  transact<T>(work: () => T): T {
    try {
      return this.database.transact(() => {
        this.#notice();
        this.#transacting = true;
        return work();
      });
    } catch (error) {
      this.#forget();
      throw error;
    } finally {
      this.#transacting = false;
    }
  }

  /** Changes when what was read before may no longer hold: another process wrote, or a write of this one failed. */
  generation(): number {
    this.#notice();
    return this.#generation;
  }

  /** Registers a mandate once; a second call with the same agent changes nothing. */
  addMandate(record: MandateRecord): void {
    const { mandate, terms, unitScale, settled, revokedAt, closesAt } = record;
    this.database.run(
      `INSERT INTO mandate (agent, owner, mandate, terms, unit_scale, base, seq, spent, revoked_at, closes_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent) DO NOTHING`,
      mandate.agent,
      mandate.owner,
      encode(mandate),
      JSON.stringify(terms),
      unitScale.toString(),
      settled.base.toString(),
      Number(settled.seq),
      settled.spent.toString(),
      revokedAt === null ? null : Number(revokedAt),
      Number(closesAt),
    );
  }

  mandate(agent: Address): MandateRecord | undefined {
    this.#notice();
    const kept = this.#mandates.get(agent);
    if (kept) return kept;
    const row = this.database.get("SELECT * FROM mandate WHERE agent = ?", agent);
    if (!row) return undefined;
    const record = readMandate(row);
    if (this.#mandates.size >= KEPT) this.#mandates.delete(this.#mandates.keys().next().value!);
    this.#mandates.set(agent, record);
    return record;
  }

  /** @throws BursarError `mandate-unknown` */
  mandateOf(agent: Address): MandateRecord {
    const record = this.mandate(agent);
    if (!record) {
      throw new BursarError(
        "mandate-unknown",
        `This processor has no mandate of ${agent}.`,
        { value: agent },
        "Open the mandate on chain and register its terms with this processor first.",
      );
    }
    return record;
  }

  /** All mandates, or those of one owner, in the order of their registration. */
  mandates(owner?: Address): MandateRecord[] {
    return this.database
      .all("SELECT * FROM mandate WHERE ?1 IS NULL OR owner = ?1 ORDER BY rowid", owner ?? null)
      .map(readMandate);
  }

  /** @param closesAt - Unix seconds from which on the contract settles nothing more, if the chain said so. */
  markRevoked(agent: Address, at: bigint, closesAt?: bigint): void {
    this.database.run(
      "UPDATE mandate SET revoked_at = COALESCE(revoked_at, ?), closes_at = COALESCE(?, closes_at) WHERE agent = ?",
      Number(at),
      closesAt === undefined ? null : Number(closesAt),
      agent,
    );
    this.#mandates.delete(agent);
  }

  setSettled(agent: Address, settled: MandateRecord["settled"]): void {
    this.database.run(
      "UPDATE mandate SET base = ?, seq = ?, spent = ? WHERE agent = ?",
      settled.base.toString(),
      Number(settled.seq),
      settled.spent.toString(),
      agent,
    );
    this.#mandates.delete(agent);
  }

  /** Leaves a mandate out of all further batches, so that it disturbs nobody else's. */
  exclude(agent: Address, reason: string): void {
    this.database.run("UPDATE mandate SET excluded = ? WHERE agent = ?", reason, agent);
  }

  /** Why a mandate is left out of batches, or null. */
  excluded(agent: Address): string | null {
    return optional(this.database.get("SELECT excluded FROM mandate WHERE agent = ?", agent)?.["excluded"], String);
  }

  putPayee(profile: PayeeProfile): void {
    this.database.run(
      `INSERT INTO payee (address, name, host, category) VALUES (?, ?, ?, ?)
       ON CONFLICT (address) DO UPDATE SET name = excluded.name, host = excluded.host, category = excluded.category`,
      profile.address,
      profile.name,
      profile.host,
      profile.category,
    );
  }

  payee(address: Address): PayeeProfile | undefined {
    return this.database.get("SELECT * FROM payee WHERE address = ?", address) as unknown as PayeeProfile | undefined;
  }

  /** Keeps whose hold an account is. */
  addHold(account: Address, payee: Address): void {
    this.database.run(
      "INSERT INTO hold (account, payee) VALUES (?, ?) ON CONFLICT (account) DO NOTHING",
      account,
      payee,
    );
  }

  /** The payee whose hold an account is, or else the account itself. */
  holderOf(account: Address): Address {
    const row = this.database.get("SELECT payee FROM hold WHERE account = ?", account);
    return row === undefined ? account : (text(row, "payee") as Address);
  }

  payees(): PayeeProfile[] {
    return this.database.all("SELECT * FROM payee ORDER BY name, address") as unknown as PayeeProfile[];
  }

  /** Records an accepted payment and gives it the next log index; inside {@link transact}. */
  addPayment(accepted: Omit<AcceptedPayment, "logIndex" | "batch">): AcceptedPayment {
    const next = this.#counters();
    const logIndex = next.logIndex++;
    const { agent, payment, signature, digest, salt, settleBy, acceptedAt } = accepted;
    this.database.run(
      `INSERT INTO payment (position, at, log_index, agent, seq, spent, payee, amount, ref, head, salt, digest, signature, settle_by)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      next.position++,
      Number(acceptedAt),
      logIndex,
      agent,
      Number(payment.seq),
      payment.spent.toString(),
      payment.line.payee,
      payment.line.amount.toString(),
      payment.line.ref,
      payment.head,
      salt.toString(),
      digest,
      signature,
      Number(settleBy),
    );
    return { ...accepted, logIndex: BigInt(logIndex), batch: null };
  }

  payment(agent: Address, seq: bigint): AcceptedPayment | undefined {
    const row = this.database.get(`${PAYMENTS} WHERE agent = ? AND seq = ?`, agent, Number(seq));
    return row && paymentOf(row);
  }

  lastPayment(agent: Address): AcceptedPayment | undefined {
    const row = this.database.get(`${PAYMENTS} WHERE agent = ? ORDER BY seq DESC LIMIT 1`, agent);
    return row && paymentOf(row);
  }

  /** Head of the ledger after payment `seq`, which must have been accepted. */
  headAt(agent: Address, seq: bigint): Hex {
    const row = this.database.get("SELECT head FROM payment WHERE agent = ? AND seq = ?", agent, Number(seq));
    if (!row) throw new Error(`payment ${seq} of ${agent} is missing from the store`);
    return text(row, "head") as Hex;
  }

  /** Payments `from … to` of one ledger, in order. */
  payments(agent: Address, from: bigint, to: bigint): AcceptedPayment[] {
    return this.database
      .all(`${PAYMENTS} WHERE agent = ? AND seq BETWEEN ? AND ? ORDER BY seq`, agent, Number(from), Number(to))
      .map(paymentOf);
  }

  /** Mandates that have payments in no batch and none in an unfinished one, the most urgent first. */
  unbatched(): { agent: Address; to: bigint }[] {
    return this.database
      .all(
        `SELECT agent, MAX(seq) AS last FROM payment AS p
         WHERE batch IS NULL AND EXISTS (
           SELECT 1 FROM mandate WHERE mandate.agent = p.agent AND excluded IS NULL AND closes_at > ?)
         AND NOT EXISTS (
           SELECT 1 FROM payment JOIN batch ON batch.id = payment.batch
           WHERE payment.agent = p.agent AND batch.state NOT IN ('settled', 'failed'))
         GROUP BY agent ORDER BY MIN(settle_by), agent`,
        Number(this.#now()),
      )
      .map((row) => ({
        agent: text(row, "agent") as Address,
        to: whole(row, "last"),
      }));
  }

  /** What an agent paid on both rails from `since` on, in the order of time. */
  spends(agent: Address, since: bigint): { at: bigint; amount: bigint }[] {
    return this.database
      .all(
        `SELECT at, amount FROM payment WHERE agent = ?1 AND at >= ?2
         UNION ALL SELECT at, amount FROM direct WHERE agent = ?1 AND at >= ?2 AND status <> 'failed' ORDER BY at`,
        agent,
        Number(since),
      )
      .map((row) => ({ at: whole(row, "at"), amount: BigInt(text(row, "amount")) }));
  }

  /** Records a payment of the direct rail; inside {@link transact}. */
  addDirect(direct: DirectPayment, acceptedAt: bigint): DirectRecord {
    const position = this.#counters().position++;
    this.database.run(
      `INSERT INTO direct (position, at, kind, agent, token, payee, amount, nonce, valid_after, valid_before, ref, digest, signature, status)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'accepted')`,
      position,
      Number(acceptedAt),
      direct.kind,
      direct.agent,
      direct.token,
      direct.payee,
      direct.amount.toString(),
      direct.nonce,
      direct.validAfter.toString(),
      direct.validBefore.toString(),
      direct.ref,
      direct.digest,
      direct.signature,
    );
    return { ...direct, position, acceptedAt, status: "accepted", transaction: null, error: null };
  }

  direct(kind: DirectKind, agent: Address, nonce: Hex): DirectRecord | undefined {
    const row = this.database.get(
      "SELECT * FROM direct WHERE kind = ? AND agent = ? AND nonce = ?",
      kind,
      agent,
      nonce,
    );
    return row && directOf(row);
  }

  /** Direct payments without an end, oldest first; those of one job if given. */
  openDirects(job?: string): DirectRecord[] {
    return this.database
      .all(
        `SELECT * FROM direct WHERE status IN ('accepted', 'submitted') AND (?1 IS NULL OR job = ?1) ORDER BY position`,
        job ?? null,
      )
      .map(directOf);
  }

  /** Jobs of direct payments that were begun and have no end. */
  directJobs(): string[] {
    return this.database
      .all("SELECT DISTINCT job FROM direct WHERE status = 'submitted' ORDER BY job")
      .map((row) => text(row, "job"));
  }

  /** Gives direct payments to a new job, before its transaction is signed. @returns the job, inside {@link transact}. */
  submitDirects(positions: readonly number[]): string {
    const signed = this.database.get("SELECT COUNT(*) AS signed FROM outbox")!["signed"] as number;
    const job = `direct:${signed}`;
    for (const position of positions) {
      this.database.run("UPDATE direct SET status = 'submitted', job = ? WHERE position = ?", job, position);
    }
    return job;
  }

  /** The job's transaction was mined and reverted: its payments wait for another one. */
  releaseDirects(job: string): void {
    this.database.run("UPDATE direct SET status = 'accepted', job = NULL WHERE job = ? AND status = 'submitted'", job);
  }

  /** The end of a direct payment; one that failed gives its units back to the budget. Inside {@link transact}. */
  endDirect(
    position: number,
    end: { status: "settled" | "failed"; transaction: Hex | null; error: string | null },
  ): void {
    this.database.run(
      "UPDATE direct SET status = ?, tx = ?, error = ? WHERE position = ?",
      end.status,
      end.transaction,
      end.error,
      position,
    );
    if (end.status === "failed") ++this.#generation;
  }

  /** Units of direct payments that were not refused by the chain. */
  reserved(agent: Address): bigint {
    return this.database
      .all("SELECT amount FROM direct WHERE agent = ? AND status <> 'failed'", agent)
      .reduce((sum, row) => sum + BigInt(text(row, "amount")), 0n);
  }

  /** Keeps a refusal once for each payment and reason; inside {@link transact}. */
  addRefusal(refusal: Refusal & { digest: Hex }): void {
    const { agent, digest, code, payment } = refusal;
    const known = this.database.get(
      "SELECT 1 AS known FROM refusal WHERE agent = ? AND digest = ? AND code = ?",
      agent,
      digest,
      code,
    );
    if (known) return;
    this.database.run(
      `INSERT INTO refusal (position, at, rail, agent, seq, spent, payee, amount, ref, head, digest, signature, code, message, details, advice)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      this.#counters().position++,
      Number(refusal.at),
      refusal.rail,
      agent,
      payment.seq?.toString() ?? null,
      payment.spent?.toString() ?? null,
      payment.line.payee,
      payment.line.amount.toString(),
      payment.line.ref,
      payment.head,
      digest,
      refusal.signature,
      code,
      refusal.message,
      JSON.stringify(refusal.details),
      refusal.advice,
    );
  }

  refusals(agent: Address): Refusal[] {
    return this.database.all("SELECT * FROM refusal WHERE agent = ? ORDER BY position", agent).map((row) => ({
      rail: text(row, "rail") as PaymentRail,
      agent: text(row, "agent") as Address,
      payment: {
        seq: optional(row["seq"], BigInt),
        spent: optional(row["spent"], BigInt),
        head: optional(row["head"], (head) => head as Hex),
        line: lineOf(row),
      },
      signature: text(row, "signature") as Hex,
      code: text(row, "code"),
      message: text(row, "message"),
      details: JSON.parse(text(row, "details")) as Record<string, string>,
      advice: optional(row["advice"], String),
      at: whole(row, "at"),
    }));
  }

  /** How far a payment has come, as agents and payees are told. */
  paymentStatus(agent: Address, seq: bigint): PaymentStatus | undefined {
    const row = this.database.get(
      `SELECT ${STATUS} AS status FROM payment AS p JOIN mandate AS m USING (agent) LEFT JOIN batch AS b ON b.id = p.batch
       WHERE agent = ?3 AND p.seq = ?4`,
      ...this.#moment(),
      agent,
      Number(seq),
    );
    return row && (text(row, "status") as PaymentStatus);
  }

  /** Accepted and refused payments together, newest first; `before` pages through them and is unmoved by new rows. */
  ledger(filter: LedgerFilter = {}): LedgerEntry[] {
    return this.database
      .all(
        LEDGER,
        ...this.#moment(),
        filter.agent ?? null,
        filter.owner ?? null,
        filter.payee ?? null,
        filter.kind ?? null,
        filter.status ?? null,
        filter.rail ?? null,
        filter.since === undefined ? null : Number(filter.since),
        filter.until === undefined ? null : Number(filter.until),
        filter.before ?? null,
        filter.limit ?? 100,
        filter.party ?? null,
      )
      .map((row) => ({
        position: Number(row["position"]),
        kind: text(row, "kind") as LedgerEntry["kind"],
        rail: text(row, "rail") as PaymentRail,
        agent: text(row, "agent") as Address,
        owner: text(row, "owner") as Address,
        purpose: text(row, "purpose"),
        seq: optional(row["seq"], BigInt),
        payee: text(row, "payee") as Address,
        amount: BigInt(text(row, "amount")),
        ref: text(row, "ref") as Hex,
        at: whole(row, "at"),
        status: text(row, "status") as LedgerEntry["status"],
        code: optional(row["code"], String),
        reason: optional(row["reason"], String),
        advice: optional(row["advice"], String),
        batch: optional(row["batch"], Number),
        transaction: optional(row["tx"], (hash) => hash as Hex),
      }));
  }

  /** Records a plan and takes its payments: `rows[i].count` of each mandate after its settled seq. */
  addBatch(plan: Pick<BatchRecord, "circuit" | "token" | "rows" | "payments" | "total" | "createdAt">): number {
    const { id } = this.database.get(
      `INSERT INTO batch (state, circuit, token, rows, payments, total, created_at)
       VALUES ('planned', ?, ?, ?, ?, ?, ?) RETURNING id`,
      plan.circuit,
      plan.token,
      encode(plan.rows),
      plan.payments,
      plan.total.toString(),
      Number(plan.createdAt),
    ) as { id: number };
    for (const row of plan.rows) {
      this.database.run(
        "UPDATE payment SET batch = ? WHERE agent = ? AND seq > ? AND seq <= ?",
        id,
        row.agent,
        Number(row.seq),
        Number(row.seq + row.count),
      );
    }
    return id;
  }

  batch(id: number): BatchRecord | undefined {
    const row = this.database.get(`${BATCHES} WHERE id = ?`, id);
    return row && batchOf(row);
  }

  batches(states?: readonly BatchState[]): BatchRecord[] {
    const all = this.database.all(`${BATCHES} ORDER BY id`).map(batchOf);
    return states ? all.filter((batch) => states.includes(batch.state)) : all;
  }

  /** The batches that settled last, the oldest of them first. */
  lastSettled(most: number): Promise<BatchRecord[]> {
    const rows = this.database.all(`${BATCHES} WHERE state = 'settled' ORDER BY id DESC LIMIT ?`, most);
    return Promise.resolve(rows.map(batchOf).reverse());
  }

  /** The proof is being made; after a crash it is made again. */
  markProving(id: number): void {
    this.database.run("UPDATE batch SET state = 'proving' WHERE id = ? AND state = 'planned'", id);
  }

  markProved(id: number, calldata: Hex, provedInMs: number): void {
    this.database.run(
      "UPDATE batch SET state = 'proved', calldata = ?, proved_in_ms = ? WHERE id = ?",
      calldata,
      provedInMs,
      id,
    );
  }

  /** Records a signed transaction before it is broadcast. */
  addTransaction(entry: Omit<OutboxEntry, "id">): Promise<void> {
    addTransaction(this.database, entry);
    return Promise.resolve();
  }

  /** A transaction of the batch is signed, and may be on its way. */
  markSubmitted(id: number): void {
    this.database.run("UPDATE batch SET state = 'submitted' WHERE id = ? AND state IN ('proved', 'submitted')", id);
  }

  /** Every signed transaction of a job, the newest first: replacements share a nonce. */
  transactions(job: string): Promise<OutboxEntry[]> {
    return Promise.resolve(transactionsOf(this.database, job));
  }

  transactionsAt(nonce: number): Promise<OutboxEntry[]> {
    return Promise.resolve(transactionsAt(this.database, nonce));
  }

  transactionsSince(time: bigint): Promise<OutboxEntry[]> {
    return Promise.resolve(transactionsSince(this.database, time));
  }

  /** Block up to which something was read from the chain, or null. */
  cursor(name: string): number | null {
    return optional(this.database.get("SELECT block FROM cursor WHERE name = ?", name)?.["block"], Number);
  }

  setCursor(name: string, block: number): void {
    this.database.run(
      "INSERT INTO cursor (name, block) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET block = excluded.block",
      name,
      block,
    );
  }

  /** The batch is final on chain: its mandates' next batch starts from what it left. */
  markSettled(id: number, mined: { transaction: Hex; block: number; gasUsed: bigint }): void {
    this.transact(() => {
      this.database.run(
        "UPDATE batch SET state = 'settled', tx = ?, block = ?, gas_used = ?, error = NULL WHERE id = ?",
        mined.transaction,
        mined.block,
        mined.gasUsed.toString(),
        id,
      );
      for (const row of this.batch(id)?.rows ?? []) {
        this.setSettled(row.agent, {
          base: row.newBase,
          seq: row.seq + row.count,
          spent: row.spent + row.debit,
        });
      }
    });
  }

  /** The batch will never settle: its payments wait for the next one. */
  markFailed(id: number, error: string): void {
    this.transact(() => {
      this.database.run("UPDATE batch SET state = 'failed', error = ? WHERE id = ?", error, id);
      this.database.run("UPDATE payment SET batch = NULL WHERE batch = ?", id);
    });
  }

  counts(): { mandates: number; payments: number; unbatched: number; refusals: number; directs: number } {
    return this.database.get(
      `SELECT (SELECT COUNT(*) FROM mandate) AS mandates, (SELECT COUNT(*) FROM payment) AS payments,
              (SELECT COUNT(*) FROM payment WHERE batch IS NULL) AS unbatched, (SELECT COUNT(*) FROM refusal) AS refusals,
              (SELECT COUNT(*) FROM direct) AS directs`,
    ) as { mandates: number; payments: number; unbatched: number; refusals: number; directs: number };
  }

  /** What is accepted and not settled, and how batches stand. */
  backlog(): { payments: number; units: bigint; oldest: bigint | null; batches: Record<BatchState, number> } {
    const unsettled = this.database.get(
      `SELECT COUNT(*) AS payments, SUM(CAST(amount AS INTEGER)) AS units, MIN(at) AS oldest
       FROM payment LEFT JOIN batch ON batch.id = payment.batch WHERE payment.batch IS NULL OR batch.state <> 'settled'`,
    )!;
    const counts = this.database.all("SELECT state, COUNT(*) AS count FROM batch GROUP BY state");
    const batches = { planned: 0, proving: 0, proved: 0, submitted: 0, settled: 0, failed: 0 };
    for (const row of counts) batches[row["state"] as BatchState] = Number(row["count"]);
    return {
      payments: Number(unsettled["payments"]),
      units: BigInt(unsettled["units"] ?? 0),
      oldest: optional(unsettled["oldest"], BigInt),
      batches,
    };
  }

  #moment(): [now: number, grace: number] {
    return [Number(this.#now()), Number(this.#grace)];
  }

  #counters(): { position: number; logIndex: number } {
    this.#next ??= this.database.get(
      `SELECT 1 + MAX((SELECT COALESCE(MAX(position), 0) FROM payment), (SELECT COALESCE(MAX(position), 0) FROM direct),
                      (SELECT COALESCE(MAX(position), 0) FROM refusal)) AS position,
              (SELECT COALESCE(MAX(log_index) + 1, 0) FROM payment) AS logIndex`,
    ) as { position: number; logIndex: number };
    return this.#next;
  }

  /** Nobody else can write during a transaction. */
  #notice(): void {
    if (this.#transacting) return;
    const version = this.database.version();
    if (version === this.#version) return;
    this.#version = version;
    this.#forget();
  }

  #forget(): void {
    this.#next = null;
    this.#mandates.clear();
    ++this.#generation;
  }
}

/** Of a payment p of mandate m in batch b, at the moment ?1 with the grace ?2. */
const STATUS = `CASE
  WHEN b.state = 'settled' THEN 'settled'
  WHEN m.closes_at <= ?1 THEN 'failed'
  WHEN p.settle_by + ?2 < ?1 THEN 'claimable'
  WHEN b.state = 'planned' THEN 'batched'
  WHEN b.state IN ('proving', 'proved') THEN 'proving'
  WHEN b.state = 'submitted' THEN 'submitted'
  ELSE 'accepted' END`;

/** The payee whose hold was paid. */
const holder = (payee: string): string => `(SELECT h.payee FROM hold AS h WHERE h.account = ${payee})`;

/** One kind of ledger lines, filtered, the newest first, and no more than are wanted in all. */
function linesOf(from: string, line: Readonly<Record<string, string>>): string {
  const { agent, payee, kind, status, rail, at, position } = line;
  return `SELECT * FROM (
    SELECT ${LINE.map((column) => `${line[column]} AS ${column}`).join(", ")}, m.owner, m.terms
    FROM ${from}
    WHERE (?3 IS NULL OR ${agent} = ?3) AND (?4 IS NULL OR m.owner = ?4) AND (?5 IS NULL OR ${payee} = ?5 OR ${holder(payee!)} = ?5)
      AND (?6 IS NULL OR ${kind} = ?6) AND (?7 IS NULL OR ${status} = ?7) AND (?8 IS NULL OR ${rail} = ?8)
      AND (?9 IS NULL OR ${at} >= ?9) AND (?10 IS NULL OR ${at} <= ?10) AND (?11 IS NULL OR ${position} < ?11)
      AND (?13 IS NULL OR ?13 IN (${agent}, m.owner, ${payee}, ${holder(payee!)}))
    ORDER BY ${position} DESC LIMIT ?12)`;
}

const LINE = [
  ...["position", "at", "kind", "rail", "agent", "seq", "payee", "amount", "ref"],
  ...["status", "code", "reason", "advice", "batch", "tx"],
] as const;

const of = (table: string, columns: readonly string[]): Record<string, string> =>
  Object.fromEntries(columns.map((column) => [column, `${table}.${column}`]));
const COMMON = ["position", "at", "agent", "payee", "amount", "ref"] as const;
const NOTHING = Object.fromEntries(
  ["seq", "code", "reason", "advice", "batch", "tx"].map((column) => [column, "NULL"]),
);

/** Each kind is cut to what is wanted before they are merged: a page costs the same however long the ledger is. */
const LEDGER = `SELECT *, json_extract(terms, '$.purpose') AS purpose FROM (
  ${[
    linesOf("payment AS p JOIN mandate AS m ON m.agent = p.agent LEFT JOIN batch AS b ON b.id = p.batch", {
      ...NOTHING,
      ...of("p", [...COMMON, "seq", "batch"]),
      kind: "'accepted'",
      rail: "'proved'",
      status: STATUS,
      tx: "b.tx",
    }),
    linesOf("direct AS d JOIN mandate AS m ON m.agent = d.agent", {
      ...NOTHING,
      ...of("d", [...COMMON, "status", "tx"]),
      kind: "'accepted'",
      rail: "d.kind",
      reason: "d.error",
    }),
    linesOf("refusal AS r JOIN mandate AS m ON m.agent = r.agent", {
      ...NOTHING,
      ...of("r", [...COMMON, "seq", "rail", "code", "advice"]),
      kind: "'refused'",
      status: "'refused'",
      reason: "r.message",
    }),
  ].join("\n  UNION ALL ")}
) ORDER BY position DESC LIMIT ?12`;

/** A batch that is under way shows its newest transaction. */
const BATCHES = `SELECT *, COALESCE(tx, (SELECT hash FROM outbox WHERE job = 'batch:' || batch.id ORDER BY id DESC LIMIT 1)) AS newest_tx FROM batch`;
const PAYMENTS = "SELECT * FROM payment";

function readMandate(row: Columns): MandateRecord {
  return {
    mandate: decode(text(row, "mandate")) as Mandate,
    terms: JSON.parse(text(row, "terms")) as Terms,
    unitScale: BigInt(text(row, "unit_scale")),
    settled: { base: BigInt(text(row, "base")), seq: whole(row, "seq"), spent: BigInt(text(row, "spent")) },
    revokedAt: optional(row["revoked_at"], BigInt),
    closesAt: whole(row, "closes_at"),
  };
}

function lineOf(row: Columns): Line {
  return {
    payee: text(row, "payee") as Address,
    amount: BigInt(text(row, "amount")),
    ref: text(row, "ref") as Hex,
  };
}

function signedLine(row: Columns): Payment {
  return {
    seq: whole(row, "seq"),
    spent: BigInt(text(row, "spent")),
    head: text(row, "head") as Hex,
    line: lineOf(row),
  };
}

function directOf(row: Columns): DirectRecord {
  return {
    ...lineOf(row),
    kind: text(row, "kind") as DirectKind,
    agent: text(row, "agent") as Address,
    token: text(row, "token") as Address,
    nonce: text(row, "nonce") as Hex,
    validAfter: BigInt(text(row, "valid_after")),
    validBefore: BigInt(text(row, "valid_before")),
    digest: text(row, "digest") as Hex,
    signature: text(row, "signature") as Hex,
    position: Number(row["position"]),
    acceptedAt: whole(row, "at"),
    status: text(row, "status") as DirectRecord["status"],
    transaction: optional(row["tx"], (hash) => hash as Hex),
    error: optional(row["error"], String),
  };
}

function paymentOf(row: Columns): AcceptedPayment {
  return {
    agent: text(row, "agent") as Address,
    payment: signedLine(row),
    signature: text(row, "signature") as Hex,
    digest: text(row, "digest") as Hex,
    salt: BigInt(text(row, "salt")),
    logIndex: whole(row, "log_index"),
    settleBy: whole(row, "settle_by"),
    acceptedAt: whole(row, "at"),
    batch: optional(row["batch"], Number),
  };
}

function batchOf(row: Columns): BatchRecord {
  return {
    id: Number(row["id"]),
    state: text(row, "state") as BatchState,
    circuit: text(row, "circuit"),
    token: text(row, "token") as Address,
    rows: decode(text(row, "rows")) as SettledRow[],
    payments: Number(row["payments"]),
    total: BigInt(text(row, "total")),
    createdAt: whole(row, "created_at"),
    calldata: optional(row["calldata"], (data) => data as Hex),
    provedInMs: optional(row["proved_in_ms"], Number),
    transaction: optional(row["newest_tx"], (hash) => hash as Hex),
    block: optional(row["block"], Number),
    gasUsed: optional(row["gas_used"], BigInt),
    error: optional(row["error"], String),
  };
}
