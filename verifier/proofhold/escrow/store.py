"""What is kept beside the money asks this much of a driver, and no more.

Shadow decisions, deliveries of webhooks and payments of other protocols lie in the escrow's own database, so
that one backup and one transaction hold them too. Their modules write plain SQL that every driver takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class StoreTransaction(Protocol):
    """One transaction. Whoever is handed one neither begins nor commits."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        """Run one statement with ``?`` for its parameters, and give its cursor."""


class Store(Protocol):
    """An escrow's database, as seen by what is kept beside the money."""

    def write(self, operation: Callable[[Any], T]) -> T:
        """Run a function of a transaction; when it returns, what it wrote is durable.

        An exception undoes all of it. The function may be run again when somebody else came first.

        Raises:
            Refused: ``escrow.busy``.
            EscrowFailure: the database failed; nothing was written.

        """

    def read(self, operation: Callable[[Any], T]) -> T:
        """Run a function that only reads, all of it as of one moment."""
