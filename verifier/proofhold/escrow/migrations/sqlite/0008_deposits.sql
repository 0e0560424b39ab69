-- Schema 8: deposits of x402 that somebody may have to give back. docs/formats/escrow.md explains every table.

-- Null where there was none: 'sent' may lie where it was sent to, 'returned' was given back.
ALTER TABLE gated_payment ADD COLUMN deposit TEXT CHECK (deposit IN ('sent', 'returned'));
CREATE INDEX gated_payment_deposited ON gated_payment (changed_at) WHERE deposit = 'sent' AND status <> 'settled';
