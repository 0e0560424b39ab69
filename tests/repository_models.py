"""The models of the repository, and the inputs that neither trained them nor calibrated their circuits."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

MODELS = Path(__file__).parents[1] / "models"
TRAINED_WITH_TORCH = ("lenet", "transformer")
NAMES = ("breast_cancer", "digits", "parity", "digits_28", "trees", *TRAINED_WITH_TORCH)


def held_out(name: str, count: int) -> npt.NDArray[np.float32]:
    """Give `count` inputs of a model, as its export script makes them."""
    specification = importlib.util.spec_from_file_location(
        f"models_{name}_export", MODELS / name / "export.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    rows: npt.NDArray[np.float32] = module.held_out(count)
    return rows
