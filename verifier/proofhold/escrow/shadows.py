"""Shadow decisions: what a hook would have done to a capture, kept beside what really became of it.

Nothing here moves a capture. A row is a signed receipt with what it would have meant; the real outcome is
the capture's own, once it is decided, or was told by whoever paid outside of this escrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proofhold.canonical import Digest
from proofhold.escrow.books import Books
from proofhold.escrow.escrow import Ruling
from proofhold.escrow.moves import load
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import REFUND_SIDE, RELEASE_SIDE
from proofhold.escrow.store import Store, StoreTransaction
from proofhold.money import Currency

KEEP = "keep"
"""The outcome of a verdict that rules nothing."""

_ACTUAL_OF_SIDE = ((RELEASE_SIDE, Ruling.RELEASE), (REFUND_SIDE, Ruling.REFUND))


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a hook in shadow mode made of one capture, and what really became of it."""

    hold: Digest
    seq: int
    outcome: str
    """A ruling, or ``keep``."""
    refused: str
    """The code with which the escrow would have refused it; empty when it would have done it."""
    receipt_digest: Digest
    at: int
    """Unix seconds."""
    amount: int
    """What was at stake, in atomic units: what the provider claimed."""
    currency: Currency
    actual: Ruling | None
    """RELEASE or REFUND, or None while nobody knows."""


class ShadowBook:
    """The shadow decisions of one escrow."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(
        self,
        hold: Digest,
        seq: int,
        outcome: str,
        *,
        receipt_digest: Digest,
        receipt: bytes,
        refused: str,
        now: int,
    ) -> None:
        """Write a decision down. The same receipt again changes nothing.

        Raises:
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``.

        """

        def operation(tx: StoreTransaction) -> None:
            tx.execute(
                "INSERT INTO shadow (hold, seq, receipt_digest, outcome, refused, receipt, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hold, seq, receipt_digest) DO NOTHING",
                (hold, seq, receipt_digest, outcome, refused, receipt, now),
            )

        self._store.write(operation)

    def tell(self, hold: Digest, seq: int, actual: Ruling, *, now: int) -> None:
        """Say what really became of a capture that was paid outside of this escrow. Once is as good as twice.

        Raises:
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``; ``shadow.told``: it was told
                otherwise before, or this escrow decided otherwise itself.

        """

        def operation(tx: Any) -> None:
            known = _actual(tx, hold, seq)
            if known is None:
                sql = "INSERT INTO shadow_actual (hold, seq, outcome, at) VALUES (?, ?, ?, ?)"
                tx.execute(sql, (hold, seq, actual, now))
            elif known is not actual:
                raise Refused("shadow.told", f"what became of it is known to be a {known}, not a {actual}")

        self._store.write(operation)

    def all(self) -> tuple[Shadow, ...]:
        """Give the newest decision on every capture, oldest first."""
        return self._store.read(_newest)

    def receipt(self, receipt_digest: Digest) -> bytes | None:
        """Give the receipt of a decision, or None."""

        def operation(tx: StoreTransaction) -> bytes | None:
            sql = "SELECT receipt FROM shadow WHERE receipt_digest = ?"
            row = tx.execute(sql, (receipt_digest,)).fetchone()
            return None if row is None else bytes(row["receipt"])

        return self._store.read(operation)


def _newest(tx: Any) -> tuple[Shadow, ...]:
    newest: dict[tuple[str, int], Any] = {}
    rows = tx.execute(
        "SELECT hold, seq, outcome, refused, receipt_digest, at FROM shadow ORDER BY at, receipt_digest"
    ).fetchall()
    for row in rows:
        newest.pop((row["hold"], row["seq"]), None)  # so that the order is that of the newest
        newest[row["hold"], row["seq"]] = row
    return tuple(_shadow(tx, row) for row in newest.values())


def _shadow(tx: Any, row: Any) -> Shadow:
    capture = load(Books(tx, writing=False), row["hold"], row["seq"])
    return Shadow(
        hold=row["hold"],
        seq=row["seq"],
        outcome=row["outcome"],
        refused=row["refused"],
        receipt_digest=row["receipt_digest"],
        at=row["at"],
        amount=capture.amount or 0,
        currency=capture.job.currency,
        actual=_actual(tx, row["hold"], row["seq"]),
    )


def _actual(tx: Any, hold: Digest, seq: int) -> Ruling | None:
    """Say what is known to have become of a capture: what was told, else what this escrow did itself."""
    state = load(Books(tx, writing=False), hold, seq).state
    sql = "SELECT outcome FROM shadow_actual WHERE hold = ? AND seq = ?"
    told = tx.execute(sql, (hold, seq)).fetchone()
    if told is not None:
        return Ruling(told["outcome"])
    return next((actual for side, actual in _ACTUAL_OF_SIDE if state in side), None)
