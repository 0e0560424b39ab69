-- Schema 6: metered holds, fees, unbonding, two keys, and the queue. docs/formats/escrow.md explains every table.

ALTER TABLE escrow ADD COLUMN unbonding_s INTEGER NOT NULL DEFAULT 0;

-- Above which price a resolution takes the keys of two operators.
CREATE TABLE two_keys (
  currency TEXT PRIMARY KEY REFERENCES currency,
  above    INTEGER NOT NULL CHECK (above >= 0)
) WITHOUT ROWID, STRICT;

-- What the claim before this one came to, and whether the provider is blamed for this one.
ALTER TABLE capture ADD COLUMN base INTEGER NOT NULL DEFAULT 0;
ALTER TABLE capture ADD COLUMN blamed INTEGER NOT NULL DEFAULT 0;
UPDATE capture SET blamed = 1 WHERE hold IN (SELECT id FROM hold WHERE bond_state = 'frozen');

-- What is final stays so; only whether the bond is kept for it may still change.
DROP TRIGGER capture_final;
CREATE TRIGGER capture_final BEFORE UPDATE OF state ON capture
WHEN OLD.state IN ('released', 'refunded') AND NEW.state <> OLD.state
BEGIN SELECT RAISE(ABORT, 'a final state is final'); END;

-- Two tables get a wider CHECK, which SQLite takes with a new table only.
CREATE TABLE hold_6 (
  id          TEXT PRIMARY KEY,
  job         BLOB NOT NULL,
  commitment  TEXT NOT NULL UNIQUE REFERENCES secret (commitment),
  funded_at   INTEGER NOT NULL,
  bond_state  TEXT NOT NULL CHECK (bond_state IN ('reserved', 'frozen', 'unbonding', 'free', 'slashed')),
  bond_due    INTEGER,
  unbonding_s INTEGER NOT NULL,           -- the escrow's when it was funded
  undecided   INTEGER NOT NULL CHECK (undecided >= 0),
  blamed      INTEGER NOT NULL CHECK (blamed >= 0)
) STRICT;
INSERT INTO hold_6 SELECT id, job, commitment, funded_at, bond_state, bond_due, 0,
  (SELECT count(*) FROM capture WHERE hold = id AND state NOT IN
    ('releasing', 'refunding', 'reconcile_release', 'reconcile_refund', 'released', 'refunded')),
  (SELECT count(*) FROM capture WHERE hold = id AND blamed = 1) FROM hold;
DROP TABLE hold;
ALTER TABLE hold_6 RENAME TO hold;
CREATE INDEX hold_bond_due ON hold (bond_due) WHERE bond_due IS NOT NULL;
CREATE TRIGGER hold_slashed BEFORE UPDATE OF bond_state ON hold
WHEN NEW.bond_state = 'slashed'
 AND NOT EXISTS (SELECT 1 FROM adjudication WHERE hold = NEW.id AND outcome = 'convicted')
BEGIN SELECT RAISE(ABORT, 'a bond is slashed by a transcript alone'); END;

CREATE TABLE payment_6 (
  hold      TEXT NOT NULL,
  seq       INTEGER NOT NULL,
  direction TEXT NOT NULL CHECK (direction IN ('release', 'fee', 'refund')),
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
INSERT INTO payment_6 SELECT * FROM payment;
DROP TABLE payment;
ALTER TABLE payment_6 RENAME TO payment;
CREATE INDEX payment_open ON payment (attempts, hold, seq, direction) WHERE status <> 'paid';
CREATE TRIGGER payment_final BEFORE UPDATE ON payment
WHEN OLD.status = 'paid'
BEGIN SELECT RAISE(ABORT, 'a payment is paid once'); END;

-- The queue: what is to be checked, with everything that a check takes. Gone when the capture is settled.
CREATE TABLE work (
  hold      TEXT NOT NULL,
  seq       INTEGER NOT NULL,
  bundle    BLOB NOT NULL,
  answers   BLOB,
  queued_at INTEGER NOT NULL,
  ready_at  INTEGER NOT NULL,         -- the first second at which a worker may take it
  PRIMARY KEY (hold, seq),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

CREATE INDEX work_ready ON work (ready_at, hold, seq);

-- What became of it with each worker that took it, for good.
CREATE TABLE attempt (
  hold     TEXT NOT NULL,
  seq      INTEGER NOT NULL,
  number   INTEGER NOT NULL,
  worker   TEXT NOT NULL,
  began_at INTEGER NOT NULL,
  ended_at INTEGER,
  outcome  TEXT,                      -- a ruling, or the code of what kept it from one
  PRIMARY KEY (hold, seq, number),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

-- Who works on the queue, and when it was last heard of.
CREATE TABLE worker (
  id         TEXT PRIMARY KEY,
  host       TEXT NOT NULL,
  pid        INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  beat_at    INTEGER NOT NULL,
  stopped_at INTEGER,
  settled    INTEGER NOT NULL,
  kept       INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TRIGGER attempt_stays BEFORE DELETE ON attempt BEGIN SELECT RAISE(ABORT, 'attempts are kept'); END;
CREATE TRIGGER attempt_ended BEFORE UPDATE ON attempt
WHEN OLD.ended_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'an attempt ends once'); END;
