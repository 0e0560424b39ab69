"""Mutation testing: change the code a little, one place at a time, and see whether a test notices.

    PYTHONPATH=tests python -P -m mutation [MODULE…] [--list]

`plan.toml` names the modules and, for each, the fast tests that answer for it; `survivors.toml` lists the
changes that no test notices and why that is right. The run fails when too few mutants are killed, or when one
survives that is not listed. Why this is our own tool: docs/adr/0040-mutation-testing.md.
"""
