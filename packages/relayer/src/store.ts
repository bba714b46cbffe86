import {
  BursarError,
  type Address,
  type Hex,
  type Line,
  type Mandate,
  type Payment,
  type Row,
  type Terms,
} from "@bursar/protocol";

import { Database, type Columns } from "./database.ts";

/** A mandate as the processor knows it: what was signed, and where the chain stands. */
export interface MandateRecord {
  mandate: Mandate;
  terms: Terms;
  /** Base units of the token in one unit. */
  unitScale: bigint;
  /** Chain state that the next batch starts from: hash before the current page, settled seq and total. */
  settled: { base: bigint; seq: bigint; spent: bigint };
  /** Unix seconds, or null while the owner has not revoked. */
  revokedAt: bigint | null;
}

/** What the receipt of an accepted payment says besides the payment itself. */
export interface AcceptedPayment {
  agent: Address;
  payment: Payment;
  signature: Hex;
  /** EIP-712 digest that the agent signed. */
  digest: Hex;
  salt: bigint;
  logIndex: bigint;
  settleBy: bigint;
  acceptedAt: bigint;
  batch: number | null;
}

export interface Refusal {
  agent: Address;
  payment: Payment;
  /** The agent's signature: with the payment it is evidence. */
  signature: Hex;
  code: string;
  message: string;
  details: Record<string, string>;
  advice: string | null;
  at: bigint;
}

/** Who a payee is, as registered by the operator: the agent's own claims about a payee are never trusted. */
export interface PayeeProfile {
  address: Address;
  name: string;
  host: string;
  category: string;
}

/**
 * `planned` and `proved` are private to the processor; `submitted` has a transaction in the outbox; `settled` has its
 * confirmations; `failed` gave its payments back to be planned again.
 */
export type BatchState = "planned" | "proved" | "submitted" | "settled" | "failed";

/** What a batch does to one mandate, and the total that it started from. */
export interface SettledRow extends Row {
  readonly spent: bigint;
}

export interface BatchRecord {
  id: number;
  state: BatchState;
  circuit: string;
  token: Address;
  rows: SettledRow[];
  payments: number;
  total: bigint;
  createdAt: bigint;
  /** Calldata of `settle`, once proved. */
  calldata: Hex | null;
  provedInMs: number | null;
  transaction: Hex | null;
  block: number | null;
  gasUsed: bigint | null;
  error: string | null;
}

export interface OutboxEntry {
  id: number;
  batch: number;
  nonce: number;
  maxFeePerGas: bigint;
  maxPriorityFeePerGas: bigint;
  raw: Hex;
  hash: Hex;
  sentAt: bigint;
}

export interface LedgerFilter {
  agent?: Address | undefined;
  payee?: Address | undefined;
  /** Rows with a smaller position than this, newest first. */
  before?: number | undefined;
  limit?: number | undefined;
}

/** One line of the readable ledger: an accepted payment or a refused one. */
export interface LedgerEntry {
  position: number;
  kind: "accepted" | "refused";
  agent: Address;
  seq: bigint;
  payee: Address;
  amount: bigint;
  ref: Hex;
  at: bigint;
  status: "accepted" | BatchState | "refused";
  reason: string | null;
  advice: string | null;
  batch: number | null;
  transaction: Hex | null;
}

const SCHEMA = `
CREATE TABLE IF NOT EXISTS mandate (
  agent TEXT PRIMARY KEY,
  mandate TEXT NOT NULL,
  terms TEXT NOT NULL,
  unit_scale TEXT NOT NULL,
  base TEXT NOT NULL,
  seq INTEGER NOT NULL,
  spent TEXT NOT NULL,
  revoked_at INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS payee (
  address TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  host TEXT NOT NULL,
  category TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS batch (
  id INTEGER PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN ('planned', 'proved', 'submitted', 'settled', 'failed')),
  circuit TEXT NOT NULL,
  token TEXT NOT NULL,
  rows TEXT NOT NULL,
  payments INTEGER NOT NULL,
  total TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  calldata TEXT,
  proved_in_ms INTEGER,
  tx TEXT,
  block INTEGER,
  gas_used TEXT,
  error TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS journal (
  position INTEGER PRIMARY KEY,
  at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS payment (
  position INTEGER PRIMARY KEY REFERENCES journal,
  log_index INTEGER NOT NULL UNIQUE,
  agent TEXT NOT NULL REFERENCES mandate,
  seq INTEGER NOT NULL,
  spent TEXT NOT NULL,
  payee TEXT NOT NULL,
  amount TEXT NOT NULL,
  ref TEXT NOT NULL,
  head TEXT NOT NULL,
  salt TEXT NOT NULL,
  digest TEXT NOT NULL,
  signature TEXT NOT NULL,
  settle_by INTEGER NOT NULL,
  batch INTEGER REFERENCES batch,
  UNIQUE (agent, seq)
) STRICT;
CREATE INDEX IF NOT EXISTS payment_unbatched ON payment (agent, seq) WHERE batch IS NULL;
CREATE INDEX IF NOT EXISTS payment_batch ON payment (batch);
CREATE TABLE IF NOT EXISTS refusal (
  position INTEGER PRIMARY KEY REFERENCES journal,
  agent TEXT NOT NULL,
  seq TEXT NOT NULL,
  spent TEXT NOT NULL,
  payee TEXT NOT NULL,
  amount TEXT NOT NULL,
  ref TEXT NOT NULL,
  head TEXT NOT NULL,
  digest TEXT NOT NULL,
  signature TEXT NOT NULL,
  code TEXT NOT NULL,
  message TEXT NOT NULL,
  details TEXT NOT NULL,
  advice TEXT,
  UNIQUE (agent, digest, code)
) STRICT;
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY,
  batch INTEGER NOT NULL REFERENCES batch,
  nonce INTEGER NOT NULL,
  max_fee TEXT NOT NULL,
  max_priority_fee TEXT NOT NULL,
  raw TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE,
  sent_at INTEGER NOT NULL
) STRICT;
`;

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

/** The processor's books of mandates, payments and batches. Amounts are decimal text: SQLite's integers end at 2^63−1. */
export class Store {
  readonly database: Database;

  /** @param path - file of the database, created if missing; `:memory:` for a store that is not kept. */
  constructor(path: string) {
    this.database = new Database(path);
    this.database.create(SCHEMA);
  }

  close(): void {
    this.database.close();
  }

  /** Runs `work` in one transaction: all of it is on disk when this returns, or none. */
  transact<T>(work: () => T): T {
    return this.database.transact(work);
  }

  /** Registers a mandate once; a second call with the same agent changes nothing. */
  addMandate(record: MandateRecord): void {
    this.database.run(
      `INSERT INTO mandate (agent, mandate, terms, unit_scale, base, seq, spent, revoked_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent) DO NOTHING`,
      record.mandate.agent,
      encode(record.mandate),
      JSON.stringify(record.terms),
      record.unitScale.toString(),
      record.settled.base.toString(),
      Number(record.settled.seq),
      record.settled.spent.toString(),
      record.revokedAt === null ? null : Number(record.revokedAt),
    );
  }

  mandate(agent: Address): MandateRecord | undefined {
    const row = this.database.get("SELECT * FROM mandate WHERE agent = ?", agent);
    return row && readMandate(row);
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

  mandates(): MandateRecord[] {
    return this.database.all("SELECT * FROM mandate ORDER BY rowid").map(readMandate);
  }

  markRevoked(agent: Address, at: bigint): void {
    this.database.run("UPDATE mandate SET revoked_at = ? WHERE agent = ? AND revoked_at IS NULL", Number(at), agent);
  }

  setSettled(agent: Address, settled: MandateRecord["settled"]): void {
    this.database.run(
      "UPDATE mandate SET base = ?, seq = ?, spent = ? WHERE agent = ?",
      settled.base.toString(),
      Number(settled.seq),
      settled.spent.toString(),
      agent,
    );
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

  payees(): PayeeProfile[] {
    return this.database.all("SELECT * FROM payee ORDER BY name, address") as unknown as PayeeProfile[];
  }

  /** Records an accepted payment and gives it the next log index. */
  addPayment(accepted: Omit<AcceptedPayment, "logIndex" | "batch">): AcceptedPayment {
    const position = this.#journal(accepted.acceptedAt);
    const { n } = this.database.get("SELECT COALESCE(MAX(log_index) + 1, 0) AS n FROM payment") as { n: number };
    const { agent, payment, signature, digest, salt, settleBy } = accepted;
    this.database.run(
      `INSERT INTO payment (position, log_index, agent, seq, spent, payee, amount, ref, head, salt, digest, signature, settle_by)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      position,
      n,
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
    return { ...accepted, logIndex: BigInt(n), batch: null };
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
       WHERE batch IS NULL AND NOT EXISTS (
         SELECT 1 FROM payment JOIN batch ON batch.id = payment.batch
         WHERE payment.agent = p.agent AND batch.state NOT IN ('settled', 'failed'))
       GROUP BY agent ORDER BY MIN(settle_by), agent`,
      )
      .map((row) => ({
        agent: text(row, "agent") as Address,
        to: whole(row, "last"),
      }));
  }

  addRefusal(refusal: Refusal & { digest: Hex }): void {
    const known = this.database.get(
      "SELECT 1 AS known FROM refusal WHERE agent = ? AND digest = ? AND code = ?",
      refusal.agent,
      refusal.digest,
      refusal.code,
    );
    if (known) return;
    const { payment } = refusal;
    this.database.run(
      `INSERT INTO refusal (position, agent, seq, spent, payee, amount, ref, head, digest, signature, code, message, details, advice)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      this.#journal(refusal.at),
      refusal.agent,
      payment.seq.toString(),
      payment.spent.toString(),
      payment.line.payee,
      payment.line.amount.toString(),
      payment.line.ref,
      payment.head,
      refusal.digest,
      refusal.signature,
      refusal.code,
      refusal.message,
      JSON.stringify(refusal.details),
      refusal.advice,
    );
  }

  refusals(agent: Address): Refusal[] {
    return this.database
      .all(
        "SELECT refusal.*, journal.at FROM refusal JOIN journal USING (position) WHERE agent = ? ORDER BY position",
        agent,
      )
      .map((row) => ({
        agent: text(row, "agent") as Address,
        payment: signedLine(row),
        signature: text(row, "signature") as Hex,
        code: text(row, "code"),
        message: text(row, "message"),
        details: JSON.parse(text(row, "details")) as Record<string, string>,
        advice: optional(row["advice"], String),
        at: whole(row, "at"),
      }));
  }

  /** Accepted and refused payments together, newest first; `before` pages through them and is unmoved by new rows. */
  ledger(filter: LedgerFilter = {}): LedgerEntry[] {
    return this.database
      .all(
        `SELECT * FROM (
         SELECT p.position, 'accepted' AS kind, p.agent, p.seq, p.payee, p.amount, p.ref, j.at,
                COALESCE(b.state, 'accepted') AS status, NULL AS reason, NULL AS advice, p.batch, b.tx
         FROM payment AS p JOIN journal AS j USING (position) LEFT JOIN batch AS b ON b.id = p.batch
         UNION ALL
         SELECT r.position, 'refused', r.agent, r.seq, r.payee, r.amount, r.ref, j.at,
                'refused', r.message, r.advice, NULL, NULL
         FROM refusal AS r JOIN journal AS j USING (position))
       WHERE (?1 IS NULL OR agent = ?1) AND (?2 IS NULL OR payee = ?2) AND (?3 IS NULL OR position < ?3)
       ORDER BY position DESC LIMIT ?4`,
        filter.agent ?? null,
        filter.payee ?? null,
        filter.before ?? null,
        filter.limit ?? 100,
      )
      .map((row) => ({
        position: Number(row["position"]),
        kind: text(row, "kind") as LedgerEntry["kind"],
        agent: text(row, "agent") as Address,
        seq: whole(row, "seq"),
        payee: text(row, "payee") as Address,
        amount: BigInt(text(row, "amount")),
        ref: text(row, "ref") as Hex,
        at: whole(row, "at"),
        status: text(row, "status") as LedgerEntry["status"],
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
    const row = this.database.get("SELECT * FROM batch WHERE id = ?", id);
    return row && batchOf(row);
  }

  batches(states?: readonly BatchState[]): BatchRecord[] {
    const all = this.database.all("SELECT * FROM batch ORDER BY id").map(batchOf);
    return states ? all.filter((batch) => states.includes(batch.state)) : all;
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
  addTransaction(entry: Omit<OutboxEntry, "id">): void {
    this.transact(() => {
      this.database.run(
        `INSERT INTO outbox (batch, nonce, max_fee, max_priority_fee, raw, hash, sent_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
        entry.batch,
        entry.nonce,
        entry.maxFeePerGas.toString(),
        entry.maxPriorityFeePerGas.toString(),
        entry.raw,
        entry.hash,
        Number(entry.sentAt),
      );
      this.database.run("UPDATE batch SET state = 'submitted', tx = ? WHERE id = ?", entry.hash, entry.batch);
    });
  }

  /** Every signed transaction of a batch, the newest first: replacements share a nonce. */
  transactions(batch: number): OutboxEntry[] {
    return this.database.all("SELECT * FROM outbox WHERE batch = ? ORDER BY id DESC", batch).map((row) => ({
      id: Number(row["id"]),
      batch: Number(row["batch"]),
      nonce: Number(row["nonce"]),
      maxFeePerGas: BigInt(text(row, "max_fee")),
      maxPriorityFeePerGas: BigInt(text(row, "max_priority_fee")),
      raw: text(row, "raw") as Hex,
      hash: text(row, "hash") as Hex,
      sentAt: whole(row, "sent_at"),
    }));
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

  counts(): { mandates: number; payments: number; unbatched: number; refusals: number } {
    return this.database.get(
      `SELECT (SELECT COUNT(*) FROM mandate) AS mandates, (SELECT COUNT(*) FROM payment) AS payments,
              (SELECT COUNT(*) FROM payment WHERE batch IS NULL) AS unbatched, (SELECT COUNT(*) FROM refusal) AS refusals`,
    ) as { mandates: number; payments: number; unbatched: number; refusals: number };
  }

  #journal(at: bigint): number {
    const { position } = this.database.get("INSERT INTO journal (at) VALUES (?) RETURNING position", Number(at)) as {
      position: number;
    };
    return position;
  }
}

const PAYMENTS = "SELECT payment.*, journal.at FROM payment JOIN journal USING (position)";

function readMandate(row: Columns): MandateRecord {
  return {
    mandate: decode(text(row, "mandate")) as Mandate,
    terms: JSON.parse(text(row, "terms")) as Terms,
    unitScale: BigInt(text(row, "unit_scale")),
    settled: { base: BigInt(text(row, "base")), seq: whole(row, "seq"), spent: BigInt(text(row, "spent")) },
    revokedAt: optional(row["revoked_at"], BigInt),
  };
}

function signedLine(row: Columns): Payment {
  const line: Line = {
    payee: text(row, "payee") as Address,
    amount: BigInt(text(row, "amount")),
    ref: text(row, "ref") as Hex,
  };
  return { seq: whole(row, "seq"), spent: BigInt(text(row, "spent")), head: text(row, "head") as Hex, line };
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
    transaction: optional(row["tx"], (hash) => hash as Hex),
    block: optional(row["block"], Number),
    gasUsed: optional(row["gas_used"], BigInt),
    error: optional(row["error"], String),
  };
}
