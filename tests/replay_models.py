"""Small ONNX models for the tests of re-execution: each has one thing that cutting must get right."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from judging import runner
from proofhold.catalogue import Entry
from proofhold.compile.replay.cutter import Limits
from proofhold.compile.replay.pin import Pinned, pin_replay
from proofhold.compile.specification import Specification
from proofhold.domain import PostProcessing

WIDTH = 256
OPSET = 17
LIMITS = Limits(least_segment_s=0, most_committing=math.inf)
"""These models are small: nobody would cut them in earnest."""


class Graph:
    """Builds a model node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(5)

    def weight(self, name: str, *shape: int) -> str:
        values = self._random.normal(0, 1 / np.sqrt(shape[0]), shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def layer(self, x: str, name: str, *, weight: str = "") -> str:
        product = self.node(
            "MatMul", [x, weight or self.weight(f"{name}_w", WIDTH, WIDTH)], f"{name}_product"
        )
        return self.node("Tanh", [product], name)

    def model(self, inputs: Sequence[str], outputs: Sequence[str], *, rows: int = 4) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, WIDTH]) for name in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, WIDTH]) for name in outputs],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(made)
        data: bytes = made.SerializeToString(deterministic=True)
        return data


def chain() -> bytes:
    """Eight layers, one behind another."""
    graph, x = Graph(), "x"
    for index in range(8):
        x = graph.layer(x, f"layer{index}")
    return graph.model(["x"], [x])


def residual() -> bytes:
    """Four blocks of two layers, each with a link past it: no cut lies within a block."""
    graph, x = Graph(), "x"
    for index in range(4):
        inner = graph.layer(graph.layer(x, f"in{index}"), f"out{index}")
        x = graph.node("Add", [x, inner], f"block{index}")
        x = graph.node("Softmax", [x], f"sum{index}")
    return graph.model(["x"], [x])


def ports() -> bytes:
    """Two inputs, the second needed in every layer, one output half-way and two at the end."""
    graph, x = Graph(), "x"
    for index in range(6):
        x = graph.node("Mul", [graph.layer(x, f"layer{index}"), "mask"], f"masked{index}")
        x = graph.node("Softmax", [x], f"step{index}")
        if index == 2:
            graph.node("Neg", [x], "early")
    graph.node("Exp", [x], "late")
    return graph.model(["x", "mask"], ["early", x, "late"])


def shared() -> bytes:
    """Six layers with one weight: every segment takes it along."""
    graph, x = Graph(), "x"
    weight = graph.weight("w", WIDTH, WIDTH)
    for index in range(6):
        x = graph.layer(x, f"layer{index}", weight=weight)
    return graph.model(["x"], [x])


def towers() -> bytes:
    """Two towers that meet at the end: a cut in one of them would compute the other again and again."""
    graph = Graph()
    ends = []
    for side in ("x", "mask"):
        at = side
        for index in range(4):
            at = graph.layer(at, f"{side}{index}")
        ends.append(at)
    return graph.model(["x", "mask"], [graph.layer(graph.node("Add", ends, "met"), "last")])


def branches() -> bytes:
    """Four layers, an If whose inner graphs read a tensor and a weight from outside, four layers."""
    graph, x = Graph(), "x"
    for index in range(4):
        x = graph.layer(x, f"before{index}")
    graph.weight("outer", WIDTH, WIDTH)
    graph.weights.append(numpy_helper.from_array(np.zeros((), np.float32), "zero"))
    total = graph.node("ReduceSum", [x], "total", keepdims=0)
    above = graph.node("Greater", [total, "zero"], "above")

    def inner(operator: str, inputs: list[str], name: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, WIDTH])
        return helper.make_graph([helper.make_node(operator, inputs, [name])], name, [], [value])

    x = graph.node(
        "If",
        [above],
        "chosen",
        then_branch=inner("MatMul", [x, "outer"], "yes"),
        else_branch=inner("Neg", [x], "no"),
    )
    for index in range(4):
        x = graph.layer(x, f"after{index}")
    return graph.model(["x"], [x])


def wide() -> bytes:
    """Four layers for 32 inputs at once: products that are worth a projection."""
    graph, x = Graph(), "x"
    for index in range(4):
        x = graph.layer(x, f"layer{index}")
    return graph.model(["x"], [x], rows=32)


def saturated() -> bytes:
    """Two layers and a Sigmoid on its left side: what it gives is a hundredth of what it is made of."""
    graph = Graph()
    x = graph.layer(graph.layer("x", "layer0"), "layer1")
    graph.weights.append(numpy_helper.from_array(np.array(4, np.float32), "away"))
    x = graph.node("Sub", [x, "away"], "logits")
    return graph.model(["x"], [graph.node("Sigmoid", [x], "chances")])


def normalised() -> bytes:
    """A layer, and a batch normalisation as opset 9 has it, with the momentum that only training needs."""
    graph, shape = Graph(), (1, 4, 8, 8)
    graph.weight("kernel", 4, 4, 3, 3)
    for name, value in (("scale", 1), ("bias", 0), ("mean", 0.3), ("variance", 2)):
        graph.weights.append(numpy_helper.from_array(np.full(4, value, np.float32), name))
    x = graph.node("Conv", ["x", "kernel"], "features", pads=[1, 1, 1, 1])
    graph.node(
        "BatchNormalization",
        [x, "scale", "bias", "mean", "variance"],
        "normalised",
        momentum=0.9,
        epsilon=1e-5,
    )
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "normalised")]
    body = helper.make_graph(graph.nodes, "test", ports[:1], ports[1:], graph.weights)
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


MODELS: dict[str, Callable[[], bytes]] = {
    made.__name__: made for made in (chain, residual, ports, shared, towers, branches, wide)
}
OTHERS: dict[str, Callable[[], bytes]] = {made.__name__: made for made in (saturated, normalised)}
"""For calibration alone: what half precision changes is not seen in each of their segments."""


SPECIFICATION = """
version = 1
post_processing = "none"
samples = "samples.json"

[inputs.x]
low = -1.0
high = 1.0
"""
"""What the author of such a model with one input writes into model.toml."""


def specification(inputs: Sequence[str]) -> Specification:
    return Specification(dict.fromkeys(inputs, (-1.0, 1.0)), PostProcessing.NONE, Path("none"))


@functools.cache
def pinned(name: str) -> Pinned:
    inputs = ["x", "mask"] if name in ("ports", "towers") else ["x"]
    return pin_replay(
        (MODELS | OTHERS)[name](), specification(inputs), name=name, runner=runner(), limits=LIMITS
    )


def entry(name: str) -> Entry:
    lock = pinned(name).lock
    return Entry(name, lock.model, None, lock, MODELS[name]())
