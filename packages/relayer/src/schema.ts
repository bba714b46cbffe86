import type { Book } from "./database.ts";
import { OUTBOX_SCHEMA } from "./outbox-book.ts";

/**
 * The processor's books. Every line of the ledger (payment, direct, refusal) has a position of its own, in the order in
 * which they were committed; receipts are numbered without a gap. The version of a mandate counts the changes of what its
 * next payment is decided on.
 */
const FIRST = `
CREATE TABLE counter (
  position INTEGER NOT NULL,
  log_index INTEGER NOT NULL
) STRICT;
INSERT INTO counter (position, log_index) VALUES (1, 0);
CREATE TABLE mandate (
  id INTEGER PRIMARY KEY,
  agent TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  mandate TEXT NOT NULL,
  terms TEXT NOT NULL,
  unit_scale TEXT NOT NULL,
  base TEXT NOT NULL,
  seq INTEGER NOT NULL,
  spent TEXT NOT NULL,
  revoked_at INTEGER,
  closes_at INTEGER NOT NULL,
  excluded TEXT,
  version INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX mandate_owner ON mandate (owner);
CREATE TABLE payee (
  address TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  host TEXT NOT NULL,
  category TEXT NOT NULL
) STRICT;
CREATE TABLE hold (
  account TEXT PRIMARY KEY,
  payee TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_payee ON hold (payee);
CREATE TABLE batch (
  id INTEGER PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN ('planned', 'proving', 'proved', 'submitted', 'settled', 'failed')),
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
  error TEXT,
  trace TEXT
) STRICT;
CREATE INDEX batch_state ON batch (state);
CREATE TABLE payment (
  position INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  log_index INTEGER NOT NULL UNIQUE,
  agent TEXT NOT NULL REFERENCES mandate (agent),
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
  batch INTEGER REFERENCES batch (id),
  trace TEXT,
  UNIQUE (agent, seq)
) STRICT;
CREATE INDEX payment_unbatched ON payment (agent, seq) WHERE batch IS NULL;
CREATE INDEX payment_batch ON payment (batch) WHERE batch IS NOT NULL;
CREATE TABLE direct (
  position INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('exact', 'aep2')),
  agent TEXT NOT NULL REFERENCES mandate (agent),
  token TEXT NOT NULL,
  payee TEXT NOT NULL,
  amount TEXT NOT NULL,
  nonce TEXT NOT NULL,
  valid_after TEXT NOT NULL,
  valid_before TEXT NOT NULL,
  ref TEXT NOT NULL,
  digest TEXT NOT NULL,
  signature TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('accepted', 'submitted', 'settled', 'failed')),
  job TEXT,
  tx TEXT,
  error TEXT,
  UNIQUE (kind, agent, nonce)
) STRICT;
CREATE INDEX direct_agent ON direct (agent);
CREATE INDEX direct_open ON direct (status) WHERE status IN ('accepted', 'submitted');
CREATE TABLE refusal (
  position INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  rail TEXT NOT NULL,
  agent TEXT NOT NULL,
  seq TEXT,
  spent TEXT,
  payee TEXT NOT NULL,
  amount TEXT NOT NULL,
  ref TEXT NOT NULL,
  head TEXT,
  digest TEXT NOT NULL,
  signature TEXT NOT NULL,
  code TEXT NOT NULL,
  message TEXT NOT NULL,
  details TEXT NOT NULL,
  advice TEXT,
  UNIQUE (agent, digest, code)
) STRICT;
${OUTBOX_SCHEMA}CREATE TABLE cursor (
  name TEXT PRIMARY KEY,
  block INTEGER NOT NULL
) STRICT;
`;

/** The earliest promise to each agent whose payments are in no batch is one step into an index. */
const PAYMENTS_WAITING = `
DROP INDEX payment_unbatched;
CREATE INDEX payment_waiting ON payment (agent, settle_by, seq) WHERE batch IS NULL;
`;

/**
 * How many receipts were ever given, as far as it is known from elsewhere than these books; receipts that were given up;
 * and units of each mandate that the chain has settled on the direct rail without the books knowing.
 */
const RECEIPTS_PROMISED = `
ALTER TABLE counter ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mandate ADD COLUMN unknown_direct TEXT NOT NULL DEFAULT '0';
CREATE TABLE loss (
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  receipts INTEGER NOT NULL
) STRICT;
`;

export const PAYMENTS_BOOK: Book = { name: "payments", versions: [FIRST, PAYMENTS_WAITING, RECEIPTS_PROMISED] };
