"""What time alone does (PROTOCOL P8): no clock ever pays the provider, and nothing stays for ever."""

from __future__ import annotations

from dataclasses import fields

from proofhold.escrow.books import Books
from proofhold.escrow.driver import Database, Transaction
from proofhold.escrow.escrow import MAX_ATTEMPTS, Transition
from proofhold.escrow.moves import Capture, load, move_bond, move_capture
from proofhold.escrow.refusals import EscrowFailure
from proofhold.escrow.states import BondEvent, BondState, Event, State
from proofhold.escrow.tables import CAPTURE, HOLD

BATCH = 256
"""How many holds one transaction moves: a commit costs a flush of the disk, and others wait meanwhile."""

_DUE = "SELECT hold, seq FROM capture WHERE due <= ? AND changed_at <= ? ORDER BY due LIMIT ?"
_BOND_DUE = (
    "SELECT id FROM hold WHERE bond_due <= ? AND undecided = 0 AND NOT EXISTS"
    " (SELECT 1 FROM capture WHERE hold = id AND changed_at > ?) ORDER BY bond_due LIMIT ?"
)


def advance(books: Books, capture: Capture, *, now: int) -> Capture:
    """Do what time has already done to one capture, however late it is noticed.

    Every operation on a hold begins with this, so that its outcome does not hang on when the timers ran.
    """
    while capture.due is not None and capture.due <= now:
        capture = move_capture(books, capture, _event_of_clock(capture, now), now=now)
    return capture


def run_timers(database: Database, *, now: int) -> tuple[Transition, ...]:
    """Do what time has done to every hold; captures first, since their moves may keep a bond frozen."""
    done: list[Transition] = []
    for step in (_advance_captures, _free_bonds):
        while moved := database.write(lambda tx, step=step: step(tx, now)):  # type: ignore[misc]
            done += moved
    return tuple(done)


def _advance_captures(tx: Transaction, now: int) -> tuple[Transition, ...]:
    books = Books(tx)
    rows = tx.execute(_DUE, (now, now, BATCH)).fetchall()
    books.fetch(HOLD, [(row["hold"],) for row in rows])
    books.fetch(CAPTURE, [tuple(row) for row in rows])
    for row in rows:
        capture = load(books, row["hold"], row["seq"])
        if capture.changed_at <= now:  # as it is now that nobody else moves it
            advance(books, capture, now=now)
    books.flush()
    return _transitions(books)


def _free_bonds(tx: Transaction, now: int) -> tuple[Transition, ...]:
    books = Books(tx)
    rows = tx.execute(_BOND_DUE, (now, now, BATCH)).fetchall()
    books.fetch(HOLD, [(row["id"],) for row in rows])
    for row in rows:
        capture = load(books, row["id"], 0)
        if capture.bond_due is not None and capture.bond_due <= now:
            unbonding = capture.bond_state is BondState.UNBONDING
            event = BondEvent.UNBONDED if unbonding else BondEvent.FREEZE_DEADLINE
            move_bond(books, capture, event, now=now)
    books.flush()
    return _transitions(books)


def _transitions(books: Books) -> tuple[Transition, ...]:
    names = [field.name for field in fields(Transition)]
    return tuple(Transition(*(move[name] for name in names)) for move in books.logged)


def _event_of_clock(capture: Capture, now: int) -> Event:
    match capture.state:
        case State.FUNDED:
            return Event.CLAIM_DEADLINE
        case State.EXPIRED:
            return Event.EXPIRY
        case State.CLAIMED:
            return Event.VERIFICATION_DEADLINE
        case State.VERIFYING:
            if capture.verification_due is not None and capture.verification_due <= now:
                return Event.VERIFICATION_DEADLINE
            return Event.LEASE_END if capture.attempts < MAX_ATTEMPTS else Event.ATTEMPTS_SPENT
        case State.ANSWERING:
            return Event.ANSWER_DEADLINE
        case State.DISPUTED:
            return Event.DISPUTE_DEADLINE
        case state:
            raise EscrowFailure("escrow.table", f"no clock runs for a capture that is {state}")
