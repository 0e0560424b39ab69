"""A simulated rail that fails as it is told to: to try out what a pump makes of a bad day.

It is no rail for money. What it teaches: a rail must keep one of two promises, that a key pays once or that
its answers are true. With either, the pump pays once; with neither, nobody can.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from proofhold.escrow.ledger import AccountKind
from proofhold.escrow.rail import PaymentKey, RailReceipt, RailUnknown


class Fault(StrEnum):
    """What goes wrong with one call of `pay`."""

    NONE = "none"
    LOST = "lost"
    """The request never arrived; the caller times out."""
    LATE = "late"
    """It was paid; the caller times out."""
    DUPLICATED = "duplicated"
    """The network delivers the request twice."""
    FORGOTTEN = "forgotten"
    """It was paid, the caller times out, and the next question is answered "never": it shows later."""


class SimulatedRail:
    """A simulated `Rail`: each call of `pay` meets the next fault of a script, and none past it."""

    lands_in = AccountKind.OUTSIDE

    def __init__(
        self, faults: Iterable[Fault] = (), *, keeps_keys: bool = True, name: str = "simulated"
    ) -> None:
        """Make a rail.

        Args:
            faults: one a call of `pay`.
            keeps_keys: whether a second payment under a key pays nothing. Without it the rail pays again.
            name: names the rail.

        """
        self.name = name
        self.movements: list[PaymentKey] = []
        """Every movement of money, in order: a key that stands here twice was paid twice."""
        self._faults = list(faults)
        self._keeps_keys = keeps_keys
        self._receipts: dict[PaymentKey, RailReceipt] = {}
        self._denied: set[PaymentKey] = set()

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        """Pay, or fail as told: see `Rail`."""
        fault = self._faults.pop(0) if self._faults else Fault.NONE
        if fault is Fault.LOST:
            raise RailUnknown("simulated: no answer")
        receipt = self._move(key, amount, currency, account)
        if fault is Fault.DUPLICATED:
            self._move(key, amount, currency, account)
        if fault is Fault.FORGOTTEN:
            self._denied.add(key)
        if fault in (Fault.LATE, Fault.FORGOTTEN):
            raise RailUnknown("simulated: no answer in time")
        return receipt

    def query(self, key: PaymentKey) -> RailReceipt | None:
        """Say what became of a key, or deny it once where it was told to."""
        if key in self._denied:
            self._denied.remove(key)
            return None
        return self._receipts.get(key)

    def _move(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        if not (self._keeps_keys and key in self._receipts):
            self.movements.append(key)
            self._receipts[key] = RailReceipt(f"{self.name}:{key}", amount, currency, account)
        return self._receipts[key]
