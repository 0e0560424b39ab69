"""The escrow: holds, bonds and the ledger under them (PROTOCOL, "States of a capture").

It knows digests, keys, amounts and clocks, and nothing of evidence or policies. Read `states` first, which
is the whole of what can happen; then `escrow`, which is what can be asked for; then `moves`, which is how
a state, its log, its outbox row and its money change together.
"""

from proofhold.escrow.escrow import (
    MAX_ATTEMPTS,
    Adjudged,
    Adjudication,
    Applied,
    BondRecord,
    CaptureRecord,
    Decision,
    Difference,
    DisputeRecord,
    Escrow,
    HoldRecord,
    Pumped,
    Ruled,
    Ruling,
    Transition,
)
from proofhold.escrow.guarding import GuardRecord
from proofhold.escrow.home import create_home, open_home
from proofhold.escrow.ledger import Account, AccountKind, Balance
from proofhold.escrow.postgres import PostgresEscrow
from proofhold.escrow.rail import (
    Direction,
    LedgerRail,
    PaymentKey,
    Rail,
    RailReceipt,
    RailUnknown,
    SqliteRail,
)
from proofhold.escrow.refusals import EscrowFailure, Refused
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.escrow.states import BondState, Event, State

__all__ = [
    "Escrow",
    "SqliteEscrow",
    "PostgresEscrow",
    "create_home",
    "open_home",
    "HoldRecord",
    "CaptureRecord",
    "BondRecord",
    "State",
    "BondState",
    "Event",
    "Ruling",
    "Adjudged",
    "Adjudication",
    "DisputeRecord",
    "Ruled",
    "Decision",
    "Applied",
    "Transition",
    "Pumped",
    "Difference",
    "Account",
    "AccountKind",
    "Balance",
    "GuardRecord",
    "Rail",
    "LedgerRail",
    "SqliteRail",
    "PaymentKey",
    "Direction",
    "RailReceipt",
    "RailUnknown",
    "Refused",
    "EscrowFailure",
    "MAX_ATTEMPTS",
]
