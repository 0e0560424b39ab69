"""The demo's acts on real evidence: an answer that an enclave signed in 2025, and the same one again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from console import ROOT
from proofhold.provider import Prover
from proofhold.recomputation import recheck
from proofhold.runner import InlineRunner
from proofhold_cli.story.recorded import (
    DOCUMENT,
    RESPONSE,
    VECTORS,
    Recorded,
    find_recorded,
    play_recorded,
    told_document,
)
from proofhold_cli.story.stage import SimulatedClock, Stage


@pytest.fixture
def recorded(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setenv(VECTORS, str(vectors))
    found = find_recorded(ROOT)
    assert found is not None
    return found


def test_a_real_answer_is_paid_as_of_its_time_and_once(recorded: Recorded, tmp_path: Path) -> None:
    clock = SimulatedClock(recorded.response.signed_at)
    stage = Stage(ROOT, tmp_path, InlineRunner(), Prover(InlineRunner()), clock, (recorded.service(),))
    first, again = play_recorded(stage, recorded)
    assert (first.state, first.why) == ("released", "input, output, fresh, provider: attested")
    assert (again.state, again.why) == ("refunded", "claim.reused_evidence")
    assert not stage.escrow.audit()
    (kept,) = stage.kept
    assert recheck(kept.receipt, kept.bundle, policy=kept.policy, verifier=stage.verifier) == ()
    assert "model" not in kept.receipt.shown


def test_a_real_document_is_judged_as_of_its_time(recorded: Recorded) -> None:
    assert told_document(recorded.document) == (
        "genuine as of 2026-02-12, PCR0 9baef83909784e4d…; a day later refused: nitro.expired"
    )


def test_evidence_that_is_not_here_or_was_changed_is_not_played(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VECTORS, str(tmp_path))
    assert find_recorded(ROOT) is None
    for name in (RESPONSE, DOCUMENT):
        (tmp_path / name).parent.mkdir()
        shutil.copy(vectors / name, tmp_path / name)
    assert find_recorded(ROOT) is not None
    good = json.loads((vectors / RESPONSE).read_bytes())
    for damage in (
        "",
        "{",
        "[]",
        json.dumps({**good, "signed_data": None}),
        json.dumps({**good, "request": 1}),
    ):
        (tmp_path / RESPONSE).write_text(damage)
        assert find_recorded(ROOT) is None
    (tmp_path / "vectors.tar.gz").write_bytes(b"none")
    assert find_recorded(ROOT) is None
