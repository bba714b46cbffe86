/**
 * The tables of the processor's books. Every line of the ledger (payment, direct, refusal) has a position of its own, in
 * the order in which they were written.
 */
export const SCHEMA = `
CREATE TABLE IF NOT EXISTS mandate (
  agent TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  mandate TEXT NOT NULL,
  terms TEXT NOT NULL,
  unit_scale TEXT NOT NULL,
  base TEXT NOT NULL,
  seq INTEGER NOT NULL,
  spent TEXT NOT NULL,
  revoked_at INTEGER,
  closes_at INTEGER NOT NULL,
  excluded TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS mandate_owner ON mandate (owner);
CREATE TABLE IF NOT EXISTS payee (
  address TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  host TEXT NOT NULL,
  category TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS hold (
  account TEXT PRIMARY KEY,
  payee TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hold_payee ON hold (payee);
CREATE TABLE IF NOT EXISTS batch (
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
  error TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS payment (
  position INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
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
CREATE INDEX IF NOT EXISTS payment_batch ON payment (batch) WHERE batch IS NOT NULL;
CREATE TABLE IF NOT EXISTS direct (
  position INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('exact', 'aep2')),
  agent TEXT NOT NULL REFERENCES mandate,
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
CREATE INDEX IF NOT EXISTS direct_agent ON direct (agent);
CREATE INDEX IF NOT EXISTS direct_open ON direct (status) WHERE status IN ('accepted', 'submitted');
CREATE TABLE IF NOT EXISTS refusal (
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
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY,
  job TEXT NOT NULL,
  nonce INTEGER NOT NULL,
  max_fee TEXT NOT NULL,
  max_priority_fee TEXT NOT NULL,
  raw TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE,
  sent_at INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS outbox_job ON outbox (job);
CREATE TABLE IF NOT EXISTS cursor (
  name TEXT PRIMARY KEY,
  block INTEGER NOT NULL
) STRICT;
`;
