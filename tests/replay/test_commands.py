"""``proofhold replay``: pin a model, calibrate it, and what the two commands write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from proofhold.catalogue import Catalogue
from proofhold.compile.replay.calibration import calibrate as calibration
from proofhold.compile.replay.calibration.runtimes import Runtime
from proofhold_cli import main
from replay_models import MODELS, SPECIFICATION


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "chain"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(MODELS["chain"]())
    (folder / "model.toml").write_text(SPECIFICATION)
    (tmp_path / "circuits").mkdir()
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_model_is_pinned_and_calibrated_and_then_in_the_catalogue(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every runtime is measured in test_calibration.
    two = (Runtime("onnxruntime/ORT_DISABLE_ALL/1"), Runtime("onnx-reference", 1))
    monkeypatch.setattr(calibration, "available", lambda *, python: two)
    model, out = root / "models" / "chain" / "model.onnx", root / "circuits" / "chain"
    said = json.loads(run("replay", "pin", str(model), "--out", str(out), "--json").splitlines()[-1])
    entry = Catalogue.load(root).by_name("chain")
    assert entry.replay is not None
    assert (said["lock"], said["name"]) == (entry.replay.digest, "chain")
    # A model that runs in a third of a millisecond is not worth a cut.
    assert (said["cuts"], said["shares"]) == ([], [1.0])

    told = run("replay", "calibrate", "chain", "--inputs", "2", "--root", str(root))
    calibrated = Catalogue.load(root).by_name("chain").replay
    assert calibrated is not None
    assert calibrated.digest in told
    assert "fp16" in told
    assert (out / "calibration.html").read_text().startswith("<!doctype html>")
    profile = json.loads((out / "calibration.json").read_bytes())
    assert profile["tolerances"] == [calibrated.segments[0].relative_l2, calibrated.relative_l2]


def test_what_cannot_be_pinned_says_why(root: Path) -> None:
    model = root / "models" / "chain" / "model.onnx"
    model.with_name("model.toml").write_text(SPECIFICATION.replace("inputs.x", "inputs.y"))
    result = CliRunner().invoke(
        main, ["replay", "pin", str(model), "--out", str(root / "circuits" / "chain")]
    )
    assert result.exit_code == 2
    assert "compile.specification" in result.output
    assert not (root / "circuits" / "chain").exists()
