-- Schema 9: a quorum may be one verifier, whose key then counts while the trust file has it. docs/formats/escrow.md.

ALTER TABLE quorum DROP CONSTRAINT quorum_need_check;
ALTER TABLE quorum ADD CONSTRAINT quorum_need_check CHECK (need BETWEEN 1 AND 16);
