-- Schema 10: the second secret of a valuable job (PROTOCOL P3). docs/formats/escrow.md explains every table.

-- Drawn when the job is drafted, one a nonce; revealed once the digest of the openings is recorded, to that one.
CREATE TABLE projection (
  nonce       TEXT PRIMARY KEY,
  commitment  TEXT NOT NULL UNIQUE,
  secret      BLOB NOT NULL CHECK (length(secret) = 32),
  openings    TEXT,
  recorded_at INTEGER,
  CHECK ((openings IS NULL) = (recorded_at IS NULL))
) WITHOUT ROWID, STRICT;

CREATE TRIGGER projection_stays BEFORE DELETE ON projection
BEGIN SELECT RAISE(ABORT, 'secrets are kept'); END;
CREATE TRIGGER projection_recorded BEFORE UPDATE ON projection
WHEN OLD.openings IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'openings are recorded once'); END;
