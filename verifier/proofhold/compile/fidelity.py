"""How far a circuit's outputs are from the model's, sample by sample: what the tuner compares and shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proofhold.compile.errors import CompileError
from proofhold.compile.specification import Sample
from proofhold.compile.toolchain import Toolchain
from proofhold.compile.trial import NO_JOB, dequantised, sample_data, stated_bound
from proofhold.locks import MeasuredError
from proofhold.payload import Tensors

Outputs = tuple[NDArray[np.float64], ...]
"""The outputs of one run, each flat."""


@dataclass(frozen=True, slots=True)
class Deviations:
    """The differences of each sample, of each output, in order: circuit less reference."""

    differences: tuple[Outputs, ...]
    measured: MeasuredError


def references(derived: bytes, samples: Sequence[Sample], tools: Toolchain) -> tuple[Outputs, ...]:
    """Run the derived model on every sample."""
    runs = (tools.run(derived, Tensors((*sample.inputs.items, NO_JOB))).items for sample in samples)
    return tuple(tuple(t.numpy().astype(np.float64).ravel() for t in run) for run in runs)


def deviations(
    circuit: Path,
    samples: Sequence[Sample],
    expected: Sequence[Outputs],
    output_scales: Sequence[int],
    lookup_range: tuple[int, int] | None,
    tools: Toolchain,
) -> Deviations:
    """Run a compiled circuit on samples, and compare its outputs, dequantised, with the references.

    Raises:
        CompileError: ``compile.not_provable``: a sample has no witness; ``compile.not_finite``.

    """
    data = [sample_data(sample) for sample in samples]
    runs = tools.evaluate(circuit, data, lookup_range=lookup_range)
    found = []
    max_abs = relative_l2 = 0.0
    for reference, elements in zip(expected, runs, strict=True):
        got = dequantised(elements, output_scales)
        differences = tuple(one - wanted for one, wanted in zip(got, reference, strict=True))
        for wanted, difference in zip(reference, differences, strict=True):
            if not np.isfinite(difference).all():
                raise CompileError(
                    "compile.not_finite", "the model gives NaN or infinite outputs on a sample"
                )
            max_abs = max(max_abs, float(np.max(np.abs(difference), initial=0.0)))
            norm = float(np.linalg.norm(wanted))
            if norm > 0:
                relative_l2 = max(relative_l2, float(np.linalg.norm(difference)) / norm)
        found.append(differences)
    bound = stated_bound(max_abs, output_scales)
    return Deviations(tuple(found), MeasuredError(len(samples), max_abs, relative_l2, bound))
