-- Schema 6: metered holds, fees, unbonding, two keys, and the queue. docs/formats/escrow.md explains every table.

ALTER TABLE escrow ADD COLUMN unbonding_s bigint NOT NULL DEFAULT 0;

-- Above which price a resolution takes the keys of two operators.
CREATE TABLE two_keys (
  currency name_text PRIMARY KEY REFERENCES currency,
  above    numeric(78, 0) NOT NULL CHECK (above >= 0)
);

-- What the claim before this one came to, and whether the provider is blamed for this one.
ALTER TABLE capture ADD COLUMN base numeric(78, 0) NOT NULL DEFAULT 0;
ALTER TABLE capture ADD COLUMN blamed bigint NOT NULL DEFAULT 0;
UPDATE capture SET blamed = 1 WHERE hold IN (SELECT id FROM hold WHERE bond_state = 'frozen');

-- What is final stays so; only whether the bond is kept for it may still change.
DROP TRIGGER capture_final ON capture;
CREATE TRIGGER capture_final BEFORE UPDATE OF state ON capture
FOR EACH ROW WHEN (OLD.state IN ('released', 'refunded') AND NEW.state <> OLD.state)
EXECUTE FUNCTION refuse_change('a final state is final');

ALTER TABLE hold DROP CONSTRAINT hold_bond_state_check;
ALTER TABLE hold ADD CONSTRAINT hold_bond_state_check
  CHECK (bond_state IN ('reserved', 'frozen', 'unbonding', 'free', 'slashed'));
ALTER TABLE hold ADD COLUMN unbonding_s bigint NOT NULL DEFAULT 0; -- the escrow's when it was funded
ALTER TABLE hold ADD COLUMN undecided bigint NOT NULL DEFAULT 0 CHECK (undecided >= 0);
ALTER TABLE hold ADD COLUMN blamed bigint NOT NULL DEFAULT 0 CHECK (blamed >= 0);
UPDATE hold SET
  undecided = (SELECT count(*) FROM capture WHERE hold = id AND state NOT IN
    ('releasing', 'refunding', 'reconcile_release', 'reconcile_refund', 'released', 'refunded')),
  blamed = (SELECT count(*) FROM capture WHERE hold = id AND capture.blamed = 1);

ALTER TABLE payment DROP CONSTRAINT payment_direction_check;
ALTER TABLE payment ADD CONSTRAINT payment_direction_check CHECK (direction IN ('release', 'fee', 'refund'));

-- The queue: what is to be checked, with everything that a check takes. Gone when the capture is settled.
CREATE TABLE work (
  hold      name_text NOT NULL,
  seq       bigint NOT NULL,
  bundle    bytea NOT NULL,
  answers   bytea,
  queued_at bigint NOT NULL,
  ready_at  bigint NOT NULL,         -- the first second at which a worker may take it
  PRIMARY KEY (hold, seq),
  FOREIGN KEY (hold, seq) REFERENCES capture
) WITH (fillfactor = 70);

CREATE INDEX work_ready ON work (ready_at, hold, seq);

-- What became of it with each worker that took it, for good.
CREATE TABLE attempt (
  hold     name_text NOT NULL,
  seq      bigint NOT NULL,
  number   bigint NOT NULL,
  worker   text NOT NULL,
  began_at bigint NOT NULL,
  ended_at bigint,
  outcome  text,                     -- a ruling, or the code of what kept it from one
  PRIMARY KEY (hold, seq, number),
  FOREIGN KEY (hold, seq) REFERENCES capture
);

-- Who works on the queue, and when it was last heard of.
CREATE TABLE worker (
  id         name_text PRIMARY KEY,
  host       text NOT NULL,
  pid        bigint NOT NULL,
  started_at bigint NOT NULL,
  beat_at    bigint NOT NULL,
  stopped_at bigint,
  settled    bigint NOT NULL,
  kept       bigint NOT NULL
);

CREATE TRIGGER attempt_stays BEFORE DELETE ON attempt
FOR EACH ROW EXECUTE FUNCTION refuse_change('attempts are kept');
CREATE TRIGGER attempt_ended BEFORE UPDATE ON attempt
FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL)
EXECUTE FUNCTION refuse_change('an attempt ends once');
