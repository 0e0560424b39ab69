"""Models of scikit-learn, as skl2onnx exports them, become circuits; those of the first test are proved."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from circuits_of import evaluate
from proofhold.catalogue import Catalogue
from proofhold.compile import compile_model
from proofhold.compile.toolchain import Toolchain
from proofhold.domain import PostProcessing
from proofhold.execution import run_model
from proofhold.locks import RunArgs
from proofhold.payload import Tensors, decode_payload, encode_payload
from small_models import write_model

RUN_ARGS = RunArgs(columns=2, decomp_base=128, decomp_legs=5, input_scale=10, param_scale=10)
LOW, HIGH = 0.0, 8.0
NONE, SIGMOID, SOFTMAX = PostProcessing.NONE, PostProcessing.SIGMOID, PostProcessing.SOFTMAX


@dataclass(frozen=True)
class Case:
    """A model, what the reader of its circuit's output has left to do, and how far that may be off."""

    model: Any
    post_processing: PostProcessing
    classes: int = 3
    error: float = 0.02
    """Of logits, which reach 10 and more; of shares of votes it is far less."""
    options: Any = None


CASES = {
    "logistic regression of two classes": Case(LogisticRegression(), SIGMOID, classes=2),
    "logistic regression": Case(LogisticRegression(), SOFTMAX),
    "logistic regression without a ZipMap": Case(LogisticRegression(), SOFTMAX, options={"zipmap": False}),
    "linear regression": Case(LinearRegression(), NONE),
    "pipeline": Case(make_pipeline(StandardScaler(), Normalizer(), LogisticRegression()), SOFTMAX),
    "decision tree": Case(DecisionTreeClassifier(max_depth=3, random_state=1), NONE),
    "decision tree of two classes": Case(
        DecisionTreeClassifier(max_depth=3, random_state=1), NONE, classes=2
    ),
    "random forest": Case(RandomForestClassifier(3, max_depth=3, random_state=1), NONE),
    "random forest of numbers": Case(RandomForestRegressor(3, max_depth=3, random_state=1), NONE),
    "boosted trees": Case(GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=1), SOFTMAX),
    "boosted trees of two classes": Case(
        GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=1), SIGMOID, classes=2
    ),
    "perceptron": Case(MLPClassifier((8,), max_iter=30, random_state=1), SOFTMAX),
}


def flowers(classes: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    features, labels = load_iris(return_X_y=True)
    mine = labels < classes
    return features[mine].astype(np.float32), labels[mine]


def export(case: Case) -> tuple[onnx.ModelProto, NDArray[np.float32], Any]:
    features, labels = flowers(case.classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = clone(case.model).fit(features, labels)
        return to_onnx(fitted, features[:1], options=case.options), features[::5], fitted


@pytest.mark.parametrize("name", CASES)
def test_a_model_becomes_a_circuit_that_gives_what_scikit_learn_gives(
    name: str, tmp_path: Path, tools: Toolchain
) -> None:
    case = CASES[name]
    model, rows, fitted = export(case)
    path = write_model(tmp_path, model, {model.graph.input[0].name: rows}, low=LOW, high=HIGH)
    found = evaluate(path, RUN_ARGS, tools)
    assert found.trial.derivation.post_processing is case.post_processing
    assert found.trial.k <= 13
    assert max(record.max_abs for record in found.trial.passes) < 1e-5
    assert found.trial.error.max_abs < case.error
    predict: Callable[[Any], Any] = getattr(fitted, "predict_proba", fitted.predict)
    expected = np.asarray(predict(rows)).reshape(len(rows), -1)
    assert found.finished.reshape(expected.shape) == pytest.approx(expected, abs=case.error)


@pytest.mark.parametrize("name", ["logistic regression", "decision tree"])
def test_a_circuit_of_it_is_proved_and_pinned(
    name: str, tmp_path: Path, cache: Path, tools: Toolchain
) -> None:
    """Its lock says what the passes changed; there is no re-execution where the output is a dictionary."""
    case = CASES[name]
    model, rows, _ = export(case)
    path = write_model(
        tmp_path / "models" / "flowers", model, {model.graph.input[0].name: rows}, low=LOW, high=HIGH
    )
    out = tmp_path / "circuits" / "flowers"
    lock = compile_model(path, out, run_args=RUN_ARGS, cache=cache, tools=tools)
    assert [record.name for record in lock.passes][:3] == ["fixed_axes", "tensor_outputs", "classical"]
    assert [port.shape for port in lock.outputs] == [(1, 3)]
    entry = Catalogue.load(tmp_path).by_name("flowers")
    assert entry.circuit is not None
    assert entry.replay is None
    assert not (out / "replay.lock.json").exists()


def test_a_model_whose_outputs_are_tensors_can_be_run_again(
    tmp_path: Path, cache: Path, tools: Toolchain
) -> None:
    """The circuit gives logits, and the published model label and probabilities: each lock says which."""
    case = CASES["logistic regression without a ZipMap"]
    model, rows, _ = export(case)
    path = write_model(
        tmp_path / "models" / "flowers", model, {model.graph.input[0].name: rows}, low=LOW, high=HIGH
    )
    lock = compile_model(path, tmp_path / "circuits" / "flowers", run_args=RUN_ARGS, cache=cache, tools=tools)
    replay = Catalogue.load(tmp_path).by_name("flowers").replay
    assert replay is not None
    assert (lock.post_processing, replay.post_processing) == (SOFTMAX, NONE)
    assert [(port.name, port.dtype, port.shape) for port in replay.outputs] == [
        ("label", "int64", (1,)),
        ("probabilities", "float32", (1, 3)),
    ]
    inputs = Tensors.of([(model.graph.input[0].name, rows[:1])])
    outputs = decode_payload(run_model(path.read_bytes(), encode_payload(inputs)))
    assert isinstance(outputs, Tensors)
    assert [(t.name, t.dtype, t.shape) for t in outputs.items] == [
        (port.name, port.dtype, port.shape) for port in replay.outputs
    ]
