-- Schema 11: the signed job apart from what changes about its hold, which was written anew with every move of
-- the bond, job and all. docs/formats/escrow.md explains every table.

CREATE TABLE job (
  hold name_text PRIMARY KEY REFERENCES hold,
  body bytea NOT NULL
);
INSERT INTO job SELECT id, job FROM hold;
ALTER TABLE hold DROP COLUMN job;

CREATE TRIGGER job_kept BEFORE UPDATE OR DELETE ON job
FOR EACH ROW EXECUTE FUNCTION refuse_change('documents are kept');
