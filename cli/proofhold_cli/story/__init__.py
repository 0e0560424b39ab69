"""The demo: short acts, played on real models, real proofs and a real ledger."""
