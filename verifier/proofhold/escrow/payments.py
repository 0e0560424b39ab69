"""Driving payments over a rail: take it, pay it, record it, and after anything odd ask first.

Between taking and recording lies the only place where a crash or a lost answer leaves the outcome open. A
payment found there is asked about before it is sent again, and it is sent again under the same key.
"""

from __future__ import annotations

from dataclasses import dataclass

from proofhold.canonical import Digest
from proofhold.escrow import ledger
from proofhold.escrow.database import Database, Transaction
from proofhold.escrow.escrow import Pumped
from proofhold.escrow.ledger import Account, AccountKind
from proofhold.escrow.moves import load, move_capture
from proofhold.escrow.rail import Direction, PaymentKey, Rail, RailReceipt, RailUnknown
from proofhold.escrow.refusals import EscrowFailure
from proofhold.escrow.states import Event, State

LEASE_S = 30
"""How long a payment that somebody took is left to them. Past it, whoever finds it asks the rail."""
ROUND = 1024
"""How many payments one round takes up: those tried least come first, so none starves another."""

_OPEN = (
    "SELECT hold, seq, direction FROM payment WHERE status <> 'paid' AND lease_end <= ?"
    " AND (rail IS NULL OR rail = ?) ORDER BY attempts, rowid LIMIT ?"
)
_ONE = "SELECT * FROM payment WHERE hold = ? AND seq = ? AND direction = ?"
_TAKE = (
    "UPDATE payment SET status = ?, rail = ?, attempts = attempts + 1, lease_end = ?"
    " WHERE hold = ? AND seq = ? AND direction = ? AND attempts = ?"
)


@dataclass(frozen=True, slots=True)
class _Order:
    """A payment that this process has taken."""

    key: PaymentKey
    amount: int
    currency: str
    account: str
    was_tried: bool


def pump(database: Database, rail: Rail, *, now: int) -> Pumped:
    """Go once over the open payments that are free to be taken.

    A payment belongs to the rail that first tried it: another one knows nothing of what became of it.
    """
    with database.reading() as tx:
        rows = tx.execute(_OPEN, (now, rail.name, ROUND)).fetchall()
    keys = [PaymentKey(row["hold"], row["seq"], Direction(row["direction"])) for row in rows]
    outcomes = [_pay(database, rail, key, now) for key in keys]
    return Pumped(paid=outcomes.count(True), unknown=outcomes.count(False))


def _pay(database: Database, rail: Rail, key: PaymentKey, now: int) -> bool | None:
    """Pay one; True if it is paid, False if nobody knows, None if somebody else has it."""
    with database.transaction() as tx:
        order = _take(tx, rail, key, now)
    if order is None:
        return None
    try:
        receipt = rail.query(key) if order.was_tried else None
        if receipt is None:
            if order.was_tried:
                with database.transaction() as tx:
                    _mark(tx, key, "sending", now, lease_end=now + LEASE_S)
            receipt = rail.pay(key, order.amount, order.currency, order.account)
    except RailUnknown:
        with database.transaction() as tx:
            _mark(tx, key, "unknown", now, lease_end=now)
        return False
    if (receipt.amount, receipt.currency, receipt.account) != (order.amount, order.currency, order.account):
        raise EscrowFailure("escrow.rail", f"the rail {rail.name} paid something else under {key}: {receipt}")
    with database.transaction() as tx:
        _record(tx, rail, key, receipt, now)
    return True


def _take(tx: Transaction, rail: Rail, key: PaymentKey, now: int) -> _Order | None:
    row = tx.execute(_ONE, (key.hold, key.seq, key.direction)).fetchone()
    if row["status"] == "paid" or row["lease_end"] > now:
        return None
    # A status of "unknown" stays one until the rail has answered: the capture's state depends on it.
    status = "unknown" if row["status"] == "unknown" else "sending"
    where = (key.hold, key.seq, key.direction, row["attempts"])
    tx.execute(_TAKE, (status, rail.name, now + LEASE_S, *where))
    currency = load(tx, key.hold, key.seq).job.currency.code
    return _Order(key, row["amount"], currency, row["account"], row["status"] != "new")


def _mark(tx: Transaction, key: PaymentKey, status: str, now: int, *, lease_end: int) -> None:
    """Write down what is known of an unpaid payment, and let the capture's state follow."""
    tx.execute(
        "UPDATE payment SET status = ?, lease_end = ?"
        " WHERE hold = ? AND seq = ? AND direction = ? AND status <> 'paid'",
        (status, lease_end, key.hold, key.seq, key.direction),
    )
    _follow(tx, key.hold, key.seq, now)


def _record(tx: Transaction, rail: Rail, key: PaymentKey, receipt: RailReceipt, now: int) -> None:
    """Record a receipt: the hold's money leaves the books' hold, once."""
    done = tx.execute(
        "UPDATE payment SET status = 'paid', reference = ?"
        " WHERE hold = ? AND seq = ? AND direction = ? AND status <> 'paid'",
        (receipt.reference, key.hold, key.seq, key.direction),
    )
    if done.rowcount == 0:
        return  # another process recorded the same receipt first
    capture = load(tx, key.hold, key.seq)
    stays = rail.lands_in is AccountKind.PARTY
    target = capture.party(receipt.account) if stays else ledger.outside(receipt.currency)
    source: Account = capture.hold_account
    ledger.transfer(tx, f"pay:{key}", source, target, receipt.amount, at=max(now, capture.changed_at))
    _follow(tx, key.hold, key.seq, now)


def _follow(tx: Transaction, hold: Digest, seq: int, now: int) -> None:
    """Move the capture to where its payments are."""
    sql = "SELECT status FROM payment WHERE hold = ? AND seq = ?"
    statuses = {row["status"] for row in tx.execute(sql, (hold, seq))}
    capture = load(tx, hold, seq)
    reconciling = capture.state in (State.RECONCILE_RELEASE, State.RECONCILE_REFUND)
    if statuses == {"paid"}:
        move_capture(tx, capture, Event.PAID, now=now)
    elif "unknown" in statuses and not reconciling:
        move_capture(tx, capture, Event.OUTCOME_UNKNOWN, now=now)
    elif "unknown" not in statuses and reconciling:
        move_capture(tx, capture, Event.RECONCILED, now=now)
