"""The export scripts give the committed files again, to the byte, and rows that the models never saw."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from repository_models import MODELS, NAMES, TRAINED_WITH_TORCH, held_out

LARGEST_FILE = 1_000_000
HELD_OUT_ROWS = 1_000


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name in TRAINED_WITH_TORCH else []) for name in NAMES],
)
def test_export_is_deterministic(name: str, tmp_path: Path) -> None:
    if name in TRAINED_WITH_TORCH:
        pytest.importorskip("torch", reason="PyTorch trains this model: sh requirements/add-torch")
    script = MODELS / name / "export.py"
    subprocess.run([sys.executable, str(script), "--out", str(tmp_path)], check=True, capture_output=True)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert {"model.onnx", "samples.json"} <= set(made)
    for file_name in made:
        committed = MODELS / name / file_name
        assert (tmp_path / file_name).read_bytes() == committed.read_bytes(), file_name


@pytest.mark.parametrize("name", NAMES)
def test_opset_and_weight_grid_are_pinned(name: str) -> None:
    model = onnx.load(MODELS / name / "model.onnx")
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (8, [("", 17)])
    for tensor in model.graph.initializer:
        steps = numpy_helper.to_array(tensor).astype(np.float64) * 2**13
        assert np.array_equal(steps, np.round(steps)), tensor.name


@pytest.mark.parametrize("name", NAMES)
def test_no_file_of_a_model_or_circuit_is_large(name: str) -> None:
    folders = (MODELS / name, MODELS.parent / "circuits" / name)
    for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
        if path.is_file():
            assert path.stat().st_size < LARGEST_FILE, path


@pytest.mark.parametrize("name", NAMES)
def test_held_out_rows_lie_in_the_domain_and_did_not_calibrate(name: str) -> None:
    pytest.importorskip("sklearn")
    rows = held_out(name, HELD_OUT_ROWS).reshape(HELD_OUT_ROWS, -1)
    assert np.array_equal(rows, held_out(name, HELD_OUT_ROWS).reshape(HELD_OUT_ROWS, -1))
    assert np.abs(rows).max() <= (16.0 if name == "breast_cancer" else 1.0)
    document = json.loads((MODELS / name / "samples.json").read_bytes())
    samples = {np.float32(next(iter(sample["inputs"].values()))).tobytes() for sample in document["samples"]}
    assert sum(row.tobytes() in samples for row in rows) == 0
