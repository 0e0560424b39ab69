-- Schema 3: disputes. docs/formats/escrow.md explains every table, docs/dispute.md what they are for.

-- What was said in a dispute, one of each kind a capture: the verifier's challenge, the provider's answer, and
-- the tensors whose hashes the answer signs.
CREATE TABLE dispute (
  hold   TEXT NOT NULL,
  seq    INTEGER NOT NULL,
  kind   TEXT NOT NULL CHECK (kind IN ('challenge', 'answer', 'tensors')),
  digest TEXT NOT NULL,
  body   BLOB NOT NULL,
  at     INTEGER NOT NULL,
  PRIMARY KEY (hold, seq, kind),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

-- How a transcript settled one: one a capture, the first one for good.
CREATE TABLE adjudication (
  hold              TEXT NOT NULL,
  seq               INTEGER NOT NULL,
  outcome           TEXT NOT NULL CHECK (outcome IN ('convicted', 'acquitted', 'undecided')),
  transcript_digest TEXT NOT NULL,
  transcript        BLOB NOT NULL,
  at                INTEGER NOT NULL,
  PRIMARY KEY (hold, seq),
  FOREIGN KEY (hold, seq) REFERENCES capture
) STRICT;

CREATE TRIGGER dispute_kept BEFORE UPDATE ON dispute
BEGIN SELECT RAISE(ABORT, 'what was said in a dispute is kept'); END;
CREATE TRIGGER dispute_stays BEFORE DELETE ON dispute
BEGIN SELECT RAISE(ABORT, 'what was said in a dispute is kept'); END;
CREATE TRIGGER adjudication_kept BEFORE UPDATE ON adjudication
BEGIN SELECT RAISE(ABORT, 'adjudications are kept'); END;
CREATE TRIGGER adjudication_stays BEFORE DELETE ON adjudication
BEGIN SELECT RAISE(ABORT, 'adjudications are kept'); END;

-- The last wall before a stake: it is taken only where a transcript that convicts is on file (PROTOCOL P12).
CREATE TRIGGER hold_slashed BEFORE UPDATE OF bond_state ON hold
WHEN NEW.bond_state = 'slashed'
 AND NOT EXISTS (SELECT 1 FROM adjudication WHERE hold = NEW.id AND outcome = 'convicted')
BEGIN SELECT RAISE(ABORT, 'a bond is slashed by a transcript alone'); END;
