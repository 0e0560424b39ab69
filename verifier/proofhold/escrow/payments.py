"""Driving payments over a rail: take them, pay them, record them, and after anything odd ask first.

Between taking and recording lies the only place where a crash or a lost answer leaves the outcome open. A
payment found there is asked about before it is sent again, and it is sent again under the same key. On the
ledger's own rail nothing lies between: taking, paying and recording are one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from proofhold.canonical import Digest
from proofhold.escrow import ledger
from proofhold.escrow.books import Books, Record
from proofhold.escrow.driver import Database, Transaction, Value
from proofhold.escrow.escrow import Pumped
from proofhold.escrow.ledger import AccountKind
from proofhold.escrow.moves import load, move_capture
from proofhold.escrow.rail import Direction, LedgerRail, PaymentKey, Rail, RailReceipt, RailUnknown
from proofhold.escrow.refusals import EscrowFailure
from proofhold.escrow.states import Event, State
from proofhold.escrow.tables import CAPTURE, GUARD_HOLD, HOLD, PAYMENT, TRANSFER

LEASE_S = 30
"""How long a payment that somebody took is left to them. Past it, whoever finds it asks the rail."""
ROUND = 1024
"""How many payments one round takes up: those tried least come first, so none starves another."""
TAKEN = 16
"""How many payments are taken by one commit, and recorded by one: a crash leaves so many to ask about."""

_OPEN = (
    "SELECT hold, seq, direction FROM payment WHERE status <> 'paid' AND lease_end <= ?"
    " AND (rail IS NULL OR rail = ?) ORDER BY attempts, hold, seq, direction LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class _Order:
    """A payment that this process has taken."""

    key: PaymentKey
    amount: int
    currency: str
    account: str
    was: str
    """Its status before."""
    was_on: str | None
    """The rail that first tried it, if one did."""
    attempts: int

    @property
    def was_tried(self) -> bool:
        """Whether the rail must be asked before it is paid."""
        return self.was != "new"


def pump(database: Database, rail: Rail, *, now: int) -> Pumped:
    """Go once over the open payments that are free to be taken.

    A payment belongs to the rail that first tried it: another one knows nothing of what became of it.
    """
    rows = database.read(lambda tx: tx.execute(_OPEN, (now, rail.name, ROUND)).fetchall())
    keys = [PaymentKey(row["hold"], row["seq"], Direction(row["direction"])) for row in rows]
    if isinstance(rail, LedgerRail):
        paid = database.write(partial(_post, keys=keys, rail=rail, now=now)) if keys else 0
        return Pumped(paid, unknown=0)
    paid, unknown = 0, 0
    for first in range(0, len(keys), TAKEN):
        outcomes = _pay(database, rail, keys[first : first + TAKEN], now)
        paid, unknown = paid + outcomes.count(True), unknown + outcomes.count(False)
    return Pumped(paid, unknown)


def _post(tx: Transaction, *, keys: Sequence[PaymentKey], rail: LedgerRail, now: int) -> int:
    """Pay over the ledger itself; give how many were paid."""
    books = _open(tx, keys)
    orders = [order for key in keys if (order := _take(books, rail, key, now)) is not None]
    for order in orders:
        receipt = rail.pay(order.key, order.amount, order.currency, order.account)
        _record(books, rail, order.key, receipt, now)
    books.flush()
    return len(orders)


def _pay(database: Database, rail: Rail, keys: Sequence[PaymentKey], now: int) -> list[bool]:
    """Pay some: True for each that is paid, False where nobody knows; none for those somebody else has."""

    def take(tx: Transaction) -> list[_Order]:
        books = _open(tx, keys)
        orders = [order for key in keys if (order := _take(books, rail, key, now)) is not None]
        books.flush()
        return orders

    known: list[tuple[_Order, RailReceipt | None]] = []
    began, left = time.monotonic(), database.write(take)
    try:
        while left and time.monotonic() - began < LEASE_S / 2:  # past it, their leases may end under way
            order = left.pop(0)
            known.append((order, _ask_and_pay(database, rail, order, now)))
    finally:
        # Whatever trips on the way: what is known is written down, and what was not tried is put back.
        if known or left:
            database.write(partial(_write_down, known=known, left=left, rail=rail, now=now))
    return [receipt is not None for _, receipt in known]


def _ask_and_pay(database: Database, rail: Rail, order: _Order, now: int) -> RailReceipt | None:
    """Pay one over a rail of its own; None if the rail does not know."""
    key = order.key
    try:
        receipt = rail.query(key) if order.was_tried else None
        if receipt is None:
            if order.was_tried:
                database.write(_marking(key, "sending", now, lease_end=now + LEASE_S))
            receipt = rail.pay(key, order.amount, order.currency, order.account)
    except RailUnknown:
        return None
    if (receipt.amount, receipt.currency, receipt.account) != (order.amount, order.currency, order.account):
        raise EscrowFailure("escrow.rail", f"the rail {rail.name} paid something else under {key}: {receipt}")
    return receipt


def _write_down(
    tx: Transaction,
    *,
    known: Sequence[tuple[_Order, RailReceipt | None]],
    left: Sequence[_Order],
    rail: Rail,
    now: int,
) -> None:
    books = _open(tx, [order.key for order in (*(order for order, _ in known), *left)])
    for order in left:
        if _find(books, order.key)["attempts"] == order.attempts:
            _update(books, order.key, status=order.was, rail=order.was_on, lease_end=now)
    for order, receipt in known:
        if receipt is not None:
            _record(books, rail, order.key, receipt, now)
        else:
            _mark(books, order.key, "unknown", now, lease_end=now)
    books.flush()


def _open(tx: Transaction, keys: Sequence[PaymentKey]) -> Books:
    """Open the books at some payments, with everything that paying them reads."""
    books, captures = Books(tx), {(key.hold, key.seq) for key in keys}
    books.fetch(HOLD, [(hold,) for hold, _ in captures])
    books.fetch(CAPTURE, captures)
    books.fetch(GUARD_HOLD, [(hold,) for hold, _ in captures])
    books.fetch(PAYMENT, [(*at, direction.value) for at in captures for direction in Direction])
    books.fetch(TRANSFER, [(f"pay:{key}",) for key in keys])
    return books


def _take(books: Books, rail: Rail, key: PaymentKey, now: int) -> _Order | None:
    row = _find(books, key)
    if row["status"] == "paid" or row["lease_end"] > now or row["rail"] not in (None, rail.name):
        return None
    currency = load(books, key.hold, key.seq).job.currency.code
    attempts = row["attempts"] + 1
    order = _Order(key, row["amount"], currency, row["account"], row["status"], row["rail"], attempts)
    # A status of "unknown" stays one until the rail has answered: the capture's state depends on it.
    status = "unknown" if row["status"] == "unknown" else "sending"
    _update(books, key, status=status, rail=rail.name, attempts=attempts, lease_end=now + LEASE_S)
    return order


def _marking(key: PaymentKey, status: str, now: int, *, lease_end: int) -> Callable[[Transaction], None]:
    def mark(tx: Transaction) -> None:
        books = _open(tx, [key])
        _mark(books, key, status, now, lease_end=lease_end)
        books.flush()

    return mark


def _mark(books: Books, key: PaymentKey, status: str, now: int, *, lease_end: int) -> None:
    """Write down what is known of an unpaid payment, and let the capture's state follow."""
    if _find(books, key)["status"] != "paid":
        _update(books, key, status=status, lease_end=lease_end)
    _follow(books, key.hold, key.seq, now)


def _record(books: Books, rail: Rail, key: PaymentKey, receipt: RailReceipt, now: int) -> None:
    """Record a receipt: the hold's money leaves the books' hold, once."""
    if _find(books, key)["status"] == "paid":
        return  # another process recorded the same receipt first
    _update(books, key, status="paid", reference=receipt.reference)
    capture = load(books, key.hold, key.seq)
    stays = rail.lands_in is AccountKind.PARTY
    target = capture.party(receipt.account) if stays else ledger.outside(receipt.currency)
    at = max(now, capture.changed_at)
    ledger.transfer(books, f"pay:{key}", capture.hold_account, target, receipt.amount, at=at)
    _follow(books, key.hold, key.seq, now)


def _follow(books: Books, hold: Digest, seq: int, now: int) -> None:
    """Move the capture to where its payments are."""
    rows = [books.find(PAYMENT, hold, seq, direction.value) for direction in Direction]
    statuses = {row["status"] for row in rows if row is not None}
    capture = load(books, hold, seq)
    reconciling = capture.state in (State.RECONCILE_RELEASE, State.RECONCILE_REFUND)
    if statuses == {"paid"}:
        move_capture(books, capture, Event.PAID, now=now)
    elif "unknown" in statuses and not reconciling:
        move_capture(books, capture, Event.OUTCOME_UNKNOWN, now=now)
    elif "unknown" not in statuses and reconciling:
        move_capture(books, capture, Event.RECONCILED, now=now)


def _find(books: Books, key: PaymentKey) -> Record:
    books.find(HOLD, key.hold)  # first: whoever touches anything of a hold has locked it
    row = books.find(PAYMENT, key.hold, key.seq, key.direction.value)
    if row is None:
        raise EscrowFailure("escrow.no_row", f"the payment {key} is not there")
    return row


def _update(books: Books, key: PaymentKey, **changes: Value) -> None:
    books.update(PAYMENT, (key.hold, key.seq, key.direction.value), **changes)
