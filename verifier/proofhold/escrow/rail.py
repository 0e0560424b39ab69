"""Rails: what moves the money once a capture is decided.

A rail may be slow, far away and unsure. What the escrow asks of it is little: that a payment has a key of
its own, (hold, seq, direction), that paying twice under one key pays once, and that it can be asked what
became of a key. An outcome that nobody knows is `RailUnknown`; the escrow then asks, and never resends
blindly.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from proofhold.canonical import Digest
from proofhold.errors import Misuse, ProofholdError
from proofhold.escrow.ledger import AccountKind

BUSY_TIMEOUT_S = 10.0

_PAYMENT_TABLE = """
CREATE TABLE IF NOT EXISTS payment (
  key      TEXT PRIMARY KEY,
  amount   INTEGER NOT NULL CHECK (amount > 0),
  currency TEXT NOT NULL,
  account  TEXT NOT NULL
) WITHOUT ROWID, STRICT
"""


class RailUnknown(ProofholdError):
    """The rail cannot say whether the payment happened. Ask it later; do not pay again."""


class Direction(StrEnum):
    """To whom a payment of a capture goes: a release may have all three, the remainder going back."""

    RELEASE = "release"
    FEE = "fee"
    REFUND = "refund"


@dataclass(frozen=True, slots=True)
class PaymentKey:
    """What makes a payment happen once: the rail's idempotency key."""

    hold: Digest
    seq: int
    direction: Direction

    def __str__(self) -> str:
        return f"{self.hold}:{self.seq}:{self.direction}"


@dataclass(frozen=True, slots=True)
class RailReceipt:
    """What a rail did under a key, in its own words; `amount` in atomic units of `currency`."""

    reference: str
    amount: int
    currency: str
    account: str


class Rail(Protocol):
    """Where payments go."""

    @property
    def name(self) -> str:
        """Names the rail for good: a payment that was tried on one rail is never tried on another."""

    @property
    def lands_in(self) -> AccountKind:
        """The kind of ledger account that money arrives in: PARTY if it stays here, OUTSIDE if it leaves."""

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        """Pay once under this key, whatever was paid under it before.

        Args:
            key: names the payment; a second call with it pays nothing and gives the first one's receipt.
            amount: atomic units, at least 1.
            currency: a currency's code.
            account: the buyer's key or the job's payee.

        Raises:
            RailUnknown: it may or may not have happened.
            Misuse: the key was used for another payment.

        """

    def query(self, key: PaymentKey) -> RailReceipt | None:
        """Say what became of a key: its receipt, or None if it was never paid.

        Raises:
            RailUnknown: the rail cannot say.

        """


class LedgerRail:
    """The internal ledger itself: the posting that records the receipt is the payment.

    So there is nothing to do here, and nothing between "paid" and "recorded" where a crash could fall.
    """

    name = "ledger"
    lands_in = AccountKind.PARTY

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        """Give the receipt of the posting that the escrow makes in the same transaction."""
        return RailReceipt(f"ledger:{key}", amount, currency, account)

    def query(self, key: PaymentKey) -> RailReceipt | None:  # noqa: ARG002
        """Give None: paying and recording are one, so what is still asked about was not paid."""
        return None


class SqliteRail:
    """A rail with a database of its own: the smallest one between which and the escrow a crash can fall."""

    lands_in = AccountKind.OUTSIDE

    def __init__(self, path: Path) -> None:
        self.name = "sqlite"
        self._path = path
        with self._connection() as connection:
            connection.execute(_PAYMENT_TABLE)

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        """Pay once under this key.

        Raises:
            RailUnknown: the rail's database did not answer.
            Misuse: the key was used for another payment.

        """
        with self._connection() as connection:
            connection.execute(
                "INSERT INTO payment VALUES (?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (str(key), amount, currency, account),
            )
            receipt = _find(connection, key)
        if receipt != RailReceipt(_reference(key), amount, currency, account):
            raise Misuse(f"the rail has paid something else under {key}")
        return receipt

    def query(self, key: PaymentKey) -> RailReceipt | None:
        """Say what became of a key.

        Raises:
            RailUnknown: the rail's database did not answer.

        """
        with self._connection() as connection:
            return _find(connection, key)

    def payments(self) -> tuple[RailReceipt, ...]:
        """List everything that was ever paid."""
        with self._connection() as connection:
            rows = connection.execute("SELECT key, amount, currency, account FROM payment ORDER BY key")
            return tuple(RailReceipt(f"sqlite:{key}", *rest) for key, *rest in rows)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # One connection a call: a rail is asked rarely, and so may be asked from any thread.
        try:
            with contextlib.closing(
                sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.Error as error:
            raise RailUnknown(f"the rail {self._path} did not answer: {error}") from error


def _find(connection: sqlite3.Connection, key: PaymentKey) -> RailReceipt | None:
    found = connection.execute(
        "SELECT amount, currency, account FROM payment WHERE key = ?", (str(key),)
    ).fetchone()
    return RailReceipt(_reference(key), *found) if found else None


def _reference(key: PaymentKey) -> str:
    return f"sqlite:{key}"
