-- Schema 5: payments of other protocols, webhooks, kept evidence, several receipts above a cap.
-- docs/formats/escrow.md explains every table.

-- Payments of another protocol that a verdict stands in front of: one row a payment identifier.
CREATE TABLE gated_payment (
  id         TEXT PRIMARY KEY,
  binding    TEXT NOT NULL,           -- digest of everything that the identifier stands for
  status     TEXT NOT NULL
    CHECK (status IN ('depositing', 'open', 'settling', 'settled', 'unknown', 'failed', 'refused')),
  lease_end  INTEGER NOT NULL,        -- until then it is in somebody's hands
  job        TEXT,
  seq        INTEGER,
  outcome    TEXT CHECK (outcome IN ('release', 'refund', 'dispute', 'keep')),
  amount     INTEGER,                 -- what the verdict lets settle at most
  receipt    BLOB,
  reference  TEXT,                    -- the transaction, as far as one is known
  answer     BLOB,                    -- what the provider answered, for whoever asks again
  changed_at INTEGER NOT NULL,
  UNIQUE (job, seq)                   -- one capture of one job pays once
) STRICT;

CREATE INDEX gated_payment_unsettled ON gated_payment (changed_at) WHERE status IN ('settling', 'unknown');

-- Who is told what leaves the outbox, signed with a secret of their own.
CREATE TABLE webhook (
  id         TEXT PRIMARY KEY,
  url        TEXT NOT NULL,
  secret     BLOB NOT NULL,
  added_at   INTEGER NOT NULL,
  removed_at INTEGER
) STRICT;

-- One row a message and receiver. The message's name is its outbox row's number.
CREATE TABLE webhook_delivery (
  webhook   TEXT NOT NULL REFERENCES webhook,
  outbox    INTEGER NOT NULL REFERENCES outbox,
  status    TEXT NOT NULL CHECK (status IN ('due', 'delivered', 'dead')),
  attempts  INTEGER NOT NULL,
  due_at    INTEGER NOT NULL,         -- not before then: the next attempt, or the end of a lease
  answered  INTEGER,                  -- the HTTP status of the last answer; null where there was none
  PRIMARY KEY (webhook, outbox)
) STRICT;

CREATE INDEX webhook_delivery_due ON webhook_delivery (due_at) WHERE status = 'due';

-- Which pieces of evidence are kept for which capture; their bytes lie in a folder, by digest.
CREATE TABLE evidence (
  hold      TEXT NOT NULL,
  seq       INTEGER NOT NULL,
  digest    TEXT NOT NULL,
  kind      TEXT NOT NULL,
  size      INTEGER NOT NULL,
  kept_at   INTEGER NOT NULL,
  pruned_at INTEGER,
  PRIMARY KEY (hold, seq, digest),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

CREATE INDEX evidence_kept ON evidence (digest) WHERE pruned_at IS NULL;

-- Above which price a capture takes receipts of how many verifiers, and of which.
CREATE TABLE quorum (
  currency TEXT PRIMARY KEY REFERENCES currency,
  above    INTEGER NOT NULL CHECK (above >= 0),
  need     INTEGER NOT NULL CHECK (need BETWEEN 2 AND 16),
  trust    BLOB NOT NULL,             -- a trust file
  set_at   INTEGER NOT NULL
) STRICT;

-- The receipts that came in for a capture above the cap: one a verifier.
CREATE TABLE endorsement (
  hold           TEXT NOT NULL,
  seq            INTEGER NOT NULL,
  signer         TEXT NOT NULL,
  outcome        TEXT NOT NULL CHECK (outcome IN ('release', 'refund', 'dispute')),
  receipt_digest TEXT NOT NULL,
  receipt        BLOB NOT NULL,
  at             INTEGER NOT NULL,
  PRIMARY KEY (hold, seq, signer, outcome),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

CREATE TRIGGER gated_payment_stays BEFORE DELETE ON gated_payment
BEGIN SELECT RAISE(ABORT, 'payments are kept'); END;
CREATE TRIGGER gated_payment_final BEFORE UPDATE OF status ON gated_payment
WHEN OLD.status = 'settled' AND NEW.status <> 'settled'
BEGIN SELECT RAISE(ABORT, 'a payment settles once'); END;
CREATE TRIGGER endorsement_kept BEFORE UPDATE ON endorsement
BEGIN SELECT RAISE(ABORT, 'receipts are kept'); END;
CREATE TRIGGER endorsement_stays BEFORE DELETE ON endorsement
BEGIN SELECT RAISE(ABORT, 'receipts are kept'); END;
