"""Does a pass change what the model computes? Both are run, on the samples, and the largest difference told.

A rewriting that is right in the reals is off by rounding in float32; one that is wrong shows here, before
anything is proved of it. The samples are the author's: a rewriting that goes wrong elsewhere does not show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from proofhold.compile.errors import CompileError
from proofhold.compile.passes.rewriting import attributes_of
from proofhold.compile.passes.tensor_outputs import is_zip_map
from proofhold.domain import PostProcessing
from proofhold.execution import open_session
from proofhold.locks import TAG_LENGTH, TAG_NAME

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

TOLERANCE = 1e-4
"""How far two forms of one model may be apart, for each unit of the output; what it is when it is small."""


_NUMBERS = tuple(f"tensor({kind})" for kind in ("float", "double", "int64", "int32", "bool"))


def largest_difference(
    before: bytes, after: bytes, samples: Sequence[Arrays], moved: PostProcessing = PostProcessing.NONE
) -> float:
    """Give the largest absolute difference of any output that two models have in common, on the same inputs.

    Args:
        before: a model.
        after: what became of it.
        samples: inputs by name.
        moved: the step that `after` leaves to the reader; it is done before the comparison.

    Raises:
        CompileError: ``compile.pass_differs``: an output has another shape, is NaN in one of them alone, or
            differs by more than rounding.

    """
    one, other = open_session(before), open_session(after)
    labels = _labels_of_maps(before)
    names = [port.name for port in other.get_outputs() if port.type in _NUMBERS or port.name in labels]
    places = {port.name: index for index, port in enumerate(one.get_outputs())}
    tag = {port.name for port in other.get_inputs()} & {TAG_NAME}
    worst = 0.0
    for sample in samples:
        outputs = one.run(None, dict(sample))
        got = other.run(names, {**sample, **{name: np.zeros((1, TAG_LENGTH), np.int64) for name in tag}})
        for name, value in zip(names, got, strict=True):
            expected = _numbers(outputs[places[name]], labels.get(name))
            worst = max(worst, _difference(expected, finish(_numbers(value, labels.get(name)), moved)))
    return worst


def finish(values: NDArray[Any], step: PostProcessing) -> NDArray[np.float64]:
    """Do what a lock's post-processing leaves to whoever reads the output, along its last axis."""
    numbers: NDArray[np.float64] = np.asarray(values, np.float64)
    if step is PostProcessing.SIGMOID:
        small = np.exp(-np.abs(numbers))
        return np.asarray(np.where(numbers >= 0, 1 / (1 + small), small / (1 + small)), np.float64)
    if step is PostProcessing.SOFTMAX:
        shares = np.exp(numbers - numbers.max(axis=-1, keepdims=True))
        quotient: NDArray[np.float64] = shares / shares.sum(axis=-1, keepdims=True)
        return quotient
    if step is PostProcessing.ARGMAX:
        return np.asarray(np.argmax(numbers, axis=-1), np.float64)
    return numbers


def _numbers(output: Any, labels: list[Any] | None) -> NDArray[np.float64]:
    """Give an output as numbers: a ZipMap's dictionaries as the tensor that they were made of."""
    if labels is not None and isinstance(output, list):
        output = [[row[label] for label in labels] for row in output]
    numbers: NDArray[np.float64] = np.asarray(output, np.float64)
    return numbers


def _labels_of_maps(model: bytes) -> dict[str, list[Any]]:
    """Give the classes of each ZipMap by its output, in the order of the tensor's columns."""
    labels: dict[str, list[Any]] = {}
    for node in onnx.ModelProto.FromString(model).graph.node:
        if is_zip_map(node):
            values = attributes_of(node)
            strings = [text.decode() for text in values.get("classlabels_strings", [])]
            labels[node.output[0]] = list(values.get("classlabels_int64s", [])) or strings
    return labels


def _difference(expected: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    if got.size == expected.size and got.ndim != expected.ndim:
        got = got.reshape(expected.shape)  # ArgMax may keep the axis that it reduces.
    if expected.shape != got.shape:
        raise CompileError(
            "compile.pass_differs", f"a pass gives shape {got.shape}, expected {expected.shape}"
        )
    difference = float(np.max(np.abs(got - expected), initial=0.0))
    allowed = TOLERANCE * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    # Not `difference > allowed`: a NaN must fail.
    if not difference <= allowed or not math.isfinite(difference):
        raise CompileError(
            "compile.pass_differs", f"a pass changes an output by {difference:.3g}: it is left alone"
        )
    return difference
