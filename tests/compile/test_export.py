"""The export scripts give the committed files again, to the byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
def test_export_is_deterministic(name: str, tmp_path: Path) -> None:
    script = MODELS / name / "export.py"
    subprocess.run([sys.executable, str(script), "--out", str(tmp_path)], check=True, capture_output=True)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert {"model.onnx", "samples.json"} <= set(made)
    for file_name in made:
        committed = MODELS / name / file_name
        assert (tmp_path / file_name).read_bytes() == committed.read_bytes(), file_name


@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
def test_opset_and_weight_grid_are_pinned(name: str) -> None:
    model = onnx.load(MODELS / name / "model.onnx")
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (8, [("", 17)])
    for tensor in model.graph.initializer:
        steps = numpy_helper.to_array(tensor).astype(np.float64) * 2**13
        assert np.array_equal(steps, np.round(steps)), tensor.name


@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
def test_no_file_of_a_model_or_circuit_is_large(name: str) -> None:
    for folder in (MODELS / name, MODELS.parent / "circuits" / name):
        for path in folder.iterdir():
            if path.is_file():
                assert path.stat().st_size < 100_000, path
