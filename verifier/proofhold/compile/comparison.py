"""Does a pass change what the model computes? Both are run, on the samples, and the largest difference told.

A rewriting that is right in the reals is off by rounding in float32; one that is wrong shows here, before
anything is proved of it. The samples are the author's: a rewriting that goes wrong elsewhere does not show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from proofhold.compile.errors import CompileError
from proofhold.execution import open_session
from proofhold.locks import TAG_LENGTH, TAG_NAME

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


def largest_difference(before: bytes, after: bytes, samples: Sequence[Arrays]) -> float:
    """Give the largest absolute difference of any output of two models on the same inputs.

    Raises:
        CompileError: ``compile.pass_differs``: an output has another shape, or is NaN in one of them alone.

    """
    one, other = open_session(before), open_session(after)
    tag = {port.name for port in other.get_inputs()} & {TAG_NAME}
    worst = 0.0
    for sample in samples:
        expected = one.run(None, dict(sample))
        got = other.run(None, {**sample, **{name: np.zeros((1, TAG_LENGTH), np.int64) for name in tag}})
        for was, now in zip(expected, got, strict=True):
            worst = max(worst, _difference(np.asarray(was, np.float64), np.asarray(now, np.float64)))
    return worst


def _difference(expected: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    if expected.shape != got.shape:
        raise CompileError(
            "compile.pass_differs", f"a pass gives shape {got.shape}, expected {expected.shape}"
        )
    difference = float(np.max(np.abs(got - expected), initial=0.0))
    if not math.isfinite(difference):
        raise CompileError("compile.pass_differs", "an output is NaN or infinite before or after a pass")
    return difference
