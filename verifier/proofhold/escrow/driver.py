"""The seam to the database: what the escrow asks of a driver, and the discipline of migrations that all keep.

An operation is a function of a transaction. The driver runs it, makes what it wrote durable, and gives its
result; it may run it again, from the beginning, when the database says that somebody else came first. So an
operation writes nothing but through its transaction, and reads the same answer whoever runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from proofhold.canonical import Digest, file_digest
from proofhold.escrow.refusals import EscrowFailure, Refused
from proofhold.escrow.tables import Table

T = TypeVar("T")

Value: TypeAlias = str | int | bytes | None
"""What a column holds. Amounts are integers in both dialects."""
Values: TypeAlias = tuple[Value, ...]

BUSY_TIMEOUT_S = 30.0
"""How long an operation waits for others before it is refused as ``escrow.busy``."""


class Dialect(StrEnum):
    """Which SQL a transaction speaks, where the two differ. Statements take ``?`` in both."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


class Row(Protocol):
    """A row of a result, by name and by position."""

    def __getitem__(self, column: int | str, /) -> Any:
        """Give one column."""

    def __iter__(self) -> Iterator[Any]:
        """Go over the columns, in order."""


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows a statement changed."""

    def fetchone(self) -> Any:
        """Give the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Give all rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """Go over the rows that are left."""


class Transaction(Protocol):
    """One transaction of a driver. Whoever is handed one neither begins nor commits."""

    @property
    def dialect(self) -> Dialect:
        """Which SQL it speaks."""

    @property
    def greatest_amount(self) -> int:
        """The highest amount, in atomic units, that a column of the database holds."""

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Cursor:
        """Run one statement."""

    def select_many(self, table: Table, keys: Sequence[Values], *, lock: bool) -> list[Row]:
        """Read the rows of these primary keys, as far as they exist, in order of their keys.

        Args:
            table: whose rows.
            keys: primary keys, each once.
            lock: whether nobody else may change them until the transaction ends.

        """

    def insert_many(self, table: Table, rows: Sequence[Values], *, once: bool = False) -> None:
        """Write rows of all columns; with `once`, those whose key is taken are left as they are."""

    def update_many(self, table: Table, rows: Sequence[Values]) -> int:
        """Change the mutable columns of rows that are still as they were, and give how many were.

        Args:
            table: says which columns are mutable, and which are compared.
            rows: the new values of the mutable columns, the key, the old values of the compared columns.

        """

    def delete_many(self, table: Table, keys: Sequence[Values]) -> None:
        """Remove the rows of these primary keys."""

    def next_ids(self, table: Table, count: int) -> Sequence[int]:
        """Give numbers for new rows of a table that is numbered, ascending."""

    def add_balances(self, deltas: Sequence[tuple[int, int]]) -> None:
        """Add amounts to accounts, each named once by its number; nobody's order of doing so matters."""

    def lock_name(self, name: str) -> None:
        """Keep everybody else who asks for this name out until the transaction ends."""


Operation: TypeAlias = Callable[[Transaction], T]


@dataclass(frozen=True, slots=True)
class Joint(Generic[T]):
    """An operation of which many cost less done together than each by itself, such as a ruling.

    A driver that commits for many callers hands the arguments of all of them over at once.
    """

    together: Callable[[Transaction, Sequence[Any]], Sequence[T | Refused]]
    """Gives an outcome for each argument. A refusal in its place is of that one alone, and leaves nothing of
    it; what is raised undoes all of them, and they are done one by one then."""
    argument: Any

    def __call__(self, tx: Transaction) -> T:
        """Do it by itself."""
        (outcome,) = self.together(tx, (self.argument,))
        if isinstance(outcome, Refused):
            raise outcome
        return outcome


class Database(Protocol):
    """One escrow's database. May be used from any thread."""

    def write(self, operation: Operation[T]) -> T:
        """Run an operation; when it returns, what it wrote is durable. An exception undoes all of it.

        Raises:
            Refused: ``escrow.busy``, when others were in the way for too long.
            EscrowFailure: the database failed; nothing was written. Or ``escrow.unconfirmed``: its server
                went away while committing, and only asking again tells.

        """

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Run an operation without waiting for it: for callers in an event loop.

        Operations that wait at the same time are done in any order: who needs one waits for its result.
        """

    def read(self, operation: Operation[T]) -> T:
        """Run an operation that only reads, all of it as of one moment, beside whoever writes."""

    def close(self) -> None:
        """Close it, after what was submitted. Nothing is lost by not doing so."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema."""

    version: int
    name: str
    script: bytes

    @property
    def digest(self) -> Digest:
        """SHA-256 of the file: what was applied must be what this version ships."""
        return file_digest(self.script)


def migrations(dialect: Dialect = Dialect.SQLITE) -> tuple[Migration, ...]:
    """Give the migrations that this version ships for a dialect, in order.

    One number means one schema in both dialects; PostgreSQL begins where it was added.
    """
    folder = resources.files("proofhold.escrow") / "migrations" / dialect
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return tuple(Migration(int(f.name[:4]), f.name, f.read_bytes()) for f in files)


def migrate(
    tx: Transaction, run_script: Callable[[Migration], None], *, exists: bool
) -> tuple[Migration, ...]:
    """Bring the schema up to date, and give what was applied.

    Args:
        tx: the one transaction that all of it belongs to.
        run_script: runs the statements of one migration.
        exists: whether there is a schema yet.

    Raises:
        EscrowFailure: ``escrow.schema``, what was applied before is not what this version ships.

    """
    rows = (
        tx.execute("SELECT version, digest FROM schema_version ORDER BY version").fetchall() if exists else ()
    )
    applied = [(row["version"], row["digest"]) for row in rows]
    shipped = migrations(tx.dialect)
    if applied != [(m.version, m.digest) for m in shipped[: len(applied)]]:
        text = "the escrow's schema is not one that this version of proofhold wrote"
        raise EscrowFailure("escrow.schema", text)
    due = shipped[len(applied) :]
    for migration in due:
        run_script(migration)
        sql = "INSERT INTO schema_version (version, name, digest) VALUES (?, ?, ?)"
        tx.execute(sql, (migration.version, migration.name, migration.digest))
    return due
