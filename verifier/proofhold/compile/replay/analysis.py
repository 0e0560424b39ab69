"""Where could this model be cut, and what does each part of it cost? Measured in onnxruntime, in a worker.

The candidates are the tensors that survive onnxruntime's own optimiser under their published names: asking
for one of those as an output breaks no fusion. Costs are those of the optimised graph's nodes, from
onnxruntime's profile. What is measured here only informs a choice; the choice is pinned, so none of it has to
be repeatable.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from proofhold.canonical import Json, file_digest
from proofhold.compile.errors import CompileError
from proofhold.compile.native import refusals_as_data
from proofhold.locks import BOUNDARY_PATTERN, MAX_BOUNDARY_BYTES
from proofhold.payload import ITEM_BYTES, MAX_NAME_CHARS, MAX_RANK
from proofhold.replay.packed import unpack_tensors
from proofhold.replay.surgery import ELEMENT_TYPES, Port, closure, expose, extract, model_inputs, parse, reads

PROFILED_RUNS, TIMED_RUNS = 8, 16
MAX_NODES = 20_000
MAX_CANDIDATES = 512
MAX_INPUT_BYTES = 64 * 2**20
UNFUSED_LEVEL, FUSED_LEVEL = "ORT_DISABLE_ALL", "ORT_ENABLE_EXTENDED"
"""The next level lays convolutions out anew, under names of its own."""
SERVED_LEVEL = "ORT_ENABLE_ALL"
"""What a provider runs: up to twice as fast, so that each cut weighs twice as much beside it."""
ELEMENTWISE = frozenset(
    [
        "Add",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mul",
        "PRelu",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Sub",
        "Tanh",
    ]
)
"""What some runtime or other does along with the node before it, if nothing else reads that one's output."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tensor at which the graph may be cut.

    Costs are shares of a whole run: of all that comes `before` it, and of what must be computed `again`
    behind the cut because it is needed there other than through this tensor. `behind` names what hangs on it:
    other candidates and the model's outputs.
    """

    port: Port
    before: float
    again: float
    behind: frozenset[str]
    weights: float = 0.0
    """The share of the model's weights before it. A segment without any lets every substitute pass."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """The candidates in the order of the graph, the model's outputs, and how long a run takes."""

    candidates: tuple[Candidate, ...]
    outputs: tuple[Port, ...]
    run_s: float


@refusals_as_data
def analyse(published: bytes, ports: bytes, inputs: bytes) -> bytes:
    """Look for places to cut: a task for a `Runner`; `read_analysis` reads what it gives.

    Args:
        published: the ONNX file.
        ports: the inputs' names, dtypes and shapes, as JSON.
        inputs: tensors of one run, packed.

    Raises:
        CompileError: ``compile.too_large`` or ``compile.dtype``.

    """
    model = parse(published)
    given = [Port(name, dtype, tuple(shape)) for name, dtype, shape in json.loads(ports)]
    feed = {t.name: t.numpy() for t in unpack_tensors(inputs, max_bytes=MAX_INPUT_BYTES)}
    with tempfile.TemporaryDirectory(prefix="proofhold-") as folder:
        # With nothing to expose, this fixes the shapes of the inputs.
        fixed = expose(model, given, ())
        optimised, costs = _profile(fixed, feed, Path(folder))
    run_s = _time(fixed, feed)
    if len(optimised.node) > MAX_NODES:
        raise CompileError("compile.too_large", f"{len(optimised.node)} nodes, expected at most {MAX_NODES}")
    names = _surviving(parse(published).graph, optimised)
    measured = _measure(optimised, costs, names)
    values, outputs = _run_exposed(model, given, feed, [name for name, *_ in measured])
    rows = [
        [name, values[name].dtype.name, values[name].shape, *found]
        for name, *found in measured
        if _can_be_held(values[name])
    ]
    given_out = [[name, value.dtype.name, value.shape] for name, value in outputs.items()]
    return json.dumps({"candidates": rows, "outputs": given_out, "run_s": run_s}).encode()


@refusals_as_data
def describe_inputs(published: bytes) -> bytes:
    """List the model's inputs, as JSON: name, dtype, and sizes, null where one is free. A task.

    Raises:
        CompileError: ``compile.dtype``: an input is no tensor of a dtype that a payload holds.

    """
    graph = parse(published).graph
    names, rows = set(model_inputs(graph)), []
    dtypes = {number: name for name, number in ELEMENT_TYPES.items()}
    for value in graph.input:
        if value.name not in names:
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type not in dtypes:
            raise CompileError(
                "compile.dtype", f"input {value.name[:80]!r} is of a type that no payload holds"
            )
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        rows.append([value.name, dtypes[tensor.elem_type], [s if s and s > 0 else None for s in sizes]])
    return json.dumps(rows).encode()


@refusals_as_data
def extract_segments(published: bytes, request: bytes) -> bytes:
    """Extract every segment: a task. Gives, for each, the tensors that it takes and its model's digest.

    `request` is JSON: `ports`, name to dtype and shape, of every leaf; `segments`, each the cut before it, or
    null, and the tensors that it gives.
    """
    model, asked = parse(published), json.loads(request)
    inputs = model_inputs(model.graph)
    forms = {name: Port(name, dtype, tuple(shape)) for name, (dtype, shape) in asked["ports"].items()}
    made = []
    for cut, outputs in asked["segments"]:
        given = [*inputs, *([cut] if cut else [])]
        nodes = [model.graph.node[index] for index in closure(model.graph, outputs, given)]
        read = set().union(*(reads(node) for node in nodes))
        taken = [*([cut] if cut else []), *(name for name in inputs if name in read)]
        segment = extract(model, [forms[name] for name in taken], [forms[name] for name in outputs])
        made.append([taken, file_digest(segment)])
    return json.dumps(made).encode()


def read_analysis(data: bytes) -> Analysis:
    """Read what `analyse` gave."""
    value: Json = json.loads(data)
    candidates = tuple(
        Candidate(Port(name, dtype, tuple(shape)), before, again, frozenset(behind), weights)
        for name, dtype, shape, before, again, behind, weights in value["candidates"]
    )
    outputs = tuple(Port(name, dtype, tuple(shape)) for name, dtype, shape in value["outputs"])
    return Analysis(candidates, outputs, value["run_s"])


def _profile(fixed: bytes, feed: Mapping[str, Any], folder: Path) -> tuple[onnx.GraphProto, list[float]]:
    """Optimise, then time each node of what came out; gives that graph and seconds a node."""
    import onnxruntime

    path = folder / "optimised.onnx"
    options = _options(FUSED_LEVEL)
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(fixed, options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(path)
    for index, node in enumerate(optimised.graph.node):
        node.name = f"n{index}"
    options = _options(UNFUSED_LEVEL)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(
        optimised.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for _ in range(PROFILED_RUNS):
        session.run(None, dict(feed))
    events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[int, list[float]] = {}
    for event in events:
        found = re.fullmatch(r"n(\d+)_kernel_time", event.get("name", ""))
        if found:
            times.setdefault(int(found[1]), []).append(event["dur"] * 1e-6)
    # The least of a few: whatever else the machine did only adds.
    costs = [min(times.get(index, [0.0])) for index in range(len(optimised.graph.node))]
    return optimised.graph, costs


def _time(fixed: bytes, feed: Mapping[str, Any]) -> float:
    """Time whole runs as they are in earnest: with every optimisation, and nothing that watches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(fixed, _options(SERVED_LEVEL), providers=["CPUExecutionProvider"])
    seconds = []
    for _ in range(TIMED_RUNS):
        began = time.process_time()
        session.run(None, dict(feed))
        seconds.append(time.process_time() - began)
    return min(seconds)


def _surviving(published: onnx.GraphProto, optimised: onnx.GraphProto) -> list[str]:
    """Name the tensors between nodes that both graphs have and that depend on the input."""
    before = {name for node in published.node for name in node.output if name}
    readers: dict[str, list[str]] = {}
    for node in optimised.node:
        for name in reads(node):
            readers.setdefault(name, []).append(node.op_type)
    live = set(model_inputs(optimised))
    found = []
    for node in optimised.node:
        if reads(node) & live:
            live.update(node.output)
            found += [
                name
                for name in node.output
                if name in before
                and not (len(readers.get(name, ())) == 1 and readers[name][0] in ELEMENTWISE)
            ]
    outputs = {value.name for value in optimised.output}
    fit = re.compile(BOUNDARY_PATTERN)
    return [n for n in found if n not in outputs and len(n) <= MAX_NAME_CHARS and fit.fullmatch(n)]


def _measure(
    graph: onnx.GraphProto, costs: Sequence[float], names: Sequence[str]
) -> list[tuple[str, float, float, list[str], float]]:
    """Give for each tensor the costs before it and again behind it, what hangs on it, the weights before."""
    inputs, total = model_inputs(graph), sum(costs) or 1.0
    sizes = {t.name: float(np.prod(t.dims)) if len(t.dims) > 1 else 0.0 for t in graph.initializer}
    weights = [sum(sizes.get(name, 0.0) for name in reads(node)) for node in graph.node]
    all_weights = sum(weights) or 1.0
    outputs = [value.name for value in graph.output]
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    if len(names) > MAX_CANDIDATES:
        names = names[:: -(-len(names) // MAX_CANDIDATES)]
    before = {name: frozenset(closure(graph, [name], inputs)) for name in (*names, *outputs)}
    measured = []
    for name in names:
        behind = [other for other in before if other != name and producers[name] in before[other]]
        last = [output for output in outputs if output in behind]
        if not last:
            continue
        needed = closure(graph, last, [*inputs, name])
        again = sum(costs[index] for index in needed if index in before[name])
        cost = sum(costs[index] for index in before[name]) / total
        share = sum(weights[index] for index in before[name]) / all_weights
        measured.append((name, cost, again / total, behind, share))
    return measured


def _run_exposed(
    model: onnx.ModelProto, given: Sequence[Port], feed: Mapping[str, Any], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run once with all candidates exposed; gives their values, and those of the outputs."""
    import onnxruntime

    # The form is not known yet: an output without one is legal to onnxruntime.
    exposed = parse(expose(model, given, ()))
    own = [value.name for value in exposed.graph.output]
    for name in names:
        exposed.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), _options(UNFUSED_LEVEL), providers=["CPUExecutionProvider"]
    )
    values = dict(zip([*own, *names], session.run([*own, *names], dict(feed)), strict=True))
    outputs = {name: values[name] for name in own}
    for name, value in outputs.items():
        if not isinstance(value, np.ndarray) or value.dtype.name not in ITEM_BYTES:
            raise CompileError("compile.dtype", f"output {name[:80]!r} is of a type that no payload holds")
    return {name: values[name] for name in names}, outputs


def _can_be_held(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype.name in ITEM_BYTES
        and value.size > 0
        and value.nbytes <= MAX_BOUNDARY_BYTES
        and value.ndim <= MAX_RANK
        and bool(np.isfinite(value.astype(np.float64)).all())
    )


def _options(level: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return options


__all__ = ["Analysis", "Candidate", "analyse", "describe_inputs", "extract_segments", "read_analysis"]
