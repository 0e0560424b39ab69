-- Schema 10: the second secret of a valuable job (PROTOCOL P3). docs/formats/escrow.md explains every table.

-- Drawn when the job is drafted, one a nonce; revealed once the digest of the openings is recorded, to that one.
CREATE TABLE projection (
  nonce       name_text PRIMARY KEY,
  commitment  name_text NOT NULL UNIQUE,
  secret      bytea NOT NULL CHECK (length(secret) = 32),
  openings    name_text,
  recorded_at bigint,
  CHECK ((openings IS NULL) = (recorded_at IS NULL))
);

CREATE TRIGGER projection_stays BEFORE DELETE ON projection
FOR EACH ROW EXECUTE FUNCTION refuse_change('secrets are kept');
CREATE TRIGGER projection_recorded BEFORE UPDATE ON projection
FOR EACH ROW WHEN (OLD.openings IS NOT NULL)
EXECUTE FUNCTION refuse_change('openings are recorded once');
