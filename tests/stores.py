"""Where an escrow of a test lies: the same tests run over both drivers."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import psycopg

from pgserver import Server, shared_server
from proofhold.escrow import PostgresEscrow, SqliteEscrow
from proofhold.escrow.desk import LedgerEscrow, establish
from proofhold.escrow.postgres import PostgresDatabase
from proofhold.escrow.tables import TABLES

DRIVERS = ("sqlite", "postgres")
INTEGRITY = (sqlite3.IntegrityError, psycopg.IntegrityError, psycopg.DataError)
"""What the drivers raise when a database keeps its own rules."""


class Store(Protocol):
    """One place for one escrow."""

    def create(self, *, escrow: str, operators: Sequence[str] = ()) -> LedgerEscrow:
        """Make the escrow."""

    def open(self) -> LedgerEscrow:
        """Open it once more."""

    def tamper(self, sql: str) -> int:
        """Run a statement behind its back, all walls down, and give how many rows it changed."""

    def alter(self, sql: str) -> int:
        """Run a statement behind its back, which the database itself may refuse as `INTEGRITY`."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Read behind its back."""


@dataclass
class SqliteStore:
    """A file in a folder."""

    folder: Path

    @property
    def location(self) -> str:
        return str(self.folder / "escrow.db")

    def create(self, *, escrow: str, operators: Sequence[str] = (), **changes: Any) -> SqliteEscrow:
        return SqliteEscrow.create(Path(self.location), escrow=escrow, operators=operators, **changes)

    def open(self) -> SqliteEscrow:
        return SqliteEscrow.open(Path(self.location))

    def tamper(self, sql: str) -> int:
        with contextlib.closing(sqlite3.connect(self.location, isolation_level=None)) as connection:
            triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for (name,) in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            return connection.execute(sql).rowcount

    def alter(self, sql: str) -> int:
        with contextlib.closing(sqlite3.connect(self.location, isolation_level=None)) as connection:
            return connection.execute(sql).rowcount

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.location)) as connection:
            return connection.execute(sql).fetchall()


@dataclass
class PostgresStore:
    """A schema of its own in a server's database."""

    server: Server
    location: str

    is_emptied: bool = False
    """Whether an escrow was here before: its tables are, and nothing in them."""
    is_broken: bool = False
    """Whether the next escrow needs another place."""

    def create(self, *, escrow: str, operators: Sequence[str] = (), **changes: Any) -> PostgresEscrow:
        if not self.is_emptied:
            return PostgresEscrow.create(self.location, escrow=escrow, operators=operators, **changes)
        # As `create` does, without the migrations, which take longer than most tests.
        database = PostgresDatabase(self.location)
        database.write(partial(establish, escrow=escrow, operators=operators, **changes))
        return PostgresEscrow(database)

    def open(self) -> PostgresEscrow:
        return PostgresEscrow.open(self.location)

    def tamper(self, sql: str) -> int:
        return self._run(
            f"SET session_replication_role = replica; {sql}"
        )  # neither triggers nor foreign keys

    def alter(self, sql: str) -> int:
        return self._run(sql)

    def empty(self) -> None:
        self.tamper("; ".join(f"DELETE FROM {table.name}" for table in TABLES))  # noqa: S608

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.location, autocommit=True) as connection:
            return connection.execute(sql.encode()).fetchall()

    def _run(self, sql: str) -> int:
        self.is_broken = self.is_broken or "schema_version" in sql
        with psycopg.connect(self.location, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            while cursor.nextset():
                pass
            return cursor.rowcount


_EMPTIED: list[str] = []
"""Schemas of the shared server where the next test may go."""


@contextlib.contextmanager
def make_store(driver: str, folder: Path) -> Iterator[SqliteStore | PostgresStore]:
    """Make a place for an escrow; `folder` is where a file would go."""
    if driver == "sqlite":
        yield SqliteStore(folder)
        return
    server = shared_server()
    store = (
        PostgresStore(server, _EMPTIED.pop(), True)
        if _EMPTIED
        else PostgresStore(server, server.make_schema())
    )
    yield store
    if not store.is_broken:
        store.empty()
        _EMPTIED.append(store.location)
