-- Schema 4: what is kept beside the money. docs/formats/escrow.md explains every table.

-- What the hook would have decided, had it been switched on.
CREATE TABLE shadow (
  hold           TEXT NOT NULL,
  seq            INTEGER NOT NULL,
  receipt_digest TEXT NOT NULL,
  outcome        TEXT NOT NULL CHECK (outcome IN ('release', 'refund', 'dispute', 'keep')),
  refused        TEXT NOT NULL,       -- the code with which the escrow would have refused it, or nothing
  receipt        BLOB NOT NULL,
  at             INTEGER NOT NULL,
  PRIMARY KEY (hold, seq, receipt_digest),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

-- What really became of the money, where that happened outside of this escrow: told once.
CREATE TABLE shadow_actual (
  hold    TEXT NOT NULL,
  seq     INTEGER NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('release', 'refund')),
  at      INTEGER NOT NULL,
  PRIMARY KEY (hold, seq),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

CREATE TRIGGER shadow_kept BEFORE UPDATE ON shadow BEGIN SELECT RAISE(ABORT, 'decisions are kept'); END;
CREATE TRIGGER shadow_stays BEFORE DELETE ON shadow BEGIN SELECT RAISE(ABORT, 'decisions are kept'); END;
CREATE TRIGGER shadow_actual_kept BEFORE UPDATE ON shadow_actual
BEGIN SELECT RAISE(ABORT, 'what was told stays told'); END;
