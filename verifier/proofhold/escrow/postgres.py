"""The driver of PostgreSQL, and the escrow over it: one database that many processes and machines share.

Transactions are READ COMMITTED and lock what they judge by: holds first, by their digests, then names, then
accounts by their numbers, so that no two wait for each other in a circle. What fails all the same because
somebody else came first (a deadlock, a key that was taken meanwhile, a balance that was spent) is run again
from the beginning, and callers never see it.
"""

from __future__ import annotations

import contextlib
import queue
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from proofhold.errors import Misuse
from proofhold.escrow import carrying
from proofhold.escrow.desk import LedgerEscrow, establish, require_terms
from proofhold.escrow.driver import (
    BUSY_TIMEOUT_S,
    Cursor,
    Dialect,
    Migration,
    Operation,
    Row,
    Value,
    Values,
    migrate,
)
from proofhold.escrow.refusals import EscrowFailure, Refused
from proofhold.escrow.tables import Table
from proofhold.keys import Key

if TYPE_CHECKING:
    import psycopg

    Connection: TypeAlias = psycopg.Connection[Any]

T = TypeVar("T")

LEAST_SERVER = 150000
CONNECTIONS = 16
"""How many connections one escrow holds at most, unless told otherwise: so many operations run at once."""
MAX_WAITING = 8192
"""How many submitted operations may wait for a connection."""
GREATEST_AMOUNT = 10**78 - 1
MAX_CLASHES = 20
"""How often an operation is run again because of a constraint that a rival may have used up."""

_RIVALRY = frozenset({"40001", "40P01"})
"""Serialisation failure, deadlock: somebody else came first, for certain."""
_CLASH = frozenset({"23505", "23514"})
"""A key was taken or a balance spent since it was read. Read again, it is seen; if not, it is our error."""
_CLASH_CODES = frozenset({"escrow.repeated_transfer", "escrow.repeated_row", "escrow.lost_race"})
"""The same, where we noticed before the server did."""
_AWAY = frozenset({"57P01", "57P02", "57P03"})
"""The server is being stopped, was stopped, or is starting."""
_SETTINGS = (
    f"SET lock_timeout = '{BUSY_TIMEOUT_S:.0f}s'; SET idle_in_transaction_session_timeout = '60s';"
    " SET synchronous_commit = on; SET client_min_messages = warning;"
    " SET default_transaction_isolation = 'read committed'"
)
_MIGRATION_LOCK = "proofhold: migrations"


class PostgresTransaction:
    """A transaction on PostgreSQL: see `Transaction`."""

    dialect = Dialect.POSTGRES
    greatest_amount = GREATEST_AMOUNT

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Cursor:
        """Run one statement."""
        return self._connection.execute(_numbered(sql), parameters or None)

    def select_many(self, table: Table, keys: Sequence[Values], *, lock: bool) -> list[Row]:
        """Read rows by key, and lock them in the order of their keys."""
        sql = _select_many(table, lock=lock)
        return self._run(sql, _columns_of(keys, len(table.key))).fetchall()

    def insert_many(self, table: Table, rows: Sequence[Values], *, once: bool = False) -> None:
        """Write rows."""
        self._run(_insert_many(table, once=once), _columns_of(rows, len(table.columns)))

    def update_many(self, table: Table, rows: Sequence[Values]) -> int:
        """Change rows, and give how many were as they were."""
        width = len(table.mutable) + len(table.key) + len(table.compared)
        return self._run(_update_many(table), _columns_of(rows, width)).rowcount

    def delete_many(self, table: Table, keys: Sequence[Values]) -> None:
        """Remove rows."""
        self._run(_delete_many(table), _columns_of(keys, len(table.key)))

    def next_ids(self, table: Table, count: int) -> Sequence[int]:
        """Give numbers for new rows."""
        sql = f"SELECT nextval('{table.name}_id_seq') FROM generate_series(1, $1)"  # noqa: S608
        return [row[0] for row in self._run(sql, [count]).fetchall()]

    def add_balances(self, deltas: Sequence[tuple[int, int]]) -> None:
        """Add amounts to accounts, locking them in the order of their numbers."""
        numbers, amounts = _columns_of(deltas, 2)
        self._run(
            "SELECT 1 FROM account WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE", [numbers]
        )
        self._run(
            "UPDATE account SET balance = balance + amount FROM unnest($1::bigint[], $2::numeric[])"
            " AS delta (number, amount) WHERE id = number",
            [numbers, amounts],
        )

    def lock_name(self, name: str) -> None:
        """Keep others who ask for this name out."""
        self._run("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [name])

    def _run(self, sql: str, parameters: Sequence[Any]) -> psycopg.Cursor[Any]:
        return self._connection.execute(sql, parameters)


class PostgresDatabase:
    """One escrow in a database of a server. May be used from any thread, by many processes."""

    def __init__(
        self, url: str, *, fill: Operation[object] | None = None, connections: int = CONNECTIONS
    ) -> None:
        """Connect, and bring the schema up to date, or make it.

        Args:
            url: as libpq takes it: ``postgresql://…`` or ``host=… dbname=…``. Give the password by other
                means, such as a service file, where others can see it.
            fill: writes what a new escrow begins with, in the transaction that makes it; there must be none
                in the schema then. None opens one that is there.
            connections: how many connections to hold at most.

        Raises:
            Misuse: there is an escrow and should not be, or the other way round; or psycopg is missing.
            EscrowFailure: no server, one that is too old, or a schema of another version.

        """
        self._url = url
        self._free: queue.LifoQueue[Connection | None] = queue.LifoQueue()
        for _ in range(connections):
            self._free.put(None)
        self._connections = connections
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self._closed = False
        self.commits = 0
        """How many transactions were committed: for benchmarks and tests."""
        self.repeated = 0
        """How many were run again."""
        try:
            self.write(partial(_prepare, fill=fill))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Finish what was submitted, and close the connections."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown()
        for _ in range(self._connections):
            connection = self._free.get()
            if connection is not None:
                connection.close()
            self._free.put(None)

    def write(self, operation: Operation[T]) -> T:
        """Run an operation until it went through: see `Database`."""
        deadline, clashes = time.monotonic() + BUSY_TIMEOUT_S, 0
        while True:
            try:
                return self._once(operation)
            except _RunAgain as again:
                clashes += again.is_clash
                self.repeated += 1
                if clashes > MAX_CLASHES or time.monotonic() > deadline:
                    raise again.give_up() from again.__cause__
                time.sleep(random.uniform(0, again.pause_s))  # noqa: S311

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Run an operation without waiting: see `Database`."""
        if not self._waiting.acquire(blocking=False):
            raise Refused("escrow.busy", f"{MAX_WAITING} operations wait for the escrow already: try again")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._connections, thread_name_prefix="escrow-writer")
        future = self._pool.submit(self.write, operation)
        future.add_done_callback(lambda _: self._waiting.release())
        return future

    def read(self, operation: Operation[T]) -> T:
        """Run an operation that only reads, as of one moment: see `Database`."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                with _translated(), self._connection() as connection:
                    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    try:
                        return operation(PostgresTransaction(connection))
                    finally:
                        if not connection.broken:
                            connection.execute("ROLLBACK")
            except _RunAgain as again:
                if time.monotonic() > deadline:
                    raise again.give_up() from again.__cause__
                time.sleep(random.uniform(0, again.pause_s))  # noqa: S311

    def _once(self, operation: Operation[T]) -> T:
        with _translated(), self._connection() as connection:
            connection.execute("BEGIN")
            try:
                result = operation(PostgresTransaction(connection))
            except BaseException:
                if not connection.broken:
                    connection.execute("ROLLBACK")
                raise
            _commit(connection)
            self.commits += 1
            return result

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            connection = self._free.get(timeout=BUSY_TIMEOUT_S)
        except queue.Empty:
            text = (
                f"all {self._connections} connections were busy for {BUSY_TIMEOUT_S:.0f} seconds: try again"
            )
            raise Refused("escrow.busy", text) from None
        try:
            if connection is None or connection.broken or connection.closed:
                connection = _connect(self._url)
            yield connection
        finally:
            self._free.put(None if connection is None or connection.closed else connection)


class PostgresEscrow(LedgerEscrow):
    """An `Escrow` in a database of PostgreSQL 15 or later, which any number of processes may share."""

    @classmethod
    def create(
        cls,
        url: str,
        *,
        escrow: str,
        operators: Iterable[Key] = (),
        unbonding_s: int = 0,
        connections: int = CONNECTIONS,
    ) -> Self:
        """Make a new escrow.

        Args:
            url: as libpq takes it; the schema is the first of its search path.
            escrow: its name, which jobs carry.
            operators: keys whose signatures resolve disputes; without one, only verdicts and time do.
            unbonding_s: how long a bond stays within reach of a transcript after its job was released.
            connections: how many connections to hold at most.

        Raises:
            Misuse: there is one already, or a name is malformed.
            EscrowFailure: no server, or one that is too old.

        """
        keys = tuple(operators)
        require_terms(escrow, keys, unbonding_s)
        fill = partial(establish, escrow=escrow, operators=keys, unbonding_s=unbonding_s)
        return cls(PostgresDatabase(url, fill=fill, connections=connections))

    @classmethod
    def import_from(cls, file: Path, url: str) -> Self:
        """Make a new escrow of what `export_to` wrote, of either driver.

        Raises:
            Misuse: there is an escrow already, or the file cannot be read.
            Malformed: the file is no export, or not whole.
            Refused: ``escrow.amount``, ``escrow.books``.

        """
        return cls(PostgresDatabase(url, fill=partial(carrying.import_from, path=file)))

    @classmethod
    def open(cls, url: str, *, connections: int = CONNECTIONS) -> Self:
        """Open an escrow.

        Raises:
            Misuse: there is none.
            EscrowFailure: no server, or an escrow of another version.

        """
        return cls(PostgresDatabase(url, connections=connections))


class _RunAgain(Exception):
    """The transaction is undone, and may go through when it is run again."""

    def __init__(self, failure: Refused | EscrowFailure, *, is_clash: bool = False, pause_s: float) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.is_clash = is_clash
        self.pause_s = pause_s

    def give_up(self) -> Refused | EscrowFailure:
        """Give what to raise when it did not."""
        return self.failure


def _prepare(tx: PostgresTransaction | Any, *, fill: Operation[object] | None) -> None:
    """Migrate, one process at a time."""
    tx.lock_name(_MIGRATION_LOCK)
    (version,) = tx.execute("SELECT current_setting('server_version_num')::integer").fetchone()
    if version < LEAST_SERVER:
        raise EscrowFailure("escrow.postgres", f"PostgreSQL {version // 10000}, expected 15 or later")
    sql = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'schema_version'"
    exists = tx.execute(sql).fetchone() is not None
    if fill is not None and exists:
        raise Misuse("there is an escrow in this schema of the database already")
    if fill is None and not exists:
        raise Misuse("no escrow in this schema of the database: make one with `proofhold escrow init`")

    def run_script(migration: Migration) -> None:
        tx.execute(migration.script.decode())

    migrate(tx, run_script, exists=exists)
    if fill is not None:
        fill(tx)


def _connect(url: str) -> Connection:
    try:
        import psycopg
    except ImportError as error:
        raise Misuse("PostgreSQL needs psycopg: pip install 'proofhold[postgres]'") from error
    try:
        connection: Connection = psycopg.connect(
            url,
            autocommit=True,
            cursor_factory=psycopg.RawCursor,
            row_factory=_row_factory,
            connect_timeout=10,
        )
    except psycopg.ProgrammingError as error:
        raise Misuse(f"not an address of a database: {error}") from error
    connection.adapters.register_loader("numeric", _integer_loader())
    connection.execute(_SETTINGS)
    return connection


def _commit(connection: Connection) -> None:
    import psycopg

    try:
        connection.execute("COMMIT")
    except psycopg.OperationalError as error:
        if error.sqlstate in _RIVALRY:
            raise
        # The answer is lost, and with it whether the server committed before it went away.
        connection.close()
        text = "the server went away while committing: it may have happened or not, so ask again"
        raise EscrowFailure("escrow.unconfirmed", text) from error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Let no error of psycopg out: callers know refusals and failures only."""
    try:
        import psycopg
    except ImportError as error:
        raise Misuse("PostgreSQL needs psycopg: pip install 'proofhold[postgres]'") from error
    try:
        yield
    except (Refused, EscrowFailure) as ours:
        if ours.code in _CLASH_CODES:
            raise _RunAgain(ours, is_clash=True, pause_s=0.02) from ours
        raise
    except psycopg.Error as error:
        failure = EscrowFailure("escrow.database", f"the escrow's database failed: {error}")
        state = error.sqlstate
        if state in _RIVALRY:
            text = f"others were in the way for {BUSY_TIMEOUT_S:.0f} seconds: try again"
            raise _RunAgain(Refused("escrow.busy", text), pause_s=0.02) from error
        if state in _CLASH:
            raise _RunAgain(failure, is_clash=True, pause_s=0.02) from error
        if state == "55P03":
            text = f"others kept a lock for {BUSY_TIMEOUT_S:.0f} seconds: try again"
            raise Refused("escrow.busy", text) from error
        if state in _AWAY or (state is None and isinstance(error, psycopg.OperationalError)):
            raise _RunAgain(failure, pause_s=0.2) from error
        raise failure from error


@lru_cache(maxsize=1024)
def _numbered(sql: str) -> str:
    """Turn the marks of a statement into PostgreSQL's numbered ones."""
    count = 0

    def number(_: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"${count}"

    return re.sub(r"\?", number, sql)


def _columns_of(rows: Sequence[Sequence[Value]], width: int) -> list[list[Value]]:
    return [[row[i] for row in rows] for i in range(width)]


def _unnest(table: Table, names: Sequence[str], columns: Sequence[str]) -> str:
    """Give rows that come as one array a column."""
    arrays = ", ".join(f"${i}::{table.columns[name]}[]" for i, name in enumerate(names, 1))
    return f"unnest({arrays}) AS given ({', '.join(columns)})"


@lru_cache
def _select_many(table: Table, *, lock: bool) -> str:
    wanted = _unnest(table, table.key, [f"k{i}" for i, _ in enumerate(table.key)])
    where = " AND ".join(f't."{name}" = k{i}' for i, name in enumerate(table.key))
    columns = ", ".join(f't."{name}"' for name in table.read)
    order = ", ".join(f't."{name}"' for name in table.key)
    locking = " FOR NO KEY UPDATE OF t" if lock else ""
    return f"SELECT {columns} FROM {table.name} AS t JOIN {wanted} ON {where} ORDER BY {order}{locking}"  # noqa: S608


@lru_cache
def _insert_many(table: Table, *, once: bool) -> str:
    names = tuple(f'"{name}"' for name in table.columns)
    conflict = f" ON CONFLICT ({', '.join(table.key)}) DO NOTHING" if once else ""
    given = _unnest(table, tuple(table.columns), names)
    return f"INSERT INTO {table.name} ({', '.join(names)}) SELECT * FROM {given}{conflict}"  # noqa: S608


@lru_cache
def _update_many(table: Table) -> str:
    names = (*table.mutable, *table.key, *table.compared)
    columns = [
        *(f"new_{name}" for name in table.mutable),
        *(f"key_{name}" for name in table.key),
        *(f"old_{name}" for name in table.compared),
    ]
    changes = ", ".join(f"{name} = new_{name}" for name in table.mutable)
    where = [f"t.{name} = key_{name}" for name in table.key]
    where += [f"t.{name} IS NOT DISTINCT FROM old_{name}" for name in table.compared]
    given = _unnest(table, names, columns)
    return f"UPDATE {table.name} AS t SET {changes} FROM {given} WHERE {' AND '.join(where)}"  # noqa: S608


@lru_cache
def _delete_many(table: Table) -> str:
    columns = [f"k{i}" for i, _ in enumerate(table.key)]
    where = " AND ".join(f"t.{name} = {column}" for name, column in zip(table.key, columns, strict=True))
    given = _unnest(table, table.key, columns)
    return f"DELETE FROM {table.name} AS t USING {given} WHERE {where}"  # noqa: S608


def _row_factory(cursor: Any) -> Any:
    description = cursor.description
    return tuple if description is None else _row_class(tuple(column.name for column in description))


@lru_cache(maxsize=1024)
def _row_class(names: tuple[str, ...]) -> type[tuple[Any, ...]]:
    """Make the class of a result's rows: tuples that also know their columns' names."""
    positions = {name: i for i, name in enumerate(names)}

    class NamedRow(tuple[Any, ...]):
        __slots__ = ()

        def __getitem__(self, column: Any) -> Any:
            return tuple.__getitem__(self, positions[column] if isinstance(column, str) else column)

    return NamedRow


@lru_cache
def _integer_loader() -> Any:
    from psycopg.adapt import Loader

    class IntegerLoader(Loader):
        """Reads numeric as an integer: nothing here has places after the point."""

        def load(self, data: Any) -> int:
            return int(bytes(data))

    return IntegerLoader
