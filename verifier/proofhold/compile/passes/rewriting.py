"""What the rewriting passes share: a model under change, whose nodes are replaced one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

ML_DOMAIN = "ai.onnx.ml"
IR_VERSION_OF_INITIALIZERS = 4
DEFAULT_OPSET = 17
"""For a model that names none of the standard operators: only those of `ML_DOMAIN`."""

Rule: TypeAlias = "Callable[[Rewriting, onnx.NodeProto], None]"
"""Adds what takes a node's place. The last operator that it adds has the node's own output."""


class Rewriting:
    """A copy of a model to which nodes and constants are added, each of a name that was free.

    Names follow from the order of additions alone, so the same model gives the same bytes.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        raise_ir_version(self.model)
        self.graph = self.model.graph
        self.nodes: list[onnx.NodeProto] = []
        self._taken = names_of(self.graph)
        self._numbers: dict[bytes, str] = {}
        self._stem = "added"

    @property
    def opset(self) -> int:
        """The version of the standard operator set; a model without one is given one."""
        for opset in self.model.opset_import:
            if opset.domain in ("", "ai.onnx"):
                return int(opset.version)
        self.model.opset_import.append(helper.make_opsetid("", DEFAULT_OPSET))
        return DEFAULT_OPSET

    def replace(self, rules: Mapping[tuple[str, str], Rule]) -> onnx.ModelProto:
        """Apply the rule for (domain, operator) to each node that has one, in order; gives the new model."""
        for node in self.graph.node:
            rule = rules.get((node.domain, node.op_type))
            if rule is None:
                self.nodes.append(node)
            else:
                self.apply(rule, node)
        return self.finish()

    def apply(self, rule: Rule, node: onnx.NodeProto) -> None:
        """Let a rule replace a node: what it adds is named after the node's output."""
        self._stem = next((name for name in node.output if name), "added")
        rule(self, node)

    def finish(self) -> onnx.ModelProto:
        """Put the collected nodes in the graph, and drop operator sets that none of them is of."""
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        used = {node.domain for node in nodes} | {"", "ai.onnx"}
        seen: set[str] = set()
        kept = []
        for opset in self.model.opset_import:
            if opset.domain in used and opset.domain not in seen:
                seen.add(opset.domain)
                kept.append(helper.make_opsetid(opset.domain, opset.version))
        del self.model.opset_import[:]
        self.model.opset_import.extend(kept)
        return self.model

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node of the standard set with one output, and give the output's name."""
        # So that a model without a standard operator set gets one.
        _ = self.opset
        name = output or self.fresh(operator.lower())
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def tensor(self, values: ArrayLike) -> str:
        """Add a constant, once: float32, or int64 where the numbers are integers."""
        array = np.asarray(values)
        array = array.astype(np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32)
        key = array.dtype.str.encode() + str(array.shape).encode() + array.tobytes()
        if key not in self._numbers:
            name = self.fresh("constant")
            self.graph.initializer.append(numpy_helper.from_array(array, name))
            self._numbers[key] = name
        return self._numbers[key]

    def reduce(
        self, operator: str, value: str, axes: Sequence[int], *, keep: bool = True, output: str | None = None
    ) -> str:
        """Add a reduction over `axes`: an input of it since some version, an attribute before."""
        since = 13 if operator == "ReduceSum" else 18
        if self.opset >= since:
            indices = self.tensor(np.array(axes, np.int64))
            return self.add(operator, value, indices, output=output, keepdims=int(keep))
        return self.add(operator, value, output=output, axes=list(axes), keepdims=int(keep))

    def clip(self, value: str, low: float | None, high: float | None, *, output: str | None = None) -> str:
        """Bound a value from below, from above, or both."""
        if low is not None:
            value = self.add(
                "Max", value, self.tensor(np.float32(low)), output=output if high is None else None
            )
        if high is not None:
            value = self.add("Min", value, self.tensor(np.float32(high)), output=output)
        return value

    def fresh(self, what: str) -> str:
        """Give a name that no tensor has yet."""
        number = 0
        while (name := f"{self._stem}/{what}_{number}") in self._taken:
            number += 1
        self._taken.add(name)
        return name


def raise_ir_version(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let initializers be no inputs, in place: files of before 2019 list each as both."""
    model.ir_version = max(model.ir_version, IR_VERSION_OF_INITIALIZERS)
    return model


def names_of(graph: onnx.GraphProto) -> set[str]:
    """Give every name of a tensor in a graph."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)}
    return names | {name for node in graph.node for name in (*node.input, *node.output)}


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Give a node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def constants_of(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Give the values of a graph's initializers and Constant nodes by their tensors' names."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            for name, value in attributes_of(node).items():
                if name == "value":
                    constants[node.output[0]] = numpy_helper.to_array(value)
                elif name in ("value_float", "value_floats"):
                    constants[node.output[0]] = np.array(value, np.float32)
                elif name in ("value_int", "value_ints"):
                    constants[node.output[0]] = np.array(value, np.int64)
    return constants


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Give the shape of each tensor for which shape inference finds a fixed one."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes


def without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop nodes and constants that no output needs, in place, and what was inferred of them."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(_inner_names(node))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    inputs = {value.name for value in graph.input}
    gone = {tensor.name for tensor in graph.initializer} - {tensor.name for tensor in tensors}
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _replace(graph.initializer, tensors)
    # An initializer may be listed among the inputs; a true input stays, read or not.
    _replace(
        graph.input, [value for value in graph.input if value.name not in gone or value.name not in inputs]
    )
    return model


def _inner_names(node: onnx.NodeProto) -> set[str]:
    """Give what the graphs in a node's attributes read from around them."""
    graphs = [graph for a in node.attribute for graph in (a.g, *a.graphs)]
    return {name for graph in graphs for name in names_of(graph)} | {
        name for graph in graphs for inner in graph.node for name in _inner_names(inner)
    }


def _replace(field: Any, messages: Sequence[Any]) -> None:
    """Give a repeated field other contents, some of which may be its own."""
    copies = [type(message).FromString(message.SerializeToString()) for message in messages]
    del field[:]
    field.extend(copies)
