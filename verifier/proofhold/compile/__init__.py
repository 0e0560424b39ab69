"""The compile side: what a model's author and CI run. Nothing that judges evidence imports it.

`compile_model` makes a circuit and its locks, `tune` chooses its arguments, `check` recompiles and compares,
`ensure_proving_key` is for providers, and the rest is about reference strings.
"""

from proofhold.compile.build import compile_model
from proofhold.compile.check import Difference, check, circuit_names
from proofhold.compile.circuit import DEFAULT_RUN_ARGS
from proofhold.compile.errors import CompileError, ToolFailed
from proofhold.compile.plan import Obstacle, Plan, plan
from proofhold.compile.prediction import MACHINE, Prediction, predict
from proofhold.compile.provingkey import ProvingKey, ensure_proving_key
from proofhold.compile.specification import Sample, Specification, read_samples
from proofhold.compile.srs import Srs, SrsFile, dev_srs, identify_srs, import_ceremony
from proofhold.compile.tune import Goal, Tuning, tune

__all__ = [
    "CompileError",
    "DEFAULT_RUN_ARGS",
    "Difference",
    "Goal",
    "MACHINE",
    "Obstacle",
    "Plan",
    "Prediction",
    "ProvingKey",
    "Sample",
    "Specification",
    "Srs",
    "SrsFile",
    "ToolFailed",
    "Tuning",
    "check",
    "circuit_names",
    "compile_model",
    "dev_srs",
    "ensure_proving_key",
    "identify_srs",
    "import_ceremony",
    "plan",
    "predict",
    "read_samples",
    "tune",
]
