"""Cut an ONNX graph at named tensors: the model of one segment, and the model that also gives the cuts.

Both are functions of the published model and the names and forms that a replay lock pins, to the byte: anyone
who has the two can make a segment's model again and compare its digest. These functions parse with native
code: call them in a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper

from proofhold.errors import Malformed, Misuse

PRODUCER = "proofhold"

ELEMENT_TYPES: Mapping[str, int] = {
    "float16": onnx.TensorProto.FLOAT16,
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
    "int8": onnx.TensorProto.INT8,
    "int32": onnx.TensorProto.INT32,
    "int64": onnx.TensorProto.INT64,
    "uint8": onnx.TensorProto.UINT8,
    "bool": onnx.TensorProto.BOOL,
}


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor by its name, with the dtype and shape that a lock pins."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def value_info(self) -> onnx.ValueInfoProto:
        """Say the same in ONNX."""
        return helper.make_tensor_value_info(self.name, ELEMENT_TYPES[self.dtype], self.shape)


def parse(data: bytes) -> onnx.ModelProto:
    """Parse a model.

    Raises:
        Malformed: ``model.not_onnx``.

    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise Malformed("model.not_onnx", "the file is no ONNX model") from error
    if not model.HasField("graph"):
        raise Malformed("model.not_onnx", "the file is no ONNX model: it has no graph")
    return model


def model_inputs(graph: onnx.GraphProto) -> list[str]:
    """Name what a model is given: its inputs that are not weights with a default."""
    weights = constants(graph)
    return [value.name for value in graph.input if value.name not in weights]


def constants(graph: onnx.GraphProto) -> set[str]:
    """Name the weights of a graph."""
    sparse = {tensor.values.name for tensor in graph.sparse_initializer}
    return {tensor.name for tensor in graph.initializer} | sparse


def reads(node: onnx.NodeProto) -> set[str]:
    """Name every tensor that a node reads, with what its inner graphs (If, Loop) take from outside."""
    found = {name for name in node.input if name}
    for attribute in node.attribute:
        for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            found |= _free(inner)
    return found


def _free(graph: onnx.GraphProto) -> set[str]:
    bound = {value.name for value in graph.input} | constants(graph)
    free: set[str] = set()
    for node in graph.node:
        free |= reads(node) - bound
        bound |= set(node.output)
    return free | ({value.name for value in graph.output} - bound)


def closure(graph: onnx.GraphProto, outputs: Iterable[str], inputs: Iterable[str]) -> list[int]:
    """Give the indices of the nodes that computing `outputs` from `inputs` takes, in the graph's order.

    Nodes that lie before a cut and are needed behind it, other than through the cut's tensor, are among them:
    they are computed again from the model's inputs (the mask of a transformer, the shape of an input).

    Raises:
        Misuse: the outputs need a tensor that is neither given nor computed.

    """
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    given = {*inputs, *constants(graph)}
    needed: set[int] = set()
    waiting = [name for name in outputs if name not in given]
    while waiting:
        name = waiting.pop()
        index = producers.get(name)
        if index is None:
            raise Misuse(f"tensor {name[:80]!r} is needed, and neither given nor computed")
        if index not in needed:
            needed.add(index)
            waiting += reads(graph.node[index]) - given
    return sorted(needed)


def extract(model: onnx.ModelProto, inputs: Sequence[Port], outputs: Sequence[Port]) -> bytes:
    """Give the model of one segment: `outputs` from `inputs`, with the weights that it takes; deterministic.

    Raises:
        Misuse: as `closure` does, or an output that is itself an input.

    """
    graph = model.graph
    for port in outputs:
        if port.name in {given.name for given in inputs}:
            raise Misuse(f"tensor {port.name[:80]!r} is both given and asked for")
    indices = closure(graph, [port.name for port in outputs], [port.name for port in inputs])
    nodes = [graph.node[index] for index in indices]
    taken = set().union(*(reads(node) for node in nodes)) | {port.name for port in outputs}
    inner = helper.make_graph(
        nodes,
        "segment",
        # An input that no node of the segment reads stays one: what is committed is what is given.
        [port.value_info() for port in inputs],
        [port.value_info() for port in outputs],
        [tensor for tensor in graph.initializer if tensor.name in taken],
        sparse_initializer=[t for t in graph.sparse_initializer if t.values.name in taken],
    )
    return _write(model, inner)


def expose(model: onnx.ModelProto, inputs: Sequence[Port], boundaries: Sequence[Port]) -> bytes:
    """Give the model with the tensors at the cuts as outputs, before its own: what a provider runs.

    Its inputs get the fixed shapes that a lock pins, which lets a runtime plan ahead.
    """
    graph = model.graph
    inner = onnx.GraphProto()
    inner.CopyFrom(graph)
    del inner.output[:], inner.input[:]
    inner.input.extend(port.value_info() for port in inputs)
    inner.output.extend(port.value_info() for port in boundaries)
    inner.output.extend(graph.output)
    return _write(model, inner)


def _write(model: onnx.ModelProto, graph: onnx.GraphProto) -> bytes:
    made = onnx.ModelProto()
    # Below 4, weights had to be inputs too.
    made.ir_version = max(model.ir_version, 4)
    made.producer_name = PRODUCER
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    made.graph.CopyFrom(graph)
    data: bytes = made.SerializeToString(deterministic=True)
    return data
