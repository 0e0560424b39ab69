-- Schema 7: a lease is not an attempt yet; only a check that began is. docs/formats/escrow.md explains every table.

-- How often the capture was leased: the fence, which `attempts` was until now. `attempts` counts checks that began.
ALTER TABLE capture ADD COLUMN leases bigint NOT NULL DEFAULT 0;
UPDATE capture SET leases = attempts;

-- Whether the check is known to have begun. All that came before were counted.
ALTER TABLE attempt ADD COLUMN begun bigint NOT NULL DEFAULT 1;
