import {
  BursarError,
  PAGE_LINES,
  type Address,
  type DirectPayment,
  type Hex,
  type Line,
  type Mandate,
  type Payment,
  type Terms,
} from "@bursar/protocol";

import { BOOKS } from "./books.ts";
import { list, type Columns, type Database, type Value } from "./database.ts";
import { openDatabase } from "./open-database.ts";
import { addTransaction, transactionsAt, transactionsOf, transactionsSince, type OutboxBook } from "./outbox-book.ts";
import type { PostgresOptions } from "./postgres.ts";
import { ReceiptLog } from "./receipt-log.ts";
import type {
  AcceptedPayment,
  Backlog,
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
  Waiting,
} from "./records.ts";

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

export interface StoreOptions extends PostgresOptions {
  /** Unix seconds; the machine's clock unless given. */
  now?: () => bigint;
  /** Seconds after a receipt's settle-by until its payment can be claimed; 2 h unless given. */
  grace?: bigint;
}

/** What of a mandate never changes. */
type Signed = Pick<MandateRecord, "mandate" | "terms" | "unitScale">;

/** Mandates that are kept at hand. */
const KEPT = 10_000;

/** A mandate as it stands in the books, and how often what its next payment is decided on has changed. */
export interface LockedMandate extends MandateRecord {
  readonly version: number;
}

/** What one commit of the processor writes, in the order in which it was decided. */
export interface Decisions {
  readonly holds: { account: Address; payee: Address }[];
  /** Each with the trace that its batch goes on with, if it is traced. */
  readonly payments: (Omit<AcceptedPayment, "logIndex" | "batch"> & { readonly trace?: string | null })[];
  readonly directs: { direct: DirectPayment; acceptedAt: bigint }[];
  readonly refusals: (Refusal & { digest: Hex })[];
}

/**
 * The processor's books of mandates, payments and batches, in an SQLite file or in a PostgreSQL database that several
 * processes share. Amounts are decimal text: the engines' integers end at 2^63−1.
 */
export class Store implements OutboxBook {
  readonly database: Database;
  readonly receipts: ReceiptLog;
  readonly #now: () => bigint;
  readonly #grace: bigint;
  readonly #signed = new Map<Address, Signed>();

  private constructor(database: Database, options: StoreOptions) {
    this.#now = options.now ?? (() => BigInt(Math.floor(Date.now() / 1_000)));
    this.#grace = options.grace ?? 7_200n;
    this.database = database;
    this.receipts = new ReceiptLog(database);
  }

  /**
   * Opens the books and brings their tables to the newest version.
   * @param url - see {@link openDatabase}.
   * @throws BursarError `store-unavailable`
   */
  static async open(url: string, options: StoreOptions = {}): Promise<Store> {
    const database = openDatabase(url, options);
    try {
      await database.open(BOOKS);
    } catch (error) {
      await database.close();
      throw error;
    }
    return new Store(database, options);
  }

  close(): Promise<void> {
    return this.database.close();
  }

  /** Runs `work` in one transaction: all of it is on disk when this returns, or none. */
  transact<T>(work: () => Promise<T>): Promise<T> {
    return this.database.transact(work);
  }

  /** Registers a mandate once; a second call with the same agent changes nothing. */
  async addMandate(record: MandateRecord): Promise<void> {
    const { mandate, terms, unitScale, settled, revokedAt, closesAt } = record;
    await this.database.run(
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

  async mandate(agent: Address): Promise<MandateRecord | undefined> {
    const row = await this.database.get("SELECT * FROM mandate WHERE agent = ?", agent);
    return row && this.#readMandate(row);
  }

  /**
   * What of a mandate never changes: kept at hand once it was read.
   * @throws BursarError `mandate-unknown`
   */
  async signed(agent: Address): Promise<Signed> {
    return this.#signed.get(agent) ?? (await this.mandateOf(agent));
  }

  /**
   * The mandates of some agents as they stand, so that nobody else changes their ledgers until the transaction around
   * this ends.
   */
  async lockMandates(agents: readonly Address[]): Promise<Map<Address, LockedMandate>> {
    const rows = await this.database.all(
      `SELECT * FROM mandate WHERE agent IN ${list(agents.length)} ORDER BY agent FOR UPDATE`,
      ...agents,
    );
    return new Map(
      rows.map((row) => {
        const record = this.#readMandate(row);
        return [record.mandate.agent, { ...record, version: Number(row["version"]) }];
      }),
    );
  }

  /** @throws BursarError `mandate-unknown` */
  async mandateOf(agent: Address): Promise<MandateRecord> {
    const record = await this.mandate(agent);
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
  async mandates(owner?: Address): Promise<MandateRecord[]> {
    return (
      await this.database.all(
        "SELECT * FROM mandate WHERE CAST(?1 AS TEXT) IS NULL OR owner = ?1 ORDER BY id",
        owner ?? null,
      )
    ).map((row) => this.#readMandate(row));
  }

  /** @param closesAt - Unix seconds from which on the contract settles nothing more, if the chain said so. */
  async markRevoked(agent: Address, at: bigint, closesAt?: bigint): Promise<void> {
    await this.database.run(
      "UPDATE mandate SET revoked_at = COALESCE(revoked_at, ?), closes_at = COALESCE(?, closes_at) WHERE agent = ?",
      Number(at),
      closesAt === undefined ? null : Number(closesAt),
      agent,
    );
  }

  /** Where the chain stands; it never goes back. */
  async setSettled(agent: Address, settled: MandateRecord["settled"]): Promise<void> {
    await this.database.run(
      "UPDATE mandate SET base = ?1, seq = ?2, spent = ?3 WHERE agent = ?4 AND seq <= ?2",
      settled.base.toString(),
      Number(settled.seq),
      settled.spent.toString(),
      agent,
    );
  }

  /** Units settled on the direct rail that no line of these books is about. */
  async setUnknownDirect(agent: Address, units: bigint): Promise<void> {
    await this.database.run(
      "UPDATE mandate SET unknown_direct = ?1, version = version + 1 WHERE agent = ?2 AND unknown_direct <> ?1",
      units.toString(),
      agent,
    );
  }

  /**
   * Takes over where the chain stands, for a mandate that other books have settled further. Batches that were to settle
   * the same are given up, and what is settled goes into a batch of which nothing else is known.
   */
  async takeOver(agent: Address, settled: MandateRecord["settled"]): Promise<void> {
    await this.transact(async () => {
      await this.setSettled(agent, settled);
      for (const { id, rows } of await this.batches(["planned", "proving", "proved"])) {
        const overtaken = rows.some((row) => row.agent === agent && row.seq < settled.seq);
        if (overtaken) await this.markFailed(id, "The chain has settled its payments already.");
      }
      await this.#gatherSettled(agent);
    });
  }

  /** Puts payments up to the settled one that are in no batch into one that is settled. */
  async #gatherSettled(agent: Address): Promise<void> {
    const { mandate, settled } = await this.mandateOf(agent);
    const waiting = await this.database.all(
      "SELECT amount FROM payment WHERE agent = ? AND seq <= ? AND batch IS NULL",
      agent,
      Number(settled.seq),
    );
    if (waiting.length === 0) return;
    const total = waiting.reduce((sum, row) => sum + BigInt(text(row, "amount")), 0n);
    const plan = { circuit: "unknown", token: mandate.token, rows: [], payments: waiting.length, total };
    const id = await this.addBatch({ ...plan, createdAt: this.#now() });
    await this.database.run("UPDATE batch SET state = 'settled' WHERE id = ?", id);
    await this.database.run(
      "UPDATE payment SET batch = ? WHERE agent = ? AND seq <= ? AND batch IS NULL",
      id,
      agent,
      Number(settled.seq),
    );
  }

  /** Leaves a mandate out of all further batches, so that it disturbs nobody else's. */
  async exclude(agent: Address, reason: string): Promise<void> {
    await this.database.run("UPDATE mandate SET excluded = ? WHERE agent = ?", reason, agent);
  }

  /** Why a mandate is left out of batches, or null. */
  async excluded(agent: Address): Promise<string | null> {
    return optional(
      (await this.database.get("SELECT excluded FROM mandate WHERE agent = ?", agent))?.["excluded"],
      String,
    );
  }

  async putPayee(profile: PayeeProfile): Promise<void> {
    await this.database.run(
      `INSERT INTO payee (address, name, host, category) VALUES (?, ?, ?, ?)
       ON CONFLICT (address) DO UPDATE SET name = excluded.name, host = excluded.host, category = excluded.category`,
      profile.address,
      profile.name,
      profile.host,
      profile.category,
    );
  }

  async payee(address: Address): Promise<PayeeProfile | undefined> {
    return (await this.database.get("SELECT * FROM payee WHERE address = ?", address)) as PayeeProfile | undefined;
  }

  /** Keeps whose hold an account is. */
  async addHold(account: Address, payee: Address): Promise<void> {
    await this.database.run(
      "INSERT INTO hold (account, payee) VALUES (?, ?) ON CONFLICT (account) DO NOTHING",
      account,
      payee,
    );
  }

  /** The payee whose hold an account is, or else the account itself. */
  async holderOf(account: Address): Promise<Address> {
    const row = await this.database.get("SELECT payee FROM hold WHERE account = ?", account);
    return row === undefined ? account : (text(row, "payee") as Address);
  }

  async payees(): Promise<PayeeProfile[]> {
    return (await this.database.all("SELECT * FROM payee ORDER BY name, address")) as unknown as PayeeProfile[];
  }

  /**
   * Records what was decided, each line with the next position and each receipt with the next number; inside
   * {@link transact}, at its end: the numbers are nobody else's until it is over, so that they have no gap.
   */
  async record(decisions: Decisions): Promise<{ payments: AcceptedPayment[]; directs: DirectRecord[] }> {
    const refusals = await this.#newRefusals(decisions.refusals);
    const { holds, payments, directs } = decisions;
    for (const { account, payee } of holds) await this.addHold(account, payee);
    const agents = new Set([...payments.map(({ agent }) => agent), ...directs.map(({ direct }) => direct.agent)]);
    await this.#touch([...agents]);
    const lines = payments.length + directs.length + refusals.length;
    if (lines === 0) return { payments: [], directs: [] };
    const next = await this.receipts.take(lines, payments.length);
    const numbered = payments.map((payment, i) => ({ ...payment, logIndex: BigInt(next.logIndex + i), batch: null }));
    await this.#insert(
      "payment",
      PAYMENT,
      numbered.map((payment) => paymentRow(payment, next.position++, payment.trace)),
    );
    const recorded = directs.map(({ direct, acceptedAt }): DirectRecord => {
      return { ...direct, position: next.position++, acceptedAt, status: "accepted", transaction: null, error: null };
    });
    await this.#insert("direct", DIRECT, recorded.map(directRow));
    await this.#insert(
      "refusal",
      REFUSAL,
      refusals.map((refusal) => refusalRow(refusal, next.position++)),
    );
    return { payments: numbered, directs: recorded };
  }

  /**
   * Records a payment again under the number that its receipt has; inside {@link transact}.
   * @throws BursarError `books-conflict` when another payment has that number.
   */
  async recordAgain(accepted: Omit<AcceptedPayment, "batch">): Promise<void> {
    const { agent, payment, logIndex, digest } = accepted;
    await this.receipts.holds({ logIndex, digest });
    const { position, givenUp } = await this.receipts.takeBack(logIndex);
    await this.#insert("payment", PAYMENT, [paymentRow({ ...accepted, batch: null }, position)]);
    await this.#touch([agent]);
    const { settled } = await this.mandateOf(agent);
    if (payment.seq <= settled.seq) await this.#gatherSettled(agent);
    else if (givenUp) await this.receipts.lose(this.#now(), -1);
  }

  async payment(agent: Address, seq: bigint): Promise<AcceptedPayment | undefined> {
    const row = await this.database.get(`${PAYMENTS} WHERE agent = ? AND seq = ?`, agent, Number(seq));
    return row && paymentOf(row);
  }

  async lastPayment(agent: Address): Promise<AcceptedPayment | undefined> {
    const row = await this.database.get(`${PAYMENTS} WHERE agent = ? ORDER BY seq DESC LIMIT 1`, agent);
    return row && paymentOf(row);
  }

  /** The last payments of some agents, as many as a page of the ledger has lines, each ledger in its order. */
  async tails(agents: readonly Address[]): Promise<Map<Address, AcceptedPayment[]>> {
    // Asked in two steps, each of which is a step into an index for every mandate on both engines.
    const mandates = await this.database.all(
      `SELECT m.agent, (SELECT MAX(p.seq) FROM payment AS p WHERE p.agent = m.agent) AS last
       FROM mandate AS m WHERE m.agent IN ${list(agents.length)}`,
      ...agents,
    );
    const paid = mandates.filter((row) => row["last"] !== null);
    if (paid.length === 0) return new Map();
    const rows = await this.database.all(
      `${PAYMENTS} WHERE ${paid.map(() => "(agent = ? AND seq > ?)").join(" OR ")} ORDER BY agent, seq`,
      ...paid.flatMap((row) => [text(row, "agent"), Number(row["last"]) - PAGE_LINES]),
    );
    return Map.groupBy(rows.map(paymentOf), ({ agent }) => agent);
  }

  /** Payments `from … to` of one ledger, in order. */
  async payments(agent: Address, from: bigint, to: bigint): Promise<AcceptedPayment[]> {
    return (
      await this.database.all(
        `${PAYMENTS} WHERE agent = ? AND seq BETWEEN ? AND ? ORDER BY seq`,
        agent,
        Number(from),
        Number(to),
      )
    ).map(paymentOf);
  }

  /**
   * Mandates that have payments in no batch and none in an unfinished one. It takes three steps into an index for each
   * mandate that is open, however many payments there are.
   */
  async unbatched(): Promise<Waiting[]> {
    return (await this.database.all(WAITING, Number(this.#now()))).map((row) => {
      const { mandate, settled } = this.#readMandate(row);
      return {
        agent: mandate.agent,
        token: mandate.token,
        from: settled.seq,
        to: whole(row, "last"),
        settleBy: whole(row, "due"),
        acceptedAt: whole(row, "since"),
      };
    });
  }

  /** Milliseconds that the slowest of the newest proofs took, by circuit. */
  async provingTimes(): Promise<Map<string, number>> {
    const rows = await this.database.all(
      `SELECT circuit, MAX(proved_in_ms) AS slowest FROM (
         SELECT circuit, proved_in_ms FROM batch WHERE proved_in_ms IS NOT NULL ORDER BY id DESC LIMIT 50) AS newest
       GROUP BY circuit`,
    );
    return new Map(rows.map((row) => [text(row, "circuit"), Number(row["slowest"])]));
  }

  /** Payees that a settled batch has credited with a token: their credits cost less gas from then on. */
  async credited(token: Address): Promise<Set<Address>> {
    const rows = await this.database.all(
      `SELECT DISTINCT payment.payee FROM payment JOIN batch ON batch.id = payment.batch
       WHERE batch.state = 'settled' AND batch.token = ?`,
      token,
    );
    return new Set(rows.map((row) => text(row, "payee") as Address));
  }

  /** What an agent paid on both rails from `since` on, in the order of time. */
  async spends(agent: Address, since: bigint): Promise<{ at: bigint; amount: bigint }[]> {
    return (
      await this.database.all(
        `SELECT at, amount FROM payment WHERE agent = ?1 AND at >= ?2
         UNION ALL SELECT at, amount FROM direct WHERE agent = ?1 AND at >= ?2 AND status <> 'failed' ORDER BY at`,
        agent,
        Number(since),
      )
    ).map((row) => ({ at: whole(row, "at"), amount: BigInt(text(row, "amount")) }));
  }

  async direct(kind: DirectKind, agent: Address, nonce: Hex): Promise<DirectRecord | undefined> {
    const row = await this.database.get(
      "SELECT * FROM direct WHERE kind = ? AND agent = ? AND nonce = ?",
      kind,
      agent,
      nonce,
    );
    return row && directOf(row);
  }

  /** Direct payments without an end, oldest first; those of one job if given. */
  async openDirects(job?: string): Promise<DirectRecord[]> {
    return (
      await this.database.all(
        `SELECT * FROM direct WHERE status IN ('accepted', 'submitted') AND (CAST(?1 AS TEXT) IS NULL OR job = ?1) ORDER BY position`,
        job ?? null,
      )
    ).map(directOf);
  }

  /** Jobs of direct payments that were begun and have no end. */
  async directJobs(): Promise<string[]> {
    return (await this.database.all("SELECT DISTINCT job FROM direct WHERE status = 'submitted' ORDER BY job")).map(
      (row) => text(row, "job"),
    );
  }

  /** Gives direct payments to a new job, before its transaction is signed. @returns the job, inside {@link transact}. */
  async submitDirects(positions: readonly number[]): Promise<string> {
    const signed = (await this.database.get("SELECT COUNT(*) AS signed FROM outbox"))!["signed"] as number;
    const job = `direct:${signed}`;
    for (const position of positions) {
      await this.database.run("UPDATE direct SET status = 'submitted', job = ? WHERE position = ?", job, position);
    }
    return job;
  }

  /** The job's transaction was mined and reverted: its payments wait for another one. */
  async releaseDirects(job: string): Promise<void> {
    await this.database.run(
      "UPDATE direct SET status = 'accepted', job = NULL WHERE job = ? AND status = 'submitted'",
      job,
    );
  }

  /** The end of a direct payment; one that failed gives its units back to the budget. Inside {@link transact}. */
  async endDirect(
    position: number,
    end: { status: "settled" | "failed"; transaction: Hex | null; error: string | null },
  ): Promise<void> {
    await this.database.run(
      "UPDATE direct SET status = ?, tx = ?, error = ? WHERE position = ?",
      end.status,
      end.transaction,
      end.error,
      position,
    );
    if (end.status === "failed") {
      await this.database.run(
        "UPDATE mandate SET version = version + 1 WHERE agent = (SELECT agent FROM direct WHERE position = ?)",
        position,
      );
    }
  }

  /** Units of an agent's direct payments that were not refused by the chain. */
  async reserved(agent: Address): Promise<bigint> {
    return (await this.reservedOf([agent])).get(agent) ?? 0n;
  }

  /** The same of several agents, without those that made none. */
  async reservedOf(agents: readonly Address[]): Promise<Map<Address, bigint>> {
    const rows = await this.database.all(
      `SELECT agent, amount FROM direct WHERE agent IN ${list(agents.length)} AND status <> 'failed'
       UNION ALL SELECT agent, unknown_direct AS amount FROM mandate WHERE agent IN ${list(agents.length)}`,
      ...agents,
      ...agents,
    );
    const reserved = new Map<Address, bigint>();
    for (const row of rows) {
      const agent = text(row, "agent") as Address;
      reserved.set(agent, (reserved.get(agent) ?? 0n) + BigInt(text(row, "amount")));
    }
    return reserved;
  }

  async refusals(agent: Address): Promise<Refusal[]> {
    return (await this.database.all("SELECT * FROM refusal WHERE agent = ? ORDER BY position", agent)).map((row) => ({
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
  async paymentStatus(agent: Address, seq: bigint): Promise<PaymentStatus | undefined> {
    const row = await this.database.get(
      `SELECT ${STATUS} AS status FROM payment AS p JOIN mandate AS m USING (agent) LEFT JOIN batch AS b ON b.id = p.batch
       WHERE agent = ?3 AND p.seq = ?4`,
      ...this.#moment(),
      agent,
      Number(seq),
    );
    return row && (text(row, "status") as PaymentStatus);
  }

  /** Accepted and refused payments together, newest first; `before` pages through them and is unmoved by new rows. */
  async ledger(filter: LedgerFilter = {}): Promise<LedgerEntry[]> {
    return (
      await this.database.all(
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
    ).map((row) => ({
      position: Number(row["position"]),
      kind: text(row, "kind") as LedgerEntry["kind"],
      rail: text(row, "rail") as PaymentRail,
      agent: text(row, "agent") as Address,
      owner: text(row, "owner") as Address,
      purpose: (JSON.parse(text(row, "terms")) as Terms).purpose,
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
  async addBatch(
    plan: Pick<BatchRecord, "circuit" | "token" | "rows" | "payments" | "total" | "createdAt">,
  ): Promise<number> {
    const { id } = (await this.database.get(
      `INSERT INTO batch (state, circuit, token, rows, payments, total, created_at)
       VALUES ('planned', ?, ?, ?, ?, ?, ?) RETURNING id`,
      plan.circuit,
      plan.token,
      encode(plan.rows),
      plan.payments,
      plan.total.toString(),
      Number(plan.createdAt),
    )) as { id: number };
    for (const row of plan.rows) {
      await this.database.run(
        "UPDATE payment SET batch = ? WHERE agent = ? AND seq > ? AND seq <= ?",
        id,
        row.agent,
        Number(row.seq),
        Number(row.seq + row.count),
      );
    }
    return id;
  }

  /** Traces of a batch's payments, in the order of the payments. */
  async tracesOf(id: number, most: number): Promise<string[]> {
    const rows = await this.database.all(
      "SELECT trace FROM payment WHERE batch = ? AND trace IS NOT NULL ORDER BY position LIMIT ?",
      id,
      most,
    );
    return rows.map((row) => text(row, "trace"));
  }

  /** Keeps how other processes go on with the trace of a batch. */
  async setTrace(id: number, trace: string | null): Promise<void> {
    await this.database.run("UPDATE batch SET trace = ? WHERE id = ?", trace, id);
  }

  async batch(id: number): Promise<BatchRecord | undefined> {
    const row = await this.database.get(`${BATCHES} WHERE id = ?`, id);
    return row && batchOf(row);
  }

  async batches(states?: readonly BatchState[]): Promise<BatchRecord[]> {
    const wanted = states ?? BATCH_STATES;
    return (await this.database.all(`${BATCHES} WHERE state IN ${list(wanted.length)} ORDER BY id`, ...wanted)).map(
      batchOf,
    );
  }

  /** The batches that settled last, the oldest of them first. */
  async lastSettled(most: number): Promise<BatchRecord[]> {
    const rows = await this.database.all(`${BATCHES} WHERE state = 'settled' ORDER BY id DESC LIMIT ?`, most);
    return rows.map(batchOf).reverse();
  }

  /** The proof is being made; after a crash it is made again. */
  async markProving(id: number): Promise<void> {
    await this.database.run("UPDATE batch SET state = 'proving' WHERE id = ? AND state = 'planned'", id);
  }

  /** @returns whether this is the batch's proof: it had none and still wants one. */
  async markProved(id: number, calldata: Hex, provedInMs: number): Promise<boolean> {
    const row = await this.database.get(
      `UPDATE batch SET state = 'proved', calldata = ?, proved_in_ms = ?
       WHERE id = ? AND state IN ('planned', 'proving') RETURNING id`,
      calldata,
      provedInMs,
      id,
    );
    return row !== undefined;
  }

  /** Records a signed transaction before it is broadcast. */
  addTransaction(entry: Omit<OutboxEntry, "id">): Promise<void> {
    return addTransaction(this.database, entry);
  }

  /** A transaction of the batch is signed, and may be on its way. */
  async markSubmitted(id: number): Promise<void> {
    await this.database.run(
      "UPDATE batch SET state = 'submitted' WHERE id = ? AND state IN ('proved', 'submitted')",
      id,
    );
  }

  /** Every signed transaction of a job, the newest first: replacements share a nonce. */
  transactions(job: string): Promise<OutboxEntry[]> {
    return transactionsOf(this.database, job);
  }

  transactionsAt(nonce: number): Promise<OutboxEntry[]> {
    return transactionsAt(this.database, nonce);
  }

  transactionsSince(time: bigint): Promise<OutboxEntry[]> {
    return transactionsSince(this.database, time);
  }

  /** Block up to which something was read from the chain, or null. */
  async cursor(name: string): Promise<number | null> {
    return optional((await this.database.get("SELECT block FROM cursor WHERE name = ?", name))?.["block"], Number);
  }

  async setCursor(name: string, block: number): Promise<void> {
    await this.database.run(
      "INSERT INTO cursor (name, block) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET block = excluded.block",
      name,
      block,
    );
  }

  /** The batch is final on chain: its mandates' next batch starts from what it left. */
  async markSettled(id: number, mined: { transaction: Hex; block: number; gasUsed: bigint }): Promise<void> {
    await this.transact(async () => {
      await this.database.run(
        "UPDATE batch SET state = 'settled', tx = ?, block = ?, gas_used = ?, error = NULL WHERE id = ?",
        mined.transaction,
        mined.block,
        mined.gasUsed.toString(),
        id,
      );
      for (const row of (await this.batch(id))?.rows ?? []) {
        await this.setSettled(row.agent, {
          base: row.newBase,
          seq: row.seq + row.count,
          spent: row.spent + row.debit,
        });
      }
    });
  }

  /**
   * The batch will never settle: its payments wait for the next one.
   * @param from - the states in which that can be said of it; any unless given.
   * @returns whether it was in one of them.
   */
  async markFailed(id: number, error: string, from: readonly BatchState[] = BATCH_STATES): Promise<boolean> {
    return this.transact(async () => {
      const failed = `UPDATE batch SET state = 'failed', error = ? WHERE id = ? AND state IN ${list(from.length)} RETURNING id`;
      if ((await this.database.get(failed, error, id, ...from)) === undefined) return false;
      await this.database.run("UPDATE payment SET batch = NULL WHERE batch = ?", id);
      for (const { agent } of (await this.batch(id))?.rows ?? []) await this.#gatherSettled(agent);
      return true;
    });
  }

  async counts(): Promise<Record<"mandates" | "payments" | "unbatched" | "refusals" | "directs", number>> {
    const row = await this.database.get(
      `SELECT (SELECT COUNT(*) FROM mandate) AS mandates, (SELECT COUNT(*) FROM payment) AS payments,
              (SELECT COUNT(*) FROM payment WHERE batch IS NULL) AS unbatched, (SELECT COUNT(*) FROM refusal) AS refusals,
              (SELECT COUNT(*) FROM direct) AS directs`,
    );
    return row as Awaited<ReturnType<Store["counts"]>>;
  }

  /** Units of the direct payments in these books that may have reached the chain. */
  async sentDirect(agent: Address): Promise<bigint> {
    return (
      await this.database.all("SELECT amount FROM direct WHERE agent = ? AND status IN ('submitted', 'settled')", agent)
    ).reduce((sum, row) => sum + BigInt(text(row, "amount")), 0n);
  }

  /**
   * What is accepted and not settled, and how batches stand. It reads an index of what waits, and nothing of what is settled.
   * @param ages - seconds, for each of which the payments that have waited so long are counted.
   */
  async backlog(ages: readonly number[] = []): Promise<Backlog> {
    const now = Number(this.#now());
    const older = ages.map((_, i) => `, SUM(CASE WHEN at <= ? THEN 1 ELSE 0 END) AS older_${i}`);
    const unsettled = (await this.database.get(
      `SELECT COUNT(*) AS payments, SUM(CAST(amount AS INTEGER)) AS units, MIN(at) AS oldest, MIN(settle_by) AS due
       ${older.join("")} FROM (${UNSETTLED}) AS unsettled`,
      ...ages.map((age) => now - age),
    ))!;
    const directs = await this.database.get(
      "SELECT COUNT(*) AS directs FROM direct WHERE status IN ('accepted', 'submitted')",
    );
    const counts = await this.database.all("SELECT state, COUNT(*) AS count FROM batch GROUP BY state");
    const batches = { planned: 0, proving: 0, proved: 0, submitted: 0, settled: 0, failed: 0 };
    for (const row of counts) batches[row["state"] as BatchState] = Number(row["count"]);
    return {
      payments: Number(unsettled["payments"]),
      units: BigInt(unsettled["units"] ?? 0),
      oldest: optional(unsettled["oldest"], BigInt),
      due: optional(unsettled["due"], BigInt),
      older: ages.map((_, i) => Number(unsettled[`older_${i}`] ?? 0)),
      directs: Number(directs?.["directs"]),
      batches,
    };
  }

  #moment(): [now: number, grace: number] {
    return [Number(this.#now()), Number(this.#grace)];
  }

  async #newRefusals(refusals: Decisions["refusals"]): Promise<Decisions["refusals"]> {
    const fresh: typeof refusals = [];
    for (const refusal of refusals) {
      const { agent, digest, code } = refusal;
      const same = (other: typeof refusal): boolean =>
        other.agent === agent && other.digest === digest && other.code === code;
      const known = await this.database.get(
        "SELECT 1 AS known FROM refusal WHERE agent = ? AND digest = ? AND code = ?",
        agent,
        digest,
        code,
      );
      if (known === undefined && !fresh.some(same)) fresh.push(refusal);
    }
    return fresh;
  }

  /** What the next payments of these mandates are decided on has changed. */
  async #touch(agents: readonly Address[]): Promise<void> {
    if (agents.length === 0) return;
    await this.database.run(
      `UPDATE mandate SET version = version + 1 WHERE agent IN ${list(agents.length)}`,
      ...agents,
    );
  }

  async #insert(table: string, columns: readonly string[], rows: readonly Value[][]): Promise<void> {
    if (rows.length === 0) return;
    const values = rows.map(() => list(columns.length)).join(", ");
    const unless = table === "refusal" ? " ON CONFLICT DO NOTHING" : "";
    await this.database.run(`INSERT INTO ${table} (${columns.join(", ")}) VALUES ${values}${unless}`, ...rows.flat());
  }

  /** What was signed is read once: the rest of the row changes. */
  #readMandate(row: Columns): MandateRecord {
    const agent = text(row, "agent") as Address;
    let signed = this.#signed.get(agent);
    if (!signed) {
      signed = {
        mandate: decode(text(row, "mandate")) as Mandate,
        terms: JSON.parse(text(row, "terms")) as Terms,
        unitScale: BigInt(text(row, "unit_scale")),
      };
      if (this.#signed.size >= KEPT) this.#signed.delete(this.#signed.keys().next().value!);
      this.#signed.set(agent, signed);
    }
    return {
      ...signed,
      settled: { base: BigInt(text(row, "base")), seq: whole(row, "seq"), spent: BigInt(text(row, "spent")) },
      revokedAt: optional(row["revoked_at"], BigInt),
      closesAt: whole(row, "closes_at"),
    };
  }
}

const BATCH_STATES: readonly BatchState[] = ["planned", "proving", "proved", "submitted", "settled", "failed"];

const PAYMENT = [
  ...["position", "at", "log_index", "agent", "seq", "spent", "payee", "amount"],
  ...["ref", "head", "salt", "digest", "signature", "settle_by", "trace"],
];

function paymentRow(accepted: AcceptedPayment, position: number, trace: string | null = null): Value[] {
  const { agent, payment, signature, digest, salt, logIndex, settleBy, acceptedAt } = accepted;
  const { seq, spent, head, line } = payment;
  return [
    ...[position, Number(acceptedAt), Number(logIndex), agent, Number(seq), spent.toString()],
    ...[
      line.payee,
      line.amount.toString(),
      line.ref,
      head,
      salt.toString(),
      digest,
      signature,
      Number(settleBy),
      trace,
    ],
  ];
}

const DIRECT = [
  ...["position", "at", "kind", "agent", "token", "payee", "amount", "nonce"],
  ...["valid_after", "valid_before", "ref", "digest", "signature", "status"],
];

function directRow(direct: DirectRecord): Value[] {
  const { position, acceptedAt, kind, agent, token, payee, amount, nonce, ref, digest, signature, status } = direct;
  return [
    ...[position, Number(acceptedAt), kind, agent, token, payee, amount.toString(), nonce],
    ...[direct.validAfter.toString(), direct.validBefore.toString(), ref, digest, signature, status],
  ];
}

const REFUSAL = [
  ...["position", "at", "rail", "agent", "seq", "spent", "payee", "amount"],
  ...["ref", "head", "digest", "signature", "code", "message", "details", "advice"],
];

function refusalRow(refusal: Refusal & { digest: Hex }, position: number): Value[] {
  const { at, rail, agent, payment, digest, signature, code, message, details, advice } = refusal;
  const { seq, spent, head, line } = payment;
  return [
    ...[position, Number(at), rail, agent, seq?.toString() ?? null, spent?.toString() ?? null],
    ...[line.payee, line.amount.toString(), line.ref, head, digest, signature, code, message],
    ...[JSON.stringify(details), advice],
  ];
}

/** In no batch, or in one that is under way. */
const UNSETTLED = `SELECT at, amount, settle_by FROM payment WHERE batch IS NULL
  UNION ALL SELECT at, amount, settle_by FROM payment
  WHERE batch IN (SELECT id FROM batch WHERE state IN ('planned', 'proving', 'proved', 'submitted'))`;

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
    WHERE (CAST(?3 AS TEXT) IS NULL OR ${agent} = ?3) AND (CAST(?4 AS TEXT) IS NULL OR m.owner = ?4) AND (CAST(?5 AS TEXT) IS NULL OR ${payee} = ?5 OR ${holder(payee!)} = ?5)
      AND (CAST(?6 AS TEXT) IS NULL OR ${kind} = ?6) AND (CAST(?7 AS TEXT) IS NULL OR ${status} = ?7) AND (CAST(?8 AS TEXT) IS NULL OR ${rail} = ?8)
      AND (CAST(?9 AS INTEGER) IS NULL OR ${at} >= ?9) AND (CAST(?10 AS INTEGER) IS NULL OR ${at} <= ?10) AND (CAST(?11 AS INTEGER) IS NULL OR ${position} < ?11)
      AND (CAST(?13 AS TEXT) IS NULL OR ?13 IN (${agent}, m.owner, ${payee}, ${holder(payee!)}))
    ORDER BY ${position} DESC LIMIT ?12)`;
}

const LINE = [
  ...["position", "at", "kind", "rail", "agent", "seq", "payee", "amount", "ref"],
  ...["status", "code", "reason", "advice", "batch", "tx"],
] as const;

const of = (table: string, columns: readonly string[]): Record<string, string> =>
  Object.fromEntries(columns.map((column) => [column, `${table}.${column}`]));
const COMMON = ["position", "at", "agent", "payee", "amount", "ref"] as const;
const NOTHING = {
  ...Object.fromEntries(["seq", "code", "reason", "advice", "tx"].map((column) => [column, "CAST(NULL AS TEXT)"])),
  batch: "CAST(NULL AS INTEGER)",
};

/** Each kind is cut to what is wanted before they are merged: a page costs the same however long the ledger is. */
const LEDGER = `SELECT * FROM (
  ${[
    linesOf("payment AS p JOIN mandate AS m ON m.agent = p.agent LEFT JOIN batch AS b ON b.id = p.batch", {
      ...NOTHING,
      ...of("p", [...COMMON, "batch"]),
      seq: "CAST(p.seq AS TEXT)",
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

/**
 * The chain has settled the first `seq` payments of a mandate; if the next one is in no batch, none of it is under way.
 * CROSS JOIN and the sign let SQLite go from mandates to payments, and to the earliest promise by its index.
 */
const WAITING = `SELECT m.*, next.at AS since,
    (SELECT MAX(p.seq) FROM payment AS p WHERE p.agent = m.agent) AS last,
    (SELECT p.settle_by FROM payment AS p WHERE p.agent = m.agent AND p.batch IS NULL AND +p.seq > m.seq
     ORDER BY p.settle_by LIMIT 1) AS due
  FROM mandate AS m CROSS JOIN payment AS next
  WHERE next.agent = m.agent AND next.seq = m.seq + 1 AND next.batch IS NULL AND m.excluded IS NULL AND m.closes_at > ?`;

/** A batch that is under way shows its newest transaction. */
const BATCHES = `SELECT *, COALESCE(tx, (SELECT hash FROM outbox WHERE job = 'batch:' || batch.id ORDER BY id DESC LIMIT 1)) AS newest_tx FROM batch`;
const PAYMENTS = "SELECT * FROM payment";

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
    trace: optional(row["trace"], String),
  };
}
