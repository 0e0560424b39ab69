-- Schema 11: the signed job apart from what changes about its hold, which was written anew with every move of
-- the bond, job and all. docs/formats/escrow.md explains every table.

CREATE TABLE job (
  hold TEXT PRIMARY KEY REFERENCES hold,
  body BLOB NOT NULL
) STRICT;
INSERT INTO job SELECT id, job FROM hold;
ALTER TABLE hold DROP COLUMN job;

CREATE TRIGGER job_kept BEFORE UPDATE ON job BEGIN SELECT RAISE(ABORT, 'documents are kept'); END;
CREATE TRIGGER job_stays BEFORE DELETE ON job BEGIN SELECT RAISE(ABORT, 'documents are kept'); END;
