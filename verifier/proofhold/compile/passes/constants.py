"""Constants: what does not depend on an input is computed now, and what does nothing is left out.

Exporters leave shapes, casts and reshaped weights to be computed at every run; ezkl stumbles over some of
them, and each costs rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from proofhold.compile.passes.rewriting import (
    attributes_of,
    constants_of,
    raise_ir_version,
    shapes_of,
    without_unused,
)
from proofhold.execution import open_session

MAX_FOLDED_ELEMENTS = 2**22
_STANDARD = ("", "ai.onnx")
_NEVER = ("If", "Loop", "Scan", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike")
_NEVER_EITHER = ("Bernoulli", "Multinomial", "Optional", "SequenceEmpty", "SequenceConstruct", "Constant")


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy without computations on constants and idle nodes, or the model if it has neither."""
    shapes = shapes_of(model)
    idle = {node.output[0]: node.input[0] for node in model.graph.node if _is_idle(node, model)}
    known = set(constants_of(model.graph))
    computed: list[onnx.NodeProto] = []
    sizes: dict[str, NDArray[Any]] = {}
    for node in model.graph.node:
        if node.domain not in _STANDARD or node.op_type in (*_NEVER, *_NEVER_EITHER) or len(node.output) != 1:
            continue
        if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
            sizes[node.output[0]] = _size(node, shapes[node.input[0]])
        elif not node.input or not all(name in known or name in sizes or not name for name in node.input):
            continue
        else:
            computed.append(node)
        known.add(node.output[0])
    if not (idle or computed or sizes):
        return model
    values = sizes | _compute(model, computed, sizes)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    raise_ir_version(changed)
    graph = changed.graph
    outputs = {value.name for value in graph.output}
    kept = [node for node in graph.node if node.output[0] not in values or node.output[0] in outputs]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    for name, value in values.items():
        if name not in outputs:
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    _leave_out(graph, idle)
    return without_unused(changed)


def _is_idle(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether a node only hands its input on."""
    if node.domain not in _STANDARD:
        return False
    if node.op_type == "Dropout":
        # Of three inputs the last says whether it is training; it is absent, or a constant that says no.
        training = node.input[2] if len(node.input) > 2 else ""
        value = constants_of(model.graph).get(training)
        return (not training or (value is not None and not value.any())) and not _is_read(node, 1, model)
    if node.op_type == "Cast":
        floats = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        return attributes_of(node).get("to") == TensorProto.FLOAT and node.input[0] in floats
    return node.op_type == "Identity"


def _is_read(node: onnx.NodeProto, index: int, model: onnx.ModelProto) -> bool:
    if len(node.output) <= index or not node.output[index]:
        return False
    read = {name for other in model.graph.node for name in other.input}
    return node.output[index] in read | {value.name for value in model.graph.output}


def _leave_out(graph: onnx.GraphProto, idle: dict[str, str]) -> None:
    """Let whoever reads what an idle node gives read what it was given. One that gives an output stays."""
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            while name in idle:
                name = idle[name]
            node.input[index] = name
    # An output's producer may give it at once, if nobody else is in between.
    ends = {name: source for name, source in idle.items() if name in outputs}
    producers = {name for node in graph.node for name in node.output}
    fixed = outputs | {value.name for value in (*graph.input, *graph.initializer)}
    for name, source in ends.items():
        source = _root(source, idle)
        if source not in producers or source in fixed:
            continue
        kept = [node for node in graph.node if node.output[0] != name]
        for node in kept:
            for names in (node.input, node.output):
                for index, other in enumerate(names):
                    if other == source:
                        names[index] = name
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(nodes)
        fixed.add(source)


def _root(name: str, idle: dict[str, str]) -> str:
    while name in idle:
        name = idle[name]
    return name


def _size(node: onnx.NodeProto, shape: tuple[int, ...]) -> NDArray[Any]:
    if node.op_type == "Size":
        return np.array(int(np.prod(shape)), np.int64)
    values = attributes_of(node)
    return np.array(shape[values.get("start", 0) : values.get("end", len(shape))], np.int64)


def _compute(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], sizes: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Run these nodes alone; gives what the others read. Empty where onnxruntime cannot."""
    if not nodes:
        return {}
    mine = {name for node in nodes for name in node.output}
    elsewhere = {name for node in model.graph.node if node.output[0] not in mine for name in node.input}
    wanted = sorted(mine & (elsewhere | {value.name for value in model.graph.output}))
    constants = constants_of(model.graph) | sizes
    read = {name for node in nodes for name in node.input if name}
    graph = helper.make_graph(
        nodes,
        "constants",
        [],
        [helper.make_empty_tensor_value_info(name) for name in wanted],
        [numpy_helper.from_array(constants[name], name) for name in sorted(read - mine)],
    )
    alone = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    try:
        results = open_session(alone.SerializeToString()).run(None, {})
    except Exception:  # noqa: BLE001 - whatever a runtime dislikes is left for the circuit to compute
        return {}
    found = dict(zip(wanted, results, strict=True))
    if any(not isinstance(v, np.ndarray) or v.size > MAX_FOLDED_ELEMENTS for v in found.values()):
        return {}
    return found
