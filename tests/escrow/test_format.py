"""docs/formats/escrow.md says what the code does, and a file of schema 1 stays readable."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import proofhold.escrow
import proofhold.guard
from escrow_builders import memory_folder
from proofhold.escrow import BondState, SqliteEscrow, State
from proofhold.escrow.database import APPLICATION_ID
from proofhold.escrow.driver import Dialect, migrations
from proofhold.escrow.tables import TABLES
from proofhold.guard import Terms
from proofhold.money import Currency
from stores import make_store

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/formats/escrow.md").read_text()
FIXTURE = ROOT / "tests/fixtures/v1/escrow.sql"


def test_the_page_names_every_table_and_column(folder: Path) -> None:
    SqliteEscrow.create(folder / "escrow.db", escrow="mine").close()
    connection = sqlite3.connect(folder / "escrow.db")
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert len(tables) == 35
    for table in tables:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        row = next((line for line in PAGE.splitlines() if line.startswith(f"| `{table}` |")), "")
        assert row, f"no row for {table}"
        assert re.findall(r"`(\w+)`", row.split("|")[2]) == columns
    connection.close()


def test_the_page_lists_every_code() -> None:
    folder = Path(proofhold.escrow.__file__).parent
    source = "\n".join(path.read_text() for path in folder.glob("*.py"))
    raised = set(re.findall(r"(?:Refused|EscrowFailure)\(\s*\"([a-z_.]+)\"", source))
    raised |= set(re.findall(r"_objection\(\"(guard\.[a-z]+)\"", Path(proofhold.guard.__file__).read_text()))
    raised |= set(re.findall(r"\"(escrow\.decided)\" if", source)) | {"escrow.wrong_state"}
    subjects = "escrow|job|claim|decline|resolution|guard|challenge|answer|shadow|payment|webhook|evidence"
    rows = re.findall(rf"^\| (`(?:{subjects})\..*?) \|", PAGE, re.MULTILINE)
    listed = set(re.findall(r"`([a-z_.]+)`", " ".join(rows)))
    assert raised == listed


def test_the_page_pins_the_migrations() -> None:
    for dialect in Dialect:
        for migration in migrations(dialect):
            assert f"`{dialect}/{migration.name}` | `{migration.digest}`" in PAGE


def test_both_dialects_and_the_description_have_the_same_tables(folder: Path) -> None:
    with make_store("sqlite", folder) as file, make_store("postgres", folder) as schema:
        file.create(escrow="mine").close()
        schema.create(escrow="mine").close()
        described: dict[str, list[str]] = {}
        for table_name, column in schema.query(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() ORDER BY ordinal_position"
        ):
            described.setdefault(table_name, []).append(column)
        for table in TABLES:
            columns = [row[1] for row in file.query(f"PRAGMA table_info({table.name})")]
            assert columns == list(table.columns) == described[table.name]
        names = {name for (name,) in file.query("SELECT name FROM sqlite_master WHERE type = 'table'")}
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        assert (
            names == {name for (name,) in schema.query(sql)} == {"schema_version", *(t.name for t in TABLES)}
        )


@pytest.fixture
def restored() -> Iterator[SqliteEscrow]:
    """An escrow as the first version wrote it. (A dump, so that people can read what is kept here.)"""
    with memory_folder() as folder:
        connection = sqlite3.connect(folder / "escrow.db")
        connection.executescript(FIXTURE.read_text())
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.close()
        with SqliteEscrow.open(folder / "escrow.db") as escrow:
            yield escrow


def test_a_file_of_schema_1_opens_and_goes_on(restored: SqliteEscrow) -> None:
    assert restored.audit() == ()
    owners = [b.account.owner for b in restored.balances() if b.account.kind == "hold"]
    records = [restored.hold(owner) for owner in owners]
    assert {record.capture(0).state for record in records} == {
        *(State.RELEASED, State.REFUNDING, State.DISPUTED, State.CLAIMED, State.FUNDED),
        State.RECONCILE_RELEASE,
    }
    assert {record.bond.state for record in records} == {
        *(BondState.FREE, BondState.FROZEN, BondState.RESERVED)
    }
    for _ in range(4):
        restored.run_timers(max(record.funded_at for record in records) + 10**6)
    assert restored.audit() == ()


def test_a_file_of_schema_1_is_migrated_and_can_be_guarded(restored: SqliteEscrow) -> None:
    assert restored.guard("USDC") is None
    restored.set_guard(Currency("USDC", 6), Terms(kappa=1_000), now=0)
    assert restored.guard("USDC") == Terms(kappa=1_000)
    assert restored.audit() == ()
