"""The tolerance: drawn from what honest runs and substitutes give, and refused where it means nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from proofhold.compile.errors import CompileError
from proofhold.compile.replay.calibration.calibrate import calibrate, write_profile
from proofhold.compile.replay.calibration.cheats import CHEATS, MUST_BE_TOLD_APART, can_be_made
from proofhold.compile.replay.calibration.profile import Profile, draw_profile
from proofhold.compile.replay.calibration.report import render
from proofhold.compile.replay.calibration.runtimes import available, run_all
from proofhold.errors import Malformed, Misuse
from proofhold.locks import Contract, ReplayLock
from proofhold.replay.compare import residual
from proofhold.runner import InlineRunner, ProcessRunner
from replay_models import MODELS, OTHERS, Graph, pinned

LOCK = pinned("chain").lock
COLUMNS = len(LOCK.segments) + 1


def rows(value: float, *, number: int = 2) -> list[list[float]]:
    return [[value] * COLUMNS for _ in range(number)]


@pytest.fixture(scope="module")
def measured() -> Iterator[Profile]:
    with ProcessRunner(memory_bytes=None) as runner:
        yield calibrate(MODELS["chain"](), LOCK, runner=runner, inputs=2)


def test_a_real_model_is_told_apart_from_every_substitute_that_saves_money(measured: Profile) -> None:
    assert measured.contract is Contract.FLOAT32
    assert len(measured.honest) >= 9
    assert 0 < measured.honest_max < 2.5e-6
    assert measured.honest_margin >= 4
    for name in MUST_BE_TOLD_APART:
        found = measured.separation(name)
        assert (found.detection, found.margin > 1.5) == (1.0, True), name


def test_what_is_tampered_with_in_one_layer_is_said_not_to_be_told_apart(measured: Profile) -> None:
    assert "last_layer" in measured.not_told_apart
    assert measured.separation("last_layer").detection == pytest.approx(1 / len(LOCK.segments))


def test_the_profile_is_written_beside_the_lock_that_pins_it(measured: Profile, tmp_path: Path) -> None:
    out = tmp_path / "circuits" / "chain"
    lock = write_profile(measured, LOCK, out)
    assert ReplayLock.decode((out / "replay.lock.json").read_bytes()) == lock
    assert [s.relative_l2 for s in lock.segments] == list(measured.tolerances[:-1])
    assert lock.relative_l2 == measured.tolerances[-1]
    written = json.loads((out / "calibration.json").read_bytes())
    assert written["not_told_apart"] == list(measured.not_told_apart)
    assert written["honest"].keys() == measured.honest.keys()


def test_the_report_draws_every_residual_and_fetches_nothing(measured: Profile) -> None:
    page = render(measured, "chain")
    assert not re.search(r"src=|href=|url\(|@import|<script", page)
    [svg] = re.findall(r"<svg.*</svg>", page)
    drawn = ElementTree.fromstring(svg).findall("circle")  # noqa: S314 - of our own making
    dots = sum(
        len(each) * len(LOCK.segments) for each in (*measured.honest.values(), *measured.cheats.values())
    )
    assert len(drawn) == dots
    for name in CHEATS:
        assert name in page


def test_what_a_sigmoid_leaves_is_measured_by_what_it_usually_is() -> None:
    """The ten-thousandth that is left carries the rounding of the numbers that it was made of."""
    model, lock, runner = OTHERS["saturated"](), pinned("saturated").lock, InlineRunner()
    profile = calibrate(model, lock, runner=runner, inputs=3)
    pinned_lock = profile.pinned(lock)
    [usual] = [pinned_lock.norms[spec.name] for spec in lock.outputs]
    assert ReplayLock.decode(pinned_lock.encode()) == pinned_lock
    tiny, rounding = (np.full(64, value, np.float32) for value in (usual / 800, usual * 1e-6 / 8))
    assert residual(tiny + rounding, tiny) > max(profile.tolerances)
    assert residual(tiny + rounding, tiny, usual) < max(profile.tolerances)
    # One that is as large as ever is measured as ever.
    large = tiny * 1000
    assert residual(large * 1.01, large, usual) == pytest.approx(0.01, rel=1e-4)
    assert residual(tiny * np.float32(np.nan), tiny, usual) == np.inf


def test_a_lock_has_a_norm_of_every_output_or_none() -> None:
    first = LOCK.segments[0]
    for norms in ((1.0, 2.0), (-1.0,), (float("inf"),), (float("nan"),)):
        with pytest.raises(Misuse, match="norms"):
            replace(first, norms=norms)
    written = replace(LOCK, segments=(replace(first, norms=(2.5,)), *LOCK.segments[1:])).encode()
    assert ReplayLock.decode(written).norms == {first.outputs[0]: 2.5}
    for spoilt in (b"[]", b"[true]", b'["2.5"]'):
        with pytest.raises(Malformed):
            ReplayLock.decode(written.replace(b"[2.5]", spoilt))


def test_a_runtime_that_makes_a_mistake_is_no_honest_run() -> None:
    """onnx's reference normalises by the batch's own mean here, which opset 9 has for training alone."""
    model, lock = OTHERS["normalised"](), pinned("normalised").lock
    profile = calibrate(model, lock, runner=InlineRunner(), inputs=2)
    assert profile.mistaken.keys() == {"onnx-reference"}
    assert "BatchNormalization: normalised is" in profile.mistaken["onnx-reference"]
    assert "onnx-reference" not in profile.honest
    assert max(profile.tolerances) < 1e-4
    assert "onnx-reference was left out" in render(profile, "normalised")
    assert json.loads(profile.encode())["mistaken"] == dict(profile.mistaken)


def test_names_in_a_report_are_text() -> None:
    profile = draw_profile(LOCK, Contract.FLOAT32, {"<b>": rows(1e-7)}, {})
    assert "<b>:" not in render(profile, "<script>")
    assert "&lt;script&gt;" in render(profile, "<script>")


def test_a_tolerance_lies_four_times_above_honest_runs_and_not_below_1e_5() -> None:
    low = draw_profile(LOCK, Contract.FLOAT32, {"a": rows(1e-9)}, {})
    assert set(low.tolerances) == {1e-5}
    high = draw_profile(LOCK, Contract.FLOAT32, {"a": rows(1e-9), "b": rows(1e-5)}, {})
    assert set(high.tolerances) == {4e-5}
    assert high.honest_margin == pytest.approx(4)


@pytest.mark.parametrize("name", MUST_BE_TOLD_APART)
def test_a_profile_that_lets_a_substitute_pass_is_refused(name: str) -> None:
    near = [[1e-2] * (COLUMNS - 2) + [1.4e-5, 1e-2]]
    with pytest.raises(CompileError, match=rf"{name}.*compile\.tolerance"):
        draw_profile(LOCK, Contract.FLOAT32, {"a": rows(1e-9)}, {name: near})


def test_so_is_one_whose_honest_runs_are_far_apart() -> None:
    with pytest.raises(CompileError, match=r"compile\.tolerance"):
        draw_profile(LOCK, Contract.FLOAT32, {"a": rows(0.3)}, {})


def test_where_half_precision_is_allowed_it_is_honest_and_what_hides_below_is_named() -> None:
    honest = {"a": rows(1e-7), "fp16 weights": rows(3e-4)}
    profile = draw_profile(LOCK, Contract.REDUCED, honest, {"pruned_1": rows(5e-4), "int4": rows(5e-2)})
    assert set(profile.tolerances) == {6e-4}
    assert profile.not_told_apart == ("pruned_1",)
    assert profile.pinned(LOCK).contract is Contract.REDUCED


def test_a_lock_with_a_reduced_contract_is_read_again() -> None:
    lock = replace(LOCK, contract=Contract.REDUCED)
    assert ReplayLock.decode(lock.encode()) == lock


def test_every_substitute_changes_what_comes_out_and_a_better_one_changes_less() -> None:
    exposed = MODELS["chain"]()
    feed = {"x": np.random.default_rng(0).uniform(-1, 1, (4, 256)).astype(np.float32)}
    [honest] = run_all("onnxruntime/ORT_ENABLE_ALL/1", exposed, [feed])
    off = {}
    for name, cheat in CHEATS.items():
        [run] = run_all("onnxruntime/ORT_ENABLE_ALL/1", cheat(exposed), [feed])
        off[name] = float(np.linalg.norm(run["layer7"] - honest["layer7"]))
    assert all(off.values()), off
    assert off["fp16"] < off["bf16"] < off["int8"] < off["int4"]
    assert off["pruned_1"] < off["pruned_10"]


def test_a_model_without_weights_has_no_substitutes() -> None:
    graph = Graph()
    assert not can_be_made(graph.model(["x"], [graph.node("Tanh", ["x"], "y")]))
    assert can_be_made(MODELS["chain"]())


@pytest.mark.long
def test_another_version_of_onnxruntime_is_measured_too(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "other")], check=True)
    python = str(tmp_path / "other" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "onnxruntime==1.22.1", "numpy"]
    if subprocess.run(install, check=False, capture_output=True).returncode:
        pytest.skip("no other version of onnxruntime is to be had here")
    assert [r.name for r in available(python=python)][-1] == f"onnxruntime@{python}"
    with ProcessRunner(memory_bytes=None) as runner:
        profile = calibrate(MODELS["chain"](), LOCK, runner=runner, inputs=2, python=python)
    rows = profile.honest["onnxruntime, another version"]
    assert max(max(row) for row in rows) < 2.5e-6
    assert python not in profile.encode().decode()
