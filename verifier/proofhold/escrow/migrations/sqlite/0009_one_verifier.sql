-- Schema 9: a quorum may be one verifier, whose key then counts while the trust file has it. docs/formats/escrow.md.

-- A wider CHECK, which SQLite takes with a new table only.
CREATE TABLE quorum_9 (
  currency TEXT PRIMARY KEY REFERENCES currency,
  above    INTEGER NOT NULL CHECK (above >= 0),
  need     INTEGER NOT NULL CHECK (need BETWEEN 1 AND 16),
  trust    BLOB NOT NULL,
  set_at   INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO quorum_9 SELECT currency, above, need, trust, set_at FROM quorum;
DROP TABLE quorum;
ALTER TABLE quorum_9 RENAME TO quorum;
