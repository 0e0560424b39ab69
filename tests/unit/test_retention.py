"""Evidence is kept while somebody may have to prove something by it, whole, and no longer."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from escrow_builders import (
    BOND,
    DISPUTE_S,
    FREEZE_S,
    START,
    Scene,
    digest_of,
    memory_folder,
    refused,
)
from judging import reveal, unproved
from proofhold.canonical import file_digest
from proofhold.errors import Malformed, Misuse
from proofhold.escrow import HoldRecord, LedgerRail, Ruling
from proofhold.escrow.evidences import MAX_PIECES
from proofhold.exchange import Bundle
from proofhold.retention import FOLDER_NAME, HALF_WRITTEN_S, EvidenceFolder, Pruned
from proofhold_cli import main
from stores import DRIVERS, make_store

CHALLENGE_S = max(DISPUTE_S, FREEZE_S)


@pytest.fixture(params=DRIVERS)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[Scene, EvidenceFolder, Path]]:
    with memory_folder() as name, make_store(request.param, Path(name)) as store:
        scene, folder = Scene.create(store), Path(name) / FOLDER_NAME
        yield scene, EvidenceFolder(folder, scene.escrow), folder
        assert scene.escrow.audit() == ()
        scene.escrow.close()


Place = tuple[Scene, EvidenceFolder, Path]


def files(folder: Path) -> set[str]:
    return {path.parent.name + path.name for path in folder.glob("*/*")}


def paid(scene: Scene, hold: HoldRecord, ruling: Ruling = Ruling.RELEASE) -> None:
    scene.apply(hold, ruling)
    scene.escrow.pump(LedgerRail(), now=scene.now)


def test_it_is_kept_whole_by_its_digest_and_for_its_owner_only(place: Place) -> None:
    scene, kept, folder = place
    hold = scene.claimed()
    for _ in range(2):
        piece = kept.keep(hold.id, 0, "bundle", b"evidence", now=START)
    assert piece.digest == file_digest(b"evidence")
    assert kept.read(piece.digest) == b"evidence"
    assert kept.pieces(hold.id) == (piece,)
    assert files(folder) == {piece.digest}
    [path] = folder.glob("*/*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"another one")
    with pytest.raises(Malformed, match=r"evidence\.altered"):
        kept.read(piece.digest)
    for wrong in ("../escrow.db", "00" * 32):
        with pytest.raises(Misuse):
            kept.read(wrong)


def test_a_bundle_and_its_answers_are_kept_for_the_recheck(place: Place) -> None:
    scene, kept, _ = place
    hold = scene.claimed()
    bundle, answers = kept.keep_bundle(hold.id, 0, unproved(), (reveal(),), now=START)
    assert Bundle.decode(kept.read(bundle.digest)) == unproved()
    assert (bundle.kind, answers.kind) == ("bundle", "answers")


def test_undecided_and_disputed_and_frozen_are_kept_for_good(place: Place) -> None:
    scene, kept, folder = place
    undecided, disputed, refuted, unpaid = (scene.claimed() for _ in range(4))
    for hold in (undecided, disputed, refuted, unpaid):
        kept.keep(hold.id, 0, "bundle", hold.id.encode(), now=START)
    scene.apply(disputed, Ruling.DISPUTE)
    paid(scene, refuted, Ruling.REFUND)  # its bond is frozen
    scene.apply(unpaid, Ruling.RELEASE)
    assert kept.prune(now=START + 10**9) == Pruned((), 0, 0)
    assert len(files(folder)) == 4


def test_what_was_released_is_kept_until_its_challenge_ends(place: Place) -> None:
    scene, kept, folder = place
    hold = scene.claimed()
    piece = kept.keep(hold.id, 0, "bundle", b"evidence", now=START)
    paid(scene, hold)
    assert kept.prune(now=START + CHALLENGE_S - 1) == Pruned((), 0, 0)
    would = kept.prune(now=START + CHALLENGE_S, dry_run=True)
    assert would == Pruned((piece,), 1, len(b"evidence"))
    assert files(folder) == {piece.digest}
    assert kept.prune(now=START + CHALLENGE_S) == would
    assert files(folder) == set()
    assert kept.pieces(hold.id) == ()
    assert kept.prune(now=START + CHALLENGE_S) == Pruned((), 0, 0)
    again = kept.keep(hold.id, 0, "bundle", b"evidence", now=START + CHALLENGE_S)
    assert kept.read(again.digest) == b"evidence"


def test_a_frozen_bond_that_is_free_again_lets_go(place: Place) -> None:
    scene, kept, _ = place
    hold = scene.claimed()
    kept.keep(hold.id, 0, "bundle", b"evidence", now=START)
    paid(scene, hold, Ruling.REFUND)
    scene.escrow.run_timers(START + CHALLENGE_S)
    assert (scene.bond(hold), BOND > 0) == ("free", True)
    assert kept.prune(now=START + CHALLENGE_S).files == 1


def test_what_two_captures_share_stays_until_neither_needs_it(place: Place) -> None:
    scene, kept, folder = place
    first, second = scene.claimed(), scene.claimed()
    for hold in (first, second):
        kept.keep(hold.id, 0, "bundle", b"shared", now=START)
    paid(scene, first)
    for dry_run in (True, False):
        pruned = kept.prune(now=START + CHALLENGE_S, dry_run=dry_run)
        assert (len(pruned.pieces), pruned.files) == (1, 0)
    paid(scene, second)
    assert kept.prune(now=START + CHALLENGE_S).files == 1
    assert files(folder) == set()


def test_a_file_that_no_capture_keeps_is_removed(place: Place) -> None:
    scene, kept, folder = place
    kept.keep(scene.claimed().id, 0, "bundle", b"kept", now=START)
    orphan = folder / "ab" / ("c" * 62)
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"left by a crash")
    assert kept.prune(now=START, dry_run=True).files == 1
    assert kept.prune(now=START).files == 1
    assert files(folder) == {file_digest(b"kept")}


def test_keeping_and_pruning_at_once_loses_nothing(place: Place) -> None:
    scene, kept, _ = place
    finished = scene.claimed()
    kept.keep(finished.id, 0, "bundle", b"shared", now=START)
    paid(scene, finished)
    holds = [scene.claimed() for _ in range(6)]

    def work(number: int) -> None:
        if number % 2:
            kept.prune(now=START + CHALLENGE_S)
        else:
            kept.keep(holds[number // 2].id, 0, "bundle", b"shared", now=START)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(12)))
    assert kept.read(file_digest(b"shared")) == b"shared"
    assert all(len(kept.pieces(hold.id)) == 1 for hold in holds)


def test_a_capture_keeps_a_bounded_number_and_must_be_known(place: Place) -> None:
    scene, kept, folder = place
    hold = scene.claimed()
    for number in range(MAX_PIECES):
        kept.keep(hold.id, 0, "bundle", b"%d" % number, now=START)
    with refused("evidence.too_many"):
        kept.keep(hold.id, 0, "bundle", b"one more", now=START)
    with refused("escrow.unknown_hold"):
        kept.keep(digest_of("nothing"), 0, "bundle", b"x", now=START)
    assert kept.prune(now=START).files == 2  # what was written before it was refused
    assert len(files(folder)) == MAX_PIECES


def test_the_commands() -> None:
    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(main, ["evidence", arguments[0], str(home), *arguments[1:], "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    with memory_folder() as folder, make_store("sqlite", Path(folder)) as store:
        home = Path(folder)
        scene = Scene.create(store)
        paid_hold = scene.claimed()
        kept = EvidenceFolder(home / FOLDER_NAME, scene.escrow)
        piece = kept.keep(paid_hold.id, 0, "bundle", b"evidence", now=START)
        paid(scene, paid_hold)
        [listed] = run("list", paid_hold.id)["evidence"]
        assert listed == {"digest": piece.digest, "kind": "bundle", "seq": 0}
        run("get", piece.digest, "--out", str(home / "out"))
        assert (home / "out").read_bytes() == b"evidence"
        after = str(START + CHALLENGE_S)
        assert run("prune", "--dry-run", "--now", after) == {"bytes": 8, "dry_run": True, "files": 1}
        assert run("prune", "--now", after) == {"bytes": 8, "dry_run": False, "files": 1}
        assert run("list", paid_hold.id) == {"evidence": []}
        scene.escrow.close()


def test_what_a_dead_process_left_half_written_is_removed_in_time(place: Place) -> None:
    scene, kept, folder = place
    kept.keep(scene.claimed().id, 0, "bundle", b"evidence", now=START)
    [path] = folder.glob("*/*")
    left = path.parent / ".half"
    left.write_bytes(b"evid")
    os.utime(left, (START, START))
    assert kept.prune(now=START + HALF_WRITTEN_S) == Pruned((), 0, 0)
    assert kept.prune(now=START + HALF_WRITTEN_S + 1, dry_run=True) == Pruned((), 1, 4)
    assert kept.prune(now=START + HALF_WRITTEN_S + 1) == Pruned((), 1, 4)
    assert [*folder.glob("*/*")] == [path]
