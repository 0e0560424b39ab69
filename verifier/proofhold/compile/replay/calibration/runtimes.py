"""Honest ways to run a model: every runtime that is there, at the settings that change its arithmetic.

"Hardware" means, for floating point, another order of the same sums: other kernels, other fusions, other
numbers of threads. A runtime that is not installed is left out; the profile says which ones were measured.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Feed: TypeAlias = Mapping[str, Any]
Values: TypeAlias = dict[str, Any]
Run: TypeAlias = Callable[[Feed], Values]

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
THREADS = (1, 2)
SLOW_INPUTS = 2
"""The reference evaluator is written for reading: it takes seconds where others take milliseconds."""
ELSEWHERE_DEADLINE_S = 600.0

_ELSEWHERE = """
import sys, numpy, onnxruntime
folder = sys.argv[1]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
for number in range(int(sys.argv[2])):
    feed = dict(numpy.load(f"{folder}/in{number}.npz"))
    names = [port.name for port in session.get_outputs()]
    values = session.run(names, feed)
    numpy.savez(f"{folder}/out{number}.npz", **{str(i): value for i, value in enumerate(values)})
"""


@dataclass(frozen=True, slots=True)
class Runtime:
    """One way to run a model honestly: its name, and how many inputs it is worth measuring on (None: all)."""

    name: str
    inputs: int | None = None


def available(*, python: str | None = None) -> tuple[Runtime, ...]:
    """List the runtimes of this machine; `python`, if given, is an interpreter with another onnxruntime."""
    found = [Runtime(f"onnxruntime/{level}/{threads}") for level in LEVELS for threads in THREADS]
    found.append(Runtime("onnx-reference", SLOW_INPUTS))
    if importlib.util.find_spec("openvino") is not None:
        found.append(Runtime("openvino/f32"))
    if python is not None:
        found.append(Runtime(f"onnxruntime@{python}"))
    return tuple(found)


def run_all(runtime: str, exposed: bytes, feeds: Sequence[Feed]) -> list[Values]:
    """Run a model with its cuts exposed on all inputs, in a runtime that `available` named."""
    if runtime.startswith("onnxruntime@"):
        return _elsewhere(runtime.removeprefix("onnxruntime@"), exposed, feeds)
    run = open_session(runtime, exposed)
    return [run(feed) for feed in feeds]


def open_session(runtime: str, model: bytes) -> Run:
    """Load a model in a runtime of this very interpreter; gives what runs it."""
    makers: dict[str, Callable[[bytes, str], Run]] = {
        "onnxruntime": _onnxruntime,
        "onnx-reference": _reference,
        "openvino": _openvino,
    }
    name, _, settings = runtime.partition("/")
    return makers[name](model, settings)


def _onnxruntime(model: bytes, settings: str) -> Run:
    import onnxruntime

    level, _, threads = settings.partition("/")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = int(threads)
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, dict(feed)), strict=True))


def _reference(model: bytes, settings: str) -> Run:
    del settings
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda feed: dict(zip(evaluator.output_names, evaluator.run(None, dict(feed)), strict=True))


def _openvino(model: bytes, settings: str) -> Run:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": settings})
    ports = {name: port for port in compiled.outputs for name in port.get_names()}

    def run(feed: Feed) -> Values:
        given = compiled(dict(feed))
        return {name: np.array(given[port]) for name, port in ports.items()}

    return run


def _elsewhere(python: str, model: bytes, feeds: Sequence[Feed]) -> list[Values]:
    """Run in another interpreter, which may have another version: files in, files out."""
    import onnx

    names = [value.name for value in onnx.load_from_string(model).graph.output]
    with tempfile.TemporaryDirectory(prefix="proofhold-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model)
        for number, feed in enumerate(feeds):
            np.savez(folder / f"in{number}.npz", **dict(feed))
        command = [python, "-c", _ELSEWHERE, str(folder), str(len(feeds))]
        subprocess.run(command, check=True, timeout=ELSEWHERE_DEADLINE_S, stdout=sys.stderr)
        given = []
        for number in range(len(feeds)):
            with np.load(folder / f"out{number}.npz") as values:
                given.append({n: values[str(index)] for index, n in enumerate(names)})
        return given
