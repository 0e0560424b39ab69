"""proofhold: check AI inference before you pay for it.

The hook in a settlement service is `fund`, then `verify_and_settle`, or `Verifier.verify` and `settle` apart.
What a provider runs is in `proofhold.provider`, what a model's CI runs in `proofhold.compile`; neither is
imported here.

The public names are loaded when they are first used (PEP 562), so that a command's --help, or a service that
only reads receipts, does not pay for a database and a policy language.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from proofhold.version import __version__

if TYPE_CHECKING:
    from proofhold.catalogue import Catalogue, Entry
    from proofhold.core import (
        Accepted,
        Answer,
        Assurance,
        Evidence,
        Fault,
        Finding,
        Inconclusive,
        Need,
        NeedKind,
        Offer,
        Property,
        Reason,
        Refuted,
        Rejected,
        Unclear,
        Verdict,
    )
    from proofhold.errors import Malformed, Misuse, ProofholdError
    from proofhold.escrow.postgres import PostgresEscrow
    from proofhold.escrow.rail import LedgerRail
    from proofhold.escrow.refusals import Refused
    from proofhold.escrow.sqlite import SqliteEscrow
    from proofhold.exchange import Bundle, Exchange
    from proofhold.keys import SigningKey
    from proofhold.policy import Policy
    from proofhold.pool import VerifierPool
    from proofhold.receipt import Receipt
    from proofhold.recomputation import recheck
    from proofhold.runner import ProcessRunner
    from proofhold.settlement import (
        Decision,
        Mode,
        Outcome,
        asettle,
        asettle_receipt,
        averify_and_settle,
        fund,
        settle,
        settle_receipt,
        verify_and_settle,
    )
    from proofhold.standard import standard_verifier
    from proofhold.verifier import Backend, Verifier

__all__ = [
    "__version__",
    "Accepted",
    "Answer",
    "Assurance",
    "Backend",
    "Bundle",
    "Catalogue",
    "Decision",
    "Entry",
    "Evidence",
    "Exchange",
    "Fault",
    "Finding",
    "Inconclusive",
    "LedgerRail",
    "Malformed",
    "Misuse",
    "Mode",
    "Need",
    "NeedKind",
    "Offer",
    "Outcome",
    "Policy",
    "ProcessRunner",
    "ProofholdError",
    "Property",
    "Reason",
    "Receipt",
    "Refused",
    "Refuted",
    "Rejected",
    "SigningKey",
    "SqliteEscrow",
    "PostgresEscrow",
    "Unclear",
    "Verdict",
    "Verifier",
    "VerifierPool",
    "asettle",
    "asettle_receipt",
    "averify_and_settle",
    "fund",
    "recheck",
    "settle",
    "settle_receipt",
    "standard_verifier",
    "verify_and_settle",
]

_HOMES = {
    "proofhold.catalogue": ("Catalogue", "Entry"),
    "proofhold.core": (
        "Accepted",
        "Answer",
        "Assurance",
        "Evidence",
        "Fault",
        "Finding",
        "Inconclusive",
        "Need",
        "NeedKind",
        "Offer",
        "Property",
        "Reason",
        "Refuted",
        "Rejected",
        "Unclear",
        "Verdict",
    ),
    "proofhold.errors": ("Malformed", "Misuse", "ProofholdError"),
    "proofhold.escrow.rail": ("LedgerRail",),
    "proofhold.escrow.refusals": ("Refused",),
    "proofhold.escrow.sqlite": ("SqliteEscrow",),
    "proofhold.escrow.postgres": ("PostgresEscrow",),
    "proofhold.exchange": ("Bundle", "Exchange"),
    "proofhold.keys": ("SigningKey",),
    "proofhold.policy": ("Policy",),
    "proofhold.pool": ("VerifierPool",),
    "proofhold.receipt": ("Receipt",),
    "proofhold.recomputation": ("recheck",),
    "proofhold.runner": ("ProcessRunner",),
    "proofhold.settlement": (
        "Decision",
        "Mode",
        "Outcome",
        "asettle",
        "asettle_receipt",
        "averify_and_settle",
        "fund",
        "settle",
        "settle_receipt",
        "verify_and_settle",
    ),
    "proofhold.standard": ("standard_verifier",),
    "proofhold.verifier": ("Backend", "Verifier"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from its home."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'proofhold' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
