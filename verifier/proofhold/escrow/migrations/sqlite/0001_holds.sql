-- Schema 1 of an escrow: docs/formats/escrow.md explains every table.
-- Amounts are integers in atomic units, times are unix seconds, digests are 64 hexadecimal digits.

CREATE TABLE schema_version (
  version INTEGER PRIMARY KEY,
  name    TEXT NOT NULL,
  digest  TEXT NOT NULL
) STRICT;

-- Who this escrow is, one row.
CREATE TABLE escrow (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  id   TEXT NOT NULL
) STRICT;

-- Whose signatures make a resolution.
CREATE TABLE operator (
  key TEXT PRIMARY KEY
) WITHOUT ROWID, STRICT;

-- The ledger. One code has one exponent: otherwise two units would share a name.
CREATE TABLE currency (
  code     TEXT PRIMARY KEY,
  exponent INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE account (
  id       INTEGER PRIMARY KEY,
  kind     TEXT NOT NULL CHECK (kind IN ('party', 'hold', 'bond', 'treasury', 'outside')),
  owner    TEXT NOT NULL,
  currency TEXT NOT NULL REFERENCES currency,
  balance  INTEGER NOT NULL DEFAULT 0 CHECK (balance >= 0 OR kind = 'outside'),
  UNIQUE (kind, owner, currency)
) STRICT;

-- The key makes a transfer happen once, whoever asks for it.
CREATE TABLE transfer (
  id  INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  at  INTEGER NOT NULL
) STRICT;

CREATE TABLE entry (
  transfer INTEGER NOT NULL REFERENCES transfer,
  account  INTEGER NOT NULL REFERENCES account,
  amount   INTEGER NOT NULL CHECK (amount <> 0),
  PRIMARY KEY (transfer, account)
) WITHOUT ROWID, STRICT;

-- Sampling secrets (PROTOCOL P2), drawn when a job is drafted: one a nonce.
CREATE TABLE secret (
  nonce      TEXT PRIMARY KEY,
  commitment TEXT NOT NULL UNIQUE,
  secret     BLOB NOT NULL CHECK (length(secret) = 32)
) WITHOUT ROWID, STRICT;

-- A hold is named by its job's digest, so a job is funded once. A commitment serves one hold: the secret
-- that one hold reveals must not be the one that another still keeps.
CREATE TABLE hold (
  id         TEXT PRIMARY KEY,
  job        BLOB NOT NULL,
  commitment TEXT NOT NULL UNIQUE REFERENCES secret (commitment),
  funded_at  INTEGER NOT NULL,
  bond_state TEXT NOT NULL CHECK (bond_state IN ('reserved', 'frozen', 'free', 'slashed')),
  bond_due   INTEGER
) STRICT;

CREATE INDEX hold_bond_due ON hold (bond_due) WHERE bond_due IS NOT NULL;

CREATE TABLE capture (
  hold             TEXT NOT NULL REFERENCES hold,
  seq              INTEGER NOT NULL,
  state            TEXT NOT NULL,
  due              INTEGER,           -- the first second at which the state's timer fires
  verification_due INTEGER,
  attempts         INTEGER NOT NULL DEFAULT 0,
  amount           INTEGER,           -- as claimed, cumulative
  claimed_at       INTEGER,
  changed_at       INTEGER NOT NULL,  -- no move that a clock or a person makes is older
  PRIMARY KEY (hold, seq)
) STRICT;

CREATE INDEX capture_due ON capture (due) WHERE due IS NOT NULL;

-- Signed documents as they came in, and the deposited output: one of each kind a capture.
CREATE TABLE document (
  hold TEXT NOT NULL,
  seq  INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('claim', 'output', 'decline', 'equivocation', 'resolution')),
  body BLOB NOT NULL,
  PRIMARY KEY (hold, seq, kind),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

-- Digests of signed payloads that serve once (PROTOCOL P6).
CREATE TABLE one_use (
  digest TEXT PRIMARY KEY,
  hold   TEXT NOT NULL,
  seq    INTEGER NOT NULL,
  FOREIGN KEY (hold, seq) REFERENCES capture
) WITHOUT ROWID, STRICT;

-- What verdicts decided, with their receipts: one of each ruling a capture.
CREATE TABLE decision (
  hold           TEXT NOT NULL,
  seq            INTEGER NOT NULL,
  ruling         TEXT NOT NULL CHECK (ruling IN ('release', 'refund', 'dispute')),
  receipt_digest TEXT NOT NULL,
  receipt        BLOB NOT NULL,
  at             INTEGER NOT NULL,
  PRIMARY KEY (hold, seq, ruling),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

-- Every move of a capture or a bond, for good.
CREATE TABLE transition (
  id      INTEGER PRIMARY KEY,
  hold    TEXT NOT NULL REFERENCES hold,
  seq     INTEGER NOT NULL,
  subject TEXT NOT NULL CHECK (subject IN ('capture', 'bond')),
  source  TEXT,
  event   TEXT NOT NULL,
  target  TEXT NOT NULL,
  at      INTEGER NOT NULL,
  cause   TEXT NOT NULL
) STRICT;

CREATE INDEX transition_hold ON transition (hold, seq);

-- What is to be told to the outside: one row a move of a capture, written with it.
CREATE TABLE outbox (
  id      INTEGER PRIMARY KEY REFERENCES transition,
  sent_at INTEGER
) STRICT;

CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL;

-- What the rail is to pay, written with the decision to pay it.
CREATE TABLE payment (
  hold      TEXT NOT NULL,
  seq       INTEGER NOT NULL,
  direction TEXT NOT NULL CHECK (direction IN ('release', 'refund')),
  amount    INTEGER NOT NULL CHECK (amount > 0),
  account   TEXT NOT NULL,
  status    TEXT NOT NULL CHECK (status IN ('new', 'sending', 'unknown', 'paid')),
  rail      TEXT,                     -- set by the first attempt, and never changed
  attempts  INTEGER NOT NULL DEFAULT 0,
  lease_end INTEGER NOT NULL DEFAULT 0,
  reference TEXT,                     -- the rail's receipt
  PRIMARY KEY (hold, seq, direction),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

CREATE INDEX payment_open ON payment (attempts) WHERE status <> 'paid';

-- The last wall, for whoever writes to the file by other means: what happened stays written, and nothing
-- leads out of a final state.
CREATE TRIGGER transfer_kept BEFORE UPDATE ON transfer BEGIN SELECT RAISE(ABORT, 'transfers are kept'); END;
CREATE TRIGGER transfer_stays BEFORE DELETE ON transfer BEGIN SELECT RAISE(ABORT, 'transfers are kept'); END;
CREATE TRIGGER entry_kept BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'entries are kept'); END;
CREATE TRIGGER entry_stays BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries are kept'); END;
CREATE TRIGGER transition_kept BEFORE UPDATE ON transition
BEGIN SELECT RAISE(ABORT, 'transitions are kept'); END;
CREATE TRIGGER transition_stays BEFORE DELETE ON transition
BEGIN SELECT RAISE(ABORT, 'transitions are kept'); END;
CREATE TRIGGER document_kept BEFORE UPDATE ON document
BEGIN SELECT RAISE(ABORT, 'documents are kept'); END;
CREATE TRIGGER document_stays BEFORE DELETE ON document
BEGIN SELECT RAISE(ABORT, 'documents are kept'); END;
CREATE TRIGGER decision_kept BEFORE UPDATE ON decision
BEGIN SELECT RAISE(ABORT, 'decisions are kept'); END;
CREATE TRIGGER decision_stays BEFORE DELETE ON decision
BEGIN SELECT RAISE(ABORT, 'decisions are kept'); END;
CREATE TRIGGER capture_final BEFORE UPDATE OF state ON capture
WHEN OLD.state IN ('released', 'refunded')
BEGIN SELECT RAISE(ABORT, 'a final state is final'); END;
CREATE TRIGGER payment_final BEFORE UPDATE ON payment
WHEN OLD.status = 'paid'
BEGIN SELECT RAISE(ABORT, 'a payment is paid once'); END;
