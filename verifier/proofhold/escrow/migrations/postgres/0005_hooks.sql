-- Schema 5: payments of other protocols, webhooks, kept evidence, several receipts above a cap.
-- docs/formats/escrow.md explains every table.

-- Payments of another protocol that a verdict stands in front of: one row a payment identifier.
CREATE TABLE gated_payment (
  id         name_text PRIMARY KEY,
  binding    name_text NOT NULL,      -- digest of everything that the identifier stands for
  status     text NOT NULL
    CHECK (status IN ('depositing', 'open', 'settling', 'settled', 'unknown', 'failed', 'refused')),
  lease_end  bigint NOT NULL,         -- until then it is in somebody's hands
  job        name_text,
  seq        bigint,
  outcome    text CHECK (outcome IN ('release', 'refund', 'dispute', 'keep')),
  amount     numeric(78, 0),          -- what the verdict lets settle at most
  receipt    bytea,
  reference  text,                    -- the transaction, as far as one is known
  answer     bytea,                   -- what the provider answered, for whoever asks again
  changed_at bigint NOT NULL,
  UNIQUE (job, seq)                   -- one capture of one job pays once
);

CREATE INDEX gated_payment_unsettled ON gated_payment (changed_at) WHERE status IN ('settling', 'unknown');

-- Who is told what leaves the outbox, signed with a secret of their own.
CREATE TABLE webhook (
  id         name_text PRIMARY KEY,
  url        text NOT NULL,
  secret     bytea NOT NULL,
  added_at   bigint NOT NULL,
  removed_at bigint
);

-- One row a message and receiver. The message's name is its outbox row's number.
CREATE TABLE webhook_delivery (
  webhook   name_text NOT NULL REFERENCES webhook,
  outbox    bigint NOT NULL REFERENCES outbox,
  status    text NOT NULL CHECK (status IN ('due', 'delivered', 'dead')),
  attempts  bigint NOT NULL,
  due_at    bigint NOT NULL,          -- not before then: the next attempt, or the end of a lease
  answered  bigint,                   -- the HTTP status of the last answer; null where there was none
  PRIMARY KEY (webhook, outbox)
);

CREATE INDEX webhook_delivery_due ON webhook_delivery (due_at) WHERE status = 'due';

-- Which pieces of evidence are kept for which capture; their bytes lie in a folder, by digest.
CREATE TABLE evidence (
  hold      name_text NOT NULL,
  seq       bigint NOT NULL,
  digest    name_text NOT NULL,
  kind      text NOT NULL,
  size      bigint NOT NULL,
  kept_at   bigint NOT NULL,
  pruned_at bigint,
  PRIMARY KEY (hold, seq, digest),
  FOREIGN KEY (hold, seq) REFERENCES capture
);

CREATE INDEX evidence_kept ON evidence (digest) WHERE pruned_at IS NULL;

-- Above which price a capture takes receipts of how many verifiers, and of which.
CREATE TABLE quorum (
  currency name_text PRIMARY KEY REFERENCES currency,
  above    numeric(78, 0) NOT NULL CHECK (above >= 0),
  need     bigint NOT NULL CHECK (need BETWEEN 2 AND 16),
  trust    bytea NOT NULL,            -- a trust file
  set_at   bigint NOT NULL
);

-- The receipts that came in for a capture above the cap: one a verifier.
CREATE TABLE endorsement (
  hold           name_text NOT NULL,
  seq            bigint NOT NULL,
  signer         name_text NOT NULL,
  outcome        text NOT NULL CHECK (outcome IN ('release', 'refund', 'dispute')),
  receipt_digest name_text NOT NULL,
  receipt        bytea NOT NULL,
  at             bigint NOT NULL,
  PRIMARY KEY (hold, seq, signer, outcome),
  FOREIGN KEY (hold, seq) REFERENCES capture
);

CREATE TRIGGER gated_payment_stays BEFORE DELETE ON gated_payment
FOR EACH ROW EXECUTE FUNCTION refuse_change('payments are kept');
CREATE TRIGGER gated_payment_final BEFORE UPDATE OF status ON gated_payment
FOR EACH ROW WHEN (OLD.status = 'settled' AND NEW.status <> 'settled')
EXECUTE FUNCTION refuse_change('a payment settles once');
CREATE TRIGGER endorsement_kept BEFORE UPDATE OR DELETE ON endorsement
FOR EACH ROW EXECUTE FUNCTION refuse_change('receipts are kept');
