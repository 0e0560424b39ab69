"""The light models of onnx's own backend tests that are plain functions of float tensors, and their fate.

Each case is a model with inputs and the outputs that the specification expects. `outcome_of` compiles it as
far as a circuit can be tried without keys and compares the circuit's outputs with those.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from proofhold.compile import CompileError, Specification, ToolFailed
from proofhold.compile.comparison import finish
from proofhold.compile.toolchain import Toolchain
from proofhold.compile.trial import try_out
from proofhold.errors import Malformed
from proofhold.locks import RunArgs
from small_models import write_model

RUN_ARGS = RunArgs(columns=2, decomp_base=128, decomp_legs=6, input_scale=10, param_scale=10)
"""One set of arguments for all: a step of 2^-10, and values up to 2^22 at it."""
TOLERANCE = 0.03
"""The stated error: this share of the largest expected output, and at least this much of 1."""
KINDS = ("simple", "pytorch-converted", "pytorch-operator")
MAX_INPUT_ELEMENTS = 4096
"""Larger cases (a dozen) say nothing that smaller ones do not, and take minutes each."""
COMPILED, INACCURATE = "compiled", "compiled, off by more"
Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A model of onnx's tests; no inputs where only its graph is shipped (the nine architectures)."""

    kind: str
    name: str
    model: onnx.ModelProto
    inputs: Arrays
    outputs: Arrays

    @property
    def operators(self) -> list[str]:
        return sorted({node.op_type for node in self.model.graph.node} - {"Constant"})


def cases() -> Iterator[Case]:
    """Every case that is a plain tensor function of float inputs, in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in every_case():
            arrays = [*case.inputs, *case.outputs]
            if case.kind == "light" or (
                case.inputs
                and case.outputs
                and all(isinstance(array, np.ndarray) for array in arrays)
                and all(array.dtype == np.float32 for array in case.inputs)
                and sum(array.size for array in case.inputs) <= MAX_INPUT_ELEMENTS
            ):
                yield case


def every_case() -> Iterator[Case]:
    from onnx.backend.test.case.node import collect_testcases
    from onnx.backend.test.loader import load_model_tests

    for node in sorted(collect_testcases(None), key=lambda case: case.name):
        if node.model is not None and node.data_sets:
            inputs, outputs = node.data_sets[0]
            yield Case("node", node.name, node.model, list(inputs), list(outputs))
    for kind in KINDS:
        for found in sorted(load_model_tests(kind=kind), key=lambda case: case.name):
            folder = Path(found.model_dir or "")
            data = folder / "test_data_set_0"
            model = onnx.load(folder / "model.onnx")
            inputs, outputs = (_tensors(data, what) for what in ("input", "output"))
            yield Case(kind, found.name, model, inputs, outputs)
    for path in sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx")):
        yield Case("light", path.stem, onnx.load(path), [], [])


def _tensors(folder: Path, what: str) -> list[Any]:
    """Read a case's tensors in order; one that is a sequence or an optional value is None."""
    found: list[Any] = []
    for number in range(len(list(folder.glob(f"{what}_*.pb")))):
        tensor = TensorProto()
        try:
            tensor.ParseFromString((folder / f"{what}_{number}.pb").read_bytes())
            found.append(numpy_helper.to_array(tensor))
        except Exception:  # noqa: BLE001 - of which kind it is does not matter
            found.append(None)
    return found


def outcome_of(case: Case, folder: Path, tools: Toolchain) -> str:
    """`COMPILED`, `INACCURATE`, or the code with which it is refused."""
    try:
        if case.kind == "light":
            tools.derive(case.model.SerializeToString())
            return COMPILED
        return _tried(case, folder, tools)
    except (CompileError, Malformed) as error:
        return error.code
    except ToolFailed:
        return ToolFailed.code


def _tried(case: Case, folder: Path, tools: Toolchain) -> str:
    initial = {tensor.name for tensor in case.model.graph.initializer}
    names = [value.name for value in case.model.graph.input if value.name not in initial]
    given = dict(zip(names, case.inputs, strict=False))
    low = (
        min(float(array.min()) for array in case.inputs if array.size)
        if any(array.size for array in case.inputs)
        else 0.0
    )
    high = max((float(array.max()) for array in case.inputs if array.size), default=0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise CompileError("compile.samples", "an input is infinite or NaN")
    path = write_model(
        folder,
        case.model,
        {name: array[np.newaxis] for name, array in given.items()},
        low=low,
        high=high,
        shapes={name: array.shape for name, array in given.items()},
    )
    specification = Specification.read(path.with_name("model.toml"))
    (work := folder / "work").mkdir()
    trial = try_out(path.read_bytes(), specification, work, run_args=RUN_ARGS, tools=tools)
    published = {
        value.name: array for value, array in zip(case.model.graph.output, case.outputs, strict=True)
    }
    for port, values in zip(trial.derivation.outputs, trial.outputs[0], strict=True):
        expected = np.asarray(published[port.name], np.float64)
        got = finish(values.reshape(port.shape), trial.derivation.post_processing).reshape(expected.shape)
        allowed = TOLERANCE * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
        if float(np.max(np.abs(got - expected), initial=0.0)) > allowed:
            return INACCURATE
    return COMPILED
