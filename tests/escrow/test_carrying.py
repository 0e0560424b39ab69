"""An escrow is carried from one driver to the other and back, whole and audited, or not at all."""

from __future__ import annotations

import hashlib
import stat
from functools import partial
from pathlib import Path

import pytest

from escrow_builders import (
    BUYER,
    OPERATOR,
    PRICE,
    START,
    USDC,
    Scene,
    ScriptedRail,
    make_decline,
    refused,
)
from proofhold.errors import Malformed, Misuse
from proofhold.escrow import LedgerRail, PostgresEscrow, Ruling, SqliteEscrow
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.payments import LEASE_S
from proofhold.guard import Terms
from proofhold.job import PPM
from proofhold.money import Currency
from stores import DRIVERS, PostgresStore, SqliteStore, make_store


def busy(store: SqliteStore | PostgresStore) -> Scene:
    """A scene with something in most tables."""
    scene = Scene.create(store, unbonding_s=100)
    scene.escrow.set_guard(USDC, Terms(kappa=PRICE, probation_checks=0), now=START)
    scene.escrow.set_two_keys(USDC, 10)
    for ruling in Ruling:
        scene.apply(scene.claimed(sampling_rate_ppm=PPM), ruling)
    scene.escrow.pump(LedgerRail(), now=START)
    hold = scene.claimed(sampling_rate_ppm=PPM)
    scene.escrow.queue.add(hold.id, 0, b"a bundle", now=START)
    scene.escrow.queue.take("w", limit=1, lease_s=10, now=START)
    scene.escrow.decline(make_decline(scene.fund(sampling_rate_ppm=PPM).job), now=START)
    return scene


def import_to(store: SqliteStore | PostgresStore, file: Path) -> LedgerEscrow:
    if isinstance(store, SqliteStore):
        return SqliteEscrow.import_from(file, Path(store.location))
    if not store.is_emptied:
        return PostgresEscrow.import_from(file, store.location)
    from proofhold.escrow import carrying
    from proofhold.escrow.postgres import PostgresDatabase

    database = PostgresDatabase(store.location)
    database.write(partial(carrying.import_from, path=file))
    return PostgresEscrow(database)


@pytest.mark.parametrize("there", DRIVERS)
@pytest.mark.parametrize("here", DRIVERS)
def test_nothing_is_lost_on_the_way(folder: Path, here: str, there: str) -> None:
    (folder / "here").mkdir()
    (folder / "there").mkdir()
    with make_store(here, folder / "here") as one, make_store(there, folder / "there") as other:
        scene = busy(one)
        rows = scene.escrow.export_to(folder / "export")
        assert rows > 100
        assert stat.S_IMODE((folder / "export").stat().st_mode) == 0o600
        with import_to(other, folder / "export") as carried:
            assert (carried.id, carried.operators) == ("test-escrow", (OPERATOR.public,))
            assert carried.balances() == scene.escrow.balances()
            assert carried.export_to(folder / "again") == rows
            assert (folder / "again").read_bytes() == (folder / "export").read_bytes()
            # And life goes on: new rows get new numbers.
            scene.escrow.close()
            scene.escrow, scene.funded = carried, 100
            scene.apply(scene.claimed(sampling_rate_ppm=PPM), Ruling.RELEASE)
            carried.pump(LedgerRail(), now=START)
            assert carried.audit() == ()


def run_until_it_trips(scene: Scene, rail: ScriptedRail) -> None:
    while True:
        scene.escrow.pump(rail, now=scene.now + LEASE_S)


@pytest.mark.parametrize(("here", "there"), [("sqlite", "postgres"), ("postgres", "sqlite")])
def test_what_was_under_way_goes_on_where_it_is_carried_to(folder: Path, here: str, there: str) -> None:
    """Leases, attempts, payments that nobody knows the outcome of, dead workers: all of it is in the rows."""
    (folder / "here").mkdir()
    (folder / "there").mkdir()
    with make_store(here, folder / "here") as one, make_store(there, folder / "there") as other:
        scene, rail = Scene.create(one), ScriptedRail("late", "lost", "broken")
        late, lost, broken, checked, held = (scene.claimed(verification_s=10**6) for _ in range(5))
        for hold in (checked, held):
            scene.escrow.queue.add(hold.id, 0, hold.id.encode(), now=scene.now)
        leases = {
            lease.hold: lease for lease in scene.escrow.queue.take("w", limit=2, lease_s=10, now=scene.now)
        }
        scene.escrow.queue.begin(leases[checked.id], now=scene.now)
        for hold in (late, lost):
            scene.apply(hold, Ruling.RELEASE)
            scene.escrow.pump(rail, now=scene.now)
        scene.apply(broken, Ruling.REFUND)
        with pytest.raises(RuntimeError):  # the process trips over its rail, with a payment in hand
            run_until_it_trips(scene, rail)
        scene.escrow.export_to(folder / "export")
        scene.escrow.close()
        with import_to(other, folder / "export") as carried:
            scene.escrow, scene.now = carried, scene.now + 2 * LEASE_S
            # A worker that was left behind with its lease can do nothing here; its job is another's to begin.
            with refused("escrow.lease_ended"):
                carried.queue.begin(leases[held.id], now=scene.now)
            taken = [carried.queue.take("v", limit=9, lease_s=10, now=scene.now) for _ in range(3)]
            assert [[(lease.number, lease.is_suspect) for lease in some] for some in taken] == [
                [(2, True)],
                [(2, True)],
                [],
            ]
            assert carried.hold(checked.id).capture(0).attempts == 1
            assert carried.hold(held.id).capture(0).attempts == 0
            for hold in (checked, held):
                scene.apply(hold, Ruling.RELEASE)
            while (pumped := carried.pump(rail, now=scene.now)).paid or pumped.unknown:
                scene.now += LEASE_S
            assert sorted(map(str, rail.paid)) == sorted(
                f"{hold.id}:0:{'refund' if hold is broken else 'release'}"
                for hold in (late, lost, broken, checked, held)
            ), "each once, whatever its rail had said to the other escrow"
            assert [a.outcome for a in carried.queue.attempts(held.id, 0)] == ["lease_end", "release"]
            assert carried.audit() == ()


@pytest.fixture
def export(folder: Path) -> Path:
    scene = busy(SqliteStore(folder))
    scene.escrow.export_to(folder / "export")
    scene.escrow.close()
    return folder / "export"


@pytest.mark.parametrize("damage", ["cut", "changed", "swapped", "more", "empty", "other", "short"])
def test_what_is_not_whole_is_refused(export: Path, folder: Path, damage: str) -> None:
    lines = export.read_bytes().splitlines(keepends=True)
    damaged = {
        "cut": lines[:-1],
        "changed": [line.replace(b"treasury", b"outside!") for line in lines[:9]] + lines[10:],
        "swapped": [lines[0], lines[2], lines[1], *lines[3:]],
        "more": [*lines, lines[1]],
        "empty": [],
        "other": [b'{"format":"another"}\n', *lines[1:]],
        "short": [*lines[:-1], lines[-1].rstrip()],
    }[damage]
    (folder / "damaged").write_bytes(b"".join(damaged))
    with pytest.raises(Malformed):
        SqliteEscrow.import_from(folder / "damaged", folder / "new.db")
    assert not list(folder.glob("*new.db*"))  # nothing is in the way of the next attempt
    SqliteEscrow.import_from(export, folder / "new.db").close()


def reseal(lines: list[bytes]) -> bytes:
    """End a file as one that is whole would."""
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    return b"".join(lines) + b'{"digest":"%s","rows":%d}\n' % (digest.encode(), len(lines) - 1)


def test_books_that_do_not_agree_are_refused(export: Path, folder: Path) -> None:
    lines = export.read_bytes().splitlines(keepends=True)[:-1]
    changed = [line.replace(b'"1000"', b'"1001"') if b'"table":"entry"' in line else line for line in lines]
    assert changed != lines
    (folder / "changed").write_bytes(reseal(changed))
    with refused("escrow.books"):
        SqliteEscrow.import_from(folder / "changed", folder / "new.db")


def test_what_sqlite_cannot_count_stays_where_it_is(folder: Path) -> None:
    with make_store("postgres", folder) as store, store.create(escrow="test-escrow") as escrow:
        escrow.deposit(BUYER.public, 2**64, Currency("WEI", 18), key="k", now=START)
        escrow.export_to(folder / "export")
    with refused("escrow.amount"):
        SqliteEscrow.import_from(folder / "export", folder / "new.db")


def test_nothing_is_written_over(export: Path, folder: Path) -> None:
    with SqliteEscrow.open(folder / "escrow.db") as escrow, pytest.raises(Misuse):
        escrow.export_to(export)
    with pytest.raises(Misuse):
        SqliteEscrow.import_from(export, folder / "escrow.db")
    with pytest.raises(Misuse):
        SqliteEscrow.import_from(folder / "nowhere", folder / "new.db")
