"""The file under the escrow: connections, transactions and numbered migrations of SQLite.

Every transaction is ``BEGIN IMMEDIATE`` under WAL and synchronous=FULL: it is durable when it returns, and
two processes that settle at once wait for each other instead of failing half-way.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeAlias, TypeVar

from proofhold.canonical import Digest, file_digest
from proofhold.errors import Misuse
from proofhold.escrow.refusals import EscrowFailure, Refused

APPLICATION_ID = 0x70686C64
"""Marks the file as an escrow's: "phld"."""
BUSY_TIMEOUT_S = 30.0
FILE_MODE = 0o600
MAX_INT64 = 2**63 - 1
LEAST_SQLITE = (3, 37, 0)
"""The first version with STRICT tables, which hold integers to being integers."""

T = TypeVar("T")

Transaction: TypeAlias = sqlite3.Connection
"""A connection inside of a transaction: functions that take one neither begin nor commit."""


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

    def statements(self) -> Iterator[str]:
        """Give its statements one by one: `executescript` would commit the transaction around it."""
        statement = ""
        for line in self.script.decode().splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""


def migrations() -> tuple[Migration, ...]:
    """Give the migrations that this version ships, in order."""
    folder = resources.files("proofhold.escrow") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return tuple(Migration(int(f.name[:4]), f.name, f.read_bytes()) for f in files)


class Database:
    """One escrow's file. One connection, used by one thread at a time; processes may share the file."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open the file and bring its schema up to date.

        Args:
            path: the file.
            create: whether it must not exist yet (True) or must exist (False).

        Raises:
            Misuse: it exists and should not, or the other way round.
            EscrowFailure: it is no escrow, or one of another version.

        """
        if sqlite3.sqlite_version_info < LEAST_SQLITE:
            least = ".".join(map(str, LEAST_SQLITE))
            raise EscrowFailure(
                "escrow.sqlite", f"SQLite {sqlite3.sqlite_version}, expected {least} or later"
            )
        if create:
            _make(path)
        elif not path.is_file():
            raise Misuse(f"no escrow at {path}: make one with `proofhold escrow init`")
        self._lock = threading.RLock()
        with _translated():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
        try:
            self._prepare(create=create)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file. Nothing is lost by not doing so."""
        with self._lock, _translated():
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run a block as one durable transaction; an exception undoes all of it.

        Raises:
            Refused: ``escrow.busy``, when others held the file for too long.
            EscrowFailure: the database failed; nothing was written.

        """
        with self._lock, _translated():
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # Also after a COMMIT that failed: what was not acknowledged must not become durable later.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Run a block that only reads, all of it as of one moment."""
        with self._lock, _translated():
            connection = self._connection
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def write(self, operation: Callable[[Transaction], T]) -> T:
        """Run a function of a transaction, durable when it returns: see `Store`."""
        with self.transaction() as tx:
            return operation(tx)

    def read(self, operation: Callable[[Transaction], T]) -> T:
        """Run a function that only reads: see `Store`."""
        with self.reading() as tx:
            return operation(tx)

    def _prepare(self, *, create: bool) -> None:
        with self._lock, _translated():
            connection = self._connection
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if not create and application != APPLICATION_ID:
                raise EscrowFailure("escrow.not_an_escrow", "the file is not an escrow's database")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
        with self.transaction() as tx:
            if create:
                tx.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            _migrate(tx)


def _make(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
    except OSError as error:
        raise Misuse(f"cannot make an escrow at {path}: {error.strerror}") from error


def _migrate(tx: Transaction) -> None:
    exists = tx.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone()
    rows = tx.execute("SELECT version, digest FROM schema_version ORDER BY version") if exists else ()
    applied = [tuple(row) for row in rows]
    shipped = migrations()
    known = [(m.version, m.digest) for m in shipped]
    if applied != known[: len(applied)]:
        text = "the escrow's schema is not one that this version of proofhold wrote"
        raise EscrowFailure("escrow.schema", text)
    for migration in shipped[len(applied) :]:
        for statement in migration.statements():
            tx.execute(statement)
        tx.execute(
            "INSERT INTO schema_version VALUES (?, ?, ?)",
            (migration.version, migration.name, migration.digest),
        )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Let no error of SQLite out: callers know refusals and failures only."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            text = f"others kept the escrow busy for {BUSY_TIMEOUT_S:.0f} seconds: try again"
            raise Refused("escrow.busy", text) from error
        raise EscrowFailure("escrow.database", f"the escrow's database failed: {error}") from error
    except (sqlite3.Error, OverflowError) as error:
        raise EscrowFailure("escrow.database", f"the escrow's database failed: {error}") from error
