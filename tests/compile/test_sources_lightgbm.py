"""Models of LightGBM, as onnxmltools exports them, become circuits; one is proved."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_iris

from circuits_of import evaluate
from proofhold.compile import compile_model
from proofhold.compile.toolchain import Toolchain
from proofhold.domain import PostProcessing
from proofhold.locks import RunArgs
from small_models import write_model

RUN_ARGS = RunArgs(columns=2, decomp_base=128, decomp_legs=4, input_scale=10, param_scale=10)
NONE, SIGMOID, SOFTMAX = PostProcessing.NONE, PostProcessing.SIGMOID, PostProcessing.SOFTMAX


def booster(kind: str, classes: int) -> tuple[Any, Any, NDArray[np.float32]]:
    features, labels = load_iris(return_X_y=True)
    mine = labels < classes
    features, labels = features[mine].astype(np.float32), labels[mine]
    settings = {"n_estimators": 3, "max_depth": 2, "verbose": -1, "n_jobs": 1, "random_state": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = getattr(lightgbm, kind)(**settings).fit(features, labels)
        model = convert_lightgbm(fitted, initial_types=[("x", FloatTensorType([None, 4]))])
    return fitted, model, features[::8]


@pytest.mark.parametrize(
    ("kind", "classes", "post_processing"),
    [("LGBMClassifier", 2, SIGMOID), ("LGBMClassifier", 3, SOFTMAX), ("LGBMRegressor", 3, NONE)],
)
def test_boosted_trees_become_a_circuit_that_gives_what_they_give(
    kind: str, classes: int, post_processing: PostProcessing, tmp_path: Path, tools: Toolchain
) -> None:
    fitted, model, rows = booster(kind, classes)
    path = write_model(tmp_path, model, {"x": rows}, low=0, high=8)
    found = evaluate(path, RUN_ARGS, tools)
    assert found.trial.derivation.post_processing is post_processing
    assert "classical" in found.names
    assert max(record.max_abs for record in found.trial.passes) < 1e-5
    assert found.trial.peak is not None, "a bound over the whole domain is known for trees"
    predict = fitted.predict_proba if kind == "LGBMClassifier" else fitted.predict
    expected = np.asarray(predict(rows)).reshape(len(rows), -1)
    assert found.finished.reshape(expected.shape) == pytest.approx(expected, abs=0.01)


def test_boosted_trees_are_proved(tmp_path: Path, cache: Path, tools: Toolchain) -> None:
    _, model, rows = booster("LGBMClassifier", 2)
    path = write_model(tmp_path / "model", model, {"x": rows}, low=0, high=8)
    lock = compile_model(path, tmp_path / "circuit", run_args=RUN_ARGS, cache=cache, tools=tools)
    assert lock.cost.proof_bytes == 3072
    assert not (tmp_path / "circuit" / "replay.lock.json").exists()
