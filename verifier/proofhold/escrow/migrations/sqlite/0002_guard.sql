-- Schema 2: the guard's books. docs/formats/escrow.md explains every table, docs/guard.md what they are for.
-- Rates, probabilities and the multiplier are in parts per million.

-- What the guard promises, one row a currency. Without a row, jobs of the currency are not guarded.
CREATE TABLE guard (
  currency             TEXT PRIMARY KEY REFERENCES currency,
  kappa                INTEGER NOT NULL CHECK (kappa > 0),
  least_multiplier_ppm INTEGER NOT NULL,
  detection_ppm        INTEGER NOT NULL,
  delta_ppm            INTEGER NOT NULL,
  decay_ppm            INTEGER NOT NULL,
  probation_checks     INTEGER NOT NULL,
  saving_ppm           INTEGER NOT NULL,
  set_at               INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- What is known of a provider at a model.
CREATE TABLE guard_standing (
  provider       TEXT NOT NULL,
  model          TEXT NOT NULL,
  currency       TEXT NOT NULL REFERENCES currency,
  multiplier_ppm INTEGER NOT NULL CHECK (multiplier_ppm BETWEEN 1 AND 1000000),
  probation_left INTEGER NOT NULL CHECK (probation_left >= 0),
  clean          INTEGER NOT NULL CHECK (clean >= 0),
  failed         INTEGER NOT NULL CHECK (failed >= 0),
  unchecked      INTEGER NOT NULL CHECK (unchecked >= 0),
  exposure       INTEGER NOT NULL CHECK (exposure >= 0), -- released unchecked since the last clean check
  PRIMARY KEY (provider, model, currency)
) WITHOUT ROWID, STRICT;

-- A guarded hold: what it carries, what was demanded when it was funded, and what its end told.
CREATE TABLE guard_hold (
  hold              TEXT PRIMARY KEY REFERENCES hold,
  provider          TEXT NOT NULL,
  model             TEXT NOT NULL,
  currency          TEXT NOT NULL REFERENCES currency,
  price             INTEGER NOT NULL,
  rate_ppm          INTEGER NOT NULL,
  bond              INTEGER NOT NULL,
  demanded_rate_ppm INTEGER NOT NULL,
  demanded_bond     INTEGER NOT NULL,
  demanded_penalty  INTEGER NOT NULL,
  observation       TEXT CHECK (observation IN ('clean', 'unchecked', 'failed', 'cleared', 'void')),
  CHECK (rate_ppm >= demanded_rate_ppm AND bond >= demanded_bond)
) WITHOUT ROWID, STRICT;

CREATE INDEX guard_hold_open ON guard_hold (provider, currency) WHERE observation IS NULL;

-- Frozen at funding (PROTOCOL P11).
CREATE TRIGGER guard_hold_frozen BEFORE UPDATE OF hold, provider, model, currency, price, rate_ppm, bond,
  demanded_rate_ppm, demanded_bond, demanded_penalty ON guard_hold
BEGIN SELECT RAISE(ABORT, 'what was demanded at funding is frozen'); END;
CREATE TRIGGER guard_hold_stays BEFORE DELETE ON guard_hold
BEGIN SELECT RAISE(ABORT, 'guarded holds are kept'); END;
CREATE TRIGGER guard_hold_observed BEFORE UPDATE OF observation ON guard_hold
WHEN OLD.observation IS NOT NULL AND NOT (OLD.observation = 'failed' AND NEW.observation = 'cleared')
BEGIN SELECT RAISE(ABORT, 'an observation is made once'); END;
