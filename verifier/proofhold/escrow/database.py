"""The driver of SQLite: one file, one writer that commits for all, and readers beside it.

Every transaction is ``BEGIN IMMEDIATE`` under WAL and synchronous=FULL: it is durable when it returns, and
two processes that settle at once wait for each other instead of failing half-way.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from proofhold.errors import Misuse
from proofhold.escrow.driver import (
    BUSY_TIMEOUT_S,
    Dialect,
    Joint,
    Migration,
    Operation,
    Row,
    Value,
    Values,
    migrate,
)
from proofhold.escrow.refusals import EscrowFailure, Refused
from proofhold.escrow.tables import Table
from proofhold.escrow.writer import GroupWriter, Task

T = TypeVar("T")

APPLICATION_ID = 0x70686C64
"""Marks the file as an escrow's: "phld"."""
FILE_MODE = 0o600
MAX_INT64 = 2**63 - 1
LEAST_SQLITE = (3, 37, 0)
"""The first version with STRICT tables, which hold integers to being integers."""
MAX_READERS = 8
"""How many read at once: a connection costs more than to wait for one."""
KEYS_AT_ONCE = (1, 8, 64)
"""How many rows one statement reads by their keys: the smallest that does, so that few are prepared."""
CACHE_KIB = 64 * 1024
"""The writer's page cache. A commit of many settlements touches more pages than SQLite's 2 MiB hold, and
would write some of them twice."""


class SqliteTransaction:
    """A transaction on SQLite: see `Transaction`."""

    dialect = Dialect.SQLITE
    greatest_amount = MAX_INT64

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> sqlite3.Cursor:
        """Run one statement."""
        return self.connection.execute(sql, parameters)

    def select_many(self, table: Table, keys: Sequence[Values], *, lock: bool) -> list[Row]:
        """Read rows by key. Nobody else writes meanwhile, so nothing is to be locked."""
        del lock
        found: list[Row] = []
        size = next((size for size in KEYS_AT_ONCE if size >= len(keys)), KEYS_AT_ONCE[-1])
        sql, width = _select_many(table, size), size * len(table.key)
        for first in range(0, len(keys), size):
            values = [value for key in keys[first : first + size] for value in key]
            values += [None] * (width - len(values))  # which equals nothing
            found += self.connection.execute(sql, values).fetchall()
        return found

    def insert_many(self, table: Table, rows: Sequence[Values], *, once: bool = False) -> None:
        """Write rows."""
        self.connection.executemany(_insert(table, once=once), rows)

    def update_many(self, table: Table, rows: Sequence[Values]) -> int:
        """Change rows, and give how many were as they were."""
        return self.connection.executemany(_update(table), rows).rowcount

    def delete_many(self, table: Table, keys: Sequence[Values]) -> None:
        """Remove rows."""
        where = " AND ".join(f"{name} = ?" for name in table.key)
        self.connection.executemany(f"DELETE FROM {table.name} WHERE {where}", keys)  # noqa: S608

    def next_ids(self, table: Table, count: int) -> Sequence[int]:
        """Give numbers for new rows."""
        sql = f"SELECT coalesce(max(id), 0) FROM {table.name}"  # noqa: S608
        (last,) = self.connection.execute(sql).fetchone()
        return range(last + 1, last + 1 + count)

    def add_balances(self, deltas: Sequence[tuple[int, int]]) -> None:
        """Add amounts to accounts."""
        sql = "UPDATE account SET balance = balance + ?2 WHERE id = ?1"
        self.connection.executemany(sql, deltas)

    def lock_name(self, name: str) -> None:
        """Do nothing: nobody else writes meanwhile."""


class SqliteDatabase:
    """One escrow's file. May be used from any thread, and the file by several processes."""

    def __init__(self, path: Path, *, fill: Operation[object] | None = None) -> None:
        """Open the file and bring its schema up to date, or make it.

        Args:
            path: the file.
            fill: writes what a new escrow begins with, in the transaction that makes it; the file must not
                exist then. None opens one that is there.

        Raises:
            OSError: the new file cannot be made.
            Misuse: there is none to open; or what `fill` raises.
            EscrowFailure: it is no escrow, or one of another version.

        """
        if sqlite3.sqlite_version_info < LEAST_SQLITE:
            least = ".".join(map(str, LEAST_SQLITE))
            raise EscrowFailure(
                "escrow.sqlite", f"SQLite {sqlite3.sqlite_version}, expected {least} or later"
            )
        if fill is not None:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
        elif not path.is_file():
            raise Misuse(f"no escrow at {path}: make one with `proofhold escrow init`")
        self._path = path
        self._readers: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(MAX_READERS):
            self._readers.put(None)
        self._connection = self._connect()
        try:
            self._prepare(fill)
        except BaseException:
            self._connection.close()
            raise
        self.writer = GroupWriter(self._commit)

    def close(self) -> None:
        """Write what was submitted, and close the file."""
        self.writer.close()
        with _translated():
            self._connection.close()
            for _ in range(MAX_READERS):
                connection = self._readers.get()  # waiting for who still reads
                if connection is not None:
                    connection.close()
                self._readers.put(None)

    def write(self, operation: Operation[T]) -> T:
        """Run an operation, and wait until it is durable: see `Database`."""
        return self.writer.submit(operation).result()

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Run an operation without waiting: see `Database`."""
        return self.writer.submit(operation, timeout_s=0)

    def read(self, operation: Operation[T]) -> T:
        """Run an operation that only reads: see `Database`."""
        with _translated(), self._reader() as connection:
            connection.execute("BEGIN")
            try:
                return operation(SqliteTransaction(connection))
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _commit(self, tasks: Sequence[Task]) -> None:
        """Run tasks in one transaction: what one of them raises undoes that one alone."""
        connection = self._connection
        with _translated():
            connection.execute("BEGIN IMMEDIATE")
            try:
                joint: dict[Callable[..., Sequence[Any]], list[tuple[Task, Any]]] = {}
                for task in tasks:
                    if isinstance(task.operation, Joint):
                        same = joint.setdefault(task.operation.together, [])
                        same.append((task, task.operation.argument))
                    else:
                        self._attempt(task)
                for together, same in joint.items():
                    self._attempt_all(together, same)
                connection.execute("COMMIT")
            except BaseException:
                # Also after a COMMIT that failed: what was not acknowledged must not become durable later.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _attempt(self, task: Task) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT task")
        try:
            with _translated():
                task.result = task.operation(SqliteTransaction(connection))
        except BaseException as error:
            if not connection.in_transaction:
                raise  # SQLite itself gave everything up: a full disk, say
            connection.execute("ROLLBACK TO task")
            task.error = error
        connection.execute("RELEASE task")

    def _attempt_all(self, together: Callable[..., Sequence[Any]], tasks: Sequence[tuple[Task, Any]]) -> None:
        """Do operations of one kind together, or one by one, should that raise."""
        connection = self._connection
        connection.execute("SAVEPOINT tasks")
        try:
            outcomes = together(SqliteTransaction(connection), [argument for _, argument in tasks])
        except BaseException:
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO tasks")
            for task, _ in tasks:
                self._attempt(task)
        else:
            for (task, _), outcome in zip(tasks, outcomes, strict=True):
                if isinstance(outcome, Refused):
                    task.error = outcome
                else:
                    task.result = outcome
        connection.execute("RELEASE tasks")

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._readers.get(timeout=BUSY_TIMEOUT_S)
        except queue.Empty:
            text = f"{MAX_READERS} others read for {BUSY_TIMEOUT_S:.0f} seconds: try again"
            raise Refused("escrow.busy", text) from None
        try:
            if connection is None:
                connection = self._connect()
                connection.execute("PRAGMA query_only = ON")
            yield connection
        finally:
            if connection is not None and connection.in_transaction:  # it could not even be rolled back
                connection.close()
                connection = None
            self._readers.put(connection)

    def _connect(self) -> sqlite3.Connection:
        with _translated():
            connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
        return connection

    def _prepare(self, fill: Operation[object] | None) -> None:
        connection = self._connection
        with _translated():
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if fill is None and application != APPLICATION_ID:
                raise EscrowFailure("escrow.not_an_escrow", "the file is not an escrow's database")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA trusted_schema = OFF")
            # Off while migrating, which may build a table anew that others refer to; checked at its end.
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._migrate(fill)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("PRAGMA foreign_keys = ON")

    def _migrate(self, fill: Operation[object] | None) -> None:
        connection = self._connection
        if fill is not None:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        sql = "SELECT 1 FROM sqlite_master WHERE name = 'schema_version'"
        exists = connection.execute(sql).fetchone() is not None

        def run_script(migration: Migration) -> None:
            for statement in statements(migration):
                connection.execute(statement)

        tx = SqliteTransaction(connection)
        done = migrate(tx, run_script, exists=exists)
        if fill is not None:
            fill(tx)
        if done and (broken := connection.execute("PRAGMA foreign_key_check").fetchone()):
            raise EscrowFailure("escrow.schema", f"a row of {broken[0]} refers to one that is not there")


def statements(migration: Migration) -> Iterator[str]:
    """Give a migration's statements one by one: `executescript` would commit the transaction around it."""
    statement = ""
    for line in migration.script.decode().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@lru_cache
def _select_many(table: Table, count: int) -> str:
    names = [f"k{i}" for i, _ in enumerate(table.key)]
    mark = f"({', '.join('?' * len(names))})"
    given = f"given ({', '.join(names)}) AS (VALUES {', '.join([mark] * count)})"
    columns = ", ".join(f't."{name}"' for name in table.read)
    where = " AND ".join(f't."{name}" = {k}' for name, k in zip(table.key, names, strict=True))
    # CROSS JOIN: the keys are gone through, each is looked up; the planner is not to turn that round.
    return f"WITH {given} SELECT {columns} FROM given CROSS JOIN {table.name} AS t ON {where}"  # noqa: S608


@lru_cache
def _insert(table: Table, *, once: bool) -> str:
    marks = ", ".join("?" * len(table.columns))
    conflict = f" ON CONFLICT ({', '.join(table.key)}) DO NOTHING" if once else ""
    columns = ", ".join(f'"{name}"' for name in table.columns)
    return f"INSERT INTO {table.name} ({columns}) VALUES ({marks}){conflict}"  # noqa: S608


@lru_cache
def _update(table: Table) -> str:
    changes = ", ".join(f"{name} = ?" for name in table.mutable)
    where = " AND ".join([f"{name} = ?" for name in table.key] + [f"{name} IS ?" for name in table.compared])
    return f"UPDATE {table.name} SET {changes} WHERE {where}"  # noqa: S608


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
