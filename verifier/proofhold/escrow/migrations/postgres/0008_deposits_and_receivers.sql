-- Schema 8: deposits that somebody may have to give back; what is due by receiver. docs/formats/escrow.md explains it.

-- Null where there was none: 'sent' may lie where it was sent to, 'returned' was given back.
ALTER TABLE gated_payment ADD COLUMN deposit text CHECK (deposit IN ('sent', 'returned'));
CREATE INDEX gated_payment_deposited ON gated_payment (changed_at) WHERE deposit = 'sent' AND status <> 'settled';

-- A receiver that does not answer must not keep the others waiting: each is asked for its own.
DROP INDEX webhook_delivery_due;
CREATE INDEX webhook_delivery_due ON webhook_delivery (webhook, due_at, outbox) WHERE status = 'due';
