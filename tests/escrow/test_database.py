"""The file: made once, opened as what it is, migrated in order, and what is written stays written."""

from __future__ import annotations

import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from escrow_builders import OPERATOR, START, USDC, Scene, refused
from proofhold.errors import Misuse
from proofhold.escrow import (
    EscrowFailure,
    LedgerRail,
    Ruling,
    SqliteEscrow,
    create_home,
    database,
    ledger,
    open_home,
)
from proofhold.escrow.database import statements
from proofhold.escrow.driver import Dialect, Transaction, migrations
from stores import INTEGRITY, Store


def test_create_and_open(folder: Path) -> None:
    SqliteEscrow.create(folder / "a.db", escrow="mine", operators=[OPERATOR.public]).close()
    with SqliteEscrow.open(folder / "a.db") as escrow:
        assert (escrow.id, escrow.operators) == ("mine", (OPERATOR.public,))
    assert stat.S_IMODE((folder / "a.db").stat().st_mode) == 0o600
    with pytest.raises(Misuse):
        SqliteEscrow.create(folder / "a.db", escrow="mine")
    with pytest.raises(Misuse):
        SqliteEscrow.open(folder / "b.db")


@pytest.mark.parametrize(("name", "operators"), [("No Name", []), ("", []), ("mine", ["ed25519:zz"])])
def test_names_are_checked_before_anything_is_made(folder: Path, name: str, operators: list[str]) -> None:
    with pytest.raises(Misuse):
        SqliteEscrow.create(folder / "a.db", escrow=name, operators=operators)
    assert not (folder / "a.db").exists()


def test_a_home_is_private(folder: Path) -> None:
    create_home(folder / "home", escrow="mine").close()
    assert stat.S_IMODE((folder / "home").stat().st_mode) == 0o700
    with open_home(folder / "home") as escrow:
        assert escrow.id == "mine"
    with pytest.raises(Misuse):
        create_home(folder / "home", escrow="mine")
    (folder / "open").mkdir(mode=0o755)
    with pytest.raises(Misuse, match="chmod 700"):
        create_home(folder / "open", escrow="mine")
    with pytest.raises(Misuse):
        open_home(folder / "open")


def test_another_file_is_no_escrow(folder: Path) -> None:
    (folder / "text.db").write_bytes(b"not a database at all " * 100)
    with pytest.raises(EscrowFailure, match=r"escrow\.database"):
        SqliteEscrow.open(folder / "text.db")
    sqlite3.connect(folder / "other.db").execute("CREATE TABLE other (x)")
    with pytest.raises(EscrowFailure, match=r"escrow\.not_an_escrow"):
        SqliteEscrow.open(folder / "other.db")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE schema_version SET digest = 'another'",
        "INSERT INTO schema_version VALUES (99, '0099_later.sql', 'x')",
        "UPDATE schema_version SET version = version + 100",
    ],
)
def test_another_schema_is_refused(scene: Scene, store: Store, change: str) -> None:
    store.alter(change)
    with pytest.raises(EscrowFailure, match=r"escrow\.schema"):
        store.open()


@pytest.mark.parametrize("dialect", list(Dialect))
def test_migrations_are_numbered_without_gaps(dialect: Dialect) -> None:
    shipped, last = migrations(dialect), migrations()[-1].version
    first = {Dialect.SQLITE: 1, Dialect.POSTGRES: 4}[dialect]
    assert [m.version for m in shipped] == list(range(first, last + 1)), "one number is one schema in both"
    assert all(m.name.startswith(f"{m.version:04}_") for m in shipped)


def test_a_script_is_taken_apart_whole() -> None:
    shipped = migrations()
    whole = "".join(statements(shipped[0]))
    assert whole.split() == shipped[0].script.decode().split()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET amount = 1",
        "DELETE FROM entry",
        "UPDATE transfer SET at = 1",
        "DELETE FROM transfer",
        "UPDATE transition SET target = 'x'",
        "DELETE FROM transition",
        "UPDATE document SET body = ''",
        "DELETE FROM document",
        "UPDATE decision SET receipt = ''",
        "DELETE FROM decision",
        "UPDATE payment SET amount = 1",
        "UPDATE capture SET state = 'releasing'",
        "UPDATE account SET balance = -1 WHERE kind = 'party'",
        "UPDATE account SET balance = 'much'",
    ],
)
def test_the_database_itself_keeps_what_happened(scene: Scene, store: Store, statement: str) -> None:
    scene.apply(scene.claimed(), Ruling.RELEASE)
    scene.escrow.pump(LedgerRail(), now=START)
    with pytest.raises(INTEGRITY):
        store.alter(statement)


def test_a_busy_file_is_a_refusal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Scene.create(folder).escrow.close()
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(folder / "escrow.db", isolation_level=None)
    with SqliteEscrow.open(folder / "escrow.db") as escrow:
        holder.execute("BEGIN IMMEDIATE")
        with refused("escrow.busy"):
            escrow.deposit("alice", 1, USDC, key="k", now=START)
        holder.execute("ROLLBACK")
        escrow.deposit("alice", 1, USDC, key="k", now=START)
    holder.close()


def test_what_trips_half_way_leaves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def trip(*_: object, **__: object) -> None:
        raise RuntimeError("the process trips")

    job, before = scene.draft(), scene.escrow.balances()
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "transfer", trip)
        with pytest.raises(RuntimeError):
            scene.escrow.fund(job, now=START)
    assert scene.escrow.balances() == before
    assert scene.escrow.fund(job, now=START).id == job.digest


def test_it_is_used_from_other_threads(scene: Scene) -> None:
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(scene.fund().id))
    thread.start()
    thread.join()
    assert scene.escrow.hold(seen[0]).id == seen[0]


def test_who_reads_waits_for_a_connection_and_none_is_made_for_a_moment(folder: Path) -> None:
    """A connection a caller would cost more than what most of them read, and a handful of files each."""
    with SqliteEscrow.create(folder / "a.db", escrow="mine") as escrow:
        inside, go_on = threading.Semaphore(0), threading.Event()

        def read(_: Transaction) -> int:
            inside.release()
            assert go_on.wait(10)
            return 1

        callers = database.MAX_READERS + 4
        with ThreadPoolExecutor(callers) as pool:
            results = [pool.submit(escrow.store.read, read) for _ in range(callers)]
            for _ in range(database.MAX_READERS):
                assert inside.acquire(timeout=10)
            assert not inside.acquire(timeout=0.1)
            go_on.set()
            assert [result.result(10) for result in results] == [1] * callers
