"""Can this model be a circuit, and what will it cost? Told in seconds, before any key is made.

The passes and ezkl's own derivation of settings decide, never a list of operators that would grow stale. When
they refuse, the node is found by halving: the shortest beginning of the graph that is refused ends with it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proofhold.compile import native, settings
from proofhold.compile.cache import write_atomically
from proofhold.compile.check import NOT_ABOUT_THE_MODEL
from proofhold.compile.circuit import calibration_data, check_peak, derive_settings
from proofhold.compile.errors import CompileError
from proofhold.compile.prediction import Prediction, count_table_columns, predict
from proofhold.compile.specification import Specification, read_samples
from proofhold.compile.toolchain import Toolchain
from proofhold.domain import InputSpec, OutputSpec
from proofhold.locks import TAG_LENGTH, RunArgs

REFUSED_FOR_A_NODE = ("compile.unsupported", "compile.settings_failed")

_UNROLLED = "export with the loop unrolled, or one step of it as a model of its own"
_ATTENTION = "export attention as MatMul and Softmax: with an operator set before 23"
_RANDOM = "leave it out: what is random cannot be proved to have been computed"
_ADVICE: Mapping[str, str] = {
    "ArgMax": "leave the first of equal maxima the winner (select_last_index), or ArgMax out of the model",
    "Attention": _ATTENTION,
    "Bernoulli": _RANDOM,
    "GRU": _UNROLLED,
    "If": "export with the branch chosen",
    "LSTM": _UNROLLED,
    "Loop": _UNROLLED,
    "RandomNormalLike": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "Resize": "use ConvTranspose, or repeat rows and columns with Gather",
    "RNN": _UNROLLED,
    "Scan": _UNROLLED,
    "SVMClassifier": "train a linear model, a tree or a network in its place",
    "SVMRegressor": "train a linear model, a tree or a network in its place",
    "TopK": "leave it out of the model: whoever reads the outputs can sort them",
    "TreeEnsembleClassifier": "export trees of float32 that add up their leaves",
    "TreeEnsembleRegressor": "export trees of float32 that add up their leaves",
    "TreeEnsemble": "export trees that compare with thresholds and add up their leaves",
}
_ADVICE_BY_CODE: Mapping[str, str] = {
    "compile.custom_operators": "export with the standard operator set only",
    "compile.domain_too_wide": "narrow the input domain in model.toml, or lower --scale",
    "compile.dtype": "export the model with float32 inputs and outputs",
    "compile.external_data": "save the model as one file",
    "compile.opset": "export the model with another operator set version",
    "compile.output": "export the model with tensors as outputs",
    "compile.shape": "export the model with fixed shapes, or state them in model.toml",
    "compile.table_too_large": "lower --scale, or narrow the input domain in model.toml",
    "compile.too_large": "make the model smaller, or prove it in parts",
    "compile.unsupported": "express the operator by Add, Mul, MatMul, Conv, Relu and the like",
}
_ADVICE_OTHERWISE = "see the reason"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a model cannot be a circuit: a stable code, the node and its operator, why, and what to do.

    Node and operator are empty where it is not about one.
    """

    code: str
    node: str
    operator: str
    why: str
    advice: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What compiling a model would give: an obstacle, or the circuit's size and what it will take."""

    obstacle: Obstacle | None
    rows: int = 0
    k: int = 0
    instances: int = 0
    predicted: Prediction | None = None
    domain_checked: bool = False
    """Whether the input domain was known, and the circuit found to hold it."""
    lookup_range: tuple[int, int] | None = None
    """What the lookup tables cover, if there are any: measured where samples are known, else assumed."""


def plan(
    published: bytes, run_args: RunArgs, *, tools: Toolchain, specification: Specification | None = None
) -> Plan:
    """Say whether a model can be compiled, and what its circuit will cost.

    Args:
        published: the ONNX file's bytes.
        run_args: ezkl's arguments.
        tools: workers for onnx and ezkl.
        specification: the model's input domain, to be checked where it is known.

    Raises:
        Malformed: ``model.…``: the bytes are no ONNX model.
        CompileError: this machine cannot tell: a code of `check.NOT_ABOUT_THE_MODEL`.
        ToolFailed: nor can it when a tool died or hung.

    """
    try:
        derivation = tools.derive(published, specification.request if specification else None)
        derived, ports, outputs = derivation.model, derivation.inputs, derivation.outputs
        inputs = specification.inputs(ports) if specification else _of_any_domain(ports)
        if specification:
            check_peak(tools.peak(derived, inputs), run_args)
        data = _calibration(specification, inputs)
    except CompileError as error:
        return Plan(_obstacle(error, (error.node, error.operator)))
    with tempfile.TemporaryDirectory(prefix="proofhold-") as temporary:
        folder = Path(temporary)
        write_atomically(folder / native.MODEL_FILE, derived)
        try:
            pinned, k, run_args = derive_settings(folder, run_args, inputs, outputs, tools, data=data)
        except CompileError as error:
            if error.code in NOT_ABOUT_THE_MODEL:
                raise
            return Plan(_obstacle(error, _refused_node(derived, run_args, error, folder, tools)))
    parsed = json.loads(pinned)
    rows: int = parsed["num_rows"]
    instances = TAG_LENGTH + sum(port.elements for port in (*ports, *outputs))
    return Plan(
        None,
        rows,
        k,
        instances,
        predict(
            k,
            columns=run_args.columns,
            tables=len(parsed["required_lookups"]),
            table_columns=count_table_columns(run_args.lookup_range, k),
        ),
        domain_checked=specification is not None,
        lookup_range=run_args.lookup_range,
    )


def _calibration(specification: Specification | None, inputs: tuple[InputSpec, ...]) -> list[Any] | None:
    """Give the data for measuring lookup tables, where the specification's samples exist already."""
    if specification is None or not specification.samples.is_file():
        return None
    return calibration_data(read_samples(specification.samples, inputs), inputs)


def _of_any_domain(ports: tuple[OutputSpec, ...]) -> tuple[InputSpec, ...]:
    """Give inputs some domain: the settings do not depend on it."""
    return tuple(InputSpec(port.name, port.dtype, port.shape, -1.0, 1.0) for port in ports)


def _refused_node(
    derived: bytes, run_args: RunArgs, error: CompileError, folder: Path, tools: Toolchain
) -> tuple[str, str]:
    """Give name and operator of the node at which the graph begins to be refused."""
    nodes = tools.nodes(derived)
    if error.code not in REFUSED_FOR_A_NODE or not nodes:
        return "", ""
    good, refused = 0, len(nodes)
    while refused - good > 1:
        middle = (good + refused) // 2
        if _is_refused(tools.cut(derived, middle), run_args, folder, tools):
            refused = middle
        else:
            good = middle
    name, operator, _ = nodes[refused - 1]
    return name, operator


def _is_refused(cut: bytes, run_args: RunArgs, folder: Path, tools: Toolchain) -> bool:
    write_atomically(folder / native.MODEL_FILE, cut)
    try:
        tools.settings(folder, settings.arguments(run_args, settings.LOGROWS_GUESS))
    except CompileError:
        return True
    return False


def _obstacle(error: CompileError, node: tuple[str, str]) -> Obstacle:
    name, operator = node
    advice = _ADVICE.get(operator) or _ADVICE_BY_CODE.get(error.code, _ADVICE_OTHERWISE)
    return Obstacle(error.code, name, operator, error.message, advice)
