"""Compiles a model as far as running its circuit without proving: what most tests of the passes need."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proofhold.compile import Specification
from proofhold.compile.comparison import finish
from proofhold.compile.specification import SPECIFICATION_FILE_NAME
from proofhold.compile.toolchain import Toolchain
from proofhold.compile.trial import Trial, try_out
from proofhold.locks import RunArgs


@dataclass(frozen=True)
class Evaluated:
    """A circuit that ran on every sample, and its first output as the reader finishes it: [samples, …]."""

    trial: Trial
    finished: NDArray[np.float64]

    @property
    def names(self) -> list[str]:
        """The passes that changed the model."""
        return [record.name for record in self.trial.passes]


def evaluate(model: Path, run_args: RunArgs, tools: Toolchain) -> Evaluated:
    """Try out the model beside whose file its specification lies."""
    specification = Specification.read(model.with_name(SPECIFICATION_FILE_NAME))
    with tempfile.TemporaryDirectory() as folder:
        trial = try_out(model.read_bytes(), specification, Path(folder), run_args=run_args, tools=tools)
    shape = trial.derivation.outputs[0].shape
    outputs = [output[0].reshape(shape) for output in trial.outputs]
    finished = np.stack([finish(output, trial.derivation.post_processing) for output in outputs])
    return Evaluated(trial, finished)
